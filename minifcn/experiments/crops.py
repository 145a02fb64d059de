"""Derived crops against centred ones, in the geometry of the released nets.

With padding 100 every map is larger than it need be, and is cropped. The right offset follows from the coordinate maps
and is the same for every image; the middle of the surplus is not, and is right at few sizes (`minifcn.alignment`).
How far scores then lie from where they were computed is measured with a picture of coordinates, and what it costs with
trained nets: one that is evaluated under the crops it was trained with, and under the others.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from .. import metrics
from ..alignment import derive, ramp_errors
from ..models import FCN, build
from ..training import Run
from ..viz import new_figure
from . import figures
from .experiment import Experiment, Plan, Result
from .trainings import SMALL, TINY, mean_iu, of_training, spread, trained

STAGES = ("fcn32s", "fcn16s", "fcn8s")
SIZES = (224, 375, 500)  # rows and columns whose alignment is measured


def centred(network: FCN, size: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Offsets that drop half of the surplus, rounded down, of every map for an image of `size` (H, W)."""
    derivation = derive(network)
    sizes = [derivation.sizes(length) for length in size]
    return {crop.layer: tuple(crop.surplus(found) // 2 for found in sizes) for crop in derivation.crops}


def with_crops(network: FCN, offsets: dict[str, Any]) -> FCN:
    """The same network, its weights shared, with other crops."""
    other = copy.copy(network)
    other.offsets = offsets
    return other


def alignment_error(model: str, size: int) -> tuple[float, float]:
    """Largest distance in px of a score from its place, with derived and with centred crops, for a square image."""
    network = build(model, backbone="small", geometry="pad100", classes=2, width=1e-3)
    moved = with_crops(network, centred(network, (size, size)))
    errors = [ramp_errors(one, (size, size), "cpu") for one in (network, moved)]
    return max(errors[0].values()), max(errors[1].values())


def _evaluated(run: Run, offsets: dict[str, Any]) -> float:
    """Mean IU of a finished run under other crops."""
    network, run.predictor.network = run.predictor.network, with_crops(run.network, offsets)
    try:
        return metrics.scores(run.predictor.evaluate(run.val_set).counts).mean_iu
    finally:
        run.predictor.network = network


def run(plan: Plan) -> Result:
    rows: list[dict[str, Any]] = []
    for model in STAGES:
        errors = {size: alignment_error(model, size) for size in (SIZES[:1] if plan.quick else SIZES)}
        rows.append(
            {"what": f"{model}, alignment error in px, derived"} | {str(size): e[0] for size, e in errors.items()}
        )
        rows.append(
            {"what": f"{model}, alignment error in px, centred"} | {str(size): e[1] for size, e in errors.items()}
        )
        plan.say(", ".join(f"{model} at {size}: {e[0]:.2g} and {e[1]:.3g} px" for size, e in errors.items()))
    scores: dict[str, list[float]] = {}
    for seed in plan.seeds:
        config = plan.config(seed=seed, geometry="pad100")
        derived = trained(plan, f"derived-{seed}", config)
        middle = centred(derived.network, derived.val_set[0].image.shape[:2])

        def move(run: Run, middle: dict[str, Any] = middle) -> None:
            run.network.offsets = middle

        moved = trained(plan, f"centred-{seed}", config, move)
        for name, value in (
            ("derived, derived", mean_iu(derived)),
            ("derived, centred", _evaluated(derived, middle)),
            ("centred, centred", mean_iu(moved)),
        ):
            scores.setdefault(name, []).append(value)
    return _result(plan, rows, scores)


def _result(plan: Plan, rows: list[dict[str, Any]], scores: dict[str, list[float]]) -> Result:
    sizes = [name for name in rows[0] if name != "what"]
    worst = {row["what"].split(",")[0]: max(row[size] for size in sizes) for row in rows[1::2]}
    exact = max(row[size] for row in rows[::2] for size in sizes)
    mean = {name: 100 * float(np.mean(values)) for name, values in scores.items()}
    table = rows + [{"what": f"mean IU in %, trained and used: {name}", "IU": spread(v)} for name, v in scores.items()]
    drop = mean["derived, derived"] - mean["derived, centred"]
    measured = (
        f"Derived crops are off by {exact:.1g} px; centred ones by up to "
        f"{', '.join(f'{value:.0f} ({name})' for name, value in worst.items())} px at {', '.join(sizes)} px. A net "
        f"trained with derived crops has a mean IU of {mean['derived, derived']:.1f} %, and {drop:.1f} points less "
        f"when its maps are cropped in the middle. Trained with centred crops it reaches "
        f"{mean['centred, centred']:.1f} %."
    )
    columns = {"what": "s"} | dict.fromkeys(sizes, ".1f") | {"IU": "s"}
    figure = new_figure(9.6, 2.6)
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.55})
    shift = {f"{name}, centred": [value] for name, value in worst.items()} | {"all, derived": [exact]}
    figures.bars(left, shift, f"largest alignment error at {', '.join(sizes)} px", "px", "{:.0f}".format)
    percent = {name: [100 * one for one in values] for name, values in scores.items()}
    figures.bars(right, percent, "mean IU by crops of training, of use", "percent", "{:.1f}".format)
    summary = f"centred: up to {max(worst.values()):.0f} px off, mean IU {-drop:+.1f} points"
    return Result(columns, table, measured, summary, exact < 1e-6 and drop > 0, figure)


EXPERIMENT = Experiment(
    name="crops",
    title="Centred against derived crops",
    paper=(
        "Skip layers are cropped by offsets that are derived from the nets' coordinate maps, 19 px for 32s, 5 and 27 "
        "for 16s, 5, 9 and 31 for 8s, at every size of image (the authors' code, `coord_map` and the prototxts)."
    ),
    run=run,
    budget="3 minutes",
    accepts=of_training("geometry", "crop", "scale"),
    defaults=SMALL | {"model": "fcn8s", "epochs": 3},
    quick=TINY,
    seeds=1,
)
