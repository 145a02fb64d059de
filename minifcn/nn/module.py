"""Module: a tree of named parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..device import Device, get_device
from ..errors import CheckpointError, MinifcnError
from ..kernels import memory
from ..tensor import Tensor


class Parameter(Tensor):
    """A Tensor that is trained. It owns its memory, without gaps, so that optimisers can update it in place.

    Weights of a convolution, [K, C, R, S], lie in memory as [K, R, S, C]: channels last, like the pixels they meet.

    While it is frozen, `data` is a read-only array over that memory, a new one each time: kernels keep what they derive
    from it.
    """

    def __init__(self, array: np.ndarray, device: str | Device = "cpu") -> None:
        super().__init__(_in_order(np.asarray(array)), requires_grad=True, device=device)
        self._writable: Any = None  # the array behind `data` while that is frozen

    @property
    def is_frozen(self) -> bool:
        return self._writable is not None

    def freeze(self) -> None:
        """Make `data` read-only: writing to it is NumPy's error from now on."""
        if not self.is_frozen:
            self._writable, self.data = self.data, self.place.constant(self.data)

    def unfreeze(self) -> None:
        """Make `data` writable again; what kernels derived from it is forgotten."""
        if self.is_frozen:
            self.data, self._writable = self._writable, None


def refuse_frozen(parameters: dict[str, Parameter], what: str) -> None:
    """Raise MinifcnError, which names them, if any of the parameters that `what` would write to is frozen."""
    frozen = [name for name, parameter in parameters.items() if parameter.is_frozen]
    if frozen:
        raise MinifcnError(f"{what} would write to frozen parameters ({', '.join(frozen)}): call unfreeze() first")


def _in_order(array: np.ndarray) -> np.ndarray:
    """`array`, in memory of its own in the order that parameters have."""
    if array.ndim != 4:
        return memory.copy(array)
    return memory.copy(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


class Module:
    """Base of layers and networks: attributes that are Parameters or Modules form the tree of names.

    A subclass defines `forward(*tensors)`.
    """

    training: bool = True

    def forward(self, *inputs: Tensor) -> Tensor:
        raise NotImplementedError

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.forward(*inputs)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(name, module) of this module and all below it, in the order in which they were assigned."""
        yield prefix, self
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield from value.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """("layer.weight", parameter) of all parameters, in the order of `named_modules`."""
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    yield (f"{prefix}.{name}" if prefix else name), value

    def parameters(self) -> list[Parameter]:
        return [parameter for _, parameter in self.named_parameters()]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def train(self, mode: bool = True) -> Module:
        """Switch dropout on (or off) in this module and all below it."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        return self.train(False)

    def freeze(self) -> Module:
        """Make all parameters read-only: of a network that is only used, kernels prepare the weights once."""
        for parameter in self.parameters():
            parameter.freeze()
        return self

    def unfreeze(self) -> Module:
        """Make all parameters writable again."""
        for parameter in self.parameters():
            parameter.unfreeze()
        return self

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Frozen for a block; afterwards those parameters are writable that were before."""
        writable = [parameter for parameter in self.parameters() if not parameter.is_frozen]
        self.freeze()
        try:
            yield
        finally:
            for parameter in writable:
                parameter.unfreeze()

    def to(self, device: str | Device) -> Module:
        """Move all parameters to `device`; frozen ones are so there too."""
        target = get_device(device)
        for parameter in self.parameters():
            was_frozen = parameter.is_frozen
            parameter.unfreeze()
            parameter.data = target.asarray(parameter.numpy())
            parameter.place, parameter.grad = target, None
            if was_frozen:
                parameter.freeze()
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """All parameters as NumPy arrays (not copied, where the device is the CPU)."""
        return {name: parameter.numpy() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: dict[str, Any], missing_allowed: bool = False) -> list[str]:
        """Copy `state` into the parameters; returns the names that it did not hold.

        Raises CheckpointError, and changes nothing, if a name is unknown, a shape differs, or (unless
        `missing_allowed`) a parameter is missing; the message lists every one of them. MinifcnError if any is frozen.
        """
        own = dict(self.named_parameters())
        refuse_frozen(own, "load_state_dict()")
        unknown = sorted(set(state) - set(own))
        missing = [name for name in own if name not in state]
        mismatched = [
            f"{name} has shape {tuple(state[name].shape)}, but the network needs {own[name].shape}"
            for name in own
            if name in state and tuple(state[name].shape) != own[name].shape
        ]
        complaints = mismatched + [f"{name} is not a parameter of the network" for name in unknown]
        if not missing_allowed:
            complaints += [f"{name} is missing" for name in missing]
        if complaints:
            raise CheckpointError("weights do not fit the network: " + "; ".join(complaints))
        for name, array in state.items():
            own[name].data[...] = own[name].place.asarray(array).astype(own[name].dtype, copy=False)
        return missing
