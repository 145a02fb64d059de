"""Where kernels run: one protocol, two executors. Launchers are written once, for either.

    on = SimExecutor()                                       # or CupyExecutor()
    kernel = on.kernel("conv2d.cu", "conv2d_naive<float>")   # compiled once
    on.launch(kernel, (blocks, 1, 1), (256, 1, 1), (x, y, np.int64(count)))

`CupyExecutor` compiles with NVRTC for the GPU at hand, `SimExecutor` compiles the same text for the host (`sim/`).
Neither converts an argument: CuPy would pass a Python int as 64 bits whatever the kernel expects, and check nothing.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from . import source
from .graph import CaptureModule, CudaGraph, CupyGraph, SimGraph
from .parts import GET_CUPY, GET_DRIVER, GET_NVRTC
from .sim import build
from .sim.findings import Finding, SanitizerError
from .sim.launch import ORDERS, Module
from .source import ExecutorError
from .table import Table

__all__ = ["CupyExecutor", "Executor", "ExecutorError", "Finding", "SanitizerError", "SimExecutor"]

Size = tuple[int, int, int]  # along x, y, z


class Executor(Protocol):
    """`name`: of the device, "cuda" or "cuda-sim"; `xp`: its array module, cupy or numpy, of which a capture allows
    `empty` alone; `graph`: the one that is being captured.
    """

    name: str
    xp: ModuleType
    graph: CudaGraph | None

    def kernel(self, file: str, expression: str) -> Any:
        """The kernel `expression`, a C++ template-id such as "conv2d_forward<float>", of `file`: a path inside
        kernels/cuda, or an absolute one. Compiled once. Raises ExecutorError where it cannot be.
        """

    def launch(self, kernel: Any, grid: Size, block: Size, args: tuple[Any, ...], shared: int = 0) -> None:
        """Run `kernel` on `grid` blocks of `block` threads, each block with `shared` bytes of dynamic shared memory.

        args: C-contiguous arrays of xp, None for a null pointer, a Table of addresses, and NumPy scalars of the exact
        type. Raises ExecutorError for anything else, by the argument's name.
        """

    def capture(self) -> AbstractContextManager[CudaGraph]:
        """Within the block launches run nothing, but become a graph. What they need is compiled, or launched, before.

        Raises ExecutorError where the device cannot capture what happens in it.
        """


class SimExecutor:
    """Kernels on the host. `flavour`: "fast" (default), "parallel" (blocks on several cores), "check" (finds races and
    other faults, raises SanitizerError) or "debug" (for gdb); default: MINIFCN_CUDASIM.

    `order` in which threads and blocks run: "first", "last" or "random" (by `seed`). A right kernel gives the same
    bits in each. Raises ExecutorError for an unknown flavour or order, and where there is no compiler.
    """

    name = "cuda-sim"
    xp = np

    def __init__(self, flavour: str | None = None, order: str = "first", seed: int = 0) -> None:
        self.flavour = flavour or os.environ.get("MINIFCN_CUDASIM") or "fast"
        for what, value, known in (("flavour", self.flavour, build.FLAVOURS), ("order", order, ORDERS)):
            if value not in known:
                raise ExecutorError(f"cuda-sim: {what} (={value!r}) must be one of {', '.join(known)}")
        self.order = order
        self.seed = seed
        build.compiler()
        self.graph: SimGraph | None = None
        self._modules: dict[tuple[str, str], Module] = {}

    def kernel(self, file: str, expression: str) -> Module:
        if (file, expression) not in self._modules:
            text = source.pasted(source.path_of(file))
            self._modules[file, expression] = Module(text, expression, self.flavour)
        return self._modules[file, expression]

    def launch(self, kernel: Module, grid: Size, block: Size, args: tuple[Any, ...], shared: int = 0) -> None:
        launch = functools.partial(kernel.launch, grid, block, args, shared, self.order, self.seed)
        if self.graph is None:
            launch()
        else:
            self.graph.launches.append(launch)

    @contextmanager
    def capture(self) -> Iterator[SimGraph]:
        self.graph = graph = SimGraph()
        self.xp = CaptureModule(graph)
        try:
            yield graph
        finally:
            self.graph, self.xp = None, np
        graph.complete()


class CupyExecutor:
    """Kernels on the current GPU, through CuPy. Raises ExecutorError, which says what is missing: CuPy, the driver or
    a GPU.
    """

    name = "cuda"

    def __init__(self) -> None:
        self.xp = _cupy()
        self.graph: CupyGraph | None = None
        self._kernels: dict[tuple[str, str], Any] = {}

    def kernel(self, file: str, expression: str) -> Any:
        if (file, expression) not in self._kernels:
            text = source.pasted(source.path_of(file))
            module = self.xp.RawModule(
                code=text, options=("-std=c++17", "-lineinfo"), name_expressions=[expression], backend="nvrtc"
            )
            try:
                self._kernels[file, expression] = module.get_function(expression)
            except self.xp.cuda.compiler.CompileException as error:
                raise ExecutorError(f"{expression} of {file} does not compile for the GPU (NVRTC):\n{error}") from error
            except (ImportError, OSError, RuntimeError) as error:
                raise ExecutorError(
                    f"device 'cuda' compiles kernels with NVRTC, which failed: {error}; {GET_NVRTC}"
                ) from error
        return self._kernels[file, expression]

    def launch(self, kernel: Any, grid: Size, block: Size, args: tuple[Any, ...], shared: int = 0) -> None:
        if 0 in grid:
            raise ExecutorError(f"{kernel.name}: grid {tuple(grid)} must not be empty")  # CuPy would run one block
        kernel_args = []
        for i, argument in enumerate(args):
            argument = argument.memory if isinstance(argument, Table) else argument
            array = isinstance(argument, self.xp.ndarray)
            if not (array or argument is None or isinstance(argument, np.generic)):
                raise ExecutorError(
                    f"{kernel.name}: argument {i} must be a cupy array, a NumPy scalar or None, but is "
                    f"{type(argument).__name__} {argument!r}"
                )
            if array and not argument.flags.c_contiguous:
                raise ExecutorError(
                    f"{kernel.name}: argument {i} must be C-contiguous, but has strides {argument.strides}"
                )
            kernel_args.append(np.uint64(0) if argument is None else argument)
        if shared > 48 * 1024:  # more has to be asked for
            kernel.max_dynamic_shared_size_bytes = shared
        kernel(grid, block, tuple(kernel_args), shared_mem=shared)

    @contextmanager
    def capture(self) -> Iterator[CupyGraph]:
        self.xp.get_default_memory_pool().free_all_blocks()  # what launched steps have left: the graph has its own
        self.graph = graph = CupyGraph(self.xp)
        try:
            with graph.stream, self.xp.cuda.using_allocator(graph.pool.malloc):
                graph.stream.begin_capture()
                try:
                    yield graph
                except BaseException:
                    with suppress(self.xp.cuda.runtime.CUDARuntimeError):  # it may have ended by that very error
                        graph.stream.end_capture()
                    raise
                graph.captured = graph.stream.end_capture()
        except self.xp.cuda.runtime.CUDARuntimeError as error:
            raise ExecutorError(f"device 'cuda' cannot capture these launches as a graph: {error}") from error
        finally:
            self.graph = None
        graph.complete()


def _cupy() -> ModuleType:
    """CuPy, where it is installed, finds a driver, and the driver a GPU."""
    try:
        import cupy
    except ImportError as error:
        raise ExecutorError(f"device 'cuda' needs CuPy, which cannot be imported ({error}): {GET_CUPY}") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        if re.search("NoDevice", str(error)):
            count = 0
        else:
            raise ExecutorError(
                f"device 'cuda' needs NVIDIA's driver, and CuPy {cupy.__version__} found none that it can use "
                f"({error}): {GET_DRIVER}"
            ) from error
    if not count:
        raise ExecutorError(
            "device 'cuda' needs a GPU: CuPy and the driver are there, but no GPU is (CUDA_VISIBLE_DEVICES?)"
        )
    return cupy
