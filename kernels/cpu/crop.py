"""Crop, its adjoint, and crop-and-sum: rows of the window are runs of memory, shared out over the jobs."""

from __future__ import annotations

from numba import njit

from .. import checks, geometry, memory
from .layout import channels_first, channels_last
from .runs import add_run, clear_run, copy_run
from .threads import jobs, parts, run, share


@njit(cache=True, nogil=True)
def _crop(team, x, shape, top, left, y):
    N, H, W, C = shape
    P, Q = y.shape[1], y.shape[2]
    flat = y.reshape(-1)
    for job in jobs(team):
        first, last = share(team, job, N * P)
        for row in range(first, last):
            n, p = divmod(row, P)
            copy_run(x, ((n * H + p + top) * W + left) * C, flat, row * Q * C, Q * C)


@njit(cache=True, nogil=True)
def _pad(team, dy, shape, top, left, dx):
    N, P, Q, C = shape
    H, W = dx.shape[1], dx.shape[2]
    flat = dx.reshape(-1)
    for job in jobs(team):
        first, last = share(team, job, N * H)
        for row in range(first, last):
            n, h = divmod(row, H)
            start, p = row * W * C, h - top
            if p < 0 or p >= P:
                clear_run(flat, start, W * C)
                continue
            clear_run(flat, start, left * C)
            copy_run(dy, (n * P + p) * Q * C, flat, start + left * C, Q * C)
            clear_run(flat, start + (left + Q) * C, (W - left - Q) * C)


@njit(cache=True, nogil=True)
def _crop_sum(team, x, skip, shape, top, left, y):
    N, H, W, C = shape
    P, Q = y.shape[1], y.shape[2]
    flat = y.reshape(-1)
    for job in jobs(team):
        first, last = share(team, job, N * P)
        for row in range(first, last):
            n, p = divmod(row, P)
            copy_run(x, row * Q * C, flat, row * Q * C, Q * C)
            add_run(skip, ((n * H + p + top) * W + left) * C, flat, row * Q * C, Q * C)


def crop_forward(x, offset, size):
    """See `reference.crop_forward`."""
    checks.same_dtype(x=x)
    (top, left), (height, width) = geometry.crop_window(x.shape, offset, size)
    last = channels_last(x)
    y = memory.empty((x.shape[0], height, width, x.shape[1]), x.dtype)
    run(_crop, parts(y.size), last.reshape(-1), last.shape, top, left, y)
    return channels_first(y)


def crop_backward_input(dy, offset, input_size):
    """See `reference.crop_backward_input`."""
    checks.same_dtype(dy=dy)
    checks.expect_rank4("dy", dy.shape)
    N, C, *size = dy.shape
    (top, left), _ = geometry.crop_window((N, C, *input_size), offset, size)
    last = channels_last(dy)
    dx = memory.empty((N, *input_size, C), dy.dtype)
    run(_pad, parts(dx.size), last.reshape(-1), last.shape, top, left, dx)
    return channels_first(dx)


def crop_sum_forward(x, skip, offset):
    """See `reference.crop_sum_forward`."""
    checks.same_dtype(x=x, skip=skip)
    top, left = geometry.crop_sum_offset(x.shape, skip.shape, offset)
    whole = channels_last(skip)
    y = memory.empty((x.shape[0], *x.shape[2:], x.shape[1]), x.dtype)
    run(_crop_sum, parts(y.size), channels_last(x).reshape(-1), whole.reshape(-1), whole.shape, top, left, y)
    return channels_first(y)
