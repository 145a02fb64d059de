"""From samples to batches: normalisation, shuffling and loading ahead of the consumer.

The order of an epoch is a pure function of (seed, epoch) and the augmentation of a sample one of
(seed, epoch, position), so that a run resumed at any batch sees the batches it would have seen.
"""

import os
import queue
import sys
import threading
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .augment import Augment
from .dataset import Dataset, Sample

ORDER, AUGMENT = range(2)  # tags that keep the random streams apart


@dataclass(frozen=True)
class Normalization:
    """x -> (x - mean) / std with mean (R, G, B) and std (one number or three), in units of 0 .. 255."""

    mean: tuple[float, float, float]
    std: float | tuple[float, float, float]

    def __post_init__(self):
        mean, std = np.asarray(self.mean, float), np.asarray(self.std, float)
        if mean.shape != (3,) or not np.isfinite(mean).all():
            raise DataError(f"normalisation mean {self.mean}: must be three finite numbers")
        if std.shape not in ((), (3,)) or not (np.isfinite(std) & (std > 0)).all():
            raise DataError(f"normalisation std {self.std}: must be one or three finite positive numbers")
        object.__setattr__(self, "mean", tuple(mean.tolist()))
        object.__setattr__(self, "std", tuple(std.tolist()) if std.shape else float(std))

    @classmethod
    def measure(cls, dataset: Dataset, limit: int = 200) -> "Normalization":
        """Mean and standard deviation of each channel over at most `limit` evenly spaced images.

        A standard deviation below one grey level counts as one, so that constant images stay finite.
        """
        moments = ChannelMoments()
        for index in np.unique(np.linspace(0, len(dataset) - 1, min(limit, len(dataset))).astype(int)):
            moments.add(dataset[int(index)].image)
        return cls(moments.mean, tuple(max(s, 1.0) for s in moments.std))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """uint8 [..., 3] RGB to float32 of the same shape."""
        return (image - np.asarray(self.mean, np.float32)) * (1 / np.asarray(self.std, np.float32))


class ChannelMoments:
    """Running mean and standard deviation of the channels of uint8 images, exact in whole numbers."""

    def __init__(self):
        self.count, self.sum, self.squares = 0, np.zeros(3, np.int64), np.zeros(3, np.int64)

    def add(self, image: np.ndarray) -> None:
        """Take in an image uint8 [H, W, 3]."""
        pixels = image.reshape(-1, 3).astype(np.int64)
        self.count += len(pixels)
        self.sum += pixels.sum(0)
        self.squares += (pixels * pixels).sum(0)

    @property
    def mean(self) -> tuple[float, float, float]:
        return tuple((self.sum / self.count).tolist())

    @property
    def std(self) -> tuple[float, float, float]:
        variance = [int(q) * self.count - int(s) ** 2 for q, s in zip(self.squares, self.sum, strict=True)]
        return tuple(float(np.sqrt(v / self.count**2)) for v in variance)


@dataclass(frozen=True)
class Batch:
    """images float32 [N, 3, H, W] with channels last in memory, labels uint8 [N, H, W] ([N, 1, 1] where a sample
    has one class), names of the N samples.
    """

    images: np.ndarray
    labels: np.ndarray
    names: list[str]


def _be_nice() -> None:
    """Let the threads that compute go before this one: they wait for each other at the end of every loop."""
    if sys.platform == "linux":  # elsewhere niceness belongs to the whole process
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)


class Loader:
    """Batches of a data set, made by one background thread up to `ahead` batches before they are asked for.

    The last batch of an epoch may be short. shuffle False gives the data set's own order; draws: samples an epoch, each
    drawn from the whole data set, so with replacement (None: every sample once).
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        normalization: Normalization,
        *,
        seed: int = 0,
        shuffle: bool = True,
        draws: int | None = None,
        augment: Augment | None = None,
        ahead: int = 4,
    ):
        limits = (("batch_size", batch_size, 1), ("ahead", ahead, 1), ("seed", seed, 0), ("draws", draws, 1))
        for name, value, least in limits:
            if value is not None and value < least:
                raise DataError(f"{name} {value}: must be at least {least}")
        if len(dataset) == 0:
            raise DataError("the data set is empty")
        self.dataset, self.batch_size, self.normalization = dataset, batch_size, normalization
        self.seed, self.shuffle, self.draws, self.augment, self.ahead = seed, shuffle, draws, augment, ahead

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-(self.draws or len(self.dataset)) // self.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """The data set indices of an epoch in the order in which they come."""
        if self.draws is not None:
            return self._generator(ORDER, epoch).integers(len(self.dataset), size=self.draws)
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return self._generator(ORDER, epoch).permutation(len(self.dataset))

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """Batches start .. len-1 of an epoch (none if start is len); closing the iterator stops the loading.

        What the data set raises while it is read ahead is raised here, at the batch it belongs to.
        """
        if epoch < 0 or not 0 <= start <= len(self):
            raise DataError(f"epoch {epoch} from batch {start}: epochs count from 0, batches are 0 .. {len(self)}")
        return self._stream(epoch, start)

    def _stream(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        ready: queue.Queue[Batch | BaseException | None] = queue.Queue(self.ahead)
        stop = threading.Event()

        def produce() -> None:
            _be_nice()
            try:
                order = self.order(epoch)
                for number in range(start, len(self)):
                    batch = self._batch(order, epoch, number, stop)
                    if batch is None:
                        return
                    ready.put(batch)
                ready.put(None)
            except BaseException as error:  # whatever it is belongs to the consumer
                ready.put(error)

        thread = threading.Thread(target=produce, name="minifcn-loader", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            while thread.is_alive():  # it may be waiting for room in the queue
                with suppress(queue.Empty):
                    ready.get_nowait()
                thread.join(0.002)

    def _batch(self, order: np.ndarray, epoch: int, number: int, stop: threading.Event) -> Batch | None:
        """Batch `number` of the epoch, or None as soon as `stop` is set."""
        first = number * self.batch_size
        indices = order[first : first + self.batch_size].tolist()
        samples: list[Sample] = []
        for position, index in enumerate(indices, start=first):
            if stop.is_set():
                return None
            sample = self.dataset[index]
            if sample.label is None:
                raise DataError(f"{self.dataset.source(index)}: has no label")
            if self.augment is not None:
                sample = self.augment(sample, self._generator(AUGMENT, epoch, position))
            if samples and sample.image.shape != samples[0].image.shape:
                (h, w), (first_h, first_w) = sample.image.shape[:2], samples[0].image.shape[:2]
                raise DataError(
                    f"{self.dataset.source(indices[0])} is {first_h}x{first_w} (HxW) but "
                    f"{self.dataset.source(index)} is {h}x{w}; a batch needs one size: crop, or use batch size 1"
                )
            samples.append(sample)
        if stop.is_set():
            return None
        images = self.normalization.apply(np.stack([s.image for s in samples])).transpose(0, 3, 1, 2)
        return Batch(images, np.stack([s.label for s in samples]), [s.name for s in samples])

    def _generator(self, *stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, *stream))))
