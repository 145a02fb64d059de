"""Random cases of every op, for Hypothesis: geometry and a seed; NumPy's generator then draws the numbers.

The output is drawn first, and the input size derived from it,

    size = (out - 1) stride + dilation (window - 1) + 1 - 2 pad + remainder,   0 <= remainder < stride,

so that nothing has to be filtered, and windows that leave the last rows uncovered (remainder > 0) are common.
Height and width are independent. To add an op, add a line to `OPS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from .. import ops
from ..kernels import geometry
from ..ops.cross_entropy import REDUCTIONS
from ..tensor import Tensor
from . import data
from .data import Data

Shape = tuple[int, ...]


@dataclass(frozen=True)
class OpCase:
    """One op at one geometry: `call(*tensors, **arguments)` on tensors of `shapes`, filled by `fill`."""

    call: Callable[..., Tensor]
    shapes: dict[str, Shape]
    seed: int
    arguments: dict[str, Any] = field(default_factory=dict)
    kind: str = "linear"
    fill: Data = data.signed
    homogeneous: bool = False
    exact: bool = False

    def function(self, *tensors: Tensor) -> Tensor:
        return self.call(*tensors, **self.arguments)

    def __str__(self) -> str:
        def short(value: Any) -> str:
            is_large = isinstance(value, np.ndarray) and value.size > 16
            return f"{value.dtype} {value.shape}" if is_large else repr(value).replace("\n", "")

        parts = [f"{name} {shape}" for name, shape in self.shapes.items()]
        parts += [f"{name}={short(value)}" for name, value in self.arguments.items()]
        return f"{self.call.__name__}({', '.join(parts)}), seed {self.seed}"


@dataclass(frozen=True)
class StepCase:
    """Some steps of an optimiser's kernel: `state` arrays beside the weights, one dictionary of arguments a step."""

    kernel: str
    shape: Shape
    state: tuple[str, ...]
    steps: tuple[dict[str, Any], ...]
    seed: int

    def __str__(self) -> str:
        return f"{self.kernel}(w {self.shape}), steps {list(self.steps)}, seed {self.seed}"


Case = OpCase | StepCase
Cases = st.SearchStrategy[Case]

seeds = st.integers(0, 2**32 - 1)
batches = st.integers(0, 3)
# small numbers, and some around the vector width
channels = st.integers(1, 4) | st.sampled_from([5, 8, 15, 16, 17, 33])


# --- windows along one axis ---


@dataclass(frozen=True)
class Axis:
    """A window that fits along one axis, and the size it was made for."""

    size: int
    window: int
    stride: int
    padding: int
    dilation: int
    remainder: int


@st.composite
def conv_axes(draw: st.DrawFn) -> Axis:
    """Any window of a convolution."""
    window, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    padding, out, remainder = draw(st.integers(0, 3)), draw(st.integers(1, 4)), draw(st.integers(0, stride - 1))
    size = (out - 1) * stride + dilation * (window - 1) + 1 - 2 * padding + remainder
    while size < 1:
        size += stride
    return Axis(size, window, stride, padding, dilation, remainder)


@st.composite
def conv_transpose_axes(draw: st.DrawFn) -> Axis:
    """Any window of a transposed convolution; the remainder is its output padding."""
    window, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    padding, size, remainder = draw(st.integers(0, 3)), draw(st.integers(1, 4)), draw(st.integers(0, stride - 1))
    while (size - 1) * stride + dilation * (window - 1) + 1 - 2 * padding + remainder < 1:
        size += 1
    return Axis(size, window, stride, padding, dilation, remainder)


@st.composite
def pool_axes(draw: st.DrawFn, ceil_mode: bool, dilated: bool) -> Axis:
    """Any window of a pooling; in ceil mode the last one hangs over the edge by -remainder.

    Where the image is as long as the dilation, every window holds an element.
    """
    window, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    dilation = draw(st.integers(1, 3)) if dilated else 1
    padding, out = draw(st.integers(0, window - 1)), draw(st.integers(1, 4))
    remainder = draw(st.integers(0, stride - 1)) * (-1 if ceil_mode else 1)
    size = (out - 1) * stride + dilation * (window - 1) + 1 - 2 * padding + remainder
    while size < dilation:
        size += stride
    return Axis(size, window, stride, padding, dilation, remainder)


def _both(vertical: Axis, horizontal: Axis, name: str) -> tuple[int, int]:
    return getattr(vertical, name), getattr(horizontal, name)


# --- the ops of the network ---


def _conv2d(draw: st.DrawFn) -> tuple[dict[str, Shape], dict[str, Any], bool]:
    """(shapes without a bias, arguments, whether sums are formed directly) of any convolution.

    One in four is of Winograd's kind: 3 x 3, of stride 1, with whole vectors of channels. Its maps are large enough for
    every weight to meet an image, because a tap that meets padding alone gets a gradient of rounding errors there.
    """
    if draw(st.integers(0, 3)) == 0:
        C, K = draw(st.sampled_from([16, 32])), draw(st.sampled_from([16, 48]))
        size, padding = (draw(st.tuples(axis, axis)) for axis in (st.integers(5, 10), st.integers(0, 2)))
        shapes = {"x": (draw(st.integers(1, 2)), C, *size), "weight": (K, C, 3, 3)}
        return shapes, {"stride": 1, "padding": padding, "dilation": 1, "groups": 1}, False
    axes = draw(conv_axes()), draw(conv_axes())
    groups, C, K = draw(st.sampled_from([1, 1, 2, 3])), draw(channels), draw(channels)
    if groups > 1:
        C, K = min(C, 3), min(K, 3)
    shapes = {
        "x": (draw(batches), groups * C, *_both(*axes, "size")),
        "weight": (groups * K, C, *_both(*axes, "window")),
    }
    arguments = {name: _both(*axes, name) for name in ("stride", "padding", "dilation")} | {"groups": groups}
    return shapes, arguments, True


@st.composite
def conv2d_cases(draw: st.DrawFn) -> OpCase:
    shapes, arguments, exact = _conv2d(draw)
    if draw(st.booleans()):
        shapes["bias"] = shapes["weight"][:1]
    return OpCase(ops.conv2d, shapes, draw(seeds), arguments, exact=exact)


@st.composite
def conv2d_relu_cases(draw: st.DrawFn) -> OpCase:
    """Always with a bias, which keeps the sums away from ReLU's kink."""
    shapes, arguments, exact = _conv2d(draw)
    shapes["bias"] = shapes["weight"][:1]
    return OpCase(ops.conv2d_relu, shapes, draw(seeds), arguments, "curved", data.off_zero, exact=exact)


@st.composite
def conv2d_relu_max_pool2d_cases(draw: st.DrawFn) -> OpCase:
    """Numbers without a grid, so that no two sums of a window are equal."""
    shapes, arguments, exact = _conv2d(draw)
    shapes["bias"] = shapes["weight"][:1]
    geo = geometry.conv2d(shapes["x"], shapes["weight"], **arguments)
    arguments["ceil_mode"] = min(geo.P, geo.Q) < 2 or draw(st.booleans())
    return OpCase(ops.conv2d_relu_max_pool2d, shapes, draw(seeds), arguments, "curved", exact=exact)


@st.composite
def conv_transpose2d_cases(draw: st.DrawFn) -> OpCase:
    axes = draw(conv_transpose_axes()), draw(conv_transpose_axes())
    groups, C, K = draw(st.sampled_from([1, 1, 2, 3])), draw(channels), draw(channels)
    if groups > 1:
        C, K = min(C, 3), min(K, 3)
    shapes = {
        "x": (draw(batches), groups * C, *_both(*axes, "size")),
        "weight": (groups * C, K, *_both(*axes, "window")),
    }
    if draw(st.booleans()):
        shapes["bias"] = (groups * K,)
    arguments = {name: _both(*axes, name) for name in ("stride", "padding", "dilation")}
    arguments |= {"output_padding": _both(*axes, "remainder"), "groups": groups}
    return OpCase(ops.conv_transpose2d, shapes, draw(seeds), arguments, exact=True)


@st.composite
def linear_cases(draw: st.DrawFn) -> OpCase:
    N, D, K = draw(batches), draw(channels), draw(channels)
    shapes = {"x": (N, D), "weight": (K, D)}
    if draw(st.booleans()):
        shapes["bias"] = (K,)
    return OpCase(ops.linear, shapes, draw(seeds), exact=True)


@st.composite
def max_pool2d_cases(draw: st.DrawFn) -> OpCase:
    ceil_mode = draw(st.booleans())
    axes = draw(pool_axes(ceil_mode, dilated=True)), draw(pool_axes(ceil_mode, dilated=True))
    arguments = {name: _both(*axes, name) for name in ("stride", "padding", "dilation")}
    arguments |= {"kernel_size": _both(*axes, "window"), "ceil_mode": ceil_mode}
    shapes = {"x": (draw(batches), draw(channels), *_both(*axes, "size"))}
    fill = draw(st.sampled_from([data.spaced, data.spaced_negative]))
    return OpCase(ops.max_pool2d, shapes, draw(seeds), arguments, "piecewise", fill, homogeneous=True, exact=True)


@st.composite
def avg_pool2d_cases(draw: st.DrawFn) -> OpCase:
    ceil_mode = draw(st.booleans())
    axes = draw(pool_axes(ceil_mode, dilated=False)), draw(pool_axes(ceil_mode, dilated=False))
    arguments = {name: _both(*axes, name) for name in ("stride", "padding")} | {
        "kernel_size": _both(*axes, "window"),
        "ceil_mode": ceil_mode,
        "count_include_pad": draw(st.booleans()),
    }
    shapes = {"x": (draw(batches), draw(channels), *_both(*axes, "size"))}
    return OpCase(ops.avg_pool2d, shapes, draw(seeds), arguments)


@st.composite
def lrn_cases(draw: st.DrawFn) -> OpCase:
    """Constants at which the sum matters, and the published ones."""
    arguments = {
        "size": draw(st.sampled_from([1, 3, 5, 7])),
        "alpha": draw(st.sampled_from([1e-4, 0.5, 2.0])),
        "beta": draw(st.sampled_from([0.5, 0.75, 2.0])),
        "k": draw(st.sampled_from([0.5, 1.0, 2.0])),
    }
    shapes = {"x": (draw(batches), draw(channels), draw(st.integers(1, 4)), draw(st.integers(1, 4)))}
    return OpCase(ops.lrn, shapes, draw(seeds), arguments, "curved")


@st.composite
def bilinear_upsample_cases(draw: st.DrawFn) -> OpCase:
    factor = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 3, 4, 8]))
    padding = tuple(draw(st.integers(0, (geometry.bilinear_window(f) - 1) // 2)) for f in factor)
    shapes = {"x": (draw(batches), draw(channels), draw(st.integers(1, 4)), draw(st.integers(1, 4)))}
    arguments = {"factor": factor, "padding": draw(st.sampled_from([padding, None]))}
    return OpCase(ops.bilinear_upsample, shapes, draw(seeds), arguments)


def _window(draw: st.DrawFn) -> tuple[Shape, Shape, Shape]:
    """(size, offset, size of the whole) of a crop; its window often ends where the whole does."""
    size, offset = ((draw(st.integers(low, 4)), draw(st.integers(low, 4))) for low in (1, 0))
    rest = draw(st.sampled_from([0, 0, 1, 3])), draw(st.sampled_from([0, 0, 1, 3]))
    return size, offset, tuple(sum(parts) for parts in zip(size, offset, rest, strict=True))


@st.composite
def crop_cases(draw: st.DrawFn) -> OpCase:
    size, offset, whole = _window(draw)
    shapes = {"x": (draw(batches), draw(channels), *whole)}
    return OpCase(ops.crop, shapes, draw(seeds), {"offset": offset, "size": size}, exact=True)


@st.composite
def crop_sum_cases(draw: st.DrawFn) -> OpCase:
    size, offset, whole = _window(draw)
    first = draw(batches), draw(channels)
    return OpCase(
        ops.crop_sum, {"x": (*first, *size), "skip": (*first, *whole)}, draw(seeds), {"offset": offset}, exact=True
    )


@st.composite
def dropout_cases(draw: st.DrawFn) -> OpCase:
    arguments = {name: draw(st.integers(0, 2**32 - 1)) for name in ("step", "layer")}
    arguments |= {"p": draw(st.floats(0, 0.9)), "seed": draw(st.integers(0, 2**64 - 1))}
    return OpCase(ops.dropout, {"x": draw(_shapes())}, draw(seeds), arguments)


def _labels(draw: st.DrawFn, seed: int, classes: int, shape: Shape) -> dict[str, Any]:
    """Labels of any integer type, some of them void, with weights and a reduction."""
    ignore_index = draw(st.sampled_from([255, -1, 0]))
    rng = np.random.default_rng([seed, 1])  # not the stream that the data come from
    target = rng.integers(0, classes, shape)
    target[rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = ignore_index
    target = target.astype(draw(st.sampled_from([np.int32, np.int64] if ignore_index < 0 else [np.uint8, np.int64])))
    return {
        "target": target,
        "weight": draw(st.sampled_from([None, rng.uniform(0.5, 2, classes)])),
        "ignore_index": ignore_index,
        "reduction": draw(st.sampled_from(REDUCTIONS)),
    }


classes = st.integers(1, 5) | st.sampled_from([16, 21])


@st.composite
def cross_entropy_cases(draw: st.DrawFn) -> OpCase:
    N, H, W, C, seed = draw(batches), draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(classes), draw(seeds)
    return OpCase(ops.cross_entropy, {"x": (N, C, H, W)}, seed, _labels(draw, seed, C, (N, H, W)), "curved")


@st.composite
def upsample_cross_entropy_cases(draw: st.DrawFn) -> OpCase:
    """Any window of the upsampled map, down to one pixel."""
    factor = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 3, 4, 8]))
    padding = tuple(draw(st.integers(0, (geometry.bilinear_window(f) - 1) // 2)) for f in factor)
    shape = draw(batches), draw(classes), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    geo, seed = geometry.upsample(shape, factor, padding), draw(seeds)
    offset = tuple(draw(st.integers(0, whole - 1)) for whole in (geo.P, geo.Q))
    size = tuple(draw(st.integers(1, whole - start)) for whole, start in zip((geo.P, geo.Q), offset, strict=True))
    arguments = {"factor": factor, "padding": padding, "offset": offset}
    arguments |= _labels(draw, seed, shape[1], (shape[0], *size))
    return OpCase(ops.upsample_cross_entropy, {"x": shape}, seed, arguments, "curved")


# --- arithmetic ---


def _shapes() -> st.SearchStrategy[Shape]:
    return st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)


@st.composite
def unary_cases(
    draw: st.DrawFn, call: Callable[..., Tensor], kind: str = "linear", fill: Data = data.signed, **choices: Any
) -> OpCase:
    """An elementwise op of one tensor; each of `choices` is a strategy of an argument."""
    arguments = {name: draw(values) for name, values in choices.items()}
    return OpCase(call, {"x": draw(_shapes())}, draw(seeds), arguments, kind, fill)


@st.composite
def relu_cases(draw: st.DrawFn) -> OpCase:
    shapes = {"x": draw(_shapes())}
    return OpCase(ops.relu, shapes, draw(seeds), {}, "piecewise", data.spaced, homogeneous=True, exact=True)


@st.composite
def binary_cases(
    draw: st.DrawFn, call: Callable[..., Tensor], kind: str = "linear", fill: Data = data.signed, exact: bool = True
) -> OpCase:
    """An elementwise op of two tensors that broadcast."""
    both = draw(mutually_broadcastable_shapes(num_shapes=2, min_dims=0, max_dims=4, min_side=1, max_side=4))
    shapes = dict(zip("ab", both.input_shapes, strict=True))
    return OpCase(call, shapes, draw(seeds), {}, kind, fill, exact=exact)


@st.composite
def sum_cases(draw: st.DrawFn, call: Callable[..., Tensor], exact: bool) -> OpCase:
    shape = draw(_shapes())
    axes = st.lists(st.integers(0, len(shape) - 1), unique=True, min_size=1).map(tuple) if shape else st.none()
    arguments = {"axis": draw(st.none() | axes), "keepdims": draw(st.booleans())}
    return OpCase(call, {"x": shape}, draw(seeds), arguments, exact=exact)


@st.composite
def reshape_cases(draw: st.DrawFn) -> OpCase:
    shape = draw(_shapes())
    return OpCase(ops.reshape, {"x": shape}, draw(seeds), {"shape": draw(st.permutations(shape)) or (1,)}, exact=True)


# --- optimisers ---


@st.composite
def sgd_cases(draw: st.DrawFn) -> StepCase:
    fixed = {
        "momentum": draw(st.sampled_from([0.0, 0.9])),
        "weight_decay": draw(st.sampled_from([0.0, 0.05])),
        "form": draw(st.sampled_from(["caffe", "pytorch"])),
    }
    rates = draw(st.lists(st.floats(1e-4, 0.5), min_size=1, max_size=3))
    return StepCase("sgd_step", draw(_weights()), ("velocity",), tuple({"lr": lr} | fixed for lr in rates), draw(seeds))


@st.composite
def adam_cases(draw: st.DrawFn) -> StepCase:
    fixed = {
        "betas": draw(st.sampled_from([(0.9, 0.999), (0.5, 0.9)])),
        "eps": draw(st.sampled_from([1e-8, 1e-3])),
        "weight_decay": draw(st.sampled_from([0.0, 0.05])),
    }
    decoupled = draw(st.booleans())
    rates = draw(st.lists(st.floats(1e-4, 0.1), min_size=1, max_size=3))
    steps = tuple({"lr": lr} | fixed | {"step": t, "decoupled": decoupled} for t, lr in enumerate(rates, start=1))
    return StepCase("adam_step", draw(_weights()), ("mean", "square"), steps, draw(seeds))


def _weights() -> st.SearchStrategy[Shape]:
    """Shapes of at least eight elements (a single one may cancel to almost nothing), or of none."""
    return st.sampled_from([(0,), (8,), (33,), (4, 3, 2, 2), (17, 5)])


numbers = st.sampled_from([-1.5, 0.0, 0.3, 2.0])
exponents = st.sampled_from([-1, 0.5, 2, 3])

OPS: dict[str, Cases] = {
    "conv2d": conv2d_cases(),
    "conv2d_relu": conv2d_relu_cases(),
    "conv2d_relu_max_pool2d": conv2d_relu_max_pool2d_cases(),
    "conv_transpose2d": conv_transpose2d_cases(),
    "linear": linear_cases(),
    "max_pool2d": max_pool2d_cases(),
    "avg_pool2d": avg_pool2d_cases(),
    "lrn": lrn_cases(),
    "bilinear_upsample": bilinear_upsample_cases(),
    "crop": crop_cases(),
    "crop_sum": crop_sum_cases(),
    "relu": relu_cases(),
    "dropout": dropout_cases(),
    "cross_entropy": cross_entropy_cases(),
    "upsample_cross_entropy": upsample_cross_entropy_cases(),
    "add": binary_cases(ops.add),
    "subtract": binary_cases(ops.subtract),
    "multiply": binary_cases(ops.multiply),
    "divide": binary_cases(ops.divide, "curved", data.positive, exact=False),
    "power": unary_cases(ops.power, "curved", data.positive, exponent=exponents),
    "exp": unary_cases(ops.exp, "curved"),
    "log": unary_cases(ops.log, "curved", data.positive),
    "scale": unary_cases(ops.scale, factor=numbers),
    "sum": sum_cases(ops.sum, exact=True),
    "mean": sum_cases(ops.mean, exact=False),
    "reshape": reshape_cases(),
    "sgd": sgd_cases(),
    "adam": adam_cases(),
}
