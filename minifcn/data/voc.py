"""PASCAL VOC segmentation, 20 classes and background (Everingham et al., "The PASCAL Visual Object Classes
Challenge", 2010), and the extra annotations of SBD (Hariharan et al., "Semantic contours from inverse detectors",
2011).
"""

from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from .labels import LabelFormat, plain_codes
from .matlab import SUFFIX, matlab_format
from .pairs import (
    SPLITS,
    Files,
    Pair,
    PairDataset,
    directory,
    find,
    first_directory,
    match,
    read_list,
    read_split,
    require_disjoint,
)
from .palette import voc_palette

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

CODES = plain_codes(len(CLASSES))
LISTS = Path("ImageSets", "Segmentation")


def open_voc(root: Path | str, split: str = "train", year: int | None = None) -> PairDataset:
    """PASCAL VOC segmentation: split names a list in ImageSets/Segmentation, such as "train" or "trainval".

    ROOT is VOCdevkit, a folder that holds VOCdevkit, or one VOC year (it has JPEGImages). year: which
    VOC<year> to take where there are several; the latest if None.
    """
    home = voc_home(directory(Path(root), "PASCAL VOC"), year)
    return _dataset(match(*_files(home), read_split(home / LISTS, split)), LabelFormat(CODES))


def open_sbd(root: Path | str, split: str = "train", year: int | None = None) -> PairDataset:
    """The paper's data: trained on SBD's train list, evaluated on pictures of VOC that are not in it.

    ROOT holds benchmark_RELEASE/dataset (img, cls/*.mat, train.txt), VOCdevkit or its VOC<year>, and perhaps
    seg11valid.txt. split "val" is seg11valid: that list, or VOC2011's val list without SBD's train, 736 pictures.
    year: another VOC's val list without SBD's train, such as 2012's, which is a different set. Labels of "train"
    are SBD's, those of "val" are VOC's.
    """
    root = directory(Path(root), "SBD and PASCAL VOC")
    if split not in SPLITS:
        raise DataError(f"{root}: SBD with PASCAL VOC has no split {split!r}; it has {', '.join(SPLITS)}")
    home = first_directory(root, ("benchmark_RELEASE/dataset", "dataset"), "SBD's files lie there")
    train, given = read_list(home / "train.txt"), root / "seg11valid.txt"
    seg11valid = read_list(given) if year is None and given.exists() else {}
    require_disjoint(seg11valid, train)
    if split == "train":
        labels = matlab_format(CODES, "GTcls", "Segmentation")
        images = find(directory(home / "img", "SBD"))
        return _dataset(match(images, find(directory(home / "cls", "SBD"), suffixes=SUFFIX), train), labels)
    if seg11valid:
        return _dataset(match(*_files(voc_home(root, None)), seg11valid), LabelFormat(CODES))
    try:
        voc = voc_home(root, year or 2011)
    except DataError as error:
        hint = "" if year else "; seg11valid needs VOC2011's lists, or itself as seg11valid.txt, or ask for a year"
        raise DataError(f"{error}{hint}") from error
    listed = {name: place for name, place in read_list(voc / LISTS / "val.txt").items() if name not in train}
    if not listed:
        raise DataError(f"{voc / LISTS / 'val.txt'}: all its images are in {home / 'train.txt'}, none is left for val")
    return _dataset(match(*_files(voc), listed), LabelFormat(CODES))


def _files(home: Path) -> tuple[Files, Files]:
    images, labels = (find(directory(home / name, "PASCAL VOC")) for name in ("JPEGImages", "SegmentationClass"))
    return images, labels


def _dataset(pairs: Sequence[Pair], labels: LabelFormat) -> PairDataset:
    return PairDataset(pairs, CLASSES, voc_palette(len(CLASSES)), labels)


def voc_home(root: Path, year: int | None) -> Path:
    """The folder of one VOC year, for a ROOT as in `open_voc`."""
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
