"""Rows of a record as text: one report line a kernel, for the terminal and for Markdown."""

from __future__ import annotations

import math
from typing import Any

from .devices import NOT_TIMES, SIMULATED
from .record import PRECISION, TRANSFORM

VERDICT_STYLE = {"faster": "green", "slower": "yellow", "WRONG": "bold red", "void": "red", "busy": "red"}
TITLES = {
    "convolutions": (
        "layer", "shape", "kernel", "ms ±IQR", "GF/s", "% of floor", "PyTorch NCHW / NHWC", "ratio [95 %]",
        "with transform", "its ratio", "error L2, max", "verdict",
    ),
    "networks": (
        "network", "shape", "kernel", "ms ±IQR", "images/s", "PyTorch NCHW / NHWC", "ratio [95 %]", "peak MB / PyTorch",
        "error L2, max", "verdict",
    ),
    "compare": ("op", "layer", "shape", "kernel", "old ms", "new ms", "old / new [95 %]", "verdict"),
}  # fmt: skip
LEFT = ("op", "layer", "network", "shape", "kernel", "verdict")
GATELESS = "-"


def titles(kind: str) -> tuple[str, ...]:
    """The columns of a record's kind."""
    return TITLES["networks" if kind in ("step", "infer") else "convolutions"]


def milliseconds(microseconds: float | None) -> str:
    """Three digits that mean something."""
    return GATELESS if microseconds is None else f"{microseconds / 1e3:.{_decimals(microseconds / 1e3)}f}"


def _decimals(value: float) -> int:
    return 0 if value >= 100 else max(0, 2 - math.floor(math.log10(max(value, 1e-3))))


def ratio(about: dict[str, Any]) -> str:
    """1.76 [1.72, 1.80], or a dash."""
    if about.get("ratio") is None:
        return GATELESS
    low, high = about["ratio_ci"]
    return f"{about['ratio']:.2f} [{low:.2f}, {high:.2f}]"


def _error(row: dict[str, Any]) -> str:
    """L2 and largest error, e.g. 8e-07 2e-06; NaN where it was not finite."""
    if row["error"] is None:
        return GATELESS
    return " ".join("NaN" if value is None else f"{value:.0e}" for value in row["error"].values())


def _baseline(row: dict[str, Any], form: str) -> str:
    gates = {name.split()[-1]: state for name, state in row.get("baseline_gate", {}).items()}
    medians = {name.split()[-1]: value for name, value in row.get("baseline_medians_us", {}).items()}
    return "WRONG" if gates.get(form) == "WRONG" else milliseconds(medians.get(form))


def _kernel(row: dict[str, Any]) -> str:
    """e.g. minifcn (tensor, bf16): its algorithm, and the precision of its products where that is not the arrays'."""
    details = [row["algorithm"]] if row["algorithm"] not in (row["kernel"], None) else []
    if row["precision"] != PRECISION[row["dtype"]]:
        details.append(row["precision"])
    return f"{row['kernel']} ({', '.join(details)})" if details else row["kernel"]


def _megabytes(row: dict[str, Any], side: str) -> str:
    peak = row.get("memory", {}).get(side)
    return GATELESS if not peak else f"{peak['peak_bytes'] / 2**20:.0f}"


def _pair(*values: str) -> str:
    """Two figures side by side, or one dash."""
    return " / ".join(values) if any(value != GATELESS for value in values) else GATELESS


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """The row under `titles`; a row that is not proven right shows no time."""
    timed = "median_us" in row
    time = f"{milliseconds(row['median_us'])} ±{milliseconds(row['iqr_us'])}" if timed else GATELESS
    baselines = _pair(*(_baseline(row, form) for form in ("nchw", "channels_last")))
    last = (_error(row), row["verdict"])
    if row["op"] in ("step", "infer"):
        rate = f"{row['params']['batch'] / row['median_us'] * 1e6:.1f}" if timed else GATELESS
        peaks = _pair(*(_megabytes(row, side) for side in ("minifcn", "baseline")))
        name = f"{row['op']}, {row['layer']}"
        return (name, row["shape"], _kernel(row), time, rate, baselines, ratio(row), peaks, *last)
    rate = f"{row['flop'] / row['median_us'] / 1e3:.0f}" if timed else GATELESS
    floor = f"{row['pct_floor']:.0f}" if row.get("pct_floor") else GATELESS
    again = row.get("alternatives", {}).get(TRANSFORM, {})
    name = f"{row['layer']} {row['op'].removeprefix('conv2d_').replace('_', ' ')}".strip()
    transform = milliseconds(again.get("median_us"))
    return (
        name, row["shape"], _kernel(row), time, rate, floor, baselines, ratio(row), transform, ratio(again), *last
    )  # fmt: skip


def summary(record: dict[str, Any]) -> list[str]:
    """What is said of all rows together, and on what machine, in sentences."""
    lines = []
    if record["kind"] == "layers":
        for name, means in (("", record["geomean"]), (" with transform", record["geomean_with_transform"])):
            listed = ", ".join(f"{way.replace('_', ' ')} {mean:.2f}" for way, mean in means.items() if mean)
            if listed:
                lines.append(f"geometric mean of the ratios{name}, 3x3 layers with C >= 64: {listed}")
    if record["fast_1"] is not None and len(record["results"]) > 1 and record.get("worst") is not None:
        share = f"fast_1 {record['fast_1']:.2f}, fast_1.5 {record['fast_1.5']:.2f}"
        rows = "rungs that the dispatch takes" if record["kind"] == "ladder" else "rows"
        lines.append(f"{share} of the {rows}; worst ratio {record['worst']:.2f}")
    if record["settings"].get("baseline"):
        lines.append(f"PyTorch: {record['settings']['baseline']}, the better format of each row is the opponent")
    before, after = (record["calibration"][when] for when in ("before", "after"))
    state = "steady" if record["calibration"]["ok"] else "BUSY: no verdicts"
    lines.append(
        f"calibration before / after: {before['fp32_gflops']:.0f} / {after['fp32_gflops']:.0f} GFLOP/s, "
        f"{before['copy_gbs']:.0f} / {after['copy_gbs']:.0f} GB/s ({state})"
    )
    if record.get("device") == SIMULATED:
        lines.append(NOT_TIMES)
    lines.append(facts(record))
    return lines


def facts(record: dict[str, Any]) -> str:
    """One sentence of machine, versions and date."""
    machine, versions = record["machine"], record["versions"]
    names = ("python", "numpy", "numba", "torch")
    libraries = ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
    commit = f" at {versions['git']}{' with changes' if versions.get('dirty') else ''}" if "git" in versions else ""
    own = f"minifcn {versions['minifcn']}{commit}"
    where = machine["gpu"]["name"] if "gpu" in machine else f"{machine['cpu']}, {machine['threads']} threads"
    return f"{where}; {own}; {libraries}; {record['utc']}"


def markdown(record: dict[str, Any]) -> str:
    """The table and its sentences for a README."""
    head = titles(record["kind"])
    lines = [f"| {' | '.join(head)} |", "|" + "|".join("---" if name in LEFT else "--:" for name in head) + "|"]
    lines += [f"| {' | '.join(cells(row))} |" for row in record["results"]]
    return "\n".join([*lines, "", *(f"{line}  " for line in summary(record))]).rstrip()
