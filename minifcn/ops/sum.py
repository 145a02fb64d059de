"""Sum over axes, and the mean built on it.

Forward
    y[j] = sum_i x[i, j], i over the axes that are summed away

Backward
    d y[j] / d x[i, j] = 1: every element of a sum receives the whole gradient of the sum,

    dx[i, j] = dy[j]   for all i,

    which is the adjoint of broadcasting. The mean over n elements is the sum times 1 / n.

Source
    Sum rule of differential calculus.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor
from .scale import scale

Axes = int | tuple[int, ...] | None


class Sum(Op):
    """y = x summed over `axis` (None: over all)."""

    def __init__(self, axis: Axes = None, keepdims: bool = False) -> None:
        self.axis, self.keepdims = axis, keepdims

    def forward(self, x: Any) -> Any:
        self.x_shape = x.shape
        return self.device.xp.asarray(x.sum(axis=self.axis, keepdims=self.keepdims))

    def backward(self, dy: Any) -> tuple[Any]:
        xp = self.device.xp
        if not self.keepdims and self.axis is not None:
            dy = xp.expand_dims(dy, self.axis)
        return (xp.broadcast_to(dy, self.x_shape),)


def sum(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Sum over `axis` (an axis, several, or None for all)."""
    return Sum(axis, keepdims)(x)


def mean(x: Tensor, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Mean over `axis` (an axis, several, or None for all)."""
    total = sum(x, axis, keepdims)
    return scale(total, total.size / x.size)
