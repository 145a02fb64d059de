"""Every convolution of a network at its real size, in all directions that a training step needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import models
from ..device import get_device
from ..kernels import geometry
from ..kernels.geometry import Conv2dGeometry
from ..nn import Conv2d, MaxPool2d
from . import convolutions, record, rungs
from .convolutions import Setting
from .work import OPS, Convolution, Network

NUMPY_FLOP = 2e9  # about half a second a call
Kernels = Sequence[tuple[str, Callable]]  # (name of the contract, function)


def _w_order(weight: np.ndarray) -> tuple[int, ...]:
    """Axes of `weight` as they lie in memory, outermost first."""
    return tuple(int(axis) for axis in np.argsort([-stride for stride in weight.strides], kind="stable"))


def convolutions_of(work: Network) -> list[tuple[str, Conv2dGeometry, tuple[int, ...]]]:
    """(name, geometry, memory order of its weights) of each convolution, as `work`'s images meet them."""
    network = models.build(work.model, backbone=work.net, classes=work.classes, dtype=work.dtype)
    found, pools, shape = [], {}, (work.batch, 3, *work.size)

    def meet(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        layer = getattr(network, name)
        if isinstance(layer, MaxPool2d):
            return geometry.pool2d(shape, layer.window, layer.stride, ceil_mode=True).y_shape
        if not isinstance(layer, Conv2d):
            return shape
        geo = geometry.conv2d(shape, layer.weight.shape, layer.stride, layer.padding)
        found.append((name, geo, _w_order(layer.weight.numpy())))
        return geo.y_shape

    for name in network.trunk:
        shape = pools[name] = meet(name, shape)
    for _, pool, score in network.skips:
        meet(score, pools[pool])
    return found


def works(network: Network) -> Iterator[Convolution]:
    """One work for each layer and direction; nobody asks for the gradient of the images."""
    found = convolutions_of(network)
    for op in OPS:
        for index, (name, geo, order) in enumerate(found):
            if index or op != "conv2d_backward_input":
                yield replace(from_geometry(op, name, geo, network.dtype, order), precision=network.precision)


def from_geometry(
    op: str, layer: str, geo: Conv2dGeometry, dtype: str, order: tuple[int, ...] = (0, 1, 2, 3)
) -> Convolution:
    """The work of one kernel call."""
    window = (geo.stride, geo.padding, geo.dilation, geo.groups)
    return Convolution(op, layer, geo.x_shape, geo.w_shape, geo.y_shape, *window, dtype=dtype, w_order=order)


def rows(network: Network, setting: Setting, kernels: Kernels) -> Iterator[dict[str, Any]]:
    """The rows of all layers: the device's kernels, and beside them a user's `kernels`."""
    device = get_device(setting.device)
    for work in works(network):
        contestants = {record.OWN: device.kernel(work.op)} | _named(work.op, kernels)
        yield from convolutions.rows(work, contestants, setting)


def _named(op: str, kernels: Kernels) -> dict[str, Callable]:
    """A user's kernels for `op` by the names of the functions."""
    return {function.__name__: function for name, function in kernels if name == op}


def ladder(works: list[Convolution], setting: Setting, kernels: Kernels) -> Iterator[dict[str, Any]]:
    """The rows of every rung at each of `works`, a user's kernels last."""
    for work in works:
        contestants, left_out = {}, []
        for name in rungs.names(setting.device, work.op):
            if name == rungs.NUMPY and work.flop > NUMPY_FLOP:
                left_out.append(name)
            else:
                contestants[name] = rungs.kernel(setting.device, work.op, name)
        contestants |= _named(work.op, kernels)
        for row in convolutions.rows(work, contestants, setting):
            row["notes"] += [f"{name} left out: {work.flop:.1e} FLOP" for name in left_out]
            row["chosen"] = rungs.chosen(setting.device, work)
            yield row
