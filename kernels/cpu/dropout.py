"""Dropout from Philox4x32-10: the reference's words, four elements a counter.

The step of a key may be an array uint32 [1]: in a graph, each replay then has the one that it holds.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import checks, memory
from ..reference.dropout import KEY_STEPS, MULTIPLIERS, ROUNDS, threshold
from .layout import channels_first, channels_last
from .threads import jobs, parts, run, share

M0, M1 = (np.uint64(m) for m in MULTIPLIERS)
STEP0, STEP1 = (np.uint64(step) for step in KEY_STEPS)
LOWER = 0xFFFFFFFF
LOW, SHIFT = np.uint64(LOWER), np.uint64(32)


@njit(cache=True, nogil=True)
def _philox(block, step, layer, key0, key1):
    """The four words of counter (block, step, layer) under the key, all as uint64.

    Between the rounds only the lower halves count, so that no vector has to change its width.
    """
    x0, x1, x2, x3 = block, block >> SHIFT, step, layer
    for _ in range(ROUNDS):
        product0, product1 = M0 * (x0 & LOW), M1 * (x2 & LOW)
        x0, x1, x2, x3 = (product1 >> SHIFT) ^ x1 ^ key0, product1, (product0 >> SHIFT) ^ x3 ^ key1, product0
        key0, key1 = key0 + STEP0, key1 + STEP1
    return x0 & LOW, x1 & LOW, x2 & LOW, x3 & LOW


@njit(cache=True, nogil=True)
def _dropout(team, x, least, factor, counter, layer, key0, key1, y):
    step = np.uint64(counter[0])
    zero, whole = x.dtype.type(0), x.size // 4
    for job in jobs(team):
        first, last = share(team, job, whole)
        for block in range(np.uintp(first), np.uintp(last)):
            u0, u1, u2, u3 = _philox(block, step, layer, key0, key1)
            i = np.uintp(4) * block
            y[i] = x[i] * factor if u0 >= least else zero
            y[i + np.uintp(1)] = x[i + np.uintp(1)] * factor if u1 >= least else zero
            y[i + np.uintp(2)] = x[i + np.uintp(2)] * factor if u2 >= least else zero
            y[i + np.uintp(3)] = x[i + np.uintp(3)] * factor if u3 >= least else zero
        if job == 0:
            words = _philox(np.uint64(whole), step, layer, key0, key1)
            for i in range(4 * whole, x.size):
                y[i] = x[i] * factor if words[i - 4 * whole] >= least else zero


def dropout_forward(x, p, key):
    """See `reference.dropout_forward`."""
    checks.same_dtype(x=x)
    seed, step, layer = key
    counter = step if isinstance(step, np.ndarray) else np.array([int(step) & LOWER], np.uint32)
    last = channels_last(x) if x.ndim == 4 else np.ascontiguousarray(x)
    y = memory.empty(last.shape, x.dtype)
    least, *words = (np.uint64(part & LOWER) for part in (threshold(p), int(layer), int(seed), int(seed) >> 32))
    factor = x.dtype.type(1 / (1 - p))
    run(_dropout, parts(x.size), last.reshape(-1), least, factor, counter, *words, y.reshape(-1))
    return channels_first(y) if x.ndim == 4 else y.reshape(x.shape)


def dropout_backward_input(dy, p, key):
    """See `reference.dropout_backward_input`."""
    return dropout_forward(dy, p, key)
