"""Max pooling over 2 x 2 windows that is fused with what comes before it, or with what reads its gradient.

The mask of the pair convolution and ReLU says it all: its bit is set where a pixel passed ReLU and won its window. So
the gradient at pixel (p, q) is that of the window (p div 2, q div 2) where the bit is set, else 0. A rung that `pools`
writes maxima and bits instead of its output, and spreads the windows' gradients where it reads them; for the others
that is done here, in passes of its own.

Windows cover the whole image, so that the last ones may hang over the edge: Caffe's ceil mode.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import memory
from .pool2d import first_of_four
from .threads import jobs, parts, run, share


def windows_of(shape: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """[N, H, W, C] of the windows over images of `shape`."""
    N, H, W, C = shape
    return N, (H + 1) // 2, (W + 1) // 2, C


@njit(cache=True, nogil=True)
def _maxima(team, z, y, mask):
    """y = max(., 0) of the maximum of each window of z, and the bits of the pixels that won theirs above 0."""
    N, P, Q, K = z.shape
    rows, columns, lowest = y.shape[1], y.shape[2], z.dtype.type(-np.inf)
    for job in jobs(team):
        first, last = share(team, job, N * rows)
        for row in range(first, last):
            n, i = divmod(row, rows)
            p = 2 * i
            lower = p + 1 < P
            mask[n, p] = 0
            if lower:
                mask[n, p + 1] = 0
            for j in range(columns):
                q = 2 * j
                right = q + 1 < Q
                for k in range(K):
                    best, tap = first_of_four(
                        z[n, p, q, k],
                        z[n, p, q + 1, k] if right else lowest,
                        z[n, p + 1, q, k] if lower else lowest,
                        z[n, p + 1, q + 1, k] if lower and right else lowest,
                    )
                    y[n, i, j, k] = 0
                    if not best <= 0:  # NaN passes
                        y[n, i, j, k] = best
                        mask[n, p + (tap >> 1), q + (tap & 1), k >> 3] |= np.uint8(1 << (k & 7))


def maxima(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(y [N, ceil(P/2), ceil(Q/2), K], mask [N, P, Q, ceil(K/8)]) of z [N, P, Q, K]."""
    y = memory.empty(windows_of(z.shape), z.dtype)
    mask = memory.empty((*z.shape[:3], -(-z.shape[3] // 8)), np.uint8)
    run(_maxima, parts(z.size), z, y, mask)
    return y, mask


@njit(cache=True, nogil=True)
def _spread(team, dy, dz):
    """dz [n, p, q] = dy [n, p div 2, q div 2]; anything where there is no such window, as no bit is set there."""
    N, P, Q, _ = dz.shape
    rows, columns = dy.shape[1:3]
    for job in jobs(team):
        first, last = share(team, job, N * P)
        for row in range(first, last):
            n, p = divmod(row, P)
            for q in range(Q):
                dz[n, p, q] = dy[n, min(p // 2, rows - 1), min(q // 2, columns - 1)]


def spread(dy: np.ndarray, shape: tuple[int, int, int, int]) -> np.ndarray:
    """dy of each window at all its pixels: [N, P, Q, K] = `shape`."""
    dz = memory.empty(shape, dy.dtype)
    run(_spread, parts(dz.size), dy, dz)
    return dz
