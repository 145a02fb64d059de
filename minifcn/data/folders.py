"""Data sets of image and label files side by side: a plain folder, and CamVid.

An image and its label belong together when their stems (names without suffix) are equal.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError
from .dataset import IGNORE
from .files import read_values
from .labels import LabelFormat, plain_codes
from .pairs import (
    SPLITS,
    VAL_EVERY,
    PairDataset,
    class_names,
    directory,
    find,
    first_directory,
    lines,
    match,
    read_split,
)
from .palette import voc_palette

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


def open_folder(root: Path | str, split: str = "train", classes: int | Sequence[str] | None = None) -> PairDataset:
    """A folder of images and labels; split is "train" or "val".

    Images lie in ROOT/images and labels in ROOT/labels ("image" and "label" do as well), split by the lists
    ROOT/train.txt and ROOT/val.txt (one stem a line) where there is one; without lists every fifth image in
    sorted order is val. Or each split has folders of its own: ROOT/train/images, ROOT/train/labels,
    ROOT/val/images, ROOT/val/labels.

    Class names come from `classes` (a number gives "class 0", ...), or from ROOT/classes.txt (one name a
    line), or all labels of all splits are read once and the largest value, void left out, is the last class.
    """
    root = directory(Path(root), "a folder data set")
    if split not in SPLITS:
        raise DataError(f"{root}: a folder data set has no split {split!r}; it has {', '.join(SPLITS)}")
    if any((root / name).is_dir() for name in SPLITS):
        home = directory(root / split, f"split {split!r}, since {root} has one folder a split")
        pairs = match(find(_kind(home, "image")), find(_kind(home, "label")))
    else:
        images, labels = find(_kind(root, "image")), find(_kind(root, "label"))
        if any((root / f"{name}.txt").exists() for name in SPLITS):
            pairs = match(images, labels, read_split(root, split))
        else:
            every = match(images, labels)
            pairs = [p for i, p in enumerate(every, start=1) if (i % VAL_EVERY == 0) == (split == "val")]
            if not pairs:
                raise DataError(
                    f"{root}: {len(every)} images leave split {split!r} empty, since without lists every "
                    f"{VAL_EVERY}th image is val; write {split}.txt with one image name a line"
                )
    names = _folder_classes(root, classes)
    return PairDataset(pairs, names, voc_palette(len(names)), LabelFormat(plain_codes(len(names))))


def open_camvid(root: Path | str, split: str = "train") -> PairDataset:
    """CamVid with 11 classes as SegNet's authors lay it out: ROOT/<split> and ROOT/<split>annot, void 11."""
    root = directory(Path(root), "CamVid")
    images, labels = (find(directory(root / name, "CamVid")) for name in (split, f"{split}annot"))
    numbers = LabelFormat(plain_codes(len(CAMVID_CLASSES), CAMVID_VOID))
    return PairDataset(match(images, labels), CAMVID_CLASSES, CAMVID_PALETTE, numbers)


def _folder_classes(root: Path, classes: int | Sequence[str] | None) -> tuple[str, ...]:
    listed = root / "classes.txt"
    if classes is not None:
        return class_names(classes)
    if listed.exists():
        try:
            return class_names([name for _, name in lines(listed)])
        except DataError as error:
            raise DataError(f"{listed}: {error}") from error
    largest = 0
    for home in [root, *(root / name for name in SPLITS if (root / name).is_dir())]:
        if any((home / name).is_dir() for name in ("label", "labels")):
            for path in find(_kind(home, "label")).paths.values():
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


def _kind(home: Path, kind: str) -> Path:
    """HOME/images or HOME/image (labels likewise)."""
    return first_directory(home, (f"{kind}s", kind), "a folder data set has images and labels side by side")
