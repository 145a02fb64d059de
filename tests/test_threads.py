"""Jobs and helpers: every job once, errors, several callers, late helpers, forks."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numba import njit

from minifcn.kernels import cpu, reference
from minifcn.kernels.cpu import threads
from minifcn.kernels.cpu.threads import JOBS, NEXT, jobs, member, parts, run, scratch, share
from minifcn.kernels.settings import settings


@njit(nogil=True)
def count_jobs(team, counts, members):
    me = member(team)
    for job in jobs(team):
        counts[job] += 1
        members[job] = me


@njit(nogil=True)
def fill_shares(team, counts):
    for job in jobs(team):
        first, last = share(team, job, counts.size)
        for i in range(first, last):
            counts[i] += 1


@njit(nogil=True)
def slow_jobs(team, counts):
    for job in jobs(team):
        x = 0.0
        for i in range(200_000):
            x += i * 1e-9
        counts[job] += 1 + (x < 0)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 64, 1000])
@pytest.mark.parametrize("number", [1, 2, 3, 4, 16])
def test_every_job_is_done_once_by_a_member_of_the_team(count, number):
    with settings.using(threads=number):
        for _ in range(20):
            counts, members = np.zeros(count, np.int64), np.full(count, -1)
            run(count_jobs, count, counts, members)
            assert (counts == 1).all()
            assert members.min() >= 0
            assert members.max() < min(number, count)


@njit(nogil=True)
def follow(team, log, seen):
    for job in jobs(team, 0):
        log[0, job] = job + 1
    for job in jobs(team, 1):
        seen[0, job] = log[0].sum()
        log[1, job] = 1
    for job in jobs(team, 2):
        first, last = share(team, job, 100, 2)
        seen[1, job] = log[1].sum() + 1000 * (last - first)


@pytest.mark.parametrize("counts", [(5, 3), (40, 1, 7), (0, 4, 2), (6, 0, 10)])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_phase_begins_when_all_jobs_of_the_earlier_ones_are_done(counts, number):
    first, second, third = (*counts, 0)[:3]
    for _ in range(50):
        log, seen = np.zeros((2, 64), np.int64), np.zeros((2, 64), np.int64)
        with settings.using(threads=number):
            run(follow, counts, log, seen)
        assert (seen[0, :second] == first * (first + 1) // 2).all()
        assert log[1].sum() == second
        done, sizes = seen[1, :third] % 1000, seen[1, :third] // 1000
        assert (done == second).all()
        assert sizes.sum() == (100 if third else 0)


@pytest.mark.parametrize("count", [0, -1])
def test_no_jobs_no_call(count):
    run(None, count)


@pytest.mark.parametrize(("count", "total"), [(1, 7), (3, 7), (7, 7), (9, 7), (4, 0), (64, 1000)])
def test_shares_cover_everything_once(count, total):
    counts = np.zeros(total, np.int64)
    run(fill_shares, count, counts)
    assert (counts == 1).all()


def test_how_many_jobs_depends_on_the_size_alone():
    assert [parts(n) for n in (0, 1, threads.GRAIN, 2 * threads.GRAIN, 1 << 40)] == [1, 1, 1, 2, 64]
    assert parts(1 << 40, most=8) == 8


def test_scratch_memory_has_a_row_for_each_thread_of_its_own_cache_lines():
    with settings.using(threads=3):
        room = scratch(17, np.float32)
    assert room.shape[0] == 3
    assert room.shape[1] >= 17
    assert all(row.__array_interface__["data"][0] % 64 == 0 for row in room)


@pytest.mark.parametrize("counts", [64, (3, 40, 1)])
def test_calls_in_quick_succession_share_their_jobs(counts):
    """Helpers stay in compiled code between calls: they must come back for the next one, and only once for each."""
    log, seen = np.zeros((2, 64), np.int64), np.zeros((2, 64), np.int64)
    ones, members = np.zeros(64, np.int64), np.full(64, -1)
    with settings.using(threads=3):
        for number in range(300):
            if isinstance(counts, tuple):
                run(follow, counts, log, seen)
            run(count_jobs, 64, ones, members)
            assert (ones == number + 1).all()
            assert members.max() < 3


# --- kernels that raise ----------------------------------------------------------------------------------------


def test_a_kernel_that_raises_in_the_caller():
    def raising(team):
        raise ValueError("in the caller")

    with settings.using(threads=1), pytest.raises(ValueError, match="in the caller"):
        run(raising, 5)


def test_a_job_that_a_helper_lost_is_an_error_which_names_the_cause():
    caller, taken = threading.current_thread(), threading.Event()

    def raising(team):
        if threading.current_thread() is not caller:
            team[NEXT] += 1  # takes a job, and never does it
            taken.set()
            raise ValueError("in a helper")
        taken.wait(10)
        while team[NEXT] < team[JOBS]:
            team[NEXT] += 1
            team[threads.DONE] += 1

    with settings.using(threads=2), pytest.raises(RuntimeError, match="raising: 1 of 2 jobs were not done") as caught:
        run(raising, 2)
    assert str(caught.value.__cause__) == "in a helper"
    counts, members = np.zeros(50, np.int64), np.zeros(50, np.int64)
    with settings.using(threads=2):
        run(count_jobs, 50, counts, members)  # the helper still helps
    assert (counts == 1).all()


# --- late helpers, several callers ---------------------------------------------------------------------------


@pytest.fixture
def late(monkeypatch):
    """An event that all helpers wait for before they take part in a call, and the kernels that they are done with."""
    release, done, take_part = threading.Event(), [], threads._help

    def help_late(kernel, *rest):
        release.wait(30)
        failure = take_part(kernel, *rest)
        done.append(kernel)
        return failure

    monkeypatch.setattr(threads, "_help", help_late)
    yield release, done
    release.set()


def test_a_late_helper_is_not_waited_for(late):
    with settings.using(threads=4):
        started = time.monotonic()
        for _ in range(2):
            counts = np.zeros(8, np.int64)
            run(count_jobs, 8, counts, np.zeros(8, np.int64))
            assert (counts == 1).all()
        assert time.monotonic() - started < 20


@njit(nogil=True)
def write_before_the_jobs(team, room, counts):
    room[member(team)] = 7
    for job in jobs(team):
        counts[job] += 1


def test_a_late_helper_writes_nothing(late):
    """Its scratch memory may be another call's by then."""
    release, done = late
    room, counts = np.zeros(2), np.zeros(8, np.int64)
    with settings.using(threads=2):
        run(write_before_the_jobs, 8, room, counts)
        assert room.tolist() == [7, 0]
        release.set()
        for _ in range(1000):
            if write_before_the_jobs in done:
                break
            time.sleep(0.01)
        assert write_before_the_jobs in done
        assert room.tolist() == [7, 0]


def test_a_helper_on_its_way_to_the_jobs_is_waited_for():
    """What it writes before them, it has written when the call returns."""
    entered, written, caller = threading.Event(), [], threading.current_thread()

    def slow(team, counts):
        if threading.current_thread() is caller:
            assert entered.wait(10)
        else:
            entered.set()
            time.sleep(0.1)
            written.append(True)
        count_jobs(team, counts, np.zeros(counts.size, np.int64))

    counts = np.zeros(8, np.int64)
    with settings.using(threads=2):
        run(slow, 8, counts)
    assert written == [True]
    assert (counts == 1).all()


def test_callers_in_many_threads_at_once():
    def call(_):
        counts = np.zeros(40, np.int64)
        run(slow_jobs, 40, counts)
        return (counts == 1).all()

    with settings.using(threads=3), ThreadPoolExecutor(6) as pool:
        assert all(pool.map(call, range(30)))


def test_convolutions_in_many_threads_at_once_give_their_own_results():
    rng = np.random.default_rng(0)
    w = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
    inputs = [rng.standard_normal((2, 16, 20 + i, 30)).astype(np.float32) for i in range(8)]
    expected = [cpu.conv2d_forward(x, w, None, 1, 1) for x in inputs]
    with settings.using(threads=4), ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            found = pool.map(lambda x: cpu.conv2d_forward(x, w, None, 1, 1), inputs)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)


def test_a_call_within_a_call():
    outer, inner = np.zeros(6, np.int64), np.zeros(20, np.int64)
    lock = threading.Lock()

    def nested(team):
        mine = np.zeros(6, np.int64)
        count_jobs(team, mine, np.zeros(6, np.int64))
        with lock:
            outer[:] += mine
            run(fill_shares, 3, inner)

    with settings.using(threads=2):
        run(nested, 6)
    assert (outer == 1).all()
    assert len(set(inner)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_after_a_fork():
    x, w = (
        np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        for shape in ((1, 16, 33, 33), (16, 16, 3, 3))
    )
    with settings.using(threads=2):
        expected = cpu.conv2d_forward(x, w, None, 1, 1)
        child = os.fork()
        if child == 0:
            import signal

            signal.alarm(20)  # ends a child that waits for threads which it does not have
            same, helpers = np.array_equal(cpu.conv2d_forward(x, w, None, 1, 1), expected), threads._pool.helpers
            os._exit(0 if same and helpers and all(helper.is_alive() for helper in helpers) else 1)
        assert os.waitpid(child, 0)[1] == 0
        np.testing.assert_array_equal(cpu.conv2d_forward(x, w, None, 1, 1), expected)
    off = abs(expected - reference.conv2d_forward(x, w, None, 1, 1)).max()
    assert off < 1e-4
