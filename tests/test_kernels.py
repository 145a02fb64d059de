"""The kernels: known answers by hand on every device, the compiled kernels against the reference over random geometry,
bits that do not depend on threads, NaN and ties, and every message about a wrong argument.
"""

import copy

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from minifcn.gradcheck.cases import OPS
from minifcn.gradcheck.data import LAYOUTS, laid_out, off_zero, signed, small_integers
from minifcn.gradcheck.tolerances import tolerance
from minifcn.kernels import cpu, geometry, reference
from minifcn.kernels.checks import ShapeError
from minifcn.kernels.cpu.exponentials import exponential, logarithm
from minifcn.kernels.layout import tap_numbers
from minifcn.kernels.reference.dropout import philox4x32, random_words, threshold
from minifcn.kernels.settings import settings

from .devices import EVERY, kernels_of

DTYPES = ["float64", "float32"]
NAN, INF = np.nan, np.inf

on_every_device = pytest.mark.parametrize("kernels", kernels_of(*EVERY))
on_cuda = pytest.mark.parametrize("kernels", kernels_of("cuda-sim", "cuda"))
in_every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def plane(rows, dtype="float64"):
    """An array [1, 1, H, W]."""
    return np.array(rows, dtype)[None, None]


def equal(actual, expected):
    """Equal to the bit, apart from the sign of zero; NaN equals NaN."""
    np.testing.assert_array_equal(actual, expected, strict=False)


def near(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-6 if actual.dtype == np.float32 else 1e-14, atol=0)


# --- known answers -----------------------------------------------------------------------------------------


@on_every_device
@in_every_dtype
def test_convolution_by_hand(kernels, dtype):
    x = plane([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype)
    w = plane([[1, 2], [3, 4]], dtype)
    # y[0,0] = 1*1 + 2*2 + 4*3 + 5*4 = 37, and half more from the bias
    y = kernels.conv2d_forward(x, w, np.array([0.5], dtype))
    equal(y[0, 0], [[37.5, 47.5], [67.5, 77.5]])
    dy = plane([[1, 0], [0, 2]], dtype)
    # the window once at the top left, twice at the bottom right; they overlap in the middle: 4 + 2 * 1
    equal(kernels.conv2d_backward_input(dy, w, (3, 3))[0, 0], [[1, 2, 0], [3, 6, 4], [0, 6, 8]])
    # the patch at the top left + twice the one at the bottom right
    equal(kernels.conv2d_backward_weight(dy, x, (2, 2))[0, 0], [[11, 14], [20, 23]])
    equal(kernels.conv2d_backward_bias(dy), [3])


@on_every_device
@pytest.mark.parametrize("vertical", [False, True])
def test_strided_padded_convolution_by_hand(kernels, vertical):
    def line(values):
        array = np.array(values, np.float64)[None, None, None]
        return array.swapaxes(2, 3) if vertical else array

    def pair(size, other):
        return (size, other) if vertical else (other, size)

    x, w, dy = line([1, 2, 3, 4, 5]), line([1, 10, 100]), line([1, 2, 3])
    window = (pair(2, 1), pair(1, 0), 1, 1)  # windows start at -1, 1, 3
    equal(kernels.conv2d_forward(x, w, None, *window), line([10 + 200, 2 + 30 + 400, 4 + 50]))
    equal(
        kernels.conv2d_backward_input(dy, w, pair(5, 1), *window),
        line([10, 100 + 2, 20, 200 + 3, 30]),
    )
    equal(
        kernels.conv2d_backward_weight(dy, x, pair(3, 1), *window),
        line([2 * 2 + 3 * 4, 1 * 1 + 2 * 3 + 3 * 5, 1 * 2 + 2 * 4]),
    )


@on_every_device
def test_dilated_and_grouped_convolution_by_hand(kernels):
    x = np.array([[1, 2, 3, 4], [10, 20, 30, 40]], np.float64)[None, :, None]  # two channels of one row
    w = np.array([[1, 2], [3, 5]], np.float64)[:, None, None]  # one window for each channel
    y = kernels.conv2d_forward(x, w, None, 1, 0, (1, 2), 2)
    equal(y[0, :, 0], [[1 + 2 * 3, 2 + 2 * 4], [3 * 10 + 5 * 30, 3 * 20 + 5 * 40]])


@on_every_device
def test_a_narrow_input_under_a_wide_stride(kernels):
    # One column, padded to three: the one window reads the padding and the column, by its second tap.
    w = plane([[3, 7]])
    equal(kernels.conv2d_forward(plane([[2]]), w, None, (1, 2), (0, 1)), plane([[14]]))
    equal(kernels.conv2d_backward_input(plane([[5]]), w, (1, 1), (1, 2), (0, 1)), plane([[35]]))


@on_every_device
def test_ceil_mode_overlapping_max_pooling_by_hand(kernels):
    x = plane([[3, 1, 2, 5, 5, 4]])
    window = ((1, 3), (1, 2), 0, 1, True)  # windows 3 1 2 | 2 5 5 | 5 4, the last one clipped
    y, argmax = kernels.max_pool2d_forward(x, *window)
    equal(y, plane([[3, 5, 5]]))
    equal(tap_numbers(argmax, y.shape), plane([[0, 1, 0]]))  # of two fives the first
    assert argmax.dtype == np.uint8
    dx = kernels.max_pool2d_backward_input(plane([[1, 10, 100]]), argmax, (1, 6), *window)
    equal(dx, plane([[1, 0, 0, 10, 100, 0]]))


@on_every_device
def test_overlapping_windows_add_up(kernels):
    window = ((1, 3), (1, 2))
    _, argmax = kernels.max_pool2d_forward(plane([[1, 2, 9, 3, 4]]), *window)
    dx = kernels.max_pool2d_backward_input(plane([[1, 10]]), argmax, (1, 5), *window)
    equal(dx, plane([[0, 0, 11, 0, 0]]))


@on_every_device
def test_a_tie_goes_to_the_first_in_row_major_order(kernels):
    x = np.zeros((1, 1, 4, 4))
    _, argmax = kernels.max_pool2d_forward(x, 3, 1)
    equal(argmax[0, 0], [[0, 0], [0, 0]])
    dx = kernels.max_pool2d_backward_input(plane([[1, 2], [4, 8]]), argmax, (4, 4), 3, 1)
    equal(dx[0, 0], [[1, 2, 0, 0], [4, 8, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


# Row h, column w holds -(n h + w + 1), so the maximum of a window is its first real element. Padded by 1 and with
# stride 2, the windows begin at rows (and columns) -1, 1, 3, 5: their first real rows are 0, 1, 3, 5.
PADDED = {
    (5, False): [[-1, -2, -4], [-6, -7, -9], [-16, -17, -19]],
    (6, False): [[-1, -2, -4], [-7, -8, -10], [-19, -20, -22]],
    (6, True): [[-1, -2, -4, -6], [-7, -8, -10, -12], [-19, -20, -22, -24], [-31, -32, -34, -36]],
}


@on_every_device
@in_every_dtype
@pytest.mark.parametrize(("n", "ceil_mode"), list(PADDED))
def test_padding_never_wins_a_maximum(kernels, dtype, n, ceil_mode):
    x = -plane(np.arange(1, n * n + 1).reshape(n, n), dtype)
    window = (3, 2, 1, 1, ceil_mode)
    y, argmax = kernels.max_pool2d_forward(x, *window)
    equal(y[0, 0], PADDED[n, ceil_mode])
    first = np.arange(y.shape[2]) == 0  # the windows whose first row (or column) is padding
    equal(argmax[0, 0], 3 * first[:, None] + first)
    dx = kernels.max_pool2d_backward_input(np.ones_like(y), argmax, (n, n), *window)
    expected = np.zeros((n, n))
    starts = [0, 1, 3, 5][: y.shape[2]]
    expected[np.ix_(starts, starts)] = 1
    equal(dx[0, 0], expected)


@on_every_device
def test_average_pooling_counts_at_the_border(kernels):
    x, window = plane([[1, 2, 3, 4, 5]]), ((1, 3), (1, 2), (0, 1))  # windows . 1 2 | 2 3 4 | 4 5 .
    near(kernels.avg_pool2d_forward(x, *window, False, True), plane([[3 / 3, 9 / 3, 9 / 3]]))
    near(kernels.avg_pool2d_forward(x, *window, False, False), plane([[3 / 2, 9 / 3, 9 / 2]]))
    dx = kernels.avg_pool2d_backward_input(plane([[6, 12, 24]]), (1, 5), *window, False, False)
    near(dx, plane([[3, 3 + 4, 4, 4 + 12, 12]]))
    # In ceil mode the third window of 1 2 3 4 holds the 4 and one element of padding: it ends where that ends.
    x = plane([[1, 2, 3, 4]])
    near(kernels.avg_pool2d_forward(x, *window, True, True), plane([[3 / 3, 9 / 3, 4 / 2]]))
    near(kernels.avg_pool2d_forward(x, *window, True, False), plane([[3 / 2, 9 / 3, 4 / 1]]))


def test_bilinear_filters():
    assert [geometry.bilinear_window(f) for f in (1, 2, 3, 4, 8)] == [1, 4, 5, 8, 16]
    assert geometry.bilinear_filter(1) == [1]
    assert geometry.bilinear_filter(4) == [0.25, 0.75, 0.75, 0.25]
    np.testing.assert_allclose(geometry.bilinear_filter(5), [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3], rtol=1e-15)
    rising = [0.0625, 0.1875, 0.3125, 0.4375, 0.5625, 0.6875, 0.8125, 0.9375]
    assert geometry.bilinear_filter(16) == rising + rising[::-1]


@on_every_device
def test_bilinear_upsampling_by_hand(kernels):
    x = plane([[1, 3]])
    full = [0.25, 0.75, 0.75 + 3 * 0.25, 0.25 + 3 * 0.75, 3 * 0.75, 3 * 0.25]
    equal(kernels.bilinear_upsample_forward(x, (1, 2), 0), plane([full]))
    equal(kernels.bilinear_upsample_forward(x, (1, 2), (0, 1)), plane([full[1:-1]]))
    dx = kernels.bilinear_upsample_backward_input(plane([[4, 0, 8, 0, 0, 16]]), (1, 2), (1, 2), 0)
    equal(dx, plane([[4 * 0.25 + 8 * 0.75, 8 * 0.25 + 16 * 0.25]]))


@on_every_device
def test_a_constant_stays_constant_inside(kernels):
    y = kernels.bilinear_upsample_forward(np.full((1, 1, 4, 5), 3.0), (2, 3), (1, 1))
    near(y[0, 0, 1:-1, 1:-1], np.full((6, 13), 3.0))


@on_every_device
def test_crop_and_crop_sum_by_hand(kernels):
    whole = plane(np.arange(12).reshape(3, 4))
    equal(kernels.crop_forward(whole, (1, 2), (2, 1)), plane([[6], [10]]))
    equal(kernels.crop_backward_input(plane([[1], [2]]), (1, 2), (3, 4))[0, 0], [[0] * 4, [0, 0, 1, 0], [0, 0, 2, 0]])
    equal(kernels.crop_sum_forward(plane([[100, 200]]), whole, (2, 1)), plane([[109, 210]]))


@on_every_device
@in_every_dtype
def test_softmax_loss_with_a_void_pixel_and_class_weights_by_hand(kernels, dtype):
    # Logits 0 and ln 3: probabilities 1/4 and 3/4. Labels 0, 1 and void; weights 2 and 1.
    x = np.zeros((1, 2, 1, 3), dtype)
    x[:, 1] = np.log(3)
    target, weight = np.array([[[0, 1, 255]]]), np.array([2, 1], dtype)
    losses, probabilities = kernels.cross_entropy_forward(x, target, weight, 255)
    near(losses[0, 0], np.array([2 * np.log(4), np.log(4 / 3), 0], dtype))
    assert losses[0, 0, 2] == 0
    np.testing.assert_allclose(probabilities[0, :, 0], [[1 / 4] * 3, [3 / 4] * 3], rtol=2e-7)
    dl = np.array([[[1, 10, 100]]], dtype)
    dx = kernels.cross_entropy_backward_input(dl, probabilities, target, weight, 255)
    expected = np.array([[2 * (1 / 4 - 1), 10 * 1 / 4, 0], [2 * 3 / 4, 10 * (3 / 4 - 1), 0]])
    np.testing.assert_allclose(dx[0, :, 0], expected, rtol=5e-7)
    equal(dx[..., 2], np.zeros((1, 2, 1)))


@on_every_device
@in_every_dtype
def test_the_head_by_hand(kernels, dtype):
    # Two coarse pixels, twice as wide: weights 3/4 1/4 and 1/4 3/4 in the middle, 3/4 0 and 0 3/4 at the edges. Class 1
    # scores 0 and 4 ln 2, so e^z is 2 and 8 in the middle, 8 at the right edge; the window begins at the second pixel.
    x = np.zeros((1, 2, 1, 2), dtype)
    x[0, 1, 0, 1] = 4 * np.log(2)
    target, weight, window = np.array([[[0, 1, 255]]], np.uint8), np.array([1, 4], dtype), ((1, 2), (0, 1), (0, 1))
    losses = kernels.upsample_cross_entropy_forward(x, target, weight, 255, *window)
    np.testing.assert_allclose(losses[0, 0], [np.log(3), 4 * np.log(9 / 8), 0], rtol=1e-6)
    assert losses[0, 0, 2] == 0
    dy = np.array([[[3, 9, 100]]], dtype)
    dx = kernels.upsample_cross_entropy_backward_input(dy, x, target, weight, 255, *window)
    # dz of class 1: 3 * 2/3 = 2 and 9 * 4 * (8/9 - 1) = -4
    expected = np.array([2 * 0.75 - 4 * 0.25, 2 * 0.25 - 4 * 0.75])
    np.testing.assert_allclose(dx[0, :, 0], [-expected, expected], rtol=1e-5)
    equal(kernels.upsample_argmax(x, *window, (1, 3)), [[[1, 1, 1]]])


@on_every_device
@pytest.mark.parametrize(("form", "w", "velocity"), [("caffe", 0.125, 0.875), ("pytorch", 0.375, 2.5)])
def test_two_steps_of_sgd_with_a_changing_rate_by_hand(kernels, form, w, velocity):
    # w = 2, g = 1, momentum 1/2, decay 1/2, rates 1/2 and 1/4. First g' = 1 + 2/2 = 2, and w = 1 in both forms.
    # Then g' = 1 + 1/2; caffe: v = 1/2 + 1.5/4, w = 1 - v; pytorch: v = 2/2 + 1.5, w = 1 - v/4.
    weights, v, g = np.array([2.0]), np.array([0.0]), np.array([1.0])
    kernels.sgd_step(weights, g, v, 0.5, 0.5, 0.5, form)
    equal(weights, [1])
    kernels.sgd_step(weights, g, v, 0.25, 0.5, 0.5, form)
    equal(weights, [w])
    equal(v, [velocity])
    equal(g, [1])


@on_every_device
def test_the_first_step_of_adam_by_hand(kernels):
    # The bias correction makes the first mean g and the first square g^2: a step of lr g / (|g| + eps).
    def step(eps, weight_decay=0.0, decoupled=False):
        w, g = np.array([1.0, 2.0]), np.array([3.0, -0.5])
        state = np.zeros(2), np.zeros(2)
        kernels.adam_step(w, g, *state, 0.1, (0.9, 0.99), eps, weight_decay, 1, decoupled)
        return w, *state

    w, mean, square = step(0.0)
    np.testing.assert_allclose(w, [0.9, 2.1], rtol=1e-14)
    np.testing.assert_allclose(mean, [0.3, -0.05], rtol=1e-14)
    np.testing.assert_allclose(square, [0.09, 0.0025], rtol=1e-14)
    np.testing.assert_allclose(step(1.0)[0], [1 - 0.1 * 3 / 4, 2 + 0.1 * 0.5 / 1.5], rtol=1e-14)
    # Decay 0.5 within the gradient: 3 + 0.5, -0.5 + 1. Decoupled: the weights shrink by 0.1 * 0.5 first.
    np.testing.assert_allclose(step(0.0, 0.5)[0], [0.9, 1.9], rtol=1e-14)
    np.testing.assert_allclose(step(0.0, 0.5, True)[0], [0.95 - 0.1, 1.9 + 0.1], rtol=1e-14)


# --- dropout -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # the known answers of the authors' library Random123 (Salmon et al., 2011), philox4x32-10
        ([0, 0, 0, 0], (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, (0xFFFFFFFF, 0xFFFFFFFF), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_known_answers(counter, key, words):
    got = philox4x32(np.array(counter, np.uint64), key)
    assert " ".join(f"{word:08x}" for word in got) == words


@in_every_dtype
@given(
    shape=st.lists(st.integers(0, 6), max_size=4).map(tuple),
    p=st.floats(0, 0.95),
    key=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
)
def test_the_dropout_mask_is_the_same_on_every_device(dtype, shape, p, key):
    x = np.ones(shape, dtype)
    equal(cpu.dropout_forward(x, p, key), reference.dropout_forward(x, p, key))
    equal(cpu.dropout_backward_input(x, p, key), reference.dropout_forward(x, p, key))


@on_cuda
@in_every_dtype
@pytest.mark.parametrize("count", [1, 6, 4099])
@pytest.mark.parametrize("key", [(0, 0, 0), (2**63 + 5, 2**32 - 1, 7)])
def test_the_dropout_mask_is_the_same_on_cuda(kernels, dtype, count, key):
    x = np.arange(1, count + 1).astype(dtype)
    equal(kernels.dropout_forward(x, 0.3, key), reference.dropout_forward(x, 0.3, key))


@on_every_device
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_its_expectation(kernels, p):
    n = 40_000
    y = kernels.dropout_forward(np.ones(n), p, (7, 1, 2))
    kept = np.count_nonzero(y) / n
    assert abs(kept - (1 - p)) < 5 * np.sqrt(p * (1 - p) / n)
    near(y[y != 0], np.full(np.count_nonzero(y), 1 / (1 - p)))


def test_dropout_masks_differ_by_every_part_of_the_key():
    streams = {tuple(random_words(8, key)) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (2**32, 0, 0)]}
    assert len(streams) == 5


def test_dropout_counts_channels_last():
    words = random_words(2 * 3 * 4 * 5, (3, 0, 0)).reshape(2, 4, 5, 3)  # [N, H, W, C]
    y = reference.dropout_forward(np.ones((2, 3, 4, 5)), 0.5, (3, 0, 0))
    equal(y != 0, (words >= 2**31).transpose(0, 3, 1, 2))


# --- the Numba kernels against the reference ---------------------------------------------------------------


def conv2d_calls(case, rng):
    a = case.arguments
    window = (a["stride"], a["padding"], a["dilation"], a["groups"])
    geo = geometry.conv2d(case.shapes["x"], case.shapes["weight"], *window)
    x, w, dy = (signed(rng, shape) for shape in (geo.x_shape, geo.w_shape, geo.y_shape))
    b = signed(rng, (geo.K,)) if "bias" in case.shapes else None
    yield "conv2d_forward", (x, w, b, *window)
    yield "conv2d_backward_input", (dy, w, (geo.H, geo.W), *window)
    yield "conv2d_backward_weight", (dy, x, (geo.R, geo.S), *window)
    yield "conv2d_backward_bias", (dy,)


def conv2d_relu_calls(case, rng):
    a = case.arguments
    window = (a["stride"], a["padding"], a["dilation"], a["groups"])
    geo = geometry.conv2d(case.shapes["x"], case.shapes["weight"], *window)
    x, w, b = (off_zero(rng, shape) for shape in (geo.x_shape, geo.w_shape, (geo.K,)))
    _, mask = reference.conv2d_relu_forward(x, w, b, *window)
    yield "conv2d_relu_forward", (x, w, b, *window)
    yield "conv2d_relu_backward", (signed(rng, geo.y_shape), mask, x, w, *window)


def conv2d_relu_max_pool2d_calls(case, rng):
    a = case.arguments
    window = (a["stride"], a["padding"], a["dilation"], a["groups"], a["ceil_mode"])
    while True:  # until rounding cannot change which element wins, or whether ReLU lets it pass
        x, w, b = (signed(rng, shape).astype(np.float32).astype(np.float64) for shape in case.shapes.values())
        z = reference.conv2d_forward(x, w, b, *window[:4])
        pairs = (z[:, :, 1:], z[:, :, :-1]), (z[..., 1:], z[..., :-1]), (z[:, :, 1:, 1:], z[:, :, :-1, :-1])
        pairs += ((z[:, :, 1:, :-1], z[:, :, :-1, 1:]), (z, 0))
        gaps = np.concatenate([abs(one - other).reshape(-1) for one, other in pairs])
        if gaps[gaps > 0].min(initial=1) > 1e-5:  # those that see padding alone are equal everywhere
            break
    y, mask = reference.conv2d_relu_max_pool2d_forward(x, w, b, *window)
    yield "conv2d_relu_max_pool2d_forward", (x, w, b, *window)
    yield "conv2d_relu_max_pool2d_backward", (signed(rng, y.shape), mask, x, w, *window)


def max_pool2d_calls(case, rng):
    a = case.arguments
    window = (a["kernel_size"], a["stride"], a["padding"], a["dilation"], a["ceil_mode"])
    geo = geometry.pool2d(case.shapes["x"], *window)
    x = small_integers(rng, geo.x_shape)  # ties
    x[rng.random(x.shape) < 0.1] = rng.choice([NAN, -INF, INF])
    _, argmax = reference.max_pool2d_forward(x, *window)
    yield "max_pool2d_forward", (x, *window)
    yield "max_pool2d_backward_input", (signed(rng, geo.y_shape), argmax, (geo.H, geo.W), *window)


def avg_pool2d_calls(case, rng):
    a = case.arguments
    window = (a["kernel_size"], a["stride"], a["padding"])
    counting = (a["ceil_mode"], a["count_include_pad"])
    geo = geometry.pool2d(case.shapes["x"], *window, 1, a["ceil_mode"])
    yield "avg_pool2d_forward", (signed(rng, geo.x_shape), *window, *counting)
    yield "avg_pool2d_backward_input", (signed(rng, geo.y_shape), (geo.H, geo.W), *window, *counting)


def upsample_calls(case, rng):
    factor, padding = case.arguments["factor"], case.arguments["padding"] or 0
    geo = geometry.upsample(case.shapes["x"], factor, padding)
    yield "bilinear_upsample_forward", (signed(rng, case.shapes["x"]), factor, padding)
    yield "bilinear_upsample_backward_input", (signed(rng, geo.y_shape), (geo.H, geo.W), factor, padding)


def lrn_calls(case, rng):
    x, dy, rule = signed(rng, case.shapes["x"]), signed(rng, case.shapes["x"]), tuple(case.arguments.values())
    yield "lrn_backward_input", (dy, x, *rule)
    yield "lrn_forward", (np.where(rng.random(x.shape) < 0.1, NAN, x), *rule)


def crop_calls(case, rng):
    offset, size, shape = case.arguments["offset"], case.arguments["size"], case.shapes["x"]
    yield "crop_forward", (signed(rng, shape), offset, size)
    yield "crop_backward_input", (signed(rng, (*shape[:2], *size)), offset, shape[2:])


def crop_sum_calls(case, rng):
    yield "crop_sum_forward", (*(signed(rng, shape) for shape in case.shapes.values()), case.arguments["offset"])


def relu_calls(case, rng):
    x, dy = (signed(rng, case.shapes["x"]) for _ in range(2))
    x[rng.random(x.shape) < 0.2] = rng.choice([NAN, -INF, INF, 0.0])
    yield "relu_forward", (x,)
    yield "relu_backward_input", (dy, reference.relu_forward(x))


def dropout_calls(case, rng):
    a = case.arguments
    for name in ("dropout_forward", "dropout_backward_input"):
        yield name, (signed(rng, case.shapes["x"]), a["p"], (a["seed"], a["step"], a["layer"]))


def add_calls(case, rng):
    yield "add_forward", tuple(signed(rng, case.shapes["a"]) for _ in range(2))


def scale_calls(case, rng):
    yield "scale_forward", (signed(rng, case.shapes["x"]), case.arguments["factor"])


def cross_entropy_calls(case, rng):
    a, x = case.arguments, signed(rng, case.shapes["x"])
    labels = (a["target"], a["weight"], a["ignore_index"])
    _, probabilities = reference.cross_entropy_forward(x, *labels)
    yield "cross_entropy_forward", (x, *labels)
    yield "cross_entropy_backward_input", (signed(rng, a["target"].shape), probabilities, *labels)


def upsample_cross_entropy_calls(case, rng):
    a, x = case.arguments, signed(rng, case.shapes["x"])
    labels, window = (a["target"], a["weight"], a["ignore_index"]), (a["factor"], a["padding"], a["offset"])
    yield "upsample_cross_entropy_forward", (x, *labels, *window)
    yield "upsample_cross_entropy_backward_input", (signed(rng, a["target"].shape), x, *labels, *window)
    yield "upsample_argmax", (x, *window, a["target"].shape[1:])


def step_calls(case, rng):
    arrays = [signed(rng, case.shape) for _ in range(2)] + [abs(signed(rng, case.shape)) for _ in case.state]
    yield case.kernel, (*arrays, *case.steps[-1].values())


CALLS = {
    "conv2d": conv2d_calls,
    "conv2d_relu": conv2d_relu_calls,
    "conv2d_relu_max_pool2d": conv2d_relu_max_pool2d_calls,
    "max_pool2d": max_pool2d_calls,
    "avg_pool2d": avg_pool2d_calls,
    "lrn": lrn_calls,
    "bilinear_upsample": upsample_calls,
    "crop": crop_calls,
    "crop_sum": crop_sum_calls,
    "relu": relu_calls,
    "dropout": dropout_calls,
    "add": add_calls,
    "scale": scale_calls,
    "cross_entropy": cross_entropy_calls,
    "upsample_cross_entropy": upsample_cross_entropy_calls,
    "sgd": step_calls,
    "adam": step_calls,
}
IN_PLACE = {"sgd_step": (0, 2), "adam_step": (0, 2, 3)}
compared = set()


def run(kernels, name, arguments, dtype, layout=lambda array: array):
    """The arrays that a kernel returns (or changes), of arguments in `dtype`; its inputs must stay as they are."""

    def prepare(i, value):
        if not isinstance(value, np.ndarray):
            return value
        value = value.astype(dtype if value.dtype.kind == "f" else value.dtype)
        return value if i in IN_PLACE.get(name, ()) else layout(value)

    prepared = [prepare(i, value) for i, value in enumerate(arguments)]
    before = copy.deepcopy(prepared)
    result = getattr(kernels, name)(*prepared)
    for i, (old, new) in enumerate(zip(before, prepared, strict=True)):
        if isinstance(old, np.ndarray) and i not in IN_PLACE.get(name, ()):
            np.testing.assert_array_equal(new, old, err_msg=f"{name} changed its argument {i}")
    if name in IN_PLACE:
        assert result is None
        return [prepared[i] for i in IN_PLACE[name]]
    if name == "max_pool2d_forward":
        return [result[0], tap_numbers(result[1], result[0].shape)]
    return list(result) if isinstance(result, tuple) else [result]


def assert_parity(got, expected, inputs, name):
    """Relative L2 error over the finite elements, NaN and infinities in the same places, exact zeros kept."""
    assert got.shape == expected.shape, name
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, expected, err_msg=name)
        return
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(got[~finite], expected[~finite], err_msg=name)
    off = np.linalg.norm(got[finite].astype(np.float64) - expected[finite])
    # a sum may cancel to almost nothing: what went into it counts as well
    unit = np.linalg.norm(expected[finite]) + 0.1 * np.linalg.norm(np.nan_to_num(inputs, posinf=0, neginf=0))
    limit = tolerance("parity", got.dtype) * unit
    assert off <= limit, f"{name}: off by {off}, allowed {limit}\n{got}\nexpected\n{expected}"


def agree(kernels, op, dtype, data, layout):
    """All kernels of an op give what the reference gives, in any memory order the same bits."""
    case = data.draw(OPS[op])
    for name, arguments in CALLS[op](case, np.random.default_rng(case.seed)):
        rounded = [a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in arguments]
        expected = run(reference, name, rounded, np.float64)
        got = run(kernels, name, arguments, dtype)
        strided = run(kernels, name, arguments, dtype, lambda array: laid_out(array, layout))
        for one, other, right in zip(got, strided, expected, strict=True):
            assert one.dtype == (dtype if right.dtype.kind == "f" else right.dtype), name
            equal(other, one)
            assert_parity(one, right, arguments[0], name)
        yield name


@in_every_dtype
@pytest.mark.parametrize("op", list(CALLS))
@given(data=st.data(), layout=st.sampled_from(list(LAYOUTS)))
def test_numba_agrees_with_the_reference(op, dtype, data, layout):
    compared.update(agree(cpu, op, dtype, data, layout))


@on_cuda
@in_every_dtype
@pytest.mark.parametrize("op", list(CALLS))
@hypothesis_settings(max_examples=8)
@given(data=st.data(), layout=st.sampled_from(list(LAYOUTS)))
def test_cuda_agrees_with_the_reference(kernels, op, dtype, data, layout):
    assert list(agree(kernels, op, dtype, data, layout))


def test_every_kernel_was_compared():
    """Runs after the test above."""
    assert cpu.__all__ == reference.__all__
    if compared:  # else that test was not selected
        assert compared == set(cpu.__all__)


@in_every_dtype
@given(case=OPS["conv2d"])
def test_convolutions_of_small_integers_are_exact(dtype, case):
    rng = np.random.default_rng(case.seed)
    for name, arguments in conv2d_calls(case, rng):
        arguments = [small_integers(rng, a.shape) if isinstance(a, np.ndarray) else a for a in arguments]
        with settings.using(convolution="exact"):  # Winograd's transforms have other numbers than integers
            (got,) = run(cpu, name, arguments, dtype)
        (expected,) = run(reference, name, arguments, np.float64)
        equal(got, expected)


VOID_HEAD = np.where(np.arange(2 * 140 * 150) % 7, np.arange(2 * 140 * 150) % 9, 255).reshape(2, 140, 150)
LARGE = {  # enough work for every kernel to split, odd sizes included
    "conv2d_forward": lambda x, w, dy: (x, w, None, 2, 1),
    "conv2d_backward_input": lambda x, w, dy: (dy, w, x.shape[2:], 2, 1),
    "conv2d_backward_weight": lambda x, w, dy: (dy, x, (3, 3), 2, 1),
    "conv2d_backward_bias": lambda x, w, dy: (dy,),
    "max_pool2d_forward": lambda x, w, dy: (x, 3, 2, 1),
    "avg_pool2d_forward": lambda x, w, dy: (x, 3, 2, 1),
    "avg_pool2d_backward_input": lambda x, w, dy: (x, (76, 62), 2),
    "bilinear_upsample_forward": lambda x, w, dy: (x, 4, 2),
    "bilinear_upsample_backward_input": lambda x, w, dy: (x, (19, 31), (2, 1), (1, 0)),
    "relu_forward": lambda x, w, dy: (x,),
    "dropout_forward": lambda x, w, dy: (x, 0.5, (1, 2, 3)),
    "cross_entropy_forward": lambda x, w, dy: (x, np.zeros((2, 38, 31), np.uint8)),
    "upsample_cross_entropy_forward": lambda x, w, dy: (x, VOID_HEAD, None, 255, (4, 5), (1, 0), (3, 2)),
    "upsample_cross_entropy_backward_input": lambda x, w, dy: (
        np.sin(np.arange(VOID_HEAD.size)).reshape(VOID_HEAD.shape), x, VOID_HEAD, None, 255, (4, 5), (1, 0), (3, 2)
    ),
    "upsample_argmax": lambda x, w, dy: (x, (4, 5), (1, 0), (3, 2), VOID_HEAD.shape[1:]),
}  # fmt: skip


@in_every_dtype
@pytest.mark.parametrize("name", list(LARGE))
def test_the_number_of_threads_changes_no_bit(name, dtype):
    rng = np.random.default_rng(0)
    arrays = (rng.standard_normal(shape) for shape in ((2, 9, 38, 31), (21, 9, 3, 3), (2, 21, 19, 16)))
    arguments = LARGE[name](*arrays)
    results = []
    for threads in (1, 2, 4):
        with settings.using(threads=threads):
            results += [run(cpu, name, arguments, dtype) for _ in range(2)]
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            equal(one, other)
    rounded = [a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in arguments]
    for got, right in zip(results[0], run(reference, name, rounded, np.float64), strict=True):
        assert_parity(got, right, arguments[0], name)


# --- NaN and infinity --------------------------------------------------------------------------------------


@on_every_device
@in_every_dtype
@pytest.mark.parametrize("company", [1.0, INF, -INF])
@pytest.mark.parametrize("position", range(9))
def test_nan_wins_a_maximum_at_every_position(kernels, dtype, company, position):
    x = np.full((1, 1, 3, 3), company, dtype)
    x.reshape(-1)[position] = NAN
    y, argmax = kernels.max_pool2d_forward(x, 3)
    assert np.isnan(y).all()
    equal(argmax, [[[[position]]]])
    equal(kernels.max_pool2d_backward_input(np.ones_like(y), argmax, (3, 3), 3).reshape(-1), np.eye(9)[position])


def test_two_bits_a_window_by_hand():
    bits = np.array([0b01_10_00_11, 0b11], np.uint8).reshape(1, 1, 1, 2)  # four channels a byte, the first one lowest
    equal(tap_numbers(bits, (1, 5, 1, 1)).reshape(-1), [3, 0, 2, 1, 3])
    numbers = plane([[2, 7]]).astype(np.uint8)
    assert tap_numbers(numbers, (1, 1, 1, 2)) is numbers


@on_every_device
@in_every_dtype
@given(data=st.data())
def test_the_way_back_takes_what_the_way_there_gave(kernels, dtype, data):
    case = data.draw(OPS["max_pool2d"])
    (_, (x, *window)), (_, (dy, argmax, *_)) = max_pool2d_calls(case, np.random.default_rng(case.seed))
    x, dy = x.astype(dtype), dy.astype(dtype)
    y, own = kernels.max_pool2d_forward(x, *window)
    equal(tap_numbers(own, y.shape), argmax)
    for given_back in (own, argmax):
        dx = kernels.max_pool2d_backward_input(dy, given_back, x.shape[2:], *window)
        expected = reference.max_pool2d_backward_input(dy, argmax, x.shape[2:], *window)
        assert_parity(dx, expected, dy, "max_pool2d_backward_input")


@on_every_device
def test_the_first_of_two_nans_wins(kernels):
    y, argmax = kernels.max_pool2d_forward(plane([[1, NAN, NAN]]), (1, 3))
    equal(tap_numbers(argmax, y.shape), [[[[1]]]])


@in_every_dtype
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(2, 0, 1), (1, 1, 1), (2, 1, 2), (3, 0, 2)])
@pytest.mark.parametrize("channels", [1, 16, 21, 35])
def test_windows_of_two_by_two_agree_with_the_reference(channels, stride, padding, dilation, dtype):
    """They have loops of their own, sixteen channels at once and the rest one by one: full of ties and NaN."""
    rng = np.random.default_rng(channels)
    x = rng.choice([0, 1, 2, NAN, -INF], (2, channels, 7, 9), p=[0.3, 0.3, 0.1, 0.1, 0.2]).astype(dtype)
    window = (2, stride, padding, dilation, True)
    (y, argmax), (right, winner) = (kernels.max_pool2d_forward(x, *window) for kernels in (cpu, reference))
    equal(y, right)
    equal(argmax, winner)
    dy = rng.integers(-4, 5, y.shape).astype(dtype)
    equal(*(k.max_pool2d_backward_input(dy, argmax, (7, 9), *window) for k in (cpu, reference)))


@on_every_device
def test_a_window_of_minus_infinity(kernels):
    y, argmax = kernels.max_pool2d_forward(np.full((1, 1, 4, 4), -INF), 3, 2, 1)
    equal(y, np.full((1, 1, 2, 2), -INF))
    equal(argmax[0, 0], [[4, 3], [1, 0]])  # the first tap inside the image: padding wins nothing


@on_every_device
@in_every_dtype
def test_relu_at_zero_nan_and_infinity(kernels, dtype):
    x = np.array([-1, -0.0, 0, 1, NAN, INF, -INF], dtype)
    y = kernels.relu_forward(x)
    equal(y, [0, 0, 0, 1, NAN, INF, 0])
    equal(kernels.relu_backward_input(np.full_like(x, 3), y), [0, 0, 0, 3, 3, 3, 0])


@on_every_device
@in_every_dtype
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_nan_logit_makes_the_loss_nan_unless_the_pixel_is_void(kernels, dtype, channel):
    x = np.zeros((1, 3, 1, 2), dtype)
    x[0, channel] = NAN
    target = np.array([[[1, 255]]], np.uint8)
    losses, probabilities = kernels.cross_entropy_forward(x, target, None, 255)
    assert np.isnan(losses[0, 0, 0])
    assert losses[0, 0, 1] == 0
    dx = kernels.cross_entropy_backward_input(np.ones_like(losses), probabilities, target, None, 255)
    assert np.isnan(dx[0, :, 0, 0]).all()
    equal(dx[0, :, 0, 1], np.zeros(3))


@on_every_device
@in_every_dtype
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_nan_score_makes_the_heads_loss_nan_unless_the_pixel_is_void(kernels, dtype, channel):
    x = np.zeros((1, 3, 1, 1), dtype)
    x[0, channel] = NAN
    target, window = np.array([[[1, 255]]], np.uint8), ((1, 2), (0, 1), 0)
    losses = kernels.upsample_cross_entropy_forward(x, target, None, 255, *window)
    equal(losses, [[[NAN, 0]]])
    dx = kernels.upsample_cross_entropy_backward_input(np.ones_like(losses), x, target, None, 255, *window)
    assert np.isnan(dx).all()
    void = np.full_like(target, 255)
    equal(kernels.upsample_cross_entropy_forward(x, void, None, 255, *window), [[[0, 0]]])
    equal(kernels.upsample_cross_entropy_backward_input(losses, x, void, None, 255, *window), np.zeros_like(x))
    equal(kernels.upsample_argmax(x, *window, (1, 2)), np.full((1, 1, 2), channel))


@on_every_device
@in_every_dtype
def test_the_first_of_equal_scores_is_the_label_and_the_first_nan(kernels, dtype):
    x = np.array([[1, 1, 0], [2, 3, 3], [NAN, NAN, 5], [1, NAN, NAN], [-INF, -INF, -INF]], dtype)[:, :, None, None]
    labels = kernels.upsample_argmax(x, 1, 0, 0, (1, 1))
    equal(labels.reshape(-1), [0, 1, 0, 1, 0])
    assert labels.dtype == np.uint8
    many = kernels.upsample_argmax(np.arange(300, dtype=dtype).reshape(1, 300, 1, 1), 1, 0, 0, 1)
    assert (many.dtype, many.item()) == (np.int32, 299)


@pytest.mark.parametrize("kernels", kernels_of("cpu", "cuda-sim", "cuda"))
@pytest.mark.parametrize("factor", [1, 2, 3, 5, 8])
def test_an_infinite_score_stays_where_the_filter_carries_it(kernels, factor):
    """Not through a weight of 0, which would make NaN of it: where the filter is not a matrix, as in the reference."""
    x = np.zeros((1, 2, 5, 5), np.float32)
    x[0, 1, 2, 2] = INF
    logits = kernels.bilinear_upsample_forward(x, factor, 0)
    assert not np.isnan(logits).any()
    assert (logits == INF).sum() == (2 * factor - factor % 2) ** 2
    labels = kernels.upsample_argmax(x, factor, 0, 0, logits.shape[2:])
    equal(labels, (logits[:, 1] == INF).astype(int))
    losses = kernels.upsample_cross_entropy_forward(x, np.zeros_like(labels), None, 255, factor, 0, 0)
    equal(np.isnan(losses), labels)  # inf - inf


@pytest.mark.parametrize("kernels", kernels_of("cpu", "cuda-sim", "cuda"))
@in_every_dtype
@hypothesis_settings(max_examples=10)
@given(case=OPS["upsample_cross_entropy"])
def test_labels_are_those_of_the_upsampled_scores(kernels, dtype, case):
    """To the bit, ties of rounding and all: both round in the same order."""
    a = case.arguments
    x = np.random.default_rng(case.seed).standard_normal(case.shapes["x"]).round(1).astype(dtype)
    size = a["target"].shape[1:]
    logits = kernels.crop_forward(kernels.bilinear_upsample_forward(x, a["factor"], a["padding"]), a["offset"], size)
    equal(kernels.upsample_argmax(x, a["factor"], a["padding"], a["offset"], size), logits.argmax(1))


@on_every_device
@in_every_dtype
@hypothesis_settings(max_examples=10)
@given(case=OPS["upsample_cross_entropy"], wide=st.booleans())
def test_the_gradient_of_the_head_may_be_one_number_for_all_pixels(kernels, dtype, case, wide):
    """As that of a mean is: an array without strides. Labels are bytes, or int64."""
    a = case.arguments
    target = a["target"].astype(np.int64) if wide else a["target"]
    x, dy = signed(np.random.default_rng(case.seed), case.shapes["x"]).astype(dtype), np.full((), 0.375, dtype)
    weight = None if a["weight"] is None else a["weight"].astype(dtype)
    rest = (target, weight, a["ignore_index"], a["factor"], a["padding"], a["offset"])
    name = "upsample_cross_entropy_backward_input"
    got = getattr(kernels, name)(np.broadcast_to(dy, target.shape), x, *rest)
    (right,) = run(reference, name, (np.full(target.shape, 0.375), x, *rest), np.float64)
    assert_parity(got, right, x, name)


def test_float32_exponentials_and_logarithms_are_right_to_two_units_in_the_last_place():
    x = np.concatenate([-np.linspace(0, 87.3, 20_000), -np.logspace(-30, 1.9, 20_000)]).astype(np.float32)
    y = np.concatenate([np.linspace(1, 30, 20_000), np.logspace(-37, 38, 20_000), 1 + np.logspace(-7, 0, 20_000)])
    for vectorised, exact, values in ((exponential, np.exp, x), (logarithm, np.log, y.astype(np.float32))):
        found = compiled(vectorised)(values)
        expected = exact(values.astype(np.float64))
        unit = np.spacing(np.abs(expected).astype(np.float32).clip(np.finfo(np.float32).tiny))
        assert (abs(found - expected) <= 2 * unit).all()
    equal(compiled(exponential)(np.array([0, -90, -INF, NAN], np.float32)), [1, 0, 0, NAN])
    equal(compiled(logarithm)(np.array([1, INF, NAN], np.float32)), [0, INF, NAN])


def compiled(function):
    """`function` of every element, as kernels call it."""

    @numba.njit
    def each(x):
        y = np.empty_like(x)
        for i in range(x.size):
            y[i] = function(x[i])
        return y

    return each


@on_every_device
@in_every_dtype
def test_logits_of_ten_thousand_and_of_minus_infinity(kernels, dtype):
    x = np.array([[1e4, 1e4], [0, -INF], [-1e4, 1e4]], dtype).reshape(1, 3, 1, 2)
    losses, probabilities = kernels.cross_entropy_forward(x, np.array([[[1, 0]]]))
    near(losses, np.array([[[1e4, np.log(2)]]], dtype))
    near(probabilities[0, :, 0], np.array([[1, 0.5], [0, 0], [0, 0.5]], dtype))


@on_every_device
def test_one_number_added_to_all_logits_changes_nothing(kernels):
    x, target = np.random.default_rng(0).integers(-3, 4, (1, 4, 2, 3)).astype(np.float64), np.zeros((1, 2, 3), int)
    for one, other in zip(
        kernels.cross_entropy_forward(x, target), kernels.cross_entropy_forward(x + 1024, target), strict=True
    ):
        equal(one, other)


@on_every_device
def test_nan_passes_through_convolution_and_sums(kernels):
    x = np.zeros((1, 1, 3, 3))
    x[0, 0, 1, 1] = NAN
    assert np.isnan(kernels.conv2d_forward(x, np.ones((1, 1, 2, 2)))).all()
    assert np.isnan(kernels.conv2d_forward(x, np.zeros((1, 1, 2, 2)))).all()  # 0 * NaN is NaN
    assert np.isnan(kernels.avg_pool2d_forward(x, 2, 1)).all()
    assert np.isnan(kernels.add_forward(x, x)[0, 0, 1, 1])
    assert np.isnan(kernels.conv2d_backward_bias(x)).all()


# --- wrong arguments ---------------------------------------------------------------------------------------

X, W = np.zeros((2, 4, 5, 6)), np.zeros((3, 4, 3, 3))
F32 = np.float32
LABELS = np.zeros((2, 5, 6), np.int64)
WRONG_LABEL = LABELS.copy()
WRONG_LABEL[1, 2, 3] = 7
V = np.zeros(3)

WRONG = [
    (lambda k: k.conv2d_forward(X, W.astype(F32)), "must all be float32 or all be float64, got x float64, weight flo"),
    (lambda k: k.relu_forward(np.zeros(3, int)), "must all be float32 or all be float64, got x int64"),
    (lambda k: k.conv2d_forward(X, W, np.zeros(4)), r"bias has shape (4,), but must have (3,)"),
    (lambda k: k.conv2d_forward(X[0], W), r"x must have 4 axes [N, C, H, W], but has shape (4, 5, 6)"),
    (lambda k: k.conv2d_forward(X, W[0]), r"weight must have 4 axes [N, C, H, W], but has shape (4, 3, 3)"),
    (lambda k: k.conv2d_backward_bias(V), r"dy must have 4 axes [N, C, H, W], but has shape (3,)"),
    (lambda k: k.conv2d_backward_input(X, W[:4], (5, 6)), "dy has shape (2, 4, 5, 6), but must have (2, 3, 3, 4)"),
    (lambda k: k.conv2d_backward_weight(X, X, 3), "dy has shape (2, 4, 5, 6), but must have (2, 4, 3, 4)"),
    (lambda k: k.conv2d_forward(X, W[:, :2]), "weight has 2 input channels a group, but x has 4 channels in 1 group"),
    (lambda k: k.conv2d_forward(X, W, None, 1, 0, 1, 2), "groups (=2) must divide the input channels (=4) and output"),
    (lambda k: k.conv2d_forward(X, W, None, 1, 0, 1, 0), "groups (=0) must divide"),
    (lambda k: k.conv2d_forward(X, W[..., :0]), "window (=3x0) must be at least 1x1"),
    (lambda k: k.conv2d_forward(X, W, None, 1, 0, 3), "window (=3, dilation 3, extent 7) must fit into the padded inp"),
    (lambda k: k.conv2d_forward(X, W, None, 0), "stride (=0) must be at least 1"),
    (lambda k: k.conv2d_forward(X, W, None, 1, (0, -1)), "padding (=(0, -1)) must be at least 0"),
    (lambda k: k.conv2d_forward(X, W, None, 1, 0.5), "padding (=0.5) must be an integer or a pair of integers"),
    (lambda k: k.conv2d_forward(X, W, None, True), "stride (=True) must be an integer or a pair of integers"),
    (lambda k: k.conv2d_forward(X, W, None, (1, 1, 1)), "stride (=(1, 1, 1)) must be an integer or a pair of integers"),
    (lambda k: k.conv2d_forward(X, W, None, 1, 0, 0), "dilation (=0) must be at least 1"),
    (lambda k: k.conv2d_backward_weight(X, X, 0), "window (=0) must be at least 1"),
    (lambda k: k.max_pool2d_forward(X, 0), "kernel_size (=0) must be at least 1"),
    (lambda k: k.max_pool2d_forward(X, 2, 2, 2), "padding (=2) must be smaller than kernel_size (=2)"),
    (
        lambda k: k.max_pool2d_forward(X[:, :, :1, :1], 2, 1, 1, 2),
        "window 0 (start -1, kernel_size 2, dilation 2) holds no element of the input (=1)",
    ),
    (lambda k: k.max_pool2d_backward_input(X, X, (5, 6), 2), "dy has shape (2, 4, 5, 6), but must have (2, 4, 2, 3)"),
    (lambda k: k.avg_pool2d_backward_input(X, (5, 6), 2), "dy has shape (2, 4, 5, 6), but must have (2, 4, 2, 3)"),
    (lambda k: k.bilinear_upsample_forward(X, 0, 0), "factor (=0) must be at least 1"),
    (lambda k: k.bilinear_upsample_forward(X, 2, 6), "padding (=6) leaves nothing of the transposed convolution's"),
    (lambda k: k.bilinear_upsample_backward_input(X, (5, 6), 2, 0), "dy has shape (2, 4, 5, 6), but must have (2, 4,"),
    (lambda k: k.crop_forward(X, (3, 0), (3, 6)), "crop of rows 3..5 does not fit into the input, which has 5"),
    (lambda k: k.crop_forward(X, (0, 1), (5, 6)), "crop of columns 1..6 does not fit into the input, which has 6"),
    (lambda k: k.crop_forward(X, (-1, 0), (1, 1)), "offset (=(-1, 0)) must be at least 0"),
    (lambda k: k.crop_forward(X, 0, 0), "size (=0) must be at least 1"),
    (lambda k: k.crop_backward_input(X, 1, (5, 6)), "crop of rows 1..5 does not fit into the input, which has 5"),
    (lambda k: k.crop_sum_forward(X, X[:, :3], 0), "skip [N, C] part has shape (2, 3), but must have (2, 4)"),
    (lambda k: k.crop_sum_forward(X, X[0], 0), "skip must have 4 axes [N, C, H, W], but has shape (4, 5, 6)"),
    (lambda k: k.relu_backward_input(V, np.zeros(4)), "dy has shape (3,), but must have (4,)"),
    (lambda k: k.add_forward(V, np.zeros(4)), "y has shape (4,), but must have (3,)"),
    (lambda k: k.dropout_forward(V, 1.0, (0, 0, 0)), "dropout probability (=1.0) must be at least 0 and below 1"),
    (lambda k: k.dropout_forward(V, NAN, (0, 0, 0)), "dropout probability (=nan) must be at least 0 and below 1"),
    (lambda k: k.cross_entropy_forward(X[0], LABELS), "logits must have 4 axes [N, C, H, W], but has shape (4, 5, 6)"),
    (lambda k: k.cross_entropy_forward(X, LABELS[:1]), "target has shape (1, 5, 6), but must have (2, 5, 6)"),
    (lambda k: k.cross_entropy_forward(X, LABELS * 1.0), "target must hold integers, but has dtype float64"),
    (lambda k: k.cross_entropy_forward(X, LABELS, V), "weight has shape (3,), but must have (4,)"),
    (
        lambda k: k.cross_entropy_forward(X, WRONG_LABEL),
        "label (=7) of image 1, row 2, column 3 must be a class from 0 to 3 or the ignored label 255",
    ),
    (lambda k: k.cross_entropy_forward(X, LABELS - 1), "label (=-1) of image 0, row 0, column 0 must be a class from"),
    (
        lambda k: k.cross_entropy_backward_input(np.zeros((1, 5, 6)), X, LABELS),
        "dy has shape (1, 5, 6), but must have (2, 5, 6)",
    ),
    (
        lambda k: k.upsample_cross_entropy_forward(X, LABELS[0]),
        "target must have 3 axes [N, P, Q], but has shape (5, 6)",
    ),
    (
        lambda k: k.upsample_cross_entropy_forward(X, LABELS, None, 255, 1, 0, (0, 1)),
        "crop of columns 1..6 does not fit into the input, which has 6",
    ),
    (lambda k: k.upsample_cross_entropy_forward(X, LABELS[:1]), "target has shape (1, 5, 6), but must have (2, 5, 6)"),
    (
        lambda k: k.upsample_cross_entropy_forward(X, WRONG_LABEL, None, 255, 2, 1, 0),
        "label (=7) of image 1, row 2, column 3 must be a class from 0 to 3 or the ignored label 255",
    ),
    (
        lambda k: k.upsample_cross_entropy_backward_input(np.zeros((1, 5, 6)), X, LABELS),
        "dy has shape (1, 5, 6), but must have (2, 5, 6)",
    ),
    (lambda k: k.upsample_argmax(X, 2, 1, 0, (11, 6)), "crop of rows 0..10 does not fit into the input, which has 10"),
    (
        lambda k: k.max_pool2d_backward_input(X[..., :2, :3], np.zeros((1, 1, 2, 3), np.int32), (5, 6), 2),
        "argmax has shape (1, 1, 2, 3), but must have (2, 4, 2, 3)",
    ),
    (
        lambda k: k.max_pool2d_backward_input(X[..., :2, :3], X[..., :2, :3].astype(int), (5, 6), 2),
        "argmax must be uint8, the number r S + s of a tap, but is int64",
    ),
    (
        lambda k: k.max_pool2d_forward(np.zeros((1, 1, 40, 40)), (16, 17)),
        "kernel_size (=16x17) of a maximum pooling must have at most 256 taps",
    ),
    (lambda k: k.sgd_step(V, V, V, 0.1, form="nesterov"), "form (='nesterov') must be one of caffe, pytorch"),
    (lambda k: k.sgd_step(V, np.zeros(4), V, 0.1), "g has shape (4,), but must have (3,)"),
    (lambda k: k.sgd_step(V, V, np.zeros(4), 0.1), "velocity has shape (4,), but must have (3,)"),
    (lambda k: k.adam_step(V, V, V, V, 0.1, (0.9, 0.9), 1e-8, 0, 0, False), "step (=0) must count from 1"),
    (
        lambda k: k.adam_step(V, V, V, np.zeros(4), 0.1, (0.9, 0.9), 1e-8, 0, 1, False),
        "square has shape (4,), but must have (3,)",
    ),
]


@on_every_device
@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_a_wrong_argument_is_named_with_its_rule(kernels, call, message):
    with pytest.raises(ShapeError) as caught:
        call(kernels)
    assert message in str(caught.value)


GEOMETRY_WRONG = [
    (
        lambda: geometry.conv_transpose2d((1, 2, 3, 3), (3, 1, 2, 2)),
        "weight has 3 input channels, but x has 2 channels",
    ),
    (lambda: geometry.conv_transpose2d((1, 2, 1, 1), (2, 1, 2, 2), padding=1), "padding (=1) leaves nothing"),
    (
        lambda: geometry.conv_transpose2d((1, 2, 3, 3), (2, 1, 2, 2), stride=2, output_padding=2),
        "output_padding (=2) must be smaller than stride (=2)",
    ),
    (
        lambda: geometry.conv_transpose2d((1, 2, 3, 3), (2, 1, 2, 2), dilation=3, output_padding=1),
        "output_padding (=1) must be smaller than stride (=1)",
    ),
    (
        lambda: geometry.crop_offset(geometry.conv_map(3, 2), geometry.CoordinateMap()),
        "crop between maps of scale 1/2 and 1: scales must be equal",
    ),
    (
        lambda: geometry.crop_offset(geometry.conv_map(2), geometry.CoordinateMap()),
        "crop offset (=-1/2) must be an integer of at least 0",
    ),
]


@pytest.mark.parametrize(("call", "message"), GEOMETRY_WRONG, ids=[message[:40] for _, message in GEOMETRY_WRONG])
def test_what_is_not_feasible_is_refused(call, message):
    with pytest.raises(ShapeError) as caught:
        call()
    assert message in str(caught.value)


@pytest.mark.parametrize("kernels", kernels_of("cpu", "cuda-sim"))
def test_optimisers_refuse_memory_that_they_cannot_write_through(kernels):
    gaps, turned = np.zeros((4, 4))[:, ::2], np.zeros((2, 4)).T
    with pytest.raises(ShapeError, match="w must be dense in memory, in the axis order of w, to be updated in place"):
        kernels.sgd_step(gaps, gaps.copy(), np.zeros((4, 2)), 0.1)
    with pytest.raises(ShapeError, match="velocity must be dense in memory, in the axis order of w"):
        kernels.sgd_step(np.zeros((4, 2)), turned, turned, 0.1)


@pytest.mark.parametrize("kernels", kernels_of("cpu", "cuda-sim"))
@in_every_dtype
@pytest.mark.parametrize("kernel", ["sgd_step", "adam_step"])
@pytest.mark.parametrize("of_gradient", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_optimisers_update_weights_in_any_dense_order(kernels, kernel, of_gradient, dtype):
    """As a convolution's weights lie: indexed [K, C, R, S], channels last in memory; a gradient may lie otherwise."""
    rng, (K, C, R, S) = np.random.default_rng(0), (3, 5, 2, 2)

    def laid(array, order):
        return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))

    state = IN_PLACE[kernel][1:]
    arrays = [abs(signed(rng, (K, C, R, S))).astype(dtype) for _ in range(2 + len(state))]
    rest = (0.1, 0.9, 0.01, "caffe") if kernel == "sgd_step" else (0.1, (0.9, 0.99), 1e-8, 0.01, 3, True)
    expected = [array.astype(np.float64) for array in arrays]
    getattr(reference, kernel)(*expected, *rest)
    found = [laid(array, of_gradient if i == 1 else (0, 2, 3, 1)) for i, array in enumerate(arrays)]
    getattr(kernels, kernel)(*found, *rest)
    for i in IN_PLACE[kernel]:
        assert_parity(found[i], expected[i], arrays[i], kernel)
    equal(found[1], arrays[1])


def test_dropout_threshold():
    assert threshold(0) == 0
    assert threshold(0.5) == 2**31
    assert threshold(np.nextafter(1, 0)) == 2**32 - 1
