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
from ..nn import BilinearUpsample, Conv2d, ConvTranspose2d, Dropout, Layer, MaxPool2d, Module
from ..ops.cross_entropy import IGNORE_INDEX
from ..tensor import Tensor, no_grad
from .backbones import BACKBONES

GEOMETRIES = ("exact", "pad100")
DECONVS = ("fixed", "learned")
AT_ONCE_SCALES = {"pool4": 0.01, "pool3": 0.0001}  # Shelhamer et al., 2017, and the released at-once net


def _one_of(name: str, value: Any, known: Any) -> None:
    if value not in known:
        raise MinifcnError(f"{name} (={value!r}) must be one of {', '.join(str(one) for one in known)}")


class FCN(Module):
    """Images [N, 3, H, W] to class scores [N, classes, H, W], for any H, W >= 1.

    stride: 32, 16 or 8, of the finest scores; skip_scales: fixed factors on the skip features, by pooling layer;
    deconv: upsampling "fixed" bilinear or "learned" from there; width: multiplies all channel numbers; dropout:
    probability after fc6 and fc7. Score layers start at zero, all other convolutions He-initialised from `seed`.
    Raises MinifcnError for a setting out of range.
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
        skip_scales: dict[str, float] | None = None,
        seed: int = 0,
        dtype: Any = np.float32,
    ) -> None:
        _one_of("stride", stride, (32, 16, 8))
        _one_of("backbone", backbone, BACKBONES)
        _one_of("geometry", geometry, GEOMETRIES)
        _one_of("deconv", deconv, DECONVS)
        if classes < 2:
            raise MinifcnError(f"classes (={classes}) must be at least 2")
        self.classes, self.padded, self.skip_scales = classes, geometry == "pad100", dict(skip_scales or {})
        self._deconv, self._dtype = deconv, np.dtype(dtype)
        plan = BACKBONES[backbone].scaled(width)
        rng = np.random.Generator(np.random.Philox(seed))

        self.trunk: list[str] = []
        channels = self._build_trunk(plan, dropout, rng)
        self._add("score_fr", Conv2d(plan.fc, classes, 1, dtype=dtype))
        self.offsets: dict[str, int] = {}  # by the layer whose output is cropped
        self._build_head(stride, channels)

    # --- construction ---

    def _add(self, name: str, layer: Layer) -> None:
        setattr(self, name, layer)
        self.trunk.append(name)

    def _build_trunk(self, plan, dropout: float, rng: np.random.Generator) -> dict[str, int]:
        """conv1_1 .. fc7; returns the channels of each pooling layer."""
        C, channels = 3, {}
        for b, block in enumerate(plan.blocks, 1):
            for i, K in enumerate(block, 1):
                padding = 100 if self.padded and b == i == 1 else 1
                self._add(f"conv{b}_{i}", Conv2d(C, K, 3, padding=padding, relu=True, rng=rng, dtype=self._dtype))
                C = K
            self._add(f"pool{b}", MaxPool2d(2, 2))
            channels[f"pool{b}"] = C
        for i, window in ((6, 7), (7, 1)):
            padding = 0 if self.padded else window // 2
            self._add(f"fc{i}", Conv2d(C, plan.fc, window, padding=padding, relu=True, rng=rng, dtype=self._dtype))
            self._add(f"drop{i}", Dropout(dropout, layer=i))
            C = plan.fc
        return channels

    def _upsampling(self, factor: int) -> Layer:
        padding = 0 if self.padded else geometry.bilinear_padding(factor)
        if self._deconv == "learned":
            return ConvTranspose2d(self.classes, factor, padding, self._dtype)
        return BilinearUpsample(factor, padding)

    def _build_head(self, stride: int, channels: dict[str, int]) -> None:
        """Upsampling and skips; each crop's offset is derived from the maps of the two layers it joins."""
        maps = self.coordinate_maps()
        current = maps["score_fr"]
        self.skips: list[tuple[str, str, str]] = []  # (upsampling, pooling, its score layer)
        coarse = 32
        for pool, finer, up in (("pool4", 16, "upscore2"), ("pool3", 8, "upscore_pool4")):
            if stride > finer:
                break
            score = f"score_{pool}"
            setattr(self, up, self._upsampling(2))
            setattr(self, score, Conv2d(channels[pool], self.classes, 1, dtype=self._dtype))
            upscored, skip = current.then(getattr(self, up).coordinate_map()), maps[pool]
            if self.padded:  # the skip is larger: it is cropped to the upscored map
                self.offsets[score], current = geometry.crop_offset(skip, upscored), upscored
            else:
                self.offsets[up], current = geometry.crop_offset(upscored, skip), skip
            self.skips.append((up, pool, score))
            coarse = finer
        self.last_upsampling = "upscore" if coarse == 32 else f"upscore{coarse}"
        setattr(self, self.last_upsampling, self._upsampling(coarse))
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

    def at_step(self, seed: int, step: int) -> FCN:
        """Choose the dropout masks of training step `step`."""
        for _, module in self.named_modules():
            if isinstance(module, Dropout):
                module.clock = (seed, step)
        return self

    def forward(self, x: Tensor) -> Tensor:
        last = self.last_upsampling
        return ops.crop(getattr(self, last)(self._scores(x)), self.offsets[last], x.shape[2:])

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
        rule, last = (weight, ignore_index, reduction), getattr(self, self.last_upsampling)
        if not isinstance(last, BilinearUpsample):
            return ops.cross_entropy(self(images), target, *rule)
        expect_shape("target", target.shape, (images.shape[0], *images.shape[2:]))
        window = (last.factor, last.padding, self.offsets[self.last_upsampling])
        return ops.upsample_cross_entropy(self._scores(images), target, *window, *rule)

    def labels(self, images: Tensor) -> np.ndarray:
        """The class with the largest score of every pixel, [N, H, W], uint8 up to 256 classes; it has no gradient."""
        last = getattr(self, self.last_upsampling)
        with no_grad():
            if not isinstance(last, BilinearUpsample):
                return self(images).numpy().argmax(axis=1).astype(label_dtype(self.classes))
            x = self._scores(images)
        window = (last.factor, last.padding, self.offsets[self.last_upsampling], images.shape[2:])
        return x.place.to_host(x.place.kernel("upsample_argmax")(x.data, *window))

    def _scores(self, x: Tensor) -> Tensor:
        """Class scores [N, classes, h, w] before the last upsampling."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise MinifcnError(f"images must have shape [N, 3, H, W], but have {x.shape}")
        pools: dict[str, Tensor] = {}
        for name in self.trunk:
            x = getattr(self, name)(x)
            if name.startswith("pool"):
                pools[name] = x
        for up, pool, score in self.skips:
            features = pools[pool]
            if pool in self.skip_scales:
                features = ops.scale(features, self.skip_scales[pool])
            upscored, skip = getattr(self, up)(x), getattr(self, score)(features)
            if self.padded:
                x = ops.crop_sum(upscored, skip, self.offsets[score])
            else:
                x = ops.crop_sum(skip, upscored, self.offsets[up])
        return x


def fcn32s(backbone: str = "vgg16", classes: int = 21, geometry: str = "exact", **settings: Any) -> FCN:
    """FCN-32s: no skips. `settings`: width, deconv, dropout, seed, dtype, as of FCN."""
    return FCN(32, backbone, classes, geometry, **settings)


def fcn16s(backbone: str = "vgg16", classes: int = 21, geometry: str = "exact", **settings: Any) -> FCN:
    """FCN-16s: the skip from pool4."""
    return FCN(16, backbone, classes, geometry, **settings)


def fcn8s(backbone: str = "vgg16", classes: int = 21, geometry: str = "exact", **settings: Any) -> FCN:
    """FCN-8s: the skips from pool4 and pool3."""
    return FCN(8, backbone, classes, geometry, **settings)


def fcn8s_at_once(backbone: str = "vgg16", classes: int = 21, geometry: str = "exact", **settings: Any) -> FCN:
    """FCN-8s with fixed scales on the skip features, so that it can be trained in one stage from a classifier."""
    return FCN(8, backbone, classes, geometry, skip_scales=AT_ONCE_SCALES, **settings)


MODELS = {"fcn32s": fcn32s, "fcn16s": fcn16s, "fcn8s": fcn8s, "fcn8s-at-once": fcn8s_at_once}


def build(model: str, **settings: Any) -> FCN:
    """The network `model` ("fcn32s", "fcn16s", "fcn8s", "fcn8s-at-once"); `settings` as of FCN."""
    _one_of("model", model, MODELS)
    return MODELS[model](**settings)
