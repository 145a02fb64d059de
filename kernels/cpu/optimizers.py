"""SGD and Adam in place, one pass over memory, in whatever memory order the weights have."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from .. import checks
from ..layout import in_one_order
from ..reference.optimizers import adam_numbers
from .threads import jobs, parts, run, share


@njit(cache=True, nogil=True)
def _sgd(team, w, g, velocity, lr, momentum, weight_decay, rate_inside):
    one = w.dtype.type(1)
    inner, outer = (lr, one) if rate_inside else (one, lr)
    for job in jobs(team):
        first, last = share(team, job, w.size)
        for i in range(np.uintp(first), np.uintp(last)):
            velocity[i] = momentum * velocity[i] + inner * (g[i] + weight_decay * w[i])
            w[i] -= outer * velocity[i]


@njit(cache=True, nogil=True, error_model="numpy")  # a loop that may raise ZeroDivisionError has no vectors
def _adam(team, w, g, mean, square, lr, beta1, beta2, rest1, rest2, scale1, scale2, eps, weight_decay, decay_rate):
    for job in jobs(team):
        first, last = share(team, job, w.size)
        for i in range(np.uintp(first), np.uintp(last)):
            gradient = g[i] + weight_decay * w[i]
            mean[i] = beta1 * mean[i] + rest1 * gradient
            square[i] = beta2 * square[i] + rest2 * gradient * gradient
            step = lr * (mean[i] / scale1) / (math.sqrt(square[i] / scale2) + eps)
            w[i] = w[i] - decay_rate * w[i] - step


def sgd_step(w, g, velocity, lr, momentum=0.0, weight_decay=0.0, form="pytorch"):
    """See `reference.sgd_step`."""
    checks.check_sgd(w, g, velocity, form)
    numbers = (w.dtype.type(value) for value in (lr, momentum, weight_decay))
    run(_sgd, parts(w.size), *in_one_order(w, g, velocity=velocity), *numbers, form == "caffe")


def adam_step(w, g, mean, square, lr, betas, eps, weight_decay, step, decoupled):
    """See `reference.adam_step`."""
    checks.check_adam(w, g, mean, square, step)
    numbers = adam_numbers(w.dtype, lr, betas, eps, weight_decay, step, decoupled)
    run(_adam, parts(w.size), *in_one_order(w, g, mean=mean, square=square), *numbers)
