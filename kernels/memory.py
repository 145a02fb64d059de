"""Memory of the host's kernels: arrays that start on a cache line, and large ones used again.

A fresh large array costs a page fault for every 4 KiB that is written to it, which was measured to take longer than
the writing. So what a kernel returned in one step is what the next step's kernels write to: when the last view of an
array is gone, its buffer waits here for the next array of its size.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

LINE = 64  # bytes of a cache line, and of the longest vectors
LARGE = 1 << 16  # bytes from which on buffers are used again
IDLE = 1 << 26  # bytes that may wait beyond a quarter more than was ever in use at once


@dataclass(frozen=True)
class Usage:
    """Bytes of large arrays: alive now, alive at most since `reset_peak`, and waiting to be used again.

    resident: of alive and waiting ones together, what was ever asked for of their memory, at most since `reset_peak`.
    """

    used: int
    peak: int
    idle: int
    resident: int


def _from_system(size: int) -> np.ndarray:
    """`size` bytes that go back to the system when they are dropped.

    The allocator keeps what it got back between blocks that are still in use: a tenth of a training, it was measured.
    """
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    pages = mmap.mmap(-1, size, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a system without huge pages
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)


def address(array: np.ndarray) -> int:
    """Where a writable C-contiguous array that is not empty starts: quicker than NumPy tells."""
    return ctypes.addressof(ctypes.c_char.from_buffer(array))


class _Buffer:
    """`size` bytes of `raw` that start on a cache line, at `address`; `asked`: how many of them an array has had."""

    __slots__ = ("address", "asked", "raw", "size")

    def __init__(self, raw: np.ndarray, size: int) -> None:
        self.raw, self.size, self.asked = raw, size, 0
        start = address(raw)
        self.address = start + -start % LINE


class _Loan:
    """What an array of the pool stands on: its buffer comes back when the last view of it is gone."""

    __slots__ = ("__array_interface__", "_buffer", "_returned")

    def __init__(self, buffer: _Buffer, shape: tuple[int, ...], dtype: np.dtype, returned: deque) -> None:
        self._buffer, self._returned = buffer, returned
        self.__array_interface__ = {
            "data": (buffer.address, False),
            "shape": shape,
            "typestr": dtype.str,
            "version": 3,
        }

    def is_of(self, returned: deque) -> bool:
        """Whether the buffer comes back there."""
        return self._returned is returned

    def __del__(self) -> None:
        self._returned.append(self._buffer)


def _small(shape: tuple[int, ...], dtype: np.dtype, size: int) -> np.ndarray:
    """An array of `size` bytes that starts on a cache line."""
    raw = np.empty(size + LINE, np.uint8)
    return np.ndarray(shape, dtype, raw, -address(raw) % LINE)


def _size_class(size: int) -> int:
    """`size`, at least 1, rounded up to one of eight sizes in each octave."""
    size = max(size, 1)
    step = 1 << max(size.bit_length() - 4, 12)
    return -(-size // step) * step


def _work_class(size: int) -> int:
    """`size` rounded up to a power of four: nothing is lost by it, as a system gives memory to what is written."""
    return 1 << (max(size - 1, 1).bit_length() + 1) // 2 * 2


class Pool:
    """Large buffers by size class. Thread-safe; an array may be dropped in any thread, even in a garbage collection."""

    least = LARGE  # bytes of an array that has a buffer

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._returned: deque[_Buffer] = deque()  # appended to without the lock
        self._waiting: OrderedDict[int, _Buffer] = OrderedDict()  # by address, the longest waiting first
        self._of_size: defaultdict[int, list[_Buffer]] = defaultdict(list)  # the same, in the same order
        self._used = self._peak = self._idle = self._resident = self._most_resident = 0

    def empty(self, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
        """An uninitialised C-contiguous array that starts on a cache line."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < self.least:
            return _small(shape, dtype, size)
        return self._lend(shape, dtype, size, _size_class(size))

    def workspace(self, rows: int, size: int, dtype: np.dtype | type) -> np.ndarray:
        """An uninitialised array [rows, at least `size`] for a kernel to work in; each row starts on a cache line.

        There are few sizes of them, so that the one that the kernel before worked in, and the caches still hold, is
        found again.
        """
        dtype = np.dtype(dtype)
        width = _work_class(max(size * dtype.itemsize, LARGE))
        return self._lend((rows, width // dtype.itemsize), dtype, rows * size * dtype.itemsize, rows * width)

    def _lend(self, shape: tuple[int, ...], dtype: np.dtype, asked: int, size: int) -> np.ndarray:
        """An array in a buffer of `size` bytes, of which `asked` will be written to."""
        with self._lock:
            self._take_back()
            buffer = self._find(size) or self._buffer(size)
            self._used += size
            self._peak = max(self._peak, self._used)
            self._resident += max(asked - buffer.asked, 0)
            self._most_resident = max(self._most_resident, self._resident)
            buffer.asked = max(asked, buffer.asked)
        return np.asarray(_Loan(buffer, tuple(shape), dtype, self._returned))

    def _buffer(self, size: int) -> _Buffer:
        """A new buffer."""
        return _Buffer(_from_system(size + LINE), size)

    def _find(self, size: int) -> _Buffer | None:
        """The waiting buffer of `size` that was used last, which the cache may still hold."""
        if not self._of_size[size]:
            return None
        buffer = self._of_size[size].pop()
        del self._waiting[buffer.address]
        self._idle -= size
        return buffer

    def _take_back(self) -> None:
        """Put returned buffers to the waiting ones."""
        while self._returned:
            buffer = self._returned.popleft()
            self._used -= buffer.size
            self._idle += buffer.size
            self._waiting[buffer.address] = buffer
            self._of_size[buffer.size].append(buffer)
        self._let_go()

    def _let_go(self) -> None:
        """Give those back that wait longest, if they are too many."""
        while self._used + self._idle > self._peak + self._peak // 4 + IDLE:
            buffer = self._waiting.popitem(last=False)[1]
            del self._of_size[buffer.size][0]
            self._idle -= buffer.size
            self._resident -= buffer.asked

    def usage(self) -> Usage:
        with self._lock:
            self._take_back()
            return Usage(self._used, self._peak, self._idle, self._most_resident)

    def reset_peak(self) -> None:
        """Measure the peak anew from here."""
        with self._lock:
            self._take_back()
            self._peak, self._most_resident = self._used, self._resident

    def release(self) -> None:
        """Give waiting buffers back to the system."""
        with self._lock:
            self._take_back()
            self._resident -= sum(buffer.asked for buffer in self._waiting.values())
            self._waiting.clear()
            self._of_size.clear()
            self._idle = 0


class Arena(Pool):
    """Memory that is used again and again, in the same way: of a graph of launches.

    Its buffers, also those of small arrays, are arrays of `pool`, and stay the arena's as long as it lives.
    """

    least = 0

    def __init__(self) -> None:
        super().__init__()
        self._all: list[_Buffer] = []

    def _buffer(self, size: int) -> _Buffer:
        self._all.append(_Buffer(pool.empty((size,), np.uint8), size))
        return self._all[-1]

    def _let_go(self) -> None:
        """None is given back."""

    def unowned(self, array: np.ndarray) -> np.ndarray:
        """`array`, or one over the same memory that does not keep the arena from lending that again."""
        owner: Any = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        return np.asarray(_Place(array)) if isinstance(owner, _Loan) and owner.is_of(self._returned) else array

    def spoil(self) -> None:
        """Fill all of it with NaN."""
        for buffer in self._all:
            buffer.raw.fill(0xFF)


class _Place:
    """What an array over the memory of another one stands on, without keeping that one alive."""

    __slots__ = ("__array_interface__",)

    def __init__(self, array: np.ndarray) -> None:
        self.__array_interface__ = array.__array_interface__


class _Alias:
    """What another array over the memory of `owner` stands on."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, owner: np.ndarray, read_only: bool) -> None:
        interface = owner.__array_interface__
        self.owner, self.__array_interface__ = owner, interface | {"data": (interface["data"][0], read_only)}


def constant(array: np.ndarray) -> np.ndarray:
    """The memory of `array` as a new array that cannot be written to; what kernels derive from it lives as long as it.

    `array` itself stays as it is: whoever writes to it while its constant is in use makes what was derived wrong.
    """
    return np.asarray(_Alias(array, read_only=True))


def plain(array: np.ndarray) -> np.ndarray:
    """`array`, or the memory of a read-only one as if it were writable.

    For kernels, which write to no input: Numba takes a read-only array for another type, and would compile them again.
    """
    if array.flags.writeable:
        return array
    alias = array.base
    if isinstance(alias, _Alias) and alias.owner.flags.writeable:
        return alias.owner  # what `array` is a constant of
    return np.asarray(_Alias(array, read_only=False))


def padded(count: int, dtype: np.dtype | type) -> int:
    """`count` elements rounded up to whole cache lines."""
    line = LINE // np.dtype(dtype).itemsize
    return -(-count // line) * line


pool = Pool()
usage, reset_peak, release = pool.usage, pool.reset_peak, pool.release

if hasattr(os, "register_at_fork"):  # the child's copy of the lock must not be one that a thread of the parent holds
    _lock = pool._lock
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class _Here(threading.local):
    """The calling thread's own pool, if it has one for the moment, and whether it rehearses."""

    pool: Pool | None = None
    rehearses = False


_here = _Here()


def empty(shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """An uninitialised C-contiguous array that starts on a cache line (see `Pool`)."""
    return (_here.pool or pool).empty(shape, dtype)


def workspace(rows: int, size: int, dtype: np.dtype | type) -> np.ndarray:
    """An uninitialised array [rows, at least `size`] for a kernel to work in (see `Pool`)."""
    return (_here.pool or pool).workspace(rows, size, dtype)


def rehearsing() -> bool:
    """Whether the calling thread is within `rehearsal`."""
    return _here.rehearses


@contextmanager
def using(own: Pool) -> Iterator[None]:
    """Within the block, the calling thread's arrays come from the pool `own`."""
    before, _here.pool = _here.pool, own
    try:
        yield
    finally:
        _here.pool = before


class CaptureError(RuntimeError):
    """Something that the capture of a graph would leave out."""


def refuse_in_capture(what: str) -> None:
    """Raise CaptureError where the calling thread captures a graph of launches: `what` is none."""
    if isinstance(_here.pool, Arena):
        raise CaptureError(f"{what} is not a launch: a graph would leave it out")


@contextmanager
def rehearsal() -> Iterator[Pool]:
    """Within the block, arrays come from a pool of its own, and nothing is written to them: no kernel runs.

    A system gives memory to what is written, not to what is asked for. So the pool's usage tells what the computations
    of the block would need, at the cost of almost nothing. What they return is without meaning. Other threads go on
    as before.
    """
    own, before = Pool(), _here.rehearses
    _here.rehearses = True
    try:
        with using(own):
            yield own
    finally:
        _here.rehearses = before


def copy(array: np.ndarray) -> np.ndarray:
    """`array` in C-contiguous memory of its own that starts on a cache line."""
    own = empty(array.shape, array.dtype)
    if not rehearsing():
        own[...] = array
    return own
