"""Runs of neighbouring elements in 1-D arrays: copy, clear, add, finish. The innermost loops of the memory-bound parts.

Indices are unsigned, because a signed one may count from the end in Python, and a loop that must ask at every
element whether it does cannot be vectorised.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .callee import callee
from .tiles import copy_vector, finish_part, finish_vectors, sum_vectors
from .vectors import VECTOR_BYTES


@njit(cache=True, nogil=True, inline="always")
def copy_run(source, source_start, target, target_start, count):
    """target[target_start + i] = source[source_start + i], 0 <= i < count."""
    s, t = np.uintp(source_start), np.uintp(target_start)
    for i in range(np.uintp(max(count, 0))):
        target[t + i] = source[s + i]


@njit(cache=True, nogil=True, inline="always")
def clear_run(target, target_start, count):
    """target[target_start + i] = 0, 0 <= i < count."""
    t = np.uintp(target_start)
    for i in range(np.uintp(max(count, 0))):
        target[t + i] = 0


@njit(cache=True, nogil=True, inline="always")
def add_run(source, source_start, target, target_start, count):
    """target[target_start + i] += source[source_start + i], 0 <= i < count."""
    s, t = np.uintp(source_start), np.uintp(target_start)
    for i in range(np.uintp(max(count, 0))):
        target[t + i] += source[s + i]


@callee
def copy_masked_run(source, source_start, mask, bit, masked, target, target_start, count):
    """The same copy; where `masked`, 0 for elements whose bit, from `bit` on, is not set (one byte holds eight)."""
    if not masked:
        copy_run(source, source_start, target, target_start, count)
        return
    lanes, i = VECTOR_BYTES // source.itemsize, 0
    if bit % max(lanes, 8) == 0:
        while count - i >= lanes:
            copy_vector(source, source_start + i, mask, bit + i, 1, target, target_start + i)
            i += lanes
    while i < count:
        passes = mask[(bit + i) >> 3] >> ((bit + i) & 7) & 1
        target[target_start + i] = source[source_start + i] if passes else 0
        i += 1


@callee
def finish_rows(total, start, row, bias, b_start, relu, y, y_start, y_row, mask, bit, bit_row, rows, count):
    """y = total + bias for `rows` runs of `count` channels; with `relu`, max(., 0) and the bits of what passes it."""
    lanes, whole = VECTOR_BYTES // y.itemsize, 0
    if bit % max(lanes, 8) == 0 and bit_row % 8 == 0:
        whole = count // lanes * lanes
    if whole:
        finish_vectors(
            total, start, row, bias, b_start, relu, y, y_start, y_row, mask, bit, bit_row, rows, whole // lanes
        )  # fmt: skip
    for i in range(rows if whole < count else 0):
        if not relu:
            for k in range(whole, count, lanes):
                finish_part(
                    total, start + i * row + k, bias, b_start + k, y, y_start + i * y_row + k, min(lanes, count - k)
                )
            continue
        for k in range(whole, count):
            value, place = total[start + i * row + k] + bias[b_start + k], bit + i * bit_row + k
            if place & 7 == 0:
                mask[place >> 3] = 0
            if not value <= 0:  # NaN passes
                mask[place >> 3] |= np.uint8(1 << (place & 7))
            else:
                value = y.dtype.type(0)
            y[y_start + i * y_row + k] = value


@callee
def sum_rows(block, start, row, rows, count, sums):
    """sums[k] += the sum over `rows` rows of block[start + i row + k], k < count; sums in float64."""
    lanes = VECTOR_BYTES // block.itemsize
    whole, part = count // lanes * lanes, np.empty(lanes, block.dtype)
    for k in range(0, whole, lanes):
        sum_vectors(block, start + k, row, rows, part)
        for lane in range(lanes):
            sums[k + lane] += part[lane]
    for i in range(rows if whole < count else 0):
        for k in range(whole, count):
            sums[k] += block[start + k + i * row]
