"""The head of a segmentation network in one pass: no logit of full size is ever stored.

The output rows between two coarse rows k - 1 and k are mixed from the same two widened rows (`lines`). They are
computed by vectors of pixels: of one vector the logits of all classes, their maximum, and the exponentials and their
sum stay in registers and the nearest cache. The backward pass computes them again, and adds its gradient to the two
lines of `upsample`'s adjoint.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .. import checks, geometry, memory
from .cross_entropy import in_rows, prepared
from .exponentials import emit_logarithm, emit_power
from .layout import channels_first, channels_last, contiguous
from .lines import length, narrow, runs, widen
from .runs import clear_run
from .threads import jobs, member, parts, run, scratch, share
from .upsample import NOTHING, join
from .vectors import VECTOR_BYTES, Vectors, lanes_of

WORK = 8  # of a logit here, as many elements of a kernel that is bound by memory
ROWS = 8  # output rows that are computed together, pass by pass: nobody waits for the end of a sum
NO_LABEL = -1  # of pixels that do not count
# A strip holds, of one vector of pixels, the classes' logits, then powers, and after them three vectors.
LARGEST, TOTAL, OWN, WEIGHT, EXTRA = 0, 0, 1, 2, 3


class _Numbers:
    """Vectors that a loop changes: they stand on the stack, from where LLVM takes them into registers."""

    def __init__(self, v: Vectors, *starts) -> None:
        self.builder, self.places = v.builder, [cgutils.alloca_once_value(v.builder, start) for start in starts]

    def get(self):
        return [self.builder.load(place) for place in self.places]

    def set(self, *values) -> None:
        for value, place in zip(values, self.places, strict=True):
            self.builder.store(value, place)


class _Strip:
    """Writes loops over the classes of a strip at `place`."""

    def __init__(self, v: Vectors, strip, strip_type, place, C) -> None:
        self.v, self.C, self.first = v, C, v.at(strip, strip_type, place)

    def loop(self):
        return cgutils.for_range(self.v.builder, self.C)

    def offset(self, c):
        return self.v.builder.mul(c, self.v.index(self.v.lanes))

    def after(self, extra: int):
        """Where the vector `extra` stands, after those of the classes."""
        return self.offset(self.v.builder.add(self.C, self.v.index(extra)))


def _mixed(v: Vectors, line, line_type, upper, lower, step, a, b):
    """A function of c, logit c of a vector of pixels: a line[upper + c step] + b line[lower + c step].

    Rounded as `bilinear_upsample_forward` rounds: `upsample_argmax` must see the same ties.
    """
    rows = [(v.broadcast(weight), v.at(line, line_type, start)) for weight, start in ((a, upper), (b, lower))]

    def logit(c):
        offset = v.builder.mul(c, step)
        return v.builder.fadd(*(v.builder.fmul(weight, v.load(row, offset)) for weight, row in rows))

    return logit


def _counted(v: Vectors, number):
    """The vector after `number`, of the classes 0, 1, 2, ... in every lane."""
    return v.builder.fadd(number, v.constant(1))


@intrinsic
def _logits(typingctx, line, upper, lower, step, C, a, b, strip, place):
    """The logits over log 2, so that powers of 2 will do, and the largest; one beside a NaN may be lost."""

    def generate(context, builder, signature, args):
        line, upper, lower, step, C, a, b, strip, place = args
        v = Vectors(context, builder, signature.args[0].dtype)
        a, b = (builder.fmul(weight, ir.Constant(v.element, math.log2(math.e))) for weight in (a, b))
        logit = _mixed(v, line, signature.args[0], upper, lower, step, a, b)
        strip, numbers = _Strip(v, strip, signature.args[7], place, C), _Numbers(v, v.constant(-math.inf))
        with strip.loop() as one:
            value, (largest,) = logit(one.index), numbers.get()
            v.store(value, strip.first, strip.offset(one.index))
            numbers.set(builder.select(builder.fcmp_ordered(">", largest, value), largest, value))
        v.store(*numbers.get(), strip.first, strip.after(LARGEST))
        return context.get_dummy_value()

    n, number = types.intp, line.dtype
    return types.void(line, n, n, n, n, number, number, strip, n), generate


@intrinsic
def _powers(typingctx, strip, place, C, labels, start, weight):
    """exp(logit - largest) of each class, and their total; of the label's the exponent over log 2, and its weight."""

    def generate(context, builder, signature, args):
        strip, place, C, labels, start, weight = args
        v = Vectors(context, builder, signature.args[0].dtype)
        strip, zero = _Strip(v, strip, signature.args[0], place, C), v.index(0)
        label, weights = v.load(v.at(labels, signature.args[3], start), zero), v.at(weight, signature.args[5], zero)
        largest, numbers = v.load(strip.first, strip.after(LARGEST)), _Numbers(v, v.zero, v.zero, v.zero, v.zero)
        with strip.loop() as one:
            number, total, own, factor = numbers.get()
            exponent = builder.fsub(v.load(strip.first, strip.offset(one.index)), largest)
            power, here = emit_power(builder, exponent), builder.fcmp_ordered("==", label, number)
            v.store(power, strip.first, strip.offset(one.index))
            weight_here = v.broadcast(builder.load(builder.gep(weights, [one.index])))
            own, factor = builder.select(here, exponent, own), builder.select(here, weight_here, factor)
            numbers.set(_counted(v, number), builder.fadd(total, power), own, factor)
        for value, extra in zip(numbers.get()[1:], (TOTAL, OWN, WEIGHT), strict=True):
            v.store(value, strip.first, strip.after(extra))
        return context.get_dummy_value()

    n = types.intp
    return types.void(strip, n, n, labels, n, weight), generate


@intrinsic
def _losses(typingctx, strip, place, C, labels, start, losses, target, count):
    """losses[target + lane] = weight (log total - exponent), 0 without a label; of the first `count` lanes."""

    def generate(context, builder, signature, args):
        strip, place, C, labels, start, losses, target, count = args
        v = Vectors(context, builder, signature.args[0].dtype)
        strip, zero = _Strip(v, strip, signature.args[0], place, C), v.index(0)
        total, own, weight = (v.load(strip.first, strip.after(extra)) for extra in (TOTAL, OWN, WEIGHT))
        loss = v.multiply_add(own, v.constant(-math.log(2)), emit_logarithm(builder, total))
        known = builder.fcmp_ordered(">=", v.load(v.at(labels, signature.args[3], start), zero), v.zero)
        loss = builder.select(known, builder.fmul(weight, loss), v.zero)
        v.store_part(loss, v.at(losses, signature.args[5], target), zero, v.active(count))
        return context.get_dummy_value()

    n = types.intp
    return types.void(strip, n, n, labels, n, losses, n, n), generate


@intrinsic
def _gradients(typingctx, strip, place, C, labels, start, dy, source, count, a, b, sums, above, below, step):
    """Add dy weight (p - [c = label]), a and b times, to the sums from `above` and from `below` on, `step` apart."""

    def generate(context, builder, signature, args):
        strip, place, C, labels, start, dy, source, count, a, b, sums, above, below, step = args
        v = Vectors(context, builder, signature.args[0].dtype)
        strip, zero = _Strip(v, strip, signature.args[0], place, C), v.index(0)
        label, total = v.load(v.at(labels, signature.args[3], start), zero), v.load(strip.first, strip.after(TOTAL))
        upstream = v.load_part(v.at(dy, signature.args[5], source), zero, v.active(count))
        factor = builder.fdiv(builder.fmul(upstream, v.load(strip.first, strip.after(WEIGHT))), total)
        known, rows = builder.fcmp_ordered(">=", label, v.zero), []
        for number, row in ((a, above), (b, below)):
            weight = v.broadcast(number)
            used = builder.and_(known, builder.fcmp_unordered("!=", weight, v.zero))
            rows.append((builder.fmul(weight, factor), used, v.at(sums, signature.args[10], row)))
        numbers = _Numbers(v, v.zero)
        with strip.loop() as one:
            (number,) = numbers.get()
            power, offset = v.load(strip.first, strip.offset(one.index)), builder.mul(one.index, step)
            here = builder.fcmp_ordered("==", label, number)
            power = builder.select(here, builder.fsub(power, total), power)  # p - 1, times the total
            for weight, used, row in rows:
                before = v.load(row, offset)
                v.store(builder.select(used, v.multiply_add(weight, power, before), before), row, offset)
            numbers.set(_counted(v, number))
        return context.get_dummy_value()

    n, number = types.intp, strip.dtype
    return types.void(strip, n, n, labels, n, dy, n, n, number, number, sums, n, n, n), generate


@intrinsic
def _winners(typingctx, line, upper, lower, step, C, a, b, winners, target):
    """winners[target + lane] = the class of the largest logit: the first of equal ones, or the first NaN."""

    def generate(context, builder, signature, args):
        line, upper, lower, step, C, a, b, winners, target = args
        v = Vectors(context, builder, signature.args[0].dtype)
        logit = _mixed(v, line, signature.args[0], upper, lower, step, a, b)
        numbers = _Numbers(v, v.zero, logit(v.index(0)), v.zero)
        with cgutils.for_range(builder, C) as one:
            value, (number, best, winner) = logit(one.index), numbers.get()
            beats = builder.and_(builder.fcmp_unordered(">", value, best), builder.fcmp_ordered("ord", best, best))
            numbers.set(_counted(v, number), builder.select(beats, value, best), builder.select(beats, number, winner))
        v.store(numbers.get()[2], v.at(winners, signature.args[7], target), v.index(0))
        return context.get_dummy_value()

    n, number = types.intp, line.dtype
    return types.void(line, n, n, n, n, number, number, winners, n), generate


@njit(cache=True, nogil=True)
def _line(x, row, shape, columns, step, line, held):
    """Where in `line` coarse row `row` (of all images) stands, widened; `held` says what is there."""
    W, C = shape[2], shape[3]
    slot = row % 2  # neighbours have different ones
    if held[slot] != row:
        widen(x, row * W * C, W, C, columns, line, slot * C * step, step)
        held[slot] = row
    return slot * C * step


@njit(cache=True, nogil=True)
def _lines(x, n, k, shape, columns, step, line, held):
    """Where in `line` the coarse rows k - 1 and k of image n stand, widened; zeros beyond an edge."""
    H, zeros = shape[1], NOTHING * shape[3] * step
    upper = _line(x, n * H + k - 1, shape, columns, step, line, held) if k > 0 else zeros
    return upper, (_line(x, n * H + k, shape, columns, step, line, held) if k < H else zeros)


@njit(cache=True, nogil=True)
def _row(rows, p, upper, lower, zeros):
    """(a, b, upper, lower) of output row p; zeros in the place of a coarse row of which it takes nothing."""
    a, b = rows[1][p], rows[2][p]
    return a, b, upper if a != 0 else zeros, lower if b != 0 else zeros


@njit(cache=True, nogil=True)
def _label_rows(target, first, count, C, ignore_index, step, labels, wrong):
    """labels[i step + q] = the label of pixel q of row first + i, or NO_LABEL; `wrong` if any is not a class."""
    kind, pixels = labels.dtype.type, np.uintp(target.shape[1])
    for i in range(count):
        row, start, strange = target[first + i], np.uintp(i * step), 0
        for q in range(pixels):
            t = row[q]
            counts, known = t != ignore_index, 0 <= t < C
            strange += counts and not known
            labels[start + q] = kind(t) if counts and known else kind(NO_LABEL)
        for q in range(pixels, np.uintp(step)):
            labels[start + q] = kind(NO_LABEL)
        if strange:
            wrong[0] = 1


@njit(cache=True, nogil=True)
def _softmax(line, upper, lower, step, C, rows, first, count, q, labels, weight, strip, size):
    """The strips, `size` apart, of the vector of pixels at q in `count` output rows from `first` on."""
    zeros = NOTHING * C * step + q
    for i in range(count):
        a, b, above, below = _row(rows, first + i, upper + q, lower + q, zeros)
        _logits(line, above, below, step, C, a, b, strip, i * size)
    for i in range(count):
        _powers(strip, i * size, C, labels, i * step + q, weight)


@njit(cache=True, nogil=True)
def _forward(team, x, shape, rows, columns, step, target, weight, ignore_index, wrong, scratch, losses):
    N, H, _, C = shape
    starts, lanes = rows[0], VECTOR_BYTES // x.itemsize
    P, Q, size, strips = target.shape[0] // max(N, 1), target.shape[1], (C + EXTRA) * lanes, 3 * C * step
    numbers, held = scratch[member(team)], np.full(2, -1)
    line, strip, labels = numbers[:strips], numbers[strips : strips + ROWS * size], numbers[strips + ROWS * size :]
    clear_run(line, NOTHING * C * step, C * step)
    for job in jobs(team):
        begin, end = share(team, job, N * (H + 1))
        for unit in range(begin, end):
            n, k = divmod(unit, H + 1)
            if starts[k] == starts[k + 1]:
                continue
            upper, lower = _lines(x, n, k, shape, columns, step, line, held)
            for first in range(starts[k], starts[k + 1], ROWS):
                count, row = min(ROWS, starts[k + 1] - first), n * P + first
                _label_rows(target, row, count, C, ignore_index, step, labels, wrong)
                for q in range(0, Q, lanes):
                    _softmax(line, upper, lower, step, C, rows, first, count, q, labels, weight, strip, size)
                    for i in range(count):
                        _losses(strip, i * size, C, labels, i * step + q, losses, (row + i) * Q + q, Q - q)


@njit(cache=True, nogil=True)
def _backward(
    team, x, shape, rows, columns, step, target, weight, ignore_index, wrong, dy, alike, scratch, pieces, dx
):  # fmt: skip
    N, H, W, C = shape
    starts, lanes = rows[0], VECTOR_BYTES // x.itemsize
    P, Q, size, strips = target.shape[0] // max(N, 1), target.shape[1], (C + EXTRA) * lanes, 5 * C * step
    numbers, held = scratch[member(team)], np.full(2, -1)
    line, sums = numbers[: 3 * C * step], numbers[3 * C * step : strips]
    strip, rest = numbers[strips : strips + ROWS * size], numbers[strips + ROWS * size :]
    labels, one_row, rise = rest[: ROWS * step], rest[ROWS * step :], 0 if alike else Q
    if alike:
        one_row[:step] = dy[0]
    gradients = one_row if alike else dy
    clear_run(line, NOTHING * C * step, C * step)
    for job in jobs(team, 0):
        begin, end = share(team, job, N * (H + 1))
        for unit in range(begin, end):
            n, k = divmod(unit, H + 1)
            upper, lower = _lines(x, n, k, shape, columns, step, line, held)
            above, below = (k - 1) % 2 * C * step, k % 2 * C * step  # the sums for coarse rows k - 1 and k
            if unit == begin:
                clear_run(sums, above, C * step)  # else interval k - 1 has left its own there
            clear_run(sums, below, C * step)
            for first in range(starts[k], starts[k + 1], ROWS):
                count, row = min(ROWS, starts[k + 1] - first), n * P + first
                _label_rows(target, row, count, C, ignore_index, step, labels, wrong)
                for q in range(0, Q, lanes):
                    _softmax(line, upper, lower, step, C, rows, first, count, q, labels, weight, strip, size)
                    for i in range(count):
                        a, b, source = rows[1][first + i], rows[2][first + i], (row + i) * rise + q
                        _gradients(
                            strip, i * size, C, labels, i * step + q, gradients, source, Q - q, a, b,
                            sums, above + q, below + q, step,
                        )  # fmt: skip
            piece = 2 * unit * W * C
            if k > 0:
                narrow(sums, above, step, W, C, columns, pieces, piece)
            if unit == end - 1:
                narrow(sums, below, step, W, C, columns, pieces, piece + W * C)
            else:
                clear_run(pieces, piece + W * C, W * C)
    for job in jobs(team, 1):
        first, last = share(team, job, N * H, 1)
        join(pieces, H, W * C, first, last, dx)


@njit(cache=True, nogil=True)
def _argmax(team, x, shape, rows, columns, step, scratch, labels):
    N, H, _, C = shape
    P, Q, starts, zeros = labels.shape[0] // max(N, 1), labels.shape[1], rows[0], NOTHING * C * step
    numbers, held, kind = scratch[member(team)], np.full(2, -1), labels.dtype.type
    line, winners = numbers[: 3 * C * step], numbers[3 * C * step :]
    clear_run(line, zeros, C * step)
    for job in jobs(team):
        begin, end = share(team, job, N * (H + 1))
        for unit in range(begin, end):
            n, k = divmod(unit, H + 1)
            if starts[k] == starts[k + 1]:
                continue
            upper, lower = _lines(x, n, k, shape, columns, step, line, held)
            for p in range(starts[k], starts[k + 1]):
                a, b, above, below = _row(rows, p, upper, lower, zeros)
                for q in range(0, Q, VECTOR_BYTES // x.itemsize):
                    _winners(line, above + q, below + q, step, C, a, b, winners, q)
                row = labels[n * P + p]
                for q in range(np.uintp(Q)):
                    row[q] = kind(winners[q])


def _problem(x, factor, padding, offset, size) -> tuple:
    """(x flat, its shape channels last, `lines.runs` of rows and of columns, `lines.length`) of an upsampled window."""
    geo, (top, left) = geometry.upsample_window(x.shape, factor, padding, offset, size)
    last = channels_last(x)
    rows = runs(geo.H, size[0], geo.factor[0], geo.padding[0] + top, x.dtype)
    columns = runs(geo.W, size[1], geo.factor[1], geo.padding[1] + left, x.dtype)
    return last.reshape(-1), last.shape, rows, columns, length(size[1], x.dtype)


def _strips(x) -> int:
    """Numbers of the strips of one thread."""
    return ROWS * (x.shape[1] + EXTRA) * lanes_of(x.dtype)


class _Labels:
    """`target` and `weight` as the kernels take them. They look at the labels themselves, and note if one is wrong."""

    def __init__(self, x, target, weight, ignore_index) -> None:
        self.given = ((*x.shape[:2], *target.shape[1:]), target, weight, ignore_index)
        checks.check_target(*self.given, values=False)
        self.wrong = np.zeros(1, np.int64)
        self.arguments = (*prepared(x.dtype, x.shape[1], target, weight), ignore_index, self.wrong)

    def refuse(self) -> None:
        """Raise ShapeError, after a run, for a label that is neither a class nor the ignored one."""
        if self.wrong[0]:
            checks.check_target(*self.given)


def upsample_cross_entropy_forward(x, target, weight=None, ignore_index=255, factor=1, padding=0, offset=0):
    """See `reference.upsample_cross_entropy_forward`."""
    checks.same_dtype(x=x, weight=weight)
    checks.expect_rank3("target", target.shape)
    problem = _problem(x, factor, padding, offset, target.shape[1:])
    labels, C, step = _Labels(x, target, weight, ignore_index), x.shape[1], problem[-1]
    losses = memory.empty(target.shape, x.dtype)
    numbers = scratch((3 * C + ROWS) * step + _strips(x), x.dtype)
    run(_forward, parts(WORK * C * target.size), *problem, *labels.arguments, numbers, losses.reshape(-1))
    labels.refuse()
    return losses


def upsample_cross_entropy_backward_input(
    dy, x, target, weight=None, ignore_index=255, factor=1, padding=0, offset=0
):  # fmt: skip
    """See `reference.upsample_cross_entropy_backward_input`."""
    checks.same_dtype(dy=dy, x=x, weight=weight)
    checks.expect_rank3("target", target.shape)
    problem = _problem(x, factor, padding, offset, target.shape[1:])
    labels = _Labels(x, target, weight, ignore_index)
    checks.expect_shape("dy", dy.shape, target.shape)
    (N, C, H, W), step = x.shape, problem[-1]
    pieces = memory.empty((N, H + 1, 2, W, C), x.dtype)
    numbers = scratch((5 * C + ROWS + 1) * step + _strips(x), x.dtype)
    alike = dy.size > 0 and not any(dy.strides)  # one number for all pixels
    gradients = memory.plain(dy)[0, 0, :1] if alike else contiguous(dy).reshape(-1)
    dx = memory.empty((N, H, W, C), x.dtype)
    outputs = numbers, pieces.reshape(-1), dx.reshape(-1)
    counts = parts(WORK * C * target.size, 32), parts(dx.size)
    run(_backward, counts, *problem, *labels.arguments, gradients, int(alike), *outputs)
    labels.refuse()
    return channels_first(dx)


def upsample_argmax(x, factor, padding, offset, size):
    """See `reference.upsample_argmax`."""
    checks.same_dtype(x=x)
    size = geometry.pair(size, "size", 1)
    problem = _problem(x, factor, padding, offset, size)
    (N, C), step = x.shape[:2], problem[-1]
    labels = memory.empty((N, *size), checks.label_dtype(C))
    numbers = scratch((3 * C + 1) * step, x.dtype)
    run(_argmax, parts(2 * C * labels.size), *problem, numbers, in_rows(labels))
    return labels
