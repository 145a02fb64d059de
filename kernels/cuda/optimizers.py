"""SGD and Adam in place, in whatever memory order the weights have."""

from __future__ import annotations

from .. import checks
from ..layout import in_one_order
from ..reference.optimizers import adam_numbers
from .launch import each, template

FILE = "optimizers.cu"


def sgd_step(on, w, g, velocity, lr, momentum=0.0, weight_decay=0.0, form="pytorch"):
    """See `reference.sgd_step`."""
    checks.check_sgd(w, g, velocity, form)
    rates = (lr, 1) if form == "caffe" else (1, lr)
    numbers = (w.dtype.type(value) for value in (momentum, weight_decay, *rates))
    each(on, FILE, template("sgd", w.dtype), w.size, *in_one_order(w, g, velocity=velocity), *numbers)


def adam_step(on, w, g, mean, square, lr, betas, eps, weight_decay, step, decoupled):
    """See `reference.adam_step`."""
    checks.check_adam(w, g, mean, square, step)
    arrays = in_one_order(w, g, mean=mean, square=square)
    numbers = adam_numbers(w.dtype, lr, betas, eps, weight_decay, step, decoupled)
    each(on, FILE, template("adam", w.dtype), w.size, *arrays, *numbers)
