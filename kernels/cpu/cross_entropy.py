"""Softmax cross entropy of every pixel, channels last, by rows: the exponentials of a row are one run of memory."""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import checks, memory
from .exponentials import exponential, logarithm
from .layout import channels_first, channels_last, contiguous
from .threads import jobs, parts, run, share


@njit(cache=True, nogil=True, error_model="numpy")
def _forward(team, x, target, weight, ignore_index, losses, probabilities):
    rows, W, C = x.shape
    flat = probabilities.reshape(-1)
    for job in jobs(team):
        first, last = share(team, job, rows)
        for row in range(first, last):
            start = np.uintp(row * W * C)
            for w in range(W):
                largest = x[row, w, 0]
                for c in range(1, C):
                    if not (x[row, w, c] <= largest):  # a NaN among the logits stays, and makes the loss NaN
                        largest = x[row, w, c]
                for c in range(C):
                    probabilities[row, w, c] = x[row, w, c] - largest
                t = target[row, w]
                losses[row, w] = 0 if t == ignore_index else probabilities[row, w, t]
            for i in range(np.uintp(W * C)):
                flat[start + i] = exponential(flat[start + i])
            for w in range(W):
                total = x.dtype.type(0)
                for c in range(C):
                    total += probabilities[row, w, c]
                for c in range(C):
                    probabilities[row, w, c] /= total
                t = target[row, w]
                if t != ignore_index:
                    losses[row, w] = weight[t] * (logarithm(total) - losses[row, w])


@njit(cache=True, nogil=True)
def _backward(team, dy, probabilities, target, weight, ignore_index, dx):
    rows, W, C = probabilities.shape
    zero, one = dx.dtype.type(0), dx.dtype.type(1)
    for job in jobs(team):
        first, last = share(team, job, rows)
        for row in range(first, last):
            for w in range(W):
                t = target[row, w]
                if t == ignore_index:
                    for c in range(C):
                        dx[row, w, c] = zero
                    continue
                factor = dy[row, w] * weight[t]
                for c in range(C):
                    dx[row, w, c] = factor * probabilities[row, w, c]
                dx[row, w, t] = factor * (probabilities[row, w, t] - one)


def prepared(dtype, classes, target, weight) -> tuple[np.ndarray, np.ndarray]:
    """(target, its images' rows one after the other; weight of every class), C-contiguous.

    Labels are uint8, as pictures hold them, or else int64: kernels are compiled for both.
    """
    weight = np.ones(classes, dtype) if weight is None else np.ascontiguousarray(weight)
    return in_rows(np.ascontiguousarray(target, np.uint8 if target.dtype == np.uint8 else np.int64)), weight


def in_rows(array: np.ndarray) -> np.ndarray:
    """`array` [N, H, ...] as [N H, ...]: images do not matter, only rows."""
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def cross_entropy_forward(x, target, weight=None, ignore_index=255):
    """See `reference.cross_entropy_forward`."""
    checks.same_dtype(x=x, weight=weight)
    checks.check_target(x.shape, target, weight, ignore_index)
    logits = channels_last(x)
    losses, probabilities = memory.empty(target.shape, x.dtype), memory.empty(logits.shape, x.dtype)
    labels = prepared(x.dtype, x.shape[1], target, weight)
    run(_forward, parts(4 * x.size), in_rows(logits), *labels, ignore_index, in_rows(losses), in_rows(probabilities))
    return losses, channels_first(probabilities)


def cross_entropy_backward_input(dy, probabilities, target, weight=None, ignore_index=255):
    """See `reference.cross_entropy_backward_input`."""
    checks.same_dtype(dy=dy, probabilities=probabilities, weight=weight)
    checks.check_target(probabilities.shape, target, weight, ignore_index)
    checks.expect_shape("dy", dy.shape, target.shape)
    last = channels_last(probabilities)
    dx = memory.empty(last.shape, dy.dtype)
    labels = prepared(dy.dtype, last.shape[3], target, weight)
    run(
        _backward, parts(last.size), in_rows(contiguous(dy)), in_rows(last), *labels, ignore_index,
        in_rows(dx),
    )  # fmt: skip
    return channels_first(dx)
