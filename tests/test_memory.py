"""The pool of large arrays: where they begin, that they come back, how much may wait, threads and forks."""

import gc
import os
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn.kernels import memory
from minifcn.kernels.memory import IDLE, LARGE, LINE, Pool

MIB = 1 << 20


def address(array):
    return array.__array_interface__["data"][0]


def floats(pool, size):
    """An array of `size` bytes."""
    return pool.empty((size // 4,), np.float32)


@given(
    shape=st.lists(st.integers(0, 40), max_size=4).map(tuple),
    dtype=st.sampled_from(["float32", "float64", "uint8", "int64"]),
)
def test_arrays_begin_on_a_cache_line(shape, dtype):
    array = memory.empty(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert address(array) % LINE == 0 or array.size == 0
    array[...] = 1
    assert (array == 1).all()


@pytest.mark.parametrize("size", [4, LARGE - 4, LARGE, LARGE + 4, 5 * MIB + 4])
def test_small_and_large_ones_alike(size):
    array = floats(Pool(), size)
    assert (array.nbytes, address(array) % LINE) == (size, 0)


def test_a_copy_is_dense_and_its_own():
    source = np.arange(24.0).reshape(4, 6)[:, ::2]
    copy = memory.copy(source)
    np.testing.assert_array_equal(copy, source)
    assert copy.flags.c_contiguous
    assert not np.shares_memory(copy, source)


@pytest.mark.parametrize("part", [np.s_[:], np.s_[1:, ::2], np.s_[0]])
def test_a_read_only_array_is_lent_as_a_plain_one_of_the_same_memory(part):
    array = np.arange(12.0).reshape(3, 4).T
    frozen = array.copy()
    frozen.flags.writeable = False
    for read_only in (memory.constant(array)[part], memory.constant(memory.constant(array))[part], frozen[part]):
        plain = memory.plain(read_only)
        assert plain.flags.writeable
        assert not read_only.flags.writeable
        assert (address(plain), plain.shape, plain.strides) == (address(read_only), read_only.shape, read_only.strides)


@pytest.mark.parametrize(("count", "dtype", "expected"), [(0, "f4", 0), (1, "f4", 16), (16, "f4", 16), (17, "f8", 24)])
def test_padded_counts_fill_whole_lines(count, dtype, expected):
    assert memory.padded(count, dtype) == expected


def test_memory_is_used_again_and_only_by_arrays_of_its_size_class():
    pool = Pool()
    array = floats(pool, MIB)
    place = address(array)
    other = floats(pool, MIB)
    assert not np.shares_memory(array, other)
    del array
    smaller = floats(pool, MIB // 2)
    assert address(smaller) != place
    assert address(floats(pool, MIB)) == place
    del smaller
    assert address(floats(pool, MIB - 4)) == place  # of the same class


def test_the_array_used_last_comes_first():
    pool = Pool()
    first, second = floats(pool, MIB), floats(pool, MIB)
    places = address(first), address(second)
    del first
    pool.usage()
    del second
    assert address(floats(pool, MIB)) == places[1]


@pytest.mark.parametrize(
    "view", [lambda a: a[1:], lambda a: a.reshape(2, -1).T, lambda a: a.view(np.int32), memoryview]
)
def test_a_view_keeps_the_memory_alive(view):
    pool = Pool()
    array = floats(pool, MIB)
    array[:] = 7
    place, kept = address(array), view(array)
    del array
    gc.collect()
    fresh = floats(pool, MIB)
    assert address(fresh) != place
    fresh[:] = 1
    assert (np.asarray(kept).view(np.float32) == 7).all()
    assert pool.usage().used >= 2 * MIB
    del kept
    assert address(floats(pool, MIB)) == place


def test_usage_counts_what_lives_its_peak_and_what_waits():
    pool = Pool()
    assert (pool.usage().used, pool.usage().peak, pool.usage().idle) == (0, 0, 0)
    one, other = floats(pool, 2 * MIB), floats(pool, MIB)
    small = floats(pool, LARGE - 4)  # not counted
    assert (pool.usage().used, pool.usage().peak, pool.usage().idle) == (3 * MIB, 3 * MIB, 0)
    del one
    assert (pool.usage().used, pool.usage().peak, pool.usage().idle) == (MIB, 3 * MIB, 2 * MIB)
    pool.reset_peak()
    assert (pool.usage().used, pool.usage().peak, pool.usage().idle) == (MIB, MIB, 2 * MIB)
    del other, small
    pool.release()
    assert (pool.usage().used, pool.usage().idle) == (0, 0)


def test_no_more_waits_than_was_used_at_once_and_the_limit():
    pool, size = Pool(), 8 * MIB
    arrays = [floats(pool, size) for _ in range(20)]
    peak = pool.usage().peak
    del arrays
    assert pool.usage().idle <= max(IDLE, peak)
    pool.reset_peak()
    assert pool.usage().used == 0
    held = [floats(pool, size + MIB) for _ in range(3)]  # of another class: nothing that waits serves them
    del held
    assert pool.usage().idle <= IDLE + pool.usage().peak


def test_an_array_may_be_dropped_in_a_garbage_collection():
    pool = Pool()

    class Knot:
        pass

    knot = Knot()
    knot.itself, knot.array = knot, floats(pool, MIB)
    del knot
    gc.collect()
    assert (pool.usage().used, pool.usage().idle) == (0, MIB)


def test_threads_never_get_the_same_memory():
    pool, failures = Pool(), []

    def work(number):
        rng = np.random.default_rng(number)
        held = []
        for _ in range(200):
            array = floats(pool, int(rng.choice([LARGE, 2 * LARGE, 3 * LARGE])))
            array[:] = number
            held.append(array)
            if len(held) > 4:
                dropped = held.pop(int(rng.integers(len(held))))
                if not (dropped == number).all():
                    failures.append(number)
        if not all((array == number).all() for array in held):
            failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert pool.usage().used == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_of_a_fork_gets_memory_whatever_another_thread_was_doing():
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            with memory.pool._lock:
                sum(range(2000))

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                import signal

                signal.alarm(5)  # ends the child if it waits for a lock that nobody will release
                floats(memory, MIB)[:] = 1
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()
