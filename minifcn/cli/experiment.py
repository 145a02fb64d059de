"""`minifcn experiment`: the paper's claims, put to the test."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from .. import recipes
from ..errors import MinifcnError
from ..experiments import EXPERIMENTS, Experiment, Result, conduct, write_document
from ..experiments.document import cell
from ..experiments.experiment import TRAINING
from .console import add_threads, console
from .train import add_training_settings

HELP = "repeat an experiment of the paper, with a figure, a table and what came out"
OWN = ("stage_rate", "staged_only", "pretrain_epochs")  # settings of experiments that no training has


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", choices=tuple(EXPERIMENTS), metavar="NAME", help=", ".join(EXPERIMENTS))
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--quick", action="store_true", help="in seconds: to see that it runs, not what comes out")
    parser.add_argument("--seeds", type=int, metavar="N", help="repeat with N seeds, --seed and the following")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/experiments"), metavar="DIR", help="folder of the record and the figure"
    )
    parser.add_argument("--as", dest="record", metavar="RECORD", help="name of both (default: the experiment's)")
    parser.add_argument(
        "--runs", type=Path, metavar="DIR", help="folder of training runs; those in it go on (default: OUT/RECORD)"
    )
    parser.add_argument("--table", type=Path, metavar="PAGE.md", help="write the page of all records beside it")
    parser.add_argument(
        "--from", dest="sources", nargs="+", type=Path, default=[], metavar="DIR", help="--table: and those in DIR"
    )
    own = parser.add_argument_group("settings of single experiments")
    own.add_argument(
        "--stage-rate", type=float, default=argparse.SUPPRESS, help="skips: multiplies the rate at every stage"
    )
    own.add_argument(
        "--staged-only",
        action="store_true",
        default=argparse.SUPPRESS,
        help="skips: leave out the nets that are trained in one go",
    )
    own.add_argument(
        "--pretrain-epochs", type=int, default=argparse.SUPPRESS, help="trunk: epochs of the classifier of shapes"
    )
    training = parser.add_argument_group("settings of trainings, as of `minifcn train`")
    add_training_settings(training, TRAINING)
    training.add_argument("--recipe", type=Path, metavar="FILE", help="settings from this file; options count over it")
    add_threads(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a list, write a page, or conduct one experiment."""
    if arguments.list:
        _print_list()
        return 0
    if arguments.table:
        names = write_document(arguments.table, arguments.sources, EXPERIMENTS)
        console.print(f"{arguments.table}: {len(names)} results ({', '.join(names)})")
        return 0
    if arguments.sources:
        raise MinifcnError("--from names what --table PAGE.md is to be written from")
    if arguments.name is None:
        raise MinifcnError(f"say which experiment: {', '.join(EXPERIMENTS)}; or --list, or --table PAGE.md")
    chosen, record = EXPERIMENTS[arguments.name], arguments.record or arguments.name
    folder = arguments.runs or arguments.out / record
    plan = chosen.plan(_given(arguments), folder, arguments.quick, arguments.seeds, _say)
    result = conduct(chosen, plan)
    _print_result(chosen, result)
    for path in result.write(arguments.out, record):
        console.print(str(path), soft_wrap=True)
    return 0


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings on the command line, over those of a recipe."""
    given = {name: getattr(arguments, name) for name in (*TRAINING, *OWN) if hasattr(arguments, name)}
    return (recipes.load(arguments.recipe).settings if arguments.recipe else {}) | given


def _say(text: str) -> None:
    console.print(f"  {escape(text)}", soft_wrap=True)


def _print_list() -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("experiment", "what it tests", "time", "settings"):
        table.add_column(title)
    for one in EXPERIMENTS.values():
        trains = "those of minifcn train" if "epochs" in one.accepts else ", ".join(one.accepts)
        table.add_row(one.name, one.title, one.budget, trains or "-")
    console.print(table)


def _print_result(chosen: Experiment, result: Result) -> None:
    console.print(f"\n[bold]{chosen.title}[/]\n\nThe paper: {escape(chosen.paper)}\n", soft_wrap=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, kind in result.columns.items():
        table.add_column(title, justify="left" if kind == "s" else "right")
    for row in result.rows:
        table.add_row(*(cell(row.get(title), kind) for title, kind in result.columns.items()))
    console.print(table)
    agrees = "[green]as in the paper[/]" if result.agrees else "[bold red]not as in the paper[/]"
    console.print(f"\nHere: {escape(result.measured)}\n\n{escape(result.summary)}: {agrees}\n", soft_wrap=False)
