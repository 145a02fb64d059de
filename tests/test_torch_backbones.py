"""Every backbone against PyTorch, as classifier and as FCN: nets written out from the papers, on the same weights.

Nothing of minifcn is used on PyTorch's side: layers, paddings and crops are typed in.
"""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is the yardstick here")

from minifcn import Tensor, no_grad  # noqa: E402
from minifcn.models import build  # noqa: E402
from minifcn.weights import convert  # noqa: E402

pytestmark = pytest.mark.torch

F = torch.nn.functional
CLASSES = 7
DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg11": (1, 1, 2, 2, 2)}
SIZES = {"vgg16": 224, "vgg11": 224, "alexnet": 227}


@pytest.fixture(autouse=True)
def _one_thread():
    """Beside another busy process, PyTorch's OpenMP team of two was measured 10 to 50 times slower than one thread."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def conv(weights, x, name, **window):
    return F.relu(F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **window))


def vgg_features(weights, x, backbone, first=1, exact=False):
    for b, depth in enumerate(DEPTHS[backbone], 1):
        for i in range(1, depth + 1):
            x = conv(weights, x, f"conv{b}_{i}", padding=first if b == i == 1 else 1)
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
    return x


def alexnet_features(weights, x, backbone, first=0, exact=False):
    def pool(x):
        return F.max_pool2d(x, 3, 2, padding=1) if exact else F.max_pool2d(x, 3, 2, ceil_mode=True)

    def norm(x):
        return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)

    x = norm(pool(conv(weights, x, "conv1", stride=4, padding=5 if exact else first)))
    x = norm(pool(conv(weights, x, "conv2", padding=2, groups=2)))
    x = conv(weights, x, "conv3", padding=1)
    x = conv(weights, x, "conv4", padding=1, groups=2)
    return pool(conv(weights, x, "conv5", padding=1, groups=2))


FEATURES = {"vgg16": vgg_features, "vgg11": vgg_features, "alexnet": alexnet_features}


def classify(weights, x, backbone):
    x = FEATURES[backbone](weights, x, backbone).flatten(1)
    for name in ("fc6", "fc7"):
        x = F.relu(F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"]))
    return F.linear(x, weights["fc8.weight"], weights["fc8.bias"])


# (padding of fc6, rows of the deconvolution, its padding, crop)
HEADS = {
    ("vgg", "exact"): (3, 64, 16, 0),
    ("vgg", "pad100"): (0, 64, 0, 19),
    ("alexnet", "exact"): (3, 63, 0, 47),
    ("alexnet", "pad100"): (0, 63, 0, 18),
}


def segment(weights, image, backbone, geometry):
    """FCN-32s."""
    fc6_padding, rows, padding, start = HEADS[backbone.rstrip("16"), geometry]
    pads = {"first": 100} if geometry == "pad100" else {"exact": True}
    x = FEATURES[backbone](weights, image, backbone, **pads)
    x = conv(weights, conv(weights, x, "fc6", padding=fc6_padding), "fc7")
    x = F.conv2d(x, weights["score_fr.weight"], weights["score_fr.bias"])
    taps = 1 - (torch.arange(rows, dtype=x.dtype) - (rows - 1) / 2).abs() / 32
    kernel = torch.outer(taps, taps).expand(CLASSES, 1, -1, -1)
    x = F.conv_transpose2d(x, kernel, stride=32, padding=padding, groups=CLASSES)
    return x[:, :, start : start + image.shape[2], start : start + image.shape[3]]


def randomised(net):
    """`net` without dropout, its biases and last layers random as well."""
    rng = np.random.default_rng(5)
    for name, parameter in net.named_parameters():
        if name.endswith("bias") or name.startswith(("fc8", "score_")):
            parameter.data[...] = rng.standard_normal(parameter.shape) / 8
    return net.eval()


def weights_of(net):
    return {name: torch.from_numpy(array) for name, array in net.state_dict().items()}


def off(found, expected):
    """The largest difference, relative to the largest number."""
    assert found.shape == tuple(expected.shape)
    expected = expected.detach().numpy()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def image(backbone, size, batch=1, dtype=np.float32, scale=1):
    rng = np.random.default_rng(3)
    return (scale * rng.standard_normal((batch, 3, *size))).astype(dtype)


# Numbers of hundreds, as of images without division, so that normalisation matters: with ones it changes 1e-5.
@pytest.mark.parametrize("backbone", SIZES)
def test_classifiers_score_as_pytorchs_do(backbone):
    net = randomised(build("classifier", backbone=backbone, classes=CLASSES, width=0.1))
    x = image(backbone, (SIZES[backbone],) * 2, 2, scale=100)
    with no_grad(), torch.no_grad():
        assert off(net(Tensor(x)).numpy(), classify(weights_of(net), torch.from_numpy(x), backbone)) < 1e-4


@pytest.mark.parametrize("geometry", ["exact", "pad100"])
@pytest.mark.parametrize("deconv", ["fixed", "learned"])
@pytest.mark.parametrize("backbone", SIZES)
def test_fcns_score_as_pytorchs_do(backbone, deconv, geometry):
    settings = {"backbone": backbone, "classes": CLASSES, "geometry": geometry, "deconv": deconv, "fc": 40}
    net = randomised(build("fcn32s", width=0.1, **settings))
    x = image(backbone, (131, 97), scale=100)
    with no_grad(), torch.no_grad():
        assert off(net(Tensor(x)).numpy(), segment(weights_of(net), torch.from_numpy(x), backbone, geometry)) < 1e-4


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("model", ["classifier", "fcn32s"])
@pytest.mark.parametrize("backbone", SIZES)
def test_files_that_torch_wrote(backbone, model, suffix, tmp_path):
    """Random weights of PyTorch's under Caffe's names, through a file: what is made of it scores as PyTorch does."""
    saved = pytest.importorskip("safetensors.torch").save_file if suffix == "safetensors" else torch.save
    settings = {"backbone": backbone, "classes": CLASSES, "width": 0.1}
    shapes = {name: array.shape for name, array in build(model, **settings).state_dict().items()}
    generator = torch.Generator().manual_seed(2)
    weights = {
        name: torch.randn(shape, generator=generator) * (2 / max(1, np.prod(shape[1:]))) ** 0.5
        for name, shape in shapes.items()
    }
    saved(weights, tmp_path / f"net.{suffix}")
    done = convert(tmp_path / f"net.{suffix}", model, colors="rgb", mean=(0, 0, 0), std=1, **settings)
    assert done.new_layers == []
    x = image(backbone, (SIZES[backbone],) * 2 if model == "classifier" else (131, 97), scale=100)
    with no_grad(), torch.no_grad():
        found, theirs = done.network.eval()(Tensor(x)).numpy(), torch.from_numpy(x)
        if model == "classifier":
            expected = classify(weights, theirs, backbone)
        else:
            expected = segment(weights, theirs, backbone, "exact")
    assert off(found, expected) < 1e-4


@pytest.mark.parametrize("geometry", ["exact", "pad100", "classifier"])
def test_gradients_of_alexnet(geometry):
    """Float64, every parameter, through groups, overlapping windows and normalisation."""
    of = {"backbone": "alexnet", "classes": CLASSES, "width": 0.05, "fc": 20, "dtype": np.float64}
    is_fcn = geometry != "classifier"
    net = randomised(build("fcn32s", geometry=geometry, **of) if is_fcn else build("classifier", **of))
    x = image("alexnet", (75, 141) if is_fcn else (227, 227), dtype=np.float64, scale=100)
    weights = {name: weight.clone().requires_grad_() for name, weight in weights_of(net).items()}
    pixels = torch.from_numpy(x)
    expected = segment(weights, pixels, "alexnet", geometry) if is_fcn else classify(weights, pixels, "alexnet")
    ours = net(Tensor(x))
    upstream = np.random.default_rng(4).standard_normal(ours.shape)
    expected.backward(torch.from_numpy(upstream))
    ours.backward(upstream)
    assert off(ours.numpy(), expected) < 1e-11
    for name, parameter in net.named_parameters():
        assert off(parameter.grad.numpy(), weights[name].grad) < 1e-10, name


@pytest.mark.parametrize("wrong", ["no norm", "crop 19", "groups exchanged"])
def test_the_comparison_sees_another_network(wrong, monkeypatch):
    net = randomised(build("fcn32s", backbone="alexnet", classes=CLASSES, geometry="pad100", width=0.1, fc=40))
    x = image("alexnet", (131, 97), scale=100)
    weights = weights_of(net)
    if wrong == "no norm":
        monkeypatch.setattr(F, "local_response_norm", lambda x, *_, **__: x)
    elif wrong == "crop 19":
        monkeypatch.setitem(HEADS, ("alexnet", "pad100"), (0, 63, 0, 19))
    else:
        weights["conv4.weight"] = weights["conv4.weight"].roll(len(weights["conv4.weight"]) // 2, 0)
    with no_grad(), torch.no_grad():
        assert off(net(Tensor(x)).numpy(), segment(weights, torch.from_numpy(x), "alexnet", "pad100")) > 1e-3
