"""The instructions that `ptxsim` knows, by the first part of their opcode; unknown modifiers are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from . import ptxmath
from .ptxparse import TYPES, Immediate, Instruction, Operand, PtxError

if TYPE_CHECKING:
    from .ptxsim import Frame

WARP = 32
LANE = np.arange(WARP)
GROUP, MEMBER = LANE >> 2, LANE & 3  # of a lane, in the fragments of matrix instructions
SHIFT = 40  # of the number of a memory, in an address
SHARED, LOCAL, MODULE, ARGUMENTS = 1, 2, 3, 4  # these numbers; arguments follow
READY, WAITING, DONE = 0, 1, 2


def origin(number: int) -> int:
    """The address of a memory's first byte: far from the next one's, on both sides."""
    return (number << SHIFT) + (1 << SHIFT - 1)


Operation = Callable[["Frame", Instruction], None]
OPERATIONS: dict[str, Operation] = {}


def operation(*roots: str) -> Callable[[Operation], Operation]:
    def register(function: Operation) -> Operation:
        OPERATIONS.update(dict.fromkeys(roots, function))
        return function

    return register


def unknown(ins: Instruction) -> PtxError:
    return PtxError(f"{ins.place}: unknown instruction {ins.opcode}")


def _type(ins: Instruction) -> np.dtype:
    if ins.parts[-1] not in TYPES:
        raise unknown(ins)
    return TYPES[ins.parts[-1]]


def _only(ins: Instruction, *allowed: str) -> set[str]:
    """The modifiers between name and type. Raises PtxError for any that is not allowed: never computed wrongly."""
    modifiers = set(ins.parts[1:-1])
    if modifiers - set(allowed):
        raise unknown(ins)
    return modifiers


# --- control ---


def _branch(frame: Frame, ins: Instruction, taken: np.ndarray) -> None:
    frame.counter[taken] = frame.entry.labels[ins.operands[0]]


def _exit(frame: Frame, ins: Instruction, taken: np.ndarray) -> None:
    frame.state[taken] = DONE


def _barrier(frame: Frame, ins: Instruction, taken: np.ndarray) -> None:
    if ins.parts[1] == "warp":  # lanes step together
        return
    if ins.parts[1:] not in (("sync",), ("sync", "aligned")) or ins.operands != (Immediate(0),):
        raise unknown(ins)
    frame.state[taken] = WAITING


def _trap(frame: Frame, ins: Instruction, taken: np.ndarray) -> None:
    if taken.any():
        raise PtxError(f"{ins.place}: trap")


CONTROL = {"bra": _branch, "ret": _exit, "exit": _exit, "bar": _barrier, "barrier": _barrier, "trap": _trap}


# --- arithmetic ---


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Towards zero, as C does; a division by zero gives all ones, as the hardware was seen to do."""
    if a.dtype.kind == "f":
        return a / b
    quotient = a // b
    if a.dtype.kind == "i":
        quotient = quotient + ((a - quotient * b != 0) & ((a < 0) != (b < 0)))
    return np.where(b == 0, np.array(-1).astype(a.dtype), quotient)


def _extreme(of_zeros: Callable, of_others: Callable) -> Callable:
    """A maximum or minimum that knows -0 from 0."""

    def compute(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        found = of_others(a, b)
        if found.dtype.kind != "f":
            return found
        bits = np.dtype(f"u{found.dtype.itemsize}")
        a, b = np.broadcast_arrays(a, b)
        both = of_zeros(np.ascontiguousarray(a).view(bits), np.ascontiguousarray(b).view(bits))
        return np.where(a == b, both.view(found.dtype), found)

    return compute


def _approximate(function: Callable) -> Callable:
    """`function` in float64, rounded to the type of its argument."""
    return lambda x: function(x.astype(np.float64)).astype(x.dtype)


ROUNDINGS = ("rn", "rm", "rp", "rz")
HARMLESS = ("ftz", "rn", "approx", "full", "lo")
ARITHMETIC: dict[str, Callable] = {
    "add": np.add,
    "sub": np.subtract,
    "div": _divide,
    "rem": np.fmod,
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "rcp": _approximate(lambda x: 1 / x),
    "rsqrt": _approximate(lambda x: 1 / np.sqrt(x)),
    "ex2": _approximate(np.exp2),
    "lg2": _approximate(np.log2),
    "sin": _approximate(np.sin),
    "cos": _approximate(np.cos),
    "tanh": _approximate(np.tanh),
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "copysign": lambda a, b: np.copysign(b, a),
}


@operation(*ARITHMETIC)
def arithmetic(frame: Frame, ins: Instruction) -> None:
    dtype, modifiers = _type(ins), _only(ins, *HARMLESS)
    values = [frame.read(one, dtype) for one in ins.operands[1:]]
    ftz = "ftz" in modifiers
    result = ARITHMETIC[ins.parts[0]](*map(ptxmath.flush, values)) if ftz else ARITHMETIC[ins.parts[0]](*values)
    frame.write(ins.operands[0], ptxmath.flush(result) if ftz else result)


@operation("min", "max")
def extreme(frame: Frame, ins: Instruction) -> None:
    """A number wins over NaN, unless `.NaN` says otherwise."""
    dtype, modifiers = _type(ins), _only(ins, "ftz", "NaN")
    a, b = (frame.read(one, dtype) for one in ins.operands[1:])
    if "ftz" in modifiers:
        a, b = ptxmath.flush(a), ptxmath.flush(b)
    if ins.parts[0] == "max":
        function = _extreme(np.bitwise_and, np.maximum if "NaN" in modifiers else np.fmax)
    else:
        function = _extreme(np.bitwise_or, np.minimum if "NaN" in modifiers else np.fmin)
    frame.write(ins.operands[0], function(a, b))


@operation("mul", "mad", "fma")
def product(frame: Frame, ins: Instruction) -> None:
    dtype, modifiers = _type(ins), _only(ins, "lo", "hi", "wide", "ftz", "sat", *ROUNDINGS)
    a, b, *addend = (frame.read(one, dtype) for one in ins.operands[1:3])
    result = dtype
    if "wide" in modifiers:
        result = np.dtype(f"{dtype.kind}{dtype.itemsize * 2}")
        a, b = a.astype(result), b.astype(result)
    addend = [frame.read(one, result) for one in ins.operands[3:]]
    if dtype.kind == "f":
        value = _float_product(ins, modifiers, a, b, *addend)
    elif "hi" in modifiers:
        value = ptxmath.high_product(*np.broadcast_arrays(a, b))
    else:
        value = a * b
    if addend and dtype.kind != "f":
        value = value + addend[0]
    frame.write(ins.operands[0], value)


def _float_product(ins: Instruction, modifiers: set[str], *values: np.ndarray) -> np.ndarray:
    rounding = next(iter(modifiers & set(ROUNDINGS)), "rn")
    if "ftz" in modifiers:
        values = tuple(map(ptxmath.flush, values))
    if len(values) == 3:
        try:
            value = ptxmath.fma(*values, rounding)
        except NotImplementedError as error:
            raise unknown(ins) from error
    elif rounding != "rn":
        raise unknown(ins)
    else:
        value = values[0] * values[1]
    value = ptxmath.flush(value) if "ftz" in modifiers else value
    return np.fmin(np.fmax(value, value.dtype.type(0)), value.dtype.type(1)) if "sat" in modifiers else value


# --- bits ---


@operation("shl", "shr")
def shift(frame: Frame, ins: Instruction) -> None:
    """By as many bits as there are or more: nothing is left but the sign."""
    dtype = _type(ins)
    value, count = frame.read(ins.operands[1], dtype), frame.read(ins.operands[2], TYPES["u32"])
    bits = 8 * dtype.itemsize
    small = np.minimum(count, bits - 1).astype(dtype)
    if ins.parts[0] == "shl":
        result = np.where(count < bits, value << small, dtype.type(0))
    else:
        result = np.where((count < bits) | (dtype.kind == "i"), value >> small, dtype.type(0))
    frame.write(ins.operands[0], result)


@operation("shf")
def funnel_shift(frame: Frame, ins: Instruction) -> None:
    u32 = TYPES["u32"]
    low, high, count = (frame.read(one, u32).astype(np.uint64) for one in ins.operands[1:])
    count = count & np.uint64(31) if "wrap" in ins.parts else np.minimum(count, np.uint64(32))
    both = high << np.uint64(32) | low
    result = both << count >> np.uint64(32) if "l" in ins.parts else both >> count
    frame.write(ins.operands[0], result.astype(u32))


@operation("bfe")
def extract_bits(frame: Frame, ins: Instruction) -> None:
    dtype = _type(ins)
    value = frame.read(ins.operands[1], dtype)
    start, count = (frame.read(one, TYPES["u32"]).astype(np.uint64) & np.uint64(255) for one in ins.operands[2:])
    wide = value.astype(np.int64).view(np.uint64) if dtype.kind == "i" else value.astype(np.uint64)
    field = np.where(start < 64, wide >> np.minimum(start, np.uint64(63)), np.uint64(0)) & ptxmath.low_bits(count)
    if dtype.kind == "i":
        last = np.minimum(start + count - np.uint64(1), np.uint64(8 * dtype.itemsize - 1))
        negative = (wide >> np.minimum(last, np.uint64(63))) & np.uint64(1) & (count > 0)
        field = np.where(negative.astype(bool), field | ~ptxmath.low_bits(count), field)
    frame.write(ins.operands[0], field.astype(f"u{dtype.itemsize}"))


@operation("bfi")
def insert_bits(frame: Frame, ins: Instruction) -> None:
    dtype = _type(ins)
    value, into = (frame.read(one, dtype).astype(np.uint64) for one in ins.operands[1:3])
    start, count = (frame.read(one, TYPES["u32"]).astype(np.uint64) & np.uint64(255) for one in ins.operands[3:])
    place = np.minimum(start, np.uint64(63))
    mask = np.where(start < 64, ptxmath.low_bits(count) << place, np.uint64(0))
    frame.write(ins.operands[0], ((into & ~mask) | (value << place & mask)).astype(dtype))


@operation("popc")
def count_bits(frame: Frame, ins: Instruction) -> None:
    frame.write(ins.operands[0], np.bitwise_count(frame.read(ins.operands[1], _type(ins))).astype(np.uint32))


@operation("clz")
def count_leading_zeros(frame: Frame, ins: Instruction) -> None:
    dtype = _type(ins)
    value = frame.read(ins.operands[1], dtype)
    for distance in (1, 2, 4, 8, 16, 32)[: 3 + int(np.log2(dtype.itemsize))]:
        value = value | value >> dtype.type(distance)  # ones below the first
    frame.write(ins.operands[0], (8 * dtype.itemsize - np.bitwise_count(value)).astype(np.uint32))


@operation("brev")
def reverse_bits(frame: Frame, ins: Instruction) -> None:
    dtype = _type(ins)
    value = np.atleast_1d(frame.read(ins.operands[1], dtype))
    bits = np.unpackbits(value.view(np.uint8).reshape(len(value), -1), axis=1, bitorder="little")
    frame.write(ins.operands[0], np.packbits(bits[:, ::-1], axis=1, bitorder="little").reshape(-1).view(dtype))


@operation("prmt")
def permute_bytes(frame: Frame, ins: Instruction) -> None:
    _only(ins)
    frame.write(ins.operands[0], ptxmath.permute(*(frame.read(one, TYPES["u32"]) for one in ins.operands[1:])))


@operation("lop3")
def any_logic(frame: Frame, ins: Instruction) -> None:
    _only(ins)
    values = (frame.read(one, TYPES["u32"]) for one in ins.operands[1:4])
    frame.write(ins.operands[0], ptxmath.lookup(*values, ins.operands[4].bits))


# --- comparison, selection, conversion, moves ---

COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip
LOGIC = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def _compare(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind != "f":
        return COMPARISONS[name](a, b)
    unordered = np.isnan(a) | np.isnan(b)
    if name in ("num", "nan"):
        return unordered if name == "nan" else ~unordered
    if name.endswith("u") and name[:-1] in COMPARISONS:  # true where either is NaN
        return COMPARISONS[name[:-1]](a, b) | unordered
    return COMPARISONS[name](a, b) & ~unordered


@operation("setp")
def compare(frame: Frame, ins: Instruction) -> None:
    dtype, (name, *others) = _type(ins), ins.parts[1:-1]
    a, b = (frame.read(one, dtype) for one in ins.operands[1:3])
    if "ftz" in others:
        a, b = ptxmath.flush(a), ptxmath.flush(b)
    found = _compare(name, a, b)
    positive, _, negative = ins.operands[0].partition("|")
    results = {positive: found, negative: ~found}
    for logic in set(others) & set(LOGIC):
        third = frame.read(ins.operands[3], TYPES["pred"])
        results = {register: LOGIC[logic](value, third) for register, value in results.items()}
    for register, value in results.items():
        if register:
            frame.write(register, value)


@operation("selp")
def select(frame: Frame, ins: Instruction) -> None:
    a, b = (frame.read(one, _type(ins)) for one in ins.operands[1:3])
    frame.write(ins.operands[0], np.where(frame.read(ins.operands[3], TYPES["pred"]), a, b))


TO_INTEGER = {"i": np.rint, "ni": np.rint, "zi": np.trunc, "mi": np.floor, "pi": np.ceil}


@operation("cvt")
def convert(frame: Frame, ins: Instruction) -> None:
    target, source = ins.parts[-2:]
    if (target, source) in SPECIAL_CONVERSIONS:
        _special_conversion(frame, ins)
        return
    if target not in TYPES or source not in TYPES:
        raise unknown(ins)
    to, of = TYPES[target], TYPES[source]
    modifiers = set(ins.parts[1:-2])
    rounding = next((one for one in modifiers if one.startswith("r")), "rn")
    if modifiers - {"ftz", "sat", rounding}:
        raise unknown(ins)
    value = frame.read(ins.operands[1], of)
    if "ftz" in modifiers:
        value = ptxmath.flush(value)
    if of.kind == "f" and (to.kind != "f" or rounding.endswith("i")):
        value = TO_INTEGER[rounding[1:]](value)
    if of.kind == "f" and to.kind != "f":
        value = _clamped(value, to)
    elif to == np.float32 and of == np.float64:
        value = ptxmath.to_float32(value, rounding)
    elif to.kind != of.kind and ("sat" in modifiers or rounding != "rn"):
        raise unknown(ins)
    else:
        value = value.astype(to)
    if "sat" in modifiers and to.kind == "f":
        value = np.fmin(np.fmax(value, to.type(0)), to.type(1))
    frame.write(ins.operands[0], ptxmath.flush(value) if "ftz" in modifiers and to.kind == "f" else value)


def _clamped(value: np.ndarray, to: np.dtype) -> np.ndarray:
    """Whole numbers as integers; what is too large becomes the largest, NaN becomes 0."""
    limits, wide = np.iinfo(to), value.astype(np.float64)
    inside = (wide >= limits.min) & (wide < 2.0 ** (8 * to.itemsize - (to.kind == "i")))
    found = np.where(inside, wide, 0).astype(to)
    return np.where(inside | np.isnan(wide), found, np.where(wide < 0, to.type(limits.min), to.type(limits.max)))


SPECIAL_CONVERSIONS = {("tf32", "f32"), ("bf16", "f32"), ("bf16x2", "f32"), ("f32", "bf16")}


def _special_conversion(frame: Frame, ins: Instruction) -> None:
    """The formats of the tensor cores."""
    (rounding, *_), target = ins.parts[1:], ins.parts[-2]
    if target == "f32":
        value = ptxmath.from_bf16(frame.read(ins.operands[1], TYPES["u16"]))
    elif (target, rounding) not in {("tf32", "rna"), ("bf16", "rn"), ("bf16x2", "rn")} or len(ins.parts) != 4:
        raise unknown(ins)
    else:
        of = [frame.read(one, TYPES["f32"]) for one in ins.operands[1:]]
        if target == "tf32":
            value = ptxmath.to_tf32(of[0])
        else:
            value = ptxmath.to_bf16(of[0])
        if target == "bf16x2":
            value = value.astype(np.uint32) << np.uint32(16) | ptxmath.to_bf16(of[1])
    frame.write(ins.operands[0], value)


@operation("mov")
def move(frame: Frame, ins: Instruction) -> None:
    """A value, or one taken apart, or put together from parts, the lowest first."""
    dtype, (target, source) = _type(ins), ins.operands
    if isinstance(source, tuple):
        part = np.dtype(f"u{dtype.itemsize // len(source)}")
        value = np.array(0, dtype)
        for i, one in enumerate(source):
            value = value | frame.read(one, part).astype(dtype) << dtype.type(8 * part.itemsize * i)
    else:
        value = frame.read(source, dtype)
    if isinstance(target, tuple):
        part = np.dtype(f"u{dtype.itemsize // len(target)}")
        for i, one in enumerate(target):
            frame.write(one, (value >> dtype.type(8 * part.itemsize * i)).astype(part))
    else:
        frame.write(target, value)


@operation("cvta")
def convert_address(frame: Frame, ins: Instruction) -> None:
    """Between a window's own addresses and those of all memory; global and constant ones are the same."""
    to, space = "to" in ins.parts, next(one for one in ins.parts[1:] if one not in ("to", "u64", "u32"))
    value = frame.read(ins.operands[1], TYPES["u64"])
    window = {"shared": SHARED, "local": LOCAL}.get(space.partition("::")[0])
    start = np.uint64(origin(window) if window else 0)
    frame.write(ins.operands[0], value - start if to else value + start)


# --- memory ---

SPACES = ("global", "shared", "local", "const", "param")


def _access(ins: Instruction) -> tuple[str, int]:
    """(space, elements); an access without a space may reach any."""
    names = [one.partition("::")[0] for one in ins.parts[1:-1]]
    count = next((int(one[1:]) for one in names if one in ("v2", "v4")), 1)
    return next((one for one in names if one in SPACES), "generic"), count


def _registers(operand: Operand) -> tuple:
    return operand if isinstance(operand, tuple) else (operand,)


@operation("ld", "ldu")
def load(frame: Frame, ins: Instruction) -> None:
    dtype, (space, count) = _type(ins), _access(ins)
    target, address = ins.operands
    if space == "param":
        data = frame.arguments[address.base][address.offset : address.offset + dtype.itemsize * count].view(dtype)
        for register, value in zip(_registers(target), data, strict=True):
            frame.write(register, np.array(value))
        return
    lanes = frame.running()
    found = frame.load(space, frame.address(address, space)[lanes], lanes, dtype, count, ins)
    for register, values in zip(_registers(target), found, strict=True):
        spread = np.empty(frame.lanes, dtype)
        spread[lanes] = values
        frame.write(register, spread)


@operation("st")
def store(frame: Frame, ins: Instruction) -> None:
    dtype, (space, _) = _type(ins), _access(ins)
    if space == "param":  # the argument of a call
        raise unknown(ins)
    address, source = ins.operands
    lanes = frame.running()
    values = [np.broadcast_to(frame.read(one, dtype), frame.lanes)[lanes] for one in _registers(source)]
    frame.store(space, frame.address(address, space)[lanes], lanes, values, ins)


@operation("cp")
def copy_asynchronously(frame: Frame, ins: Instruction) -> None:
    lanes = frame.running()
    if ins.parts[1] != "async":
        raise unknown(ins)
    if ins.parts[2:] == ("commit_group",):
        frame.committed[lanes] += 1
    elif ins.parts[2:] == ("wait_group",):
        frame.finish_copies(lanes, ins.operands[0].bits)
    elif ins.parts[2:] == ("wait_all",):
        frame.finish_copies(lanes, None)
    elif ins.parts[2] in ("ca", "cg") and ins.parts[3].startswith("shared"):
        _begin_copy(frame, ins, lanes)
    else:
        raise unknown(ins)


def _begin_copy(frame: Frame, ins: Instruction, lanes: np.ndarray) -> None:
    target, source = (frame.address(one, "global")[lanes] for one in ins.operands[:2])
    size = ins.operands[2].bits
    count = ins.operands[3] if len(ins.operands) > 3 else ins.operands[2]
    count = np.broadcast_to(frame.read(count, TYPES["u32"]), frame.lanes)[lanes].astype(np.int64)
    if size not in (4, 8, 16) or (count > size).any():
        raise PtxError(f"{ins.place}: {ins.opcode} of {count.max()} bytes, size {size}")
    for name, addresses in (("target", target), ("source", source[count > 0])):
        if (addresses % size).any():
            raise PtxError(f"{ins.place}: {ins.opcode}: its {name} is not aligned to {size}")
    frame.copies.append((ins, lanes, frame.committed[lanes], target, source, count))


@operation("membar", "fence", "nanosleep")
def nothing(frame: Frame, ins: Instruction) -> None:
    """Lanes step together: every write is seen at once."""


# --- warps ---


@operation("shfl")
def shuffle(frame: Frame, ins: Instruction) -> None:
    if ins.parts[1] != "sync":
        raise unknown(ins)
    u32, mode = TYPES["u32"], ins.parts[2]
    target, source, b, c, mask = ins.operands
    running = frame.warp(ins, mask)
    values = frame.lanes_of(source, u32)
    b, c = (frame.lanes_of(one, u32).astype(np.int64) for one in (b, c))
    segment = c >> 8 & 31
    first = LANE & segment
    last = first | (c & 31 & ~segment)
    b = b & 31
    lane = {"up": LANE - b, "down": LANE + b, "bfly": LANE ^ b, "idx": first | (b & ~segment)}[mode]
    inside = lane >= last if mode == "up" else lane <= last
    lane = np.where(inside, lane, LANE)
    if (running & ~np.take_along_axis(running, lane, 1)).any():
        raise PtxError(f"{ins.place}: {ins.opcode} reads a lane that is not in its mask")
    register, _, predicate = target.partition("|")
    frame.write(register, np.take_along_axis(values, lane, 1).reshape(-1))
    if predicate:
        frame.write(predicate, inside.reshape(-1))


@operation("vote")
def vote(frame: Frame, ins: Instruction) -> None:
    target, source, mask = ins.operands
    running, values = frame.warp(ins, mask), frame.lanes_of(source, TYPES["pred"])
    if ins.parts[2] == "ballot":
        found = ((running & values) << LANE.astype(np.uint32)).sum(1, dtype=np.uint32)
    elif ins.parts[2] in ("all", "any"):
        found = (values | ~running).all(1) if ins.parts[2] == "all" else (values & running).any(1)
    else:
        raise unknown(ins)
    frame.write(target, np.repeat(found, WARP))


@operation("redux")
def reduce_warp(frame: Frame, ins: Instruction) -> None:
    name, dtype = ins.parts[2], _type(ins)
    running, values = frame.warp(ins, ins.operands[2]), frame.lanes_of(ins.operands[1], dtype)
    neutral = {"and": np.invert(dtype.type(0)), "min": np.iinfo(dtype).max, "max": np.iinfo(dtype).min}.get(name, 0)
    functions = {"add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or}
    reduced = (functions | {"xor": np.bitwise_xor})[name].reduce(
        np.where(running, values, dtype.type(neutral)), 1, dtype
    )
    frame.write(ins.operands[0], np.repeat(reduced, WARP))


@operation("activemask")
def active_mask(frame: Frame, ins: Instruction) -> None:
    running = np.broadcast_to(frame.where, frame.lanes).reshape(-1, WARP)
    frame.write(ins.operands[0], np.repeat((running << LANE.astype(np.uint32)).sum(1, dtype=np.uint32), WARP))


# --- tensor cores: ISA 9.7.15, "Matrix fragments" ---


def _halves(registers: np.ndarray) -> list[np.ndarray]:
    """The two bfloat16 of each register, the low one first."""
    return [ptxmath.from_bf16(half) for half in (registers & np.uint32(0xFFFF), registers >> np.uint32(16))]


def _tf32_operands(a: list[np.ndarray], b: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A [warps, 16, 8] and B [warps, 8, 8] of m16n8k8; the hardware reads the upper 19 bits."""
    A, B = np.empty((len(a[0]), 16, 8)), np.empty((len(a[0]), 8, 8))
    for i, one in enumerate(a):
        A[:, GROUP + 8 * (i % 2), MEMBER + 4 * (i // 2)] = (one & np.uint32(0xFFFFE000)).view(np.float32)
    for i, one in enumerate(b):
        B[:, MEMBER + 4 * i, GROUP] = (one & np.uint32(0xFFFFE000)).view(np.float32)
    return A, B


def _bf16_operands(a: list[np.ndarray], b: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A [warps, 16, 16] and B [warps, 16, 8] of m16n8k16."""
    A, B = np.empty((len(a[0]), 16, 16)), np.empty((len(a[0]), 16, 8))
    for i, one in enumerate(a):
        for j, half in enumerate(_halves(one)):
            A[:, GROUP + 8 * (i % 2), 2 * MEMBER + j + 8 * (i // 2)] = half
    for i, one in enumerate(b):
        for j, half in enumerate(_halves(one)):
            B[:, 2 * MEMBER + j + 8 * i, GROUP] = half
    return A, B


MATRICES = {
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32": _tf32_operands,
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32": _bf16_operands,
}


@operation("mma")
def multiply_matrices(frame: Frame, ins: Instruction) -> None:
    if ins.opcode not in MATRICES:
        raise unknown(ins)
    frame.warp(ins)
    target, *operands = ins.operands
    a, b, c = ([frame.lanes_of(one, TYPES["u32"]) for one in many] for many in operands)
    A, B = MATRICES[ins.opcode](a, b)
    total = A @ B
    for i, (register, addend) in enumerate(zip(target, c, strict=True)):
        found = total[:, GROUP + 8 * (i // 2), 2 * MEMBER + i % 2] + addend.view(np.float32)
        frame.write(register, found.astype(np.float32).reshape(-1))


@operation("ldmatrix")
def load_matrices(frame: Frame, ins: Instruction) -> None:
    """Eight rows of 16 bytes a matrix, at the addresses of eight lanes; each lane gets two elements of each."""
    count = {"x1": 1, "x2": 2, "x4": 4}.get(ins.parts[4])
    if ins.parts[1:4] != ("sync", "aligned", "m8n8") or count is None or ins.parts[-1] != "b16":
        raise unknown(ins)
    warps = np.flatnonzero(frame.warp(ins).any(1))
    lanes = (warps[:, None] * WARP + np.arange(8 * count)).reshape(-1)
    rows = frame.load("shared", frame.address(ins.operands[1], "shared")[lanes], lanes, TYPES["u16"], 8, ins)
    matrices = rows.T.reshape(len(warps), count, 8, 8).astype(np.uint32)
    for i, register in enumerate(ins.operands[0]):
        matrix = matrices[:, i].swapaxes(1, 2) if "trans" in ins.parts else matrices[:, i]
        pair = matrix[:, GROUP, 2 * MEMBER] | matrix[:, GROUP, 2 * MEMBER + 1] << np.uint32(16)
        spread = np.empty((frame.lanes // WARP, WARP), np.uint32)
        spread[warps] = pair
        frame.write(register, spread.reshape(-1))
