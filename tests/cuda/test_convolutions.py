"""The rungs of the CUDA ladder against the reference: random geometry, every precision, tile and order of threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minifcn.gradcheck.data import off_zero, small_integers
from minifcn.kernels import cuda, geometry, reference
from minifcn.kernels.cuda import ladder
from minifcn.kernels.settings import CUDA_RUNGS, SettingError
from minifcn.kernels.settings import settings as kernel_settings

from ..devices import kernels_of

# The relative L2 error that each precision may have against float64.
LIMITS = {"float32": 5e-7, "3xtf32": 5e-7, "tf32": 1e-3, "bfloat16": 1e-2}
RUNGS = [("naive", "float32"), ("tiled", "float32"), ("blocked", "float32"), *(("tensor", p) for p in list(LIMITS)[1:])]
F64 = [rung for rung in RUNGS if rung[0] != "tensor"]

on_cuda = pytest.mark.parametrize("kernels", kernels_of("cuda-sim", "cuda"))
by_every_rung = pytest.mark.parametrize(("rung", "precision"), RUNGS)


@st.composite
def geometries(draw):
    """Convolutions whose channels, in eights or not, and pixels fill a tile of 64 or leave some of it empty."""
    groups = draw(st.sampled_from([1, 1, 2]))
    C, K = (groups * draw(st.sampled_from([8, 16, 24, 72])) for _ in range(2))
    R, S = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    stride, padding, dilation = (
        (draw(st.integers(least, 2)), draw(st.integers(least, 2))) for least in (1, 0, 1)
    )  # fmt: skip
    N, H, W = draw(st.integers(1, 2)), draw(st.integers(5, 10)), draw(st.integers(5, 10))
    return geometry.conv2d((N, C, H, W), (K, C // groups, R, S), stride, padding, dilation, groups)


def window(geo):
    return geo.stride, geo.padding, geo.dilation, geo.groups


def random(geo, dtype, draw):
    """x, w, b and dy."""
    rng = np.random.default_rng(0)
    return [draw(rng, shape).astype(dtype) for shape in (geo.x_shape, geo.w_shape, (geo.K,), geo.y_shape)]


def normal(rng, shape):
    return rng.standard_normal(shape)


def results(kernels, geo, x, w, b, dy, mask=None):
    """All kernels of a convolution, by name; dy with `mask` for the fused ones, by default that of y."""
    y, bits = kernels.conv2d_relu_forward(x, w, b, *window(geo))
    mask = bits if mask is None else mask
    fused = kernels.conv2d_relu_backward(dy, mask, x, w, *window(geo))
    return {
        "y": kernels.conv2d_forward(x, w, b, *window(geo)),
        "dx": kernels.conv2d_backward_input(dy, w, (geo.H, geo.W), *window(geo)),
        "dw": kernels.conv2d_backward_weight(dy, x, (geo.R, geo.S), *window(geo)),
        "relu y": y,
        "mask": bits,
    } | dict(zip(("relu dx", "relu dw", "relu db"), fused, strict=True))


def error(found, expected):
    return np.linalg.norm(found.astype(np.float64) - expected) / (np.linalg.norm(expected) or 1)


def check(kernels, geo, rung, precision, dtype=np.float32):
    """Every result is within the precision's limit; ReLU and its mask are those of y to the bit."""
    arrays = random(geo, dtype, normal)
    with kernel_settings.using(convolution=rung, precision=precision):
        assert {ladder.choose(direction, geo, np.dtype(dtype)).name for direction in ladder.DIRECTIONS} == {rung}
        found = results(kernels, geo, *arrays)
    np.testing.assert_array_equal(found["relu y"], np.maximum(found["y"], 0))
    np.testing.assert_array_equal(found.pop("mask"), mask := reference.conv2d.relu_mask(found["y"]))
    expected = results(reference, geo, *(array.astype(np.float64) for array in arrays), mask)
    limit = LIMITS[precision] if dtype == np.float32 else 1e-14
    worst = {name: error(found[name], expected[name]) for name in found}
    assert all(value <= limit for value in worst.values()), (geo, worst)


@on_cuda
@by_every_rung
@settings(max_examples=6)
@given(geo=geometries())
def test_every_rung_agrees_with_the_reference(kernels, rung, precision, geo):
    check(kernels, geo, rung, precision)


@on_cuda
@pytest.mark.parametrize(("rung", "precision"), F64)
@settings(max_examples=3)
@given(geo=geometries())
def test_every_rung_of_float64_agrees_with_the_reference(kernels, rung, precision, geo):
    check(kernels, geo, rung, precision, np.float64)


@on_cuda
@settings(max_examples=6)
@given(geo=geometries(), channels=st.tuples(st.integers(1, 70), st.integers(1, 70)))
def test_tiles_of_any_channels(kernels, geo, channels):
    C, K = channels
    geo = geometry.conv2d((geo.N, C, geo.H, geo.W), (K, C, geo.R, geo.S), geo.stride, geo.padding, geo.dilation)
    check(kernels, geo, "tiled", "float32")


@on_cuda
@pytest.mark.parametrize(("rung", "precision"), [("blocked", "float32"), ("tensor", "bfloat16"), ("tensor", "3xtf32")])
def test_large_tiles(kernels, rung, precision, monkeypatch):
    monkeypatch.setattr(ladder, "ENOUGH_BLOCKS", 1)
    geo = geometry.conv2d((1, 136, 12, 13), (144, 136, 1, 2), 1, (0, 1))
    with kernel_settings.using(convolution=rung, precision=precision):
        assert ladder.choose(ladder.FORWARD, geo, np.dtype(np.float32)).tile[0] == 128
    check(kernels, geo, rung, precision)


@on_cuda
@by_every_rung
@settings(max_examples=3)
@given(geo=geometries())
def test_small_integers_are_exact_in_every_precision(kernels, rung, precision, geo):
    """They have few bits, and their sums have fewer than 24."""
    arrays = random(geo, np.float32, small_integers)
    with kernel_settings.using(convolution=rung, precision=precision):
        found = results(kernels, geo, *arrays)
    expected = results(reference, geo, *(array.astype(np.float64) for array in arrays))
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


# What a NaN in an input, by its place among the arguments of `results`, must reach; x and dy by way of the geometry.
REACHES = {0: ("y", "relu y", "dw", "relu dw"), 2: ("y", "relu y"), 3: ("dx", "relu dx", "dw", "relu dw", "relu db")}


@on_cuda
@by_every_rung
@pytest.mark.parametrize("bad", REACHES)
def test_a_nan_reaches_what_depends_on_it_and_nothing_else(kernels, rung, precision, bad):
    """Where a NaN meets the padding, the reference multiplies it by 0, and a rung may leave it out."""
    geo = geometry.conv2d((1, 16, 7, 6), (24, 16, 3, 2), (2, 1), (1, 0))
    arrays = random(geo, np.float32, off_zero)
    arrays[bad].reshape(-1)[arrays[bad].size // 2] = np.nan
    with kernel_settings.using(convolution=rung, precision=precision):
        found = results(kernels, geo, *arrays)
    wide = [array.astype(np.float64) for array in arrays]
    most = results(reference, geo, *wide, found["mask"])
    marks = [np.full(array.shape, float(i != 2)) for i, array in enumerate(arrays)]
    marks[0] *= bad != 2  # else y would be above 0 without the bias
    marks[bad] = np.isnan(wide[bad]).astype(float)
    least = results(reference, geo, *marks, found["mask"])
    for name in set(found) - {"mask"}:
        nan = np.isnan(found[name])
        assert not (nan & ~np.isnan(most[name])).any(), f"{name} has NaN where nothing is"
        assert name not in REACHES[bad] or nan[least[name] > 0].all(), f"{name} lost it"
        assert name not in REACHES[bad] or nan.any()


@by_every_rung
@pytest.mark.parametrize("kernels", kernels_of("cuda-sim"))
def test_the_order_of_threads_changes_no_bit(kernels, rung, precision):
    geo = geometry.conv2d((1, 24, 9, 11), (72, 24, 2, 1))
    arrays = random(geo, np.float32, normal)
    with kernel_settings.using(convolution=rung, precision=precision):
        expected = results(kernels, geo, *arrays)
        found = results(cuda.Kernels(cuda.SimExecutor("fast", "random", seed=3)), geo, *arrays)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("kernels", kernels_of("cuda-sim"))
def test_blocks_on_several_cores_change_no_bit(kernels):
    geo = geometry.conv2d((1, 16, 13, 11), (72, 16, 2, 1))
    x, w, _, dy = random(geo, np.float32, normal)
    parallel = cuda.Kernels(cuda.SimExecutor("parallel"))
    for name, arguments in (("conv2d_forward", (x, w)), ("conv2d_backward_weight", (dy, x, (2, 1)))):
        np.testing.assert_array_equal(getattr(parallel, name)(*arguments), getattr(kernels, name)(*arguments))


@on_cuda
@by_every_rung
def test_no_images_no_sums(kernels, rung, precision):
    geo = geometry.conv2d((0, 16, 7, 6), (24, 16, 3, 2))
    with kernel_settings.using(convolution=rung, precision=precision):
        found = results(kernels, geo, *random(geo, np.float32, normal))
    assert found["y"].shape == geo.y_shape
    assert not found["dw"].any()
    assert not found["relu db"].any()


# --- which rung a shape takes ---


def chosen(C, K, dtype=np.float32, direction=ladder.FORWARD):
    geo = geometry.conv2d((1, C, 9, 9), (K, C, 3, 3))
    return ladder.choose(direction, geo, np.dtype(dtype)).name


def test_the_ladder_is_the_settings():
    assert {rung for rung, _ in RUNGS} == set(CUDA_RUNGS)


@pytest.mark.parametrize(
    ("channels", "precision", "expected"),
    [
        ((3, 64), "float32", "naive"),
        ((64, 64), "float32", "blocked"),
        ((66, 64), "float32", "tiled"),
        ((64, 64), "tf32", "tensor"),
        ((68, 64), "tf32", "tensor"),
        ((68, 64), "bfloat16", "blocked"),  # not in eights: computed in float32, which rounds less
        ((66, 64), "tf32", "tiled"),
    ],
)
def test_the_rung_of_a_shape(channels, precision, expected):
    with kernel_settings.using(precision=precision):
        assert chosen(*channels) == expected


def test_the_directions_read_different_channels():
    assert chosen(64, 21) == "blocked"
    assert chosen(64, 21, direction=ladder.BACKWARD_INPUT) == "tiled"
    assert chosen(64, 21, direction=ladder.BACKWARD_WEIGHT) == "tiled"


def test_more_blocks_than_a_grid_has_are_not_asked_for():
    many = geometry.conv2d((1, 16 * 900, 9, 9), (16 * 900, 16, 9, 9), 1, 0, 1, 900)  # 81 taps of 900 groups
    for wanted in ("tiled", "blocked", "fastest"):
        with kernel_settings.using(convolution=wanted):
            assert ladder.choose(ladder.BACKWARD_WEIGHT, many, np.dtype(np.float32)).name == "naive"


def test_float64_is_not_rounded_to_less():
    with kernel_settings.using(precision="tf32", convolution="tensor"):
        assert chosen(64, 64, np.float64) == "blocked"


def test_another_devices_rung_is_refused():
    with (
        kernel_settings.using(convolution="winograd4"),
        pytest.raises(
            SettingError, match=r"convolution \(='winograd4'\) is no rung of device 'cuda', which has naive,"
        ),
    ):
        chosen(64, 64)
