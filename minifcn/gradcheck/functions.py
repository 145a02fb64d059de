"""What can be checked, brought to one form: arrays in, an array out, and a pullback from dy to the gradients.

`run(arrays)` gives (y, pullback), `pullback(dy)` one gradient an input (None where there is none). A function on
Tensors brings its backward pass along; a pair of plain functions has it written beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..device import Device, get_device
from ..tensor import Tensor, no_grad

Pullback = Callable[[np.ndarray], list[np.ndarray | None]]


class CallFailed(Exception):
    """The function under test raised; the cause is its own error."""


@contextmanager
def _failing_as(what: str) -> Iterator[None]:
    """Turn every error of the function under test into CallFailed."""
    try:
        yield
    except Exception as error:
        raise CallFailed(f"{what} raised {type(error).__name__}: {error}") from error


class TensorFunction:
    """A function of Tensors that returns a Tensor: an op, a module, a network.

    `parameters` are Tensors that it holds inside and that require gradients. They count as further inputs; they have
    their own values again after each run, and no gradient.
    """

    def __init__(
        self, function: Callable[..., Tensor], device: str | Device, parameters: Mapping[str, Tensor] | None = None
    ) -> None:
        self.function, self.device = function, get_device(device)
        self.parameters = list((parameters or {}).values())

    def in_reference(self) -> TensorFunction:
        """The same function on a reference device of its own, which nobody has replaced kernels of."""
        other = TensorFunction(self.function, Device("reference"))
        other.parameters = self.parameters
        return other

    @contextmanager
    def _holding(self, arrays: Sequence[np.ndarray]) -> Iterator[None]:
        """Run with `arrays` as the values of the parameters."""
        before = [(parameter.data, parameter.place) for parameter in self.parameters]
        try:
            for parameter, array in zip(self.parameters, arrays, strict=True):
                parameter.data, parameter.place = self.device.asarray(array), self.device
            yield
        finally:
            for parameter, (data, place) in zip(self.parameters, before, strict=True):
                parameter.data, parameter.place = data, place

    def _call(self, arrays: Sequence[np.ndarray], wanted: Sequence[bool]) -> tuple[Tensor, list[Tensor]]:
        """The output, and the leaves in the order of `arrays`."""
        inputs = len(arrays) - len(self.parameters)
        tensors = [
            Tensor(self.device.asarray(array), requires_grad=want, device=self.device)
            for array, want in zip(arrays[:inputs], wanted, strict=False)
        ]
        with self._holding(arrays[inputs:]), _failing_as("forward"):
            return self.function(*tensors), tensors + self.parameters

    def forward(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        with no_grad():
            return self._call(arrays, [False] * len(arrays))[0].numpy()

    def run(self, arrays: Sequence[np.ndarray], wanted: Sequence[bool] | None = None) -> tuple[np.ndarray, Pullback]:
        """(y, pullback); `wanted` says of each input whether its gradient is asked for (None: all)."""
        y, leaves = self._call(arrays, wanted or [True] * len(arrays))

        def pullback(dy: np.ndarray) -> list[np.ndarray | None]:
            for leaf in leaves:
                leaf.grad = None
            with _failing_as("backward"):
                y.backward(self.device.asarray(dy))
            gradients = [None if leaf.grad is None else leaf.grad.numpy() for leaf in leaves]
            for leaf in leaves:
                leaf.grad = None
            return gradients

        return y.numpy(), pullback


class ArrayFunction:
    """A pair of plain functions: y = forward(*arrays), and the gradients = backward(dy, *arrays).

    `backward` returns one array, or one an input. `reference` is a forward pass that can be trusted in float64;
    without it, `forward` itself is run on float64 arrays.
    """

    def __init__(self, forward: Callable, backward: Callable, reference: Callable | None = None) -> None:
        self._forward, self._backward, self._reference = forward, backward, reference
        self.device = get_device("reference")

    def in_reference(self) -> ArrayFunction:
        return ArrayFunction(self._reference or self._forward, self._backward)

    def forward(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        with _failing_as("forward"):
            return np.asarray(self._forward(*arrays))

    def run(self, arrays: Sequence[np.ndarray], wanted: Sequence[bool] | None = None) -> tuple[np.ndarray, Pullback]:
        def pullback(dy: np.ndarray) -> list[np.ndarray | None]:
            with _failing_as("backward"):
                gradients: Any = self._backward(dy, *arrays)
            return list(gradients) if isinstance(gradients, (tuple, list)) else [gradients]

        return self.forward(arrays), pullback


Function = TensorFunction | ArrayFunction
