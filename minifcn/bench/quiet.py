"""Rest between turns: OpenMP's teams spin for milliseconds after their last loop, and would take the other side's core.

No setting of either library is changed for it; a process waits until its own processor time stands still.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PAUSE = 0.002  # seconds
STILL = 0.05  # share of PAUSE that may be used by a process at rest
LIMIT = 1.0
LEAD = 0.005  # seconds of calls before the clock starts


def rest() -> bool:
    """Wait until no thread of this process computes any more; False where that did not come within a second."""
    end = time.perf_counter() + LIMIT
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(PAUSE)
        if time.process_time() - before < STILL * PAUSE:
            return True
    return False


def sample(call: Callable[[int], Any], repeats: int) -> float:
    """Seconds a call, over `repeats` calls of call(i), then rest.

    Where there are several, some run before the clock does: they wake threads, and bring in weights and code.
    """
    awake = time.perf_counter() + LEAD
    while repeats > 1 and time.perf_counter() < awake:
        call(repeats)
    started = time.perf_counter()
    for i in range(repeats):
        call(i)
    seconds = (time.perf_counter() - started) / repeats
    rest()
    return seconds
