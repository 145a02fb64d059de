"""FCN-32s, FCN-16s, FCN-8s and FCN-8s-at-once (Long, Shelhamer and Darrell, 2015; Shelhamer et al., 2017).

A VGG classifier whose fully connected layers are convolutions scores every 32nd pixel; bilinear upsampling brings
the scores back to full size. The skips of 16s and 8s add scores from pool4 and pool3 before the last upsampling:

    32s   score_fr --x32--> crop
    16s   score_fr --x2--> + score_pool4 --x16--> crop
    8s    score_fr --x2--> + score_pool4 --x2--> + score_pool3 --x8--> crop

Layer names are those of the released Caffe nets. Two geometries serve one set of weights:

    pad100  conv1_1 pads by 100 and fc6 by nothing, so that any image leaves fc6 an output; every map is larger than
            needed, and crops align them (19; 5, 27; 5, 9, 31 pixels). The released nets.
    exact   every layer pads by half its window, so that each map has exactly ceil(H / stride) rows, and all crops are
            at offset 0. Up to 40 % less work, and the default.

AlexNet has FCN-32s only. Its scores are centred on pixels of the image, where VGG's lie between two, so its upsampling
has a window of 63 for 64 and keeps its border; the crop of pad100 is 18. As fc6's window of 6 is even, it gives one row
more in the exact geometry, whose crop is 47.

No offset is typed in: each is the difference of two coordinate maps (`kernels.geometry.crop_offset`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..errors import MinifcnError
from ..kernels import geometry
from ..kernels.checks import expect_shape, label_dtype
from ..kernels.geometry import CoordinateMap
from ..nn import BilinearUpsample, Conv2d, ConvTranspose2d, Layer
from ..ops.cross_entropy import IGNORE_INDEX
from ..ops.storage import stored, widened
from ..tensor import Tensor, no_grad
from . import checks
from .trunk import Trunk, expect_images

GEOMETRIES = ("exact", "pad100")
DECONVS = ("fixed", "learned")
SKIPS = {"pool4": (16, "upscore2"), "pool3": (8, "upscore_pool4")}  # by pooling: its stride, the upsampling to it
AT_ONCE_SCALES = {"pool4": 0.01, "pool3": 0.0001}  # Shelhamer et al., 2017, and the released at-once net

# With pad100 a larger window of fc6 makes the score map smaller. With a smaller one than these, by stride, some images
# have skips that are smaller than the map that they are cropped to.
LEAST_WINDOW = {32: 1, 16: 3, 8: 4}


class FCN(Trunk):
    """Images [N, 3, H, W] to class scores [N, classes, H, W], for any H, W >= 1.

    stride: 32, 16 or 8, of the finest scores; skip_scales: fixed factors on the skip features, by pooling layer;
    deconv: upsampling "fixed" bilinear or "learned" from there; width: multiplies all channel numbers; fc: channels of
    fc6 and fc7 (None: the backbone's, times width); input_size: of the images of the classifier whose fc6 this one's
    window is taken from (None: the backbone's own); dropout: probability after fc6 and fc7. Score layers start at zero,
    all other convolutions He-initialised from `seed`. Raises MinifcnError for a setting out of range.
    """

    def __init__(
        self,
        stride: int,
        backbone: str = "vgg16",
        classes: int = 21,
        geometry: str = "exact",
        width: float = 1.0,
        deconv: str = "fixed",
        dropout: float = 0.5,
        fc: int | None = None,
        input_size: int | None = None,
        skip_scales: dict[str, float] | None = None,
        seed: int = 0,
        dtype: Any = np.float32,
    ) -> None:
        checks.one_of("stride", stride, (32, 16, 8))
        checks.one_of("geometry", geometry, GEOMETRIES)
        checks.one_of("deconv", deconv, DECONVS)
        super().__init__(geometry, backbone, classes, width, fc, input_size, dropout, seed, dtype)
        if stride < 32 and not self.plan.skips:
            raise MinifcnError(f"stride (={stride}) must be 32 over {backbone}, which has no skips to make it finer")
        self.padded, self.deconv = geometry == "pad100", deconv
        if self.padded and self.plan.fc6_window < LEAST_WINDOW[stride]:
            raise MinifcnError(
                f"input_size (={self.plan.input_size}) leaves fc6 a window of {self.plan.fc6_window}, but "
                f"FCN-{stride}s with geometry pad100 needs one of at least {LEAST_WINDOW[stride]}"
            )
        self._add("score_fr", Conv2d(self.plan.fc, self.classes, 1, dtype=self.dtype))
        self.offsets: dict[str, int] = {}  # by the layer whose output is cropped
        self._build_head(stride)
        self.skip_scales = dict(skip_scales or {})
        checks.factors("skip_scales", self.skip_scales, [pool for _, pool, _ in self.skips])

    # --- construction ---

    def _fully_connected(self, C: int, K: int, window: int, rng: np.random.Generator) -> Conv2d:
        padding = window // 2 if self.geometry == "exact" else 0
        return Conv2d(C, K, window, padding=padding, relu=True, rng=rng, dtype=self.dtype)

    def _upsampling(self, factor: int, source: CoordinateMap, target: CoordinateMap) -> Layer:
        """Upsampling by `factor` of a map that lies at `source`, for a crop to one that lies at `target`.

        Its window is 2 F, unless half a pixel would be left between the two: then it is 2 F - 1.
        """
        window = geometry.bilinear_window(factor)
        upscored = source.then(geometry.conv_transpose_map(window, factor))
        if (upscored.shift - target.shift).denominator != 1:
            window -= 1
        padding = 0 if self.padded or window % 2 else geometry.bilinear_padding(factor)
        if self.deconv == "learned":
            return ConvTranspose2d(self.classes, factor, padding, self.dtype, window)
        return BilinearUpsample(factor, padding, window)

    def _build_head(self, stride: int) -> None:
        """Upsampling and skips; each crop's offset is derived from the maps of the two layers it joins."""
        maps = self.coordinate_maps()
        current = maps["score_fr"]
        self.skips: list[tuple[str, str, str]] = []  # (upsampling, pooling, its score layer)
        coarse = 32
        for pool in self.plan.skips:
            finer, up = SKIPS[pool]
            if stride > finer:
                break
            score, skip = f"score_{pool}", maps[pool]
            setattr(self, up, self._upsampling(2, current, skip))
            setattr(self, score, Conv2d(self.channels[pool], self.classes, 1, dtype=self.dtype))
            upscored = current.then(getattr(self, up).coordinate_map())
            if self.padded:  # the skip is larger: it is cropped to the upscored map
                self.offsets[score], current = geometry.crop_offset(skip, upscored), upscored
            else:
                self.offsets[up], current = geometry.crop_offset(upscored, skip), skip
            self.skips.append((up, pool, score))
            coarse = finer
        self.last_upsampling = "upscore" if coarse == 32 else f"upscore{coarse}"
        setattr(self, self.last_upsampling, self._upsampling(coarse, current, CoordinateMap()))
        full = current.then(getattr(self, self.last_upsampling).coordinate_map())
        self.offsets[self.last_upsampling] = geometry.crop_offset(full, CoordinateMap())

    def coordinate_maps(self) -> dict[str, CoordinateMap]:
        """The coordinate map of every layer from conv1_1 to score_fr."""
        maps, current = {}, CoordinateMap()
        for name in self.trunk:
            current = current.then(getattr(self, name).coordinate_map())
            maps[name] = current
        return maps

    # --- use ---

    def forward(self, x: Tensor) -> Tensor:
        return widened(self.upsampled(self._scores(x), x.shape[2:]))

    def loss(
        self,
        images: Tensor,
        target: Any,
        weight: Any = None,
        ignore_index: int = IGNORE_INDEX,
        reduction: str = "mean",
    ) -> Tensor:
        """`ops.cross_entropy(self(images), target, ...)`, without its full-size logits where upsampling is fixed.

        `target` [N, H, W], an array or Tensor of integers. Raises ShapeError for a target of another shape, or with
        a label that is neither a class nor ignored.
        """
        rule, window = (weight, ignore_index, reduction), self._window()
        if window is None:
            return ops.cross_entropy(self(images), target, *rule)
        expect_shape("target", target.shape, (images.shape[0], *images.shape[2:]))
        return ops.upsample_cross_entropy(self._scores(images), target, *window, *rule)

    def labels(self, images: Tensor) -> np.ndarray:
        """The class with the largest score of every pixel, [N, H, W], uint8 up to 256 classes; it has no gradient."""
        return self.as_labels(self.labels_or_logits(images))

    def labels_or_logits(self, images: Tensor) -> Any:
        """An array of the device: labels [N, H, W] where a kernel chooses them, else logits [N, classes, H, W]."""
        window = self._window()
        with no_grad():
            if window is None:
                return self(images).data
            x = self._scores(images)
            return x.place.kernel("upsample_argmax")(x.data, *window, images.shape[2:])

    def as_labels(self, found: Any) -> np.ndarray:
        """Labels [N, H, W] on the host, of what `labels_or_logits` returned."""
        found = next(iter(self.parameters())).place.to_host(found)
        return found if found.ndim == 3 else found.argmax(axis=1).astype(label_dtype(self.classes))

    @property
    def unlaunched(self) -> str | None:
        """See `Trunk.unlaunched`: where maps are upsampled by matrices."""
        layers = [module for _, module in self.named_modules() if isinstance(module, BilinearUpsample)]
        plain = all(layer.window == geometry.bilinear_window(layer.factor) for layer in layers)
        return None if plain else "reorders maps for its fixed upsampling without a kernel"

    def _window(self) -> tuple[int, int, int] | None:
        """(factor, padding, offset) of the last upsampling, None where it is not the bilinear one of the kernels."""
        last = getattr(self, self.last_upsampling)
        if not isinstance(last, BilinearUpsample) or last.window != geometry.bilinear_window(last.factor):
            return None
        return last.factor, last.padding, self.offsets[self.last_upsampling]

    def _scores(self, x: Tensor) -> Tensor:
        """Class scores [N, classes, h, w] before the last upsampling."""
        return self.fused(self.stream_scores(x))

    # --- streams: everything after the score layers is linear, so that a sum of streams can be taken apart ---

    def stream_scores(self, x: Tensor) -> dict[str, Tensor]:
        """What each score layer says, [N, classes, h, w] at its own scale: score_fr, score_pool4, score_pool3."""
        expect_images(x)
        x, pools = self.through(stored(x), [pool for _, pool, _ in self.skips])
        streams = {"score_fr": x}
        for _, pool, score in self.skips:
            features = pools[pool]
            if pool in self.skip_scales:
                features = ops.scale(features, self.skip_scales[pool])
            streams[score] = getattr(self, score)(features)
        return streams

    def fused(self, streams: dict[str, Tensor]) -> Tensor:
        """Class scores [N, classes, h, w] before the last upsampling, of what `stream_scores` returns."""
        x = streams["score_fr"]
        for up, _, score in self.skips:
            upscored, skip = getattr(self, up)(x), streams[score]
            if self.padded:
                x = ops.crop_sum(upscored, skip, self.offsets[score])
            else:
                x = ops.crop_sum(skip, upscored, self.offsets[up])
        return x

    def upsampled(self, scores: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits [N, classes, H, W], `size` = (H, W), of what `fused` returns."""
        last = self.last_upsampling
        return ops.crop(getattr(self, last)(scores), self.offsets[last], size)


def fcn32s(backbone: str = "vgg16", classes: int = 21, geometry: str = "exact", **settings: Any) -> FCN:
    """FCN-32s: no skips. `settings`: width, deconv, dropout, fc, input_size, seed, dtype, as of FCN."""
    return FCN(32, backbone, classes, geometry, **settings)


def fcn16s(backbone: str = "vgg16", classes: int = 21, geometry: str = "exact", **settings: Any) -> FCN:
    """FCN-16s: the skip from pool4."""
    return FCN(16, backbone, classes, geometry, **settings)


def fcn8s(backbone: str = "vgg16", classes: int = 21, geometry: str = "exact", **settings: Any) -> FCN:
    """FCN-8s: the skips from pool4 and pool3."""
    return FCN(8, backbone, classes, geometry, **settings)


def fcn8s_at_once(
    backbone: str = "vgg16",
    classes: int = 21,
    geometry: str = "exact",
    skip_scales: dict[str, float] | None = None,
    **settings: Any,
) -> FCN:
    """FCN-8s with fixed scales on the skip features, so that it can be trained in one stage from a classifier.

    `skip_scales` None: AT_ONCE_SCALES, those of the released net.
    """
    scales = AT_ONCE_SCALES if skip_scales is None else skip_scales
    return FCN(8, backbone, classes, geometry, skip_scales=scales, **settings)


MODELS = {"fcn32s": fcn32s, "fcn16s": fcn16s, "fcn8s": fcn8s, "fcn8s-at-once": fcn8s_at_once}
