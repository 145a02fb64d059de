"""Opening a data set by a short text such as `scenes`, `folder:DIR`, `voc:DIR@2012` or `camvid:DIR`."""

import re
from collections.abc import Sequence

from ..errors import DataError
from .dataset import Dataset
from .folders import class_names, open_camvid, open_folder, open_voc
from .scenes import Scenes

KNOWN = "scenes, scenes:HxW, folder:DIR, voc:DIR, voc:DIR@YEAR, camvid:DIR"


def open_dataset(
    spec: str,
    split: str = "train",
    *,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    classes: int | Sequence[str] | None = None,
) -> Dataset:
    """Open a split of the data set that `spec` names; DataError says what is wrong.

    spec: `scenes` or `scenes:HxW` (generated), `folder:DIR`, `voc:DIR` or `voc:DIR@YEAR`, `camvid:DIR`.
    seed and size (H, W) choose among generated scenes; files have their own sizes, so a size is refused there.
    classes: names, or their number; a folder takes them as its own, any other data set must agree with them.
    """
    kind, colon, rest = spec.partition(":")
    if kind not in ("scenes", "folder", "voc", "camvid"):
        raise DataError(f"unknown data set {spec!r}; known are {KNOWN}")
    if kind == "scenes":
        dataset = Scenes(split, seed=seed, size=_scene_size(spec, rest if colon else None, size))
    else:
        if not rest:
            raise DataError(f"data set {spec!r} names no folder; known are {KNOWN}")
        if size is not None:
            raise DataError(f"data set {spec!r} with size {size}: only scenes have a chosen size; crop files instead")
        if kind == "folder":
            return open_folder(rest, split, classes)
        if kind == "voc":
            directory, year = re.fullmatch(r"(.+?)(?:@(\d{4}))?", rest, re.DOTALL).groups()
            dataset = open_voc(directory, split, int(year) if year else None)
        else:
            dataset = open_camvid(rest, split)
    if classes is not None:
        _require_classes(spec, dataset, classes)
    return dataset


def _scene_size(spec: str, text: str | None, size: tuple[int, int] | None) -> tuple[int, int]:
    if text is None:
        return size or (96, 128)
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if not match:
        raise DataError(f"data set {spec!r}: the size of scenes is written HxW, for instance scenes:96x128")
    named = int(match[1]), int(match[2])
    if size not in (None, named):
        raise DataError(f"data set {spec!r} with size {size}: give one of them")
    return named


def _require_classes(spec: str, dataset: Dataset, classes: int | Sequence[str]) -> None:
    if isinstance(classes, int):
        agree = classes == len(dataset.classes)
    else:
        agree = class_names(classes) == dataset.classes
    if not agree:
        asked = classes if isinstance(classes, int) else ", ".join(classes)
        raise DataError(
            f"data set {spec!r} has {len(dataset.classes)} classes ({', '.join(dataset.classes)}), not {asked}"
        )
