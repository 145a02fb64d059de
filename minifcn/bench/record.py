"""What is stored of a benchmark: JSON of the schema minifcn-bench/1, raw times included, and what follows from them.

A row holds the microseconds a call of every round, for each contestant by name; medians, ratios, intervals and verdicts
are computed from those by `derive`, when a record is made and again whenever one is read.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import MinifcnError
from ..files import write_json
from . import devices, machine, statistics
from .ceilings import Ceilings, steady
from .gate import Proof
from .rounds import AGAIN, Budget, Rounds
from .work import DIRECTIONS

SCHEMA = "minifcn-bench/1"
OWN = "minifcn"  # the kernel of a device as it stands, in the column `kernel`
TRANSFORM = "with transform"  # of writable weights, whose transform no call can keep
PRECISION = {"float32": "f32", "float64": "f64", "3xtf32": "3xtf32", "tf32": "tf32", "bfloat16": "bf16"}


class RecordError(MinifcnError):
    """A file that is no record, or records that must not be compared; the message names the file and the rule."""


# --- rows ---


def row(*, dtype: str, precision: str = "float32", floor: float | None = None, **about: Any) -> dict[str, Any]:
    """A row without times: what was computed, by what, and how long it takes at least (`floor`, seconds)."""
    floor_us = None if floor is None else _us(floor)
    return about | {
        "dtype": dtype,
        "precision": PRECISION[dtype if precision == "float32" else precision],
        "floor_us": floor_us,
        "error": None,
        "gate": "missing",
        "verdict": "missing",
        "notes": [],
    }


def refuse(row: dict[str, Any], reason: str) -> None:
    """The kernel does not support this shape."""
    row |= {"gate": "n/a", "verdict": "n/a"}
    row["notes"].append(reason)


def judge(row: dict[str, Any], proof: Proof, baselines: dict[str, Proof]) -> None:
    """Note what the gate found, on both sides."""
    row["error"] = _errors(proof)
    row["gate"] = "ok" if proof.passed else "WRONG"
    if not proof.passed:
        row["verdict"] = "WRONG"
    row["notes"] += proof.broken
    row["baseline_gate"] = {name: "ok" if one.passed else "WRONG" for name, one in baselines.items()}
    row["baseline_error"] = {
        name: {"l2": finite(one.l2), "max": finite(one.largest)} for name, one in baselines.items()
    }
    row["notes"] += [f"{name}: {text}" for name, one in baselines.items() for text in one.broken]


def fill(
    row: dict[str, Any], rounds: Rounds, name: str, alternatives: dict[str, str], baselines: tuple[str, ...]
) -> None:
    """Put times into a row: of its contestant `name`, its alternatives {label: contestant}, and the baselines."""
    row["times_us"] = _micros(rounds.times[name])
    row["alternatives_us"] = {label: _micros(rounds.times[one]) for label, one in alternatives.items()}
    row["baselines_us"] = {one: _micros(rounds.times[one]) for one in baselines}
    if rounds.twice is not None:
        row["again"] = {"baseline": rounds.twice, "times_us": _micros(rounds.times[AGAIN])}
    row["rounds"], row["stopped"] = len(rounds.times[name]), rounds.stopped
    derive(row)


def derive(row: dict[str, Any], steady: bool = True) -> None:
    """Everything that follows from the times: medians, the opponent, ratios, intervals, the verdict."""
    times = row.get("times_us")
    if not times:
        return
    row["median_us"], row["iqr_us"] = statistics.median(times), statistics.interquartile_range(times)
    row["min_us"] = min(times)
    if row["floor_us"]:
        row["pct_floor"] = 100 * row["floor_us"] / row["median_us"]
    row["alternatives"] = {
        label: {"median_us": statistics.median(one)} for label, one in row["alternatives_us"].items()
    }
    medians = {name: statistics.median(one) for name, one in row["baselines_us"].items()}
    row["baseline_medians_us"] = medians
    if not medians:
        row["verdict"] = "no baseline" if row["device"] != devices.SIMULATED else "simulated"
        return
    row["baseline"] = min(medians, key=medians.get)
    opponent = row["baselines_us"][row["baseline"]]
    itself = None
    if "again" in row:
        again = statistics.ratios(row["baselines_us"][row["again"]["baseline"]], row["again"]["times_us"])
        row["again"] |= {"ratio": statistics.median(again), "ratio_ci": list(statistics.bootstrap(again))}
        itself = tuple(row["again"]["ratio_ci"])
    row |= _against(opponent, times)
    for label, one in row["alternatives_us"].items():
        row["alternatives"][label] |= _against(opponent, one)
    row["verdict"] = statistics.verdict(tuple(row["ratio_ci"]), itself) if steady else "busy"
    if row["device"] == devices.SIMULATED:
        row["verdict"] = "simulated"


def _against(opponent: list[float], own: list[float]) -> dict[str, Any]:
    ratios = statistics.ratios(opponent, own)
    return {"ratio": statistics.median(ratios), "ratio_ci": list(statistics.bootstrap(ratios))}


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)


def _micros(times: list[float]) -> list[float]:
    return [_us(one) for one in times]


def _errors(proof: Proof) -> dict[str, float | None]:
    return {"l2": finite(proof.l2), "max": finite(proof.largest)}


def finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


# --- records ---


def start(command: list[str], threads: int, device: str = "cpu") -> dict[str, Any]:
    """A record without rows."""
    return {
        "schema": SCHEMA,
        "command": command,
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "machine": machine.facts(threads) | {"load": [machine.load(), None]} | devices.facts(device),
        "versions": machine.versions(),
        "results": [],
    }


def settings(budget: Budget, **others: Any) -> dict[str, Any]:
    """The `settings` of a record."""
    return {
        "rounds": budget.rounds,
        "seconds": budget.seconds,
        "limit": budget.limit,
        "interleaved": True,
        "bootstrap": statistics.DRAWS,
        "seed": statistics.SEED,
    } | others


def finish(record: dict[str, Any], before: Ceilings, after: Ceilings) -> None:
    """Add the calibration and the summary; where the machine was busy, no row keeps a verdict."""
    record["ceilings"] = before.as_dict()
    record["calibration"] = {"before": before.as_dict(), "after": after.as_dict(), "ok": steady(before, after)}
    record["machine"]["load"][1] = machine.load()
    if "gpu" in record["machine"]:
        record["machine"]["gpu"]["state"].append(devices.state(record["device"]))
    summarise(record)


def summarise(record: dict[str, Any]) -> None:
    """Derived values of all rows, and what is said of all of them together."""
    for one in record["results"]:
        if one["gate"] == "ok":
            derive(one, record["calibration"]["ok"])
    proven = [one for one in record["results"] if one["gate"] in ("ok", "WRONG") and one.get("baseline_gate")]
    taken = [one for one in proven if one["kernel"] == one.get("chosen", one["kernel"])]  # of a ladder: by the dispatch
    ratios = [one.get("ratio") for one in taken]
    known = [value for value in ratios if value]
    record["fast_1"], record["fast_1.5"] = (statistics.fast_share(ratios, times) for times in (1, 1.5))
    record["worst"] = min(known, default=None)
    if record["kind"] == "layers":
        record["geomean"], record["geomean_with_transform"] = _geometric_means(record["results"])
    if record["kind"] in ("step", "infer"):
        first = record["results"][0]
        record["ratio"], record["ratio_ci"] = first.get("ratio"), first.get("ratio_ci")


def _geometric_means(rows: list[dict[str, Any]]) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """By direction, over our own 3x3 layers of at least 64 input channels: of the ratios, and with the transform."""
    plain, transformed = {}, {}
    for op, direction in DIRECTIONS.items():
        chosen = [
            one for one in rows if one["op"] == op and one["kernel"] == OWN and one.get("ratio") and _typical(one)
        ]
        plain[direction] = statistics.geometric_mean([one["ratio"] for one in chosen])
        again = [one["alternatives"].get(TRANSFORM, one)["ratio"] for one in chosen]
        transformed[direction] = statistics.geometric_mean(again)
    return plain, transformed


def _typical(row: dict[str, Any]) -> bool:
    C, R, S = row["params"]["w"][1:]
    return row["kernel"] == OWN and (R, S) == (3, 3) and C >= 64


def read(path: str | Path) -> dict[str, Any]:
    """The record in `path`. Raises RecordError for anything else."""
    try:
        record = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise RecordError(f"{path}: is not JSON ({error})") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA:
        raise RecordError(f"{path}: schema (={schema!r}) must be {SCHEMA!r}")
    missing = [name for name in ("kind", "machine", "versions", "results", "calibration") if name not in record]
    if missing:
        raise RecordError(f"{path}: lacks {', '.join(missing)}")
    return record


def write(path: str | Path, record: dict[str, Any]) -> None:
    """Whole or not at all."""
    write_json(path, record)
