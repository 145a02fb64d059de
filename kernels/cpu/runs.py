"""Runs of neighbouring elements in 1-D arrays: copy, clear, add. The innermost loops of the memory-bound parts.

Indices are unsigned, because a signed one may count from the end in Python, and a loop that must ask at every
element whether it does cannot be vectorised.
"""

from __future__ import annotations

import numpy as np
from numba import njit


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
