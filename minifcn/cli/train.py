"""`minifcn train`: train a network, watch it learn, stop and resume it."""

from __future__ import annotations

import argparse
import math
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from rich.progress import TextColumn

from .. import ledger, metrics, optim, planner, recipes
from ..configuration import TrainConfig
from ..errors import TrainingError
from ..kernels import memory
from ..metrics import Scores
from ..models import FCN
from ..training import Observer, Run
from .console import add_threads, console, number, number_list, print_lines, progress_bar

HELP = "train a fully convolutional network, or a classifier to make one of, or resume a run"


def _parser_of(setting: Field) -> dict[str, Any]:
    """How argparse reads one field of the configuration."""
    if setting.type.removesuffix(" | None") == "bool":
        return {"action": argparse.BooleanOptionalAction}
    if setting.metadata["choices"]:
        return {"choices": setting.metadata["choices"]}
    kinds = {"int": int, "float": float, "str": str, "tuple[float, ...]": number_list(float)}
    kinds["tuple[int, ...]"] = number_list(int)
    return {"type": kinds[setting.type.removesuffix(" | None")], "metavar": setting.name.upper()}


def add_training_settings(parser: Any, names: Collection[str]) -> None:
    """An option for each of the settings `names` of a training; one that is not given leaves no attribute."""
    for setting in fields(TrainConfig):
        if setting.name in names:
            default = "" if setting.default in (None, MISSING) else f" (default: {setting.default})"
            parser.add_argument(
                f"--{setting.name.replace('_', '-')}",
                dest=setting.name,
                default=argparse.SUPPRESS,  # so that --resume can tell what was given
                help=setting.metadata["help"].replace("%", "%%") + default,
                **_parser_of(setting),
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_training_settings(parser, [setting.name for setting in fields(TrainConfig)])
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="settings from this file; options count over it")
    parser.add_argument("--run", dest="folder", type=Path, metavar="DIR", help="folder of the run (default: runs/...)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --run DIR where it stopped")
    parser.add_argument("--no-ledger", action="store_true", help="leave out the sanity checks before the first step")
    add_threads(parser)


def _new_folder(config: TrainConfig) -> Path:
    """runs/DATA-MODEL-BACKBONE-N with the first free N."""
    stem = f"{config.data.split(':')[0]}-{config.model}-{config.backbone}"
    taken = {path.name for path in Path("runs").glob(f"{stem}-*")}
    free = next(n for n in range(1, len(taken) + 2) if f"{stem}-{n}" not in taken)
    return Path("runs") / f"{stem}-{free}"


class Display(Observer):
    """A live line a step on a terminal, and one lasting line an epoch."""

    def __init__(self, with_ledger: bool = True) -> None:
        self.with_ledger = with_ledger
        self.bar = progress_bar(TextColumn("loss {task.fields[loss]}"), TextColumn("{task.fields[speed]} images/s"))
        self.task = self.bar.add_task("", total=None, loss="-", speed="-")
        self.recent: list[tuple[float, int]] = []

    def started(self, run: Run) -> None:
        network = run.network
        count = sum(parameter.size for parameter in network.parameters())
        console.print(
            f"{run.config.model} over {run.config.backbone}, {count:,} parameters, {run.network.classes} classes; "
            f"{len(run.train_set)} training and {len(run.val_set)} validation images of {run.config.data}"
        )
        if run.inheritance is not None:
            new = ", ".join(run.inheritance.new_layers) or "nothing"
            console.print(f"weights from {run.config.init}; new: {new}", soft_wrap=True)
            for note in run.inheritance.notes:
                console.print(f"  {note}", soft_wrap=True)
        state = f"at step {run.standing.step} of {run.total_steps}" if run.standing.step else f"{run.total_steps} steps"
        graph = ", replayed as one graph" if run.replays else ""
        console.print(f"{run.folder}: {state} on device {run.config.device}{graph}")
        examined = self.with_ledger and run.standing.step == 0
        if run.config.device == "cpu" and isinstance(run.network, FCN):
            _print_plan(run, examined)
        if examined:
            print_lines(ledger.examine(run))
        self.bar.update(self.task, total=run.total_steps, completed=run.standing.step)
        self.recent = [(time.perf_counter(), 0)]

    def stepped(self, run: Run, loss: float, lr: float) -> None:
        images = run.config.batch * run.config.accumulate
        self.recent = [*self.recent[-20:], (time.perf_counter(), images)]
        seconds = self.recent[-1][0] - self.recent[0][0]
        speed = sum(count for _, count in self.recent[1:]) / max(seconds, 1e-9)
        epoch = f"epoch {run.standing.epoch + 1}"
        self.bar.update(
            self.task, completed=run.standing.step, description=epoch, loss=f"{loss:.4f}", speed=f"{speed:.1f}"
        )

    def evaluating(self, run: Run, done: int, total: int) -> None:
        self.bar.update(self.task, description=f"epoch {run.standing.epoch}, validation {done}/{total}")

    def evaluated(self, run: Run, row: dict[str, Any], scores: Scores) -> None:
        best = "  best so far" if run.standing.best_epoch == row["epoch"] else ""
        shown = "  ".join(f"{title} {number(getattr(scores, name))}" for title, name in run.task.shown)
        console.print(f"epoch {row['epoch']:3d}  step {row['step']:6d}  loss {row['loss']:.4f}  {shown}{best}")
        self.recent = [(time.perf_counter(), 0)]


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """A list that Ctrl-C (or SIGTERM) makes non-empty: the step ends first. A second one interrupts at once."""
    asked: list[int] = []

    def handle(signum: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(signum)
        console.print("stopping after this step; once more stops at once, without saving")

    before = {signum: signal.signal(signum, handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def run(arguments: argparse.Namespace) -> int:
    given = {one.name: getattr(arguments, one.name) for one in fields(TrainConfig) if hasattr(arguments, one.name)}
    display = Display(with_ledger=not arguments.no_ledger)
    if arguments.resume:
        if arguments.folder is None:
            raise TrainingError("--resume needs --run DIR, the folder of the run to continue")
        if given or arguments.recipe:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given) or "--recipe"
            raise TrainingError(
                f"--resume takes all settings from {arguments.folder / 'config.toml'}; leave out {names}"
            )
        training = Run.resume(arguments.folder, display)
    else:
        config = recipes.load(arguments.recipe).config(given) if arguments.recipe else TrainConfig(**given)
        training = Run.start(arguments.folder or _new_folder(config), config, display)
    with _asked_to_stop() as asked, display.bar:
        finished = training.train(stop=lambda: bool(asked))
    resume = f"minifcn train --run {training.folder} --resume"
    if not finished:
        console.print(f"saved at step {training.standing.step}; continue with\n  {resume}", soft_wrap=True)
        return 130
    _report(training)
    return 0


def _print_plan(training: Run, examined: bool) -> None:
    """What the run will need of memory; a warning where that is more than there is."""
    config = training.config
    height, width = config.crop or training.train_set[0].image.shape[:2]
    scale = 1 if config.crop or config.scale is None else config.scale[1]
    size = math.ceil(height * scale), math.ceil(width * scale)
    plan = planner.training(
        training.network,
        size,
        config.batch,
        optim.kind(config.optimizer),
        ahead=training.loader.ahead,
        kept=training.train_set.kept_bytes + training.val_set.kept_bytes,
        ledger=examined,
    )
    available = planner.available()
    needed, left = planner.readable(plan.total), planner.readable(available)
    console.print(
        f"memory: {needed} planned for steps of {config.batch} x {size[0]}x{size[1]}, most for {plan.worst}; "
        f"{left} available",
        soft_wrap=True,
    )
    if plan.total > available:
        console.print(
            "[bold red]warning[/]: the system may stop this run for want of memory. A smaller --batch (with "
            "--accumulate), --crop or --no-ledger needs less; `minifcn plan` says what fits",
            soft_wrap=True,
        )


def _report(training: Run) -> None:
    """What it took, the result beside the trivial one, and where to look."""
    print(f"peak memory of the kernels' arrays: {memory.usage().peak / 2**20:.0f} MiB")
    if training.standing.best_score is None:
        return
    task = training.task
    print(f"best {task.title} {training.standing.best_score:.4f} at epoch {training.standing.best_epoch}")
    if training.true_counts is not None:
        best, scores = metrics.constant_predictor(training.true_counts, training.config.absent)
        name = training.val_set.classes[best]
        print(f"best constant predictor ({name} everywhere): {task.title} {task.score(scores):.4f}")
    last = sorted((training.folder / "samples").glob("*.png"))[-1]
    print(f"curves:   {training.folder / 'curves.png'}")
    print(f"pictures: {last}")
    print(f"weights:  {training.folder / 'best.safetensors'}")
