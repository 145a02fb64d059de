"""Skip fusion: a feature map plus the aligned window of a larger one.

Forward
    y[n,c,p,q] = x[n,c,p,q] + skip[n,c, p + top, q + left],   (top, left) the offset of the window

Backward
    A sum passes its gradient to both terms, and a crop pads it with zeros:

    dx = dy,   dskip[n,c,h,w] = dy[n,c, h - top, w - left] inside the window, 0 outside.

Source
    Long, Shelhamer and Darrell, 2015, section 4.2 and figure 3. The offset that aligns the two maps comes from
    their coordinate maps (`minifcn.kernels.geometry.crop_offset`).
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor
from .conv2d import Size


class CropSum(Op):
    """y [N, C, H, W] = x + the window of skip [N, C, H', W'] at `offset`."""

    takes_bfloat16 = True

    def __init__(self, offset: Size = 0) -> None:
        self.offset = offset

    def forward(self, x: Any, skip: Any) -> Any:
        self.skip_size = skip.shape[2:]
        return self.kernel("crop_sum_forward")(x, skip, self.offset)

    def backward(self, dy: Any) -> tuple[Any, Any]:
        dskip = self.kernel("crop_backward_input")(dy, self.offset, self.skip_size) if self.wants(1) else None
        return dy, dskip


def crop_sum(x: Tensor, skip: Tensor, offset: Size = 0) -> Tensor:
    """x [N, C, H, W] + skip[:, :, top : top + H, left : left + W], `offset` = top and left.

    Raises ShapeError where the window does not fit into `skip`, or the channels differ.
    """
    return CropSum(offset)(x, skip)
