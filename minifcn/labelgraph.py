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
from .kernels.settings import settings
from .models.fcn import FCN
from .nn.module import Parameter
from .tensor import Tensor


class LabelGraph:
    """`network.labels`, replayed for images of the shape that the call before had.

    The first call of a shape launches its kernels one by one, which compiles them and prepares the weights; the second
    one captures them. The memory of the last shape is kept until `release`. Bits are those of `network.labels`. Raises
    MinifcnError for a device other than cpu, cuda and cuda-sim, for a network that reorders maps without a launch, and
    in a call for one that is not frozen or not in evaluation mode.
    """

    def __init__(self, network: FCN) -> None:
        place = next(iter(network.parameters())).place
        if not place.captures:
            raise MinifcnError(f"labels by one graph need device cpu, cuda or cuda-sim, not {place.name}")
        if not network.only_launches:
            raise MinifcnError(
                "labels by one graph need a network that upsamples by kernels: not this fixed upsampling"
            )
        self.network, self.place = network, place
        self._lock = threading.Lock()  # a graph has one memory for all callers
        self.release()

    def release(self) -> None:
        """Let go of the memory of the last shape."""
        self.form: tuple[Any, ...] | None = None
        self.weights: list[tuple[Parameter, Any]] = []
        self.graph: Any = None

    def __call__(self, images: Tensor) -> np.ndarray:
        """The class with the largest score of every pixel, [N, H, W], of images [N, 3, H, W]."""
        with self._lock:
            form = (images.data.shape, images.dtype, settings.state())
            if form != self.form or self.network.training or self._has_other_weights():
                return self._launch(images, form)
            if self.graph is None:
                self._capture(images)
            self.graph.feed(self.images, images.data)
            self.graph.replay()
            return self.network.as_labels(self.found).copy()

    def _has_other_weights(self) -> bool:
        """A parameter that was frozen, and is so no longer or again, has another array."""
        return any(parameter.data is not known for parameter, known in self.weights)

    def _launch(self, images: Tensor, form: tuple[Any, ...]) -> np.ndarray:
        parameters = self.network.parameters()
        if self.network.training or not all(parameter.is_frozen for parameter in parameters):
            raise MinifcnError("labels by one graph need a network in evaluation mode that is frozen: eval().freeze()")
        self.release()
        self.form, self.weights = form, [(parameter, parameter.data) for parameter in parameters]
        return self.network.labels(images)

    def _capture(self, images: Tensor) -> None:
        N, C, H, W = images.shape
        self.images = self.place.xp.empty((N, H, W, C), images.dtype).transpose(0, 3, 1, 2)
        with self.place.capture() as graph:
            self.found = self.network.labels_or_logits(Tensor(self.images, device=self.place))
        self.graph = graph
