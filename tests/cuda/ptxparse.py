"""PTX text to instructions: what `ptxsim` runs. Read for: NVIDIA, "Parallel Thread Execution ISA", chapters 4 to 6."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

TYPES = {
    **{f"s{8 * size}": np.dtype(f"i{size}") for size in (1, 2, 4, 8)},
    **{f"{letter}{8 * size}": np.dtype(f"u{size}") for letter in "ub" for size in (1, 2, 4, 8)},
    "f32": np.dtype("f4"),
    "f64": np.dtype("f8"),
    "pred": np.dtype(bool),
}
PREDICATE = TYPES["pred"]


class PtxError(ValueError):
    """PTX that cannot be run, or that does what it must not; the message names the line."""


@dataclass(frozen=True)
class Immediate:
    """A literal; `bits` as wide as a float literal says, else as wide as it is read."""

    bits: int
    width: int | None = None  # bytes of a float literal

    def as_type(self, dtype: np.dtype) -> np.ndarray:
        width = self.width or max(dtype.itemsize, 1)
        bits = np.array(self.bits & ((1 << 8 * width) - 1), f"u{width}")
        return bits.astype(bool) if dtype is PREDICATE else bits.view(dtype) if width == dtype.itemsize else bits


@dataclass(frozen=True)
class Address:
    """[base + offset]; the base is a register, a parameter or a variable; or it is absolute."""

    base: str | None
    offset: int


Operand = str | Immediate | Address | tuple  # a register's or variable's name, ..., a vector of operands


@dataclass(frozen=True)
class Instruction:
    """One instruction: `parts` of its opcode, its type (the last part that is one), operands, guard and place."""

    parts: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: str | None  # a predicate; "!" before it negates
    place: str  # file:line of the source, where the PTX says

    @property
    def opcode(self) -> str:
        return ".".join(self.parts)


@dataclass
class Variable:
    """An array in shared, local, constant or global space."""

    space: str
    size: int  # bytes; 0: the launch says
    align: int
    data: bytes = b""


@dataclass
class Entry:
    """A kernel: parameters by name, registers by name, instructions, and where its labels point."""

    name: str
    parameters: dict[str, tuple[str, int]] = field(default_factory=dict)  # name: (type, bytes)
    registers: dict[str, np.dtype] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


VARIABLE = re.compile(
    r"\.(shared|local|const|global)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)\s*((?:\[\d*\])*)\s*(?:=\s*(.+))?", re.S
)
PARAMETER = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+(?:\.ptr[^,]*?\s)?([\w$]+)(?:\[(\d+)\])?\s*$", re.S)


def _variable(text: str) -> tuple[str, Variable] | None:
    found = VARIABLE.search(text)
    if not found:
        return None
    space, align, kind, name, sizes, values = found.groups()
    dtype, count = TYPES[kind], 1
    for size in re.findall(r"\[(\d*)\]", sizes):
        count *= int(size or 0)
    data = b""
    if values:
        numbers = [_immediate(one.strip()) for one in values.strip("{} \n").split(",")]
        data = b"".join(number.as_type(dtype).tobytes() for number in numbers).ljust(count * dtype.itemsize, b"\0")
    return name, Variable(space, count * dtype.itemsize, int(align or dtype.itemsize), data)


def _immediate(text: str) -> Immediate | None:
    """The literal `text`, or None where it is none."""
    if found := re.fullmatch(r"0[fF]([0-9a-fA-F]{8})", text):
        return Immediate(int(found[1], 16), 4)
    if found := re.fullmatch(r"0[dD]([0-9a-fA-F]{16})", text):
        return Immediate(int(found[1], 16), 8)
    if found := re.fullmatch(r"-?(?:0[xX][0-9a-fA-F]+|\d+)U?", text):
        return Immediate(int(text.rstrip("U"), 0))
    return None


def _operand(text: str) -> Operand:
    text = text.strip()
    if text.startswith("{"):
        return tuple(_operand(one) for one in text.strip("{}").split(","))
    if text.startswith("["):
        base, _, offset = text.strip("[] ").partition("+")
        number = _immediate(base.strip())
        return Address(None, number.bits) if number else Address(base.strip(), int(offset or "0", 0))
    return _immediate(text) or text


def _operands(text: str) -> tuple[Operand, ...]:
    """Split at the commas outside braces and brackets."""
    return tuple(_operand(one) for one in re.findall(r"\s*((?:\{[^}]*\}|\[[^\]]*\]|[^,])+)", text))


class _Reader:
    """Reads one entry's body, statement by statement."""

    def __init__(self, entry: Entry, files: dict[str, str]) -> None:
        self.entry, self.files, self.place = entry, files, "?"

    def statement(self, text: str) -> None:
        if text.startswith((".loc ", ".loc\t")):
            _, file, line = text.split()[:3]
            self.place = f"{self.files.get(file, file)}:{line}"
        elif text.startswith(".reg"):
            self._registers(text)
        elif variable := _variable(text):
            self.entry.variables[variable[0]] = variable[1]
        elif not text.startswith("."):
            self._instruction(text)

    def _registers(self, text: str) -> None:
        _, kind, names = text.split(None, 2)
        for name in names.split(","):
            found = re.fullmatch(r"(%?[\w$]+?)(?:<(\d+)>)?", name.strip())
            numbered = [f"{found[1]}{i}" for i in range(int(found[2]))] if found[2] else [found[1]]
            dtype = TYPES[kind[1:]]
            self.entry.registers |= dict.fromkeys(
                numbered, dtype if dtype is PREDICATE else np.dtype(f"u{dtype.itemsize}")
            )

    def _instruction(self, text: str) -> None:
        guard, opcode, operands = re.fullmatch(r"(?:@(!?\S+)\s+)?(\S+)\s*(.*)", text, re.S).groups()
        parts = tuple(opcode.split("."))
        self.entry.instructions.append(Instruction(parts, _operands(operands), guard, self.place))


def parse(ptx: str) -> dict[str, Entry]:
    """The kernels of a PTX module by name. Raises PtxError where there is none."""
    files = {number: Path(name).name for number, name in re.findall(r'\.file\s+(\d+)\s+"([^"]*)"', ptx)}
    ptx = re.sub(r"^(\s*\.loc\s[^\n]*)", r"\1;", re.sub(r"//[^\n]*|/\*.*?\*/", "", ptx, flags=re.S), flags=re.M)
    heads = list(re.finditer(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)([^{]*)\{", ptx))
    if not heads:
        raise PtxError("no kernel in this PTX")
    module = dict(filter(None, map(_variable, ptx[: heads[0].start()].split(";"))))
    entries = {}
    for head in heads:
        entry = entries[head[1]] = Entry(head[1], variables=dict(module))
        for text in filter(str.strip, head[2].split(",")):
            kind, name, count = PARAMETER.search(text).groups()
            entry.parameters[name] = (kind, TYPES[kind].itemsize * int(count or 1))
        _body(ptx, head.end(), _Reader(entry, files))
    return entries


def _body(ptx: str, position: int, reader: _Reader) -> None:
    """Read from behind the opening brace to the closing one; inner braces only scope names."""
    depth = 1
    token = re.compile(r"\s*(?:([{}])|([\w$]+):(?!:)|([^;{}]*(?:\{[^}]*\}[^;{}]*)*);)", re.S)
    while depth:
        found = token.match(ptx, position)
        if not found:
            raise PtxError(f"{reader.entry.name}: cannot be read from {ptx[position : position + 60]!r} on")
        brace, label, text = found.groups()
        position = found.end()
        if brace:
            depth += 1 if brace == "{" else -1
        elif label:
            reader.entry.labels[label] = len(reader.entry.instructions)
        elif text.strip():
            reader.statement(text.strip())
