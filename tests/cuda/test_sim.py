"""The simulator: sample kernels equal NumPy in every order and flavour; what a GPU refuses is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn.kernels.cuda.executors import SimExecutor
from minifcn.kernels.cuda.sim.launch import ORDERS

KERNELS = Path(__file__).parent / "kernels"
STAGES = 3 * (32 * 20 + 16 * 40) * 4  # bytes of gemm.cu's three stages

FAST = SimExecutor("fast")
RUNS = [*(SimExecutor("fast", order, seed=7) for order in ORDERS), SimExecutor("parallel")]
RUNS = [pytest.param(run, id=f"{run.flavour}-{run.order}") for run in RUNS]


def random(shape, seed, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def convolution(on, x, w, padding):
    (n, h, width, c), (k, r, s, _) = x.shape, w.shape
    y = np.full((n, h + 2 * padding - r + 1, width + 2 * padding - s + 1, k), np.nan, x.dtype)
    kernel = on.kernel(str(KERNELS / "convolution.cu"), f"convolution<{'float' if x.itemsize == 4 else 'double'}>")
    sizes = tuple(np.int32(size) for size in (n, h, width, c, k, r, s, padding))
    on.launch(kernel, (-(-y.size // 64), 1, 1), (64, 1, 1), (x, w, y, *sizes))
    return y


def convolution_by_numpy(x, w, padding):
    x = np.pad(x.astype(np.float64), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[1:3], (1, 2))
    return np.einsum("npqcrs,krsc->npqk", windows, w.astype(np.float64))


def gemm(on, a, b):
    c = np.full((a.shape[0], b.shape[1]), np.nan, np.float32)
    grid = (-(-c.shape[1] // 32), -(-c.shape[0] // 32), 1)
    sizes = (np.int32(c.shape[0]), np.int32(c.shape[1]), np.int32(a.shape[1]))
    on.launch(on.kernel(str(KERNELS / "gemm.cu"), "gemm"), grid, (128, 1, 1), (a, b, c, *sizes), STAGES)
    return c


def sum_rows(on, x, threads=96):
    y = np.full(len(x), np.nan, x.dtype)
    kernel = on.kernel(str(KERNELS / "reduction.cu"), f"sum_rows<{'float' if x.itemsize == 4 else 'double'}>")
    on.launch(kernel, (len(x), 1, 1), (threads, 1, 1), (x, y, np.int32(x.shape[1])))
    return y


# --- results -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", RUNS)
@given(
    y_size=st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 6), st.integers(1, 5)),
    window=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
    padding=st.integers(0, 1),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_convolution(on, y_size, window, padding, seed, dtype):
    (n, p, q, k), (r, s, c) = y_size, window
    h, w = max(p + r - 1 - 2 * padding, 1), max(q + s - 1 - 2 * padding, 1)
    x, weights = random((n, h, w, c), seed, dtype), random((k, r, s, c), seed + 1, dtype)
    if min(h + 2 * padding - r, w + 2 * padding - s) < 0:
        return
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(
        convolution(on, x, weights, padding), convolution_by_numpy(x, weights, padding), tolerance, tolerance
    )


@pytest.mark.parametrize("on", RUNS)
@given(m=st.integers(1, 70), n=st.integers(1, 18), k=st.integers(1, 20), seed=st.integers(0, 99))
def test_gemm_on_tensor_cores(on, m, n, k, seed):
    a, b = random((m, 4 * k), seed), random((4 * k, 4 * n), seed + 1)
    exact = a.astype(np.float64) @ b
    rounding = np.abs(a).astype(np.float64) @ np.abs(b) * 2.0**-10  # two operands, 2^-11 each
    assert (np.abs(gemm(on, a, b) - exact) <= rounding + 1e-6).all()


@pytest.mark.parametrize("on", RUNS)
@given(
    rows=st.integers(1, 5), count=st.integers(1, 300), threads=st.sampled_from([32, 96, 256]), seed=st.integers(0, 9)
)
def test_sum_by_shuffles(on, rows, count, threads, seed):
    x = random((rows, count), seed)
    np.testing.assert_allclose(sum_rows(on, x, threads), x.sum(1, dtype=np.float64), 1e-5, 1e-5)


@pytest.mark.parametrize("on", RUNS)
def test_exchange_within_a_warp(on):
    x, y = random(512, 0), np.full(512, np.nan, np.float32)
    on.launch(on.kernel(str(KERNELS / "reduction.cu"), "reverse"), (1, 1, 1), (128, 1, 1), (x, y))
    np.testing.assert_array_equal(y, x.reshape(4, 128)[:, ::-1].ravel())


def test_orders_and_workers_give_the_same_bits():
    a, b = random((70, 52), 1), random((52, 72), 2)
    results = {gemm(run.values[0], a, b).tobytes() for run in RUNS}
    assert len(results) == 1


def test_uninitialised_shared_memory_is_poison(tmp_path):
    file = tmp_path / "stale.cu"
    file.write_text(
        "__global__ void stale(float* y) {\n"
        "    __shared__ float s[32];\n"
        "    if (threadIdx.x < 16) s[threadIdx.x] = 1;\n"
        "    y[threadIdx.x] = s[threadIdx.x];\n"
        "}"
    )
    y = np.zeros(32, np.float32)
    FAST.launch(FAST.kernel(str(file), "stale"), (1, 1, 1), (32, 1, 1), (y,))
    np.testing.assert_array_equal(np.isnan(y), np.arange(32) >= 16)
