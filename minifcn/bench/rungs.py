"""Which kernels there are for an op: the device's own, every rung of its ladder, the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..device import get_device
from ..kernels import geometry
from ..kernels.checks import ShapeError
from ..kernels.settings import CPU_RUNGS, CUDA_RUNGS, settings
from .work import OPS, Convolution

NUMPY = "numpy"  # the rung that every op has: the reference
LADDERS = {"cpu": CPU_RUNGS, "cuda": CUDA_RUNGS, "cuda-sim": CUDA_RUNGS}


def names(device: str, op: str) -> tuple[str, ...]:
    """The algorithms of `op`, the simplest first; a device without a ladder has one, under its own name."""
    return (NUMPY, *(LADDERS[device] if device in LADDERS and op in OPS else (device,)))


def kernel(device: str, op: str, name: str) -> Callable:
    """The kernel of rung `name`, with the contract's signature; it raises ShapeError for shapes it does not support."""
    if name == NUMPY:
        return _on(device, get_device("reference").kernel(op))
    if name not in LADDERS.get(device, ()):
        return get_device(device).kernel(op)
    if device == "cpu":
        from ..kernels.cpu import conv2d

        return conv2d.rung(op, name)
    return _cuda_rung(device, op, name)


def _on(device: str, kernel: Callable) -> Callable:
    """A kernel on NumPy arrays, for those of `device`."""
    place = get_device(device)
    if place.xp is np:
        return kernel

    def through_the_host(*arguments: Any) -> Any:
        return place.asarray(
            kernel(*(place.to_host(one) if isinstance(one, place.xp.ndarray) else one for one in arguments))
        )

    return through_the_host


def _geometry(op: str, arguments: tuple[Any, ...]) -> geometry.Conv2dGeometry:
    """Of a call by the contract."""
    first, second, third, *window = arguments
    if op == "conv2d_forward":
        return geometry.conv2d(first.shape, second.shape, *window)
    return getattr(geometry, op)(first.shape, second.shape, third, *window)


def _cuda_rung(device: str, op: str, name: str) -> Callable:
    """The device's kernel, told to take a rung; ShapeError where it would take another."""
    from ..kernels.cuda import ladder

    kernel = get_device(device).kernel(op)

    def rung(*arguments: Any) -> Any:
        geo, dtype = _geometry(op, arguments), arguments[0].dtype
        if not ladder.supports(name, op, geo, dtype):
            precision = settings.precision
            raise ShapeError(
                f"rung {name!r} does not compute a convolution of {geo} in {dtype} at precision {precision}"
            )
        with settings.using(convolution=name):
            return kernel(*arguments)

    return rung


def chosen(device: str, work: Convolution, changing: bool = False) -> str:
    """The algorithm that the device takes for `work` under the current settings, its weights constant or `changing`."""
    if device not in LADDERS:
        return device
    geo = geometry.conv2d(work.x_shape, work.w_shape, *work.window)
    if device == "cpu":
        from ..kernels.cpu import ladder

        return ladder.computing(work.op, geo, work.dtype, changing)
    from ..kernels.cuda import ladder

    return ladder.choose(work.op, geo, np.dtype(work.dtype)).name


def computed(work: Convolution, algorithm: str) -> str:
    """The precision of the products of `algorithm`: that of `work`, but float32 where it uses no tensor cores."""
    return "float32" if algorithm == NUMPY or algorithm in CUDA_RUNGS[:-1] else work.precision


def describe(device: str) -> str:
    """The settings under which the rungs of `device` are timed, for a table's foot."""
    chosen = f"convolution = {settings.convolution}, precision = {settings.precision}"
    return f"{chosen}, {settings.threads} threads, device {device}"
