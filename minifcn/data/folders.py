"""Data sets of image and label files: a plain folder, PASCAL VOC and CamVid.

An image and its label belong together when their stems (names without suffix) are equal. All pairs are
looked up when a data set is opened, so that a missing file is reported before training starts; pixels are
read when a sample is asked for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from .dataset import IGNORE, Dataset, Sample
from .files import SUFFIXES, read_pair, read_values
from .palette import voc_palette

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

CAMVID_VOID = 11
CAMVID_CLASSES = (
    *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
    *("SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
)
CAMVID_PALETTE = np.array(
    [
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ],
    np.uint8,
)

SPLITS = ("train", "val")
VAL_EVERY = 5  # without a split, the 5th, 10th, ... image in sorted order is val


class Pair(NamedTuple):
    """The files of one sample; name is their common stem."""

    name: str
    image: Path
    label: Path


class PairDataset(Dataset):
    """Samples read from pairs of files; raw_void is the label value that stands for IGNORE in the files."""

    def __init__(self, pairs: Sequence[Pair], classes: Sequence[str], palette: np.ndarray, raw_void: int = IGNORE):
        self.pairs, self.classes, self.palette, self.raw_void = tuple(pairs), tuple(classes), palette, raw_void

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        name, image, label = self.pairs[index]
        return Sample(*read_pair(image, label, len(self.classes), self.raw_void), name)

    def source(self, index: int) -> str:
        return str(self.pairs[index].image)


def open_folder(root: Path | str, split: str = "train", classes: int | Sequence[str] | None = None) -> PairDataset:
    """A folder of images and labels; split is "train" or "val".

    Images lie in ROOT/images and labels in ROOT/labels ("image" and "label" do as well), split by the lists
    ROOT/train.txt and ROOT/val.txt (one stem a line) where there is one; without lists every fifth image in
    sorted order is val. Or each split has folders of its own: ROOT/train/images, ROOT/train/labels,
    ROOT/val/images, ROOT/val/labels.

    Class names come from `classes` (a number gives "class 0", ...), or from ROOT/classes.txt (one name a
    line), or all labels of all splits are read once and the largest value, void left out, is the last class.
    """
    root = _directory(Path(root), "a folder data set")
    if split not in SPLITS:
        raise DataError(f"{root}: a folder data set has no split {split!r}; it has {', '.join(SPLITS)}")
    if any((root / name).is_dir() for name in SPLITS):
        home = _directory(root / split, f"split {split!r}, since {root} has one folder a split")
        pairs = _match(_kind(home, "image"), _kind(home, "label"))
    else:
        images, labels = _kind(root, "image"), _kind(root, "label")
        if any((root / f"{name}.txt").exists() for name in SPLITS):
            pairs = _match(images, labels, root / f"{split}.txt")
        else:
            every = _match(images, labels)
            pairs = [p for i, p in enumerate(every, start=1) if (i % VAL_EVERY == 0) == (split == "val")]
            if not pairs:
                raise DataError(
                    f"{root}: {len(every)} images leave split {split!r} empty, since without lists every "
                    f"{VAL_EVERY}th image is val; write {split}.txt with one image name a line"
                )
    names = _folder_classes(root, classes)
    return PairDataset(pairs, names, voc_palette(len(names)))


def open_voc(root: Path | str, split: str = "train", year: int | None = None) -> PairDataset:
    """PASCAL VOC segmentation: split names a list in ImageSets/Segmentation, such as "train" or "trainval".

    ROOT is VOCdevkit, a folder that holds VOCdevkit, or one VOC year (it has JPEGImages). year: which
    VOC<year> to take where there are several; the latest if None.
    """
    home = _voc_home(_directory(Path(root), "PASCAL VOC"), year)
    images, labels = (_directory(home / name, "PASCAL VOC") for name in ("JPEGImages", "SegmentationClass"))
    pairs = _match(images, labels, home / "ImageSets" / "Segmentation" / f"{split}.txt")
    return PairDataset(pairs, VOC_CLASSES, voc_palette(len(VOC_CLASSES)))


def open_camvid(root: Path | str, split: str = "train") -> PairDataset:
    """CamVid with 11 classes as SegNet's authors lay it out: ROOT/<split> and ROOT/<split>annot, void 11."""
    root = _directory(Path(root), "CamVid")
    images, labels = (_directory(root / name, "CamVid") for name in (split, f"{split}annot"))
    return PairDataset(_match(images, labels), CAMVID_CLASSES, CAMVID_PALETTE, CAMVID_VOID)


def class_names(classes: int | Sequence[str]) -> tuple[str, ...]:
    """Names of the classes from names or their number; DataError unless there are 2 .. 255 different ones."""
    names = tuple(f"class {i}" for i in range(classes)) if isinstance(classes, int) else tuple(classes)
    if not 2 <= len(names) <= IGNORE:
        raise DataError(f"{len(names)} classes; there must be 2 .. {IGNORE}")
    if len(set(names)) < len(names):
        raise DataError(f"class names {', '.join(names)} are not all different")
    return names


def _folder_classes(root: Path, classes: int | Sequence[str] | None) -> tuple[str, ...]:
    listed = root / "classes.txt"
    if classes is not None:
        return class_names(classes)
    if listed.exists():
        try:
            return class_names([name for _, name in _lines(listed)])
        except DataError as error:
            raise DataError(f"{listed}: {error}") from error
    largest = 0
    for home in [root, *(root / name for name in SPLITS if (root / name).is_dir())]:
        if any((home / name).is_dir() for name in ("label", "labels")):
            for path in _by_stem(_kind(home, "label")).values():
                values = read_values(path)
                largest = max(largest, int(values[values != IGNORE].max(initial=0)))
    if largest < 1:
        raise DataError(
            f"{root}: its labels hold no class number above 0 (255 is void); a mask of 0 and 255 must be "
            "stored as 0 and 1"
        )
    if largest >= IGNORE:
        raise DataError(f"{root}: its labels hold values up to {largest}; classes are 0 .. {IGNORE - 1}")
    return class_names(largest + 1)


def _voc_home(root: Path, year: int | None) -> Path:
    if (root / "JPEGImages").is_dir():
        if year is not None and root.name != f"VOC{year}":
            raise DataError(f"{root}: asked for year {year}, but this folder is one year and not named VOC{year}")
        return root
    kit = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root
    years = sorted(p for p in kit.glob("VOC[0-9][0-9][0-9][0-9]") if p.is_dir())
    chosen = [p for p in years if year is None or p.name == f"VOC{year}"]
    if not chosen:
        found = ", ".join(p.name for p in years) or "none"
        raise DataError(f"{kit}: no folder VOC{year or '<year>'} and no JPEGImages; years found: {found}")
    return chosen[-1]


def _directory(path: Path, what: str) -> Path:
    if not path.is_dir():
        raise DataError(f"{path}: no such folder ({what})")
    return path


def _kind(home: Path, kind: str) -> Path:
    """HOME/images or HOME/image (labels likewise)."""
    for name in (f"{kind}s", kind):
        if (home / name).is_dir():
            return home / name
    raise DataError(f"{home}: no folder {kind}s; a folder data set has images and labels side by side")


def _by_stem(folder: Path) -> dict[str, Path]:
    """The picture files of a folder by stem, in sorted order; hidden files and other suffixes are passed over."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda p: p.name):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise DataError(f"{path}: shares its stem with {found[path.stem].name}; stems must be unique")
            found[path.stem] = path
    if not found:
        raise DataError(f"{folder}: no image files ({', '.join(sorted(SUFFIXES))})")
    return dict(sorted(found.items()))


def _match(image_folder: Path, label_folder: Path, listed: Path | None = None) -> list[Pair]:
    """Pairs by stem: those that the list names, in its order, or all, which must then match one to one."""
    images, labels = _by_stem(image_folder), _by_stem(label_folder)
    if listed is None:
        _require_none(image_folder, "images without a label", images.keys() - labels.keys(), label_folder)
        _require_none(label_folder, "labels without an image", labels.keys() - images.keys(), image_folder)
        return [Pair(stem, images[stem], labels[stem]) for stem in images]
    pairs: dict[str, Pair] = {}
    for number, line in _lines(listed):
        stem = line[: -len(Path(line).suffix)] if Path(line).suffix.lower() in SUFFIXES else line
        for folder, files in ((image_folder, images), (label_folder, labels)):
            if stem not in files:
                raise DataError(
                    f"{listed}, line {number}: {line!r} has no file in {folder}; a list holds one image name a line"
                )
        if stem in pairs:
            raise DataError(f"{listed}, line {number}: {line!r} is listed twice")
        pairs[stem] = Pair(stem, images[stem], labels[stem])
    return list(pairs.values())


def _require_none(folder: Path, what: str, stems: set[str], partner: Path) -> None:
    if stems:
        some = ", ".join(sorted(stems)[:5]) + (", ..." if len(stems) > 5 else "")
        raise DataError(f"{folder}: {len(stems)} {what} in {partner}: {some}; pairs share one stem")


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers from 1."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such list") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    lines = []
    for number, raw in enumerate(data.splitlines(), start=1):
        try:
            line = raw.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line {number}: not UTF-8 text") from error
        if line:
            lines.append((number, line))
    if not lines:
        raise DataError(f"{path}: the list is empty")
    return lines
