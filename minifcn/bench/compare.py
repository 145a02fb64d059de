"""Two records of one machine, row by row: FASTER, SLOWER, SAME or undecided.

The runs were not interleaved, so the ratio is that of the medians, its interval from rounds drawn anew in each run. A
clock that moved between the runs is part of that ratio: the calibration of both is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import record, statistics, tables
from .record import RecordError
from .statistics import Interval

SAYS = {"faster": "FASTER", "slower": "SLOWER", "same": "SAME", "undecided": "undecided"}
SAME_MACHINE = ("cpu", "cores", "threads")


@dataclass(frozen=True)
class Row:
    """One row that both records have."""

    key: tuple[str, ...]  # op, layer, shape, kernel
    old_us: float | None
    new_us: float | None
    ratio: float | None
    interval: Interval | None
    verdict: str

    def cells(self) -> tuple[str, ...]:
        """Under tables.TITLES["compare"]."""
        ratio = tables.ratio({"ratio": self.ratio, "ratio_ci": self.interval})
        return (*self.key, tables.milliseconds(self.old_us), tables.milliseconds(self.new_us), ratio, self.verdict)


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return row["op"], row["layer"], row["shape"], row["kernel"]


def _check(old: dict[str, Any], new: dict[str, Any], files: str) -> None:
    """Raise RecordError where the two records were not made alike."""
    for name in SAME_MACHINE:
        before, after = old["machine"].get(name), new["machine"].get(name)
        if before != after:
            raise RecordError(f"{files}: {name} differs ({before} and {after}): add --anyway to compare nevertheless")
    precisions = [sorted({row["precision"] for row in one["results"]}) for one in (old, new)]
    if precisions[0] != precisions[1]:
        listed = " and ".join(", ".join(one) for one in precisions)
        raise RecordError(f"{files}: precision differs ({listed}): add --anyway to compare nevertheless")


def rows(old_file: Path, new_file: Path, anyway: bool = False) -> list[Row]:
    """Every row that both have. Raises RecordError for records that must not be compared, or share no row."""
    old, new = record.read(old_file), record.read(new_file)
    if not anyway:
        _check(old, new, f"{old_file}, {new_file}")
    before = {_key(row): row for row in old["results"]}
    found = list(_compared(before, new["results"]))
    if not found:
        raise RecordError(f"{old_file}, {new_file}: they have no row in common")
    return found


def _compared(before: dict[tuple[str, ...], dict[str, Any]], results: list[dict[str, Any]]) -> Iterator[Row]:
    for row in results:
        other = before.get(_key(row))
        if other is None:
            continue
        old_us, new_us = other.get("times_us"), row.get("times_us")
        if not old_us or not new_us:
            state = next((one["gate"] for one in (row, other) if one["gate"] != "ok"), "missing")
            yield Row(_key(row), None, None, None, None, state)
            continue
        ratio, interval = statistics.ratio_of_medians(old_us, new_us)
        medians = (statistics.median(old_us), statistics.median(new_us))
        yield Row(_key(row), *medians, ratio, interval, SAYS[statistics.verdict(interval)])
