"""Recipes: the settings of a published training as a file, what they mean, and the same under another loss.

A recipe is a TOML file of settings of `minifcn train`, with a table [about] (title, source, expect, differs: a list)
and a table [needs], the options that a user must add and what they must be. `lacks` in [about] names what this program
cannot do; such a recipe is a record and cannot be run.

A loss that is c times the mean loss of a pixel has c times its gradient. So with g that of the mean loss and weight
decay d, a step of SGD is lr (c g + d w) = (lr c) (g + (d / c) w): the same step has rate lr c and decay d / c under the
mean loss. A limit on the gradient's norm is divided by c as well. Momentum mu sums a geometric series: a constant
gradient moves a weight by lr / (1 - mu) times itself a step (`ledger.py`); after n images, a batch each, a gradient
still counts mu^n, so that mu at batch 1 forgets as slowly as mu' = mu^n at a batch of n.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tomli_w

from .configuration import TrainConfig, checked_settings, known_settings, read_toml
from .errors import TrainingError
from .files import write_text
from .ledger import Line, half_ulp, momentum_gain, pixels_counted

PIXELS = (375, 500)  # height and width of most PASCAL VOC images
STANDARD_MOMENTUM = 0.9
LARGE_GRADIENT = 0.1  # of the mean loss, as a share of its weight
_ABOUT = {"title": str, "source": str, "expect": str, "differs": list, "lacks": str}


@dataclass(frozen=True)
class Recipe:
    """settings: those of TrainConfig that the file sets; about, needs: the tables of those names."""

    path: Path
    settings: dict[str, Any]
    about: dict[str, Any] = field(default_factory=dict)
    needs: dict[str, str] = field(default_factory=dict)

    def config(self, given: dict[str, Any]) -> TrainConfig:
        """The configuration of a run: the recipe's settings, and those `given` over them.

        Raises TrainingError where something that the recipe needs is not given, or if it cannot be run here.
        """
        if "lacks" in self.about:
            raise TrainingError(f"{self.path}: cannot be run, {self.about['lacks']}")
        missing = [f"--{name.replace('_', '-')} ({text})" for name, text in self.needs.items() if name not in given]
        if missing:
            raise TrainingError(f"{self.path}: the recipe also needs {' and '.join(missing)}")
        return TrainConfig(**self.settings | given)

    def save(self, path: Path) -> None:
        """Write it to `path`, whole or not at all."""
        tables = {name: table for name, table in (("about", self.about), ("needs", self.needs)) if table}
        write_text(path, tomli_w.dumps(self.settings | tables))


def load(path: Path) -> Recipe:
    """Read a recipe. Raises TrainingError, which names the file and the key, for what is not one."""
    values = read_toml(path)
    about, needs = values.pop("about", {}), values.pop("needs", {})
    settings = checked_settings(values, path)
    for name, text in about.items():
        if name not in _ABOUT:
            raise TrainingError(f"{path}: about.{name} is unknown; there are {', '.join(_ABOUT)}")
        if not isinstance(text, _ABOUT[name]):
            raise TrainingError(f"{path}: about.{name} must be a {_ABOUT[name].__name__}")
    known_settings(needs, path)
    try:
        TrainConfig(**settings)
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from error
    return Recipe(path, settings, about, needs)


def _counted(config: TrainConfig, pixels: int, reduction: str) -> float:
    """How many times the mean loss of a pixel the loss `reduction` is on a batch of fully labelled images."""
    return pixels_counted(reduction, config.batch * pixels, config.batch * pixels, config.batch)


def translate(recipe: Recipe, reduction: str, pixels: int) -> Recipe:
    """The same steps under the loss `reduction`, for images of `pixels` labelled pixels.

    Exact for images of that size; Adam's rate does not depend on the loss, and AdamW's decay neither.
    """
    config = TrainConfig(**recipe.settings)
    ratio = _counted(config, pixels, config.reduction) / _counted(config, pixels, reduction)
    scaled: dict[str, float] = {}
    if config.optimizer.startswith("sgd"):
        scaled["lr"] = config.lr * ratio
    if config.optimizer != "adamw":
        scaled["weight_decay"] = config.weight_decay / ratio
    if config.clip_norm is not None:
        scaled["clip_norm"] = config.clip_norm / ratio
    changed = {"reduction": reduction} | {name: float(f"{value:.12g}") for name, value in scaled.items()}
    note = f"translated from {recipe.path.name}, loss {config.reduction}, for images of {pixels} pixels"
    about = recipe.about | {"differs": [*recipe.about.get("differs", []), note]}
    return replace(recipe, settings=recipe.settings | changed, about=about)


def meaning(recipe: Recipe, pixels: int) -> Iterator[Line]:
    """What the recipe's numbers amount to on images of `pixels` labelled pixels."""
    config = TrainConfig(**recipe.settings)
    images = config.batch * config.accumulate
    yield Line(None, "data", f"{images} image{'s' * (images > 1)} a step, {_length(config)}, {config.sampling}")
    yield Line(None, "geometry", f"{config.model} over {config.backbone}, {config.geometry}")
    if not config.optimizer.startswith("sgd"):
        yield Line(None, "rate", f"{config.optimizer} moves each weight by about lr = {config.lr:g} a step, any loss")
        return
    counted, gain = _counted(config, pixels, config.reduction), momentum_gain(config.optimizer, config.momentum)
    mean_rate = config.lr * counted
    yield Line(
        None,
        "rate",
        f"lr {config.lr:g} x {counted:,.0f} (loss: {config.reduction}) = {mean_rate:.2g} under the mean loss; "
        f"/ (1 - momentum {config.momentum:g}) = {mean_rate * gain:.2g} a step once it is steady",
    )
    if config.momentum:
        standard = images * math.log(STANDARD_MOMENTUM) / math.log(config.momentum)
        yield Line(
            None,
            "momentum",
            f"{config.momentum:g} at a batch of {images} forgets as slowly as {STANDARD_MOMENTUM} at one of "
            f"{standard:.3g}",
        )
    yield from _precision(config, mean_rate * gain, gain)


def _length(config: TrainConfig) -> str:
    return f"{config.epochs} epochs" if config.steps is None else f"{config.steps:,} steps"


def _precision(config: TrainConfig, effective: float, gain: float) -> Iterator[Line]:
    """Whether the precision holds weight decay and updates: they reach a weight once a step, already multiplied."""
    least = half_ulp(config.dtype)
    if config.weight_decay:
        shrink = config.lr * config.weight_decay * gain
        text = f"shrinks a weight by {shrink:.1g} of itself a step"
        if shrink < least:
            text += f", below {config.dtype}'s half-ulp {least:.1g}: it is rounded away"
        yield Line(shrink >= least, "weight decay", text)
    share = least / effective
    text = f"a weight moves where its steady gradient, of the mean loss, is above {share:.1g} of it"
    if share > LARGE_GRADIENT:
        yield Line(False, "updates", f"{text}: most updates are rounded away, but not those of weights that are 0")
    else:
        yield Line(True, "updates", text)
