"""A window cut out of a feature map.

Forward
    y[n,c,p,q] = x[n,c, p + top, q + left],   (top, left) the offset of the window

Backward
    Every pixel of the window is copied once, every other pixel is not used:

    dx[n,c,h,w] = dy[n,c, h - top, w - left] inside the window, 0 outside.

    The adjoint of cropping is padding with zeros.

Source
    Long, Shelhamer and Darrell, 2015; the Crop layer of Caffe (Jia et al., 2014).
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor
from .conv2d import Size


class Crop(Op):
    """y [N, C, P, Q] = the window of x [N, C, H, W] at `offset`."""

    takes_bfloat16 = True

    def __init__(self, offset: Size, size: tuple[int, int]) -> None:
        self.offset, self.size = offset, size

    def forward(self, x: Any) -> Any:
        self.input_size = x.shape[2:]
        return self.kernel("crop_forward")(x, self.offset, self.size)

    def backward(self, dy: Any) -> tuple[Any]:
        return (self.kernel("crop_backward_input")(dy, self.offset, self.input_size),)


def crop(x: Tensor, offset: Size, size: tuple[int, int]) -> Tensor:
    """The window of x [N, C, H, W] at `offset` (top and left, >= 0) of `size` (P, Q): [N, C, P, Q].

    Raises ShapeError where the window does not fit into x.
    """
    return Crop(offset, size)(x)
