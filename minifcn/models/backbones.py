"""The backbones: what stands between the image and fc6, layer by layer, as the classifiers were published.

One description serves a classifier and the FCNs that are made from it: layers, channels and windows are the same, and
so are the weights. Paddings are those of the classifier; `trunk.py` says what a geometry changes.

    vgg16, vgg11    Simonyan and Zisserman, 2015, "Very deep convolutional networks", table 1: columns D and A
    small           vgg11 at a quarter of its width, for training from scratch on a laptop
    alexnet         Krizhevsky, Sutskever and Hinton, 2012, in the form of Caffe's reference net (Jia et al., 2014): one
                    column, its convolutions in two groups where the paper has two devices, pooling before normalisation
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import MinifcnError
from ..kernels import geometry
from ..kernels.checks import ShapeError
from . import checks


@dataclass(frozen=True)
class Conv:
    """A convolution and its ReLU: `channels` of its output, all groups together; `padding` in the classifier."""

    name: str
    channels: int
    window: int = 3
    stride: int = 1
    padding: int = 1
    groups: int = 1


@dataclass(frozen=True)
class Pool:
    """Maximum over square windows, Caffe's ceil mode."""

    name: str
    window: int = 2
    stride: int = 2
    padding: int = 0


@dataclass(frozen=True)
class Norm:
    """Local response normalisation, with the published constants."""

    name: str


@dataclass(frozen=True)
class Backbone:
    """layers: from the image to pool5; fc: channels of fc6 and fc7; input_size: rows and columns of the classifier's
    images; skips: the poolings that FCN-16s and FCN-8s score, coarsest first.
    """

    layers: tuple[Conv | Pool | Norm, ...]
    fc: int
    input_size: int
    skips: tuple[str, ...] = ()

    def scaled(self, width: float = 1.0, fc: int | None = None, input_size: int | None = None) -> Backbone:
        """All channel numbers times `width`, rounded, at least 1 a group; `fc` and `input_size` unless None.

        Raises MinifcnError for a number out of range.
        """
        checks.positive("width", width)
        groups = max(layer.groups for layer in self.layers if isinstance(layer, Conv))

        def scale(channels: int) -> int:
            return groups * max(1, round(channels * width / groups))

        layers = tuple(
            replace(layer, channels=scale(layer.channels)) if isinstance(layer, Conv) else layer
            for layer in self.layers
        )
        if fc is not None:
            checks.integer("fc", fc, 1)
        if input_size is not None:
            checks.integer("input_size", input_size, 1)
        return replace(
            self,
            layers=layers,
            fc=max(1, round(self.fc * width)) if fc is None else fc,
            input_size=self.input_size if input_size is None else input_size,
        )

    @property
    def fc6_window(self) -> int:
        """Rows and columns of the classifier's last pooling, all of which fc6 sees. Raises MinifcnError without any."""
        size = self.input_size
        try:
            for layer in self.layers:
                match layer:
                    case Conv():
                        size = geometry.conv_size(size, layer.window, layer.stride, layer.padding, 1)
                    case Pool():
                        size = geometry.pool_size(size, layer.window, layer.stride, layer.padding, 1, ceil_mode=True)
        except ShapeError as error:
            message = f"input_size (={self.input_size}) is too small at {layer.name}: {error}"
            raise MinifcnError(message) from error
        return size


def _vgg(*blocks: tuple[int, ...], fc: int) -> Backbone:
    """Blocks of 3x3 convolutions of so many channels, each closed by a 2x2 pooling."""
    layers: list[Conv | Pool] = []
    for b, block in enumerate(blocks, 1):
        layers += [Conv(f"conv{b}_{i}", channels) for i, channels in enumerate(block, 1)]
        layers.append(Pool(f"pool{b}"))
    return Backbone(tuple(layers), fc, input_size=224, skips=("pool4", "pool3"))


BACKBONES = {
    "vgg16": _vgg((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512), fc=4096),
    "vgg11": _vgg((64,), (128,), (256, 256), (512, 512), (512, 512), fc=4096),
    "small": _vgg((16,), (32,), (64, 64), (128, 128), (128, 128), fc=256),
    "alexnet": Backbone(
        (
            Conv("conv1", 96, window=11, stride=4, padding=0),
            Pool("pool1", window=3),
            Norm("norm1"),
            Conv("conv2", 256, window=5, padding=2, groups=2),
            Pool("pool2", window=3),
            Norm("norm2"),
            Conv("conv3", 384),
            Conv("conv4", 384, groups=2),
            Conv("conv5", 256, groups=2),
            Pool("pool5", window=3),
        ),
        fc=4096,
        input_size=227,
    ),
}
