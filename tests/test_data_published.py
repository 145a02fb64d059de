"""The layouts of the paper's data sets, on tiny folders: what each label value means, lists, and what is refused."""

import re
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from minifcn.data import IGNORE, Loader, Normalization, PairDataset, inspect_dataset, open_dataset
from minifcn.data.files import FileError
from minifcn.data.labels import LabelFormat, plain_codes, shifted_codes
from minifcn.data.matlab import read_map
from minifcn.errors import DataError

io = pytest.importorskip("scipy.io", reason="SciPy, of the extra `data`, is not installed")

SIZE = (2, 3)
OUTDOOR = "spatial_envelope_256x256_static_8outdoorcategories"


def image(path, shape=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*shape, 3), 9, np.uint8)).save(path)


def png(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def mat(path, **variables):
    path.parent.mkdir(parents=True, exist_ok=True)
    io.savemat(path, variables)


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def values(*numbers, dtype=np.uint8):
    """A label of two rows and three columns that begins with these numbers; the last is repeated."""
    return np.array((*numbers, *[numbers[-1]] * (6 - len(numbers))), dtype).reshape(SIZE)


def names(dataset):
    return [dataset[i].name for i in range(len(dataset))]


def labels(dataset, index=0):
    return dataset[index].label.ravel().tolist()


# --- what raw values mean -------------------------------------------------------------------------------------------


@given(
    arrays(np.int16, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.integers(-3, 9)),
    st.dictionaries(st.integers(-3, 9), st.sampled_from([0, 1, 2, IGNORE]), min_size=1).filter(
        lambda codes: set(codes.values()) != {IGNORE}
    ),
)
def test_every_value_gets_its_code_or_is_named(raw, codes):
    labels = LabelFormat(codes, read=lambda path: raw)
    bad = [(r, c) for r, c in np.ndindex(raw.shape) if int(raw[r, c]) not in codes]
    if bad:
        with pytest.raises(FileError, match=re.escape(f"value {raw[bad[0]]} at row {bad[0][0]}, column {bad[0][1]};")):
            labels.load("some file")
    else:
        assert labels.load("some file").tolist() == [[codes[v] for v in row] for row in raw.tolist()]
    assert labels.decode(raw).tolist() == [[codes.get(v, v) for v in row] for row in raw.tolist()]


def test_the_rule_of_a_fault_tells_what_is_allowed():
    for codes, rule in [
        (plain_codes(12), "0 .. 11 (12 classes) and 255 (void)"),
        (plain_codes(11, 11), "0 .. 10 (11 classes) and 11 or 255 (void)"),
        (shifted_codes(40), "1 .. 40 (40 classes) and 0 (void)"),
        (shifted_codes(3, (-1, 0)), "1 .. 3 (3 classes) and -1 .. 0 (void)"),
        ({0: IGNORE, 1: 0, 2: IGNORE, 3: 1, 5: IGNORE}, "0 .. 3, 5 (2 classes, the others void)"),
        ({0: 0, 1: 1}, "0 .. 1 (2 classes)"),
    ]:
        with pytest.raises(FileError, match=re.escape(f"value 300 at row 0, column 1; allowed are {rule}") + "$"):
            LabelFormat(codes).check("file", np.array([[1, 300]]))


# --- MATLAB files ---------------------------------------------------------------------------------------------------


def test_maps_of_every_number_type_are_read(tmp_path):
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, bool):
        mat(tmp_path / "a.mat", S=values(0, 1, dtype=dtype), other=np.zeros(3))
        read = read_map(tmp_path / "a.mat", "S")
        assert read.dtype == np.int32
        assert read.tolist() == [[0, 1, 1], [1, 1, 1]]
    mat(tmp_path / "b.mat", GTcls={"Segmentation": values(3), "Boundaries": np.ones((20, 1))})
    assert read_map(tmp_path / "b.mat", "GTcls", "Segmentation").tolist() == [[3] * 3] * 2


@pytest.mark.parametrize(
    ("content", "field", "rule"),
    [
        ({"T": values(1)}, None, "no variable S; it holds T"),
        ({"S": np.ones((2, 3, 1, 2))}, None, r"S is no matrix of numbers but float64 of shape \(2, 3, 1, 2\)"),
        ({"S": values(1) + 2j}, None, "S is no matrix of numbers but complex128"),
        ({"S": "text"}, None, "S is no matrix of numbers"),
        ({"S": values(1)}, "Segmentation", "S is no structure with one field Segmentation"),
        ({"S": {"Segments": values(1)}}, "Segmentation", "S is no structure with one field Segmentation"),
        ({"S": values(1, 2.5, dtype=float)}, None, r"value 2.5 at row 0, column 1 of S is no whole number"),
        ({"S": values(1, 1, np.nan, dtype=float)}, None, "value nan at row 0, column 2"),
        ({"S": values(1, 2**40, dtype=float)}, None, "value 1099511627776.0 at row 0, column 1 .*32 bits"),
    ],
)
def test_maps_that_are_none_are_refused(tmp_path, content, field, rule):
    mat(tmp_path / "a.mat", **content)
    with pytest.raises(FileError, match="a.mat: .*" + rule):
        read_map(tmp_path / "a.mat", "S", field)


def test_damaged_and_newer_matlab_files_are_named(tmp_path):
    path = tmp_path / "a.mat"
    with pytest.raises(FileError, match=r"a\.mat: no such file"):
        read_map(path, "S")
    mat(path, S=values(1))
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:150], whole[: len(whole) - 4]):
        path.write_bytes(content)
        with pytest.raises(FileError, match=r"a\.mat: cannot be read as a MATLAB file"):
            read_map(path, "S")
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(512))
    with pytest.raises(FileError, match=r"a\.mat: a MATLAB file of version 7\.3"):
        read_map(path, "S")


def test_without_scipy_matlab_labels_ask_for_it(nyud, monkeypatch):
    monkeypatch.setattr("minifcn.data.matlab.find_spec", lambda name: None if name == "scipy" else util.find_spec(name))
    with pytest.raises(DataError, match=r"need SciPy: pip install minifcn\[data\]"):
        open_dataset(f"nyud:{nyud}")


# --- PASCAL VOC with SBD --------------------------------------------------------------------------------------------


@pytest.fixture
def sbd(tmp_path):
    """SBD with a, b, c and VOC2011 with b, d, e, of which b is in SBD's train list; VOC2012 has one more."""
    home = tmp_path / "benchmark_RELEASE" / "dataset"
    for name in "abc":
        image(home / "img" / f"{name}.jpg")
        mat(home / "cls" / f"{name}.mat", GTcls={"Segmentation": values(0, 15, 20)})
    text(home / "train.txt", "b", "a")
    text(home / "val.txt", "c")
    for year, stems in ((2011, "bde"), (2012, "bdef")):
        voc = tmp_path / "VOCdevkit" / f"VOC{year}"
        for name in stems:
            image(voc / "JPEGImages" / f"{name}.jpg")
            png(voc / "SegmentationClass" / f"{name}.png", values(1, 255))
        text(voc / "ImageSets" / "Segmentation" / "val.txt", *reversed(stems))
    return tmp_path


def test_sbd_trains_on_its_list_and_seg11valid_has_none_of_it(sbd):
    train, val = (open_dataset(f"sbd:{sbd}", split) for split in ("train", "val"))
    assert names(train) == ["b", "a"]
    assert labels(train) == [0, 15, 20, 20, 20, 20]
    assert names(val) == ["e", "d"]  # VOC2011's list without b
    assert labels(val) == [1, 255, 255, 255, 255, 255]
    assert train.classes == val.classes
    assert (len(train.classes), train.classes[15], train.palette[15].tolist()) == (21, "person", [192, 128, 128])
    assert names(open_dataset(f"sbd:{sbd}@2012", "val")) == ["f", "e", "d"]
    assert names(open_dataset(f"voc:{sbd}@2011", "val")) == ["e", "d", "b"]  # VOC's own list keeps it


def test_a_given_seg11valid_decides(sbd):
    text(sbd / "seg11valid.txt", "d")
    assert names(open_dataset(f"sbd:{sbd}", "val")) == ["d"]
    assert names(open_dataset(f"sbd:{sbd}@2012", "val")) == ["f", "e", "d"]
    text(sbd / "seg11valid.txt", "d", "b")
    for split in ("train", "val"):
        with pytest.raises(
            DataError, match=r"seg11valid\.txt, line 2: 'b' stands in .*train\.txt, line 1 too; train and"
        ):
            open_dataset(f"sbd:{sbd}", split)


@pytest.mark.parametrize(
    ("step", "split", "message"),
    [
        (
            lambda d: (d / "VOCdevkit" / "VOC2011").rename(d / "old"),
            "val",
            "no folder VOC2011 .*seg11valid needs VOC2011",
        ),
        (
            lambda d: (d / "benchmark_RELEASE").rename(d / "x"),
            "train",
            "no folder benchmark_RELEASE/dataset or dataset",
        ),
        (lambda d: (d / "benchmark_RELEASE/dataset/train.txt").unlink(), "train", "train.txt: no such list"),
        (lambda d: (d / "benchmark_RELEASE/dataset/cls/a.mat").unlink(), "train", "line 2: 'a' has no file in .*cls"),
        (lambda d: (d / "benchmark_RELEASE/dataset/img/b.jpg").unlink(), "train", "line 1: 'b' has no file in .*img"),
        (lambda d: text(d / "benchmark_RELEASE/dataset/train.txt", *"bde"), "val", "val.txt: all its images are in"),
        (lambda d: None, "test", "no split 'test'; it has train, val"),
    ],
)
def test_broken_sbd_is_named(sbd, step, split, message):
    step(sbd)
    with pytest.raises(DataError, match=message):
        open_dataset(f"sbd:{sbd}", split)


def test_a_wrong_label_names_itself_in_a_batch_and_in_the_report(sbd):
    cls = sbd / "benchmark_RELEASE" / "dataset" / "cls"
    mat(cls / "a.mat", GTcls={"Segmentation": values(0, 0, 0, 21, 0)})
    mat(cls / "b.mat", GTcls={"Segmentation": values(4).T})
    dataset = open_dataset(f"sbd:{sbd}")
    rule = r"a\.mat: label value 21 at row 1, column 0; allowed are 0 \.\. 20 \(21 classes\) and 255 \(void\)"
    with pytest.raises(FileError, match=rule):
        dataset[1]
    with pytest.raises(FileError, match=r"b\.mat: the label is 3x2 \(HxW\) but its image .*b\.jpg is 2x3"):
        dataset[0]
    loader = Loader(dataset, 1, Normalization((0, 0, 0), 1), shuffle=False)
    with pytest.raises(FileError, match=r"b\.mat: the label is 3x2"):
        list(loader.epoch(0))
    (cls / "b.mat").write_bytes(b"damaged")
    report = inspect_dataset(f"sbd:{sbd}")
    found = [(p.split, Path(p.file).name, p.pixel) for p in report.problems]
    assert found == [("train", "b.mat", None), ("train", "a.mat", (1, 0))]
    assert report.splits[0].label_modes == {"MATLAB": 2}
    assert report.splits[1].label_modes == {"grey": 2}
    assert report.splits[0].histogram == {0: 5, 21: 1}
    assert report.splits[1].histogram == {1: 2, 255: 10}


# --- NYUDv2 ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def nyud(tmp_path):
    for number, split in ((5001, "train"), (5010, "val"), (5002, "test")):
        image(tmp_path / "data" / "images" / f"img_{number}.png")
        mat(tmp_path / "segmentation" / f"img_{number}.mat", segmentation=values(0, 1, 40, dtype=np.float64))
        text(tmp_path / f"{split}.txt", str(number))
    image(tmp_path / "data" / "hha" / "img_5001.png")
    return tmp_path


def test_nyud_shifts_its_labels(nyud):
    train = open_dataset(f"nyud:{nyud}")
    assert names(train) == ["5001"]
    assert labels(train) == [255, 0, 39, 39, 39, 39]
    assert (train.classes[0], train.classes[23], train.classes[39]) == ("wall", "refridgerator", "otherprop")
    assert len(set(train.classes)) == len(train.palette) == 40
    for spec, split, expected in [
        (f"{nyud}", "val", ["5010"]),
        (f"{nyud}", "test", ["5002"]),
        (f"{nyud}", "trainval", ["5001", "5010"]),
        (f"{nyud}@trainval", "train", ["5001", "5010"]),
        (f"{nyud}@trainval", "val", ["5002"]),
    ]:
        assert names(open_dataset(f"nyud:{spec}", split)) == expected
    text(nyud / "trainval.txt", "5010", "5001")
    assert names(open_dataset(f"nyud:{nyud}@trainval")) == ["5010", "5001"]


def test_nyud_reads_pictures_of_labels_too(nyud):
    for path in (nyud / "segmentation").iterdir():
        png(path.with_suffix(".png"), values(40, 1, 0))
        path.unlink()
    (nyud / "data" / "images").rename(nyud / "images")
    assert labels(open_dataset(f"nyud:{nyud}")) == [39, 0, 255, 255, 255, 255]
    png(nyud / "segmentation" / "img_5001.png", values(255))
    with pytest.raises(FileError, match=r"img_5001\.png: label value 255 .* 1 \.\. 40 \(40 classes\) and 0 \(void\)"):
        open_dataset(f"nyud:{nyud}")[0]


@pytest.mark.parametrize(
    ("step", "spec", "split", "message"),
    [
        (
            lambda d: text(d / "val.txt", "5001"),
            "",
            "train",
            "train.txt, line 1: '5001' stands in .*val.txt, line 1 too",
        ),
        (lambda d: text(d / "test.txt", "5010"), "@trainval", "val", "val.txt, line 1: '5010' stands in .*test.txt"),
        (lambda d: (d / "test.txt").unlink(), "@trainval", "val", "test.txt: no such list"),
        (lambda d: None, "@trainval", "test", "NYUDv2 with @trainval has no split 'test'; it has train, val"),
        (lambda d: None, "@hha", "train", "@hha: no such folder"),
        (lambda d: (d / "data").rename(d / "x"), "", "train", "no folder data/images or images"),
        (lambda d: (d / "segmentation" / "img_5001.mat").unlink(), "", "train", "'5001' has no file in .*segmentation"),
    ],
)
def test_broken_nyud_is_named(nyud, step, spec, split, message):
    step(nyud)
    with pytest.raises(DataError, match=message):
        open_dataset(f"nyud:{nyud}{spec}", split)


# --- SIFT Flow ------------------------------------------------------------------------------------------------------


@pytest.fixture
def siftflow(tmp_path):
    for name in ("coast_a", "street_b", "forest_c", "highway_bost181", "street_urb506"):
        image(tmp_path / "Images" / OUTDOOR / f"{name}.jpg")
        mat(tmp_path / "SemanticLabels" / OUTDOOR / f"{name}.mat", S=values(0, 1, 33))
        mat(tmp_path / "GeoLabels" / OUTDOOR / f"{name}.mat", S=values(-1, 0, 1, 2, 3, dtype=np.int16))
    text(tmp_path / "TestSet1.txt", f"{OUTDOOR}\\street_b.jpg", f"{OUTDOOR}/highway_bost181.jpg")
    return tmp_path


def test_siftflow_has_two_labelings_and_the_rest_is_train(siftflow):
    train, val = (open_dataset(f"siftflow:{siftflow}", split) for split in ("train", "val"))
    assert names(train) == ["coast_a", "forest_c"]
    assert names(val) == ["street_b"]
    assert labels(train) == [255, 0, 32, 32, 32, 32]
    assert [train.classes[i] for i in (0, 27, 32)] == ["awning", "sky", "window"]
    assert len(set(train.classes)) == len(train.palette) == 33
    geometric = open_dataset(f"siftflow:{siftflow}@geometric", "val")
    assert geometric.classes == ("sky", "horizontal", "vertical")
    assert labels(geometric) == [255, 255, 0, 1, 2, 2]
    assert inspect_dataset(f"siftflow:{siftflow}").problem_count == 0


def test_siftflow_takes_the_lists_that_are_given(siftflow):
    text(siftflow / "test.txt", "coast_a")
    assert names(open_dataset(f"siftflow:{siftflow}", "val")) == ["coast_a"]
    assert names(open_dataset(f"siftflow:{siftflow}")) == ["forest_c", "street_b"]
    text(siftflow / "trainval.txt", "street_b")
    assert names(open_dataset(f"siftflow:{siftflow}")) == ["street_b"]
    text(siftflow / "trainval.txt", "street_b", "coast_a")
    for split in ("train", "val"):
        with pytest.raises(DataError, match=r"trainval\.txt, line 2: 'coast_a' stands in .*test\.txt, line 1 too"):
            open_dataset(f"siftflow:{siftflow}", split)


@pytest.mark.parametrize(
    ("step", "split", "message"),
    [
        (lambda d: (d / "TestSet1.txt").unlink(), "train", "TestSet1.txt: no such list"),
        (lambda d: (d / "SemanticLabels" / OUTDOOR / "coast_a.mat").unlink(), "train", "'coast_a' has no file in"),
        (lambda d: (d / "SemanticLabels").rename(d / "x"), "train", "SemanticLabels.*: no such folder"),
        (lambda d: None, "test", "SIFT Flow has no split 'test'; it has train, val"),
    ],
)
def test_broken_siftflow_is_named(siftflow, step, split, message):
    step(siftflow)
    with pytest.raises(DataError, match=message):
        open_dataset(f"siftflow:{siftflow}", split)


def test_siftflow_values_out_of_range_are_named(siftflow):
    mat(siftflow / "SemanticLabels" / OUTDOOR / "coast_a.mat", S=values(1, 34))
    with pytest.raises(FileError, match=r"coast_a\.mat: label value 34 at row 0, column 1; allowed are 1 \.\. 33"):
        open_dataset(f"siftflow:{siftflow}")[0]
    mat(siftflow / "GeoLabels" / OUTDOOR / "coast_a.mat", S=values(-2, 1, dtype=np.int8))
    with pytest.raises(FileError, match=r"label value -2 .* 1 \.\. 3 \(3 classes\) and -1 \.\. 0 \(void\)"):
        open_dataset(f"siftflow:{siftflow}@geometric")[0]


# --- PASCAL-Context -------------------------------------------------------------------------------------------------


@pytest.fixture
def context(tmp_path):
    """A long list of 62 names, those of the task backwards from 60 on, but for three that are called otherwise."""
    from minifcn.data.context import CLASSES

    otherwise = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
    task = [otherwise.get(name, name) for name in reversed(CLASSES[1:])]
    listed = ["air conditioner", *task, "unknown", "zebra"]
    text(tmp_path / "labels.txt", *(f"{i}: {name}" for i, name in enumerate(listed, start=1)))
    text(tmp_path / "59_labels.txt", *(f"{i}: {name}" for i, name in enumerate(CLASSES[1:], start=1)))
    for name in "xy":
        image(tmp_path / "VOC2010" / "JPEGImages" / f"{name}.jpg")
        mat(tmp_path / "trainval" / f"{name}.mat", LabelMap=values(60, 2, 61, 1, 50, 62, dtype=np.uint16))
    for split, name in (("train", "x"), ("val", "y")):
        text(tmp_path / "VOC2010" / "ImageSets" / "Main" / f"{split}.txt", name)
    return tmp_path


def test_context_maps_the_long_list_and_keeps_background(context):
    # 60 is aeroplane (1), 2 is wood (59), 50 is diningtable (11), called table there; 1, 61 and 62 are of no class.
    train = open_dataset(f"context:{context}")
    assert labels(train) == [1, 59, 0, 0, 11, 0]
    assert [train.classes[i] for i in (0, 11, 59)] == ["background", "diningtable", "wood"]
    assert len(set(train.classes)) == len(train.palette) == 60
    assert train.palette[1].tolist() == [128, 0, 0]
    without = open_dataset(f"context:{context}@59", "val")
    assert labels(without) == [0, 58, 255, 255, 10, 255]
    assert (len(without.classes), without.classes[0], without.palette[0].tolist()) == (59, "aeroplane", [128, 0, 0])
    (context / "59_labels.txt").unlink()
    assert labels(open_dataset(f"context:{context}")) == [1, 59, 0, 0, 11, 0]


def edit(name, old, new):
    def step(folder):
        path = folder / name
        content = path.read_text()
        assert old in content
        path.write_text(content.replace(old, new))

    return step


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (edit("labels.txt", ": table", ": tables"), "labels.txt: no name 'table', which class diningtable is called"),
        (edit("labels.txt", "61: unknown", "61 unknown"), "labels.txt, line 61: '61 unknown' is not written as"),
        (edit("labels.txt", "62: zebra", "61: zebra"), "labels.txt, line 62: '61: zebra' repeats a number or a name"),
        (edit("59_labels.txt", "2: bicycle", "2: bike"), "59_labels.txt: 'bike' is number 2, but"),
        (edit("59_labels.txt", "59: wood", "60: wood"), "59_labels.txt: 'wood' is number 60, but"),
        (lambda d: (d / "labels.txt").unlink(), "labels.txt: no such list"),
        (lambda d: (d / "trainval").rename(d / "x"), "trainval: no such folder"),
        (lambda d: (d / "trainval" / "x.mat").unlink(), "train.txt, line 1: 'x' has no file in .*trainval"),
        (lambda d: (d / "VOC2010").rename(d / "VOC2012"), "no folder VOC2010 .*years found: VOC2012"),
        (lambda d: text(d / "VOC2010/ImageSets/Main/val.txt", "y", "x"), "'x' stands in .*val.txt, line 2 too"),
    ],
)
def test_broken_context_is_named(context, step, message):
    step(context)
    with pytest.raises(DataError, match=message):
        open_dataset(f"context:{context}")


def test_context_values_out_of_range_are_named(context):
    mat(context / "trainval" / "x.mat", LabelMap=values(1, 63))
    with pytest.raises(FileError, match=r"x\.mat: label value 63 .*; allowed are 0 \.\. 62 \(60 classes\)"):
        open_dataset(f"context:{context}")[0]
    with pytest.raises(FileError, match=r"allowed are 2 \.\. 60 \(59 classes\) and 0 \.\. 1 or 61 \.\. 62 \(void\)"):
        open_dataset(f"context:{context}@59")[0]


# --- Cityscapes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cityscapes(tmp_path):
    for split, city in (("train", "ulm"), ("train", "aachen"), ("val", "lindau")):
        name = f"{city}_000000_000019"
        image(tmp_path / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", (5, 7))
        png(tmp_path / "gtFine" / split / city / f"{name}_gtFine_labelIds.png", np.arange(35).reshape(5, 7) % 34)
        png(tmp_path / "gtFine" / split / city / f"{name}_gtFine_instanceIds.png", np.zeros((5, 7)))
    return tmp_path


def test_cityscapes_trains_nineteen_of_its_ids(cityscapes):
    train = open_dataset(f"cityscapes:{cityscapes}")
    assert names(train) == ["aachen_000000_000019", "ulm_000000_000019"]
    assert names(open_dataset(f"cityscapes:{cityscapes}", "val")) == ["lindau_000000_000019"]
    trained = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert labels(train)[:34] == [trained.index(raw) if raw in trained else 255 for raw in range(34)]
    assert [train.classes[i] for i in (0, 13, 18)] == ["road", "car", "bicycle"]
    assert len(set(train.classes)) == len(train.palette) == 19
    assert train.palette[[0, 13, 18]].tolist() == [[128, 64, 128], [0, 0, 142], [119, 11, 32]]
    path = train.pairs[0].label
    png(path, np.full((5, 7), 34))
    with pytest.raises(
        FileError, match=r"labelIds\.png: label value 34 .* 0 \.\. 33, 255 \(19 classes, the others void\)"
    ):
        train[0]


def test_cityscapes_reads_train_ids_where_there_are_no_others(cityscapes):
    for path in list((cityscapes / "gtFine").glob("val/*/*_labelIds.png")):
        path.unlink()
        png(Path(str(path).replace("labelIds", "labelTrainIds")), [[0, 18, 255, 0, 0, 0, 0]] * 5)
    val = open_dataset(f"cityscapes:{cityscapes}", "val")
    assert labels(val)[:4] == [0, 18, 255, 0]
    png(val.pairs[0].label, [[19] * 7] * 5)
    with pytest.raises(FileError, match=r"label value 19 .* 0 \.\. 18 \(19 classes\) and 255 \(void\)"):
        val[0]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda d: (d / "leftImg8bit").rename(d / "x"), "leftImg8bit/train: no such folder"),
        (lambda d: (d / "gtFine" / "train").rename(d / "x"), "gtFine/train: no such folder"),
        (
            lambda d: next(d.glob("gtFine/train/ulm/*Ids.png")).parent.rename(d / "x"),
            "images without a label .*: ulm_00",
        ),
        (lambda d: [p.unlink() for p in d.glob("gtFine/*/*/*labelIds.png")], r"no files named \*_gtFine_labelTrainIds"),
    ],
)
def test_broken_cityscapes_is_named(cityscapes, step, message):
    step(cityscapes)
    with pytest.raises(DataError, match=message):
        open_dataset(f"cityscapes:{cityscapes}")


# --- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sbd", "nyud", "siftflow", "context", "cityscapes"])
def test_all_layouts_pass_inspection_and_give_uint8(kind, request):
    spec = f"{kind}:{request.getfixturevalue(kind)}"
    report = inspect_dataset(spec)
    assert report.problems == []
    assert [split.split for split in report.splits] == ["train", "val"]
    dataset = open_dataset(spec, classes=len(report.classes))
    assert isinstance(dataset, PairDataset)
    assert dataset[0].label.dtype == dataset[0].image.dtype == np.uint8
    assert dataset.palette.shape == (len(dataset.classes), 3)
    with pytest.raises(DataError, match="only scenes, shapes and imagefolder have a chosen size"):
        open_dataset(spec, size=(8, 8))
    with pytest.raises(DataError, match="not 3"):
        open_dataset(spec, classes=3)
    with pytest.raises(DataError, match=r"nowhere.*no such folder"):
        open_dataset(f"{kind}:nowhere")
