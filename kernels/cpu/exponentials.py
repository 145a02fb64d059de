"""exp and log of float32 in loops that vectorise, to 2 units in the last place; of float64 the library's.

Polynomials and splittings of the argument are those of Cephes (Moshier, 1992, expf and logf): exp(x) = 2^n exp(x - n
log 2) with n = round(x / log 2), and log(m 2^n) = n log 2 + log m with sqrt(1/2) <= m < sqrt(2). The library's
functions are calls, which the compiler cannot turn into vectors.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

F = np.float32
LEAST = F(-87.33654)  # exp of less is no normal number any more: 0
LOG2_E, LOG2_HIGH, LOG2_LOW = F(math.log2(math.e)), F(0.693359375), F(-2.12194440e-4)
ROUND = F(1.5 * 2**23)  # added and taken away again, it leaves an integer
EXP = tuple(
    map(F, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1))
)
LOG = tuple(
    map(
        F,
        (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
         2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
    )
)  # fmt: skip
ZERO, ONE, HALF, INFINITY, ROOT = F(0), F(1), F(0.5), F(np.inf), F(math.sqrt(2))
FRACTION, ONES_BITS = 23, 0x3F800000  # bits of a float32's fraction; of 1.0
INT = ir.IntType(32)


@intrinsic
def _power_of_two(typingctx, n):
    """2^n of an integer n from -126 to 127 that is held as a float32."""

    def generate(context, builder, signature, args):
        shifted = builder.add(builder.fptosi(args[0], INT), INT(127))
        return builder.bitcast(builder.shl(shifted, INT(FRACTION)), ir.FloatType())

    return types.float32(types.float32), generate


@intrinsic
def _exponent(typingctx, x):
    """n of x = m 2^n with 1 <= m < 2, as a float32."""

    def generate(context, builder, signature, args):
        bits = builder.lshr(builder.bitcast(args[0], INT), INT(FRACTION))
        return builder.sitofp(builder.sub(bits, INT(127)), ir.FloatType())

    return types.float32(types.float32), generate


@intrinsic
def _mantissa(typingctx, x):
    """m of x = m 2^n with 1 <= m < 2."""

    def generate(context, builder, signature, args):
        fraction = builder.and_(builder.bitcast(args[0], INT), INT((1 << FRACTION) - 1))
        return builder.bitcast(builder.or_(fraction, INT(ONES_BITS)), ir.FloatType())

    return types.float32(types.float32), generate


@njit(cache=True, nogil=True, fastmath={"contract"})
def _exp32(x):
    safe = x if x > LEAST else LEAST
    n = (safe * LOG2_E + ROUND) - ROUND
    r = safe - n * LOG2_HIGH
    r = r - n * LOG2_LOW
    p = EXP[0]
    for i in range(1, 6):
        p = p * r + EXP[i]
    y = (p * (r * r) + r + ONE) * _power_of_two(n)
    y = y if x >= LEAST else ZERO
    return y if x == x else x


@njit(cache=True, nogil=True, fastmath={"contract"})
def _log32(x):
    n, m = _exponent(x), _mantissa(x)
    high = m > ROOT
    n, m = (n + ONE if high else n), (m * HALF if high else m)
    f = m - ONE
    p = LOG[0]
    for i in range(1, 9):
        p = p * f + LOG[i]
    square = f * f
    y = p * f * square + n * LOG2_LOW - HALF * square
    y = (f + y) + n * LOG2_HIGH
    return y if x < INFINITY else x


def exponential(x):
    """exp(x) of x <= 0; NaN stays NaN."""
    return math.exp(x)


def logarithm(x):
    """log(x) of a normal number x > 0, infinity or NaN."""
    return math.log(x)


@overload(exponential)
def _exponential(x):
    return (lambda x: _exp32(x)) if x == types.float32 else (lambda x: math.exp(x))


@overload(logarithm)
def _logarithm(x):
    return (lambda x: _log32(x)) if x == types.float32 else (lambda x: math.log(x))
