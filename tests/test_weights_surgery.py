"""Net surgery: weights written in a foreign convention come back as ours, and everything that does not fit is refused.

What a conversion must give is known because the foreign file is made here, from a network of ours, by the inverse of
each convention, written out from its definition.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from minifcn import Tensor, cli, convert, no_grad
from minifcn.checkpoint import load
from minifcn.data import Normalization
from minifcn.errors import CheckpointError, DataError
from minifcn.models import build
from minifcn.nn import init
from minifcn.segmenter import Segmenter
from minifcn.weights import Source, naming

SHARED = Path(os.environ.get("MINIFCN_SHARED", Path(__file__).parents[2] / "shared"))
VGG16 = SHARED / "weights" / "vgg16_imagenet_convs_f32.npz"

SMALL = {"backbone": "small", "width": 0.25, "fc": 6, "input_size": 64}  # fc6 sees 32 channels of 2 x 2
TORCHVISION = (0, 3, 6, 8, 11, 13, 16, 18)  # convolutions in vgg11's `features`: each has a ReLU, each block a pooling
CONVS = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "conv5_1", "conv5_2")
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # torchvision's, times 255
VGG_MEAN = (123.68, 116.779, 103.939)


@pytest.fixture(scope="module")
def ours() -> dict[str, np.ndarray]:
    """A classifier's weights, none of them zero."""
    rng = np.random.default_rng(1)
    net = build("classifier", classes=5, **SMALL)
    return {name: rng.standard_normal(array.shape).astype(np.float32) for name, array in net.state_dict().items()}


def foreign(ours, layout="OIHW", flatten="CHW", colors="rgb", std=(1, 1, 1), convolutional=False):
    """The same function's weights in another convention, under our names."""
    found = {}
    for name, array in ours.items():
        if name == "fc6.weight":
            array = array.reshape(6, 32, 2, 2)
            if not convolutional:
                array = np.moveaxis(array, 1, 3) if flatten == "HWC" else array
                array = array.reshape(6, -1)
        elif array.ndim == 2 and convolutional:
            array = array[:, :, None, None]
        if name == "conv1_1.weight":
            array = array * np.asarray(std, np.float32)[:, None, None]
            array = np.flip(array, 1) if colors == "bgr" else array
        if layout == "HWIO":
            array = np.einsum("oihw->hwio", array) if array.ndim == 4 else array.T if array.ndim == 2 else array
        found[name] = np.ascontiguousarray(array)
    return found


def torchvision(state):
    names = {layer: f"features.{i}" for layer, i in zip(CONVS, TORCHVISION, strict=True)}
    names |= {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
    return renamed(state, lambda layer, kind: f"{names[layer]}.{kind}")


def keras(state):
    names = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}
    names |= {layer: f"block{layer[4]}_conv{layer[6]}" for layer in CONVS}
    return renamed(state, lambda layer, kind: f"{names[layer]}/{'kernel' if kind == 'weight' else 'bias'}:0")


def renamed(state, rename):
    return {rename(*name.split(".")): array for name, array in state.items()}


def agree(found, expected, **tolerance):
    """Equal but for the first layer's rounding."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape
        np.testing.assert_allclose(found[name], array, rtol=1e-6 if name == "conv1_1.weight" else 0, err_msg=name)


def weights_of(conversion):
    return conversion.network.state_dict()


# --- conventions -------------------------------------------------------------------------------------------------


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layout=st.sampled_from(["OIHW", "HWIO"]),
    flatten=st.sampled_from(["CHW", "HWC"]),
    colors=st.sampled_from(["rgb", "bgr"]),
    std=st.tuples(*[st.floats(1, 99)] * 3),
    convolutional=st.booleans(),
)
def test_every_convention_comes_back_as_ours(ours, tmp_path, layout, flatten, colors, std, convolutional):
    """As a classifier, and as an FCN, whose fc6 and fc7 are convolutions. `std` lies in the file's order of colours."""
    state = foreign(ours, layout, flatten, colors, std, convolutional)
    save_file(state, tmp_path / "a.safetensors")
    said = {"layout": layout, "flatten": flatten, "colors": colors, "mean": (120, 110, 100), "std": std}
    found = convert(tmp_path / "a.safetensors", "classifier", classes=5, **said, **SMALL)
    agree(weights_of(found), ours)
    assert found.normalization == Normalization((120, 110, 100), 1.0)
    fcn = weights_of(convert(tmp_path / "a.safetensors", "fcn32s", classes=7, **said, **SMALL))
    expected = {name: array for name, array in ours.items() if not name.startswith("fc")}
    expected |= {"fc6.weight": ours["fc6.weight"].reshape(6, 32, 2, 2), "fc6.bias": ours["fc6.bias"]}
    expected |= {"fc7.weight": ours["fc7.weight"].reshape(6, 6, 1, 1), "fc7.bias": ours["fc7.bias"]}
    expected |= {"score_fr.weight": np.zeros((7, 6, 1, 1)), "score_fr.bias": np.zeros(7)}
    agree(fcn, expected)


@pytest.mark.parametrize(
    ("scheme", "how", "mean"),
    [
        (torchvision, {"std": STD}, MEAN),
        (keras, {"layout": "HWIO", "flatten": "HWC", "colors": "bgr"}, VGG_MEAN),
        (lambda state: renamed(state, lambda layer, kind: f"{layer}.{kind[0]}"), {"colors": "bgr"}, VGG_MEAN),
        (
            lambda state: renamed(state, lambda layer, kind: f"{layer}_{'W' if kind == 'weight' else 'b'}"),
            {"layout": "HWIO", "flatten": "HWC"},
            VGG_MEAN,
        ),
        (
            lambda state: renamed(state, lambda layer, kind: f"{layer}/{int(kind == 'bias')}"),
            {"layout": "HWIO", "flatten": "HWC", "colors": "bgr"},
            VGG_MEAN,
        ),
    ],
)
def test_names_that_say_the_convention(ours, tmp_path, scheme, how, mean):
    np.savez(tmp_path / "a.npz", **scheme(foreign(ours, **how)))
    found = convert(tmp_path / "a.npz", "classifier", classes=5, **SMALL)
    agree(weights_of(found), ours)
    assert found.normalization == Normalization(mean, 1.0)
    assert found.new_layers == []


def test_prefixes_are_passed_over(ours, tmp_path):
    state = torchvision(foreign(ours, std=STD))
    np.savez(tmp_path / "a.npz", **{f"state_dict/module.{name}": array for name, array in state.items()})
    agree(weights_of(convert(tmp_path / "a.npz", "classifier", classes=5, **SMALL)), ours)
    np.savez(tmp_path / "b.npz", **state, **{f"ema.{name}": array for name, array in state.items()})
    with pytest.raises(CheckpointError, match=r"features.0.weight and ema.features.0.weight would both become conv1_1"):
        convert(tmp_path / "b.npz", "classifier", classes=5, **SMALL)


def test_torchvisions_places_in_vgg16():
    """As torchvision's documentation of VGG16 has them: convolutions at 0, 2, 5, 7, 10, 12, 14, 17, ..., 28."""
    layers = naming.torchvision_layers(build("fcn32s", backbone="vgg16", width=0.01).trunk)
    assert [int(name.split(".")[1]) for name in layers if name.startswith("features")] == [
        *(0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    ]
    assert layers["features.28"] == "conv5_3"


def test_what_nobody_says_is_asked_for(ours, tmp_path):
    save_file(foreign(ours), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"give --colors rgb\|bgr, --mean R,G,B, --std R,G,B \(mean and std of"):
        convert(tmp_path / "a.safetensors", "classifier", classes=5, **SMALL)


def test_another_order_of_colours_is_another_training(ours, tmp_path):
    """torchvision's names, but from Caffe: the mean and std that such names stand for do not count any more."""
    np.savez(tmp_path / "a.npz", **torchvision(foreign(ours, colors="bgr")))
    with pytest.raises(CheckpointError, match=r"give --mean R,G,B, --std R,G,B"):
        convert(tmp_path / "a.npz", "classifier", classes=5, colors="bgr", **SMALL)
    found = convert(tmp_path / "a.npz", "classifier", classes=5, colors="bgr", mean=VGG_MEAN, std=1, **SMALL)
    agree(weights_of(found), ours)


@pytest.mark.parametrize(
    ("given_", "match"),
    [
        ({"colors": "grb"}, r"colors \(='grb'\) must be one of rgb, bgr"),
        ({"layout": "IOHW"}, r"layout \(='IOHW'\) must be one of OIHW, HWIO"),
        ({"mean": (0.485, 0.456, 0.406)}, r"mean \(=0.485, 0.456, 0.406\) is below one grey level"),
        ({"std": (0.229, 0.224, 0.225)}, r"std \(=0.229, 0.224, 0.225\) is below one grey level"),
        ({"std": (58, 57)}, "must be one or three"),
        ({"mean": (1, float("nan"), 2)}, "three finite numbers"),
    ],
)
def test_conventions_that_cannot_be(ours, tmp_path, given_, match):
    save_file(foreign(ours), tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=match):
        convert(tmp_path / "a.safetensors", "classifier", classes=5, **given_, **SMALL)


def test_a_checkpoint_of_ours_says_everything(ours, tmp_path):
    save_file(foreign(ours, "OIHW", "CHW", "rgb", STD), tmp_path / "a.safetensors")
    said = {"colors": "rgb", "mean": MEAN, "std": STD}
    convert(tmp_path / "a.safetensors", "classifier", classes=5, **said, **SMALL).save(tmp_path / "b.safetensors")
    found = convert(tmp_path / "b.safetensors", "classifier", classes=5, **SMALL)
    agree(weights_of(found), ours)
    assert found.normalization == Normalization(MEAN, 1.0)


def test_what_a_checkpoint_calls_untrained_is_new(source, tmp_path):
    convert(source(), "fcn32s", **SMALL | {"fc": 9}).save(tmp_path / "a.safetensors")
    assert convert(tmp_path / "a.safetensors", "fcn32s", **SMALL | {"fc": 9}).new_layers == ["fc6", "fc7", "score_fr"]
    found = convert(tmp_path / "a.safetensors", "fcn16s", classes=7, **SMALL)
    assert found.new_layers == ["fc6", "fc7", "score_fr", "score_pool4"]


# --- what goes where ---------------------------------------------------------------------------------------------


@pytest.fixture
def source(ours, tmp_path):
    """A file with these arrays, changed, and with the convention of .w names."""

    def write(**changes):
        state = {f"{layer}.{kind[0]}": array for (layer, kind), array in split(foreign(ours, colors="bgr"))}
        state |= changes
        path = tmp_path / "source.npz"
        np.savez(path, **{name: array for name, array in state.items() if array is not None})
        return path

    return write


def split(state):
    return [(tuple(name.split(".")), array) for name, array in state.items()]


def entries(conversion):
    return {entry.target or entry.source: entry.how for entry in conversion.entries}


def test_every_tensor_is_accounted_for(source):
    found = convert(source(**{"mean_image": np.ones(3)}), "fcn8s", deconv="learned", **SMALL)
    how = entries(found)
    assert set(how) == set(weights_of(found)) | {"fc8.w", "fc8.b", "mean_image"}
    assert how["conv1_1.weight"] == "input channels B,G,R to R,G,B"
    assert how["conv1_1.bias"] == "copied"
    assert how["fc6.weight"] == "fully connected to convolution"
    assert how["fc8.w"] == "left out: score layers take its place"
    assert how["mean_image"] == "left out: the network has no such layer"
    assert how["score_pool4.weight"] == how["score_pool4.bias"] == "new: zero"
    assert how["upscore2.weight"] == "new: bilinear"
    skips = {"score_pool4", "score_pool3"}
    assert set(found.new_layers) == skips | {"score_fr", "upscore2", "upscore_pool4", "upscore8"}


def test_a_new_classifier_of_another_width(source):
    found = convert(source(), "fcn32s", **SMALL | {"fc": 9})
    how = entries(found)
    assert how["fc6.weight"] == "new: He"
    assert how["fc6.bias"] == "new: zero"
    assert how["fc6.w"] == "left out: fc6 is new"
    assert found.new_layers == ["fc6", "fc7", "score_fr"]
    fresh = build("fcn32s", **SMALL | {"fc": 9}).state_dict()
    for name in ("fc6.weight", "fc7.weight"):
        np.testing.assert_array_equal(weights_of(found)[name], fresh[name])
        assert fresh[name].std() > 0


def test_layers_that_the_user_wants_new(source):
    found = convert(source(), "fcn32s", replace=["fc7"], **SMALL)
    assert found.new_layers == ["fc7", "score_fr"]
    with pytest.raises(CheckpointError, match=r"replace \(=fc9\): the network's layers are conv1_1, .*, score_fr"):
        convert(source(), "fcn32s", replace=["fc9"], **SMALL)


def test_one_fitting_layer_of_two_is_no_classifier(source):
    """fc given and fc7 missing: both are new, not one trained for the other's random outputs."""
    found = convert(source(**{"fc7.w": None, "fc7.b": None}), "fcn32s", **SMALL)
    assert found.new_layers == ["fc6", "fc7", "score_fr"]


@pytest.mark.parametrize(
    ("changes", "options", "match"),
    [
        ({"conv3_2.w": None}, {}, "it has no conv3_2.weight$"),
        ({"conv3_2.b": None, "fc6.w": None}, {"fc": None}, r"it has no conv3_2.bias, fc6.weight$"),
        (
            {"conv1_1.w": np.zeros((4, 4, 3, 3), "f4")},
            {},
            r"conv1_1.w for conv1_1.weight: 4x4x3x3 where 4x3x3x3 is need",
        ),
        ({"conv5_3.w": np.zeros(3, "f4")}, {}, "it is of another backbone, which also has conv5_3.w"),
        ({"conv2_1.b": np.zeros(8, "i4")}, {}, "conv2_1.b for conv2_1.bias: int32 where floating point numbers are"),
        ({"conv2_1.b": np.full(8, np.nan, "f4")}, {}, "conv2_1.b holds 8 numbers that are not finite in float32"),
        ({"conv2_1.b": np.full(8, 1e300)}, {}, "conv2_1.b holds 8 numbers that are not finite in float32"),
        ({"score_fr.w": np.zeros((3, 6, 1, 1), "f4"), "score_fr.b": np.zeros(3)}, {}, "--replace score_fr makes new"),
        ({"score_fr.b": np.zeros(21, "f4")}, {}, "it has no score_fr.weight"),
        (
            {"upscore.w": np.ones((21, 21, 64, 64), "f4")},
            {},
            r"upscore.w is not the fixed bilinear filter \(--deconv le",
        ),
        ({"scale_pool4.w": np.full(32, 0.01, "f4")}, {}, "scale_pool4.w scales by other than 1, as the network does"),
        ({}, {"layout": "HWIO"}, r"taken as HWIO; with --layout OIHW the convolutions would fit"),
        ({}, {"width": 0.5, "fc": None}, r"conv1_1.w for conv1_1.weight: 4x3x3x3 where 8x3x3x3"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(source, changes, options, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        convert(source(**changes), "fcn32s", **SMALL | options)
    assert str(caught.value).startswith(str(source()))


def test_a_deeper_net_of_torchvisions_names(ours, tmp_path):
    """All that vgg11 has, and a convolution more: to leave that out would make another function."""
    np.savez(tmp_path / "a.npz", **torchvision(foreign(ours)), **{"features.21.weight": ours["conv5_2.weight"]})
    with pytest.raises(CheckpointError, match=r"it is of another backbone, which also has features.21.weight"):
        convert(tmp_path / "a.npz", "classifier", classes=5, **SMALL)


def test_a_missing_classifier_is_new_only_when_it_is_asked_for(source):
    bare = source(**{f"fc{i}.{kind}": None for i in (6, 7, 8) for kind in "wb"})
    small = {"backbone": "small", "width": 0.25}
    with pytest.raises(CheckpointError, match=r"it has no fc6.weight, .*, fc7.bias \(--fc N makes new ones"):
        convert(bare, "fcn32s", **small)
    assert convert(bare, "fcn32s", fc=64, **small).new_layers == ["fc6", "fc7", "score_fr"]


def test_the_fixed_filters_of_a_released_net_are_recognised(source):
    """Dense and by groups; 0.01 and 0.0001 are the scales of at-once nets."""
    kernel = init.bilinear(21, 4, np.float32)
    changes = {
        "upscore2.w": kernel,
        "upscore_pool4.w": np.ascontiguousarray(kernel[range(21), range(21)][:, None]),
        "scale_pool4.w": np.full(32, 0.01, np.float32),
        "scale_pool3.w": np.full(16, 0.0001, np.float32),
    }
    how = entries(convert(source(**changes), "fcn8s-at-once", **SMALL))
    assert how["upscore2.w"] == how["upscore_pool4.w"] == "left out: the network upsamples by the same bilinear filter"
    assert how["scale_pool3.w"] == "left out: the network scales by 0.0001 too"
    learned = convert(source(**{"upscore2.w": kernel + 1}), "fcn8s", deconv="learned", **SMALL)
    np.testing.assert_array_equal(weights_of(learned)["upscore2.weight"], kernel + 1)


def test_alexnet_from_caffe_names(tmp_path):
    """Convolutions in groups keep [K, C / groups, R, S]; upsampling has a window of 63."""
    small = {"backbone": "alexnet", "width": 0.1, "fc": 4, "geometry": "pad100"}
    net = build("fcn32s", classes=3, seed=1, **small)
    state = {name: array for name, array in net.state_dict().items() if not name.startswith("score")}
    state["upscore.weight"] = init.bilinear(3, 63, np.float32)
    save_file({name: np.ascontiguousarray(array) for name, array in state.items()}, tmp_path / "a.safetensors")
    said = {"colors": "rgb", "mean": (120, 110, 100), "std": 1}
    found = convert(tmp_path / "a.safetensors", "fcn32s", classes=3, **said, **small)
    agree(weights_of(found), net.state_dict())
    assert entries(found)["upscore.weight"] == "left out: the network upsamples by the same bilinear filter"


def test_names_of_no_scheme_or_of_two():
    arrays = {"conv1_1.weight": np.ones(1), "features.0.weight": np.ones(1)}
    with pytest.raises(CheckpointError, match=r"x: its 2 tensors .* follow Caffe's layers .* and torchvision"):
        naming.resolve(Source(Path("x"), "npz", arrays), ["conv1_1"])
    with pytest.raises(CheckpointError, match=r"follow no known way of naming; known are Caffe's layers"):
        naming.resolve(Source(Path("x"), "npz", {"layer1.0.conv1": np.ones(1)}), ["conv1_1"])


# --- the command -------------------------------------------------------------------------------------------------


def run(*words) -> int:
    return cli.main(["convert", *map(str, words)])


OPTIONS = ("--to", "fcn32s-small", "--width", "0.25", "--fc", "6", "--input-size", "64", "--classes", "sky,road,tree")


def test_a_converted_file_is_a_checkpoint_like_any_other(source, ours, tmp_path, capsys):
    out, report = tmp_path / "out.safetensors", tmp_path / "report.json"
    assert run(source(), *OPTIONS, "--out", out, "--json", report) == 0
    text = capsys.readouterr().out
    for part in (
        "VGG in .npz (conv1_1.w)",
        "inputs BGR minus 123.68, 116.779, 103.939",
        "new, to be trained: score_fr",
    ):
        assert part in text
    about = load(out).about
    assert about["new_layers"] == ["score_fr"]
    assert about["data"]["classes"] == ["sky", "road", "tree"]
    assert json.loads(report.read_text()) == about["converted"]
    assert {row["target"] for row in about["converted"]["tensors"]} > {"conv1_1.weight", "score_fr.bias"}
    segmenter = Segmenter.load(out)
    image = np.random.default_rng(2).integers(0, 256, (40, 50, 3), np.uint8)
    assert segmenter(image).shape == (40, 50)
    found = segmenter.network.conv1_1(segmenter.input(image[None])).numpy()[0, :, 20, 30]
    window = image[19:22, 29:32].astype(float) - VGG_MEAN  # the first layer by its definition, on R, G, B
    expected = np.einsum("kcrs,rsc->k", ours["conv1_1.weight"], window) + ours["conv1_1.bias"]
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-4, atol=1e-3)


def test_a_file_that_exists_is_kept(source, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    out.write_text("precious")
    assert run(source(), *OPTIONS, "--out", out) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "precious"


def test_a_refusal_writes_nothing(source, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    for words in (("--deconv", "learned", "--replace", "x"), ("--mean", "0.5"), ("--classes", "1")):
        assert run(source(), *OPTIONS, "--out", out, "--json", tmp_path / "report.json", *words) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert run(source(), *OPTIONS, "--to", "classifier-small", "--deconv", "fixed") == 2
    assert "--deconv: a classifier has none" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["source.npz"]


def test_a_target_that_is_none(source, capsys):
    with pytest.raises(SystemExit):
        run(source(), "--to", "fcn8s")
    assert "'fcn8s' must be MODEL-BACKBONE, as in fcn8s-vgg16" in capsys.readouterr().err


# --- real weights, and PyTorch -----------------------------------------------------------------------------------


@pytest.mark.skipif(not VGG16.is_file(), reason="the VGG16 weights are not beside the checkout")
def test_vgg16():
    """Spot values of the published file: input channel 0 there is blue, channel 2 here."""
    found = convert(VGG16, "fcn8s", "vgg16", fc=4)
    weights = weights_of(found)
    np.testing.assert_allclose(weights["conv1_1.weight"][0, 2, 0], (0.429471, 0.373467, -0.061360), rtol=0, atol=5e-7)
    np.testing.assert_allclose(weights["conv1_1.bias"][:3], (0.734298, 0.093404, 0.067757), rtol=0, atol=5e-7)
    np.testing.assert_allclose(weights["conv5_3.bias"][:3], (0.188379, -0.500367, 0.542223), rtol=0, atol=5e-7)
    assert found.normalization.mean == VGG_MEAN
    assert found.new_layers == ["fc6", "fc7", "score_fr", "score_pool4", "score_pool3"]


@pytest.mark.torch
@pytest.mark.parametrize("suffix", ["pth", "old.pth", "safetensors"])
def test_logits_equal_pytorchs(suffix, tmp_path):
    """A network written as torchvision writes VGG11, on colours 0 .. 1 with its mean and std."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    nn, F, path = torch.nn, torch.nn.functional, tmp_path / f"net.{suffix}"
    features, C = [], 3
    for K in (4, "M", 8, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M"):
        if K == "M":
            features.append(nn.MaxPool2d(2, 2))
        else:
            features += [nn.Conv2d(C, K, 3, padding=1), nn.ReLU()]
            C = K
    net = nn.Module()
    net.features = nn.Sequential(*features)
    dense = [nn.Linear(32 * 9, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 5)]
    net.classifier = nn.Sequential(*dense)
    net.eval()
    for parameter in net.parameters():  # larger than PyTorch's own, so that the image matters to the logits
        parameter.data *= 2
    if suffix == "safetensors":
        save_file({name: array.numpy() for name, array in net.state_dict().items()}, path)
    else:
        torch.save(net.state_dict(), path, _use_new_zipfile_serialization=suffix == "pth")
    images = np.random.default_rng(4).integers(0, 256, (3, 96, 96, 3), np.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        pooled = net.features(((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2))
        expected = net.classifier(pooled.flatten(1)).numpy()
        hidden = F.relu(F.conv2d(pooled, dense[0].weight.reshape(6, 32, 3, 3), dense[0].bias, padding=1))
        hidden = F.relu(F.conv2d(hidden, dense[3].weight.reshape(6, 6, 1, 1), dense[3].bias)).numpy()
    small = SMALL | {"input_size": 96}
    close(logits(convert(path, "classifier", classes=5, **small), images), expected)
    fcn = convert(path, "fcn32s", classes=6, **small)
    fcn.network.score_fr.weight.data[...] = np.eye(6)[:, :, None, None]  # scores are fc7's features
    with no_grad():
        found = fcn.network.eval()._scores(inputs(fcn, images)).numpy()
    close(found, hidden)


def inputs(conversion, images):
    return Tensor(conversion.normalization.apply(images).transpose(0, 3, 1, 2).copy())


def logits(conversion, images):
    with no_grad():
        return conversion.network.eval()(inputs(conversion, images)).numpy()


def close(found, expected):
    assert found.shape == expected.shape
    assert expected.std() > 0.01
    off = np.abs(found - expected).max() / np.abs(expected).max()
    assert off < 1e-4
