"""A graph: the launches of a step, captured once and replayed as a whole.

    with capture() as graph:        # a device's; nothing runs
        ...                         # launches, on arrays that are there before, or that their kernels allocate
    graph.replay()                  # all of it, as often as wanted

Addresses, and what a launch is given by value, are those of the capture. So what changes from replay to replay lies in
memory: in arrays that are written to before it, or in those of `Graph.made`. Whatever a capture allocates belongs to
its graph, and holds garbage when a replay begins. Nothing but launches may compute on it.

`cpu/graph.py` and `cuda/graph.py` have the graphs of the devices.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np


class Graph:
    """Base of all: what comes from the host, in arrays of the module `xp`."""

    def __init__(self, xp: ModuleType) -> None:
        self._xp = xp
        self._made: list[tuple[Any, Callable[[], np.ndarray]]] = []

    def made(self, make: Callable[[], np.ndarray]) -> Any:
        """An array that holds make() in every replay: of the same shape each time, called just before."""
        values = make()
        self._made.append((self._xp.empty(values.shape, values.dtype), make))
        return self._made[-1][0]

    def feed(self, array: Any, values: Any) -> None:
        """From the next replay on, launches find `values`, of the same shape, where they were given `array`."""
        array[...] = values

    def replay(self) -> None:
        """Run all launches of the capture, after whatever the device was told before."""
        for array, make in self._made:
            array[...] = self._xp.asarray(make())
        self._launch()

    def _launch(self) -> None:
        raise NotImplementedError
