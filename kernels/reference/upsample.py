"""Bilinear upsampling in NumPy: a transposed convolution of every channel with one fixed filter.

y[n,c,p,q] = sum_{i,j} f[p + pad - F i] f[q + pad - F j] x[n,c,i,j], f the bilinear filter of factor F. It is
separable, so it is two matrix products: y = U_h x U_w^T. Derivation: `minifcn/ops/bilinear_upsample.py`.
"""

from __future__ import annotations

import numpy as np

from .. import checks, geometry


def _matrices(geo: geometry.UpsampleGeometry) -> tuple[np.ndarray, np.ndarray]:
    """U [P, H] and U [Q, W], with U[p, i] = f[p + pad - F i]."""
    along = zip((geo.H, geo.W), (geo.P, geo.Q), geo.factor, geo.padding, strict=True)
    return tuple(np.array(geometry.bilinear_matrix(*axis, geometry.bilinear_window(axis[2]))) for axis in along)


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
