"""What all commands share: the console, progress bars and tables, the options of the kernels."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .. import planner, tiling
from ..device import known_devices
from ..errors import MinifcnError
from ..kernels.settings import POLICIES, PRECISIONS, RUNGS, SettingError, settings
from ..metrics import Scores
from ..models import FCN
from ..nn import Module

if TYPE_CHECKING:
    from ..ledger import Line
    from ..tasks import Task

# A file or a pipe has no width of its own; tables should not break there at 80 columns.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)


def progress_bar(*columns: Any) -> Progress:
    """A live bar on a terminal, and nothing at all in a log file."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def tracked(items: Iterable[Any], total: int, description: str) -> Iterable[Any]:
    """`items`, with a progress bar while they are used."""
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=description)


def number_list(kind: type) -> Callable[[str], tuple]:
    """A type for argparse: numbers between commas, or sizes as in 96x128."""

    def parse(text: str) -> tuple:
        return tuple(kind(part) for part in text.replace("x", ",").split(","))

    parse.__name__ = f"list of {kind.__name__}s"  # argparse quotes it
    return parse


def size(text: str) -> tuple[int, int]:
    """(H, W) of "HxW"."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} must be HxW, two integers of at least 1, as in 375x500")
    return (int(parts[0]), int(parts[1]))


UNITS = {"": 0, "K": 10, "M": 20, "G": 30}


def byte_count(text: str) -> int:
    """Bytes of "1500M", "8G" or "8GiB": powers of 1024."""
    number, unit = text.upper().removesuffix("IB").removesuffix("B"), ""
    if number[-1:] in ("K", "M", "G"):
        number, unit = number[:-1], number[-1]
    try:
        count = float(number) * 2 ** UNITS[unit]
    except ValueError:
        count = 0
    if not 0 < count < 2**60:
        raise argparse.ArgumentTypeError(f"{text!r} must be a size of memory, as in 1500M or 8G")
    return int(count)


def tile_or_auto(text: str) -> tuple[int, int] | str:
    """(H, W) of "HxW", or "auto"."""
    return text if text == "auto" else size(text)


def add_tile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tile", type=tile_or_auto, metavar="HxW|auto", help="label in tiles, multiples of 32; auto: as memory allows"
    )


def chosen_tile(network: Module, wanted: tuple[int, int] | str | None) -> tuple[int, int] | None:
    """What --tile says: None for whole images; "auto" is the largest tile that half the available memory holds."""
    if wanted is None:
        return None
    if not isinstance(network, FCN):
        raise MinifcnError("--tile is for networks that label pixels, and this one is a classifier")
    if wanted == "auto":
        return planner.fitting_tile(network, planner.available() // 2)
    return tiling.checked(network, wanted)


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device, and the settings of the kernels."""
    parser.add_argument("--device", default="cpu", help=f"where to compute: {', '.join(known_devices())}")
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """--threads, --convolution and --precision."""
    add_threads(parser)
    known = ", ".join(POLICIES + RUNGS)
    parser.add_argument("--convolution", metavar="NAME", help=f"algorithm of convolutions: {known} (default: fastest)")
    known = ", ".join(PRECISIONS)
    parser.add_argument("--precision", metavar="NAME", help=f"of products of float32: {known} (default: float32)")


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", help="processor threads of the kernels (default: all cores)")


@contextmanager
def chosen_settings(arguments: argparse.Namespace) -> Iterator[None]:
    """Run with the settings that the command line names."""
    given = {name: getattr(arguments, name, None) for name in settings.NAMES}
    with ExitStack() as stack:
        try:
            stack.enter_context(settings.using(**{name: value for name, value in given.items() if value is not None}))
        except SettingError as error:
            raise MinifcnError(f"--{error}") from error
        yield


def scores_table(scores: Scores, classes: Iterable[str], share: Iterable[float]) -> Table:
    """Accuracy and IU of each class, with its share of the labelled pixels."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class")
    for title in ("share", "accuracy", "IU"):
        table.add_column(title, justify="right")
    for name, part, accuracy, iu in zip(classes, share, scores.accuracy, scores.iu, strict=True):
        table.add_row(name, f"{part:.3f}", number(accuracy), number(iu))
    return table


def print_lines(lines: Iterable[Line]) -> None:
    """Findings of the ledger, marked as right, worth a look, or for information."""
    for line in lines:
        mark = {True: "[green]ok[/green]  ", False: "[bold red]look[/bold red]", None: "    "}[line.ok]
        console.print(f"  {mark}  {line.topic + ':':13} {escape(line.text)}")


def number(value: float) -> str:
    """Four digits, or a dash where the score is not defined."""
    return "-" if value != value else f"{value:.4f}"


def print_scores(scores: Scores, task: Task) -> None:
    """The scores of the task, one a line, for eyes and scripts alike."""
    for column, name in task.columns:
        print(f"{column.replace('_', ' ').replace(' iu', ' IU')} {number(getattr(scores, name))}")
