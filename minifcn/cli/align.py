"""`minifcn align`: where every pixel of a network looks, and why its crops are what they are."""

from __future__ import annotations

import argparse
from fractions import Fraction
from typing import Any

from rich import box
from rich.table import Table

from ..alignment import Derivation, derive, ramp_errors
from ..files import write_json
from ..kernels.geometry import CoordinateMap
from ..models import BACKBONES, GEOMETRIES, MODELS, build
from .console import console, size

HELP = "derive a network's crop offsets step by step and measure its alignment"
SIZES = range(1, 1001)  # looked through for images that a network cannot take
TOLERANCE = 1e-9  # pixels: float64 rounding of coordinates below 10,000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", choices=MODELS, metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--backbone", choices=BACKBONES, default="small", help="default: small")
    parser.add_argument("--geometry", choices=GEOMETRIES, default="exact", help="default: exact")
    parser.add_argument("--size", type=size, default=(375, 500), metavar="HxW", help="image size (default: 375x500)")
    parser.add_argument("--json", metavar="FILE", help="write everything to FILE as well")


def run(arguments: argparse.Namespace) -> int:
    """Print the derivation and the measurement; 1 if the network is out of alignment."""
    model = build(
        arguments.model,
        backbone=arguments.backbone,
        geometry=arguments.geometry,
        classes=2,
        width=1e-3,  # one channel a layer: no channel has a say in where things lie
    )
    derivation = derive(model)
    console.print(
        f"[bold]{arguments.model}[/], backbone {arguments.backbone}, geometry {arguments.geometry}, "
        f"image {_times(arguments.size)}"
    )
    _print_steps(derivation, arguments.size)
    _print_crops(derivation, arguments.size)
    infeasible = {"ceil": derivation.infeasible(SIZES), "floor": derivation.infeasible(SIZES, ceil_mode=False)}
    _print_feasible(infeasible)
    errors = ramp_errors(model, arguments.size)
    aligned = all(error <= TOLERANCE for error in errors.values())
    _print_ramp(errors, aligned)
    if arguments.json:
        write_json(arguments.json, _as_json(arguments, derivation, infeasible, errors))
    return 0 if aligned else 1


# --- words -------------------------------------------------------------------------------------------------------


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _formula(map: CoordinateMap) -> str:
    """A map as one writes it: x/32 + 167/64."""
    a, b = map.scale, map.shift
    slope = "x" if a == 1 else f"{a}x" if a.denominator == 1 else f"x/{a.denominator}"
    return slope if b == 0 else f"{slope} {'-' if b < 0 else '+'} {abs(b)}"


def _pixels(shift: Fraction | int) -> str:
    return f"{float(shift):+g}" if shift else "0"


def _title(title: str) -> None:
    console.print(f"\n[bold]{title}[/]\n")


def _table(*columns: str, left: int = 1) -> Table:
    """A table without rows; the first `left` columns are flush left."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", no_wrap=True)
    return table


def _print(table: Table) -> None:
    """Print at its natural width, whatever the terminal's: a number cut off is wrong."""
    table.width = console.measure(table, options=console.options.update_width(200)).maximum
    console.print(table)


# --- sections ----------------------------------------------------------------------------------------------------


def _print_steps(derivation: Derivation, size: tuple[int, int]) -> None:
    H, W = (derivation.sizes(length) for length in size)
    _title("1. The coordinate map")
    console.print(
        "A layer with window R, stride s and padding p, whose output u is centred on its input x, is the map\n"
        "  u = x/s + (p - (R-1)/2)/s   convolution, pooling\n"
        "  u = s x + (R-1)/2 - p       upsampling (the inverse relation)\n"
        "One after the other they say where an output lies for a pixel x of the image:\n"
    )
    table = _table("layer", "reads", "R", "s", "p", "its map", "from the image", "size", left=2)
    for step in derivation.steps:
        window = (str(step.window), str(step.stride), str(step.padding))
        out = _times((H[step.layer], W[step.layer]))
        table.add_row(step.layer, step.source, *window, _formula(step.own), _formula(step.total), out)
    _print(table)
    if len(derivation.crops) > 1:
        console.print("\nA sum of two maps is called by the one that is not cropped.")


def _print_crops(derivation: Derivation, size: tuple[int, int]) -> None:
    H, W = (derivation.sizes(length) for length in size)
    _title("2. The crops: offset = difference of the two maps")
    table = _table("crop", "to", "maps", "offset", left=3)
    for crop in derivation.crops:
        maps = f"({_formula(crop.total)}) - ({_formula(crop.reference_total)})"
        table.add_row(crop.layer, crop.reference, maps, str(crop.offset))
    _print(table)

    _title(f"3. What a centred crop would do at {_times(size)}")
    table = _table("crop", "surplus", "it drops", "right is", "off by, image px")
    wrong = False
    for crop in derivation.crops:
        surplus = (crop.surplus(H), crop.surplus(W))
        shifts = (crop.centred_shift(H), crop.centred_shift(W))
        wrong |= any(shifts)
        table.add_row(
            crop.layer,
            f"{surplus[0]}, {surplus[1]}",
            f"{surplus[0] // 2}, {surplus[1] // 2}",
            str(crop.offset),
            f"{_pixels(shifts[0])}, {_pixels(shifts[1])}",
        )
    _print(table)
    console.print(
        "\nRows, columns. Off by: how far below and right of its place (-: above, left) a score would be read.\n"
        "An offset is the same for every image. The surplus is not, because sizes are rounded up, so that the\n"
        f"middle is the right place at some sizes only{': not at this one' if wrong else ', this one among them'}."
    )


def _print_feasible(infeasible: dict[str, list[int]]) -> None:
    _title("4. Image sizes that fit")
    for name, what in (("ceil", "With ceil pooling, as built"), ("floor", "If pooling dropped incomplete windows")):
        bad = infeasible[name]
        listed = ", ".join(str(size) for size in bad[:8]) + (", ..." if len(bad) > 8 else "")
        console.print(
            f"  {what}: "
            + (
                f"{len(bad)} of {SIZES[0]}..{SIZES[-1]} do not fit ({listed})"
                if bad
                else f"all of {SIZES[0]}..{SIZES[-1]}"
            )
        )


def _print_ramp(errors: dict[str, float], aligned: bool) -> None:
    _title("5. Measured: a picture of coordinates through the network")
    table = _table("scores of", "largest error, image px")
    for score, error in errors.items():
        table.add_row(score, f"{error:.3g}")
    _print(table)
    console.print()
    if aligned:
        console.print("[green]Aligned[/]: every score comes out at the pixel that it was computed for.")
    else:
        console.print("[red]Out of alignment[/]: scores come out at other pixels than they were computed for.")


def _as_json(
    arguments: argparse.Namespace,
    derivation: Derivation,
    infeasible: dict[str, list[int]],
    errors: dict[str, float],
) -> dict[str, Any]:
    H, W = (derivation.sizes(length) for length in arguments.size)

    def affine(map: CoordinateMap) -> dict[str, str]:
        return {"scale": str(map.scale), "shift": str(map.shift)}

    return {
        "model": arguments.model,
        "backbone": arguments.backbone,
        "geometry": arguments.geometry,
        "size": list(arguments.size),
        "steps": [
            {
                "layer": step.layer,
                "source": step.source,
                "kind": step.kind,
                "window": step.window,
                "stride": step.stride,
                "padding": step.padding,
                "own": affine(step.own),
                "total": affine(step.total),
                "size": [H[step.layer], W[step.layer]],
            }
            for step in derivation.steps
        ],
        "crops": [
            {
                "layer": crop.layer,
                "reference": crop.reference,
                "offset": crop.offset,
                "surplus": [crop.surplus(H), crop.surplus(W)],
                "centred_shift_px": [float(crop.centred_shift(H)), float(crop.centred_shift(W))],
            }
            for crop in derivation.crops
        ],
        "sizes_looked_at": [SIZES[0], SIZES[-1]],
        "infeasible": infeasible,
        "ramp_error_px": errors,
    }
