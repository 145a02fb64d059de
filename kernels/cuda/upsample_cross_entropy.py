"""The head of a segmentation network in one: upsampling, crop and softmax cross entropy, or the largest score."""

from __future__ import annotations

from .. import checks, geometry
from ..layout import channels_first, channels_last, contiguous
from ..storage import sums_in
from .cross_entropy import check_target, prepared
from .launch import blocks, each, template
from .storage import same_storage
from .upsample import reaches, starts

FILE = "upsample_cross_entropy.cu"
THREADS = 128  # of a block of the backward pass, at most


def _window(on, x, factor, padding, offset, size) -> tuple:
    """Arguments of `reaches` and `starts` for the window of the upsampled x at `offset`, after checking it."""
    geo, corner = geometry.upsample_window(x.shape, factor, padding, offset, size)
    return (on, geo, *corner, tuple(size), sums_in(x.dtype))


def upsample_cross_entropy_forward(on, x, target, weight=None, ignore_index=255, factor=1, padding=0, offset=0):
    """See `reference.upsample_cross_entropy_forward`."""
    same_storage(x=x, of_sums={"weight": weight})
    checks.expect_rank3("target", target.shape)
    window = _window(on, x, factor, padding, offset, target.shape[1:])
    check_target(on, (*x.shape[:2], *target.shape[1:]), target, weight, ignore_index)
    losses, (_, C, H, W) = on.xp.empty(target.shape, sums_in(x.dtype)), x.shape
    labels = prepared(on, losses.dtype, C, target, weight, ignore_index)
    arrays = (channels_last(x), *labels, *reaches(*window), losses)
    expression = template("upsample_cross_entropy", x.dtype, labels[0].dtype)
    each(on, FILE, expression, target.size, *arrays, H, W, C, *target.shape[1:])
    return losses


def upsample_cross_entropy_backward_input(
    on, dy, x, target, weight=None, ignore_index=255, factor=1, padding=0, offset=0
):  # fmt: skip
    """See `reference.upsample_cross_entropy_backward_input`."""
    same_storage(x=x, of_sums={"dy": dy, "weight": weight})
    checks.expect_rank3("target", target.shape)
    window = _window(on, x, factor, padding, offset, target.shape[1:])
    check_target(on, (*x.shape[:2], *target.shape[1:]), target, weight, ignore_index)
    checks.expect_shape("dy", dy.shape, target.shape)
    N, C, H, W = x.shape
    geo = window[1]
    threads = next((t for t in (32, 64) if geo.factor[0] * geo.factor[1] <= t), THREADS)
    lanes = max(1, threads // C)
    shared = dy.dtype.itemsize * (3 * threads + 4 * lanes * C) + 4 * threads
    pieces = on.xp.empty((N, H + 1, W + 1, 4, C), dy.dtype)
    labels = prepared(on, dy.dtype, C, target, weight, ignore_index)
    arrays = (contiguous(dy), channels_last(x), *labels, *reaches(*window), *starts(*window), pieces)
    expression = template("upsample_cross_entropy_backward", x.dtype, labels[0].dtype)
    grid = (N * (H + 1) * (W + 1), 1, 1)
    blocks(on, FILE, expression, grid, threads, shared, *arrays, H, W, C, *target.shape[1:], lanes)
    dx = on.xp.empty((N, H, W, C), x.dtype)
    each(on, FILE, template("join_pieces", x.dtype), dx.size, pieces, dx, H, W, C)
    return channels_first(dx)


def upsample_argmax(on, x, factor, padding, offset, size):
    """See `reference.upsample_argmax`."""
    same_storage(x=x)
    size = geometry.pair(size, "size", 1)
    window = _window(on, x, factor, padding, offset, size)
    N, C, H, W = x.shape
    labels = on.xp.empty((N, *size), checks.label_dtype(C))
    expression = template("upsample_argmax", x.dtype, labels.dtype)
    each(on, FILE, expression, labels.size, channels_last(x), *reaches(*window), labels, H, W, C, *size)
    return labels
