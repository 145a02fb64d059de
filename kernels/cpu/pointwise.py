"""1 x 1 convolutions: a pixel's channels are a row of a matrix already, and nothing is gathered, padded or skipped.

forward          y  [pixels, K]  =  x  [pixels, C]  x  w^T [C, K]
backward input   dx [pixels, C]  =  dy [pixels, K]  x  w [K, C]
backward weight  dw [K, C]       =  dy^T [K, pixels]  x  x [pixels, C]
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import memory
from . import gemm
from .gemm import add_sums
from .microkernel import finished_product, panel_width, product
from .outline import tools
from .runs import clear_run, copy_masked_run, finish_rows, sum_rows
from .threads import JOBS, jobs, member, run, scratch
from .vectors import VECTOR_BYTES, lanes_of

PIXELS = 96  # of a job
SMALL = 1 << 21  # multiplications that one thread does before others could help much
FEW_PIXELS = 16  # of a job of the backward pass for the input, where there are not many
OUTPUTS = 24  # output channels of a job of the weight gradient, at most
FEW_OUTPUTS = 16  # where there are not many
SPLIT = 8  # jobs that a small problem is split into, if it has as many panels


def supports(geo, dtype) -> bool:
    """One tap of stride 1 without padding or groups; input channels that fill whole vectors."""
    plain = geo.stride == (1, 1) and geo.padding == (0, 0) and geo.groups == 1
    return (geo.R, geo.S) == (1, 1) and plain and geo.C % lanes_of(dtype) == 0


def _jobs(most: int, geo) -> int:
    """`most`, or one where it is all done before a second thread has begun."""
    return most if geo.N * geo.P * geo.Q * geo.C * geo.K > SMALL else 1


def takes_weights_as_they_are(geo) -> bool:
    """Yes: the launch that uses the panels can make them first."""
    return True


forward_weights = gemm.forward_weights


@njit(cache=True, nogil=True)
def _forward(team, tools, x, pixels, C, K, w, blocks, splits, panels, bias, relu, y, mask, mask_row):
    """y [pixels, K] of x [pixels, C]. One job a block of pixels and some panels of output channels.

    The panels of w, if they are not made yet, are made first, by one job a vector of output channels.
    """
    width, flat, lanes = panels.shape[2], panels.reshape(-1), VECTOR_BYTES // x.itemsize
    for job in jobs(team, 0):
        gemm.pack_outputs(tools, w, K, C, lanes, job, panels)
    # rows a power of two apart share one set of the first-level cache, which holds 8 lines
    at_once = 6 if C * x.itemsize % 4096 == 0 else PIXELS
    own = np.empty(PIXELS * width, x.dtype)
    unit = max(1, 8 // width)  # panels of one byte of the mask belong to one job
    units = (len(panels) + unit - 1) // unit
    for job in jobs(team, 1):
        split, block = divmod(job, blocks)
        first, last = block * pixels // blocks, (block + 1) * pixels // blocks
        for panel in range(split * units // splits * unit, min((split + 1) * units // splits * unit, len(panels))):
            k = panel * width
            if K - k >= width:
                finished_product(
                    tools, last - first, width, x, first * C, C, 1, 0, flat, panel * C * width, width, 0,
                    y, first * K + k, K, C, 1, bias, k, relu, mask, 0, first * mask_row + k, mask_row,
                )  # fmt: skip
                continue
            for row in range(first, last, at_once):
                rows = min(at_once, last - row)
                product(
                    tools, rows, width, x, row * C, C, 1, 0, flat, panel * C * width, width, 0,
                    own, 0, width, C, 1, 0,
                )  # fmt: skip
                finish_rows(
                    own, 0, width, bias, k, relu, y, row * K + k, K, mask, row * mask_row + k, mask_row,
                    rows, min(width, K - k),
                )  # fmt: skip


def forward(geo, x, weights, bias, relu):
    """(y [N, P, Q, K], mask of its ReLU or None), with panels of weights, or with the weights as they are."""
    pixels, width, lanes = geo.N * geo.P * geo.Q, panel_width(geo.K, x.dtype), lanes_of(x.dtype)
    y = memory.empty((geo.N, geo.P, geo.Q, geo.K), x.dtype)
    mask = memory.empty((*y.shape[:3], -(-geo.K // 8)), np.uint8) if relu else None
    if isinstance(weights, np.ndarray):
        panels = memory.empty((-(-geo.K // width), geo.C, width), x.dtype)
        w, to_pack = weights.reshape(-1), len(panels) * width // lanes
    else:
        (panels,), w, to_pack = weights, weights[0].reshape(-1), 0
    blocks = _jobs(-(-pixels // PIXELS), geo)
    splits = _jobs(min(len(panels), max(1, SPLIT // max(blocks, 1))), geo)
    bits, row, _ = gemm.bits(mask)
    run(
        _forward, (to_pack, blocks * splits), tools(x.dtype), x.reshape(-1), pixels, geo.C, geo.K, w,
        blocks, splits, panels, bias, int(relu), y.reshape(-1), bits, row,
    )  # fmt: skip
    return y, mask


def _room(dy, mask, size):
    """Memory for the threads' masked parts of dy, `size` elements each; where there is no mask, any."""
    return dy.reshape(1, -1) if mask is None else scratch(size, dy.dtype)


def backward_input_weights(geo, w):
    """Nothing to prepare: the weights are used as they are."""
    return w


@njit(cache=True, nogil=True)
def _backward_input(team, tools, dy, pixels, K, C, width, blocks, w, mask, mask_row, masked, room, dx):
    """dx [pixels, C] of dy [pixels, K]. One job a block of pixels and some panels of input channels."""
    own = room[member(team)] if masked else room[0]
    splits = team[JOBS] // blocks
    panels = C // width
    for job in jobs(team):
        split, block = divmod(job, blocks)
        first, last = block * pixels // blocks, (block + 1) * pixels // blocks
        if masked:
            for i in range(last - first):
                copy_masked_run(dy, (first + i) * K, mask, (first + i) * mask_row, 1, own, i * K, K)
        for panel in range(split * panels // splits, (split + 1) * panels // splits):
            c, target = panel * width, first * C + panel * width
            if masked:
                product(tools, last - first, width, own, 0, K, 1, 0, w, c, C, 0, dx, target, C, K, 1, 0)
            else:
                product(tools, last - first, width, dy, first * K, K, 1, 0, w, c, C, 0, dx, target, C, K, 1, 0)


def backward_input(geo, dy, mask, w):
    """dx [N, H, W, C] of dy [N, P, Q, K], where `mask` lets it pass."""
    pixels, width = geo.N * geo.P * geo.Q, panel_width(geo.C, dy.dtype)
    dx = memory.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    blocks = _jobs(max(-(-pixels // PIXELS), min(SPLIT, pixels // FEW_PIXELS)), geo)
    splits = _jobs(min(geo.C // width, max(1, SPLIT // max(blocks, 1))), geo)
    room = _room(dy, mask, -(-pixels // max(blocks, 1)) * geo.K)
    run(
        _backward_input, blocks * splits, tools(dy.dtype), dy.reshape(-1), pixels, geo.K, geo.C, width, blocks,
        w.reshape(-1), *gemm.bits(mask), room, dx.reshape(-1),
    )  # fmt: skip
    return dx


@njit(cache=True, nogil=True)
def _backward_weight(team, tools, dy, x, pixels, K, C, width, blocks, mask, mask_row, masked, room, dw, sums, db):
    """dw [K, C] and db [K], the sums of dy, by way of sums [1, K].

    One job a block of output channels and some panels of input channels.
    """
    own = room[member(team)] if masked else room[0]
    splits = team[JOBS] // blocks
    panels = C // width
    for job in jobs(team):
        block, split = divmod(job, splits)
        k0, k1 = block * K // blocks, (block + 1) * K // blocks
        count = k1 - k0
        place, row = (0, count) if masked else (k0, K)
        for i in range(pixels if masked else 0):
            copy_masked_run(dy, i * K + k0, mask, i * mask_row + k0, 1, own, i * count, count)
        if split == 0:
            clear_run(sums[0], k0, count)
            sum_rows(own, place, row, pixels, count, sums[0, k0:])
            add_sums(sums, k0, k1, db)
        for panel in range(split * panels // splits, (split + 1) * panels // splits):
            c = panel * width
            product(tools, count, width, own, place, 1, row, 0, x, c, C, 0, dw, k0 * C + c, C, pixels, 1, 0)


def backward_weight(geo, dy, mask, x):
    """(dw [K, 1, 1, C], db [K]) of dy [N, P, Q, K], where `mask` lets it pass, and x [N, H, W, C]."""
    pixels, width = geo.N * geo.P * geo.Q, panel_width(geo.C, x.dtype)
    dw, db = memory.empty((geo.K, 1, 1, geo.C), x.dtype), memory.empty((geo.K,), x.dtype)
    if pixels == 0:
        dw[...], db[...] = 0, 0
        return dw, db
    blocks = _jobs(max(-(-geo.K // OUTPUTS), min(2 * SPLIT, geo.K // FEW_OUTPUTS)), geo)
    splits = _jobs(min(geo.C // width, max(1, SPLIT // blocks)), geo)
    room = _room(dy, mask, pixels * -(-geo.K // blocks))
    run(
        _backward_weight, blocks * splits, tools(x.dtype), dy.reshape(-1), x.reshape(-1), pixels, geo.K, geo.C, width,
        blocks, *gemm.bits(mask), room, dw.reshape(-1), memory.empty((1, geo.K), np.float64), db,
    )  # fmt: skip
    return dw, db
