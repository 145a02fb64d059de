"""The inner loop of every convolution: a small block of a matrix product, held in vector registers.

    c[i, j] = sum_d a[i, d] b[d, j],   0 <= i < ROWS, 0 <= j < vectors x lanes

Each step of d loads one row of b as `vectors` vectors, broadcasts ROWS elements of a, and multiplies and adds
into ROWS x vectors accumulators that never leave their registers (Goto and van de Geijn, 2008, "Anatomy of
high-performance matrix multiplication"). LLVM would not keep a loop's accumulators there by itself, so the loop
is written as LLVM IR, the form that Numba compiles to. The vector length and the block are chosen from the
processor's features: 32 registers hold 12 x 2 accumulators, 16 hold 6 x 2.
"""

from __future__ import annotations

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic


def _register_file() -> tuple[int, int]:
    """(bytes a vector, vector registers) of this processor."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 64, 32
    if features.get("avx2"):
        return 32, 16
    if features.get("neon"):
        return 16, 32
    return 16, 16


VECTOR_BYTES, _REGISTERS = _register_file()
ROWS = 12 if _REGISTERS == 32 else 6


def panel_width(columns: int, dtype: np.dtype) -> int:
    """Columns of one panel of b: two vectors, or one where one holds all columns."""
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    return lanes if columns <= lanes else 2 * lanes


def _block_product(vectors: int):
    """An intrinsic for blocks of ROWS rows and `vectors` vectors of columns."""

    @intrinsic
    def block(typingctx, a, a_start, a_row, a_depth, b, b_start, b_depth, c, c_start, c_row, depth):
        n = types.intp
        return types.void(a, n, n, n, b, n, n, c, n, n, n), generate

    def generate(context, builder, signature, args):
        a, a_start, a_row, a_depth, b, b_start, b_depth, c, c_start, c_row, depth = args
        array_types = signature.args
        scalar_type = array_types[0].dtype
        element, align = context.get_data_type(scalar_type), scalar_type.bitwidth // 8
        lanes = VECTOR_BYTES // align
        vector, index = ir.VectorType(element, lanes), depth.type
        nothing, lane_zero = ir.Constant(vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        zero = ir.Constant(vector, [ir.Constant(element, 0.0)] * lanes)
        every_lane = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [lane_zero] * lanes)
        multiply_add = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(vector, [vector, vector, vector]),
            f"llvm.fmuladd.v{lanes}{element.intrinsic_name}",
        )
        block_of = [(i, v) for i in range(ROWS) for v in range(vectors)]

        def number(value):
            return ir.Constant(index, value)

        def row_of(array, array_type, start, stride, i):
            data = context.make_array(array_type)(context, builder, array).data
            return builder.gep(data, [builder.add(start, builder.mul(number(i), stride))])

        def vector_at(pointer, v):
            return builder.bitcast(builder.gep(pointer, [number(v * lanes)]), vector.as_pointer())

        a_rows = [row_of(a, array_types[0], a_start, a_row, i) for i in range(ROWS)]
        c_rows = [row_of(c, array_types[7], c_start, c_row, i) for i in range(ROWS)]
        b_first = row_of(b, array_types[4], b_start, b_depth, 0)
        before = builder.block
        loop, after = builder.append_basic_block("depth"), builder.append_basic_block("store")
        builder.cbranch(builder.icmp_signed(">", depth, number(0)), loop, after)

        builder.position_at_end(loop)
        d = builder.phi(index)
        sums = {place: builder.phi(vector) for place in block_of}
        b_row = builder.gep(b_first, [builder.mul(d, b_depth)])
        b_vectors = [builder.load(vector_at(b_row, v), align=align) for v in range(vectors)]
        a_offset = builder.mul(d, a_depth)
        new = {}
        for i in range(ROWS):
            scalar = builder.load(builder.gep(a_rows[i], [a_offset]))
            first = builder.insert_element(nothing, scalar, lane_zero)
            broadcast = builder.shuffle_vector(first, nothing, every_lane)
            for v in range(vectors):
                new[i, v] = builder.call(multiply_add, [broadcast, b_vectors[v], sums[i, v]])
        following = builder.add(d, number(1))
        d.add_incoming(number(0), before)
        d.add_incoming(following, loop)
        for place in block_of:
            sums[place].add_incoming(zero, before)
            sums[place].add_incoming(new[place], loop)
        builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)

        builder.position_at_end(after)
        totals = {place: builder.phi(vector) for place in block_of}
        for i, v in block_of:
            totals[i, v].add_incoming(zero, before)
            totals[i, v].add_incoming(new[i, v], loop)
        for i, v in block_of:
            builder.store(totals[i, v], vector_at(c_rows[i], v), align=align)
        return context.get_dummy_value()

    return block


_one_vector, _two_vectors = _block_product(1), _block_product(2)


@njit(cache=True, nogil=True)
def block_product(a, a_start, a_row, a_depth, b, b_start, b_depth, width, c, c_start, c_row, depth):
    """c[c_start + i c_row + j] = sum_d a[a_start + i a_row + d a_depth] b[b_start + d b_depth + j].

    For 1-D arrays, i < ROWS, j < width, d < depth; `width` is what `panel_width` gave. Full blocks are read and
    written: the caller pads.
    """
    if width * c.itemsize == VECTOR_BYTES:
        _one_vector(a, a_start, a_row, a_depth, b, b_start, b_depth, c, c_start, c_row, depth)
    else:
        _two_vectors(a, a_start, a_row, a_depth, b, b_start, b_depth, c, c_start, c_row, depth)
