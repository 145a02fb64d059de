"""The head of a segmentation network in one pass: no logit of full size is ever stored.

One output row at a time: its logits are mixed from two widened coarse rows (`upsample`), class by class, into a strip
of C runs of Q pixels, so that maximum, exponentials and sums over classes are vectors of pixels. The backward pass
computes the strip again, and adds its gradient to the two lines of `upsample`'s adjoint.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import checks, geometry, memory
from ..tables import intervals, reaches
from .cross_entropy import in_rows, prepared
from .exponentials import exponential, logarithm
from .layout import channels_last
from .pool2d import beats
from .runs import clear_run
from .threads import jobs, member, parts, run, share
from .upsample import NOTHING, joined, narrow, scratch, widened

WORK = 8  # of a logit here, as many elements of a kernel that is bound by memory


@njit(cache=True, nogil=True)
def _mixed(p, k, x, shape, tables, line, held):
    """(upper, lower): where in `line` the two widened rows of output row p stand; k is the lower one, of all images."""
    _, row_weights, columns, column_weights = tables
    W, C = shape[2], shape[3]
    upper = lower = np.uintp(NOTHING * columns.size * C)
    if row_weights[p, 0] != 0:
        upper = widened(x, k - 1, W, C, columns, column_weights, line, held, 1, columns.size)
    if row_weights[p, 1] != 0:
        lower = widened(x, k, W, C, columns, column_weights, line, held, 1, columns.size)
    return upper, lower


@njit(cache=True, nogil=True)
def _logits(line, upper, lower, a, b, C, Q, strip, largest):
    """strip[c Q + q] = the logits of an output row; largest[q] = their maxima over c, or NaN."""
    for q in range(Q):
        strip[q] = a * line[upper + q] + b * line[lower + q]
        largest[q] = strip[q]
    for c in range(np.uintp(1), C):
        start = c * Q
        for q in range(Q):
            value = a * line[upper + start + q] + b * line[lower + start + q]
            strip[start + q] = value
            largest[q] = largest[q] if value <= largest[q] else value


@njit(cache=True, nogil=True)
def _softmax(strip, largest, C, Q, total):
    """strip <- exp(strip - largest), total[q] = its sums over the classes."""
    for q in range(Q):
        strip[q] = exponential(strip[q] - largest[q])
        total[q] = strip[q]
    for c in range(np.uintp(1), C):
        start = c * Q
        for q in range(Q):
            strip[start + q] = exponential(strip[start + q] - largest[q])
            total[q] += strip[start + q]


@njit(cache=True, nogil=True)
def _forward(team, x, shape, tables, target, weight, ignore_index, scratch, losses):
    N, H, _, C = shape
    rows, row_weights = tables[0], tables[1]
    P, Q = target.shape[0] // max(N, 1), target.shape[1]
    size, pixels, classes = Q * C, np.uintp(Q), np.uintp(C)
    numbers, held, zero = scratch[member(team)], np.full(2, -1), x.dtype.type(0)
    line, strip = numbers[: 3 * size], numbers[3 * size : 4 * size]
    largest, total = numbers[4 * size : 4 * size + Q], numbers[4 * size + Q :]
    clear_run(line, NOTHING * size, size)
    for job in jobs(team):
        first, last = share(team, job, N * P)
        for row in range(first, last):
            n, p = divmod(row, P)
            upper, lower = _mixed(p, n * H + rows[p], x, shape, tables, line, held)
            _logits(line, upper, lower, row_weights[p, 0], row_weights[p, 1], classes, pixels, strip, largest)
            for q in range(Q):
                t = target[row, q]
                losses[row, q] = zero if t == ignore_index else strip[t * Q + q] - largest[q]
            _softmax(strip, largest, classes, pixels, total)
            for q in range(pixels):
                total[q] = logarithm(total[q])
            for q in range(Q):
                t = target[row, q]
                losses[row, q] = zero if t == ignore_index else weight[t] * (total[q] - losses[row, q])


@njit(cache=True, nogil=True, error_model="numpy")
def _backward(team, dy, x, shape, tables, starts, target, weight, ignore_index, scratch, pieces):
    N, H, W, C = shape
    _, row_weights, columns, column_weights = tables
    P, Q = target.shape[0] // max(N, 1), target.shape[1]
    size, pixels, classes = Q * C, np.uintp(Q), np.uintp(C)
    numbers, held, zero = scratch[member(team)], np.full(2, -1), x.dtype.type(0)
    line, strip, sums = numbers[: 3 * size], numbers[3 * size : 4 * size], numbers[4 * size : 6 * size]
    largest, total = numbers[6 * size : 6 * size + Q], numbers[6 * size + Q :]
    clear_run(line, NOTHING * size, size)
    for job in jobs(team):
        first, last = share(team, job, N * (H + 1))
        for unit in range(first, last):
            n, k = divmod(unit, H + 1)
            clear_run(sums, 0, 2 * size)
            for p in range(starts[k], starts[k + 1]):
                a, b, row = row_weights[p, 0], row_weights[p, 1], n * P + p
                upper, lower = _mixed(p, n * H + k, x, shape, tables, line, held)
                _logits(line, upper, lower, a, b, classes, pixels, strip, largest)
                _softmax(strip, largest, classes, pixels, total)
                for q in range(Q):
                    t = target[row, q]
                    if t == ignore_index:
                        for c in range(C):
                            strip[c * Q + q] = zero
                        largest[q] = zero
                    else:
                        strip[t * Q + q] -= total[q]  # p - 1, times the sum
                        largest[q] = dy[row, q] * weight[t] / total[q]
                _spread(strip, largest, a, b, classes, pixels, sums)
            clear_run(pieces, 2 * unit * W * C, 2 * W * C)
            narrow(sums, 0, C, columns, column_weights, 1, Q, pieces, 2 * unit * W * C)
            narrow(sums, size, C, columns, column_weights, 1, Q, pieces, (2 * unit + 1) * W * C)


@njit(cache=True, nogil=True)
def _spread(strip, factor, a, b, C, Q, sums):
    """Add `strip` times the pixels' `factor` to the sums of the upper and lower coarse row, a and b times."""
    below, zero = C * Q, strip.dtype.type(0)
    for c in range(C):
        start = c * Q
        for q in range(Q):
            gradient = strip[start + q] * factor[q]
            sums[start + q] += a * gradient if a != 0 else zero
            sums[below + start + q] += b * gradient if b != 0 else zero


@njit(cache=True, nogil=True)
def _argmax(team, x, shape, tables, P, scratch, labels):
    N, H, _, C = shape
    rows, row_weights = tables[0], tables[1]
    Q = labels.shape[1]
    size, pixels = Q * C, np.uintp(Q)
    numbers, held = scratch[member(team)], np.full(2, -1)
    line, best, winner = numbers[: 3 * size], numbers[3 * size : 3 * size + Q], numbers[3 * size + Q :]
    clear_run(line, NOTHING * size, size)
    number, kind = x.dtype.type, labels.dtype.type
    for job in jobs(team):
        first, last = share(team, job, N * P)
        for row in range(first, last):
            n, p = divmod(row, P)
            a, b = row_weights[p, 0], row_weights[p, 1]
            upper, lower = _mixed(p, n * H + rows[p], x, shape, tables, line, held)
            for q in range(pixels):
                best[q], winner[q] = a * line[upper + q] + b * line[lower + q], number(0)
            for c in range(1, C):
                start, label = np.uintp(c * Q), number(c)  # as wide as the logits: one kind of vectors
                for q in range(pixels):
                    value = a * line[upper + start + q] + b * line[lower + start + q]
                    before, leader = best[q], winner[q]
                    wins = beats(value, before)
                    best[q], winner[q] = (value, label) if wins else (before, leader)
            for q in range(Q):
                labels[row, q] = kind(winner[q])


def _problem(x, factor, padding, offset, size) -> tuple:
    """(x flat, its shape channels last, the tables of rows and columns) of an upsampling and a window of it."""
    geo, corner = geometry.upsample_window(x.shape, factor, padding, offset, size)
    last = channels_last(x)
    return last.reshape(-1), last.shape, reaches(geo, *corner, size, x.dtype)


def upsample_cross_entropy_forward(x, target, weight=None, ignore_index=255, factor=1, padding=0, offset=0):
    """See `reference.upsample_cross_entropy_forward`."""
    checks.same_dtype(x=x, weight=weight)
    checks.expect_rank3("target", target.shape)
    problem = _problem(x, factor, padding, offset, target.shape[1:])
    checks.check_target((*x.shape[:2], *target.shape[1:]), target, weight, ignore_index)
    losses, (C, Q) = memory.empty(target.shape, x.dtype), (x.shape[1], target.shape[2])
    labels = prepared(x.dtype, C, target, weight)
    numbers = scratch(4 * Q * C + 2 * Q, x.dtype)
    run(_forward, parts(WORK * C * target.size), *problem, *labels, ignore_index, numbers, in_rows(losses))
    return losses


def upsample_cross_entropy_backward_input(
    dy, x, target, weight=None, ignore_index=255, factor=1, padding=0, offset=0
):  # fmt: skip
    """See `reference.upsample_cross_entropy_backward_input`."""
    checks.same_dtype(dy=dy, x=x, weight=weight)
    checks.expect_rank3("target", target.shape)
    problem = _problem(x, factor, padding, offset, target.shape[1:])
    checks.check_target((*x.shape[:2], *target.shape[1:]), target, weight, ignore_index)
    checks.expect_shape("dy", dy.shape, target.shape)
    (N, C, H, W), Q = x.shape, target.shape[2]
    labels = prepared(x.dtype, C, target, weight)
    starts = intervals(problem[2][0], H)
    pieces, numbers = memory.empty((N, H + 1, 2, W, C), x.dtype), scratch(6 * Q * C + 2 * Q, x.dtype)
    gradients, outputs = in_rows(np.ascontiguousarray(dy)), (numbers, pieces.reshape(-1))
    run(_backward, parts(WORK * C * target.size), gradients, *problem, starts, *labels, ignore_index, *outputs)
    return joined(pieces)


def upsample_argmax(x, factor, padding, offset, size):
    """See `reference.upsample_argmax`."""
    checks.same_dtype(x=x)
    size = geometry.pair(size, "size", 1)
    (N, C), (P, Q) = x.shape[:2], size
    labels = memory.empty((N, P, Q), checks.label_dtype(C))
    numbers = scratch(3 * Q * C + 2 * Q, x.dtype)
    problem = _problem(x, factor, padding, offset, size)
    run(_argmax, parts(2 * C * labels.size), *problem, P, numbers, in_rows(labels))
    return labels
