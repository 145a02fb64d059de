"""The layers of a fully convolutional network: an op, its parameters, and its coordinate map."""

from __future__ import annotations

import math

import numpy as np

from .. import ops
from ..kernels import geometry
from ..kernels.geometry import CoordinateMap
from ..tensor import Tensor
from . import init
from .module import Module, Parameter


class Layer(Module):
    """A module of one input that knows where its outputs lie: elementwise layers stay in place."""

    def coordinate_map(self) -> CoordinateMap:
        """Which input coordinate each output pixel is centred on, along either axis."""
        return CoordinateMap()

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """(first, last) input pixel, along either axis, that the outputs first..last depend on."""
        return first, last


class Conv2d(Layer):
    """Convolution [N, C, H, W] -> [N, K, P, Q] with a square window, and ReLU after it if `relu`.

    Weights are He-initialised from `rng`, or zero.
    """

    def __init__(
        self,
        C: int,
        K: int,
        window: int,
        stride: int = 1,
        padding: int = 0,
        relu: bool = False,
        rng: np.random.Generator | None = None,
        dtype: np.dtype = np.float32,
        groups: int = 1,
    ) -> None:
        shape = (K, C // groups, window, window)
        self.weight = Parameter(np.zeros(shape, dtype) if rng is None else init.he(shape, rng, dtype))
        self.bias = Parameter(np.zeros(K, dtype))
        self.stride, self.padding, self.relu, self.groups = stride, padding, relu, groups

    def forward(self, x: Tensor) -> Tensor:
        op = ops.conv2d_relu if self.relu else ops.conv2d
        return op(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)

    def joins(self, following: Module | None) -> bool:
        """Whether `following` pools what ReLU gives here over 2 x 2 windows side by side: `with_pool` does both."""
        if not (self.relu and isinstance(following, MaxPool2d)):
            return False
        return (following.window, following.stride, following.padding) == (2, 2, 0)

    def with_pool(self, x: Tensor, pool: MaxPool2d) -> Tensor:
        """`pool(self(x))` in one pass, for a pool that this layer `joins`."""
        window = (self.stride, self.padding, 1, self.groups)
        return ops.conv2d_relu_max_pool2d(x, self.weight, self.bias, *window, pool.ceil_mode)

    def coordinate_map(self) -> CoordinateMap:
        return geometry.conv_map(self.weight.shape[2], self.stride, self.padding)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        return geometry.conv_reach(first, last, self.weight.shape[2], self.stride, self.padding)


class Linear(Module):
    """Fully connected layer [N, ...] -> [N, K], and ReLU after it if `relu`; maps are flattened in the order C, H, W.

    Weights [K, D], He-initialised from `rng`, or zero.
    """

    def __init__(
        self,
        D: int,
        K: int,
        relu: bool = False,
        rng: np.random.Generator | None = None,
        dtype: np.dtype = np.float32,
    ) -> None:
        self.weight = Parameter(np.zeros((K, D), dtype) if rng is None else init.he((K, D), rng, dtype))
        self.bias = Parameter(np.zeros(K, dtype))
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim > 2:
            x = ops.reshape(x, (x.shape[0], math.prod(x.shape[1:])))
        y = ops.linear(x, self.weight, self.bias)
        return ops.relu(y) if self.relu else y


class MaxPool2d(Layer):
    """Maximum over square windows; in Caffe's ceil mode the last one may hang over the edge."""

    def __init__(self, window: int, stride: int, padding: int = 0, ceil_mode: bool = True) -> None:
        self.window, self.stride, self.padding, self.ceil_mode = window, stride, padding, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.window, self.stride, self.padding, ceil_mode=self.ceil_mode)

    def coordinate_map(self) -> CoordinateMap:
        return geometry.conv_map(self.window, self.stride, self.padding)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        return geometry.conv_reach(first, last, self.window, self.stride, self.padding)


class LRN(Layer):
    """Local response normalisation across channels; the defaults are those of Caffe's AlexNet."""

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        return ops.lrn(x, self.size, self.alpha, self.beta, self.k)


class ReLU(Layer):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class Dropout(Layer):
    """Elementwise dropout; `clock` = (seed, step) says which mask comes next, `layer` tells masks of one step apart."""

    def __init__(self, p: float, layer: int) -> None:
        self.p, self.layer, self.clock = p, layer, (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        seed, step = self.clock
        return ops.dropout(x, self.p, self.training, seed=seed, step=step, layer=self.layer)


class BilinearUpsample(Layer):
    """Fixed bilinear upsampling of each class by `factor`; `window` as of `ops.bilinear_upsample`."""

    def __init__(self, factor: int, padding: int, window: int | None = None) -> None:
        self.factor, self.padding = factor, padding
        self.window = geometry.bilinear_window(factor) if window is None else window

    def forward(self, x: Tensor) -> Tensor:
        return ops.bilinear_upsample(x, self.factor, self.padding, self.window)

    def coordinate_map(self) -> CoordinateMap:
        return geometry.conv_transpose_map(self.window, self.factor, self.padding)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        return geometry.conv_transpose_reach(first, last, self.window, self.factor, self.padding)


class ConvTranspose2d(Layer):
    """Learned upsampling by `factor`: a transposed convolution over all classes that starts as the bilinear one.

    `window` as of `ops.bilinear_upsample`.
    """

    def __init__(
        self, classes: int, factor: int, padding: int, dtype: np.dtype = np.float32, window: int | None = None
    ) -> None:
        window = geometry.bilinear_window(factor) if window is None else window
        self.weight = Parameter(init.bilinear(classes, window, dtype))
        self.factor, self.padding = factor, padding

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv_transpose2d(x, self.weight, None, self.factor, self.padding)

    def coordinate_map(self) -> CoordinateMap:
        return geometry.conv_transpose_map(self.weight.shape[2], self.factor, self.padding)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        return geometry.conv_transpose_reach(first, last, self.weight.shape[2], self.factor, self.padding)
