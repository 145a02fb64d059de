"""The paper's experiments as commands: each a small file, a claim and a run that tests it.

`EXPERIMENTS` has them all by name, in the order of the paper's argument; `conduct` runs one; `document` writes the page
of all that was recorded.
"""

from . import (
    crops,
    deconv,
    geometry,
    iu_bound,
    loss_sampling,
    momentum,
    shift_and_stitch,
    skips,
    trunk,
    whole_image,
)
from .document import write_document
from .experiment import Experiment, Plan, Result, conduct, read

MODULES = (
    whole_image,
    shift_and_stitch,
    loss_sampling,
    iu_bound,
    skips,
    deconv,
    momentum,
    crops,
    geometry,
    trunk,
)
EXPERIMENTS: dict[str, Experiment] = {module.EXPERIMENT.name: module.EXPERIMENT for module in MODULES}

__all__ = ["EXPERIMENTS", "Experiment", "Plan", "Result", "conduct", "read", "write_document"]
