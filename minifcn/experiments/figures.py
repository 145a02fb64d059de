"""What the figures of experiments share: bars with a dot a seed, lines, and pictures side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..viz import BLUE, GREEN, GRID, INK, MUTED, ORANGE

COLOURS = (BLUE, ORANGE, GREEN, "#8b4fa6", "#b03a48", MUTED)


def style(axes: Any, title: str = "", x: str = "", y: str = "") -> None:
    """The look of all axes: no frame but the lower line, a light grid."""
    axes.set_title(title, loc="left", color=INK, fontsize=11, fontweight="bold", pad=10)
    axes.set_xlabel(x, color=MUTED)
    axes.set_ylabel(y, color=MUTED)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(length=0, labelcolor=MUTED)


def bars(
    axes: Any, groups: dict[str, Sequence[float]], title: str, x: str, write: Callable[[float], str] = "{:.3f}".format
) -> None:
    """A bar a group for the mean of its values, and a dot for each value where there are several."""
    means = [float(np.mean(values)) for values in groups.values()]
    highest = max(max(values) for values in groups.values())
    places = range(len(groups))
    axes.barh(places, means, 0.6, color=[COLOURS[i % len(COLOURS)] for i in places], alpha=0.85)
    for place, (values, mean) in enumerate(zip(groups.values(), means, strict=True)):
        if len(values) > 1:
            axes.scatter(values, [place] * len(values), s=14, color=INK, zorder=3)
        end = max(mean, *values) if len(values) > 1 else mean
        axes.text(end + 0.02 * highest, place, write(mean), va="center", color=INK, fontsize=9)
    axes.set_yticks(list(places), list(groups))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * highest or 1)
    style(axes, title, x)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelcolor=INK)


def lines(axes: Any, series: dict[str, tuple[Sequence[float], Sequence[float]]], title: str, x: str, y: str) -> None:
    """A line {name: (x, y)} each, with a dot at every point; x is marked at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    for (name, (places, values)), colour in zip(series.items(), COLOURS * len(series), strict=False):
        axes.plot(places, values, color=colour, lw=1.8, marker="o", ms=3.5, label=name)
    style(axes, title, x, y)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def picture(axes: Any, pixels: np.ndarray, title: str) -> None:
    """A picture uint8 [H, W, 3] under its title."""
    axes.imshow(pixels, interpolation="nearest")
    axes.set_title(title, loc="left", color=INK, fontsize=9, pad=4)
    axes.set_axis_off()
