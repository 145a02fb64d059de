"""How kernels are launched: the only place where grids and blocks are computed, and template names are spelled.

An executor (`executors.py`) compiles and runs one kernel; here stand the shapes of a launch: `each` has one thread an
element, `blocks` one block a piece of work.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..storage import BFLOAT16

THREADS = 256  # of a block of `each`

NAMES = {
    BFLOAT16: "bfloat16",
    np.dtype(np.float32): "float",
    np.dtype(np.float64): "double",
    np.dtype(np.uint8): "unsigned char",
    np.dtype(np.int32): "int",
    np.dtype(np.int64): "long long",
}


def template(name: str, *arguments: Any) -> str:
    """The C++ template-id `name<arguments>`: dtypes by their C++ names, Python's booleans and integers as they are."""

    def spelled(argument: Any) -> str:
        if isinstance(argument, (bool, int)):
            return str(argument).lower()
        return argument if isinstance(argument, str) else NAMES[np.dtype(argument)]

    return f"{name}<{', '.join(map(spelled, arguments))}>"


def each(on: Any, file: str, expression: str, count: int, *arguments: Any) -> None:
    """Launch `expression` of `file` with a thread for each of `count` elements; its last argument is `count`.

    Integers among the arguments are `int` in C++, apart from `count`, which is `long long`; nothing is launched for 0.
    """
    if count == 0:
        return
    grid = (tiles(count, THREADS), 1, 1)
    on.launch(on.kernel(file, expression), grid, (THREADS, 1, 1), (*_typed(arguments), np.int64(count)))


def blocks(
    on: Any, file: str, expression: str, grid: tuple[int, int, int], threads: int, shared: int, *arguments: Any
) -> None:
    """Launch a grid of blocks of `threads` threads, each with `shared` bytes of memory; nothing if it is empty."""
    if 0 in grid:
        return
    on.launch(on.kernel(file, expression), grid, (threads, 1, 1), _typed(arguments), shared)


def _typed(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Python's integers as int32; whatever else already has a type."""
    return tuple(np.int32(value) if type(value) is int else value for value in arguments)


def tiles(count: int, tile: int) -> int:
    """Tiles that hold `count` elements."""
    return -(-count // tile)


def parts_of(pixels: int, workers: int, enough: int, least: int, most: int) -> int:
    """In how many parts sums over `pixels` pixels are split, where each part has `workers` threads or blocks.

    So that there are `enough` workers in all, but `least` pixels in a part; and `most` at most, because rounding grows
    with them. By the size of the problem alone.
    """
    return max(1, min(tiles(enough, max(workers, 1)), pixels // least), tiles(pixels, most))


def address(array: Any) -> int:
    """Where an array of NumPy or CuPy begins in memory."""
    return array.data.ptr if hasattr(array.data, "ptr") else array.ctypes.data


def aligned(array: Any) -> Any:
    """`array`, or a copy of it if it does not begin at a multiple of 16 bytes, as vector loads ask for."""
    return array if address(array) % 16 == 0 else array.copy()


def on_device(on: Any, make: Any, *arguments: Any) -> tuple[Any, ...]:
    """The arrays of the table make(*arguments) in the memory of the device; made once, and once for every graph."""
    if on.graph is None:
        return _tables(on, make, *arguments)
    return tuple(on.graph.constant(array) for array in make(*arguments))


@functools.lru_cache(maxsize=256)
def _tables(on: Any, make: Any, *arguments: Any) -> tuple[Any, ...]:
    return tuple(on.xp.asarray(array) for array in make(*arguments))


def full(on: Any, count: int, value: float, dtype: Any) -> Any:
    """An array of `count` times `value` in the memory of the device, which nobody writes to."""
    return on_device(on, _full, count, value, np.dtype(dtype))[0]


def _full(count: int, value: float, dtype: np.dtype) -> tuple[np.ndarray]:
    return (np.full(count, value, dtype),)


def from_host(on: Any, make: Callable[[], np.ndarray]) -> Any:
    """The array make() in the memory of the device; in a graph, that of the moment of each replay."""
    return on.xp.asarray(make()) if on.graph is None else on.graph.made(make)
