"""Launch a kernel that was compiled for the host: what a GPU would refuse is refused, then the runtime is called."""

from __future__ import annotations

import ctypes
import re
import threading
from typing import Any

import numpy as np

from ...settings import settings
from ...storage import BFLOAT16
from ..source import ExecutorError, parameter_names
from ..table import Table
from . import build
from .findings import SanitizerError, located

# Limits of compute capability 9.0 (CUDA C++ Programming Guide, "Compute Capabilities").
MAX_THREADS, MAX_BLOCK, MAX_GRID = 1024, (1024, 1024, 64), (2**31 - 1, 65535, 65535)
MAX_STATIC_SHARED, MAX_SHARED = 48 * 1024, 227 * 1024

MOST_WORKERS = 16
ORDERS = ("first", "last", "random")

_running = threading.Lock()  # shared memory is the module's own: one launch at a time


class _Parameter(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_char), ("pointer", ctypes.c_byte), ("size", ctypes.c_short)]


class _Array(ctypes.Structure):
    _fields_ = [
        ("begin", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("parameter", ctypes.c_int),
        ("writable", ctypes.c_int),
    ]


# An access that flavour check records, for report.py; "offset" is in the array, or in memory for shared memory.
TRACED = np.dtype(
    {
        "names": ["pc", "offset", "block", "thread", "size", "write", "shared"],
        "formats": [np.uint64, np.uint64, np.uint32, np.uint32, np.uint16, np.uint8, np.uint8],
        "itemsize": 32,
    }
)


class _Launch(ctypes.Structure):
    _fields_ = [
        ("kernel", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
        ("argument_count", ctypes.c_size_t),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_size_t),
        ("static_shared", ctypes.c_void_p),
        ("static_bytes", ctypes.c_size_t),
        ("arrays", ctypes.POINTER(_Array)),
        ("array_count", ctypes.c_size_t),
        ("trace", ctypes.c_void_p),
        ("trace_size", ctypes.c_size_t),
        ("traced", ctypes.c_void_p),
        ("order", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("workers", ctypes.c_uint64),
    ]


def _dtype(parameter: _Parameter) -> np.dtype | None:
    """What a parameter holds or points to; None where any type will do, for want of a NumPy name."""
    kind = parameter.kind.decode()
    if kind == "b":
        return np.dtype(np.bool_)
    if kind == "x":
        return BFLOAT16 if parameter.size == 2 else None  # else a vector type
    return np.dtype(f"{kind}{parameter.size}")


class Module:
    """A kernel compiled for the host: `expression` of the pasted source `text`."""

    def __init__(self, text: str, expression: str, flavour: str) -> None:
        self.expression = expression
        self.flavour = flavour
        self.path = build.module(text, expression, flavour)
        self._runtime = ctypes.CDLL(str(build.runtime(flavour)))
        self._runtime.sim_launch.restype = ctypes.c_char_p
        self._library = ctypes.CDLL(str(self.path))
        self._entry = ctypes.cast(self._library.sim_kernel, ctypes.c_void_p).value
        table = ctypes.POINTER(_Parameter)()
        self.parameters = [table[i] for i in range(self._library.sim_parameters(ctypes.byref(table)))]
        self._dtypes = [_dtype(parameter) for parameter in self.parameters]
        size = ctypes.c_ulong()
        self._library.sim_static_shared.restype = ctypes.c_void_p
        self._static_shared = self._library.sim_static_shared(ctypes.byref(size))
        self._static_bytes = size.value  # with what lies before the first array, where that is aligned
        self.static_shared = build.static_shared(self.path)
        names = parameter_names(text, re.match(r"[\w:]*", expression)[0].rpartition(":")[2])
        if len(names) != len(self.parameters):
            names = ("",) * len(self.parameters)
        self._names = [f"argument {i} ({name})" if name else f"argument {i}" for i, name in enumerate(names)]
        self._all_names = [*self._names, *(f"an array that {name} points to" for name in self._names)]

    def launch(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: tuple[Any, ...],
        shared: int = 0,
        order: str = "first",
        seed: int = 0,
        trace: np.ndarray | None = None,
    ) -> int:
        """Run the kernel; returns how many accesses were recorded in `trace` (TRACED).

        Raises ExecutorError for what a GPU would refuse, SanitizerError for what went wrong.
        """
        self._check_size(grid, block, shared)
        values, arrays = self._arguments(args)
        blocks = grid[0] * grid[1] * grid[2]
        launch = _Launch(
            kernel=self._entry,
            arguments=values.ctypes.data,
            argument_count=len(values),
            grid=tuple(grid),
            block=tuple(block),
            shared=shared,
            static_shared=self._static_shared,
            static_bytes=self._static_bytes,
            arrays=(_Array * len(arrays))(*arrays),
            array_count=len(arrays),
            order=ORDERS.index(order),
            seed=seed,
            workers=min(settings.threads, MOST_WORKERS, blocks) if self.flavour == "parallel" else 1,
        )
        traced = ctypes.c_size_t()
        if trace is not None:
            launch.trace, launch.trace_size = trace.ctypes.data, trace.size
            launch.traced = ctypes.addressof(traced)
        with _running:
            report = self._runtime.sim_launch(ctypes.byref(launch))
        if report:
            findings = located(self.path, report.decode(), self._all_names)
            if findings:
                raise SanitizerError(self.expression, findings)
        return traced.value

    def _check_size(self, grid: tuple[int, int, int], block: tuple[int, int, int], shared: int) -> None:
        for what, sizes, limits in (("block", block, MAX_BLOCK), ("grid", grid, MAX_GRID)):
            if len(sizes) != 3 or not all(1 <= size <= limit for size, limit in zip(sizes, limits, strict=True)):
                raise ExecutorError(f"{self.expression}: {what} {tuple(sizes)} must be from (1, 1, 1) to {limits}")
        if block[0] * block[1] * block[2] > MAX_THREADS:
            raise ExecutorError(f"{self.expression}: block {tuple(block)} has more than {MAX_THREADS} threads")
        if self.static_shared > MAX_STATIC_SHARED:
            raise ExecutorError(
                f"{self.expression}: {self.static_shared} bytes of static shared memory, but a block has at most "
                f"{MAX_STATIC_SHARED}; more is to be had as dynamic shared memory"
            )
        if not 0 <= shared <= MAX_SHARED - self.static_shared:
            raise ExecutorError(
                f"{self.expression}: shared (={shared}) must be from 0 to {MAX_SHARED - self.static_shared} bytes, "
                f"what {self.static_shared} bytes of static shared memory leave"
            )

    def _arguments(self, args: tuple[Any, ...]) -> tuple[np.ndarray, list[_Array]]:
        """The values that the kernel's parameters get, 8 bytes each, and the arrays that they lead to."""
        if len(args) != len(self.parameters):
            raise ExecutorError(
                f"{self.expression} has {len(self.parameters)} parameters, but got {len(args)} arguments"
            )
        values, arrays = np.zeros(len(args), np.uint64), []
        for i, (argument, parameter, dtype, name) in enumerate(
            zip(args, self.parameters, self._dtypes, self._names, strict=True)
        ):
            if parameter.pointer:
                if argument is None:
                    continue
                if isinstance(argument, Table):
                    for arrays_of, writable in ((argument.read, False), (argument.written, True)):
                        for array in arrays_of:
                            self._check_array(self._all_names[len(args) + i], array, None, writable)
                            arrays.append(_array(array, len(args) + i, writable))
                    argument = argument.memory
                self._check_array(name, argument, dtype, writable=parameter.pointer == 1)
                arrays.append(_array(argument, i, parameter.pointer == 1))
                values[i] = arrays[-1].begin
            else:
                if not isinstance(argument, np.generic) or argument.dtype != dtype:
                    raise ExecutorError(
                        f"{self.expression}: {name} must be a numpy.{dtype}, but is {_described(argument)}"
                    )
                values[i : i + 1].view(dtype)[0] = argument
        return values, arrays

    def _check_array(self, name: str, array: Any, dtype: np.dtype | None, writable: bool) -> None:
        if not isinstance(array, np.ndarray) or (dtype is not None and array.dtype != dtype):
            wanted = "array" if dtype is None else f"array of {dtype}"
            raise ExecutorError(f"{self.expression}: {name} must be an {wanted}, but is {_described(array)}")
        if not array.flags.c_contiguous:
            raise ExecutorError(f"{self.expression}: {name} must be C-contiguous, but has strides {array.strides}")
        if writable and not array.flags.writeable:
            raise ExecutorError(f"{self.expression}: {name} is written to, but the array is read-only")


def _array(array: np.ndarray, name: int, writable: bool) -> _Array:
    """What the runtime is told of an array; `name` is its place in `_all_names`."""
    return _Array(array.__array_interface__["data"][0], array.nbytes, name, writable)


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    return f"a numpy.{value.dtype}" if isinstance(value, np.generic) else f"{type(value).__name__} {value!r}"
