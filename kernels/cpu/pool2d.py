"""Max and average pooling. Jobs own output rows (forward) and input rows (backward), row by row, tap by tap.

A tap (r, s) of the windows p, q meets the input at h = p stride - pad + r dilation, and w likewise: for every tap the
windows that it has inside the image are a range of q, and the innermost loop runs over channels. The backward passes
gather: an input row asks the taps of the few window rows that hold it. No two jobs write one place.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import checks, geometry, memory
from .layout import channels_first, channels_last
from .runs import clear_run
from .threads import jobs, parts, run, share

# Channels that are taken at once: compilers give loops of an unknown, small length no vectors.
LANES = np.uintp(16)


@njit(cache=True, nogil=True)
def _inside(start, stride, size, count):
    """(first, last + 1) of the u, 0 <= u < count, with 0 <= start + u stride < size."""
    return max(0, -(start // stride)), min(count, (size - 1 - start) // stride + 1)


@njit(cache=True, nogil=True)
def _first_tap(start, dilation):
    """The first tap of a window at `start` that is not in the leading padding."""
    return max(0, -(start // dilation))


@njit(cache=True, nogil=True)
def beats(value, best):
    """Whether `value` takes the place of what came before it: `not (<=)` lets NaN win, unless NaN came first."""
    return (not (value <= best)) and best == best


@njit(cache=True, nogil=True)
def first_of_four(x0, x1, x2, x3):
    """(the maximum, its number): the earlier of equal ones."""
    best, tap = x0, np.uint8(0)
    best, tap = (x1, np.uint8(1)) if beats(x1, best) else (best, tap)
    best, tap = (x2, np.uint8(2)) if beats(x2, best) else (best, tap)
    return (x3, np.uint8(3)) if beats(x3, best) else (best, tap)


@njit(cache=True, nogil=True)
def _max_of_fours(x, upper, lower, right, step, C, y, argmax, out, count):
    """`count` windows of 2 x 2 pixels, the most common ones, without a detour through memory; all places are flat."""
    upper, lower, right, step = np.uintp(upper), np.uintp(lower), np.uintp(right), np.uintp(step)
    out, C = np.uintp(out), np.uintp(C)
    whole = C // LANES * LANES
    for _ in range(count):
        for start in range(np.uintp(0), whole, LANES):
            for i in range(LANES):
                c = start + i
                y[out + c], argmax[out + c] = first_of_four(
                    x[upper + c], x[upper + right + c], x[lower + c], x[lower + right + c]
                )
        for c in range(whole, C):
            y[out + c], argmax[out + c] = first_of_four(
                x[upper + c], x[upper + right + c], x[lower + c], x[lower + right + c]
            )
        upper, lower, out = upper + step, lower + step, out + C


@njit(cache=True, nogil=True)
def _max_forward(team, x, shape, window, stride, padding, dilation, y, argmax, out_shape):
    N, H, W, C = shape
    P, Q = out_shape
    (R, S), lowest, channels = window, x.dtype.type(-np.inf), np.uintp(C)
    for job in jobs(team):
        first, last = share(team, job, N * P)
        for row in range(first, last):
            n, p = divmod(row, P)
            top = p * stride[0] - padding[0]
            begin, end = 0, 0  # the windows that are done already
            if R == 2 and S == 2 and 0 <= top < H - dilation[0]:
                begin, end = _inside(-padding[1], stride[1], W - dilation[1], Q)
                upper = ((n * H + top) * W + begin * stride[1] - padding[1]) * C
                lower, right, step = upper + dilation[0] * W * C, dilation[1] * C, stride[1] * C
                _max_of_fours(x, upper, lower, right, step, C, y, argmax, (row * Q + begin) * C, end - begin)
            for q in range(Q):
                if begin <= q < end:
                    continue
                left, out = q * stride[1] - padding[1], np.uintp((row * Q + q) * C)
                # What is not above the lowest number wins by being first.
                tap = np.uint8(_first_tap(top, dilation[0]) * S + _first_tap(left, dilation[1]))
                for c in range(channels):
                    y[out + c], argmax[out + c] = lowest, tap
                for r in range(R):
                    h = top + r * dilation[0]
                    if h < 0 or h >= H:
                        continue
                    for s in range(S):
                        w = left + s * dilation[1]
                        if w < 0 or w >= W:
                            continue
                        line, tap = np.uintp(((n * H + h) * W + w) * C), np.uint8(r * S + s)
                        for c in range(channels):
                            value, best = x[line + c], y[out + c]
                            wins = beats(value, best)
                            y[out + c] = value if wins else best
                            argmax[out + c] = tap if wins else argmax[out + c]


@njit(cache=True, nogil=True)
def _max_backward(team, dy, argmax, window, stride, padding, dilation, dx):
    N, H, W, C = dx.shape
    P, Q = dy.shape[1], dy.shape[2]
    (R, S), zero, flat = window, dx.dtype.type(0), dx.reshape(-1)
    for job in jobs(team):
        first, last = share(team, job, N * H)
        for row in range(first, last):
            n, h = divmod(row, H)
            clear_run(flat, row * W * C, W * C)
            # The last tap meets the first window: windows are visited in row-major order.
            for r in range(R - 1, -1, -1):
                p, odd = divmod(h + padding[0] - r * dilation[0], stride[0])
                if odd or p < 0 or p >= P:
                    continue
                for s in range(S - 1, -1, -1):
                    start, tap = s * dilation[1] - padding[1], np.uint8(r * S + s)
                    begin, end = _inside(start, stride[1], W, Q)
                    for q in range(begin, end):
                        total, gradient, place = dx[n, h, start + q * stride[1]], dy[n, p, q], argmax[n, p, q]
                        for c in range(np.uintp(C)):
                            total[c] += gradient[c] if place[c] == tap else zero


@njit(cache=True, nogil=True, error_model="numpy")
def _average_forward(team, x, window, stride, padding, row_counts, column_counts, y):
    N, H, W, C = x.shape
    P, Q = y.shape[1], y.shape[2]
    for job in jobs(team):
        first, last = share(team, job, N * P)
        for row in range(first, last):
            n, p = divmod(row, P)
            h0 = p * stride[0] - padding[0]
            for q in range(Q):
                total, w0 = y[n, p, q], q * stride[1] - padding[1]
                total[:] = 0
                for h in range(max(h0, 0), min(h0 + window[0], H)):
                    for w in range(max(w0, 0), min(w0 + window[1], W)):
                        line = x[n, h, w]
                        for c in range(np.uintp(C)):
                            total[c] += line[c]
                count = row_counts[p] * column_counts[q]
                for c in range(np.uintp(C)):
                    total[c] /= count


@njit(cache=True, nogil=True, error_model="numpy")
def _average_backward(team, dy, window, stride, padding, row_counts, column_counts, dx):
    N, H, W, C = dx.shape
    P, Q = dy.shape[1], dy.shape[2]
    flat = dx.reshape(-1)
    for job in jobs(team):
        first, last = share(team, job, N * H)
        for row in range(first, last):
            n, h = divmod(row, H)
            clear_run(flat, row * W * C, W * C)
            for r in range(window[0] - 1, -1, -1):
                p, odd = divmod(h + padding[0] - r, stride[0])
                if odd or p < 0 or p >= P:
                    continue
                for s in range(window[1] - 1, -1, -1):
                    begin, end = _inside(s - padding[1], stride[1], W, Q)
                    for q in range(begin, end):
                        total, gradient = dx[n, h, s - padding[1] + q * stride[1]], dy[n, p, q]
                        count = row_counts[p] * column_counts[q]
                        for c in range(np.uintp(C)):
                            total[c] += gradient[c] / count


def max_pool2d_forward(x, window, stride=None, padding=0, dilation=1, ceil_mode=False):
    """See `reference.max_pool2d_forward`."""
    checks.same_dtype(x=x)
    geo = geometry.max_pool2d(x.shape, window, stride, padding, dilation, ceil_mode)
    y = memory.empty((geo.N, geo.P, geo.Q, geo.C), x.dtype)
    argmax = memory.empty(y.shape, np.uint8)
    windows = ((geo.R, geo.S), geo.stride, geo.padding, geo.dilation)
    last = channels_last(x)
    outputs = (y.reshape(-1), argmax.reshape(-1), (geo.P, geo.Q))
    run(_max_forward, parts(geo.R * geo.S * y.size), last.reshape(-1), last.shape, *windows, *outputs)
    return channels_first(y), channels_first(argmax)


def max_pool2d_backward_input(dy, argmax, input_size, window, stride=None, padding=0, dilation=1, ceil_mode=False):
    """See `reference.max_pool2d_backward_input`."""
    checks.same_dtype(dy=dy)
    geo = geometry.max_pool2d((*dy.shape[:2], *input_size), window, stride, padding, dilation, ceil_mode)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    checks.expect_argmax(argmax, geo.y_shape)
    dx = memory.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    windows = ((geo.R, geo.S), geo.stride, geo.padding, geo.dilation)
    run(_max_backward, parts(geo.R * geo.S * dy.size), channels_last(dy), channels_last(argmax), *windows, dx)
    return channels_first(dx)


def avg_pool2d_forward(x, window, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """See `reference.avg_pool2d_forward`."""
    checks.same_dtype(x=x)
    geo = geometry.pool2d(x.shape, window, stride, padding, 1, ceil_mode)
    y = memory.empty((geo.N, geo.P, geo.Q, geo.C), x.dtype)
    counts = (np.array(count, x.dtype) for count in geometry.window_counts(geo, count_include_pad))
    windows = ((geo.R, geo.S), geo.stride, geo.padding)
    run(_average_forward, parts(geo.R * geo.S * y.size), channels_last(x), *windows, *counts, y)
    return channels_first(y)


def avg_pool2d_backward_input(dy, input_size, window, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """See `reference.avg_pool2d_backward_input`."""
    checks.same_dtype(dy=dy)
    geo = geometry.pool2d((*dy.shape[:2], *input_size), window, stride, padding, 1, ceil_mode)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    dx = memory.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    counts = (np.array(count, dy.dtype) for count in geometry.window_counts(geo, count_include_pad))
    windows = ((geo.R, geo.S), geo.stride, geo.padding)
    run(_average_backward, parts(geo.R * geo.S * dy.size), channels_last(dy), *windows, *counts, dx)
    return channels_first(dx)
