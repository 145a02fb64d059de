"""SGD and Adam in place, in whatever memory order the weights have; one launch for any number of parameters.

`sgd_steps(calls)` does what `sgd_step(*call)` does for each of them, with the same bits; likewise `adam_steps`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import checks
from ..layout import in_one_order
from ..reference.optimizers import adam_numbers
from .launch import THREADS, address, blocks, template, tiles
from .table import Table

FILE = "optimizers.cu"
CHUNK = 4096  # elements a block


def sgd_steps(on, calls: Iterable[tuple[Any, ...]]) -> None:
    """`sgd_step` of every one of `calls`, tuples of its arguments, in one launch."""
    _launch(on, "sgd", (_sgd_row(*call) for call in calls))


def adam_steps(on, calls: Iterable[tuple[Any, ...]]) -> None:
    """`adam_step` of every one of `calls`, tuples of its arguments, in one launch."""
    _launch(on, "adam", (_adam_row(*call) for call in calls))


def sgd_step(on, w, g, velocity, lr, momentum=0.0, weight_decay=0.0, form="pytorch"):
    """See `reference.sgd_step`."""
    sgd_steps(on, [(w, g, velocity, lr, momentum, weight_decay, form)])


def adam_step(on, w, g, mean, square, lr, betas, eps, weight_decay, step, decoupled):
    """See `reference.adam_step`."""
    adam_steps(on, [(w, g, mean, square, lr, betas, eps, weight_decay, step, decoupled)])


def _sgd_row(w, g, velocity, lr, momentum=0.0, weight_decay=0.0, form="pytorch"):
    """(w, g and state as 1-D arrays, the numbers of the rule as the source's row has them)."""
    checks.check_sgd(w, g, velocity, form)
    rates = (lr, 1) if form == "caffe" else (1, lr)
    return in_one_order(w, g, velocity=velocity), (momentum, weight_decay, *rates)


def _adam_row(w, g, mean, square, lr, betas, eps, weight_decay, step, decoupled):
    checks.check_adam(w, g, mean, square, step)
    numbers = adam_numbers(w.dtype, lr, betas, eps, weight_decay, step, decoupled)
    return in_one_order(w, g, mean=mean, square=square), numbers


def _launch(on: Any, kernel: str, rows: Iterable[tuple[list[Any], tuple[Any, ...]]]) -> None:
    """Update the parameters of all `rows`, in one launch for each dtype among them; empty ones need none."""
    by_dtype: dict[np.dtype, list] = {}
    for arrays, numbers in rows:
        if arrays[0].size:
            by_dtype.setdefault(arrays[0].dtype, []).append((arrays, numbers))
    for dtype, group in by_dtype.items():
        table, grid = _table(on, dtype, group)
        blocks(on, FILE, template(kernel, dtype), (grid, 1, 1), THREADS, 0, table, len(group), CHUNK)


def _table(on: Any, dtype: np.dtype, group: list) -> tuple[Table, int]:
    """The table of a launch, a struct a parameter, and the number of its blocks."""
    rows, read, written, block = [], [], [], 0
    for (w, g, *state), numbers in group:
        rows.append(([address(array) for array in (w, *state, g)], (block, w.size), numbers))
        block += tiles(w.size, CHUNK)
        read.append(g)
        written += [w, *state]
    row = [("arrays", np.uint64, len(rows[0][0])), ("place", np.int64, 2), ("numbers", dtype, len(rows[0][2]))]
    memory = on.xp.asarray(np.array(rows, np.dtype(row, align=True)).view(np.uint8))
    return Table(memory, tuple(read), tuple(written)), block
