"""Every network by the name that settings and checkpoints call it."""

from __future__ import annotations

from typing import Any

from . import checks
from .classifier import Classifier
from .fcn import FCN, MODELS

NETWORKS = {**MODELS, "classifier": Classifier}


def build(model: str, **settings: Any) -> FCN | Classifier:
    """The network `model`: one of MODELS ("fcn32s", "fcn16s", "fcn8s", "fcn8s-at-once"), or "classifier".

    `settings` as of FCN or Classifier. Raises MinifcnError for one out of range.
    """
    checks.one_of("model", model, NETWORKS)
    return NETWORKS[model](**settings)
