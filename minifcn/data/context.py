"""PASCAL-Context: VOC2010's pictures labelled in full, 59 classes and background (Mottaghi et al., "The role of
context for object detection and semantic segmentation in the wild", 2014).

The files hold numbers of a longer list of names, `labels.txt`, some of them other than the task's; the pairing is
that of `pascalcontext_layers.py` of fcn.berkeleyvision.org, the class names are its `classes-59.txt`.
"""

from pathlib import Path

from ..errors import DataError
from .dataset import IGNORE
from .matlab import SUFFIX, matlab_format
from .pairs import PairDataset, directory, find, lines, match, read_split
from .palette import voc_palette
from .voc import CLASSES as VOC_CLASSES
from .voc import voc_home

CLASSES = (
    *VOC_CLASSES,
    *("bag", "bed", "bench", "book", "building", "cabinet", "ceiling", "clothes", "computer", "cup", "door", "fence"),
    *("floor", "flower", "food", "grass", "ground", "keyboard", "light", "mountain", "mouse", "curtain", "platform"),
    *("sign", "plate", "road", "rock", "shelves", "sidewalk", "sky", "snow", "bedcloth", "track", "tree", "truck"),
    *("wall", "water", "window", "wood"),
)
NAMED_OTHERWISE = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}  # in labels.txt


def open_context(root: Path | str, split: str = "train", background: bool = True) -> PairDataset:
    """ROOT/trainval/*.mat (LabelMap), ROOT/labels.txt and, if there, ROOT/59_labels.txt; VOC2010 in ROOT/VOCdevkit
    or ROOT, whose ImageSets/Main/<split>.txt lists the pictures.

    Every name outside the 59 is background: class 0 of 60, as the paper trains it, or void if `background` is
    False, which leaves 59 classes.
    """
    root = directory(Path(root), "PASCAL-Context")
    voc = voc_home(root, 2010)
    images = find(directory(voc / "JPEGImages", "VOC2010"))
    labels = find(directory(root / "trainval", "PASCAL-Context"), suffixes=SUFFIX)
    pairs = match(images, labels, read_split(voc / "ImageSets" / "Main", split))
    raw = _numbered(root / "labels.txt")
    _require_task_names(root / "59_labels.txt")
    others, first = (0, CLASSES) if background else (IGNORE, CLASSES[1:])
    codes = dict.fromkeys(range(max(raw.values()) + 1), others)
    for number, name in enumerate(CLASSES[1:], start=int(background)):
        named = NAMED_OTHERWISE.get(name, name)
        if named not in raw:
            raise DataError(f"{root / 'labels.txt'}: no name {named!r}, which class {name} is called there")
        codes[raw[named]] = number
    return PairDataset(pairs, first, voc_palette(len(CLASSES))[-len(first) :], matlab_format(codes, "LabelMap"))


def _numbered(path: Path) -> dict[str, int]:
    """The numbers of a file of lines "12: a name" by name, spaces left out."""
    found: dict[str, int] = {}
    for line_number, line in lines(path):
        number, colon, name = line.partition(":")
        name = name.replace(" ", "")
        if not (colon and name and number.strip().isascii() and number.strip().isdecimal()):
            raise DataError(f"{path}, line {line_number}: {line!r} is not written as a number, a colon and a name")
        if name in found or int(number) in found.values():
            raise DataError(f"{path}, line {line_number}: {line!r} repeats a number or a name")
        found[name] = int(number)
    return found


def _require_task_names(path: Path) -> None:
    """DataError unless the file, if there is one, numbers the task's classes as here."""
    if path.exists():
        for name, number in _numbered(path).items():
            if not 0 <= number < len(CLASSES) or CLASSES[number] != name:
                raise DataError(f"{path}: {name!r} is number {number}, but the task's classes have other numbers")
