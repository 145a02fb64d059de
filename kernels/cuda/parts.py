"""What the devices `cuda` and `cuda-sim` are made of, part by part, and what to install.

The driver is asked by itself, without CuPy: each part is found, or missing, whatever the others are.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .sim import build
from .source import ExecutorError

GET_CUPY = "pip install 'minifcn[cuda13]' for a driver of CUDA 13, 'minifcn[cuda12]' for one of CUDA 12"
GET_DRIVER = "install or update the driver (https://www.nvidia.com/drivers)"
GET_NVRTC = "it comes with the CUDA toolkit, or with: pip install 'minifcn[cuda13]' (for CUDA 12: 'minifcn[cuda12]')"


@dataclass(frozen=True)
class Part:
    """`about`: its version or name where it is `present`, else why not and what to install."""

    name: str
    present: bool
    about: str


def _compiler() -> str:
    _, version = build.compiler()
    return version.splitlines()[0]


def _cupy() -> str:
    try:
        import cupy
    except ImportError as error:
        raise ExecutorError(f"cannot be imported ({error}): {GET_CUPY}") from error
    return cupy.__version__


def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError as error:
        raise ExecutorError(GET_DRIVER) from error


def _driver() -> str:
    version = ctypes.c_int()
    _library().cuDriverGetVersion(ctypes.byref(version))
    return f"for CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def _gpu() -> str:
    try:
        driver = _library()
    except ExecutorError as error:
        raise ExecutorError("without a driver none can be seen") from error
    count, names = ctypes.c_int(), []
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        raise ExecutorError("the driver sees none (CUDA_VISIBLE_DEVICES?)")
    for number in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        driver.cuDeviceGet(ctypes.byref(device), number)
        driver.cuDeviceGetName(name, len(name), device)
        names.append(name.value.decode())
    return ", ".join(names)


def _nvrtc() -> str:
    try:
        from cupy.cuda import nvrtc
    except ImportError as error:
        raise ExecutorError("it cannot be asked for without CuPy") from error
    try:
        return ".".join(map(str, nvrtc.getVersion()))
    except (ImportError, OSError, RuntimeError) as error:
        raise ExecutorError(f"{' '.join(str(error).split())}: {GET_NVRTC}") from error


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "C++ compiler": ("cuda-sim", _compiler),
    "CuPy": ("cuda", _cupy),
    "NVIDIA driver": ("cuda", _driver),
    "GPU": ("cuda", _gpu),
    "NVRTC": ("cuda", _nvrtc),
}


def parts() -> Iterator[Part]:
    """Every part, under a name that says which device needs it."""
    for name, (device, find) in PARTS.items():
        try:
            yield Part(f"{device}: {name}", True, find())
        except ExecutorError as error:
            yield Part(f"{device}: {name}", False, str(error))
