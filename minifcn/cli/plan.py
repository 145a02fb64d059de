"""`minifcn plan`: how much memory training or labelling will need, and what would fit."""

from __future__ import annotations

import argparse
from typing import Any

from rich.table import Table

from .. import optim, planner
from ..errors import MinifcnError
from ..models import BACKBONES, DECONVS, FCN, GEOMETRIES, MODELS
from ..planner import Plan, readable
from ..receptive import stride
from .console import add_settings, byte_count, console, size

HELP = "say beforehand what a training step or a prediction needs of memory, and what would fit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=MODELS, default="fcn8s", help="default: fcn8s")
    parser.add_argument("--backbone", choices=BACKBONES, default="small", help="default: small")
    parser.add_argument("--geometry", choices=GEOMETRIES, default="exact", help="default: exact")
    parser.add_argument("--deconv", choices=DECONVS, default="fixed", help="default: fixed")
    parser.add_argument("--width", type=float, default=1.0, help="multiplies all channel numbers (1)")
    parser.add_argument("--fc", type=int, metavar="K", help="channels of fc6 and fc7 (default: the backbone's)")
    parser.add_argument("--classes", type=int, default=21, help="default: 21")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="default: float32")
    parser.add_argument("--size", type=size, default=(375, 500), metavar="HxW", help="image size (375x500)")
    parser.add_argument("--batch", type=int, default=1, help="images a step, or labelled together (1)")
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--train", dest="training", action="store_true", default=True, help="a training step (default)")
    task.add_argument("--predict", dest="training", action="store_false", help="from an image to its labels")
    parser.add_argument("--optimizer", choices=optim.OPTIMIZERS, default="sgd", help="default: sgd")
    parser.add_argument("--no-ledger", action="store_true", help="without the sanity checks before the first step")
    parser.add_argument("--memory", type=byte_count, metavar="8G", help="what may be used (default: what is available)")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; 1 if it does not fit."""
    names = ("model", "backbone", "geometry", "deconv", "width", "fc", "classes", "dtype")
    network = planner.without_values({name: getattr(arguments, name) for name in names})
    limit = planner.available() if arguments.memory is None else arguments.memory

    def plan(size: tuple[int, int] = arguments.size, batch: int = arguments.batch) -> Plan:
        if arguments.training:
            optimizer, ledger = optim.kind(arguments.optimizer), not arguments.no_ledger
            return planner.training(network, size, batch, optimizer, ledger=ledger)
        return planner.prediction(network, size, batch)

    found = plan()
    height, width = arguments.size
    what = "training step" if arguments.training else "prediction"
    console.print(
        f"[bold]{arguments.model}[/] over {arguments.backbone}, a {what} of {arguments.batch} x {height}x{width} in "
        f"{arguments.dtype}"
    )
    _print_plan(found)
    fits = found.total <= limit
    console.print(
        f"\n[bold]{readable(found.total)}[/] at most, of {readable(limit)}: "
        + ("[green]fits[/]" if fits else "[red]does not fit[/]")
    )
    _print_what_fits(arguments, network, plan, limit)
    return 0 if fits else 1


def _print_plan(plan: Plan) -> None:
    for title, rows in (("for", plan.parts), ("phase", plan.phases)):
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(title)
        table.add_column("memory", justify="right")
        for name, count in rows.items():
            table.add_row(name, readable(count))
        console.print(table)


def _print_what_fits(arguments: argparse.Namespace, network: FCN, plan: Any, limit: int) -> None:
    """The largest batch, the largest image of the same shape, and for a prediction the largest tile."""
    (height, width), step = arguments.size, stride(network)

    def scaled(steps: int) -> tuple[int, int]:
        """An image of the same shape that is `steps` strides wide."""
        return max(1, round(step * steps * height / width)), step * steps

    batch = planner.largest(lambda count: plan(batch=count).total <= limit, 1 << 10)
    image = planner.largest(lambda steps: plan(size=scaled(steps)).total <= limit, 1 << 10)
    console.print(f"would fit: {batch} of {height}x{width}" if batch else "would fit: not even a batch of one")
    if image:
        console.print(f"would fit: {arguments.batch} of {'x'.join(map(str, scaled(image)))}")
    if not arguments.training:
        try:
            tile = "x".join(map(str, planner.fitting_tile(network, limit)))
            console.print(f"would fit: any image in tiles of {tile}")
        except MinifcnError as error:
            console.print(str(error))
