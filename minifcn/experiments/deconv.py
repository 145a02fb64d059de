"""Upsampling that stays bilinear against upsampling that is learned from there.

Both nets start from the same weights and see the same images; the second one's transposed convolutions are trained with
the rest (Long, Shelhamer and Darrell, 2015, section 3.3).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..models.fcn import DECONVS
from ..nn import ConvTranspose2d, init
from ..training import Run
from ..viz import new_figure
from . import figures
from .experiment import Experiment, Plan, Result
from .trainings import SMALL, TINY, mean_iu, of_training, seconds, spread, trained

NO_DIFFERENCE = 0.02  # of the mean IU: as much as one seed differs from another


def movement(run: Run) -> float | None:
    """How far the upsampling filters have moved from bilinear ones, as a share of those' norm; None if they cannot."""
    moved = start = 0.0
    for _, layer in run.network.named_modules():
        if isinstance(layer, ConvTranspose2d):
            weight = layer.weight.numpy()
            bilinear = init.bilinear(len(weight), weight.shape[2], np.float64)
            moved += float(((weight - bilinear) ** 2).sum())
            start += float((bilinear**2).sum())
    return (moved / start) ** 0.5 if start else None


def run(plan: Plan) -> Result:
    runs: dict[str, list[Run]] = {name: [] for name in DECONVS}
    for seed in plan.seeds:
        for deconv, ones in runs.items():
            ones.append(trained(plan, f"{deconv}-{seed}", plan.config(seed=seed, deconv=deconv)))
    scores = {name: [mean_iu(one) for one in ones] for name, ones in runs.items()}
    rows: list[dict[str, Any]] = [
        {
            "upsampling": name,
            "mean IU, %": spread(scores[name]),
            "filters moved by": None
            if movement(ones[0]) is None
            else 100 * float(np.mean([movement(o) for o in ones])),
            "seconds": float(np.mean([seconds(one) for one in ones])),
        }
        for name, ones in runs.items()
    ]
    differences = [learned - fixed for fixed, learned in zip(scores["fixed"], scores["learned"], strict=True)]
    gain, slower = float(np.mean(differences)), rows[1]["seconds"] / rows[0]["seconds"]
    measured = (
        f"Learned upsampling changes the mean IU from {rows[0]['mean IU, %']} to {rows[1]['mean IU, %']} %: by "
        f"{100 * gain:+.1f} points, {', '.join(f'{100 * one:+.1f}' for one in differences)} seed by seed. Its filters "
        f"moved by {rows[1]['filters moved by']:.0f} % of their norm, and training took {slower:.1f} times as long."
    )
    columns = {"upsampling": "s", "mean IU, %": "s", "filters moved by": ".0f", "seconds": ".0f"}
    figure = new_figure(6.4, 1.8)
    percent = {name: [100 * one for one in values] for name, values in scores.items()}
    figures.bars(figure.subplots(), percent, "mean IU on validation images", "percent", "{:.1f}".format)
    summary = f"{100 * gain:+.1f} points by learning it, {slower:.1f}x the time"
    return Result(columns, rows, measured, summary, abs(gain) < NO_DIFFERENCE, figure)


EXPERIMENT = Experiment(
    name="deconv",
    title="Fixed against learned upsampling",
    paper=(
        "The first nets learned their upsampling from the bilinear filter; in follow-up experiments fixed filters made "
        "no significant difference in accuracy and are slightly faster (README of the authors' code, \"Is learning the "
        'interpolation necessary?").'
    ),
    run=run,
    budget="4 minutes",
    accepts=of_training("deconv"),
    defaults=SMALL | {"model": "fcn8s", "epochs": 3},
    quick=TINY,
    seeds=3,
)
