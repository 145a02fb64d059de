"""A few calls of every kernel, by the contract: what is compiled, measured against budgets, and run on two executors.

Which C++ instances the launchers ask for is not written down anywhere: `instances` runs all calls, and some as large as
the largest tiles ask for, on an executor that only takes notes, for every rung of the ladder and every precision.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from minifcn.kernels import cuda, geometry, reference
from minifcn.kernels.layout import tap_numbers
from minifcn.kernels.settings import CUDA_RUNGS, PRECISIONS, settings
from minifcn.kernels.storage import BFLOAT16

DTYPES = (np.float32, np.float64)
# x [N, C, H, W], w [K, C / groups, R, S], and stride, padding, dilation, groups
CONVOLUTIONS = (
    ((2, 3, 17, 16), (5, 3, 3, 3), (1, 1, 1, 1)),
    ((1, 8, 9, 10), (16, 8, 3, 3), (1, 1, 1, 1)),
    ((1, 16, 5, 5), (24, 16, 1, 1), (1, 0, 1, 1)),
    ((1, 4, 9, 8), (6, 2, 3, 2), (2, 2, 2, 2)),
)
LARGE = ((8, 128, 64, 64), (128, 128, 3, 3), (1, 1, 1, 1))
POOLS = ((2, 2, 0, True), (3, 2, 1, False))  # window, stride, padding, ceil_mode
Call = tuple[str, tuple[Any, ...]]
# Which arguments of a kernel are activations or their gradients, that may be stored as bfloat16.
ACTIVATIONS = {
    "conv2d_forward": (0,),
    "conv2d_backward_input": (0,),
    "conv2d_backward_weight": (0, 1),
    "conv2d_backward_bias": (0,),
    "conv2d_relu_forward": (0,),
    "conv2d_relu_backward": (0, 2),
    "conv2d_relu_max_pool2d_forward": (0,),
    "conv2d_relu_max_pool2d_backward": (0, 2),
    "max_pool2d_forward": (0,),
    "max_pool2d_backward_input": (0,),
    "avg_pool2d_forward": (0,),
    "avg_pool2d_backward_input": (0,),
    "relu_forward": (0,),
    "relu_backward_input": (0, 1),
    "add_forward": (0, 1),
    "scale_forward": (0,),
    "dropout_forward": (0,),
    "dropout_backward_input": (0,),
    "crop_forward": (0,),
    "crop_backward_input": (0,),
    "crop_sum_forward": (0, 1),
    "lrn_forward": (0,),
    "lrn_backward_input": (0, 1),
    "bilinear_upsample_forward": (0,),
    "bilinear_upsample_backward_input": (0,),
    "upsample_cross_entropy_forward": (0,),
    "upsample_cross_entropy_backward_input": (1,),
    "upsample_argmax": (0,),
}


class _Numbers:
    """Random arrays of one dtype, channels last in memory where they have channels."""

    def __init__(self, dtype: type) -> None:
        self.rng, self.dtype = np.random.default_rng(0), dtype

    def __call__(self, *shape: int) -> np.ndarray:
        if len(shape) != 4:
            return self.rng.standard_normal(shape).astype(self.dtype)
        N, C, H, W = shape
        return self.rng.standard_normal((N, H, W, C)).astype(self.dtype).transpose(0, 3, 1, 2)

    def labels(self, classes: int, *shape: int) -> np.ndarray:
        found = self.rng.integers(0, classes, shape)
        found[self.rng.random(shape) < 0.1] = 255
        return found


def listed(name: str, found: Any) -> list[Any]:
    """What a kernel returned, as a list without None; taps that won a maximum as numbers."""
    if name == "max_pool2d_forward":
        return [found[0], tap_numbers(found[1], found[0].shape)]
    return [one for one in (found if isinstance(found, tuple) else (found,)) if one is not None]


def calls(dtype: type) -> Iterator[Call]:
    """(kernel of the contract, arguments), with results that are finite."""
    array = _Numbers(dtype)
    yield from _convolutions(array)
    yield from _pools(array)
    yield from _pointwise(array)
    yield from _losses(array)
    yield from _steps(array)


def _convolutions(array: _Numbers) -> Iterator[Call]:
    for x_shape, w_shape, window in CONVOLUTIONS:
        x, w, b = array(*x_shape), array(*w_shape), array(w_shape[0])
        y, mask = reference.conv2d_relu_forward(x, w, b, *window)
        dy = array(*y.shape)
        yield "conv2d_forward", (x, w, b, *window)
        yield "conv2d_forward", (x, w, None, *window)
        yield "conv2d_backward_input", (dy, w, x_shape[2:], *window)
        yield "conv2d_backward_weight", (dy, x, w_shape[2:], *window)
        yield "conv2d_backward_bias", (dy,)
        yield "conv2d_relu_forward", (x, w, b, *window)
        yield "conv2d_relu_backward", (dy, mask, x, w, *window)
        for ceil_mode in (True, False):
            y, mask = reference.conv2d_relu_max_pool2d_forward(x, w, b, *window, ceil_mode)
            yield "conv2d_relu_max_pool2d_forward", (x, w, b, *window, ceil_mode)
            yield "conv2d_relu_max_pool2d_backward", (array(*y.shape), mask, x, w, *window, ceil_mode)


def _two_bits(argmax: np.ndarray) -> np.ndarray:
    """The winners [N, C, P, Q] of 2 x 2 windows as bytes [N, P, Q, ceil(C/4)]."""
    N, C, P, Q = argmax.shape
    packed = np.zeros((N, P, Q, -(-C // 4)), np.uint8)
    for c in range(C):
        packed[..., c // 4] += argmax[:, c] * np.uint8(4 ** (c % 4))
    return packed


def _pools(array: _Numbers) -> Iterator[Call]:
    for window, stride, padding, ceil_mode in POOLS:
        x = array(2, 5, 7, 9)
        shape = (window, stride, padding, 1, ceil_mode)
        y, argmax = reference.max_pool2d_forward(x, *shape)
        yield "max_pool2d_forward", (x, *shape)
        yield "max_pool2d_backward_input", (array(*y.shape), argmax, x.shape[2:], *shape)
        if window == 2:
            yield "max_pool2d_backward_input", (array(*y.shape), _two_bits(argmax), x.shape[2:], *shape)
        shape = (window, stride, padding, ceil_mode, True)
        y = reference.avg_pool2d_forward(x, *shape)
        yield "avg_pool2d_forward", (x, *shape)
        yield "avg_pool2d_backward_input", (array(*y.shape), x.shape[2:], *shape)


def _pointwise(array: _Numbers) -> Iterator[Call]:
    for shape in ((2, 3, 5, 7), (1, 8, 4, 4), (1, 1, 1, 1)):
        x, y = array(*shape), array(*shape)
        yield "relu_forward", (x,)
        yield "relu_backward_input", (x, np.maximum(y, 0))
        yield "add_forward", (x, y)
        yield "scale_forward", (x, 0.25)
        for name in ("dropout_forward", "dropout_backward_input"):
            yield name, (x, 0.5, (2**40 + 3, 7, 1))
        skip = array(shape[0], shape[1], shape[2] + 3, shape[3] + 2)
        yield "crop_forward", (skip, (2, 1), shape[2:])
        yield "crop_backward_input", (x, (2, 1), skip.shape[2:])
        yield "crop_sum_forward", (x, skip, (2, 1))
    if hasattr(cuda, "lrn_forward"):
        x = array(2, 7, 3, 4)
        yield "lrn_forward", (x, 5, 1e-1, 0.75, 2.0)
        yield "lrn_backward_input", (array(2, 7, 3, 4), x, 5, 1e-1, 0.75, 2.0)
    for factor, padding in ((2, 1), (3, 0), (8, 4)):
        x = array(2, 3, 4, 5)
        y = reference.bilinear_upsample_forward(x, factor, padding)
        yield "bilinear_upsample_forward", (x, factor, padding)
        yield "bilinear_upsample_backward_input", (array(*y.shape), x.shape[2:], factor, padding)


def _losses(array: _Numbers) -> Iterator[Call]:
    for classes, weighted in ((3, False), (12, True)):
        weight = np.abs(array(classes)) if weighted else None
        x, target = array(2, classes, 5, 6), array.labels(classes, 2, 5, 6)
        _, probabilities = reference.cross_entropy_forward(x, target, weight, 255)
        yield "cross_entropy_forward", (x, target, weight, 255)
        yield "cross_entropy_backward_input", (array(2, 5, 6), probabilities, target, weight, 255)
        coarse, fine = array(2, classes, 3, 4), array.labels(classes, 2, 17, 26)
        head = (fine, weight, 255, 8, 4, (1, 2))
        yield "upsample_cross_entropy_forward", (coarse, *head)
        yield "upsample_cross_entropy_backward_input", (array(2, 17, 26), coarse, *head)
        yield "upsample_argmax", (coarse, 8, 4, (1, 2), (17, 26))
    yield "upsample_argmax", (array(1, 300, 2, 2), 2, 1, (0, 0), (4, 4))


def _steps(array: _Numbers) -> Iterator[Call]:
    """The optimisers: they change their first arguments."""
    for size in (1, 300):
        w, g, velocity = array(size), array(size), array(size)
        for form in ("pytorch", "caffe"):
            yield "sgd_step", (w, g, velocity, 0.1, 0.9, 1e-4, form)
        for decoupled in (False, True):
            yield "adam_step", (w, g, array(size), np.abs(array(size)), 0.1, (0.9, 0.99), 1e-8, 1e-2, 3, decoupled)


# --- activations in bfloat16 ---


def cut(x: np.ndarray) -> np.ndarray:
    """x with the bits that bfloat16 has no room for at 0: numbers that it holds exactly."""
    return (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def stored(x: np.ndarray) -> np.ndarray:
    """The bfloat16 of `cut(x)`, in the same memory order."""
    return (x.view(np.uint32) >> np.uint32(16)).astype(BFLOAT16)


def stored_calls(found: Iterator[Call]) -> Iterator[tuple[str, tuple[Any, ...], tuple[Any, ...]]]:
    """(kernel, arguments with activations in bfloat16, the same as float32 numbers) of those of `found` that can be.

    Weights are such that their copies in bfloat16 are exact.
    """
    for name, arguments in found:
        if name in ACTIVATIONS:
            exact = [cut(one) if getattr(one, "dtype", None) == np.float32 else one for one in arguments]
            given = [stored(one) if i in ACTIVATIONS[name] else one for i, one in enumerate(exact)]
            yield name, tuple(given), tuple(exact)


# --- instances ---


class Recorder:
    """An executor that launches nothing and knows what it was asked for."""

    name, xp, graph = "recorder", np, None

    def __init__(self) -> None:
        self.instances: dict[tuple[str, str], None] = {}  # an ordered set

    def kernel(self, file: str, expression: str) -> None:
        self.instances[file, expression] = None

    def launch(self, *_: Any, **__: Any) -> None:
        pass


def variants() -> Iterator[dict[str, str]]:
    """Settings under which launchers choose other kernels."""
    yield {"convolution": "fastest", "precision": "float32"}
    for rung in CUDA_RUNGS:
        for precision in PRECISIONS[1:] if rung == "tensor" else PRECISIONS[:1]:
            yield {"convolution": rung, "precision": precision}


def _large_calls(dtype: type) -> Iterator[Call]:
    """Convolutions for the largest tiles, on memory that nobody touches."""
    x_shape, w_shape, window = LARGE
    geo = geometry.conv2d(x_shape, w_shape, *window)
    last = [np.zeros([shape[i] for i in (0, 2, 3, 1)], dtype) for shape in (x_shape, w_shape, geo.y_shape)]
    x, w, dy = (array.transpose(0, 3, 1, 2) for array in last)
    mask = np.zeros(geometry.mask_shape(geo.y_shape), np.uint8)
    yield "conv2d_relu_forward", (x, w, None, *window)
    yield "conv2d_relu_backward", (dy, mask, x, w, *window)
    yield "conv2d_forward", (x, w, None, *window)
    yield "conv2d_backward_input", (dy, w, x_shape[2:], *window)
    yield "conv2d_backward_weight", (dy, x, w_shape[2:], *window)


@functools.cache
def instances() -> dict[str, tuple[str, ...]]:
    """C++ template-ids by file: all that the launchers can ask for."""
    recorder = Recorder()
    kernels = cuda.Kernels(recorder)
    for variant in variants():
        with settings.using(**variant):
            for dtype in DTYPES:
                for name, arguments in itertools.chain(calls(dtype), _large_calls(dtype)):
                    getattr(kernels, name)(*arguments)
            for name, arguments, _ in stored_calls(itertools.chain(calls(np.float32), _large_calls(np.float32))):
                getattr(kernels, name)(*arguments)
    kernels.widened(kernels.rounded(np.zeros(1, np.float32)))
    found: dict[str, list[str]] = {}
    for file, expression in recorder.instances:
        found.setdefault(file, []).append(expression)
    return {file: tuple(expressions) for file, expressions in sorted(found.items())}
