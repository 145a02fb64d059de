"""Central differences along random directions, and the detection of kinks.

For an input x, a direction v, a step h and an upstream gradient dy,

    numeric  = sum ((f(x + h v) - f(x - h v)) / 2h * dy),    analytic = sum (dx * v),

both accumulated in float64, are the derivative of <f, dy> along v. Over random v, |dx| rms(v) is the standard
deviation of the second, so it is the unit that their difference is measured in: |dx| |v| would be sqrt(n) times
more lenient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import MinifcnError
from .tolerances import STEPS

Forward = Callable[[Sequence[np.ndarray]], np.ndarray]


class NonSmooth(MinifcnError):
    """The function has a kink at the point where it was checked: there is no gradient to compare with."""


def rms(v: np.ndarray) -> float:
    """Root mean square; 0 for no elements."""
    return float(np.sqrt(np.mean(np.square(v, dtype=np.float64)))) if v.size else 0.0


def norm(x: np.ndarray) -> float:
    """L2 norm over all elements, in float64."""
    return float(np.sqrt(np.sum(np.square(x, dtype=np.float64))))


def dot(x: np.ndarray, y: np.ndarray) -> float:
    """Sum of the products, in float64."""
    return float(np.sum(x.astype(np.float64) * y.astype(np.float64)))


@dataclass(frozen=True)
class Derivative:
    """A numeric derivative, the direction that was really taken, and how far rounding alone may be off."""

    value: float
    direction: np.ndarray
    rounding: float


def directional(
    forward: Forward, arrays: Sequence[np.ndarray], i: int, v: np.ndarray, kind: str, dy: np.ndarray
) -> Derivative:
    """The derivative of <forward(arrays), dy> along v in input i.

    Raises NonSmooth where the slopes ahead and behind differ at an output element (in float64 only: in float32
    every curve looks like a kink at the step it needs).
    """
    h, x = STEPS[kind], arrays[i]

    def at(sign: int) -> tuple[np.ndarray, np.ndarray]:
        moved = list(arrays)
        moved[i] = (x + sign * h * v).astype(x.dtype)
        return moved[i].astype(np.float64), forward(moved)

    (x_plus, plus), (x_minus, minus) = at(+1), at(-1)
    if plus.dtype == np.float64:
        _refuse_kinks(forward(arrays), plus, minus, kind)
    plus, minus = plus.astype(np.float64), minus.astype(np.float64)
    # The piecewise linear case is exact. Else y+ and y- carry errors of a few ulps, independent of each other.
    ulps = 0.0 if kind == "piecewise" else 4 * float(np.finfo(x.dtype).eps)
    rounding = ulps * norm((np.abs(plus) + np.abs(minus)) * dy) / (2 * h)
    return Derivative(dot((plus - minus) / (2 * h), dy), (x_plus - x_minus) / (2 * h), rounding)


def _refuse_kinks(middle: np.ndarray, plus: np.ndarray, minus: np.ndarray, kind: str) -> None:
    """Raise NonSmooth at an output element whose slopes ahead and behind differ."""
    h = STEPS[kind]
    bend = np.abs((plus - middle) - (middle - minus)) / h
    # `>`, because NaN is no kink: it must fail the comparison, not ask for other data
    kinks = bend > 1e-3 * (1 + np.abs(plus - minus) / h)
    if np.any(kinks):
        index = tuple(int(k) for k in np.argwhere(kinks)[0])
        raise NonSmooth(
            f"kink (or a function that is not {kind}) at output element {list(index)}: "
            f"slope {(plus - middle)[index] / h:.6g} ahead, {(middle - minus)[index] / h:.6g} behind"
        )


def worst_element(
    forward: Forward, arrays: Sequence[np.ndarray], i: int, kind: str, dy: np.ndarray, dx: np.ndarray, limit: int = 64
) -> tuple[tuple[int, ...], float, float]:
    """(index, numeric, analytic) of the element of dx that is furthest off, among the first `limit` elements."""
    found: list[tuple[float, tuple[int, ...], float]] = []
    for index in list(np.ndindex(dx.shape))[:limit]:
        one = np.zeros(dx.shape)
        one[index] = 1
        numeric = directional(forward, arrays, i, one, kind, dy).value
        off = abs(numeric - float(dx[index]))
        found.append((np.inf if np.isnan(off) else off, index, numeric))
    _, index, numeric = max(found)
    return index, numeric, float(dx[index])
