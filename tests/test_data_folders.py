"""Folder, PASCAL VOC and CamVid layouts, their messages, and the inspection of whole data sets."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minifcn.data import Scenes, inspect_dataset, open_dataset, voc_palette
from minifcn.errors import DataError

SHARED = Path(os.environ.get("MINIFCN_SHARED", Path(__file__).parents[2] / "shared"))


def picture(path, value=0, shape=(3, 4), mode=None):
    """A constant image of `shape`, with its parents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full(shape, value, np.uint8))
    if mode == "P":
        image.putpalette(voc_palette(256).ravel().tolist())
    image.save(path)
    return path


def fill(images, labels, stems, value=1, **kind):
    for number, stem in enumerate(stems):
        picture(images / f"{stem}.png", number, (3, 4, 3))
        picture(labels / f"{stem}.png", value, **kind)


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "images", tmp_path / "labels", [f"{i:02d}" for i in range(1, 12)])
    return tmp_path


def names(dataset):
    return [dataset[i].name for i in range(len(dataset))]


def test_folder_without_lists_takes_every_fifth_for_val(folder):
    assert names(open_dataset(f"folder:{folder}", "val")) == ["05", "10"]
    train = open_dataset(f"folder:{folder}", "train")
    assert names(train) == ["01", "02", "03", "04", "06", "07", "08", "09", "11"]
    assert train.classes == ("class 0", "class 1")  # measured
    assert train.palette.tolist() == [[0, 0, 0], [128, 0, 0]]
    assert train[4].image[0, 0, 0] == 5  # image 06
    assert train.source(4).endswith("06.png")


def test_folder_with_lists_and_class_names(folder):
    (folder / "train.txt").write_text("03\n\n01.png\n")
    (folder / "val.txt").write_bytes(b"\xef\xbb\xbf02\r\n")
    (folder / "classes.txt").write_text("back\nfront\nside\n")
    train = open_dataset(f"folder:{folder}")
    assert names(train) == ["03", "01"]
    assert names(open_dataset(f"folder:{folder}", "val")) == ["02"]
    assert train.classes == ("back", "front", "side")
    assert open_dataset(f"folder:{folder}", classes=5).classes[4] == "class 4"
    assert open_dataset(f"folder:{folder}", classes=["a", "b"]).classes == ("a", "b")


def test_folder_with_one_folder_a_split(tmp_path):
    fill(tmp_path / "train" / "image", tmp_path / "train" / "label", ["a", "b"])
    fill(tmp_path / "val" / "images", tmp_path / "val" / "labels", ["c"], value=4)
    assert names(open_dataset(f"folder:{tmp_path}")) == ["a", "b"]
    assert names(open_dataset(f"folder:{tmp_path}", "val")) == ["c"]
    assert len(open_dataset(f"folder:{tmp_path}").classes) == 5  # the largest label of both splits is 4


def break_lists(text):
    def step(folder):
        (folder / "train.txt").write_bytes(text)

    return step


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda d: (d / "labels" / "03.png").unlink(), "images: 1 images without a label in .*labels: 03; pairs share"),
        (lambda d: (d / "images" / "03.png").unlink(), "labels: 1 labels without an image in .*images: 03"),
        (lambda d: [p.unlink() for p in (d / "images").iterdir()], "images: no files"),
        (
            lambda d: (d / "labels").rename(d / "masks"),
            "no folder labels or label; a folder data set has images and labels",
        ),
        (lambda d: picture(d / "images" / "03.bmp"), "03.png: shares its stem with 03.bmp"),
        (lambda d: (d / "val.txt").write_text("01"), "train.txt: no such list"),
        (break_lists(b"01\n\n99\n"), "train.txt, line 3: '99' has no file in .*images"),
        (break_lists(b"01 1\n"), "train.txt, line 1: '01 1' has no file .*one image name a line"),
        (break_lists(b"01\n\xff\xfe\n"), "train.txt, line 2: not UTF-8"),
        (break_lists(b"01\n01.png\n"), "line 2: '01.png' is listed twice"),
        (break_lists(b"\n"), "train.txt: the list is empty"),
        (
            lambda d: [(d / f"{s}.txt").write_text("02\n03.png") for s in ("train", "val")],
            "train.txt, line 1: '02' .*val.txt, line 1 too",
        ),
        (lambda d: (d / "classes.txt").write_text("a\na\n"), "classes.txt: class names a, a are not all different"),
        (lambda d: (d / "classes.txt").write_text("a\n"), "classes.txt: 1 classes; there must be 2 .. 255"),
        (lambda d: (d / "train").mkdir(), "train: no folder images"),
        (lambda d: fill(d / "images", d / "labels", ["03"], value=0, shape=(3, 4, 3)), "03.png: an RGB label"),
    ],
)
def test_broken_folders_are_named_with_the_rule(folder, step, message):
    step(folder)
    with pytest.raises(DataError, match=message):
        open_dataset(f"folder:{folder}")


def test_folder_messages_about_masks_splits_and_small_sets(tmp_path, folder):
    fill(tmp_path / "mask" / "images", tmp_path / "mask" / "labels", "abcd", value=255)
    with pytest.raises(DataError, match="a mask of 0 and 255 must be stored as 0 and 1"):
        open_dataset(f"folder:{tmp_path}/mask")
    with pytest.raises(DataError, match="4 images leave split 'val' empty"):
        open_dataset(f"folder:{tmp_path}/mask", "val")
    with pytest.raises(DataError, match="no split 'test'; it has train, val"):
        open_dataset(f"folder:{folder}", "test")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        open_dataset(f"folder:{tmp_path}/nowhere")
    with pytest.raises(DataError, match="only scenes, shapes and imagefolder have a chosen size"):
        open_dataset(f"folder:{folder}", size=(32, 32))


@pytest.fixture
def voc(tmp_path):
    for year, stem in ((2007, "old"), (2012, "new")):
        home = tmp_path / "VOCdevkit" / f"VOC{year}"
        fill(home / "JPEGImages", home / "SegmentationClass", [stem, "boxes only"], value=15, mode="P")
        (home / "SegmentationClass" / "boxes only.png").unlink()  # most images of VOC have no label
        lists = home / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text(f"{stem}\n")
    return tmp_path


def test_voc_layouts_and_years(voc):
    kit = voc / "VOCdevkit"
    for spec in (f"{voc}", f"{kit}", f"{kit}@2012", f"{kit}/VOC2012", f"{kit}/VOC2012@2012"):
        assert names(open_dataset(f"voc:{spec}")) == ["new"]
    dataset = open_dataset(f"voc:{kit}@2007")
    assert names(dataset) == ["old"]
    assert (dataset[0].label == 15).all()  # the index, not the colour
    assert dataset.classes[15] == "person"
    assert dataset.palette[15].tolist() == [192, 128, 128]
    for spec, split, message in [
        (f"{kit}@2010", "train", "no folder VOC2010 .*years found: VOC2007, VOC2012"),
        (f"{kit}/VOC2012@2007", "train", "asked for year 2007"),
        (f"{kit}", "val", "Segmentation/val.txt: no such list"),
    ]:
        with pytest.raises(DataError, match=message):
            open_dataset(f"voc:{spec}", split)


def test_camvid_maps_its_void(tmp_path):
    fill(tmp_path / "train", tmp_path / "trainannot", ["a"], value=11)
    fill(tmp_path / "test", tmp_path / "testannot", ["b"], value=10)
    dataset = open_dataset(f"camvid:{tmp_path}")
    assert (dataset[0].label == 255).all()
    assert len(dataset.classes) == len(dataset.palette) == 11
    assert (open_dataset(f"camvid:{tmp_path}", "test")[0].label == 10).all()
    assert inspect_dataset(dataset).splits[0].histogram == {255: 12}
    picture(tmp_path / "trainannot" / "a.png", 12)
    with pytest.raises(DataError, match=r"a.png: label value 12 .* 0 .. 10 \(11 classes\) and 11 or 255 \(void\)"):
        dataset[0]
    with pytest.raises(DataError, match="val: no such folder"):
        open_dataset(f"camvid:{tmp_path}", "val")


def test_inspect_counts_by_hand(folder):
    picture(folder / "labels" / "05.png", 255)  # one of the two val labels is void
    report = inspect_dataset(f"folder:{folder}")
    train, val = report.splits
    assert (train.pairs, val.pairs, report.problems) == (9, 2, [])
    assert train.sizes == {(3, 4): 9}
    assert train.label_modes == {"grey": 9}
    assert val.histogram == {1: 12, 255: 12}
    assert val.void_share == 0.5
    assert (val.mean, val.std) == ((6.5,) * 3, (2.5,) * 3)  # images 05 and 10 hold 4 and 9


def test_inspect_collects_the_problems_of_all_files(folder):
    picture(folder / "labels" / "01.png", 1, (5, 4))
    picture(folder / "labels" / "02.png", 1, (3, 4, 3))
    (folder / "images" / "03.png").write_text("no picture")
    spotted = np.ones((3, 4), np.uint8)
    spotted[2, 1] = 7
    Image.fromarray(spotted).save(folder / "labels" / "10.png")
    for classes in (2, None):  # measuring the classes fails at 02, the report goes on
        report = inspect_dataset(f"folder:{folder}", classes=classes)
        found = {(p.split, Path(p.file).parent.name + "/" + Path(p.file).name, p.pixel) for p in report.problems}
        expected = {
            ("train", "labels/01.png", None),
            ("train", "labels/02.png", None),
            ("train", "images/03.png", None),
        }
        if classes:
            expected.add(("val", "labels/10.png", (2, 1)))
        assert found == expected
        assert report.problem_count == len(expected)
        assert report.splits[0].label_modes == {"grey": 8, "RGB": 1}
    report = inspect_dataset(f"folder:{folder}", classes=2, max_problems=1)
    assert (len(report.problems), report.problem_count) == (1, 4)


def test_inspect_reports_what_cannot_be_opened(tmp_path):
    report = inspect_dataset(f"folder:{tmp_path}/nowhere")
    assert [p.split for p in report.problems] == ["train", "val"]
    assert "no such folder" in report.problems[0].rule
    assert report.splits == []


def test_inspect_takes_a_dataset():
    report = inspect_dataset(Scenes("val", length=3, size=(32, 40)))
    assert report.classes[0] == "sky"
    assert report.splits[0].split == "val"
    assert report.splits[0].histogram.total() == 3 * 32 * 40
    assert report.splits[0].label_modes == {"array": 3}


@pytest.mark.skipif(not (SHARED / "data" / "camvid_half").is_dir(), reason="the real CamVid is not here")
def test_camvid_half_has_its_published_shares():
    report = inspect_dataset(f"camvid:{SHARED / 'data' / 'camvid_half'}")
    assert report.problems == []
    shares = {
        "train": [0.1694, 0.2329, 0.0098, 0.3153, 0.0449, 0.0974, 0.0118, 0.0113, 0.0587, 0.0064, 0.0029, 0.0393],
        "val": [0.0923, 0.2606, 0.0056, 0.2881, 0.0872, 0.1635, 0.0089, 0.0307, 0.0174, 0.0065, 0.0222, 0.0170],
    }
    means = {"train": (105.48, 108.84, 110.76), "val": (80.46, 85.33, 89.13)}
    for split, pairs in zip(report.splits, (367, 101), strict=True):
        assert split.pairs == pairs
        assert split.sizes == {(180, 240): pairs}
        measured = [split.share(value) for value in (*range(11), 255)]
        assert np.allclose(measured, shares[split.split], rtol=0, atol=5.1e-5)
        assert np.allclose(split.mean, means[split.split], rtol=0, atol=0.006)


@pytest.mark.skipif(not (SHARED / "data" / "dsb2018_nuclei").is_dir(), reason="the real nuclei are not here")
def test_nuclei_open_as_a_folder():
    root = SHARED / "data" / "dsb2018_nuclei"
    train, val = (open_dataset(f"folder:{root}", split) for split in ("train", "val"))
    assert (len(train), len(val), len(train.classes)) == (268, 66, 2)
    assert not {p.name for p in train.pairs} & {p.name for p in val.pairs}
