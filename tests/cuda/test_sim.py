"""The simulator: sample kernels equal NumPy in every order and flavour; what a GPU refuses is refused."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn.kernels.cuda.executors import ExecutorError, SimExecutor
from minifcn.kernels.cuda.sim import build
from minifcn.kernels.cuda.sim.launch import ORDERS
from minifcn.kernels.cuda.source import parameter_names

from . import samples
from .samples import GEMM, WRAPPERS, random

FAST = SimExecutor("fast")
CHECKS = {order: SimExecutor("check", order, seed=7) for order in ORDERS}
RUNS = [*(SimExecutor("fast", order, seed=7) for order in ORDERS), SimExecutor("parallel"), *CHECKS.values()]
IDS = [f"{run.flavour}-{run.order}" for run in RUNS]


def convolution_by_numpy(x, w, padding):
    x = np.pad(x.astype(np.float64), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[1:3], (1, 2))
    return np.einsum("npqcrs,krsc->npqk", windows, w.astype(np.float64))


# --- results: right, the same bits in every order and flavour, and nothing found by the sanitizer ------------------


def same_bits(compute):
    """What compute(on) gives, once on every executor that there is."""
    results = [compute(on) for on in RUNS]
    for on, result in zip(IDS, results, strict=True):
        assert result.tobytes() == results[0].tobytes(), on
    return results[0]


@given(
    y_size=st.tuples(st.integers(1, 2), st.integers(2, 5), st.integers(2, 5), st.integers(1, 5)),
    window=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
    padding=st.integers(0, 1),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_convolution(y_size, window, padding, seed, dtype):
    (n, p, q, k), (r, s, c) = y_size, window
    x = random((n, max(p + r - 1 - 2 * padding, 1), max(q + s - 1 - 2 * padding, 1), c), seed, dtype)
    w = random((k, r, s, c), seed + 1, dtype)
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    y = same_bits(lambda on: samples.convolution(on, x, w, padding))
    np.testing.assert_allclose(y, convolution_by_numpy(x, w, padding), tolerance, tolerance)


@given(m=st.integers(1, 70), n=st.integers(1, 18), k=st.integers(1, 20), seed=st.integers(0, 99))
def test_gemm_on_tensor_cores(m, n, k, seed):
    a, b = random((m, 4 * k), seed), random((4 * k, 4 * n), seed + 1)
    c = same_bits(lambda on: samples.gemm(on, a, b))
    rounding = np.abs(a).astype(np.float64) @ np.abs(b) * 2.0**-10  # two operands, 2^-11 each
    assert (np.abs(c - a.astype(np.float64) @ b) <= rounding + 1e-6).all()


@given(rows=st.integers(1, 5), count=st.integers(1, 99), threads=st.sampled_from([32, 96, 256]), seed=st.integers(0, 9))
def test_sum_by_shuffles(rows, count, threads, seed):
    x = random((rows, count), seed)
    y = same_bits(lambda on: samples.sum_rows(on, x, threads))
    np.testing.assert_allclose(y, x.sum(1, dtype=np.float64), 1e-5, 1e-5)


def test_exchange_within_a_warp():
    x = random(1024, 0)
    y = same_bits(lambda on: samples.reverse(on, x))
    np.testing.assert_array_equal(y, x.reshape(8, 128)[:, ::-1].ravel())


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


# --- the instructions of ptx.cuh, against the layouts of the PTX ISA written down once more, in NumPy --------------

LANE = np.arange(32)
G, T = LANE // 4, LANE % 4


def one_warp(expression, *arrays):
    FAST.launch(FAST.kernel(str(WRAPPERS), expression), (1, 1, 1), (32, 1, 1), arrays)


def bfloat16(x):
    """float32 rounded to bfloat16, ties to even: its bits."""
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def test_mma_tf32():
    a, b, d = random((16, 8), 1), random((8, 8), 2), random((16, 8), 3)
    kept = [(x.view(np.uint32) & 0xFFFFE000).view(np.float32).astype(np.float64) for x in (a, b)]  # mma truncates
    of_a = np.stack([a[G, T], a[G + 8, T], a[G, T + 4], a[G + 8, T + 4]], 1)
    of_b = np.stack([b[T, G], b[T + 4, G]], 1)
    out = np.stack([d[G, 2 * T], d[G, 2 * T + 1], d[G + 8, 2 * T], d[G + 8, 2 * T + 1]], 1).copy()
    one_warp("mma_tf32", of_a.view(np.uint32), of_b.view(np.uint32), out)
    whole = d + kept[0] @ kept[1]
    np.testing.assert_allclose(out[:, 0], whole[G, 2 * T], 1e-6, 1e-6)
    np.testing.assert_allclose(out[:, 1], whole[G, 2 * T + 1], 1e-6, 1e-6)
    np.testing.assert_allclose(out[:, 2], whole[G + 8, 2 * T], 1e-6, 1e-6)
    np.testing.assert_allclose(out[:, 3], whole[G + 8, 2 * T + 1], 1e-6, 1e-6)


def test_mma_bf16():
    a, b = bfloat16(random((16, 16), 1)), bfloat16(random((16, 8), 2))

    def pair(x, y):
        return x.astype(np.uint32) | y.astype(np.uint32) << 16

    k = 2 * T
    of_a = np.stack(
        [
            pair(a[G, k], a[G, k + 1]),
            pair(a[G + 8, k], a[G + 8, k + 1]),
            pair(a[G, k + 8], a[G, k + 9]),
            pair(a[G + 8, k + 8], a[G + 8, k + 9]),
        ],
        1,
    )
    of_b = np.stack([pair(b[k, G], b[k + 1, G]), pair(b[k + 8, G], b[k + 9, G])], 1)
    out = np.zeros((32, 4), np.float32)
    one_warp("mma_bf16", of_a, of_b, out)
    whole = np.matmul(*((x.astype(np.uint32) << 16).view(np.float32).astype(np.float64) for x in (a, b)))
    rows, columns = np.stack([G, G, G + 8, G + 8], 1), np.stack([k, k + 1, k, k + 1], 1)
    np.testing.assert_allclose(out, whole[rows, columns], 1e-6, 1e-6)


@pytest.mark.parametrize("transposed", [False, True])
def test_ldmatrix(transposed):
    matrices = np.arange(256, dtype=np.uint16).reshape(4, 8, 8)
    r = np.zeros((32, 4), np.uint32)
    one_warp(f"ldmatrix<{str(transposed).lower()}>", matrices, r)
    read = matrices.swapaxes(1, 2) if transposed else matrices
    np.testing.assert_array_equal(r & 0xFFFF, read[:, G, 2 * T].T)
    np.testing.assert_array_equal(r >> 16, read[:, G, 2 * T + 1].T)


# Halves of floats, many of them where rounding to bfloat16 or TF32 is a tie; no subnormal numbers.
UPPER = st.integers(0, 0xFFFF).filter(lambda half: half & 0x7F80)
LOWER = st.sampled_from([0, 0x7FFF, 0x8000, 0x8001, 0x1000, 0x3000, 0x0FFF, 0x1001]) | st.integers(0, 0xFFFF)


@given(st.lists(st.tuples(UPPER, LOWER), min_size=1, max_size=64))
def test_rounding(halves):
    x = np.array([upper << 16 | lower for upper, lower in halves], np.uint32).view(np.float32)
    tf32, bf16, pairs = (np.zeros(x.size, dtype) for dtype in (np.uint32, np.uint16, np.uint32))
    kernel = FAST.kernel(str(WRAPPERS), "conversions")
    FAST.launch(kernel, (1, 1, 1), (64, 1, 1), (x, tf32, bf16, pairs, np.int32(x.size)))
    nan = np.isnan(x)
    assert (np.isnan(tf32.view(np.float32)) == nan).all()
    assert (bf16[nan] == 0x7FFF).all()
    np.testing.assert_array_equal(bf16[~nan], bfloat16(x)[~nan])
    np.testing.assert_array_equal(pairs, bf16.astype(np.uint32) * 0x10001)
    finite = np.isfinite(x) & (np.abs(x) < 2.0**127)
    ulp = 2.0 ** (np.frexp(x[finite].astype(np.float64))[1] - 11)
    away = np.floor(np.abs(x[finite].astype(np.float64)) / ulp + 0.5) * ulp  # ties away from zero
    np.testing.assert_array_equal(np.abs(tf32[finite].view(np.float32)), away)
    np.testing.assert_array_equal(np.signbit(tf32[finite].view(np.float32)), np.signbit(x[finite]))
    assert not (tf32[finite] & 0x1FFF).any()


# --- what is refused -----------------------------------------------------------------------------------------------

A, C = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)
FOUR = np.int32(4)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"args": (A, A, C, 4, FOUR, FOUR)}, r"argument 3 \(M\) must be a numpy.int32, but is int 4"),
        ({"args": (A, A, C, np.int64(4), FOUR, FOUR)}, r"argument 3 \(M\) must be a numpy.int32, but is a numpy.int64"),
        ({"args": (A.astype(np.float64), A, C, FOUR, FOUR, FOUR)}, r"argument 0 \(a\) must be an array of float32"),
        ({"args": ([1.0], A, C, FOUR, FOUR, FOUR)}, r"argument 0 \(a\) must be an array of float32, but is list"),
        ({"args": (A.T, A, C, FOUR, FOUR, FOUR)}, r"argument 0 \(a\) must be C-contiguous"),
        ({"args": (A, A, np.broadcast_to(C, C.shape), FOUR, FOUR, FOUR)}, r"argument 2 \(c\) is written to"),
        ({"args": (A, A, C)}, "gemm has 6 parameters, but got 3 arguments"),
        ({"block": (1025, 1, 1)}, r"block \(1025, 1, 1\) must be from"),
        ({"block": (32, 33, 1)}, "block .* has more than 1024 threads"),
        ({"block": (1, 1, 65)}, r"block .* to \(1024, 1024, 64\)"),
        ({"grid": (0, 1, 1)}, r"grid \(0, 1, 1\) must be from \(1, 1, 1\)"),
        ({"grid": (1, 65536, 1)}, "grid .* must be from"),
        ({"shared": 227 * 1024 + 1}, "shared .* must be from 0 to 232448 bytes"),
        ({"shared": -1}, "shared .* must be from 0"),
    ],
)
def test_refused_launches(changed, words):
    launch = {"grid": (1, 1, 1), "block": (128, 1, 1), "args": (A, A, C, FOUR, FOUR, FOUR), "shared": samples.STAGES}
    kernel = FAST.kernel(str(GEMM), "gemm")
    FAST.launch(kernel, **launch)
    with pytest.raises(ExecutorError, match=words):
        FAST.launch(kernel, **(launch | changed))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("__global__ void k(int n) { atomicAdd(n); }", r"k does not compile (.*\n)*.*a.cu:1:28: error"),
        ("#include <cmath.cuh>\n", "does not compile"),
        ('\n#include "absent.cuh"\n', "a.cu:2 includes 'absent.cuh', which is neither"),
        ("__global__ void other() {}", "k does not compile"),
        (
            "__global__ void k(int n) { __shared__ float s[12289]; s[n] = s[0]; }",
            "49160 bytes of static shared memory, but a block has at most 49152",
        ),
    ],
)
def test_refused_sources(text, words, tmp_path):
    (tmp_path / "a.cu").write_text(text)
    with pytest.raises(ExecutorError, match=words):
        FAST.launch(FAST.kernel(str(tmp_path / "a.cu"), "k"), (1, 1, 1), (1, 1, 1), (np.int32(0),))


def test_a_null_pointer_is_none(tmp_path):
    (tmp_path / "a.cu").write_text("__global__ void k(const float* x, bool* y) { *y = x == nullptr; }")
    y = np.zeros(1, np.bool_)
    FAST.launch(FAST.kernel(str(tmp_path / "a.cu"), "k"), (1, 1, 1), (1, 1, 1), (None, y))
    assert y[0]


def test_refused_executors(monkeypatch):
    with pytest.raises(ExecutorError, match=r"flavour .='slow'. must be one of fast, parallel, check"):
        SimExecutor("slow")
    with pytest.raises(ExecutorError, match=r"order .='up'. must be one of first, last, random"):
        SimExecutor(order="up")
    with pytest.raises(ExecutorError, match=r"kernel file absent.cu: there is no "):
        FAST.kernel("absent.cu", "k")
    monkeypatch.setenv("MINIFCN_CUDASIM", "check")
    assert SimExecutor().flavour == "check"


@pytest.mark.parametrize(("executor", "words"), [("SimExecutor", "install one"), ("CupyExecutor", "needs CuPy")])
def test_what_is_missing_is_named(executor, words, tmp_path):
    code = (
        "import sys; sys.modules['cupy'] = None\n"
        f"from minifcn.kernels.cuda.executors import {executor}, ExecutorError\n"
        f"try: {executor}()\n"
        "except ExecutorError as error: print(error)\n"
    )
    environment = {**os.environ, "PATH": str(tmp_path), "CXX": ""}  # no compiler in there
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert words in shown.stdout, shown.stderr


def test_names_of_parameters():
    text = """
    #define SIZES int H, int W
    __global__ void __launch_bounds__(128) k(const T* __restrict__ x,  // [N, (C)]
                                             SIZES, const bool last) {}
    """
    assert parameter_names(text, "k") == ("x", "H", "W", "last")
    assert parameter_names(text, "absent") == ()


def test_libraries_are_compiled_once(monkeypatch):
    FAST.kernel(str(GEMM), "gemm")
    monkeypatch.setattr(build, "_run", None)  # nothing to compile
    SimExecutor("fast").kernel(str(GEMM), "gemm")


@pytest.mark.parametrize("flavour", ["fast", "parallel"])
def test_static_shared_memory_is_counted(flavour, tmp_path):
    (tmp_path / "a.cu").write_text("__global__ void k(int n) { __shared__ float s[12288]; s[n] = s[0]; }")
    on = SimExecutor(flavour)
    kernel = on.kernel(str(tmp_path / "a.cu"), "k")
    assert kernel.static_shared == 49152
    on.launch(kernel, (1, 1, 1), (1, 1, 1), (np.int32(0),))


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "taken").write_text("")
    (tmp_path / "a.cu").write_text("__global__ void k(int) {}  // of this test alone")
    monkeypatch.setattr(build, "_folder", lambda: tmp_path / "taken" / "cuda-sim")
    with pytest.raises(ExecutorError, match=r"cuda-sim keeps compiled kernels in .*taken/cuda-sim: Not a directory"):
        FAST.kernel(str(tmp_path / "a.cu"), "k")
