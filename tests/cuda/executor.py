"""An executor (`kernels/cuda/executors.py`) that interprets on the host what NVRTC made for a GPU; for tests."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from minifcn.kernels.cuda.launch import address
from minifcn.kernels.cuda.table import Table

from . import nvrtc, ptxparse, ptxsim
from .ptxops import ARGUMENTS, origin


@functools.cache
def _entries(file: str, expressions: tuple[str, ...], arch: str) -> dict[str, ptxparse.Entry]:
    code = nvrtc.compile_source(file, expressions, arch)
    entries = ptxparse.parse(code.ptx)
    return {expression: entries[name] for expression, name in code.names.items()}


class PtxExecutor:
    """Compiles for `arch` and interprets the PTX; those `together` of a file in one go.

    Raises PtxError and NvrtcError.
    """

    name, xp, graph = "ptx", np, None

    def __init__(self, together: dict[str, tuple[str, ...]] | None = None, arch: str = nvrtc.ARCHES[0]) -> None:
        self.together, self.arch = together or {}, arch

    def kernel(self, file: str, expression: str) -> ptxparse.Entry:
        known = self.together.get(file, ())
        return _entries(file, known if expression in known else (expression,), self.arch)[expression]

    def launch(
        self,
        kernel: ptxparse.Entry,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: tuple[Any, ...],
        shared: int = 0,
    ) -> None:
        reached = [array for one in args if isinstance(one, Table) for array in (*one.read, *one.written)]
        own = tuple(_moved(one, reached, len(args)) if isinstance(one, Table) else one for one in args)
        ptxsim.launch(kernel, grid, block, own, shared, reached)


def _moved(table: Table, reached: list[np.ndarray], first: int) -> np.ndarray:
    """The rows of `table` with the interpreter's addresses of the arrays `reached`, which follow `first` arguments."""
    words = table.memory.view(np.uint64)
    moved = words.copy()
    for i, array in enumerate(reached, first):
        moved[words == address(array)] = origin(ARGUMENTS + i)
    return moved
