"""The other process: it computes when asked, answers, and rests. Two libraries' threads never share a process.

A request is (name, arguments), an answer ("ok", value) or ("error", text), pickled over a socket pair. The process is a
child of this one and runs this project's code; nothing else can write to the socket.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..errors import MinifcnError

PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
FORMATS = ("nchw", "channels_last")
# glibc returns large arrays to the system, and the next ones cost a page fault for every 4 KiB: a training step over
# VGG16 was measured at 1.4 to 2.3 s so, and at 0.8 s where memory is kept. PyTorch's tuning guide suggests allocators
# that keep it.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1000000000000", "MALLOC_TOP_PAD_": "67108864"}
TUNED = "MINIFCN_PEER_TUNED"  # set for a PyTorch that is told what it could do faster
COMPILED = "MINIFCN_PEER_COMPILED"  # and for one that compiles its networks
BASELINES = {  # what their process finds in its environment
    "torch": {},
    "torch-tuned": KEEP_MEMORY | {TUNED: "1"},
    "torch-compile": KEEP_MEMORY | {TUNED: "1", COMPILED: "1"},
}


class PeerError(MinifcnError):
    """The baseline's process could not do what it was asked for; the message is its own."""


def environment(threads: int, baseline: str | None = None) -> dict[str, str]:
    """That of a process with `threads` threads which imports this very package, of `baseline` where it is its."""
    path = os.pathsep.join(filter(None, (PACKAGE_PARENT, os.environ.get("PYTHONPATH"))))
    return (
        os.environ
        | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        | BASELINES.get(baseline, {})
    )


def require(baseline: str) -> None:
    """Raise MinifcnError where the library of `baseline` is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise MinifcnError(
            f"--baseline {baseline}: PyTorch is not installed here; `pip install torch` (or `minifcn[peers]`) brings "
            f"it, and without --baseline nothing of it is needed"
        )


class Peer:
    """PyTorch in a process of its own, on the GPU for device "cuda"; a context manager."""

    def __init__(self, baseline: str, threads: int, device: str = "cpu") -> None:
        require(baseline)
        self.baseline = baseline
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "minifcn.bench.torch_peer", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment(threads, baseline),
            )
        self._connection = Connection(ours.detach())
        self.versions: dict[str, str] = self.ask("start", threads, device)

    def ask(self, name: str, *arguments: Any) -> Any:
        """The peer's answer. Raises PeerError with its message where it failed or ended."""
        try:
            self._connection.send((name, arguments))
            kind, value = self._connection.recv()
        except (EOFError, OSError) as error:
            raise PeerError(f"the baseline's process ended unexpectedly (status {self._process.poll()})") from error
        if kind == "error":
            raise PeerError(f"the baseline failed: {value}")
        return value

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: Any) -> None:
        self._connection.close()  # the end of its input ends the process
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
