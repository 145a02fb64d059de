"""Convolution as its definition says it, seven loops: the ladder's first rung, and the one that keeps every NaN apart.

    y[n, p, q, k]  =  b[k] + sum_{r, s, c} w[k, r, s, c] x[n, h, v, c]

    h = p stride - pad + r dilation,   v = q stride - pad + s dilation

Each sum runs over its own window only and in this order, so that a NaN or an infinity in the input reaches exactly the
outputs that depend on it. The backward passes are written as gathers, one element of the result at a time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import memory
from .threads import jobs, run


def _sizes(geo) -> tuple[int, ...]:
    """(N, C of a group, H, W, K of a group, R, S, P, Q, strides, paddings, dilations, groups)."""
    C, K = geo.C // geo.groups, geo.K // geo.groups
    window = (*geo.stride, *geo.padding, *geo.dilation, geo.groups)
    return (geo.N, C, geo.H, geo.W, K, geo.R, geo.S, geo.P, geo.Q, *window)


def supports(geo, dtype) -> bool:
    """Everything."""
    return True


@njit(cache=True, nogil=True)
def _forward(team, x, w, bias, sizes, y):
    """y [N, P, Q, K] of x [N, H, W, C]. One job a row of the output."""
    _, C, H, W, K, R, S, P, Q, sh, sw, ph, pw, dh, dw, groups = sizes
    for job in jobs(team):
        n, p = divmod(job, P)
        for q in range(Q):
            for k in range(groups * K):
                total, c0 = bias[k], k // K * C
                for r in range(R):
                    h = p * sh - ph + r * dh
                    for s in range(S):
                        v = q * sw - pw + s * dw
                        if 0 <= h < H and 0 <= v < W:
                            for c in range(C):
                                total += w[k, r, s, c] * x[n, h, v, c0 + c]
                y[n, p, q, k] = total


@njit(cache=True, nogil=True)
def _backward_input(team, dy, w, sizes, dx):
    """dx [N, H, W, C] of dy [N, P, Q, K]. One job a row of the input."""
    _, C, H, W, K, R, S, P, Q, sh, sw, ph, pw, dh, dw, groups = sizes
    for job in jobs(team):
        n, h = divmod(job, H)
        for v in range(W):
            dx[n, h, v] = 0
            for r in range(R):
                p, odd = divmod(h + ph - r * dh, sh)
                if odd or p < 0 or p >= P:
                    continue
                for s in range(S):
                    q, odd = divmod(v + pw - s * dw, sw)
                    if odd or q < 0 or q >= Q:
                        continue
                    for k in range(groups * K):
                        c0 = k // K * C
                        for c in range(C):
                            dx[n, h, v, c0 + c] += w[k, r, s, c] * dy[n, p, q, k]


@njit(cache=True, nogil=True)
def _backward_weight(team, dy, x, sizes, dw, db):
    """dw [K, R, S, C / groups] and db [K], the sums of dy. One job an output channel."""
    N, C, H, W, K, R, S, P, Q, sh, sw, ph, pw, dil_h, dil_w, _ = sizes
    for k in jobs(team):
        c0, dw[k], total = k // K * C, 0, 0.0
        for n in range(N):
            for p in range(P):
                for q in range(Q):
                    gradient = dy[n, p, q, k]
                    total += gradient
                    for r in range(R):
                        h = p * sh - ph + r * dil_h
                        for s in range(S):
                            v = q * sw - pw + s * dil_w
                            if 0 <= h < H and 0 <= v < W:
                                for c in range(C):
                                    dw[k, r, s, c] += gradient * x[n, h, v, c0 + c]
        db[k] = total


@njit(cache=True, nogil=True)
def _relu(team, y, mask):
    """y = max(y, 0) and its mask. One job a row of the output."""
    _, P, Q, K = y.shape
    for job in jobs(team):
        n, p = divmod(job, P)
        mask[n, p] = 0
        for q in range(Q):
            for k in range(K):
                if y[n, p, q, k] <= 0:  # NaN passes
                    y[n, p, q, k] = 0
                else:
                    mask[n, p, q, k >> 3] |= np.uint8(1 << (k & 7))


@njit(cache=True, nogil=True)
def _pass(team, dy, mask, dz):
    """dz = dy where the mask lets it pass, else 0. One job a row of the output."""
    _, P, Q, K = dy.shape
    for job in jobs(team):
        n, p = divmod(job, P)
        for q in range(Q):
            for k in range(K):
                dz[n, p, q, k] = dy[n, p, q, k] if mask[n, p, q, k >> 3] >> (k & 7) & 1 else 0


def _passed(mask, dy):
    """dy [N, P, Q, K] where the mask lets it pass, else 0."""
    if mask is None:
        return dy
    dz = memory.empty(dy.shape, dy.dtype)
    run(_pass, dy.shape[0] * dy.shape[1], dy, mask, dz)
    return dz


def forward_weights(geo, w):
    """Nothing to prepare."""
    return w


backward_input_weights = forward_weights


def forward(geo, x, w, bias, relu):
    """(y [N, P, Q, K], mask of its ReLU or None)."""
    y = memory.empty((geo.N, geo.P, geo.Q, geo.K), x.dtype)
    run(_forward, geo.N * geo.P, x, w, bias, _sizes(geo), y)
    if not relu:
        return y, None
    mask = memory.empty((*y.shape[:3], -(-geo.K // 8)), np.uint8)
    run(_relu, geo.N * geo.P, y, mask)
    return y, mask


def backward_input(geo, dy, mask, w):
    """dx [N, H, W, C] of dy [N, P, Q, K], where `mask` lets it pass."""
    dx = memory.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
    run(_backward_input, geo.N * geo.H, _passed(mask, dy), w, _sizes(geo), dx)
    return dx


def backward_weight(geo, dy, mask, x):
    """(dw [K, R, S, C / groups], db [K]) of dy [N, P, Q, K], where `mask` lets it pass, and x [N, H, W, C]."""
    dw, db = memory.empty((geo.K, geo.R, geo.S, geo.C // geo.groups), x.dtype), memory.empty((geo.K,), x.dtype)
    run(_backward_weight, geo.K, _passed(mask, dy), x, _sizes(geo), dw, db)
    return dw, db
