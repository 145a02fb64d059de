"""Arithmetic of PTX in NumPy, correctly rounded: fused multiply-add, tensor-core formats, bit fields.

A fused multiply-add is the exact product (in two floats), summed so that the last rounding sees all that came before:
rounding to odd, after Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums" (2008).
"""

from __future__ import annotations

import numpy as np

TINY = np.finfo(np.float32).tiny


def flush(x: np.ndarray) -> np.ndarray:
    """float32 with subnormal numbers taken as zeros of their sign."""
    return x * (np.abs(x) >= TINY) if x.dtype == np.float32 else x


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a + b, rounded, and what the rounding lost."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a b, rounded, and what the rounding lost (Dekker)."""

    def halves(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wide = x * 134217729.0  # 2^27 + 1
        high = wide - (wide - x)
        return high, x - high

    product, (ah, al), (bh, bl) = a * b, halves(a), halves(b)
    return product, al * bl - (((product - ah * bh) - al * bh) - ah * bl)


def _odd_sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b; where it is not exact, the neighbour whose last bit is odd."""
    total, lost = _two_sum(a, b)
    even = (np.ascontiguousarray(total).view(np.uint64) & np.uint64(1)) == 0
    beside = np.nextafter(total, np.copysign(np.inf, lost))
    return np.where(np.isfinite(total) & (lost != 0) & even, beside, total)


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray, rounding: str = "rn") -> np.ndarray:
    """a b + c with one rounding; float32 in any of rn, rm, rp, rz, float64 to nearest."""
    if a.dtype == np.float32:
        exact = _odd_sum(np.multiply(a, b, dtype=np.float64), c.astype(np.float64))
        return to_float32(exact, rounding)
    if rounding != "rn":
        raise NotImplementedError
    high, low = _two_product(a, b)
    sum_high, sum_low = _two_sum(c, low)
    total, rest = _two_sum(high, sum_high)
    fused = total + _odd_sum(sum_low, rest)
    return np.where(np.isfinite(fused), fused, a * b + c)


def to_float32(x: np.ndarray, rounding: str = "rn") -> np.ndarray:
    """float64 to float32, to nearest, down (rm), up (rp) or to zero (rz)."""
    nearest = x.astype(np.float32)
    if rounding == "rn":
        return nearest
    down = rounding == "rm" if rounding != "rz" else x > 0
    past = np.where(down, nearest > x, nearest < x)
    return np.where(past, np.nextafter(nearest, np.where(down, -np.inf, np.inf).astype(np.float32)), nearest)


# --- formats of the tensor cores ---


def to_tf32(x: np.ndarray) -> np.ndarray:
    """cvt.rna.tf32: the bits of float32, to nearest with ties away from zero, 10 bits of mantissa."""
    bits = x.view(np.uint32)
    return np.where(np.isfinite(x), (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000), bits)


def to_bf16(x: np.ndarray) -> np.ndarray:
    """Bits of bfloat16, to nearest with ties to even; NaN is 0x7fff."""
    bits = x.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(x), np.uint32(0x7FFF), rounded).astype(np.uint16)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    """bfloat16 as float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


# --- bits ---


def low_bits(count: np.ndarray) -> np.ndarray:
    """uint64 with the lowest `count` bits set."""
    count = np.asarray(count, np.uint64)
    ones = np.uint64(0xFFFFFFFFFFFFFFFF)
    return np.where(count >= 64, ones, ~(ones << np.minimum(count, np.uint64(63))))


def high_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The upper half of the product of two integers of one type."""
    bits = 8 * a.dtype.itemsize
    if bits < 64:
        wide = np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
        return (a.astype(wide) * b.astype(wide) >> np.array(bits, wide)).astype(a.dtype)
    x, y, half, low = a.view(np.uint64), b.view(np.uint64), np.uint64(32), np.uint64(0xFFFFFFFF)
    cross = (x >> half) * (y & low) + ((x & low) * (y & low) >> half)
    other = (x & low) * (y >> half) + (cross & low)
    high = (x >> half) * (y >> half) + (cross >> half) + (other >> half)
    if a.dtype.kind == "i":  # -2^64 for each operand that was read as unsigned
        high = high - np.where(a < 0, y, np.uint64(0)) - np.where(b < 0, x, np.uint64(0))
    return high.view(a.dtype)


def permute(a: np.ndarray, b: np.ndarray, selector: np.ndarray) -> np.ndarray:
    """prmt.b32: four of the eight bytes of b and a, a nibble of `selector` each; its top bit spreads the sign."""
    bytes_, found = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32)), np.uint32(0)
    for i in range(4):
        nibble = (selector.astype(np.uint64) >> np.uint64(4 * i)) & np.uint64(15)
        byte = (bytes_ >> (np.uint64(8) * (nibble & np.uint64(7)))) & np.uint64(255)
        byte = np.where(nibble & np.uint64(8), np.where(byte & np.uint64(128), 255, 0), byte)
        found = found | (byte.astype(np.uint32) << np.uint32(8 * i))
    return found


def lookup(a: np.ndarray, b: np.ndarray, c: np.ndarray, table: int) -> np.ndarray:
    """lop3: any function of three bits, by the 8 bits of its table."""
    found = np.zeros_like(a)
    for i in range(8):
        if table >> i & 1:
            found = found | ((a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c))
    return found
