"""Dropout from Philox4x32-10: the reference's words, four elements a thread.

The step of a key may be an array uint32 [1] of the device: in a graph, each replay then has the one that it holds.
"""

from __future__ import annotations

import numpy as np

from ..layout import channels_first, channels_last, contiguous
from ..reference.dropout import threshold
from ..storage import sums_in
from .launch import each, on_device, template
from .storage import same_storage


def dropout_forward(on, x, p, key):
    """See `reference.dropout_forward`."""
    same_storage(x=x)
    seed, step, layer = key
    if not isinstance(step, on.xp.ndarray):
        step = on_device(on, _counter, int(step) & 0xFFFFFFFF)[0]
    last = channels_last(x) if x.ndim == 4 else contiguous(x)
    y = on.xp.empty(last.shape, x.dtype)
    least, *words = (np.uint32(part & 0xFFFFFFFF) for part in (threshold(p), int(layer), int(seed), int(seed) >> 32))
    factor = sums_in(x.dtype).type(1 / (1 - p))
    arguments = (last.reshape(-1), y.reshape(-1), least, factor, step, *words, np.int64(x.size))
    each(on, "dropout.cu", template("dropout", x.dtype), -(-x.size // 4), *arguments)
    return channels_first(y) if x.ndim == 4 else y


def _counter(step: int) -> tuple[np.ndarray]:
    return (np.array([step], np.uint32),)


def dropout_backward_input(on, dy, p, key):
    """See `reference.dropout_backward_input`."""
    return dropout_forward(on, dy, p, key)
