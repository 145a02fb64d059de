"""Bilinear upsampling in NumPy: a transposed convolution of every channel with one fixed filter.

y[n,c,p,q] = sum_{i,j} f[p + pad - F i] f[q + pad - F j] x[n,c,i,j], f the bilinear filter of factor F. It is
separable, so it is two matrix products: y = U_h x U_w^T. Derivation: `minifcn/ops/bilinear_upsample.py`.
"""

from __future__ import annotations

import numpy as np

from .. import checks, geometry


def _matrix(size: int, out: int, factor: int, padding: int) -> np.ndarray:
    """U [P, H] with U[p, i] = f[p + pad - F i], zero where the filter does not reach."""
    taps = geometry.bilinear_filter(geometry.bilinear_window(factor))
    u = np.zeros((out, size))
    for i in range(size):
        for t, tap in enumerate(taps):
            p = factor * i + t - padding
            if 0 <= p < out:
                u[p, i] = tap
    return u


def _matrices(geo: geometry.UpsampleGeometry) -> tuple[np.ndarray, np.ndarray]:
    (fh, fw), (ph, pw) = geo.factor, geo.padding
    return _matrix(geo.H, geo.P, fh, ph), _matrix(geo.W, geo.Q, fw, pw)


def bilinear_upsample_forward(x, factor, padding):
    """y [N, C, P, Q] of x [N, C, H, W]; `factor` and `padding` an integer or a pair."""
    checks.same_dtype(x=x)
    vertical, horizontal = _matrices(geometry.upsample(x.shape, factor, padding))
    return np.einsum("ph,nchw,qw->ncpq", vertical, x, horizontal, optimize=True).astype(x.dtype)


def bilinear_upsample_backward_input(dy, input_size, factor, padding):
    """dx [N, C, H, W] = U_h^T dy U_w."""
    checks.same_dtype(dy=dy)
    geo = geometry.upsample((*dy.shape[:2], *input_size), factor, padding)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    vertical, horizontal = _matrices(geo)
    return np.einsum("ph,ncpq,qw->nchw", vertical, dy, horizontal, optimize=True).astype(dy.dtype)
