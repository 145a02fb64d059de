"""FCN-32s, FCN-16s, FCN-8s: finer each, and better each; trained one after another, and at once.

Staged: each net starts from the coarser one's weights, with its new scores at zero, and has `epochs` of its own. At
once: the net with all skips starts where the 32s did and has all those epochs; so has a 32s, to show what the time
alone is worth (Long, Shelhamer and Darrell, 2015, section 4.2; Shelhamer et al., 2017, for at-once).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import MinifcnError
from ..training import Run
from ..viz import colorize, new_figure
from . import figures
from .experiment import Experiment, Plan, Result
from .trainings import SMALL, TINY, mean_iu, of_training, spread, trained

AT_ONCE = ("fcn8s", "fcn8s-at-once")
STAGES = ("fcn32s", "fcn16s", "fcn8s")
PAPER = {"fcn32s": 59.4, "fcn16s": 62.4, "fcn8s": 62.7}  # mean IU in percent on 736 images of VOC2011 val


def run(plan: Plan) -> Result:
    settings = plan.settings
    if settings["model"] not in AT_ONCE:
        raise MinifcnError(f"--model (={settings['model']}) is the net trained at once: {' or '.join(AT_ONCE)}")
    runs: dict[str, list[Run]] = {}
    pictures: dict[str, np.ndarray] = {}
    for seed in plan.seeds:
        init = settings.get("init")
        for stage, model in enumerate(STAGES):
            changes: dict[str, Any] = {
                "model": model,
                "init": init,
                "lr": settings["lr"] * settings["stage_rate"] ** stage,
            }
            if stage:  # the first net's inputs are those of the others
                changes |= {"mean": None, "std": None}
            done = trained(plan, f"{model}-{seed}", plan.config(seed=seed, **changes))
            init = str(done.folder / "last.safetensors")
            runs.setdefault(f"{model}, staged", []).append(done)
            if seed == plan.seeds[0]:
                pictures |= _pictures(done, model, plan.shows_data)
        if not settings["staged_only"]:
            for model, name in ((settings["model"], "at once"), (STAGES[0], "as long")):
                config = plan.config(model=model, seed=seed, epochs=settings["epochs"] * len(STAGES))
                done = trained(plan, f"{model}-{name.replace(' ', '-')}-{seed}", config)
                runs.setdefault(f"{model}, {name}", []).append(done)
    return _result(plan, runs, pictures)


def _pictures(done: Run, model: str, shows_data: bool) -> dict[str, np.ndarray]:
    """What the finished run says of one validation image, before all that image and its label if they may be shown."""
    sample, palette = done.val_set[len(done.val_set) // 2], done.val_set.palette
    given = {}
    if shows_data and model == STAGES[0]:
        given = {"image": sample.image, "label": colorize(sample.label, palette)}
    return given | {model: colorize(done.predictor(sample.image), palette)}


def _result(plan: Plan, runs: dict[str, list[Run]], pictures: dict[str, np.ndarray]) -> Result:
    scores = {name: [mean_iu(one) for one in ones] for name, ones in runs.items()}
    rows = [
        {
            "net": name,
            "epochs": runs[name][0].config.epochs * (1 + STAGES.index(name.split(",")[0]) if "staged" in name else 1),
            "mean IU, %": spread(values),
            "pixel accuracy, %": spread([one.rows[-1]["pixel_accuracy"] for one in runs[name]]),
            "paper, mean IU": PAPER[name.split(",")[0]] if "staged" in name else None,
        }
        for name, values in scores.items()
    ]
    staged = [float(np.mean(scores[f"{model}, staged"])) for model in STAGES]
    others = {name: float(np.mean(values)) for name, values in scores.items() if "staged" not in name}
    epochs = plan.settings["epochs"]
    measured = (
        f"Staged, the mean IU goes from {100 * staged[0]:.1f} (32s) to {100 * staged[1]:.1f} (16s) and "
        f"{100 * staged[2]:.1f} % (8s); epochs each: {epochs}."
    )
    summary = f"{' -> '.join(f'{100 * one:.1f}' for one in staged)} % staged"
    if others:
        at_once, longer = others.values()
        measured += (
            f" In the {epochs * len(STAGES)} epochs of all three, {plan.settings['model']} at once reaches "
            f"{100 * at_once:.1f} %, and an FCN-32s {100 * longer:.1f} %: what a longer training alone gives."
        )
        summary += f", {100 * at_once:.1f} % at once"
    rises = staged[0] < staged[1] < staged[2]
    columns = {"net": "s", "epochs": "d", "mean IU, %": "s", "pixel accuracy, %": "s", "paper, mean IU": ".1f"}
    return Result(columns, rows, measured, summary, rises, _figure(scores, pictures))


def _figure(scores: dict[str, list[float]], pictures: dict[str, np.ndarray]) -> Any:
    figure = new_figure(9.6, 4.4)
    grid = figure.add_gridspec(2, len(pictures), height_ratios=(1.35, 1), hspace=0.45, wspace=0.06)
    percent = {name: [100 * one for one in values] for name, values in scores.items()}
    figures.bars(figure.add_subplot(grid[0, :]), percent, "mean IU on validation images", "percent", "{:.1f}".format)
    for place, (title, pixels) in enumerate(pictures.items()):
        figures.picture(figure.add_subplot(grid[1, place]), pixels, title)
    return figure


EXPERIMENT = Experiment(
    name="skips",
    title="Skips: 32s, 16s, 8s",
    paper=(
        "On 736 images of VOC2011 val the mean IU rises from 59.4 (32s) to 62.4 (16s) and 62.7 % (8s), each net "
        "trained from the one before (Long et al., 2015, table 2); the released nets give 63.6, 65.0 and 65.5 %, and "
        "65.4 % trained at once (README of the authors' code)."
    ),
    run=run,
    budget="4 minutes",
    accepts=(*of_training("steps"), "stage_rate", "staged_only"),
    defaults=SMALL | {"model": "fcn8s", "stage_rate": 1.0, "staged_only": False},
    quick=TINY,
    seeds=1,
)
