"""Max and average pooling, parallel over output rows (forward) and input rows (backward).

The backward passes gather: an input pixel h is met by tap r of the window p where p stride - pad + r dilation
= h, so it asks the few windows that hold it. No two jobs write one place.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from .. import checks, geometry
from .layout import channels_first, channels_last


@njit(cache=True, nogil=True, parallel=True)
def _max_forward(x, window, stride, padding, dilation, y, argmax):
    N, H, W, C = x.shape
    P, Q = y.shape[1], y.shape[2]
    for job in prange(N * P):
        n, p = divmod(np.int64(job), P)
        for q in range(Q):
            best, place = y[n, p, q], argmax[n, p, q]
            place[:] = -1
            for r in range(window[0]):
                h = p * stride[0] - padding[0] + r * dilation[0]
                if h < 0 or h >= H:
                    continue
                for s in range(window[1]):
                    w = q * stride[1] - padding[1] + s * dilation[1]
                    if w < 0 or w >= W:
                        continue
                    line = x[n, h, w]
                    for c in range(C):
                        # `not (<=)` lets NaN win; a NaN that stands (best != best) stays, it came first
                        if place[c] < 0 or (not (line[c] <= best[c]) and best[c] == best[c]):
                            best[c] = line[c]
                            place[c] = h * W + w


@njit(cache=True, nogil=True, parallel=True)
def _max_backward(dy, argmax, window, stride, padding, dilation, dx):
    N, H, W, C = dx.shape
    P, Q = dy.shape[1], dy.shape[2]
    for job in prange(N * H):
        n, h = divmod(np.int64(job), H)
        for w in range(W):
            total, here = dx[n, h, w], h * W + w
            total[:] = 0
            # The last tap meets the first window: windows are visited in row-major order.
            for r in range(window[0] - 1, -1, -1):
                p, odd = divmod(h + padding[0] - r * dilation[0], stride[0])
                if odd or p < 0 or p >= P:
                    continue
                for s in range(window[1] - 1, -1, -1):
                    q, odd = divmod(w + padding[1] - s * dilation[1], stride[1])
                    if odd or q < 0 or q >= Q:
                        continue
                    gradient, place = dy[n, p, q], argmax[n, p, q]
                    for c in range(C):
                        if place[c] == here:
                            total[c] += gradient[c]


@njit(cache=True, nogil=True, parallel=True)
def _average_forward(x, window, stride, padding, row_counts, column_counts, y):
    N, H, W, C = x.shape
    P, Q = y.shape[1], y.shape[2]
    for job in prange(N * P):
        n, p = divmod(np.int64(job), P)
        h0 = p * stride[0] - padding[0]
        for q in range(Q):
            total, w0 = y[n, p, q], q * stride[1] - padding[1]
            total[:] = 0
            for h in range(max(h0, 0), min(h0 + window[0], H)):
                for w in range(max(w0, 0), min(w0 + window[1], W)):
                    line = x[n, h, w]
                    for c in range(C):
                        total[c] += line[c]
            count = row_counts[p] * column_counts[q]
            for c in range(C):
                total[c] /= count


@njit(cache=True, nogil=True, parallel=True)
def _average_backward(dy, window, stride, padding, row_counts, column_counts, dx):
    N, H, W, C = dx.shape
    P, Q = dy.shape[1], dy.shape[2]
    for job in prange(N * H):
        n, h = divmod(np.int64(job), H)
        for w in range(W):
            total = dx[n, h, w]
            total[:] = 0
            for r in range(window[0] - 1, -1, -1):
                p, odd = divmod(h + padding[0] - r, stride[0])
                if odd or p < 0 or p >= P:
                    continue
                for s in range(window[1] - 1, -1, -1):
                    q, odd = divmod(w + padding[1] - s, stride[1])
                    if odd or q < 0 or q >= Q:
                        continue
                    gradient, count = dy[n, p, q], row_counts[p] * column_counts[q]
                    for c in range(C):
                        total[c] += gradient[c] / count


def max_pool2d_forward(x, window, stride=None, padding=0, dilation=1, ceil_mode=False):
    """See `reference.max_pool2d_forward`."""
    checks.same_dtype(x=x)
    geo = geometry.pool2d(x.shape, window, stride, padding, dilation, ceil_mode)
    y = np.empty((geo.N, geo.P, geo.Q, geo.C), x.dtype)
    argmax = np.empty(y.shape, np.int32)
    _max_forward(channels_last(x), (geo.R, geo.S), geo.stride, geo.padding, geo.dilation, y, argmax)
    return channels_first(y), channels_first(argmax)


def max_pool2d_backward_input(dy, argmax, input_size, window, stride=None, padding=0, dilation=1, ceil_mode=False):
    """See `reference.max_pool2d_backward_input`."""
    checks.same_dtype(dy=dy)
    geo = geometry.pool2d((*dy.shape[:2], *input_size), window, stride, padding, dilation, ceil_mode)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    checks.expect_shape("argmax", argmax.shape, geo.y_shape)
    dx = np.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    _max_backward(channels_last(dy), channels_last(argmax), (geo.R, geo.S), geo.stride, geo.padding, geo.dilation, dx)
    return channels_first(dx)


def avg_pool2d_forward(x, window, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """See `reference.avg_pool2d_forward`."""
    checks.same_dtype(x=x)
    geo = geometry.pool2d(x.shape, window, stride, padding, 1, ceil_mode)
    y = np.empty((geo.N, geo.P, geo.Q, geo.C), x.dtype)
    rows, columns = (np.array(counts, x.dtype) for counts in geometry.window_counts(geo, count_include_pad))
    _average_forward(channels_last(x), (geo.R, geo.S), geo.stride, geo.padding, rows, columns, y)
    return channels_first(y)


def avg_pool2d_backward_input(dy, input_size, window, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """See `reference.avg_pool2d_backward_input`."""
    checks.same_dtype(dy=dy)
    geo = geometry.pool2d((*dy.shape[:2], *input_size), window, stride, padding, 1, ceil_mode)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    dx = np.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    rows, columns = (np.array(counts, dy.dtype) for counts in geometry.window_counts(geo, count_include_pad))
    _average_backward(channels_last(dy), (geo.R, geo.S), geo.stride, geo.padding, rows, columns, dx)
    return channels_first(dx)
