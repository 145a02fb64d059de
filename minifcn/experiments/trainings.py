"""Training runs as an experiment makes them: one folder each, taken up again where they stopped, compared by seed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..configuration import TrainConfig
from ..errors import TrainingError
from ..metrics import Scores
from ..training import Observer, Run
from .experiment import TRAINING, Plan

SMALL = {"data": "scenes", "backbone": "small", "batch": 8, "lr": 0.05, "epochs": 4, "seed": 0}
TINY = {"data": "scenes:32x40", "width": 0.1, "batch": 4, "lr": 0.02, "epochs": 1, "steps": 3}
TINY |= {"mean": (120.0, 120.0, 120.0), "std": (60.0, 60.0, 60.0)}


def of_training(*varied: str) -> tuple[str, ...]:
    """The settings that a user may choose where an experiment varies `varied` itself."""
    return tuple(name for name in TRAINING if name not in varied)


class Reporter(Observer):
    """One line an evaluation."""

    def __init__(self, plan: Plan, name: str) -> None:
        self.plan, self.name = plan, name

    def evaluated(self, run: Run, row: dict[str, Any], scores: Scores) -> None:
        score = f"{run.task.title} {run.task.score(scores):.4f}"
        self.plan.say(f"{self.name}: epoch {row['epoch']}, step {row['step']}, loss {row['loss']:.4f}, {score}")


def trained(plan: Plan, name: str, config: TrainConfig, prepare: Callable[[Run], None] = lambda run: None) -> Run:
    """The finished run `name` of the plan's folder; `prepare` changes what is no setting, before the first step.

    A run that is there is continued, or used as it is when it is finished. Raises TrainingError if it has other
    settings.
    """
    folder, observer = plan.folder / name, Reporter(plan, name)
    if (folder / "last.safetensors").exists():
        run = Run.resume(folder, observer)
        _expect_same(run, config)
    else:
        run = Run.start(folder, config, observer)
    prepare(run)
    run.train()
    return run


def _expect_same(run: Run, config: TrainConfig) -> None:
    """What is None in `config` may have been measured or inherited since."""
    own = asdict(run.config)
    for name, value in asdict(config).items():
        if value is not None and own[name] != value:
            raise TrainingError(
                f"{run.folder} holds a run with {name} (={own[name]!r}), not {value!r}: name another --runs folder, or "
                f"remove this one"
            )


def mean_iu(run: Run) -> float:
    """The mean IU on the validation images at the end of the run."""
    return run.rows[-1]["mean_iu"]


def seconds(run: Run) -> float:
    """Seconds that the steps of a run take, evaluation apart: their number times the median one."""
    taken = [json.loads(line)["seconds"] for line in (run.folder / "log.jsonl").read_text().splitlines()]
    return len(taken) * statistics.median(taken)


def spread(values: Sequence[float]) -> str:
    """The mean of a score in percent, and its extremes where there are several."""
    text = f"{100 * np.mean(values):.1f}"
    return text if len(values) == 1 else f"{text} ({100 * min(values):.1f} to {100 * max(values):.1f})"
