"""bfloat16 in memory: its rounding, every kernel on it, and networks whose activations are stored so."""

import functools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minifcn import models, ops, optim
from minifcn.data import Normalization, open_dataset
from minifcn.device import get_device, replaced
from minifcn.errors import DeviceError, MinifcnError
from minifcn.gradcheck.data import off_zero, small_integers
from minifcn.kernels import cuda, geometry, reference
from minifcn.kernels.checks import ShapeError
from minifcn.kernels.cuda import ladder
from minifcn.kernels.settings import SettingError
from minifcn.kernels.settings import settings as kernel_settings
from minifcn.kernels.storage import BFLOAT16
from minifcn.ops.storage import Stored, stored, widened
from minifcn.tensor import Op, Tensor, no_grad

from ..devices import on_devices
from . import calls
from .test_convolutions import error, geometries, normal, window

F32, F64 = np.float32, np.float64
UNIT = 2.0**-8  # what rounding to 8 bits changes, relative to the number, at most
TOLERANCE = 1e-6  # of sums in float32 of exact products, relative to the largest result

on_sim = pytest.mark.parametrize("device", on_devices("cuda-sim"))
on_cuda = pytest.mark.parametrize("device", on_devices("cuda-sim", "cuda"))


def wide(bits):
    """float64 of bfloat16."""
    return (bits.astype(np.uint32) << 16).view(F32).astype(F64)


def nearest(x):
    """The bfloat16 nearest to x, ties to even, as float64: a multiple of 2^-7 of its power of two, or of 2^-133."""
    with np.errstate(invalid="ignore"):
        exponent = np.maximum(np.frexp(x.astype(F64))[1], -125)
        found = np.ldexp(np.rint(np.ldexp(x.astype(F64), 8 - exponent)), exponent - 8)
    return np.where(np.abs(found) >= 2.0**128, np.copysign(np.inf, x), found)


def float_bits():
    """Bits of float32: any, and those at ties of bfloat16 and beside them."""
    upper, lower = st.integers(0, 0xFFFF), st.sampled_from([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    subnormal_or_infinite = st.sampled_from([0, 0x8000, 0x7F, 0x7F7F, 0x7F80, 0xFF80, 0x7FC0, 0xFF7F, 0x80])
    mixed = st.tuples(upper | subnormal_or_infinite, lower).map(lambda pair: pair[0] << 16 | pair[1])
    return st.lists(st.integers(0, 2**32 - 1) | mixed, min_size=1, max_size=64)


@on_cuda
@given(bits=float_bits())
def test_rounding_is_to_nearest_ties_to_even(device, bits):
    place, x = get_device(device), np.array(bits, np.uint32).view(F32)
    found = place.xp.asarray(place.rounded(place.asarray(x)))
    found = found.get() if hasattr(found, "get") else found
    expected = nearest(x)
    np.testing.assert_array_equal(wide(found), expected)
    assert np.array_equal(np.signbit(wide(found)), np.signbit(x)) or np.isnan(x).any()
    assert (found[np.isnan(x)] == 0x7FFF).all()


@on_sim
def test_rounding_is_that_of_ml_dtypes(device):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.random.default_rng(0).integers(0, 1 << 32, 1 << 16, np.uint32).view(F32)
    x = x[~np.isnan(x)]
    expected = x.astype(ml_dtypes.bfloat16).view(np.uint16)
    np.testing.assert_array_equal(get_device(device).rounded(x), expected)


@on_sim
def test_every_number_of_bfloat16_widens_exactly_and_comes_back(device):
    place, bits = get_device(device), np.arange(1 << 16, dtype=BFLOAT16)
    found = place.widened(bits)
    assert found.dtype == F32
    np.testing.assert_array_equal(found.view(np.uint32), bits.astype(np.uint32) << 16)
    kept = ~np.isnan(found)
    np.testing.assert_array_equal(place.rounded(found)[kept], bits[kept])
    np.testing.assert_array_equal(place.to_host(bits), found)


# --- kernels -----------------------------------------------------------------------------------------------------


def near(found, expected, what):
    """bfloat16 within its rounding of the largest number expected, float32 within that of its sums; the rest equal."""
    assert found.shape == expected.shape, what
    if found.dtype not in (BFLOAT16, F32):
        np.testing.assert_array_equal(found, expected, err_msg=what)
        return
    off = (wide(found) if found.dtype == BFLOAT16 else found) - expected
    limit = UNIT if found.dtype == BFLOAT16 else TOLERANCE
    assert np.abs(off).max(initial=0) <= limit * np.abs(expected).max(initial=0), (what, np.abs(off).max())


@on_sim
def test_every_kernel_agrees_with_the_reference_on_the_same_numbers(device):
    seen = set()
    for name, given_arrays, exact in calls.stored_calls(calls.calls(F32)):
        expected = getattr(reference, name)(
            *(one.astype(F64) if getattr(one, "dtype", 0) == F32 else one for one in exact)
        )
        found = get_device(device).kernel(name)(*given_arrays)
        if name == "conv2d_relu_max_pool2d_forward":  # what is stored ties where the reference's sums do not
            found, expected = found[0], expected[0]
        for one, other in zip(calls.listed(name, found), calls.listed(name, expected), strict=True):
            near(one, other, name)
        seen.add(name)
    assert seen == set(calls.ACTIVATIONS)


RUNGS = ("naive", "tiled", "tensor")


def results(kernel, geo, x, w, b, dy):
    """All kernels of a convolution, by name; dy through the mask of y."""
    y, mask = kernel("conv2d_relu_forward")(x, w, b, *window(geo))
    fused = kernel("conv2d_relu_backward")(dy, mask, x, w, *window(geo))
    found = {
        "y": kernel("conv2d_forward")(x, w, b, *window(geo)),
        "dx": kernel("conv2d_backward_input")(dy, w, (geo.H, geo.W), *window(geo)),
        "dw": kernel("conv2d_backward_weight")(dy, x, (geo.R, geo.S), *window(geo)),
        "db": kernel("conv2d_backward_bias")(dy),
        "relu y": y,
        "mask": mask,
    }
    return found | dict(zip(("relu dx", "relu dw", "relu db"), fused, strict=True))


def convolution(device, geo, rung, draw):
    """(results in bfloat16, results of the reference in float64 on the same numbers and with the same mask)."""
    rng = np.random.default_rng(0)
    x, w, b, dy = (
        calls.cut(draw(rng, shape).astype(F32)) for shape in (geo.x_shape, geo.w_shape, (geo.K,), geo.y_shape)
    )
    with kernel_settings.using(convolution=rung):
        assert {ladder.choose(one, geo, BFLOAT16).name for one in ladder.DIRECTIONS} == {rung}
        found = results(get_device(device).kernel, geo, calls.stored(x), w, b, calls.stored(dy))

    def by_reference(name):
        if name == "conv2d_relu_forward":
            return lambda *arguments: (getattr(reference, name)(*arguments)[0], found["mask"])
        return getattr(reference, name)

    return found, results(by_reference, geo, *(one.astype(F64) for one in (x, w, b, dy)))


@on_sim
@pytest.mark.parametrize("rung", RUNGS)
@settings(max_examples=5)
@given(geo=geometries())
def test_every_rung_agrees_with_the_reference(device, rung, geo):
    found, expected = convolution(device, geo, rung, normal)
    for name in ("y", "dx", "relu y", "relu dx"):
        near(found[name], expected[name], name)
    for name in ("dw", "db", "relu dw", "relu db"):
        assert found[name].dtype == F32
        assert error(found[name], expected[name]) <= 5e-7, name
    np.testing.assert_array_equal(wide(found["relu y"]), np.maximum(wide(found["y"]), 0))
    np.testing.assert_array_equal(found["mask"], reference.conv2d.relu_mask(wide(found["y"])))


@on_sim
@pytest.mark.parametrize("rung", RUNGS)
def test_small_integers_are_exact(device, rung):
    """Sums of a few of them have at most eight bits."""
    geo = geometry.conv2d((2, 8, 6, 7), (24, 8, 1, 1), 1, 0)
    found, expected = convolution(device, geo, rung, lambda rng, shape: np.clip(small_integers(rng, shape), -2, 2))
    for name in found:
        np.testing.assert_array_equal(
            wide(found[name]) if found[name].dtype == BFLOAT16 else found[name], expected[name]
        )


@on_sim
@pytest.mark.parametrize("rung", ["tiled", "tensor"])
def test_large_tiles(device, rung, monkeypatch):
    monkeypatch.setattr(ladder, "ENOUGH_BLOCKS", 1)
    geo = geometry.conv2d((1, 136, 12, 13), (144, 136, 1, 2), 1, (0, 1))
    found, expected = convolution(device, geo, rung, off_zero)
    for name in ("y", "dx", "relu y", "relu dx"):
        near(found[name], expected[name], name)


@pytest.mark.parametrize("C", [3, 12, 16, 20, 24])
def test_the_ladder_multiplies_on_tensor_cores_where_channels_are_in_eights(C):
    geo = geometry.conv2d((1, C, 8, 8), (32, C, 3, 3), 1, 1)
    for precision in ("float32", "bfloat16"):
        with kernel_settings.using(precision=precision):
            rung = ladder.choose(ladder.FORWARD, geo, BFLOAT16)
            assert rung.name == ("naive" if C < ladder.FEW_CHANNELS else "tensor" if C % 8 == 0 else "tiled")
            assert (rung.mode == ladder.MODES["bfloat16"]) == (rung.name == "tensor")


@on_sim
@pytest.mark.parametrize("rung", RUNGS)
def test_nothing_is_found_by_the_sanitizer(device, rung):
    geo = geometry.conv2d((1, 40, 9, 8), (72, 40, 2, 1), 1, (0, 1))
    x, w, dy = (
        calls.cut(normal(np.random.default_rng(0), shape).astype(F32))
        for shape in (geo.x_shape, geo.w_shape, geo.y_shape)
    )
    kernels = cuda.Kernels(cuda.SimExecutor("check"))
    with kernel_settings.using(convolution=rung):
        _, mask = kernels.conv2d_relu_forward(calls.stored(x), w, None, *window(geo))
        kernels.conv2d_relu_backward(calls.stored(dy), mask, calls.stored(x), w, *window(geo))


# --- what is refused ---------------------------------------------------------------------------------------------


@on_sim
def test_types_must_fit(device):
    kernel = get_device(device).kernel
    x, w = np.zeros((1, 8, 4, 4), BFLOAT16), np.zeros((8, 8, 1, 1), F32)
    with pytest.raises(
        ShapeError, match="one type, and weight float32 where that is bfloat16, got x bfloat16, weight float64"
    ):
        kernel("conv2d_forward")(x, w.astype(F64))
    with pytest.raises(ShapeError, match="got x bfloat16, y float32"):
        kernel("add_forward")(x, np.zeros(x.shape, F32))
    with pytest.raises(ShapeError, match="all be float32 or all be float64, got x uint8"):
        kernel("relu_forward")(x.astype(np.uint8))
    with pytest.raises(ShapeError, match="an array of float32 was to become bfloat16, but it is float64"):
        get_device(device).rounded(w.astype(F64))
    with pytest.raises(ShapeError, match="all be float32 or all be float64, got x uint16"):
        get_device("cpu").kernel("relu_forward")(x)


@on_sim
def test_what_computes_by_the_array_module_takes_no_bfloat16(device):
    x = Stored()(Tensor(np.ones((1, 2, 3, 3), F32), device=device))
    for refused in (
        ops.exp,
        ops.log,
        lambda x: x * x,
        lambda x: x / x,
        lambda x: x**2,
        lambda x: x.sum(),
        lambda x: x + 1,
    ):
        with pytest.raises((MinifcnError, ShapeError), match="bfloat16"):
            refused(x)
    with pytest.raises(MinifcnError, match="CrossEntropy does not take bfloat16"):
        ops.cross_entropy(x, np.zeros((1, 3, 3), np.uint8))
    x.requires_grad = True
    with pytest.raises(MinifcnError, match="stored as bfloat16"):
        x.backward(np.ones(x.shape, F32))
    with pytest.raises(MinifcnError, match="would be taken for whole numbers"):
        np.from_dlpack(x)
    with pytest.raises(MinifcnError, match="uint16 on device 'cuda-sim' is bfloat16"):
        Tensor(np.ones(3, np.uint16)).to(device)
    np.testing.assert_array_equal((x + x).numpy(), np.full(x.shape, 2, F32))
    assert x.to("cpu").dtype == F32
    assert "stored as bfloat16" in repr(x)


@on_sim
def test_kernels_of_ones_own_are_given_no_bfloat16(device):
    net, x, kernel = small(device), images((1, 3, 32, 32), device), get_device(device).kernel("max_pool2d_forward")
    wrapped = functools.wraps(kernel)(lambda *arguments: kernel(*arguments))
    with kernel_settings.using(precision="bfloat16"), replaced(device, max_pool2d_forward=wrapped):
        net(x)
        with replaced(device, relu_forward=lambda x: x), pytest.raises(DeviceError, match=r"\(relu_forward\)"):
            net(x)


def test_the_processor_has_no_bfloat16():
    with kernel_settings.using(precision="bfloat16"), pytest.raises(SettingError, match="not known to device 'cpu'"):
        small("cpu")(Tensor(np.zeros((1, 3, 32, 32), F32)))


# --- networks ----------------------------------------------------------------------------------------------------


def small(device, model="fcn8s", **about):
    return models.build(model, **{"backbone": "small", "classes": 5, "width": 0.5} | about).to(device)


ALEXNET = {"model": "fcn32s", "backbone": "alexnet", "width": 0.25, "fc": 32}


def images(shape, device, dtype=F32):
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(dtype), device=device)


def inner(loss):
    """All tensors between parameters, images and `loss`."""
    found, waiting = {}, [loss]
    while waiting:
        tensor = waiting.pop()
        if tensor is not None and tensor.op is not None and id(tensor) not in found:
            found[id(tensor)] = tensor
            waiting.extend(tensor.op.inputs)
    return [tensor for tensor in found.values() if tensor is not loss]


@on_sim
@pytest.mark.parametrize(
    "about", [{}, {"model": "fcn16s", "geometry": "pad100", "width": 0.25}, {"model": "fcn8s-at-once"}]
)
def test_activations_and_their_gradients_are_stored_as_bfloat16(device, about, monkeypatch):
    net, target = small(device, **about), np.zeros((1, 64, 48), np.uint8)
    gradients = []
    for cls in {type(tensor.op) for tensor in inner(net.loss(images((1, 3, 64, 48), device), target))} | {Stored}:
        kept = cls.backward

        def noted(self, dy, kept=kept):
            gradients.append(dy)
            return kept(self, dy)

        monkeypatch.setattr(cls, "backward", noted)
    sizes = {}
    for precision in ("float32", "bfloat16"):
        gradients.clear()
        with kernel_settings.using(precision=precision):
            loss = net.loss(images((1, 3, 64, 48), device), target)
            activations = [tensor for tensor in inner(loss) if type(tensor.op) is not Stored]
            net.zero_grad()
            loss.backward()
        sizes[precision] = sum(t.data.nbytes for t in activations), sum(dy.nbytes for dy in gradients)
        assert loss.dtype == F32
        assert {p.grad.dtype for p in net.parameters()} == {p.dtype for p in net.parameters()} == {np.dtype(F32)}
    assert {tensor.dtype for tensor in activations} == {dy.dtype for dy in gradients} == {BFLOAT16}
    assert sizes["bfloat16"] == tuple(size // 2 for size in sizes["float32"])


@on_sim
def test_the_peak_of_a_step_is_lower(device):
    """Not halved: weights and their gradients, images, labels, masks, places of maxima, and the losses of pixels."""
    peaks = {}
    for precision in ("float32", "bfloat16"):
        net, x, target = (
            small(device, width=0.25, fc=16),
            images((1, 3, 192, 192), device),
            np.zeros((1, 192, 192), np.uint8),
        )
        with kernel_settings.using(precision=precision):
            net.loss(x, target).backward()  # compiled, and tables made
            net.zero_grad()
            tracemalloc.start()
            net.loss(x, target).backward()
            peaks[precision] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert peaks["bfloat16"] < 0.75 * peaks["float32"]


@on_sim
def test_float64_and_other_precisions_are_stored_as_they_are(device):
    for precision, dtype in (("bfloat16", F64), ("tf32", F32), ("float32", F32)):
        with kernel_settings.using(precision=precision):
            x = images((1, 3, 32, 32), device, dtype)
            assert stored(x) is x
            assert widened(x) is x
    with kernel_settings.using(precision="bfloat16"):
        assert small(device, dtype="float64")(images((1, 3, 32, 32), device, F64)).dtype == F64


@on_sim
@pytest.mark.parametrize("about", [{}, {"deconv": "learned"}, {"model": "classifier", "input_size": 32}, ALEXNET])
def test_a_network_gives_float32_near_that_of_float32(device, about):
    """Each of a dozen layers rounds its output by at most 2^-8, and its weights by as much."""
    net = small(device, **about).eval()
    rng = np.random.default_rng(1)
    for name, parameter in net.named_parameters():
        if name.startswith(("score", "fc8")):
            parameter.data[...] = 0.1 * rng.standard_normal(parameter.shape)
    x = images((1, 3, 32, 32), device)
    with no_grad():
        expected = net(x).numpy()
        with kernel_settings.using(precision="bfloat16"):
            y = net(x)
            labels = net.labels(x)
    assert y.dtype == F32
    found = y.numpy()
    assert 0 < error(found, expected) < 12 * UNIT
    behind = found.max(1) - np.take_along_axis(found, labels[:, None].astype(int), 1)[:, 0]
    assert (behind <= UNIT * np.abs(found).max()).all()


@on_sim
def test_the_gradient_of_the_images_is_widened(device):
    """It passes a dozen layers twice, and some kinks of ReLU and pooling from the other side."""
    net, x = small(device), images((1, 3, 32, 32), device)
    x.requires_grad = True
    rng = np.random.default_rng(1)
    for parameter in net.parameters():
        parameter.data[...] += 0.02 * rng.standard_normal(parameter.shape)
    found = {}
    for precision in ("float32", "bfloat16"):
        x.grad = None
        with kernel_settings.using(precision=precision):
            net.eval().loss(x, np.zeros((1, 32, 32), np.uint8)).backward()
        found[precision] = x.grad.numpy()
    assert found["bfloat16"].dtype == F32
    assert 0 < error(found["bfloat16"], found["float32"].astype(F64)) < 0.5


@on_sim
def test_copies_of_frozen_weights_are_made_once_and_follow_the_weights(device, monkeypatch):
    net, x = small(device, deconv="learned").eval(), images((1, 3, 32, 32), device)
    on, launched = get_device(device).executor, []
    kept = on.kernel
    monkeypatch.setattr(on, "kernel", lambda file, name: launched.append(name) or kept(file, name))

    def copies():
        launched.clear()
        with no_grad(), kernel_settings.using(precision="bfloat16"):
            y = net(x).numpy()
        return y, sum(name.startswith(("convert<float", "transpose")) for name in launched) - 1  # the images are one

    weights = sum(name.endswith("weight") for name, _ in net.named_parameters())
    first, count = copies()
    assert count == weights
    with net.frozen():
        assert copies()[1] == weights
        again, count = copies()
        assert count == 0
        np.testing.assert_array_equal(again, first)
    net.conv1_1.weight.data *= 2
    changed, count = copies()
    assert count == weights
    with net.frozen():
        np.testing.assert_array_equal(copies()[0], changed)


@on_sim
def test_twenty_steps_train_as_in_float32(device):
    """Loss by loss within 2 %, with float32 masters that hold what their copies cannot."""
    data = open_dataset("scenes", "train", seed=0)
    samples = [data[0]]
    pixels = np.stack([sample.image for sample in samples])[:, :48, :48]
    target = np.stack([sample.label for sample in samples])[:, :48, :48]
    x = Normalization.measure(data).apply(pixels).transpose(0, 3, 1, 2).astype(F32)
    losses = {}
    for precision in ("float32", "bfloat16"):
        net = small(device, classes=len(data.classes), width=0.25)
        optimizer, losses[precision] = optim.build("sgd", dict(net.named_parameters()), 0.9, 1e-4), []
        with kernel_settings.using(precision=precision):
            for step in range(20):
                net.at_step(0, step).zero_grad()
                loss = net.loss(Tensor(x, device=device), target)
                loss.backward()
                optimizer.step(0.02)
                losses[precision].append(loss.item())
    found, expected = (np.array(losses[name]) for name in ("bfloat16", "float32"))
    assert expected[-1] < 0.7 * expected[0]
    assert (np.abs(found - expected) <= 0.02 * expected).all()
    assert (found != expected).any()
    weight = net.conv3_1.weight
    assert weight.dtype == F32
    copy = wide(get_device(device).rounded(weight.data))
    assert 0 < error(copy, weight.numpy().astype(F64)) < UNIT


def test_every_op_says_whether_it_takes_bfloat16():
    """Those that leave arithmetic to kernels, which know the type."""
    refusing = {"Exp", "Log", "Multiply", "Divide", "Power", "Sum", "CrossEntropy"}
    known = [cls for cls in Op.__subclasses__() if cls.__module__.startswith("minifcn.ops")]
    assert {cls.__name__ for cls in known if not cls.takes_bfloat16} == refusing
