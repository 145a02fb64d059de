"""Convolutions with more weights than pixels, tap by tap, the weights read once, where they lie.

fc6 of an FCN over VGG16 has 103 million weights (411 MB) and, on a small image, a few dozen pixels: packing or
transposing its weights would cost more than the arithmetic. Here each tap (r, s) of the window is a matrix product of
its own, over just the pixels whose tap falls inside the image; on a 6 x 8 map that is 56 % of fc6's dense work.

    forward          y^T [K, pixels]  +=  w[:, r, s, :] [K, C]  x  x^T [C, pixels moved by (r, s)]
    backward input   dx [pixels, C]   +=  dy [pixels, K]  x  w[:, r, s, :] [K, C]
    backward weight  dw[:, r, s, :]    =  dy^T [K, pixels]  x  x [pixels moved by (r, s), C]

A job takes some K. Weights are [K, R, S, C] in memory, so every job reads (or writes) one contiguous piece of them. In
the backward pass for the input a job makes a share of dx, and the shares are added in order.

A small map has short rows. So the images of a pixel are brought together, [H, W, N, C], and a row of the rectangle that
a tap covers is one matrix with as many rows as it has pixels in all images; rows that fill the whole width of the map,
as those of a 1x1 do, are one matrix together; all rows are one sum in dw. Few
weights (fc6 of a small network has 1.6 million) are worth their transposition, in the second-level cache: the forward
pass is then y [pixels, K] += x [pixels moved by (r, s), C] x w[:, r, s, :]^T [C, K], with no patches to be gathered.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit

from .. import memory
from .callee import callee
from .gemm import add_sums, bits
from .gemm import forward_weights as packed
from .microkernel import ADD, STORE, STREAM, VECTORS, panel_width, product
from .outline import tools
from .runs import add_run, clear_run, copy_masked_run, copy_run, finish_rows, sum_rows
from .threads import jobs, member, run, scratch, share
from .tiles import pack_panels, transpose
from .vectors import VECTOR_BYTES, lanes_of

WEIGHTS = 1 << 16  # weights of one tap that a job works on: they stay in the second-level cache
FEW_WEIGHTS = 1 << 22  # up to so many are transposed for the forward pass, and their gradient stays in the caches
SHARES = 8  # of the output channels, in the backward pass for the input
BLOCK = 64  # output channels whose weights are in the cache together there, at most
ADDING = 8  # jobs that add its shares
OUTPUTS = 24  # output channels of a job of the weight gradient, at most
JOBS = 16  # that it is split into, if each gets as many channels
SPLIT = 4  # jobs that a small forward pass is split into, if it has as many rows


def supports(geo, dtype) -> bool:
    """No groups; channels that fill whole vectors."""
    return geo.groups == 1 and geo.C % lanes_of(dtype) == 0


@lru_cache(maxsize=1024)  # a small layer may take no longer than this does
def _rectangles(geo) -> np.ndarray:
    """[tap, (p0, p1, q0, q1)]: the output pixels whose tap falls inside the image."""

    def inside(size: int, out: int, stride: int, padding: int, offset: int) -> tuple[int, int]:
        pixels = [u for u in range(out) if 0 <= u * stride - padding + offset < size]
        return (pixels[0], pixels[-1] + 1) if pixels else (0, 0)

    (sh, sw), (ph, pw), (dh, dw) = geo.stride, geo.padding, geo.dilation
    rows = [inside(geo.H, geo.P, sh, ph, r * dh) for r in range(geo.R)]
    columns = [inside(geo.W, geo.Q, sw, pw, s * dw) for s in range(geo.S)]
    return memory.constant(np.array([[*p, *q] for p in rows for q in columns], np.int64))


@lru_cache(maxsize=1024)
def _patches(geo, lanes: int) -> tuple[np.ndarray, np.ndarray, int, int]:
    """(starts, wide, size, most): where the patches of each tap begin, and how long their rows are, in whole vectors.

    size: elements of all of them; most: the largest of `wide`.
    """
    rectangles = _rectangles(geo)
    valid = (rectangles[:, 1] - rectangles[:, 0]) * (rectangles[:, 3] - rectangles[:, 2]) * geo.N
    wide = -(-valid // lanes) * lanes
    starts = np.cumsum([0, *(wide[:-1] * geo.C)])
    return memory.constant(starts), memory.constant(wide), int(wide.sum()) * geo.C, int(wide.max())


@lru_cache(maxsize=1024)
def _window(geo) -> tuple[int, ...]:
    """(H, W, P, Q, stride, padding, dilation, S), what the kernels need to place a tap."""
    return (geo.H, geo.W, geo.P, geo.Q, *geo.stride, *geo.padding, *geo.dilation, geo.S)


@njit(cache=True, nogil=True)
def _met(window, tap, p, q):
    """(h, w) of the input pixel that the tap of the output pixel (p, q) meets."""
    _, _, _, _, sh, sw, ph, pw, dh, dw, S = window
    r, s = divmod(tap, S)
    return p * sh - ph + r * dh, q * sw - pw + s * dw


@njit(cache=True, nogil=True)
def _even_columns(N, sw, q0, q1):
    """(columns, step): of the columns q0 .. q1 - 1, so many meet pixels of [H, W, N] that lie `step` apart."""
    if N == 1:
        return max(q1 - q0, 1), sw
    return max(q1 - q0, 1) if sw == 1 else 1, 1


@njit(cache=True, nogil=True)
def _even_rows(window, columns, p0, p1):
    """Of the rows p0 .. p1 - 1, so many follow each other without a gap: all, if each is a whole row on both sides."""
    _, W, _, Q, sh, sw = window[:6]
    return max(p1 - p0, 1) if columns == Q == W and sh == sw == 1 else 1


@callee
def _transpose_patches(x, N, C, window, tap, rectangle, wide, patches):
    """patches[c wide + j] = x at the j-th pixel of the tap's rectangle; zeros up to wide."""
    H, W, _, _, _, sw = window[:6]
    p0, p1, q0, q1 = rectangle
    for c in range(C):
        j, end = c * wide, (c + 1) * wide
        for n in range(N):
            for p in range(p0, p1):
                h, w = _met(window, tap, p, q0)
                place = ((n * H + h) * W + w) * C + c
                for _ in range(q0, q1):
                    patches[j] = x[place]
                    place += C * sw
                    j += 1
        while j < end:
            patches[j] = 0
            j += 1


@njit(cache=True, nogil=True)
def _forward(
    team, tools, x, w, N, C, K, window, rectangles, starts, wide, most, patches, blocks, room,
    bias, relu, y, mask, mask_row,
):  # fmt: skip
    """y [pixels, K], all taps' products added up.

    One job a tap writes its patches, from patches[starts[tap]] on; then one job a block of output channels.
    """
    own = room[member(team)]
    P, Q = window[2:4]
    taps, pixels, widest = len(rectangles), N * P * Q, VECTORS * VECTOR_BYTES // w.itemsize
    for tap in jobs(team, 0):
        _transpose_patches(x, N, C, window, tap, rectangles[tap], wide[tap], patches[starts[tap] :])
    for job in jobs(team, 1):
        k0, k1 = 8 * (job * (K // 8) // blocks), K if job == blocks - 1 else 8 * ((job + 1) * (K // 8) // blocks)
        count = k1 - k0
        total, part = own[: count * pixels], own[count * pixels : count * (pixels + most)]
        line = own[len(own) - count :]
        total[:] = 0
        for tap in range(taps):
            p0, p1, q0, q1 = rectangles[tap]
            width = wide[tap]
            column = 0
            while column < width:
                panel = min(width - column, widest)
                product(
                    tools, count, panel, w, (k0 * taps + tap) * C, taps * C, 1, 0,
                    patches, starts[tap] + column, width, 0, part, column, width, C, 1, STORE,
                )  # fmt: skip
                column += panel
            if width == 0:
                continue
            for k in range(count):
                j = k * width
                for n in range(N):
                    for p in range(p0, p1):
                        add_run(part, j, total, k * pixels + (n * P + p) * Q + q0, q1 - q0)
                        j += q1 - q0
        for pixel in range(pixels):
            for k in range(count):
                line[k] = total[k * pixels + pixel]
            finish_rows(line, 0, 0, bias, k0, relu, y, pixel * K + k0, 0, mask, pixel * mask_row + k0, 0, 1, count)


@callee
def _images_together(x, N, pixels, C, room):
    """x [N, pixels, C] as [pixels, N, C], in `room` unless it is one image."""
    if N == 1:
        return x
    for n in range(N):
        for pixel in range(pixels):
            copy_run(x, (n * pixels + pixel) * C, room, (pixel * N + n) * C, C)
    return room


@callee
def _transpose_taps(tools, w, k0, taps, first, count, C, lanes, panel, width):
    """panel [count C, width] = the weights of `count` taps and of the output channels from k0 on, transposed."""
    for k in range(0, width, lanes):
        for d in range(0, count * C, lanes):
            transpose(tools, w, ((k0 + k) * taps + first) * C + d, taps * C, panel, d * width + k, width)


@njit(cache=True, nogil=True)
def _forward_few(
    team, tools, x, weights, packed, N, C, K, window, rectangles, width, splits, room, starts,
    bias, relu, y, mask, mask_row,
):  # fmt: skip
    """y [pixels, K] of few weights. One job a panel of output channels and a share of the output's rows.

    The weights are panels already, where they are `packed`; else each job brings those of one row of taps at a time
    into that form. starts = where a thread's memory holds the totals and its panel.
    """
    own = room[member(team)]
    H, W, P, Q, _, sw, _, _, _, _, S = window
    totals, panel = own[starts[0] : starts[1]], weights if packed else own[starts[1] :]
    images = _images_together(x, N, H * W, C, own)
    taps, lanes = len(rectangles), VECTOR_BYTES // x.itemsize
    for job in jobs(team):
        block, split = divmod(job, splits)
        k0, low, high = block * width, split * P // splits, (split + 1) * P // splits
        totals[: (high - low) * Q * N * width] = 0
        for tap in range(taps):
            p0, p1, q0, q1 = rectangles[tap]
            if tap % S == 0 and not packed:
                _transpose_taps(tools, weights, k0, taps, tap, S, C, lanes, panel, width)
            start = ((block * taps + tap) if packed else tap % S) * C * width
            p0, p1 = max(p0, low), min(p1, high)
            columns, step = _even_columns(N, sw, q0, q1)
            rows = _even_rows(window, columns, p0, p1)
            for p in range(p0, p1, rows):
                for q in range(q0, q1, columns):
                    h, v = _met(window, tap, p, q)
                    product(
                        tools, rows * columns * N, width, images, (h * W + v) * N * C, step * C, 1, 0,
                        panel, start, width, 0, totals, ((p - low) * Q + q) * N * width, width, C, 1, ADD,
                    )  # fmt: skip
        for n in range(N):
            pixel = (n * P + low) * Q
            finish_rows(
                totals, n * width, N * width, bias, k0, relu, y, pixel * K + k0, K, mask, pixel * mask_row + k0,
                mask_row, (high - low) * Q, width,
            )  # fmt: skip


def _room_together(x) -> int:
    """Elements of memory that `_images_together` writes."""
    return 0 if len(x) == 1 else memory.padded(x.size, x.dtype)


def _few(geo, dtype) -> bool:
    """Whether the weights are few, and fill whole panels whose bits of a mask are whole bytes."""
    width = panel_width(geo.K, dtype)
    return geo.K * geo.C * geo.R * geo.S <= FEW_WEIGHTS and geo.K % width == 0 and width % 8 == 0


def takes_weights_as_they_are(geo) -> bool:
    """A weight that a step changes is read once, by the job that needs it: panels of all would be written and read."""
    return True


def forward_weights(geo, w):
    """Panels, as for `gemm`, of few weights that are constant; many are used as they are."""
    return packed(geo, w)[0] if _few(geo, w.dtype) else w


def _forward_with_few(geo, x, w, bias, relu):
    """(y [N, P, Q, K], mask of its ReLU or None) with panels of weights, or with the weights as they are."""
    y = memory.empty((geo.N, geo.P, geo.Q, geo.K), x.dtype)
    mask = memory.empty((*y.shape[:3], -(-geo.K // 8)), np.uint8) if relu else None
    width = panel_width(geo.K, x.dtype)
    panels, is_packed = geo.K // width, int(w.ndim == 3)
    splits = max(1, min(geo.P, SPLIT // panels))
    images, totals = _room_together(x), geo.N * -(-geo.P // splits) * geo.Q * width
    room = scratch(images + totals + (1 - is_packed) * geo.S * geo.C * width, x.dtype)
    out_bits, out_row, _ = bits(mask)
    run(
        _forward_few, panels * splits, tools(x.dtype), x.reshape(-1), w.reshape(-1), is_packed, geo.N, geo.C, geo.K,
        _window(geo), _rectangles(geo), width, splits, room, (images, images + totals), bias, int(relu),
        y.reshape(-1), out_bits, out_row,
    )  # fmt: skip
    return y, mask


def forward(geo, x, w, bias, relu):
    """(y [N, P, Q, K], mask of its ReLU or None)."""
    if _few(geo, x.dtype):
        return _forward_with_few(geo, x, w, bias, relu)
    starts, wide, size, most = _patches(geo, lanes_of(x.dtype))
    patches = memory.empty((max(size, 1),), x.dtype)
    y = memory.empty((geo.N, geo.P, geo.Q, geo.K), x.dtype)
    mask = memory.empty((*y.shape[:3], -(-geo.K // 8)), np.uint8) if relu else None
    rows = max(8, WEIGHTS // geo.C // 8 * 8)
    blocks = max(1, -(-geo.K // rows))
    room = scratch((rows + 8) * (geo.N * geo.P * geo.Q + most + 1), x.dtype)
    out_bits, out_row, _ = bits(mask)
    run(
        _forward, (geo.R * geo.S, blocks), tools(x.dtype), x.reshape(-1), w.reshape(-1), geo.N, geo.C, geo.K,
        _window(geo), _rectangles(geo), starts, wide, most, patches, blocks, room, bias, int(relu),
        y.reshape(-1), out_bits, out_row,
    )  # fmt: skip
    return y, mask


@callee
def _gather_block(dy, N, pixels, K, k0, k1, mask, mask_row, masked, block):
    """block [pixels, N, k1 - k0] = dy [N, pixels, K] where the mask lets it pass."""
    count = k1 - k0
    for n in range(N):
        for pixel in range(pixels):
            place = n * pixels + pixel
            copy_masked_run(
                dy, place * K + k0, mask, place * mask_row + k0, masked, block, (pixel * N + n) * count, count
            )


@callee
def _add_parts(parts, N, pixels, C, first, last, total):
    """total [N, pixels, C] = the sum of the parts [pixels, N, C], in order, of the pixels first .. last - 1."""
    for row in range(first * N, last * N):
        pixel, n = divmod(row, N)
        target = (n * pixels + pixel) * C
        copy_run(parts[0], row * C, total, target, C)
        for i in range(1, len(parts)):
            add_run(parts[i], row * C, total, target, C)


@njit(cache=True, nogil=True)
def _backward_input(
    team, tools, dy, w, N, C, K, window, rectangles, mask, mask_row, masked, most, group, room, weights_size, parts, dx
):  # fmt: skip
    """dx [N, H W, C]: first parts [share, H W N C], the contributions of shares of the output channels, one a job.

    The weights of `most` output channels and `group` neighbouring taps are brought into the cache together, as panels:
    memory is fast at long reads, and whole rows of them would share a few sets of the first-level cache. Few weights
    (weights_size = 0) are read where they lie, while the product works. Then a job adds up the parts of a few pixels.
    """
    own = room[member(team)]
    packed = weights_size > 0
    weights, block = own[:weights_size] if packed else w, own[weights_size:]
    H, W, P, Q, _, sw = window[:6]
    taps, lanes = len(rectangles), VECTOR_BYTES // w.itemsize
    widest = VECTORS * lanes
    row = widest if packed else taps * C
    for job in jobs(team, 0):
        k0, end = share(team, job, K)
        part = parts[job]
        part[:] = 0
        while k0 < end:
            count = min(most, end - k0)
            _gather_block(dy, N, P * Q, K, k0, k0 + count, mask, mask_row, masked, block)
            first_tap = 0
            while first_tap < taps:
                p0, p1, q0, q1 = rectangles[first_tap]
                if p1 == p0 or q1 == q0:
                    first_tap += 1
                    continue
                together = min(group, taps - first_tap)
                if packed:
                    pack_panels(w, (k0 * taps + first_tap) * C, taps * C, weights, count, together * C // lanes)
                for tap in range(first_tap, first_tap + together):
                    p0, p1, q0, q1 = rectangles[tap]
                    if p1 == p0 or q1 == q0:
                        continue
                    columns, step = _even_columns(N, sw, q0, q1)
                    rows = _even_rows(window, columns, p0, p1)
                    column = 0
                    while column < C:
                        # a panel may end where the next tap begins: panels count from the group's first tap
                        offset = (tap - first_tap) * C + column
                        panel = min(C - column, widest - offset % widest)
                        start = offset // widest * widest * count + offset % widest
                        if not packed:
                            start = (k0 * taps + tap) * C + column
                        for p in range(p0, p1, rows):
                            for q in range(q0, q1, columns):
                                h, v = _met(window, tap, p, q)
                                product(
                                    tools, rows * columns * N, panel, block, (p * Q + q) * N * count, count, 1, 0,
                                    weights, start, row, 0,
                                    part, (h * W + v) * N * C + column, step * C, count, 1, ADD,
                                )  # fmt: skip
                        column += panel
                first_tap += together
            k0 += count
    for job in jobs(team, 1):
        first, last = share(team, job, H * W, 1)
        _add_parts(parts, N, H * W, C, first, last, dx)


def backward_input_weights(geo, w):
    """Nothing to prepare: the weights are used as they are."""
    return w


def backward_input(geo, dy, mask, w):
    """dx [N, H, W, C] of dy [N, P, Q, K], where `mask` lets it pass."""
    pixels, shares = geo.N * geo.P * geo.Q, min(SHARES, geo.K)
    most = max(1, min(BLOCK, 2 * WEIGHTS // geo.C, -(-geo.K // shares)))
    group = max(1, min(geo.R * geo.S, 2 * WEIGHTS // (most * geo.C)))
    packed = w.size > FEW_WEIGHTS
    weights_size = most * (group * geo.C + VECTORS * lanes_of(dy.dtype)) if packed else 0
    dx = memory.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    parts = memory.empty((shares, memory.padded(dx.size, dy.dtype)), dy.dtype)
    room = scratch(weights_size + most * pixels, dy.dtype)
    run(
        _backward_input, (shares, ADDING), tools(dy.dtype), dy.reshape(-1), w.reshape(-1), geo.N, geo.C, geo.K,
        _window(geo), _rectangles(geo), *bits(mask), most, group, room, weights_size, parts, dx.reshape(-1),
    )  # fmt: skip
    return dx


@njit(cache=True, nogil=True)
def _backward_weight(
    team, tools, dy, x, N, C, K, window, rectangles, mask, mask_row, masked, room, start, mode, dw, sums, db
):
    """dw [K, R, S, C] and db [K], the sums of dy, by way of sums [1, K]. One job a block of output channels.

    `mode`: STORE, or STREAM where dw is too large for the caches. start = where a thread's memory holds its dy.
    """
    own = room[member(team)]
    H, W, P, Q, sh, sw = window[:6]
    images, block = _images_together(x, N, H * W, C, own), own[start:]
    taps, pixels, widest = len(rectangles), N * P * Q, VECTORS * VECTOR_BYTES // x.itemsize
    for job in jobs(team):
        k0, k1 = share(team, job, K)
        count = k1 - k0
        _gather_block(dy, N, P * Q, K, k0, k1, mask, mask_row, masked, block)
        clear_run(sums[0], k0, count)
        sum_rows(block, 0, count, pixels, count, sums[0, k0:])
        add_sums(sums, k0, k1, db)
        for tap in range(taps):
            p0, p1, q0, q1 = rectangles[tap]
            columns, step = _even_columns(N, sw, q0, q1)
            first_mode = mode if q0 + columns == q1 else STORE
            for column in range(0, C, widest):
                panel, place = min(C - column, widest), (k0 * taps + tap) * C + column
                if p1 == p0 or q1 == q0 or N == 0:
                    for k in range(count):
                        clear_run(dw, place + k * taps * C, panel)
                    continue
                for q in range(q0, q1, columns):
                    h, v = _met(window, tap, p0, q)
                    product(
                        tools, count, panel, block, (p0 * Q + q) * N * count, 1, count, Q * N * count,
                        images, (h * W + v) * N * C + column, step * C, W * N * C * sh,
                        dw, place, taps * C, columns * N, p1 - p0, ADD if q > q0 else first_mode,
                    )  # fmt: skip


def backward_weight(geo, dy, mask, x):
    """(dw [K, R, S, C], db [K]) of dy [N, P, Q, K], where `mask` lets it pass, and x [N, H, W, C]."""
    pixels, blocks = geo.N * geo.P * geo.Q, max(1, -(-geo.K // OUTPUTS), min(JOBS, geo.K // JOBS))
    dw, db = memory.empty((geo.K, geo.R, geo.S, geo.C), x.dtype), memory.empty((geo.K,), x.dtype)
    start, mode = _room_together(x), STREAM if dw.size > FEW_WEIGHTS else STORE
    room = scratch(start + -(-geo.K // blocks) * pixels, x.dtype)
    run(
        _backward_weight, blocks, tools(x.dtype), dy.reshape(-1), x.reshape(-1), geo.N, geo.C, geo.K, _window(geo),
        _rectangles(geo), *bits(mask), room, start, mode, dw.reshape(-1), memory.empty((1, geo.K), np.float64), db,
    )  # fmt: skip
    return dw, db
