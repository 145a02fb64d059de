"""Quotient of two tensors, with broadcasting.

Forward
    y[i] = a[i] / b[i]

Backward
    d y[i] / d a[i] = 1 / b[i] and d y[i] / d b[i] = -a[i] / b[i]^2 = -y[i] / b[i]:

    da[i] = dy[i] / b[i],   db[i] = -dy[i] y[i] / b[i],

    summed over the axes along which an input was repeated.

Source
    Quotient rule of differential calculus.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor
from .broadcasting import operands, unbroadcast


class Divide(Op):
    """y = a / b."""

    def forward(self, a: Any, b: Any) -> Any:
        self.a_shape, self.b, self.y = a.shape, b, a / b
        return self.y

    def backward(self, dy: Any) -> tuple[Any, Any]:
        da = dy / self.b
        db = unbroadcast(-da * self.y, self.b.shape) if self.wants(1) else None
        return unbroadcast(da, self.a_shape), db


def divide(a: Any, b: Any) -> Tensor:
    """a / b, elementwise with broadcasting; one of the two may be a number or an array."""
    return Divide()(*operands(a, b))
