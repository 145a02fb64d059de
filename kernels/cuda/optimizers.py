"""SGD and Adam in place, in whatever memory order the weights have; one launch for any number of parameters.

`sgd_steps(calls)` does what `sgd_step(*call)` does for each of calls(), with the same bits; likewise `adam_steps`. In a
graph the arrays are those of the capture, and calls() is asked for its numbers before each replay.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .. import checks
from ..layout import in_one_order
from ..reference.optimizers import adam_numbers, sgd_numbers
from .launch import THREADS, address, blocks, from_host, template, tiles
from .table import Table

FILE = "optimizers.cu"
CHUNK = 4096  # elements a block
WIDTHS = {"sgd": 4, "adam": 10}  # numbers in a row of the source
Calls = Callable[[], list[tuple[Any, ...]]]


def sgd_steps(on, calls: Calls) -> None:
    """`sgd_step` of every one of calls(), tuples of its arguments, in one launch."""
    _launch(on, "sgd", calls, _sgd_arrays, _sgd_numbers)


def adam_steps(on, calls: Calls) -> None:
    """`adam_step` of every one of calls(), tuples of its arguments, in one launch."""
    _launch(on, "adam", calls, _adam_arrays, _adam_numbers)


def sgd_step(on, w, g, velocity, lr, momentum=0.0, weight_decay=0.0, form="pytorch"):
    """See `reference.sgd_step`."""
    sgd_steps(on, lambda: [(w, g, velocity, lr, momentum, weight_decay, form)])


def adam_step(on, w, g, mean, square, lr, betas, eps, weight_decay, step, decoupled):
    """See `reference.adam_step`."""
    adam_steps(on, lambda: [(w, g, mean, square, lr, betas, eps, weight_decay, step, decoupled)])


def _sgd_arrays(w, g, velocity, lr, momentum=0.0, weight_decay=0.0, form="pytorch"):
    """w, g and state as 1-D arrays."""
    checks.check_sgd(w, g, velocity, form)
    return in_one_order(w, g, velocity=velocity)


def _sgd_numbers(w, g, velocity, *rule):
    return sgd_numbers(*rule)


def _adam_arrays(w, g, mean, square, lr, betas, eps, weight_decay, step, decoupled):
    checks.check_adam(w, g, mean, square, step)
    return in_one_order(w, g, mean=mean, square=square)


def _adam_numbers(w, g, mean, square, *rule):
    return adam_numbers(*rule)


def _launch(on: Any, kernel: str, calls: Calls, arrays_of: Callable, numbers_of: Callable) -> None:
    """Update the parameters of all calls, in one launch for each dtype among them; empty ones need none."""
    by_dtype: dict[np.dtype, dict[int, list[Any]]] = {}  # arrays by the number of their call
    for i, call in enumerate(calls()):
        arrays = arrays_of(*call)
        if arrays[0].size:
            by_dtype.setdefault(arrays[0].dtype, {})[i] = arrays

    def numbers(chosen: Iterable[int]) -> list[tuple[Any, ...]]:
        now = calls()
        return [numbers_of(*now[i]) for i in chosen]

    for dtype, group in by_dtype.items():
        table, grid = _table(on, dtype, WIDTHS[kernel], list(group.values()), functools.partial(numbers, list(group)))
        blocks(on, FILE, template(kernel, dtype), (grid, 1, 1), THREADS, 0, table, len(group), CHUNK)


def _table(on: Any, dtype: np.dtype, width: int, group: list[list[Any]], numbers: Callable) -> tuple[Table, int]:
    """The table of a launch, a struct a parameter with `width` numbers, and the number of its blocks."""
    read, written, block = [], [], 0
    row = [("arrays", np.uint64, len(group[0])), ("place", np.int64, 2), ("numbers", dtype, width)]
    rows = np.zeros(len(group), np.dtype(row, align=True))
    for i, (w, g, *state) in enumerate(group):
        rows["arrays"][i] = [address(array) for array in (w, *state, g)]
        rows["place"][i] = block, w.size
        block += tiles(w.size, CHUNK)
        read.append(g)
        written += [w, *state]

    def now() -> np.ndarray:
        rows["numbers"] = numbers()
        return rows.view(np.uint8)

    return Table(from_host(on, now), tuple(read), tuple(written)), block
