"""A device: an array module, a namespace of kernels, and how arrays get there and back.

A Tensor carries its device, and an op asks that device for a kernel by name. There is no global switch, and
never a silent fall-back: what a device lacks is an error that names it.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .errors import DeviceError
from .kernels import memory


class Device:
    """One place to compute: `name`, `xp` (its array module) and its kernels as attributes of `kernels`."""

    def __init__(self, name: str, xp: ModuleType = np) -> None:
        self.name = name
        self.xp = xp
        self.replacements: dict[str, Callable] = {}

    @cached_property
    def _module(self) -> ModuleType:
        """Loaded when the first kernel is asked for: Numba takes a while to import."""
        return importlib.import_module(f"minifcn.kernels.{self.name}")

    def kernel(self, name: str) -> Callable:
        """The kernel `name`, or what replaces it.

        Raises DeviceError where the device has none of that name.
        """
        if name in self.replacements:
            return self.replacements[name]
        if name not in self._module.__all__:
            raise DeviceError(f"device {self.name!r} has no kernel {name!r}; it has {', '.join(self._module.__all__)}")
        return getattr(self._module, name)

    def is_replaced(self, *names: str) -> bool:
        """Whether any of these kernels is a replacement."""
        return any(name in self.replacements for name in names)

    @property
    def kernel_names(self) -> tuple[str, ...]:
        return tuple(self._module.__all__)

    def asarray(self, array: Any) -> Any:
        """`array` as an array of this device, without a copy where it is one already."""
        return self.xp.asarray(array)

    def constant(self, array: Any) -> Any:
        """The memory of `array` as a new array that cannot be written to: kernels keep what they derive from it."""
        return memory.constant(array)

    def to_host(self, array: Any) -> np.ndarray:
        """`array` as a NumPy array."""
        return np.asarray(array)

    def __repr__(self) -> str:
        return f"Device({self.name!r})"


_DEVICES = {name: Device(name) for name in ("cpu", "reference")}


def known_devices() -> tuple[str, ...]:
    """The names of all devices of this version."""
    return tuple(_DEVICES)


def get_device(name: str | Device) -> Device:
    """The device `name`; raises DeviceError, and names the known ones, where there is none."""
    if isinstance(name, Device):
        return name
    if name not in _DEVICES:
        raise DeviceError(f"device {name!r} is not available; the devices of this version are {', '.join(_DEVICES)}")
    return _DEVICES[name]


@contextmanager
def replaced(device: str, **kernels: Callable) -> Iterator[None]:
    """Run with kernels of one's own: `with replaced("cpu", conv2d_forward=mine): ...`.

    A replacement has the signature and the contract that `minifcn.kernels` documents. Raises DeviceError for a
    name that the device does not have.
    """
    target = get_device(device)
    for name in kernels:
        target.kernel(name)
    before = dict(target.replacements)
    target.replacements.update(kernels)
    try:
        yield
    finally:
        target.replacements = before


def load_kernel(text: str) -> tuple[str, Callable]:
    """(kernel name, function) of `[NAME=]FILE.py:FUNCTION`. Raises DeviceError where there is no such thing."""
    name, _, place = text.rpartition("=")
    file, colon, function = place.rpartition(":")
    if not colon or not Path(file).is_file():
        raise DeviceError(f"kernel {text}: {file or place} is not a file; write [NAME=]FILE.py:FUNCTION")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DeviceError(f"kernel {text}: {file} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, function, None)):
        raise DeviceError(f"kernel {text}: {file} has no function {function!r}")
    return name or function, getattr(module, function)
