"""What a kernel did wrong, found while it ran: the runtime's reports, with places in the module turned into lines."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..source import ExecutorError

_PLACE = re.compile(r"@\{([0-9a-f]+)\}")
_ARGUMENT = re.compile(r"@\[(\d+)\]")
_OURS = ("cuda.h", "runtime.h", "ptx.cuh")  # a line in these says less than the one that called it


@dataclass(frozen=True)
class Finding:
    """One fault: its `kind` ("race", "out of bounds", ...), the `.cu` line as "file:line", and the whole sentence."""

    kind: str
    line: str
    message: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class SanitizerError(ExecutorError):
    """A kernel broke a rule of CUDA while it ran; `findings` holds each broken rule once a line."""

    def __init__(self, kernel: str, findings: list[Finding]) -> None:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        super().__init__(f"{kernel}: {findings[0]}{more}")
        self.findings = findings


def lines_of(module: Path, offsets: list[str]) -> dict[str, str]:
    """{offset: "file:line"} of places in a module, in the innermost function that is a kernel's own."""
    tool = shutil.which("addr2line")
    if not tool or not offsets:
        return {offset: f"+0x{offset}" for offset in offsets}
    command = [tool, "-a", "-i", "-e", str(module), *(f"0x{offset}" for offset in offsets)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    lines: dict[str, str] = {}
    frames = re.split(r"^0x([0-9a-f]+)\n", shown, flags=re.MULTILINE)[1:]
    for address, places in zip(frames[::2], frames[1::2], strict=True):
        stack = [re.sub(r" \(discriminator \d+\)", "", place) for place in places.splitlines()]
        own = [place for place in stack if Path(place.rpartition(":")[0]).name not in _OURS]
        lines[f"{int(address, 16):x}"] = Path((own or stack)[0]).name
    return lines


def located(module: Path, report: str, arguments: list[str]) -> list[Finding]:
    """The findings of a report, one a kind and line. `arguments`: what to call the parameters.

    Where the compiler has copied a line, threads can meet in two places of the code and still at one line.
    """
    lines = lines_of(module, sorted(set(_PLACE.findall(report))))
    findings: dict[tuple[str, ...], Finding] = {}
    for entry in report.splitlines():
        kind, _, text = entry.partition("\t")
        places = tuple(lines[offset] for offset in _PLACE.findall(text))
        if kind in ("divergent barrier", "divergent collective") and len(set(places)) == 1:
            continue
        message = _PLACE.sub(lambda place: lines[place[1]], text)
        message = _ARGUMENT.sub(lambda argument: arguments[int(argument[1])], message)
        findings.setdefault((kind, *places), Finding(kind, places[0] if places else "", message))
    return list(findings.values())
