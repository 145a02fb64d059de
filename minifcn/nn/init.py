"""Initial values of weights.

He: normal with variance 2 / fan_in, which keeps the size of activations from layer to layer under ReLU (He, Zhang,
Ren and Sun, 2015, "Delving deep into rectifiers", equation 10). Bilinear: the interpolation filter on the diagonal
of a transposed convolution, so that it starts as upsampling of each class by itself (Long, Shelhamer and Darrell,
2015, section 3.3).
"""

from __future__ import annotations

import numpy as np

from ..kernels import geometry, memory


def he(shape: tuple[int, ...], rng: np.random.Generator, dtype: np.dtype) -> np.ndarray:
    """Weights [K, C/groups, R, S] or [K, D], normal with standard deviation sqrt(2 / fan_in)."""
    if memory.rehearsing():
        return np.empty(shape, dtype)
    weight = rng.standard_normal(shape, np.float32).astype(dtype, copy=False)
    return np.multiply(weight, np.sqrt(2 / np.prod(shape[1:])), out=weight, casting="same_kind")  # in float64


def bilinear(classes: int, window: int, dtype: np.dtype) -> np.ndarray:
    """Weights [classes, classes, window, window] that upsample each class by itself, by half the window rounded up."""
    taps = np.array(geometry.bilinear_filter(window))
    weight = np.zeros((classes, classes, len(taps), len(taps)), dtype)
    weight[np.arange(classes), np.arange(classes)] = np.outer(taps, taps)
    return weight
