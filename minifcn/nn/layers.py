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
    ) -> None:
        shape = (K, C, window, window)
        self.weight = Parameter(np.zeros(shape, dtype) if rng is None else init.he(shape, rng, dtype))
        self.bias = Parameter(np.zeros(K, dtype))
        self.stride, self.padding, self.relu = stride, padding, relu

    def forward(self, x: Tensor) -> Tensor:
        op = ops.conv2d_relu if self.relu else ops.conv2d
        return op(x, self.weight, self.bias, self.stride, self.padding)

    def coordinate_map(self) -> CoordinateMap:
        return geometry.conv_map(self.weight.shape[2], self.stride, self.padding)


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
    """Maximum over square windows, Caffe's ceil mode."""

    def __init__(self, window: int, stride: int) -> None:
        self.window, self.stride = window, stride

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.window, self.stride, ceil_mode=True)

    def coordinate_map(self) -> CoordinateMap:
        return geometry.conv_map(self.window, self.stride)


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
    """Fixed bilinear upsampling of each class by `factor`."""

    def __init__(self, factor: int, padding: int) -> None:
        self.factor, self.padding = factor, padding

    def forward(self, x: Tensor) -> Tensor:
        return ops.bilinear_upsample(x, self.factor, self.padding)

    def coordinate_map(self) -> CoordinateMap:
        return geometry.conv_transpose_map(geometry.bilinear_window(self.factor), self.factor, self.padding)


class ConvTranspose2d(Layer):
    """Learned upsampling by `factor`: a transposed convolution over all classes that starts as the bilinear one."""

    def __init__(self, classes: int, factor: int, padding: int, dtype: np.dtype = np.float32) -> None:
        self.weight = Parameter(init.bilinear(classes, factor, dtype))
        self.factor, self.padding = factor, padding

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv_transpose2d(x, self.weight, None, self.factor, self.padding)

    def coordinate_map(self) -> CoordinateMap:
        return geometry.conv_transpose_map(self.weight.shape[2], self.factor, self.padding)
