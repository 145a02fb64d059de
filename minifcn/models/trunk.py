"""The trunk of every network here: the layers of its backbone, fc6 and fc7, under the names of the released nets.

What differs is the padding. A geometry says it:

    classifier  as published; fc6 sees the whole last pooling of images of one size
    pad100      the first convolution pads by 100, so that any image leaves fc6 an output; the released FCNs
    exact       every window pads by half its size, so that each map has exactly ceil(H / stride) rows
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from ..errors import MinifcnError
from ..nn import LRN, Conv2d, Dropout, MaxPool2d, Module
from ..tensor import Tensor
from . import checks
from .backbones import BACKBONES, Conv, Norm, Pool


class Trunk(Module):
    """Base of classifiers and FCNs: builds the layers from the image to fc7, and leaves fc6's and fc7's kind to them.

    trunk: names of the layers in the order of the forward pass; channels: of each pooling's output; plan: the backbone
    at this width; shared: the settings that a classifier and an FCN of the same weights have in common.
    """

    def __init__(
        self,
        geometry: str,
        backbone: str,
        classes: int,
        width: float,
        fc: int | None,
        input_size: int | None,
        dropout: float,
        seed: int,
        dtype: Any,
    ) -> None:
        checks.one_of("backbone", backbone, BACKBONES)
        checks.integer("classes", classes, 2)
        checks.probability("dropout probability", dropout)
        self.shared = {
            "backbone": backbone,
            "width": width,
            "fc": fc,
            "input_size": input_size,
            "dropout": dropout,
            "dtype": dtype,
        }
        self.geometry, self.classes, self.dtype = geometry, int(classes), np.dtype(dtype)
        self.plan = BACKBONES[backbone].scaled(width, fc, input_size)
        self.trunk: list[str] = []
        self.channels: dict[str, int] = {}
        rng = np.random.Generator(np.random.Philox(seed))
        C = self._add_features(rng)
        for i, window in ((6, self.plan.fc6_window), (7, 1)):
            self._add(f"fc{i}", self._fully_connected(C, self.plan.fc, window, rng))
            self._add(f"drop{i}", Dropout(dropout, layer=i))
            C = self.plan.fc

    def _add(self, name: str, layer: Module) -> None:
        setattr(self, name, layer)
        self.trunk.append(name)

    def _add_features(self, rng: np.random.Generator) -> int:
        """All layers below fc6; returns the channels of the last one."""
        C = 3
        for layer in self.plan.layers:
            match layer:
                case Conv(name, K, window, stride, _, groups):
                    padding = self._padding(layer)
                    new = Conv2d(C, K, window, stride, padding, relu=True, rng=rng, dtype=self.dtype, groups=groups)
                    C = K
                case Pool(name, window, stride):
                    padding = self._padding(layer)
                    # A padded window is centred on its first pixel, and those of its stride reach all others.
                    new = MaxPool2d(window, stride, padding, ceil_mode=padding == 0)
                    self.channels[name] = C
                case Norm(name):
                    new = LRN()
            self._add(name, new)
        return C

    def _padding(self, layer: Conv | Pool) -> int:
        if self.geometry == "exact":
            return (layer.window - 1) // 2
        return 100 if self.geometry == "pad100" and layer is self.plan.layers[0] else layer.padding

    def _fully_connected(self, C: int, K: int, window: int, rng: np.random.Generator) -> Module:
        """fc6 or fc7 and its ReLU: each of K outputs sees a `window` of C channels."""
        raise NotImplementedError

    @property
    def unlaunched(self) -> str | None:
        """What its passes do without a launch, so that no graph can hold them; None where there is no such thing."""
        raise NotImplementedError

    def through(self, x: Tensor, kept: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """(the trunk's output for images x [N, 3, H, W], the outputs of the layers `kept` by name).

        A convolution and the pooling after it are one op where they can be, and nobody keeps what is between them.
        """
        layers = [(name, getattr(self, name)) for name in self.trunk]
        outputs: dict[str, Tensor] = {}
        before: Conv2d | None = None
        for (name, layer), (_, following) in zip(layers, [*layers[1:], ("", None)], strict=True):
            if isinstance(layer, Conv2d) and layer.joins(following) and name not in kept:
                before = layer
                continue
            x = before.with_pool(x, layer) if before else layer(x)
            before = None
            if name in kept:
                outputs[name] = x
        return x, outputs

    def at_step(self, seed: int, step: Any) -> Trunk:
        """Choose the dropout masks of training step `step`, an integer, or an array uint32 [1] of a CUDA device."""
        for _, module in self.named_modules():
            if isinstance(module, Dropout):
                module.clock = (seed, step)
        return self


def expect_images(images: Tensor, size: tuple[int, int] | None = None) -> None:
    """Raise MinifcnError unless `images` have the shape [N, 3, H, W], with (H, W) = `size` if that is given."""
    if images.ndim != 4 or images.shape[1] != 3 or (size and images.shape[2:] != size):
        height, width = size or ("H", "W")
        raise MinifcnError(f"images must have shape [N, 3, {height}, {width}], but have {images.shape}")
