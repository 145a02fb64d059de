"""From a weight file to a checkpoint of ours: what the file's convention is, the surgery, and the record of both."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import models
from ..checkpoint import Checkpoint
from ..data import Normalization, class_names, voc_palette
from ..errors import CheckpointError, DataError
from ..nn import Module
from . import formats, naming
from .formats import Convention, Source
from .surgery import Entry, Surgery

CHOICES = {"layout": ("OIHW", "HWIO"), "flatten": ("CHW", "HWC"), "colors": ("rgb", "bgr")}


@dataclass(frozen=True)
class Conversion:
    """A network with a file's weights. settings: of `models.build`; scheme: the way of naming that the file follows;
    convention: of the file's network; entries: what became of every tensor; new_layers: those without weights from it.
    """

    source: Path
    format: str
    scheme: str
    convention: Convention
    network: Module
    settings: dict[str, Any]
    classes: tuple[str, ...]
    entries: list[Entry]
    new_layers: list[str]

    @property
    def normalization(self) -> Normalization:
        """Of our network's inputs: the source's std is in the weights now."""
        return Normalization(self.convention.mean, 1.0)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the weights, as JSON can hold it."""
        return {
            "source": self.source.name,
            "format": self.format,
            "names": self.scheme,
            "convention": asdict(self.convention),
            "network": self.settings,
            "new_layers": self.new_layers,
            "tensors": [entry.as_dict() for entry in self.entries],
        }

    def checkpoint(self) -> Checkpoint:
        """about["new_layers"]: the layers that are still to be trained; about["converted"]: `as_dict`."""
        about = {
            "network": self.settings,
            "data": {
                "classes": list(self.classes),
                "palette": voc_palette(len(self.classes)).tolist(),
                "mean": self.normalization.mean,
                "std": self.normalization.std,
            },
            "new_layers": self.new_layers,
            "converted": self.as_dict(),
        }
        return Checkpoint(self.network.state_dict(), about)

    def save(self, path: str | os.PathLike) -> None:
        """Write a checkpoint, whole or not at all."""
        self.checkpoint().save(path)


def convert(
    path: str | os.PathLike,
    model: str = "fcn8s",
    backbone: str = "vgg16",
    *,
    classes: int | Sequence[str] = 21,
    replace: Sequence[str] = (),
    layout: str | None = None,
    flatten: str | None = None,
    colors: str | None = None,
    mean: Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    seed: int = 0,
    **settings: Any,
) -> Conversion:
    """The network `model` over `backbone` with the weights in `path`, in any format that `formats.read` knows.

    classes: their number or names; replace: layers that stay as initialised from `seed`; settings: others of
    `models.build` (fc, width, geometry ...), of which fc makes fc6 and fc7 new if the file's have another width.
    layout, flatten, colors, mean, std (R, G, B in 0 .. 255): of the source's network, needed where neither its format
    nor its names say; given, they count.

    Raises CheckpointError, which names tensors, for what cannot be read, does not fit, or is missing; DataError for a
    convention that cannot be; MinifcnError for a setting out of range.
    """
    names = class_names(classes)
    source = formats.read(path)
    given = _given(layout, flatten, colors, mean, std)
    settings = {"model": model, "backbone": backbone, "classes": len(names)} | settings
    network = models.build(**settings, seed=seed)
    scheme, ours = naming.resolve(source, network.trunk)
    convention = _complete(source, given, source.known.or_else(scheme.known))
    surgery = Surgery(network, source, ours, convention, replace, fc_given=settings.get("fc") is not None)
    surgery.operate()
    return Conversion(
        source.path,
        source.format,
        scheme.name,
        convention,
        network,
        settings,
        names,
        surgery.entries,
        surgery.new_layers,
    )


def _given(
    layout: str | None,
    flatten: str | None,
    colors: str | None,
    mean: Sequence[float] | None,
    std: float | Sequence[float] | None,
) -> Convention:
    """What the user says of the source, checked."""
    for name, value in (("layout", layout), ("flatten", flatten), ("colors", colors)):
        if value is not None and value not in CHOICES[name]:
            raise DataError(f"{name} (={value!r}) must be one of {', '.join(CHOICES[name])}")
    std = std if std is None else np.squeeze(std)
    checked = Normalization((0, 0, 0) if mean is None else mean, 1.0 if std is None else std)
    triples = {"mean": checked.mean, "std": tuple(np.broadcast_to(checked.std, 3).tolist())}
    for name, values in triples.items():
        if 0 < max(map(abs, values)) < 1:
            raise DataError(
                f"{name} (={', '.join(f'{one:g}' for one in values)}) is below one grey level: give it for colours "
                f"0 .. 255, that is 255 times as large"
            )
    mean = None if mean is None else triples["mean"]
    std = None if std is None else triples["std"]
    return Convention(layout, flatten, colors, mean, std)


def _complete(source: Source, given: Convention, known: Convention) -> Convention:
    """The source's convention. Raises CheckpointError for what nobody says.

    Another order of colours than the known one means another training, so that the known mean and std are none of its.
    """
    if given.colors not in (None, known.colors):
        known = Convention(known.layout, known.flatten)
    convention = given.or_else(known)
    unknown = [
        f"--{name} {'|'.join(CHOICES.get(name, ['R,G,B']))}"
        for name, value in asdict(convention).items()
        if value is None
    ]
    if unknown:
        which = "" if given.colors is None else f"{given.colors.upper()} "
        raise CheckpointError(
            f"{source.path}: neither its format ({source.format}) nor its names say how its network's weights lie and "
            f"what its {which}inputs are; give {', '.join(unknown)} (mean and std of colours 0 .. 255)"
        )
    return convention
