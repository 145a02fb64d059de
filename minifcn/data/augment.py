"""Random variation of training samples: scale, flip, crop and colour.

Every geometric step moves image and label by the same map; only the filter differs (bilinear for the
image, nearest for the label, since class numbers cannot be averaged). The one class of a whole picture stays.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..errors import DataError
from .dataset import IGNORE, Sample

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Augment:
    """Scale, then flip, then crop, then jitter; called with a sample and a generator it gives a new sample.

    flip: mirror left to right with probability 1/2. scale: bounds of a uniform factor on height and width.
    crop: (H, W) of a uniformly placed cut-out; a smaller picture is padded, the image with its mean colour
    and the label with IGNORE. jitter: brightness, contrast and saturation are each multiplied by a uniform
    factor of 1 - jitter .. 1 + jitter.
    """

    flip: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    crop: tuple[int, int] | None = None
    jitter: float = 0.0

    def __post_init__(self):
        low, high = self.scale
        if not 0 < low <= high < float("inf"):
            raise DataError(f"scale {low} .. {high}: the bounds must be positive and in order")
        if self.crop is not None and not all(isinstance(n, int) and n >= 1 for n in self.crop):
            raise DataError(f"crop {self.crop}: height and width must be whole numbers of at least 1")
        if not 0 <= self.jitter < 1:
            raise DataError(f"jitter {self.jitter}: must be at least 0 and below 1")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        image, label = sample.image, sample.label if sample.dense else None
        factor = rng.uniform(*self.scale)
        mirrored = rng.random() < 0.5
        place = rng.random(2)
        colour = rng.uniform(1 - self.jitter, 1 + self.jitter, 3)
        if self.scale != (1.0, 1.0):
            size = max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))
            image = _resize(image, size, Image.Resampling.BILINEAR)
            label = None if label is None else _resize(label, size, Image.Resampling.NEAREST)
        if self.flip and mirrored:
            image, label = image[:, ::-1], None if label is None else label[:, ::-1]
        if self.crop is not None:
            mean = np.rint(image.mean((0, 1))).astype(np.uint8)
            image, label = (
                _crop(image, self.crop, place, mean),
                None if label is None else _crop(label, self.crop, place, IGNORE),
            )
        if self.jitter:
            image = _jitter(image, *colour)
        label = np.ascontiguousarray(label) if sample.dense else sample.label
        return replace(sample, image=np.ascontiguousarray(image), label=label)


def _resize(array: np.ndarray, size: tuple[int, int], method: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(array).resize((size[1], size[0]), method))


def _crop(array: np.ndarray, size: tuple[int, int], place: np.ndarray, fill) -> np.ndarray:
    """Cut or pad each axis to `size`; place (0 .. 1 an axis) chooses where."""
    result = np.empty((*size, *array.shape[2:]), array.dtype)
    result[:] = fill
    source, target = [], []
    for have, want, share in zip(array.shape[:2], size, place, strict=True):
        offset = int(share * (abs(have - want) + 1))
        length = min(have, want)
        source.append(slice(offset, offset + length) if have > want else slice(length))
        target.append(slice(offset, offset + length) if have < want else slice(length))
    result[tuple(target)] = array[tuple(source)]
    return result


def _jitter(image: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    value = image.astype(np.float32) * np.float32(brightness)
    grey = value @ LUMA
    middle = grey.mean()
    value = grey[..., None] + np.float32(saturation) * (value - grey[..., None])
    value = middle + np.float32(contrast) * (value - middle)
    return np.clip(value + 0.5, 0, 255).astype(np.uint8)
