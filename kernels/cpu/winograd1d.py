"""3 x 3 convolutions of few channels by Winograd's F(2, 3) along rows; the mathematics is in `kernels/winograd.py`.

Two neighbouring outputs of a 3-tap filter cost 4 multiplications instead of 6. With the four inputs d[0] .. d[3] and
the taps g[r, 0 .. 2] of one row of the window,

    u = G g,   v = B^T d,   m = sum over the window's rows and channels of u v,   (y[0], y[1]) = A^T m.

In two dimensions F(m x m, 3 x 3) saves more, but it stores and reads all of v and m again, which only many channels
repay: of an image's three colours there are too few. In one dimension the m of a few pairs stay in the registers, and
the transforms cost next to nothing:

    v       the rows of B^T are three patterns, at two places:  d[2] - d[0],  d[1] + d[2],  d[2] - d[1],  d[3] - d[1].
            So a line of the input, channels last, gets three passes over contiguous memory, one a pattern, and v is
            read there: element e of pair t is its pattern, 2 t + shift pixels from the start
    A^T m   four additions a pair, in registers; the bias is in the sum that both outputs have a part of

Both backward passes are gemm's: they sum over output channels, or over pixels, of which there are many.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .. import memory, winograd
from . import gemm
from .gemm import MORE, bits, fill_lines, pixel_of, rows_of, streaming
from .microkernel import FENCE, Loop, emit_fence, emit_finish, for_each_width
from .outline import code, outlined, tools
from .threads import jobs, member, run, scratch
from .tiles import POOLED, finish_windows
from .vectors import REGISTERS, VECTOR_BYTES, VECTORS, Vectors, lanes_of
from .windows import windows_of

OUTPUTS, FILTERS, INPUTS = winograd.forward(2)  # A^T, G, B^T
WIDEST = VECTORS // 2  # vectors of a panel of output channels: a pair has four sums where a pixel has one
PAIRS = {1: (6, 2, 1), 2: (3, 2, 1)} if REGISTERS == 32 else {1: (3, 1)}  # of blocks, by vectors of the panel


def _pattern(row: tuple) -> tuple[tuple, int]:
    """(the entries of a row of B^T without the zeros around them, how many zeros come before)."""
    places = [i for i, entry in enumerate(row) if entry]
    return row[places[0] : places[-1] + 1], places[0]


PATTERNS = tuple(dict.fromkeys(_pattern(row)[0] for row in INPUTS))
ELEMENTS = tuple((PATTERNS.index(pattern), shift) for pattern, shift in map(_pattern, INPUTS))  # of v
COUNT, REACH = len(PATTERNS), max(map(len, PATTERNS)) - 1  # REACH: pixels from a pattern's first to its last
BOTH = next(e for e, column in enumerate(zip(*OUTPUTS, strict=True)) if column == (1, 1))  # in y[0] and in y[1]


@intrinsic
def _pass_patterns(typingctx, line, target, start, step, C, vectors):
    """target[start + p step + j] = sum_i PATTERNS[p][i] line[j + i C], for `vectors` vectors of j."""

    def generate(context, builder, signature, args):
        line, target, start, step, C, vectors = args
        v = Vectors(context, builder, signature.args[0].dtype)
        source, place = v.at(line, signature.args[0], v.index(0)), v.at(target, signature.args[1], start)
        with cgutils.for_range(builder, vectors) as one:
            j = builder.mul(one.index, v.index(v.lanes))
            d = [v.load(source, builder.add(j, builder.mul(v.index(i), C))) for i in range(REACH + 1)]
            for p, pattern in enumerate(PATTERNS):
                value = v.combination(pattern, d[: len(pattern)])
                v.store(value, place, builder.add(j, builder.mul(v.index(p), step)))
        return context.get_dummy_value()

    n = types.intp
    return types.void(line, target, n, n, n, n), generate


def _emit_sums(v: Vectors, pairs: int, vectors: int, lines, u, step, R, C, bias) -> list[list[list]]:
    """m[pair][vector] = the four sums of a block of pairs over the window's rows and channels."""
    builder, width = v.builder, vectors * v.lanes
    places = [(e, i, j) for e in range(len(ELEMENTS)) for i in range(pairs) for j in range(vectors)]
    starts = [v.load(bias, v.index(j * v.lanes)) if e == BOTH else v.zero for e, _, j in places]
    pair = builder.mul(v.index(2), C)
    offsets = [
        builder.add(builder.mul(v.index(p), step), builder.mul(v.index(shift), C)) for p, shift in ELEMENTS
    ]  # fmt: skip
    row = Loop(builder, R, [lines, u, *starts])
    channel = Loop(builder, C, row.values)
    here, u_here, *sums = channel.values
    new = []
    for e, offset in enumerate(offsets):
        filters = [v.load(u_here, v.index(e * width + j * v.lanes)) for j in range(vectors)]
        for i in range(pairs):
            place = builder.add(offset, builder.mul(v.index(i), pair))
            factor = v.broadcast(builder.load(builder.gep(here, [place])))
            for one in filters:
                new.append(v.multiply_add(factor, one, sums[len(new)]))
    u_next = builder.gep(u_here, [v.index(len(ELEMENTS) * width)])
    channel.end([builder.gep(here, [v.index(1)]), u_next, *new])
    row.end([builder.gep(row.values[0], [builder.mul(v.index(COUNT), step)]), u_next, *new])
    found = dict(zip(places, new, strict=True))
    return [[[found[e, i, j] for e in range(len(ELEMENTS))] for j in range(vectors)] for i in range(pairs)]


def _emit_pairs(v, pixels, width, lines, step, R, C, u, bias, finish, y, y_row, mask, bit, bit_row) -> None:
    """The code of `pairs_product`."""
    builder, two = v.builder, v.index(2)

    def emit(vectors):
        columns = [v.index(j * v.lanes) for j in range(vectors)]
        done = cgutils.alloca_once_value(builder, v.index(0))  # pixels

        def store(values, numbers):
            """The values of some pixels, vector by vector."""
            lines = [number for number in numbers for _ in range(vectors)]
            emit_finish(v, values, lines, columns * len(numbers), y, y_row, finish, mask, bit, bit_row)

        for size in PAIRS[vectors]:
            head, body, after = (builder.append_basic_block(f"{name}{size}") for name in ("head", "body", "after"))
            builder.branch(head)
            builder.position_at_end(head)
            first = builder.load(done)
            left = builder.sub(pixels, first)
            builder.cbranch(builder.icmp_signed(">=", left, v.index(2 * size if size > 1 else 1)), body, after)
            builder.position_at_end(body)
            m = _emit_sums(v, size, vectors, builder.gep(lines, [builder.mul(first, C)]), u, step, R, C, bias)
            values = [v.combination(row, one) for pair in m for row in OUTPUTS for one in pair]
            numbers = [builder.add(first, v.index(i)) for i in range(2 * size)]
            if size > 1:
                store(values, numbers)
            else:
                store(values[:vectors], numbers[:1])
                with builder.if_then(builder.icmp_signed(">=", left, two)):
                    store(values[vectors:], numbers[1:])
            builder.store(builder.add(first, v.index(2 * size)), done)
            builder.branch(head)
            builder.position_at_end(after)

    for_each_width(v, width, emit, WIDEST)
    emit_fence(v, finish)


_pairs_code = code(_emit_pairs, "nnannnaananmnn")


def _pairs(arguments):
    """The C function behind `pairs_product`."""
    _pairs_code(arguments)


# pairs_product(tools, pixels, width, lines, start, step, R, C, u, u_start, bias, b_start, finish, y, y_start,
#               y_row, mask, 0, bit, bit_row)
#
# `pixels` neighbouring outputs of `width` channels, as `finish` says (microkernel.py). Line r of the window, r < R,
# begins at lines[start + r COUNT step], its patterns are `step` apart; pixel p goes to y[y_start + p y_row ..], its
# bits begin at bit + p bit_row. If `pixels` is odd, the second of the last pair is not stored.
pairs_product = outlined(_pairs, _pairs_code)


@njit(cache=True, nogil=True)
def _forward(
    team, tools, x, shape, padding, P, Q, row_blocks, panels, room, line_size, step, total_start, bias, no_bias, relu,
    stream, y, mask,
):  # fmt: skip
    """y and the mask of its ReLU. One job a block of output rows of an image.

    With `relu` POOLED two rows at a time go to the thread's own memory, and the maxima of their windows to y.
    """
    own = room[member(team)]
    line, lines, total = own[:line_size], own[line_size:total_start], own[total_start:]
    _, _, _, C = shape
    R, width, u = panels.shape[1] // C, panels.shape[2] // len(ELEMENTS), panels.reshape(-1)
    K, columns, lanes = len(panels) * width, Q + Q % 2 + 2, VECTOR_BYTES // x.itemsize
    pooled, y_shape = relu == POOLED, (shape[0], P, Q, K)
    at_once = 2 if pooled else 1
    for job in jobs(team):
        n, part = divmod(job, row_blocks)
        first, last = rows_of(part, row_blocks, P, pooled)
        for i in range(last - first + R - 1):
            fill_lines(x, shape, 0, C, mask, 0, 0, n, first + i - padding[0], 1, -padding[1], columns, line)
            _pass_patterns(line, lines, i * COUNT * step, step, C, -(-columns * C // lanes))
        for p in range(first, last, at_once):
            rows = min(at_once, last - p)
            for panel in range(len(panels)):
                k = panel * width
                pixel = (n * P + p) * Q
                for i in range(rows):
                    place = (pixel + i * Q) * K + k
                    fence = FENCE if stream and p == last - 1 and panel == len(panels) - 1 else 0
                    pairs_product(
                        tools, Q, width, lines, (p + i - first) * COUNT * step, step, R, C, u, panel * panels[0].size,
                        bias, k, 0 if pooled else relu + stream + fence, total if pooled else y,
                        i * Q * width if pooled else place, width if pooled else K, mask, 0, place, K,
                    )  # fmt: skip
                if pooled:
                    finish_windows(
                        total, 0, Q * width, width, no_bias, 0, y, pixel_of(y_shape, POOLED, n, p, 0) * K + k, K,
                        mask, pixel * K + k, Q * K, K, rows, Q, width // lanes,
                    )  # fmt: skip


@njit(cache=True, nogil=True)
def _transform(team, w, C, filters, panels):
    """panels[panel, r C + c, e width + j] = sum_s G[e, s] w[panel width + j, r, s, c]. One job a panel."""
    elements, taps = filters.shape
    width = panels.shape[2] // elements
    for panel in jobs(team):
        for j in range(width):
            k = panel * width + j
            for r in range(3):
                for c in range(C):
                    for e in range(elements):
                        total = 0.0
                        for s in range(taps):
                            total += filters[e, s] * w[((k * 3 + r) * taps + s) * C + c]
                        panels[panel, r * C + c, e * width + j] = total


# --- the rung ----------------------------------------------------------------------------------------------


def supports(geo, dtype) -> bool:
    """Whether the convolution is 3 x 3, dense, of stride 1, with output channels that fill whole vectors."""
    plain = geo.stride == geo.dilation == (1, 1) and geo.groups == 1
    return (geo.R, geo.S) == (3, 3) and plain and geo.K % max(lanes_of(dtype), 8) == 0


def pools(geo, dtype) -> bool:
    """Whether 2 x 2 windows may be pooled: always."""
    return True


def forward_weights(geo, w):
    """G w of w [K, 3, 3, C], in panels of output channels: [panel, (r, c), (element, width)]."""
    lanes = lanes_of(w.dtype)
    width = next(n for n in range(WIDEST, 0, -1) if geo.K % (n * lanes) == 0) * lanes
    panels = memory.empty((geo.K // width, 3 * geo.C, len(ELEMENTS) * width), w.dtype)
    run(_transform, len(panels), w.reshape(-1), geo.C, np.array(FILTERS, np.float64), panels)
    return panels


def forward(geo, x, panels, bias, relu):
    """(y [N, P, Q, K], mask of its ReLU or None); with `relu` POOLED, y of the windows."""
    shape, lanes, width = (geo.N, geo.P, geo.Q, geo.K), lanes_of(x.dtype), panels.shape[2] // len(ELEMENTS)
    y = memory.empty(windows_of(shape) if relu == POOLED else shape, x.dtype)
    mask = memory.empty((*shape[:3], geo.K // 8), np.uint8) if relu else None
    at_once = 2 if relu == POOLED else 1
    groups = -(-geo.P // at_once)  # of rows that a job must not part
    row_blocks = -(-groups // max(1, MORE // (at_once * geo.Q)))
    rows = at_once * -(-groups // row_blocks)
    step = -(-(geo.Q + geo.Q % 2 + 2) * geo.C // lanes) * lanes  # from a pattern to the next
    line_size = memory.padded(step + REACH * geo.C, x.dtype)
    total_start = line_size + memory.padded((rows + 2) * COUNT * step, x.dtype)
    room = scratch(total_start + (2 * geo.Q * width if relu == POOLED else 0), x.dtype)
    run(
        _forward, geo.N * row_blocks, tools(x.dtype), x.reshape(-1), x.shape, geo.padding, geo.P, geo.Q, row_blocks,
        panels, room, line_size, step, total_start, bias, np.zeros(width, x.dtype), int(relu), streaming(y, width),
        y.reshape(-1), bits(mask)[0],
    )  # fmt: skip
    return y, mask


backward_input_weights = gemm.backward_input_weights
backward_input = gemm.backward_input
backward_weight = gemm.backward_weight
