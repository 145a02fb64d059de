"""What can be chosen about the kernels: threads, and how convolutions are computed. Also known as `minifcn.config`.

    minifcn.config.convolution = "exact"                 # for the whole process
    with minifcn.config.using(threads=1): ...            # for a block
    MINIFCN_CONVOLUTION=exact MINIFCN_THREADS=1 ...      # for a command

No setting changes what is computed beyond rounding, and the number of threads changes not even a bit. How much is
rounded is the setting `precision`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# A rung of the ladder in `kernels.cpu.ladder` or `kernels.cuda.ladder`, or one of two policies: the fastest for each
# shape, or the fastest of those that round no more than direct summation does.
POLICIES = ("fastest", "exact")
CPU_RUNGS = ("direct", "gemm", "pointwise", "taps", "winograd1d", "winograd2", "winograd4")
CUDA_RUNGS = ("naive", "tiled", "blocked", "tensor")  # of which the last one alone uses tensor cores
RUNGS = CPU_RUNGS + CUDA_RUNGS

# What float32 numbers may become on their way into a product, on tensor cores: 24 bits of mantissa, nearly as many in
# two TF32 numbers, 11, or 8. Sums are float32, and so is what is stored, but for the activations of a network at
# bfloat16, which are that in memory too.
PRECISIONS = ("float32", "3xtf32", "tf32", "bfloat16")


# The rungs and precisions that each device has.
KNOWN = {
    "reference": ((), ("float32",)),
    "cpu": (CPU_RUNGS, ("float32",)),
    "cuda-sim": (CUDA_RUNGS, PRECISIONS),
    "cuda": (CUDA_RUNGS, PRECISIONS),
}


class SettingError(ValueError):
    """A setting that does not exist or is out of range; the message names the value and the rule."""


def _cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Settings:
    """`threads`: of the CPU's kernels, from 1 to 256 (default: the cores of this process, or MINIFCN_THREADS). To be
    changed while no kernel runs in another thread: its memory is laid out for the number that it began with.

    `convolution`: one of POLICIES or RUNGS (default: "fastest", or MINIFCN_CONVOLUTION). A rung that cannot compute a
    shape leaves it to the exact policy, and a device refuses another one's rung.

    `precision`: of the products of float32 convolutions, one of PRECISIONS (default: "float32", or MINIFCN_PRECISION);
    "bfloat16" is also what a network's activations are stored as.
    The device `cpu` knows float32 alone and refuses the others.

    Raises SettingError for anything else.
    """

    NAMES = ("threads", "convolution", "precision")

    def __init__(self) -> None:
        self._threads: int | None = None  # the environment is read when it is first asked for: an import must not fail
        self._convolution: str | None = None
        self._precision: str | None = None

    @property
    def threads(self) -> int:
        if self._threads is None:
            self.threads = os.environ.get("MINIFCN_THREADS") or _cores()
        return self._threads

    @threads.setter
    def threads(self, value: int | str) -> None:
        if not str(value).isdecimal() or not 1 <= int(value) <= 256:
            raise SettingError(f"threads (={value}) must be an integer from 1 to 256")
        self._threads = int(value)

    @property
    def convolution(self) -> str:
        if self._convolution is None:
            self.convolution = os.environ.get("MINIFCN_CONVOLUTION") or "fastest"
        return self._convolution

    @convolution.setter
    def convolution(self, value: str) -> None:
        if value not in POLICIES + RUNGS:
            raise SettingError(f"convolution (={value!r}) must be one of {', '.join(POLICIES + RUNGS)}")
        self._convolution = value

    @property
    def precision(self) -> str:
        if self._precision is None:
            self.precision = os.environ.get("MINIFCN_PRECISION") or "float32"
        return self._precision

    @precision.setter
    def precision(self, value: str) -> None:
        if value not in PRECISIONS:
            raise SettingError(f"precision (={value!r}) must be one of {', '.join(PRECISIONS)}")
        self._precision = value

    def state(self) -> tuple[Any, ...]:
        """All of them: what is captured under one state is not for another."""
        return tuple(getattr(self, name) for name in self.NAMES)

    def refuse_others(self, device: str) -> None:
        """Raise SettingError where a rung or precision is set that `device` does not have: it must not take another."""
        rungs, precisions = KNOWN[device]
        if self.convolution not in POLICIES + rungs:
            had = ", ".join(rungs) or "none"
            raise SettingError(f"convolution (={self.convolution!r}) is no rung of device {device!r}, which has {had}")
        if self.precision not in precisions:
            had = ", ".join(precisions)
            raise SettingError(f"precision (={self.precision!r}) is not known to device {device!r}, which has {had}")

    @contextmanager
    def using(self, **settings: Any) -> Iterator[None]:
        """Run with other settings; those from before come back afterwards."""
        unknown = set(settings) - set(self.NAMES)
        if unknown:
            raise SettingError(f"{', '.join(sorted(unknown))}: no such setting; there are {', '.join(self.NAMES)}")
        before = {name: getattr(self, name) for name in settings}
        try:
            for name, value in settings.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)


settings = Settings()
