"""What a figure was measured on: processor, caches, threads, load, versions, commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__

LIBRARIES = ("numpy", "numba", "llvmlite", "torch")
CACHE_BYTES = 32 << 20  # of the last level, where the system does not say


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _processor() -> str:
    info = _first_line("/proc/cpuinfo") or ""
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*:\s*(.*)$", info, re.MULTILINE))
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    return f"{fields['model name']} (family {fields.get('cpu family')}, model {fields.get('model')})"


def last_cache_bytes() -> int:
    """Size of the processor's last-level cache."""
    sizes = [0]
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        number, unit = re.fullmatch(r"(\d+)([KM]?)", index.read_text().strip()).groups()
        sizes.append(int(number) << {"": 0, "K": 10, "M": 20}[unit])
    return max(sizes) or CACHE_BYTES


def load() -> float | None:
    """Mean number of runnable tasks over the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _git(*arguments: str) -> str | None:
    """The answer of git about this checkout; None outside one."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    result = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def facts(threads: int) -> dict[str, Any]:
    """The `machine` of a record, but for what changes: load is added after the run."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "last_cache_bytes": last_cache_bytes(),
    }


def versions() -> dict[str, Any]:
    """The `versions` of a record: of minifcn, its commit, Python and the libraries that are installed."""
    found: dict[str, Any] = {"minifcn": __version__, "python": platform.python_version()}
    commit, changes = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain")
    if commit is not None:
        found |= {"git": commit, "dirty": bool(changes)}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found
