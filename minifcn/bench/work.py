"""What is computed: one convolution or one network, described in plain values that both processes understand.

FLOP are 2 a multiply-add, padding taps included, and bytes count each array once, in or out. An algorithm that does
fewer multiplications keeps these numbers (its rate is then an effective one), but its floor uses its own: F(m x m, 3x3)
multiplies (m + 2)^2 numbers a tile, channel and output channel (Lavin and Gray, 2016), F(2, 3) along rows 4 a pair of
pixels, row of the window, channel and output channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

OPS = ("conv2d_forward", "conv2d_backward_input", "conv2d_backward_weight")
DIRECTIONS = {op: op.removeprefix("conv2d_") for op in OPS}  # "forward", "backward_input", "backward_weight"
TILES = {"winograd2": 2, "winograd4": 4, "winograd6": 6}
PAIRS = "winograd1d"  # F(2, 3) along rows, forward; backward it sums directly
NO_PADDING = ("taps",)  # algorithms that leave out taps on padding
Pair = tuple[int, int]


@dataclass(frozen=True)
class Convolution:
    """One kernel call: x [N, C, H, W], w [K, C/groups, R, S], y [N, K, P, Q]; all but arrays."""

    op: str
    layer: str
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    dtype: str = "float32"
    w_order: tuple[int, ...] = (0, 1, 2, 3)  # axes of our weights in memory, outermost first
    sets: int = 1  # of activations, used in turn
    precision: str = "float32"  # of products, on both sides: one of `kernels.settings.PRECISIONS`

    @property
    def window(self) -> tuple[Pair, Pair, Pair, int]:
        """The last arguments of the kernels."""
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def params(self) -> dict[str, Any]:
        """All sizes, for the record."""
        window = dict(zip(("stride", "padding", "dilation", "groups"), self.window, strict=True))
        return {"x": self.x_shape, "w": self.w_shape, "y": self.y_shape} | window

    @property
    def uses_weights(self) -> bool:
        return self.op != "conv2d_backward_weight"

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def flop(self) -> int:
        N, K, P, Q = self.y_shape
        return 2 * N * K * P * Q * math.prod(self.w_shape[1:])

    @property
    def bytes(self) -> int:
        return self.itemsize * (math.prod(self.x_shape) + math.prod(self.w_shape) + math.prod(self.y_shape))

    @property
    def activation_bytes(self) -> int:
        """Of the arrays of one set, as the op reads them."""
        shapes = {"conv2d_forward": (self.x_shape,), "conv2d_backward_input": (self.y_shape,)}
        return self.itemsize * sum(map(math.prod, shapes.get(self.op, (self.x_shape, self.y_shape))))

    def own_flop(self, algorithm: str) -> int:
        """FLOP that `algorithm` does: fewer for Winograd's, and for one that leaves out taps on padding."""
        if algorithm in NO_PADDING:
            inside = [self._taps_inside(axis) for axis in (0, 1)]
            return self.flop * inside[0] * inside[1] // (math.prod(self.y_shape[2:]) * math.prod(self.w_shape[2:]))
        if algorithm == PAIRS and self.op == "conv2d_forward":
            N, K, P, Q = self.y_shape
            return 2 * 4 * N * P * math.ceil(Q / 2) * 3 * self.w_shape[1] * K
        tile = TILES.get(algorithm)
        if tile is None:
            return self.flop
        N, K, P, Q = self.x_shape[:1] + self.w_shape[:1] + self.x_shape[2:]
        if self.op != "conv2d_backward_input":
            P, Q = self.y_shape[2:]
        return 2 * (tile + 2) ** 2 * N * math.ceil(P / tile) * math.ceil(Q / tile) * K * self.w_shape[1]

    def _taps_inside(self, axis: int) -> int:
        """Pairs of an output pixel and a tap, along one axis, that meet the image."""
        size, outputs, window = (shape[2 + axis] for shape in (self.x_shape, self.y_shape, self.w_shape))
        stride, padding, dilation = self.stride[axis], self.padding[axis], self.dilation[axis]
        starts = [p * stride - padding for p in range(outputs)]
        return sum(0 <= start + r * dilation < size for start in starts for r in range(window))

    @property
    def shape(self) -> str:
        """As in a report line: 4x64x64x64->64 k3 p1."""
        R, S = self.w_shape[2:]
        text = f"{'x'.join(map(str, self.x_shape))}->{self.w_shape[0]} k{R if R == S else f'{R}x{S}'}"
        for letter, pair, default in (("s", self.stride, 1), ("p", self.padding, 0), ("d", self.dilation, 1)):
            if pair != (default, default):
                text += f" {letter}{pair[0] if pair[0] == pair[1] else f'{pair[0]}x{pair[1]}'}"
        return text + (f" g{self.groups}" if self.groups > 1 else "")

    def rotating(self, cache_bytes: int) -> Convolution:
        """With as many sets of activations as fill the last cache twice, up to eight."""
        return replace(self, sets=min(8, max(2, math.ceil(2 * cache_bytes / max(self.activation_bytes, 1)))))

    def cold(self, cache_bytes: int) -> bool:
        """Whether the activations of a call have left the last cache since they were used."""
        return self.sets * self.activation_bytes > cache_bytes


@dataclass(frozen=True)
class Network:
    """A network with its data: images [N, 3, H, W], labels [N, H, W]; `task` is "step" or "infer"."""

    task: str
    model: str = "fcn8s"
    net: str = "small"
    size: Pair = (128, 128)
    batch: int = 8
    classes: int = 12
    dtype: str = "float32"
    dropout: float = 0.5
    sets: int = 4  # batches of images, used in turn
    precision: str = "float32"  # of products, on both sides
    graph: bool = False  # whether our side replays its calls as one graph

    LR, MOMENTUM, WEIGHT_DECAY = 1e-4, 0.9, 5e-4

    @property
    def shape(self) -> str:
        return f"{self.batch}x3x{self.size[0]}x{self.size[1]}->{self.classes}"

    @property
    def name(self) -> str:
        return f"{self.model} {self.net}"
