"""Max and average pooling in NumPy, one tap of the window after the other.

y[n,c,p,q] = max (or mean) over (r, s) of x[n,c, p stride - pad + r dilation, q stride - pad + s dilation].
Derivations: `minifcn/ops/max_pool2d.py`, `minifcn/ops/avg_pool2d.py`.
"""

from __future__ import annotations

import numpy as np

from .. import checks, geometry
from ..geometry import Pool2dGeometry
from ..layout import is_packed, tap_numbers


def _tap_coordinates(geo: Pool2dGeometry, r: int, s: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row [P, 1] and column [1, Q] that tap (r, s) meets for each output, and whether it is inside [P, Q]."""
    (sh, sw), (ph, pw), (dh, dw) = geo.stride, geo.padding, geo.dilation
    rows = np.arange(geo.P)[:, None] * sh - ph + r * dh
    columns = np.arange(geo.Q)[None, :] * sw - pw + s * dw
    inside = (rows >= 0) & (rows < geo.H) & (columns >= 0) & (columns < geo.W)
    return rows.clip(0, geo.H - 1), columns.clip(0, geo.W - 1), inside


def max_pool2d_forward(x, window, stride=None, padding=0, dilation=1, ceil_mode=False):
    """(y, argmax): the maximum of each window, and the number r S + s of the tap that it came from, as uint8.

    The first maximum in row-major order wins; NaN wins over numbers; padding never wins. Raises ShapeError for a
    window of more than 256 taps.
    """
    checks.same_dtype(x=x)
    geo = geometry.max_pool2d(x.shape, window, stride, padding, dilation, ceil_mode)
    y = np.full(geo.y_shape, -np.inf, x.dtype)
    argmax = np.full(geo.y_shape, -1, np.int32)
    for r in range(geo.R):
        for s in range(geo.S):
            rows, columns, inside = _tap_coordinates(geo, r, s)
            value = x[:, :, rows, columns]
            better = (argmax < 0) | (value > y) | (np.isnan(value) & ~np.isnan(y))
            wins = better & inside
            y = np.where(wins, value, y)
            argmax = np.where(wins, np.int32(r * geo.S + s), argmax)
    return y, argmax.astype(np.uint8)


def max_pool2d_backward_input(dy, argmax, input_size, window, stride=None, padding=0, dilation=1, ceil_mode=False):
    """dx [N, C, H, W]: each dy goes to the place that its window's winning tap meets; windows that overlap add up."""
    checks.same_dtype(dy=dy)
    geo = geometry.max_pool2d((*dy.shape[:2], *input_size), window, stride, padding, dilation, ceil_mode)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    if is_packed(argmax, geo):
        argmax = tap_numbers(argmax, geo.y_shape)
    checks.expect_argmax(argmax, geo.y_shape)
    dx = np.zeros(geo.x_shape)
    for r in range(geo.R):
        for s in range(geo.S):
            rows, columns, inside = _tap_coordinates(geo, r, s)
            won = inside & (argmax == r * geo.S + s)
            np.add.at(dx, (slice(None), slice(None), rows, columns), np.where(won, dy, 0))
    return dx.astype(dy.dtype)


def avg_pool2d_forward(x, window, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """y [N, C, P, Q]: each window's sum over its number of elements."""
    checks.same_dtype(x=x)
    geo = geometry.pool2d(x.shape, window, stride, padding, 1, ceil_mode)
    total = np.zeros(geo.y_shape)
    for r in range(geo.R):
        for s in range(geo.S):
            rows, columns, inside = _tap_coordinates(geo, r, s)
            total += np.where(inside, x[:, :, rows, columns], 0)
    return (total / np.outer(*geometry.window_counts(geo, count_include_pad))).astype(x.dtype)


def avg_pool2d_backward_input(dy, input_size, window, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """dx [N, C, H, W]: every element of a window gets dy over the window's number of elements."""
    checks.same_dtype(dy=dy)
    geo = geometry.pool2d((*dy.shape[:2], *input_size), window, stride, padding, 1, ceil_mode)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    share = dy / np.outer(*geometry.window_counts(geo, count_include_pad))
    dx = np.zeros(geo.x_shape)
    for r in range(geo.R):
        for s in range(geo.S):
            rows, columns, inside = _tap_coordinates(geo, r, s)
            np.add.at(dx, (slice(None), slice(None), rows, columns), np.where(inside, share, 0))
    return dx.astype(dy.dtype)
