"""Vectors of this processor, as LLVM IR: what the kernels' innermost code is written in, through Numba intrinsics.

The vector length follows the features that Numba compiles for: 64 bytes with AVX-512, 32 with AVX2, 16 otherwise
(SSE, NEON). NUMBA_CPU_NAME and NUMBA_CPU_FEATURES choose another target than this processor, say to try one out.
"""

from __future__ import annotations

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, codegen


def _features() -> set[str]:
    """The features that Numba compiles for, such as {"avx2", "fma"}."""
    text = numba.config.CPU_FEATURES
    if text is None:
        text = codegen.get_host_cpu_features()
    return {feature[1:] for feature in text.split(",") if feature.startswith("+")}


def _register_file() -> tuple[int, int]:
    """(bytes a vector, vector registers)."""
    features = _features()
    if "avx512f" in features:
        return 64, 32
    if "avx2" in features:
        return 32, 16
    if "neon" in features or llvm.get_default_triple().startswith(("aarch64", "arm64")):
        return 16, 32
    return 16, 16


VECTOR_BYTES, REGISTERS = _register_file()
VECTORS = 4 if REGISTERS == 32 else 2  # of a panel, the columns that a block of the micro-kernel spans


def lanes_of(dtype) -> int:
    """Elements of one vector."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def call(builder, name: str, *arguments):
    """LLVM's function `name` of numbers or vectors of one type, which is that of its result."""
    kind = arguments[0].type
    suffix = f"v{kind.count}{kind.element.intrinsic_name}" if isinstance(kind, ir.VectorType) else kind.intrinsic_name
    function = ir.FunctionType(kind, [kind] * len(arguments))
    return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.{suffix}"), arguments)


class Vectors:
    """Writes vector code for elements of `scalar`, a Numba float type, at the builder's place."""

    def __init__(self, context, builder, scalar) -> None:
        self.context, self.builder = context, builder
        self.element, self.align = context.get_data_type(scalar), scalar.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.align
        self.vector = ir.VectorType(self.element, self.lanes)
        self.int32 = ir.IntType(32)
        self.undefined, self.zero = ir.Constant(self.vector, ir.Undefined), self.constant(0.0)

    def constant(self, value: float) -> ir.Constant:
        """`value` in every lane."""
        return ir.Constant(self.vector, [ir.Constant(self.element, float(value))] * self.lanes)

    def index(self, value: int) -> ir.Constant:
        """`value` as an index or a count."""
        return ir.Constant(self.context.get_value_type(numba.types.intp), value)

    def at(self, array, array_type, start):
        """A pointer to element `start` of a 1-D array."""
        data = self.context.make_array(array_type)(self.context, self.builder, array).data
        return self.builder.gep(data, [start])

    def scratch(self, vectors: int):
        """A pointer to room for so many vectors, on the stack: the place of each is a multiple of its length."""
        size = self.index((vectors + 1) * self.lanes)
        room = cgutils.alloca_once(self.builder, self.element, size)
        address = self.builder.ptrtoint(room, size.type)
        up = self.builder.add(address, self.index(VECTOR_BYTES - 1))
        return self.builder.inttoptr(self.builder.and_(up, self.index(-VECTOR_BYTES)), room.type)

    def _vector_at(self, pointer, offset):
        """A pointer to the vector that starts `offset` elements after `pointer`."""
        return self.builder.bitcast(self.builder.gep(pointer, [offset]), self.vector.as_pointer())

    def load(self, pointer, offset):
        """The vector `offset` elements after `pointer`, at any alignment."""
        return self.builder.load(self._vector_at(pointer, offset), align=self.align)

    def store(self, value, pointer, offset) -> None:
        """The vector `value` to the place `offset` elements after `pointer`, at any alignment."""
        self.builder.store(value, self._vector_at(pointer, offset), align=self.align)

    def stream(self, value, pointer, offset) -> None:
        """Store past the caches, for what nobody reads soon; the place is a multiple of the vector's length."""
        store = self.builder.store(value, self._vector_at(pointer, offset), align=VECTOR_BYTES)
        store.set_metadata("nontemporal", self.builder.module.add_metadata([ir.Constant(self.int32, 1)]))

    def prefetch(self, pointer) -> None:
        """Ask for the cache line at `pointer`, which may lie outside of any array."""
        byte = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [byte, self.int32, self.int32, self.int32])
        prefetch = cgutils.get_or_insert_function(self.builder.module, function, "llvm.prefetch.p0i8")
        read, keep, data = (ir.Constant(self.int32, value) for value in (0, 3, 1))
        self.builder.call(prefetch, [self.builder.bitcast(pointer, byte), read, keep, data])

    def broadcast(self, scalar):
        """`scalar` in every lane."""
        one = self.builder.insert_element(self.undefined, scalar, ir.Constant(self.int32, 0))
        every_lane = ir.Constant(ir.VectorType(self.int32, self.lanes), [ir.Constant(self.int32, 0)] * self.lanes)
        return self.builder.shuffle_vector(one, self.undefined, every_lane)

    def multiply_add(self, x, y, z):
        """x y + z, rounded once where the processor can."""
        return call(self.builder, "fmuladd", x, y, z)

    def sum(self, vector):
        """The sum of all lanes, in pairs."""
        kind, plus = f"v{self.lanes}{self.element.intrinsic_name}", ir.Constant(self.element, -0.0)
        function = ir.FunctionType(self.element, [self.element, self.vector])
        add = cgutils.get_or_insert_function(self.builder.module, function, f"llvm.vector.reduce.fadd.{kind}")
        return self.builder.call(add, [plus, vector], fastmath=("reassoc",))

    def combination(self, factors, vectors):
        """sum_i factors[i] vectors[i]; terms with factor 0 are left out, None if all are."""
        total = None
        # A term of factor 1 first: it is a sum's start for nothing.
        for factor, vector in sorted(zip(factors, vectors, strict=True), key=lambda term: abs(term[0]) != 1):
            if factor == 0 or vector is None:
                continue
            if total is None:
                total = vector if factor == 1 else self.builder.fmul(self.constant(factor), vector)
            elif factor == 1:
                total = self.builder.fadd(total, vector)
            elif factor == -1:
                total = self.builder.fsub(total, vector)
            else:
                total = self.multiply_add(self.constant(factor), vector, total)
        return total

    # --- the first few lanes only ---

    def active(self, count):
        """Which lanes are below `count`."""
        index = ir.IntType(64)
        lanes = ir.Constant(ir.VectorType(index, self.lanes), [ir.Constant(index, lane) for lane in range(self.lanes)])
        one = self.builder.insert_element(ir.Constant(lanes.type, ir.Undefined), count, ir.Constant(self.int32, 0))
        every_lane = ir.Constant(ir.VectorType(self.int32, self.lanes), [ir.Constant(self.int32, 0)] * self.lanes)
        limit = self.builder.shuffle_vector(one, one, every_lane)
        return self.builder.icmp_signed("<", lanes, limit)

    def _masked(self, operation: str, result, arguments):
        """A call of LLVM's masked load or store."""
        function = ir.FunctionType(result, [argument.type for argument in arguments])
        kind = f"v{self.lanes}{self.element.intrinsic_name}"
        name = f"llvm.masked.{operation}.{kind}.p0{kind}"
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function, name), arguments)

    def load_part(self, pointer, offset, active):
        """0 in the lanes that are not active; their memory is not touched."""
        place, align = self._vector_at(pointer, offset), ir.Constant(self.int32, self.align)
        return self._masked("load", self.vector, [place, align, active, self.zero])

    def store_part(self, value, pointer, offset, active) -> None:
        """Only the active lanes."""
        place, align = self._vector_at(pointer, offset), ir.Constant(self.int32, self.align)
        self._masked("store", ir.VoidType(), [value, place, align, active])

    # --- masks: one bit a lane, in memory one byte for eight elements ---

    def load_mask(self, pointer, element):
        """The bits of elements element .. element + lanes - 1, `element` a multiple of the lanes."""
        builder, bits = self.builder, ir.IntType(self.lanes)
        place = builder.gep(pointer, [builder.udiv(element, self.index(8))])
        if self.lanes >= 8:
            value = builder.load(builder.bitcast(place, bits.as_pointer()), align=1)
        else:
            shift = builder.trunc(builder.urem(element, self.index(8)), ir.IntType(8))
            value = builder.trunc(builder.lshr(builder.load(place), shift), bits)
        return builder.bitcast(value, ir.VectorType(ir.IntType(1), self.lanes))

    def store_mask(self, mask, pointer, element) -> None:
        """The inverse; fewer than eight lanes are written in order, the first of a byte clearing the rest."""
        builder, bits = self.builder, ir.IntType(self.lanes)
        place, value = builder.gep(pointer, [builder.udiv(element, self.index(8))]), builder.bitcast(mask, bits)
        if self.lanes >= 8:
            builder.store(value, builder.bitcast(place, bits.as_pointer()), align=1)
            return
        byte = ir.IntType(8)
        shift = builder.trunc(builder.urem(element, self.index(8)), byte)
        first = builder.icmp_unsigned("==", shift, ir.Constant(byte, 0))
        old = builder.select(first, ir.Constant(byte, 0), builder.load(place))
        builder.store(builder.or_(old, builder.shl(builder.zext(value, byte), shift)), place)

    def in_every_lane(self, bit):
        """The mask of one bit for all lanes."""
        bits = ir.IntType(self.lanes)
        return self.builder.bitcast(self.builder.sext(bit, bits), ir.VectorType(ir.IntType(1), self.lanes))

    def positive(self, vector):
        """Where ReLU passes: not (x <= 0), so that NaN passes too."""
        return self.builder.fcmp_unordered(">", vector, self.zero)

    def relu(self, vector):
        """max(x, 0) that keeps NaN."""
        return self.builder.select(self.positive(vector), vector, self.zero)

    # --- maxima ---

    def _later_wins(self, earlier, later):
        """Whether the maximum of two is the later: not of equal ones; NaN wins over numbers, the earlier of two NaN."""
        above, number = (
            self.builder.fcmp_unordered(">", later, earlier),
            self.builder.fcmp_ordered("ord", earlier, earlier),
        )
        return self.builder.and_(above, number)

    def first_maximum(self, values: list) -> tuple:
        """(the maximum of `values`, 2^i of them, and for each whether it is the first that is equal to it)."""
        if len(values) == 1:
            return values[0], [ir.Constant(ir.VectorType(ir.IntType(1), self.lanes), [1] * self.lanes)]
        half, builder = len(values) // 2, self.builder
        (one, firsts), (other, seconds) = self.first_maximum(values[:half]), self.first_maximum(values[half:])
        later = self._later_wins(one, other)
        wins = [builder.and_(builder.not_(later), first) for first in firsts]
        return builder.select(later, other, one), wins + [builder.and_(later, second) for second in seconds]
