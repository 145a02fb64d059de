"""The ladder of convolution algorithms: every rung against the reference, at every shape that it supports.

All directions, with and without ReLU; adjoints, exact sums, accuracy at the widths of VGG, NaN and infinity, the same
bits for any number of threads, weights that are constants, and which rung a shape takes.
"""

import contextlib
import gc
import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn.gradcheck.cases import Axis, conv_axes
from minifcn.gradcheck.data import LAYOUTS, laid_out, off_zero, signed, small_integers
from minifcn.kernels import cpu, geometry, memory, reference, winograd
from minifcn.kernels.checks import ShapeError
from minifcn.kernels.cpu import constants, conv2d, gemm, taps, winograd1d
from minifcn.kernels.cpu.conv2d import rung
from minifcn.kernels.cpu.ladder import DIRECTIONS, RUNGS, choose, choose_backward_input, computing
from minifcn.kernels.cpu.vectors import lanes_of
from minifcn.kernels.settings import settings

DTYPES = ["float32", "float64"]
DIRECT = ("direct", "gemm", "pointwise", "taps")  # the rungs that form the sums of the definition
NAN, INF = np.nan, np.inf

in_every_dtype = pytest.mark.parametrize("dtype", DTYPES)


# --- shapes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A convolution: its geometry, and a seed for the numbers."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    window: tuple  # stride, padding, dilation, groups
    seed: int

    @property
    def geo(self):
        return geometry.conv2d(self.x, self.w, *self.window)

    def rungs(self, dtype):
        """The names of all rungs that compute it."""
        return [name for name, one in RUNGS.items() if one.supports(self.geo, np.dtype(dtype))]


def sized(batch, C, K, axes, groups, seed):
    """A shape from the output's size, which `conv_axes` drew."""

    def both(name):
        return tuple(getattr(axis, name) for axis in axes)

    window = (both("stride"), both("padding"), both("dilation"), groups)
    return Shape((batch, groups * C, *both("size")), (groups * K, C, *both("window")), window, seed)


@st.composite
def shapes(draw, dtype):
    """Any shape; most for the rungs that want whole vectors of channels, or of images, which have three."""
    lanes, seed = max(lanes_of(dtype), 8), draw(st.integers(0, 2**32 - 1))
    some = st.integers(1, 4) | st.sampled_from([lanes - 1, lanes, lanes + 1, 2 * lanes + 1, 3 * lanes, 4 * lanes + 5])
    whole = st.sampled_from([lanes, 2 * lanes, 3 * lanes, 4 * lanes, 5 * lanes])
    kinds = ["any", "groups", "taps", "pointwise", "colours", "rows", "winograd", "winograd"]
    kind = draw(st.sampled_from(kinds))
    batch = draw(st.integers(0, 3))
    if kind in ("rows", "winograd"):
        P, Q = draw(st.integers(1, 10)), draw(st.integers(1, 10 if kind == "winograd" else 40))
        padding = draw(st.integers(0, min(2, (P + 1) // 2))), draw(st.integers(0, min(2, (Q + 1) // 2)))
        size = P + 2 - 2 * padding[0], Q + 2 - 2 * padding[1]
        C, K = draw(whole if kind == "winograd" else st.integers(1, 9)), draw(whole)
        return Shape((batch, C, *size), (K, C, 3, 3), (1, padding, 1, 1), seed)
    if kind == "pointwise":
        size = draw(st.integers(1, 13)), draw(st.integers(1, 13))
        C, K = draw(whole), draw(some)
        return Shape((batch, C, *size), (K, C, 1, 1), (1, 0, draw(st.integers(1, 2)), 1), seed)
    if kind == "colours":
        size, groups = (draw(st.integers(3, 20)), draw(st.integers(1, 20))), draw(st.integers(1, 2))
        window = draw(st.integers(1, 2)), (draw(st.integers(1, 2)), 1), (draw(st.integers(1, 2)), 1), groups
        K = draw(whole | st.integers(lanes, 4 * lanes))
        return Shape((batch, 3 * groups, *size), (K * groups, 3, 3, 3), window, seed)
    axes = draw(conv_axes()), draw(conv_axes())
    if kind == "groups":
        groups, few = draw(st.integers(2, 3)), st.sampled_from([1, 2, 3, 8, lanes, lanes + 3])
        return sized(batch, draw(few), draw(few), axes, groups, seed)
    return sized(batch, draw(whole if kind == "taps" else some), draw(some), axes, 1, seed)


def freeze(array):
    """Nobody can write to `array`, nor to what it is a view of."""
    while isinstance(array, np.ndarray):
        array.flags.writeable = False
        array = array.base


# --- all kernels of one rung -------------------------------------------------------------------------------


def tensors(shape, dtype, fill=signed):
    """x, w, b, dy of the shape."""
    rng, geo = np.random.default_rng(shape.seed), shape.geo
    return [fill(rng, size).astype(dtype) for size in (geo.x_shape, geo.w_shape, (geo.K,), geo.y_shape)]


def in_memory_order(array):
    """`array`, channels last in memory if it is a map."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if array.ndim == 4 else array


def results(kernels, shape, x, w, b, dy):
    """{direction: array} of a convolution: `kernels` is a device, or the name of a rung."""
    geo, window = shape.geo, shape.window

    def kernel(name):
        return rung(name, kernels) if isinstance(kernels, str) else getattr(kernels, name)

    return {
        "y": kernel("conv2d_forward")(x, w, b, *window),
        "dx": kernel("conv2d_backward_input")(dy, w, (geo.H, geo.W), *window),
        "dw": kernel("conv2d_backward_weight")(dy, x, (geo.R, geo.S), *window),
    }


def fused(kernels, shape, x, w, b, dy, needs=(True, True, True)):
    """{direction: array} of the convolution with ReLU."""
    with settings.using(convolution=kernels if isinstance(kernels, str) else "fastest"):
        device = cpu if isinstance(kernels, str) else kernels
        y, mask = device.conv2d_relu_forward(x, w, b, *shape.window)
        dx, dw, db = device.conv2d_relu_backward(dy, mask, x, w, *shape.window, needs)
    return {"y": y, "mask": mask, "dx": dx, "dw": dw, "db": db}


def pooled(name, shape, x, w, b, dy):
    """{direction: array} of the convolution with ReLU and pooling by the rung `name`; dy is cut to the maxima."""
    with settings.using(convolution=name):
        y, mask = cpu.conv2d_relu_max_pool2d_forward(x, w, b, *shape.window, True)
        dy = in_memory_order(dy[:, :, : y.shape[2], : y.shape[3]])
        dx, dw, db = cpu.conv2d_relu_max_pool2d_backward(dy, mask, x, w, *shape.window, True)
    return {"y": y, "mask": mask, "dx": dx, "dw": dw, "db": db}


def wide(*arrays):
    return [array.astype(np.float64) for array in arrays]


def assert_close(name, rung_name, got, expected, absolute):
    """Every element is right within rounding of the largest sum of absolute products, `absolute`."""
    assert got.shape == expected.shape, (name, rung_name)
    limit = 20 * np.finfo(got.dtype).eps * (1 if rung_name in DIRECT else 8)
    off, unit = abs(got - expected).max(initial=0), absolute.max(initial=0)
    assert off <= limit * unit, (
        f"{name} by {rung_name}: off by {off}, allowed {limit * unit}\n{got}\nexpected\n{expected}"
    )


# Winograd's tiles one by one or a few together, so that small shapes take the ways of large ones.
TIGHT = {"TILES": 2, "LEAST_TILES": 1, "BLOCK": 1, "GROUP": 1 << 14}
blockings = st.sampled_from([{}, TIGHT, TIGHT | {"BLOCK": 1 << 14, "LEAST_SHARES": 1}, TIGHT | {"SUMS": 0}])


@contextlib.contextmanager
def blocked(blocking):
    """The blocking of Winograd's rungs, by names in the module.

    With any, outputs of whole lines are stored past the caches, and a job of `winograd1d` takes few rows.
    """
    with contextlib.ExitStack() as changed:
        if blocking:
            changed.enter_context(mock.patch.multiple("minifcn.kernels.cpu.winograd", **blocking))
            changed.enter_context(mock.patch.object(gemm, "FAR", 0))
            changed.enter_context(mock.patch.object(winograd1d, "MORE", 64))
        yield


# --- against the reference ---------------------------------------------------------------------------------


def check_rungs(names, shape, dtype, layout, frozen):
    """The rungs agree with the reference, and leave their inputs alone."""
    arrays = tensors(shape, dtype)
    expected = results(reference, shape, *wide(*arrays))
    absolute = results(reference, shape, *wide(*map(abs, arrays)))
    strided = [laid_out(array, layout) for array in arrays]
    if frozen:
        for array in strided:
            freeze(array)
    for name in names:
        got = results(name, shape, *strided)
        for key, array in got.items():
            assert array.dtype == dtype
            assert_close(key, name, array, expected[key], absolute[key])
    for before, after in zip(arrays, strided, strict=True):
        np.testing.assert_array_equal(after, before)


@in_every_dtype
@given(data=st.data(), layout=st.sampled_from(list(LAYOUTS)), frozen=st.booleans(), blocking=blockings)
def test_every_rung_agrees_with_the_reference(dtype, data, layout, frozen, blocking):
    shape = data.draw(shapes(dtype))
    with blocked(blocking):
        check_rungs(shape.rungs(dtype), shape, dtype, layout, frozen)


@st.composite
def as_wide_as_the_image(draw):
    """A window whose middle tap meets all columns of the image, of just as many or of more outputs."""
    size, half, dilation, more = (draw(st.integers(*ends)) for ends in ((1, 5), (0, 1), (1, 2), (0, 1)))
    return Axis(size, 2 * half + 1, draw(st.integers(1, 2)) if size == 1 else 1, half * dilation + more, dilation, 0)


@in_every_dtype
@given(data=st.data(), frozen=st.booleans(), few=st.sampled_from([0, taps.FEW_WEIGHTS]))
def test_taps_bring_the_pixels_of_rows_and_images_together(dtype, data, frozen, few):
    """Output channels that fill whole panels or do not; few weights, or many; rows that follow each other or do not."""
    vectors, axes = st.integers(1, 5), (data.draw(conv_axes()), data.draw(as_wide_as_the_image() | conv_axes()))
    C, K = data.draw(vectors) * lanes_of(dtype), data.draw(vectors) * 8 + data.draw(st.sampled_from([0, 0, 3]))
    shape = sized(data.draw(st.integers(1, 4)), C, K, axes, 1, data.draw(st.integers(0, 2**32 - 1)))
    with mock.patch.object(taps, "FEW_WEIGHTS", few):
        check_rungs(["taps"], shape, dtype, "channels last", frozen)


@in_every_dtype
@pytest.mark.parametrize("few", [0, taps.FEW_WEIGHTS])
def test_taps_meet_every_pixel_of_an_image_of_one_column(dtype, few):
    """A stride that nothing can follow: the next pixel is the next row's."""
    lanes = lanes_of(dtype)
    with mock.patch.object(taps, "FEW_WEIGHTS", few):
        shape = Shape((1, lanes, 5, 1), (2 * lanes, lanes, 1, 1), ((1, 2), 0, 1, 1), seed=0)
        check_rungs(["taps"], shape, dtype, "channels last", frozen=False)


@in_every_dtype
@given(data=st.data(), layout=st.sampled_from(list(LAYOUTS)), needs=st.tuples(*[st.booleans()] * 3), blocking=blockings)
def test_every_rung_with_relu_agrees_with_the_reference(dtype, data, layout, needs, blocking):
    """The numbers keep every sum away from the kink, so that the bits of the mask must be the reference's."""
    shape = data.draw(shapes(dtype))
    x, w, b, _ = tensors(shape, dtype, off_zero)
    dy = tensors(shape, dtype)[3]
    expected = fused(reference, shape, *wide(x, w, b, dy))
    absolute = results(reference, shape, *wide(*map(abs, (x, w, b, dy)))) | {"db": abs(dy).sum((0, 2, 3))}
    for name in shape.rungs(dtype):
        with blocked(blocking):
            got = fused(name, shape, *(laid_out(array, layout) for array in (x, w, b, dy)), needs)
        np.testing.assert_array_equal(got.pop("mask"), expected["mask"], err_msg=name)
        asked = dict(zip(("dx", "dw", "db"), needs, strict=True))
        for key, array in got.items():
            if not asked.get(key, True):
                assert array is None
                continue
            assert array.dtype == dtype
            assert_close(key, name, array, expected[key], absolute[key])


@in_every_dtype
@given(data=st.data(), ceil_mode=st.booleans(), strange=st.sampled_from([0.0, NAN, INF, -INF]))
def test_every_rung_with_pooling_is_one_by_one_to_the_bit(dtype, data, ceil_mode, strange):
    """Sums of small integers tie often; the parts are held to the reference by tests of their own."""
    shape = data.draw(shapes(dtype))
    ceil_mode |= min(shape.geo.P, shape.geo.Q) < 2
    x, w, b, _ = tensors(shape, dtype, small_integers)
    if x.size:
        x.reshape(-1)[data.draw(st.integers(0, x.size - 1))] += strange
    for name in shape.rungs(dtype):
        with settings.using(convolution=name):
            z, passes = cpu.conv2d_relu_forward(x, w, b, *shape.window)
            expected, argmax = cpu.max_pool2d_forward(z, 2, ceil_mode=ceil_mode)
            y, mask = cpu.conv2d_relu_max_pool2d_forward(x, w, b, *shape.window, ceil_mode)
            np.testing.assert_array_equal(y, expected, err_msg=name)
            dy = signed(np.random.default_rng(shape.seed), y.shape).astype(dtype)
            dz = cpu.max_pool2d_backward_input(dy, argmax, z.shape[2:], 2, ceil_mode=ceil_mode)
            gradients = cpu.conv2d_relu_backward(dz, passes, x, w, *shape.window)
            found = cpu.conv2d_relu_max_pool2d_backward(dy, mask, x, w, *shape.window, ceil_mode)
        won = np.unpackbits(mask, axis=3, count=shape.geo.K, bitorder="little").transpose(0, 3, 1, 2)
        masked = np.unpackbits(passes, axis=3, count=shape.geo.K, bitorder="little").transpose(0, 3, 1, 2)
        winners = cpu.max_pool2d_backward_input(np.ones_like(y), argmax, z.shape[2:], 2, ceil_mode=ceil_mode)
        np.testing.assert_array_equal(won, masked * winners, err_msg=name)
        for one, other in zip(found, gradients, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)


@in_every_dtype
@given(data=st.data())
def test_without_a_bias(dtype, data):
    shape = data.draw(shapes(dtype))
    x, w, _, _ = tensors(shape, dtype)
    (expected, absolute) = (
        reference.conv2d_forward(*pair, None, *shape.window) for pair in (wide(x, w), wide(abs(x), abs(w)))
    )
    for name in shape.rungs(dtype):
        with settings.using(convolution=name):
            got = cpu.conv2d_forward(x, w, None, *shape.window)
            y, _ = cpu.conv2d_relu_forward(x, w, None, *shape.window)
        assert_close("y", name, got, expected, absolute)
        np.testing.assert_array_equal(y, np.where(got <= 0, 0, got))


@given(data=st.data())
def test_every_rung_is_the_adjoint_of_itself(data):
    """<conv(x), dy> = <x, conv^T(dy)> = <w, gradient>: the three directions belong to one bilinear form."""
    shape = data.draw(shapes("float64"))
    x, w, _, dy = tensors(shape, "float64")
    b = np.zeros(shape.geo.K)
    unit = (results(reference, shape, *map(abs, (x, w, b, dy)))["y"] * abs(dy)).sum()
    for name in shape.rungs("float64"):
        got = results(name, shape, x, w, b, dy)
        form = (got["y"] * dy).sum()
        for image, operand in (("dx", x), ("dw", w)):
            assert abs(form - (got[image] * operand).sum()) <= 1e-14 * unit, (name, image)


@in_every_dtype
@given(data=st.data())
def test_sums_of_small_integers_are_exact(dtype, data):
    shape = data.draw(shapes(dtype))
    arrays = tensors(shape, dtype, small_integers)
    expected, expected_fused = (run(reference, shape, *wide(*arrays)) for run in (results, fused))
    for name in set(shape.rungs(dtype)) & set(DIRECT):
        for run, right in ((results, expected), (fused, expected_fused)):
            for key, array in run(name, shape, *arrays).items():
                np.testing.assert_array_equal(array, right[key], err_msg=f"{key} by {name}")


# --- sizes at which jobs, blocks and groups of tiles split ---------------------------------------------------

LARGE = {
    "blocks of tiles": Shape((2, 32, 23, 21), (48, 32, 3, 3), (1, 1, 1, 1), 1),
    "panels of outputs": Shape((1, 320, 9, 7), (64, 320, 3, 3), (1, 1, 1, 1), 2),
    "groups of tiles": Shape((1, 320, 53, 50), (32, 320, 3, 3), (1, (1, 2), 1, 1), 3),
    "strided": Shape((2, 32, 37, 45), (40, 32, 5, 3), ((2, 3), (2, 0), (1, 2), 1), 4),
    "grouped": Shape((2, 24, 33, 40), (30, 8, 3, 3), (1, 1, 1, 3), 5),
    "one by one": Shape((3, 96, 25, 17), (70, 96, 1, 1), (1, 0, 1, 1), 6),
    "few pixels": Shape((2, 64, 6, 5), (300, 64, 7, 7), (1, 3, 1, 1), 7),
    "first layer": Shape((1, 3, 61, 83), (64, 3, 3, 3), (1, 1, 1, 1), 8),
    "first layer of two": Shape((2, 6, 41, 53), (48, 3, 3, 3), ((1, 2), 1, (2, 1), 2), 9),
}
DIRECT_TAKES = ("blocks of tiles", "strided", "grouped", "one by one", "first layer")  # it is slow


def by_blas(shape, x, w, b, dy):
    """`results` in float64 from one matrix product a tap, independent of all kernels; without groups."""
    geo = shape.geo
    (sh, sw), (ph, pw), (dh, dw) = geo.stride, geo.padding, geo.dilation
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    y, dx, gradient = np.zeros(geo.y_shape) + b[:, None, None], np.zeros_like(padded), np.zeros_like(w)
    for r, s in np.ndindex(geo.R, geo.S):
        there = (slice(None), slice(None), slice(r * dh, r * dh + (geo.P - 1) * sh + 1, sh),
                 slice(s * dw, s * dw + (geo.Q - 1) * sw + 1, sw))  # fmt: skip
        y += np.tensordot(padded[there], w[..., r, s], (1, 1)).transpose(0, 3, 1, 2)
        dx[there] += np.tensordot(dy, w[..., r, s], (1, 0)).transpose(0, 3, 1, 2)
        gradient[..., r, s] = np.tensordot(dy, padded[there], ((0, 2, 3), (0, 2, 3)))
    return {"y": y, "dx": dx[..., ph : ph + geo.H, pw : pw + geo.W], "dw": gradient}


def large_rungs(name, dtype):
    return [one for one in LARGE[name].rungs(dtype) if one != "direct" or name in DIRECT_TAKES]


@in_every_dtype
@pytest.mark.parametrize("name", LARGE)
def test_large_shapes_agree_with_the_reference(name, dtype):
    shape = LARGE[name]
    truth = by_blas if shape.geo.groups == 1 else lambda *arguments: results(reference, *arguments)
    arrays = tensors(shape, dtype)
    expected, absolute = truth(shape, *wide(*arrays)), truth(shape, *wide(*map(abs, arrays)))
    for one in large_rungs(name, dtype):
        for key, array in results(one, shape, *arrays).items():
            assert_close(key, one, array, expected[key], absolute[key])


@in_every_dtype
@pytest.mark.parametrize("name", LARGE)
def test_the_same_bits_for_any_number_of_threads_and_on_every_run(name, dtype):
    shape = LARGE[name]
    x, w, b, dy = tensors(shape, dtype)
    for one in large_rungs(name, dtype):
        found = []
        for threads in (1, 2, 4, 4):
            with settings.using(threads=threads):
                together, all_in_one = fused(one, shape, x, w, b, dy), pooled(one, shape, x, w, b, dy)
                found.append(
                    results(one, shape, x, w, b, dy)
                    | {f"{key} with ReLU": array for key, array in together.items()}
                    | {f"{key} with pooling": array for key, array in all_in_one.items()}
                )
        for again in found[1:]:
            for key, array in again.items():
                assert array.tobytes() == found[0][key].tobytes(), f"{key} by {one}"


def check_launches(names, shape, arrays):
    """All that rungs compute is computed by their launches, whatever memory held before."""
    arrays = [in_memory_order(array) for array in arrays]
    for name, compute in itertools.product(names, (results, fused, pooled)):
        expected = compute(name, shape, *arrays)
        with cpu.capture() as graph:
            found = compute(name, shape, *arrays)
        for _ in range(2):
            graph.memory.spoil()
            graph.replay()
            for key, array in expected.items():
                assert found[key].tobytes() == array.tobytes(), f"{key} by {name}, {compute.__name__}"


@in_every_dtype
@given(data=st.data(), blocking=blockings, few=st.sampled_from([0, taps.FEW_WEIGHTS]))
def test_nothing_is_computed_beside_the_launches(dtype, data, blocking, few):
    shape = data.draw(shapes(dtype).filter(lambda shape: shape.geo.N))
    with blocked(blocking), mock.patch.object(taps, "FEW_WEIGHTS", few):
        check_launches(shape.rungs(dtype), shape, tensors(shape, dtype))


@in_every_dtype
@pytest.mark.parametrize("blocking", [{}, TIGHT, TIGHT | {"SUMS": 0}], ids=["as it is", "shares", "groups"])
@pytest.mark.parametrize("name", ["blocks of tiles", "strided", "one by one", "few pixels", "first layer"])
def test_nothing_is_computed_beside_the_launches_of_large_shapes(name, blocking, dtype):
    with blocked(blocking):
        check_launches(large_rungs(name, dtype), LARGE[name], tensors(LARGE[name], dtype))


@in_every_dtype
@given(size=st.tuples(*[st.integers(1, 6)] * 4), many=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_the_bias_gradient_is_computed_by_its_launch(dtype, size, many, seed):
    dy = signed(np.random.default_rng(seed), size).astype(dtype)
    dy = in_memory_order(dy)
    with mock.patch.object(conv2d, "BIAS_GRAIN", 8 if many else conv2d.BIAS_GRAIN), cpu.capture() as graph:
        db = cpu.conv2d_backward_bias(dy)
    for _ in range(2):
        graph.memory.spoil()
        graph.replay()
        np.testing.assert_allclose(db, dy.sum((0, 2, 3)), 1e-5, 1e-5)


# --- accuracy ------------------------------------------------------------------------------------------------


def relative(got, expected):
    """Error over size, both as L2 norms; NaN is no small error."""
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


def network_like(shape):
    """An input as ReLU leaves it, weights as He draws them, normal gradients: float32."""
    rng, geo = np.random.default_rng(shape.seed), shape.geo
    x = np.maximum(rng.standard_normal(geo.x_shape), 0)
    w = rng.standard_normal(geo.w_shape) * np.sqrt(2 / (geo.C * geo.R * geo.S))
    return [a.astype(np.float32) for a in (x, w, rng.standard_normal(geo.K) / 10, rng.standard_normal(geo.y_shape))]


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(Shape((1, 3, 224, 61), (64, 3, 3, 3), (1, 1, 1, 1), 6), id="colours"),
        pytest.param(Shape((1, 64, 27, 30), (64, 64, 3, 3), (1, 1, 1, 1), 1), id="64 channels"),
        pytest.param(Shape((1, 128, 19, 22), (128, 128, 3, 3), (1, 1, 1, 1), 2), id="128 channels"),
        pytest.param(Shape((1, 256, 14, 13), (256, 256, 3, 3), (1, 1, 1, 1), 3), id="256 channels"),
        pytest.param(Shape((1, 512, 12, 9), (512, 512, 3, 3), (1, 1, 1, 1), 4), id="512 channels"),
        pytest.param(Shape((4, 16, 120, 120), (16, 16, 3, 3), (1, 1, 1, 1), 5), id="3600 tiles"),
    ],
)
@pytest.mark.parametrize(("convolution", "limit"), [("fastest", 5e-6), ("exact", 1e-6)])
def test_accuracy_in_float32(shape, convolution, limit):
    arrays = network_like(shape)
    expected = by_blas(shape, *wide(*arrays))
    with settings.using(convolution=convolution):
        assert choose(shape.geo, np.float32).startswith("winograd") == (convolution == "fastest")
        got = results(cpu, shape, *arrays)
    for key, array in got.items():
        assert relative(array, expected[key]) <= limit, key


# --- NaN and infinity ------------------------------------------------------------------------------------------


TILES = {"winograd1d": (1, 2), "winograd2": (2, 2), "winograd4": (4, 4)}


def tiles_of(places, size):
    """`places` [N, K, P, Q] spread over their tiles of `size`."""
    spread, (m, n) = places.copy(), size
    for p, q in np.ndindex(-(-places.shape[2] // m), -(-places.shape[3] // n)):
        tile = np.s_[:, :, p * m : (p + 1) * m, q * n : (q + 1) * n]
        spread[tile] = places[tile].any((2, 3), keepdims=True)
    return spread


def dependents(shape, bad_x, bad_dy):
    """{direction: which elements depend on one that is set}: 1s convolved with 1s, where padding is no number."""
    geo = shape.geo
    x, w, dy = (np.ones(size) for size in (geo.x_shape, geo.w_shape, geo.y_shape))
    none = np.zeros(geo.K)
    of_x, of_dy = results(reference, shape, bad_x, w, none, dy), results(reference, shape, x, w, none, bad_dy)
    return {"y": of_x["y"] > 0, "dx": of_dy["dx"] > 0, "dw": of_x["dw"] + of_dy["dw"] > 0, "db": bad_dy.any((0, 2, 3))}


@in_every_dtype
@given(data=st.data(), value=st.sampled_from([NAN, INF, -INF]))
def test_no_nan_and_no_infinity_is_lost(dtype, data, value):
    """Directly they reach just the elements that depend on them; Winograd may spread them within a tile."""
    shape = data.draw(shapes(dtype))
    x, w, b, dy = tensors(shape, dtype)
    rng = np.random.default_rng(shape.seed)
    bad_x, bad_dy = (rng.random(array.shape) < min(0.5, 2 / max(array.size, 1)) for array in (x, dy))
    x[bad_x], dy[bad_dy] = value, value
    reached = dependents(shape, bad_x.astype(float), bad_dy.astype(float))
    for name in shape.rungs(dtype):
        plain, with_relu = results(name, shape, x, w, b, dy), fused(name, shape, x, w, b, dy)
        z, mask = plain["y"], with_relu.pop("mask")
        passes = np.unpackbits(mask, axis=3, count=z.shape[1], bitorder="little").transpose(0, 3, 1, 2) == 1
        np.testing.assert_array_equal(passes, ~(z <= 0))
        np.testing.assert_array_equal(with_relu.pop("y"), np.where(passes, z, 0))
        reached_with_relu = dependents(shape, bad_x.astype(float), (bad_dy & passes).astype(float))
        for found, must in ((plain, reached), (with_relu, reached_with_relu)):
            for key, array in found.items():
                bad = ~np.isfinite(array)
                assert not (must[key] & ~bad).any(), f"{key} by {name} lost {value}"
                if name == "direct":
                    assert not (bad & ~must[key]).any(), f"{key} by {name} has {value} where nothing is"
        if name in TILES:
            assert not (~np.isfinite(z) & ~tiles_of(reached["y"], TILES[name])).any()


# --- weights that are constants ----------------------------------------------------------------------------------


@pytest.fixture
def transforms(monkeypatch):
    """The calls of the transform of weights by itself: those that may change are transformed where they are used."""
    calls, one = [], RUNGS["winograd4"]
    true = one.forward_weights

    def counted(geo, w):
        calls.append(w.shape)
        return true(geo, w)

    monkeypatch.setattr(one, "forward_weights", counted)
    return calls


def rng_array(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X, W = rng_array((1, 16, 40, 40)), rng_array((16, 16, 3, 3), 3)


def forward(w, x=X):
    with settings.using(convolution="winograd4"):
        return cpu.conv2d_forward(x, w, None, 1, 1)


def test_the_transform_of_a_constant_is_made_once_and_forgotten_with_it(transforms):
    before, w = len(constants._derived), W.copy()
    freeze(w)
    first, second = forward(w), forward(w, X[:, :, :36])
    assert len(transforms) == 1
    assert len(constants._derived) == before + 1
    np.testing.assert_array_equal(second[:, :, :32], first[:, :, :32])
    del w
    gc.collect()
    assert len(constants._derived) == before


def test_the_transform_of_a_weight_that_can_change_is_never_used_again(transforms):
    kept, w = len(constants._derived), W.copy()
    first = forward(w)
    w *= 2
    np.testing.assert_array_equal(forward(w), 2 * first)
    assert not transforms
    assert len(constants._derived) == kept


@pytest.mark.parametrize("channels", [(16, 16), (256, 256)])  # with many, a job makes the weights of its own outputs
def test_the_weights_are_the_same_whoever_transforms_them(transforms, channels):
    x, w = rng_array((1, channels[0], 40, 40)), rng_array((*channels[::-1], 3, 3), 3)
    few = x[:, :, :16, :16]
    np.testing.assert_array_equal(forward(w, few)[:, :, :12, :12], forward(w, x)[:, :, :12, :12])
    freeze(w)
    first = forward(w, few)
    w.flags.writeable = True
    w *= 2
    np.testing.assert_array_equal(forward(w, few), 2 * first)
    freeze(w)
    np.testing.assert_array_equal(forward(w, few), 2 * first)
    assert len(transforms) == 2


@pytest.mark.parametrize("channels", [16, 256])
@pytest.mark.parametrize("size", [(28, 36), (32, 32), (20, 52)])  # 63, 64 and 65 tiles of 4 x 4
def test_around_the_number_of_tiles_for_which_a_job_makes_its_own_weights(size, channels):
    x, dy, w = rng_array((1, 16, *size), 1), rng_array((1, channels, *size), 2), rng_array((channels, 16, 3, 3), 3)
    with settings.using(convolution="winograd4"):
        y, dx = cpu.conv2d_forward(x, w, None, 1, 1), cpu.conv2d_backward_input(dy, w, size, 1, 1)
    assert relative(y, reference.conv2d_forward(x, w, None, 1, 1)) <= 5e-6
    assert relative(dx, reference.conv2d_backward_input(dy, w, size, 1, 1)) <= 5e-6


def test_a_read_only_view_of_a_weight_that_can_change_is_no_constant(transforms):
    w = W.copy()
    view = w[:]
    view.flags.writeable = False
    assert not constants.is_constant(view)
    first = forward(view)
    w *= 2
    np.testing.assert_array_equal(forward(view), 2 * first)
    assert not transforms


def test_a_constant_that_is_used_as_a_variable_in_between_is_transformed_anew(transforms):
    w = W.copy()
    freeze(w)
    first = forward(w)
    w.flags.writeable = True
    w *= 2
    np.testing.assert_array_equal(forward(w), 2 * first)
    freeze(w)
    np.testing.assert_array_equal(forward(w), 2 * first)
    assert len(transforms) == 2


def test_nothing_is_said_when_python_ends_before_a_constant():
    code = (
        "import numpy as np; from minifcn.kernels.cpu import constants; w = np.ones(3); w.flags.writeable = False;"
        "constants.derived(w, 'it', lambda: 1)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")


@given(data=st.data())
def test_a_constant_serves_inputs_of_every_size(data):
    """What is derived from it may depend on the input's size: which phases of a stride there are."""
    axes = data.draw(conv_axes()), data.draw(conv_axes())
    shape = sized(1, 3, 2, axes, 1, data.draw(st.integers(0, 2**32 - 1)))
    w = tensors(shape, "float64")[1]
    freeze(w)
    _, padding, dilation, _ = shape.window
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(w.shape[2:], padding, dilation, strict=True)]
    for _ in range(3):
        size = tuple(low + data.draw(st.integers(0, 3)) for low in least)
        one = Shape((1, 3, *size), w.shape, shape.window, shape.seed)
        x, _, b, dy = tensors(one, "float64")
        expected = results(reference, one, x, w, b, dy)
        for name in one.rungs("float64"):
            for key, array in results(name, one, x, w, b, dy).items():
                np.testing.assert_allclose(array, expected[key], rtol=1e-12, atol=1e-12, err_msg=f"{key} by {name}")


# --- which rung a shape takes ----------------------------------------------------------------------------------


def geo(x, w, stride=1, padding=0, dilation=1, groups=1):
    return geometry.conv2d(x, w, stride, padding, dilation, groups)


VGG = geo((1, 128, 56, 56), (128, 128, 3, 3), 1, 1)
SMALL_MAP = geo((1, 512, 12, 12), (512, 512, 3, 3), 1, 1)  # 9 tiles
FC6 = geo((1, 512, 7, 7), (4096, 512, 7, 7), 1, 3)
SCORE = geo((1, 512, 20, 20), (21, 512, 1, 1))
FIRST = geo((1, 3, 64, 64), (64, 3, 3, 3), 1, 1)


@pytest.mark.parametrize(
    ("shape", "taken"),
    [
        (VGG, "winograd4"),
        (SMALL_MAP, "winograd4"),
        (FC6, "taps"),
        (SCORE, "pointwise"),
        (FIRST, "winograd1d"),
        (geo((8, 1, 33, 1), (16, 1, 3, 3), 1, (0, 1)), "winograd1d"),
        (geo((1, 8, 64, 64), (48, 8, 3, 3), 1, 2), "winograd1d"),
        (geo((1, 9, 64, 64), (64, 9, 3, 3), 1, 1), "gemm"),
        (geo((1, 3, 64, 64), (60, 3, 3, 3), 1, 1), "gemm"),
        (geo((1, 3, 64, 64), (64, 3, 3, 3), (1, 2), 1), "gemm"),
        (geo((1, 3, 64, 64), (64, 3, 3, 3), 1, 1, 2), "gemm"),
        (geo((1, 3, 64, 64), (64, 3, 3, 5), 1, 1), "gemm"),
        (geo((1, 6, 64, 64), (64, 3, 3, 3), 1, 1, 1, 2), "gemm"),
        (geo((1, 128, 56, 56), (128, 128, 3, 3), 2, 1), "gemm"),
        (geo((1, 128, 56, 56), (128, 128, 3, 3), 1, 2, 2), "gemm"),
        (geo((1, 128, 56, 56), (128, 64, 3, 3), 1, 1, 1, 2), "gemm"),
        (geo((1, 128, 56, 56), (128, 128, 3, 3), 1, 3), "gemm"),
        (geo((1, 120, 56, 56), (132, 120, 3, 3), 1, 1), "gemm"),
        (geo((0, 128, 56, 56), (128, 128, 3, 3), 1, 1), "gemm"),
    ],
)
def test_the_choice_of_a_rung(shape, taken):
    with settings.using(convolution="fastest"):
        assert choose(shape, np.float32) == taken


def test_many_weights_that_change_are_not_transformed_for_a_few_pixels():
    few, more, small = (geometry.conv2d(*shape, 1, 1) for shape in (
        ((8, 512, 4, 4), (512, 512, 3, 3)),
        ((8, 512, 8, 8), (512, 512, 3, 3)),
        ((1, 32, 8, 8), (32, 32, 3, 3)),
    ))  # fmt: skip
    with settings.using(convolution="fastest"):
        chosen = [choose_backward_input(one, np.float32, changing) for one in (few, more, small) for changing in (1, 0)]
    assert chosen == ["taps", *["winograd4"] * 5]
    with settings.using(convolution="winograd4"):
        assert choose_backward_input(few, np.float32, True) == "winograd4"
    rng = np.random.default_rng(0)
    dy, w = (signed(rng, size).astype(np.float32) for size in ((8, 512, 4, 4), (512, 512, 3, 3)))
    exact = reference.conv2d_backward_input(*wide(dy, w), (4, 4), 1, 1)
    with settings.using(convolution="fastest"):
        changing, constant = cpu.conv2d_backward_input(dy, w, (4, 4), 1, 1), memory.constant(w)
        kept = cpu.conv2d_backward_input(dy, constant, (4, 4), 1, 1)
    assert relative(changing, exact) <= 1e-6
    assert 1e-7 <= relative(kept, exact) <= 5e-6
    assert not np.array_equal(changing, kept)


def test_the_rung_that_computes():
    """It is the one that was chosen, but gemm for the gradients of one that has only a forward pass of its own."""
    few = geometry.conv2d((8, 512, 4, 4), (512, 512, 3, 3), 1, 1)
    with settings.using(convolution="fastest"):
        for shape in (VGG, SCORE, FC6):
            assert {computing(op, shape, np.float32) for op in DIRECTIONS} == {choose(shape, np.float32)}
        assert [computing(op, FIRST, np.float32) for op in DIRECTIONS] == ["winograd1d", "gemm", "gemm"]
        assert [computing(op, few, np.float32, True) for op in DIRECTIONS] == ["winograd4", "taps", "winograd4"]


def test_the_choice_can_be_overridden():
    with settings.using(convolution="exact"):
        assert choose(VGG, np.float32) == "gemm"
        assert choose(SCORE, np.float32) == "pointwise"
        assert choose(FIRST, np.float32) == "gemm"
        assert choose(FC6, np.float32) == choose(SMALL_MAP, np.float32) == "taps"
    for name in RUNGS:
        with settings.using(convolution=name):
            assert choose(VGG, np.float32) == (name if RUNGS[name].supports(VGG, np.float32) else "gemm")
            assert choose(FIRST, np.float32) == (name if name in ("direct", "winograd1d") else "gemm")


def test_the_environment_chooses_too():
    code = (
        "import numpy as np; from minifcn.kernels import geometry; from minifcn.kernels.cpu.ladder import choose;"
        "print(choose(geometry.conv2d((1, 64, 99, 99), (64, 64, 3, 3)), np.float32))"
    )
    for wanted, rung_name in (("exact", "gemm"), ("winograd2", "winograd2"), ("", "winograd4")):
        found = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"MINIFCN_CONVOLUTION": wanted},
            capture_output=True,
            text=True,
        )
        assert found.stdout.split() == [rung_name], found.stderr


@pytest.mark.parametrize("name", ["pointwise", "taps", "winograd1d", "winograd2", "winograd4"])
def test_a_rung_refuses_what_it_cannot_compute(name):
    x, w = np.zeros((1, 3, 5, 5), np.float32), np.zeros((4, 3, 3, 3), np.float32)
    dy = np.zeros((1, 4, 3, 3), np.float32)
    for op, arguments in zip(DIRECTIONS, [(x, w), (dy, w, (5, 5)), (dy, x, (3, 3))], strict=True):
        with pytest.raises(ShapeError, match=rf"rung '{name}' does not compute a convolution of .* in float32"):
            rung(op, name)(*arguments)


# --- Winograd's matrices ---------------------------------------------------------------------------------------


def fractions(rows):
    return tuple(tuple(Fraction(entry) for entry in row.split()) for row in rows)


def up_to_signs(found, by_hand):
    """A row of B^T may change its sign together with the same row of G."""
    return all(one in (other, tuple(-entry for entry in other)) for one, other in zip(found, by_hand, strict=True))


# F(2, 3) as Lavin and Gray print it; F(4, 3) at 0, +-5/8, +-3/2 worked out by hand.
TEXTBOOK = {
    2: (
        fractions(["1 1 1 0", "0 1 -1 -1"]),
        fractions(["1 0 0", "1/2 1/2 1/2", "1/2 -1/2 1/2", "0 0 1"]),
        fractions(["1 0 -1 0", "0 1 1 0", "0 -1 1 0", "0 1 0 -1"]),
    ),
    4: (
        fractions(
            ["1 1 1 1 1 0", "0 5/8 -5/8 3/2 -3/2 0", "0 25/64 25/64 9/4 9/4 0", "0 125/512 -125/512 27/8 -27/8 1"]
        ),
        fractions(
            [
                "256/225 0 0", "-2048/2975 -256/595 -32/119", "-2048/2975 256/595 -32/119",
                "128/1071 64/357 32/119", "128/1071 -64/357 32/119", "0 0 1",
            ]
        ),
        fractions(
            [
                "225/256 0 -169/64 0 1 0", "0 -45/32 -9/4 5/8 1 0", "0 45/32 -9/4 -5/8 1 0",
                "0 -75/128 -25/64 3/2 1 0", "0 75/128 -25/64 -3/2 1 0", "0 225/256 0 -169/64 0 1",
            ]
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("m", [2, 4])
def test_the_matrices_are_those_worked_by_hand(m):
    output, filters, inputs = winograd.forward(m)
    by_hand = TEXTBOOK[m]
    assert up_to_signs(filters, by_hand[1])
    assert up_to_signs(inputs, by_hand[2])
    # and the signs go together: each product of G's, B^T's and A^T's entries is the same
    for e in range(m + 2):
        ours, theirs = (
            [f * d * row[e] for row in a for f in g[e] for d in b[e]]
            for a, g, b in ((output, filters, inputs), by_hand)
        )
        assert ours == theirs


def times(matrix, vector):
    return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]


@given(
    m=st.integers(1, 5), r=st.integers(1, 4), data=st.data(),
    points=st.lists(st.fractions(-3, 3, max_denominator=8), min_size=7, max_size=7, unique=True),
)  # fmt: skip
def test_minimal_filtering_is_a_correlation(m, r, data, points):
    """y = A^T [(G g) . (B^T d)], exactly, for any different points."""
    n = m + r - 1
    integers = st.integers(-99, 99)
    d, g = (data.draw(st.lists(integers, min_size=size, max_size=size)) for size in (n, r))
    output, filters, inputs = winograd.matrices(m, r, tuple(points[: n - 1]))
    products = [a * b for a, b in zip(times(filters, g), times(inputs, d), strict=True)]
    assert times(output, products) == [sum(d[i + k] * g[k] for k in range(r)) for i in range(m)]


def test_the_weight_gradient_shares_the_transform_of_the_input():
    for m in (2, 4):
        assert winograd.forward(m)[2] == winograd.backward_weight(m)[2]


def test_points_must_differ():
    with pytest.raises(ValueError, match=r"F\(2, 3\) needs 3 different points"):
        winograd.matrices(2, 3, (Fraction(0), Fraction(1), Fraction(1)))


# --- other processors ------------------------------------------------------------------------------------------

TARGETS = {
    "without AVX": {"NUMBA_ENABLE_AVX": "0"},
    "generic": {"NUMBA_CPU_NAME": "generic"},
    "AVX2": {"NUMBA_CPU_FEATURES": "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma,+popcnt"},
}
VECTORS = {"without AVX": 16, "generic": 16, "AVX2": 32}
ON_A_TARGET = """
import json, sys
import numpy as np
from minifcn.kernels import cpu, reference
from minifcn.kernels.cpu.vectors import VECTOR_BYTES
from minifcn.kernels.settings import settings

rng, off = np.random.default_rng(0), {}
for name, C in (one.split() for one in sys.argv[1:]):
    shapes = (2, int(C), 9, 7), (40, int(C), 3, 3), (40,), (2, 40, 9, 7)
    x, w, b, dy = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    wide = [a.astype(np.float64) for a in (x, w, b, dy)]
    with settings.using(convolution=name):
        y, mask = cpu.conv2d_relu_forward(x, w, b, 1, 1)
        gradients = cpu.conv2d_relu_backward(dy, mask, x, w, 1, 1)
    right, right_mask = reference.conv2d_relu_forward(*wide[:3], 1, 1)
    expected = reference.conv2d_relu_backward(wide[3], right_mask, *wide[:2], 1, 1)
    assert (mask == right_mask).all(), name
    with settings.using(convolution=name):
        maxima, winners = cpu.conv2d_relu_max_pool2d_forward(x, w, b, 1, 1, ceil_mode=True)
        largest, argmax = cpu.max_pool2d_forward(y, 2, ceil_mode=True)
        assert (maxima == largest).all(), name
        dy = dy[:, :, : largest.shape[2], : largest.shape[3]]
        dz = cpu.max_pool2d_backward_input(dy, argmax, (9, 7), 2, ceil_mode=True)
        one_by_one = cpu.conv2d_relu_backward(dz, mask, x, w, 1, 1)
        for one, other in zip(cpu.conv2d_relu_max_pool2d_backward(dy, winners, x, w, 1, 1, ceil_mode=True), one_by_one):
            assert (one == other).all(), name
    for key, got, truth in zip(("y", "dx", "dw", "db"), (y, *gradients), (right, *expected)):
        off[f"{name} of {C} channels: {key}"] = float(np.linalg.norm(got - truth) / np.linalg.norm(truth))
x, dy = rng.standard_normal((2, 5, 6, 7)), rng.standard_normal((2, 19, 23))
head = rng.integers(0, 5, dy.shape), None, 3, 4, 2, (2, 3)
for name in ("forward", "backward_input"):
    given = (dy, x) if name == "backward_input" else (x,)
    kernel, right = (getattr(k, f"upsample_cross_entropy_{name}") for k in (cpu, reference))
    truth, got = right(*given, *head), kernel(*(a.astype(np.float32) for a in given), *head)
    off[f"head {name}"] = float(np.linalg.norm(got - truth) / np.linalg.norm(truth))
print(json.dumps({"bytes": VECTOR_BYTES, "off": off}))
"""


@pytest.mark.parametrize("target", TARGETS)
def test_other_processors(target):
    """Compiled once, into the folder of this processor's own kernels: Numba's index there keeps targets apart."""
    run = subprocess.run(
        [sys.executable, "-c", ON_A_TARGET, "gemm 24", "gemm 3", "winograd1d 3", "winograd4 24"],
        env=os.environ | TARGETS[target],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["bytes"] == VECTORS[target]
    assert len(found["off"]) == 18
    assert all(off <= 5e-6 for off in found["off"].values()), found
