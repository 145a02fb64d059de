"""`minifcn bench`: kernels, layers, training steps and inference beside PyTorch; see `docs/benchmarks.md`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from .. import models
from ..bench import ceilings, compare, devices, layers, memory, networks, readme, record, rungs, tables, waterfall
from ..bench.convolutions import Setting
from ..bench.layers import Kernels
from ..bench.peer import BASELINES, Peer
from ..bench.rounds import Budget
from ..bench.work import OPS, Convolution, Network
from ..device import get_device, load_kernel
from ..errors import MinifcnError
from ..kernels import geometry
from ..kernels.settings import settings
from .console import add_device

# These tables are wide; a file or a pipe has room for them.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 210)
HELP = "measure kernels, layers, training steps and inference, proven right first, beside PyTorch"
# (rounds, seconds a contestant, seconds a row at most) of a command
BUDGETS = {
    "ladder": Budget(15, 0.5, 60),
    "layers": Budget(15, 0.5, 60),
    "step": Budget(25, 2, 300),
    "infer": Budget(25, 2, 300),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("OLD.json", "NEW.json"), help="what changed, row by row"
    )
    parser.add_argument("--anyway", action="store_true", help="--compare: other machines and precisions too")
    commands = parser.add_subparsers(dest="what", metavar="WHAT")
    ladder = commands.add_parser("ladder", help="every algorithm of an op, from NumPy to the fastest")
    ladder.add_argument("--op", choices=OPS, default=OPS[0], help=f"kernel (default: {OPS[0]})")
    ladder.add_argument(
        "--shape",
        action="append",
        metavar="NxCxHxW->K",
        help="size of the convolution, with k3 s1 p1 d1 g1 after it where they differ; repeatable (default: three)",
    )
    each = commands.add_parser("layers", help="every convolution of a network, all directions")
    step = commands.add_parser("step", help="a training step: forward, loss, backward, update")
    infer = commands.add_parser("infer", help="images to class labels, constant weights")
    for sub in (each, step, infer):
        _add_network(sub)
    for name, sub in (("ladder", ladder), ("layers", each), ("step", step), ("infer", infer)):
        _add_common(sub, BUDGETS[name])
    for sub in (step, infer):
        sub.add_argument("--no-memory", action="store_true", help="leave out the peak memory of fresh processes")
        sub.add_argument(
            "--graph",
            action=argparse.BooleanOptionalAction,
            help="ours replayed as one graph; never with --kernel (default: on cpu, as in training and prediction)",
        )
    stored = commands.add_parser("readme", help="rewrite tables between markers from stored records alone")
    stored.add_argument("--from", dest="records", nargs="+", type=Path, required=True, metavar="FILE.json")
    stored.add_argument("--readme", type=Path, default=Path("README.md"), help="with the markers (default: README.md)")


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="fcn8s", choices=tuple(models.MODELS), help="network (default: fcn8s)")
    trunks = tuple(name for name, backbone in models.BACKBONES.items() if backbone.skips)  # those that the peer knows
    parser.add_argument("--net", default="small", choices=trunks, help="its trunk (default: small)")
    parser.add_argument("--size", default="128", help="images: 128 or 180x240, height first (default: 128)")
    parser.add_argument("--batch", type=int, default=8, help="images a batch (default: 8)")
    parser.add_argument("--classes", type=int, default=12, help="classes (default: 12)")


def _add_common(parser: argparse.ArgumentParser, budget: Budget) -> None:
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"), help="default: float32")
    parser.add_argument(
        "--baseline",
        choices=tuple(BASELINES),
        help="beside PyTorch as it is; tuned to keep its memory and choose its algorithms; or its networks compiled",
    )
    parser.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="[NAME=]FILE.py:FUNCTION|FILE.cu",
        help="a kernel of yours: beside ours in ladder and layers, in the network in step and infer; repeatable",
    )
    parser.add_argument("--rounds", type=int, default=budget.rounds, help=f"rounds (default: {budget.rounds})")
    parser.add_argument(
        "--seconds", type=float, default=budget.seconds, help=f"seconds a contestant (default: {budget.seconds:g})"
    )
    parser.add_argument(
        "--limit", type=float, default=budget.limit, help=f"seconds a row at most (default: {budget.limit:g})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record, raw times included")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw it")
    parser.add_argument("--readme", type=Path, metavar="README.md", help="rewrite its table there; needs --json")
    parser.add_argument("--explain", action="store_true", help="say which algorithm was chosen, and every note")
    add_device(parser)


# --- what to measure ---


def _size(text: str) -> tuple[int, int]:
    """128 or 180x240, height first."""
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not found or not int(found[1]) or (found[2] and not int(found[2])):
        raise MinifcnError(f"--size (={text}) must be a size or HEIGHTxWIDTH, each at least 1")
    return int(found[1]), int(found[2] or found[1])


def _network(arguments: argparse.Namespace) -> Network:
    for name in ("batch", "classes"):
        if getattr(arguments, name) < 1:
            raise MinifcnError(f"--{name} (={getattr(arguments, name)}) must be at least 1")
    task = arguments.what if arguments.what != "layers" else "step"
    size, about = _size(arguments.size), (arguments.batch, arguments.classes, arguments.dtype)
    graph = arguments.what != "layers" and _replayed(arguments)
    return Network(task, arguments.model, arguments.net, size, *about, precision=settings.precision, graph=graph)


def _replayed(arguments: argparse.Namespace) -> bool:
    """Whether our side is replayed as one graph."""
    if arguments.graph is None:
        return arguments.device == "cpu" and not arguments.kernel
    if arguments.graph and arguments.kernel:
        raise MinifcnError("--graph cannot be combined with --kernel: nobody knows whether it only launches")
    if arguments.graph and not get_device(arguments.device).captures:
        raise MinifcnError(f"--graph needs a device that has graphs of launches, not {arguments.device}")
    return arguments.graph


SHAPES = ("1x64x56x56->64", "4x128x32x32->128", "1x256x28x28->256")
SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)x(\d+)->(\d+)((?:\s+[kspdg]\d+)*)")


def _works(arguments: argparse.Namespace) -> list[Convolution]:
    """The convolutions of --shape."""
    found = []
    for text in arguments.shape or SHAPES:
        match = SHAPE.fullmatch(text.strip())
        if not match:
            raise MinifcnError(f"--shape (={text!r}) must look like 4x64x32x32->64, with k3 s1 p1 d1 g1 after it")
        N, C, H, W, K = (int(match[i]) for i in range(1, 6))
        window = {"k": 3, "s": 1, "d": 1, "g": 1} | {word[0]: int(word[1:]) for word in match[6].split()}
        padding, groups = window.get("p", window["k"] // 2), window["g"]
        if groups < 1 or C % groups:
            raise MinifcnError(f"--shape (={text!r}): groups (={groups}) must divide the channels (={C})")
        w_shape = (K, C // groups, window["k"], window["k"])
        geo = geometry.conv2d((N, C, H, W), w_shape, window["s"], padding, window["d"], groups)
        work = layers.from_geometry(arguments.op, "", geo, arguments.dtype)
        found.append(replace(work, precision=settings.precision))
    return found


def _measure(arguments: argparse.Namespace, setting: Setting, kernels: Kernels) -> Iterator[dict[str, Any]]:
    """The rows of the command, one by one."""
    if arguments.what == "ladder":
        yield from layers.ladder(_works(arguments), setting, kernels)
    elif arguments.what == "layers":
        yield from layers.rows(_network(arguments), setting, kernels)
    else:
        yield _network_row(arguments, setting, dict(kernels))


def _network_row(arguments: argparse.Namespace, setting: Setting, kernels: dict[str, Callable]) -> dict[str, Any]:
    work = _network(arguments)
    row, row["truth"] = networks.row(work, setting, kernels)
    if row["gate"] != "ok":
        return row
    if arguments.what == "step":
        row["waterfall"] = waterfall.measure(work, setting.device, kernels)
    if not arguments.no_memory:
        row["memory"] = {"minifcn": memory.measure("minifcn", work, settings.threads, setting.device)}
        if row.get("baseline"):
            side, form = row["baseline"].split()
            row["memory"]["baseline"] = memory.measure(side, work, settings.threads, setting.device, form)
    return row


# --- how it is shown ---


def _columns(titles: Iterable[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, justify="left" if title in tables.LEFT else "right", overflow="fold")
    return table


def _styled(cells: Iterable[str]) -> list[str]:
    *others, verdict = (escape(cell) for cell in cells)
    style = tables.VERDICT_STYLE.get(verdict)
    return [*others, f"[{style}]{verdict}[/{style}]" if style else verdict]


def _watched(kind: str, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows; on a terminal they appear as they are measured; verdicts wait for the calibration."""
    table, found = _columns(tables.titles(kind)), []
    with Live(table, console=console, auto_refresh=False, transient=True, vertical_overflow="visible") as live:
        for row in rows:
            found.append(row)
            table.add_row(*_styled([*tables.cells(row)[:-1], row["verdict"] if row["gate"] == "WRONG" else "..."]))
            live.update(table, refresh=console.is_terminal)
        live.update("", refresh=console.is_terminal)
    return found


def _explain(rows: list[dict[str, Any]]) -> None:
    """One line a layer or shape: the algorithm, and every note on its rows."""
    print(f"\n{rungs.describe(rows[0]['device'])}")
    lines: dict[str, dict[str, None]] = {}  # an ordered set each
    for row in rows:
        line = lines.setdefault(f"{row['layer'] or row['shape']} {row['op']}", {})
        line[f"chosen {row.get('chosen', row['algorithm'])}"] = None
        line |= {f"{row['kernel']}: {note}": None for note in row["notes"]}
    for name, line in lines.items():
        print(f"{name}: {'; '.join(line)}")


def _run_measurement(arguments: argparse.Namespace) -> int:
    if arguments.readme and not arguments.json:
        raise MinifcnError("--readme rewrites its table from a stored record alone: add --json FILE")
    budget = Budget(arguments.rounds, arguments.seconds, arguments.limit)
    for name in ("rounds", "seconds", "limit"):
        if not getattr(budget, name) > 0:
            raise MinifcnError(f"--{name} (={getattr(budget, name)}) must be above 0")
    get_device(arguments.device)
    kernels = [load_kernel(text, arguments.device) for text in arguments.kernel]
    for name, _ in kernels:
        get_device(arguments.device).kernel(name)
    device = arguments.device
    found = record.start(["minifcn", *sys.argv[1:]], settings.threads, device) | {"kind": arguments.what}
    before = ceilings.measure(settings.threads, device)
    with ExitStack() as stack:
        peer = stack.enter_context(Peer(arguments.baseline, settings.threads, device)) if arguments.baseline else None
        if peer:
            found["versions"] |= peer.versions
        setting = Setting(device, budget, before, devices.cache_bytes(device), peer)
        found["settings"] = record.settings(
            budget, convolution=settings.convolution, precision=settings.precision, baseline=arguments.baseline
        )
        found["results"] = _watched(arguments.what, _measure(arguments, setting, kernels))
    record.finish(found, before, ceilings.measure(settings.threads, device))
    return _report(arguments, found)


def _report(arguments: argparse.Namespace, found: dict[str, Any]) -> int:
    """The table, sentences, notes, files; 1 where a kernel was wrong."""
    table = _columns(tables.titles(found["kind"]))
    for row in found["results"]:
        table.add_row(*_styled(tables.cells(row)))
    console.print(table)
    print()
    for line in tables.summary(found):
        print(line)
    wrong = [row for row in found["results"] if row["gate"] == "WRONG"]
    for row in wrong:
        print(f"WRONG: {row['layer'] or row['shape']} {row['op']} {row['kernel']}: {'; '.join(row['notes'])}")
    if arguments.what == "step" and "waterfall" in found["results"][0]:
        print("\n" + waterfall.text(found["results"][0]["waterfall"]))
    if arguments.explain:
        _explain(found["results"])
    if arguments.json:
        record.write(arguments.json, found)
    if arguments.plot:
        from ..bench import plots

        plots.draw(arguments.plot, found)
    if arguments.readme:
        readme.rewrite(arguments.readme, [arguments.json])
    return 1 if wrong else 0


def _compare(old: Path, new: Path, anyway: bool) -> int:
    table = _columns(tables.TITLES["compare"])
    rows = compare.rows(old, new, anyway)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row.cells()))
    console.print(table)
    return 1 if any(row.verdict == "SLOWER" for row in rows) else 0


def run(arguments: argparse.Namespace) -> int:
    if arguments.compare:
        return _compare(*arguments.compare, arguments.anyway)
    if arguments.what is None:
        raise MinifcnError(
            "say what to measure: ladder, layers, step or infer; or readme, or --compare OLD.json NEW.json"
        )
    if arguments.what == "readme":
        for line in readme.rewrite(arguments.readme, arguments.records):
            print(line)
        return 0
    return _run_measurement(arguments)
