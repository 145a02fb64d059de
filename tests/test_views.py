"""Attribution, receptive fields and tiles: known answers, exact sums, and equality with the whole image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minifcn import Tensor, attribution, cli, no_grad, receptive, tiling
from minifcn.checkpoint import Checkpoint
from minifcn.data import Normalization
from minifcn.errors import MinifcnError
from minifcn.kernels import geometry as sizes
from minifcn.models import DECONVS, GEOMETRIES, MODELS, build
from minifcn.segmenter import Segmenter


def random_net(model="fcn8s", geometry="exact", deconv="fixed", dtype=np.float64, positive=False, **settings):
    """A net with a few channels and random weights everywhere; all `positive`, every path of the network counts."""
    settings = {"backbone": "small", "classes": 3, "width": 0.03} | settings
    net = build(model, geometry=geometry, deconv=deconv, dtype=dtype, **settings).eval()
    rng = np.random.default_rng(0)
    for _, parameter in net.named_parameters():
        values = rng.standard_normal(parameter.shape) * np.sqrt(2 / max(np.prod(parameter.shape[1:]), 1))
        parameter.data[...] = np.abs(values) if positive else values
    return net


def logits(net, images):
    with no_grad():
        return net(Tensor(images)).numpy()


def image(*size, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).random((1, 3, *size)).astype(dtype)


every_net = pytest.mark.parametrize(
    ("model", "geometry", "deconv"), [(m, g, d) for m in MODELS for g in GEOMETRIES for d in DECONVS]
)

# --- attribution -------------------------------------------------------------------------------------------------


@every_net
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_parts_add_up_to_the_logits(model, geometry, deconv, dtype, tolerance):
    net, x = random_net(model, geometry, deconv, dtype), image(37, 66, dtype=dtype)
    parts = attribution.parts(net, Tensor(x))
    assert set(parts) == {"score_fr", *(score for _, _, score in net.skips)}
    whole = logits(net, x)
    np.testing.assert_allclose(sum(parts.values()), whole, rtol=0, atol=tolerance * np.abs(whole).max())
    for name, part in parts.items():  # none is empty, and each is its own stream's
        assert np.abs(part).max() > 0
        changed = random_net(model, geometry, deconv, dtype)
        getattr(changed, name).bias.data[...] += 1
        moved = attribution.parts(changed, Tensor(x))
        assert [other for other in parts if not np.array_equal(moved[other], parts[other])] == [name]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_part_is_what_is_left_when_the_other_scores_are_zero(geometry):
    net, x = random_net(geometry=geometry), image(40, 33)
    parts = attribution.parts(net, Tensor(x))
    for name, part in parts.items():
        alone = random_net(geometry=geometry)
        for other in set(parts) - {name}:
            for parameter in getattr(alone, other).parameters():
                parameter.data[...] = 0
        np.testing.assert_array_equal(logits(alone, x), part)


def test_shares_and_deciding_streams_by_hand(monkeypatch):
    """One pixel a column: parts [class] of three streams, and what follows from them."""
    fr, four, three = (
        ([4, 1, 0], [1, 0, 0], [0, 3, 0]),
        ([0, 0, 0], [0, 2, 0], [0, 0, 0]),
        ([0, 2, 0], [0, 0, 9], [1, 0, 0]),
    )
    by_hand = dict(zip(("score_fr", "score_pool4", "score_pool3"), (fr, four, three), strict=True))
    parts = {name: np.array(pixels, float).T[None, :, None] for name, pixels in by_hand.items()}
    monkeypatch.setattr(attribution, "parts", lambda network, image: parts)
    found = attribution.attribute(random_net(), None)
    # logits: [4, 3, 0] -> 0 before 1; [1, 2, 9] -> 2 before 1; [1, 3, 0] -> 1 before 0
    assert found.label.tolist() == [[0, 2, 1]]
    np.testing.assert_allclose(found.shares["score_fr"], [[3 / 5, 0, 3 / 4]])
    np.testing.assert_allclose(found.shares["score_pool4"], [[0, -2 / 11, 0]])
    np.testing.assert_allclose(found.shares["score_pool3"], [[-2 / 5, 9 / 11, -1 / 4]])
    assert found.decides["score_fr"].tolist() == [[True, False, True]]
    assert found.decides["score_pool4"].tolist() == [[False, False, False]]
    assert found.decides["score_pool3"].tolist() == [[False, True, False]]


def test_shares_of_a_network():
    found = attribution.attribute(random_net(), Tensor(image(40, 50)))
    np.testing.assert_array_equal(found.label, logits(random_net(), image(40, 50))[0].argmax(axis=0))
    np.testing.assert_allclose(sum(map(np.abs, found.shares.values())), 1)
    assert set(found.shares) == set(found.decides) == set(attribution.STREAMS)


def test_one_stream_has_nothing_to_tell_apart():
    with pytest.raises(MinifcnError, match="one stream"):
        attribution.attribute(random_net("fcn32s"), Tensor(image(8, 8)))


# --- receptive fields --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_fields_of_vgg16(geometry):
    """404 of conv7, stride 32: the released net. pool3 and pool4: Araujo et al., 2019, and by hand, 44 and 100."""
    net = build("fcn8s", backbone="vgg16", classes=2, width=1e-3, geometry=geometry)
    assert [receptive.field(net, layer) for layer in ("conv1_1", "pool3", "pool4", "score_fr")] == [3, 44, 100, 404]
    assert receptive.stride(net) == 32


def test_the_field_of_alexnet():
    net = build("fcn32s", backbone="alexnet", classes=2, width=0.02, geometry="pad100")
    assert (receptive.field(net), receptive.stride(net)) == (355, 32)


def test_reach_of_the_output_by_hand():
    """One pixel of FCN-32s sees two cells of score_fr, whose fields of 404 lie 32 apart."""
    net = build("fcn32s", backbone="vgg16", classes=2, width=1e-3)
    # 250 lies between the cells 7 and 8, centred on 32 * 7 + 15.5 and 32 * 8 + 15.5: x / 32 - .484375 of the notes
    assert receptive.reach(net, 250, 250)["score_fr"] == (239.5 - 201.5, 271.5 + 201.5)


@given(
    size=st.integers(1, 20),
    window=st.integers(1, 6),
    stride=st.integers(1, 4),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
    data=st.data(),
)
def test_reach_is_what_the_window_touches(size, window, stride, padding, dilation, data):
    first = data.draw(st.integers(-5, size))
    last = data.draw(st.integers(first, size))
    seen = [u * stride - padding + r * dilation for u in range(first, last + 1) for r in range(window)]
    assert sizes.conv_reach(first, last, window, stride, padding, dilation) == (min(seen), max(seen))
    if window >= stride:  # else some outputs are made from nothing
        made = [i for i in range(-40, 60) for r in range(window) if first <= i * stride - padding + r <= last]
        assert sizes.conv_transpose_reach(first, last, window, stride, padding) == (min(made), max(made))


@settings(max_examples=5)
@given(row=st.integers(0, 299), column=st.integers(0, 259), seed=st.integers(0, 9))
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_effective_fields_lie_within_the_theoretical_ones(geometry, row, column, seed):
    net = random_net(geometry=geometry, positive=True, width=1e-3, classes=2)
    found = receptive.effective(net, Tensor(image(300, 260, seed=seed)), row, column)
    for axis, at in ((1, row), (0, column)):
        first, last = receptive.total_reach(net, at, at)
        hit = np.flatnonzero(found.sum(axis=axis))
        assert first <= hit.min() <= at <= hit.max() <= last


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("model", ["fcn32s", "fcn8s"])
@pytest.mark.parametrize("slope", [1, -1])
def test_effective_fields_reach_the_ends_of_the_theoretical_ones(model, geometry, slope):
    """With positive weights no path cancels, and on a ramp every maximum is the one at the end of its window."""
    net = random_net(model, geometry, positive=True, width=1e-3, classes=2)
    ramp = np.broadcast_to(1000.0 + slope * np.arange(800)[:, None], (1, 3, 800, 33))
    hit = np.flatnonzero(receptive.effective(net, Tensor(ramp), 403, 20).sum(axis=1))
    first, last = receptive.total_reach(net, 403, 403)
    assert (hit.max() == last) if slope > 0 else (hit.min() == first)


def test_the_effective_field_is_the_gradient_of_the_whole_image():
    net, x = random_net(positive=True), image(330, 200)
    images = Tensor(x, requires_grad=True)
    y = net(images)
    dy = np.zeros(y.shape)
    dy[0, 2, 300, 7] = 1
    y.backward(dy)
    expected = np.abs(images.grad.numpy()[0]).sum(axis=0)
    found = receptive.effective(net, Tensor(x), 300, 7, label=2)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12 * expected.max())
    assert all(parameter.requires_grad for parameter in net.parameters())
    winner = int(y.numpy()[0, :, 300, 7].argmax())
    np.testing.assert_array_equal(
        receptive.effective(net, Tensor(x), 300, 7), receptive.effective(net, Tensor(x), 300, 7, winner)
    )


@pytest.mark.parametrize(
    ("where", "message"),
    [((8, 0), r"row \(=8\) must lie in 0..7"), ((0, -1), r"column \(=-1\)"), ((0, 0, 3), r"class \(=3\)")],
)
def test_pixels_that_are_not_there_are_named(where, message):
    with pytest.raises(MinifcnError, match=message):
        receptive.effective(random_net(), Tensor(image(8, 9)), *where)


def test_the_box_that_holds_most():
    weights = np.zeros((9, 9))
    weights[2:5, 6] = 1
    assert receptive.box(weights) == ((2, 4), (6, 6))
    assert receptive.box(np.zeros((3, 4))) == ((0, 2), (0, 3))


# --- tiles -------------------------------------------------------------------------------------------------------


def tiled_logits(net, x, tile):
    def compute(part):
        return logits(net, part.transpose(2, 0, 1)[None])[0]

    return tiling.tiled(compute, net, x[0].transpose(1, 2, 0), tile)


@every_net
@settings(max_examples=4)
@given(
    size=st.tuples(st.integers(1, 420), st.integers(1, 420)),
    tile=st.tuples(st.sampled_from([32, 64, 160]), st.sampled_from([64, 96, 288])),
    seed=st.integers(0, 9),
)
def test_tiles_equal_the_whole_image(model, geometry, deconv, size, tile, seed):
    net, x = random_net(model, geometry, deconv, width=1e-3, classes=2, positive=True), image(*size, seed=seed)
    whole = logits(net, x)[0]
    np.testing.assert_allclose(tiled_logits(net, x, tile), whole, rtol=0, atol=1e-13 * np.abs(whole).max())


@pytest.mark.parametrize("geometry", GEOMETRIES)
@settings(max_examples=4)
@given(size=st.tuples(st.integers(1, 500), st.integers(1, 300)))
def test_tiles_of_alexnet_equal_the_whole_image(geometry, size):
    """Overlapping poolings, a stride of 4 and normalisation across channels."""
    net = random_net("fcn32s", geometry, positive=True, backbone="alexnet", width=0.02, classes=2)
    x = image(*size)
    whole = logits(net, x)[0]
    np.testing.assert_allclose(tiled_logits(net, x, (96, 64)), whole, rtol=0, atol=1e-12 * np.abs(whole).max())


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize(
    "narrower",
    [
        pytest.param(lambda first, last: (first, last - 1), id="one row less at the end"),
        pytest.param(lambda first, last: ((first // 32 + 1) * 32, last), id="one stride less at the start"),
    ],
)
def test_the_halo_is_as_narrow_as_it_can_be(monkeypatch, geometry, narrower):
    net, x = random_net(geometry=geometry, width=1e-3, classes=2, positive=True), image(640, 64)
    whole, true = logits(net, x)[0], receptive.total_reach
    monkeypatch.setattr(receptive, "total_reach", lambda *arguments: narrower(*true(*arguments)))
    assert np.abs(tiled_logits(net, x, (64, 64)) - whole).max() > 1e-9 * np.abs(whole).max()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_large_picture_in_tiles(geometry):
    """1500 x 1000 in float32: every label that is not a tie to rounding, and every logit to 1e-4."""
    net = random_net(geometry=geometry, dtype=np.float32, width=1 / 16, backbone="vgg11")
    picture = np.random.default_rng(1).integers(0, 256, (1000, 1500, 3), np.uint8)
    segmenter = Segmenter(net, Normalization((120, 120, 120), 60), ("a", "b", "c"), np.eye(3, dtype=np.uint8))
    whole = segmenter.logits(picture[None])[0]
    tiled = tiling.tiled(lambda part: segmenter.logits(part[None])[0], net, picture, (512, 512))
    largest = np.abs(whole).max()
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-4 * largest)
    segmenter.tile = (512, 512)
    labels = segmenter(picture)
    behind = whole.max(axis=0) - np.take_along_axis(whole, labels[None].astype(int), axis=0)[0]
    assert behind.max() <= 2e-4 * largest


def test_tiles_cover_the_image_once():
    net = random_net("fcn16s")
    covered = np.zeros((300, 170), int)
    for tile in tiling.tiles(net, covered.shape, (96, 64)):
        covered[tile.output] += 1
        assert covered[tile.image][tile.own].shape == covered[tile.output].shape
        assert all(part.start % 32 == 0 for part in tile.image)
    assert (covered == 1).all()


@pytest.mark.parametrize("tile", [(0, 32), (32, 40), (-32, 32)])
def test_tiles_off_the_stride_are_refused(tile):
    with pytest.raises(MinifcnError, match="multiples of 32"):
        tiling.checked(random_net(), tile)


# --- commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path):
    """A checkpoint, and a picture to label."""
    about = {"model": "fcn8s", "backbone": "small", "classes": 3, "width": 0.03}
    net = random_net(dtype=np.float32)
    palette = (80 * np.eye(3, dtype=int)).tolist()
    data = {"classes": ["a", "b", "c"], "palette": palette, "mean": [99] * 3, "std": [50] * 3}
    Checkpoint(net.state_dict(), {"network": about, "data": data}).save(tmp_path / "net.safetensors")
    picture = np.random.default_rng(0).integers(0, 256, (90, 140, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    return tmp_path


def predict(folder, out, *options):
    return cli.main(
        ["predict", str(folder / "net.safetensors"), str(folder / "picture.png"), "--out", str(folder / out), *options]
    )


def test_predict_draws_streams_and_fields(trained):
    assert predict(trained, "out", "--attribute", "--receptive", "5,130") == 0
    names = {"picture.png", "picture_overlay.png", "picture_streams.png", "picture_field.png", "legend.png"}
    assert {file.name for file in (trained / "out").iterdir()} == names


@pytest.mark.parametrize("tile", ["32x64", "auto"])
def test_predict_in_tiles_gives_the_same_labels(trained, tile):
    assert predict(trained, "whole") == predict(trained, "tiles", "--tile", tile) == 0
    whole, tiles = (np.asarray(Image.open(trained / out / "picture.png")) for out in ("whole", "tiles"))
    assert (whole == tiles).mean() > 0.999  # but for ties to rounding


def test_predict_refuses_pixels_and_tiles_that_are_none(trained, capsys):
    assert predict(trained, "out", "--receptive", "90,0") == 2
    assert "row (=90) must lie in 0..89" in capsys.readouterr().err
    assert predict(trained, "out", "--tile", "30x32") == 2
    assert "multiples of 32" in capsys.readouterr().err
