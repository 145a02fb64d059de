"""The same elements under another shape.

Forward
    y = x read in row-major order into the new shape

Backward
    Every element moves to one place, so its gradient moves back: dx = dy read into x's shape.

Source
    A permutation matrix is orthogonal: its adjoint is its inverse.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import memory
from ..tensor import Op, Tensor


class Reshape(Op):
    """y = x.reshape(shape)."""

    takes_bfloat16 = True

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x: Any) -> Any:
        self.x_shape = x.shape
        y = x.reshape(self.shape)
        if isinstance(x, np.ndarray) and not np.may_share_memory(x, y):
            memory.refuse_in_capture(f"the copy of a map {x.shape} as {self.shape}")
        return y

    def backward(self, dy: Any) -> tuple[Any]:
        return (dy.reshape(self.x_shape),)


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x under `shape`; one size may be -1."""
    return Reshape(shape)(x)
