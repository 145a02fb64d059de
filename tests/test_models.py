"""FCN-32s, 16s, 8s and 8s-at-once: sizes, parameters, what is known before the first step, whole-network gradients."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minifcn
from minifcn import Tensor, no_grad
from minifcn.data import Scenes
from minifcn.errors import CheckpointError, MinifcnError
from minifcn.gradcheck import NonSmooth, networks
from minifcn.kernels import geometry as sizes
from minifcn.kernels import reference
from minifcn.kernels.checks import ShapeError
from minifcn.kernels.settings import settings as kernel_settings
from minifcn.models import BACKBONES, GEOMETRIES, MODELS, build
from minifcn.optim import Adam

from .devices import EVERY, on_devices

on_every_device = pytest.mark.parametrize("device", on_devices(*EVERY))
SIZE = (33, 41)


def small(model="fcn8s", geometry="exact", **changes):
    """A narrow net: backbone small with 2, 3, 6, 6, 13, 13, 13, 13 channels and 26 after fc6."""
    return build(model, **{"backbone": "small", "classes": 4, "width": 0.1, "geometry": geometry} | changes)


def image(size=SIZE, batch=1, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((batch, 3, *size)).astype(dtype)


def labels(size=SIZE, batch=1, classes=4, seed=0, void=0.1):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, (batch, *size))
    return np.where(rng.random(target.shape) < void, 255, target)


def with_random_scores(net, seed=0):
    """The score layers are zero at first; with zeros most gradients are zero."""
    rng = np.random.default_rng(seed)
    for name, parameter in net.named_parameters():
        if name.startswith("score_"):
            parameter.data[...] = rng.standard_normal(parameter.shape) / 4
    return net


def gradients(net, x, target, **loss):
    """Loss, and the gradient of every parameter."""
    net.zero_grad()
    device = net.parameters()[0].device
    value = minifcn.cross_entropy(net(Tensor(x, device=device)), target, **loss)
    value.backward()
    return value.item(), {name: parameter.grad.numpy() for name, parameter in net.named_parameters()}


# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thin_nets():
    return {
        (model, geometry): build(model, backbone="small", classes=2, width=1e-3, geometry=geometry).eval()
        for model in MODELS
        for geometry in GEOMETRIES
    }


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 100), width=st.integers(1, 100), batch=st.integers(0, 2))
def test_output_has_the_size_of_the_input(thin_nets, model, geometry, height, width, batch):
    x = Tensor(np.ones((batch, 3, height, width), np.float32))
    with no_grad():
        assert thin_nets[model, geometry](x).shape == (batch, 2, height, width)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [(1, 1), (1, 64), (17, 1), (31, 33)])
@on_every_device
def test_output_of_the_smallest_images(thin_nets, device, model, geometry, size):
    net = thin_nets[model, geometry].to(device)
    y = net(Tensor(np.ones((1, 3, *size), np.float32), device=device)).numpy()
    assert y.shape == (1, 2, *size)
    assert np.isfinite(y).all()
    net.to("cpu")


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 4, 8, 8), (1, 1, 8, 8)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(MinifcnError, match=r"images must have shape \[N, 3, H, W\]"):
        small()(Tensor(np.zeros(shape, np.float32)))


# --- parameters --------------------------------------------------------------------------------------------------


def test_parameters_of_fcn8s_with_vgg16_and_21_classes(monkeypatch):
    """14,714,688 of the convolutions, 102,764,544 of fc6, 16,781,312 of fc7, 86,037 + 10,773 + 5,397 of the scores."""
    monkeypatch.setattr("minifcn.nn.init.he", lambda shape, rng, dtype: np.zeros(shape, dtype))  # never touched: cheap
    net = build("fcn8s", backbone="vgg16", classes=21, dtype=np.float32)
    counts = {name: parameter.size for name, parameter in net.named_parameters()}
    assert sum(counts.values()) == 134_362_751
    assert counts["fc6.weight"] + counts["fc6.bias"] == 102_764_544
    assert counts["fc7.weight"] + counts["fc7.bias"] == 16_781_312
    scores = {name: counts[f"{name}.weight"] + counts[f"{name}.bias"] for name in ("score_fr", "score_pool4")}
    assert scores == {"score_fr": 86_037, "score_pool4": 10_773}
    convolutions = sum(count for name, count in counts.items() if name.startswith("conv"))
    assert convolutions == 14_714_688
    assert sum(name.startswith("conv") and name.endswith("weight") for name in counts) == 13


def test_parameters_of_fcn_alexnet(monkeypatch):
    monkeypatch.setattr("minifcn.nn.init.he", lambda shape, rng, dtype: np.broadcast_to(dtype.type(0), shape))
    monkeypatch.setattr("minifcn.nn.module._in_order", lambda array: array)  # nothing is allocated
    net = build("fcn32s", backbone="alexnet", classes=21)
    assert sum(parameter.size for parameter in net.parameters()) == 56_954_261
    names = [name.removesuffix(".bias") for name, _ in net.named_parameters() if name.endswith("bias")]
    assert names == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "score_fr"]


@pytest.mark.parametrize("width", [1e-9, 0.01, 0.13, 1.0])
def test_channels_of_alexnet_keep_their_groups(width):
    for layer in BACKBONES["alexnet"].scaled(width).layers:
        assert getattr(layer, "channels", 2) % 2 == 0


@pytest.mark.parametrize("model", ["fcn16s", "fcn8s", "fcn8s-at-once"])
def test_alexnet_has_no_skips(model):
    with pytest.raises(MinifcnError, match="must be 32 over alexnet, which has no skips"):
        build(model, backbone="alexnet", width=0.01)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("deconv", ["fixed", "learned"])
def test_alexnet_has_scores_for_every_pixel_and_one_loss(geometry, deconv):
    net = build("fcn32s", backbone="alexnet", classes=4, width=0.02, geometry=geometry, deconv=deconv, dropout=0)
    with_random_scores(net)
    for size in ((1, 1), (1, 64), (17, 1), (31, 33), (97, 64)):
        x, target = image(size), labels(size)
        logits = net(Tensor(x))
        assert logits.shape == (1, 4, *size)
        assert net.loss(Tensor(x), target).item() == minifcn.cross_entropy(logits, target).item()
        assert np.array_equal(net.labels(Tensor(x)), logits.numpy().argmax(1))
    _, found = gradients(net, image((97, 64)), labels((97, 64)))
    assert all(gradient.any() and np.isfinite(gradient).all() for gradient in found.values())


def test_learned_upsampling_adds_its_weights():
    fixed, learned = (dict(small(deconv=deconv).named_parameters()) for deconv in ("fixed", "learned"))
    extra = {name: learned[name].shape for name in learned if name not in fixed}
    assert extra == {
        "upscore2.weight": (4, 4, 4, 4),
        "upscore_pool4.weight": (4, 4, 4, 4),
        "upscore8.weight": (4, 4, 16, 16),
    }


def test_layer_names_are_those_of_the_released_nets():
    names = [name.removesuffix(".weight") for name, _ in small("fcn8s").named_parameters() if name.endswith("weight")]
    trunk = ["conv1_1", "conv2_1", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "conv5_1", "conv5_2", "fc6", "fc7"]
    assert names == [*trunk, "score_fr", "score_pool4", "score_pool3"]


def test_width_multiplies_all_channels():
    full, half = (build("fcn32s", backbone="small", classes=5, width=width).state_dict() for width in (1.0, 0.5))
    for name in (name for name in full if name.endswith("bias")):
        assert half[name].shape == ((5,) if name == "score_fr.bias" else (full[name].shape[0] // 2,))
    assert BACKBONES["vgg11"].scaled(0.25).layers == BACKBONES["small"].layers
    thin = BACKBONES["small"].scaled(1e-9)
    assert {layer.channels for layer in thin.layers if hasattr(layer, "channels")} == {1}


def test_initial_values_follow_the_seed():
    one, same, other = (small(seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["conv1_1.weight"], other["conv1_1.weight"])
    geometries = [small(geometry=geometry, seed=1).state_dict() for geometry in GEOMETRIES]
    assert all(np.array_equal(geometries[0][name], geometries[1][name]) for name in one)


def test_he_initialisation_has_its_variance():
    """2 / fan_in: fc6 of the backbone `small` has fan-in 128*49, and 1.6 million weights."""
    weight = build("fcn32s", backbone="small").state_dict()["fc6.weight"]
    assert weight.std() == pytest.approx(math.sqrt(2 / (128 * 49)), rel=0.01)
    assert abs(weight.mean()) < 1e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept(dtype):
    net = small(dtype=dtype, deconv="learned")
    assert {parameter.dtype for parameter in net.parameters()} == {np.dtype(dtype)}
    assert net(Tensor(image(dtype=dtype))).dtype == dtype


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "fcn4s"}, r"model \(='fcn4s'\) must be one of fcn32s, fcn16s, fcn8s, fcn8s-at-once"),
        ({"backbone": "vgg19"}, r"backbone \(='vgg19'\) must be one of vgg16, vgg11, small"),
        ({"geometry": "same"}, r"geometry \(='same'\) must be one of exact, pad100"),
        ({"deconv": "bicubic"}, r"deconv \(='bicubic'\) must be one of fixed, learned"),
        ({"classes": 1}, r"classes \(=1\) must be an integer of at least 2"),
        ({"width": 0}, r"width \(=0\) must be above 0"),
        ({"width": float("nan")}, r"width \(=nan\) must be above 0"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(MinifcnError, match=message):
        build(**{"model": "fcn8s", "backbone": "small"} | settings)


# --- loading weights ---------------------------------------------------------------------------------------------


def test_weights_travel_between_stages():
    """16s from 32s: everything but the new skip is taken over."""
    parent = with_random_scores(small("fcn32s", seed=1))
    child = small("fcn16s", seed=2)
    missing = child.load_state_dict(parent.state_dict(), missing_allowed=True)
    assert missing == ["score_pool4.weight", "score_pool4.bias"]
    assert all(np.array_equal(child.state_dict()[name], array) for name, array in parent.state_dict().items())


def test_loading_copies():
    source, net = small(seed=1), small(seed=2)
    net.load_state_dict(source.state_dict())
    net.conv1_1.weight.data += 1
    assert not np.array_equal(net.conv1_1.weight.data, source.conv1_1.weight.data)


def test_every_misfit_is_named_and_nothing_is_changed():
    net = small()
    before = {name: array.copy() for name, array in net.state_dict().items()}
    state = {name: array + 1 for name, array in before.items()}
    del state["fc7.bias"]
    state["fc6.bias"] = np.zeros(3)
    state["score_pool4.weight"] = np.zeros((5, 13, 1, 1))
    state["fc8.weight"] = np.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        net.load_state_dict(state)
    for words in (
        "fc6.bias has shape (3,), but the network needs (26,)",
        "score_pool4.weight has shape (5, 13, 1, 1), but the network needs (4, 13, 1, 1)",
        "fc8.weight is not a parameter of the network",
        "fc7.bias is missing",
    ):
        assert words in str(caught.value)
    assert all(np.array_equal(array, before[name]) for name, array in net.state_dict().items())


# --- before the first step ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("void", [0.0, 0.3, 1.0])
def test_loss_of_zero_scores_is_ln_c(model, geometry, void):
    net, target = small(model, geometry), labels(batch=2, void=void)
    valid = int((target != 255).sum())
    assert valid == target.size if void == 0 else valid < target.size
    x = image(batch=2)
    with no_grad():
        logits = net(Tensor(x))
        found = {
            mode: minifcn.cross_entropy(logits, target, reduction=mode).item() for mode in ("sum", "batch", "mean")
        }
    assert found["sum"] == pytest.approx(valid * math.log(4), rel=1e-6)
    assert found["batch"] == pytest.approx(valid * math.log(4) / 2, rel=1e-6)
    assert found["mean"] == pytest.approx(math.log(4) if valid else 0, rel=1e-6)


def test_gradient_at_zero_logits():
    """1/C - [c = t] at valid pixels, 0 at void, over the number of valid pixels; it sums to 0 over the classes."""
    target = labels()
    logits = Tensor(np.zeros((1, 4, *SIZE)), requires_grad=True)
    minifcn.cross_entropy(logits, target).backward()
    valid = target != 255
    expected = np.where(valid[:, None], 0.25 - (target[:, None] == np.arange(4)[:, None, None]), 0) / valid.sum()
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=0, atol=1e-18)
    assert np.abs(logits.grad.numpy().sum(1)).max() < 1e-18


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("deconv", ["fixed", "learned"])
@pytest.mark.parametrize("model", MODELS)
def test_zero_scores_let_no_gradient_through(model, deconv, geometry):
    net = small(model, geometry, deconv=deconv, dropout=0)
    _, found = gradients(net, image(SIZE), labels(SIZE))
    for name, gradient in found.items():
        assert np.isfinite(gradient).all()
        assert gradient.any() == name.startswith("score_"), name


@pytest.mark.parametrize(("parent", "child", "skip"), [("fcn32s", "fcn16s", "pool4"), ("fcn16s", "fcn8s", "pool3")])
def test_staged_start_trains_the_trunk_at_once(parent, child, skip):
    """Gradient reaches the new score layer and, through the parent's path, the trunk; none comes through the skip."""
    older = with_random_scores(small(parent, dropout=0))
    net = small(child, dropout=0)
    net.load_state_dict(older.state_dict(), missing_allowed=True)
    _, found = gradients(net, image(), labels())
    assert all(gradient.any() for gradient in found.values())

    through_skip = small(child, dropout=0)
    through_skip.load_state_dict(older.state_dict(), missing_allowed=True)
    for name, parameter in through_skip.named_parameters():
        if name.startswith("score_") and skip not in name:
            parameter.data[...] = 0
    _, found = gradients(through_skip, image(), labels())
    assert not any(gradient.any() for name, gradient in found.items() if not name.startswith("score_"))


@pytest.mark.parametrize("model", MODELS)
def test_dead_upsampling_gives_no_gradient_at_all(model):
    """Transposed convolutions left at zero: all logits are 0, and nothing is ever trained."""
    net = with_random_scores(small(model, deconv="learned", dropout=0))
    for name, parameter in net.named_parameters():
        if name.startswith("upscore"):
            parameter.data[...] = 0
    loss, found = gradients(net, image(), labels())
    last = max((name for name in found if name.startswith("upscore")), key=lambda name: net.state_dict()[name].size)
    assert loss == pytest.approx(math.log(4), rel=1e-6)
    assert all(not gradient.any() for name, gradient in found.items() if name != last)


def test_learned_upsampling_starts_as_the_fixed_one():
    for geometry in GEOMETRIES:
        fixed, learned = (
            with_random_scores(small("fcn8s", geometry, deconv=deconv, dtype=np.float64)).eval()
            for deconv in ("fixed", "learned")
        )
        x = Tensor(image(dtype=np.float64))
        expected = fixed(x).numpy()
        np.testing.assert_allclose(learned(x).numpy(), expected, rtol=0, atol=1e-13 * np.abs(expected).max())


def test_at_once_scales_stand_before_the_score_layers():
    """The skips' weights count 0.01 and 0.0001 times, their biases in full."""
    at_once = with_random_scores(small("fcn8s-at-once", dtype=np.float64)).eval()
    plain = small("fcn8s", dtype=np.float64).eval()
    plain.load_state_dict(at_once.state_dict())
    plain.score_pool4.weight.data *= 0.01
    plain.score_pool3.weight.data *= 0.0001
    x, target = image(dtype=np.float64), labels()
    (loss, found), (expected_loss, expected) = (gradients(net, x, target) for net in (at_once, plain))
    assert loss == pytest.approx(expected_loss, rel=1e-13)
    factors = {"score_pool4.weight": 0.01, "score_pool3.weight": 0.0001}
    for name in found:
        scale = factors.get(name, 1)
        limit = 1e-11 * scale * np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name], scale * expected[name], rtol=0, atol=limit, err_msg=name)


# --- gradients of the whole network ------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", GEOMETRIES)
@on_every_device
def test_every_parameter_passes_finite_differences(device, geometry):
    if device == "cuda-sim" and geometry == "pad100":
        pytest.skip("takes twenty seconds there, and has no kernel that the other one has not")
    for seed in range(20):  # until an image meets no kink
        net = networks.narrow("fcn8s", geometry, seed).to(device)
        try:
            findings = list(networks.check_parameters(net, image(dtype=np.float64, seed=seed), labels()))
            break
        except NonSmooth:
            continue
    assert {finding.subject for finding in findings} == {name for name, _ in net.named_parameters()}
    assert len(findings) == 2 * 13 + 3
    assert all(finding.passed for finding in findings), findings


def test_finite_differences_see_a_gradient_one_in_two_thousand_too_large():
    kernel = minifcn.device.get_device("cpu").kernel("conv2d_backward_weight")
    with minifcn.replaced("cpu", conv2d_backward_weight=lambda *arguments: 1.0005 * kernel(*arguments)):
        report = networks.check_network("fcn16s", "cpu", "float64", examples=1)
    failed = {failure.subject for failure in report.failures}
    assert failed == {subject for _, subject in report.worst if subject.endswith("weight")}


@pytest.mark.parametrize("name", ["conv2d_relu_backward", "conv2d_relu_max_pool2d_backward"])
def test_finite_differences_see_a_wrong_kernel_of_convolution_and_relu(name):
    """The gradients that are checked come from the fused kernels, in which nothing was replaced."""
    kernel = minifcn.device.get_device("cpu").kernel(name)

    def wrong(*arguments):
        return tuple(None if gradient is None else 1.0005 * gradient for gradient in kernel(*arguments))

    with minifcn.replaced("cpu", **{name: wrong}):
        report = networks.check_network("fcn16s", "cpu", "float64", examples=1)
    failed = {failure.subject for failure in report.failures}
    assert {"conv1_1.weight", "conv1_1.bias"} <= failed
    assert ({"fc7.weight", "fc7.bias"} <= failed) == (name == "conv2d_relu_backward")


def test_finite_differences_see_the_decisions_of_the_fused_kernels():
    net, x = networks.narrow("fcn8s", "exact", 0), image(dtype=np.float64)
    _, chosen = networks.loss_and_decisions(net, x, labels())
    assert [one.dtype for one in chosen].count(np.uint8) == 10  # the masks of ten layers, half of them pooled
    with minifcn.replaced("cpu", conv2d_forward=lambda *arguments: reference.conv2d_forward(*arguments)):
        _, apart = networks.loss_and_decisions(net, x, labels())
    assert [one.dtype for one in apart].count(np.bool_) == 10


@pytest.mark.parametrize("device", on_devices("cpu", "cuda-sim", "cuda"))
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_all_devices_agree_on_every_gradient(device, geometry):
    net = with_random_scores(small("fcn8s-at-once", geometry, dtype=np.float64)).at_step(5, 2)
    x, target = image(batch=2, dtype=np.float64), labels(batch=2)
    loss, fast = gradients(net.to(device), x, target)
    expected_loss, slow = gradients(net.to("reference"), x, target)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    for name in slow:
        limit = 1e-11 * np.abs(slow[name]).max()
        np.testing.assert_allclose(fast[name], slow[name], rtol=0, atol=limit, err_msg=name)


# --- the head in one pass -----------------------------------------------------------------------------------------


def head_gradients(net, x, target, *rule):
    """Loss and gradients as `gradients`, by the network's own loss."""
    net.zero_grad()
    value = net.loss(Tensor(x, device=net.parameters()[0].device), target, *rule)
    value.backward()
    return value.item(), {name: parameter.grad.numpy() for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("reduction", ["mean", "batch", "sum"])
@on_every_device
@pytest.mark.parametrize("deconv", ["fixed", "learned"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("model", ["fcn32s", "fcn8s-at-once"])
def test_the_loss_of_a_network_is_the_loss_of_its_logits(model, geometry, deconv, device, reduction):
    net = with_random_scores(small(model, geometry, deconv=deconv, dtype=np.float64)).to(device).at_step(3, 1)
    x, target, weight = image(batch=2, dtype=np.float64), labels(batch=2), np.array([1.0, 0.5, 2, 1])
    loss, found = head_gradients(net, x, target, weight, 255, reduction)
    expected_loss, expected = gradients(net, x, target, weight=weight, reduction=reduction)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    for name in expected:
        limit = 1e-11 * np.abs(expected[name]).max()
        assert limit > 0
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=limit, err_msg=name)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_full_size_logits_are_only_made_for_learned_upsampling(geometry):
    def refuse(*arguments):
        raise AssertionError("full-size logits")

    x, target = Tensor(image()), labels()
    with minifcn.replaced("cpu", cross_entropy_forward=refuse, crop_forward=refuse):
        net = small(geometry=geometry)
        assert net.loss(x, target).item() == pytest.approx(math.log(4), rel=1e-6)
        assert not net.labels(x).any()
        with pytest.raises(AssertionError, match="full-size logits"):
            small(geometry=geometry, deconv="learned").loss(x, target)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_loss_of_void_images_is_zero_and_so_are_all_gradients(geometry):
    loss, found = head_gradients(with_random_scores(small(geometry=geometry)), image(), np.full((1, *SIZE), 255))
    assert loss == 0
    assert not any(gradient.any() for gradient in found.values())


@pytest.mark.parametrize("deconv", ["fixed", "learned"])
def test_labels_of_another_size_are_refused(deconv):
    with pytest.raises(ShapeError, match=r"target has shape \(1, 33, 40\), but must have \(1, 33, 41\)"):
        small(deconv=deconv).loss(Tensor(image()), labels((33, 40)))


@on_every_device
@pytest.mark.parametrize("deconv", ["fixed", "learned"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("model", MODELS)
def test_labels_are_the_classes_of_the_largest_scores(model, geometry, deconv, device, monkeypatch):
    net = small(model, geometry, deconv=deconv).to(device).eval()
    x = Tensor(image((17, 93), batch=2), device=device)
    coarse = np.random.default_rng(0).standard_normal(net._scores(x).shape).astype(np.float32)
    monkeypatch.setattr(net, "_scores", lambda x: Tensor(coarse, device=device))  # a narrow net has one favourite class
    found = net.labels(x)
    assert found.dtype == np.uint8
    assert len(np.unique(found)) > 2
    np.testing.assert_array_equal(found, net(x).numpy().argmax(1))


# --- what training relies on -------------------------------------------------------------------------------------


def test_the_number_of_threads_does_not_change_a_bit():
    net = with_random_scores(build("fcn8s", backbone="small", classes=5, width=0.5)).at_step(1, 1)
    x, target = image((64, 80), batch=2), labels((64, 80), batch=2, classes=5)
    results = []
    for threads in (1, 2, 4):
        with kernel_settings.using(threads=threads):
            loss, found = head_gradients(net, x, target)
        results.append((loss, {name: gradient.copy() for name, gradient in found.items()}))
    (loss, expected), *others = results
    for again, found in others:
        assert again == loss
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert all(gradient.any() for gradient in expected.values())


def test_images_of_a_batch_do_not_see_each_other():
    net, x = with_random_scores(small()).eval(), image(batch=3)
    with no_grad():
        together = net(Tensor(x)).numpy()
        alone = np.concatenate([net(Tensor(x[n : n + 1])).numpy() for n in range(3)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * np.abs(alone).max())


def test_dropout_follows_its_clock():
    net, x = with_random_scores(small()), Tensor(image())

    def logits(seed, step):
        return net.at_step(seed, step)(x).numpy()

    first = logits(0, 0)
    assert np.array_equal(logits(0, 0), first)
    assert not np.array_equal(logits(0, 1), first)
    assert not np.array_equal(logits(1, 0), first)
    still = net.eval()(x).numpy()
    assert np.array_equal(net.at_step(0, 1)(x).numpy(), still)
    assert not np.array_equal(net.train()(x).numpy(), still)


@pytest.mark.parametrize("probability", [-0.1, 1.0, 1.5])
def test_dropout_probability_out_of_range(probability):
    with pytest.raises(ValueError, match="dropout probability"):
        with_random_scores(small(dropout=probability))(Tensor(image()))


def test_an_exact_net_pools_to_a_single_pixel():
    """One row: ceil((1 - 2) / 2) + 1 = 1, as in Caffe and PyTorch."""
    assert sizes.pool_size(1, 2, 2, 0, 1, ceil_mode=True) == 1


def test_a_network_learns_one_scene_by_heart():
    """Learned upsampling: with the fixed one, scores 8 pixels apart cannot draw every edge (98.5 % and no more)."""
    sample = Scenes("train", seed=3, size=(64, 64), length=1)[0]
    x = (sample.image.astype(np.float32).transpose(2, 0, 1)[None] - 128) / 64
    target = sample.label[None]
    net = build("fcn8s", backbone="small", classes=8, width=0.5, dropout=0, deconv="learned")
    optimizer = Adam(dict(net.named_parameters()))
    for _ in range(60):
        gradients(net, x, target)
        optimizer.step(2e-3)
    with no_grad():
        prediction = net.eval()(Tensor(x)).numpy().argmax(1)
    valid = target != 255
    assert (prediction == target)[valid].mean() > 0.99
