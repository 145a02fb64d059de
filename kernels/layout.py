"""Memory order: fast kernels keep channels last, callers index [N, C, H, W].

An array indexed NCHW whose memory is NHWC is a transposed view, so that a network of such kernels never copies;
any other strides are copied once. Arrays may be NumPy's or CuPy's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from . import memory
from .checks import ShapeError


def contiguous(x: Any) -> Any:
    """x in C-contiguous memory: itself, where it is."""
    if x.flags.c_contiguous:
        return x
    memory.refuse_in_capture(f"bringing an array {tuple(x.shape)} with strides {x.strides} into order")
    return x.copy(order="C")


def channels_last(x: Any) -> Any:
    """x [N, C, H, W] as a C-contiguous array [N, H, W, C]: a view where the memory allows it."""
    return contiguous(x.transpose(0, 2, 3, 1))


def channels_first(x: Any) -> Any:
    """The view [N, C, H, W] of x [N, H, W, C]."""
    return x.transpose(0, 3, 1, 2)


FEW_TAPS = 4  # of a window whose winner is two bits


def packed_winners(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape [N, P, Q, ceil(C/4)] of two bits for each of [N, C, P, Q], four channels a byte."""
    N, C, P, Q = shape
    return (N, P, Q, -(-C // 4))


def is_packed(argmax: Any, geo: Any) -> bool:
    """Whether argmax holds two bits for each window of the pooling `geo`."""
    return geo.R * geo.S <= FEW_TAPS and argmax.shape == packed_winners(geo.y_shape) != geo.y_shape


def tap_numbers(argmax: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 [N, C, P, Q] = `shape`: the numbers that max_pool2d_forward gave, unpacked where they are two bits each."""
    if argmax.shape == shape:
        return argmax
    bits = argmax[..., None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3
    return channels_first(bits.reshape(*argmax.shape[:3], 4 * argmax.shape[3])[..., : shape[1]])


@lru_cache(maxsize=1024)
def axis_order(strides: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of an array with these strides, the one with the longest steps first."""
    return tuple(sorted(range(len(strides)), key=lambda axis: -abs(strides[axis])))


def flat_views(*arrays: Any) -> tuple[tuple[int, ...], list[Any]]:
    """(axis order, 1-D C-contiguous arrays): all arrays in the memory order of the first one.

    They have one shape. What does not lie in that order is copied.
    """
    order = axis_order(arrays[0].strides)
    return order, [contiguous(array.transpose(order)).reshape(-1) for array in arrays]


def like(flat: Any, shape: tuple[int, ...], order: tuple[int, ...]) -> Any:
    """The array of `shape` whose memory `flat` holds in the axis order that `flat_views` gave."""
    return flat.reshape([shape[axis] for axis in order]).transpose([int(axis) for axis in np.argsort(order)])


def in_one_order(w: Any, g: Any, **state: Any) -> list[Any]:
    """w, g and `state` as 1-D arrays in the memory order of w; all but g are views that write through.

    Raises ShapeError for one that is not dense in that order.
    """
    order = axis_order(w.strides)

    def in_place(name: str, array: Any) -> Any:
        ordered = array.transpose(order)
        if not ordered.flags.c_contiguous:
            raise ShapeError(f"{name} must be dense in memory, in the axis order of w, to be updated in place")
        return ordered.reshape(-1)

    gradient = contiguous(g.transpose(order)).reshape(-1)
    return [in_place("w", w), gradient, *(in_place(name, array) for name, array in state.items())]
