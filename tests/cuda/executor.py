"""An executor (`kernels/cuda/executors.py`) that interprets on the host what NVRTC made for a GPU; for tests."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from . import nvrtc, ptxparse, ptxsim


@functools.cache
def _entries(file: str, expressions: tuple[str, ...], arch: str) -> dict[str, ptxparse.Entry]:
    code = nvrtc.compile_source(file, expressions, arch)
    entries = ptxparse.parse(code.ptx)
    return {expression: entries[name] for expression, name in code.names.items()}


class PtxExecutor:
    """Compiles for `arch` and interprets the PTX; those `together` of a file in one go.

    Raises PtxError and NvrtcError.
    """

    name, xp = "ptx", np

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
        ptxsim.launch(kernel, grid, block, args, shared)
