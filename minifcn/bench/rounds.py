"""The turns: every contestant once a round, until the times say enough.

The order of a round is drawn anew (from a fixed seed): in a rotating one everybody always follows the same contestant,
and inherits what that one leaves in the caches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import statistics

Contestant = Callable[[int], float]  # repeats -> seconds a call; rests before it returns
AGAIN = "again"  # the baseline a second time: the A/A pair
SAMPLE = 0.02  # seconds that one sample lasts at least
NETWORK = (0.25, 2)  # the same, and calls, for whole networks: steps follow one another, as in training
WARM_CALLS, WARM_SECONDS = 3, 0.2
SETTLED, FEWEST = 0.01, 10  # IQR of the ratio that ends a row early, and the rounds it needs


@dataclass(frozen=True)
class Budget:
    """When a row is done: `rounds` and `seconds` a contestant, or a steady ratio, or `limit` seconds for the row."""

    rounds: int = 25
    seconds: float = 2.0
    limit: float = 120.0


@dataclass(frozen=True)
class Rounds:
    """Seconds a call of every contestant, one a round; which baseline ran twice; why it ended."""

    times: dict[str, list[float]]
    twice: str | None
    stopped: str


def _warm(contestant: Contestant) -> float:
    """Call until compiled, paged in and clocked up; seconds of the last call."""
    started, calls, last = time.perf_counter(), 0, math.inf
    while calls < WARM_CALLS or time.perf_counter() - started < WARM_SECONDS:
        last = contestant(1)
        calls += 1
        if calls >= 2 and time.perf_counter() - started > 10 * WARM_SECONDS:
            break  # calls of seconds are as warm after two
    return last


def take(
    contestants: dict[str, Contestant],
    budget: Budget,
    first: str,
    baselines: tuple[str, ...] = (),
    least: tuple[float, int] = (SAMPLE, 1),
) -> Rounds:
    """Warm all, then take turns, each of at least `least` (seconds, calls).

    The ratio that may end it is that of the quicker baseline to `first`.
    """
    warm = {name: _warm(contestant) for name, contestant in contestants.items()}
    twice = min(baselines, key=warm.get, default=None)
    turns = dict(contestants)
    if twice is not None:
        turns[AGAIN], warm[AGAIN] = contestants[twice], warm[twice]
    repeats = {name: max(least[1], math.ceil(least[0] / max(seconds, 1e-7))) for name, seconds in warm.items()}
    names, times = list(turns), {name: [] for name in turns}
    order, started = np.random.default_rng(0), time.perf_counter()
    while True:
        for index in order.permutation(len(names)):
            times[names[index]].append(turns[names[index]](repeats[names[index]]))
        done, elapsed = len(times[first]), time.perf_counter() - started
        if done >= budget.rounds and elapsed >= budget.seconds * len(names):
            return Rounds(times, twice, "rounds and seconds")
        if twice is not None and done >= FEWEST:
            ratios = statistics.ratios(times[twice], times[first])
            if statistics.interquartile_range(ratios) < SETTLED * statistics.median(ratios):
                return Rounds(times, twice, "steady ratio")
        if elapsed >= budget.limit:
            return Rounds(times, twice, "time limit")
