"""Convolution, ReLU and 2 x 2 max pooling in one op: the full-size output is never stored.

Forward
    y[n,k,i,j] = max_{r,s in {0,1}} max(z[n,k,2i+r,2j+s], 0),   z = the convolution of x with w, plus b,

    over the places inside z: with ceil_mode the last window may hang over the edge (`ops/conv2d.py`,
    `ops/max_pool2d.py`).

    max(., 0) never puts a smaller number above a larger one, so it may come first or last: y = max(max_{r,s} z, 0).

    Beside y the forward pass keeps one bit for each element of z: m[n,k,p,q] = 1 where it let its window's gradient
    pass, because ReLU lets it pass and it won its window. An element above 0 is what ReLU leaves it, so among them the
    first maximum of z in row-major order is the first maximum of max(z, 0); where all of a window are <= 0, ReLU lets
    none pass, and it does not matter which of the zeros wins. NaN passes ReLU and wins over numbers, the first one of a
    window, whether ReLU is applied before or after. So the bits of the two ops (`ops/conv2d_relu.py`,
    `ops/max_pool2d.py`), one after the other, are those of this one, and results and gradients are equal.

Backward
    The windows do not overlap: each pixel (p,q) is in one, (p div 2, q div 2), if it is in any. The pooling sends
    dy of a window to its winner, and ReLU passes it on where z > 0:

    dz[n,k,p,q] = m[n,k,p,q] dy[n,k, p div 2, q div 2],

    and dx, dw and db are the convolution's (`ops/conv2d.py`) of dz. The product is formed where dy is read; dz is not
    stored either.

    Where a user has replaced a kernel of one of the parts by one of his own, they are computed one after the other, so
    that his kernel is the one that runs.

Source
    As for the three parts.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor
from .conv2d import Size
from .conv2d_relu import FUSED as WITH_RELU
from .conv2d_relu import PARTS as OF_BOTH
from .conv2d_relu import Conv2dReLU
from .max_pool2d import MaxPool2d

FUSED = ("conv2d_relu_max_pool2d_forward", "conv2d_relu_max_pool2d_backward")
PARTS = (*WITH_RELU, *OF_BOTH, "max_pool2d_forward", "max_pool2d_backward_input")


class Conv2dReLUMaxPool2d(Op):
    """y = max_pool2d(max(conv2d(x, w, b), 0), 2) of x [N, C, H, W], w [K, C/groups, R, S] and b [K] or None."""

    owns_gradients = takes_bfloat16 = True

    def __init__(
        self, stride: Size = 1, padding: Size = 0, dilation: Size = 1, groups: int = 1, ceil_mode: bool = False
    ) -> None:
        self.window = (stride, padding, dilation, groups, ceil_mode)

    def forward(self, x: Any, w: Any, b: Any = None) -> Any:
        self.parts = None
        if self.device.is_replaced(*PARTS) and not self.device.is_replaced(*FUSED):
            *window, ceil_mode = self.window
            self.parts = Conv2dReLU(*window).on(self.device), MaxPool2d(2, ceil_mode=ceil_mode).on(self.device)
            self.parts[0].needs = self.needs
            return self.parts[1].forward(self.parts[0].forward(x, w, b))
        self.x, self.w, self.has_bias = x, w, b is not None
        y, self.mask = self.kernel("conv2d_relu_max_pool2d_forward")(x, w, b, *self.window)
        return y

    def backward(self, dy: Any) -> tuple[Any, Any, Any]:
        if self.parts is not None:
            return self.parts[0].backward(*self.parts[1].backward(dy))
        needs = (self.wants(0), self.wants(1), self.has_bias and self.wants(2))
        return self.kernel("conv2d_relu_max_pool2d_backward")(dy, self.mask, self.x, self.w, *self.window, needs)


def conv2d_relu_max_pool2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """`max_pool2d(relu(conv2d(x, weight, bias, ...)), 2, ceil_mode=ceil_mode)` in one pass; arguments as of the two.

    Raises ShapeError where a window would hold no element.
    """
    return Conv2dReLUMaxPool2d(stride, padding, dilation, groups, ceil_mode)(x, weight, bias)
