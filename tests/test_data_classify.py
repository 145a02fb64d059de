"""Data sets for classification: image folders and generated shapes, and what augmentation and batches make of them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minifcn.cli import main
from minifcn.data import Augment, Loader, Normalization, Sample, Shapes, inspect_dataset, open_dataset
from minifcn.data.files import FileError
from minifcn.data.shapes import OUTLINES
from minifcn.errors import DataError

PLAIN = Normalization((0, 0, 0), 1)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(image, np.uint8)).save(path)


def fill(folder, names, value=0, shape=(6, 8, 3)):
    for name in names:
        save(folder / f"{name}.png", np.full(shape, value))


@pytest.fixture
def divided(tmp_path):
    """Two classes in folders train and val; the value of every pixel tells the class."""
    for split, names in (("train", "abc"), ("val", "d")):
        fill(tmp_path / split / "cat", names, 10)
        fill(tmp_path / split / "ant", names, 20, (9, 5, 3))
    return tmp_path


def contents(dataset):
    return [(s.name, int(s.label[0, 0]), int(s.image[0, 0, 0])) for s in (dataset[i] for i in range(len(dataset)))]


def test_image_folder_with_train_and_val(divided):
    train, val = (open_dataset(f"imagefolder:{divided}@4x6", split) for split in ("train", "val"))
    assert train.classes == ("ant", "cat")
    assert train.task == "classify"
    assert contents(train) == [(f"ant/{n}", 0, 20) for n in "abc"] + [(f"cat/{n}", 1, 10) for n in "abc"]
    assert contents(val) == [("ant/d", 0, 20), ("cat/d", 1, 10)]
    for sample in (train[0], train[5]):
        assert sample.image.shape == (4, 6, 3)
        assert sample.label.shape == (1, 1)
        assert sample.image.dtype == sample.label.dtype == np.uint8
    assert train.source(5) == str(divided / "train" / "cat" / "c.png")
    assert open_dataset(f"imagefolder:{divided}")[0].image.shape == (224, 224, 3)
    assert open_dataset(f"imagefolder:{divided}", size=(5, 7))[0].image.shape == (5, 7, 3)


def test_image_folder_without_splits_takes_every_fifth_of_each_class(tmp_path):
    fill(tmp_path / "x", "abcdefghijk", 1)
    fill(tmp_path / "y", "ABCDE", 2)
    (tmp_path / ".hidden").mkdir()
    assert contents(open_dataset(f"imagefolder:{tmp_path}@2x2", "val")) == [("x/e", 0, 1), ("x/j", 0, 1), ("y/E", 1, 2)]
    train = contents(open_dataset(f"imagefolder:{tmp_path}@2x2"))
    assert [name for name, _, _ in train] == [f"x/{n}" for n in "abcdfghik"] + [f"y/{n}" for n in "ABCD"]


def test_pictures_are_scaled_to_cover_and_cut_about_their_centre(tmp_path):
    # 4 x 16 at half size covers 2 x 4; of its 8 columns the middle four stay, source columns 4 .. 11.
    columns = np.repeat(np.repeat([0, 0, 40, 80, 120, 160, 200, 0], 2)[None], 4, 0)
    save(tmp_path / "a" / "wide.png", np.stack([columns] * 3, -1))
    save(tmp_path / "b" / "exact.png", np.arange(24).reshape(2, 4, 3))
    dataset = open_dataset(f"imagefolder:{tmp_path}@2x4")
    inner = dataset[0].image[:, :, 0]
    assert (inner == inner[:1]).all()
    assert np.abs(inner[0].astype(int) - [40, 80, 120, 160]).max() <= 1
    assert np.array_equal(dataset[1].image.ravel(), np.arange(24))  # the right size already: untouched


@pytest.mark.parametrize(
    ("step", "split", "message"),
    [
        (lambda d: fill(d / "val" / "dog", "a"), "val", "val/dog: no class of that name in .*train; .* ant, cat"),
        (lambda d: (d / "val").rename(d / "test"), "val", "val: no such folder .split 'val'"),
        (lambda d: (d / "train").rename(d / "old"), "val", "train: no such folder .split 'train'"),
        (lambda d: [p.rename(d / p.name) for p in (d / "val").iterdir()], "val", "val: no pictures for split 'val'$"),
        (lambda d: (d / "train" / "dog").mkdir(), "train", "train/dog: no files"),
        (lambda d: (d / "train" / "cat").rename(d / "cat"), "train", "train: 1 classes; .* one folder a class"),
        (lambda d: None, "test", "an image folder has no split 'test'; it has train, val"),
    ],
)
def test_broken_image_folders_are_named(divided, step, split, message):
    step(divided)
    with pytest.raises(DataError, match=message):
        open_dataset(f"imagefolder:{divided}", split)


def test_image_folder_settings_are_checked(divided):
    fill(divided / "few" / "a", "123")
    fill(divided / "few" / "b", "1234")
    for spec, options, message in [
        (f"imagefolder:{divided}/few", {"split": "val"}, "no pictures for split 'val'; every 5th picture"),
        (f"imagefolder:{divided}@0x4", {}, "pictures of 0x4"),
        (f"imagefolder:{divided}@4x4", {"size": (4, 5)}, "give one of them"),
        (f"imagefolder:{divided}", {"classes": 3}, r"has 2 classes \(ant, cat\), not 3"),
        (f"imagefolder:{divided}@4", {}, "@4: no such folder"),
    ]:
        with pytest.raises(DataError, match=message):
            open_dataset(spec, **options)


def test_a_broken_picture_names_itself_in_a_batch_and_in_the_doctor(divided, capsys):
    broken = divided / "train" / "cat" / "b.png"
    broken.write_bytes(b"no picture")
    loader = Loader(open_dataset(f"imagefolder:{divided}@4x4"), 2, PLAIN)
    with pytest.raises(FileError, match=r"b\.png: not an image file"):
        list(loader.epoch(0))
    report = inspect_dataset(f"imagefolder:{divided}@4x4")
    assert [(p.split, Path(p.file)) for p in report.problems] == [("train", broken)]
    assert report.splits[0].histogram == {0: 3, 1: 2}
    assert main(["doctor", "--data", f"imagefolder:{divided}@4x4"]) == 1
    shown = capsys.readouterr().out
    assert "train: 6 pictures" in shown
    assert "cat/b.png: not an image file" in shown


@settings(max_examples=40)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 14), st.integers(1, 14), st.integers(0, 10**6))
def test_augmentation_leaves_the_class_of_a_picture_alone(height, width, rows, columns, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    augment = Augment(flip=True, scale=(0.5, 2.5), crop=(rows, columns), jitter=0.2)
    out = augment(Sample(image, np.array([[7]], np.uint8), "one"), np.random.default_rng(seed))
    assert out.image.shape == (rows, columns, 3)
    assert out.label.tolist() == [[7]]
    unseen = augment(Sample(image, None, "none"), np.random.default_rng(seed))
    assert unseen.label is None
    assert np.array_equal(out.image, unseen.image)


def test_batches_hold_one_class_a_picture():
    shapes = Shapes(length=5)
    batches = list(Loader(shapes, 3, PLAIN, shuffle=False).epoch(0))
    assert [b.images.shape for b in batches] == [(3, 3, 64, 64), (2, 3, 64, 64)]
    assert np.concatenate([b.labels for b in batches]).ravel().tolist() == [int(s.label[0, 0]) for s in shapes]
    assert batches[0].labels.shape == (3, 1, 1)
    loader = Loader(shapes, 5, PLAIN, augment=Augment(scale=(0.5, 2)))
    with pytest.raises(DataError, match="a batch needs one size"):
        list(loader.epoch(0))


@settings(max_examples=25)
@given(
    st.integers(24, 90),
    st.integers(24, 90),
    st.integers(0, 2**64 - 1),
    st.sampled_from(["train", "val"]),
    st.integers(0, 300),
)
def test_any_size_and_seed_gives_a_legal_shape_twice(height, width, seed, split, index):
    first, second = (Shapes(split, seed=seed, size=(height, width))[index] for _ in range(2))
    assert first.image.shape == (height, width, 3)
    assert first.label.shape == (1, 1)
    assert first.image.dtype == first.label.dtype == np.uint8
    assert first.label[0, 0] < 8
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.label, second.label)
    assert first.name == second.name == f"{split}_{index:06d}"


def test_outlines_have_the_areas_of_their_figures():
    # Areas by elementary geometry, for figures of radius 1.
    y, x = (np.mgrid[:600, :600] + 0.5) / 200 - 1.5
    areas = {
        "disc": np.pi,
        "ring": np.pi * (1 - 0.5**2),
        "half disc": np.pi / 2,
        "triangle": 3 * np.sqrt(3) / 4,
        "square": 2.0,
        "star": 10 * 0.42 * np.sin(np.pi / 5) / 2,
        "cross": 4 * 0.95 * 0.6 - 0.6**2,
    }
    for name, area in areas.items():
        assert np.mean(OUTLINES[name](x, y) < 0) * 9 == pytest.approx(area, rel=0.01), name
    crescent = OUTLINES["crescent"](x, y) < 0
    assert np.array_equal(crescent, (np.hypot(x, y) < 1) & (np.hypot(x - 0.5, y) > 0.85))


def test_shapes_are_balanced_and_not_told_by_colour():
    samples = [Shapes(length=800)[i] for i in range(800)]
    classes = np.array([int(s.label[0, 0]) for s in samples])
    assert np.bincount(classes, minlength=8).min() > 70
    # The nearest mean histogram of 4 x 4 x 4 colours, of the first half, guesses the second half: chance is 0.125.
    colours = [np.bincount((s.image // 64).reshape(-1, 3) @ [16, 4, 1], minlength=64) for s in samples]
    first, second = np.split(np.stack(colours).astype(float), 2)
    means = np.stack([first[classes[:400] == c].mean(0) for c in range(8)])
    guessed = ((second[:, None] - means) ** 2).sum(-1).argmin(1)
    assert np.mean(guessed == classes[400:]) < 0.2


def test_open_dataset_knows_shapes():
    assert open_dataset("shapes:32x40", "val", seed=3).size == (32, 40)
    assert (len(open_dataset("shapes")), len(open_dataset("shapes", "val"))) == (2000, 400)
    assert open_dataset("shapes").size == (64, 64)
    assert open_dataset("scenes").task == "segment"
    keys = [(split, seed, index) for split in ("train", "val") for seed in (0, 1) for index in (0, 1)]
    assert len({Shapes(split, seed=seed)[index].image.tobytes() for split, seed, index in keys}) == 8
    for spec, message in [
        ("shapes:8x8", "shapes of 8x8: height and width must be at least 24"),
        ("shapes:9", "written HxW"),
    ]:
        with pytest.raises(DataError, match=message):
            open_dataset(spec)
