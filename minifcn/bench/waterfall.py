"""Where the time of a training step goes: each kernel with a clock around it, in a pass of its own.

The clocks cost little but not nothing, so these times explain, and the step's own time stays the claim. A convolution
is named after the layer whose parameters or activations it was called with.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..device import get_device, replaced
from . import devices
from .networks import OwnNetwork
from .work import Network

WARM, STEPS = 2, 5
REST = "rest"
CLASSES = {
    "conv2d_forward": "conv forward",
    "conv2d_relu_forward": "conv forward",
    "conv2d_relu_backward": "conv backward, all in one",
    "conv2d_relu_max_pool2d_forward": "conv forward",
    "conv2d_relu_max_pool2d_backward": "conv backward, all in one",
    "conv2d_backward_input": "conv backward input",
    "conv2d_backward_weight": "conv backward weight",
    "conv2d_backward_bias": "conv backward bias",
    "max_pool2d": "pooling",
    "bilinear": "head",
    "upsample": "head",
    "crop": "head",
    "cross_entropy": "head",
    "relu": "elementwise",
    "dropout": "elementwise",
    "add": "elementwise",
    "scale": "elementwise",
    "sgd": "optimiser",
    "adam": "optimiser",
}


def op_class(kernel: str) -> str:
    """The part of a step that `kernel` belongs to."""
    return next((name for start, name in CLASSES.items() if kernel.startswith(start)), kernel)


class _Clocks:
    """Seconds by (class, layer), of all kernels of a device."""

    def __init__(self, network: Any, device: str) -> None:
        self.wait = devices.waiter(device)
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.layers = {id(one.data): name.rpartition(".")[0] for name, one in network.named_parameters()}
        self.kept: list[Any] = []  # arrays whose identity names a layer must stay alive

    def forget(self) -> None:
        """After a step: its activations no longer name layers."""
        for array in self.kept:
            self.layers.pop(id(array), None)
        self.kept.clear()

    def around(self, name: str, kernel: Callable) -> Callable:
        kind = op_class(name)

        @functools.wraps(kernel)
        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            result = kernel(*arguments, **named)
            self.wait()
            self.seconds[kind, self._layer(kind, arguments)] += time.perf_counter() - started
            return result

        return timed

    def _layer(self, kind: str, arguments: tuple[Any, ...]) -> str:
        """The layer's name for a convolution; other kernels are told by their class alone."""
        if not kind.startswith("conv"):
            return ""
        arrays = [one for one in arguments if hasattr(one, "dtype") and one.ndim]
        layer = next((self.layers[id(one)] for one in arrays if id(one) in self.layers), "")
        for one in arrays if layer else ():  # x and dy name the layer to the gradients that do not see its weights
            if id(one) not in self.layers:
                self.layers[id(one)] = layer
                self.kept.append(one)
        return layer


def measure(work: Network, device: str, kernels: dict[str, Callable]) -> list[dict[str, Any]]:
    """[{"class", "layer", "us", "share"}] of a step, the largest class first; the classes add up to the step."""
    own = OwnNetwork(replace(work, graph=False), device)  # clocks stand between kernels
    place = get_device(device)
    clocks = _Clocks(own.network, device)
    with replaced(device, **kernels):
        timed = {name: clocks.around(name, place.kernel(name)) for name in place.kernel_names}
    with replaced(device, **timed):
        for number in range(WARM):
            own.step(number)
            clocks.forget()
        clocks.seconds.clear()
        started = time.perf_counter()
        for number in range(STEPS):
            own.step(number)
            clocks.forget()
        clocks.wait()
        total = time.perf_counter() - started
    clocks.seconds[REST, ""] = total - sum(clocks.seconds.values())
    by_class: dict[str, float] = defaultdict(float)
    for (kind, _), seconds in clocks.seconds.items():
        by_class[kind] += seconds
    entries = sorted(clocks.seconds.items(), key=lambda item: (-by_class[item[0][0]], item[0][0], -item[1]))
    return [
        {"class": kind, "layer": layer, "us": round(seconds / STEPS * 1e6, 1), "share": round(seconds / total, 4)}
        for (kind, layer), seconds in entries
    ]


def by_class(entries: list[dict[str, Any]]) -> dict[str, float]:
    """Microseconds of each class."""
    sums: dict[str, float] = defaultdict(float)
    for entry in entries:
        sums[entry["class"]] += entry["us"]
    return dict(sums)


def text(entries: list[dict[str, Any]]) -> str:
    """One line a class: time, share of the step, its three longest layers."""
    lines, total = ["where a step's time goes (a pass with clocks around the kernels):"], sum(e["us"] for e in entries)
    for kind, sum_us in by_class(entries).items():
        layers = [e for e in entries if e["class"] == kind and e["layer"]][:3]
        listed = ", ".join(f"{e['layer']} {e['us'] / 1e3:.1f}" for e in layers)
        lines.append(f"  {kind:22}{sum_us / 1e3:9.1f} ms {sum_us / total:6.1%}{f'   {listed}' if listed else ''}")
    return "\n".join(lines)
