"""A tensor times a fixed number, as FCN-8s-at-once scales its pooling features.

Forward
    y[i] = f x[i]

Backward
    d y[i] / d x[i] = f, so dx[i] = f dy[i]. The map is linear and its own adjoint.

Source
    Shelhamer, Long and Darrell, 2017, "Fully Convolutional Networks for Semantic Segmentation" (PAMI),
    section 4.3, all-at-once training: fixed scales on the skip features.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor


class Scale(Op):
    """y = factor x."""

    takes_bfloat16 = True

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def forward(self, x: Any) -> Any:
        return self.kernel("scale_forward")(x, self.factor)

    def backward(self, dy: Any) -> tuple[Any]:
        return (self.kernel("scale_forward")(dy, self.factor),)


def scale(x: Tensor, factor: float) -> Tensor:
    """factor * x, for a number `factor` that is not trained."""
    return Scale(factor)(x)
