"""The convolution kernels of the contract, alone and fused with ReLU."""

from __future__ import annotations

import numpy as np

from .. import checks, geometry
from ..layout import channels_first, channels_last, contiguous
from .launch import each, parts_of, template

FILE = "conv2d.cu"


def _sizes(geo) -> tuple[int, ...]:
    """CONV2D_SIZES of `conv2d.cuh`."""
    sizes = (geo.N, geo.C, geo.H, geo.W, geo.K, geo.R, geo.S, geo.P, geo.Q)
    return (*sizes, *geo.stride, *geo.padding, *geo.dilation, geo.groups)


def _mask_or_nothing(on, mask):
    """The mask, or an array of no bytes for kernels that take none."""
    return on.xp.empty(0, np.uint8) if mask is None else contiguous(mask)


def _bias(on, geo, b, dtype):
    """b, or zeros where there is none; ShapeError unless it is [K]."""
    if b is None:
        return on.xp.zeros(geo.K, dtype)
    checks.expect_shape("bias", b.shape, (geo.K,))
    return contiguous(b)


def _forward(on, geo, x, w, bias):
    """y [N, P, Q, K]."""
    y = on.xp.empty((geo.N, geo.P, geo.Q, geo.K), x.dtype)
    arrays = (channels_last(x), channels_last(w), bias, _mask_or_nothing(on, None), y)
    each(on, FILE, template("conv2d_naive", x.dtype, False, False), y.size, *arrays, *_sizes(geo))
    return y


def _backward_input(on, geo, dy, mask, w):
    """dx [N, C, H, W]."""
    dx = on.xp.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    arrays = (channels_last(dy), channels_last(w), on.xp.zeros(geo.C, dy.dtype), _mask_or_nothing(on, mask), dx)
    each(on, FILE, template("conv2d_naive", dy.dtype, True, mask is not None), dx.size, *arrays, *_sizes(geo))
    return channels_first(dx)


def _backward_weight(on, geo, dy, mask, x):
    """dw [K, C / groups, R, S]."""
    shape = (geo.K, geo.R, geo.S, geo.C // geo.groups)
    size = int(np.prod(shape))
    J = parts_of(geo.N * geo.P * geo.Q, size)
    parts = on.xp.empty((J, *shape), x.dtype)
    arrays = (channels_last(dy), channels_last(x), _mask_or_nothing(on, mask), parts)
    each(on, FILE, template("conv2d_weight_naive", x.dtype, mask is not None), J * size, *arrays, *_sizes(geo), J)
    return channels_first(_total(on, parts))


def _backward_bias(on, dy, mask):
    """db [K] of dy [N, K, P, Q], where `mask` lets it pass."""
    K, last = dy.shape[1], channels_last(dy)
    pixels = last.size // max(K, 1)
    J = parts_of(pixels, K)
    parts = on.xp.empty((J, K), dy.dtype)
    arrays = (last, _mask_or_nothing(on, mask), parts)
    each(on, FILE, template("conv2d_bias", dy.dtype, mask is not None), J * K, *arrays, K, J, np.int64(pixels))
    return _total(on, parts)


def _total(on, parts):
    """The sum of `parts` [J, ...] over J."""
    if len(parts) == 1:
        return parts[0]
    total = on.xp.empty(parts.shape[1:], parts.dtype)
    each(on, FILE, template("sum_parts", parts.dtype), total.size, parts, total, len(parts))
    return total


def conv2d_forward(on, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """See `reference.conv2d_forward`."""
    checks.same_dtype(x=x, weight=w, bias=b)
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    return channels_first(_forward(on, geo, x, w, _bias(on, geo, b, x.dtype)))


def conv2d_backward_input(on, dy, w, input_size, stride=1, padding=0, dilation=1, groups=1):
    """See `reference.conv2d_backward_input`."""
    checks.same_dtype(dy=dy, weight=w)
    geo = geometry.conv2d_backward_input(dy.shape, w.shape, input_size, stride, padding, dilation, groups)
    return _backward_input(on, geo, dy, None, w)


def conv2d_backward_weight(on, dy, x, window, stride=1, padding=0, dilation=1, groups=1):
    """See `reference.conv2d_backward_weight`."""
    checks.same_dtype(dy=dy, x=x)
    geo = geometry.conv2d_backward_weight(dy.shape, x.shape, window, stride, padding, dilation, groups)
    return _backward_weight(on, geo, dy, None, x)


def conv2d_backward_bias(on, dy):
    """See `reference.conv2d_backward_bias`."""
    checks.same_dtype(dy=dy)
    checks.expect_rank4("dy", dy.shape)
    return _backward_bias(on, dy, None)


def conv2d_relu_forward(on, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """See `reference.conv2d_relu_forward`."""
    checks.same_dtype(x=x, weight=w, bias=b)
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    y = _forward(on, geo, x, w, _bias(on, geo, b, x.dtype))
    mask = on.xp.empty(geometry.mask_shape(geo.y_shape), np.uint8)
    each(on, FILE, template("relu_mask", y.dtype), mask.size, y, mask, geo.K)
    return channels_first(y), mask


def conv2d_relu_backward(on, dy, mask, x, w, stride=1, padding=0, dilation=1, groups=1, needs=(True, True, True)):
    """See `reference.conv2d_relu_backward`."""
    checks.same_dtype(dy=dy, x=x, weight=w)
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    checks.expect_shape("mask", mask.shape, geometry.mask_shape(geo.y_shape))
    return (
        _backward_input(on, geo, dy, mask, w) if needs[0] else None,
        _backward_weight(on, geo, dy, mask, x) if needs[1] else None,
        _backward_bias(on, dy, mask) if needs[2] else None,
    )
