"""Tile programs: y = L d L^T for a small grid d of vectors, straight-line code made from the matrix L.

One lane is one channel. A grid's elements may lie at any distance from each other; `row` and `column` are the distances
of neighbours, in elements. The matrices are those of Winograd's algorithm (`kernels/winograd.py`); each becomes LLVM
IR inside an intrinsic: code that Python writes as text could not be kept in Numba's cache.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .. import winograd
from .outline import code, outlined
from .vectors import VECTORS, Vectors

# What comes after a product (`relu`), or before one (`masked`): nothing 0, ReLU 1, or it and 2 x 2 maxima:
POOLED = 2


def _paired_columns(v: Vectors, matrix: winograd.Matrix, d: list[Any]) -> tuple[list[list[Any]], list[Any]]:
    """The same product, with the sum and the difference for two columns that agree up to signs."""
    rows: list[list[Any]] = [[] for _ in matrix]
    terms, done = [], set()
    for j in range(len(d)):
        column = [row[j] for row in matrix]
        same = [
            i for i in range(j + 1, len(d)) if all(abs(row[i]) == abs(f) for row, f in zip(matrix, column, strict=True))
        ]
        if j in done:
            continue
        if not same:
            terms.append(d[j])
            for row, factor in zip(rows, column, strict=True):
                row.append(factor)
            continue
        done.add(same[0])
        terms += [v.builder.fadd(d[j], d[same[0]]), v.builder.fsub(d[j], d[same[0]])]
        for row, whole, factor in zip(rows, matrix, column, strict=True):
            row += [factor, 0] if whole[same[0]] == factor else [0, factor]
    return rows, terms


def _apply(v: Vectors, matrix: winograd.Matrix, d: list[Any]) -> list[Any]:
    """The rows of matrix times the vectors d. What the points p and -p have in common is computed once."""
    rows, terms = _paired_columns(v, matrix, d)
    if len(terms) == len(d) and terms != d:
        return [v.combination(row, terms) for row in rows]
    results: list[Any] = [None] * len(rows)
    for i, row in enumerate(rows):
        even = [0 if j % 2 else factor for j, factor in enumerate(row)]
        odd = [factor if j % 2 else 0 for j, factor in enumerate(row)]
        twins = {sign: [sign * (a - b) for a, b in zip(even, odd, strict=True)] for sign in (1, -1)}
        found = [(sign, rows.index(twin)) for sign, twin in twins.items() if twin in rows[i + 1 :]]
        if results[i] is not None:
            continue
        if not found or not any(even) or not any(odd):
            results[i] = v.combination(row, d)
            continue
        (sign, twin), e, o = found[0], v.combination(even, d), v.combination(odd, d)
        results[i] = v.builder.fadd(e, o)
        results[twin] = v.builder.fsub(e, o) if sign == 1 else v.builder.fsub(o, e)
    return results


def _two_sided(v: Vectors, matrix: winograd.Matrix, grid: list[list[Any]]) -> list[list[Any]]:
    """matrix grid matrix^T."""
    columns = [_apply(v, matrix, list(column)) for column in zip(*grid, strict=True)]
    return [_apply(v, matrix, [column[i] for column in columns]) for i in range(len(matrix))]


def _offsets(v: Vectors, size: int, row, column) -> list[list[Any]]:
    """The distance of each element of a size x size grid from its first one."""
    rows = [v.builder.mul(v.index(i), row) for i in range(size)]
    columns = [v.builder.mul(v.index(j), column) for j in range(size)]
    return [[v.builder.add(r, c) for c in columns] for r in rows]


def _load_grid(v: Vectors, pointer, offsets) -> list[list[Any]]:
    """The vectors at `offsets` from `pointer`."""
    return [[v.load(pointer, offset) for offset in line] for line in offsets]


def _store_grid(v: Vectors, grid, pointer, offsets) -> None:
    """The vectors of `grid` to `offsets` from `pointer`."""
    for values, line in zip(grid, offsets, strict=True):
        for value, offset in zip(values, line, strict=True):
            v.store(value, pointer, offset)


def _matrices() -> dict[int, tuple[winograd.Matrix, bool]]:
    """{kind + m: (L, whether the source is masked)} of all transforms but the output's."""
    found = {}
    for m in winograd.POINTS:
        _, filters, inputs = winograd.forward(m)
        back_output, back_filters, _ = winograd.backward_weight(m)
        found |= {
            INPUT + m: (inputs, False), MASKED + INPUT + m: (inputs, True), FILTER + m: (filters, False),
            GRADIENT + m: (back_filters, False), MASKED + GRADIENT + m: (back_filters, True),
            FILTER_GRADIENT + m: (back_output, False),
        }  # fmt: skip
    return found


INPUT, GRADIENT, FILTER, FILTER_GRADIENT, MASKED = 0, 10, 20, 30, 100  # kinds of transforms; a mask comes on top


def _pooled_offsets(v: Vectors, size: int, halves, row, column) -> list[list[Any]]:
    """The offsets of a grid whose elements may be windows of 2 x 2 pixels, as `halves` of `transform` says."""
    builder = v.builder
    shift, parities = builder.lshr(halves, v.index(2)), (builder.lshr(halves, v.index(1)), halves)
    rows, columns = (
        [builder.mul(builder.lshr(builder.add(v.index(i), builder.and_(parity, v.index(1))), shift), step)
         for i in range(size)]
        for parity, step in zip(parities, (row, column), strict=True)
    )  # fmt: skip
    return [[builder.add(r, c) for c in columns] for r in rows]


def _emit_transform(
    v, program, source, s_row, s_column, halves, mask, bit, bit_row, bit_column, target, t_row, t_column, sums
):  # fmt: skip
    """The code of `transform`: one branch a program."""
    builder = v.builder
    after = builder.append_basic_block("transformed")
    choice = builder.switch(program, after)
    for number, (matrix, masked) in _matrices().items():
        block = builder.append_basic_block(f"program{number}")
        choice.add_case(v.index(number), block)
        builder.position_at_end(block)
        size = len(matrix[0])
        if not masked:
            grid = _load_grid(v, source, _offsets(v, size, s_row, s_column))
        else:
            grid = _load_grid(v, source, _pooled_offsets(v, size, halves, s_row, s_column))
            for values, bits in zip(grid, _offsets(v, size, bit_row, bit_column), strict=True):
                for j, offset in enumerate(bits):
                    passes = v.load_mask(mask, builder.add(bit, offset))
                    values[j] = builder.select(passes, values[j], v.zero)
        if number % MASKED - GRADIENT in winograd.POINTS:
            total = v.load(sums, v.index(0))
            for value in itertools.chain(*grid):
                total = builder.fadd(total, value)
            v.store(total, sums, v.index(0))
        _store_grid(v, _two_sided(v, matrix, grid), target, _offsets(v, len(matrix), t_row, t_column))
        builder.branch(after)
    builder.position_at_end(after)


_transform_code = code(_emit_transform)


def _transform(program, source, s_row, s_column, halves, mask, bit, bit_row, bit_column, target, t_row, t_column, sums):
    """The C function behind `transform`."""
    _transform_code(
        program, source, s_row, s_column, halves, mask, bit, bit_row, bit_column, target, t_row, t_column, sums
    )  # fmt: skip


# transform(tools, program, source, start, s_row, s_column, halves, mask, 0, bit, bit_row, bit_column,
#           target, start, t_row, t_column, sums, start)
#
# target grid = L source grid L^T, where `program` = kind + m chooses L. With MASKED on top, the source counts as 0
# wherever its bit is not set; and unless `halves` is 0 it holds one element for every 2 x 2 of the grid, which begins
# at an odd row and column of them where its bits 2 and 1 are set: 4 + 2 (h0 mod 2) + (w0 mod 2). GRADIENT adds the sum
# of the source's grid to one vector of sums.
transform = outlined(_transform, "nannnmnnnanna")


def _finish(v: Vectors, value, relu, target, offset, first_bit, bit) -> None:
    """Store `value`; where `relu`, max(value, 0) and the bits of what it lets pass."""
    with v.builder.if_else(relu) as (then, otherwise):
        with then:
            passes = v.positive(value)
            v.store(v.relu(value), target, offset)
            v.store_mask(passes, first_bit, bit)
        with otherwise:
            v.store(value, target, offset)


def _finish_windows(v: Vectors, values, rows, columns, y, places, mask, bits) -> None:
    """Store max(., 0) of the maximum of each 2 x 2 window of `values`, and which element won it, if it is above 0.

    Only the first `rows` x `columns` values count. places: of the windows, in y; bits: of the elements, in `mask`.
    """
    builder, (size, lowest) = v.builder, (len(values), v.constant(-np.inf))
    in_rows = [builder.icmp_signed("<", v.index(i), rows) for i in range(size)]
    in_columns = [builder.icmp_signed("<", v.index(j), columns) for j in range(size)]
    inside = [[builder.and_(r, c) for c in in_columns] for r in in_rows]
    for i, j in itertools.product(range(0, size, 2), repeat=2):
        with builder.if_then(inside[i][j]):
            window = [(i + r, j + s) for r in (0, 1) for s in (0, 1)]
            best, wins = v.first_maximum([builder.select(inside[h][w], values[h][w], lowest) for h, w in window])
            v.store(v.relu(best), y, places[i // 2][j // 2])
            for (h, w), won in zip(window, wins, strict=True):
                with builder.if_then(inside[h][w]):
                    v.store_mask(builder.and_(won, v.positive(best)), mask, bits[h][w])


def _emit_output(
    v, tile, m, m_row, m_column, bias, relu, y, y_row, y_column, rows, columns, mask, bit, bit_row, bit_column
):  # fmt: skip
    """The code of `transform_output`: one branch a size of tile."""
    builder = v.builder
    added, with_relu = v.load(bias, v.index(0)), builder.icmp_signed("!=", relu, v.index(0))
    pooled = builder.icmp_signed("==", relu, v.index(POOLED))
    after = builder.append_basic_block("transformed")
    choice = builder.switch(tile, after)
    for size in winograd.POINTS:
        block = builder.append_basic_block(f"tile{size}")
        choice.add_case(v.index(size), block)
        builder.position_at_end(block)
        matrix = winograd.forward(size)[0]
        results = _two_sided(v, matrix, _load_grid(v, m, _offsets(v, len(matrix[0]), m_row, m_column)))
        values = [[builder.fadd(result, added) for result in line] for line in results]
        targets = _offsets(v, size, y_row, y_column)
        bits = [[builder.add(bit, place) for place in line] for line in _offsets(v, size, bit_row, bit_column)]
        with builder.if_then(pooled):
            _finish_windows(v, values, rows, columns, y, targets, mask, bits)
            builder.branch(after)
        for i in range(size):
            with builder.if_then(builder.icmp_signed("<", v.index(i), rows)):
                for j in range(size):
                    with builder.if_then(builder.icmp_signed("<", v.index(j), columns)):
                        _finish(v, values[i][j], with_relu, y, targets[i][j], mask, bits[i][j])
        builder.branch(after)
    builder.position_at_end(after)


_output_code = code(_emit_output)


def _output(tile, m, m_row, m_column, bias, relu, y, y_row, y_column, rows, columns, mask, bit, bit_row, bit_column):
    """The C function behind `transform_output`."""
    _output_code(
        tile, m, m_row, m_column, bias, relu, y, y_row, y_column, rows, columns, mask, bit, bit_row, bit_column
    )


# transform_output(tools, tile, m, start, m_row, m_column, bias, start, relu, y, start, y_row, y_column, rows, columns,
#                  mask, 0, bit, bit_row, bit_column)
#
# y grid = A^T m A + bias of F(tile, 3), its first `rows` x `columns` elements; with `relu`, max(., 0) and its mask.
# With `relu` POOLED, y is the maximum of each 2 x 2 of them, and the mask has the bits of those that won above 0.
transform_output = outlined(_output, "nannanannnnmnnn")


@intrinsic
def copy_vector(typingctx, source, s_start, mask, bit, masked, target, t_start):
    """One vector; where `masked`, 0 for elements whose bit of the mask is not set."""

    def generate(context, builder, signature, args):
        source, s_start, mask, bit, masked, target, t_start = args
        v = Vectors(context, builder, signature.args[0].dtype)
        value = v.load(v.at(source, signature.args[0], s_start), v.index(0))
        place = v.at(target, signature.args[5], t_start)
        with builder.if_else(builder.icmp_signed("!=", masked, v.index(0))) as (then, otherwise):
            with then:
                passes = v.load_mask(v.at(mask, signature.args[2], v.index(0)), bit)
                v.store(builder.select(passes, value, v.zero), place, v.index(0))
            with otherwise:
                v.store(value, place, v.index(0))
        return context.get_dummy_value()

    n = types.intp
    return types.void(source, n, mask, n, n, target, n), generate


@intrinsic
def spread_vectors(typingctx, source, s_start, odd, mask, bit, target, t_start, pixels, vectors):
    """`pixels` pixels of `vectors` vectors: the j-th is the source's (odd + j) div 2 where its bits are set, else 0.

    `bit` is that of the first pixel; neighbours' bits are neighbours.
    """

    def generate(context, builder, signature, args):
        source, s_start, odd, mask, bit, target, t_start, pixels, vectors = args
        v = Vectors(context, builder, signature.args[0].dtype)
        first, place = v.at(source, signature.args[0], s_start), v.at(target, signature.args[5], t_start)
        first_bit, channels = v.at(mask, signature.args[3], v.index(0)), builder.mul(vectors, v.index(v.lanes))
        with cgutils.for_range(builder, pixels) as pixel:
            here = builder.mul(builder.lshr(builder.add(odd, pixel.index), v.index(1)), channels)
            there = builder.mul(pixel.index, channels)
            with cgutils.for_range(builder, vectors) as one:
                k = builder.mul(one.index, v.index(v.lanes))
                value, offset = v.load(first, builder.add(here, k)), builder.add(there, k)
                passes = v.load_mask(first_bit, builder.add(bit, offset))
                v.store(builder.select(passes, value, v.zero), place, offset)
        return context.get_dummy_value()

    n = types.intp
    return types.void(source, n, n, mask, n, target, n, n, n), generate


@intrinsic
def finish_vectors(
    typingctx, total, start, row, bias, b_start, relu, y, y_start, y_row, mask, bit, bit_row, rows, vectors
):  # fmt: skip
    """y = total + bias for `rows` rows of `vectors` vectors; with `relu`, max(., 0) and its mask."""

    def generate(context, builder, signature, args):
        total, start, row, bias, b_start, relu, y, y_start, y_row, mask, bit, bit_row, rows, vectors = args
        v = Vectors(context, builder, signature.args[0].dtype)
        source, added = v.at(total, signature.args[0], start), v.at(bias, signature.args[3], b_start)
        target, first_bit = v.at(y, signature.args[6], y_start), v.at(mask, signature.args[9], v.index(0))
        with cgutils.for_range(builder, rows) as line:
            here, there = builder.mul(line.index, row), builder.mul(line.index, y_row)
            bit_here = builder.add(bit, builder.mul(line.index, bit_row))
            with cgutils.for_range(builder, vectors) as one:
                k = builder.mul(one.index, v.index(v.lanes))
                value = builder.fadd(v.load(source, builder.add(here, k)), v.load(added, k))
                with_relu = builder.icmp_signed("!=", relu, v.index(0))
                _finish(v, value, with_relu, target, builder.add(there, k), first_bit, builder.add(bit_here, k))
        return context.get_dummy_value()

    n = types.intp
    return types.void(total, n, n, bias, n, n, y, n, n, mask, n, n, n, n), generate


@intrinsic
def finish_windows(
    typingctx, total, start, row, column, bias, b_start, y, y_start, y_column,
    mask, bit, bit_row, bit_column, rows, columns, vectors,
):  # fmt: skip
    """max(., 0) of the maximum of each 2 x 2 window of total + bias, and the bits of what won it above 0.

    One row of windows over `rows` (1 or 2) x `columns` pixels of `vectors` vectors.
    """

    def generate(context, builder, signature, args):
        total, start, row, column, bias, b_start, y, y_start, y_column, *rest = args
        mask, bit, bit_row, bit_column, rows, columns, vectors = rest
        v = Vectors(context, builder, signature.args[0].dtype)
        source, added = v.at(total, signature.args[0], start), v.at(bias, signature.args[4], b_start)
        target, first_bit = v.at(y, signature.args[6], y_start), v.at(mask, signature.args[9], v.index(0))
        one, two = v.index(1), v.index(2)
        windows = builder.udiv(builder.add(columns, one), two)
        lower = builder.select(builder.icmp_signed("==", rows, two), row, v.index(0))
        with cgutils.for_range(builder, windows) as window:
            left = builder.mul(window.index, two)
            there = builder.sub(columns, left)
            right = builder.select(builder.icmp_signed(">=", there, two), column, v.index(0))
            here, out = builder.mul(left, column), builder.mul(window.index, y_column)
            first = builder.add(bit, builder.mul(left, bit_column))
            with cgutils.for_range(builder, vectors) as one_vector:
                k = builder.mul(one_vector.index, v.index(v.lanes))
                corner, b, bit_here = builder.add(here, k), v.load(added, k), builder.add(first, k)
                values = [
                    [
                        builder.fadd(v.load(source, builder.add(corner, builder.add(r, c))), b)
                        for c in (v.index(0), right)
                    ]
                    for r in (v.index(0), lower)
                ]
                bits = [
                    [builder.add(bit_here, offset) for offset in line] for line in _offsets(v, 2, bit_row, bit_column)
                ]
                _finish_windows(v, values, rows, there, target, [[builder.add(out, k)]], first_bit, bits)
        return context.get_dummy_value()

    n = types.intp
    return types.void(total, n, n, n, bias, n, y, n, n, mask, n, n, n, n, n, n), generate


@intrinsic
def finish_part(typingctx, total, start, bias, b_start, y, y_start, count):
    """y = total + bias, the first `count` lanes of a vector."""

    def generate(context, builder, signature, args):
        total, start, bias, b_start, y, y_start, count = args
        v = Vectors(context, builder, signature.args[0].dtype)
        active, zero = v.active(count), v.index(0)
        value = builder.fadd(
            v.load_part(v.at(total, signature.args[0], start), zero, active),
            v.load_part(v.at(bias, signature.args[2], b_start), zero, active),
        )
        v.store_part(value, v.at(y, signature.args[4], y_start), zero, active)
        return context.get_dummy_value()

    n = types.intp
    return types.void(total, n, bias, n, y, n, n), generate


@intrinsic
def pack_panels(typingctx, source, start, row, target, rows, vectors):
    """target = `rows` rows of `vectors` vectors, as panels of VECTORS vectors: all rows of one, then of the next."""

    def generate(context, builder, signature, args):
        source, start, row, target, rows, vectors = args
        v = Vectors(context, builder, signature.args[0].dtype)
        lanes, width = v.index(v.lanes), v.index(VECTORS * v.lanes)
        first, place = v.at(source, signature.args[0], start), v.at(target, signature.args[3], v.index(0))
        panel_size = builder.mul(rows, width)
        with cgutils.for_range(builder, rows) as line:
            here, there = builder.mul(line.index, row), builder.mul(line.index, width)
            with cgutils.for_range(builder, vectors) as one:
                panel = builder.udiv(one.index, v.index(VECTORS))
                within = builder.mul(builder.urem(one.index, v.index(VECTORS)), lanes)
                offset = builder.add(builder.add(builder.mul(panel, panel_size), there), within)
                v.store(v.load(first, builder.add(here, builder.mul(one.index, lanes))), place, offset)
        return context.get_dummy_value()

    n = types.intp
    return types.void(source, n, n, target, n, n), generate


@intrinsic
def sum_vectors(typingctx, block, start, row, rows, total):
    """total[lane] = the sum over `rows` rows of block[start + i row + lane], in four sums that are added at the end."""

    def generate(context, builder, signature, args):
        block, start, row, rows, total = args
        v = Vectors(context, builder, signature.args[0].dtype)
        first, zero = v.at(block, signature.args[0], start), v.index(0)
        sums = [cgutils.alloca_once_value(builder, v.zero) for _ in range(4)]
        fours = builder.udiv(rows, v.index(4))
        with cgutils.for_range(builder, fours) as four:
            for i, partial in enumerate(sums):
                line = builder.add(builder.mul(four.index, v.index(4)), v.index(i))
                here = v.load(first, builder.mul(line, row))
                builder.store(builder.fadd(builder.load(partial), here), partial)
        done = builder.mul(fours, v.index(4))
        with cgutils.for_range(builder, builder.sub(rows, done)) as one:
            here = v.load(first, builder.mul(builder.add(done, one.index), row))
            builder.store(builder.fadd(builder.load(sums[0]), here), sums[0])
        one, two, three, four = (builder.load(partial) for partial in sums)
        v.store(
            builder.fadd(builder.fadd(one, two), builder.fadd(three, four)), v.at(total, signature.args[4], zero), zero
        )
        return context.get_dummy_value()

    n = types.intp
    return types.void(block, n, n, n, total), generate


@intrinsic
def clear_vector(typingctx, target, t_start):
    """One vector of zeros."""

    def generate(context, builder, signature, args):
        v = Vectors(context, builder, signature.args[0].dtype)
        v.store(v.zero, v.at(args[0], signature.args[0], args[1]), v.index(0))
        return context.get_dummy_value()

    return types.void(target, types.intp), generate


def _emit_transpose(v, source, s_row, target, t_row) -> None:
    """The code of `transpose`."""
    builder = v.builder
    rows = [v.load(source, builder.mul(v.index(i), s_row)) for i in range(v.lanes)]

    def chosen(one, other, lanes):
        order = ir.Constant(ir.VectorType(v.int32, v.lanes), [ir.Constant(v.int32, lane) for lane in lanes])
        return builder.shuffle_vector(one, other, order)

    # swap the off-diagonal quarters, then those of each quarter, and so on (Eklundh, 1972)
    distance = v.lanes // 2
    while distance:
        low = [lane if not lane & distance else v.lanes + lane - distance for lane in range(v.lanes)]
        high = [lane + distance if not lane & distance else v.lanes + lane for lane in range(v.lanes)]
        for i in range(v.lanes):
            if not i & distance:
                one, other = rows[i], rows[i + distance]
                rows[i], rows[i + distance] = chosen(one, other, low), chosen(one, other, high)
        distance //= 2
    for i, row in enumerate(rows):
        v.store(row, target, builder.mul(v.index(i), t_row))


_transpose_code = code(_emit_transpose)


def _transpose(source, s_row, target, t_row):
    """The C function behind `transpose`."""
    _transpose_code(source, s_row, target, t_row)


# transpose(tools, source, start, s_row, target, start, t_row)
#
# target[j, i] = source[i, j] for a square block of as many rows as a vector has lanes.
transpose = outlined(_transpose, "anan")
