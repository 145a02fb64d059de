"""3 x 3 convolutions of stride 1 by Winograd's minimal filtering; the mathematics is in `kernels/winograd.py`.

The output is cut into tiles of m x m pixels, m = 2 or 4. With n = m + 2, an n x n tile of input, and e = 1 .. n^2,

    forward          U = G w G^T,  V = B^T d B,      M[e] = V[e] U[e]  (tiles x C times C x K),      y  = A^T M A
    backward input   the same on dy, with the weights turned by 180 degrees and C, K exchanged
    backward weight  V as above,   Q = G' dy G'^T,   S[e] = Q[e]^T V[e] (summed over tiles),         dw = A'^T S A'

so n^2 matrix products do 2.25 (m = 2) or 4 (m = 4) times fewer multiplications than the window's nine taps. One lane is
one channel in every transform (`tiles.py`); the products run in `microkernel.product`, which reads V, U, Q where they
lie.

Where V of a block of tiles fits the cache, one job transforms a block, multiplies it with all of U and transforms it
back. With many channels it does not, and U is much larger than V: then V is made first, for all tiles, and a job takes
a block of tiles and one panel of output channels, so that each panel of U is read once. The sums over tiles are made in
groups of a fixed number of tiles, added in order: the same bits for any number of threads, and a smaller error than one
long chain. Where all of S fits the cache, a job takes a share of the tiles and adds up an S of its own, block by block,
so that V and Q never leave the cache; the S of the shares are added in order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import memory
from ..settings import settings
from .callee import callee
from .gemm import NO_MASK, add_sums, bits
from .microkernel import panel_width, product
from .outline import tools
from .runs import add_run, clear_run, copy_run
from .threads import jobs, member, run, scratch, share
from .tiles import (
    FILTER,
    FILTER_GRADIENT,
    GRADIENT,
    INPUT,
    POOLED,
    transform,
    transform_output,
    transform_tile,
    transpose,
)  # fmt: skip
from .vectors import VECTOR_BYTES, lanes_of
from .windows import windows_of

CACHE = 768 * 1024  # bytes of a core's second-level cache that a block's V and M may take
LEAST_TILES = 16  # of a block of that kind: with fewer, U is read too often
LEAST_BLOCKS = 4  # of that kind
TILES = 64  # of a block at most
LEAST_SHARES, MOST_SHARES = 4, 16  # of the tiles, whose S are summed up by themselves in the weight gradient,
SUMS = 2560 * 1024  # where all these S are no more bytes than this,
BLOCK = 512 * 1024  # and V and Q are made so many bytes at a time;
GROUP = 8 * 1024 * 1024  # bytes of V and Q of a group of tiles else
WEIGHT_JOBS = 8  # that add up the S
OUTPUTS = 48  # output channels of a job of the weight gradient
SPLIT = 8  # jobs that it is split into if each then has at least
LEAST_OUTPUTS = 16  # output channels
TILE_JOBS = 16  # at most, where tiles are only transformed


# --- tiles in, tiles out -----------------------------------------------------------------------------------


@callee
def _transform_block(
    tools, kind, m, source, shape, mask, masked, rows, columns, padding, first, count, target, step, sums
):  # fmt: skip
    """The tiles first .. first + count - 1, of rows x columns an image, by the program of `kind`: INPUT or GRADIENT.

    Element e of channel c of tile i goes to target[e step + i C + c]; GRADIENT adds the tiles' sums to sums[c].
    `masked` POOLED: the source holds one pixel for every 2 x 2 of `shape`.
    """
    _, H, W, C = shape
    size, halved = m if kind == GRADIENT else m + 2, int(masked == POOLED)
    source_rows, source_columns = (H + halved) >> halved, (W + halved) >> halved
    for i in range(count):
        n, rest = divmod(first + i, rows * columns)
        u, v = divmod(rest, columns)
        h, w = u * m - padding[0], v * m - padding[1]
        start = ((n * source_rows + (h >> halved)) * source_columns + (w >> halved)) * C
        bit, whole = ((n * H + h) * W + w) * C, h >= 0 and w >= 0 and h + size <= H and w + size <= W
        for c in range(0, C, VECTOR_BYTES // source.itemsize):
            transform_tile(
                tools, kind + m, size, source, start + c, source_columns * C, C, int(whole and not masked),
                mask, 0, masked, bit + c, W * C, h, w, H, W,
                target, i * C + c, (m + 2) * step, step, sums, c,
            )  # fmt: skip


@callee
def _multiply_panel(
    tools, m, v, v_start, v_step, C, u, u_start, u_step, k0, width, first, count, rows, columns, own,
    bias, relu, y, shape, y_mask,
):  # fmt: skip
    """y of `count` tiles from `first` on, for the output channels from k0 on, whose panel of U begins at u_start.

    M = V U goes to `own`; then A^T M A. `shape` is that before any pooling.
    """
    _, P, Q, K = shape
    halved = int(relu == POOLED)
    y_rows, y_columns = (P + halved) >> halved, (Q + halved) >> halved
    across, elements, lanes = m + 2, (m + 2) ** 2, VECTOR_BYTES // y.itemsize
    step = count * width + lanes  # not a power of two: the elements' rows should not meet in one set of the cache
    for e in range(elements):
        product(
            tools, count, width, v, v_start + e * v_step, C, 1, 0, u, u_start + e * u_step, width, 0,
            own, e * step, width, C, 1, 0,
        )  # fmt: skip
    for i in range(count):
        n, rest = divmod(first + i, rows * columns)
        p, q = divmod(rest, columns)
        p, q = p * m, q * m
        bit = ((n * P + p) * Q + q) * K + k0
        place = ((n * y_rows + (p >> halved)) * y_columns + (q >> halved)) * K + k0
        for k in range(0, width, lanes):
            transform_output(
                tools, m, own, i * width + k, across * step, step, bias, k0 + k, relu,
                y, place + k, y_columns * K, K, P - p, Q - q, y_mask, 0, bit + k, Q * K, K,
            )  # fmt: skip


@callee
def _transform_outputs(tools, m, w, C, k, u, start, step, width, square):
    """One vector of output channels from k on: u[start + e step + c width + lane] = (G w G^T)[e].

    `square` has room for the nine taps of as many input channels, transposed.
    """
    lanes = VECTOR_BYTES // w.itemsize
    size = lanes * lanes
    for c in range(0, C, lanes):
        for tap in range(9):
            transpose(tools, w, (k * 9 + tap) * C + c, 9 * C, square, tap * size, lanes)
        for i in range(lanes):
            transform(
                tools, FILTER + m, square, i * lanes, 3 * size, size,
                u, start + (c + i) * width, (m + 2) * step, step,
            )  # fmt: skip


@callee
def _transform_inputs(tools, m, w, K, C, c, u, start, step, width):
    """One vector of input channels from c on: u[start + e step + k width + lane] = (G w' G^T)[e], w' turned round."""
    for k in range(K):
        transform(
            tools, FILTER + m, w, (k * 9 + 8) * C + c, -3 * C, -C,
            u, start + k * width, (m + 2) * step, step,
        )  # fmt: skip


@callee
def _transform_weights(tools, m, turned, w, inputs, outputs, k, u, start, step, width, square):
    """U of the vector of outputs from k on; the inputs of the convolution are w's outputs where it is turned round."""
    if turned:
        _transform_inputs(tools, m, w, inputs, outputs, k, u, start, step, width)
    else:
        _transform_outputs(tools, m, w, inputs, k, u, start, step, width, square)


@callee
def _weights_job(tools, m, turned, w, inputs, outputs, job, u, step, width, square):
    """U of one vector of outputs, in its place in the panels."""
    k = job * (VECTOR_BYTES // w.itemsize)
    start = k // width * (m + 2) ** 2 * step + k % width
    _transform_weights(tools, m, turned, w, inputs, outputs, k, u, start, step, width, square)


@njit(cache=True, nogil=True)
def _by_blocks(
    team, tools, m, source, shape, mask, masked, rows, columns, padding, tiles, w, turned, u, u_step, width,
    room, v_size, bias, relu, y, y_shape, y_mask,
):  # fmt: skip
    """Writes y. One job a block of tiles: transform, multiply with all panels, transform back.

    The jobs of the first phase, if there are any, write U.
    """
    own = room[member(team)]
    C, K, lanes = shape[3], y_shape[3], VECTOR_BYTES // y.itemsize
    for job in jobs(team, 0):
        _weights_job(tools, m, turned, w, C, K, job, u, u_step, width, own)
    for job in jobs(team, 1):
        first, last = share(team, job, tiles, 1)
        count = last - first
        step = count * C + lanes
        _transform_block(
            tools, INPUT, m, source, shape, mask, masked, rows, columns, padding,
            first, count, own, step, own,
        )  # fmt: skip
        for panel in range(K // width):
            _multiply_panel(
                tools, m, own, 0, step, C, u, panel * (m + 2) ** 2 * u_step, u_step, panel * width, width,
                first, count, rows, columns, own[v_size:], bias, relu, y, y_shape, y_mask,
            )  # fmt: skip


@njit(cache=True, nogil=True)
def _by_panels(
    team, tools, m, source, shape, mask, masked, rows, columns, padding, tiles, w, turned, u, u_step, width,
    room, m_size, tile_jobs, v, step, blocks, raw, bias, relu, y, y_shape, y_mask,
):  # fmt: skip
    """Writes y. One job a panel of output channels and a block of tiles.

    The first phase makes V, with element e of tile t at v[e step + t C], and U in the jobs beyond `tile_jobs`. `raw`:
    a job makes U of its own panel, which no other job needs.
    """
    own = room[member(team)]
    C, K, elements, lanes = shape[3], y_shape[3], (m + 2) ** 2, VECTOR_BYTES // y.itemsize
    for job in jobs(team, 0):
        if job >= tile_jobs:
            _weights_job(tools, m, turned, w, C, K, job - tile_jobs, u, u_step, width, own)
            continue
        first, last = job * tiles // tile_jobs, (job + 1) * tiles // tile_jobs
        _transform_block(
            tools, INPUT, m, source, shape, mask, masked, rows, columns, padding,
            first, last - first, v[first * C :], step, own,
        )  # fmt: skip
    own_u, square = own[m_size:], own[m_size + elements * u_step :]
    for job in jobs(team, 1):
        panel, block = divmod(job, blocks)
        first, last = block * tiles // blocks, (block + 1) * tiles // blocks
        for j in range(0, width if raw else 0, lanes):
            _transform_weights(tools, m, turned, w, C, K, panel * width + j, own_u, j, u_step, width, square)
        _multiply_panel(
            tools, m, v, first * C, step, C, own_u if raw else u, 0 if raw else panel * elements * u_step, u_step,
            panel * width, width, first, last - first, rows, columns, own, bias, relu, y, y_shape, y_mask,
        )  # fmt: skip


def _u_step(inputs: int, width: int, dtype: np.dtype) -> int:
    """From one element of U to the next in a panel: no power of two, or they would meet in one set of the cache."""
    return inputs * width + lanes_of(dtype)


def _correlate(m, source, shape, mask, u, turned, padding, y_shape, bias, relu):
    """(y, mask of its ReLU or None): source of `shape` [N, H, W, C], where `mask` lets it pass.

    A smaller source is spread over windows of 2 x 2 pixels; with `relu` POOLED, y is the maximum of each.
    u: the transformed weights, or the weights [K, 3, 3, C] themselves, to be `turned` or not.
    """
    (N, _, _, C), (_, P, Q, K), dtype = shape, y_shape, source.dtype
    rows, columns, elements, lanes = -(-P // m), -(-Q // m), (m + 2) ** 2, lanes_of(dtype)
    tiles, width = N * rows * columns, panel_width(K, dtype)
    u_step, panels, as_they_are = _u_step(C, width, dtype), K // width, u.ndim == 4
    y = memory.empty(windows_of(y_shape) if relu == POOLED else y_shape, dtype)
    y_mask = memory.empty((*y_shape[:3], K // 8), np.uint8) if relu else NO_MASK
    mask, _, masked = bits(mask, source.shape != shape)
    flat = (source.reshape(-1), shape, mask, masked)
    out = (bias, int(relu), y.reshape(-1), y_shape, y_mask.reshape(-1))
    a_tile = elements * (C + width) * dtype.itemsize
    in_blocks = tiles > TILES and CACHE // a_tile >= LEAST_TILES
    blocks = -(-tiles // TILES)
    if in_blocks:
        blocks = max(-(-tiles // min(TILES, CACHE // a_tile)), LEAST_BLOCKS)
        blocks += blocks % 2
    elif panels * blocks < LEAST_BLOCKS:
        blocks = min(-(-LEAST_BLOCKS // panels), tiles)
    own_u = as_they_are and not in_blocks and blocks == 1
    w, weight_jobs = u.reshape(-1), K // lanes if as_they_are and not own_u else 0
    if weight_jobs:
        u = memory.workspace(1, panels * elements * u_step, dtype)[0]
    what = (*flat, rows, columns, padding, tiles, w, int(turned), u.reshape(-1), u_step, width)
    count = -(-tiles // blocks)
    if in_blocks:
        v_size = elements * (count * C + lanes)
        room = scratch(max(v_size, 9 * lanes * lanes) + elements * (count * width + lanes), dtype)
        run(_by_blocks, (weight_jobs, blocks), tools(dtype), m, *what, room, v_size, *out)
    else:
        step = tiles * C + lanes
        v, m_size = memory.workspace(1, elements * step, dtype)[0], elements * (count * width + lanes)
        room = scratch(m_size + (elements * u_step if own_u else 0) + 9 * lanes * lanes, dtype)
        tile_jobs = min(tiles, TILE_JOBS)
        run(
            _by_panels, (tile_jobs + weight_jobs, panels * blocks), tools(dtype), m, *what, room, m_size, tile_jobs,
            v, step, blocks, int(own_u), *out,
        )  # fmt: skip
    return y, (y_mask if relu else None)


@njit(cache=True, nogil=True)
def _weights(team, tools, m, turned, w, inputs, outputs, u, step, width, room):
    """All of U."""
    own = room[member(team)]
    for job in jobs(team):
        _weights_job(tools, m, turned, w, inputs, outputs, job, u, step, width, own)


def _transformed_weights(m: int, w: np.ndarray, turned: bool) -> np.ndarray:
    """U of w [K, 3, 3, C]; `turned`, for the gradient of the input: flat, in panels of the outputs."""
    K, _, _, C = w.shape
    outputs, inputs = (C, K) if turned else (K, C)
    width, lanes = panel_width(outputs, w.dtype), lanes_of(w.dtype)
    step = _u_step(inputs, width, w.dtype)
    u = memory.empty((outputs // width * (m + 2) ** 2 * step,), w.dtype)
    room = scratch(9 * lanes * lanes, w.dtype)
    run(
        _weights, outputs // lanes, tools(w.dtype), m, int(turned), w.reshape(-1), inputs, outputs, u, step, width, room
    )  # fmt: skip
    return u


# --- the weight gradient -----------------------------------------------------------------------------------


@callee
def _tile_gradients(
    tools, m, x, x_shape, dy, dy_shape, mask, masked, rows, columns, padding, first, count,
    v, v_start, v_step, q, q_start, q_step, sums,
):  # fmt: skip
    """V and Q of `count` tiles from `first` on; sums += those of dy over the tiles."""
    _transform_block(
        tools, INPUT, m, x, x_shape, mask, 0, rows, columns, padding,
        first, count, v[v_start:], v_step, sums,
    )  # fmt: skip
    _transform_block(
        tools, GRADIENT, m, dy, dy_shape, mask, masked, rows, columns, (0, 0),
        first, count, q[q_start:], q_step, sums,
    )  # fmt: skip


@callee
def _untransform(tools, m, s, s_step, count, width, dw, start, C):
    """dw = A'^T S A' of `count` output channels and `width` input channels; those of dw begin at `start`, C apart."""
    for k in range(count):
        for c in range(0, width, VECTOR_BYTES // s.itemsize):
            transform(
                tools, FILTER_GRADIENT + m, s, k * width + c, (m + 2) * s_step, s_step,
                dw, start + k * 9 * C + c, 3 * C, C,
            )  # fmt: skip


@njit(cache=True, nogil=True)
def _gradient_by_shares(
    team, tools, m, x, x_shape, dy, dy_shape, mask, masked, rows, columns, padding, tiles, most, width,
    s, s_step, sums, room, q_start, dw, db,
):  # fmt: skip
    """dw [K, 3, 3, C] and db [K], the sums of dy.

    One job a share of the tiles, whose S is summed up block by block, and dy in a row of `sums`; then one a few
    channels.
    """
    own = room[member(team)]
    C, K, elements, shares = x_shape[3], dy_shape[3], (m + 2) ** 2, len(s)
    for job in jobs(team, 0):
        begin, end = share(team, job, tiles)
        total = s[job]
        clear_run(sums[job], 0, K)
        blocks = -(-(end - begin) // most)
        for block in range(blocks):
            first = begin + block * (end - begin) // blocks
            count = begin + (block + 1) * (end - begin) // blocks - first
            v_step, q_step = _padded(count * C, x), _padded(count * K, x)
            _tile_gradients(
                tools, m, x, x_shape, dy, dy_shape, mask, masked, rows, columns, padding, first, count,
                own, 0, v_step, own, q_start, q_step, sums[job],
            )  # fmt: skip
            for e in range(elements):
                for c in range(0, C, width):
                    product(
                        tools, K, width, own, q_start + e * q_step, 1, K, 0, own, e * v_step + c, C, 0,
                        total, e * s_step + c, C, count, 1, int(block > 0),
                    )  # fmt: skip
    for job in jobs(team, 1):
        k0, k1 = share(team, job, K, 1)
        size, step = (k1 - k0) * C, _padded((k1 - k0) * C, x)
        for e in range(elements):
            copy_run(s[0], e * s_step + k0 * C, own, e * step, size)
            for part in range(1, shares):
                add_run(s[part], e * s_step + k0 * C, own, e * step, size)
        _untransform(tools, m, own, step, k1 - k0, C, dw, k0 * 9 * C, C)
        add_sums(sums, k0, k1, db)


@callee
def _padded(size, array):
    """`size` and a vector: not a power of two, so that rows of that length do not meet in one set of the cache."""
    return size + VECTOR_BYTES // array.itemsize


@njit(cache=True, nogil=True)
def _gradient_by_channels(
    team, tools, m, x, x_shape, dy, dy_shape, mask, masked, rows, columns, padding, first, tiles, width,
    s, s_step, sums, row, v, v_step, q, q_step, blocks, kept, add, last, dw, db,
):  # fmt: skip
    """First V and Q of all tiles; then S of one block of output channels and one panel of input channels a job.

    After the last group of tiles dw = A'^T S A'. `kept`: S lives from group to group, in s[job]; else in the scratch
    of the thread. The group's sums of dy go to the rows of `sums` from `row` on, one a job; db is the sum of all rows.
    """
    slot, C, K = member(team), x_shape[3], dy_shape[3]
    for job in jobs(team, 0):
        start, end = share(team, job, tiles)
        clear_run(sums[row + job], 0, K)
        _tile_gradients(
            tools, m, x, x_shape, dy, dy_shape, mask, masked, rows, columns, padding, first + start, end - start,
            v, start * C, v_step, q, start * K, q_step, sums[row + job],
        )  # fmt: skip
    for job in jobs(team, 1):
        block, panel = divmod(job, C // width)
        k0, k1 = block * K // blocks, (block + 1) * K // blocks
        own = s[job if kept else slot]
        for e in range((m + 2) ** 2):
            product(
                tools, k1 - k0, width, q, e * q_step + k0, 1, K, 0, v, e * v_step + panel * width, C, 0,
                own, e * s_step, width, tiles, 1, add,
            )  # fmt: skip
        if last:
            _untransform(tools, m, own, s_step, k1 - k0, width, dw, k0 * 9 * C + panel * width, C)
        if last and panel == 0:
            add_sums(sums, k0, k1, db)


def _rows_of_sums(rows: int, size: int, dtype: np.dtype) -> np.ndarray:
    """Memory [rows, size] for S, without gaps: there may be many rows."""
    return memory.workspace(1, rows * size, dtype)[0, : rows * size].reshape(rows, size)


def _backward_weight(m, dy, shape, mask, x, padding):
    """(dw [K, 3, 3, C], db [K]) of dy, where `mask` lets it pass, and x [N, H, W, C].

    dy [N, P, Q, K] = `shape`, or smaller, of windows of 2 x 2 pixels.
    """
    (N, P, Q, K), C, dtype = shape, x.shape[3], x.dtype
    rows, columns, elements, lanes = -(-P // m), -(-Q // m), (m + 2) ** 2, lanes_of(dtype)
    tiles, width = N * rows * columns, panel_width(C, dtype)
    dw, db = memory.empty((K, 3, 3, C), dtype), memory.empty((K,), dtype)
    mask, _, masked = bits(mask, dy.shape != shape)
    flat = (m, x.reshape(-1), x.shape, dy.reshape(-1), shape, mask, masked, rows, columns, padding)
    a_tile = elements * (C + K) * dtype.itemsize
    most = max(BLOCK // a_tile, 1)
    shares = min(SUMS // (elements * C * K * dtype.itemsize), tiles // most, MOST_SHARES)
    if shares >= LEAST_SHARES:
        s_step, v_size, parts = K * C + lanes, elements * (most * C + lanes), min(K, WEIGHT_JOBS)
        s, sums = _rows_of_sums(shares, elements * s_step, dtype), memory.empty((shares, K), dtype)
        room = scratch(max(v_size + elements * (most * K + lanes), elements * (-(-K // parts) * C + lanes)), dtype)
        run(
            _gradient_by_shares, (shares, parts), tools(dtype), *flat, tiles, most, width,
            s, s_step, sums, room, v_size, dw.reshape(-1), db,
        )  # fmt: skip
        return dw, db
    groups = min(-(-tiles * a_tile // GROUP), tiles)
    largest = -(-tiles // groups)
    v_step, q_step = largest * C + lanes, largest * K + lanes
    v, q = (memory.workspace(1, elements * step, dtype)[0] for step in (v_step, q_step))
    blocks = max(-(-K // OUTPUTS), min(-(-SPLIT * width // C), K // LEAST_OUTPUTS))
    s_step = -(-K // blocks) * width + lanes
    work = blocks * (C // width)
    s = _rows_of_sums(work if groups > 1 else settings.threads, elements * s_step, dtype)
    tile_jobs = min(tiles // groups, TILE_JOBS)
    sums = memory.empty((groups * tile_jobs, K), dtype)
    for group in range(groups):
        first, last = group * tiles // groups, (group + 1) * tiles // groups
        run(
            _gradient_by_channels, (tile_jobs, work), tools(dtype), *flat, first, last - first,
            width, s, s_step, sums, group * tile_jobs, v, v_step, q, q_step, blocks, int(groups > 1), int(group > 0),
            int(group == groups - 1), dw.reshape(-1), db,
        )  # fmt: skip
    return dw, db


# --- the rung ----------------------------------------------------------------------------------------------


class Winograd:
    """F(m x m, 3 x 3) as a rung of the ladder."""

    def __init__(self, m: int) -> None:
        self.m = m

    def supports(self, geo, dtype) -> bool:
        """Whether the convolution is 3 x 3, dense, of stride 1, with channels that fill whole vectors."""
        lanes = lanes_of(dtype)
        whole = lanes >= 4 and geo.C % max(lanes, 8) == 0 and geo.K % max(lanes, 8) == 0
        plain = geo.stride == geo.dilation == (1, 1) and geo.groups == 1 and max(geo.padding) <= 2
        return (geo.R, geo.S) == (3, 3) and plain and whole and geo.N > 0

    def pools(self, geo, dtype) -> bool:
        """Whether 2 x 2 windows may be pooled: always."""
        return True

    def takes_weights_as_they_are(self, geo) -> bool:
        """Yes: the launch that uses U can make it first."""
        return True

    def forward_weights(self, geo, w):
        """U, flat, in panels of the output channels."""
        return _transformed_weights(self.m, w, False)

    def backward_input_weights(self, geo, w):
        """U of the weights turned round, in panels of the input channels."""
        return _transformed_weights(self.m, w, True)

    def forward(self, geo, x, u, bias, relu):
        """(y [N, P, Q, K], mask of its ReLU or None); with `relu` POOLED, y of the windows."""
        return _correlate(self.m, x, x.shape, None, u, False, geo.padding, (geo.N, geo.P, geo.Q, geo.K), bias, relu)

    def backward_input(self, geo, dy, mask, u):
        """dx [N, H, W, C] of dy [N, P, Q, K], or of the windows, where `mask` lets it pass."""
        turned, shape = (2 - geo.padding[0], 2 - geo.padding[1]), (geo.N, geo.P, geo.Q, geo.K)
        none = np.zeros(geo.C, dy.dtype)
        return _correlate(self.m, dy, shape, mask, u, True, turned, (geo.N, geo.H, geo.W, geo.C), none, False)[0]

    def backward_weight(self, geo, dy, mask, x):
        """(dw [K, R, S, C], db [K]) of dy [N, P, Q, K], or of the windows, where `mask` lets it pass, and x."""
        return _backward_weight(self.m, dy, (geo.N, geo.P, geo.Q, geo.K), mask, x, geo.padding)
