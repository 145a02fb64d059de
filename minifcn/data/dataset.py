"""What a data set is: a sequence of samples with class names and colours.

A label holds class numbers 0 .. C-1 and IGNORE (255, "void" in PASCAL VOC) where no class is given;
losses and metrics leave such pixels out.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

IGNORE = 255


@dataclass(frozen=True)
class Sample:
    """One picture: image uint8 [H, W, 3] RGB, label uint8 (None where there is none), name without suffix.

    The label is [H, W], a class a pixel, or in classification [1, 1], one class for the whole picture.
    """

    image: np.ndarray
    label: np.ndarray | None
    name: str

    @property
    def dense(self) -> bool:
        """Whether the label has a class for every pixel, so that it must move and scale with the image."""
        return self.label is not None and (self.label.shape != (1, 1) or self.image.shape[:2] == (1, 1))


class Dataset(ABC):
    """A finite, indexable set of samples; reading an index twice gives the same sample.

    classes: the C class names, palette: uint8 [C, 3] RGB, void: the label value that is left out,
    task: "segment" where labels are [H, W], "classify" where they are [1, 1] and all images of one size.
    """

    classes: tuple[str, ...]
    palette: np.ndarray
    void: int = IGNORE
    task: str = "segment"

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Sample `index` (0 .. len-1; IndexError outside)."""

    @property
    def kept_bytes(self) -> int:
        """Memory that samples will take once all of them were read: none, where they are files."""
        return 0

    def source(self, index: int) -> str:
        """Where sample `index` comes from, for messages: a file, or the name of a generated sample."""
        return self[index].name
