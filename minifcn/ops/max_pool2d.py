"""Maximum over windows.

Forward
    y[n,c,p,q] = max_{r,s} x[n,c,h,w],   h = p stride - pad + r dilation,  w = q stride - pad + s dilation,

    over the places inside the image: padding never wins. With ceil_mode the last window may hang over the edge
    and is clipped, but one that would start beyond the image and its leading padding is dropped.

Backward
    Near a point where one element of a window is largest, y is that element: its derivative is 1, that of all
    others 0. An element may win in several overlapping windows, and their gradients add up:

    dx[n,c,h,w] = sum over the windows (p,q) that (h,w) won of dy[n,c,p,q].

    In a tie there is no derivative; the first maximum in row-major order takes all, one of the subgradients. NaN
    wins over every number, so that it is seen at the output. The forward pass keeps which tap of its window won, as
    r S + s in one byte (on a GPU in two bits, where a window has at most four taps): with (p,q) it says which (h,w)
    that is.

Source
    Ranzato et al., 2007, "Unsupervised learning of invariant feature hierarchies"; Caffe's pooling layer (Jia et
    al., 2014) for ceil mode and ties.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor
from .conv2d import Size


class MaxPool2d(Op):
    """y [N, C, P, Q] of x [N, C, H, W]."""

    takes_bfloat16 = True

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        self.window = (kernel_size, stride, padding, dilation, ceil_mode)

    def forward(self, x: Any) -> Any:
        y, self.argmax = self.kernel("max_pool2d_forward")(x, *self.window)
        self.input_size = x.shape[2:]
        return y

    def backward(self, dy: Any) -> tuple[Any]:
        return (self.kernel("max_pool2d_backward_input")(dy, self.argmax, self.input_size, *self.window),)


def max_pool2d(
    x: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """Maximum of each window of x [N, C, H, W]: [N, C, P, Q]; `stride` None means `kernel_size`.

    Raises ShapeError where a window would hold no element of x, or has more than 256 taps.
    """
    return MaxPool2d(kernel_size, stride, padding, dilation, ceil_mode)(x)
