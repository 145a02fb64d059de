"""Bilinear upsampling and its adjoint."""

from __future__ import annotations

from .. import checks, geometry, tables
from ..layout import channels_first, channels_last
from ..storage import sums_in
from .launch import each, on_device, template
from .storage import same_storage

FILE = "upsample.cu"


def reaches(on, geo, top: int, left: int, size: tuple[int, int], dtype) -> tuple:
    """`tables.reaches` on the device: REACHES of `upsample.cuh`."""
    return on_device(on, tables.reaches, geo, top, left, size, dtype)


def starts(on, geo, top: int, left: int, size: tuple[int, int], dtype) -> tuple:
    """Where the intervals between coarse rows, and between coarse columns, start in the output: [H + 2], [W + 2]."""
    return on_device(on, _starts, geo, top, left, size, dtype)


def _starts(geo, top, left, size, dtype):
    rows, _, columns, _ = tables.reaches(geo, top, left, size, dtype)
    return tables.intervals(rows, geo.H), tables.intervals(columns, geo.W)


def bilinear_upsample_forward(on, x, factor, padding):
    """See `reference.bilinear_upsample_forward`."""
    same_storage(x=x)
    geo = geometry.upsample(x.shape, factor, padding)
    N, C, P, Q = geo.y_shape
    y = on.xp.empty((N, P, Q, C), x.dtype)
    found = reaches(on, geo, 0, 0, (P, Q), sums_in(x.dtype))
    each(on, FILE, template("bilinear_upsample", x.dtype), y.size, channels_last(x), *found, y, geo.H, geo.W, C, P, Q)
    return channels_first(y)


def bilinear_upsample_backward_input(on, dy, input_size, factor, padding):
    """See `reference.bilinear_upsample_backward_input`."""
    same_storage(dy=dy)
    geo = geometry.upsample((*dy.shape[:2], *input_size), factor, padding)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    N, C, P, Q = geo.y_shape
    window = (on, geo, 0, 0, (P, Q), sums_in(dy.dtype))
    _, row_weights, _, column_weights = reaches(*window)
    dx = on.xp.empty((N, geo.H, geo.W, C), dy.dtype)
    arrays = (channels_last(dy), row_weights, column_weights, *starts(*window), dx)
    each(on, FILE, template("bilinear_upsample_backward", dy.dtype), dx.size, *arrays, geo.H, geo.W, C, P, Q)
    return channels_first(dx)
