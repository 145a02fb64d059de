"""Every op under the gradient checker on every device, and how Tensor wires the ops together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import minifcn
from minifcn import Op, Tensor, conv2d, conv_transpose2d, from_dlpack, max_pool2d, no_grad, ops, relu, replaced
from minifcn.device import get_device
from minifcn.errors import DeviceError, MinifcnError
from minifcn.gradcheck import OPS, check_op, known
from minifcn.kernels import cuda
from minifcn.kernels.checks import ShapeError
from minifcn.kernels.cuda import ExecutorError
from minifcn.ops.conv2d_relu import PARTS
from minifcn.ops.conv2d_relu_max_pool2d import PARTS as PARTS_WITH_POOL
from minifcn.ops.cross_entropy import REDUCTIONS

from .devices import EVERY, examples, on_devices

on_every_device = pytest.mark.parametrize("device", on_devices(*EVERY))
EXAMPLES = 25
LINEAR = {"conv2d", "conv_transpose2d", "linear", "avg_pool2d", "bilinear_upsample", "crop", "crop_sum"}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@on_every_device
@pytest.mark.parametrize("op", list(OPS))
def test_every_op_passes_the_gradient_checker(op, device, dtype):
    count = examples(device, EXAMPLES)
    report = check_op(op, device, dtype, examples=count)
    assert report.passed, report
    assert report.cases == count + (op in known.CASES)  # one was worked by hand
    if op in LINEAR:
        assert ("adjoint", "x") in report.worst


def leaf(values, dtype=np.float64, **options):
    return Tensor(np.array(values, dtype), requires_grad=True, **options)


def grad(tensor):
    return tensor.grad.numpy()


# --- known answers of whole ops ---


@on_every_device
def test_transposed_convolution_by_hand(device):
    x = leaf([[[[1, 2], [3, 4]]]], device=device)
    w = leaf([[[[1, 2], [3, 4]]]], device=device)
    b = leaf([100], device=device)
    y = conv_transpose2d(x, w, b)
    # The window 1 2 / 3 4 laid down once, twice, three and four times: the middle is 1*4 + 2*3 + 3*2 + 4*1.
    np.testing.assert_array_equal(y.numpy()[0, 0] - 100, [[1, 4, 4], [6, 20, 16], [9, 24, 16]])
    y.backward(np.array([[[[1, 0, 0], [0, 0, 0], [0, 0, 10]]]], np.float64))
    np.testing.assert_array_equal(grad(x)[0, 0], [[1, 0], [0, 40]])
    np.testing.assert_array_equal(grad(w)[0, 0], [[1, 0], [0, 40]])
    np.testing.assert_array_equal(grad(b), [11])


@on_every_device
def test_transposed_convolution_with_stride_padding_and_output_padding_by_hand(device):
    x, w = leaf([[[[1, 2]]]], device=device), leaf([[[[1, 10, 100]]]], device=device)
    y = conv_transpose2d(x, w, None, (1, 2), (0, 1), (0, 1))
    # In full 1, 10, 100 + 2, 20, 200; the padding takes the first, the output padding leaves the last.
    np.testing.assert_array_equal(y.numpy(), [[[[10, 102, 20, 200]]]])
    y.backward(np.array([[[[1.0, 2, 3, 4]]]]))
    np.testing.assert_array_equal(grad(x), [[[[10 + 200, 2 + 30 + 400]]]])
    np.testing.assert_array_equal(grad(w), [[[[2 * 2, 1 * 1 + 2 * 3, 1 * 2 + 2 * 4]]]])


def test_the_bias_of_a_transposed_convolution_must_fit():
    x, w = Tensor(np.ones((1, 2, 3, 3))), Tensor(np.ones((2, 4, 2, 2)))
    with pytest.raises(ShapeError, match=r"bias has shape \(1,\), but must have \(4,\)"):
        conv_transpose2d(x, w, Tensor(np.ones(1)))
    with pytest.raises(ShapeError, match="must all be float32 or all be float64, got x float64, bias float32"):
        conv_transpose2d(x, w, Tensor(np.ones(4, np.float32)))


# Logits 0 and ln 3: probabilities 1/4 and 3/4; labels 0, 1, void; weights 2 and 1: losses 2 ln 4, ln(4/3), 0.
LOGITS = np.stack([np.zeros((1, 3)), np.full((1, 3), np.log(3))])[None]
TARGET = np.array([[[0, 1, 255]]], np.uint8)
TOTAL = 2 * np.log(4) + np.log(4 / 3)


@on_every_device
@pytest.mark.parametrize(("reduction", "divisor"), [("mean", 3), ("full", 3), ("batch", 1), ("sum", 1)])
def test_reductions_of_the_loss_by_hand(device, reduction, divisor):
    x = Tensor(LOGITS, requires_grad=True, device=device)
    loss = ops.cross_entropy(x, TARGET, np.array([2.0, 1.0]), reduction=reduction)
    np.testing.assert_allclose(loss.item(), TOTAL / divisor, rtol=1e-14)
    loss.backward()
    expected = np.array([[-2 * 3 / 4, 1 / 4, 0], [2 * 3 / 4, -1 / 4, 0]]) / divisor
    np.testing.assert_allclose(grad(x)[0, :, 0], expected, rtol=1e-14)


@on_every_device
@pytest.mark.parametrize("reduction", ["mean", "full", "batch", "sum"])
def test_a_loss_of_void_pixels_only_is_zero(device, reduction):
    x = Tensor(LOGITS, requires_grad=True, device=device)
    loss = ops.cross_entropy(x, np.full_like(TARGET, 255), reduction=reduction)
    loss.backward()
    assert loss.item() == 0
    np.testing.assert_array_equal(grad(x), np.zeros_like(LOGITS))


def test_a_batch_reduction_divides_by_the_images():
    x = np.concatenate([LOGITS, LOGITS])
    loss = ops.cross_entropy(Tensor(x), np.concatenate([TARGET, TARGET]), np.array([2.0, 1.0]), reduction="batch")
    np.testing.assert_allclose(loss.item(), TOTAL, rtol=1e-14)


def test_caffes_normalisers_by_hand():
    # Zero logits of 2 classes: ln 2 a labelled pixel. 2 images of 3 pixels, 4 labelled: FULL divides by 6, VALID by 4.
    x, target = np.zeros((2, 2, 1, 3)), np.array([[[0, 1, 255]], [[1, 1, 255]]])
    losses = {mode: ops.cross_entropy(Tensor(x), target, reduction=mode).item() / np.log(2) for mode in REDUCTIONS[:-1]}
    assert losses == pytest.approx({"mean": 1, "full": 4 / 6, "batch": 4 / 2, "sum": 4}, rel=1e-14)


@pytest.mark.parametrize("loss", [ops.cross_entropy, lambda *a, **k: ops.upsample_cross_entropy(*a, 1, **k)])
def test_an_unknown_reduction(loss):
    with pytest.raises(MinifcnError, match="reduction \\(='median'\\) must be one of mean, full, batch, sum, none"):
        loss(Tensor(LOGITS), TARGET, reduction="median")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@on_every_device
@given(case=OPS["upsample_cross_entropy"])
def test_the_loss_of_upsampled_scores_is_that_of_the_three_ops(device, dtype, case):
    a = dict(case.arguments)
    factor, padding, offset = (a.pop(name) for name in ("factor", "padding", "offset"))
    rng = np.random.default_rng(case.seed)
    scores = rng.standard_normal(case.shapes["x"]).astype(dtype)
    one, other = (Tensor(scores, requires_grad=True, device=device) for _ in range(2))
    fused = ops.upsample_cross_entropy(one, **case.arguments)
    logits = ops.crop(ops.bilinear_upsample(other, factor, padding), offset, a["target"].shape[1:])
    composed = ops.cross_entropy(logits, **a)
    dy = np.asarray(rng.standard_normal(fused.shape), dtype)
    fused.backward(dy)
    composed.backward(dy)
    limit = 1e-12 if dtype == "float64" else 3e-5
    np.testing.assert_allclose(fused.numpy(), composed.numpy(), rtol=limit, atol=limit)
    np.testing.assert_allclose(grad(one), grad(other), rtol=0, atol=limit * max(1, np.abs(grad(other)).max(initial=0)))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@on_every_device
def test_normalisation_by_hand(device, dtype):
    """alpha / size = 1/3 * 6 = 2, beta = 1/2: s = 1 + 2 (sum of squares): 3, 11, 9 of 1, 0, 2 are 1 + 2, 1 + 10, 9."""
    x = leaf(np.reshape([1.0, 0.0, 2.0], (1, 3, 1, 1)), dtype, device=device)
    y = ops.lrn(x, 3, 6, 0.5, 1)
    expected = [1 / 3**0.5, 0, 2 / 9**0.5]
    np.testing.assert_allclose(y.numpy()[0, :, 0, 0], expected, rtol=1e-6 if dtype == "float32" else 1e-15)


@on_every_device
def test_a_nan_in_normalisation_reaches_its_window_alone(device):
    x = np.ones((2, 9, 2, 2))
    x[1, 4, 0, 1] = np.nan
    touched = np.zeros(x.shape, bool)
    touched[1, 2:7, 0, 1] = True
    np.testing.assert_array_equal(np.isnan(ops.lrn(Tensor(x, device=device)).numpy()), touched)
    leaf_x = leaf(x, device=device)
    ops.lrn(leaf_x).backward(np.ones(x.shape))
    touched[1, :, 0, 1] = True  # an s that is NaN reaches two channels further
    np.testing.assert_array_equal(np.isnan(grad(leaf_x)), touched)


@on_every_device
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 4}, r"size \(=4\) must be an odd number of channels"),
        ({"size": 0}, r"size \(=0\) must be an odd number"),
        ({"size": 2.5}, r"size \(=2.5\) must be an odd number"),
        ({"alpha": -1}, r"alpha \(=-1\) must be at least 0"),
        ({"k": 0}, r"k \(=0\) above 0"),
        ({"k": float("nan")}, r"k \(=nan\) above 0"),
    ],
)
def test_normalisation_refuses_what_has_no_power(device, arguments, message):
    with pytest.raises(ShapeError, match=message):
        ops.lrn(Tensor(np.ones((1, 2, 3, 3)), device=device), **arguments)


@pytest.mark.parametrize(("x", "weight"), [((2, 3), (4, 5)), ((2, 3, 1, 1), (4, 3)), ((2, 3), (4, 3, 1, 1))])
def test_a_linear_layer_of_other_sizes_is_refused(x, weight):
    with pytest.raises(ShapeError, match=r"must be \[N, D\], and weight"):
        ops.linear(Tensor(np.ones(x)), Tensor(np.ones(weight)))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@on_every_device
@given(
    factor=st.tuples(st.integers(1, 4), st.integers(1, 8)),
    window=st.integers(1, 9),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    batch=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_upsampling_with_another_window_is_a_transposed_convolution(device, dtype, factor, window, size, batch, seed):
    """The filter of the formula: 1 - |t - (R - 1) / 2| / ceil(R / 2)."""
    rng = np.random.default_rng(seed)
    t = np.arange(window)
    taps = 1 - abs(t - (window - 1) / 2) / ((window + 1) // 2)
    filters = np.zeros((3, 3, window, window), dtype)
    filters[range(3), range(3)] = np.outer(taps, taps)
    one, other = (leaf(rng.standard_normal((batch, 3, *size)), dtype, device=device) for _ in range(2))
    other.data[...] = one.data
    padding = tuple(int(rng.integers(0, (window + 1) // 2)) for _ in range(2))
    found = ops.bilinear_upsample(one, factor, padding, window)
    expected = conv_transpose2d(other, Tensor(filters, device=device), None, factor, padding)
    dy = rng.standard_normal(found.shape).astype(dtype)
    found.backward(dy)
    expected.backward(dy)
    limit = 1e-13 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=limit * 10)
    np.testing.assert_allclose(grad(one), grad(other), rtol=0, atol=limit * 100)


@on_every_device
def test_a_zero_in_relu_has_no_gradient(device):
    x = leaf([-1, 0, 2], device=device)
    relu(x).backward(np.array([3.0, 3, 3]))
    np.testing.assert_array_equal(grad(x), [0, 0, 3])


@on_every_device
def test_ties_of_overlapping_windows_add_up(device):
    x = leaf(np.zeros((1, 1, 1, 3)), device=device)
    max_pool2d(x, (1, 2), 1).backward(np.array([[[[1.0, 10]]]]))
    np.testing.assert_array_equal(grad(x), [[[[1, 10, 0]]]])


# --- the graph ---


def test_a_tensor_used_twice_receives_both_gradients():
    x = leaf([3.0])
    (x * x + x).backward()
    np.testing.assert_array_equal(grad(x), [2 * 3 + 1])
    y = leaf([2.0])
    (y + y + y).backward()
    np.testing.assert_array_equal(grad(y), [3])


def test_a_diamond():
    x = leaf([2.0])
    a = x * 3.0
    (a * a + a * 5.0).backward()  # d/da = 2a + 5 = 17, da/dx = 3
    np.testing.assert_array_equal(grad(x), [51])
    assert a.grad is None  # only leaves keep gradients


def test_gradients_accumulate_over_calls():
    x = leaf([2.0])
    for _ in range(3):
        (x * 5.0).backward()
    np.testing.assert_array_equal(grad(x), [15])


def test_the_first_accumulation_copies():
    x, y, dy = leaf([1.0, 2]), leaf([3.0, 4]), np.array([1.0, 1])
    (x + y).backward(dy)  # add hands dy on as it is, to both
    dy[:] = 7
    np.testing.assert_array_equal(grad(x), [1, 1])
    assert not np.shares_memory(grad(x), grad(y))
    (x * 2.0).backward(np.ones(2))
    np.testing.assert_array_equal(grad(x), [3, 3])
    np.testing.assert_array_equal(grad(y), [1, 1])
    z = leaf(np.zeros((2, 3)))
    z.sum().backward()  # a gradient of stride 0, which could not be added to in place
    z.sum().backward()
    np.testing.assert_array_equal(grad(z), np.full((2, 3), 2))


@given(
    shapes=mutually_broadcastable_shapes(num_shapes=2, min_dims=0, max_dims=4, min_side=0, max_side=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_broadcasting_sums_the_copies(shapes, seed):
    rng = np.random.default_rng(seed)
    a, b = (leaf(rng.integers(-4, 5, shape)) for shape in shapes.input_shapes)
    dy = rng.integers(-4, 5, shapes.result_shape).astype(np.float64)

    def folded(gradient, shape):
        """The sum over every index that reads one element: by hand, element after element."""
        total = np.zeros(shape)
        for index in np.ndindex(gradient.shape):
            own = index[len(index) - len(shape) :]
            total[tuple(0 if size == 1 else i for i, size in zip(own, shape, strict=True))] += gradient[index]
        return total

    (a + b).backward(dy)
    np.testing.assert_array_equal(grad(a), folded(dy, a.shape))
    np.testing.assert_array_equal(grad(b), folded(dy, b.shape))
    a.grad = b.grad = None
    (a * b).backward(dy)
    np.testing.assert_array_equal(grad(a), folded(dy * b.numpy(), a.shape))
    np.testing.assert_array_equal(grad(b), folded(dy * a.numpy(), b.shape))


def test_arithmetic_with_numbers_and_arrays_keeps_the_dtype():
    x = leaf([1.0, 2], np.float32)
    y = (1 - x) / 2 + np.array([3.0, 4]) * x - x**2 + 1 / x
    np.testing.assert_allclose(y.numpy(), [0 + 3 - 1 + 1, -0.5 + 8 - 4 + 0.5])
    assert y.dtype == np.float32
    y.backward(np.ones(2))
    np.testing.assert_allclose(grad(x), [-0.5 + 3 - 2 - 1, -0.5 + 4 - 4 - 0.25])
    assert grad(x).dtype == np.float32
    np.testing.assert_array_equal((-x).numpy(), [-1, -2])
    np.testing.assert_allclose(x.exp().log().mean().item(), 1.5, rtol=1e-6)
    assert x.reshape(2, 1).shape == (2, 1)


def test_no_grad_records_nothing():
    x = leaf([1.0])
    with no_grad():
        y = x * 2.0
        assert not y.requires_grad
        assert y.op is None
    assert (x * 2.0).requires_grad
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert (x * 2.0).requires_grad


def test_detach_cuts_the_graph_and_shares_the_memory():
    x = leaf([1.0])
    y = (x * 2.0).detach()
    assert not y.requires_grad
    assert np.shares_memory(x.detach().numpy(), x.numpy())


def test_only_what_is_wanted_is_computed():
    def refuse(*arguments):
        raise AssertionError("nobody asked for it")

    x, w = Tensor(np.ones((1, 1, 3, 3))), leaf(np.ones((1, 1, 2, 2)))
    with replaced("cpu", conv2d_backward_input=refuse):
        conv2d(x, w).sum().backward()
    assert x.grad is None
    np.testing.assert_array_equal(grad(w), np.full((1, 1, 2, 2), 4))


def test_a_graph_of_five_thousand_nodes():
    x = leaf([1.0])
    y = x
    for _ in range(5000):
        y = y + 1.0
    y.backward()
    np.testing.assert_array_equal(grad(x), [1])


def test_an_op_of_ones_own():
    class Cube(Op):
        def forward(self, x):
            self.x = x
            return x**3

        def backward(self, dy):
            return (3 * dy * self.x**2,)

    x = leaf([2.0])
    Cube()(x).backward()
    np.testing.assert_array_equal(grad(x), [12])
    op = Cube().on("reference")
    assert op.forward(np.array([2.0])) == 8
    assert op.backward(np.array([1.0])) == (12,)


# --- what is refused ---


def test_backward_of_many_elements_needs_dy():
    with pytest.raises(MinifcnError, match="of a tensor of shape \\(2,\\) needs an upstream gradient dy"):
        (leaf([1.0, 2]) * 2.0).backward()


def test_dy_of_another_shape():
    with pytest.raises(MinifcnError, match="dy has shape \\(3,\\), but the tensor has \\(2,\\)"):
        (leaf([1.0, 2]) * 2.0).backward(np.ones(3))


def test_backward_without_a_graph():
    with pytest.raises(MinifcnError, match="does not require gradients"):
        (Tensor([1.0]) * 2.0).backward()


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_integers_have_no_gradient(dtype):
    with pytest.raises(MinifcnError, match="requires_grad needs float32 or float64, but the array is"):
        Tensor(np.ones(3, dtype), requires_grad=True)


def test_tensors_of_two_devices():
    with pytest.raises(DeviceError, match="got tensors of devices 'cpu' and 'reference'"):
        leaf([1.0]) + Tensor(np.ones(1), device="reference")


def test_an_unknown_device():
    message = "device 'tpu' is not known; the devices of this version are cpu, reference, cuda-sim, cuda"
    with pytest.raises(DeviceError, match=message):
        Tensor([1.0], device="tpu")
    with pytest.raises(DeviceError, match=message):
        Tensor([1.0]).to("tpu")


@pytest.mark.parametrize("name", ["cuda", "cuda-sim"])
def test_a_device_that_this_machine_lacks(name, monkeypatch):
    def absent():
        raise ExecutorError(f"device {name!r} needs a thing")

    monkeypatch.setattr(minifcn.device, "_DEVICES", {})
    monkeypatch.setitem(cuda.EXECUTORS, name, absent)
    cuda.kernels_of.cache_clear()
    with pytest.raises(DeviceError, match=f"device '{name}' needs a thing"):
        Tensor([1.0]).to(name)


def test_a_kernel_that_a_device_lacks():
    with pytest.raises(DeviceError, match="device 'cpu' has no kernel 'fft'; it has "):
        get_device("cpu").kernel("fft")


def test_moving_between_devices():
    x = leaf([1.0, 2])
    y = x.to("reference")
    assert (y.device, y.requires_grad, x.to("cpu") is x) == ("reference", True, True)
    np.testing.assert_array_equal(y.numpy(), x.numpy())


# --- convolution, ReLU and pooling in one ---


@on_every_device
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("needs", [(True, True, True), (False, True, False), (True, False, True), (False, False, True)])
@pytest.mark.parametrize(
    ("fused", "pool"),
    [
        (ops.conv2d_relu, lambda y: y),
        (ops.conv2d_relu_max_pool2d, lambda y: ops.max_pool2d(y, 2)),
        (
            lambda *leaves, padding: ops.conv2d_relu_max_pool2d(*leaves, padding=padding, ceil_mode=True),
            lambda y: ops.max_pool2d(y, 2, ceil_mode=True),
        ),
    ],
    ids=["relu", "pooled", "ceiling"],
)
def test_convolution_and_relu_in_one_are_the_two_one_by_one(device, fused, pool, with_bias, needs):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in ((2, 3, 7, 6), (9, 3, 3, 3), (9,))][: 2 + with_bias]
    if not any(needs[: len(arrays)]):
        return

    def run(function):
        leaves = [Tensor(a.copy(), requires_grad=need, device=device) for a, need in zip(arrays, needs, strict=False)]
        y = function(*leaves)
        y.backward(np.random.default_rng(1).standard_normal(y.shape))
        return [y.numpy(), *(None if leaf.grad is None else leaf.grad.numpy() for leaf in leaves)]

    together = run(lambda *leaves: fused(*leaves, padding=1))
    one_by_one = run(lambda *leaves: pool(relu(conv2d(*leaves, padding=1))))
    for one, other in zip(together, one_by_one, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    assert (together[0] == 0).any() or fused is not ops.conv2d_relu


@pytest.mark.parametrize("name", PARTS)
def test_a_replaced_part_takes_convolution_and_relu_apart(name):
    true, called = get_device("cpu").kernel(name), []

    def watched(*arguments):
        called.append(name)
        return true(*arguments)

    x, w, b = (Tensor(np.ones(shape), requires_grad=True) for shape in ((1, 1, 3, 3), (1, 1, 2, 2), (1,)))
    with replaced("cpu", **{name: watched}):
        ops.conv2d_relu(x, w, b).sum().backward()
    assert called == [name]
    ops.conv2d_relu(x, w, b).sum().backward()
    assert called == [name]


@pytest.mark.parametrize("name", PARTS_WITH_POOL)
def test_a_replaced_part_takes_the_pooling_apart(name):
    true, called = get_device("cpu").kernel(name), []

    def watched(*arguments):
        called.append(name)
        return true(*arguments)

    x, w, b = (Tensor(np.ones(shape), requires_grad=True) for shape in ((1, 1, 5, 4), (1, 1, 2, 2), (1,)))
    expected = ops.conv2d_relu_max_pool2d(x, w, b, ceil_mode=True)
    with replaced("cpu", **{name: watched}):
        y = ops.conv2d_relu_max_pool2d(x, w, b, ceil_mode=True)
        y.sum().backward()
    np.testing.assert_array_equal(y.numpy(), expected.numpy())
    assert called == [name]
    ops.conv2d_relu_max_pool2d(x, w, b).sum().backward()
    assert called == [name]


# --- replaced kernels ---


def test_a_replaced_kernel_is_used_and_put_back():
    def doubled(x):
        return 2 * x

    x = Tensor(np.array([1.0]))
    with replaced("cpu", relu_forward=doubled):
        assert relu(x).item() == 2
        with replaced("cpu", scale_forward=lambda x, factor: x * 0):
            assert relu(x).item() == 2
            assert (-x).item() == 0
        assert (-x).item() == -1
        assert relu(Tensor(np.array([1.0]), device="reference")).item() == 1
    assert relu(x).item() == 1


def test_a_replaced_kernel_is_put_back_after_an_error():
    with pytest.raises(ZeroDivisionError), replaced("cpu", relu_forward=lambda x: 1 / 0):
        relu(Tensor([1.0]))
    assert relu(Tensor([1.0])).item() == 1
    assert get_device("cpu").replacements == {}


def test_a_kernel_that_does_not_exist_cannot_be_replaced():
    with pytest.raises(DeviceError, match="has no kernel 'relu9'"), replaced("cpu", relu9=abs):
        pass
    assert get_device("cpu").replacements == {}


# --- arrays of other libraries ---


def test_dlpack_shares_memory_with_numpy():
    x = Tensor(np.arange(6.0).reshape(2, 3))
    array = np.from_dlpack(x)
    assert np.shares_memory(array, x.numpy())
    back = from_dlpack(array, requires_grad=True)
    assert back.requires_grad
    assert np.shares_memory(back.numpy(), x.numpy())


def test_dlpack_shares_memory_with_torch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    theirs = torch.from_dlpack(x)
    theirs[0, 0] = 9
    assert x.numpy()[0, 0] == 9
    ours = from_dlpack(theirs)
    assert ours.dtype == np.float32
    assert np.shares_memory(ours.numpy(), x.numpy())


def test_numpy_sees_a_tensor_as_an_array():
    x = Tensor(np.arange(3.0))
    assert np.shares_memory(np.asarray(x), x.numpy())
    assert not np.shares_memory(np.array(x), x.numpy())
    assert np.asarray(x, np.float32).dtype == np.float32
    assert np.asarray(x).dtype == np.float64
    with pytest.raises(ValueError, match=r"cannot be seen as .*float32.* without a copy"):
        x.__array__(np.float32, copy=False)


def test_numbers_and_lists_become_float32():
    assert Tensor(3).dtype == np.float32
    assert Tensor([1, 2]).dtype == np.float32
    assert Tensor(np.arange(2)).dtype == np.int64
    assert (Tensor(3.0).item(), len(Tensor([1, 2])), Tensor([[1, 2]]).ndim, Tensor([[1, 2]]).size) == (3, 2, 2, 2)
    assert repr(Tensor([1.0])) == "Tensor(array([1.], dtype=float32), device='cpu', requires_grad=False)"


def test_an_array_times_a_tensor_is_a_tensor():
    x = leaf([1.0, 2])
    y = np.array([3.0, 4]) * x
    assert isinstance(y, Tensor)
    np.testing.assert_array_equal(y.numpy(), [3, 8])
