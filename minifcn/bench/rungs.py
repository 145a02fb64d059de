"""Which kernels there are for an op: the device's own, every rung of its ladder, the reference."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

from ..device import get_device
from ..kernels import geometry
from ..kernels.settings import settings
from .work import Convolution

NUMPY = "numpy"  # the rung that every op has: the reference
LADDERS = {"cpu": ("minifcn.kernels.cpu.ladder", "minifcn.kernels.cpu.conv2d")}  # the choice, and its kernels


def _ladder(device: str, op: str) -> tuple[ModuleType, Callable] | None:
    """(the ladder's module, its function (op, name) -> kernel), where the device has a ladder for `op`."""
    if device not in LADDERS:
        return None
    ladder, kernels = (importlib.import_module(name) for name in LADDERS[device])
    return (ladder, kernels.rung) if op in ladder.DIRECTIONS else None


def names(device: str, op: str) -> tuple[str, ...]:
    """The algorithms of `op`, the simplest first; a device without a ladder has one, under its own name."""
    ladder = _ladder(device, op)
    return (NUMPY, *(ladder[0].RUNGS if ladder else (device,)))


def kernel(device: str, op: str, name: str) -> Callable:
    """The kernel of rung `name`, with the contract's signature; it raises ShapeError for shapes it does not support."""
    if name == NUMPY:
        return get_device("reference").kernel(op)
    ladder = _ladder(device, op)
    return ladder[1](op, name) if ladder else get_device(device).kernel(op)


def chosen(device: str, work: Convolution) -> str:
    """The algorithm that the device takes for `work` under the current settings."""
    ladder = _ladder(device, work.op)
    if ladder is None:
        return device
    geo = geometry.conv2d(work.x_shape, work.w_shape, *work.window)
    return ladder[0].choose(geo, work.dtype)


def describe(device: str) -> str:
    return f"convolution = {settings.convolution}, {settings.threads} threads, device {device}"
