"""Convolution of any shape as a matrix product whose patches are never gathered (implicit GEMM).

With channels last, the taps of one row of the window meet S C neighbouring floats, and the next output pixel's begin
stride C floats further. So a job copies the few lines of its input, with zeros for the padding, into a small buffer
[lines, columns, C], and `microkernel.product` reads the patches of a whole output row there as overlapping rows of a
matrix:

    forward          y  [pixels, K]   =  patches of x [pixels, taps C]  x  weights [taps C, K]
    backward input   dx [pixels, C]   =  patches of dy  x  weights turned round
    backward weight  dw [K, taps C]   =  dy^T [K, pixels]  x  patches of x, summed over pixels

Forward and backward input are one routine. An input pixel of a strided convolution is met by the taps r with
r dilation = h + pad (mod stride) only, so its pixels fall into stride_h x stride_w phases, each a dense convolution of
dy with its own few taps. Within a phase the pixel (i, j) reads the source at (i + du, j + dv), and that is also what
the forward pass does, with i = p stride - pad and du = r dilation. Neighbouring taps of one row are one run of C's.

The weight gradient sums over all pixels: each job takes a fixed share of them, and the shares are added in order, so
that the sum does not depend on the number of threads.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
from numba import njit

from .. import memory
from .callee import callee
from .microkernel import FENCE, STREAM, TALL, finished_product, panel_width, product, tall_product
from .outline import tools
from .runs import add_run, clear_run, copy_masked_run, copy_run, finish_rows, sum_rows
from .threads import jobs, member, parts, run, scratch, share
from .tiles import POOLED, finish_windows, spread_vectors, transpose
from .vectors import VECTOR_BYTES, lanes_of
from .windows import windows_of

PIXELS = 96  # output pixels of a job: each weight loaded from memory is used this often
FEW = 1 << 12  # elements of a panel that stays in the first-level cache: then a job may take more pixels,
MORE = 512  # this many, and copies fewer lines twice
BUFFER = 1 << 17  # floats that a job's input lines may take
FAR = 1 << 23  # bytes of an output that is stored past the caches: its reader was measured to lose nothing by it
PANEL = 1 << 16  # floats of a panel of weights that is multiplied in one go; longer ones run by run
NO_MASK = np.zeros(8, np.uint8)  # as many bits as a vector has lanes, at least
SPLIT = 16  # jobs that a problem is split into where its pixels alone make fewer
OUTPUTS = 48  # output channels of a job of the weight gradient
DEEP = 512  # elements of a filter; from so many on, its runs are jobs of their own in the weight gradient


@callee
def pixel_of(shape, masked, n, h, w):
    """The number of the pixel (h, w) of image n of `shape`; where `masked` is POOLED, of its window."""
    _, H, W, _ = shape
    half = int(masked == POOLED)
    return (n * ((H + half) >> half) + (h >> half)) * ((W + half) >> half) + (w >> half)


@callee
def fill_lines(source, shape, c0, C, mask, mask_row, masked, n, first_row, rows, first_column, columns, lines):
    """lines[(i columns + j) C + c] = source[n, first_row + i, first_column + j, c0 + c].

    0 outside the image and where the mask does not let it pass. `masked` POOLED: the source holds one pixel for every
    2 x 2 of `shape`.
    """
    _, H, W, channels = shape
    lanes = VECTOR_BYTES // source.itemsize
    low = min(max(-first_column, 0), columns)
    high = max(min(W - first_column, columns), low)
    for i in range(rows):
        h, start = first_row + i, i * columns * C
        if not 0 <= h < H:
            clear_run(lines, start, columns * C)
            continue
        clear_run(lines, start, low * C)
        clear_run(lines, start + high * C, (columns - high) * C)
        pixel = (n * H + h) * W + first_column + low
        if masked == POOLED and channels == C == mask_row and C % lanes == 0:
            column = first_column + low
            place = pixel_of(shape, masked, n, h, column) * C
            spread_vectors(
                source, place, column & 1, mask, pixel * C, lines, start + low * C, high - low, C // lanes
            )  # fmt: skip
        elif masked != POOLED and channels == C and (not masked or mask_row == C):
            copy_masked_run(source, pixel * C, mask, pixel * C, masked, lines, start + low * C, (high - low) * C)
        else:
            for j in range(high - low):
                place = pixel_of(shape, masked, n, h, first_column + low + j) * channels + c0
                bit = (pixel + j) * mask_row + c0
                copy_masked_run(source, place, mask, bit, masked, lines, start + (low + j) * C, C)


@njit(cache=True, nogil=True)
def _in_one_go(runs, panel_size):
    """Whether one product may take all runs: they are evenly spaced, and their panel of weights is short."""
    return len(runs) == 1 or (runs[0, 3] > 0 and panel_size <= PANEL)


@callee
def _multiply_rows(tools, lines, columns, C, u_stride, v_stride, runs, rows, Q, panels, panel, total, origin):
    """total [rows Q, width] = the patches of `rows` output rows in `lines`, times one panel of weights."""
    depth, width = panels.shape[1], panels.shape[2]
    flat = panels.reshape(-1)
    done, at_once = 0, len(runs) if _in_one_go(runs, depth * width) else 1
    for t in range(0, len(runs), at_once):
        du, dv, taps = runs[t, 0], runs[t, 1], runs[t, 2]
        for i in range(rows):
            start = ((i * u_stride + du - origin[0]) * columns + dv - origin[1]) * C
            product(
                tools, Q, width, lines, start, v_stride * C, 1, runs[t, 3] * columns * C,
                flat, (panel * depth + done) * width, width, taps * C * width,
                total, i * Q * width, width, taps * C, at_once, int(t > 0),
            )  # fmt: skip
        done += taps * C


@njit(cache=True, nogil=True)
def rows_of(part, row_blocks, rows, pooled):
    """(first, last + 1) row of a block of output rows; where they are `pooled`, in pairs."""
    if not pooled:
        return part * rows // row_blocks, (part + 1) * rows // row_blocks
    pairs = (rows + 1) // 2
    return 2 * (part * pairs // row_blocks), min(2 * ((part + 1) * pairs // row_blocks), rows)


@njit(cache=True, nogil=True)
def _multiply(
    team, tools, source, shape, c0, C, mask, mask_row, masked, runs, grid, extent, row_blocks, splits, panels, room,
    lines_size, bias, relu, out, out_shape, k0, K, place, stream, out_mask, out_mask_row,
):  # fmt: skip
    """Writes `out` and the mask of its ReLU. One job a block of output rows of an image and a share of the panels.

    With `relu` POOLED, `out` holds the windows over images of `out_shape`.
    grid = (rows, columns, u stride, u origin, v stride, v origin): the output pixel (i, j) reads the source around
    (i u_stride + u_origin, j v_stride + v_origin) and goes to (i h_stride + h_origin, j w_stride + w_origin), `place`.
    extent = the least du and dv of the runs, and the lines and columns that all runs of one pixel span.
    """
    own = room[member(team)]
    lines, total = own[:lines_size], own[lines_size:]
    rows, Q, u_stride, u_origin, v_stride, v_origin = grid
    du, dv, high, wide = extent
    width, flat = panels.shape[2], panels.reshape(-1)
    columns = (Q - 1) * v_stride + wide
    _, out_H, out_W, channels = out_shape
    h_stride, h_origin, w_stride, w_origin = place
    for job in jobs(team):
        block, split = divmod(job, splits)
        n, part = divmod(block, row_blocks)
        first, last = rows_of(part, row_blocks, rows, relu == POOLED)
        count = last - first
        fill_lines(
            source, shape, c0, C, mask, mask_row, masked, n, first * u_stride + u_origin + du,
            (count - 1) * u_stride + high, v_origin + dv, columns, lines,
        )  # fmt: skip
        unit = max(1, 8 // width)  # panels of one byte of the mask belong to one job
        units = (len(panels) + unit - 1) // unit
        low, high_panel = split * units // splits * unit, (split + 1) * units // splits * unit
        for panel in range(low, min(high_panel, len(panels))):
            k = panel * width
            for i in range(0, count if relu == POOLED else 0, 2):
                pair = min(2, count - i)
                _multiply_rows(
                    tools, lines, columns, C, u_stride, v_stride, runs, pair, Q, panels, panel, total,
                    (du - i * u_stride, dv),
                )  # fmt: skip
                window = pixel_of(out_shape, POOLED, n, first + i, 0)
                finish_windows(
                    total, 0, Q * width, width, bias, k, out, window * channels + k0 + k, channels,
                    out_mask, (n * out_H + first + i) * out_W * out_mask_row + k0 + k, out_W * out_mask_row,
                    out_mask_row, pair, Q, width // (VECTOR_BYTES // source.itemsize),
                )  # fmt: skip
            if relu == POOLED:
                continue
            in_one_go = _in_one_go(runs, panels.shape[1] * width)
            if in_one_go and K - k >= width and w_stride == 1 and out_mask_row % 8 == 0 and (k0 + k) % 8 == 0:
                taps = runs[0, 2]
                for i in range(count):
                    pixel = (n * out_H + (first + i) * h_stride + h_origin) * out_W + w_origin
                    last = FENCE if stream and i == count - 1 else 0
                    finished_product(
                        tools, Q, width, lines, ((i * u_stride + runs[0, 0] - du) * columns + runs[0, 1] - dv) * C,
                        v_stride * C, 1, runs[0, 3] * columns * C,
                        flat, panel * panels.shape[1] * width, width, taps * C * width,
                        out, pixel * channels + k0 + k, channels, taps * C, len(runs), bias, k, relu + stream + last,
                        out_mask, 0, pixel * out_mask_row + k0 + k, out_mask_row,
                    )  # fmt: skip
                continue
            _multiply_rows(tools, lines, columns, C, u_stride, v_stride, runs, count, Q, panels, panel, total, (du, dv))
            for i in range(count):
                pixel = (n * out_H + (first + i) * h_stride + h_origin) * out_W + w_origin
                finish_rows(
                    total, i * Q * width, width, bias, k, relu, out, pixel * channels + k0 + k, w_stride * channels,
                    out_mask, pixel * out_mask_row + k0 + k, w_stride * out_mask_row, Q, min(width, K - k),
                )  # fmt: skip


@callee
def pack_outputs(tools, w, K, depth, lanes, job, panels):
    """panels[b, d, j] = w[(b width + j) depth + d], 0 beyond the last output: the job's `lanes` outputs."""
    width, flat = panels.shape[2], panels.reshape(-1)
    square = np.zeros(lanes * lanes, w.dtype)  # the last outputs, and zeros
    panel, start = divmod(job * lanes, width)
    outputs = max(min(lanes, K - job * lanes), 0)
    whole = depth // lanes * lanes
    base = panel * depth * width + start
    for d in range(0, whole, lanes):
        place = job * lanes * depth + d
        if outputs == lanes:
            transpose(tools, w, place, depth, flat, base + d * width, width)
            continue
        for j in range(outputs):
            copy_run(w, place + j * depth, square, j * lanes, lanes)
        transpose(tools, square, 0, lanes, flat, base + d * width, width)
    for d in range(whole, depth):
        for j in range(lanes):
            flat[base + d * width + j] = w[(job * lanes + j) * depth + d] if j < outputs else 0


@njit(cache=True, nogil=True)
def _pack_forward(team, tools, w, K, depth, lanes, panels):
    """`panels` of all outputs. One job `lanes` of them."""
    for job in jobs(team):
        pack_outputs(tools, w, K, depth, lanes, job, panels)


@njit(cache=True, nogil=True)
def _pack_backward(team, w, K, window, C, taps, panels):
    """panels[b, t K + k, j] = w[k, taps[t], b width + j]; 0 beyond the last channel."""
    width, depth = panels.shape[2], panels.shape[1]
    flat = panels.reshape(-1)
    for job in jobs(team):
        first, last = share(team, job, K)
        for k in range(first, last):
            for t in range(len(taps)):
                for panel in range(len(panels)):
                    count = min(width, C - panel * width)
                    target = (panel * depth + t * K + k) * width
                    copy_run(w, (k * window + taps[t]) * C + panel * width, flat, target, count)
                    clear_run(flat, target + count, width - count)


# --- forward, backward input -------------------------------------------------------------------------------


@lru_cache(maxsize=1024)  # a small layer may take no longer than this does
def _runs(rows: tuple[int, ...], columns: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """(runs, extent) of the taps at all pairs (du, dv) of `rows` and `columns`, in row-major order.

    runs = [.., (du, dv, taps, step)]: neighbours in a row are one run, and `step` is the distance in rows of one run to
    the next if all are alike and evenly spaced, else 0. extent = (least du, least dv, rows, columns) that they span.
    """
    found: list[list[int]] = []
    for du, dv in itertools.product(rows, columns):
        if found and found[-1][0] == du and found[-1][1] + found[-1][2] == dv:
            found[-1][2] += 1
        else:
            found.append([du, dv, 1])
    steps = {later[0] - run[0] for run, later in itertools.pairwise(found)}
    alike = len({tuple(run[1:]) for run in found}) == len(steps) == 1
    runs = memory.constant(np.array([[*run, steps.copy().pop() if alike else 0] for run in found], np.int64))
    du, dv = min(rows), min(columns)
    return runs, (du, dv, max(rows) - du + 1, max(columns) - dv + 1)


@lru_cache(maxsize=1024)
def _taps(geo) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The rows and columns of a window's taps, in pixels from its first."""
    rows, columns = (range(0, size * step, step) for size, step in zip((geo.R, geo.S), geo.dilation, strict=True))
    return tuple(rows), tuple(columns)


def supports(geo, dtype) -> bool:
    """Everything."""
    return True


def _rows_of_a_job(Q: int, columns: int, C: int, u_stride: int, high: int, panel: int) -> int:
    """Output rows of a job: about PIXELS pixels, or MORE, whose lines fit the buffer."""
    fitting = (BUFFER // (columns * C) - high) // u_stride + 1
    return max(1, min(-(-(MORE if panel <= FEW else PIXELS) // Q), fitting))


def bits(mask: np.ndarray | None, pooled: bool = False) -> tuple[np.ndarray, int, int]:
    """(mask bytes, bits a pixel, whether there is a mask: 0, 1, or POOLED)."""
    return (NO_MASK, 0, 0) if mask is None else (mask.reshape(-1), 8 * mask.shape[3], POOLED if pooled else 1)


def streaming(out: np.ndarray, *steps: int) -> int:
    """STREAM where `out` is large, and stored as whole cache lines: all steps between stores are; else 0."""
    return STREAM if out.nbytes >= FAR and all(step * out.itemsize % memory.LINE == 0 for step in steps) else 0


def pools(geo, dtype) -> bool:
    """Whether 2 x 2 windows may be pooled: where the output channels fill whole vectors and bytes of the mask."""
    return geo.groups == 1 and geo.K % max(lanes_of(dtype), 8) == 0


def _multiply_patches(
    source, shape, c0, inputs, mask, panels, outputs, taps, grid, bias, relu, out, out_shape, k0, place, out_mask
):  # fmt: skip
    """One group and one phase: all output pixels of `grid`. shape, out_shape: before any pooling."""
    (runs, extent), N = _runs(*taps), shape[0]
    rows, Q, u_stride, _, v_stride, _ = grid
    columns = (Q - 1) * v_stride + extent[3]
    row_blocks = -(-rows // _rows_of_a_job(Q, columns, inputs, u_stride, extent[2], panels[0].size))
    count = -(-rows // row_blocks)
    if relu == POOLED:
        row_blocks = min(row_blocks, -(-rows // 2))
        count = 2 * -(-rows // (2 * row_blocks))
    splits = max(1, min(len(panels), SPLIT // max(N * row_blocks, 1)))
    if out_mask is not None and k0 % 8:
        splits = 1  # panels share bytes of the mask
    width = panels.shape[2]
    lines_size = memory.padded(((count - 1) * u_stride + extent[2]) * columns * inputs, source.dtype)
    room = scratch(lines_size + count * Q * width, source.dtype)
    out_bits, out_mask_row, _ = bits(out_mask)
    stream = streaming(out, width, out_shape[3], k0)
    run(
        _multiply, N * row_blocks * splits, tools(source.dtype), source.reshape(-1), shape, c0, inputs,
        *bits(mask, source.shape != shape), runs, grid, extent, row_blocks, splits, panels, room, lines_size,
        bias, int(relu), out.reshape(-1), out_shape, k0, outputs, place, stream, out_bits, out_mask_row,
    )  # fmt: skip


def forward_weights(geo, w):
    """Panels [group][panel, taps C, width] of w [K, R, S, C]."""
    K, depth = geo.K // geo.groups, geo.R * geo.S * (geo.C // geo.groups)
    width, lanes = panel_width(K, w.dtype), lanes_of(w.dtype)
    groups = []
    for g in range(geo.groups):
        panels = memory.empty((-(-K // width), depth, width), w.dtype)
        part = w[g * K : (g + 1) * K].reshape(-1)
        run(_pack_forward, len(panels) * width // lanes, tools(w.dtype), part, K, depth, lanes, panels)
        groups.append(panels)
    return groups


def forward(geo, x, weights, bias, relu):
    """(y [N, P, Q, K], mask of its ReLU or None); with `relu` POOLED, y of the windows."""
    shape = (geo.N, geo.P, geo.Q, geo.K)
    y = memory.empty(windows_of(shape) if relu == POOLED else shape, x.dtype)
    mask = memory.empty((*shape[:3], -(-geo.K // 8)), np.uint8) if relu else None
    C, K = geo.C // geo.groups, geo.K // geo.groups
    taps = _taps(geo)
    grid = (geo.P, geo.Q, geo.stride[0], -geo.padding[0], geo.stride[1], -geo.padding[1])
    for g in range(geo.groups):
        _multiply_patches(
            x, x.shape, g * C, C, None, weights[g], K, taps, grid, bias[g * K : (g + 1) * K], relu,
            y, shape, g * K, (1, 0, 1, 0), mask,
        )  # fmt: skip
    return y, mask


def _phases(size: int, window: int, stride: int, padding: int, dilation: int):
    """For each phase of the input pixels along one axis: (first pixel, pixels, taps, first source, offsets).

    The phase a holds the pixels h with h + pad = a (mod stride); with h + pad = a + stride i, tap r meets it
    at p = i - (r dilation - a) / stride, for those r that make it an integer.
    """
    for a in range(stride):
        first = (a - padding) % stride
        count = len(range(first, size, stride))
        if count:
            # from the last tap to the first, so that neighbours in dy are read in the order of memory
            taps = [r for r in reversed(range(window)) if (r * dilation - a) % stride == 0]
            offsets = tuple(-(r * dilation - a) // stride for r in taps)
            yield first, count, taps, (first + padding - a) // stride, offsets


@lru_cache(maxsize=1024)
def _phase_pairs(geo) -> tuple:
    """(rows', columns' phase) for all phases that some window meets."""
    (sh, sw), (ph, pw), (dh, dw) = geo.stride, geo.padding, geo.dilation
    pairs = itertools.product(_phases(geo.H, geo.R, sh, ph, dh), _phases(geo.W, geo.S, sw, pw, dw))
    return tuple((vertical, horizontal) for vertical, horizontal in pairs if vertical[2] and horizontal[2])


def backward_input_weights(geo, w):
    """Panels [phase][group][panel, taps K, width] of w [K, R, S, C], turned round."""
    C, K = geo.C // geo.groups, geo.K // geo.groups
    width = panel_width(C, w.dtype)
    phases = []
    for (_, _, r_taps, _, _), (_, _, s_taps, _, _) in _phase_pairs(geo):
        taps = np.array([r * geo.S + s for r in r_taps for s in s_taps], np.int64)
        groups = []
        for g in range(geo.groups):
            panels = memory.empty((-(-C // width), len(taps) * K, width), w.dtype)
            part = w[g * K : (g + 1) * K].reshape(-1)
            run(_pack_backward, min(K, SPLIT), part, K, geo.R * geo.S, C, taps, panels)
            groups.append(panels)
        phases.append(groups)
    return phases


@njit(cache=True, nogil=True)
def _clear(team, array):
    """array[..] = 0."""
    for job in jobs(team):
        first, last = share(team, job, array.size)
        clear_run(array, first, last - first)


def backward_input(geo, dy, mask, weights):
    """dx [N, H, W, C] of dy [N, P, Q, K], or of the windows, where `mask` lets it pass."""
    dx, shape = memory.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype), (geo.N, geo.P, geo.Q, geo.K)
    if geo.stride != (1, 1):
        run(_clear, parts(dx.size), dx.reshape(-1))  # pixels that no window meets
    C, K = geo.C // geo.groups, geo.K // geo.groups
    no_bias = np.zeros(C, dy.dtype)
    for panels, phases in zip(weights, _phase_pairs(geo), strict=True):
        (h0, rows, _, u0, du), (w0, columns, _, v0, dv) = phases
        grid, place = (rows, columns, 1, u0, 1, v0), (geo.stride[0], h0, geo.stride[1], w0)
        for g in range(geo.groups):
            _multiply_patches(
                dy,
                shape,
                g * K,
                K,
                mask,
                panels[g],
                C,
                (du, dv),
                grid,
                no_bias,
                False,
                dx,
                dx.shape,
                g * C,
                place,
                None,
            )
    return dx


# --- backward weight ---------------------------------------------------------------------------------------


@callee
def add_sums(sums, first, last, db):
    """db[k] = the sum of sums[:, k], in order and in float64, first <= k < last."""
    for k in range(first, last):
        total = 0.0
        for part in range(len(sums)):
            total += sums[part, k]
        db[k] = total


@callee
def _add_shares(totals, runs, starts, C, width, turned, K, first, last, dw):
    """dw[k, (run, j)] = the sum over the shares, in order, first <= k < last."""
    depth, row = dw.size // K, -(-K // width) * width
    for k in range(first, last):
        done = 0
        for t in range(len(runs)):
            count = runs[t, 2] * C
            if turned:
                for j in range(count):
                    total = totals[0, starts[t] + j * row + k]
                    for part in range(1, len(totals)):
                        total += totals[part, starts[t] + j * row + k]
                    dw[k * depth + done + j] = total
            else:
                wide = -(-count // width) * width
                copy_run(totals[0], starts[t] + k * wide, dw, k * depth + done, count)
                for part in range(1, len(totals)):
                    add_run(totals[part], starts[t] + k * wide, dw, k * depth + done, count)
            done += count


@njit(cache=True, nogil=True)
def _gradients(
    team, tools, x, x_shape, c0, C, dy, dy_shape, k0, K, mask, mask_row, masked, runs, grid, row_blocks, shares,
    k_blocks, run_blocks, starts, width, turned, tall, room, dy_size, totals, sums, dw, db,
):  # fmt: skip
    """dw [K, (run, j)] and db [K], the sums of dy.

    First totals [share, (run, k, j)] = the sum over a share of the pixels of dy^T patches, and sums [share, K] that of
    dy: one job a share, a block of output channels and a block of runs. `turned`: a run has fewer elements than there
    are output channels, so these lie along the vectors: patches^T dy, and totals [share, (run, j, k)]. `tall`: and all
    runs are multiplied in one go, which reads dy once; without a buffer for it, `dy_size` = 0, where it lies. Then one
    job a few output channels adds the shares.
    """
    own = room[member(team)]
    block, lines = own[:dy_size], own[dy_size:]
    P, Q, u_stride, u_origin, v_stride, v_origin = grid
    units = x_shape[0] * row_blocks
    at_once, high = (len(runs), runs[-1, 0] + 1) if tall else (1, 1)
    for job in jobs(team, 0):
        part, rest = divmod(job, k_blocks * run_blocks)
        k_part, run_part = divmod(rest, run_blocks)
        low, end = k_part * K // k_blocks, (k_part + 1) * K // k_blocks
        row = -(-K // width) * width if turned else end - low
        first_unit = part * units // shares
        if run_part == 0:
            clear_run(sums[part], low, end - low)
        for unit in range(first_unit, (part + 1) * units // shares):
            n, row_block = divmod(unit, row_blocks)
            first, last = row_block * P // row_blocks, (row_block + 1) * P // row_blocks
            outputs, place = block, 0
            if dy_size == 0:
                outputs, place = dy, (n * P + first) * Q * K
            elif row == end - low:
                fill_lines(
                    dy, dy_shape, k0 + low, end - low, mask, mask_row, masked, n, first, last - first, 0, Q, block
                )
            else:
                for i in range((last - first) * Q):
                    h, w = divmod(first * Q + i, Q)
                    pixel = pixel_of(dy_shape, masked, n, h, w)
                    bit = ((n * P + h) * Q + w) * mask_row + k0
                    copy_masked_run(dy, pixel * dy_shape[3] + k0, mask, bit, masked, block, i * row, K)
                    clear_run(block, i * row + K, row - K)
            for t in range(run_part * len(runs) // run_blocks, (run_part + 1) * len(runs) // run_blocks, at_once):
                du, dv, taps = runs[t, 0], runs[t, 1], runs[t, 2]
                columns, wide = (Q - 1) * v_stride + taps, row if turned else -(-taps * C // width) * width
                fill_lines(
                    x, x_shape, c0, C, mask, 0, 0, n, first * u_stride + u_origin + du,
                    (last - first - 1) * u_stride + high, v_origin + dv, columns, lines,
                )  # fmt: skip
                for j in range(0, wide, width):
                    if tall:
                        tall_product(
                            tools, lines, 0, runs[t, 3] * columns * C, v_stride * C, u_stride * columns * C,
                            outputs, place + j, row, Q * row,
                            totals[part], starts[t] + j, row, Q, last - first, int(unit > first_unit),
                        )  # fmt: skip
                        continue
                    if turned:
                        product(
                            tools, taps * C, width, lines, 0, 1, v_stride * C, u_stride * columns * C,
                            block, j, row, Q * row,
                            totals[part], starts[t] + j, row, Q, last - first, int(unit > first_unit),
                        )  # fmt: skip
                        continue
                    product(
                        tools, end - low, width, block, 0, 1, end - low, Q * (end - low),
                        lines, j, v_stride * C, u_stride * columns * C,
                        totals[part], starts[t] + low * wide + j, wide, Q, last - first, int(unit > first_unit),
                    )  # fmt: skip
            if run_part == 0:
                sum_rows(outputs, place, row, (last - first) * Q, end - low, sums[part, low:])
    for job in jobs(team, 1):
        first, last = share(team, job, K, 1)
        _add_shares(totals, runs, starts, C, width, turned, K, first, last, dw)
        add_sums(sums, first, last, db)


@lru_cache(maxsize=1024)
def _gradient_jobs(geo, dtype: np.dtype) -> tuple[tuple, int, int, int]:
    """(what `_gradients` takes from `runs` to `tall`; elements of a share's totals, of a job's dy, of its lines)."""
    C, K, lanes = geo.C // geo.groups, geo.K // geo.groups, lanes_of(dtype)
    runs, extent = _runs(*_taps(geo))
    grid = (geo.P, geo.Q, geo.stride[0], -geo.padding[0], geo.stride[1], -geo.padding[1])
    longest = int(runs[:, 2].max()) * C
    turned = longest * -(-K // lanes) < K * -(-longest // lanes)  # which of the two leaves fewer lanes empty
    tall = turned and (len(runs), longest) == TALL and runs[0, 3] > 0
    width = lanes if tall else panel_width(K if turned else longest, dtype)
    across = -(-K // width) * width
    sizes = [int(taps) * C * across if turned else -(-int(taps) * C // width) * width * K for taps in runs[:, 2]]
    starts = memory.constant(np.cumsum([0, *sizes[:-1]]))
    columns = (geo.Q - 1) * geo.stride[1] + int(runs[:, 2].max())
    high = extent[2] if tall else 1
    rows = _rows_of_a_job(geo.Q, columns, C, geo.stride[0], high, longest * across)
    row_blocks = -(-geo.P // rows)
    k_blocks, run_blocks = 1 if turned else -(-K // OUTPUTS), len(runs) if geo.R * geo.S * C >= DEEP else 1
    shares = max(1, min(SPLIT // (k_blocks * run_blocks), geo.N * row_blocks))
    return (
        (runs, grid, row_blocks, shares, k_blocks, run_blocks, starts, width, int(turned), int(tall)),
        memory.padded(sum(sizes), dtype),
        memory.padded(rows * geo.Q * (across if turned else -(-K // k_blocks)), dtype),
        ((rows - 1) * geo.stride[0] + high) * columns * C + width,
    )


def backward_weight(geo, dy, mask, x):
    """(dw [K, R, S, C / groups], db [K]) of dy [N, P, Q, K], or of the windows, where `mask` lets it pass, and x."""
    shape, dtype = (geo.N, geo.P, geo.Q, geo.K), x.dtype
    C, K = geo.C // geo.groups, geo.K // geo.groups
    how, size, dy_size, lines_size = _gradient_jobs(geo, dtype)
    shares, k_blocks, run_blocks, _, width, _, tall = how[3:]
    if tall and mask is None and K % width == 0 and K == geo.K:
        dy_size = 0  # it is read where it lies
    room = scratch(dy_size + lines_size, dtype)
    dw, db = memory.empty((geo.K, geo.R, geo.S, C), dtype), memory.empty((geo.K,), dtype)
    for g in range(geo.groups):
        outputs = slice(g * K, (g + 1) * K)
        totals, sums = memory.empty((shares, size), dtype), memory.empty((shares, K), np.float64)
        if geo.N == 0:
            totals[...] = 0
        run(
            _gradients, (shares * k_blocks * run_blocks, min(K, SPLIT)), tools(dtype), x.reshape(-1), x.shape, g * C, C,
            dy.reshape(-1), shape, g * K, K, *bits(mask, dy.shape != shape), *how, room, dy_size, totals, sums,
            dw[outputs].reshape(-1), db[outputs],
        )  # fmt: skip
    return dw, db
