"""Average over windows.

Forward
    y[n,c,p,q] = 1/m[p,q] sum_{r,s} x[n,c, p stride - pad + r, q stride - pad + s],   x = 0 outside the image.

    m[p,q] is the number of elements of the window after clipping it to the padded image (count_include_pad, Caffe's
    rule), or to the image itself.

Backward
    y is linear in x, and every x in a window has the factor 1/m there:

    dx[n,c,h,w] = sum over the windows (p,q) that hold (h,w) of dy[n,c,p,q] / m[p,q].

Source
    LeCun et al., 1998, "Gradient-based learning applied to document recognition" (subsampling layers); Caffe's
    pooling layer (Jia et al., 2014) for the divisor.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor
from .conv2d import Size


class AvgPool2d(Op):
    """y [N, C, P, Q] of x [N, C, H, W]."""

    takes_bfloat16 = True

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.window = (kernel_size, stride, padding, ceil_mode, count_include_pad)

    def forward(self, x: Any) -> Any:
        self.input_size = x.shape[2:]
        return self.kernel("avg_pool2d_forward")(x, *self.window)

    def backward(self, dy: Any) -> tuple[Any]:
        return (self.kernel("avg_pool2d_backward_input")(dy, self.input_size, *self.window),)


def avg_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean of each window of x [N, C, H, W]: [N, C, P, Q]; `stride` None means `kernel_size`."""
    return AvgPool2d(kernel_size, stride, padding, ceil_mode, count_include_pad)(x)
