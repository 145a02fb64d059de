"""Local response normalisation across channels, in NumPy and float64.

y = x s^-beta, s[n,c,h,w] = k + alpha / size sum_j x[n,j,h,w]^2 over the `size` channels j around c. Derivation:
`minifcn/ops/lrn.py`.
"""

from __future__ import annotations

import numpy as np

from .. import checks


def _around(x: np.ndarray, size: int) -> np.ndarray:
    """For every channel of x [N, C, H, W], the sum over the `size` channels around it that there are."""
    half = size // 2
    padded = np.pad(x, ((0, 0), (half, half), (0, 0), (0, 0)))
    return sum(padded[:, j : j + x.shape[1]] for j in range(size))


def lrn_forward(x, size, alpha, beta, k):
    """y [N, C, H, W] of x: each element over the power `beta` of k + alpha / size times its neighbours' squares."""
    checks.same_dtype(x=x)
    checks.check_lrn(x.shape, size, alpha, k)
    wide = x.astype(np.float64)
    s = k + alpha / size * _around(wide**2, size)
    return (wide * s**-beta).astype(x.dtype)


def lrn_backward_input(dy, x, size, alpha, beta, k):
    """dx [N, C, H, W] of the same x: dy s^-beta - 2 alpha beta / size x sum_j dy_j x_j s_j^(-beta - 1)."""
    checks.same_dtype(dy=dy, x=x)
    checks.check_lrn(x.shape, size, alpha, k)
    checks.expect_shape("dy", dy.shape, x.shape)
    wide, upstream = x.astype(np.float64), dy.astype(np.float64)
    s = k + alpha / size * _around(wide**2, size)
    through_s = _around(upstream * wide * s ** (-beta - 1), size)
    return (upstream * s**-beta - 2 * alpha * beta / size * wide * through_s).astype(x.dtype)
