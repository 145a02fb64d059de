"""An example worked three times: by hand (its terms added up), by a device's kernels, and by finite differences.

The difference for one element e of an input is <f(x + h e) - f(x - h e), dy> / 2h in float64. h = 1 for (bi)linear
ops, where it is exact. At a kink the slopes ahead and behind differ and there is no derivative: then the gradient
must lie between the two (it is a subgradient).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..device import Device, get_device
from ..tensor import Tensor, no_grad
from .examples import Example
from .terms import Sum, gradient, number

STEPS = {"linear": 1.0, "piecewise": 1 / 32, "curved": 1e-5}
STEPS_SHOWN = {"linear": "1", "piecewise": "1/32", "curved": "0.00001"}
TOLERANCES = {"linear": 1e-10, "piecewise": 1e-10, "curved": 1e-7}
ROUNDING = 1e-12  # by hand against a kernel, both in float64
KINK = 1e-3


def _close(a: float, b: float, tolerance: float) -> bool:
    return abs(a - b) <= tolerance * (1 + abs(a))


@dataclass(frozen=True)
class Slopes:
    """The difference quotients of <f, dy> behind and ahead of a point."""

    behind: float
    ahead: float
    kind: str

    @property
    def central(self) -> float:
        return (self.behind + self.ahead) / 2

    @property
    def is_kink(self) -> bool:
        return self.kind == "piecewise" and abs(self.ahead - self.behind) > KINK * (1 + abs(self.central))

    @property
    def text(self) -> str:
        """The difference quotient as one reads it; at a kink those of both sides."""
        return f"{number(self.behind)} or {number(self.ahead)}" if self.is_kink else number(self.central)

    def allows(self, value: float) -> bool:
        """Whether `value` is the derivative, or at a kink a subgradient."""
        tolerance = TOLERANCES[self.kind]
        if not self.is_kink:
            return _close(value, self.central, tolerance)
        slack = tolerance * (1 + abs(value))
        low, high = sorted((self.behind, self.ahead))
        return low - slack <= value <= high + slack


@dataclass(frozen=True)
class Row:
    """One number from every side; an output element has no `slopes`."""

    by_hand: Sum
    kernel: float
    slopes: Slopes | None = None

    @property
    def agrees(self) -> bool:
        """False for NaN from any side."""
        value = self.by_hand.value
        return _close(value, self.kernel, ROUNDING) and (self.slopes is None or self.slopes.allows(value))

    @property
    def is_untouched(self) -> bool:
        """Zero from every side because no term contains the element."""
        return not self.by_hand.terms and self.agrees and not (self.slopes and self.slopes.is_kink)


@dataclass(frozen=True)
class Worked:
    """All rows of an example on one device: the outputs, and the gradient of each input."""

    example: Example
    device: str
    outputs: list[Row]
    gradients: dict[str, list[Row]]

    @property
    def disagreements(self) -> list[Row]:
        rows = [*self.outputs, *(row for rows in self.gradients.values() for row in rows)]
        return [row for row in rows if not row.agrees]

    @property
    def agrees(self) -> bool:
        return not self.disagreements

    @property
    def count(self) -> int:
        return len(self.outputs) + sum(len(rows) for rows in self.gradients.values())


def work(example: Example, device: str | Device = "cpu") -> Worked:
    """Work `example` by hand, by the kernels of `device` and by finite differences of its forward pass."""
    device = get_device(device)
    y, gradients = _by_kernel(example, device)
    rows = {}
    for name, array in example.inputs.items():
        by_hand = gradient(name, array.shape, example.shares, example.output, example.dy)
        rows[name] = [
            Row(total, float(gradients[name][total.index]), _slopes(example, device, name, total.index))
            for total in by_hand
        ]
    outputs = [Row(total, float(y[total.index])) for total in example.outputs]
    return Worked(example, device.name, outputs, rows)


def _by_kernel(example: Example, device: Device) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The device's output and gradients in float64; NaN where it gives another shape than the one by hand."""
    leaves = {name: Tensor(device.asarray(x), True, device) for name, x in example.inputs.items()}
    y = example.op(*leaves.values(), **example.arguments)
    if y.shape != example.dy.shape:
        return np.full(example.dy.shape, math.nan), {n: np.full(x.shape, math.nan) for n, x in example.inputs.items()}
    y.backward(device.asarray(example.dy))

    def of(name: str) -> np.ndarray:
        shape, found = example.inputs[name].shape, leaves[name].grad
        return found.numpy() if found is not None and found.shape == shape else np.full(shape, math.nan)

    return y.numpy(), {name: of(name) for name in leaves}


def _slopes(example: Example, device: Device, name: str, index: tuple[int, ...]) -> Slopes:
    """The slopes of <f, dy> at one element of the input `name`."""
    h = STEPS[example.kind]

    def along(step: float) -> float:
        moved = {key: x.copy() for key, x in example.inputs.items()}
        moved[name][index] += step
        with no_grad():
            y = example.op(*(Tensor(device.asarray(x), device=device) for x in moved.values()), **example.arguments)
        return float(np.sum(y.numpy() * example.dy)) if y.shape == example.dy.shape else math.nan

    behind, here, ahead = along(-h), along(0), along(h)
    return Slopes((here - behind) / h, (ahead - here) / h, example.kind)


def explanation(worked: Worked) -> list[str]:
    """How the three columns of the gradients come about, in words."""
    example, output = worked.example, worked.example.output
    h = STEPS_SHOWN[example.kind]
    total = f"{output} d{output}" if example.dy.ndim == 0 else f"the sum of all {output} d{output}"
    if example.kind == "linear":
        rule = f"take the terms of {output} that contain the element, and put d{output} in its place"
    elif example.dy.ndim == 0:
        rule = f"the derivative of {output} by the element, times d{output}"
    else:
        rule = f"the derivative of each {output} that depends on the element, times its d{output}"
    return [
        f"By hand: {rule}. Add up.",
        f"Kernel: what the library computes on the device {worked.device}.",
        f"Difference: {total}, with the element raised by h = {h}, less that with it lowered by h, over 2h.",
    ]


def conclusion(worked: Worked) -> str:
    """Whether the numbers agree, in words; where they do not, which, in all digits."""
    if worked.agrees:
        return (
            f"All {worked.count} numbers agree: by hand, by the kernels of {worked.device}, and every gradient with "
            f"its difference quotient."
        )
    lines = [f"{len(worked.disagreements)} of {worked.count} numbers DISAGREE:"]
    for row in worked.disagreements:
        line = f"{row.by_hand.target}: {row.by_hand.value!r} by hand, {row.kernel!r} by the kernel"
        lines.append(line if row.slopes is None else f"{line}, {row.slopes.central!r} by difference")
    return "\n".join(lines)
