"""Whole networks against PyTorch: an FCN written from the paper, with its offsets typed in, on the same weights.

Nothing of minifcn is used on PyTorch's side. Its sizes come from the released nets: pad 100 with the crops 19; 5, 27;
5, 9, 31, or half-window padding with no crop but the surplus at the end.
"""

import gc

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is the yardstick here")

import minifcn  # noqa: E402
from minifcn import Tensor  # noqa: E402
from minifcn.kernels.settings import settings as kernel_settings  # noqa: E402
from minifcn.models import build  # noqa: E402
from minifcn.optim import SGD  # noqa: E402

pytestmark = pytest.mark.torch

F = torch.nn.functional
BLOCKS = {"small": (1, 1, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3)}
CLASSES = 6


@pytest.fixture(autouse=True)
def _one_thread():
    """Beside another busy process, PyTorch's OpenMP team of two was measured 10 to 50 times slower than one thread."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def bilinear_kernel(channels: int, factor: int, dtype) -> torch.Tensor:
    """[channels, 1, 2F, 2F]: tap i of an axis is the overlap weight of a triangle of half-width F, F even."""
    ramp = (torch.arange(factor, dtype=torch.float64) + 0.5) / factor
    tap = torch.cat([ramp, ramp.flip(0)])
    return torch.outer(tap, tap).to(dtype).expand(channels, 1, -1, -1)


def torch_fcn(weights: dict, stride: int, backbone: str, padded: bool, scales: tuple[float, float] = (1, 1)):
    """A function images -> logits over the tensors `weights`, which carry the names of the released nets."""

    def conv(x, name, padding=0):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)

    def upsample(x, factor):
        kernel = bilinear_kernel(x.shape[1], factor, x.dtype)
        return F.conv_transpose2d(x, kernel, stride=factor, padding=0 if padded else factor // 2, groups=x.shape[1])

    def add(coarse, skip, offset):
        """Padded: the skip is larger and is cropped; else the upsampled map has at most a row too many at the end."""
        if padded:
            height, width = coarse.shape[2:]
            return coarse + skip[:, :, offset : offset + height, offset : offset + width]
        height, width = skip.shape[2:]
        return coarse[:, :, :height, :width] + skip

    def forward(x):
        height, width = x.shape[2:]
        pools = []
        for b, depth in enumerate(BLOCKS[backbone], 1):
            for i in range(1, depth + 1):
                first = padded and b == i == 1
                x = F.relu(conv(x, f"conv{b}_{i}", 100 if first else 1))
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            pools.append(x)
        x = F.relu(conv(x, "fc6", 0 if padded else 3))
        x = F.relu(conv(x, "fc7"))
        x = conv(x, "score_fr")
        if stride <= 16:
            x = add(upsample(x, 2), conv(pools[3] * scales[0], "score_pool4"), 5)
        if stride <= 8:
            x = add(upsample(x, 2), conv(pools[2] * scales[1], "score_pool3"), 9)
        x = upsample(x, stride)
        start = {32: 19, 16: 27, 8: 31}[stride] if padded else 0
        return x[:, :, start : start + height, start : start + width]

    return forward


def randomise_scores(net, scale: float, seed: int = 0) -> None:
    """Score layers start at zero; give them something to be compared by."""
    rng = np.random.default_rng(seed)
    for name, parameter in net.named_parameters():
        if name.startswith("score_"):
            parameter.data[...] = rng.standard_normal(parameter.shape) * scale


def shared_weights(net) -> dict:
    return {name: torch.tensor(array) for name, array in net.state_dict().items()}


# --- training ----------------------------------------------------------------------------------------------------


def batches(count, dtype, size=(96, 128), batch=2):
    """Noise with a smooth pattern under it that the labels follow, so that the loss falls; a tenth is void."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for _ in range(count):
        phase = rng.uniform(0, 6, (batch, 1, 1))
        wave = np.sin(rows / 15 + phase) + np.cos(columns / 19 - phase)  # in -2..2
        target = np.clip(((wave + 2) / 4 * CLASSES).astype(int), 0, CLASSES - 1)
        target[rng.random(target.shape) < 0.1] = 255
        noise = rng.standard_normal((batch, 3, *size))
        yield (wave[:, None] / 2 + noise / 2).astype(dtype), target


def train_ours(net, data, lr):
    optimizer = SGD(dict(net.named_parameters()), momentum=0.9, weight_decay=5e-4)
    losses = []
    for x, target in data:
        net.zero_grad()
        loss = minifcn.cross_entropy(net(Tensor(x)), target)
        loss.backward()
        optimizer.step(lr)
        losses.append(loss.item())
    return np.array(losses)


def train_torch(forward, weights, data, lr):
    for weight in weights.values():
        weight.requires_grad_()
    optimizer = torch.optim.SGD(weights.values(), lr=lr, momentum=0.9, weight_decay=5e-4)
    losses = []
    for x, target in data:
        optimizer.zero_grad()
        loss = F.cross_entropy(forward(torch.from_numpy(x)), torch.from_numpy(target), ignore_index=255)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def train_both(geometry, dtype, data, lr, width=1.0):
    """(our losses, PyTorch's losses) from the same weights on the same batches."""
    net = build("fcn8s", backbone="small", classes=CLASSES, geometry=geometry, dropout=0, dtype=dtype, width=width)
    randomise_scores(net, 0.02)
    weights = shared_weights(net)
    expected = train_torch(torch_fcn(weights, 8, "small", geometry == "pad100"), weights, data, lr)
    return train_ours(net, data, lr), expected


@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 1e-4), (np.float64, 1e-9)])
def test_fifty_steps_of_training_give_the_same_losses(dtype, limit):
    """The rate keeps float32 from chaos: at 0.003 PyTorch's own float32 and float64 differ by 5e-3 in the end.

    Measured: 3e-6 in float32, 4e-16 in float64.
    """
    found, expected = train_both("exact", dtype, list(batches(50, dtype)), lr=5e-4)
    off = float(np.max(np.abs(found - expected) / expected))
    assert expected[-10:].mean() < 0.8 * expected[0]  # it did learn
    assert off < limit


def test_training_with_pad_100_gives_the_same_losses():
    """The zero frame starts on ReLU's kink: in float64 alone, as float32 flips thousands of pixels at once, and without
    Winograd, which makes a rounding error of 0 where the frame shares a tile with the image."""
    data = list(batches(15, np.float64, size=(48, 64)))
    with kernel_settings.using(convolution="exact"):
        found, expected = train_both("pad100", np.float64, data, lr=2e-3, width=0.5)
    off = float(np.max(np.abs(found - expected) / expected))
    assert expected[-1] < 0.98 * expected[0]
    assert off < 1e-9


def test_the_comparison_sees_another_update_rule():
    """Weight decay left out moves the losses by more than the float64 limit."""
    data = list(batches(5, np.float64, size=(32, 32)))
    net = build("fcn32s", backbone="small", classes=CLASSES, dropout=0, dtype=np.float64, width=0.3)
    randomise_scores(net, 0.02)
    state = {name: array.copy() for name, array in net.state_dict().items()}
    losses = []
    for decay in (5e-4, 0):
        net.load_state_dict(state)
        optimizer = SGD(dict(net.named_parameters()), momentum=0.9, weight_decay=decay)
        for x, target in data:
            net.zero_grad()
            loss = minifcn.cross_entropy(net(Tensor(x)), target)
            loss.backward()
            optimizer.step(1e-2)
        losses.append(loss.item())
    assert abs(losses[0] - losses[1]) > 2e-8 * losses[0]


@pytest.mark.parametrize("geometry", ["exact", "pad100"])
@pytest.mark.parametrize(("model", "stride"), [("fcn32s", 32), ("fcn16s", 16), ("fcn8s", 8), ("fcn8s-at-once", 8)])
def test_logits_and_gradients_of_every_model(model, stride, geometry):
    """Float64, odd sizes, every parameter."""
    net = build(model, backbone="small", classes=CLASSES, geometry=geometry, dropout=0, dtype=np.float64, width=0.3)
    randomise_scores(net, 0.2)
    weights = {name: weight.requires_grad_() for name, weight in shared_weights(net).items()}
    scales = (0.01, 0.0001) if model == "fcn8s-at-once" else (1, 1)
    rng = np.random.default_rng(2)
    x, upstream = rng.standard_normal((2, 3, 67, 45)), rng.standard_normal((2, CLASSES, 67, 45))
    logits = torch_fcn(weights, stride, "small", geometry == "pad100", scales)(torch.from_numpy(x))
    logits.backward(torch.from_numpy(upstream))
    ours = net(Tensor(x))
    ours.backward(upstream)
    pairs = {"logits": (ours.numpy(), logits)}
    pairs |= {name: (parameter.grad.numpy(), weights[name].grad) for name, parameter in net.named_parameters()}
    for name, (found, expected) in pairs.items():
        expected = expected.detach().numpy()
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize("wrong", [{"stride": 16}, {"padded": False}, {"scales": (0.01, 0.0001)}])
def test_the_comparison_sees_another_network(wrong):
    net = build("fcn8s", backbone="small", classes=CLASSES, geometry="pad100", dropout=0, width=0.3)
    randomise_scores(net, 0.2)
    x = np.random.default_rng(3).standard_normal((1, 3, 64, 64)).astype(np.float32)
    forward = torch_fcn(shared_weights(net), **{"stride": 8, "backbone": "small", "padded": True} | wrong)
    expected = forward(torch.from_numpy(x)).numpy()
    assert np.abs(net(Tensor(x)).numpy() - expected).max() > 1e-2 * np.abs(expected).max()


# --- full width --------------------------------------------------------------------------------------------------


def test_logits_of_fcn8s_on_vgg16_at_full_width():
    """134 million weights, both geometries on the same ones, 97x131 pixels, float32."""
    nets = {"pad100": build("fcn8s", backbone="vgg16", geometry="pad100", classes=CLASSES).eval()}
    randomise_scores(nets["pad100"], 0.02)
    x = np.random.default_rng(4).standard_normal((1, 3, 97, 131)).astype(np.float32)
    # The other geometry takes over the very arrays: 0.5 GB need not be held twice.
    nets["exact"] = build("fcn8s", backbone="vgg16", geometry="exact", classes=CLASSES, width=1e-3).eval()
    own = dict(nets["exact"].named_parameters())
    for name, parameter in nets["pad100"].named_parameters():
        own[name].data = parameter.data
    weights = {name: torch.from_numpy(array) for name, array in nets["pad100"].state_dict().items()}
    for geometry, net in nets.items():
        with torch.no_grad():
            expected = torch_fcn(weights, 8, "vgg16", geometry == "pad100")(torch.from_numpy(x)).numpy()
        with minifcn.no_grad():
            found = net(Tensor(x)).numpy()
        off = float(np.abs(found - expected).max() / np.abs(expected).max())
        assert off < 1e-4
    del nets, weights, own
    gc.collect()
