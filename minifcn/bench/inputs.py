"""The data of a benchmark: the same numbers in both processes, from counters alone.

Activations are normal numbers cut at 0, as a layer after a ReLU sees them; upstream gradients are normal; weights are
He-scaled. Nothing is timed on zeros, and nothing on the numbers it was proven with.
"""

from __future__ import annotations

import zlib

import numpy as np

from .work import Convolution, Network

TIMED = 100  # sets from this number on are timed, those below prove


def _rng(what: str, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64([zlib.crc32(what.encode()), number]))


def _normal(what: str, number: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return _rng(what, number).standard_normal(shape, np.float32).astype(dtype, copy=False)


def _he(what: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    weight = _normal(what, 0, shape, dtype)
    weight *= np.sqrt(2 / np.prod(shape[1:])).astype(dtype)
    return weight


def activations(work: Convolution, number: int) -> dict[str, np.ndarray]:
    """x [N, C, H, W] and dy [N, K, P, Q] of set `number`: those of the two that the op reads."""
    found = {}
    if work.op != "conv2d_backward_input":
        x = _normal(f"{work.layer} x", number, work.x_shape, work.dtype)
        found["x"] = np.maximum(x, 0, out=x)
    if work.op != "conv2d_forward":
        found["dy"] = _normal(f"{work.layer} dy", number, work.y_shape, work.dtype)
    return found


def weights(work: Convolution) -> dict[str, np.ndarray]:
    """w [K, C/groups, R, S], and b [K] for the forward pass: what the op reads of them."""
    found = {}
    if work.uses_weights:
        found["w"] = _he(f"{work.layer} w", work.w_shape, work.dtype)
    if work.op == "conv2d_forward":
        found["b"] = _normal(f"{work.layer} b", 0, work.w_shape[:1], work.dtype)
    return found


def parameter(name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """A parameter of a network by its name: weights He-scaled, biases small."""
    if name.endswith(".bias"):
        return _normal(name, 0, shape, dtype) * np.asarray(0.01, dtype)
    return _he(name, shape, dtype)


def images(work: Network, number: int) -> np.ndarray:
    """Normalised images [N, 3, H, W] of set `number`."""
    return _normal("images", number, (work.batch, 3, *work.size), work.dtype)


def labels(work: Network, number: int) -> np.ndarray:
    """Labels int64 [N, H, W] of set `number`, a tenth of them void (255)."""
    rng = _rng("labels", number)
    found = rng.integers(0, work.classes, (work.batch, *work.size))
    found[rng.random(found.shape) < 0.1] = 255
    return found
