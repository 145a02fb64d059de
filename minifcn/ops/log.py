"""Natural logarithm.

Forward
    y[i] = log(x[i])

Backward
    d y[i] / d x[i] = 1 / x[i], so dx[i] = dy[i] / x[i].

Source
    Derivative of an inverse function: x = exp(y), dx/dy = exp(y) = x.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor


class Log(Op):
    """y = log(x)."""

    def forward(self, x: Any) -> Any:
        self.x = x
        return self.device.xp.log(x)

    def backward(self, dy: Any) -> tuple[Any]:
        return (dy / self.x,)


def log(x: Tensor) -> Tensor:
    """Natural logarithm, elementwise."""
    return Log()(x)
