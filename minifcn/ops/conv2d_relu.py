"""Convolution and ReLU in one op: the output is written once, and one bit an element is kept for the way back.

Forward
    y[n,k,p,q] = max(z[n,k,p,q], 0),   z = the convolution of x with w, plus b (`ops/conv2d.py`).

    Beside y the forward pass keeps the mask m[n,k,p,q] = [z[n,k,p,q] > 0], one bit an element. (NaN counts as passing,
    as in `ops/relu.py`.) y itself is the next layer's to keep, if it needs it.

Backward
    The chain rule through ReLU is a product with the mask (`ops/relu.py`):

    dz[n,k,p,q] = m[n,k,p,q] dy[n,k,p,q],

    and dx, dw and db are the convolution's (`ops/conv2d.py`) of dz. The product is formed where dy is read; dz is never
    stored.

    Where a user has replaced a kernel of the convolution or of ReLU by one of his own, the two are computed one after
    the other, so that his kernel is the one that runs.

Source
    As for the two; the mask of one bit is that of cuDNN's and oneDNN's fused layers (Chetlur et al., 2014, "cuDNN:
    Efficient primitives for deep learning").
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor
from .conv2d import Conv2d, Size
from .relu import ReLU

FUSED = ("conv2d_relu_forward", "conv2d_relu_backward")
PARTS = (
    "conv2d_forward",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "conv2d_backward_bias",
    "relu_forward",
    "relu_backward_input",
)


class Conv2dReLU(Op):
    """y = max(conv2d(x, w, b), 0): [N, K, P, Q] of x [N, C, H, W], w [K, C/groups, R, S] and b [K] or None."""

    owns_gradients = takes_bfloat16 = True

    def __init__(self, stride: Size = 1, padding: Size = 0, dilation: Size = 1, groups: int = 1) -> None:
        self.window = (stride, padding, dilation, groups)

    def forward(self, x: Any, w: Any, b: Any = None) -> Any:
        self.parts = None
        if self.device.is_replaced(*PARTS) and not self.device.is_replaced(*FUSED):
            self.parts = Conv2d(*self.window).on(self.device), ReLU().on(self.device)
            self.parts[0].needs = self.needs
            return self.parts[1].forward(self.parts[0].forward(x, w, b))
        self.x, self.w, self.has_bias = x, w, b is not None
        y, self.mask = self.kernel("conv2d_relu_forward")(x, w, b, *self.window)
        return y

    def backward(self, dy: Any) -> tuple[Any, Any, Any]:
        if self.parts is not None:
            return self.parts[0].backward(*self.parts[1].backward(dy))
        needs = (self.wants(0), self.wants(1), self.has_bias and self.wants(2))
        return self.kernel("conv2d_relu_backward")(dy, self.mask, self.x, self.w, *self.window, needs)


def conv2d_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """`relu(conv2d(x, weight, bias, stride, padding, dilation, groups))` in one pass; arguments as of `conv2d`."""
    return Conv2dReLU(stride, padding, dilation, groups)(x, weight, bias)
