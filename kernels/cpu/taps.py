"""Convolutions with more weights than pixels, tap by tap, the weights read once, where they lie.

fc6 of an FCN over VGG16 has 103 million weights (411 MB) and, on a small image, a few dozen pixels: packing or
transposing its weights would cost more than the arithmetic. Here each tap (r, s) of the window is a matrix product of
its own, over just the pixels whose tap falls inside the image; on a 6 x 8 map that is 56 % of fc6's dense work.

    forward          y^T [K, pixels]  +=  w[:, r, s, :] [K, C]  x  x^T [C, pixels moved by (r, s)]
    backward input   dx [pixels, C]   +=  dy [pixels, K]  x  w[:, r, s, :] [K, C]
    backward weight  dw[:, r, s, :]    =  dy^T [K, pixels]  x  x [pixels moved by (r, s), C]

A job takes some K. Weights are [K, R, S, C] in memory, so every job reads (or writes) one contiguous piece of them. In
the backward pass for the input a job makes a share of dx, and the shares are added in order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import memory
from .callee import callee
from .gemm import bits
from .gemm import forward_weights as packed
from .microkernel import ADD, STORE, STREAM, VECTORS, product
from .outline import tools
from .runs import add_run, copy_masked_run, copy_run, finish_rows, sum_rows
from .threads import jobs, member, run, scratch, share
from .tiles import pack_panels
from .vectors import VECTOR_BYTES, lanes_of

WEIGHTS = 1 << 16  # weights of one tap that a job works on: they stay in the second-level cache
FEW_WEIGHTS = 1 << 22  # up to so many are packed: it takes less time than patches of single pixels do
SHARES = 8  # of the output channels, in the backward pass for the input
BLOCK = 64  # output channels whose weights are in the cache together there, at most
ADDING = 8  # jobs that add its shares
OUTPUTS = 24  # output channels of a job of the weight gradient
SPLIT = 4  # jobs that a small forward pass is split into, if it has as many images


def supports(geo, dtype) -> bool:
    """No groups; channels that fill whole vectors."""
    return geo.groups == 1 and geo.C % lanes_of(dtype) == 0


def _rectangles(geo) -> np.ndarray:
    """[tap, (p0, p1, q0, q1)]: the output pixels whose tap falls inside the image."""

    def inside(size: int, out: int, stride: int, padding: int, offset: int) -> tuple[int, int]:
        pixels = [u for u in range(out) if 0 <= u * stride - padding + offset < size]
        return (pixels[0], pixels[-1] + 1) if pixels else (0, 0)

    (sh, sw), (ph, pw), (dh, dw) = geo.stride, geo.padding, geo.dilation
    rows = [inside(geo.H, geo.P, sh, ph, r * dh) for r in range(geo.R)]
    columns = [inside(geo.W, geo.Q, sw, pw, s * dw) for s in range(geo.S)]
    return np.array([[*p, *q] for p in rows for q in columns], np.int64)


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
def _transposed_patches(team, x, N, C, window, rectangles, starts, wide, patches):
    """patches[starts[tap] + c wide[tap] + j] = x at the j-th pixel of the tap's rectangle; zeros up to wide.

    One job a tap.
    """
    H, W, _, _, _, sw = window[:6]
    for tap in jobs(team):
        p0, p1, q0, q1 = rectangles[tap]
        for c in range(C):
            j = starts[tap] + c * wide[tap]
            end = j + wide[tap]
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
    team, tools, w, N, C, K, window, rectangles, starts, wide, most, patches, blocks, room,
    bias, relu, y, mask, mask_row,
):  # fmt: skip
    """y [pixels, K], all taps' products added up. One job a block of output channels."""
    own = room[member(team)]
    P, Q = window[2:4]
    taps, pixels, widest = len(rectangles), N * P * Q, VECTORS * VECTOR_BYTES // w.itemsize
    for job in jobs(team):
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


@njit(cache=True, nogil=True)
def _forward_packed(team, tools, x, N, C, K, window, rectangles, blocks, panels, room, bias, relu, y, mask, mask_row):
    """One job a panel of output channels and a block of images: each tap's product is added where its pixels lie."""
    own = room[member(team)]
    H, W, P, Q, _, sw = window[:6]
    width, flat = panels.shape[2], panels.reshape(-1)
    for job in jobs(team):
        panel, block = divmod(job, blocks)
        n0, n1 = block * N // blocks, (block + 1) * N // blocks
        own[: (n1 - n0) * P * Q * width] = 0
        for tap in range(len(rectangles)):
            p0, p1, q0, q1 = rectangles[tap]
            for n in range(n0, n1 if q1 > q0 else n0):
                for p in range(p0, p1):
                    h, first = _met(window, tap, p, q0)
                    product(
                        tools, q1 - q0, width, x, ((n * H + h) * W + first) * C, C * sw, 1, 0,
                        flat, (panel * len(rectangles) + tap) * C * width, width, 0,
                        own, (((n - n0) * P + p) * Q + q0) * width, width, C, 1, ADD,
                    )  # fmt: skip
        pixel, k = n0 * P * Q, panel * width
        finish_rows(
            own, 0, width, bias, k, relu, y, pixel * K + k, K, mask, pixel * mask_row + k, mask_row,
            (n1 - n0) * P * Q, min(width, K - k),
        )  # fmt: skip


def forward_weights(geo, w):
    """Few weights are packed, as for `gemm`; many are used as they are."""
    return packed(geo, w)[0] if w.size <= FEW_WEIGHTS and geo.K % 8 == 0 else w


def _forward_few(geo, x, panels, bias, relu):
    """(y [N, P, Q, K], mask of its ReLU or None) with packed weights."""
    y = memory.empty((geo.N, geo.P, geo.Q, geo.K), x.dtype)
    mask = memory.empty((*y.shape[:3], -(-geo.K // 8)), np.uint8) if relu else None
    blocks = max(1, min(geo.N, SPLIT // len(panels)))
    room = scratch(-(-geo.N // blocks) * geo.P * geo.Q * panels.shape[2], x.dtype)
    out_bits, out_row, _ = bits(mask)
    run(
        _forward_packed, len(panels) * blocks, tools(x.dtype), x.reshape(-1), geo.N, geo.C, geo.K, _window(geo),
        _rectangles(geo), blocks, panels, room, bias, int(relu), y.reshape(-1), out_bits, out_row,
    )  # fmt: skip
    return y, mask


def forward(geo, x, w, bias, relu):
    """(y [N, P, Q, K], mask of its ReLU or None)."""
    if w.ndim == 3:
        return _forward_few(geo, x, w, bias, relu)
    lanes, rectangles = lanes_of(x.dtype), _rectangles(geo)
    valid = (rectangles[:, 1] - rectangles[:, 0]) * (rectangles[:, 3] - rectangles[:, 2]) * geo.N
    wide = -(-valid // lanes) * lanes
    starts = np.cumsum([0, *(wide[:-1] * geo.C)])
    patches = memory.empty((max(int(wide.sum()) * geo.C, 1),), x.dtype)
    window = _window(geo)
    run(_transposed_patches, len(rectangles), x.reshape(-1), geo.N, geo.C, window, rectangles, starts, wide, patches)
    y = memory.empty((geo.N, geo.P, geo.Q, geo.K), x.dtype)
    mask = memory.empty((*y.shape[:3], -(-geo.K // 8)), np.uint8) if relu else None
    rows = max(8, WEIGHTS // geo.C // 8 * 8)
    blocks = max(1, -(-geo.K // rows))
    most, pixels = int(wide.max()), geo.N * geo.P * geo.Q
    largest = rows + 8
    room = scratch(largest * (pixels + most + 1), x.dtype)
    out_bits, out_row, _ = bits(mask)
    run(
        _forward, blocks, tools(x.dtype), w.reshape(-1), geo.N, geo.C, geo.K, window, rectangles, starts, wide, most,
        patches, blocks, room, bias, int(relu), y.reshape(-1), out_bits, out_row,
    )  # fmt: skip
    return y, mask


@callee
def _gather_block(dy, pixels, K, k0, k1, mask, mask_row, masked, block):
    """block [pixels, k1 - k0] = dy where the mask lets it pass."""
    for pixel in range(pixels):
        place, bit = pixel * K + k0, pixel * mask_row + k0
        copy_masked_run(dy, place, mask, bit, masked, block, pixel * (k1 - k0), k1 - k0)


@njit(cache=True, nogil=True)
def _backward_input(
    team, tools, dy, w, N, C, K, window, rectangles, mask, mask_row, masked, most, group, room, weights_size, parts
):  # fmt: skip
    """parts [share, N H W C]: the contribution of one share of the output channels to dx. One job a share.

    The weights of `most` output channels and `group` neighbouring taps are brought into the cache together, as panels:
    memory is fast at long reads, and whole rows of them would share a few sets of the first-level cache.
    """
    own = room[member(team)]
    weights, block = own[:weights_size], own[weights_size:]
    H, W, P, Q, _, sw = window[:6]
    taps, pixels, lanes = len(rectangles), N * P * Q, VECTOR_BYTES // w.itemsize
    widest = VECTORS * lanes
    for job in jobs(team):
        k0, end = share(team, job, K)
        part = parts[job]
        part[:] = 0
        while k0 < end:
            count = min(most, end - k0)
            _gather_block(dy, pixels, K, k0, k0 + count, mask, mask_row, masked, block)
            for first_tap in range(0, taps, group):
                together = min(group, taps - first_tap)
                pack_panels(w, (k0 * taps + first_tap) * C, taps * C, weights, count, together * C // lanes)
                for tap in range(first_tap, first_tap + together):
                    p0, p1, q0, q1 = rectangles[tap]
                    if p1 == p0 or q1 == q0:
                        continue
                    column = 0
                    while column < C:
                        # a panel may end where the next tap begins: panels count from the group's first tap
                        offset = (tap - first_tap) * C + column
                        panel = min(C - column, widest - offset % widest)
                        start = offset // widest * widest * count + offset % widest
                        for n in range(N):
                            for p in range(p0, p1):
                                h, first = _met(window, tap, p, q0)
                                product(
                                    tools, q1 - q0, panel, block, ((n * P + p) * Q + q0) * count, count, 1, 0,
                                    weights, start, widest, 0,
                                    part, ((n * H + h) * W + first) * C + column, C * sw, count, 1, ADD,
                                )  # fmt: skip
                        column += panel
            k0 += count


@njit(cache=True, nogil=True)
def _add_parts(team, parts, total):
    """total = the sum of the parts, in order."""
    for job in jobs(team):
        first, last = share(team, job, total.size)
        copy_run(parts[0], first, total, first, last - first)
        for i in range(1, len(parts)):
            add_run(parts[i], first, total, first, last - first)


def backward_input_weights(geo, w):
    """Nothing to prepare: the weights are used as they are."""
    return w


def backward_input(geo, dy, mask, w):
    """dx [N, H, W, C] of dy [N, P, Q, K], where `mask` lets it pass."""
    pixels, shares = geo.N * geo.P * geo.Q, min(SHARES, geo.K)
    most = max(1, min(BLOCK, 2 * WEIGHTS // geo.C))
    group = max(1, min(geo.R * geo.S, 2 * WEIGHTS // (most * geo.C)))
    weights_size = most * (group * geo.C + VECTORS * lanes_of(dy.dtype))
    dx = memory.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    parts = memory.empty((shares, memory.padded(dx.size, dy.dtype)), dy.dtype)
    room = scratch(weights_size + most * pixels, dy.dtype)
    run(
        _backward_input, shares, tools(dy.dtype), dy.reshape(-1), w.reshape(-1), geo.N, geo.C, geo.K, _window(geo),
        _rectangles(geo), *bits(mask), most, group, room, weights_size, parts,
    )  # fmt: skip
    run(_add_parts, ADDING, parts, dx.reshape(-1))
    return dx


@njit(cache=True, nogil=True)
def _backward_weight(team, tools, dy, x, N, C, K, window, rectangles, mask, mask_row, masked, room, dw, db):
    """dw [K, R, S, C] and db [K], the sums of dy. One job a block of output channels."""
    own = room[member(team)]
    H, W, P, Q, sh, sw = window[:6]
    taps, pixels, widest = len(rectangles), N * P * Q, VECTORS * VECTOR_BYTES // x.itemsize
    first_mode = STREAM if N == 1 else STORE
    for job in jobs(team):
        k0, k1 = share(team, job, K)
        count = k1 - k0
        _gather_block(dy, pixels, K, k0, k1, mask, mask_row, masked, own)
        db[k0:k1] = 0
        sum_rows(own, 0, count, pixels, count, db[k0:])
        for tap in range(taps):
            p0, p1, q0, q1 = rectangles[tap]
            column = 0
            while column < C:
                panel, place = min(C - column, widest), (k0 * taps + tap) * C + column
                if p1 == p0 or q1 == q0 or N == 0:
                    for k in range(count):
                        for j in range(panel):
                            dw[place + k * taps * C + j] = 0
                for n in range(N):
                    if p1 > p0 and q1 > q0:
                        h, first = _met(window, tap, p0, q0)
                        product(
                            tools, count, panel, own, ((n * P + p0) * Q + q0) * count, 1, count, Q * count,
                            x, ((n * H + h) * W + first) * C + column, C * sw, W * C * sh,
                            dw, place, taps * C, q1 - q0, p1 - p0, ADD if n else first_mode,
                        )  # fmt: skip
                column += panel


def backward_weight(geo, dy, mask, x):
    """(dw [K, R, S, C], db [K]) of dy [N, P, Q, K], where `mask` lets it pass, and x [N, H, W, C]."""
    pixels, blocks = geo.N * geo.P * geo.Q, max(1, -(-geo.K // OUTPUTS))
    dw, db = memory.empty((geo.K, geo.R, geo.S, geo.C), x.dtype), np.empty(geo.K)
    room = scratch(-(-geo.K // blocks) * pixels, x.dtype)
    run(
        _backward_weight, blocks, tools(x.dtype), dy.reshape(-1), x.reshape(-1), geo.N, geo.C, geo.K, _window(geo),
        _rectangles(geo), *bits(mask), room, dw.reshape(-1), db,
    )  # fmt: skip
    return dw, db.astype(x.dtype)
