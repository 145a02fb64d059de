"""What generated data sets share: sample `index` is a pure function of (seed, split, index, size).

The counter-based generator Philox gives each sample a stream of its own, so that samples can be drawn in any
order. Drawn samples are kept in memory up to a bound: only the first epoch draws them.
"""

from abc import abstractmethod

import numpy as np

from ..errors import DataError
from .dataset import Dataset, Sample

STREAMS = {"train": 0, "val": 1}
KEEP_BYTES = 256 * 2**20


class Generated(Dataset):
    """A data set that is drawn, not read; split is "train" or "val" (their random streams never meet).

    size: (H, W), each at least `smallest`; length: that of `lengths` unless given; seed: 0 .. 2**64-1.
    DataError names the argument at fault.
    """

    title: str  # the data set's name in messages
    lengths: tuple[int, int]  # of train and val
    smallest: int

    def __init__(self, split: str, seed: int, size: tuple[int, int], length: int | None):
        if split not in STREAMS:
            raise DataError(f"{self.title} has no split {split!r}; it has {', '.join(STREAMS)}")
        if min(size) < self.smallest:
            raise DataError(
                f"{self.title} of {size[0]}x{size[1]}: height and width must be at least {self.smallest} pixels"
            )
        if not 0 <= seed < 2**64:
            raise DataError(f"{self.title} with seed {seed}: the seed must be 0 .. 2**64-1")
        self.split, self.seed, self.size = split, seed, size
        self.length = self.lengths[STREAMS[split]] if length is None else length
        if not 1 <= self.length < 2**32:
            raise DataError(f"{self.title} of length {length}: the length must be 1 .. 2**32-1")
        self._kept: dict[int, Sample] = {}

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 [H, W, 3] and label uint8 of one sample of `self.size`."""

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of {self.length} {self.title}")
        if index in self._kept:
            return self._kept[index]
        key = np.array([self.seed, (STREAMS[self.split] << 32) + index], np.uint64)
        image, label = self.draw(np.random.Generator(np.random.Philox(key=key)))
        image.flags.writeable = label.flags.writeable = False
        sample = Sample(image, label, self.source(index))
        if len(self._kept) < KEEP_BYTES // (image.nbytes + label.nbytes):
            self._kept[index] = sample
        return sample

    @property
    def kept_bytes(self) -> int:
        first = self[0]
        one = first.image.nbytes + first.label.nbytes
        return min(self.length, KEEP_BYTES // one) * one

    def source(self, index: int) -> str:
        return f"{self.split}_{index:06d}"
