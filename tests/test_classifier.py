"""Classifiers, and what is equal between one and the FCN that it becomes.

Two statements are tested as they stand in `minifcn/models/classifier.py`: from the last pooling on, fc6 to fc8 as
convolutions are the classifier at every window; from the image on they are so where no convolution pads.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minifcn import Tensor, no_grad
from minifcn.alignment import ramp_error
from minifcn.errors import MinifcnError
from minifcn.kernels.checks import ShapeError
from minifcn.models import FCN, Classifier, build
from minifcn.nn import Conv2d

SIZE = 96  # three pixels of pool5


def small(**changes) -> Classifier:
    """A narrow classifier in evaluation mode, in float64, whose last layer is not zero."""
    settings = {"backbone": "small", "classes": 5, "width": 0.1, "input_size": SIZE, "dtype": np.float64}
    net = build("classifier", **settings | changes).eval()
    rng = np.random.default_rng(7)
    for name, parameter in net.named_parameters():
        if name.endswith("bias") or name == "fc8.weight":
            parameter.data[...] = rng.standard_normal(parameter.shape) / 4
    return net


def images(size, batch=1, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal((batch, 3, *size)).astype(dtype)


def dense(net, padded=True) -> FCN:
    """`net` as an FCN with the classifier's paddings, in evaluation mode; without `padded`, both have none at all."""
    fcn = net.to_fcn(geometry="pad100").eval()
    first = net.trunk[0]
    getattr(fcn, first).padding = getattr(net, first).padding
    for network in () if padded else (net, fcn):
        for name in network.trunk:
            if isinstance(getattr(network, name), Conv2d):
                getattr(network, name).padding = 0
    return fcn


def near(found, expected, limit=1e-12):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max(initial=0) <= limit * np.abs(expected).max(initial=1)


def through(net, names, x):
    """What the layers `names` make of the array x."""
    x = Tensor(x)
    with no_grad():
        for name in names:
            x = getattr(net, name)(x)
    return x.numpy()


# --- shapes and settings -----------------------------------------------------------------------------------------


def test_layers_are_named_as_in_the_released_nets():
    names = [name.removesuffix(".weight") for name, _ in small().named_parameters() if name.endswith("weight")]
    trunk = ["conv1_1", "conv2_1", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "conv5_1", "conv5_2"]
    assert names == [*trunk, "fc6", "fc7", "fc8"]


@pytest.mark.parametrize(("size", "window"), [(None, 7), (224, 7), (225, 8), (64, 2), (33, 2), (32, 1), (1, 1)])
def test_fc6_sees_all_of_pool5(size, window):
    """224 halved five times is 7; ceil mode makes 8 of 225 and 1 of 1."""
    net = small(input_size=size, width=0.05)
    assert net.fc6.weight.shape == (13, 6 * window**2)
    assert net.input_size == (size or 224)


@given(batch=st.integers(0, 3), size=st.integers(1, 70), classes=st.integers(2, 9))
@settings(max_examples=20, deadline=None)
def test_scores_have_one_row_an_image(batch, size, classes):
    net = small(input_size=size, classes=classes, width=0.01)
    assert net(Tensor(images((size, size), batch))).shape == (batch, classes)
    assert net.labels(Tensor(images((size, size), batch))).shape == (batch,)


@pytest.mark.parametrize(
    ("backbone", "count"), [("vgg16", 138_357_544), ("vgg11", 132_863_336), ("alexnet", 60_965_224)]
)
def test_parameters_of_the_published_classifiers(monkeypatch, backbone, count):
    """With 1000 classes, as counted in the papers' released weights; nothing is allocated."""
    monkeypatch.setattr("minifcn.nn.init.he", lambda shape, rng, dtype: np.broadcast_to(dtype.type(0), shape))
    monkeypatch.setattr("minifcn.nn.module._in_order", lambda array: array)
    net = build("classifier", backbone=backbone, classes=1000)
    assert sum(parameter.size for parameter in net.parameters()) == count


def test_channels_of_fc6_and_fc7_can_be_set():
    for net in (small(fc=9), build("fcn8s", backbone="small", width=0.1, fc=9)):
        shapes = {name: parameter.shape for name, parameter in net.named_parameters()}
        assert shapes["fc6.bias"] == shapes["fc7.bias"] == (9,)
        assert shapes["fc7.weight"][:2] == (9, 9)
        assert shapes["conv5_2.bias"] == (13,)  # 128 * 0.1: the trunk keeps its width


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "vgg19"}, r"backbone \(='vgg19'\) must be one of vgg16, vgg11, small"),
        ({"classes": 1}, r"classes \(=1\) must be an integer of at least 2"),
        ({"classes": 2.5}, r"classes \(=2.5\) must be an integer"),
        ({"width": -1}, r"width \(=-1\) must be above 0"),
        ({"width": float("inf")}, r"width \(=inf\) must be above 0 and finite"),
        ({"fc": 0}, r"fc \(=0\) must be an integer of at least 1"),
        ({"backbone": "alexnet", "input_size": 20}, r"input_size \(=20\) is too small at pool2: window \(=3"),
        ({"input_size": 0}, r"input_size \(=0\) must be an integer of at least 1"),
        ({"dropout": 1.0}, r"dropout probability \(=1.0\) must be at least 0 and below 1"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(MinifcnError, match=message):
        small(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"skip_scales": {"pool5": 1}}, r"key of skip_scales \(='pool5'\) must be one of pool4, pool3"),
        ({"skip_scales": {"pool4": math.nan}}, r"skip_scales\['pool4'\] \(=nan\) must be finite"),
        ({"geometry": "pad100", "input_size": 64}, r"input_size \(=64\) leaves fc6 a window of 2"),
    ],
)
def test_settings_of_fcns_out_of_range_are_named(settings, message):
    with pytest.raises(MinifcnError, match=message):
        build("fcn8s", backbone="small", width=0.1, **settings)
    with pytest.raises(MinifcnError, match=r"there is none$"):
        build("fcn32s", backbone="small", width=0.1, skip_scales={"pool4": 1})


def test_scales_of_the_skips_can_be_set():
    released = {"pool4": 0.01, "pool3": 0.0001}
    of = {"backbone": "small", "width": 0.1}
    assert build("fcn8s-at-once", **of).skip_scales == released
    assert build("fcn8s-at-once", **of, skip_scales=None).skip_scales == released
    assert build("fcn8s-at-once", **of, skip_scales={"pool4": 0.5}).skip_scales == {"pool4": 0.5}
    assert build("fcn8s-at-once", **of, skip_scales={}).skip_scales == build("fcn8s", **of).skip_scales == {}
    assert build("fcn16s", **of, skip_scales={"pool4": 2}).skip_scales == {"pool4": 2}


@pytest.mark.parametrize("shape", [(1, 3, 95, 96), (1, 4, 96, 96), (3, 96, 96), (1, 3, 97, 97)])
def test_images_of_another_size_are_refused(shape):
    with pytest.raises(MinifcnError, match=r"images must have shape \[N, 3, 96, 96\]"):
        small()(Tensor(np.zeros(shape)))


# --- loss --------------------------------------------------------------------------------------------------------


def test_loss_is_the_cross_entropy_of_every_image():
    net, x, target = small(), images((SIZE, SIZE), 3), np.array([4, 255, 0])
    logits = net(Tensor(x)).numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    losses = np.array([-log_p[0, 4], 0, -log_p[2, 0]])
    near(net.loss(Tensor(x), target, reduction="none").numpy(), losses)
    assert net.loss(Tensor(x), target).item() == pytest.approx(losses.sum() / 2, rel=1e-12)
    assert net.loss(Tensor(x), Tensor(target), reduction="sum").item() == pytest.approx(losses.sum(), rel=1e-12)
    assert np.array_equal(net.labels(Tensor(x)), logits.argmax(1))


def test_loss_reaches_every_parameter_and_starts_at_ln_c():
    net = small().train().at_step(0, 1)
    net.fc8.weight.data[...], net.fc8.bias.data[...] = 0, 0
    x, target = images((SIZE, SIZE), 2), np.array([1, 3])
    loss = net.loss(Tensor(x), target)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(5), rel=1e-12)
    assert net.fc8.weight.grad.numpy().any()
    assert not net.fc7.weight.grad.numpy().any()  # nothing passes a layer of zeros
    net = small()
    net.loss(Tensor(x), target).backward()
    assert all(parameter.grad.numpy().any() for parameter in net.parameters())


@pytest.mark.parametrize("target", [np.array([0]), np.array([[0, 1]])])
def test_a_target_of_another_shape_is_refused(target):
    with pytest.raises(ShapeError, match="target has shape"):
        small().loss(Tensor(images((SIZE, SIZE), 2)), target)


# --- as an FCN ---------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 100), batch=st.integers(0, 2), seed=st.integers(0, 99))
def test_convolutionalised_equals_fully_connected_at_its_own_size(size, batch, seed):
    net, x = small(input_size=size, width=0.05), images((size, size), batch, seed)
    fcn = dense(net)
    scores = through(fcn, fcn.trunk, x)
    assert scores.shape[2:] == (1, 1)
    near(scores[:, :, 0, 0], net(Tensor(x)).numpy())


@pytest.mark.parametrize(("backbone", "size"), [("vgg16", 224), ("vgg11", 64), ("alexnet", 227), ("alexnet", 99)])
def test_convolutionalised_equals_fully_connected_for_every_backbone(backbone, size):
    net, x = small(backbone=backbone, input_size=size, width=0.02, fc=9), 100 * images((size, size))
    fcn = dense(net)
    near(through(fcn, fcn.trunk, x)[:, :, 0, 0], net(Tensor(x)).numpy())


@settings(max_examples=20, deadline=None)
@given(window=st.integers(1, 4), rows=st.integers(1, 4), columns=st.integers(1, 4), seed=st.integers(0, 99))
def test_from_pool5_on_every_output_is_the_classifier_on_its_window(window, rows, columns, seed):
    net = small(input_size=32 * window, width=0.05)
    C = net.channels["pool5"]
    pool5 = np.random.default_rng(seed).standard_normal((2, C, window + rows - 1, window + columns - 1))
    scores = through(dense(net), ["fc6", "fc7", "score_fr"], pool5)
    assert scores.shape[2:] == (rows, columns)
    for p, q in np.ndindex(rows, columns):
        crop = pool5[:, :, p : p + window, q : q + window]
        near(scores[:, :, p, q], through(net, ["fc6", "fc7", "fc8"], crop))


@pytest.mark.parametrize(("backbone", "input_size", "side"), [("small", 128, 246), ("alexnet", 99, 227)])
@settings(max_examples=5, deadline=None)
@given(rows=st.integers(1, 3), columns=st.integers(1, 3), seed=st.integers(0, 99))
def test_without_padding_the_dense_output_is_the_classifier_slid_by_its_stride(
    backbone, input_size, side, rows, columns, seed
):
    """No window hangs over the edge: 246, 244, 122; 120, 60; 56, 28; 24, 12; 8, 4, which is fc6's window; and for
    AlexNet, whose windows of 3 overlap, 227, 55, 27; 23, 11; 9, 7, 5, 2.
    """
    net = small(backbone=backbone, width=0.02, fc=9, input_size=input_size)
    fcn = dense(net, padded=False)
    x = images((side + 32 * (rows - 1), side + 32 * (columns - 1)), seed=seed)
    scores = through(fcn, fcn.trunk, x)
    assert scores.shape[2:] == (rows, columns)
    for p, q in np.ndindex(rows, columns):
        crop = x[:, :, 32 * p : 32 * p + side, 32 * q : 32 * q + side]
        near(scores[:, :, p, q], through(net, net.trunk, crop))


def test_with_padding_a_window_inside_an_image_is_not_the_classifier_on_its_crop():
    """The classifier pads the crop with zeros where the FCN sees the neighbouring pixels: the limit of the claim."""
    net = small()
    fcn = dense(net)
    x = images((SIZE + 64, SIZE + 64))
    inside = through(fcn, fcn.trunk, x)[:, :, 1, 1]
    alone = net(Tensor(x[:, :, 32 : 32 + SIZE, 32 : 32 + SIZE])).numpy()
    assert np.abs(inside - alone).max() > 1e-3 * np.abs(alone).max()


@pytest.mark.parametrize("wrong", ["channels last", "window turned"])
def test_the_comparison_sees_a_wrong_order_of_fc6(wrong):
    net = small()
    weights = net.convolutional_weights()
    fc6 = weights["fc6.weight"]
    if wrong == "window turned":
        fc6 = fc6[:, :, ::-1, ::-1]
    else:
        K, C, R, S = fc6.shape
        fc6 = fc6.reshape(K, R, S, C).transpose(0, 3, 1, 2)
    fcn = dense(net)
    fcn.load_state_dict(weights | {"fc6.weight": fc6})
    x = images((SIZE, SIZE))
    expected = net(Tensor(x)).numpy()
    assert np.abs(through(fcn, fcn.trunk, x)[:, :, 0, 0] - expected).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("geometry", ["exact", "pad100"])
@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("size", [None, 65, 64, 96, 1])
def test_a_classifier_of_any_size_becomes_an_fcn_of_any_stride(geometry, stride, size):
    """fc6's window is even or odd; the crops follow from it, and every image has its scores."""
    net = small(input_size=size, width=0.01)
    if geometry == "pad100" and net.plan.fc6_window < {32: 1, 16: 3, 8: 4}[stride]:
        with pytest.raises(MinifcnError, match=f"FCN-{stride}s with geometry pad100 needs one of at least"):
            net.to_fcn(stride, geometry=geometry)
        return
    fcn = net.to_fcn(stride, geometry=geometry).eval()
    for height, width in ((1, 1), (32, 33), (64, 95), (97, 50)):
        with no_grad():
            assert fcn(Tensor(images((height, width)))).shape == (1, 5, height, width)
    assert ramp_error(fcn, (290, 330)) < 1e-9


def test_an_fcn_takes_all_weights_over_and_shares_none():
    net = small()
    fcn = net.to_fcn(16)
    own, taken = net.state_dict(), fcn.state_dict()
    for name, array in own.items():
        there = taken[name.replace("fc8", "score_fr")]
        assert np.array_equal(there.reshape(array.shape), array)
        assert not np.may_share_memory(there, array)
    assert set(taken) - {name.replace("fc8", "score_fr") for name in own} == {"score_pool4.weight", "score_pool4.bias"}
    assert not taken["score_pool4.weight"].any()


def test_with_classes_of_its_own_the_score_layer_starts_at_zero():
    fcn = small().to_fcn(16, classes=7, geometry="pad100", skip_scales={"pool4": 0.1})
    assert (fcn.classes, fcn.padded, fcn.skip_scales) == (7, True, {"pool4": 0.1})
    assert fcn.state_dict()["score_fr.weight"].shape == (7, 26, 1, 1)
    assert not fcn.state_dict()["score_fr.weight"].any()


def test_a_seed_gives_classifier_and_fcn_the_same_weights():
    settings = {"backbone": "small", "width": 0.1, "classes": 5, "seed": 3}
    weights = Classifier(**settings).convolutional_weights()
    for name, array in FCN(32, **settings).state_dict().items():
        assert np.array_equal(weights[name], array), name
