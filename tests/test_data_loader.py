"""Augmentation moves image and label alike; batches are reproducible, resumable and leave no thread behind."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minifcn.data import Augment, Dataset, Loader, Normalization, Sample, Scenes, voc_palette
from minifcn.errors import DataError

PLAIN = Normalization((0, 0, 0), 1)


class Table(Dataset):
    """Samples of one grey value each; sizes may differ; an index may be told to fail, or reading to be slow."""

    classes, palette = ("a", "b"), voc_palette(2)

    def __init__(self, length, sizes=((4, 6),), fails=None, delay=0.0):
        self.length, self.sizes, self.fails, self.delay = length, sizes, fails, delay
        self.read = []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.read.append(index)
        time.sleep(self.delay)
        if index == self.fails:
            raise DataError(f"sample {index} is broken")
        height, width = self.sizes[index % len(self.sizes)]
        image = np.full((height, width, 3), index % 256, np.uint8)
        image[..., 1] = np.arange(width)
        return Sample(image, np.full((height, width), index % 2, np.uint8), f"s{index}")


def mapped(height, width):
    """A sample whose image and label both spell out the coordinates: R = row, G = column, label = 3 row + column."""
    row, column = np.mgrid[:height, :width]
    image = np.stack([row, column, np.full_like(row, 77)], -1).astype(np.uint8)
    return Sample(image, (3 * row + column).astype(np.uint8), "map")


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.booleans(),
    st.none() | st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 10**6),
)
def test_flip_and_crop_move_image_and_label_alike(height, width, flip, crop, seed):
    sample = mapped(height, width)
    out = Augment(flip=flip, crop=crop)(sample, np.random.default_rng(seed))
    assert out.image.shape[:2] == out.label.shape == (crop or (height, width))
    inside = out.label != 255
    # Every pixel of a padded axis is kept, a cut axis is filled.
    assert inside.sum() == np.prod([min(a, b) for a, b in zip((height, width), crop or (height, width), strict=True)])
    decoded = 3 * out.image[..., 0].astype(int) + out.image[..., 1]
    assert np.array_equal(decoded[inside], out.label[inside])
    mean = np.rint(sample.image.mean((0, 1)))
    assert (out.image[~inside] == mean).all()


@settings(max_examples=80, deadline=None)
@given(st.integers(4, 40), st.integers(4, 40), st.floats(0.5, 2), st.floats(0, 1), st.booleans(), st.integers(0, 10**6))
def test_scaling_keeps_image_and_label_aligned(height, width, low, more, flip, seed):
    # Bilinear and nearest samples of a ramp of slope 1 differ by at most about a source pixel, plus the rounding.
    row, column = np.mgrid[:height, :width]
    for ramp in (row, column):
        image = np.repeat(ramp.astype(np.uint8)[..., None], 3, -1)
        augment = Augment(flip=flip, scale=(low, low + more))
        out = augment(Sample(image, ramp.astype(np.uint8), ""), np.random.default_rng(seed))
        factor = out.label.shape[0] / height
        assert low - 0.5 / height <= factor + 1e-9
        assert factor - 1e-9 <= low + more + 0.5 / height
        assert np.abs(out.image[..., 0].astype(int) - out.label).max() <= 1.5
        assert set(np.unique(out.label)) <= set(np.unique(ramp))


def test_flip_and_crop_reach_every_outcome():
    sample = mapped(3, 5)
    outcomes = {Augment(flip=True, crop=(2, 3))(sample, np.random.default_rng(s)).label.tobytes() for s in range(400)}
    assert len(outcomes) == 2 * 3 * 2  # 2 rows x 3 columns of places, mirrored or not
    padded = {Augment(crop=(5, 6))(sample, np.random.default_rng(s)).label.tobytes() for s in range(200)}
    assert len(padded) == 3 * 2  # 3 rows x 2 columns where the picture may lie in the larger frame


def test_scaling_makes_no_new_label_values():
    label = np.random.default_rng(0).choice(np.array([0, 7, 255], np.uint8), (20, 30))
    sample = Sample(np.zeros((20, 30, 3), np.uint8), label, "")
    for factor in (0.5, 0.7, 1.3, 2.0):
        out = Augment(scale=(factor, factor))(sample, np.random.default_rng(0))
        assert out.label.shape == (round(20 * factor), round(30 * factor))
        assert set(np.unique(out.label)) == {0, 7, 255}


def test_jitter_changes_the_image_only():
    sample = Scenes()[0]
    out = Augment(jitter=0.4)(sample, np.random.default_rng(1))
    assert np.array_equal(out.label, sample.label)
    assert 3 < np.abs(out.image.astype(int) - sample.image).mean() < 80
    grey = Sample(np.full((4, 4, 3), 100, np.uint8), sample.label[:4, :4], "")
    values = [Augment(jitter=0.25)(grey, np.random.default_rng(s)).image for s in range(50)]
    # On a uniform grey picture contrast and saturation do nothing and brightness gives 75 .. 125.
    assert all(len(np.unique(v)) == 1 for v in values)
    assert min(v.min() for v in values) >= 75
    assert max(v.max() for v in values) <= 125
    assert len({v.flat[0] for v in values}) > 10


def test_unlabelled_samples_are_augmented():
    out = Augment(True, (0.5, 2), (8, 8), 0.1)(Sample(mapped(9, 5).image, None, "x"), np.random.default_rng(0))
    assert out.label is None
    assert out.image.shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": (0.0, 1.0)}, "scale 0.0 .. 1.0"),
        ({"scale": (2.0, 1.0)}, "in order"),
        ({"scale": (1.0, float("nan"))}, "scale"),
        ({"crop": (0, 5)}, r"crop \(0, 5\)"),
        ({"jitter": 1.0}, "jitter 1.0"),
        ({"jitter": float("nan")}, "jitter nan"),
    ],
)
def test_bad_augmentations_are_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        Augment(**arguments)


def test_normalization_by_hand():
    image = np.array([[[10, 20, 30], [110, 20, 130]]], np.uint8)
    out = Normalization((10, 20, 30), (50, 1, 100)).apply(image)
    assert out.dtype == np.float32
    assert np.allclose(out, [[[0, 0, 0], [2, 0, 1]]])
    measured = Normalization.measure(Table(3, sizes=((2, 4),)))
    # R is 0, 1, 2; G runs 0..3 in each image; B as R; a std below 1 counts as 1.
    assert np.allclose(measured.mean, (1, 1.5, 1))
    assert np.allclose(measured.std, (1, np.sqrt(1.25), 1))
    table = Table(1000)
    Normalization.measure(table, limit=10)
    assert len(table.read) == 10
    assert (min(table.read), max(table.read)) == (0, 999)
    for mean, std in (((1, 2), 1), ((0, 0, 0), 0), ((0, 0, 0), (1, 1, float("nan"))), ((0, float("inf"), 0), 1)):
        with pytest.raises(DataError, match="normalisation"):
            Normalization(mean, std)


def test_drawing_with_replacement():
    loader = Loader(Table(10), 8, PLAIN, seed=5, draws=1000)
    assert len(loader) == 125
    order = loader.order(3)
    counts = np.bincount(order, minlength=10)
    assert len(order) == 1000
    assert 60 < counts.min() <= counts.max() < 140  # 100 each, within four standard deviations of 9.5
    assert np.array_equal(order, Loader(Table(10), 3, PLAIN, seed=5, draws=1000).order(3))
    assert not np.array_equal(order, loader.order(4))
    few = Loader(Table(10), 2, PLAIN, seed=5, draws=5)
    names = [name for batch in few.epoch(0) for name in batch.names]
    assert names == [few.dataset[index].name for index in few.order(0)]
    assert [batch.names for batch in few.epoch(0, start=1)] == [names[2:4], names[4:]]
    with pytest.raises(DataError, match="draws 0: must be at least 1"):
        Loader(Table(3), 2, PLAIN, draws=0)


def test_batches_have_the_promised_form():
    loader = Loader(Table(7), 3, PLAIN, shuffle=False)
    batches = list(loader.epoch(0))
    assert [len(b.names) for b in batches] == [3, 3, 1]
    assert len(loader) == 3
    images = batches[1].images
    assert (images.shape, images.dtype) == ((3, 3, 4, 6), np.float32)
    assert images.transpose(0, 2, 3, 1).flags.c_contiguous
    assert images[:, 0, 0, 0].tolist() == [3, 4, 5]
    assert images[0, 1, 2].tolist() == [0, 1, 2, 3, 4, 5]
    assert batches[1].labels.dtype == np.uint8
    assert batches[1].labels[:, 0, 0].tolist() == [1, 0, 1]
    assert batches[1].names == ["s3", "s4", "s5"]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 23), st.integers(1, 6), st.integers(0, 2**63), st.integers(0, 1000), st.integers(1, 5), st.data())
def test_an_epoch_is_a_permutation_and_resumes_anywhere(length, size, seed, epoch, ahead, data):
    augment = Augment(flip=True, crop=(3, 5), jitter=0.3)

    def make():
        return Loader(Table(length), size, PLAIN, seed=seed, augment=augment, ahead=ahead)

    whole = list(make().epoch(epoch))
    assert sorted(n for b in whole for n in b.names) == sorted(f"s{i}" for i in range(length))
    start = data.draw(st.integers(0, len(whole)))
    rest = list(make().epoch(epoch, start))
    assert len(rest) == len(whole) - start
    for a, b in zip(whole[start:], rest, strict=True):
        assert a.names == b.names
        assert np.array_equal(a.images, b.images)
        assert np.array_equal(a.labels, b.labels)


def test_epochs_and_seeds_differ():
    orders = {tuple(Loader(Table(20), 4, PLAIN, seed=s).order(e)) for s in range(3) for e in range(3)}
    assert len(orders) == 9
    augment = Augment(crop=(2, 3))
    loader = Loader(Table(8), 8, PLAIN, shuffle=False, augment=augment)
    first, second = (next(loader.epoch(e)).images for e in (0, 1))
    assert not np.array_equal(first, second)


def loader_threads():
    return [t for t in threading.enumerate() if t.name == "minifcn-loader"]


def test_the_thread_ends_with_the_epoch_and_on_early_exit():
    list(Loader(Table(5), 2, PLAIN).epoch(0))
    assert not loader_threads()
    for ahead in (1, 2, 4):
        for taken in (1, 2, 3):
            table = Table(100, delay=0.002)
            batches = Loader(table, 4, PLAIN, ahead=ahead).epoch(0, start=20)  # close to the end as well
            for _ in range(taken):
                next(batches)
            began = time.monotonic()
            batches.close()
            assert time.monotonic() - began < 0.5
            assert not loader_threads()
    batches = Loader(Table(100), 4, PLAIN).epoch(0)
    assert not loader_threads()  # nothing runs before the first batch is asked for
    next(batches)
    assert loader_threads()
    del batches
    assert not loader_threads()


def test_loading_ahead_is_bounded():
    table = Table(100)
    batches = Loader(table, 2, PLAIN, ahead=3, shuffle=False).epoch(0)
    next(batches)
    time.sleep(0.2)
    # One batch taken, three waiting, one in the thread's hand.
    assert len(table.read) == 2 * 5
    batches.close()


def test_an_error_is_raised_at_its_batch_with_its_message():
    batches = Loader(Table(9, fails=5), 2, PLAIN, shuffle=False).epoch(0)
    assert next(batches).names == ["s0", "s1"]
    assert next(batches).names == ["s2", "s3"]
    with pytest.raises(DataError, match="sample 5 is broken"):
        next(batches)
    assert not loader_threads()


def test_mixed_sizes_name_both_samples():
    table = Table(4, sizes=((4, 6), (5, 6)))
    with pytest.raises(DataError, match=r"s0 is 4x6 \(HxW\) but s1 is 5x6; .*crop, or use batch size 1"):
        list(Loader(table, 2, PLAIN, shuffle=False).epoch(0))
    assert len(list(Loader(table, 1, PLAIN).epoch(0))) == 4
    assert len(list(Loader(table, 2, PLAIN, augment=Augment(crop=(4, 4))).epoch(0))) == 2


def test_bad_loader_arguments_are_named():
    for arguments, message in [
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": 2, "ahead": 0}, "ahead 0"),
        ({"batch_size": 2, "seed": -1}, "seed -1"),
    ]:
        with pytest.raises(DataError, match=message):
            Loader(Table(3), normalization=PLAIN, **arguments)
    with pytest.raises(DataError, match="empty"):
        Loader(Table(0), 1, PLAIN)
    with pytest.raises(DataError, match=r"batches are 0 .. 2"):
        Loader(Table(3), 2, PLAIN).epoch(0, start=3)
