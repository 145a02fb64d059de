"""Bilinear upsampling by an integer factor F: a transposed convolution of each channel with a fixed filter.

Forward
    y[n,c,p,q] = sum_{i,j} f[p + pad - F i] f[q + pad - F j] x[n,c,i,j],

    f[t] = 1 - |t - (R - 1)/2| / ceil(R/2) for 0 <= t < R = 2 F - F mod 2, else 0: a triangle of width 2 F, whose
    values at distance F apart add up to 1, so that a constant stays constant wherever two neighbours exist. Pixels
    at the edge see only one of them and are damped, as in the released FCN nets.

Backward
    y is linear in x: x[n,c,i,j] stands in all pixels of its window, each time beside two values of f,

    dx[n,c,i,j] = sum_{p,q} f[p + pad - F i] f[q + pad - F j] dy[n,c,p,q],

    a convolution of stride F with the same filter, the adjoint of the forward pass.

Source
    Long, Shelhamer and Darrell, 2015, section 3.3, and the BilinearFiller of Caffe (Jia et al., 2014).
"""

from __future__ import annotations

from typing import Any

from ..kernels import geometry
from ..tensor import Op, Tensor
from .conv2d import Size


class BilinearUpsample(Op):
    """y [N, C, P, Q] of x [N, C, H, W]."""

    def __init__(self, factor: Size, padding: Size) -> None:
        self.window = (factor, padding)

    def forward(self, x: Any) -> Any:
        self.input_size = x.shape[2:]
        return self.kernel("bilinear_upsample_forward")(x, *self.window)

    def backward(self, dy: Any) -> tuple[Any]:
        return (self.kernel("bilinear_upsample_backward_input")(dy, self.input_size, *self.window),)


def default_padding(factor: Size) -> tuple[int, int]:
    """The padding that leaves exactly F H x F W pixels."""
    vertical, horizontal = geometry.pair(factor, "factor", 1)
    return geometry.bilinear_padding(vertical), geometry.bilinear_padding(horizontal)


def bilinear_upsample(x: Tensor, factor: Size, padding: Size | None = None) -> Tensor:
    """x [N, C, H, W] upsampled by `factor`: [N, C, P, Q], P = F (H - 1) + R - 2 padding, R = 2 F - F mod 2.

    `padding` None is ceil((F - 1) / 2), which gives exactly P = F H; 0 keeps the whole border, as Caffe's nets do.
    """
    return BilinearUpsample(factor, default_padding(factor) if padding is None else padding)(x)
