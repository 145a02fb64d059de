"""Pictures of what a network looks at: which stream decided each pixel, and the receptive field of one.

PNG files, written whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .attribution import STREAMS, Attribution
from .kernels.geometry import Pair
from .viz import BLUE, GREEN, GRID, INK, MUTED, ORANGE, colorize, new_figure, overlay, save_figure

COLOURS = {"score_fr": BLUE, "score_pool4": ORANGE, "score_pool3": GREEN}
SEVERAL = "#7a3e9d"
WIDTH = 4.0  # inches of one panel


def _panel(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", color=INK, fontsize=10, pad=6)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _legend(axes: Any, entries: Sequence[tuple[str, Any]], columns: int, drop: float) -> None:
    """Patches below `axes`, `drop` of its height further down."""
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=colour, edgecolor=MUTED, linewidth=0.5, label=name) for name, colour in entries]
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0, -drop), ncols=columns, frameon=False, fontsize=8,
        labelcolor=INK, borderaxespad=0, handlelength=1, handleheight=1, columnspacing=1.2, borderpad=0,
    )  # fmt: skip


def _deciding(attribution: Attribution) -> tuple[np.ndarray, list[tuple[str, Any]]]:
    """(colour of each pixel [H, W, 3] in 0..1, the legend with shares of the pixels)."""
    from matplotlib.colors import to_rgb

    names = list(attribution.decides)
    decides = np.stack([attribution.decides[name] for name in names])
    count = decides.sum(axis=0)
    kinds = [(f"only {STREAMS[name]}", COLOURS[name], (count == 1) & decides[i]) for i, name in enumerate(names)]
    kinds += [("several, each", SEVERAL, count > 1), ("none: the others suffice", GRID, count == 0)]
    painted = np.zeros((*count.shape, 3))
    for _, colour, where in kinds:
        painted[where] = to_rgb(colour)
    return painted, [(f"{name} ({where.mean():.0%})", colour) for name, colour, where in kinds]


def attribution_picture(
    path: str | os.PathLike, image: np.ndarray, attribution: Attribution, palette: np.ndarray, classes: Sequence[str]
) -> None:
    """Write, for `image` [H, W, 3]: the prediction, the streams without which another class would win, the shares."""
    streams = list(attribution.shares)
    label = attribution.label.astype(np.uint8)
    H, W = label.shape
    figure = new_figure(WIDTH * len(streams), 2 * (WIDTH * H / W + 0.9))
    above, below = figure.subplots(2, len(streams), squeeze=False, gridspec_kw={"hspace": 0.45, "wspace": 0.06})
    above[0].imshow(overlay(image, label, palette))
    _panel(above[0], "prediction")
    present = [(classes[k], np.asarray(palette[k]) / 255) for k in np.unique(label)]
    _legend(above[0], present, 3, 0.04)
    painted, legend = _deciding(attribution)
    above[1].imshow(painted)
    _panel(above[1], "the stream that decides")
    _legend(above[1], legend, 2, 0.04)
    if len(streams) > 2:
        above[2].imshow(colorize(label, palette))
        _panel(above[2], "labels")
    for axes, name in zip(below, streams, strict=True):
        shown = axes.imshow(attribution.shares[name], cmap="RdBu_r", vmin=-1, vmax=1)
        _panel(axes, f"share of {STREAMS[name]} in the winner's margin")
    bar = figure.colorbar(shown, ax=list(below), orientation="horizontal", fraction=0.05, pad=0.04, aspect=50)
    bar.set_ticks([-1, 0, 1], labels=["-1: all for the runner-up", "0: silent", "1: all for the winner"])
    bar.ax.tick_params(labelsize=8, labelcolor=INK, length=0)
    bar.outline.set_visible(False)
    save_figure(figure, path)


def _hull(spans: list[Pair]) -> Pair:
    """The span that holds all `spans`."""
    return min(first for first, _ in spans), max(last for _, last in spans)


def receptive_picture(
    path: str | os.PathLike,
    image: np.ndarray,
    pixel: Pair,
    rows: dict[str, Pair],
    columns: dict[str, Pair],
    effective: np.ndarray,
    box: tuple[Pair, Pair],
) -> None:
    """Write the receptive field of `pixel` = (row, column) over `image` [H, W, 3].

    rows, columns: of the image that it depends on, by stream (`receptive.reach`); effective [H, W] and its `box`, as
    `receptive` gives them. What of a field lies beyond the image is padding, and drawn white.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    H, W = image.shape[:2]
    top, bottom = _hull([(0, H - 1), *rows.values()])
    left, right = _hull([(0, W - 1), *columns.values()])
    figure = new_figure(7, 7 * (bottom - top + 20) / (right - left + 20) + 1)
    axes = figure.subplots()
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2) / 255
    axes.imshow(0.35 + 0.55 * grey)
    strength = np.sqrt(effective / max(effective.max(), np.finfo(effective.dtype).tiny))
    axes.imshow(strength, cmap="inferno", vmin=0, vmax=1, alpha=np.clip(2 * strength, 0, 0.9))
    handles = []

    def frame(vertical: Pair, horizontal: Pair, colour: str, style: str, name: str) -> None:
        height, width = vertical[1] - vertical[0] + 1, horizontal[1] - horizontal[0] + 1
        corner = (horizontal[0] - 0.5, vertical[0] - 0.5)
        axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=2, linestyle=style))
        handles.append(Line2D([], [], color=colour, linewidth=2, linestyle=style, label=f"{name}: {height} x {width}"))

    for name in rows:
        frame(rows[name], columns[name], COLOURS[name], "-", f"theoretical, through {STREAMS[name]}")
    frame(*box, "#e0218a", "--", "95 % of the effective field along each axis")
    axes.plot(pixel[1], pixel[0], "+", color="white", markersize=13, markeredgewidth=4)
    axes.plot(pixel[1], pixel[0], "+", color=INK, markersize=11, markeredgewidth=1.5)
    axes.set_xlim(left - 10, right + 10)
    axes.set_ylim(bottom + 10, top - 10)
    _panel(axes, f"what the output at row {pixel[0]}, column {pixel[1]} looks at (brighter: larger gradient)")
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0, -0.02), ncols=2, frameon=False, fontsize=9, labelcolor=INK
    )
    save_figure(figure, path)
