"""Dropout from Philox4x32-10: the reference's words, four elements a counter, parallel over counters."""

from __future__ import annotations

import numpy as np
from numba import njit, prange, uint32, uint64

from .. import checks
from ..reference.dropout import KEY_STEPS, MULTIPLIERS, ROUNDS, threshold
from .layout import channels_first, channels_last

M0, M1 = (np.uint64(m) for m in MULTIPLIERS)
STEP0, STEP1 = (np.uint32(step) for step in KEY_STEPS)
SHIFT = np.uint64(32)


@njit(cache=True, nogil=True)
def _philox(block, step, layer, key0, key1):
    """The four words of counter (block, step, layer) under the key."""
    x0, x1, x2, x3 = uint32(block), uint32(uint64(block) >> SHIFT), step, layer
    for _ in range(ROUNDS):
        product0, product1 = M0 * uint64(x0), M1 * uint64(x2)
        x0, x1, x2, x3 = (
            uint32(uint32(product1 >> SHIFT) ^ x1 ^ key0),
            uint32(product1),
            uint32(uint32(product0 >> SHIFT) ^ x3 ^ key1),
            uint32(product0),
        )
        key0, key1 = uint32(key0 + STEP0), uint32(key1 + STEP1)
    return x0, x1, x2, x3


@njit(cache=True, nogil=True, parallel=True)
def _dropout(x, least, factor, step, layer, key0, key1, y):
    for index in prange((x.size + 3) // 4):
        block = np.int64(index)
        words = _philox(uint64(block), step, layer, key0, key1)
        for lane in range(min(4, x.size - 4 * block)):
            i = 4 * block + lane
            y[i] = x[i] * factor if words[lane] >= least else 0


def dropout_forward(x, p, key):
    """See `reference.dropout_forward`."""
    checks.same_dtype(x=x)
    seed, step, layer = (int(part) for part in key)
    last = channels_last(x) if x.ndim == 4 else np.ascontiguousarray(x)
    y = np.empty_like(last)
    words = (part & 0xFFFFFFFF for part in (threshold(p), step, layer, seed, seed >> 32))
    least, *counters = (np.uint32(word) for word in words)
    _dropout(last.reshape(-1), least, x.dtype.type(1 / (1 - p)), *counters, y.reshape(-1))
    return channels_first(y) if x.ndim == 4 else y.reshape(x.shape)


def dropout_backward_input(dy, p, key):
    """See `reference.dropout_backward_input`."""
    return dropout_forward(dy, p, key)
