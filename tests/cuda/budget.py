"""The budget of the generated code: `budget.toml`, and where kernels exceed it.

    python -m tests.cuda.budget           every kernel's registers and shared memory, beside its budget
    python -m tests.cuda.budget --write   make what is found the budget: look at the diff

For each file, instance and architecture: the most registers a thread, the most static shared memory (bytes), and
opcodes that must be there; LDL and STL, registers that were spilled or indexed, must not. `local` says how many bytes
of local memory an instance still uses, where it does.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import nvrtc
from .calls import instances

FILE = Path(__file__).with_name("budget.toml")
TENSOR_CORE = ("HMMA", "LDGSTS")  # products, and asynchronous copies, in machine code
IN_PTX = {"HMMA": "mma.sync", "LDGSTS": "cp.async.c"}  # how their PTX begins
HEAD = """# The budget of the generated code: written by `python -m tests.cuda.budget --write`, held by test_budget.py.
# A kernel: of each architecture registers a thread, bytes of static shared memory, and bytes of local memory where it
# uses any (it should not); then opcodes that it must have.
"""


@dataclass(frozen=True)
class Found:
    """Of one instance on one architecture."""

    registers: int
    shared: int
    local: int
    opcodes: tuple[str, ...]  # of TENSOR_CORE, and LDL, STL

    def as_toml(self) -> str:
        local = f", local = {self.local}" if self.local else ""
        return f"{{ registers = {self.registers}, shared = {self.shared}{local} }}"


def _opcodes(code: nvrtc.Code) -> dict[str, tuple[str, ...]]:
    """Those of interest, by kernel: of the machine code where tensor cores are used and nvdisasm is there."""
    found = {}
    for name in code.names.values():
        body = code.ptx.partition(f".entry {name}(")[2].partition(".entry ")[0]
        found[name] = tuple(opcode for opcode in TENSOR_CORE if IN_PTX[opcode] in body)
    if any(found.values()) and nvrtc.disassembler() is not None:
        counted = nvrtc.instructions(code)
        of_interest = (*TENSOR_CORE, "LDL", "STL")
        found = {name: tuple(opcode for opcode in of_interest if counted[name][opcode]) for name in found}
    return found


def measure(files: dict[str, tuple[str, ...]] | None = None) -> dict[tuple[str, str, str], Found]:
    """By (file, instance, architecture); two compilations at a time."""
    jobs = [(file, names, arch) for file, names in (files or instances()).items() for arch in nvrtc.ARCHES]

    def work(job: tuple[str, tuple[str, ...], str]) -> dict[tuple[str, str, str], Found]:
        file, expressions, arch = job
        code, found = nvrtc.compile_source(file, expressions, arch), {}
        opcodes = _opcodes(code)
        for one in expressions:
            used = code.resources[one]
            found[file, one, arch] = Found(
                used.registers, used.shared, used.stack + used.spills, opcodes[code.names[one]]
            )
        return found

    with ThreadPoolExecutor(2) as pool:  # NVRTC leaves Python's lock
        return {key: value for part in pool.map(work, jobs) for key, value in part.items()}


def read(path: Path = FILE) -> dict[str, dict[str, dict[str, Any]]]:
    return tomllib.loads(path.read_text())


def complaints(found: dict[tuple[str, str, str], Found], budget: dict[str, dict[str, dict[str, Any]]]) -> Iterator[str]:
    """A sentence for each kernel that is over its budget, not in it, or in it and no more."""
    for (file, expression, arch), one in found.items():
        allowed = budget.get(file, {}).get(expression)
        if allowed is None:
            yield f"{file}: {expression} has no budget"
            continue
        for what in ("registers", "shared", "local"):
            value, most = getattr(one, what), allowed[arch].get(what, 0)
            if value > most:
                yield f"{file}: {expression} on {arch}: {what} {value}, allowed are {most}"
        missing = set(allowed.get("required", ())) - set(one.opcodes)
        if missing:
            yield f"{file}: {expression} on {arch} has no {', '.join(sorted(missing))}"
        wrong = {"LDL", "STL"} & set(one.opcodes)
        if wrong and not allowed[arch].get("local"):
            yield f"{file}: {expression} on {arch} has {', '.join(sorted(wrong))}"
    known = {(file, expression) for file, expression, _ in found}
    for file, expressions in budget.items():
        yield from (f"{file}: {one} is asked for by no launcher" for one in expressions if (file, one) not in known)


def text(found: dict[tuple[str, str, str], Found]) -> str:
    """`found` as the budget: a line an instance."""
    lines = [HEAD]
    for file in dict.fromkeys(file for file, _, _ in found):
        lines.append(f'\n["{file}"]\n')
        for expression in dict.fromkeys(one for name, one, _ in found if name == file):
            by_arch = {arch: found[file, expression, arch] for arch in nvrtc.ARCHES}
            parts = [f"{arch} = {one.as_toml()}" for arch, one in by_arch.items()]
            required = [opcode for opcode in TENSOR_CORE if all(opcode in one.opcodes for one in by_arch.values())]
            parts += [f"required = {required}".replace("'", '"')] if required else []
            lines.append(f'"{expression}" = {{ {", ".join(parts)} }}\n')
    return "".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make what is found the budget")
    write = parser.parse_args().write
    found = measure()
    if write:
        FILE.write_text(text(found))
        return 0
    budget = read()
    for (file, expression, arch), one in found.items():
        allowed = budget.get(file, {}).get(expression, {}).get(arch, {})
        local = f", local memory {one.local} B" if one.local else ""
        figures = f"registers {one.registers} of {allowed.get('registers')}, shared {one.shared} B{local}"
        print(f"{arch} {file} {expression}: {figures} {' '.join(one.opcodes)}")
    problems = list(complaints(found, budget))
    print("\n".join(problems) or "within the budget")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
