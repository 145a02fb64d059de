"""A trained network in use: from a photograph to a label picture, and from a data set to its scores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import checkpoint, models
from .data import Dataset, Normalization
from .device import Device
from .errors import CheckpointError, DataError
from .labelgraph import LabelGraph
from .metrics import ConfusionMatrix
from .models import FCN
from .tensor import Tensor, no_grad
from .tiling import tiled


class Segmenter:
    """A network together with what its inputs and outputs mean.

    network: in evaluation mode, frozen while it is in use; normalization: of its input; classes, palette: names and RGB
    colours of its outputs; tile: (height, width), where an image is to be labelled in tiles (None: whole), which makes
    no difference but in memory and time.
    """

    network_type: type = FCN
    tile: tuple[int, int] | None = None

    def __init__(
        self, network: FCN, normalization: Normalization, classes: tuple[str, ...], palette: np.ndarray
    ) -> None:
        self.network, self.normalization = network, normalization
        self.classes, self.palette = tuple(classes), np.asarray(palette, np.uint8)
        self.graph: LabelGraph | None = None  # of images of the size that was labelled last, on the CPU

    @classmethod
    def load(cls, path: str | os.PathLike, device: str | Device = "cpu") -> Segmenter:
        """From a run's folder (its best weights) or a checkpoint file, its network frozen. Raises CheckpointError."""
        file = checkpoint.find(path)
        saved = checkpoint.load(file)
        try:
            network = models.build(**saved.about["network"])
            data = saved.about["data"]
            normalization = Normalization(data["mean"], data["std"])
            classes, palette = data["classes"], data["palette"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{file}: its header lacks or misnames {error}") from error
        if not isinstance(network, cls.network_type):
            model = saved.about["network"]["model"]
            raise CheckpointError(f"{file}: holds a {model}, which {cls.__name__} cannot use")
        network.load_state_dict(saved.weights)
        return cls(network.to(device).eval().freeze(), normalization, classes, palette)

    def input(self, images: np.ndarray) -> Tensor:
        """What the network, now in evaluation mode, takes for RGB images uint8 [N, H, W, 3]."""
        first = next(iter(self.network.parameters()))
        x = self.normalization.apply(images).transpose(0, 3, 1, 2).astype(first.dtype, copy=False)
        self.network.eval()
        return Tensor(x, device=first.place)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Class scores [N, C, H, W] of RGB images uint8 [N, H, W, 3], any size."""
        with no_grad(), self.network.frozen():
            return self.network(self.input(images)).numpy()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The most likely class of every pixel, uint8 [H, W], of an RGB image uint8 [H, W, 3].

        For many images, `with segmenter.network.frozen():` around all of them has weights prepared once; after `load`
        they always are.
        """
        with self.network.frozen():
            return tiled(self._labels, self.network, image, self.tile) if self.tile else self._labels(image)

    def _labels(self, image: np.ndarray) -> np.ndarray:
        x = self.input(image[None])
        if x.device != "cpu" or x.place.replacements or self.network.unlaunched:
            labels = self.network.labels(x)
        else:
            if self.graph is None or self.graph.network is not self.network:
                self.graph = LabelGraph(self.network)
            labels = self.graph(x)
        return labels[0].astype(np.uint8, copy=False)

    def release(self) -> None:
        """Let go of the memory that is kept for the next image of the same size."""
        self.graph = None

    def check_classes(self, dataset: Dataset) -> None:
        """Raise CheckpointError unless the data set has this network's number of classes."""
        if len(dataset.classes) != len(self.classes):
            raise CheckpointError(
                f"the network was trained for {len(self.classes)} classes ({', '.join(self.classes)}), but the data "
                f"set has {len(dataset.classes)} ({', '.join(dataset.classes)})"
            )

    def evaluate(self, dataset: Dataset) -> ConfusionMatrix:
        """The confusion matrix over all labelled pixels of `dataset`, image by image at its own size."""
        return sum_confusion(self.confusions(dataset), len(self.classes))

    def confusions(self, dataset: Dataset) -> Iterator[ConfusionMatrix]:
        """One confusion matrix an image, so that a caller can show progress."""
        self.check_classes(dataset)
        with self.network.frozen():
            for index in range(len(dataset)):
                sample = dataset[index]
                if sample.label is None:
                    raise DataError(f"{dataset.source(index)}: has no label to compare with")
                confusion = ConfusionMatrix(len(self.classes))
                confusion.update(sample.label, self(sample.image))
                yield confusion


def sum_confusion(confusions: Any, classes: int) -> ConfusionMatrix:
    """The sum of confusion matrices."""
    total = ConfusionMatrix(classes)
    for confusion in confusions:
        total = total + confusion
    return total
