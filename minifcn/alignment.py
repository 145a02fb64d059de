"""Where every pixel of an FCN looks: the coordinate map step by step, the crops that follow from it, and a measurement.

Derivation. Every layer is an affine map of coordinates, u = a x + b (`kernels.geometry`). Following the network from
the image and multiplying the maps out, in exact rationals, says where each pixel of each feature map lies. Two maps
of one scale can be laid on each other by cropping one by the difference of their b: that is the offset. It does not
depend on the image's size. A centred crop drops half of the surplus rows instead, which does.

Measurement. A picture of coordinates, with the channels (row, column, 1), goes through the network's own forward pass
after every layer has been given weights that show geometry only: convolutions copy their centre, poolings take the
mean of their window, upsampling interpolates. An aligned network gives the picture back. The third channel stays 1
only where no padding and no edge has come in, so it says which pixels count (homogeneous coordinates).

Source: Long, Shelhamer and Darrell, 2015, and the `coord_map` of the code they released.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from . import ops
from .errors import MinifcnError
from .kernels import geometry
from .kernels.checks import ShapeError
from .kernels.geometry import CoordinateMap
from .models import FCN
from .nn import LRN, BilinearUpsample, Conv2d, ConvTranspose2d, Dropout, Layer, MaxPool2d
from .tensor import Tensor, no_grad

# --- derivation --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One layer that moves coordinates: its window, its own map, and the map from the image to its output."""

    layer: str
    source: str  # the layer, or "image", that it reads
    kind: str  # "convolution", "pooling" or "upsampling"
    window: int
    stride: int  # of an upsampling: its factor
    padding: int
    own: CoordinateMap
    total: CoordinateMap
    ceil_mode: bool = False  # of a pooling: whether it keeps an incomplete last window


@dataclass(frozen=True)
class Crop:
    """One map cut down to another: `total` and `reference_total` are their maps from the image."""

    layer: str  # whose output is cropped
    reference: str  # the layer, or "image", whose size and place it takes
    total: CoordinateMap
    reference_total: CoordinateMap

    @property
    def offset(self) -> int:
        """Rows (and columns) to drop at the start, so that both maps lie on each other."""
        return geometry.crop_offset(self.total, self.reference_total)

    def surplus(self, sizes: dict[str, int]) -> int:
        """Rows that the map has more than its reference, at the `sizes` of `Derivation.sizes`."""
        return sizes[self.layer] - sizes[self.reference]

    def centred_shift(self, sizes: dict[str, int]) -> Fraction:
        """Image pixels by which a centred crop, which drops surplus // 2 rows at the start, looks too far down.

        Negative: too far up.
        """
        return (self.surplus(sizes) // 2 - self.offset) / self.total.scale


def _window(layer: Layer) -> tuple[str, int, int, int] | None:
    """(kind, window, stride, padding) of a layer, None of one that works element by element."""
    match layer:
        case Conv2d():
            return "convolution", layer.weight.shape[2], layer.stride, layer.padding
        case MaxPool2d():
            return "pooling", layer.window, layer.stride, layer.padding
        case BilinearUpsample():
            return "upsampling", layer.window, layer.factor, layer.padding
        case ConvTranspose2d():
            return "upsampling", layer.weight.shape[2], layer.factor, layer.padding
    return None


@dataclass(frozen=True)
class Derivation:
    """A network's coordinate map, step by step in the order of the forward pass, and the crops that follow from it."""

    steps: list[Step]
    crops: list[Crop]

    def sizes(self, size: int, ceil_mode: bool = True) -> dict[str, int]:
        """Rows of the image and of every step's output before any crop, for an image of `size` rows.

        `ceil_mode` False asks what would be if poolings dropped an incomplete last window. Raises ShapeError where a
        window does not fit, or a crop leaves its map.
        """
        found = {"image": size}
        for step in self.steps:
            rows, window = found[step.source], (step.window, step.stride, step.padding)
            if step.kind == "pooling":
                found[step.layer] = geometry.pool_size(rows, *window, 1, ceil_mode and step.ceil_mode)
            elif step.kind == "upsampling":
                found[step.layer] = geometry.conv_transpose_size(rows, *window, 1, 0)
            else:
                found[step.layer] = geometry.conv_size(rows, *window, 1)
        for crop in self.crops:
            has, needs = found[crop.layer], crop.offset + found[crop.reference]
            if has < needs:
                raise ShapeError(f"{crop.layer} has {has} rows for an image of {size}, but its crop needs {needs}")
        return found

    def infeasible(self, candidates: Iterable[int], ceil_mode: bool = True) -> list[int]:
        """The sizes among `candidates` at which a window or a crop does not fit; `ceil_mode` as in `sizes`."""

        def fits(size: int) -> bool:
            try:
                self.sizes(size, ceil_mode)
            except ShapeError:
                return False
            return True

        return [size for size in candidates if not fits(size)]


def derive(model: FCN) -> Derivation:
    """The coordinate map of `model`, multiplied out from its layers."""
    steps: dict[str, Step] = {}
    crops: list[Crop] = []

    def follow(layer: str, source: str) -> CoordinateMap:
        module = getattr(model, layer)
        own, before = module.coordinate_map(), steps[source].total if source in steps else CoordinateMap()
        ceil_mode = isinstance(module, MaxPool2d) and module.ceil_mode
        steps[layer] = Step(layer, source, *_window(module), own, before.then(own), ceil_mode)
        return steps[layer].total

    current = "image"
    for name in model.trunk:
        if _window(getattr(model, name)):
            follow(name, current)
            current = name
    for up, pool, score in model.skips:
        totals = {up: follow(up, current), score: follow(score, pool)}
        cropped, reference = (score, up) if score in model.offsets else (up, score)
        crops.append(Crop(cropped, reference, totals[cropped], totals[reference]))
        current = reference  # their sum lies where the map lies that was not cropped
    crops.append(Crop(model.last_upsampling, "image", follow(model.last_upsampling, current), CoordinateMap()))
    return Derivation(list(steps.values()), crops)


# --- measurement -------------------------------------------------------------------------------------------------


class _WindowMean(Layer):
    """The mean of whole pooling windows; what hangs over the edge counts as 0, so that it shows in the channel of 1."""

    def __init__(self, pool: MaxPool2d) -> None:
        self.window = (pool.window, pool.stride, pool.padding)
        self.ceil_mode = pool.ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        geo = geometry.pool2d(x.shape, *self.window, ceil_mode=self.ceil_mode)
        share = np.outer(*geometry.window_counts(geo, include_pad=False)) / (geo.R * geo.S)
        y = ops.avg_pool2d(x, *self.window, self.ceil_mode, count_include_pad=False)
        return ops.multiply(y, Tensor(share, device=x.place))


def _copying(layer: Conv2d, channels: np.ndarray) -> Conv2d:
    """A convolution of `layer`'s window that copies its centre, `channels` [K, C] saying which to which.

    The centre of an even window is the mean of the elements beside it.
    """
    probe = Conv2d(*channels.shape[::-1], layer.weight.shape[2], layer.stride, layer.padding, dtype=np.float64)
    window = layer.weight.shape[2]
    centre = np.zeros(window)
    centre[(window - 1) // 2] += 0.5
    centre[window // 2] += 0.5
    probe.weight.data[...] = channels[:, :, None, None] * np.outer(centre, centre)
    return probe


def _probe(model: FCN, scores: list[str]) -> FCN:
    """A copy of `model` whose forward pass shows geometry only; three channels for each score layer's stream."""
    probe = copy.copy(model)
    probe.skip_scales = {}
    identity, streams = np.eye(3), len(scores)
    for name, layer in vars(model).items():
        match layer:
            case Conv2d() if name in scores:  # channels of its own, so that a sum keeps the streams apart
                channels = np.zeros((streams, 3, 3))
                channels[scores.index(name)] = identity
                setattr(probe, name, _copying(layer, channels.reshape(-1, 3)))
            case Conv2d():
                setattr(probe, name, _copying(layer, identity))
            case MaxPool2d():
                setattr(probe, name, _WindowMean(layer))
            case LRN():
                setattr(probe, name, LRN(layer.size, alpha=0.0))
            case ConvTranspose2d():
                window = layer.weight.shape[2]
                setattr(probe, name, ConvTranspose2d(3 * streams, layer.factor, layer.padding, np.float64, window))
            case Dropout():
                setattr(probe, name, Dropout(0, layer.layer))
    return probe


def ramp_errors(model: FCN, size: tuple[int, int], device: str = "reference") -> dict[str, float]:
    """Largest distance, in image pixels along either axis, between where a score lies and where it was computed.

    `size` is (H, W) of the image; one number for each stream, named after its score layer: score_fr, score_pool4,
    score_pool3. Raises MinifcnError where the image is too small for a pixel that no padding or edge has reached.
    """
    H, W = size
    scores = ["score_fr", *(score for _, _, score in model.skips)]
    rows, columns = np.mgrid[:H, :W].astype(np.float64)
    picture = np.stack([rows, columns, np.ones((H, W))])
    with no_grad():
        y = _probe(model, scores).to(device)(Tensor(picture[None], device=device)).numpy()
    errors = {}
    for score, (row, column, one) in zip(scores, y.reshape(len(scores), 3, H, W), strict=True):
        inside = one > 1 - 1e-9
        if not inside.any():
            raise MinifcnError(f"size (={H}x{W}) is too small to measure: padding or an edge reaches all of {score}")
        errors[score] = float(np.abs([row - rows, column - columns])[:, inside].max())
    return errors


def ramp_error(model: FCN, size: tuple[int, int], device: str = "reference") -> float:
    """The largest of `ramp_errors`: 0.0, to float64 rounding, for an aligned network."""
    return float(np.max(list(ramp_errors(model, size, device).values())))
