"""Crop, its adjoint, and crop-and-sum."""

from __future__ import annotations

from .. import checks, geometry
from ..layout import channels_first, channels_last
from .launch import each, template
from .storage import same_storage

FILE = "crop.cu"


def crop_forward(on, x, offset, size):
    """See `reference.crop_forward`."""
    same_storage(x=x)
    (top, left), (P, Q) = geometry.crop_window(x.shape, offset, size)
    N, C, H, W = x.shape
    y = on.xp.empty((N, P, Q, C), x.dtype)
    each(on, FILE, template("crop", x.dtype), y.size, channels_last(x), y, H, W, C, P, Q, top, left)
    return channels_first(y)


def crop_backward_input(on, dy, offset, input_size):
    """See `reference.crop_backward_input`."""
    same_storage(dy=dy)
    checks.expect_rank4("dy", dy.shape)
    N, C, P, Q = dy.shape
    (top, left), _ = geometry.crop_window((N, C, *input_size), offset, (P, Q))
    dx = on.xp.empty((N, *input_size, C), dy.dtype)
    each(on, FILE, template("pad", dy.dtype), dx.size, channels_last(dy), dx, *input_size, C, P, Q, top, left)
    return channels_first(dx)


def crop_sum_forward(on, x, skip, offset):
    """See `reference.crop_sum_forward`."""
    same_storage(x=x, skip=skip)
    top, left = geometry.crop_sum_offset(x.shape, skip.shape, offset)
    (N, C, P, Q), (H, W) = x.shape, skip.shape[2:]
    y = on.xp.empty((N, P, Q, C), x.dtype)
    arrays = (channels_last(x), channels_last(skip), y)
    each(on, FILE, template("crop_sum", x.dtype), y.size, *arrays, H, W, C, P, Q, top, left)
    return channels_first(y)
