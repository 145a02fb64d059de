"""`minifcn doctor`: what this machine offers, and what is wrong with a data set."""

from __future__ import annotations

import argparse
import os
import platform
from importlib import metadata

from rich.markup import escape
from rich.table import Table

from .. import __version__
from ..data import KNOWN, DatasetReport, inspect_dataset
from ..device import get_device, known_devices
from ..errors import DeviceError
from .console import console

HELP = "show devices, versions, settings and cache; check a data set with --data"
LIBRARIES = (
    "numpy",
    "numba",
    "llvmlite",
    "pillow",
    "scipy",
    "safetensors",
    "matplotlib",
    "hypothesis",
    "torch",
    "cupy",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help=f"data set to check: {KNOWN}")
    parser.add_argument("--classes", type=int, help="number of classes of a folder, where it cannot say so itself")


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def _device(name: str) -> str:
    """A device with the number of its kernels, or that this machine does not have it."""
    try:
        return f"{name} ({len(get_device(name).kernel_names)} kernels)"
    except DeviceError:
        return f"no {name} (see below)"


def _rows(rows: dict[str, str]) -> Table:
    """Names, bold, and what is said of them."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, escape(value))
    return table


def _cuda() -> Table:
    """What the devices cuda and cuda-sim need, part by part."""
    from ..kernels.cuda.parts import parts

    return _rows({part.name: part.about if part.present else f"missing: {part.about}" for part in parts()})


def _machine() -> Table:
    """Versions, devices, the kernels' settings, what they are compiled for, and where they are kept."""
    import llvmlite.binding
    import numba

    from ..kernels.cpu.cache import FOLDER
    from ..kernels.cpu.vectors import REGISTERS, VECTOR_BYTES
    from ..kernels.settings import settings

    cached = [os.path.join(root, file) for root, _, files in os.walk(FOLDER) for file in files]
    size = sum(os.path.getsize(file) for file in cached) / 2**20
    target = numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name()
    rows = {
        "minifcn": __version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "libraries": ", ".join(f"{library} {_version(library)}" for library in LIBRARIES),
        "devices": ", ".join(_device(name) for name in known_devices()),
        "threads": f"{settings.threads} for {os.cpu_count()} cores",
        "convolution": f"{settings.convolution}, precision {settings.precision}",
        "compiled for": f"{target}, vectors of {8 * VECTOR_BYTES} bits, {REGISTERS} registers",
        "kernel cache": f"{FOLDER} ({len(cached)} files, {size:.1f} MiB)",
    }
    return _rows(rows)


def _show(report: DatasetReport) -> None:
    counted, labelled = ("pictures", "pictures") if report.task == "classify" else ("pairs", "pixels")
    for split in report.splits:
        sizes = ", ".join(f"{w}x{h} ({count})" for (h, w), count in split.sizes.items())
        modes = ", ".join(f"{mode} ({count})" for mode, count in split.label_modes.items())
        console.print(f"\n[bold]{split.split}[/bold]: {split.pairs} {counted}; sizes {sizes}; labels {modes}")
        if split.mean is not None:
            mean, std = (", ".join(f"{value:.1f}" for value in values) for values in (split.mean, split.std))
            console.print(f"mean colour {mean}; contrast {std}; void {split.void_share:.1%} of all {labelled}")
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("label", justify="right")
        table.add_column("class")
        table.add_column(labelled, justify="right")
        table.add_column("share", justify="right")
        for value, count in sorted(split.histogram.items()):
            name = report.classes[value] if value < len(report.classes) else "void" if value == 255 else "not a class"
            table.add_row(str(value), name, f"{count:,}", f"{split.share(value):.3f}")
        console.print(table)
    if not report.problem_count:
        console.print("\nno problems found")
        return
    console.print(f"\n[bold]{report.problem_count} problems[/bold]")
    for problem in report.problems:
        pixel = f", row {problem.pixel[0]}, column {problem.pixel[1]}" if problem.pixel else ""
        console.print(f"  {problem.split}: {problem.file}{pixel}: {problem.rule}", soft_wrap=True, markup=False)


def run(arguments: argparse.Namespace) -> int:
    console.print(_machine())
    console.print("\n[bold]CUDA[/bold]")
    console.print(_cuda())
    if arguments.data is None:
        return 0
    report = inspect_dataset(arguments.data, classes=arguments.classes)
    _show(report)
    return 1 if report.problem_count else 0
