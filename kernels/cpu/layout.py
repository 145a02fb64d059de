"""Memory order: fast kernels keep channels last, callers index [N, C, H, W].

An array indexed NCHW whose memory is NHWC is a transposed view, so that a network of such kernels never copies;
any other strides are copied once.
"""

from __future__ import annotations

import numpy as np


def channels_last(x: np.ndarray) -> np.ndarray:
    """x [N, C, H, W] as a C-contiguous array [N, H, W, C]: a view where the memory allows it."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def channels_first(x: np.ndarray) -> np.ndarray:
    """The view [N, C, H, W] of x [N, H, W, C]."""
    return x.transpose(0, 3, 1, 2)


def flat_views(*arrays: np.ndarray) -> tuple[tuple[int, ...], list[np.ndarray]]:
    """(axis order, 1-D C-contiguous arrays): all arrays in the memory order of the first one.

    They have one shape. What does not lie in that order is copied.
    """
    order = tuple(int(axis) for axis in np.argsort([-abs(stride) for stride in arrays[0].strides], kind="stable"))
    return order, [np.ascontiguousarray(array.transpose(order)).reshape(-1) for array in arrays]


def like(flat: np.ndarray, shape: tuple[int, ...], order: tuple[int, ...]) -> np.ndarray:
    """The array of `shape` whose memory `flat` holds in the axis order that `flat_views` gave."""
    return flat.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))
