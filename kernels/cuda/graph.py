"""Graphs of CUDA launches (`kernels/graph.py`): an executor's `capture` makes one, of what is allocated by on.xp.empty.

On a GPU this is a CUDA graph, by stream capture (CUDA C++ Programming Guide, "CUDA Graphs"). On the host it is a list
of launches, and its garbage is NaN: what a CUDA graph would leave out or freeze makes the results wrong here too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from ..graph import Graph
from .source import ExecutorError


class CudaGraph(Graph):
    """Base of both: also what the capture brings into memory once."""

    def __init__(self, xp: ModuleType) -> None:
        super().__init__(xp)
        self._constants: list[tuple[Any, np.ndarray]] = []

    def constant(self, values: np.ndarray) -> Any:
        """An array that holds `values` in every replay."""
        self._constants.append((self._xp.empty(values.shape, values.dtype), values))
        return self._constants[-1][0]

    def complete(self) -> None:
        """Once the capture is over: write the constants."""
        for array, values in self._constants:
            array[...] = self._xp.asarray(values)


class CupyGraph(CudaGraph):
    """A CUDA graph. Its memory comes from a pool of its own, which lives as long as it does."""

    def __init__(self, xp: ModuleType) -> None:
        super().__init__(xp)
        self.stream, self.pool = xp.cuda.Stream(non_blocking=True), xp.cuda.MemoryPool()
        self.captured: Any = None  # what the stream's capture ends with

    def _launch(self) -> None:
        self.captured.launch()  # on the current stream: after all copies to its inputs, before all reads


class SimGraph(CudaGraph):
    """The launches in order, each with the arguments of the capture."""

    def __init__(self) -> None:
        super().__init__(np)
        self.launches: list[Callable[[], Any]] = []
        self._garbage: list[np.ndarray] = []  # bytes of what was allocated

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of the graph's memory."""
        dtype, shape = np.dtype(dtype), (shape,) if np.ndim(shape) == 0 else tuple(shape)
        memory = np.full(math.prod(shape) * dtype.itemsize, 0xFF, np.uint8)  # NaN, as a float of any size
        self._garbage.append(memory)
        return memory.view(dtype).reshape(shape)

    def _launch(self) -> None:
        for memory in self._garbage:
            memory.fill(0xFF)
        for launch in self.launches:
            launch()


class CaptureModule:
    """The array module of the host within a capture: it allocates from the graph, and computes nothing."""

    ndarray = np.ndarray

    def __init__(self, graph: SimGraph) -> None:
        self.empty = graph.empty

    def __getattr__(self, name: str) -> Any:
        raise ExecutorError(f"numpy.{name} within the capture of a graph: only launches are replayed")
