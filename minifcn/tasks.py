"""What segmentation and classification do not share: network, loss, scores, and pictures of samples.

Everything else of a training is the same (`training.py`): classification is the segmentation of pictures that have one
label each.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL.Image import Image

from . import checkpoint, viz
from .configuration import TrainConfig
from .data import Dataset, Sample
from .device import Device
from .errors import TrainingError
from .metrics import Scores
from .models import FCN, Classifier
from .recognizer import Recognizer
from .segmenter import Segmenter
from .tensor import Tensor


class Task(ABC):
    """name: as data sets and settings call it; predictor: its network in use; unit: what a label belongs to.

    Of the scores (attributes of `Scores`): columns, those in metrics.csv with their names there; shown, those of a line
    an epoch with their titles; best, the one that decides which weights are kept, and its title.
    """

    name: str
    predictor: type[Segmenter]
    unit: str
    columns: tuple[tuple[str, str], ...]
    shown: tuple[tuple[str, str], ...]
    best: str
    title: str

    def check(self, dataset: Dataset, data: str) -> None:
        """Raise TrainingError unless the data set, called `data`, is one for this task."""
        if dataset.task != self.name:
            raise TrainingError(f"data {data} is for task {dataset.task!r}, but the network's task is {self.name!r}")

    def network_settings(self, config: TrainConfig, dataset: Dataset) -> dict[str, Any]:
        """The settings of `models.build`."""
        chosen = {"fc": config.fc, "input_size": config.input_size}  # new settings: absent where they are not set
        return {
            "model": config.model,
            "backbone": config.backbone,
            "classes": len(dataset.classes),
            "width": config.width,
            "dropout": config.dropout,
        } | {name: value for name, value in chosen.items() if value is not None}

    @abstractmethod
    def loss(self, network: Any, images: Tensor, labels: np.ndarray, weight: Any, reduction: str) -> Tensor:
        """The loss of a batch, labels as of `data.Batch`."""

    @abstractmethod
    def sheet(self, samples: Sequence[Sample], predictions: Sequence[np.ndarray], dataset: Dataset) -> Image:
        """A picture of samples beside what is predicted for them."""

    def row(self, scores: Scores) -> dict[str, float]:
        """The columns of metrics.csv."""
        return {column: getattr(scores, name) for column, name in self.columns}

    def score(self, scores: Scores) -> float:
        """The score that decides which weights are the best."""
        return getattr(scores, self.best)


class Segmentation(Task):
    """A class for every pixel, by an FCN; judged by the mean IU."""

    name, predictor, unit = "segment", Segmenter, "pixel"
    columns = tuple((name, name) for name in ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu"))
    shown = (("pixel accuracy", "pixel_accuracy"), ("mean IU", "mean_iu"))
    best, title = "mean_iu", "mean IU"

    def network_settings(self, config: TrainConfig, dataset: Dataset) -> dict[str, Any]:
        return super().network_settings(config, dataset) | {"geometry": config.geometry, "deconv": config.deconv}

    def loss(self, network: FCN, images: Tensor, labels: np.ndarray, weight: Any, reduction: str) -> Tensor:
        return network.loss(images, labels, weight, reduction=reduction)

    def sheet(self, samples: Sequence[Sample], predictions: Sequence[np.ndarray], dataset: Dataset) -> Image:
        """Image, label and prediction side by side."""
        images, labels = [sample.image for sample in samples], [sample.label for sample in samples]
        return viz.sample_sheet(images, labels, predictions, dataset.palette, dataset.classes)


class Classification(Task):
    """One class for a picture, by a classifier; judged by the accuracy (top-1)."""

    name, predictor, unit = "classify", Recognizer, "image"
    columns = (("accuracy", "pixel_accuracy"), ("mean_accuracy", "mean_accuracy"))  # a picture counts as a pixel
    shown = (("accuracy", "pixel_accuracy"), ("mean accuracy of classes", "mean_accuracy"))
    best, title = "pixel_accuracy", "accuracy"

    def network_settings(self, config: TrainConfig, dataset: Dataset) -> dict[str, Any]:
        height, width = config.crop or dataset[0].image.shape[:2]
        if height != width:
            raise TrainingError(f"data {config.data}: a classifier's images are square, these are {height}x{width}")
        return {"input_size": height} | super().network_settings(config, dataset)

    def loss(self, network: Classifier, images: Tensor, labels: np.ndarray, weight: Any, reduction: str) -> Tensor:
        return network.loss(images, labels[:, 0, 0], weight, reduction=reduction)

    def sheet(self, samples: Sequence[Sample], predictions: Sequence[np.ndarray], dataset: Dataset) -> Image:
        """Images, and the colours of their classes and of the predicted ones."""
        images = [sample.image for sample in samples]

        def filled(labels: Sequence[np.ndarray]) -> list[np.ndarray]:
            return [
                np.full(image.shape[:2], label.item(), np.uint8) for image, label in zip(images, labels, strict=True)
            ]

        labels = filled([sample.label for sample in samples])
        return viz.sample_sheet(images, labels, filled(predictions), dataset.palette, dataset.classes)


TASKS: dict[str, Task] = {task.name: task for task in (Segmentation(), Classification())}


def load(path: str | os.PathLike, device: str | Device = "cpu") -> tuple[Task, Segmenter]:
    """The task and the network in use of a run's folder or a checkpoint file. Raises CheckpointError."""
    about = checkpoint.about(checkpoint.find(path))
    task = TASKS["classify" if about.get("network", {}).get("model") == "classifier" else "segment"]
    return task, task.predictor.load(path, device)
