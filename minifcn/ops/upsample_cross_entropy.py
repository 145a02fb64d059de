"""Bilinear upsampling, crop and softmax cross entropy in one op: the full-size logits of a loss are never stored.

Forward
    With coarse scores x[n,c,i,j], the filter f of `ops/bilinear_upsample.py` for the factor F, and (top,left) the
    offset of the window that the labels cover, the logits of pixel (p,q) are

    z[n,c,p,q] = sum_{i,j} f[p + top + pad - F i] f[q + left + pad - F j] x[n,c,i,j],

    l[n,p,q] = weight[t] (log sum_j exp(z[n,j,p,q]) - z[n,t,p,q]),   t = target[n,p,q],

    l = 0 where t is the ignored label, and L is l reduced as in `ops/cross_entropy.py`. All z of one pixel come from
    four coarse pixels: they are computed where they are used, and forgotten.

Backward
    Three chain rules, from the loss down. Through softmax and logarithm (`ops/cross_entropy.py`):

    dz[n,c,p,q] = dl[n,p,q] weight[t] (p_c - [c = t]),   p_c = exp(z[n,c,p,q]) / sum_j exp(z[n,j,p,q]),

    and dz = 0 at ignored pixels. The crop's adjoint puts dz at (p + top, q + left) of the full map and 0 elsewhere, so
    that only the window's pixels are left in the sum of the upsampling's adjoint (`ops/bilinear_upsample.py`):

    dx[n,c,i,j] = sum_{p,q} f[p + top + pad - F i] f[q + left + pad - F j] dz[n,c,p,q].

    Nothing is kept between the passes but x and the labels: p is computed again from x, which takes less time than to
    read it from memory.

Source
    Long, Shelhamer and Darrell, 2015, sections 3.3 and 3.4; Bridle, 1990, for softmax and its gradient.
"""

from __future__ import annotations

from typing import Any

from ..kernels.storage import sums_in
from ..tensor import Op, Tensor
from .bilinear_upsample import default_padding
from .conv2d import Size
from .cross_entropy import IGNORE_INDEX, Labels


class UpsampleCrossEntropy(Op):
    """Loss (a scalar, or [N, P, Q] for "none") of coarse logits [N, C, H, W], upsampled, against `labels`."""

    takes_bfloat16 = True

    def __init__(self, labels: Labels, factor: Size, padding: Size, offset: Size) -> None:
        self.labels, self.window = labels, (factor, padding, offset)

    def forward(self, x: Any) -> Any:
        self.x = x
        self.arguments = (*self.labels.on(self.device, sums_in(x.dtype)), *self.window)
        return self.labels.reduced(self.kernel("upsample_cross_entropy_forward")(x, *self.arguments))

    def backward(self, dy: Any) -> tuple[Any]:
        return (self.kernel("upsample_cross_entropy_backward_input")(self.labels.spread(dy), self.x, *self.arguments),)


def upsample_cross_entropy(
    x: Tensor,
    target: Any,
    factor: Size,
    padding: Size | None = None,
    offset: Size = 0,
    weight: Any = None,
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
) -> Tensor:
    """`cross_entropy(crop(bilinear_upsample(x, factor, padding), offset, (P, Q)), target, ...)` in one pass.

    x [N, C, H, W], `target` [N, P, Q] an array or Tensor of integers; `weight`, `ignore_index` and `reduction` as of
    `cross_entropy`, `factor` and `padding` as of `bilinear_upsample`, `offset` as of `crop`. Raises ShapeError where
    the window does not fit into the upsampled map, and for a label that is neither a class nor ignored.
    """
    padding = default_padding(factor) if padding is None else padding
    return UpsampleCrossEntropy(Labels(target, weight, ignore_index, reduction), factor, padding, offset)(x)
