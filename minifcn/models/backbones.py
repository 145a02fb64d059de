"""The VGG backbones: five blocks of 3x3 convolutions, each closed by a 2x2 pooling, and two former fully
connected layers (Simonyan and Zisserman, 2015, "Very deep convolutional networks", table 1: A is vgg11, D vgg16).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import MinifcnError


@dataclass(frozen=True)
class Backbone:
    """Output channels of each convolution, block by block, and of fc6 and fc7."""

    blocks: tuple[tuple[int, ...], ...]
    fc: int

    def scaled(self, width: float) -> Backbone:
        """All channel numbers times `width`, rounded, at least 1."""
        if not width > 0:
            raise MinifcnError(f"width (={width}) must be above 0")

        def scale(channels: int) -> int:
            return max(1, round(channels * width))

        blocks = tuple(tuple(scale(channels) for channels in block) for block in self.blocks)
        return replace(self, blocks=blocks, fc=scale(self.fc))


BACKBONES = {
    "vgg16": Backbone(((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)), 4096),
    "vgg11": Backbone(((64,), (128,), (256, 256), (512, 512), (512, 512)), 4096),
    # vgg11 at a quarter of its width, for training from scratch on a laptop
    "small": Backbone(((16,), (32,), (64, 64), (128, 128), (128, 128)), 256),
}
