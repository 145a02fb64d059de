"""One tensor of another network in the order, the shape and the units of ours.

A fully connected layer over a map [C, R, S] is a convolution with an R x S window: its weights [K, C R S] are reshaped,
once their rows are known to run in the order C, R, S. The first layer takes over the inputs' convention. With
x = (colour - mean) / std and w' = w / std,

    sum w (colour - mean) / std = sum w' (colour - mean)

exactly, zero padding included, as 0 is the mean colour in both; and channels B, G, R become R, G, B.

Source: Long, Shelhamer and Darrell, 2015, section 3.1; BVLC/caffe, examples/net_surgery.ipynb.
"""

from __future__ import annotations

import math

import numpy as np

from .formats import Convention

FLATTENING = "fc6"  # the layer that sees a map


class Misfit(Exception):
    """A tensor that does not fit its place."""


def fit(
    theirs: np.ndarray, shape: tuple[int, ...], layer: str, channels: int, convention: Convention
) -> tuple[np.ndarray, list[str]]:
    """`theirs` in our order and shape, and what that took; channels: of the map that fc6 sees. Raises Misfit."""
    if theirs.dtype.kind != "f":
        raise Misfit(f"{theirs.dtype} where floating point numbers are needed")
    array, steps = as_oihw(theirs, convention.layout), []
    if array is not theirs:
        steps.append("transposed HWIO to OIHW" if array.ndim == 4 else "transposed [in, out] to [out, in]")
    if array.ndim == 2 and layer == FLATTENING and convention.flatten == "HWC":
        array = _rows_as_chw(array, channels)
        steps.append("rows in the order H,W,C to C,H,W")
    if {array.ndim, len(shape)} == {2, 4} and len(array) == shape[0] and array.size == math.prod(shape):
        array = array.reshape(shape)
        steps.append("fully connected to convolution" if len(shape) == 4 else "convolution to fully connected")
    if array.shape != shape:
        raise Misfit(f"{times(theirs.shape)} where {times(shape)} is needed")
    return array, steps


def as_oihw(array: np.ndarray, layout: str) -> np.ndarray:
    """Weights of a convolution as [out, in, rows, columns], fully connected ones as [out, in]; others as they are."""
    if layout == "OIHW" or array.ndim not in (2, 4):
        return array
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _rows_as_chw(array: np.ndarray, C: int) -> np.ndarray:
    """Weights [K, R S C], R = S, as [K, C R S]. Raises Misfit for rows that are of no square map of C channels."""
    R = math.isqrt(array.shape[1] // C)
    if array.shape[1] != R * R * C:
        raise Misfit(f"rows of {array.shape[1]} are of no square map of {C} channels")
    return array.reshape(len(array), R, R, C).transpose(0, 3, 1, 2).reshape(len(array), -1)


def with_our_inputs(array: np.ndarray, convention: Convention) -> tuple[np.ndarray, list[str]]:
    """A first layer [K, 3, R, S] for inputs R, G, B in 0 .. 255 minus the mean, and what that took."""
    steps = []
    if convention.colors == "bgr":
        array = array[:, ::-1]
        steps.append("input channels B,G,R to R,G,B")
    if any(one != 1 for one in convention.std):
        array = array.astype(np.float64) / np.asarray(convention.std).reshape(1, 3, 1, 1)
        steps.append(f"R,G,B divided by {', '.join(f'{one:g}' for one in convention.std)}")
    return array, steps


def times(shape: tuple[int, ...]) -> str:
    """A shape as one writes it: 64x3x3x3."""
    return "x".join(map(str, shape))
