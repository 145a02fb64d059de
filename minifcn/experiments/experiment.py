"""What an experiment is: a claim of the paper, a run that puts it to the test, and a result with table and figure.

A result says everything in figures that the run measured; the claim is the paper's, with its source. What is stored is
one JSON file and one PNG of the same name, and nothing in them says where on a disk data or weights lie.
"""

from __future__ import annotations

import io
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from .. import __version__
from ..configuration import TrainConfig
from ..errors import FileWriteError, MinifcnError
from ..files import write_atomically, write_json
from ..kernels.settings import settings as kernel_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = "minifcn-experiment/1"
TRAINING = tuple(one.name for one in fields(TrainConfig) if one.name != "task")  # what a training may be told
COLOURS = 255  # of a stored figure


@dataclass(frozen=True)
class Plan:
    """What a run is asked for: settings of `minifcn train` and the experiment's own, the seeds of what is repeated,
    the folder that training runs are kept in, and whom to tell of progress.
    """

    settings: dict[str, Any]
    seeds: tuple[int, ...]
    folder: Path
    quick: bool = False
    say: Callable[[str], None] = print

    @property
    def shows_data(self) -> bool:
        """Whether a figure may show images and labels: those of others are not ours to publish, generated ones are."""
        return self.settings["data"].partition(":")[0] == "scenes"

    def config(self, **changes: Any) -> TrainConfig:
        """The settings of a training, with `changes`."""
        return TrainConfig(**{name: value for name, value in self.settings.items() if name in TRAINING} | changes)


@dataclass
class Result:
    """What a run found. columns: {title: how its values are written, as of `format`}; rows: {title: value};
    measured: a paragraph; summary: its shortest form; agrees: whether that is what the paper found.

    `about`, of the run itself, is added by `conduct`.
    """

    columns: dict[str, str]
    rows: list[dict[str, Any]]
    measured: str
    summary: str
    agrees: bool
    figure: Figure | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write FOLDER/NAME.json and FOLDER/NAME.png, each whole or not at all."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileWriteError(f"cannot make {folder}: {error.strerror}") from error
        found = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "figure"}
        record, picture = folder / f"{name}.json", folder / f"{name}.png"
        write_atomically(picture, png(self.figure))
        write_json(record, {"schema": SCHEMA} | found)
        return record, picture


def read(path: Path) -> Result:
    """The result in a JSON file, without its figure. Raises MinifcnError if the file is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise MinifcnError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise MinifcnError(f"{path}: is not JSON ({error})") from error
    schema = found.pop("schema", None) if isinstance(found, dict) else None
    if schema != SCHEMA:
        raise MinifcnError(f"{path}: schema (={schema!r}) must be {SCHEMA!r}")
    try:
        return Result(**found)
    except TypeError as error:
        raise MinifcnError(f"{path}: is not a whole result ({error})") from error


def png(figure: Figure) -> bytes:
    """The figure as a PNG of few colours, which takes a third of the room."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight", pad_inches=0.15)
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


@dataclass(frozen=True)
class Experiment:
    """A claim of the paper and the run that tests it.

    paper: what was found, and where that is said; run: Plan -> Result; accepts: settings that a user may choose;
    defaults, quick: settings as they are without a choice, and what `--quick` has instead; seeds: how often it is
    repeated with another one (None: nothing in it is random); budget: how long it takes by default on two cores.
    """

    name: str
    title: str
    paper: str
    run: Callable[[Plan], Result]
    budget: str
    accepts: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)
    quick: dict[str, Any] = field(default_factory=dict)
    seeds: int | None = None

    def plan(
        self,
        given: dict[str, Any],
        folder: Path,
        quick: bool = False,
        seeds: int | None = None,
        say: Callable[[str], None] = print,
    ) -> Plan:
        """A plan with the settings `given`. Raises MinifcnError for one that the experiment does not take."""
        for name in given:
            if name not in self.accepts:
                takes = ", ".join(f"--{one.replace('_', '-')}" for one in self.accepts) or "none"
                raise MinifcnError(f"--{name.replace('_', '-')} is not a setting of experiment {self.name}: {takes}")
        if seeds is not None and self.seeds is None:
            raise MinifcnError(f"--seeds (={seeds}): nothing in experiment {self.name} differs from seed to seed")
        if seeds is not None and seeds < 1:
            raise MinifcnError(f"--seeds (={seeds}) must be at least 1")
        chosen = self.defaults | (self.quick if quick else {}) | given
        count = seeds or (self.seeds if self.seeds and not quick else 1)
        first = chosen.get("seed", 0)
        return Plan(chosen, tuple(range(first, first + count)), folder, quick, say)


def conduct(experiment: Experiment, plan: Plan) -> Result:
    """Run an experiment as planned, and note how."""
    started = time.perf_counter()
    result = experiment.run(plan)
    result.about = {
        "experiment": experiment.name,
        "settings": {name: _plain(value) for name, value in plan.settings.items()},
        "seeds": list(plan.seeds),
        "quick": plan.quick,
        "seconds": round(time.perf_counter() - started, 1),
        "threads": kernel_settings.threads,
        "machine": platform.machine(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "version": __version__,
    }
    return result


def _plain(value: Any) -> Any:
    """A setting without the place of its file: camvid:/a/b -> camvid:DIR, /a/vgg16.npz -> vgg16.npz."""
    if isinstance(value, str) and "/" in value:
        kind, colon, _ = value.partition(":")
        return f"{kind}:DIR" if colon else Path(value).name
    return list(value) if isinstance(value, tuple) else value
