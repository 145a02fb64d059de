"""A tensor to the power of a fixed number.

Forward
    y[i] = x[i]^e

Backward
    d y[i] / d x[i] = e x[i]^(e - 1), so dx[i] = dy[i] e x[i]^(e - 1).

Source
    Power rule of differential calculus.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor


class Power(Op):
    """y = x ** exponent."""

    def __init__(self, exponent: float) -> None:
        self.exponent = exponent

    def forward(self, x: Any) -> Any:
        self.x = x
        return x**self.exponent

    def backward(self, dy: Any) -> tuple[Any]:
        return (dy * self.exponent * self.x ** (self.exponent - 1),)


def power(x: Tensor, exponent: float) -> Tensor:
    """x ** exponent, elementwise, for a Python number `exponent`."""
    return Power(exponent)(x)
