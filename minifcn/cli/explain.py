"""`minifcn explain`: an op's derivation, then a tiny example worked term by term."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..device import known_devices
from ..files import write_text

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console, RenderableType
    from rich.table import Table

    from ..explain import Derivation, Worked
    from ..explain.worked import Row

HELP = "derive an op's gradients and work a tiny example by hand, by kernel and by finite differences"
WIDTH = 120  # columns: the derivations are written for them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("op", nargs="?", metavar="OP", help="an op of minifcn.ops; without it, all are listed")
    parser.add_argument("--device", default="cpu", help=f"whose kernels to compare with: {', '.join(known_devices())}")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with typeset formulas and pictures")


def run(arguments: argparse.Namespace) -> int:
    """Explain the op; 1 if by hand, kernel and difference do not agree."""
    from rich.console import Console

    from ..explain import EXAMPLES, derivation, page, work

    console = Console(highlight=False, soft_wrap=True, emoji=False)
    console.width = max(console.width, WIDTH)
    if arguments.op is None:
        _list_ops(console)
        return 0
    text = derivation(arguments.op)
    worked = work(EXAMPLES[arguments.op], arguments.device)
    _print_derivation(console, text)
    _print_example(console, worked)
    if arguments.html:
        write_text(arguments.html, page(text, worked))
        console.print(f"The page is {arguments.html}.", markup=False)
    return 0 if worked.agrees else 1


def _table(*columns: str) -> Table:
    """A table without lines; the first column is flush left."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < 2 else "right", no_wrap=True)
    return table


def _list_ops(console: Console) -> None:
    from ..explain.derivation import OPS, derivation

    width = max(map(len, OPS)) + 3
    for op in OPS:
        console.print(f"{op:{width}}{derivation(op).title}", markup=False)
    console.print("\nminifcn explain OP derives one of them.")


# --- derivation --------------------------------------------------------------------------------------------------


def _print_derivation(console: Console, text: Derivation) -> None:
    from ..explain.derivation import LEGEND

    console.print(f"[bold]{text.op}[/]   {text.title}\n")
    _paragraph(console, LEGEND)
    for name, section in text.sections.items():
        console.print(f"\n[bold]{name}[/]\n")
        for line in section.splitlines():
            console.print(f"    {line}" if line else "", markup=False)


# --- example -----------------------------------------------------------------------------------------------------


def _print_example(console: Console, worked: Worked) -> None:
    from ..explain.worked import conclusion, explanation

    example = worked.example
    upstream = f"d{example.output}"
    console.print("\n[bold]A worked example[/]\n")
    console.print(f"    {example.output} = {example.call}\n", markup=False)
    console.print(_grids(example.given))
    console.print()
    for note in example.notes:
        _paragraph(console, f"- {note}")

    console.print(f"\n[bold]Forward: {example.output}, term by term[/]\n")
    for step in example.steps:
        console.print(f"    {step}", markup=False)
    if example.steps:
        console.print()
    console.print(_rows(worked, worked.outputs))

    console.print(f"\n[bold]Backward: {upstream} is given[/]\n")
    console.print(_grids({upstream: example.dy}))
    console.print()
    for line in explanation(worked):
        _paragraph(console, f"- {line}")
    for name, rows in worked.gradients.items():
        console.print(f"\n[bold]d{name}[/]\n")
        console.print(_rows(worked, rows))
    console.print(f"\n{conclusion(worked)}", style="green" if worked.agrees else "bold red", markup=False)


def _paragraph(console: Console, text: str) -> None:
    import textwrap

    for line in textwrap.wrap(text, WIDTH - 4, subsequent_indent="  " if text.startswith("- ") else ""):
        console.print(f"    {line}", markup=False)


def _grids(arrays: dict[str, np.ndarray]) -> RenderableType:
    """Small arrays side by side, each plane under its name."""
    from rich.padding import Padding
    from rich.table import Table

    from ..explain.terms import planes

    row = Table.grid(padding=(0, 5, 0, 0))
    blocks = []
    for title, cells in (plane for name, array in arrays.items() for plane in planes(name, array)):
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in cells]
        row.add_column(no_wrap=True)
        blocks.append("\n".join([f"[cyan]{title.replace('[', chr(92) + '[')} =[/]", *lines]))
    row.add_row(*blocks)
    return Padding(row, (0, 0, 0, 4), expand=False)


def _rows(worked: Worked, rows: list[Row]) -> RenderableType:
    """The elements, each as the sum of its terms, its sum in numbers and what the others say."""
    from rich.padding import Padding
    from rich.text import Text

    from ..explain.terms import number

    has_slopes = rows[0].slopes is not None
    table = _table("", "", "by hand", f"kernel ({worked.device})", *(["difference"] if has_slopes else []))
    room = WIDTH - 62 if has_slopes else WIDTH - 47
    untouched = [row for row in rows if row.is_untouched]
    for row in rows:
        if row in untouched:
            continue
        total = row.by_hand
        lines = _wrapped(total.terms, room) if total.terms else [f"= 0, {worked.example.untouched}"]
        if total.numbers:
            lines += _wrapped(total.numbers, room)
            if total.numbers != (number(total.value),):
                lines[-1] += f" = {number(total.value)}"
        numbers = [number(total.value), number(row.kernel)] + ([row.slopes.text] if has_slopes else [])
        style = None if row.agrees else "bold red"
        table.add_row(Text(total.target, "cyan"), Text("\n".join(lines)), *map(Text, numbers), style=style)
    if untouched:
        names = f"{len(untouched)} others" if len(untouched) < len(rows) else "all"
        zeros = ["0"] * (3 if has_slopes else 2)
        table.add_row(Text(names, "cyan"), f"= 0, {worked.example.untouched}", *zeros)
    return Padding(table, (0, 0, 0, 4), expand=False)


def _wrapped(terms: tuple[str, ...], width: int) -> list[str]:
    """`terms` added up, broken between terms where a line would be longer than `width`."""
    lines, line = [], f"= {terms[0]}"
    for term in terms[1:]:
        if len(line) + len(term) + 3 > width:
            lines.append(line)
            line = f"  + {term}"
        else:
            line += " + " + term
    return [*lines, line]
