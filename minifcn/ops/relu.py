"""Rectified linear unit.

Forward
    y[i] = max(x[i], 0)

Backward
    d y[i] / d x[i] = 1 where x[i] > 0 and 0 where x[i] < 0, so

    dx[i] = dy[i] if y[i] > 0, else 0.

    At x[i] = 0 there is no derivative; 0 is taken, one of the subgradients. The output tells the two branches
    apart, so that the input need not be kept. NaN passes in both directions: it must not turn into a number.

Source
    Nair and Hinton, 2010, "Rectified linear units improve restricted Boltzmann machines"; Glorot, Bordes and
    Bengio, 2011, "Deep sparse rectifier neural networks".
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor


class ReLU(Op):
    """y = max(x, 0)."""

    takes_bfloat16 = True

    def forward(self, x: Any) -> Any:
        self.y = self.kernel("relu_forward")(x)
        return self.y

    def backward(self, dy: Any) -> tuple[Any]:
        return (self.kernel("relu_backward_input")(dy, self.y),)


def relu(x: Tensor) -> Tensor:
    """max(x, 0), elementwise; any shape."""
    return ReLU()(x)
