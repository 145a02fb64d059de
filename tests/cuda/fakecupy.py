"""As much of CuPy as the device `cuda` asks for, on the host: its kernels are the simulator's. For tests without a GPU.

It is as strict as a stream that captures: no copy from or to the host, memory from the graph's own pool alone. A launch
in a capture runs nothing.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from minifcn.kernels.cuda.sim.launch import Module


class CUDARuntimeError(RuntimeError):
    pass


def _expect_no_capture() -> None:
    if CURRENT.launches is not None:
        raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported")


def _waiting(name: str) -> Any:
    """The method `name`, which on a GPU waits for the device."""

    def method(self: Array, *arguments: Any, **named: Any) -> Any:
        _expect_no_capture()
        return getattr(np.ndarray, name)(self, *arguments, **named)

    return method


class Array(np.ndarray):
    """An array "of the GPU": NumPy's are refused where it is wanted."""

    any, item, __bool__, __int__, __float__ = map(_waiting, ("any", "item", "__bool__", "__int__", "__float__"))


class Pool:
    def malloc(self, size: int) -> np.ndarray:
        return np.full(size, 0xFF, np.uint8)  # NaN


class Stream:
    def __init__(self, non_blocking: bool) -> None:
        assert non_blocking  # or nothing else could be done with the GPU while it captures

    def __enter__(self) -> Stream:
        self.before, CURRENT.stream = CURRENT.stream, self
        return self

    def __exit__(self, *_: Any) -> None:
        CURRENT.stream = self.before

    def begin_capture(self) -> None:
        assert CURRENT.stream is self
        CURRENT.launches = []

    def end_capture(self) -> Graph:
        launches, CURRENT.launches = CURRENT.launches, None
        return Graph(launches)


class Graph:
    def __init__(self, launches: list) -> None:
        self.launches, self.replays = launches, 0

    def launch(self) -> None:
        assert CURRENT.launches is None
        assert CURRENT.stream is None  # the default one, where copies and reads are
        for launch in self.launches:
            launch()
        self.replays += 1


CURRENT = SimpleNamespace(stream=None, malloc=None, launches=None)


class Kernel:
    def __init__(self, code: str, expression: str) -> None:
        self.name, self.module, self.max_dynamic_shared_size_bytes = expression, Module(code, expression, "fast"), 0

    def __call__(self, grid: tuple, block: tuple, args: tuple, shared_mem: int) -> None:
        own = tuple(np.asarray(one) if isinstance(one, np.ndarray) else one for one in args)
        own = tuple(None if isinstance(one, np.uint64) else one for one in own)
        if CURRENT.launches is None:
            self.module.launch(grid, block, own, shared_mem)
        else:
            CURRENT.launches.append(lambda: self.module.launch(grid, block, own, shared_mem))


class RawModule:
    def __init__(self, code: str, options: tuple, name_expressions: list[str], backend: str) -> None:
        self.code = code

    def get_function(self, expression: str) -> Kernel:
        return Kernel(self.code, expression)


@contextmanager
def using_allocator(malloc: Any) -> Any:
    before, CURRENT.malloc = CURRENT.malloc, malloc
    try:
        yield
    finally:
        CURRENT.malloc = before


def empty(shape: Any, dtype: Any) -> Array:
    shape = (shape,) if np.ndim(shape) == 0 else shape
    assert CURRENT.malloc is not None or CURRENT.launches is None
    memory = (CURRENT.malloc or Pool().malloc)(math.prod(shape) * np.dtype(dtype).itemsize)
    return memory.view(dtype).reshape(shape).view(Array)


def asarray(array: Any, dtype: Any = None) -> Array:
    if isinstance(array, Array) and dtype in (None, array.dtype):
        return array
    _expect_no_capture()
    return np.array(array, dtype, order="C").view(Array)


def asnumpy(array: Array) -> np.ndarray:
    _expect_no_capture()
    assert isinstance(array, Array)
    return np.array(array, order="C", subok=False)


def module() -> SimpleNamespace:
    """The module `cupy`."""
    runtime = SimpleNamespace(getDeviceCount=lambda: 1, CUDARuntimeError=CUDARuntimeError)
    compiler = SimpleNamespace(CompileException=type("CompileException", (Exception,), {}))
    cuda = SimpleNamespace(
        runtime=runtime, compiler=compiler, Stream=Stream, MemoryPool=Pool, using_allocator=using_allocator
    )
    return SimpleNamespace(
        cuda=cuda,
        ndarray=Array,
        RawModule=RawModule,
        empty=empty,
        asarray=asarray,
        asnumpy=asnumpy,
        array=lambda array, copy: np.array(array, copy=copy, subok=True),
        zeros_like=lambda array: np.zeros_like(array),
        broadcast_to=lambda array, shape: np.broadcast_to(array, shape, subok=True),
        get_default_memory_pool=lambda: SimpleNamespace(free_all_blocks=_expect_no_capture),
        __version__="14",
    )
