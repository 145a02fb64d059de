"""Peak memory of one side alone, in a fresh process: a few steps, nothing else.

The peak is the largest resident size since everything was imported (Linux: VmHWM, reset through /proc/self/clear_refs),
minus the resident size before the network was built; both are said. On a GPU: what the allocator of each side took from
it at most.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import Any

from ..errors import MinifcnError
from .devices import GPU
from .peer import BASELINES, environment
from .work import Network

CALLS = 3


def resident() -> tuple[int, int]:
    """(resident bytes now, the largest since the process began or `reset`)."""
    try:
        with open("/proc/self/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        return tuple(int(fields[name].split()[0]) << 10 for name in ("VmRSS", "VmHWM"))
    except (OSError, KeyError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1 << 10)
        return peak, peak


def reset() -> bool:
    """Measure the largest resident size anew from here, where the system allows it."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def measure(side: str, work: Network, threads: int, device: str = "cpu", form: str = "channels_last") -> dict[str, Any]:
    """{"peak_bytes", "before_bytes", "reset", ...} of `side`, which is "minifcn" or a baseline.

    Raises MinifcnError where its process fails.
    """
    request = pickle.dumps((side, work, threads, device, form))
    result = subprocess.run(
        [sys.executable, "-m", "minifcn.bench.memory"],
        input=request,
        capture_output=True,
        env=environment(threads, side),
        check=False,
    )
    if result.returncode:
        reason = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise MinifcnError(f"peak memory of {side}: its process failed ({' '.join(reason)})")
    return json.loads(result.stdout)


def _job(side: str, work: Network, threads: int, device: str, form: str) -> Any:
    """A function that builds the job; all imports are done before."""
    if side in BASELINES:
        from .torch_peer import NetworkJob, Service

        Service().start(threads, device)
        return lambda: NetworkJob(work, form)
    from ..device import get_device
    from ..kernels.settings import settings
    from .networks import OwnNetwork

    settings.threads, settings.precision = threads, work.precision
    get_device(device).kernel("conv2d_forward")  # loads all kernels
    return lambda: OwnNetwork(work, device)


def _gpu_peak(side: str) -> int:
    """Bytes that the allocator of `side` took from the GPU."""
    if side in BASELINES:
        import torch

        return torch.cuda.max_memory_reserved()
    import cupy

    return cupy.get_default_memory_pool().total_bytes()


def _main() -> None:
    side, work, threads, device, form = pickle.load(sys.stdin.buffer)
    build = _job(side, work, threads, device, form)
    was_reset = reset()
    before = resident()[0]
    job = build()
    for number in range(CALLS):
        job.call(number)
    found = {"peak_bytes": resident()[1] - before, "before_bytes": before, "reset": was_reset, "calls": CALLS}
    if device == GPU:
        found |= {"peak_bytes": _gpu_peak(side), "before_bytes": 0}
    if side == "minifcn":
        from ..kernels import memory

        found["pool_peak_bytes"] = memory.usage().peak
    else:
        found["format"] = form
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
