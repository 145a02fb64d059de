"""Bilinear upsampling, first along rows and then along columns, where every output row mixes two widened rows.

A widened row is a line of Q x C numbers in scratch memory. The backward pass gathers: the rows of dy between two coarse
rows k - 1 and k add up to two lines, which are narrowed once; two that belong to one coarse row are added at the end
(`join`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import checks, geometry, memory
from ..tables import intervals, reaches
from .callee import callee
from .layout import channels_first, channels_last
from .runs import add_run, clear_run, copy_run
from .threads import jobs, member, parts, run, scratch, share

NOTHING = 2  # the line of zeros, beside the two that hold widened rows


@callee
def widen(x, start, C, places, weights, line, slot):
    """The coarse row at `start` of x, upsampled along itself, into line `slot`."""
    base = slot * places.size * C
    for q in range(places.size):
        a, b, target = weights[q, 0], weights[q, 1], np.uintp(base + q * C)
        here = np.uintp(start + places[q] * C)
        before = here - np.uintp(C)
        if a == 0 or b == 0:
            only, weight = (here, b) if a == 0 else (before, a)
            for c in range(np.uintp(C)):
                line[target + c] = weight * x[only + c]
        else:
            for c in range(np.uintp(C)):
                line[target + c] = a * x[before + c] + b * x[here + c]


@callee
def widened(x, row, W, C, places, weights, line, held):
    """Where in `line` coarse row `row` (of all images) stands, upsampled along itself; `held` says what is there."""
    slot = row % 2  # neighbours have different ones
    if held[slot] != row:
        widen(x, row * W * C, C, places, weights, line, slot)
        held[slot] = row
    return np.uintp(slot * places.size * C)


@callee
def narrow(line, start, C, places, weights, out, first):
    """The adjoint of `widen`: the coarse row at `first` of `out` from the line at `start`, both flat."""
    for q in range(places.size):
        a, b, source = weights[q, 0], weights[q, 1], np.uintp(start + q * C)
        here = np.uintp(first + places[q] * C)
        before = here - np.uintp(C)
        if a != 0:
            for c in range(np.uintp(C)):
                out[before + c] += a * line[source + c]
        if b != 0:
            for c in range(np.uintp(C)):
                out[here + c] += b * line[source + c]


@njit(cache=True, nogil=True)
def _forward(team, x, shape, rows, row_weights, columns, column_weights, scratch, y):
    N, H, W, C = shape
    P, Q = rows.size, columns.size
    line, held, count = scratch[member(team)], np.full(2, -1), np.uintp(Q * C)
    clear_run(line, NOTHING * Q * C, Q * C)
    for job in jobs(team):
        first, last = share(team, job, N * P)
        for row in range(first, last):
            n, p = divmod(row, P)
            a, b, k = row_weights[p, 0], row_weights[p, 1], n * H + rows[p]
            upper = lower = np.uintp(NOTHING * Q * C)
            if a != 0:
                upper = widened(x, k - 1, W, C, columns, column_weights, line, held)
            if b != 0:
                lower = widened(x, k, W, C, columns, column_weights, line, held)
            out = np.uintp(row * Q * C)
            for i in range(count):
                y[out + i] = a * line[upper + i] + b * line[lower + i]


@callee
def join(pieces, H, size, first, last, dx):
    """The coarse rows first .. last - 1 of dx [N H, size], of pieces [N, H + 1, 2, size].

    Interval k adds to the coarse rows k - 1 and k.
    """
    for row in range(first, last):
        unit = row + row // H  # the interval above it
        copy_run(pieces, 2 * (unit + 1) * size, dx, row * size, size)
        add_run(pieces, (2 * unit + 1) * size, dx, row * size, size)


@njit(cache=True, nogil=True)
def _backward(team, dy, shape, starts, row_weights, columns, column_weights, scratch, pieces, dx):
    N, H, W, C = shape
    P, Q = starts[-1], columns.size
    line, zero = scratch[member(team)], dy.dtype.type(0)
    upper, lower, count = np.uintp(0), np.uintp(Q * C), np.uintp(Q * C)
    for job in jobs(team, 0):
        first, last = share(team, job, N * (H + 1))
        for unit in range(first, last):
            n, k = divmod(unit, H + 1)
            clear_run(line, 0, 2 * Q * C)
            for p in range(starts[k], starts[k + 1]):
                a, b, source = row_weights[p, 0], row_weights[p, 1], np.uintp((n * P + p) * Q * C)
                for i in range(count):
                    line[upper + i] += a * dy[source + i] if a != 0 else zero
                    line[lower + i] += b * dy[source + i] if b != 0 else zero
            clear_run(pieces, 2 * unit * W * C, 2 * W * C)
            narrow(line, 0, C, columns, column_weights, pieces, 2 * unit * W * C)
            narrow(line, Q * C, C, columns, column_weights, pieces, (2 * unit + 1) * W * C)
    for job in jobs(team, 1):
        first, last = share(team, job, N * H, 1)
        join(pieces, H, W * C, first, last, dx)


def bilinear_upsample_forward(x, factor, padding):
    """See `reference.bilinear_upsample_forward`."""
    checks.same_dtype(x=x)
    geo = geometry.upsample(x.shape, factor, padding)
    last, tables = channels_last(x), reaches(geo, 0, 0, (geo.P, geo.Q), x.dtype)
    y = memory.empty((geo.N, geo.P, geo.Q, geo.C), x.dtype)
    lines = scratch(3 * geo.Q * geo.C, x.dtype)
    run(_forward, parts(y.size), last.reshape(-1), last.shape, *tables, lines, y.reshape(-1))
    return channels_first(y)


def bilinear_upsample_backward_input(dy, input_size, factor, padding):
    """See `reference.bilinear_upsample_backward_input`."""
    checks.same_dtype(dy=dy)
    geo = geometry.upsample((*dy.shape[:2], *input_size), factor, padding)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    rows, *tables = reaches(geo, 0, 0, (geo.P, geo.Q), dy.dtype)
    pieces = memory.empty((geo.N, geo.H + 1, 2, geo.W, geo.C), dy.dtype)
    problem = (channels_last(dy).reshape(-1), (geo.N, geo.H, geo.W, geo.C), intervals(rows, geo.H), *tables)
    dx = memory.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    outputs = scratch(2 * geo.Q * geo.C, dy.dtype), pieces.reshape(-1), dx.reshape(-1)
    run(_backward, (parts(dy.size), parts(dx.size)), *problem, *outputs)
    return channels_first(dx)
