"""SGD and Adam in place, one pass over memory, parallel over elements."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from .. import checks


@njit(cache=True, nogil=True, parallel=True)
def _sgd(w, g, velocity, lr, momentum, weight_decay, rate_inside):
    for i in prange(w.size):
        gradient = g[i] + weight_decay * w[i]
        if rate_inside:
            velocity[i] = momentum * velocity[i] + lr * gradient
            w[i] -= velocity[i]
        else:
            velocity[i] = momentum * velocity[i] + gradient
            w[i] -= lr * velocity[i]


@njit(cache=True, nogil=True, parallel=True)
def _adam(w, g, mean, square, lr, beta1, beta2, rest1, rest2, scale1, scale2, eps, weight_decay, decay_rate):
    for i in prange(w.size):
        gradient = g[i] + weight_decay * w[i]
        w[i] -= decay_rate * w[i]
        mean[i] = beta1 * mean[i] + rest1 * gradient
        square[i] = beta2 * square[i] + rest2 * gradient * gradient
        w[i] -= lr * (mean[i] / scale1) / (math.sqrt(square[i] / scale2) + eps)


def _in_place(name: str, array: np.ndarray) -> np.ndarray:
    """`array` as a 1-D view that writes through."""
    if not array.flags.c_contiguous:
        raise checks.ShapeError(f"{name} must be C-contiguous to be updated in place")
    return array.reshape(-1)


def sgd_step(w, g, velocity, lr, momentum=0.0, weight_decay=0.0, form="pytorch"):
    """See `reference.sgd_step`."""
    checks.check_sgd(w, g, velocity, form)
    number = w.dtype.type
    _sgd(
        _in_place("w", w), np.ascontiguousarray(g).reshape(-1), _in_place("velocity", velocity),
        number(lr), number(momentum), number(weight_decay), form == "caffe",
    )  # fmt: skip


def adam_step(w, g, mean, square, lr, betas, eps, weight_decay, step, decoupled):
    """See `reference.adam_step`."""
    checks.check_adam(w, g, mean, square, step)
    (beta1, beta2), decay = betas, weight_decay
    numbers = (lr, beta1, beta2, 1 - beta1, 1 - beta2, 1 - beta1**step, 1 - beta2**step, eps)
    decays = (0, lr * decay) if decoupled else (decay, 0)
    _adam(
        _in_place("w", w), np.ascontiguousarray(g).reshape(-1), _in_place("mean", mean),
        _in_place("square", square), *(w.dtype.type(value) for value in (*numbers, *decays)),
    )  # fmt: skip
