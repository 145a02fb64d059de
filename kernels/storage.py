"""bfloat16 as a type of numbers in memory: the upper half of float32, 8 bits of mantissa.

Neither NumPy nor CuPy can be relied on to have it, so that an array of it is one of its 16 bits, uint16: of use to the
CUDA kernels that take it, and refused by all others, as is every array of whole numbers.
"""

from __future__ import annotations

import numpy as np

BFLOAT16 = np.dtype(np.uint16)


def sums_in(dtype: np.dtype | type) -> np.dtype:
    """What numbers stored as `dtype` are summed in; also the type of parameters, of their gradients and of losses."""
    return np.dtype(np.float32) if dtype == BFLOAT16 else np.dtype(dtype)


def widened(bits: np.ndarray) -> np.ndarray:
    """float32 of bfloat16, exactly, in the same memory order."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
