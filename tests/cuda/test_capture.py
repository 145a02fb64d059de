"""Captured launches: they run nothing, keep what they are given by value, and read everything else from memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from minifcn.device import get_device
from minifcn.kernels import cuda, reference
from minifcn.kernels.cuda import launch
from minifcn.kernels.cuda.executors import ExecutorError, SimExecutor

from ..devices import on_devices

on_simulator = pytest.mark.parametrize("place", on_devices("cuda-sim"))

SAXPY = """
template <typename T>
__global__ void saxpy(const T* x, const T* a, T b, T* y, int count) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] = *a * x[i] + b;
}
"""
NUMBERS = st.lists(st.integers(-99, 99), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def saxpy(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "saxpy.cu"
    path.write_text(SAXPY)
    return str(path)


def executors():
    try:
        return [SimExecutor("fast"), SimExecutor("check")]
    except ExecutorError as error:
        pytest.skip(str(error))


@hypothesis_settings(max_examples=10)
@given(inputs=NUMBERS, rates=NUMBERS, b=st.integers(-9, 9))
def test_a_replay_reads_memory_and_keeps_values(saxpy, inputs, rates, b):
    """z = 2 (a x + b) - 1 of 300 numbers: x in memory, a of the host, 2 constant, b and -1 by value."""
    for on in executors():
        captured_and_replayed(on, saxpy, inputs, rates, b)


def captured_and_replayed(on, saxpy, inputs, rates, b):
    x, now = np.zeros(300), {"a": 0.0}
    with on.capture() as graph:
        y, z = (on.xp.empty(300, np.float64) for _ in range(2))
        a, two = launch.from_host(on, lambda: np.array([now["a"]])), launch.full(on, 1, 2.0, np.float64)
        for given, factor, summand, result in ((x, a, b, y), (y, two, -1, z)):
            arguments = (given, factor, np.float64(summand), result, np.int32(300))
            on.launch(on.kernel(saxpy, "saxpy<double>"), (3, 1, 1), (128, 1, 1), arguments)
    assert np.isnan(y).all()
    assert np.isnan(z).all()
    for value in inputs:
        for now["a"] in rates:
            x[:] = np.arange(300) + value
            graph.replay()
            np.testing.assert_array_equal(z, 2 * (now["a"] * (np.arange(300) + value) + b) - 1)
    assert on.xp is np
    assert on.graph is None


def test_a_capture_computes_nothing_by_the_array_module():
    on, *_ = executors()
    for name in ("ones", "zeros", "asarray", "sum"):
        with pytest.raises(ExecutorError, match=f"numpy.{name} within the capture of a graph"), on.capture():
            getattr(on.xp, name)(3)
    assert on.xp is np
    assert on.graph is None


@on_simulator
def test_garbage_stays_garbage(place):
    """What no launch of the graph writes is NaN in every replay, whatever was there."""
    on = SimExecutor("fast")
    x = np.ones(8, np.float32)
    with on.capture() as graph:
        unwritten = on.xp.empty(8, np.float32)
        y = cuda.Kernels(on).add_forward(x, unwritten)
    unwritten[...] = 1
    graph.replay()
    assert np.isnan(y).all()


@on_simulator
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@hypothesis_settings(max_examples=20)
@given(step=st.integers(0, 2**32 - 1), seed=st.integers(0, 2**63), layer=st.integers(0, 9), size=st.integers(1, 99))
def test_a_dropout_step_in_memory(place, dtype, step, seed, layer, size):
    x, kernels = np.linspace(1, 2, size, dtype=dtype), cuda.kernels_of(place)
    for name in ("dropout_forward", "dropout_backward_input"):
        expected = getattr(reference, name)(x, 0.5, (seed, step, layer))
        for given_step in (step, np.array([step], np.uint32)):
            np.testing.assert_array_equal(getattr(kernels, name)(x, 0.5, (seed, given_step, layer)), expected)


@on_simulator
def test_gradients_are_added_by_launches(place):
    """In the memory order of the first one."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((2, 4, 5, 3)).transpose(0, 3, 1, 2)
    b = np.broadcast_to(rng.standard_normal((3, 1, 1)), a.shape)
    target = get_device(place)
    for add in (target.add, target.accumulate):
        before = a.copy()
        total = add(a, b)
        np.testing.assert_array_equal(total, a + b)
        np.testing.assert_array_equal(a, before)
        assert total.strides == a.strides
