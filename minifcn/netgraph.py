"""A network's launches as one graph: which networks one can hold, and until when it holds.

The graph of a training step (`stepgraph.py`) and that of an inference (`labelgraph.py`) are both of this kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import MinifcnError
from .kernels.graph import Graph
from .kernels.settings import settings
from .models.trunk import Trunk
from .nn.module import Parameter


class NetworkGraph:
    """Base of both: launches of a network, captured under the settings and with the parameters' arrays of then.

    Raises MinifcnError for a device other than cpu, cuda and cuda-sim, and for a network that computes without a
    launch.
    """

    what: str  # it is, in messages

    def __init__(self, network: Trunk) -> None:
        self.network, self.place = network, next(iter(network.parameters())).place
        if not self.place.captures:
            raise MinifcnError(f"{self.what} needs device cpu, cuda or cuda-sim, not {self.place.name}")
        if network.unlaunched:
            raise MinifcnError(f"{self.what} cannot hold this network: it {network.unlaunched}")
        self.graph: Graph | None = None
        self._settings: tuple[Any, ...] = ()
        self._arrays: list[tuple[Parameter, Any]] = []

    def release(self) -> None:
        """Let go of the graph's memory: there must be a capture before the next replay."""
        self.graph = None

    def like(self, images: Any) -> Any:
        """Memory for `images` [N, C, H, W], channels last, which lives as long as the graph."""
        N, C, H, W = images.shape
        return self.place.xp.empty((N, H, W, C), images.dtype).transpose(0, 3, 1, 2)

    def note(self) -> None:
        """What is captured from now on is of these settings and arrays."""
        self._settings = settings.state()
        self._arrays = [(parameter, parameter.data) for parameter in self.network.parameters()]

    @property
    def unchanged(self) -> bool:
        """Whether settings and arrays are those that were noted; a parameter that is frozen or replaced has others."""
        return self._settings == settings.state() and all(one.data is noted for one, noted in self._arrays)

    @contextmanager
    def capture(self) -> Iterator[None]:
        """Within the block the network's launches run nothing, but become the graph."""
        with self.place.capture() as graph:
            yield
        self.graph = graph
