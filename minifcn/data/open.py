"""Opening a data set by a short text such as `scenes`, `folder:DIR`, `voc:DIR@2012` or `imagefolder:DIR@96x96`."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..errors import DataError
from .cityscapes import open_cityscapes
from .context import open_context
from .dataset import Dataset
from .folders import open_camvid, open_folder
from .generated import Generated
from .imagefolder import open_image_folder
from .nyud import open_nyud
from .pairs import class_names
from .scenes import Scenes
from .shapes import Shapes
from .siftflow import open_siftflow
from .voc import open_sbd, open_voc


class Option(NamedTuple):
    """What may follow DIR and `@`: the opener's argument that it sets, how it looks, how help shows it, its value."""

    argument: str
    pattern: str
    shown: str
    value: Callable[[str], Any]


def _size(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


def _flag(argument: str, word: str, value: bool = True) -> Option:
    return Option(argument, word, word, lambda _: value)


SIZE = Option("size", r"\d{1,6}x\d{1,6}", "HxW", _size)
YEAR = Option("year", r"\d{4}", "YEAR", int)
GENERATED: dict[str, type[Generated]] = {"scenes": Scenes, "shapes": Shapes}
LAYOUTS: dict[str, tuple[Callable[..., Dataset], Option | None]] = {
    "folder": (open_folder, None),
    "voc": (open_voc, YEAR),
    "sbd": (open_sbd, YEAR),
    "nyud": (open_nyud, _flag("trainval", "trainval")),
    "siftflow": (open_siftflow, _flag("geometric", "geometric")),
    "context": (open_context, _flag("background", "59", False)),
    "cityscapes": (open_cityscapes, None),
    "camvid": (open_camvid, None),
    "imagefolder": (open_image_folder, SIZE),
}
KNOWN = ", ".join(
    [f"{kind}[:HxW]" for kind in GENERATED]
    + [f"{kind}:DIR[@{option.shown}]" if option else f"{kind}:DIR" for kind, (_, option) in LAYOUTS.items()]
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
    seed and size (H, W) choose among generated samples; the pictures of an image folder are brought to a size;
    other files have their own sizes, so a size is refused there.
    classes: names, or their number; a folder takes them as its own, any other data set must agree with them.
    """
    kind, colon, rest = spec.partition(":")
    if kind in GENERATED:
        if colon and not re.fullmatch(SIZE.pattern, rest):
            raise DataError(f"data set {spec!r}: a size is written HxW, for instance {kind}:96x128")
        arguments = {"seed": seed} | ({"size": _size(rest)} if colon else {})
        dataset = GENERATED[kind](split, **_with_size(spec, arguments, size))
    elif kind in LAYOUTS:
        if not rest:
            raise DataError(f"data set {spec!r} names no folder; known are {KNOWN}")
        opener, option = LAYOUTS[kind]
        found = option and re.fullmatch(rf"(.+)@({option.pattern})", rest, re.DOTALL)
        directory, arguments = (found[1], {option.argument: option.value(found[2])}) if found else (rest, {})
        if option is SIZE:
            arguments = _with_size(spec, arguments, size)
        elif size is not None:
            raise DataError(
                f"data set {spec!r} with size {size}: only scenes, shapes and imagefolder have a chosen size; "
                "crop other files instead"
            )
        if opener is open_folder:
            return open_folder(directory, split, classes)
        dataset = opener(directory, split, **arguments)
    else:
        raise DataError(f"unknown data set {spec!r}; known are {KNOWN}")
    if classes is not None:
        _require_classes(spec, dataset, classes)
    return dataset


def _with_size(spec: str, arguments: dict[str, Any], size: tuple[int, int] | None) -> dict[str, Any]:
    """The arguments with a size that is given beside the text; DataError if the text names another one."""
    if size is None:
        return arguments
    if arguments.get("size", size) != size:
        raise DataError(f"data set {spec!r} with size {size}: give one of them")
    return arguments | {"size": size}


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
