"""The ops against PyTorch in float64, forward and all gradients, over the geometry that both know."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minifcn import Tensor, ops
from minifcn.gradcheck import OPS
from minifcn.kernels import cpu, reference

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
F = torch.nn.functional
pytestmark = pytest.mark.torch


def conv2d(x, weight, bias=None, **a):
    return F.conv2d(x, weight, bias, **a)


def conv_transpose2d(x, weight, bias=None, **a):
    return F.conv_transpose2d(x, weight, bias, **a)


def cross_entropy(x, target, weight, ignore_index, reduction):
    target = torch.from_numpy(target.astype(np.int64))
    weight = None if weight is None else torch.from_numpy(weight)
    if reduction == "mean" and (target == ignore_index).all():
        return 0 * x.sum()  # the mean of no pixels: PyTorch says NaN, we say 0
    if reduction == "batch":
        return F.cross_entropy(x, target, weight, ignore_index=ignore_index, reduction="sum") / max(1, len(x))
    if reduction == "full":
        return F.cross_entropy(x, target, weight, ignore_index=ignore_index, reduction="sum") / max(1, target.numel())
    return F.cross_entropy(x, target, weight, ignore_index=ignore_index, reduction=reduction)


def bilinear_upsample(x, factor, padding):
    """A grouped transposed convolution with the filter of Caffe: a triangle, worked out in two dimensions."""
    window = [2 * f - f % 2 for f in factor]
    padding = [f // 2 for f in factor] if padding is None else padding

    def triangle(size, f):
        i = torch.arange(size, dtype=torch.float64)
        return 1 - torch.abs(i / f - (2 * f - 1 - f % 2) / (2.0 * f))

    weight = triangle(window[0], factor[0])[:, None] * triangle(window[1], factor[1])
    weight = weight.expand(x.shape[1], 1, *window)
    return F.conv_transpose2d(x, weight, None, factor, padding, groups=x.shape[1])


def crop(x, offset, size):
    return x[:, :, offset[0] : offset[0] + size[0], offset[1] : offset[1] + size[1]]


def upsample_cross_entropy(x, target, factor, padding, offset, **rest):
    return cross_entropy(crop(bilinear_upsample(x, factor, padding), offset, target.shape[1:]), target, **rest)


THEIRS = {
    "conv2d": conv2d,
    "conv2d_relu": lambda *tensors, **a: F.relu(conv2d(*tensors, **a)),
    "conv2d_relu_max_pool2d": lambda *tensors, ceil_mode, **a: F.max_pool2d(
        F.relu(conv2d(*tensors, **a)), 2, ceil_mode=ceil_mode
    ),
    "conv_transpose2d": conv_transpose2d,
    "linear": F.linear,
    "max_pool2d": F.max_pool2d,
    "avg_pool2d": F.avg_pool2d,
    "lrn": F.local_response_norm,
    "bilinear_upsample": bilinear_upsample,
    "relu": F.relu,
    "cross_entropy": cross_entropy,
    "upsample_cross_entropy": upsample_cross_entropy,
    "add": torch.add,
    "subtract": torch.subtract,
    "multiply": torch.multiply,
    "divide": torch.divide,
    "exp": torch.exp,
    "log": torch.log,
    "power": torch.pow,
    "reshape": torch.reshape,
    "scale": lambda x, factor: x * factor,
    "crop": crop,
    "crop_sum": lambda x, skip, offset: x + crop(skip, offset, x.shape[2:]),
    "sum": lambda x, axis, keepdims: torch.sum(x, axis, keepdims) if x.ndim else x.sum(),
    "mean": lambda x, axis, keepdims: torch.mean(x, axis, keepdims) if x.ndim else x.mean(),
}


def torch_knows(op, case):
    """PyTorch pads a pooling by at most half its window."""
    if op in ("max_pool2d", "avg_pool2d"):
        a = case.arguments
        return all(2 * p <= k for p, k in zip(a["padding"], a["kernel_size"], strict=True))
    return True


def near(ours, theirs, what):
    scale = np.abs(theirs).max(initial=1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10 * scale, err_msg=what)


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("op", list(THEIRS))
@given(data=st.data())
def test_op_agrees_with_torch(op, device, data):
    case = data.draw(OPS[op].filter(lambda case: torch_knows(op, case)))
    assume(case.shapes[next(iter(case.shapes))][:1] != (0,))  # empty batches have tests of their own
    rng = np.random.default_rng(case.seed)
    arrays = [case.fill(rng, shape) for shape in case.shapes.values()]
    ours = [Tensor(array, requires_grad=True, device=device) for array in arrays]
    theirs = [torch.from_numpy(array.copy()).requires_grad_() for array in arrays]
    y, y_theirs = case.function(*ours), THEIRS[op](*theirs, **case.arguments)
    assert y.shape == tuple(y_theirs.shape)
    near(y.numpy(), y_theirs.detach().numpy(), "y")
    dy = np.asarray(rng.standard_normal(y.shape))
    y.backward(dy)
    y_theirs.backward(torch.from_numpy(dy))
    for name, x, x_theirs in zip(case.shapes, ours, theirs, strict=True):
        near(x.grad.numpy(), x_theirs.grad.numpy(), f"d{name}")


def test_every_op_but_dropout_has_its_counterpart():
    assert {name for name in ops.__all__ if name[0].islower()} - set(THEIRS) == {"dropout"}


@given(shape=st.sampled_from([(1, 1, 5, 5), (2, 3, 6, 7)]), seed=st.integers(0, 2**32 - 1))
def test_ties_in_max_pooling_agree_with_torch(shape, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, shape).astype(np.float64)
    ours, theirs = Tensor(x, requires_grad=True), torch.from_numpy(x.copy()).requires_grad_()
    y, y_theirs = ops.max_pool2d(ours, 3, 2, 1), F.max_pool2d(theirs, 3, 2, 1)
    dy = rng.standard_normal(y.shape)
    y.backward(dy)
    y_theirs.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-12)


def test_nan_in_max_pooling_agrees_with_torch():
    # the values only: of several NaN in a window PyTorch takes the last one, we the first
    rng = np.random.default_rng(0)
    x = np.where(rng.random((2, 3, 6, 7)) < 0.2, np.nan, rng.standard_normal((2, 3, 6, 7)))
    y = ops.max_pool2d(Tensor(x), 3, 2, 1).numpy()
    assert np.isnan(y).any()
    np.testing.assert_array_equal(y, F.max_pool2d(torch.from_numpy(x), 3, 2, 1).numpy())


STEPS = [0.3, 0.1, 0.1, 0.03]
kernels_of_both = pytest.mark.parametrize("kernels", [reference, cpu], ids=["reference", "cpu"])


def follow(optimizer, w, step):
    """Run PyTorch's optimiser and ours over the same gradients, and compare the weights after each step."""
    rng = np.random.default_rng(5)
    ours = w.detach().numpy().copy()
    for count, lr in enumerate(STEPS, start=1):
        g = rng.standard_normal(ours.shape)
        w.grad = torch.from_numpy(g.copy())
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        step(ours, g, lr, count)
        np.testing.assert_allclose(ours, w.detach().numpy(), rtol=1e-10, atol=1e-12)


def start():
    return torch.from_numpy(np.random.default_rng(4).standard_normal((3, 4))).requires_grad_()


@kernels_of_both
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_sgd_agrees_with_torch_over_changing_rates(kernels, momentum, weight_decay):
    w, velocity = start(), np.zeros((3, 4))
    optimizer = torch.optim.SGD([w], lr=1, momentum=momentum, weight_decay=weight_decay)
    follow(
        optimizer,
        w,
        lambda ours, g, lr, _: kernels.sgd_step(ours, g, velocity, lr, momentum, weight_decay, "pytorch"),
    )


@kernels_of_both
@pytest.mark.parametrize("decoupled", [False, True], ids=["Adam", "AdamW"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_adam_agrees_with_torch_over_changing_rates(kernels, decoupled, weight_decay):
    w, mean, square = start(), np.zeros((3, 4)), np.zeros((3, 4))
    make = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer = make([w], lr=1, betas=(0.8, 0.99), eps=1e-3, weight_decay=weight_decay)

    def step(ours, g, lr, count):
        kernels.adam_step(ours, g, mean, square, lr, (0.8, 0.99), 1e-3, weight_decay, count, decoupled)

    follow(optimizer, w, step)
