"""Opening a data set by a short text such as `scenes`, `folder:DIR`, `voc:DIR@2012` or `imagefolder:DIR@96x96`."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..errors import DataError
from .dataset import Dataset
from .folders import open_camvid, open_folder
from .generated import Generated
from .imagefolder import SIZE, open_image_folder
from .pairs import class_names
from .scenes import Scenes
from .shapes import Shapes
from .voc import open_voc


class Layout(NamedTuple):
    """A published layout of files: open(directory, split, option), the option being what follows `@`, or None."""

    open: Callable[[str, str, str | None], Dataset]
    option: str = r"(?!)"  # what an option looks like; the default matches nothing
    shown: str = ""  # the option in help and messages


GENERATED: dict[str, type[Generated]] = {"scenes": Scenes, "shapes": Shapes}
LAYOUTS = {
    "folder": Layout(lambda root, split, _: open_folder(root, split)),
    "voc": Layout(lambda root, split, year: open_voc(root, split, year and int(year)), r"\d{4}", "YEAR"),
    "camvid": Layout(lambda root, split, _: open_camvid(root, split)),
    "imagefolder": Layout(lambda root, split, _: open_image_folder(root, split), r"\d{1,6}x\d{1,6}", "HxW"),
}
KNOWN = ", ".join(
    [f"{kind}[:HxW]" for kind in GENERATED]
    + [f"{kind}:DIR[@{layout.shown}]" if layout.shown else f"{kind}:DIR" for kind, layout in LAYOUTS.items()]
)


def open_dataset(
    spec: str,
    split: str = "train",
    *,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    classes: int | Sequence[str] | None = None,
) -> Dataset:
    """Open a split of the data set that `spec` names; DataError says what is wrong.

    spec: `scenes` or `shapes`, with `:HxW` for another size (generated), or a layout of files and its folder, such
    as `folder:DIR` or `voc:DIR@2012`; KNOWN lists all.
    seed and size (H, W) choose among generated samples; an image folder's pictures are brought to a size; other
    files have their own sizes, so a size is refused there.
    classes: names, or their number; a folder takes them as its own, any other data set must agree with them.
    """
    kind, colon, rest = spec.partition(":")
    if kind in GENERATED:
        chosen = _size(spec, rest if colon else None, size)
        dataset = GENERATED[kind](split, seed=seed, **({"size": chosen} if chosen else {}))
    elif kind in LAYOUTS:
        dataset = _open_files(spec, kind, rest, split, size, classes)
    else:
        raise DataError(f"unknown data set {spec!r}; known are {KNOWN}")
    if classes is not None:
        _require_classes(spec, dataset, classes)
    return dataset


def _open_files(
    spec: str,
    kind: str,
    rest: str,
    split: str,
    size: tuple[int, int] | None,
    classes: int | Sequence[str] | None,
) -> Dataset:
    if not rest:
        raise DataError(f"data set {spec!r} names no folder; known are {KNOWN}")
    directory, option = re.fullmatch(rf"(.+?)(?:@({LAYOUTS[kind].option}))?", rest, re.DOTALL).groups()
    if kind == "imagefolder":
        return open_image_folder(directory, split, _size(spec, option, size) or SIZE)
    if size is not None:
        raise DataError(
            f"data set {spec!r} with size {size}: only scenes, shapes and imagefolder have a chosen size; "
            "crop other files instead"
        )
    if kind == "folder":
        return open_folder(directory, split, classes)
    return LAYOUTS[kind].open(directory, split, option)


def _size(spec: str, text: str | None, size: tuple[int, int] | None) -> tuple[int, int] | None:
    """The size that the text of a data set names, or else the argument's."""
    if text is None:
        return size
    match = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text)
    if not match:
        raise DataError(f"data set {spec!r}: a size is written HxW, for instance 96x128")
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
