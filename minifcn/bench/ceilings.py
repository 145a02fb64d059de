"""What this machine can do: multiply-adds a second, and bytes a second. Measured before and after every run.

Multiply-adds: the micro-kernel of all convolutions on operands that stay in the caches, on all threads. Bytes: a
copy of arrays far larger than the caches, reads and writes counted.
If the first has moved by more than 5 % when a run ends, or the second by more than 30 %, the machine was busy, and the
run gives no verdict. (On a quiet virtual machine the first stayed within 3 %, the second went from 29 to 46 GB/s.)
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from ..kernels import memory
from .devices import GPU, sampler
from .quiet import rest

MOVED = {"fp32_gflops": 0.05, "copy_gbs": 0.3}  # shares
ROWS, DEPTH, PRODUCTS = 12, 128, 20_000  # 6 KiB and 32 KiB of operands
COPY_BYTES = 96 << 20
GPU_COPY_BYTES = 1 << 30
TRIES = 8


@dataclass(frozen=True)
class Ceilings:
    """GFLOP/s of float32 multiply-adds, and GB/s of a copy, on the threads of the run."""

    fp32_gflops: float
    copy_gbs: float

    def floor(self, flop: float, size: float, accuracy: str = "float32") -> float:
        """Seconds below which no program gets: arithmetic at full rate (float64: half), or every byte moved once.

        What tensor cores could do at most is not measured: below float32 only bytes count.
        """
        rate = self.fp32_gflops * {"float32": 1, "float64": 0.5}.get(accuracy, math.inf)
        return max(flop / (rate * 1e9), size / (self.copy_gbs * 1e9))

    def as_dict(self) -> dict[str, float]:
        return {name: round(value, 2) for name, value in asdict(self).items()}


def _on_threads(count: int, work: Callable[[int], None]) -> float:
    """Seconds until work(0) .. work(count - 1), each in a thread of its own, are done."""
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


@functools.cache
def _products() -> Callable:
    """A compiled loop of products of (tools, a, b, c, width, count).

    c [ROWS, width] = a [ROWS, DEPTH] b [DEPTH, width]
    """
    from numba import njit

    from ..kernels.cpu.microkernel import product

    @njit(nogil=True)
    def products(tools, a, b, c, width, count):
        for _ in range(count):
            product(tools, ROWS, width, a, 0, DEPTH, 1, 0, b, 0, width, 0, c, 0, width, DEPTH, 1, 0)

    products(_tools(), *_operands(), _width(), 1)
    return products


def _tools() -> np.ndarray:
    from ..kernels.cpu.outline import tools

    return tools(np.dtype(np.float32))


def _width() -> int:
    """Columns of a full panel of the micro-kernel."""
    from ..kernels.cpu.microkernel import panel_width

    return panel_width(1 << 20, np.dtype(np.float32))


def _operands() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    sizes = (ROWS * DEPTH, DEPTH * _width(), ROWS * _width())
    return tuple(memory.copy(rng.standard_normal(size).astype(np.float32)) for size in sizes)


def _multiply_adds(threads: int) -> float:
    """GFLOP/s of the micro-kernel."""
    products, width = _products(), _width()
    operands = [_operands() for _ in range(threads)]
    seconds = min(
        _on_threads(threads, lambda i: products(_tools(), *operands[i], width, PRODUCTS)) for _ in range(TRIES)
    )
    return 2 * ROWS * width * DEPTH * PRODUCTS * threads / seconds / 1e9


@functools.cache
def _copy_buffers() -> tuple[np.ndarray, np.ndarray]:
    """The same pages for every calibration of a process: where they lie in memory matters."""
    return np.ones(COPY_BYTES, np.uint8), np.ones(COPY_BYTES, np.uint8)


def _copy(threads: int) -> float:
    """GB/s of copying, bytes read plus bytes written."""
    source, target = _copy_buffers()
    edges = [COPY_BYTES * index // threads for index in range(threads + 1)]

    def work(index: int) -> None:
        part = slice(edges[index], edges[index + 1])
        np.copyto(target[part], source[part])

    return 2 * COPY_BYTES / min(_on_threads(threads, work) for _ in range(4 * TRIES)) / 1e9


def _on_gpu() -> Ceilings:
    """The same of a GPU: independent chains of multiply-adds in registers, and a copy past its caches."""
    import cupy

    chains, length, threads = 8, 4096, 1 << 20
    body = "".join(f"float s{i} = x + {i};" for i in range(chains))
    body += f"for (int n = 0; n < {length}; n++) {{"
    body += "".join(f"s{i} = fmaf(s{i}, 0.999f, x);" for i in range(chains)) + "}"
    body += f"y = {' + '.join(f's{i}' for i in range(chains))};"
    multiply_add = cupy.ElementwiseKernel("float32 x", "float32 y", body, "minifcn_multiply_adds")
    x, y = cupy.ones(threads, cupy.float32), cupy.empty(threads, cupy.float32)
    source, target = cupy.ones(GPU_COPY_BYTES, cupy.uint8), cupy.empty(GPU_COPY_BYTES, cupy.uint8)
    timed = sampler(GPU)
    seconds = min(timed(lambda _: multiply_add(x, y), 2) for _ in range(TRIES))
    copying = min(timed(lambda _: cupy.copyto(target, source), 2) for _ in range(TRIES))
    return Ceilings(2 * chains * length * threads / seconds / 1e9, 2 * GPU_COPY_BYTES / copying / 1e9)


def measure(threads: int, device: str = "cpu") -> Ceilings:
    """About a second; both the best of a few tries. Of the GPU for device "cuda", else of the processor."""
    if device == GPU:
        return _on_gpu()
    rest()
    found = Ceilings(_multiply_adds(threads), _copy(threads))
    rest()
    return found


def steady(before: Ceilings, after: Ceilings) -> bool:
    """Whether both ceilings are where they were."""
    old, new = asdict(before), asdict(after)
    return all(abs(old[name] - new[name]) <= share * max(old[name], new[name]) for name, share in MOVED.items())
