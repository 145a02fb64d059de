"""Accumulated, online and heavy learning on one fixed sequence of images.

Accumulated: a step for the mean gradient of 20 images, momentum 0.9. Online: a step an image, momentum 0.9. Heavy: a
step an image, momentum 0.99, which forgets about as slowly in images as 0.9 does at 20 a step, 0.9^(1/20) = 0.9947.
All at one rate, as in the paper. A velocity adds up to rate / (1 - momentum), so that heavy moves ten times as far as
online; the fourth row is online at ten times the rate, to tell the two apart (Shelhamer, Long and Darrell, 2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..training import Run
from ..viz import new_figure
from . import figures
from .experiment import Experiment, Plan, Result
from .trainings import SMALL, TINY, mean_iu, of_training, spread, trained

BATCH = 20
# How the settings of each differ: images a step, momentum, factor of the rate
WAYS = {
    "accumulated": (BATCH, 0.9, 1.0),
    "online": (1, 0.9, 1.0),
    "heavy": (1, 0.99, 1.0),
    "online, 10 x rate": (1, 0.9, 10.0),
}
PAPER = {"accumulated": 51.9, "online": 60.7, "heavy": 63.6}  # mean IU in percent, FCN-32s on VOC


def run(plan: Plan) -> Result:
    runs: dict[str, list[Run]] = {}
    images = 20 if plan.quick else plan.settings["epoch_images"]
    for seed in plan.seeds:
        for name, (accumulate, momentum, factor) in WAYS.items():
            config = plan.config(
                seed=seed,
                batch=1,
                accumulate=accumulate,
                momentum=momentum,
                lr=plan.settings["lr"] * factor,
                sampling="replacement",
                epoch_images=images,
                schedule="fixed",
            )
            folder = f"{name.replace(', ', '-').replace(' ', '')}-{seed}"
            runs.setdefault(name, []).append(trained(plan, folder, config))
    scores = {name: [mean_iu(one) for one in ones] for name, ones in runs.items()}
    rows: list[dict[str, Any]] = [
        {
            "way": name,
            "images a step": WAYS[name][0],
            "momentum": ones[0].config.momentum,
            "rate": ones[0].config.lr,
            "rate / (1 - momentum)": ones[0].config.lr / (1 - ones[0].config.momentum),
            "steps": ones[0].total_steps,
            "mean IU, %": spread(scores[name]),
            "paper, mean IU": PAPER.get(name),
        }
        for name, ones in runs.items()
    ]
    mean = {name: 100 * float(np.mean(values)) for name, values in scores.items()}
    ordered = mean["accumulated"] < mean["online"] < mean["heavy"]
    heavy, rate = mean["heavy"] - mean["online"], mean["online, 10 x rate"] - mean["online"]
    measured = (
        f"After the same {images * plan.settings['epochs']} images, in the same order: {mean['accumulated']:.1f} % "
        f"accumulated, {mean['online']:.1f} % online, {mean['heavy']:.1f} % heavy. Against online, momentum 0.99 makes "
        f"{heavy:+.1f} points, and ten times the rate, which moves as far a step, {rate:+.1f}."
    )
    columns = {"way": "s", "images a step": "d", "momentum": "g", "rate": "g", "rate / (1 - momentum)": ".2g"}
    columns |= {"steps": "d", "mean IU, %": "s", "paper, mean IU": ".1f"}
    figure = new_figure(6.4, 2.6)
    percent = {name: [100 * one for one in values] for name, values in scores.items()}
    figures.bars(figure.subplots(), percent, "mean IU after the same images", "percent", "{:.1f}".format)
    summary = (" < " if ordered else ", ").join(f"{mean[name]:.1f}" for name in PAPER)
    return Result(columns, rows, measured, f"{summary} % accumulated, online, heavy", ordered, figure)


EXPERIMENT = Experiment(
    name="momentum",
    title="Accumulated, online and heavy learning",
    paper=(
        "FCN-32s on VOC reaches 51.9 % with gradients accumulated over 20 images and momentum 0.9, 60.7 % online with "
        "0.9, 63.6 % online with 0.99, all over the same images (Shelhamer et al., 2017; quoted from memory, not "
        "checked against the paper)."
    ),
    run=run,
    budget="5 minutes",
    accepts=of_training("batch", "accumulate", "momentum", "sampling", "schedule", "steps"),
    defaults=SMALL | {"model": "fcn32s", "lr": 0.002, "epochs": 3, "epoch_images": 300},
    quick=TINY | {"lr": 0.001, "steps": None},
    seeds=2,
)
