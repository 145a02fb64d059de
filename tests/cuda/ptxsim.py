"""A PTX interpreter: runs what NVRTC emitted, tensor-core instructions included, with NumPy alone.

A register is one vector over the lanes of as many blocks as fit. The lowest program counter runs first, with a mask,
until the next label or branch, so that structured branches meet again; a barrier parks its lanes until no other can
run. An address names its memory in its upper bits, so that bounds and alignment are checked at every access; shared
memory begins as NaN. Blocks step in lockstep: no races are found. What is missing is said: `unknown instruction X`.

Sums of matrix instructions are exact to float64 and rounded once; approximations (ex2, lg2, rsqrt, ...) are those of
float64, rounded. A device may differ from both in the last bits. Everything else is bit by bit what the ISA defines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .ptxops import (
    ARGUMENTS,
    CONTROL,
    DONE,
    LANE,
    LOCAL,
    MODULE,
    OPERATIONS,
    READY,
    SHARED,
    SHIFT,
    WAITING,
    WARP,
    origin,
)
from .ptxparse import PREDICATE, TYPES, Address, Entry, Immediate, Instruction, Operand, PtxError, Variable

LANES = 4096  # of the blocks that run at once
STEPS = 5_000_000  # instructions after which a launch is taken for endless


@dataclass
class Memory:
    """Bytes with a name; of shared and local memory each block or lane has `size` bytes, `stride` apart."""

    name: str
    data: np.ndarray  # uint8
    size: int
    owner: np.ndarray | None = None  # of each lane: the block or lane whose part it sees
    stride: int = 0
    writable: bool = True

    def index(self, offsets: np.ndarray, lanes: np.ndarray, size: int, ins: Instruction, align: int) -> np.ndarray:
        """Where `offsets` lie in `data`. Raises PtxError outside of it, or where they are not aligned."""
        outside = (offsets < 0) | (offsets + size > self.size)
        if outside.any():
            raise PtxError(
                f"{ins.place}: {ins.opcode} of {size} bytes at byte {offsets[outside][0]} of {self.name}, "
                f"which has {self.size}"
            )
        crooked = offsets % align != 0
        if crooked.any():
            raise PtxError(
                f"{ins.place}: {ins.opcode} at byte {offsets[crooked][0]} of {self.name} is not aligned to {align}"
            )
        return offsets if self.owner is None else offsets + self.owner[lanes] * self.stride

    def elements(self, dtype: np.dtype) -> np.ndarray:
        return self.data[: len(self.data) // dtype.itemsize * dtype.itemsize].view(dtype)


def _memory_of(array: np.ndarray, name: str) -> Memory:
    """The bytes of an array whose elements lie densely, in any order of axes."""
    order = np.argsort([-stride for stride in array.strides], kind="stable")
    dense = array.transpose(order)
    if not dense.flags.c_contiguous:
        raise PtxError(f"{name}: an array of strides {array.strides} is not dense")
    return Memory(name, dense.reshape(-1).view(np.uint8), array.nbytes, writable=array.flags.writeable)


class Frame:
    """Blocks `numbers` of a launch, as far as they have come."""

    def __init__(
        self,
        entry: Entry,
        numbers: np.ndarray,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        arguments: dict[str, np.ndarray],
        memories: dict[int, Memory],
        dynamic: int,
    ) -> None:
        self.entry, self.arguments = entry, arguments
        threads = int(np.prod(block))
        width = -(-threads // WARP) * WARP
        self.lanes = width * len(numbers)
        self.block = np.repeat(np.arange(len(numbers)), width)
        self.registers = {
            name: np.zeros(self.lanes, bool) if dtype is PREDICATE else np.full(self.lanes, np.iinfo(dtype).max, dtype)
            for name, dtype in entry.registers.items()
        }
        thread = np.tile(np.arange(width), len(numbers))
        self.special = self._special(thread, np.repeat(numbers, width), grid, block)
        self.state = np.where(thread < threads, READY, DONE)
        self.counter = np.zeros(self.lanes, np.int64)
        self.symbols: dict[str, int] = {}
        self.memories = memories | self._memories(dynamic)
        self.where: Any = True  # the lanes that run now: a mask, or True for all
        self.committed = np.zeros(self.lanes, np.int64)  # groups of asynchronous copies
        self.copies: list[tuple[Instruction, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self.steps = 0

    @staticmethod
    def _special(
        thread: np.ndarray, number: np.ndarray, grid: tuple[int, ...], block: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        found = {"%laneid": thread % WARP, "%warpid": thread // WARP}
        for what, index, sizes in (("tid", thread, block), ("ctaid", number, grid)):
            for axis, size in zip("xyz", sizes, strict=True):
                found[f"%{what}.{axis}"], index = index % size, index // size
                found[f"%n{what}.{axis}"] = np.full_like(thread, size)
        bit = np.uint64(1) << found["%laneid"].astype(np.uint64)
        found |= {"%lanemask_eq": bit, "%lanemask_lt": bit - np.uint64(1), "%lanemask_le": 2 * bit - np.uint64(1)}
        return {name: values.astype(np.uint32) for name, values in found.items()}

    def _memories(self, dynamic: int) -> dict[int, Memory]:
        """Shared and local memory, and the module's arrays; each variable's address in `symbols`."""
        ends = {"shared": 0, "local": 0, "const": 0}
        contents: list[tuple[int, bytes]] = []
        extern = {name: one for name, one in self.entry.variables.items() if not one.size and one.space == "shared"}
        for name, one in (self.entry.variables | extern).items():  # of no size of its own: last
            if name in extern:
                continue
            space = "const" if one.space == "global" else one.space
            self.symbols[name] = self._place(ends, space, one)
            if space == "const":
                contents.append((self.symbols[name], one.data.ljust(one.size, b"\0")))
                self.symbols[name] += origin(MODULE)
        start = -(-ends["shared"] // 16) * 16
        self.symbols |= dict.fromkeys(extern, start)
        sizes = {"shared": start + dynamic if extern else ends["shared"], "local": ends["local"]}
        blocks = int(self.block[-1]) + 1
        module = np.zeros(ends["const"], np.uint8)
        for at, data in contents:
            module[at : at + len(data)] = np.frombuffer(data, np.uint8)
        strides = {space: -(-size // 16) * 16 for space, size in sizes.items()}
        return {
            SHARED: Memory(
                "shared memory", np.full(blocks * strides["shared"], 255, np.uint8), sizes["shared"], self.block,
                strides["shared"],
            ),
            LOCAL: Memory(
                "local memory", np.full(self.lanes * strides["local"], 255, np.uint8), sizes["local"],
                np.arange(self.lanes), strides["local"],
            ),
            MODULE: Memory("constants", module, ends["const"], writable=False),
        }  # fmt: skip

    @staticmethod
    def _place(ends: dict[str, int], space: str, one: Variable) -> int:
        start = -(-ends[space] // one.align) * one.align
        ends[space] = start + one.size
        return start

    # --- operands ---

    def read(self, operand: Operand, dtype: np.dtype) -> np.ndarray:
        """The operand's value in every lane; wider registers give their low bits."""
        if isinstance(operand, Immediate):
            return operand.as_type(dtype)
        if operand in self.special:
            return self.special[operand].astype(f"u{dtype.itemsize}").view(dtype)
        if operand in self.symbols:
            return np.array(self.symbols[operand], f"u{dtype.itemsize}").view(dtype)
        if operand.startswith("!"):
            return ~self.registers[operand[1:]]
        if operand not in self.registers:
            raise PtxError(f"unknown operand {operand}")
        register = self.registers[operand]
        if register.dtype == bool or register.dtype.itemsize == dtype.itemsize:
            return register if register.dtype == bool else register.view(dtype)
        return register.astype(f"u{dtype.itemsize}").view(dtype)

    def write(self, register: Operand, value: np.ndarray) -> None:
        """Put `value` into the register of the lanes that run; narrower ones are extended by their sign."""
        if register == "_":
            return
        target = self.registers[register]
        if target.dtype != bool:
            if value.dtype.itemsize == target.dtype.itemsize:
                value = value.view(target.dtype)
            else:
                value = (value if value.dtype.kind in "iu" else value.view(f"u{value.dtype.itemsize}")).astype(
                    target.dtype
                )
        np.copyto(target, value, where=self.where)

    def running(self) -> np.ndarray:
        """The numbers of the lanes that run."""
        return np.arange(self.lanes) if self.where is True else np.flatnonzero(self.where)

    # --- memory ---

    def address(self, operand: Address, space: str) -> np.ndarray:
        """int64 of every lane: an offset in `space`, or a full address."""
        wide = np.dtype(np.uint64)
        if operand.base is None:
            found = np.array(operand.offset, np.int64)
        elif operand.base in self.registers:
            register = self.registers[operand.base]
            found = register.astype(np.int64) if register.dtype != wide else register.view(np.int64)
            found = found + operand.offset
        else:
            found = np.array(self.read(operand.base, wide), np.uint64).view(np.int64) + operand.offset
        return np.broadcast_to(found, self.lanes)

    def parts(
        self, space: str, addresses: np.ndarray, lanes: np.ndarray, ins: Instruction
    ) -> Iterator[tuple[Memory, Any, np.ndarray]]:
        """(memory, which of `lanes`, offsets) for each memory that the addresses reach."""
        if space in ("shared", "local"):
            yield self.memories[SHARED if space == "shared" else LOCAL], slice(None), addresses
            return
        numbers = addresses >> SHIFT
        found = numbers[:1] if numbers.size and (numbers == numbers[0]).all() else np.unique(numbers)
        for number in found:
            if int(number) not in self.memories:
                raise PtxError(f"{ins.place}: {ins.opcode} at {int(addresses[numbers == number][0]):#x}: no memory")
            which = slice(None) if len(found) == 1 else numbers == number
            yield self.memories[int(number)], which, addresses[which] - origin(int(number))

    def load(
        self, space: str, addresses: np.ndarray, lanes: np.ndarray, dtype: np.dtype, count: int, ins: Instruction
    ) -> np.ndarray:
        """[count, lanes] elements, each lane's one after another from its address on."""
        found, size = np.empty((count, len(lanes)), dtype), dtype.itemsize * count
        for memory, which, offsets in self.parts(space, addresses, lanes, ins):
            first = memory.index(offsets, lanes[which], size, ins, size) // dtype.itemsize
            elements = memory.elements(dtype)
            for i in range(count):
                found[i, which] = elements[first + i]
        return found

    def store(
        self, space: str, addresses: np.ndarray, lanes: np.ndarray, values: list[np.ndarray], ins: Instruction
    ) -> None:
        """The counterpart of `load`; of two lanes that write the same element the last one wins."""
        dtype = values[0].dtype
        size = dtype.itemsize * len(values)
        for memory, which, offsets in self.parts(space, addresses, lanes, ins):
            if not memory.writable:
                raise PtxError(f"{ins.place}: {ins.opcode} writes to {memory.name}, which is read-only")
            first = memory.index(offsets, lanes[which], size, ins, size) // dtype.itemsize
            elements = memory.elements(dtype)
            for i, value in enumerate(values):
                elements[first + i] = value[which]

    # --- asynchronous copies ---

    def finish_copies(self, lanes: np.ndarray, pending: int | None) -> None:
        """Do the copies of all but the last `pending` committed groups of `lanes`; None: and of what is uncommitted."""
        waits, kept = np.zeros(self.lanes, bool), []
        waits[lanes] = True
        for ins, owners, group, *copy in self.copies:
            due = waits[owners]
            if pending is not None:
                due &= group < self.committed[owners] - pending
            if due.any():
                self._copy(ins, owners[due], *(one[due] for one in copy))
            if not due.all():
                kept.append((ins, owners[~due], group[~due], *(one[~due] for one in copy)))
        self.copies = kept

    def _copy(
        self, ins: Instruction, lanes: np.ndarray, target: np.ndarray, source: np.ndarray, count: np.ndarray
    ) -> None:
        """`count` bytes of each lane from global to shared memory, zeros behind them up to the instruction's size."""
        byte = np.dtype(np.uint8)
        for i in range(ins.operands[2].bits):
            values, some = np.zeros(len(lanes), byte), count > i
            if some.any():
                values[some] = self.load("global", source[some] + i, lanes[some], byte, 1, ins)[0]
            self.store("shared", target + i, lanes, [values], ins)

    # --- warps ---

    def warp(self, ins: Instruction, mask: Operand | None = None) -> np.ndarray:
        """[warps, 32]: the lanes that run. Raises PtxError where a lane of the mask is elsewhere, or one is not in it.

        No mask: whole warps.
        """
        running = np.broadcast_to(self.where, self.lanes).reshape(-1, WARP)
        if mask is None:
            expected = np.broadcast_to(running.any(1, keepdims=True), running.shape)
        else:
            bits = np.broadcast_to(self.read(mask, TYPES["u32"]), self.lanes).reshape(-1, WARP)
            alive = (self.state != DONE).reshape(-1, WARP)
            union = np.bitwise_or.reduce(np.where(running, bits, 0), axis=1, keepdims=True)
            if (running & (bits != union)).any():
                raise PtxError(f"{ins.place}: {ins.opcode}: lanes of a warp have different masks")
            expected = (union >> LANE & 1).astype(bool) & (alive | (union != 0xFFFFFFFF))
        if (expected != running).any():
            raise PtxError(f"{ins.place}: {ins.opcode}: lanes of its mask do not meet here")
        return running

    def lanes_of(self, operand: Operand, dtype: np.dtype) -> np.ndarray:
        """[warps, 32] of an operand."""
        return np.broadcast_to(self.read(operand, dtype), self.lanes).reshape(-1, WARP)

    # --- control ---

    def run(self) -> None:
        """Until every lane is done."""
        targets = set(self.entry.labels.values())
        while True:
            ready = self.state == READY
            if not ready.any():
                if not (self.state == WAITING).any():
                    return
                self._release()
                continue
            at = int(self.counter[ready].min())
            active = ready & (self.counter == at)
            self._segment(at, active, targets)

    def _release(self) -> None:
        waiting = self.state == WAITING
        counters = np.where(waiting, self.counter, -1).reshape(int(self.block[-1]) + 1, -1)
        if (waiting.reshape(counters.shape) & (counters != counters.max(1, keepdims=True))).any():
            raise PtxError(f"{self.entry.name}: threads of a block wait at different barriers")
        self.state[waiting] = READY

    def _segment(self, at: int, active: np.ndarray, targets: set[int]) -> None:
        """Run `active` lanes from instruction `at` up to a label, a branch, a barrier or the end."""
        everyone = True if active.all() else active
        while True:
            ins = self.entry.instructions[at]
            self.steps += 1
            if self.steps > STEPS:
                raise PtxError(f"{ins.place}: more than {STEPS} instructions: an endless loop?")
            self.where = everyone
            if ins.guard:
                guard = self.read(ins.guard, TYPES["pred"])
                self.where = active & guard
            at += 1
            root = ins.parts[0]
            if root in CONTROL:
                self.counter[active] = at
                CONTROL[root](self, ins, np.broadcast_to(self.where, self.lanes))
                return
            if root not in OPERATIONS:
                raise PtxError(f"{ins.place}: unknown instruction {ins.opcode}")
            if self.where is True or self.where.any():
                OPERATIONS[root](self, ins)
            if at in targets:
                self.counter[active] = at
                return


# --- a launch ---


def launch(
    entry: Entry,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    args: tuple[Any, ...],
    shared: int = 0,
    reached: Sequence[np.ndarray] = (),
) -> int:
    """Run a kernel on NumPy arrays, NumPy scalars and None; instructions executed, all blocks together.

    `reached`: arrays that arguments hold the addresses of; they lie behind the arguments.

    Raises PtxError for arguments that do not fit its parameters, and for whatever the kernel must not do.
    """
    if len(args) != len(entry.parameters):
        raise PtxError(f"{entry.name} takes {len(entry.parameters)} arguments, not {len(args)}")
    arguments, memories = {}, {}
    for i, ((name, (kind, size)), value) in enumerate(zip(entry.parameters.items(), args, strict=True)):
        if isinstance(value, np.ndarray):
            memories[ARGUMENTS + i] = _memory_of(value, f"argument {i} of {entry.name}")
            value = np.uint64(origin(ARGUMENTS + i))
        elif value is None:
            value = np.uint64(0)
        if not isinstance(value, np.generic) or value.dtype.itemsize != size:
            raise PtxError(f"argument {i} of {entry.name} (={value!r}) must have {size} bytes ({kind})")
        arguments[name] = np.frombuffer(value.tobytes(), np.uint8)
    for i, array in enumerate(reached, len(args)):
        memories[ARGUMENTS + i] = _memory_of(array, f"an array that {entry.name} reaches")
    blocks, threads = int(np.prod(grid)), int(np.prod(block))
    at_once, steps = max(1, LANES // max(threads, WARP)), 0
    with np.errstate(all="ignore"):
        for start in range(0, blocks, at_once):
            numbers = np.arange(start, min(start + at_once, blocks))
            frame = Frame(entry, numbers, grid, block, arguments, memories, shared)
            frame.run()
            steps += frame.steps
    return steps
