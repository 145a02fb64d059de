"""How well a kernel uses memory, line by line: what the sanitizer's hooks recorded, grouped as a GPU would see it.

A warp's lanes that execute one access together make one request. Of global memory it takes sectors of 32 bytes: as few
as the bytes fill, where lanes lie side by side. Shared memory has 32 banks, 4 bytes wide: a request takes as many
passes ("ways") as the busiest bank has different words; lanes with 8 or 16 bytes are served in halves or quarters of a
warp. (CUDA C++ Best Practices Guide, "Device Memory Accesses".) Approximate: g++ may split an access or join two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..source import ExecutorError
from .findings import lines_of
from .launch import TRACED, Module

SECTOR, BANKS, WORD = 32, 32, 4


@dataclass(frozen=True)
class Traffic:
    """All requests of one `line` ("file:line") to one `space` ("global" or "shared"), reads or writes.

    `sectors`: of global memory, a request; `efficiency`: the part of their bytes that was asked for; `ways`: passes
    over shared memory a request and part of a warp, 1 without bank conflicts. What does not apply is 0.
    """

    line: str
    space: str
    kind: str
    requests: int
    sectors: float
    efficiency: float
    ways: float

    def __str__(self) -> str:
        use = f"{self.sectors:5.1f} sectors, {self.efficiency:4.0%}"
        if self.space == "shared":
            use = f"{self.ways:5.1f} ways"
        return f"{self.line:24} {self.space} {self.kind:5} {self.requests:8} requests {use}"


def traffic(
    kernel: Module,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    args: tuple[Any, ...],
    shared: int = 0,
    most: int = 1_000_000,
) -> list[Traffic]:
    """Launch `kernel`, of an executor of flavour "check", and tell its use of memory by line, in the file's order.

    The first `most` accesses are recorded. Raises ExecutorError for another flavour.
    """
    if kernel.flavour != "check":
        raise ExecutorError(f"{kernel.expression}: memory traffic is recorded by flavour check, not {kernel.flavour}")
    trace = np.zeros(most, TRACED)
    records = trace[: kernel.launch(grid, block, args, shared, trace=trace)]
    lines = lines_of(kernel.path, [f"{pc:x}" for pc in np.unique(records["pc"])])
    line_of = np.array([lines[f"{pc:x}"] for pc in records["pc"]], dtype=object)
    found = []
    for line in sorted(set(line_of), key=lambda line: (line.rpartition(":")[0], int(line.rpartition(":")[2]))):
        of_line = records[line_of == line]
        for shared_space in (0, 1):
            for write in (0, 1):
                chosen = of_line[(of_line["shared"] == shared_space) & (of_line["write"] == write)]
                if len(chosen):
                    found.append(_measure(line, chosen))
    return found


def _measure(line: str, records: np.ndarray) -> Traffic:
    request = _requests(records)
    kind = "write" if records["write"][0] else "read"
    count = int(request.max()) + 1
    if records["shared"][0]:
        return Traffic(line, "shared", kind, count, 0.0, 0.0, _ways(request, records))
    offset, size = records["offset"].astype(np.int64), records["size"].astype(np.int64)
    asked_for = np.unique(np.stack([request, offset, size]), axis=1)[2].sum()  # lanes that read the same, once
    sectors = np.unique(np.stack([request, offset // SECTOR]), axis=1).shape[1]
    return Traffic(line, "global", kind, count, sectors / count, min(asked_for / (sectors * SECTOR), 1.0), 0.0)


def _requests(records: np.ndarray) -> np.ndarray:
    """The number of the request that each access belongs to: the k-th execution of one instruction by a warp."""
    order = np.lexsort((np.arange(len(records)), records["pc"], records["thread"], records["block"]))
    ordered = records[order]
    again = np.zeros(len(order), bool)  # by the same thread as the one before
    again[1:] = np.all([ordered[name][1:] == ordered[name][:-1] for name in ("pc", "thread", "block")], axis=0)
    first = np.maximum.accumulate(np.where(again, 0, np.arange(len(order))))
    execution = np.empty(len(order), np.int64)
    execution[order] = np.arange(len(order)) - first
    keys = np.stack([records["pc"].astype(np.int64), records["block"], records["thread"] // 32, execution])
    return np.unique(keys, axis=1, return_inverse=True)[1].ravel()


def _ways(request: np.ndarray, records: np.ndarray) -> float:
    size = records["size"].astype(np.int64)
    words = np.maximum(size // WORD, 1)
    part = records["thread"] % 32 * words // 32  # of the warp: lanes with 16 bytes go in four parts
    each = np.repeat(np.arange(len(records)), words)
    nth = np.arange(len(each)) - np.repeat(np.cumsum(words) - words, words)
    word = records["offset"].astype(np.int64)[each] // WORD + nth
    touched = np.unique(np.stack([request[each], part[each], word % BANKS, word]), axis=1)
    _, in_bank = np.unique(touched[:3], axis=1, return_counts=True)
    banks = np.unique(touched[:3], axis=1)
    parts, index = np.unique(banks[:2], axis=1, return_inverse=True)
    busiest = np.zeros(parts.shape[1], np.int64)
    np.maximum.at(busiest, index.ravel(), in_bank)
    return float(busiest.mean())
