"""The proof that comes before every time: a kernel that fails it is shown as WRONG, without one.

The truth is float64: the NumPy reference. Where all of it would take too long, it is computed for some output channels
(the first, the last, others at random, every pixel of them) and for one random combination of all, with signs.
Convolution is linear, so a fault in any channel shows in the combination (Freivalds, 1977, "Probabilistic machines can
use less running time"). The memory that a kernel will get is filled with NaN before; inputs must stay as they were, and
a second call must give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..device import Device
from ..kernels import memory, reference
from . import inputs
from .work import Convolution

TOLERANCES = {"float32": 1e-5, "float64": 1e-12, "3xtf32": 1e-5, "tf32": 1e-3, "bfloat16": 1e-2}
WHOLE = 2e8  # FLOP up to which all channels are compared
CHANNELS = 6
SEEDS = 2  # proofs of a small case; a large one has one


@dataclass(frozen=True)
class Proof:
    """The worst errors, relative to the truth (L2, and largest to largest), and every rule that was broken."""

    l2: float
    largest: float
    broken: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.broken

    def __and__(self, other: Proof) -> Proof:
        broken = tuple(dict.fromkeys(self.broken + other.broken))
        return Proof(_worst(self.l2, other.l2), _worst(self.largest, other.largest), broken)


RIGHT = Proof(0.0, 0.0)


def _worst(a: float, b: float) -> float:
    """The larger one; NaN is the worst."""
    return max(a, b) if a == a and b == b else math.nan


def accuracy(work: Any) -> str:
    """What decides how much a convolution or network may be off: its dtype, or a precision below float32's."""
    return work.dtype if work.precision == "float32" or work.dtype == "float64" else work.precision


def errors(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """|found - truth| / |truth| in the L2 norm, and max |found - truth| / max |truth|."""
    truth = np.asarray(truth, np.float64)
    off = np.asarray(found, np.float64) - truth
    pairs = ((np.linalg.norm(off), np.linalg.norm(truth)), (np.abs(off).max(initial=0), np.abs(truth).max(initial=0)))
    return tuple(float(error / size) if size else float(error != 0) for error, size in pairs)


def compare(what: str, found: np.ndarray, truth: np.ndarray, tolerance: float) -> Proof:
    """Shape and both errors; NaN never passes."""
    if found.shape != truth.shape:
        return Proof(math.nan, math.nan, (f"{what} has shape {found.shape}, but must have {truth.shape}",))
    l2, largest = errors(found, truth)
    if l2 <= tolerance and largest <= tolerance:
        return Proof(l2, largest)
    return Proof(l2, largest, (f"{what} is off by {l2:.1e} (L2), {largest:.1e} (max); allowed is {tolerance:.0e}",))


# --- the truth about a convolution ---


class Truth:
    """What a convolution must give for one set of data, and how to look at an output the same way."""

    def __init__(self, work: Convolution, data: dict[str, np.ndarray]) -> None:
        self.work = work
        whole = work.flop <= WHOLE or work.groups > 1
        rng = np.random.default_rng(len(work.layer))
        self.looks = [_Look(size, whole, rng) for size in work.w_shape[:2]]  # output, input channels
        K, C = self.looks
        wide = {name: array.astype(np.float64) for name, array in data.items()}
        if work.op == "conv2d_forward":
            arguments = (wide["x"], K(wide["w"], 0), K(wide["b"], 0), *work.window)
            self.value = reference.conv2d_forward(*arguments)
        elif work.op == "conv2d_backward_input":
            arguments = (wide["dy"], C(wide["w"], 1), work.x_shape[2:], *work.window)
            self.value = reference.conv2d_backward_input(*arguments)
        else:
            arguments = (K(wide["dy"], 1), wide["x"] if whole else C(wide["x"], 1), work.w_shape[2:], *work.window)
            self.value = reference.conv2d_backward_weight(*arguments)

    def prove(self, found: np.ndarray) -> Proof:
        """How far `found`, a kernel's output, is from the truth."""
        work, (K, C) = self.work, self.looks
        shape = {
            "conv2d_forward": work.y_shape,
            "conv2d_backward_input": work.x_shape,
            "conv2d_backward_weight": work.w_shape,
        }[work.op]
        if found.shape != tuple(shape) or str(found.dtype) != work.dtype:
            text = f"the output is {found.dtype} {found.shape}, but must be {work.dtype} {tuple(shape)}"
            return Proof(math.nan, math.nan, (text,))
        found = found.astype(np.float64)
        if work.op == "conv2d_forward":
            found = K(found, 1)
        elif work.op == "conv2d_backward_input":
            found = C(found, 1)
        else:
            found = C(K(found, 0), 1)
        return compare("the output", found, self.value, TOLERANCES[accuracy(work)])


class _Look:
    """Some channels of an axis and one signed sum of all of them; or simply all."""

    def __init__(self, size: int, whole: bool, rng: np.random.Generator) -> None:
        self.picks = None
        if not whole and size > CHANNELS + 1:
            inner = 1 + rng.choice(size - 2, CHANNELS - 2, replace=False)
            self.picks = np.concatenate([[0], np.sort(inner), [size - 1]])
            self.signs = rng.choice([-1.0, 1.0], size)

    def __call__(self, array: np.ndarray, axis: int) -> np.ndarray:
        if self.picks is None:
            return array
        combined = np.expand_dims(np.tensordot(self.signs, array, (0, axis)), axis)
        return np.concatenate([array.take(self.picks, axis), combined], axis)


def truths(work: Convolution) -> list[Truth]:
    """The truth about each set of data that `work` is proven with."""
    shared = inputs.weights(work)
    count = SEEDS if work.flop <= WHOLE else 1
    return [Truth(work, inputs.activations(work, number) | shared) for number in range(count)]


# --- a kernel of ours, or a user's ---


def poison(place: Device, shape: tuple[int, ...], dtype: str) -> None:
    """Leave NaN in the memory that an array of this shape will get from the device's pool next."""
    empty = memory.empty if place.xp is np else place.xp.empty
    empty(shape, np.dtype(dtype)).fill(np.nan)


def prove(work: Convolution, call: Callable, data: dict[str, Any], truth: Truth, place: Device) -> Proof:
    """`call()` twice, on the arrays `data` of the device `place`: right, the same bits, inputs untouched."""
    before = {name: array.copy() for name, array in data.items()}
    outputs = []
    for _ in range(2):
        for shape in (work.x_shape, work.w_shape, work.y_shape):
            poison(place, shape, work.dtype)
        try:
            outputs.append(np.array(place.to_host(call())))
        except ValueError as error:  # numpy's answer to a write into a read-only input
            if "read-only" not in str(error):
                raise
            return Proof(math.nan, math.nan, (f"it writes to a read-only input ({error})",))
    proof = truth.prove(outputs[0])
    broken = [name for name, array in data.items() if not bool((array == before[name]).all())]
    if broken:
        proof &= Proof(0.0, 0.0, (f"it changes its input {', '.join(broken)}",))
    if outputs[0].tobytes() != outputs[1].tobytes():
        proof &= Proof(0.0, 0.0, ("a second call gives other bits",))
    return proof
