"""The convolution kernels of the contract, alone and fused with ReLU."""

from __future__ import annotations

import math

import numpy as np

from .. import checks, geometry
from ..layout import channels_first, channels_last, contiguous
from ..storage import BFLOAT16, sums_in
from .constants import derived
from .ladder import BACKWARD_INPUT, BACKWARD_WEIGHT, ENOUGH_BLOCKS, FORWARD, MODES, choose
from .launch import aligned, blocks, each, parts_of, template, tiles
from .pool2d import masked_maxima, spread_windows
from .storage import same_storage, stored

FILE = "conv2d.cu"
# Pixels of a part of a sum, at least and at most: where one thread makes a sum, and where a block makes many.
OF_THREAD, OF_BLOCK = (64, 1 << 12), (256, 1 << 12)
ENOUGH_THREADS = 1 << 17
# Constants of conv2d_tiled.cu and conv2d_tensor.cu: what they need in threads and in shared memory follows from them.
TILED_THREADS = 256
TENSOR_THREADS, TENSOR_STAGES, TENSOR_ROW, TENSOR_DEPTH = 128, 3, 80, 16


def conv2d_sizes(geo) -> tuple[int, ...]:
    """CONV2D_SIZES of `conv2d.cuh`."""
    sizes = (geo.N, geo.C, geo.H, geo.W, geo.K, geo.R, geo.S, geo.P, geo.Q)
    return (*sizes, *geo.stride, *geo.padding, *geo.dilation, geo.groups)


def checked_bias(geo, b):
    """b in contiguous memory, or None; ShapeError unless it is [K]."""
    if b is None:
        return None
    checks.expect_shape("bias", b.shape, (geo.K,))
    return contiguous(b)


def _product(on, rung, geo, source, w, bias, mask, target, bits, backward: bool) -> None:
    """The implicit GEMM of `conv2d.cuh` by a tiled rung: target [N, height, width, channels]; bits with ReLU."""
    channels = target.shape[3] // geo.groups
    rows, columns = rung.tile
    grid = (tiles(target.size // target.shape[3], rows), geo.groups * tiles(channels, columns), 1)
    flags = (backward, mask is not None, bits is not None)
    arrays = (aligned(source), aligned(w), bias, mask, target, bits)
    if rung.name == "tiled":
        expression, threads, shared = template("conv2d_tiled", source.dtype, *flags), TILED_THREADS, 0
    elif rung.name == "blocked":
        expression = template("conv2d_blocked", source.dtype, rows, columns, *flags)
        threads, shared = _blocked_threads(rung, source.dtype), 0
    else:
        expression = template("conv2d_tensor", source.dtype, rung.mode, rows, columns, *flags)
        threads, shared = TENSOR_THREADS, TENSOR_STAGES * (rows + columns) * TENSOR_ROW
    blocks(on, f"conv2d_{rung.name}.cu", expression, grid, threads, shared, *arrays, *conv2d_sizes(geo))


def _blocked_threads(rung, dtype) -> int:
    """Threads of a block of `conv2d_blocked.cu`: each has 8 x 8 sums of float32, 4 x 8 of float64."""
    return math.prod(rung.tile) * dtype.itemsize // 256


def _forward(on, geo, x, w, b, relu: bool):
    """(y [N, K, P, Q], mask or None)."""
    y = on.xp.empty((geo.N, geo.P, geo.Q, geo.K), x.dtype)
    mask = on.xp.empty(geometry.mask_shape(geo.y_shape), np.uint8) if relu else None
    x, w, rung = channels_last(x), channels_last(stored(on, w, x.dtype)), choose(FORWARD, geo, x.dtype)
    bias = checked_bias(geo, b)
    whole_bytes = geo.groups == 1 or geo.K // geo.groups % 8 == 0  # else two groups share one
    fused = mask if whole_bytes and rung.name != "naive" else None
    if rung.name == "naive":
        each(on, FILE, template("conv2d_naive", x.dtype, False, False), y.size, x, w, bias, None, y, *conv2d_sizes(geo))
    else:
        _product(on, rung, geo, x, w, bias, None, y, fused, False)
    if relu and fused is None:
        each(on, FILE, template("relu_mask", y.dtype), mask.size, y, mask, geo.K)
    return channels_first(y), mask


def _backward_input(on, geo, dy, mask, w):
    """dx [N, C, H, W] of dy [N, K, P, Q], where `mask` lets it pass."""
    dx = on.xp.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    dy, rung = channels_last(dy), choose(BACKWARD_INPUT, geo, dy.dtype)
    if rung.name == "naive":
        w = channels_last(stored(on, w, dy.dtype))
        expression = template("conv2d_naive", dy.dtype, True, mask is not None)
        each(on, FILE, expression, dx.size, dy, w, None, mask, dx, *conv2d_sizes(geo))
        return channels_first(dx)
    turned = derived(w, ("turned", dy.dtype, geo.groups), lambda: _turned(on, geo, w, dy.dtype))
    _product(on, rung, geo, dy, turned, None, mask, dx, None, True)
    return channels_first(dx)


def _turned(on, geo, w, dtype):
    """Weights as the tiled rungs want them on the way back, for activations of `dtype`: [C, R, S, K / groups]."""
    turned = on.xp.empty((geo.C, geo.R, geo.S, geo.K // geo.groups), dtype)
    sizes = (geo.K, geo.R, geo.S, geo.C // geo.groups, geo.groups)
    each(on, FILE, template("transpose_weights", dtype), turned.size, channels_last(w), turned, *sizes)
    return turned


def _backward_weight(on, geo, dy, mask, x, with_bias: bool):
    """(dw [K, C / groups, R, S], db [K] or None) of dy [N, K, P, Q], where `mask` lets it pass."""
    rung, dy, x = choose(BACKWARD_WEIGHT, geo, x.dtype), channels_last(dy), channels_last(x)
    parts_by = _weight_naive if rung.name == "naive" else _weight_product
    parts, bias_parts = parts_by(on, rung, geo, dy, mask, x, with_bias)
    dw = channels_first(_total(on, parts))
    if not with_bias:
        return dw, None
    return dw, _backward_bias(on, dy, mask) if bias_parts is None else _total(on, bias_parts)


def _adds_bias(rung, dtype) -> bool:
    """Whether a rung sums the bias's gradient beside the weight's: from tiles of dy, unless that was rounded there."""
    return rung.name != "naive" and (rung.mode != MODES["bfloat16"] or dtype == BFLOAT16)


def _weight_shape(geo) -> tuple[int, ...]:
    """Of weights in memory."""
    return (geo.K, geo.R, geo.S, geo.C // geo.groups)


def _weight_naive(on, rung, geo, dy, mask, x, with_bias):
    """(parts of dw [J, K, R, S, C / groups], None)."""
    shape, pixels = _weight_shape(geo), geo.N * geo.P * geo.Q
    parts = on.xp.empty((parts_of(pixels, math.prod(shape), ENOUGH_THREADS, *OF_THREAD), *shape), sums_in(x.dtype))
    expression = template("conv2d_weight_naive", x.dtype, mask is not None)
    each(on, FILE, expression, parts.size, dy, x, mask, parts, *conv2d_sizes(geo), len(parts))
    return parts, None


def _weight_grid(rung, geo) -> tuple[int, int, int]:
    """(tiles of output x input channels, taps of all groups, parts of the sum over pixels) of a tiled rung."""
    rows, columns = rung.tile
    across, taps = tiles(geo.K // geo.groups, rows) * tiles(geo.C // geo.groups, columns), geo.R * geo.S * geo.groups
    return across, taps, parts_of(geo.N * geo.P * geo.Q, across * taps, ENOUGH_BLOCKS, *OF_BLOCK)


def _weight_product(on, rung, geo, dy, mask, x, with_bias):
    """(parts of dw [J, K, R, S, C / groups], parts of db [J, K] or None) by a tiled rung."""
    (rows, columns), (across, taps, J) = rung.tile, _weight_grid(rung, geo)
    parts = on.xp.empty((J, *_weight_shape(geo)), sums_in(x.dtype))
    bias_parts = on.xp.empty((J, geo.K), parts.dtype) if with_bias and _adds_bias(rung, x.dtype) else None
    masked = mask is not None
    if rung.name == "tiled":
        expression, threads, shared = template("conv2d_weight_tiled", x.dtype, masked), TILED_THREADS, 0
    elif rung.name == "blocked":
        expression = template("conv2d_weight_blocked", x.dtype, rows, columns, masked)
        threads, shared = _blocked_threads(rung, x.dtype), 0
    else:
        expression, threads = template("conv2d_weight_tensor", x.dtype, rung.mode, masked), TENSOR_THREADS
        line = 2 * rows + 16 if rung.mode == MODES["bfloat16"] else 4 * rows + 32
        shared = TENSOR_STAGES * 2 * TENSOR_DEPTH * line
    arrays = (aligned(dy), aligned(x), mask, parts, bias_parts)
    blocks(on, f"conv2d_{rung.name}.cu", expression, (across, taps, J), threads, shared, *arrays, *conv2d_sizes(geo), J)
    return parts, bias_parts


def _backward_bias(on, dy, mask, J=None):
    """db [K] of dy [N, P, Q, K], where `mask` lets it pass; the sum in J parts."""
    K = dy.shape[3]
    pixels = dy.size // max(K, 1)
    J = J or parts_of(pixels, K, ENOUGH_THREADS, *OF_THREAD)
    parts = on.xp.empty((J, K), sums_in(dy.dtype))
    arguments = (dy, mask, parts, K, J, np.int64(pixels))
    each(on, FILE, template("conv2d_bias", dy.dtype, mask is not None), parts.size, *arguments)
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
    same_storage(x=x, of_sums={"weight": w, "bias": b})
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    return _forward(on, geo, x, w, b, relu=False)[0]


def conv2d_backward_input(on, dy, w, input_size, stride=1, padding=0, dilation=1, groups=1):
    """See `reference.conv2d_backward_input`."""
    same_storage(dy=dy, of_sums={"weight": w})
    geo = geometry.conv2d_backward_input(dy.shape, w.shape, input_size, stride, padding, dilation, groups)
    return _backward_input(on, geo, dy, None, w)


def conv2d_backward_weight(on, dy, x, window, stride=1, padding=0, dilation=1, groups=1):
    """See `reference.conv2d_backward_weight`."""
    same_storage(dy=dy, x=x)
    geo = geometry.conv2d_backward_weight(dy.shape, x.shape, window, stride, padding, dilation, groups)
    return _backward_weight(on, geo, dy, None, x, with_bias=False)[0]


def conv2d_backward_bias(on, dy):
    """See `reference.conv2d_backward_bias`."""
    same_storage(dy=dy)
    checks.expect_rank4("dy", dy.shape)
    return _backward_bias(on, channels_last(dy), None)


def conv2d_relu_forward(on, x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """See `reference.conv2d_relu_forward`."""
    same_storage(x=x, of_sums={"weight": w, "bias": b})
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    return _forward(on, geo, x, w, b, relu=True)


def conv2d_relu_backward(on, dy, mask, x, w, stride=1, padding=0, dilation=1, groups=1, needs=(True, True, True)):
    """See `reference.conv2d_relu_backward`."""
    same_storage(dy=dy, x=x, of_sums={"weight": w})
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    checks.expect_shape("mask", mask.shape, geometry.mask_shape(geo.y_shape))
    mask, dx, dw, db = contiguous(mask), None, None, None
    if needs[0]:
        dx = _backward_input(on, geo, dy, mask, w)
    if needs[1]:
        dw, db = _backward_weight(on, geo, dy, mask, x, needs[2])
    elif needs[2]:  # in the parts that it would have beside dw
        rung = choose(BACKWARD_WEIGHT, geo, x.dtype)
        parts = _weight_grid(rung, geo)[2] if _adds_bias(rung, x.dtype) else None
        db = _backward_bias(on, channels_last(dy), mask, parts)
    return dx, dw, db


def conv2d_relu_max_pool2d_forward(on, x, w, b=None, stride=1, padding=0, dilation=1, groups=1, ceil_mode=False):
    """See `reference.conv2d_relu_max_pool2d_forward`."""
    y, mask = conv2d_relu_forward(on, x, w, b, stride, padding, dilation, groups)
    return masked_maxima(on, y, mask, ceil_mode), mask


def conv2d_relu_max_pool2d_backward(
    on, dy, mask, x, w, stride=1, padding=0, dilation=1, groups=1, ceil_mode=False, needs=(True, True, True)
):
    """See `reference.conv2d_relu_max_pool2d_backward`."""
    same_storage(dy=dy, x=x, of_sums={"weight": w})
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    checks.expect_shape("dy", dy.shape, geometry.max_pool2d(geo.y_shape, 2, ceil_mode=ceil_mode).y_shape)
    dz = spread_windows(on, dy, geo.y_shape)
    return conv2d_relu_backward(on, dz, mask, x, w, stride, padding, dilation, groups, needs)
