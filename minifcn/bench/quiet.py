"""Rest between turns: OpenMP's teams spin for milliseconds after their last loop, and would take the other side's core.

No setting of either library is changed for it (PyTorch's team was measured to spin for 8 to 10 ms, and to work a third
slower where it may not): a process that has had its turn waits until none of its other threads runs any more.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT = 1.0  # seconds
LEAD = 0.005  # seconds of calls before the clock starts
THREADS = Path("/proc/self/task")
# Without THREADS: processor time, which the system may bring up to date only every 10 ms.
PAUSE, STILL = 0.02, 0.05


def _others_run() -> bool:
    """Whether another thread of this process is running, or waits for a core to run on."""
    own = threading.get_native_id()
    for task in os.listdir(THREADS):
        try:
            state = (THREADS / task / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has ended
            continue
        if state == "R" and int(task) != own:
            return True
    return False


def _time_goes_by() -> bool:
    """Whether this process uses processor time while the calling thread sleeps."""
    before = time.process_time()
    time.sleep(PAUSE)
    return time.process_time() - before > STILL * PAUSE


def rest() -> bool:
    """Wait until no other thread of this process computes; False where that did not come within a second."""
    busy = _others_run if THREADS.is_dir() else _time_goes_by
    end = time.perf_counter() + LIMIT
    still = 0
    while time.perf_counter() < end:
        still = 0 if busy() else still + 1
        if still == 2:
            return True
        time.sleep(0.0005)
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
