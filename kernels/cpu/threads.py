"""Threads: jobs that are handed out one by one, and no barrier at their end.

A kernel is compiled code that takes a `team` first and works on `for job in jobs(team)`. `run` has the calling thread
and its helpers call it at once; each takes the next job until there is none left. Jobs write disjoint parts of the
output, and their number depends on the problem alone, so the result does not depend on who did what.

A helper that is done stays in compiled code until the caller is in its next kernel, for 0.2 ms at most: then it finds
Python's lock free, and is at work some 10 us after the caller. Woken from sleep, or waiting for the lock, it was 40 us
late.

A kernel may have several phases, `for job in jobs(team, phase)`, whose jobs need all those of the phases before: one
launch, which costs some 30 us, where there would be several.

The caller waits for jobs, not for threads: a helper that is late, because its core is busy elsewhere, costs nothing
but its help. It finds the call closed and does not enter the kernel, whose memory others may have got by then. OpenMP's
loops end at a barrier of all threads instead, and were measured to wait a whole 8 ms slice of the scheduler there
beside a third busy thread. They also take Numba several times longer to compile.
"""

from __future__ import annotations

import ctypes
import os
import queue
import threading
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .. import memory
from ..settings import settings
from .graph import capturing

# A team is an int64 array; each of its counters has a cache line of its own, NEXT one for each phase. JOBS are the
# numbers of jobs of the phases, BEFORE those of all earlier ones together: of all phases, in the last place.
# CALLS is the address of the pool's count of calls, NUMBER what this call made it. ENTERED counts the helpers that were
# about to enter the kernel, ARRIVED those that have come to its jobs; CLOSED is set when the caller has left it. The
# helpers' view of a team is one element longer than the caller's.
PHASES, LINE, NEXT = 3, 8, 0
DONE, MEMBERS, JOBS, BEFORE, LENGTH = (LINE * (PHASES + i) for i in range(5))
CALLS, NUMBER, ENTERED, ARRIVED, CLOSED = (MEMBERS + i for i in range(1, 6))
ALL = BEFORE + PHASES  # the place of the number of all jobs
SPINS = 20_000  # about 0.2 ms: a helper that is as quick as the caller ends within it
# Elements that are worth a job of their own in a kernel bound by memory: handing one over costs about 10 us.
GRAIN = 1 << 15


@intrinsic
def _fetch_add(typingctx, array, place, value):
    """array[place] += value in one step; returns what was there before."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [args[1]]), args[2], "acq_rel")

    return types.int64(array, types.intp, types.int64), generate


@intrinsic
def _load(typingctx, array, place):
    """array[place], as other threads left it."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(data, [args[1]]), "acquire", 8)

    return types.int64(array, types.intp), generate


@intrinsic
def _pause(typingctx):
    """Tell the processor that this thread spins, where it has a way to."""

    def generate(context, builder, signature, args):
        if "x86" in builder.module.triple:
            function = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, function, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def _calls(typingctx, team, more):
    """The count of calls that the team knows the address of, after `more` was added to it."""

    def generate(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        address = builder.load(builder.gep(data, [context.get_constant(types.intp, CALLS)]))
        place = builder.inttoptr(address, args[1].type.as_pointer())
        return builder.add(builder.atomic_rmw("add", place, args[1], "acq_rel"), args[1])

    return types.int64(team, types.int64), generate


@njit(cache=True, nogil=True)
def _stay(team, spins):
    """Keep a helper here until the next call, for a while: before, the caller has Python's lock."""
    for _ in range(spins):
        if _calls(team, 0) != team[NUMBER]:
            break
        _pause()


@njit(cache=True, nogil=True)
def member(team):
    """The number of the calling thread in its team, from 0: to be asked once, by kernels with scratch memory."""
    return _fetch_add(team, MEMBERS, 1)


@njit(nogil=True)  # Numba cannot use a generator that it finds in its cache
def jobs(team, phase=0):
    """The numbers of the phase's jobs that fall to the calling thread, one by one, once all earlier phases are done."""
    helps = team.size > LENGTH
    if phase == 0:
        if helps:
            _fetch_add(team, ARRIVED, 1)
        else:
            team[NUMBER] = _calls(team, 1)
    while _load(team, DONE) < team[BEFORE + phase]:
        _pause()
    job = _fetch_add(team, NEXT + LINE * phase, 1)
    while job < team[JOBS + phase]:
        yield job
        _fetch_add(team, DONE, 1)
        job = _fetch_add(team, NEXT + LINE * phase, 1)
    if helps and team[BEFORE + phase + 1] == team[ALL]:
        _stay(team, SPINS)


@njit(cache=True, nogil=True)
def share(team, job, total, phase=0):
    """(first, last + 1) of the elements 0 .. total - 1 that are this job's: even parts."""
    count = team[JOBS + phase]
    return job * total // count, (job + 1) * total // count


@njit(cache=True, nogil=True)
def _arrive(team):
    """A helper that does not come to the jobs does no more harm than one that does."""
    _fetch_add(team, ARRIVED, 1)


@njit(cache=True, nogil=True)
def _reached(team, counter, count, spins):
    """Whether a counter of the team is at `count`, waiting a little for the last one."""
    for _ in range(spins):
        if _load(team, counter) >= count:
            return True
        _pause()
    return False


def parts(elements: int, most: int = 64) -> int:
    """How many jobs the work on so many elements makes, from 1 to `most`: a matter of its size alone."""
    return max(1, min(elements // GRAIN, most))


def _help(kernel: Callable, team: np.ndarray, arguments: list[Any]) -> BaseException | None:
    """Take part in a call, unless the caller has left it; returns why that failed: the caller's to raise."""
    team[ENTERED] += 1  # before the look at CLOSED, as the caller does it the other way round
    if team[CLOSED]:
        _arrive(team)
        return None
    try:
        kernel(team, *arguments)
    except BaseException as error:
        _arrive(team)
        return error
    return None


class _Helper(threading.Thread):
    """A thread that helps whoever calls `run`."""

    def __init__(self, calls: queue.SimpleQueue) -> None:
        super().__init__(name="minifcn-kernels", daemon=True)
        self.calls = calls
        self.start()

    def run(self) -> None:
        while True:
            kernel, team, arguments, left = self.calls.get()
            left.put(_help(kernel, team, arguments))
            del kernel, team, arguments, left  # or the arrays would live until the next call


def _current_core() -> Callable[[], int] | None:
    """A function that tells which core the calling thread is on, where the system has threads choose their cores."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    return getattr(ctypes.PyDLL(None), "sched_getcpu", None)


class _Pool:
    """The helpers. They leave the caller's core to it: woken there, a helper would wait until the caller is done."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue = queue.SimpleQueue()
        self.helpers: list[_Helper] = []
        self.core, self.current_core = -1, _current_core()
        self.count = memory.empty((LINE,), np.int64)  # of calls, on a cache line of its own
        self.count[:], self.address = 0, memory.address(self.count)

    def ask(self, count: int, call: tuple) -> None:
        """Have `count` helpers take part in `call`."""
        while len(self.helpers) < count:
            self.helpers.append(_Helper(self.calls))
            self.core = -1
        if self.current_core is not None and self.current_core() != self.core:
            self._leave(self.current_core())
        for _ in range(count):
            self.calls.put(call)

    def _leave(self, core: int) -> None:
        others = os.sched_getaffinity(0) - {core}
        for helper in self.helpers:
            if others and helper.native_id:
                os.sched_setaffinity(helper.native_id, others)
        self.core = core


_pool = _Pool()
_alone_count = np.zeros(1, np.int64)  # of calls that are no helper's business
_alone = memory.address(_alone_count)


def _after_fork() -> None:
    """Threads do not survive a fork."""
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def scratch(size: int, dtype: np.dtype | type) -> np.ndarray:
    """Memory [member, at least `size`] for the threads of a team; each row starts on a cache line."""
    return memory.workspace(settings.threads, size, dtype)


@lru_cache(maxsize=1024)
def _team(counts: tuple[int, ...]) -> np.ndarray:
    """The team of a call before it begins."""
    team = np.zeros(LENGTH + 1, np.int64)
    team[JOBS : JOBS + len(counts)] = counts
    team[BEFORE : BEFORE + PHASES + 1] = [sum(counts[:phase]) for phase in range(PHASES + 1)]
    return team


def run(kernel: Callable, count: int | tuple[int, ...], *arguments: Any) -> None:
    """kernel(team, *arguments) on all threads, for `count` jobs, or so many of each phase; returns when all are done.

    No more than `settings.threads` threads enter the kernel: `member` is below that number. In a rehearsal of memory
    none does, and where a graph is captured, none does until its replay.
    """
    counts = count if isinstance(count, tuple) else (count,)
    if sum(counts) < 1 or memory.rehearsing():
        return
    arguments = [memory.plain(one) if isinstance(one, np.ndarray) else one for one in arguments]
    helpers, graph = min(settings.threads, max(counts)) - 1, capturing()
    if graph is None:
        _launch(kernel, _team(counts), helpers, arguments)
    else:
        graph.add(partial(_launch, kernel, _team(counts), helpers), arguments)


def _launch(kernel: Callable, beginning: np.ndarray, helpers: int, arguments: list[Any]) -> None:
    """`kernel` on the calling thread and some helpers; `beginning`: the team before it begins."""
    members = beginning.copy()
    members[CALLS] = _pool.address if helpers > 0 else _alone
    team = members[:LENGTH]
    if helpers < 1:
        kernel(team, *arguments)
        return
    left: queue.SimpleQueue = queue.SimpleQueue()
    _pool.ask(helpers, (kernel, members, arguments, left))
    try:
        kernel(team, *arguments)
        if not _reached(team, DONE, team[ALL], SPINS) and team[DONE] < team[ALL]:
            _wait(kernel, team, helpers, left)
    finally:
        _close(team)


def _wait(kernel: Callable, team: np.ndarray, helpers: int, left: queue.SimpleQueue) -> None:
    """Until all jobs are done. Raises RuntimeError where that will never be."""
    failures = []
    for _ in range(helpers):
        failures.append(left.get())
        if team[DONE] >= team[ALL]:
            return
    missing = team[ALL] - team[DONE]
    raise RuntimeError(f"{kernel.__name__}: {missing} of {team[ALL]} jobs were not done") from failures[-1]


def _close(team: np.ndarray) -> None:
    """Let no helper enter any more, and none be on its way to the jobs: what it has, others may now write to."""
    team[CLOSED] = 1
    while not _reached(team, ARRIVED, team[ENTERED], SPINS):
        pass
