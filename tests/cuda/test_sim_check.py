"""The sanitizer finds every planted fault at its line, and every synchronisation of the samples matters.

That it finds nothing in the samples as they are, test_sim.py shows.
"""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn.kernels.cuda.executors import ExecutorError, SanitizerError, SimExecutor
from minifcn.kernels.cuda.sim.launch import ORDERS
from minifcn.kernels.cuda.sim.report import traffic

from . import mutants, samples
from .samples import CONVOLUTION, GEMM, REDUCTION, random

CHECKS = [SimExecutor("check", order, seed=3) for order in ORDERS]

A, B = random((40, 84), 1), random((84, 44), 2)
X, W = random((1, 5, 5, 3), 1), random((3, 3, 3, 3), 2)
ROWS = random((3, 77), 3)

LAUNCHES = {
    CONVOLUTION: lambda on, file: samples.convolution(on, X, W, 1, file),
    GEMM: lambda on, file: samples.gemm(on, A, B, file),
    REDUCTION: lambda on, file: (samples.sum_rows(on, ROWS, file=file), samples.reverse(on, random(1024, 4), file)),
}


# name: (file, what is there, what is planted, kind of the finding (by the order, one of two), a piece of its line)
FAULTS = {
    "removed barrier": (REDUCTION, "__syncthreads();", "", "uninitialised|race", "? sums[threadIdx.x] : (T)0"),
    "removed barrier in a loop": (GEMM, "__syncthreads();", "", "race", "cp_async16(&stage.a"),
    "removed wait": (GEMM, "cp_async_wait<STAGES - 2>();", "", "cp.async under way", "to_tf32(stage.a[m0 + g][k + t])"),
    "a wait for one group less": (
        GEMM,
        "cp_async_wait<STAGES - 2>",
        "cp_async_wait<STAGES - 1>",
        "cp.async under way",
        "to_tf32(stage.a[m0 + g][k + t])",
    ),
    "> for >= at an edge": (CONVOLUTION, "if (i >= N", "if (i > N", "out of bounds", "sum = fma"),
    "<= for < at an edge": (GEMM, "if (m < M", "if (m <= M", "out of bounds", "c[m * N + n] = d"),
    "an edge forgotten": (CONVOLUTION, "h >= H ||", "", "out of bounds", "sum = fma"),
    "+= across blocks": (REDUCTION, "y[blockIdx.x] = sum", "y[0] += sum", "race", "y[0] += sum"),
    "misaligned vector load": (
        REDUCTION,
        "const float4*>(x)[i]",
        "const float4*>(x + 1)[i]",
        "misaligned",
        "(x + 1)[i]",
    ),
    "misaligned cp.async": (GEMM, "a + row * K", "a + 1 + row * K", "misaligned", "a + 1 + row * K"),
    "shuffle mask without the caller": (
        REDUCTION,
        "(0xffffffff, value",
        "(0x0fffffff, value",
        "mask|lane",
        "__shfl_xor_sync",
    ),
    "shuffle from outside of the mask": (
        REDUCTION,
        "value += __shfl_xor_sync(0xffffffff",
        "if (threadIdx.x < 8) value += __shfl_xor_sync(0x000000ff",
        "lane",
        "__shfl_xor_sync(0x000000ff",
    ),
    "barrier that some threads miss": (
        REDUCTION,
        "__syncthreads();",
        "if (threadIdx.x < 64) __syncthreads(); else return;",
        "barrier not by all",
        "if (threadIdx.x < 64)",
    ),
    "two barriers for one": (
        REDUCTION,
        "__syncthreads();",
        "if (threadIdx.x < 64)\n __syncthreads();\n else\n __syncthreads();",
        "divergent barrier",
        " __syncthreads();",
    ),
    "lanes that wait for others": (
        REDUCTION,
        "    __syncwarp();",
        "    if (threadIdx.x % 2) __syncthreads(); else __syncwarp();",
        "deadlock",
        "if (threadIdx.x % 2) __syncthreads()",
    ),
    "index past a shared array": (
        REDUCTION,
        "sums[threadIdx.x / 32]",
        "sums[threadIdx.x / 32 + 32]",
        "array index",
        "+ 32]",
    ),
    "division by zero": (CONVOLUTION, "k = i % K", "k = i % (K - 3)", "division", "i % (K - 3)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found_at_their_line(name, tmp_path):
    file, good, bad, kind, piece = FAULTS[name]
    text = file.read_text("utf-8")
    assert text.count(good) == 1
    planted = tmp_path / "planted.cu"
    planted.write_text(text.replace(good, bad), "utf-8")
    for on in CHECKS:
        with pytest.raises(SanitizerError) as caught:
            LAUNCHES[file](on, planted)
        found = [finding for finding in caught.value.findings if finding.kind in kind.split("|")]
        assert found, caught.value.findings
        lines = planted.read_text("utf-8").splitlines()
        named = [lines[int(re.fullmatch(r"planted\.cu:(\d+)", finding.line)[1]) - 1] for finding in found]
        assert any(piece in line for line in named), (found, named)


@pytest.mark.parametrize("file", [GEMM, REDUCTION], ids=lambda file: file.stem)
def test_every_synchronisation_matters(file, tmp_path):
    count, alive = mutants.survivors(file, tmp_path, LAUNCHES[file])
    assert count == {GEMM: 4, REDUCTION: 2}[file]
    assert not alive


def test_a_needless_barrier_survives(tmp_path):
    file = tmp_path / "twice.cu"
    file.write_text(REDUCTION.read_text("utf-8").replace("__syncthreads();", "__syncthreads();\n__syncthreads();"))
    _, alive = mutants.survivors(file, tmp_path / "mutants", LAUNCHES[REDUCTION])
    assert alive == ["twice.cu: __syncthreads of line 18", "twice.cu: __syncthreads of line 19"]


def test_dynamic_shared_memory_has_an_end():
    with pytest.raises(SanitizerError, match="past the end of 15000 bytes of dynamic shared memory"):
        samples.gemm(CHECKS[0], A, B, shared=15000)


def test_an_array_may_come_twice():
    x = random(1024, 5)
    y = x.copy()
    on = CHECKS[0]
    on.launch(on.kernel(str(REDUCTION), "reverse"), (2, 1, 1), (128, 1, 1), (y[:], y))
    np.testing.assert_array_equal(y, samples.reverse(on, x))


def test_a_finding_reads_like_this(tmp_path):
    file = tmp_path / "sums.cu"
    file.write_text(REDUCTION.read_text("utf-8").replace("y[blockIdx.x] = sum", "y[0] += sum"))
    with pytest.raises(SanitizerError) as caught:
        samples.sum_rows(CHECKS[0], ROWS, file=file)
    assert str(caught.value.findings[0]) == (
        "race: reads at sums.cu:21 what thread (0,0,0) of block (0,0,0) writes at sums.cu:21, and nothing orders "
        "blocks: byte 0 of argument 1 (y); thread (0,0,0) of block (1,0,0)"
    )


# --- the memory report -----------------------------------------------------------------------------------------------


@given(stride=st.integers(1, 40), bytes_=st.sampled_from([4, 8, 16]))
def test_the_memory_report_counts_sectors_and_ways(stride, bytes_):
    file, words = samples.KERNELS / "strides.cu", bytes_ // 4
    x, y = random(40 * 32 * 4, 0), np.zeros(40 * 32 * 4, np.float32)
    kernel = CHECKS[0].kernel(str(file), f"strides<{ {4: 'float', 8: 'float2', 16: 'float4'}[bytes_] }>")
    args = (x, y, np.int32(stride))
    found = {(t.space, t.kind): t for t in traffic(kernel, (1, 1, 1), (32, 1, 1), args, 40 * 32 * bytes_)}
    lanes = np.arange(32)
    sectors = {(lane * stride * bytes_ + at) // 32 for lane in lanes for at in range(bytes_)}
    assert found["global", "read"].sectors == len(sectors)
    assert found["global", "read"].efficiency == pytest.approx(32 * bytes_ / (32 * len(sectors)))
    ways = []  # of each part of the warp
    for part in np.split(lanes, words):
        banks = [(int(lane) * stride * words + word) % 32 for lane in part for word in range(words)]
        ways.append(max(np.bincount(banks)))
    assert found["shared", "write"].ways == np.mean(ways)
    assert found["global", "read"].requests == 1


def test_traffic_is_recorded_by_check_alone():
    kernel = SimExecutor("fast").kernel(str(REDUCTION), "reverse")
    with pytest.raises(ExecutorError, match="recorded by flavour check, not fast"):
        traffic(kernel, (1, 1, 1), (128, 1, 1), (random(512, 0), random(512, 0)))
