"""`minifcn convert`: net surgery, from another framework's weight file to a checkpoint of ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from ..errors import MinifcnError
from ..files import write_json
from ..models import BACKBONES, DECONVS, GEOMETRIES, NETWORKS
from ..weights import Conversion, Entry, convert
from ..weights.conversion import CHOICES
from ..weights.fitting import times
from ..weights.formats import KNOWN
from .console import console, number_list

HELP = "make a network from another framework's weights: a classifier becomes an FCN, tensor by tensor"
_SETTINGS = ("fc", "width", "input_size", "dropout", "geometry", "deconv")
_OF_FCNS = ("geometry", "deconv")


def _target(text: str) -> tuple[str, str]:
    """(model, backbone) of "fcn8s-vgg16"."""
    model, _, backbone = text.rpartition("-")
    if model not in NETWORKS or backbone not in BACKBONES:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be MODEL-BACKBONE, as in fcn8s-vgg16, with a model of {', '.join(NETWORKS)} and a backbone "
            f"of {', '.join(BACKBONES)}"
        )
    return model, backbone


def _classes(text: str) -> int | list[str]:
    """A number of classes, or their names."""
    return int(text) if text.isdecimal() else text.split(",")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", type=Path, help=f"weight file: {KNOWN}")
    parser.add_argument("--to", type=_target, required=True, metavar="MODEL-BACKBONE", help="as in fcn8s-vgg16")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="default: MODEL-BACKBONE.safetensors")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to FILE as well")

    network = parser.add_argument_group("the network")
    network.add_argument("--classes", type=_classes, default=21, metavar="N", help="number or NAME,NAME,... (21)")
    network.add_argument("--fc", type=int, metavar="N", help="channels of fc6 and fc7, new if the source has others")
    network.add_argument(
        "--replace", type=lambda text: text.split(","), default=[], metavar="LAYER,...", help="layers to start anew"
    )
    network.add_argument("--width", type=float, help="multiplies all channel numbers (1)")
    network.add_argument("--input-size", type=int, metavar="N", help="rows of a classifier's images (the backbone's)")
    network.add_argument("--geometry", choices=GEOMETRIES, help="default: exact")
    network.add_argument("--deconv", choices=DECONVS, help="default: fixed")
    network.add_argument("--dropout", type=float, metavar="P", help="probability after fc6 and fc7 (0.5)")
    network.add_argument("--seed", type=int, default=0, help="of new layers (0)")

    convention = parser.add_argument_group("the source, where neither its format nor its names say")
    convention.add_argument("--colors", choices=CHOICES["colors"], help="order of the first layer's input channels")
    convention.add_argument("--mean", type=number_list(float), metavar="R,G,B", help="what it subtracts from 0 .. 255")
    convention.add_argument("--std", type=number_list(float), metavar="R,G,B", help="what it then divides by")
    convention.add_argument("--layout", choices=CHOICES["layout"], help="of convolutions")
    convention.add_argument("--flatten", choices=CHOICES["flatten"], help="order of a flattened map")


def run(arguments: argparse.Namespace) -> int:
    model, backbone = arguments.to
    out = arguments.out or Path(f"{model}-{backbone}.safetensors")
    if out.exists():
        raise MinifcnError(f"{out} exists already: remove it, or name another file by --out")
    given = {name: getattr(arguments, name) for name in _SETTINGS if getattr(arguments, name) is not None}
    if model == "classifier" and (odd := [f"--{name}" for name in _OF_FCNS if name in given]):
        raise MinifcnError(f"{', '.join(odd)}: a classifier has none")
    convention = {name: getattr(arguments, name) for name in ("layout", "flatten", "colors", "mean", "std")}
    conversion = convert(
        arguments.source,
        model,
        backbone,
        classes=arguments.classes,
        replace=arguments.replace,
        seed=arguments.seed,
        **convention,
        **given,
    )
    conversion.save(out)
    _report(conversion, out)
    if arguments.json:
        write_json(arguments.json, conversion.as_dict())
    return 0


def _report(conversion: Conversion, out: Path) -> None:
    """What went where, what is new, and what the network takes."""
    known = conversion.convention
    console.print(f"{conversion.source}: {conversion.format}, named as {conversion.scheme}", markup=False)
    console.print(
        f"its network: weights {known.layout}, maps flattened {known.flatten}, inputs {known.colors.upper()} minus "
        f"{_numbers(known.mean)}, divided by {_numbers(known.std)} (R,G,B in 0 .. 255)\n"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("source", "shape", "target", "shape", "what was done"):
        table.add_column(title)
    for entry in conversion.entries:
        table.add_row(*(escape(text) for text in _row(entry)))
    console.print(table)
    count = sum(parameter.size for parameter in conversion.network.parameters())
    console.print(f"\nnew, to be trained: {', '.join(conversion.new_layers) or 'nothing'}")
    console.print(f"written to {out}: {count:,} parameters; inputs R,G,B minus {_numbers(known.mean)}", markup=False)


def _row(entry: Entry) -> tuple[str, ...]:
    return (
        entry.source or "-",
        times(entry.shape),
        entry.target or "-",
        times(entry.target_shape),
        entry.how,
    )


def _numbers(values: tuple[float, ...]) -> str:
    """One number if all are the same."""
    return ", ".join(f"{value:.6g}" for value in (values if len(set(values)) > 1 else values[:1]))
