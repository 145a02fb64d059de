"""Bilinear upsampling as a depthwise kernel: each output pixel reads the 2 x 2 pixels that its filter reaches,
each input pixel's gradient gathers the window that it was spread over. Parallel over rows.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from .. import checks, geometry
from .layout import channels_first, channels_last


@njit(cache=True, nogil=True, parallel=True)
def _forward(x, row_filter, column_filter, factor, padding, y):
    N, H, W, C = x.shape
    P, Q = y.shape[1], y.shape[2]
    for job in prange(N * P):
        n, p = divmod(np.int64(job), P)
        h_last = (p + padding[0]) // factor[0]
        for q in range(Q):
            total, w_last = y[n, p, q], (q + padding[1]) // factor[1]
            total[:] = 0
            for h in range(max(h_last - 1, 0), min(h_last + 1, H)):
                r = p + padding[0] - factor[0] * h
                for w in range(max(w_last - 1, 0), min(w_last + 1, W)):
                    s = q + padding[1] - factor[1] * w
                    if r < len(row_filter) and s < len(column_filter):
                        weight, line = row_filter[r] * column_filter[s], x[n, h, w]
                        for c in range(C):
                            total[c] += weight * line[c]


@njit(cache=True, nogil=True, parallel=True)
def _backward(dy, row_filter, column_filter, factor, padding, dx):
    N, H, W, C = dx.shape
    P, Q = dy.shape[1], dy.shape[2]
    for job in prange(N * H):
        n, h = divmod(np.int64(job), H)
        for w in range(W):
            total = dx[n, h, w]
            total[:] = 0
            for r in range(len(row_filter)):
                p = factor[0] * h + r - padding[0]
                if p < 0 or p >= P:
                    continue
                for s in range(len(column_filter)):
                    q = factor[1] * w + s - padding[1]
                    if q < 0 or q >= Q:
                        continue
                    weight, line = row_filter[r] * column_filter[s], dy[n, p, q]
                    for c in range(C):
                        total[c] += weight * line[c]


def _filters(factor, dtype) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.array(geometry.bilinear_filter(geometry.bilinear_window(f)), dtype) for f in factor)


def bilinear_upsample_forward(x, factor, padding):
    """See `reference.bilinear_upsample_forward`."""
    checks.same_dtype(x=x)
    geo = geometry.upsample(x.shape, factor, padding)
    y = np.empty((geo.N, geo.P, geo.Q, geo.C), x.dtype)
    _forward(channels_last(x), *_filters(geo.factor, x.dtype), geo.factor, geo.padding, y)
    return channels_first(y)


def bilinear_upsample_backward_input(dy, input_size, factor, padding):
    """See `reference.bilinear_upsample_backward_input`."""
    checks.same_dtype(dy=dy)
    geo = geometry.upsample((*dy.shape[:2], *input_size), factor, padding)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    dx = np.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    _backward(channels_last(dy), *_filters(geo.factor, dy.dtype), geo.factor, geo.padding, dx)
    return channels_first(dx)
