"""`minifcn check`: prove the gradients on this machine, or those of a kernel of one's own."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from ..device import CudaDevice, Device, get_device, known_devices, load_kernel, replaced
from ..errors import MinifcnError
from ..files import write_json
from ..gradcheck import OPS, Report, certificate, check_op
from ..gradcheck.networks import NETWORKS, check_network
from .console import add_settings, console

HELP = "check gradients, adjoints, parity and behaviour of ops, networks and your own kernels"
DTYPES = ("float32", "float64")
DEFAULT_DEVICES = ("cpu", "reference")
NETWORK_EXAMPLES = 2  # one a geometry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ops", metavar="OP", nargs="*", help=f"what to check: {', '.join((*OPS, *NETWORKS))}")
    parser.add_argument(
        "--all",
        action="store_true",
        help="check every op and network (the default without OP; with --sanitize that is every op: networks take "
        "it many minutes)",
    )
    parser.add_argument(
        "--device",
        action="append",
        help=f"device to check, repeatable: {', '.join(known_devices())} (default: {' and '.join(DEFAULT_DEVICES)})",
    )
    parser.add_argument(
        "--sanitize",
        action="store_true",
        help="on cuda-sim, look for races, accesses out of bounds and other faults of kernels as they run",
    )
    parser.add_argument(
        "--dtype", action="append", choices=DTYPES, help="precision to check, repeatable (default: both)"
    )
    parser.add_argument(
        "--kernel",
        metavar="[NAME=]FILE.py:FUNCTION|FILE.cu",
        help="check this function in the place of the device's kernel NAME (default: its own name)",
    )
    parser.add_argument("--examples", type=int, default=25, help="random cases an op, device and dtype (default: 25)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random cases (default: 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every rule's worst error")
    parser.add_argument(
        "--certificate",
        type=Path,
        nargs="?",
        const=Path("docs/certificate.md"),
        metavar="FILE",
        help="write the certificate (default: docs/certificate.md)",
    )
    add_settings(parser)


def ops_using(kernel: str) -> list[str]:
    """The ops that call `kernel`, named OP_forward or OP_backward_INPUT, and the ops that have none of their own."""
    used = [op for op in OPS if kernel.startswith((f"{op}_forward", f"{op}_backward", f"{op}_step"))]
    return used + {"conv2d": ["conv_transpose2d", "linear"], "crop": ["crop_sum"]}.get(used[0] if used else "", [])


def _devices(arguments: argparse.Namespace, default: tuple[str, ...]) -> list[Device]:
    """The devices to check. Raises DeviceError for one that is unknown or that this machine does not have."""
    names = arguments.device or default
    if not arguments.sanitize:
        return [get_device(name) for name in names]
    if list(names) != ["cuda-sim"]:
        raise MinifcnError("--sanitize needs --device cuda-sim, and no other")
    return [CudaDevice("cuda-sim", sanitize=True)]


def _reports(
    arguments: argparse.Namespace, names: list[str], devices: list[Device], kernels: dict[str, Callable]
) -> Iterator[Report]:
    for name in names:
        for device in devices:
            for dtype in arguments.dtype or DTYPES:
                if name in NETWORKS:
                    with replaced(device, **kernels):
                        report = check_network(name, device, dtype, NETWORK_EXAMPLES, arguments.seed)
                    yield report
                else:
                    yield check_op(name, device, dtype, arguments.examples, arguments.seed, kernels)


def _row(report: Report) -> tuple[str, ...]:
    verdict = "[green]passed[/green]" if report.passed else "[bold red]FAILED[/bold red]"
    worst = report.worst_finding()
    if worst is None or not worst.error:
        error = "exact"
    else:
        error = f"{worst.rule}, {worst.subject}: {worst.error:.1e} of {worst.tolerance:.0e}"
    return report.name, report.device, report.dtype, str(report.cases), escape(error), verdict


def run(arguments: argparse.Namespace) -> int:
    if arguments.examples < 1:
        raise MinifcnError(f"--examples (={arguments.examples}) must be at least 1")
    devices = _devices(arguments, ("cpu",) if arguments.kernel else DEFAULT_DEVICES)
    kernels = dict([load_kernel(arguments.kernel, devices[0])]) if arguments.kernel else {}
    unknown = [name for name in arguments.ops if name not in OPS and name not in NETWORKS]
    if unknown:
        raise MinifcnError(f"{', '.join(unknown)}: not known; known are {', '.join((*OPS, *NETWORKS))}")
    names = arguments.ops
    if not names or arguments.all:
        networks = () if arguments.sanitize and not arguments.all else NETWORKS
        names = [op for kernel in kernels for op in ops_using(kernel)] or [*OPS, *networks]
    started, reports = time.perf_counter(), []
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("op", "device", "dtype", "cases", "worst error of its tolerance", "verdict"):
        table.add_column(title, justify="right" if title == "cases" else "left", no_wrap="error" not in title)
    with Live(table, console=console, auto_refresh=False, vertical_overflow="visible") as live:
        for report in _reports(arguments, names, devices, kernels):
            reports.append(report)
            table.add_row(*_row(report))
            live.update(table, refresh=console.is_terminal)
    failed = [report for report in reports if not report.passed]
    for report in failed:
        console.print(f"\n{escape(str(report))}")
    seconds, cases = time.perf_counter() - started, sum(report.cases for report in reports)
    verdict = f"{len(failed)} of {len(reports)} failed" if failed else f"all {len(reports)} passed"
    print(f"\n{verdict}: {cases} cases, seed {arguments.seed}, {seconds:.0f} s")
    if arguments.json:
        write_json(arguments.json, [report.as_dict() for report in reports])
    if arguments.certificate:
        if failed:
            raise MinifcnError(f"{arguments.certificate}: not written, because {len(failed)} checks failed")
        certificate.write(arguments.certificate, reports, arguments.examples, arguments.seed, seconds)
        print(f"certificate: {arguments.certificate}")
    return 1 if failed else 0
