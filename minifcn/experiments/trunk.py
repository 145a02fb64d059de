"""A trunk that has learned to classify against one that has not.

Two equal FCNs see the same images in the same order. One starts from a classifier's weights: those of `init`, or of a
classifier that is first trained on generated shapes. The other starts from random ones, and as all of its layers are
new, all learn at the rate of new layers (Long, Shelhamer and Darrell, 2015, section 4.3, "fine-tuning").
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import checkpoint
from ..configuration import TrainConfig
from ..training import Run
from ..transfer import sizes
from ..viz import new_figure
from . import figures
from .experiment import Experiment, Plan, Result
from .trainings import SMALL, TINY, mean_iu, of_training, spread, trained

# At a higher rate, or with dropout, the small trunk has not begun to learn shapes after as many epochs.
SHAPES = {"task": "classify", "data": "shapes:64x64", "batch": 16, "lr": 0.01, "dropout": 0.0}
OF_A_CLASSIFIER = ("backbone", "width", "fc", "mean", "std", "dtype", "device", "convolution")


def run(plan: Plan) -> Result:
    settings = plan.settings
    curves: dict[str, list[Run]] = {"random": [], "pretrained": []}
    source = "the weights of " + str(settings["init"]).rpartition("/")[2] if settings.get("init") else None
    accuracies: list[float] = []
    for seed in plan.seeds:
        init = settings.get("init")
        if init is None:
            classifier = trained(plan, f"classifier-{seed}", _classifier(plan, seed))
            init = str(classifier.folder)
            accuracies.append(classifier.rows[-1]["accuracy"])
            source = f"a classifier of generated shapes, accuracy {spread(accuracies)} %,"
        config = plan.config(seed=seed, init=init)
        curves["pretrained"].append(trained(plan, f"pretrained-{seed}", config))
        same = sizes(checkpoint.load(checkpoint.find(init)), fc=config.fc, input_size=config.input_size)
        scratch = plan.config(seed=seed, init=None, lr=config.lr * config.lr_new, lr_new=1.0, **same)
        curves["random"].append(trained(plan, f"random-{seed}", scratch))
    return _result(plan, curves, source)


def _classifier(plan: Plan, seed: int) -> TrainConfig:
    shared = {name: plan.settings[name] for name in OF_A_CLASSIFIER if name in plan.settings}
    length = {"epochs": plan.settings["pretrain_epochs"], "steps": 2 if plan.quick else None}
    return TrainConfig(**shared | SHAPES | length | {"seed": seed})


def _result(plan: Plan, runs: dict[str, list[Run]], source: str) -> Result:
    scores = {name: [mean_iu(one) for one in ones] for name, ones in runs.items()}
    first = {name: [one.rows[0]["mean_iu"] for one in ones] for name, ones in runs.items()}
    rows: list[dict[str, Any]] = [
        {
            "trunk": name,
            "rate": ones[0].config.lr,
            "mean IU, %": spread(scores[name]),
            "after the first epoch, %": spread(first[name]),
        }
        for name, ones in runs.items()
    ]
    mean = {name: float(np.mean(values)) for name, values in scores.items()}
    gain = 100 * (mean["pretrained"] - mean["random"])
    epochs = len(runs["random"][0].rows)
    measured = (
        f"The mean IU after {epochs} epochs of {plan.settings['data'].partition(':')[0]} is {rows[1]['mean IU, %']} % "
        f"from {source} and {rows[0]['mean IU, %']} % from random weights: {gain:+.1f} points for what the trunk had "
        f"learned. After the first epoch it was {rows[1]['after the first epoch, %']} against "
        f"{rows[0]['after the first epoch, %']} %."
    )
    columns = {"trunk": "s", "rate": "g", "mean IU, %": "s", "after the first epoch, %": "s"}
    figure = new_figure(6.4, 3.4)
    series = {
        name: (
            [row["epoch"] for row in ones[0].rows],
            [100 * float(np.mean([one.rows[i]["mean_iu"] for one in ones])) for i in range(len(ones[0].rows))],
        )
        for name, ones in reversed(runs.items())
    }
    figures.lines(figure.subplots(), series, "mean IU on validation images", "epoch", "percent")
    figure.axes[0].set_ylim(0, None)
    summary = f"{100 * mean['pretrained']:.1f} % pretrained, {100 * mean['random']:.1f} % random"
    return Result(columns, rows, measured, summary, gain > 0, figure)


EXPERIMENT = Experiment(
    name="trunk",
    title="A pretrained trunk against a random one",
    paper=(
        "All nets are fine-tuned from ImageNet classifiers; training from scratch is not feasible considering the time "
        "that the classifiers themselves took to learn (Long et al., 2015, section 4.3)."
    ),
    run=run,
    budget="3 minutes",
    accepts=(*of_training("steps"), "pretrain_epochs"),
    defaults=SMALL | {"pretrain_epochs": 12},
    quick=TINY | {"pretrain_epochs": 1},
    seeds=2,
)
