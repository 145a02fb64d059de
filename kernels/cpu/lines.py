"""Lines of pixels, class by class: coarse rows upsampled along themselves and back, a vector one run of pixels.

A line is C runs of Q pixels, which stand `length(Q)` apart: whole vectors, and one to spare. The pixels between two
neighbouring coarse columns k - 1 and k are the run from starts[k] to starts[k + 1]; all of them are mixed from the same
two numbers, a x[k - 1] + b x[k]. A weight of 0 takes part in nothing, or it would make NaN of infinity.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..tables import intervals, reach
from .callee import callee
from .runs import clear_run
from .vectors import VECTOR_BYTES, Vectors, lanes_of


def length(Q: int, dtype: np.dtype) -> int:
    """Numbers from one class to the next in a line of Q pixels."""
    lanes = lanes_of(dtype)
    return (-(-Q // lanes) + 1) * lanes


@lru_cache(maxsize=64)
def runs(size: int, out: int, factor: int, shift: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`tables.reach` by runs: starts [size + 2], and the weights a and b of every pixel, 0 beyond the last one."""
    places, pairs = reach(size, out, factor, shift, dtype)
    weights = np.zeros((2, length(out, dtype)), dtype)
    weights[:, :out] = pairs.T
    return intervals(places, size), *weights


@intrinsic
def _widen_vector(typingctx, x, before, here, C, a, b, q, line, target, step):
    """line[target + c step + lane] = a x[before + c] + b x[here + c], with the weights of pixel q + lane."""

    def generate(context, builder, signature, args):
        x, before, here, C, a, b, q, line, target, step = args
        v = Vectors(context, builder, signature.args[0].dtype)
        weights = [v.load(v.at(w, signature.args[i], q), v.index(0)) for w, i in ((a, 4), (b, 5))]
        used = [builder.fcmp_unordered("!=", weight, v.zero) for weight in weights]
        columns = [v.at(x, signature.args[0], start) for start in (before, here)]
        first = v.at(line, signature.args[7], target)
        with cgutils.for_range(builder, C) as loop:
            terms = []
            for weight, part, column in zip(weights, used, columns, strict=True):
                number = v.broadcast(builder.load(builder.gep(column, [loop.index])))
                terms.append(builder.fmul(weight, builder.select(part, number, v.zero)))
            v.store(builder.fadd(*terms), first, builder.mul(loop.index, step))
        return context.get_dummy_value()

    n = types.intp
    return types.void(x, n, n, n, a, b, n, line, n, n), generate


@intrinsic
def _narrow_vector(typingctx, line, source, step, C, a, b, q, count, out, before, here):
    """The adjoint, of the first `count` lanes: adds to out[before + c] and out[here + c]."""

    def generate(context, builder, signature, args):
        line, source, step, C, a, b, q, count, out, before, here = args
        v = Vectors(context, builder, signature.args[0].dtype)
        weights = [v.load(v.at(w, signature.args[i], q), v.index(0)) for w, i in ((a, 4), (b, 5))]
        active = v.active(count)
        used = [builder.and_(active, builder.fcmp_unordered("!=", weight, v.zero)) for weight in weights]
        columns = [v.at(out, signature.args[8], start) for start in (before, here)]
        first = v.at(line, signature.args[0], source)
        with cgutils.for_range(builder, C) as loop:
            numbers = v.load(first, builder.mul(loop.index, step))
            for weight, part, column in zip(weights, used, columns, strict=True):
                place = builder.gep(column, [loop.index])
                total = v.sum(builder.select(part, builder.fmul(weight, numbers), v.zero))
                builder.store(builder.fadd(builder.load(place), total), place)
        return context.get_dummy_value()

    n = types.intp
    return types.void(line, n, n, n, a, b, n, n, out, n, n), generate


@callee
def widen(x, start, W, C, columns, line, base, step):
    """The coarse row at `start` of x [W, C], upsampled along itself, into the line at `base`; columns: its `runs`."""
    starts, a, b = columns
    for k in range(W + 1):
        before, here = start + max(k - 1, 0) * C, start + min(k, W - 1) * C
        # The last vector reaches into the next run, which comes later, or beyond the line's end.
        for q in range(starts[k], starts[k + 1], VECTOR_BYTES // x.itemsize):
            _widen_vector(x, before, here, C, a, b, q, line, base + q, step)


@callee
def narrow(line, base, step, W, C, columns, out, start):
    """The adjoint of `widen`: the coarse row [W, C] at `start` of `out` from the line at `base`."""
    starts, a, b = columns
    clear_run(out, start, W * C)
    for k in range(W + 1):
        before, here = start + max(k - 1, 0) * C, start + min(k, W - 1) * C
        for q in range(starts[k], starts[k + 1], VECTOR_BYTES // line.itemsize):
            _narrow_vector(line, base + q, step, C, a, b, q, starts[k + 1] - q, out, before, here)
