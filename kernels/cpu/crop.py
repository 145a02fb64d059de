"""Crop, its adjoint, and crop-and-sum, parallel over rows."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from .. import checks, geometry
from .layout import channels_first, channels_last


@njit(cache=True, nogil=True, parallel=True)
def _crop(x, top, left, y):
    N, P, Q, C = y.shape
    for job in prange(N * P):
        n, p = divmod(np.int64(job), P)
        for q in range(Q):
            for c in range(C):
                y[n, p, q, c] = x[n, p + top, q + left, c]


@njit(cache=True, nogil=True, parallel=True)
def _pad(dy, top, left, dx):
    N, H, W, C = dx.shape
    P, Q = dy.shape[1], dy.shape[2]
    for job in prange(N * H):
        n, h = divmod(np.int64(job), H)
        for w in range(W):
            inside = 0 <= h - top < P and 0 <= w - left < Q
            for c in range(C):
                dx[n, h, w, c] = dy[n, h - top, w - left, c] if inside else 0


@njit(cache=True, nogil=True, parallel=True)
def _crop_sum(x, skip, top, left, y):
    N, P, Q, C = y.shape
    for job in prange(N * P):
        n, p = divmod(np.int64(job), P)
        for q in range(Q):
            for c in range(C):
                y[n, p, q, c] = x[n, p, q, c] + skip[n, p + top, q + left, c]


def crop_forward(x, offset, size):
    """See `reference.crop_forward`."""
    checks.same_dtype(x=x)
    (top, left), (height, width) = geometry.crop_window(x.shape, offset, size)
    y = np.empty((x.shape[0], height, width, x.shape[1]), x.dtype)
    _crop(channels_last(x), top, left, y)
    return channels_first(y)


def crop_backward_input(dy, offset, input_size):
    """See `reference.crop_backward_input`."""
    checks.same_dtype(dy=dy)
    checks.expect_rank4("dy", dy.shape)
    N, C, *size = dy.shape
    (top, left), _ = geometry.crop_window((N, C, *input_size), offset, size)
    dx = np.empty((N, *input_size, C), dy.dtype)
    _pad(channels_last(dy), top, left, dx)
    return channels_first(dx)


def crop_sum_forward(x, skip, offset):
    """See `reference.crop_sum_forward`."""
    checks.same_dtype(x=x, skip=skip)
    top, left = geometry.crop_sum_offset(x.shape, skip.shape, offset)
    y = np.empty((x.shape[0], *x.shape[2:], x.shape[1]), x.dtype)
    _crop_sum(channels_last(x), channels_last(skip), top, left, y)
    return channels_first(y)
