"""Optimisers and learning-rate schedules. The update rules stand in `kernels/reference/optimizers.py`.

An optimiser's state is a dictionary of arrays, so that a checkpoint can hold it beside the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import CheckpointError, MinifcnError
from .nn import Parameter
from .nn.module import refuse_frozen

SCHEDULES = ("fixed", "step", "poly")


class Optimizer:
    """Base: named parameters, and one array of state a parameter for each name in `slots`."""

    slots: tuple[str, ...] = ()

    def __init__(self, parameters: dict[str, Parameter]) -> None:
        self.parameters = parameters
        self.steps = 0
        self.state = {
            slot: {name: p.place.xp.zeros_like(p.data) for name, p in parameters.items()} for slot in self.slots
        }

    def step(self, lr: float) -> None:
        """Update every parameter that has a gradient, at learning rate `lr`. Raises MinifcnError if one is frozen."""
        refuse_frozen({name: p for name, p in self.parameters.items() if p.grad is not None}, "step()")
        self.steps += 1
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                self._update(parameter, lr, *(self.state[slot][name] for slot in self.slots))

    def _update(self, parameter: Parameter, lr: float, *state: Any) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """{"slot/parameter": array} of all state, as NumPy arrays."""
        return {
            f"{slot}/{name}": self.parameters[name].place.to_host(array)
            for slot, arrays in self.state.items()
            for name, array in arrays.items()
        }

    def load_state_dict(self, state: dict[str, np.ndarray], steps: int) -> None:
        """Continue from `state`, `steps` steps in; raises CheckpointError unless it has exactly this one's names."""
        own = set(self.state_dict())
        if set(state) != own:
            differing = ", ".join(sorted(set(state) ^ own))
            raise CheckpointError(f"optimiser state does not fit {type(self).__name__}: {differing}")
        for slot, arrays in self.state.items():
            for name, array in arrays.items():
                array[...] = self.parameters[name].place.asarray(state[f"{slot}/{name}"])
        self.steps = steps


class SGD(Optimizer):
    """Stochastic gradient descent with momentum and weight decay; `form` is "pytorch" or "caffe"."""

    slots = ("velocity",)

    def __init__(
        self,
        parameters: dict[str, Parameter],
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        form: str = "pytorch",
    ) -> None:
        super().__init__(parameters)
        self.momentum, self.weight_decay, self.form = momentum, weight_decay, form

    def _update(self, parameter: Parameter, lr: float, velocity: Any) -> None:
        step = parameter.place.kernel("sgd_step")
        step(parameter.data, parameter.grad.data, velocity, lr, self.momentum, self.weight_decay, self.form)


class Adam(Optimizer):
    """Adam; with `decoupled` weight decay it is AdamW."""

    slots = ("mean", "square")

    def __init__(
        self,
        parameters: dict[str, Parameter],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        super().__init__(parameters)
        self.betas, self.eps, self.weight_decay, self.decoupled = betas, eps, weight_decay, decoupled

    def _update(self, parameter: Parameter, lr: float, mean: Any, square: Any) -> None:
        step = parameter.place.kernel("adam_step")
        rule = (lr, self.betas, self.eps, self.weight_decay, self.steps, self.decoupled)
        step(parameter.data, parameter.grad.data, mean, square, *rule)


OPTIMIZERS = ("sgd", "sgd-caffe", "adam", "adamw")


def build(name: str, parameters: dict[str, Parameter], momentum: float, weight_decay: float) -> Optimizer:
    """The optimiser `name`, one of OPTIMIZERS; `momentum` is beta1 for Adam."""
    if name in ("sgd", "sgd-caffe"):
        return SGD(parameters, momentum, weight_decay, "caffe" if name == "sgd-caffe" else "pytorch")
    if name in ("adam", "adamw"):
        return Adam(parameters, (momentum, 0.999), weight_decay=weight_decay, decoupled=name == "adamw")
    raise MinifcnError(f"optimizer (={name!r}) must be one of {', '.join(OPTIMIZERS)}")


@dataclass(frozen=True)
class Schedule:
    """Learning rate at step t of T.

    fixed  lr;   step  lr gamma^floor(t / every);   poly  lr (1 - t / T)^power (Chen et al., 2015, DeepLab)
    """

    lr: float
    total: int
    kind: str = "fixed"
    power: float = 0.9
    every: int = 1000
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise MinifcnError(f"schedule (={self.kind!r}) must be one of {', '.join(SCHEDULES)}")
        if not self.lr > 0:
            raise MinifcnError(f"learning rate (={self.lr}) must be above 0")
        if self.every < 1:
            raise MinifcnError(f"steps between drops of the learning rate (={self.every}) must be at least 1")

    def __call__(self, step: int) -> float:
        """The rate for step `step`, counted from 0."""
        if self.kind == "step":
            return self.lr * self.gamma ** (step // self.every)
        if self.kind == "poly":
            return self.lr * (1 - min(step, self.total) / self.total) ** self.power
        return self.lr
