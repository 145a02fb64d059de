"""Dropout from a counter-based generator: the mask is a function of (seed, step, layer, element) alone.

Every element draws one 32-bit word u and is kept where u >= p 2^32; what is kept is scaled by 1 / (1 - p), so
that the expectation stays (inverted dropout; Srivastava et al., 2014). The words come from Philox4x32-10
(Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3"): four words a counter, ten rounds of

    (x0, x1, x2, x3) <- (hi(M1 x2) ^ x1 ^ k0, lo(M1 x2), hi(M0 x0) ^ x3 ^ k1, lo(M0 x0))

Elements are numbered channels last, e = ((n H + h) W + w) C + c (other ranks: in memory order); element e uses
word e mod 4 of counter (e div 4, step, layer) under the key `seed`.
"""

from __future__ import annotations

import numpy as np

from .. import checks

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox on counters uint64 [..., 4] of 32-bit words, with two 32-bit key words."""
    x0, x1, x2, x3 = (counter[..., i].astype(np.uint64) for i in range(4))
    m0, m1 = (np.uint64(m) for m in MULTIPLIERS)
    for i in range(ROUNDS):
        k0, k1 = (np.uint64((k + i * step) & 0xFFFFFFFF) for k, step in zip(key, KEY_STEPS, strict=True))
        product0, product1 = m0 * x0, m1 * x2
        x0, x1, x2, x3 = (
            (product1 >> _32) ^ x1 ^ k0,
            product1 & _LOW,
            (product0 >> _32) ^ x3 ^ k1,
            product0 & _LOW,
        )
    return np.stack([x0, x1, x2, x3], axis=-1).astype(np.uint32)


def random_words(count: int, key: tuple[int, int, int]) -> np.ndarray:
    """The first `count` words uint32 of the stream `key` = (seed, step, layer)."""
    seed, step, layer = (int(part) for part in key)
    blocks = np.arange((count + 3) // 4, dtype=np.uint64)
    counter = np.empty((len(blocks), 4), np.uint64)
    counter[:, 0], counter[:, 1] = blocks & _LOW, blocks >> _32
    counter[:, 2], counter[:, 3] = step & 0xFFFFFFFF, layer & 0xFFFFFFFF
    return philox4x32(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)).reshape(-1)[:count]


def threshold(p: float) -> int:
    """The least word that is kept: round(p 2^32)."""
    if not 0 <= p < 1:
        raise checks.ShapeError(f"dropout probability (={p}) must be at least 0 and below 1")
    return min(round(p * 2**32), 2**32 - 1)


def dropout_forward(x, p, key):
    """x where it is kept, over 1 - p; 0 elsewhere. `key` = (seed, step, layer)."""
    checks.same_dtype(x=x)
    last = np.moveaxis(x, 1, -1) if x.ndim == 4 else x
    keep = random_words(x.size, key).reshape(last.shape) >= threshold(p)
    y = np.where(keep, last * x.dtype.type(1 / (1 - p)), x.dtype.type(0))
    return np.moveaxis(y, -1, 1) if x.ndim == 4 else y


def dropout_backward_input(dy, p, key):
    """dx: the same mask and scale on dy, drawn again from the same key. Dropout is its own adjoint."""
    return dropout_forward(dy, p, key)
