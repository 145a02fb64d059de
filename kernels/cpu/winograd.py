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
long chain.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import memory
from ..settings import settings
from .callee import callee
from .gemm import NO_MASK, bits
from .microkernel import panel_width, product
from .outline import tools
from .threads import jobs, member, run, scratch, share
from .tiles import (
    FILTER,
    FILTER_GRADIENT,
    GRADIENT,
    INPUT,
    MASKED,
    POOLED,
    clear_vector,
    copy_vector,
    transform,
    transform_output,
    transpose,
)  # fmt: skip
from .vectors import VECTOR_BYTES, lanes_of
from .windows import windows_of

CACHE = 768 * 1024  # bytes of a core's second-level cache that a block's V and M may take
LEAST_TILES = 16  # of a block of that kind: with fewer, U is read too often
LEAST_BLOCKS = 4  # of that kind
TILES = 64  # of a block at most
GROUP = 8 * 1024 * 1024  # bytes of V and Q that a group of the weight gradient may take
OUTPUTS = 48  # output channels of a job of the weight gradient
SPLIT = 8  # jobs that it is split into if each then has at least
LEAST_OUTPUTS = 16  # output channels
TILE_JOBS = 16  # at most, where tiles are only transformed
WEIGHT_JOBS = 64  # at most, where weights are turned and transformed
FORWARD, TURNED = 1, 2  # how a job transforms the weights of its panel


# --- tiles in, tiles out -----------------------------------------------------------------------------------


@callee
def _transform_tile(tools, kind, m, source, shape, mask, masked, n, h0, w0, target, start, step, sums, buffer):
    """One tile at (h0, w0) of image n, all channels, by the program of `kind` (INPUT, GRADIENT); 0 outside the image.

    Element e of channel c goes to target[start + e step + c]; GRADIENT adds the tile's sum to sums[c]. `masked` POOLED:
    the source holds one pixel for every 2 x 2 of `shape`.
    """
    _, H, W, C = shape
    lanes = VECTOR_BYTES // source.itemsize
    size, across = m if kind == GRADIENT else m + 2, (m + 2) * step
    inside = h0 >= 0 and w0 >= 0 and h0 + size <= H and w0 + size <= W
    first, row, column = ((n * H + h0) * W + w0) * C, W * C, C
    halved = int(masked == POOLED)
    rows, source_row = (H + halved) >> halved, ((W + halved) >> halved) * C
    halves = 4 + 2 * (h0 & 1) + (w0 & 1) if halved else 0
    for c in range(0, C, lanes):
        bit, there = first + c, start + c
        if inside:
            program = kind + m + (MASKED if masked else 0)
            place = (n * rows + (h0 >> halved)) * source_row + (w0 >> halved) * C + c
            transform(
                tools, program, source, place, source_row, column, halves, mask, 0, bit, row, column,
                target, there, across, step, sums, c,
            )  # fmt: skip
        else:
            for i in range(size):
                h = h0 + i
                line = (n * rows + (h >> halved)) * source_row + c
                for j in range(size):
                    w, spot = w0 + j, (i * size + j) * lanes
                    if 0 <= h < H and 0 <= w < W:
                        place = line + (w >> halved) * C
                        copy_vector(source, place, mask, bit + i * row + j * column, masked, buffer, spot)
                    else:
                        clear_vector(buffer, spot)
            transform(
                tools, kind + m, buffer, 0, size * lanes, lanes, 0, mask, 0, 0, 0, 0,
                target, there, across, step, sums, c,
            )  # fmt: skip


@callee
def _transform_block(
    tools, kind, m, source, shape, mask, masked, rows, columns, padding, first, count, target, step, sums, buffer
):  # fmt: skip
    """The tiles first .. first + count - 1, of rows x columns an image; tile i of element e at target[e step + i C]."""
    for i in range(count):
        n, rest = divmod(first + i, rows * columns)
        u, v = divmod(rest, columns)
        h0, w0 = u * m - padding[0], v * m - padding[1]
        _transform_tile(
            tools, kind, m, source, shape, mask, masked, n, h0, w0, target, i * shape[3], step, sums, buffer
        )


@callee
def _multiply_panel(
    tools, m, v, v_start, v_step, C, u, panel, k0, width, first, count, rows, columns, own, bias, relu, y, shape, y_mask
):  # fmt: skip
    """y of `count` tiles from `first` on, for the output channels from k0 on.

    M = V U, with panel `panel` of u, goes to `own`; then A^T M A. `shape` is that before any pooling.
    """
    _, P, Q, K = shape
    halved = int(relu == POOLED)
    y_rows, y_columns = (P + halved) >> halved, (Q + halved) >> halved
    across, elements, lanes = m + 2, (m + 2) ** 2, VECTOR_BYTES // y.itemsize
    step = count * width + lanes  # not a power of two: the elements' rows should not meet in one set of the cache
    for e in range(elements):
        product(
            tools, count, width, v, v_start + e * v_step, C, 1, 0, u, (panel * elements + e) * C * width, width, 0,
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
def _transform_outputs(tools, m, w, C, k, u, start, width, square):
    """One vector of output channels from k on: u[start + (e C + c) width + lane] = (G w G^T)[e]."""
    across, elements, lanes = m + 2, (m + 2) ** 2, VECTOR_BYTES // w.itemsize
    size = lanes * lanes
    for c in range(0, C, lanes):
        for i in range(lanes):
            place = (k + i) * 9 * C + c
            transform(
                tools, FILTER + m, w, place, 3 * C, C, 0, NO_MASK, 0, 0, 0, 0,
                square, i * lanes, across * size, size, w, 0,
            )  # fmt: skip
        for e in range(elements):
            transpose(tools, square, e * size, lanes, u, start + (e * C + c) * width, width)


@callee
def _transform_inputs(tools, m, w, C, first, last, c, u, start, K, width):
    """One vector of input channels from c on: u[start + (e K + k) width + lane] = (G w' G^T)[e], w' turned round."""
    for k in range(first, last):
        place, step = (k * 9 + 8) * C + c, K * width
        transform(
            tools, FILTER + m, w, place, -3 * C, -C, 0, NO_MASK, 0, 0, 0, 0,
            u, start + k * width, (m + 2) * step, step, w, 0,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _by_blocks(
    team, tools, m, source, shape, mask, masked, rows, columns, padding, tiles, u, width, room, v_size,
    bias, relu, y, y_shape, y_mask,
):  # fmt: skip
    """Writes y. One job a block of tiles: transform, multiply with all panels, transform back."""
    own = room[member(team)]
    C, lanes, panels = shape[3], VECTOR_BYTES // y.itemsize, y_shape[3] // width
    for job in jobs(team):
        first, last = share(team, job, tiles)
        count = last - first
        step = count * C + lanes
        _transform_block(
            tools, INPUT, m, source, shape, mask, masked, rows, columns, padding,
            first, count, own, step, own, own[v_size:],
        )  # fmt: skip
        for panel in range(panels):
            _multiply_panel(
                tools, m, own, 0, step, C, u, panel, panel * width, width, first, count, rows, columns, own[v_size:],
                bias, relu, y, y_shape, y_mask,
            )  # fmt: skip


@njit(cache=True, nogil=True)
def _inputs(team, tools, m, source, shape, mask, masked, rows, columns, padding, tiles, v, step, room):
    """V of all tiles: element e of tile t at v[e step + t C]."""
    own = room[member(team)]
    for job in jobs(team):
        first, last = share(team, job, tiles)
        _transform_block(
            tools, INPUT, m, source, shape, mask, masked, rows, columns, padding,
            first, last - first, v[first * shape[3] :], step, own, own,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _by_panels(
    team, tools, m, v, step, C, blocks, tiles, u, raw, width, rows, columns, room, m_size, bias, relu, y, shape, y_mask
):  # fmt: skip
    """Writes y, from V. One job a panel of output channels and a block of tiles.

    `raw` FORWARD or TURNED: u holds the weights as they are, and a job transforms those of its own panel first.
    """
    own = room[member(team)]
    K, lanes = shape[3], VECTOR_BYTES // y.itemsize
    own_u, square = own[m_size:], own[len(own) - (m + 2) ** 2 * lanes * lanes :]
    for job in jobs(team):
        panel, block = divmod(job, blocks)
        first, last = block * tiles // blocks, (block + 1) * tiles // blocks
        for j in range(0, width if raw else 0, lanes):
            if raw == FORWARD:
                _transform_outputs(tools, m, u, C, panel * width + j, own_u, j, width, square)
            else:
                _transform_inputs(tools, m, u, K, 0, C, panel * width + j, own_u, j, C, width)
        _multiply_panel(
            tools, m, v, first * C, step, C, own_u if raw else u, 0 if raw else panel, panel * width, width,
            first, last - first, rows, columns, own, bias, relu, y, shape, y_mask,
        )  # fmt: skip


def _correlate(m, source, shape, mask, u, turned, padding, y_shape, bias, relu):
    """(y, mask of its ReLU or None): source of `shape` [N, H, W, C], where `mask` lets it pass.

    A smaller source is spread over windows of 2 x 2 pixels; with `relu` POOLED, y is the maximum of each.
    u: the transformed weights, or the weights [K, 3, 3, C] themselves, to be `turned` or not: best for
    at most TILES tiles, where no two jobs transform the same ones.
    """
    (N, _, _, C), (_, P, Q, K), dtype = shape, y_shape, source.dtype
    rows, columns, elements, lanes = -(-P // m), -(-Q // m), (m + 2) ** 2, lanes_of(dtype)
    tiles, width = N * rows * columns, panel_width(K, dtype)
    y = memory.empty(windows_of(y_shape) if relu == POOLED else y_shape, dtype)
    y_mask = memory.empty((*y_shape[:3], K // 8), np.uint8) if relu else NO_MASK
    mask, _, masked = bits(mask, source.shape != shape)
    flat = (source.reshape(-1), shape, mask, masked)
    where, out = (rows, columns, padding), (bias, int(relu), y.reshape(-1), y_shape, y_mask.reshape(-1))
    a_tile = elements * (C + width) * dtype.itemsize
    as_they_are = u.ndim == 4
    if not as_they_are and tiles > TILES and CACHE // a_tile >= LEAST_TILES:
        blocks = max(-(-tiles // min(TILES, CACHE // a_tile)), LEAST_BLOCKS)
        blocks += blocks % 2
        count = -(-tiles // blocks)
        v_size = elements * (count * C + lanes)
        room = scratch(v_size + elements * (count * width + lanes), dtype)
        run(_by_blocks, blocks, tools(dtype), m, *flat, *where, tiles, u, width, room, v_size, *out)
    else:
        step = tiles * C + lanes
        v = memory.empty((elements * step,), dtype)
        room = scratch(elements * lanes, dtype)
        run(_inputs, min(tiles, TILE_JOBS), tools(dtype), m, *flat, *where, tiles, v, step, room)
        blocks, raw = -(-tiles // TILES), (TURNED if turned else FORWARD) if as_they_are else 0
        m_size = elements * (-(-tiles // blocks) * width + lanes)
        room = scratch(m_size + (elements * (C * width + lanes * lanes) if raw else 0), dtype)
        run(
            _by_panels, K // width * blocks, tools(dtype), m, v, step, C, blocks, tiles, u.reshape(-1), raw, width,
            rows, columns, room, m_size, *out,
        )  # fmt: skip
    return y, (y_mask if relu else None)


# --- weights -----------------------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _forward_weights(team, tools, m, w, C, u, width, room):
    """u[panel, e, c, j] = (G w G^T)[e] of output channel panel width + j; w [K, 3, 3, C] flat."""
    own = room[member(team)]
    lanes = VECTOR_BYTES // w.itemsize
    for job in jobs(team):
        panel, j = divmod(job * lanes, width)
        start = panel * (m + 2) ** 2 * C * width + j
        _transform_outputs(tools, m, w, C, job * lanes, u, start, width, own)


@njit(cache=True, nogil=True)
def _backward_weights(team, tools, m, w, K, C, u, width):
    """u[panel, e, k, j] = (G w' G^T)[e] of input channel panel width + j, w' turned by 180 degrees."""
    lanes = VECTOR_BYTES // w.itemsize
    for job in jobs(team):
        first, last = share(team, job, K)
        for c in range(0, C, lanes):
            panel, j = divmod(c, width)
            start = panel * (m + 2) ** 2 * K * width + j
            _transform_inputs(tools, m, w, C, first, last, c, u, start, K, width)


def _transformed_weights(m: int, w: np.ndarray, turned: bool) -> np.ndarray:
    """U of w [K, 3, 3, C]; `turned`, for the gradient of the input: flat, in panels of the outputs."""
    K, _, _, C = w.shape
    outputs, inputs = (C, K) if turned else (K, C)
    width, lanes = panel_width(outputs, w.dtype), lanes_of(w.dtype)
    u = memory.empty(((m + 2) ** 2 * outputs * inputs,), w.dtype)
    if turned:
        run(_backward_weights, min(K, WEIGHT_JOBS), tools(w.dtype), m, w.reshape(-1), K, C, u, width)
    else:
        room = scratch((m + 2) ** 2 * lanes * lanes, w.dtype)
        run(_forward_weights, K // lanes, tools(w.dtype), m, w.reshape(-1), C, u, width, room)
    return u


# --- the weight gradient -----------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _inputs_and_gradients(
    team, tools, m, x, x_shape, dy, dy_shape, mask, masked, rows, columns, padding, first, tiles,
    v, v_step, q, q_step, sums, room,
):  # fmt: skip
    """V and Q of `tiles` tiles from `first` on; sums[job] += the sums of dy over each job's tiles."""
    own = room[member(team)]
    for job in jobs(team):
        start, end = share(team, job, tiles)
        C, K = x_shape[3], dy_shape[3]
        _transform_block(
            tools, INPUT, m, x, x_shape, mask, 0, rows, columns, padding,
            first + start, end - start, v[start * C :], v_step, own, own,
        )  # fmt: skip
        _transform_block(
            tools, GRADIENT, m, dy, dy_shape, mask, masked, rows, columns, (0, 0),
            first + start, end - start, q[start * K :], q_step, sums[job], own,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _filter_gradients(team, tools, m, v, v_step, q, q_step, tiles, C, K, width, blocks, s, s_step, kept, add, last, dw):
    """S of one block of output channels and one panel of input channels a job; after the last group dw = A'^T S A'.

    `kept`: S lives from group to group, in s[job]; else in the scratch of the thread.
    """
    across, elements, lanes = m + 2, (m + 2) ** 2, VECTOR_BYTES // v.itemsize
    slot = member(team)
    for job in jobs(team):
        block, panel = divmod(job, C // width)
        k0, k1 = block * K // blocks, (block + 1) * K // blocks
        own = s[job if kept else slot]
        for e in range(elements):
            product(
                tools, k1 - k0, width, q, e * q_step + k0, 1, K, 0, v, e * v_step + panel * width, C, 0,
                own, e * s_step, width, tiles, 1, add,
            )  # fmt: skip
        if last:
            for k in range(k0, k1):
                for c in range(0, width, lanes):
                    start, place = (k - k0) * width + c, k * 9 * C + panel * width + c
                    transform(
                        tools, FILTER_GRADIENT + m, own, start, across * s_step, s_step, 0, NO_MASK, 0, 0, 0, 0,
                        dw, place, 3 * C, C, dw, 0,
                    )  # fmt: skip


def _backward_weight(m, dy, shape, mask, x, padding):
    """(dw [K, 3, 3, C], db [K]) of dy, where `mask` lets it pass, and x [N, H, W, C].

    dy [N, P, Q, K] = `shape`, or smaller, of windows of 2 x 2 pixels.
    """
    (N, P, Q, K), C, dtype = shape, x.shape[3], x.dtype
    rows, columns, elements, lanes = -(-P // m), -(-Q // m), (m + 2) ** 2, lanes_of(dtype)
    tiles, width = N * rows * columns, panel_width(C, dtype)
    groups = -(-tiles * elements * (C + K) * dtype.itemsize // GROUP)
    largest = -(-tiles // groups)
    v_step, q_step = largest * C + lanes, largest * K + lanes
    v, q = memory.empty((elements * v_step,), dtype), memory.empty((elements * q_step,), dtype)
    blocks = max(-(-K // OUTPUTS), min(-(-SPLIT * width // C), K // LEAST_OUTPUTS))
    s_step = -(-K // blocks) * width + lanes
    work = blocks * (C // width)
    s = memory.empty((work if groups > 1 else settings.threads, elements * s_step), dtype)
    room = scratch(elements * lanes, dtype)
    dw = memory.empty((K, 3, 3, C), dtype)
    flat = (x.reshape(-1), x.shape, dy.reshape(-1), shape)
    mask, _, masked = bits(mask, dy.shape != shape)
    sums = np.zeros((groups, TILE_JOBS, K), dtype)
    for group in range(groups):
        first, last = group * tiles // groups, (group + 1) * tiles // groups
        run(
            _inputs_and_gradients, min(last - first, TILE_JOBS), tools(dtype), m, *flat, mask, masked, rows, columns,
            padding, first, last - first, v, v_step, q, q_step, sums[group], room,
        )  # fmt: skip
        run(
            _filter_gradients, work, tools(dtype), m, v, v_step, q, q_step, last - first, C, K, width, blocks,
            s, s_step, int(groups > 1), int(group > 0), int(group == groups - 1), dw.reshape(-1),
        )  # fmt: skip
    return dw, sums.sum(axis=(0, 1), dtype=np.float64).astype(dtype)


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
        """Whether each panel of U would be used by one job only, which may then make it for itself."""
        return geo.N * -(-max(geo.P, geo.H) // self.m) * -(-max(geo.Q, geo.W) // self.m) <= TILES

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
