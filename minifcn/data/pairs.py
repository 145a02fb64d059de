"""Pairs of image and label files: found by name, divided by lists, read and checked.

All pairs are looked up when a data set is opened, so that a missing file is reported before training starts;
pixels are read when a sample is asked for.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from .dataset import IGNORE, Dataset, Sample
from .files import SUFFIXES
from .labels import LabelFormat, read_pair

SPLITS = ("train", "val")
VAL_EVERY = 5  # without a split, the 5th, 10th, ... image in sorted order is val


class Pair(NamedTuple):
    """The files of one sample."""

    name: str
    image: Path
    label: Path


class PairDataset(Dataset):
    """Samples read from pairs of files; `labels` says what the numbers in the label files mean."""

    def __init__(self, pairs: Sequence[Pair], classes: Sequence[str], palette: np.ndarray, labels: LabelFormat):
        self.pairs, self.classes, self.palette, self.labels = tuple(pairs), tuple(classes), palette, labels

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        name, image, label = self.pairs[index]
        return Sample(*read_pair(image, label, self.labels), name)

    def source(self, index: int) -> str:
        return str(self.pairs[index].image)


class Files(NamedTuple):
    """The files of one folder by the name that an image and its label share."""

    folder: Path
    paths: dict[str, Path]


def find(
    folder: Path, *, pattern: str = "*", suffixes: Collection[str] = SUFFIXES, start: str = "", end: str = ""
) -> Files:
    """The files of a folder in sorted order; DataError if there are none or two of one name.

    A name is the file's stem without `start` and `end`; files without these, hidden files and files of other
    suffixes are passed over. pattern: which files, "*/*" for those in the folders below.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob(pattern), key=lambda p: p.name):
        stem = path.stem
        if path.suffix.lower() not in suffixes or stem.startswith(".") or len(stem) <= len(start) + len(end):
            continue
        if stem.startswith(start) and stem.endswith(end):
            name = stem[len(start) : len(stem) - len(end)]
            if name in found:
                raise DataError(f"{path}: shares its stem with {found[name].name}; stems must be unique")
            found[name] = path
    if not found:
        names = f" named {start}*{end}" if start or end else ""
        raise DataError(f"{folder}: no files{names} ({', '.join(sorted(suffixes))})")
    return Files(folder, dict(sorted(found.items())))


def match(images: Files, labels: Files, listed: dict[str, str] | None = None) -> list[Pair]:
    """Pairs by name: those of a list (see `read_list`), in its order, or all, which must then match one to one."""
    if listed is None:
        _require_none(images.folder, "images without a label", images.paths.keys() - labels.paths.keys(), labels.folder)
        _require_none(
            labels.folder, "labels without an image", labels.paths.keys() - images.paths.keys(), images.folder
        )
        listed = dict.fromkeys(images.paths, "")
    for name, place in listed.items():
        for folder, paths in (images, labels):
            if name not in paths:
                raise DataError(f"{place}: {name!r} has no file in {folder}; a list holds one image name a line")
    return [Pair(name, images.paths[name], labels.paths[name]) for name in listed]


def read_list(path: Path) -> dict[str, str]:
    """The image names of a list, one a line with or without its suffix, and the place ("FILE, line 3") of each."""
    places: dict[str, str] = {}
    for number, line in lines(path):
        name = line[: -len(Path(line).suffix)] if Path(line).suffix.lower() in SUFFIXES else line
        if name in places:
            raise DataError(f"{path}, line {number}: {line!r} is listed twice")
        places[name] = f"{path}, line {number}"
    return places


def read_split(folder: Path, split: str) -> dict[str, str]:
    """The list FOLDER/<split>.txt; DataError if it is train or val and shares images with the other of them."""
    listed = read_list(folder / f"{split}.txt")
    other = folder / f"{'val' if split == 'train' else 'train'}.txt"
    if split in SPLITS and other.exists():
        require_disjoint(listed, read_list(other))
    return listed


def require_disjoint(listed: dict[str, str], other: dict[str, str]) -> None:
    """DataError if two lists share a name, since scores on images that were trained on mean nothing."""
    for name in listed:
        if name in other:
            raise DataError(
                f"{listed[name]}: {name!r} stands in {other[name]} too; train and val must not share images"
            )


def lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers from 1."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such list") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    found = []
    for number, raw in enumerate(data.splitlines(), start=1):
        try:
            line = raw.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line {number}: not UTF-8 text") from error
        if line:
            found.append((number, line))
    if not found:
        raise DataError(f"{path}: the list is empty")
    return found


def directory(path: Path, what: str) -> Path:
    """`path` if it is a folder; DataError otherwise, which says `what` it should have been."""
    if not path.is_dir():
        raise DataError(f"{path}: no such folder ({what})")
    return path


def first_directory(root: Path, names: Sequence[str], what: str) -> Path:
    """The first of ROOT/<name> that is a folder; DataError names them all."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DataError(f"{root}: no folder {' or '.join(names)}; {what}")


def class_names(classes: int | Sequence[str]) -> tuple[str, ...]:
    """Names of the classes from names or their number; DataError unless there are 2 .. 255 different ones."""
    names = tuple(f"class {i}" for i in range(classes)) if isinstance(classes, int) else tuple(classes)
    if not 2 <= len(names) <= IGNORE:
        raise DataError(f"{len(names)} classes; there must be 2 .. {IGNORE}")
    if len(set(names)) < len(names):
        raise DataError(f"class names {', '.join(names)} are not all different")
    return names


def _require_none(folder: Path, what: str, names: set[str], partner: Path) -> None:
    if names:
        some = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
        raise DataError(f"{folder}: {len(names)} {what} in {partner}: {some}; pairs share one stem")
