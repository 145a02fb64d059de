"""Dropout from Philox4x32-10: the reference's words, four elements a thread."""

from __future__ import annotations

import numpy as np

from ..layout import channels_first, channels_last, contiguous
from ..reference.dropout import threshold
from ..storage import sums_in
from .launch import each, template
from .storage import same_storage


def dropout_forward(on, x, p, key):
    """See `reference.dropout_forward`."""
    same_storage(x=x)
    seed, step, layer = (int(part) for part in key)
    last = channels_last(x) if x.ndim == 4 else contiguous(x)
    y = on.xp.empty(last.shape, x.dtype)
    least, *counters = (
        np.uint32(part & 0xFFFFFFFF) for part in (threshold(p), step, layer, seed, seed >> 32)
    )  # fmt: skip
    factor = sums_in(x.dtype).type(1 / (1 - p))
    arguments = (last.reshape(-1), y.reshape(-1), least, factor, *counters, np.int64(x.size))
    each(on, "dropout.cu", template("dropout", x.dtype), -(-x.size // 4), *arguments)
    return channels_first(y) if x.ndim == 4 else y


def dropout_backward_input(on, dy, p, key):
    """See `reference.dropout_backward_input`."""
    return dropout_forward(on, dy, p, key)
