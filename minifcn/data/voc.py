"""PASCAL VOC segmentation: 20 classes and background (Everingham et al., "The PASCAL Visual Object Classes
Challenge", IJCV 2010).
"""

from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from .labels import LabelFormat, plain_codes
from .pairs import Pair, PairDataset, directory, find, match, read_split
from .palette import voc_palette

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

LISTS = Path("ImageSets", "Segmentation")


def open_voc(root: Path | str, split: str = "train", year: int | None = None) -> PairDataset:
    """PASCAL VOC segmentation: split names a list in ImageSets/Segmentation, such as "train" or "trainval".

    ROOT is VOCdevkit, a folder that holds VOCdevkit, or one VOC year (it has JPEGImages). year: which
    VOC<year> to take where there are several; the latest if None.
    """
    home = _home(directory(Path(root), "PASCAL VOC"), year)
    images, labels = (find(directory(home / name, "PASCAL VOC")) for name in ("JPEGImages", "SegmentationClass"))
    return _dataset(match(images, labels, read_split(home / LISTS, split)))


def _dataset(pairs: Sequence[Pair]) -> PairDataset:
    return PairDataset(pairs, CLASSES, voc_palette(len(CLASSES)), LabelFormat(plain_codes(len(CLASSES))))


def _home(root: Path, year: int | None) -> Path:
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
