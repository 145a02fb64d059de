"""The certificate: what was checked, on what machine, and how far every result stayed below its tolerance."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from .. import __version__
from ..files import write_text
from .report import Report
from .tolerances import TOLERANCES

HEAD = """# Certificate

Written by `minifcn check --all --certificate`, which anyone can repeat in a few minutes. Every row is an op (or a whole
network) on a device in a precision, at random geometries: finite differences of every gradient along random directions,
adjoint identities where the op is linear, parity with the float64 reference, answers worked out by hand, and the exact
rules (zero upstream gives zero, twice gives the same bits, any strides and numbers of threads, inputs unchanged, shapes
and dtypes kept). The error shown is the worst of all cases, of the rule that came nearest to its tolerance; "exact"
means that every rule held to the last bit. NaN never passes.
"""


def _processor() -> str:
    """The processor's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def text(reports: list[Report], examples: int, seed: int, seconds: float) -> str:
    """The certificate as Markdown."""
    libraries = ", ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "numba", "hypothesis"))
    cases = sum(report.cases for report in reports)
    lines = [
        HEAD,
        f"minifcn {__version__}, Python {platform.python_version()}, {libraries}; {_processor()} "
        f"({os.cpu_count()} cores), {platform.system()}; seed {seed}, {examples} cases a row, {cases:,} in all, "
        f"{seconds:.0f} s.",
        "",
        "| checked | device | dtype | cases | worst rule | error | tolerance |",
        "|---|---|---|--:|---|--:|--:|",
    ]
    for report in reports:
        worst = report.worst_finding()
        shown = ("every rule", "exact", "") if worst is None or not worst.error else (
            f"{worst.rule} of {worst.subject}", f"{worst.error:.1e}", f"{worst.tolerance:.0e}"
        )  # fmt: skip
        lines.append(f"| {report.name} | {report.device} | {report.dtype} | {report.cases} | {' | '.join(shown)} |")
    lines += ["", "Tolerances:", "", "| rule | float64 | float32 |", "|---|--:|--:|"]
    for rule, limits in TOLERANCES.items():
        lines.append(f"| {rule} | {limits['float64']:.0e} | {limits['float32']:.0e} |")
    lines += ["| all other rules | exact | exact |", ""]
    return "\n".join(lines)


def write(path: Path, reports: list[Report], examples: int, seed: int, seconds: float) -> None:
    """Write the certificate to `path`, whole or not at all."""
    write_text(path, text(reports, examples, seed, seconds))
