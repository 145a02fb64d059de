"""The paper's experiments as commands: each a small file, a claim and a run that tests it.

`EXPERIMENTS` has them all by name, in the order of the paper's argument; `conduct` runs one; `document` writes the page
of all that was recorded.
"""

from . import iu_bound, shift_and_stitch, skips, trunk, whole_image
from .document import write_document
from .experiment import Experiment, Plan, Result, conduct, read

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT for module in (whole_image, shift_and_stitch, iu_bound, skips, trunk)
}

__all__ = ["EXPERIMENTS", "Experiment", "Plan", "Result", "conduct", "read", "write_document"]
