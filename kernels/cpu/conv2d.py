"""Convolution as a matrix product that is never stored as one (implicit im2col; Chellapilla et al., 2006).

With channels last, the pixels that tap t of the window meets are rows of C floats. A block of output pixels
therefore collects its taps into a small matrix of patches [pixels, taps C] that stays in the cache, and
multiplies it with the weights [taps C, K] in panels of two vectors, by `microkernel.block_product`:

    forward          y  [pixels, K]  =  patches of x  x  weights
    backward input   dx [pixels, C]  =  patches of dy x  weights turned round
    backward weight  dw [taps C, K]  =  (patches of x)^T x dy, summed over pixels

Forward and backward input are one routine. An input pixel of a strided convolution is met by the taps r with
r dilation = h + pad (mod stride) only, so its pixels fall into stride_h x stride_w phases, each a dense
convolution of dy with its own few taps. Within a phase the pixel (i, j) reads the source at (i + du, j + dv),
and that is also what the forward pass does, with i = p stride - pad and du = r dilation.

The weight gradient sums over all pixels: each job takes a fixed share of them, and the shares are added in
order, so that the sum does not depend on the number of threads. Accuracy: one product runs over at most DEPTH
terms before it is added to its total.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from .. import checks, geometry
from .layout import channels_first, channels_last
from .microkernel import ROWS, block_product, panel_width
from .runs import add_run, clear_run, copy_run

PIXELS = 4 * ROWS  # output pixels of one block: each weight loaded from the cache is used this often
DEPTH = 1024  # (tap, channel) pairs of one block of patches
CHUNK = 192  # pixels that the weight gradient multiplies at once
TAP_ROWS = 8 * ROWS  # (tap, channel) pairs of one job of the weight gradient
JOBS = 16  # jobs that a small problem is split into at least


@njit(cache=True, nogil=True)
def _gather(source, shape, c0, C, runs, grid, first, pixels, d0, d1, patches, row):
    """patches[i row + d - d0] = source of pixel first + i at (tap, channel) pair d; 0 outside the image.

    source is flat, of `shape` [N, H, W, all channels]; runs [.., (du, dv, taps)] as `_runs` made them; grid =
    (rows, columns, u stride, u origin, v stride, v origin): the pixel (i, j) of an image reads around the place
    (i u_stride + u_origin, j v_stride + v_origin).
    """
    _, H, W, channels = shape
    rows, columns, u_stride, u_origin, v_stride, v_origin = grid
    for i in range(pixels):
        n, rest = divmod(first + i, rows * columns)
        u, v = divmod(rest, columns)
        u, v = u * u_stride + u_origin, v * v_stride + v_origin
        start = 0
        for t in range(len(runs)):
            h, w, taps = u + runs[t, 0], v + runs[t, 1], runs[t, 2]
            low, high = max(d0, start), min(d1, start + taps * C)
            if low < high:
                inside, outside = low, low
                if 0 <= h < H:
                    inside = min(max(start + max(-w, 0) * C, low), high)
                    outside = min(max(start + min(taps, W - w) * C, inside), high)
                out = i * row - d0
                clear_run(patches, out + low, inside - low)
                place = ((n * H + h) * W + w) * channels + c0 + inside - start
                copy_run(source, place, patches, out + inside, outside - inside)
                clear_run(patches, out + outside, high - outside)
            start += taps * C


@njit(cache=True, nogil=True)
def _patch_product_job(
    source, shape, c0, C, runs, grid, panels, bias, out, out_shape, k0, K, place, first, pixels, panel0, panel1
):
    """out of `pixels` pixels from `first` on, for the panels panel0..panel1-1 of weights."""
    depth, width = panels.shape[1], panels.shape[2]
    flat_panels = panels.reshape(-1)
    columns = (panel1 - panel0) * width
    blocks = (pixels + ROWS - 1) // ROWS
    patches = np.empty(blocks * ROWS * min(depth, DEPTH), source.dtype)
    total = np.empty(blocks * ROWS * columns, source.dtype)
    tile = np.empty(ROWS * width, source.dtype)
    for d0 in range(0, depth, DEPTH):
        part = min(DEPTH, depth - d0)
        _gather(source, shape, c0, C, runs, grid, first, pixels, d0, d0 + part, patches, part)
        clear_run(patches, pixels * part, (blocks * ROWS - pixels) * part)
        for panel in range(panel0, panel1):
            b_start = (panel * depth + d0) * width
            for block in range(blocks):
                a_start, start = block * ROWS * part, block * ROWS * columns + (panel - panel0) * width
                if d0 == 0:
                    block_product(
                        patches, a_start, part, 1, flat_panels, b_start, width, width, total, start, columns, part
                    )
                else:
                    block_product(patches, a_start, part, 1, flat_panels, b_start, width, width, tile, 0, width, part)
                    for i in range(ROWS):
                        add_run(tile, i * width, total, start + i * columns, width)
    rows, grid_columns = grid[0], grid[1]
    _, out_H, out_W, channels = out_shape
    h_stride, h_origin, w_stride, w_origin = place
    low = panel0 * width
    count = min(panel1 * width, K) - low
    for i in range(pixels):
        n, rest = divmod(first + i, rows * grid_columns)
        u, v = divmod(rest, grid_columns)
        h, w = u * h_stride + h_origin, v * w_stride + w_origin
        target = ((n * out_H + h) * out_W + w) * channels + k0 + low
        copy_run(bias, low, out, target, count)
        add_run(total, i * columns, out, target, count)


@njit(cache=True, nogil=True, parallel=True)
def _patch_product(source, shape, c0, C, runs, grid, panels, bias, out, out_shape, k0, K, place, splits):
    """out[.., k0:k0+K] = patches of source[.., c0:c0+C] x panels + bias, in parallel over blocks of pixels.

    Few pixels and many panels (a small map of many channels): the panels are split over `splits` jobs too.
    """
    pixels = shape[0] * grid[0] * grid[1]
    blocks = (pixels + PIXELS - 1) // PIXELS
    panel_count = panels.shape[0]
    for job in prange(blocks * splits):
        block, split = divmod(np.int64(job), splits)
        first = block * PIXELS
        _patch_product_job(
            source, shape, c0, C, runs, grid, panels, bias, out, out_shape, k0, K, place,
            first, min(PIXELS, pixels - first),
            split * panel_count // splits, (split + 1) * panel_count // splits,
        )  # fmt: skip


@njit(cache=True, nogil=True, parallel=True)
def _pack(w, strides, inputs, outputs, taps, panels):
    """panels[b, t inputs + c, j] = weight of (output b width + j, input c, tap t); 0 beyond the outputs."""
    width = panels.shape[2]
    output_stride, input_stride, row_stride, column_stride = strides
    flat, jump = panels.reshape(-1), np.uintp(output_stride)
    for index in prange(panels.shape[0]):
        panel = np.int64(index)
        columns = np.uintp(min(width, outputs - panel * width))
        for c in range(inputs):
            for t in range(len(taps)):
                start = c * input_stride + taps[t, 0] * row_stride + taps[t, 1] * column_stride
                source = np.uintp(start + panel * width * output_stride)
                target = np.uintp((panel * panels.shape[1] + t * inputs + c) * width)
                for j in range(columns):
                    flat[target + j] = w[source + j * jump]
                clear_run(flat, target + columns, width - columns)


def _multiply_patches(source, c0, w, strides, inputs, outputs, weight_taps, taps, grid, bias, out, k0, place):
    """Pack the weights of one group and one phase, and run the product over all its pixels."""
    width = panel_width(outputs, source.dtype)
    panels = np.empty((-(-outputs // width), len(taps) * inputs, width), source.dtype)
    _pack(w, strides, inputs, outputs, weight_taps, panels)
    pixels = source.shape[0] * grid[0] * grid[1]
    splits = max(1, min(len(panels), JOBS * PIXELS // max(pixels, 1)))
    runs = _runs(taps, merge=inputs == source.shape[3])
    _patch_product(
        source.reshape(-1), source.shape, c0, inputs, runs, grid, panels, bias,
        out.reshape(-1), out.shape, k0, outputs, place, splits,
    )  # fmt: skip


def _tap_grid(rows: list[int], columns: list[int]) -> np.ndarray:
    """All pairs [T, 2] of a row and a column, in row-major order."""
    return np.array([(r, s) for r in rows for s in columns], np.int64).reshape(-1, 2)


def _runs(taps: np.ndarray, merge: bool) -> np.ndarray:
    """[.., (du, dv, taps)]: neighbouring taps of one row as one run, if `merge` (all channels are used)."""
    runs: list[list[int]] = []
    for du, dv in taps.tolist():
        if merge and runs and runs[-1][0] == du and runs[-1][1] + runs[-1][2] == dv:
            runs[-1][2] += 1
        else:
            runs.append([du, dv, 1])
    return np.array(runs, np.int64)


def conv2d_forward(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """See `reference.conv2d_forward`."""
    checks.same_dtype(x=x, weight=w, bias=b)
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    if b is not None:
        checks.expect_shape("bias", b.shape, (geo.K,))
    bias = np.zeros(geo.K, x.dtype) if b is None else np.ascontiguousarray(b)
    source, w = channels_last(x), np.ascontiguousarray(w)
    y = np.empty((geo.N, geo.P, geo.Q, geo.K), x.dtype)
    C, K, window = geo.C // groups, geo.K // groups, geo.R * geo.S
    weight_taps = _tap_grid(list(range(geo.R)), list(range(geo.S)))
    grid = (geo.P, geo.Q, geo.stride[0], -geo.padding[0], geo.stride[1], -geo.padding[1])
    for g in range(groups):
        _multiply_patches(
            source, g * C, w[g * K : (g + 1) * K].reshape(-1), (C * window, window, geo.S, 1), C, K,
            weight_taps, weight_taps * geo.dilation, grid, bias[g * K : (g + 1) * K], y, g * K, (1, 0, 1, 0),
        )  # fmt: skip
    return channels_first(y)


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
            yield (
                first,
                count,
                taps,
                (first + padding - a) // stride,
                [-(r * dilation - a) // stride for r in taps],
            )


def conv2d_backward_input(dy, w, input_size, stride=1, padding=0, dilation=1, groups=1):
    """See `reference.conv2d_backward_input`."""
    checks.same_dtype(dy=dy, weight=w)
    geo = geometry.conv2d_backward_input(dy.shape, w.shape, input_size, stride, padding, dilation, groups)
    source, w = channels_last(dy), np.ascontiguousarray(w)
    dx = np.zeros((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    C, K, window = geo.C // groups, geo.K // groups, geo.R * geo.S
    no_bias = np.zeros(C, dy.dtype)
    (sh, sw), (ph, pw), (dh, dw) = geo.stride, geo.padding, geo.dilation
    for h0, rows, r_taps, u0, du in _phases(geo.H, geo.R, sh, ph, dh):
        for w0, columns, s_taps, v0, dv in _phases(geo.W, geo.S, sw, pw, dw):
            weight_taps, taps = _tap_grid(r_taps, s_taps), _tap_grid(du, dv)
            if len(taps) == 0:
                continue  # no window meets these pixels: their gradient stays 0
            for g in range(groups):
                _multiply_patches(
                    source, g * K, w[g * K : (g + 1) * K].reshape(-1), (window, C * window, geo.S, 1), K, C,
                    weight_taps, taps, (rows, columns, 1, u0, 1, v0), no_bias, dx, g * C, (sh, h0, sw, w0),
                )  # fmt: skip
    return channels_first(dx)


@njit(cache=True, nogil=True)
def _weight_gradient_job(source, shape, c0, C, runs, grid, dy, width, first, last, d0, d1, total):
    """total [d1 - d0 rounded up, padded K] = sum over pixels first..last-1 of patches^T dy."""
    depth, K = d1 - d0, dy.shape[1]
    rows = (depth + ROWS - 1) // ROWS * ROWS
    patches = np.zeros(CHUNK * rows, source.dtype)
    tile = np.empty(ROWS * width, source.dtype)
    flat_dy, flat_total = dy.reshape(-1), total.reshape(-1)
    for start in range(first, last, CHUNK):
        pixels = min(CHUNK, last - start)
        _gather(source, shape, c0, C, runs, grid, start, pixels, d0, d1, patches, rows)
        for column in range(0, K, width):
            for row in range(0, rows, ROWS):
                block_product(patches, row, 1, rows, flat_dy, start * K + column, K, width, tile, 0, width, pixels)
                for i in range(ROWS):
                    add_run(tile, i * width, flat_total, (row + i) * K + column, width)


@njit(cache=True, nogil=True, parallel=True)
def _weight_gradient(source, shape, c0, C, depth, runs, grid, dy, width, totals):
    """totals [shares, taps C rounded up, padded K]: each share's pixels, in parallel over (share, tap rows)."""
    pixels, shares = dy.shape[0], totals.shape[0]
    blocks = (depth + TAP_ROWS - 1) // TAP_ROWS
    for job in prange(shares * blocks):
        share, block = divmod(np.int64(job), blocks)
        first, last = share * pixels // shares, (share + 1) * pixels // shares
        d0, d1 = block * TAP_ROWS, min((block + 1) * TAP_ROWS, depth)
        _weight_gradient_job(source, shape, c0, C, runs, grid, dy, width, first, last, d0, d1, totals[share, d0:])


@njit(cache=True, nogil=True, parallel=True)
def _add_shares(totals, dw, width):
    """dw[k, c, t] = the sum over shares, in order, of totals[share, t C + c, k]; parallel over `width` values of k."""
    K, C, window = dw.shape
    shares, rows, row = totals.shape
    flat_totals, flat_dw, jump = totals.reshape(-1), dw.reshape(-1), np.uintp(C * window)
    for index in prange((K + width - 1) // width):
        k = np.int64(index) * width
        columns = np.uintp(min(width, K - k))
        for c in range(C):
            for t in range(window):
                source, target = np.uintp((t * C + c) * row + k), np.uintp((k * C + c) * window + t)
                for j in range(columns):
                    total = flat_totals[source + j]
                    for share in range(np.uintp(1), np.uintp(shares)):
                        total += flat_totals[source + share * np.uintp(rows * row) + j]
                    flat_dw[target + j * jump] = total


def _padded_columns(matrix: np.ndarray, width: int) -> np.ndarray:
    """`matrix` C-contiguous, with zero columns up to a multiple of `width`; a view where it already is so."""
    missing = -matrix.shape[1] % width
    return np.ascontiguousarray(np.pad(matrix, ((0, 0), (0, missing))) if missing else matrix)


def conv2d_backward_weight(dy, x, window, stride=1, padding=0, dilation=1, groups=1):
    """See `reference.conv2d_backward_weight`."""
    checks.same_dtype(dy=dy, x=x)
    geo = geometry.conv2d_backward_weight(dy.shape, x.shape, window, stride, padding, dilation, groups)
    source = channels_last(x)
    C, K, taps = geo.C // groups, geo.K // groups, geo.R * geo.S
    pixels, width = geo.N * geo.P * geo.Q, panel_width(K, dy.dtype)
    matrix = channels_last(dy).reshape(pixels, geo.K)
    runs = _runs(_tap_grid(list(range(geo.R)), list(range(geo.S))) * geo.dilation, merge=groups == 1)
    grid = (geo.P, geo.Q, geo.stride[0], -geo.padding[0], geo.stride[1], -geo.padding[1])
    depth_rows = -(-taps * C // ROWS) * ROWS
    shares = max(1, min(-(-JOBS * TAP_ROWS // depth_rows), pixels // CHUNK))
    dw = np.empty((geo.K, C, taps), x.dtype)
    for g in range(groups):
        columns = _padded_columns(matrix[:, g * K : (g + 1) * K], width)
        totals = np.zeros((shares, depth_rows, columns.shape[1]), x.dtype)
        _weight_gradient(source.reshape(-1), source.shape, g * C, C, taps * C, runs, grid, columns, width, totals)
        _add_shares(totals, dw[g * K : (g + 1) * K], width)
    return dw.reshape(geo.w_shape)


@njit(cache=True, nogil=True, parallel=True)
def _column_sums(matrix, sums):
    """sums [shares, K] in float64: each share's rows of `matrix` [pixels, K]."""
    pixels, shares = matrix.shape[0], sums.shape[0]
    for share in prange(shares):
        first, last = np.int64(share) * pixels // shares, (np.int64(share) + 1) * pixels // shares
        for i in range(first, last):
            for k in range(matrix.shape[1]):
                sums[share, k] += matrix[i, k]


def conv2d_backward_bias(dy):
    """See `reference.conv2d_backward_bias`."""
    checks.same_dtype(dy=dy)
    checks.expect_rank4("dy", dy.shape)
    K = dy.shape[1]
    sums = np.zeros((JOBS, K))
    _column_sums(channels_last(dy).reshape(-1, K), sums)
    return sums.sum(axis=0).astype(dy.dtype)
