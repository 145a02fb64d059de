"""What a benchmark claims from its times: medians, ratios within rounds, bootstrap intervals, verdicts.

Times of one round were taken right after one another, so that a machine that slows down does so for both sides: the
ratio is formed within each round, and its median over the rounds is the claim. Its 95 % interval is the percentile
bootstrap over rounds (Efron, 1979, "Bootstrap methods: another look at the jackknife").
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

DRAWS = 1000
SEED = 0
SAME = (0.98, 1.02)  # ratios that make no difference

Interval = tuple[float, float]


def median(times: Sequence[float]) -> float:
    return float(np.median(times))


def interquartile_range(times: Sequence[float]) -> float:
    """The distance between the quartiles: half of all times lie within it."""
    low, high = np.percentile(times, (25, 75))
    return float(high - low)


def ratios(baseline: Sequence[float], own: Sequence[float]) -> np.ndarray:
    """How many times faster `own` was, in each round. Raises ValueError for different numbers of rounds."""
    if len(baseline) != len(own) or not len(own):
        raise ValueError(f"{len(baseline)} and {len(own)} rounds: a ratio needs equally many, and at least 1")
    return np.asarray(baseline, np.float64) / np.asarray(own, np.float64)


def _interval(draws: np.ndarray) -> Interval:
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)


def bootstrap(values: Sequence[float]) -> Interval:
    """95 % interval of the median of `values`."""
    values = np.asarray(values, np.float64)
    picks = np.random.default_rng(SEED).integers(0, len(values), (DRAWS, len(values)))
    return _interval(np.median(values[picks], axis=1))


def ratio_of_medians(old: Sequence[float], new: Sequence[float]) -> tuple[float, Interval]:
    """median(old) / median(new) of two runs that were not interleaved, and its 95 % interval."""
    old, new = np.asarray(old, np.float64), np.asarray(new, np.float64)
    rng = np.random.default_rng(SEED)
    draws = [np.median(times[rng.integers(0, len(times), (DRAWS, len(times)))], axis=1) for times in (old, new)]
    return float(np.median(old) / np.median(new)), _interval(draws[0] / draws[1])


def verdict(interval: Interval, itself: Interval | None = None) -> str:
    """ "faster", "slower", "same", "undecided" or "void", from the interval of a ratio alone.

    `itself` is the interval of the baseline against itself (the A/A pair). Where it excludes all that counts as the
    same, the rounds cannot be trusted: void. Where it is wider than that, so is what counts as no difference.
    """
    low, high = SAME
    if itself is not None:
        if itself[0] > high or itself[1] < low:
            return "void"
        low, high = min(low, itself[0]), max(high, itself[1])
    if interval[0] > high:
        return "faster"
    if interval[1] < low:
        return "slower"
    if interval[0] >= SAME[0] and interval[1] <= SAME[1]:
        return "same"
    return "undecided"


def geometric_mean(values: Sequence[float]) -> float | None:
    """exp of the mean logarithm; None of nothing."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


def fast_share(values: Sequence[float | None], times: float) -> float | None:
    """Share of the rows that are right and at least `times` as fast; a wrong row (None) counts as not (fast_p)."""
    return sum(value is not None and value >= times for value in values) / len(values) if values else None
