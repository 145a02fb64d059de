"""Tables of `geometry` as arrays, for kernels that read places and weights instead of computing them."""

from __future__ import annotations

import functools

import numpy as np

from . import geometry


@functools.lru_cache(maxsize=64)
def reach(size: int, out: int, factor: int, shift: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """`geometry.bilinear_reach` as arrays: the places k [out] and the weights a, b [out, 2]."""
    table = geometry.bilinear_reach(size, out, factor, shift)
    return np.array([k for k, _, _ in table], np.int64), np.array([weights for _, *weights in table], dtype)


def reaches(geo, top: int, left: int, size: tuple[int, int], dtype) -> tuple[np.ndarray, ...]:
    """`reach` of rows and columns, for the window at (top, left) of `size` of the upsampled map."""
    rows = reach(geo.H, size[0], geo.factor[0], geo.padding[0] + top, dtype)
    return (*rows, *reach(geo.W, size[1], geo.factor[1], geo.padding[1] + left, dtype))


def intervals(rows: np.ndarray, coarse: int) -> np.ndarray:
    """The first output row of every interval k between the coarse rows k - 1 and k, 0 <= k <= coarse, and the end."""
    return np.searchsorted(rows, np.arange(coarse + 2))
