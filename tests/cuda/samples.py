"""The sample kernels of `kernels/` as functions of arrays: launches that several tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minifcn.kernels.cuda.executors import SimExecutor

KERNELS = Path(__file__).parent / "kernels"
CONVOLUTION, GEMM, REDUCTION, WRAPPERS = (
    KERNELS / f"{name}.cu" for name in ("convolution", "gemm", "reduction", "wrappers")
)
STAGES = 3 * (32 * 20 + 16 * 40) * 4  # bytes of gemm.cu's three stages


def random(shape, seed, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _real(array):
    return {4: "float", 8: "double"}[array.itemsize]


def convolution(on: SimExecutor, x, w, padding, file=CONVOLUTION):
    """x [N, H, W, C], w [K, R, S, C] -> y [N, P, Q, K]; what the kernel does not write is NaN, here as below."""
    (n, h, width, c), (k, r, s, _) = x.shape, w.shape
    y = np.full((n, h + 2 * padding - r + 1, width + 2 * padding - s + 1, k), np.nan, x.dtype)
    sizes = tuple(np.int32(size) for size in (n, h, width, c, k, r, s, padding))
    kernel = on.kernel(str(file), f"convolution<{_real(x)}>")
    on.launch(kernel, (-(-y.size // 64), 1, 1), (64, 1, 1), (x, w, y, *sizes))
    return y


def gemm(on: SimExecutor, a, b, file=GEMM, shared=STAGES):
    """a [M, K], b [K, N] -> [M, N]; K and N multiples of 4."""
    c = np.full((a.shape[0], b.shape[1]), np.nan, np.float32)
    grid = (-(-c.shape[1] // 32), -(-c.shape[0] // 32), 1)
    sizes = (np.int32(c.shape[0]), np.int32(c.shape[1]), np.int32(a.shape[1]))
    on.launch(on.kernel(str(file), "gemm"), grid, (128, 1, 1), (a, b, c, *sizes), shared)
    return c


def sum_rows(on: SimExecutor, x, threads=96, file=REDUCTION):
    """x [rows, count] -> [rows]."""
    y = np.full(len(x), np.nan, x.dtype)
    kernel = on.kernel(str(file), f"sum_rows<{_real(x)}>")
    on.launch(kernel, (len(x), 1, 1), (threads, 1, 1), (x, y, np.int32(x.shape[1])))
    return y


def reverse(on: SimExecutor, x, file=REDUCTION):
    """x [512 blocks] -> the same, each stretch of 128 in reverse."""
    y = np.full(x.size, np.nan, np.float32)
    on.launch(on.kernel(str(file), "reverse"), (x.size // 512, 1, 1), (128, 1, 1), (x, y))
    return y
