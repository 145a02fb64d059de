"""Bilinear upsampling by an integer factor F: a transposed convolution of each channel with a fixed filter.

Forward
    y[n,c,p,q] = sum_{i,j} f[p + pad - F i] f[q + pad - F j] x[n,c,i,j],

    f[t] = 1 - |t - (R - 1)/2| / ceil(R/2) for 0 <= t < R = 2 F - F mod 2, else 0: a triangle of width 2 F, whose
    values at distance F apart add up to 1, so that a constant stays constant wherever two neighbours exist. Pixels
    at the edge see only one of them and are damped, as in the released FCN nets. Another R than that of F can be asked
    for; 2 F - 1 for an even F gives the same triangle with a pixel at its peak, as in FCN-AlexNet.

Backward
    y is linear in x: x[n,c,i,j] stands in all pixels of its window, each time beside two values of f,

    dx[n,c,i,j] = sum_{p,q} f[p + pad - F i] f[q + pad - F j] dy[n,c,p,q],

    a convolution of stride F with the same filter, the adjoint of the forward pass.

Source
    Long, Shelhamer and Darrell, 2015, section 3.3, and the BilinearFiller of Caffe (Jia et al., 2014).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import geometry
from ..kernels.storage import sums_in
from ..tensor import Op, Tensor
from .conv2d import Size, conv2d
from .linear import linear
from .reshape import reshape


class BilinearUpsample(Op):
    """y [N, C, P, Q] of x [N, C, H, W]."""

    takes_bfloat16 = True

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


def bilinear_upsample(x: Tensor, factor: Size, padding: Size | None = None, window: int | None = None) -> Tensor:
    """x [N, C, H, W] upsampled by `factor`: [N, C, P, Q], P = F (H - 1) + R - 2 padding, R = 2 F - F mod 2.

    `padding` None is ceil((F - 1) / 2), which gives exactly P = F H; 0 keeps the whole border, as Caffe's nets do.
    `window` is another R: 2 F - 1 for an even F centres the filter on a pixel, not between two.
    """
    padding = default_padding(factor) if padding is None else padding
    factors = geometry.pair(factor, "factor", 1)
    if window is None or all(window == geometry.bilinear_window(one) for one in factors):
        return BilinearUpsample(factor, padding)(x)
    return _by_matrices(x, factors, geometry.pair(padding, "padding"), window)


def _by_matrices(x: Tensor, factor: tuple[int, int], padding: tuple[int, int], window: int) -> Tensor:
    """U_h x U_w^T, with U[p, i] = f[p + pad - F i]: a product for all rows, and one for all columns."""
    N, C, H, W = x.shape
    axes = list(zip((H, W), factor, padding, strict=True))
    P, Q = (geometry.conv_transpose_size(size, window, F, pad, 1, 0) for size, F, pad in axes)
    vertical, horizontal = (
        Tensor(np.array(geometry.bilinear_matrix(size, out, F, pad, window), sums_in(x.dtype)), device=x.place)
        for out, (size, F, pad) in zip((P, Q), axes, strict=True)
    )
    rows = linear(reshape(x, (N * C * H, W)), horizontal)
    columns = conv2d(reshape(rows, (N * C, H, 1, Q)), reshape(vertical, (P, H, 1, 1)))
    return reshape(columns, (N, C, P, Q))
