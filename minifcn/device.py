"""A device: an array module, a namespace of kernels, and how arrays get there and back.

A Tensor carries its device, and an op asks that device for a kernel by name. There is no global switch, and
never a silent fall-back: what a device lacks is an error that names it.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from . import kernels
from .errors import DeviceError
from .kernels import memory
from .kernels.graph import Graph
from .kernels.layout import channels_first, channels_last
from .kernels.settings import settings
from .kernels.storage import BFLOAT16, widened


class Device:
    """One place to compute: `name`, `xp` (its array module) and its kernels as attributes of `kernels`."""

    def __init__(self, name: str, xp: ModuleType = np) -> None:
        self.name = name
        self.xp = xp
        self.replacements: dict[str, Callable] = {}

    @cached_property
    def _module(self) -> Any:
        """Loaded when the first kernel is asked for: Numba takes a while to import."""
        return kernels.of(self.name)

    def kernel(self, name: str) -> Callable:
        """The kernel `name`, or what replaces it.

        Raises DeviceError where the device has none of that name.
        """
        if name in self.replacements:
            return self.replacements[name]
        if name not in self._module.__all__:
            raise DeviceError(f"device {self.name!r} has no kernel {name!r}; it has {', '.join(self._module.__all__)}")
        return getattr(self._module, name)

    def each(self, name: str, calls: Callable[[], list[tuple[Any, ...]]]) -> None:
        """Run the in-place kernel `name` for every tuple of arguments of calls().

        In one launch where the device has such a one; a replacement is called for each. In a graph that one launch
        has the arrays of the capture, and the numbers that calls() gives before each replay.
        """
        together = {} if self.is_replaced(name) else getattr(self._module, "together", {})
        if name in together:
            together[name](calls)
            return
        kernel = self.kernel(name)
        for call in calls():
            kernel(*call)

    def is_replaced(self, *names: str) -> bool:
        """Whether any of these kernels is a replacement."""
        return any(name in self.replacements for name in names)

    @property
    def kernel_names(self) -> tuple[str, ...]:
        return tuple(self._module.__all__)

    def asarray(self, array: Any) -> Any:
        """`array` as an array of this device, without a copy where it is one already."""
        return self.xp.asarray(array)

    def add(self, a: Any, b: Any) -> Any:
        """a + b of two arrays of one shape; by a launch, which a graph can hold."""
        return self.kernel("add_forward")(a, b) if a.dtype == b.dtype else a + b

    def accumulate(self, total: Any, array: Any) -> Any:
        """total + array, in the memory of `total`; by a launch where the device has one for it."""
        if hasattr(self._module, "accumulate") and total.dtype == array.dtype:
            self._module.accumulate(total, array)
        else:
            total += array
        return total

    @property
    def captures(self) -> bool:
        """Whether launches can be captured as a graph here."""
        return hasattr(self._module, "capture")

    def capture(self) -> AbstractContextManager[Graph]:
        """Within the block the calling thread's launches run nothing, but become a graph (`kernels.graph`).

        Raises DeviceError where the device cannot, or a kernel is replaced: nobody knows whether that only launches.
        """
        if not self.captures:
            raise DeviceError(f"device {self.name!r} has no graphs of launches")
        if self.replacements:
            raise DeviceError(f"a graph cannot hold kernels of one's own ({', '.join(sorted(self.replacements))})")
        return self._module.capture()

    def constant(self, array: Any) -> Any:
        """The memory of `array` as a new array that cannot be written to: kernels keep what they derive from it."""
        return memory.constant(array)

    def to_host(self, array: Any) -> np.ndarray:
        """`array` as a NumPy array."""
        return np.asarray(array)

    def is_bfloat16(self, dtype: np.dtype) -> bool:
        """Whether arrays of `dtype` hold bfloat16 here."""
        return False

    def storage(self, dtype: np.dtype) -> np.dtype:
        """The type in memory of the activations of a network of `dtype`, under the current settings."""
        return dtype

    def __repr__(self) -> str:
        return f"Device({self.name!r})"


class CudaDevice(Device):
    """The CUDA kernels: on a GPU through CuPy ("cuda"), or the same sources on the host ("cuda-sim").

    `sanitize`: on the host, with the checks of `kernels/cuda/sim`. Raises DeviceError where there is no GPU or no
    compiler, and says what is missing.
    """

    def __init__(self, name: str, sanitize: bool = False) -> None:
        cuda = kernels.cuda
        try:
            self._kernels = cuda.Kernels(cuda.SimExecutor("check")) if sanitize else kernels.of(name)
        except cuda.ExecutorError as error:
            raise DeviceError(str(error)) from error
        super().__init__(name, self._kernels.executor.xp)

    @property
    def _module(self) -> Any:
        return self._kernels

    @property
    def executor(self) -> Any:
        """What compiles and runs the kernels: see `minifcn.kernels.cuda.executors`."""
        return self._kernels.executor

    def asarray(self, array: Any) -> Any:
        """`array` as an array of this device, in the same memory order if that is channels last."""
        if self.xp is np or not isinstance(array, np.ndarray) or array.ndim != 4:
            return self.xp.asarray(array)
        last = array.transpose(0, 2, 3, 1)  # CuPy copies into C order, or it would have to be told
        return channels_first(self.xp.asarray(last)) if last.flags.c_contiguous else self.xp.asarray(array)

    @property
    def captures(self) -> bool:
        return True

    def capture(self) -> AbstractContextManager[Graph]:
        """See `Device.capture`; by `kernels.cuda.executors`. Raises ExecutorError where the launches cannot be."""
        return self.executor.capture()

    def accumulate(self, total: Any, array: Any) -> Any:
        """total + array: new memory, as no kernel writes to what it reads."""
        return self.add(total, array)

    def constant(self, array: Any) -> Any:
        """On a GPU no array can be made read-only."""
        return kernels.cuda.constants.register(memory.constant(array) if self.xp is np else array.view())

    def to_host(self, array: Any) -> np.ndarray:
        """`array` as a NumPy array, in the same memory order if that is channels last; bfloat16 as float32."""
        if self.xp is np:
            found = np.asarray(array)
        elif array.ndim == 4 and not array.flags.c_contiguous:
            found = channels_first(self.xp.asnumpy(channels_last(array)))
        else:
            found = self.xp.asnumpy(array)
        return widened(found) if self.is_bfloat16(array.dtype) else found

    def is_bfloat16(self, dtype: np.dtype) -> bool:
        return dtype == BFLOAT16

    def storage(self, dtype: np.dtype) -> np.dtype:
        """bfloat16 for float32 at that precision. Raises DeviceError where a kernel is replaced by another than one
        that wraps it (functools.wraps), as it would be given arrays that it does not know.
        """
        if settings.precision != "bfloat16" or dtype != np.float32:
            return dtype
        known = self._module
        others = [name for name, one in self.replacements.items() if inspect.unwrap(one) is not getattr(known, name)]
        if others:
            raise DeviceError(
                f"precision 'bfloat16' stores activations as bfloat16, which kernels of one's own "
                f"({', '.join(others)}) do not take: choose another precision"
            )
        return BFLOAT16

    def rounded(self, x: Any) -> Any:
        """x, float32, as bfloat16."""
        return self._kernels.rounded(x)

    def widened(self, x: Any) -> Any:
        """x, bfloat16, as float32."""
        return self._kernels.widened(x)


_KINDS: dict[str, type[Device]] = {"cpu": Device, "reference": Device, "cuda-sim": CudaDevice, "cuda": CudaDevice}
_DEVICES: dict[str, Device] = {}  # those that were asked for


def known_devices() -> tuple[str, ...]:
    """The names of all devices of this version, whether this machine has what they need or not."""
    return tuple(_KINDS)


def get_device(name: str | Device) -> Device:
    """The device `name`.

    Raises DeviceError, and names the known ones, where there is none; and says what is missing, where this machine
    cannot have it.
    """
    if isinstance(name, Device):
        return name
    if name not in _KINDS:
        raise DeviceError(f"device {name!r} is not known; the devices of this version are {', '.join(_KINDS)}")
    if name not in _DEVICES:
        _DEVICES[name] = _KINDS[name](name)
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


def load_kernel(text: str, device: str | Device = "cpu") -> tuple[str, Callable]:
    """(kernel name, function) of `[NAME=]FILE.py:FUNCTION`, or of `[NAME=]FILE.cu` for the devices cuda and cuda-sim.

    A `.cu` file says in its first comment how it is launched: `minifcn.kernels.cuda.own`. Raises DeviceError where
    there is no such thing.
    """
    name, _, place = text.rpartition("=")
    if place.endswith(".cu"):
        return _load_cuda(text, name, place, get_device(device))
    file, colon, function = place.rpartition(":")
    if not colon or not Path(file).is_file():
        raise DeviceError(f"kernel {text}: {file or place} is not a file; write [NAME=]FILE.py:FUNCTION or FILE.cu")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DeviceError(f"kernel {text}: {file} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(getattr(module, function, None)):
        raise DeviceError(f"kernel {text}: {file} has no function {function!r}")
    return name or function, getattr(module, function)


def _load_cuda(text: str, name: str, file: str, device: Device) -> tuple[str, Callable]:
    """The kernel of a `.cu` file; it must be `name`, where that is not empty."""
    if not Path(file).is_file():
        raise DeviceError(f"kernel {text}: {file} is not a file")
    if not isinstance(device, CudaDevice):
        raise DeviceError(f"kernel {text}: a .cu file needs --device cuda or cuda-sim, not {device.name}")
    try:
        found, function = kernels.cuda.own.load(device.executor, file)
    except kernels.cuda.ExecutorError as error:
        raise DeviceError(f"kernel {text}: {error}") from error
    if name and name != found:
        raise DeviceError(f"kernel {text}: {file} says that it is {found}")
    return found, function
