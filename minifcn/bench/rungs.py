"""Which kernels there are for an op: the device's own, every rung of its ladder, the reference, a user's."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType

from ..device import get_device
from ..kernels import geometry
from ..kernels.settings import settings
from .work import Convolution

NUMPY = "numpy"  # the rung that every op has: the reference
LADDERS = {"cpu": "minifcn.kernels.cpu.ladder"}


def _ladder(device: str) -> ModuleType | None:
    name = LADDERS.get(device)
    return importlib.import_module(name) if name and importlib.util.find_spec(name) else None


def names(device: str, op: str) -> tuple[str, ...]:
    """The algorithms of `op`, the simplest first; a device without a ladder has one, under its own name."""
    ladder = _ladder(device)
    return (NUMPY, *(ladder.RUNGS[op] if ladder and op in ladder.RUNGS else (device,)))


def kernel(device: str, op: str, name: str) -> Callable:
    """The kernel of rung `name`, with the contract's signature; it raises ShapeError for shapes it does not support."""
    if name == NUMPY:
        return get_device("reference").kernel(op)
    ladder = _ladder(device)
    return ladder.rung(op, name) if ladder and name in ladder.RUNGS.get(op, ()) else get_device(device).kernel(op)


def chosen(device: str, work: Convolution) -> str:
    """The algorithm that the device takes for `work` under the current settings."""
    ladder = _ladder(device)
    if ladder is None or work.op not in ladder.RUNGS:
        return device
    geo = geometry.conv2d(work.x_shape, work.w_shape, *work.window)
    return ladder.choose(work.op, geo, work.dtype)


def describe(device: str) -> str:
    return f"convolution = {settings.convolution}, {settings.threads} threads, device {device}"
