"""Numbers to check with, and the same numbers in other memory layouts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Data = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers from 0.5 to 1.5."""
    return np.asarray(rng.uniform(0.5, 1.5, shape))


def signed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers from -1.5 to 1.5, none nearer to 0 than 0.5: no element is too small to be seen."""
    return np.asarray(positive(rng, shape) * rng.choice((-1.0, 1.0), shape))


def spaced(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Half-integers of both signs, all different: 1 apart, none nearer to 0 than 0.5."""
    n = int(np.prod(shape))
    return (rng.permutation(2 * n + 1)[:n] - n + 0.5).reshape(shape)


def spaced_negative(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Half-integers below 0, all different: a maximum that sees a padded 0 shows at once."""
    n = int(np.prod(shape))
    return (-0.5 - rng.permutation(n)).reshape(shape)


def off_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Odd halves, and odd eighths for a bias: no sum of products and a bias lies nearer to 0 than 1/8."""
    odd = 2 * rng.integers(-2, 2, shape) + 1.0
    return odd / (8 if len(shape) == 1 else 2)


def small_integers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Integers from -4 to 4: sums of a million products stay exact in float32."""
    return np.asarray(rng.integers(-4, 5, shape), np.float64)


def direction(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """A random direction without small components; small integers for piecewise linear functions."""
    if kind == "piecewise":
        return np.asarray(rng.integers(1, 5, shape) * rng.choice((-1.0, 1.0), shape))
    return signed(rng, shape)


def upstream(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """dy: normal, never ones, which cannot see a gradient that is flipped or shuffled."""
    return np.asarray(rng.standard_normal(shape))


# --- memory layouts: equal values, other strides; the gaps hold NaN (in integers the largest one) ---


def _gaps(shape: list[int], dtype: np.dtype) -> np.ndarray:
    return np.full(shape, np.nan if dtype.kind == "f" else np.iinfo(dtype).max, dtype)


def _transposed(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.T).T


def _stepped(x: np.ndarray) -> np.ndarray:
    wide = _gaps([*x.shape[:-1], 2 * x.shape[-1]], x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def _negative(x: np.ndarray) -> np.ndarray:
    return np.flip(np.ascontiguousarray(np.flip(x)))


def _offset(x: np.ndarray) -> np.ndarray:
    large = _gaps([size + 2 for size in x.shape], x.dtype)
    inner = large[tuple(slice(1, -1) for _ in x.shape)]
    inner[...] = x
    return inner


def _channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, min(1, x.ndim - 1), -1)), -1, min(1, x.ndim - 1))


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "transposed": _transposed,
    "stepped": _stepped,
    "negative": _negative,
    "offset": _offset,
    "channels last": _channels_last,
}


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """A view with x's values and the strides of `layout`; a scalar has only one layout."""
    return LAYOUTS[layout](x) if x.ndim else x
