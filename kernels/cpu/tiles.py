"""Tile programs: y = L d L^T for a small grid d of vectors, straight-line code made from the matrix L.

One lane is one channel. A grid's elements may lie at any distance from each other; `row` and `column` are the distances
of neighbours, in elements. The matrices are those of Winograd's algorithm (`kernels/winograd.py`); each becomes LLVM
IR inside an intrinsic: code that Python writes as text could not be kept in Numba's cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
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
    """The rows of matrix times the vectors d. What the points p and -p have in common is computed once.

    Vectors that no row needs may be None.
    """
    used = [j for j in range(len(d)) if any(row[j] for row in matrix)]
    matrix, d = [[row[j] for j in used] for row in matrix], [d[j] for j in used]
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


def _groups(matrix: winograd.Matrix) -> list[list[int]]:
    """The numbers of the rows, those together that have terms in common (`_apply`)."""
    columns = [[abs(factor) for factor in column] for column in zip(*matrix, strict=True)]
    pairs = [(i, j) for i, j in itertools.combinations(range(len(columns)), 2) if columns[i] == columns[j]]
    groups: dict[tuple, list[int]] = {}
    for number, row in enumerate(matrix):
        alike = tuple(row[i] == row[j] for i, j in pairs) if pairs else tuple(map(abs, row))
        groups.setdefault(alike, []).append(number)
    return list(groups.values())


def _two_sided(v: Vectors, matrix: winograd.Matrix, load: Callable, store: Callable) -> None:
    """matrix d matrix^T: load(i, j) reads an element of d, store(i, j, value) takes one of the result.

    A few rows at a time, so that all vectors stay in registers: reading an element again takes less time than a detour
    of an intermediate one through memory.
    """
    size = len(matrix[0])
    for group in _groups(matrix):
        rows = [matrix[i] for i in group]
        needed = [any(row[i] for row in rows) for i in range(size)]
        columns = [_apply(v, rows, [load(i, j) if needed[i] else None for i in range(size)]) for j in range(size)]
        for i, values in zip(group, zip(*columns, strict=True), strict=True):
            for j, value in enumerate(_apply(v, matrix, list(values))):
                store(i, j, value)


def _element(v: Vectors, i: int, j: int, row, column) -> Any:
    """How far element (i, j) of a grid is from its first one."""
    return v.builder.add(v.builder.mul(v.index(i), row), v.builder.mul(v.index(j), column))


def _grid(v: Vectors, pointer, row, column) -> tuple[Callable, Callable]:
    """(load, store) of the grid that begins at `pointer`, for `_two_sided`."""

    def load(i, j):
        return v.load(pointer, _element(v, i, j, row, column))

    def store(i, j, value):
        v.store(value, pointer, _element(v, i, j, row, column))

    return load, store


def _matrices(kinds: tuple[int, ...]) -> dict[int, winograd.Matrix]:
    """{kind + m: L} of the transforms of these kinds."""
    found = {}
    for m in winograd.POINTS:
        _, filters, inputs = winograd.forward(m)
        filter_gradients, gradients, _ = winograd.backward_weight(m)
        matrices = {INPUT: inputs, GRADIENT: gradients, FILTER: filters, FILTER_GRADIENT: filter_gradients}
        found |= {kind + m: matrices[kind] for kind in kinds}
    return found


INPUT, GRADIENT, FILTER, FILTER_GRADIENT = 0, 10, 20, 30  # kinds of transforms


def _branches(v: Vectors, program, numbers) -> Iterator[int]:
    """The numbers, one by one, with the builder in the branch that `program` takes if it is this one."""
    builder = v.builder
    after = builder.append_basic_block("transformed")
    choice = builder.switch(program, after)
    for number in numbers:
        block = builder.append_basic_block(f"program{number}")
        choice.add_case(v.index(number), block)
        builder.position_at_end(block)
        yield number
        builder.branch(after)
    builder.position_at_end(after)


def _emit_pixels(v: Vectors, sizes, size, source, row, column, mask, masked, bit, bit_row, place, pixels) -> None:
    """pixels [size, size] = the source; 0 outside the image (`place`: h, w, H, W) and where the mask does not pass."""
    builder, (h, w, H, W), zero = v.builder, place, v.index(0)
    masks, nothing = builder.icmp_signed("!=", masked, zero), v.scratch(1)
    v.store(v.zero, nothing, zero)
    halved = builder.zext(builder.icmp_signed("==", masked, v.index(POOLED)), zero.type)

    def step(first, number):
        """From the source's pixel at `first` to the one `number` further, or to the window that holds it."""
        return builder.lshr(builder.add(builder.and_(first, halved), number), halved)

    for wide in _branches(v, size, sizes):
        columns = [builder.icmp_unsigned("<", builder.add(w, v.index(j)), W) for j in range(wide)]
        steps = [builder.mul(step(w, v.index(j)), column) for j in range(wide)]
        with cgutils.for_range(builder, size) as line:
            here = builder.icmp_unsigned("<", builder.add(h, line.index), H)
            start, bits_start = builder.mul(step(h, line.index), row), builder.mul(line.index, bit_row)
            target = builder.mul(line.index, v.index(wide * v.lanes))
            for j in range(wide):
                inside, offset = builder.and_(here, columns[j]), builder.add(start, steps[j])
                v.prefetch(builder.gep(source, [builder.add(start, builder.mul(step(w, v.index(j + wide)), column))]))
                value = v.load(builder.select(inside, builder.gep(source, [offset]), nothing), zero)
                number = builder.add(bit, builder.add(bits_start, builder.mul(v.index(j), column)))
                bits = v.load_mask(mask, builder.select(builder.and_(inside, masks), number, zero))
                passes = builder.and_(v.in_every_lane(inside), builder.or_(bits, v.in_every_lane(builder.not_(masks))))
                v.store(builder.select(passes, value, v.zero), pixels, builder.add(target, v.index(j * v.lanes)))


def _emit_tile(
    v, program, size, source, s_row, s_column, whole, mask, masked, bit, bit_row, h, w, H, W,
    target, t_row, t_column, sums,
):  # fmt: skip
    """The code of `transform_tile`: reads the pixels where they lie, or a copy in which they are 0 as wanted."""
    builder, lanes = v.builder, v.index(v.lanes)
    matrices = _matrices((INPUT, GRADIENT))
    sizes = {len(matrix[0]) for matrix in matrices.values()}
    pixels = v.scratch(max(sizes) ** 2)
    in_place, place = builder.icmp_signed("!=", whole, v.index(0)), (h, w, H, W)
    with builder.if_then(builder.not_(in_place)):
        _emit_pixels(v, sizes, size, source, s_row, s_column, mask, masked, bit, bit_row, place, pixels)
    source = builder.select(in_place, source, pixels)
    row, column = builder.select(in_place, s_row, builder.mul(size, lanes)), builder.select(in_place, s_column, lanes)
    for number in _branches(v, program, matrices):
        matrix = matrices[number]
        load, store = _grid(v, source, row, column)[0], _grid(v, target, t_row, t_column)[1]
        if number >= GRADIENT:
            total = v.load(sums, v.index(0))
            for i, j in itertools.product(range(len(matrix[0])), repeat=2):
                total = builder.fadd(total, load(i, j))
            v.store(total, sums, v.index(0))
        _two_sided(v, matrix, load, store)


_tile_code = code(_emit_tile, "nnannnmnnnnnnnanna")


def _tile(arguments):
    """The C function behind `transform_tile`."""
    _tile_code(arguments)


# transform_tile(tools, program, size, source, start, s_row, s_column, whole, mask, 0, masked, bit, bit_row, h, w, H, W,
#                target, start, t_row, t_column, sums, start)
#
# target grid = L source grid L^T, where `program` = kind + m chooses L: INPUT or GRADIENT, of `size` x `size` elements.
# Unless it is `whole`, the source counts as 0 where the tile, which begins at (h, w), reaches over the image of H x W
# pixels, and, if `masked`, where its bit is not set: `bit` is that of (h, w), neighbours in a row are s_column apart.
# With `masked` POOLED the source holds one element for every 2 x 2 pixels. GRADIENT adds the sum of the source's grid
# to one vector.
transform_tile = outlined(_tile, _tile_code)


def _emit_transform(v, program, source, s_row, s_column, target, t_row, t_column):
    """The code of `transform`."""
    matrices = _matrices((FILTER, FILTER_GRADIENT))
    for number in _branches(v, program, matrices):
        load, store = _grid(v, source, s_row, s_column)[0], _grid(v, target, t_row, t_column)[1]
        _two_sided(v, matrices[number], load, store)


_transform_code = code(_emit_transform, "nannann")


def _transform(arguments):
    """The C function behind `transform`."""
    _transform_code(arguments)


# transform(tools, program, source, start, s_row, s_column, target, start, t_row, t_column)
#
# target grid = L source grid L^T, where `program` = kind + m chooses L: FILTER or FILTER_GRADIENT.
transform = outlined(_transform, _transform_code)


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
    """The code of `transform_output`."""
    builder = v.builder
    added, with_relu = v.load(bias, v.index(0)), builder.icmp_signed("!=", relu, v.index(0))
    load = _grid(v, m, m_row, m_column)[0]

    def target(i, j):
        return _element(v, i, j, y_row, y_column)

    def bits(i, j):
        return builder.add(bit, _element(v, i, j, bit_row, bit_column))

    def store(i, j, value):
        inside = builder.and_(builder.icmp_signed("<", v.index(i), rows), builder.icmp_signed("<", v.index(j), columns))
        with builder.if_then(inside):
            _finish(v, builder.fadd(value, added), with_relu, y, target(i, j), mask, bits(i, j))

    for size in _branches(v, tile, winograd.POINTS):
        matrix, whole = winograd.forward(size)[0], range(size)
        with builder.if_else(builder.icmp_signed("==", relu, v.index(POOLED))) as (then, otherwise):
            with then:
                found: dict[tuple[int, int], Any] = {}
                _two_sided(v, matrix, load, lambda i, j, value, found=found: found.update({(i, j): value}))
                values, places, numbers = (
                    [[at(i, j) for j in whole] for i in whole]
                    for at in (lambda i, j, found=found: builder.fadd(found[i, j], added), target, bits)
                )
                _finish_windows(v, values, rows, columns, y, places, mask, numbers)
            with otherwise:
                _two_sided(v, matrix, load, store)


_output_code = code(_emit_output, "nannanannnnmnnn")


def _output(arguments):
    """The C function behind `transform_output`."""
    _output_code(arguments)


# transform_output(tools, tile, m, start, m_row, m_column, bias, start, relu, y, start, y_row, y_column, rows, columns,
#                  mask, 0, bit, bit_row, bit_column)
#
# y grid = A^T m A + bias of F(tile, 3), its first `rows` x `columns` elements; with `relu`, max(., 0) and its mask.
# With `relu` POOLED, y is the maximum of each 2 x 2 of them, and the mask has the bits of those that won above 0.
transform_output = outlined(_output, _output_code)


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
                    [builder.add(bit_here, _element(v, i, j, bit_row, bit_column)) for j in range(2)] for i in range(2)
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


_transpose_code = code(_emit_transpose, "anan")


def _transpose(arguments):
    """The C function behind `transpose`."""
    _transpose_code(arguments)


# transpose(tools, source, start, s_row, target, start, t_row)
#
# target[j, i] = source[i, j] for a square block of as many rows as a vector has lanes.
transpose = outlined(_transpose, _transpose_code)
