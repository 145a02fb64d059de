"""Graphs of launches on the CPU (`kernels/graph.py`): what `threads.run` is given, without the Python that led to it.

Between two kernels of a network, Python takes some 80 us, most of it waiting for code and data that the kernels have
driven out of the caches: a fifth of the step of a small network. A replay takes some 10 us.

What launches allocate comes from an arena of the graph's own. A graph does not keep an array alive that lies there:
when the capture drops it, the next one may have its memory, as it will be in every replay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import memory
from ..graph import Graph
from ..layout import axis_order


class CpuGraph(Graph):
    """The launches in order, each a function and the list of its arguments, and the memory that they work in."""

    def __init__(self) -> None:
        super().__init__(np)
        self.memory = memory.Arena()
        self.launches: list[tuple[Callable[[list[Any]], None], list[Any]]] = []
        self._readers: dict[int, tuple[np.ndarray, list[tuple[list[Any], int]] | None]] = {}  # by id of the array

    def add(self, launch: Callable[[list[Any]], None], arguments: list[Any]) -> None:
        """launch(arguments) in every replay."""
        kept = [self.memory.unowned(one) if isinstance(one, np.ndarray) else one for one in arguments]
        self.launches.append((launch, kept))

    def feed(self, array: np.ndarray, values: np.ndarray) -> None:
        """Launches read `values` where they lie, if that is in the order of `array`; else they are copied there."""
        order, readers = axis_order(array.strides), self._readers_of(array)
        given = memory.plain(values).transpose(order)
        alike = values.shape == array.shape and values.dtype == array.dtype and given.flags.c_contiguous
        if readers is None or not alike:
            array[...] = values
            given = array.transpose(order)
        for arguments, i in readers or ():
            arguments[i] = given.reshape(arguments[i].shape)

    def _readers_of(self, array: np.ndarray) -> list[tuple[list[Any], int]] | None:
        """(arguments, place) of all launches that are given the whole `array`; None if one is given a part of it."""
        if id(array) not in self._readers:
            within = [
                (arguments, i)
                for _, arguments in self.launches
                for i, one in enumerate(arguments)
                if isinstance(one, np.ndarray) and np.may_share_memory(one, array)
            ]
            whole = all(arguments[i].nbytes == array.nbytes for arguments, i in within)
            self._readers[id(array)] = array, within if whole else None
        return self._readers[id(array)][1]

    def _launch(self) -> None:
        for launch, arguments in self.launches:
            launch(arguments)


class _Here(threading.local):
    """What the calling thread captures."""

    graph: CpuGraph | None = None


_here = _Here()


def capturing() -> CpuGraph | None:
    """The graph that the calling thread captures its launches in."""
    return _here.graph


@contextmanager
def capture() -> Iterator[CpuGraph]:
    """Within the block the calling thread's launches run nothing, but become a graph.

    What they need is compiled, and derived from constants, before.
    """
    before, _here.graph = _here.graph, CpuGraph()
    try:
        with memory.using(_here.graph.memory):
            yield _here.graph
    finally:
        _here.graph = before


def from_host(make: Callable[[Any], np.ndarray], given: Any, later: Callable[[], Any]) -> np.ndarray:
    """The array make(given); in a graph, one that holds make(later()) in each replay."""
    graph = capturing()
    return make(given) if graph is None else graph.made(lambda: make(later()))
