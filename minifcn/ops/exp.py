"""Exponential.

Forward
    y[i] = exp(x[i])

Backward
    d y[i] / d x[i] = exp(x[i]) = y[i], so dx[i] = dy[i] y[i].

Source
    The exponential function is its own derivative.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor


class Exp(Op):
    """y = exp(x)."""

    def forward(self, x: Any) -> Any:
        self.y = self.device.xp.exp(x)
        return self.y

    def backward(self, dy: Any) -> tuple[Any]:
        return (dy * self.y,)


def exp(x: Tensor) -> Tensor:
    """exp(x), elementwise."""
    return Exp()(x)
