"""exp, 2^x and log as LLVM IR, of numbers and of vectors: float32 to 2 units in the last place, float64 the library's.

exp(x) = 2^n exp(x - n log 2) with n = round(x / log 2), and log(m 2^n) = n log 2 + log m with sqrt(1/2) <= m < sqrt(2).
The splitting of log 2 and the polynomial of log are those of Cephes (Moshier, 1992, expf and logf); that of 2^r is the
minimax one of degree 6 with 2^0 = 1, by Remez' algorithm. The library's functions are calls, which the compiler cannot
turn into vectors.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from .vectors import call

F = np.float32
LEAST, LEAST_POWER = F(-87.33654), -126  # exp, and 2^x, of less is no normal number any more: 0
LOG2_E, LOG2_HIGH, LOG2_LOW = F(math.log2(math.e)), F(0.693359375), F(-2.12194440e-4)
ROUND = F(1.5 * 2**23)  # added and taken away again, it leaves an integer
POWER = tuple(
    map(F, (1.559467816e-4, 1.340664390e-3, 9.617692973e-3, 5.550310551e-2, 2.402265278e-1, 6.931472150e-1, 1))
)
LOG = tuple(
    map(
        F,
        (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
         2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
    )
)  # fmt: skip
ROOT = math.sqrt(2)
FRACTION, BIAS, ONES_BITS = 23, 127, 0x3F800000  # bits of a float32's fraction; what its exponent is held with; 1.0
INT = ir.IntType(32)


class _Numbers:
    """Writes arithmetic at the builder's place: on single numbers, or on vectors, like `x`."""

    def __init__(self, builder, x) -> None:
        self.builder, self.kind, self.count = builder, x.type, getattr(x.type, "count", 0)
        self.element = getattr(x.type, "element", x.type)
        self.integers = ir.VectorType(INT, self.count) if self.count else INT  # as wide as a float32
        self.is_double = self.element == ir.DoubleType()

    def number(self, value: float) -> ir.Constant:
        return self._everywhere(self.kind, self.element, float(value))

    def integer(self, value: int) -> ir.Constant:
        return self._everywhere(self.integers, INT, value)

    def _everywhere(self, kind, element, value) -> ir.Constant:
        return ir.Constant(kind, [ir.Constant(element, value)] * self.count) if self.count else ir.Constant(kind, value)

    def multiply_add(self, x, y, z):
        """x y + z, rounded once where the processor can."""
        return call(self.builder, "fmuladd", x, y, z)

    def polynomial(self, coefficients, x):
        """The highest power's coefficient first."""
        total = self.number(coefficients[0])
        for coefficient in coefficients[1:]:
            total = self.multiply_add(total, x, self.number(coefficient))
        return total


def _power(of: _Numbers, shifted, r):
    """2^(n + r), |r| <= 1/2; shifted: n + ROUND, whose last bits are n, since those of ROUND are 0 there."""
    builder = of.builder
    exponent = builder.shl(builder.bitcast(shifted, of.integers), of.integer(FRACTION))
    scale = builder.bitcast(builder.add(exponent, of.integer(ONES_BITS)), of.kind)
    return builder.fmul(of.polynomial(POWER, r), scale)


def emit_power(builder, x):
    """2^x of x <= 0, a number or a vector; NaN stays NaN."""
    of = _Numbers(builder, x)
    if of.is_double:
        return call(builder, "exp", builder.fmul(x, of.number(math.log(2))))
    too_small = builder.fcmp_ordered("<", x, of.number(LEAST_POWER))
    safe = builder.select(too_small, of.number(LEAST_POWER), x)
    shifted = builder.fadd(safe, of.number(ROUND))
    r = builder.fsub(safe, builder.fsub(shifted, of.number(ROUND)))
    return builder.select(too_small, of.number(0), _power(of, shifted, r))


def emit_exponential(builder, x):
    """exp(x) of x <= 0, a number or a vector; NaN stays NaN."""
    of = _Numbers(builder, x)
    if of.is_double:
        return call(builder, "exp", x)
    too_small = builder.fcmp_ordered("<", x, of.number(LEAST))
    safe = builder.select(too_small, of.number(LEAST), x)
    shifted = of.multiply_add(safe, of.number(LOG2_E), of.number(ROUND))
    n = builder.fsub(shifted, of.number(ROUND))
    r = of.multiply_add(n, of.number(-LOG2_HIGH), safe)
    r = of.multiply_add(n, of.number(-LOG2_LOW), r)
    y = _power(of, shifted, builder.fmul(r, of.number(LOG2_E)))
    return builder.select(too_small, of.number(0), y)


def emit_logarithm(builder, x):
    """log(x) of a normal number x > 0, infinity or NaN, or of a vector of them."""
    of = _Numbers(builder, x)
    if of.is_double:
        return call(builder, "log", x)
    bits = builder.bitcast(x, of.integers)
    n = builder.sitofp(builder.sub(builder.lshr(bits, of.integer(FRACTION)), of.integer(BIAS)), of.kind)
    fraction = builder.or_(builder.and_(bits, of.integer((1 << FRACTION) - 1)), of.integer(ONES_BITS))
    m = builder.bitcast(fraction, of.kind)
    high = builder.fcmp_ordered(">", m, of.number(ROOT))
    n = builder.select(high, builder.fadd(n, of.number(1)), n)
    f = builder.fsub(builder.select(high, builder.fmul(m, of.number(0.5)), m), of.number(1))
    square = builder.fmul(f, f)
    y = of.multiply_add(n, of.number(LOG2_LOW), builder.fmul(builder.fmul(of.polynomial(LOG, f), f), square))
    y = of.multiply_add(square, of.number(-0.5), y)
    y = of.multiply_add(n, of.number(LOG2_HIGH), builder.fadd(f, y))
    return builder.select(builder.fcmp_ordered("<", x, of.number(math.inf)), y, x)


@intrinsic
def exponential(typingctx, x):
    """exp(x) of x <= 0; NaN stays NaN."""
    return x(x), lambda context, builder, signature, args: emit_exponential(builder, args[0])


@intrinsic
def logarithm(typingctx, x):
    """log(x) of a normal number x > 0, infinity or NaN."""
    return x(x), lambda context, builder, signature, args: emit_logarithm(builder, args[0])
