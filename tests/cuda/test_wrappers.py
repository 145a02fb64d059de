"""ptx.cuh: the PTX that NVRTC emits, interpreted, gives what the simulator's emulation gives, and what a GPU gave."""

import numpy as np
import pytest

from minifcn.kernels.cuda.executors import ExecutorError, SimExecutor

from . import vectors
from .executor import PtxExecutor
from .nvrtc import NEEDS_NVRTC

try:
    SIMULATOR = SimExecutor("fast")
except ExecutorError as error:
    pytest.skip(f"the simulator is not available: {error}", allow_module_level=True)
EXECUTORS = [pytest.param(SIMULATOR, id="simulator"), pytest.param(PtxExecutor(), id="ptx", marks=NEEDS_NVRTC)]
KERNELS = pytest.mark.parametrize("kernel", vectors.KERNELS)
RECORDED = sorted(vectors.FOLDER.glob("*.npz"))


@KERNELS
@pytest.mark.parametrize("on", EXECUTORS[1:])
def test_ptx_and_emulation_agree(on, kernel):
    for seed in range(vectors.SEEDS):
        given = vectors.arguments(kernel, seed)
        found = [vectors.run(one, kernel, given) for one in (SIMULATOR, on)]
        assert vectors.same(kernel, *found)
        assert not vectors.same(kernel, found[0], [np.asarray(one) for one in given if isinstance(one, np.ndarray)])


@pytest.mark.parametrize("on", EXECUTORS)
@KERNELS
@pytest.mark.parametrize("path", RECORDED or [pytest.param(None, marks=pytest.mark.skip("no GPU was recorded yet"))])
def test_a_gpu_gave_the_same(path, kernel, on):
    for seed in range(vectors.SEEDS):
        given, expected = vectors.recorded(path, kernel, seed)
        assert vectors.same(kernel, vectors.run(on, kernel, given), expected)


def test_records_come_back(tmp_path):
    path = vectors.save(tmp_path / "vectors.npz", SIMULATOR, {})
    for kernel in vectors.KERNELS:
        given, after = vectors.recorded(path, kernel, 1)
        assert all(
            np.array_equal(a, b, equal_nan=True) for a, b in zip(given, vectors.arguments(kernel, 1), strict=True)
        )
        assert vectors.same(kernel, vectors.run(SIMULATOR, kernel, given), after)


# --- the same in NumPy, from the fragments' definition -----------------------------------------------------------


def matrix(fragments, places, shape):
    """The matrix whose element places(lane)[i] lane has as its i-th."""
    found = np.full(shape, np.nan)
    for lane in range(32):
        for i, place in enumerate(places(lane // 4, lane % 4)):
            found[place] = fragments[lane][i]
    return found


def accumulators(g, t):
    return [(g, 2 * t), (g, 2 * t + 1), (g + 8, 2 * t), (g + 8, 2 * t + 1)]


@pytest.mark.parametrize("on", EXECUTORS)
def test_a_product_in_tf32(on):
    a, b, c = vectors.arguments("mma_tf32", 3)
    A = matrix(a.view(np.float32), lambda g, t: [(g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)], (16, 8))
    B = matrix(b.view(np.float32), lambda g, t: [(t, g), (t + 4, g)], (8, 8))
    _, _, found = vectors.run(on, "mma_tf32", (a, b, c))
    exact = A @ B + matrix(c, accumulators, (16, 8))
    lost = np.abs(A) @ np.abs(B) * 2.0**-9  # both truncated to 10 bits
    assert np.all(np.abs(matrix(found, accumulators, (16, 8)) - exact) <= lost + 1e-6)


@pytest.mark.parametrize("on", EXECUTORS)
def test_a_product_in_bfloat16(on):
    a, b, c = vectors.arguments("mma_bf16", 3)

    def halves(registers):
        pairs = np.stack([registers << 16, registers & 0xFFFF0000], 2).astype(np.uint32).view(np.float32)
        return pairs.reshape(32, -1)

    A = matrix(
        halves(a),
        lambda g, t: [(g + 8 * (i // 2 % 2), 2 * t + i % 2 + 8 * (i // 4)) for i in range(8)],
        (16, 16),
    )
    B = matrix(halves(b), lambda g, t: [(2 * t + i % 2 + 8 * (i // 2), g) for i in range(4)], (16, 8))
    _, _, found = vectors.run(on, "mma_bf16", (a, b, c))
    exact = A @ B + matrix(c, accumulators, (16, 8))
    np.testing.assert_allclose(matrix(found, accumulators, (16, 8)), exact, 0, 4e-6)


@pytest.mark.parametrize("on", EXECUTORS)
@pytest.mark.parametrize("transposed", [False, True])
def test_fragments_from_shared_memory(on, transposed):
    rows, zeros = vectors.arguments("ldmatrix<false>", 3)
    _, found = vectors.run(on, f"ldmatrix<{str(transposed).lower()}>", (rows, zeros))
    matrices, pairs = rows.view(np.uint16).reshape(4, 8, 8), found.view(np.uint16).reshape(32, 4, 2)
    for lane in range(32):
        g, t = lane // 4, lane % 4
        for m in range(4):
            M = matrices[m].T if transposed else matrices[m]
            assert pairs[lane, m].tolist() == [M[g, 2 * t], M[g, 2 * t + 1]]


@pytest.mark.parametrize("on", EXECUTORS)
def test_roundings(on):
    """Of normal numbers: bfloat16 to nearest, ties to even, TF32 to nearest, ties away from zero."""
    x, *zeros, count = vectors.arguments("conversions", 3)
    _, tf32, bf16, _ = vectors.run(on, "conversions", (x, *zeros, count))
    normal = (np.abs(x) > 1e-30) & (np.abs(x) < 1e30)
    mantissa, exponent = np.frexp(x[normal].astype(np.float64))
    halves = np.ldexp(np.rint(mantissa * 2.0**8), exponent - 8)
    assert bf16.astype(np.uint32)[normal].tolist() == (halves.astype(np.float32).view(np.uint32) >> 16).tolist()
    away = np.copysign(np.floor(np.abs(mantissa) * 2.0**11 + 0.5), mantissa)
    assert tf32[normal].view(np.float32).tolist() == np.ldexp(away, exponent - 11).tolist()
    x, zeros = vectors.arguments("pack", 3)
    _, bf16, *_ = vectors.run(on, "conversions", (x, zeros, zeros.astype(np.uint16), zeros, np.int32(32)))[1:]
    _, pairs = vectors.run(on, "pack", (x, zeros))
    assert pairs.tolist() == (bf16 | bf16[::-1].astype(np.uint32) << 16).tolist()


@pytest.mark.parametrize("on", EXECUTORS)
def test_asynchronous_copies(on):
    x, count, *zeros = vectors.arguments("copy", 3)
    _, _, first, second = vectors.run(on, "copy", (x, count, *zeros))
    cut = np.where(np.arange(16) < count[:, None], x.view(np.uint8), 0).astype(np.uint8)
    assert first.view(np.uint8).tolist() == cut[::-1].tolist()
    assert second.tolist() == x[::-1].tolist()
