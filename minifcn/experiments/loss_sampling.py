"""Sampling the loss: whole images against a random part of their output cells.

Each of the 32 x 32 cells of an image's label is kept with probability p, the others become void; a batch holds 1 / p
times as many images, so that it has about as many labelled pixels. The loss is the mean over those. If cells of one
image were too much alike, samples from more images would learn faster a step (Long, Shelhamer and Darrell, 2015,
section 4.3, "patch sampling", figure 5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..data import IGNORE, Sample
from ..training import Run
from ..viz import new_figure
from . import figures
from .experiment import Experiment, Plan, Result
from .trainings import SMALL, TINY, mean_iu, of_training, seconds, spread, trained

SHARES = (1.0, 0.5, 0.25)
CELL = 32
HELPS = 0.02  # of the mean IU: more than one seed differs from another
EPOCH_STEPS = 20  # a round of so many steps ends with an evaluation


@dataclass(frozen=True)
class CellSampling:
    """Keeps each cell of a label with probability `share`; `augment`, or None, comes first."""

    share: float
    augment: Callable[[Sample, np.random.Generator], Sample] | None = None

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        if self.augment is not None:
            sample = self.augment(sample, rng)
        H, W = sample.label.shape
        kept = rng.random((-(-H // CELL), -(-W // CELL))) < self.share
        pixels = kept.repeat(CELL, axis=0).repeat(CELL, axis=1)[:H, :W]
        return replace(sample, label=np.where(pixels, sample.label, IGNORE).astype(sample.label.dtype))


def run(plan: Plan) -> Result:
    runs: dict[str, list[Run]] = {}
    steps = 2 if plan.quick else EPOCH_STEPS
    for seed in plan.seeds:
        for share in SHARES:
            batch = round(plan.settings["batch"] / share)
            config = plan.config(seed=seed, batch=batch, sampling="replacement", epoch_images=batch * steps)

            def sample(run: Run, share: float = share) -> None:
                if share < 1:
                    run.loader.augment = CellSampling(share, run.loader.augment)

            runs.setdefault(f"{share:.0%}", []).append(trained(plan, f"share-{share:g}-{seed}", config, sample))
    scores = {name: [mean_iu(one) for one in ones] for name, ones in runs.items()}
    times = {name: float(np.mean([seconds(one) for one in ones])) for name, ones in runs.items()}
    rows: list[dict[str, Any]] = [
        {
            "cells": name,
            "images a step": ones[0].config.batch,
            "mean IU, %": spread(scores[name]),
            "seconds": times[name],
            "time": times[name] / times["100%"],
        }
        for name, ones in runs.items()
    ]
    mean = {name: float(np.mean(values)) for name, values in scores.items()}
    helps = max(mean.values()) > mean["100%"] + HELPS
    total = runs["100%"][0].total_steps
    measured = (
        f"After {total} steps the mean IU is {rows[0]['mean IU, %']} % with whole images, {rows[1]['mean IU, %']} % "
        f"with half of their cells and {rows[2]['mean IU, %']} % with a quarter, in {rows[1]['time']:.1f} and "
        f"{rows[2]['time']:.1f} times the time. Sampling "
        + ("helped a step here, by the variety of more images." if helps else "does not help a step, and costs time.")
    )
    columns = {"cells": "s", "images a step": "d", "mean IU, %": "s", "seconds": ".0f", "time": ".2f"}
    summary = f"{', '.join(f'{100 * one:.1f}' for one in mean.values())} % at 100, 50, 25 % of the cells"
    summary += f"; time x {rows[1]['time']:.1f}, x {rows[2]['time']:.1f}"
    return Result(columns, rows, measured, summary, not helps and rows[2]["time"] > 1, _figure(runs, times))


def _figure(runs: dict[str, list[Run]], times: dict[str, float]) -> Any:
    figure = new_figure(9.6, 3.3)
    panels = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.08})
    by_step, by_time = {}, {}
    for name, ones in runs.items():
        steps = [row["step"] for row in ones[0].rows]
        score = [100 * float(np.mean([one.rows[i]["mean_iu"] for one in ones])) for i in range(len(steps))]
        by_step[f"{name} of the cells"] = (steps, score)
        by_time[f"{name} of the cells"] = ([times[name] * step / steps[-1] for step in steps], score)
    figures.lines(panels[0], by_step, "by steps", "step", "mean IU, percent")
    figures.lines(panels[1], by_time, "by time", "seconds of training", "")
    return figure


EXPERIMENT = Experiment(
    name="loss-sampling",
    title="Sampling the loss",
    paper=(
        "Training on 50 or 25 % of the patches, with more images a batch in return, has no significant effect on "
        "convergence by iterations, and takes more time for the images it needs (Long et al., 2015, section 4.3 and "
        "figure 5)."
    ),
    run=run,
    budget="5 minutes",
    accepts=of_training("sampling", "epoch_images", "steps"),
    defaults=SMALL | {"model": "fcn8s", "epochs": 5},
    quick=TINY | {"steps": None},
    seeds=2,
)
