"""Max and average pooling."""

from __future__ import annotations

import numpy as np

from .. import checks, geometry
from ..layout import FEW_TAPS, channels_first, channels_last, contiguous, is_packed, packed_winners
from ..storage import sums_in
from .launch import each, on_device, template
from .storage import same_storage

FILE = "pool2d.cu"


def _sizes(geo) -> tuple[int, ...]:
    """POOL2D_SIZES of `pool2d.cu`."""
    return (geo.H, geo.W, geo.C, geo.P, geo.Q, geo.R, geo.S, *geo.stride, *geo.padding, *geo.dilation)


def _counts(geo, include_pad: bool, dtype) -> list[np.ndarray]:
    """`geometry.window_counts` as arrays."""
    return [np.array(count, dtype) for count in geometry.window_counts(geo, include_pad)]


def max_pool2d_forward(on, x, window, stride=None, padding=0, dilation=1, ceil_mode=False):
    """See `reference.max_pool2d_forward`."""
    same_storage(x=x)
    geo = geometry.max_pool2d(x.shape, window, stride, padding, dilation, ceil_mode)
    y = on.xp.empty((geo.N, geo.P, geo.Q, geo.C), x.dtype)
    packed = geo.R * geo.S <= FEW_TAPS
    argmax = on.xp.empty(packed_winners(geo.y_shape) if packed else y.shape, np.uint8)
    kernel = template("max_pool2d_packed" if packed else "max_pool2d", x.dtype)
    each(on, FILE, kernel, argmax.size, channels_last(x), y, argmax, *_sizes(geo))
    return channels_first(y), argmax if packed else channels_first(argmax)


def max_pool2d_backward_input(on, dy, argmax, input_size, window, stride=None, padding=0, dilation=1, ceil_mode=False):
    """See `reference.max_pool2d_backward_input`."""
    same_storage(dy=dy)
    geo = geometry.max_pool2d((*dy.shape[:2], *input_size), window, stride, padding, dilation, ceil_mode)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    packed = is_packed(argmax, geo)
    checks.expect_argmax(argmax, argmax.shape if packed else geo.y_shape)
    dx = on.xp.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    arrays = (channels_last(dy), contiguous(argmax) if packed else channels_last(argmax), dx)
    each(on, FILE, template("max_pool2d_backward", dy.dtype, packed), dx.size, *arrays, *_sizes(geo))
    return channels_first(dx)


def masked_maxima(on, x, mask, ceil_mode):
    """The maxima [N, C, P, Q] of 2 x 2 windows of x [N, C, H, W]; of `mask`, ReLU's, those bits stay that won."""
    geo = geometry.max_pool2d(x.shape, 2, ceil_mode=ceil_mode)
    y = on.xp.empty((geo.N, geo.P, geo.Q, geo.C), x.dtype)
    count = geo.N * -(-geo.H // 2) * -(-geo.W // 2) * mask.shape[3]
    each(on, FILE, template("max_pool2d_masked", x.dtype), count, channels_last(x), y, mask, *_sizes(geo))
    return channels_first(y)


def spread_windows(on, dy, shape):
    """dx [N, C, H, W] = `shape`: what dy has for the 2 x 2 window of each pixel."""
    (N, C, H, W), (P, Q) = shape, dy.shape[2:]
    dx = on.xp.empty((N, H, W, C), dy.dtype)
    each(on, FILE, template("spread_windows", dy.dtype), dx.size, channels_last(dy), dx, H, W, C, P, Q)
    return channels_first(dx)


def avg_pool2d_forward(on, x, window, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """See `reference.avg_pool2d_forward`."""
    same_storage(x=x)
    geo = geometry.pool2d(x.shape, window, stride, padding, 1, ceil_mode)
    y = on.xp.empty((geo.N, geo.P, geo.Q, geo.C), x.dtype)
    counts = on_device(on, _counts, geo, count_include_pad, sums_in(x.dtype))
    each(on, FILE, template("avg_pool2d", x.dtype), y.size, channels_last(x), *counts, y, *_sizes(geo))
    return channels_first(y)


def avg_pool2d_backward_input(
    on, dy, input_size, window, stride=None, padding=0, ceil_mode=False, count_include_pad=True
):  # fmt: skip
    """See `reference.avg_pool2d_backward_input`."""
    same_storage(dy=dy)
    geo = geometry.pool2d((*dy.shape[:2], *input_size), window, stride, padding, 1, ceil_mode)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    dx = on.xp.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    counts = on_device(on, _counts, geo, count_include_pad, sums_in(dy.dtype))
    each(on, FILE, template("avg_pool2d_backward", dy.dtype), dx.size, channels_last(dy), *counts, dx, *_sizes(geo))
    return channels_first(dx)
