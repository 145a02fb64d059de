"""The best mean IU that labels allow when they pass through a coarse grid.

A label is brought down to cells of F x F pixels and up again. "nearest": a cell has the class of its centre pixel, and
gives it to all of its pixels. "bilinear": a cell scores 1 for the class of most of its pixels, and a pixel takes the
class with the largest interpolated score. Void pixels have no vote and are not counted.

It bounds what cells with one class each can say. An FCN's scores are graded: by how sure two cells are it can place an
edge anywhere between them, so that its mean IU may be above this.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from .. import metrics, ops
from ..data import IGNORE, Dataset, open_dataset
from ..metrics import ConfusionMatrix, Scores
from ..tensor import Tensor
from ..viz import colorize, new_figure
from . import figures
from .experiment import Experiment, Plan, Result

# Mean IU in percent by factor, on PASCAL VOC
PUBLISHED = {128: 50.9, 64: 73.3, 32: 86.1, 16: 92.8, 8: 96.4, 4: 98.5}


def votes(label: np.ndarray, factor: int, classes: int) -> np.ndarray:
    """Pixels of each class in each cell of `label` [H, W]: [classes, ceil(H / factor), ceil(W / factor)]."""
    padding = [(0, -size % factor) for size in label.shape]
    padded = np.pad(label, padding, constant_values=IGNORE)
    rows, columns = (size // factor for size in padded.shape)
    cells = padded.reshape(rows, factor, columns, factor)
    return np.stack([(cells == c).sum(axis=(1, 3)) for c in range(classes)])


def nearest(label: np.ndarray, factor: int, classes: int) -> np.ndarray:
    """`label` down and up again by the centre pixels of the cells; where that is void, by the most frequent class."""
    H, W = label.shape
    majority = votes(label, factor, classes).argmax(axis=0)
    rows, columns = (
        np.minimum(np.arange(cells) * factor + factor // 2, size - 1)
        for cells, size in zip(majority.shape, (H, W), strict=True)
    )
    centres = label[np.ix_(rows, columns)]
    coarse = np.where(centres == IGNORE, majority, centres)
    return coarse.repeat(factor, axis=0).repeat(factor, axis=1)[:H, :W].astype(label.dtype)


def bilinear(label: np.ndarray, factor: int, classes: int) -> np.ndarray:
    """`label` down by the most frequent class of each cell, and up again by interpolation of its score."""
    H, W = label.shape
    counts = votes(label, factor, classes)
    scores = (np.arange(classes)[:, None, None] == counts.argmax(axis=0)) & (counts.sum(axis=0) > 0)
    upsampled = ops.bilinear_upsample(Tensor(scores[None].astype(np.float32)), factor).numpy()
    return upsampled[0, :, :H, :W].argmax(axis=0).astype(label.dtype)


METHODS = {"nearest": nearest, "bilinear": bilinear}


def bound(dataset: Dataset, method: str, factor: int) -> Scores:
    """The scores of the labels of `dataset` after `method`."""
    classes = len(dataset.classes)
    matrix = ConfusionMatrix(classes)
    for index in range(len(dataset)):
        label = dataset[index].label
        matrix.update(label, METHODS[method](label, factor, classes))
    return metrics.scores(matrix.counts)


def run(plan: Plan) -> Result:
    dataset = open_dataset(plan.settings["data"], "val", seed=plan.settings["seed"])
    rows: list[dict[str, Any]] = []
    for factor, published in PUBLISHED.items():
        found = {method: bound(dataset, method, factor).mean_iu for method in METHODS}
        rows.append({"factor": factor, "paper, VOC": published} | {name: 100 * iu for name, iu in found.items()})
        plan.say(f"factor {factor}: " + ", ".join(f"{name} {100 * iu:.1f} %" for name, iu in found.items()))
    label = dataset[len(dataset) // 2].label
    H, W = label.shape
    bounds = {name: [row[name] for row in rows] for name in METHODS}
    rises = all(b >= a for values in bounds.values() for a, b in pairwise(values))
    at = {row["factor"]: row["nearest"] for row in rows}
    measured = (
        f"On the {len(dataset)} validation labels of {dataset_name(plan)}, {H} x {W} pixels, the bound is "
        f"{at[32]:.1f} % at factor 32, {at[16]:.1f} % at 16 and {at[8]:.1f} % at 8 ({at[128]:.1f} % at 128). It counts "
        f"in pixels, so that smaller pictures than VOC's have a lower one at the same factor. Graded scores are not "
        f"bound by it: between two cells an FCN can place an edge by how sure they are."
    )
    columns = {"factor": "d", "paper, VOC": ".1f"} | dict.fromkeys(METHODS, ".1f")
    summary = f"{at[32]:.1f} % at 32, {at[16]:.1f} % at 16, {at[8]:.1f} % at 8"
    return Result(
        columns, rows, measured, summary, rises, _figure(rows, _coarse(label, dataset) if plan.shows_data else {})
    )


def dataset_name(plan: Plan) -> str:
    """The data set's name without its place."""
    return plan.settings["data"].partition(":")[0]


def _coarse(label: np.ndarray, dataset: Dataset) -> dict[str, np.ndarray]:
    """Pictures of `label`, as it is and after coarse grids, by title."""
    classes = len(dataset.classes)
    shown = {"label": label} | {f"nearest, {factor}": nearest(label, factor, classes) for factor in (8, 32)}
    shown["bilinear, 32"] = bilinear(label, 32, classes)
    return {title: colorize(pixels, dataset.palette) for title, pixels in shown.items()}


def _figure(rows: list[dict[str, Any]], pictures: dict[str, np.ndarray]) -> Any:
    figure = new_figure(9.6 if pictures else 4.8, 3.8)
    grid = figure.add_gridspec(2, 3 if pictures else 1, wspace=0.12, hspace=0.2)
    if pictures:
        grid.set_width_ratios((2.2, 1, 1))
    axes = figure.add_subplot(grid[:, 0])
    names = {"paper, VOC": "VOC, Shelhamer et al.", "nearest": "here, nearest", "bilinear": "here, bilinear"}
    places = [row["factor"] for row in rows]
    series = {title: (places, [row[name] for row in rows]) for name, title in names.items()}
    figures.lines(axes, series, "upper bound of the mean IU", "pixels a cell, along either axis", "percent")
    axes.set_xscale("log", base=2)
    axes.set_xticks(places, places)
    axes.set_ylim(0, 105)
    for place, (title, pixels) in enumerate(pictures.items()):
        figures.picture(figure.add_subplot(grid[place // 2, 1 + place % 2]), pixels, title)
    return figure


EXPERIMENT = Experiment(
    name="iu-bound",
    title="Upper bound of the mean IU on a coarse grid",
    paper=(
        "Labels that are downsampled by 128, 64, 32, 16, 8, 4 and upsampled again keep a mean IU of 50.9, 73.3, 86.1, "
        "92.8, 96.4, 98.5 % on VOC: a stride of 32 is no obstacle to a good score (Shelhamer et al., 2017; quoted "
        "from memory, not checked against the paper)."
    ),
    run=run,
    budget="10 s",
    accepts=("data", "seed"),
    defaults={"data": "scenes", "seed": 0},
    quick={"data": "scenes:32x40"},
)
