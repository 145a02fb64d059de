"""What a benchmark must know of the device it measures: its clock, its caches, what it is, and what its times mean.

A GPU computes while Python goes on, so its own clock is read: two CUDA events around the calls. The host's simulator is
timed like the processor, but its times say nothing about a GPU: its rows are proven, and have no verdict.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

from . import quiet
from .quiet import sample

GPU, SIMULATED = "cuda", "cuda-sim"
NOT_TIMES = "cuda-sim computes on the host: these times say nothing about a GPU, only the errors do"
STATE = "clocks.sm,power.draw,temperature.gpu"  # of a GPU, before and after a run

Sampler = Callable[[Callable[[int], Any], int], float]


def _sample_on_gpu(call: Callable[[int], Any], repeats: int) -> float:
    """Seconds of the GPU a call, over `repeats` calls of call(i); some run before, as in `quiet.sample`."""
    import cupy

    awake = time.perf_counter() + quiet.LEAD
    while repeats > 1 and time.perf_counter() < awake:
        call(repeats)
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    for i in range(repeats):
        call(i)
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(begin, end) / 1e3 / repeats


def sampler(device: str) -> Sampler:
    """(call, repeats) -> seconds a call, by the clock that tells the truth about `device`."""
    return _sample_on_gpu if device == GPU else sample


def waiter(device: str) -> Callable[[], None]:
    """A function that returns when `device` has done all that it was told."""
    if device != GPU:
        return lambda: None
    import cupy

    return cupy.cuda.get_current_stream().synchronize


def cache_bytes(device: str) -> int:
    """Of the last cache between `device` and its memory."""
    if device == GPU:
        import cupy

        return int(cupy.cuda.Device().attributes["L2CacheSize"])
    from .machine import last_cache_bytes

    return last_cache_bytes()


def facts(device: str) -> dict[str, Any]:
    """The `gpu` of a record's machine: name, versions, state before the run; nothing for other devices."""
    if device != GPU:
        return {}
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(cupy.cuda.Device().id)
    about = {"name": properties["name"].decode(), "multiprocessors": properties["multiProcessorCount"]}
    versions = {"driver": runtime.driverGetVersion(), "runtime": runtime.runtimeGetVersion(), "cupy": cupy.__version__}
    return {"gpu": about | versions | {"state": [state(device)]}}


def state(device: str) -> str | None:
    """Clock, power and temperature of the GPU, where nvidia-smi is there to say so."""
    if device != GPU:
        return None
    command = ["nvidia-smi", f"--query-gpu={STATE}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
