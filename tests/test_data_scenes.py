"""Generated scenes: determinism, class shares, void lines, and that colour alone does not decide the class."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minifcn.data import IGNORE, Scenes, colourise, generated, open_dataset, voc_palette
from minifcn.errors import DataError


@pytest.fixture(scope="module")
def samples():
    train = Scenes("train")
    return [train[i] for i in range(60)]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(32, 90),
    st.integers(32, 140),
    st.integers(0, 2**64 - 1),
    st.sampled_from(["train", "val"]),
    st.integers(0, 50),
)
def test_any_size_and_seed_gives_a_legal_sample_twice(height, width, seed, split, index):
    first, second = (Scenes(split, seed=seed, size=(height, width))[index] for _ in range(2))
    assert first.image.shape == (height, width, 3)
    assert first.label.shape == (height, width)
    assert first.image.dtype == first.label.dtype == np.uint8
    assert set(np.unique(first.label)) <= {*range(8), IGNORE}
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.label, second.label)
    assert first.name == second.name == f"{split}_{index:06d}"


def test_split_seed_and_index_each_change_the_scene():
    images = [
        Scenes(split, seed=seed)[index].image for split in ("train", "val") for seed in (0, 1) for index in (0, 1)
    ]
    assert len({image.tobytes() for image in images}) == 8


def test_what_it_keeps_is_bounded(monkeypatch):
    scenes = Scenes("train", size=(32, 40), length=3)
    assert scenes.kept_bytes == 3 * 32 * 40 * 4
    monkeypatch.setattr(generated, "KEEP_BYTES", 2 * 32 * 40 * 4 + 1)
    assert scenes.kept_bytes == 2 * 32 * 40 * 4
    kept = [scenes[i] is scenes[i] for i in range(3)]
    assert kept == [True, True, False]


def test_every_class_is_common_and_void_is_thin(samples):
    labels = np.stack([s.label for s in samples])
    share = np.bincount(labels.ravel(), minlength=256) / labels.size
    assert (share[:8] > 0.035).all(), share[:8]
    assert 0.03 < share[IGNORE] < 0.08
    present = np.mean([[np.mean(s.label == c) > 0.004 for c in range(8)] for s in samples], axis=0)
    assert (present > 0.85).all(), present


def test_void_lies_between_unlike_regions(samples):
    for sample in samples[:10]:
        label = sample.label
        for a, b in ((label[:, 1:], label[:, :-1]), (label[1:], label[:-1])):
            assert not ((a != b) & (a != IGNORE) & (b != IGNORE)).any()
        # Void pixels touch two classes, but for those deep in a knot of boundaries.
        rows, columns = np.nonzero(label == IGNORE)
        padded = np.pad(label, 1, mode="edge").astype(int)
        around = np.stack([padded[rows + 1 + dy, columns + 1 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
        kinds = [len(set(column.tolist()) - {IGNORE}) for column in around.T]
        assert np.mean(np.array(kinds) >= 2) > 0.8


def test_colour_alone_does_not_decide_the_class(samples):
    # The best single colour a class (nearest mean) must stay far below what a network reaches (above 0.9).
    image = np.concatenate([s.image.reshape(-1, 3) for s in samples]).astype(float)
    label = np.concatenate([s.label.ravel() for s in samples])
    image, label = image[label != IGNORE], label[label != IGNORE]
    means = np.stack([image[label == c].mean(0) for c in range(8)])
    nearest = ((image[::17, None] - means) ** 2).sum(-1).argmin(1)
    assert np.mean(nearest == label[::17]) < 0.55


def test_sky_is_above_road():
    centre = {}
    for index in range(10):
        label = Scenes("val")[index].label
        for c in (0, 5):
            centre.setdefault(c, []).append(np.nonzero(label == c)[0].mean())
    assert max(centre[0]) < min(centre[5])


def test_lengths_and_index_errors():
    assert (len(Scenes("train")), len(Scenes("val")), len(Scenes(length=7))) == (600, 80, 7)
    assert len(list(iter(Scenes(length=3)))) == 3  # the sequence protocol ends by IndexError
    with pytest.raises(IndexError, match="600"):
        Scenes()[600]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "no split 'test'; it has train, val"),
        ({"size": (31, 64)}, "31x64.*at least 32"),
        ({"seed": -1}, "seed -1.*0 .. 2"),
        ({"length": 0}, "length 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(DataError, match=message):
        Scenes(**arguments)


def test_open_dataset_parses_scenes():
    assert open_dataset("scenes").size == (96, 128)
    assert open_dataset("scenes:64x80", "val", seed=3)[0].label.shape == (64, 80)
    assert np.array_equal(
        open_dataset("scenes", seed=5, size=(48, 40))[2].image, Scenes(seed=5, size=(48, 40))[2].image
    )
    for spec, message in [
        ("scene", "unknown data set 'scene'; known are scenes\\[:HxW\\], shapes\\[:HxW\\], folder:DIR"),
        ("scenes:64", "written HxW"),
        ("scenes:8x8", "at least 32"),
        ("folder:", "names no folder"),
    ]:
        with pytest.raises(DataError, match=message):
            open_dataset(spec)
    with pytest.raises(DataError, match=r"has 8 classes .*sky, .* not 9"):
        open_dataset("scenes", classes=9)


def test_voc_palette_is_the_published_one():
    # The colours of the development kit for background .. bottle, and for tvmonitor (20).
    published = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
    assert voc_palette(21)[:6].tolist() == [list(c) for c in published]
    assert voc_palette(21)[20].tolist() == [0, 64, 128]
    assert voc_palette(256)[255].tolist() == [224, 224, 192]  # the void colour of VOC is entry 255
    assert len(np.unique(voc_palette(256), axis=0)) == 256
    picture = colourise(np.array([[1, 255, 7]], np.uint8), voc_palette(2))
    assert picture.tolist() == [[[128, 0, 0], [224, 224, 192], [224, 224, 192]]]
