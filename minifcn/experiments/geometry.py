"""Padding by 100 against exact sizes: what each costs, damps and scores.

The released nets pad the image by 100 pixels so that any size leaves an output, and crop; in the exact geometry every
layer pads by half its window, and nothing is left over. Measured for each: multiplications of the convolutions, time,
how many pixels at the border see bilinear weights that do not add up to 1, and the mean IU after the same training, of
all pixels and of those within 16 px of the border.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import metrics
from ..alignment import derive
from ..data import IGNORE
from ..metrics import ConfusionMatrix
from ..models import GEOMETRIES, build
from ..models.backbones import BACKBONES, Conv
from ..tensor import Tensor, no_grad
from ..training import Run
from ..viz import new_figure
from . import figures, timing
from .experiment import Experiment, Plan, Result
from .trainings import SMALL, TINY, mean_iu, of_training, spread, trained

BORDER = 16  # px
WHOLE = 1 - 1e-6  # a sum of bilinear weights that counts as 1


def multiplications(
    model: str, geometry: str, size: tuple[int, int], backbone: str, classes: int, width: float = 1.0
) -> int:
    """Of all convolutions of the forward pass, for one image of `size` (H, W); fixed upsampling has none of them."""
    thin = build(model, backbone=backbone, geometry=geometry, classes=2, width=1e-3)  # sizes do not depend on channels
    derivation, plan = derive(thin), BACKBONES[backbone].scaled(width)
    rows, columns = (derivation.sizes(length) for length in size)
    count, C, channels = 0, 3, {}

    def add(name: str, source: int, K: int, window: int, groups: int = 1) -> None:
        nonlocal count
        count += K * source // groups * window**2 * rows[name] * columns[name]

    for layer in plan.layers:
        if isinstance(layer, Conv):
            add(layer.name, C, layer.channels, layer.window, layer.groups)
            C = layer.channels
        channels[layer.name] = C
    add("fc6", C, plan.fc, plan.fc6_window)
    add("fc7", plan.fc, plan.fc, 1)
    add("score_fr", plan.fc, classes, 1)
    for _, pool, score in thin.skips:
        add(score, channels[pool], classes, 1)
    return count


def attenuation(geometry: str, model: str, size: int = 256) -> dict[str, tuple[int, float]]:
    """{score layer: (pixels from the upper edge whose weights do not add up to 1, the least sum)}, along one axis.

    Score layers start at zero: with one bias of 1 the network's output is the sum of its stream's weights.
    """
    found = {}
    network = build(model, backbone="small", geometry=geometry, classes=2, width=1e-3)
    black = Tensor(np.zeros((1, 3, size, size), np.float32))
    for score in ("score_fr", *(score for _, _, score in network.skips)):
        bias = getattr(network, score).bias.data
        bias[...] = 1
        with no_grad():
            sums = network.eval()(black).numpy()[0, 0, : size // 2, size // 2]
        bias[...] = 0
        found[score] = (int((sums < WHOLE).sum()), float(sums.min()))
    return found


def border_iu(run: Run) -> float:
    """Mean IU of the pixels within BORDER px of an edge."""
    matrix = ConfusionMatrix(len(run.val_set.classes))
    for index in range(len(run.val_set)):
        sample = run.val_set[index]
        label = sample.label.copy()
        label[BORDER:-BORDER, BORDER:-BORDER] = IGNORE
        matrix.update(label, run.predictor(sample.image))
    return metrics.scores(matrix.counts).mean_iu


def run(plan: Plan) -> Result:
    runs: dict[str, list[Run]] = {name: [] for name in GEOMETRIES}
    for seed in plan.seeds:
        for geometry, ones in runs.items():
            ones.append(trained(plan, f"{geometry}-{seed}", plan.config(seed=seed, geometry=geometry)))
    first = {name: ones[0] for name, ones in runs.items()}
    model, backbone, width = plan.settings["model"], plan.settings["backbone"], first["exact"].config.width
    classes = len(first["exact"].val_set.classes)
    image = first["exact"].val_set[0].image
    seconds = timing.medians(
        {name: lambda one=one: one.predictor(image) for name, one in first.items()}, 1 if plan.quick else 15
    )
    damped = {name: attenuation(name, model) for name in GEOMETRIES}
    scores = {name: [mean_iu(one) for one in ones] for name, ones in runs.items()}
    border = {name: [border_iu(one) for one in ones] for name, ones in runs.items()}
    size = image.shape[:2]
    rows: list[dict[str, Any]] = [
        {
            "geometry": name,
            "multiplications, 10^9": multiplications(model, name, size, backbone, classes, width) / 1e9,
            "ms an image": 1e3 * seconds[name],
            "damped, px from the edge": max(pixels for pixels, _ in damped[name].values()),
            "least sum of weights": min(least for _, least in damped[name].values()),
            "mean IU, %": spread(scores[name]),
            f"within {BORDER} px of the edge, %": spread(border[name]),
        }
        for name in GEOMETRIES
    ]
    return _result(plan, rows, scores, size)


def _result(plan: Plan, rows: list[dict[str, Any]], scores: dict[str, list[float]], size: tuple[int, int]) -> Result:
    exact, padded = rows
    work, time = (padded[name] / exact[name] for name in ("multiplications, 10^9", "ms an image"))
    model = plan.settings["model"]
    large = {name: multiplications(model, name, (500, 500), "vgg16", 21) / 1e9 for name in GEOMETRIES}
    border = f"within {BORDER} px of the edge, %"
    measured = (
        f"At {size[0]} x {size[1]} px, padding by 100 takes {work:.1f} times the multiplications and {time:.1f} times "
        f"the time; over VGG16 at 500 x 500 it would be {large['pad100']:.0f} against {large['exact']:.0f} 10^9 "
        f"multiplications. Bilinear weights fall short of 1 up to {padded['damped, px from the edge']} px from the "
        f"edge (least {padded['least sum of weights']:.2f}), in the exact geometry up to "
        f"{exact['damped, px from the edge']} px ({exact['least sum of weights']:.2f}). Mean IU {padded['mean IU, %']} "
        f"against {exact['mean IU, %']} %; near the edge {padded[border]} against {exact[border]} %."
    )
    columns = {"geometry": "s", "multiplications, 10^9": ".2f", "ms an image": ".1f"}
    columns |= {"damped, px from the edge": "d", "least sum of weights": ".3f", "mean IU, %": "s", border: "s"}
    figure = new_figure(9.6, 1.9)
    left, right = figure.subplots(1, 2, gridspec_kw={"wspace": 0.3})
    figures.bars(left, {row["geometry"]: [row["ms an image"]] for row in rows}, "time", "ms an image", "{:.1f}".format)
    percent = {name: [100 * one for one in values] for name, values in scores.items()}
    figures.bars(right, percent, "mean IU on validation images", "percent", "{:.1f}".format)
    difference = 100 * float(np.mean(scores["exact"]) - np.mean(scores["pad100"]))
    summary = f"padding by 100 costs {work:.1f}x the work; exact {difference:+.1f} points of mean IU"
    return Result(columns, rows, measured, summary, work > 1, figure)


EXPERIMENT = Experiment(
    name="geometry",
    title="Padding by 100 against exact sizes",
    paper=(
        "The padding of 100 px guarantees that the output can be aligned to the input at any size; it is possible, "
        "though less convenient, to calculate the exact offsets and do away with it (README of the authors' code, "
        "question 'Why pad the input?')."
    ),
    run=run,
    budget="4 minutes",
    accepts=of_training("geometry"),
    defaults=SMALL | {"model": "fcn8s", "epochs": 3},
    quick=TINY,
    seeds=2,
)
