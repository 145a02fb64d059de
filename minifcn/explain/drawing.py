"""The windows of an op as SVG: the large plane with one window on it, and the elements of the small plane it is for."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from .examples import Drawing, Window
from .terms import Index, number
from .worked import Worked

CELL = 44
GAP = 56  # between the two planes, with the arrow
TITLE = 26


def figures(worked: Worked) -> list[str]:
    """One picture for each window of the example; none for ops without windows."""
    drawing = worked.example.drawing
    return [_figure(worked, drawing, window) for window in drawing.windows] if drawing else []


def _values(worked: Worked, name: str) -> dict[Index, float]:
    """The numbers of a plane by their place: of the output, by hand, or of an input."""
    example = worked.example
    if name == example.output:
        return {row.by_hand.index[2:]: row.by_hand.value for row in worked.outputs}
    return {index: float(value) for index, value in np.ndenumerate(example.inputs[name][0, 0])}


def _weights(worked: Worked, drawing: Drawing, window: Window) -> dict[Index, str]:
    """What stands beside the small plane's element (or beside the large one's), for each place of the large plane."""
    example = worked.example
    forward = drawing.small == example.output
    found: dict[Index, str] = {}
    name = drawing.large if forward else drawing.small
    for share in example.shares:
        source, out = share.of[1][2:], share.out[2:]
        small, large = (out, source) if forward else (source, out)
        if share.of[0] == name and small in window.cells:
            factors = share.factors
            product = number(math.prod(factor.value for factor in factors)) if factors else ""
            found[large] = factors[0].shown if len(factors) == 1 else product
    return found


def _figure(worked: Worked, drawing: Drawing, window: Window) -> str:
    large, small = _values(worked, drawing.large), _values(worked, drawing.small)
    weights = _weights(worked, drawing, window)
    # the same frame for every window, so that the pictures of a row line up
    tops, lefts = [0, *(w.top for w in drawing.windows)], [0, *(w.left for w in drawing.windows)]
    height = max(1 + max(i for i, _ in large), *(w.top + w.height for w in drawing.windows)) - min(tops)
    width = max(1 + max(j for _, j in large), *(w.left + w.width for w in drawing.windows)) - min(lefts)
    small_height, small_width = 1 + max(i for i, _ in small), 1 + max(j for _, j in small)
    origin = (-min(tops), -min(lefts))

    shapes = [_caption(drawing.large, 0)]
    for i in range(height):
        for j in range(width):
            place = (i - origin[0], j - origin[1])
            inside = place in large
            used = place in weights
            kind = "cell used" if used else "cell" if inside else "cell outside"
            shapes.append(_cell(j * CELL, TITLE + i * CELL, kind, large.get(place), weights.get(place, "")))
            if used and worked.example.kind == "piecewise":
                shapes.append(_ring(j * CELL, TITLE + i * CELL))
    shapes.append(
        f"<rect class='window' x='{(window.left + origin[1]) * CELL}' y='{TITLE + (window.top + origin[0]) * CELL}' "
        f"width='{window.width * CELL}' height='{window.height * CELL}'/>"
    )
    x0 = width * CELL + GAP
    y0 = TITLE + max(0, (height - small_height) * CELL // 2)
    shapes.append(_arrow(width * CELL + 12, TITLE + height * CELL / 2, drawing.small != worked.example.output))
    shapes.append(_caption(drawing.small, x0, y0 - 10))
    for place, value in small.items():
        kind = "cell chosen" if place in window.cells else "cell"
        shapes.append(_cell(x0 + place[1] * CELL, y0 + place[0] * CELL, kind, value))
    total_width, total_height = x0 + small_width * CELL, TITLE + max(height, small_height) * CELL
    of = f"{drawing.small}[{','.join(map(str, window.cells[0]))}]" if len(window.cells) == 1 else drawing.small
    return (
        f"<svg viewBox='-2 -2 {total_width + 4} {total_height + 4}' width='{total_width + 4}' "
        f"height='{total_height + 4}' role='img' aria-label='{escape(f'the window of {of}')}'>{''.join(shapes)}</svg>"
    )


def _caption(name: str, x: float, y: float = TITLE - 10) -> str:
    return f"<text class='name' x='{x}' y='{y}'>{escape(name)}</text>"


def _cell(x: float, y: float, kind: str, value: float | None, weight: str = "") -> str:
    parts = [f"<rect class='{kind}' x='{x}' y='{y}' width='{CELL}' height='{CELL}'/>"]
    if value is not None:
        parts.append(f"<text class='value' x='{x + CELL / 2}' y='{y + CELL / 2 + 3}'>{_minus(number(value))}</text>")
    if weight and value is not None:
        size = " small" if len(weight) > 4 else ""
        shown = _minus(escape(weight))
        parts.append(f"<text class='weight{size}' x='{x + CELL - 4}' y='{y + CELL - 5}'>{shown}</text>")
    return "".join(parts)


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _ring(x: float, y: float) -> str:
    return f"<circle class='ring' cx='{x + CELL / 2}' cy='{y + CELL / 2}' r='{CELL * 0.36}'/>"


def _arrow(x: float, y: float, leftwards: bool) -> str:
    """From the input to the output: to the right where the large plane is the input."""
    length = GAP - 24
    tip, back, step = (x, x + length, 7) if leftwards else (x + length, x, -7)
    return (
        f"<path class='arrow' d='M {back} {y} L {tip} {y} M {tip + step} {y - 5} L {tip} {y} L {tip + step} {y + 5}'/>"
    )
