"""Softmax cross entropy of every pixel, parallel over rows of pixels, channels last."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from .. import checks
from .layout import channels_first, channels_last


@njit(cache=True, nogil=True, parallel=True)
def _forward(x, target, weight, ignore_index, losses, probabilities):
    N, H, W, C = x.shape
    for job in prange(N * H):
        n, h = divmod(np.int64(job), H)
        for w in range(W):
            logits, p = x[n, h, w], probabilities[n, h, w]
            largest = logits[0]
            for c in range(1, C):
                if not (logits[c] <= largest):  # a NaN among the logits stays, and makes the loss NaN
                    largest = logits[c]
            total = x.dtype.type(0)
            for c in range(C):
                p[c] = math.exp(logits[c] - largest)
                total += p[c]
            for c in range(C):
                p[c] /= total
            t = target[n, h, w]
            if t == ignore_index:
                losses[n, h, w] = 0
            else:
                losses[n, h, w] = weight[t] * (math.log(total) - (logits[t] - largest))


@njit(cache=True, nogil=True, parallel=True)
def _backward(dy, probabilities, target, weight, ignore_index, dx):
    N, H, W, C = probabilities.shape
    for job in prange(N * H):
        n, h = divmod(np.int64(job), H)
        for w in range(W):
            t = target[n, h, w]
            if t == ignore_index:
                dx[n, h, w, :] = 0
                continue
            factor = dy[n, h, w] * weight[t]
            for c in range(C):
                dx[n, h, w, c] = factor * probabilities[n, h, w, c]
            dx[n, h, w, t] = factor * (probabilities[n, h, w, t] - 1)


def _prepared(dtype, classes, target, weight) -> tuple[np.ndarray, np.ndarray]:
    """(target int64, weight of every class), C-contiguous."""
    weight = np.ones(classes, dtype) if weight is None else np.ascontiguousarray(weight)
    return np.ascontiguousarray(target, np.int64), weight


def cross_entropy_forward(x, target, weight=None, ignore_index=255):
    """See `reference.cross_entropy_forward`."""
    checks.same_dtype(x=x, weight=weight)
    checks.check_target(x.shape, target, weight, ignore_index)
    logits = channels_last(x)
    losses, probabilities = np.empty(logits.shape[:3], x.dtype), np.empty_like(logits)
    target, weight = _prepared(x.dtype, x.shape[1], target, weight)
    _forward(logits, target, weight, ignore_index, losses, probabilities)
    return losses, channels_first(probabilities)


def cross_entropy_backward_input(dy, probabilities, target, weight=None, ignore_index=255):
    """See `reference.cross_entropy_backward_input`."""
    checks.same_dtype(dy=dy, probabilities=probabilities, weight=weight)
    checks.check_target(probabilities.shape, target, weight, ignore_index)
    checks.expect_shape("dy", dy.shape, target.shape)
    last = channels_last(probabilities)
    dx = np.empty_like(last)
    target, weight = _prepared(dy.dtype, last.shape[3], target, weight)
    _backward(np.ascontiguousarray(dy), last, target, weight, ignore_index, dx)
    return channels_first(dx)
