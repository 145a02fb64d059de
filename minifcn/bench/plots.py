"""Pictures of a record: rooflines, bars by layer, the waterfall of a step. Each carries machine, date and commit."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

from ..viz import BLUE, GREEN, GRID, INK, MUTED, ORANGE, new_figure, save_figure
from . import record, tables, waterfall
from .work import DIRECTIONS

COLOURS = (BLUE, ORANGE, GREEN, "#8b4fa6", "#b03a48", "#6b7a1f", MUTED)


def draw(path: str | os.PathLike, found: dict[str, Any]) -> None:
    """The picture that fits the record's kind, as PNG, whole or not at all."""
    timed = [row for row in found["results"] if "median_us" in row]
    kinds = {"ladder": _roofline, "layers": _layers, "step": _waterfall, "infer": _sides}
    if not timed:
        raise record.RecordError(f"{path}: not drawn, because no row has a time")
    figure = kinds[found["kind"]](found, timed)
    figure.text(0.01, -0.02, textwrap.fill(tables.facts(found), 110), color=MUTED, fontsize=7, va="top")
    save_figure(figure, Path(path))


def _style(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelcolor=INK, color=GRID)


def _roofs(axes: Any, found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The two measured ceilings and the rows below them, a colour a kernel."""
    ceilings = found["ceilings"]
    peak, bandwidth = ceilings["fp32_gflops"], ceilings["copy_gbs"]
    intensity = [row["flop"] / row["bytes"] for row in rows]
    low, high = min(1.0, *intensity) / 2, max(100.0, *intensity) * 2
    ridge = peak / bandwidth
    axes.plot([low, ridge, high], [low * bandwidth, peak, peak], color=INK, lw=1)
    axes.text(high, peak * 1.05, f"{peak:.0f} GFLOP/s", ha="right", color=MUTED, fontsize=8)
    axes.text(low, low * bandwidth * 1.4, f"{bandwidth:.0f} GB/s", color=MUTED, fontsize=8)
    names = list(dict.fromkeys(row["kernel"] for row in rows))
    for name, colour in zip(names, COLOURS * len(names), strict=False):
        own = [row for row in rows if row["kernel"] == name]
        places = [row["flop"] / row["bytes"] for row in own]
        axes.scatter(places, [row["flop"] / row["median_us"] / 1e3 for row in own], s=22, color=colour, label=name)
    axes.set(xscale="log", yscale="log", xlabel="FLOP a byte", ylabel="GFLOP/s (dense FLOP)")
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    _style(axes)


def _roofline(found: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    figure = new_figure(7, 4.5)
    _roofs(figure.subplots(), found, rows)
    return figure


def _layers(found: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """Bars of each layer, ours beside PyTorch's better format, a panel a direction; and the roofline below."""
    directions = [op for op in DIRECTIONS if any(row["op"] == op for row in rows)]
    figure = new_figure(10, 2.4 * len(directions) + 3.6)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(len(directions) + 1, 1)
    for axes, op in zip(panels, directions, strict=False):
        own = [row for row in rows if row["op"] == op and row["kernel"] == record.OWN]
        places = range(len(own))
        axes.bar([x - 0.2 for x in places], [row["median_us"] / 1e3 for row in own], 0.4, color=BLUE, label="minifcn")
        others = [row["baseline_medians_us"].get(row.get("baseline"), 0) / 1e3 for row in own]
        if any(others):
            axes.bar([x + 0.2 for x in places], others, 0.4, color=ORANGE, label="PyTorch, better format")
        axes.set_xticks(list(places), [row["layer"] for row in own], rotation=45, ha="right", fontsize=7)
        axes.set_ylabel("ms")
        axes.set_title(DIRECTIONS[op].replace("_", " "), loc="left", fontsize=9, color=INK)
        axes.legend(frameon=False, fontsize=7, labelcolor=INK)
        _style(axes)
    _roofs(panels[-1], found, rows)
    return figure


def _sides(found: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """The rounds of every contestant, so that drift shows."""
    figure, row = new_figure(7, 3.5), rows[0]
    axes = figure.subplots()
    series = {record.OWN: row["times_us"]} | row["baselines_us"]
    for (name, times), colour in zip(series.items(), COLOURS, strict=False):
        axes.plot([one / 1e3 for one in times], color=colour, lw=1.2, label=name)
    axes.set(xlabel="round", ylabel="ms", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    _style(axes)
    return figure


def _waterfall(found: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """The classes of a step one after another, and the rounds below."""
    entries = rows[0].get("waterfall")
    if not entries:
        return _sides(found, rows)
    sums = waterfall.by_class(entries)
    figure = new_figure(8, 3.8)
    axes, start = figure.subplots(), 0.0
    for place, micros in enumerate(sums.values()):
        axes.barh(place, micros / 1e3, left=start, color=COLOURS[place % len(COLOURS)])
        axes.text(start + micros / 1e3, place, f" {micros / 1e3:.1f}", va="center", fontsize=8, color=INK)
        start += micros / 1e3
    axes.set_yticks(range(len(sums)), list(sums), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("ms of one training step")
    _style(axes)
    return figure
