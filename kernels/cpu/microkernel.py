"""The inner loop of every convolution: a small block of a matrix product, held in vector registers.

    c[i, j] (+)= sum_d a[i, d] b[d, j],   0 <= i < rows, 0 <= j < width

Each step of d loads one row of b as vectors, broadcasts one element of each row of a, and multiplies and adds into
accumulators that never leave their registers (Goto and van de Geijn, 2008, "Anatomy of high-performance matrix
multiplication"). Nothing is packed: a and b are read where they lie, at any distance between rows and between steps.
LLVM would not keep a loop's accumulators in registers by itself, so the loop is written as LLVM IR, the form that Numba
compiles to. 32 registers hold 6 rows x 4 vectors of accumulators, 16 hold 6 x 2; shorter blocks end the rows. Where b
is long and has to be read from memory, `tall_product` reads it once: 27 rows x 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from numba.core import cgutils

from .outline import code, outlined
from .vectors import REGISTERS, VECTORS, Vectors, lanes_of

TALL = (3, 9)  # lines, and neighbours in each, of a tall block: a filter's 3 x 3 taps of an image's 3 colours
AT_ONCE = TALL[0] if REGISTERS == 32 else 1  # lines whose sums the registers hold
AHEAD = 24  # steps from a prefetch to its use: some 600 cycles
STORE, ADD, STREAM = 0, 1, 2  # what becomes of a block's sums; STREAM past the caches, to whole cache lines
RELU, FENCE = 1, 4  # how a product is finished, beside STREAM


def _block_rows(vectors: int) -> tuple[int, ...]:
    """Rows of a block, to be tried in this order: a narrow panel leaves registers for more."""
    longer = {1: (12, 9), 2: (12,)}.get(vectors, ()) if REGISTERS == 32 else ()
    return (*longer, 6, 4, 2, 1)


@cache
def panel_width(columns: int, dtype) -> int:
    """Columns of one panel of b: as many vectors as the registers hold, unless fewer leave none of them empty."""
    lanes = lanes_of(dtype)
    vectors = -(-columns // lanes)
    return next(n for n in (4, 2, 1) if n <= VECTORS and vectors % n == 0) * lanes


@dataclass
class Loop:
    """A counted loop in LLVM IR whose values are carried from round to round by phis."""

    builder: Any
    count: Any
    carried: list[Any]  # the values before the first round

    def __post_init__(self) -> None:
        """Open the first round: the builder writes into it until `end`."""
        self.before = self.builder.block
        self.start = self.builder.append_basic_block("round")
        self.builder.branch(self.start)
        self.builder.position_at_end(self.start)
        self.round = self.builder.phi(self.count.type)
        self.values = [self.builder.phi(first.type) for first in self.carried]

    def end(self, following: list[Any]) -> None:
        """Close the round with the values of the next one; at least one round is made."""
        one, zero = self.count.type(1), self.count.type(0)
        next_round = self.builder.add(self.round, one)
        here, after = self.builder.block, self.builder.append_basic_block("after")
        self.builder.cbranch(self.builder.icmp_signed("<", next_round, self.count), self.start, after)
        for phi, first, later in zip(
            [self.round, *self.values], [zero, *self.carried], [next_round, *following], strict=True
        ):
            phi.add_incoming(first, self.before)
            phi.add_incoming(later, here)
        self.builder.position_at_end(after)


def _emit_block(
    v: Vectors, column: Callable, rows: int, vectors: int, a, b, steps: dict[str, Any], depth, runs, ahead: int = 0
) -> list[Any]:
    """The sums of one block, row by row: `rows` x `vectors` vectors.

    a, b point to its first elements, column(a) to those of all rows; `steps` are distances of steps and runs. `ahead`:
    so many steps before b is loaded it is prefetched, with vectors = 1.
    """
    builder, number = v.builder, v.index
    run = Loop(builder, runs, [a, b, *([v.zero] * (rows * vectors))])
    run_a, run_b, *run_sums = run.values
    step = Loop(builder, depth, [run_a, run_b, *run_sums])
    here_a, here_b, *sums = step.values
    b_row = [v.load(here_b, number(j * v.lanes)) for j in range(vectors)]
    if ahead:
        later = builder.gep(here_b, [builder.mul(number(ahead), steps["b_depth"])])
        for element in (0, v.lanes - 1):  # a vector may lie in two cache lines
            v.prefetch(builder.gep(later, [number(element)]))
    new = []
    for i, element in enumerate(column(here_a)):
        factor = v.broadcast(builder.load(element))
        new += [v.multiply_add(factor, b_row[j], sums[i * vectors + j]) for j in range(vectors)]
    step.end([builder.gep(here_a, [steps["a_depth"]]), builder.gep(here_b, [steps["b_depth"]]), *new])
    run.end([builder.gep(run_a, [steps["a_run"]]), builder.gep(run_b, [steps["b_run"]]), *new])
    return new


def _emit_store(v: Vectors, rows: int, vectors: int, sums: list[Any], c, c_row, mode) -> None:
    """The sums of a block to c, as `mode` says."""
    builder, number = v.builder, v.index
    places = [(i, j) for i in range(rows) for j in range(vectors)]
    targets = [builder.add(builder.mul(number(i), c_row), number(j * v.lanes)) for i, j in places]
    after = builder.append_basic_block("stored")
    blocks = {mode: builder.append_basic_block(f"mode{mode}") for mode in (STORE, ADD, STREAM)}
    choice = builder.switch(mode, after)
    for number_of, block in blocks.items():
        choice.add_case(number(number_of), block)
        builder.position_at_end(block)
        for target, total in zip(targets, sums, strict=True):
            if number_of == STREAM:
                v.stream(total, c, target)
            else:
                v.store(builder.fadd(v.load(c, target), total) if number_of == ADD else total, c, target)
        builder.branch(after)
    builder.position_at_end(after)


def _emit_panel(v: Vectors, vectors: int, rows, a, b, steps: dict[str, Any], depth, runs, store) -> None:
    """Any number of rows, `vectors` vectors wide; store(first row, rows, sums) writes what becomes of a block."""
    builder = v.builder
    done = cgutils.alloca_once_value(builder, v.index(0))
    for size in _block_rows(vectors):
        head, body, after = (builder.append_basic_block(f"{name}{size}") for name in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        row = builder.load(done)
        builder.cbranch(builder.icmp_signed(">=", builder.sub(rows, row), v.index(size)), body, after)
        builder.position_at_end(body)
        a_here = builder.gep(a, [builder.mul(row, steps["a_row"])])
        offsets = [builder.mul(v.index(i), steps["a_row"]) for i in range(size)]

        def column(a, offsets=offsets):
            return [builder.gep(a, [offset]) for offset in offsets]

        store(row, size, _emit_block(v, column, size, vectors, a_here, b, steps, depth, runs))
        builder.store(builder.add(row, v.index(size)), done)
        builder.branch(head)
        builder.position_at_end(after)


def for_each_width(v: Vectors, width, emit: Callable[[int], None], most: int = VECTORS) -> None:
    """emit(vectors) for the one width that is wanted, of `most` vectors at most."""
    builder = v.builder
    end = builder.append_basic_block("end")
    choice = builder.switch(width, end)
    for vectors in range(1, most + 1):
        block = builder.append_basic_block(f"vectors{vectors}")
        choice.add_case(v.index(vectors * v.lanes), block)
        builder.position_at_end(block)
        emit(vectors)
        builder.branch(end)
    builder.position_at_end(end)


def _emit_product(v, rows, width, a, a_row, a_depth, a_run, b, b_depth, b_run, c, c_row, depth, runs, mode) -> None:
    """The code of `product`."""
    builder = v.builder
    steps = {"a_row": a_row, "a_depth": a_depth, "a_run": a_run, "b_depth": b_depth, "b_run": b_run}

    def emit(vectors):
        def store(row, size, sums):
            _emit_store(v, size, vectors, sums, builder.gep(c, [builder.mul(row, c_row)]), c_row, mode)

        _emit_panel(v, vectors, rows, a, b, steps, depth, runs, store)

    for_each_width(v, width, emit)
    with builder.if_then(builder.icmp_signed("==", mode, v.index(STREAM))):
        builder.fence("seq_cst")  # streamed stores are seen by other threads in no order without it


_code = code(_emit_product, "nnannnannannnn")


def _product(arguments):
    """The C function behind `product`."""
    _code(arguments)


# product(tools, rows, width, a, a_start, a_row, a_depth, a_run, b, b_start, b_depth, b_run, c, c_start, c_row,
#         depth, runs, mode)
#
# c[i, j] = (for `mode` ADD: +=) the sum over `runs` runs of `depth` steps d of a[i, d] b[d, j], i < rows, j < width.
#
# All arrays are 1-D; element (i, d) of run u is a[a_start + i a_row + d a_depth + u a_run], (d, j) is
# b[b_start + d b_depth + u b_run + j], (i, j) is c[c_start + i c_row + j]. `width` is a whole number of vectors, at
# most VECTORS; depth and runs are at least 1.
product = outlined(_product, _code)


def _emit_tall(v, a, a_line, a_depth, a_run, b, b_depth, b_run, c, c_row, depth, runs, mode) -> None:
    """The code of `tall_product`."""
    builder, (lines, neighbours) = v.builder, TALL
    steps = {"a_depth": a_depth, "a_run": a_run, "b_depth": b_depth, "b_run": b_run}
    distances = [builder.mul(v.index(line), a_line) for line in range(AT_ONCE)]

    def column(a):
        starts = [builder.gep(a, [distance]) for distance in distances]
        return [builder.gep(start, [v.index(i)]) for start in starts for i in range(neighbours)]

    for line in range(0, lines, AT_ONCE):
        rows, a_here = AT_ONCE * neighbours, builder.gep(a, [builder.mul(v.index(line), a_line)])
        sums = _emit_block(v, column, rows, 1, a_here, b, steps, depth, runs, AHEAD)
        c_here = builder.gep(c, [builder.mul(v.index(line * neighbours), c_row)])
        _emit_store(v, rows, 1, sums, c_here, c_row, mode)


_tall_code = code(_emit_tall, "annnannannnn")


def _tall(arguments):
    """The C function behind `tall_product`."""
    _tall_code(arguments)


# tall_product(tools, a, a_start, a_line, a_depth, a_run, b, b_start, b_depth, b_run, c, c_start, c_row,
#              depth, runs, mode)
#
# The same product (`mode` STORE or ADD) one vector wide, of 3 x 9 rows: row (line, i) of a starts at a_start + line
# a_line + i. So much is done with each vector of b that it may come straight from memory.
tall_product = outlined(_tall, _tall_code)


def emit_finish(v: Vectors, values, lines, columns, y, y_row, finish, mask, bit, bit_row) -> None:
    """Each of `values` to its line and column of y, and the bits of ReLU's mask, as the flags in `finish` say."""
    builder = v.builder
    with_relu, streamed = (
        builder.icmp_signed("!=", builder.and_(finish, v.index(flag)), v.index(0)) for flag in (RELU, STREAM)
    )

    def put(positive, store):
        for value, line, column in zip(values, lines, columns, strict=True):
            if positive:
                bits = builder.add(builder.mul(line, bit_row), column)
                v.store_mask(v.positive(value), mask, builder.add(bit, bits))
                value = v.relu(value)
            store(value, y, builder.add(builder.mul(line, y_row), column))

    with builder.if_else(with_relu) as relu_branches:
        for relu_branch, positive in zip(relu_branches, (True, False), strict=True):
            with relu_branch, builder.if_else(streamed) as store_branches:
                for store_branch, store in zip(store_branches, (v.stream, v.store), strict=True):
                    with store_branch:
                        put(positive, store)


def emit_fence(v: Vectors, finish) -> None:
    """What was streamed is there for all threads, where FENCE is in `finish`."""
    with v.builder.if_then(v.builder.icmp_signed("!=", v.builder.and_(finish, v.index(FENCE)), v.index(0))):
        v.builder.fence("seq_cst")  # as in `product`


def _emit_finished(
    v, rows, width, a, a_row, a_depth, a_run, b, b_depth, b_run, y, y_row, depth, runs, bias, finish, mask, bit, bit_row
):  # fmt: skip
    """The code of `finished_product`."""
    builder = v.builder
    steps = {"a_row": a_row, "a_depth": a_depth, "a_run": a_run, "b_depth": b_depth, "b_run": b_run}

    def emit(vectors):
        added = [v.load(bias, v.index(j * v.lanes)) for j in range(vectors)]

        def store(row, size, sums):
            values = [builder.fadd(total, added[n % vectors]) for n, total in enumerate(sums)]
            lines = [builder.add(row, v.index(i)) for i in range(size) for _ in range(vectors)]
            columns = [v.index(j * v.lanes) for _ in range(size) for j in range(vectors)]
            emit_finish(v, values, lines, columns, y, y_row, finish, mask, bit, bit_row)

        _emit_panel(v, vectors, rows, a, b, steps, depth, runs, store)

    for_each_width(v, width, emit)
    emit_fence(v, finish)


_finished_code = code(_emit_finished, "nnannnannannnanmnn")


def _finished(arguments):
    """The C function behind `finished_product`."""
    _finished_code(arguments)


# finished_product(tools, rows, width, a, a_start, a_row, a_depth, a_run, b, b_start, b_depth, b_run, y, y_start, y_row,
#                  depth, runs, bias, b_start, finish, mask, 0, bit, bit_row)
#
# The same product plus the bias of each column. `finish` is a sum of RELU: max(., 0) and the bits of what it lets
# pass; STREAM: past the caches, to whole cache lines; FENCE: the last such call (one after each took 4 % of the time).
finished_product = outlined(_finished, _finished_code)
