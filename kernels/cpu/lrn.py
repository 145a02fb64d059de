"""Local response normalisation, channels last: the channels that an element looks at are its neighbours in memory."""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import checks, memory
from .layout import channels_first, channels_last
from .threads import jobs, member, parts, run, scratch, share


@njit(cache=True, nogil=True)
def _around(values, start, c, C, half):
    """The sum of values[start + j] over the channels j around c that there are."""
    total = values.dtype.type(0)
    for j in range(max(c - half, 0), min(c + half + 1, C)):
        total += values[start + j]
    return total


@njit(cache=True, nogil=True)
def _forward(team, x, half, share_of_alpha, beta, k, lines, y):
    pixels, C = x.shape
    squares = lines[member(team)]
    for job in jobs(team):
        first, last = share(team, job, pixels)
        for pixel in range(first, last):
            for c in range(C):
                squares[c] = x[pixel, c] * x[pixel, c]
            for c in range(C):
                s = k + share_of_alpha * _around(squares, 0, c, C, half)
                y[pixel, c] = x[pixel, c] * s**-beta


@njit(cache=True, nogil=True)
def _backward(team, dy, x, half, share_of_alpha, beta, k, lines, dx):
    pixels, C = x.shape
    line, factor = lines[member(team)], x.dtype.type(2) * share_of_alpha * beta
    for job in jobs(team):
        first, last = share(team, job, pixels)
        for pixel in range(first, last):
            for c in range(C):
                line[c] = x[pixel, c] * x[pixel, c]
            for c in range(C):
                s = k + share_of_alpha * _around(line, 0, c, C, half)
                dx[pixel, c] = dy[pixel, c] * s**-beta
                line[C + c] = dx[pixel, c] * x[pixel, c] / s
            for c in range(C):
                dx[pixel, c] -= factor * x[pixel, c] * _around(line, C, c, C, half)


def _numbers(dtype, size, alpha, beta, k):
    """Channels on either side, alpha / size, beta and k, as the kernels take them."""
    return (size // 2, dtype.type(alpha / size), dtype.type(beta), dtype.type(k))


def _pixels(x: np.ndarray) -> np.ndarray:
    """x [N, C, H, W] as [N H W, C]."""
    last = channels_last(x)
    return last.reshape(last.size // max(1, last.shape[3]), last.shape[3])


def lrn_forward(x, size, alpha, beta, k):
    """See `reference.lrn_forward`."""
    checks.same_dtype(x=x)
    checks.check_lrn(x.shape, size, alpha, k)
    N, C, H, W = x.shape
    y = memory.empty((N, H, W, C), x.dtype)
    rule = _numbers(x.dtype, size, alpha, beta, k)
    run(_forward, parts(4 * x.size), _pixels(x), *rule, scratch(C, x.dtype), y.reshape(N * H * W, C))
    return channels_first(y)


def lrn_backward_input(dy, x, size, alpha, beta, k):
    """See `reference.lrn_backward_input`."""
    checks.same_dtype(dy=dy, x=x)
    checks.check_lrn(x.shape, size, alpha, k)
    checks.expect_shape("dy", dy.shape, x.shape)
    N, C, H, W = x.shape
    dx = memory.empty((N, H, W, C), x.dtype)
    rule = _numbers(x.dtype, size, alpha, beta, k)
    lines = scratch(2 * C, x.dtype)
    run(_backward, parts(4 * x.size), _pixels(dy), _pixels(x), *rule, lines, dx.reshape(N * H * W, C))
    return channels_first(dx)
