"""Product of two tensors, with broadcasting.

Forward
    y[i] = a[i] b[i]

Backward
    d y[i] / d a[i] = b[i] and d y[i] / d b[i] = a[i]:

    da[i] = dy[i] b[i],   db[i] = dy[i] a[i],

    summed over the axes along which an input was repeated.

Source
    Product rule of differential calculus.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor
from .broadcasting import operands, unbroadcast


class Multiply(Op):
    """y = a b."""

    def forward(self, a: Any, b: Any) -> Any:
        self.a, self.b = a, b
        return a * b

    def backward(self, dy: Any) -> tuple[Any, Any]:
        da = unbroadcast(dy * self.b, self.a.shape) if self.wants(0) else None
        db = unbroadcast(dy * self.a, self.b.shape) if self.wants(1) else None
        return da, db


def multiply(a: Any, b: Any) -> Tensor:
    """a * b, elementwise with broadcasting; one of the two may be a number or an array."""
    return Multiply()(*operands(a, b))
