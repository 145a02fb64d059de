"""The devices that tests run on: the simulator where there is a compiler, a GPU where there is one.

`pytest -m gpu` selects what runs on a GPU alone.
"""

import functools
from typing import Any

import numpy as np
import pytest

from minifcn.device import get_device
from minifcn.errors import DeviceError


class OnHost:
    """The kernels of a device as functions of NumPy arrays, wherever its own arrays are."""

    def __init__(self, name: str) -> None:
        self.device = get_device(name)
        for kernel in self.device.kernel_names:
            setattr(self, kernel, functools.partial(self._call, kernel))

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        device = self.device
        moved = [device.asarray(value) if isinstance(value, np.ndarray) else value for value in arguments]
        found = device.kernel(name)(*moved, **named)
        for before, after in zip(arguments, moved, strict=True):  # optimisers write to their arguments
            if isinstance(before, np.ndarray) and before is not after and before.flags.writeable:
                before[...] = device.to_host(after)
        if isinstance(found, tuple):
            return tuple(None if one is None else device.to_host(one) for one in found)
        return None if found is None else device.to_host(found)


def _marks(name: str) -> list[Any]:
    """Marks of a test on the device `name`: it is skipped where this machine does not have it, with the reason."""
    marks = [pytest.mark.gpu] if name == "cuda" else []
    try:
        get_device(name)
    except DeviceError as error:
        marks.append(pytest.mark.skip(reason=str(error)))
    return marks


def on_devices(*names: str) -> list[Any]:
    """Parameters for `pytest.mark.parametrize("device", ...)`."""
    return [pytest.param(name, id=name, marks=_marks(name)) for name in names]


def kernels_of(*names: str) -> list[Any]:
    """The same, with the devices' kernels as the values."""
    return [
        pytest.param(None if any(mark.name == "skip" for mark in marks) else OnHost(name), id=name, marks=marks)
        for name, marks in ((name, _marks(name)) for name in names)
    ]


EVERY = ("cpu", "reference", "cuda-sim", "cuda")


def examples(device: str, count: int) -> int:
    """Examples of a random test: fewer on the simulator, where each takes several times longer."""
    return max(3, count // 5) if device == "cuda-sim" else count
