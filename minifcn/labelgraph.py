"""Images to class labels as one graph: the launches of a frozen network, captured once and then replayed as a whole.

Between two kernels of a small network Python takes as long as the smaller of them. For images of one shape it is always
the same launches, with the same weights; only the images change, and are written to memory at addresses that the graph
knows.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from .errors import MinifcnError
from .models.fcn import FCN
from .netgraph import NetworkGraph
from .tensor import Tensor


class LabelGraph(NetworkGraph):
    """`network.labels`, replayed for images of the shape that the call before had.

    The first call of a shape launches its kernels one by one, which compiles them and prepares the weights; the second
    one captures them. The memory of the last shape is kept until `release`. Bits are those of `network.labels`. Raises
    MinifcnError as a NetworkGraph, and in a call for a network that is not frozen or not in evaluation mode.
    """

    what = "a graph of labels"

    def __init__(self, network: FCN) -> None:
        super().__init__(network)
        self._lock = threading.Lock()  # a graph has one memory for all callers
        self.release()

    def release(self) -> None:
        """Let go of the memory of the last shape."""
        super().release()
        self.form: tuple[Any, ...] | None = None

    def __call__(self, images: Tensor) -> np.ndarray:
        """The class with the largest score of every pixel, [N, H, W], of images [N, 3, H, W]."""
        with self._lock:
            form = (images.data.shape, images.dtype)
            if form != self.form or self.network.training or not self.unchanged:
                return self._launch(images, form)
            if self.graph is None:
                self._capture(images)
            self.graph.feed(self.images, images.data)
            self.graph.replay()
            return self.network.as_labels(self.found).copy()

    def _launch(self, images: Tensor, form: tuple[Any, ...]) -> np.ndarray:
        if self.network.training or not all(parameter.is_frozen for parameter in self.network.parameters()):
            raise MinifcnError(f"{self.what} needs a network in evaluation mode that is frozen: eval().freeze()")
        self.release()
        self.note()
        self.form = form
        return self.network.labels(images)

    def _capture(self, images: Tensor) -> None:
        self.images = self.like(images)
        with self.capture():
            self.found = self.network.labels_or_logits(Tensor(self.images, device=self.place))
