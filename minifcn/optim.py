"""Optimisers, the rates of single parameters, and learning-rate schedules.

The update rules stand in `kernels/reference/optimizers.py`. An optimiser's state is a dictionary of arrays, so that a
checkpoint can hold it beside the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .device import Device
from .errors import CheckpointError, MinifcnError
from .nn import Parameter
from .nn.module import refuse_frozen

SCHEDULES = ("fixed", "step", "poly")

# --- rates of single parameters ---


@dataclass(frozen=True)
class Multiplier:
    """What the learning rate and the weight decay of one parameter are multiplied by (Caffe's lr_mult, decay_mult)."""

    lr: float = 1.0
    decay: float = 1.0


# Which biases learn at twice the rate and without decay, as in Caffe's examples.
BIAS_RULES = {
    "plain": "none",
    "caffe": "all, as in the released VGG16 nets",
    "caffe-scores": "those of score layers, as in the released AlexNet net",
}


def multipliers(
    names: Iterable[str], bias_rule: str = "plain", new_layers: Iterable[str] = (), lr_new: float = 1.0
) -> dict[str, Multiplier]:
    """The multipliers of the parameters `names` ("layer.weight", "layer.bias"): the rates of `new_layers` are
    multiplied by `lr_new`, and of biases as `bias_rule`, one of BIAS_RULES, says.
    """
    if bias_rule not in BIAS_RULES:
        raise MinifcnError(f"bias_rule (={bias_rule!r}) must be one of {', '.join(BIAS_RULES)}")
    new = set(new_layers)

    def of(name: str) -> Multiplier:
        layer, _, kind = name.rpartition(".")
        rate = lr_new if layer in new else 1.0
        doubled = kind == "bias" and (bias_rule == "caffe" or (bias_rule != "plain" and layer.startswith("score")))
        return Multiplier(2 * rate, 0.0) if doubled else Multiplier(rate)

    return {name: of(name) for name in names}


# --- gradients as a whole ---


def gradient_norm(parameters: Iterable[Parameter]) -> float:
    """The L2 norm, summed in float64, of all gradients together; parameters without one do not count."""
    squares = 0.0
    for parameter in parameters:
        if parameter.grad is not None:
            flat = parameter.grad.data.ravel(order="K")
            squares += float(parameter.place.xp.einsum("i,i->", flat, flat, dtype=np.float64))
    return math.sqrt(squares)


def clip_gradients(parameters: Iterable[Parameter], limit: float) -> float:
    """Scale all gradients by one factor so that their norm is at most `limit`; returns the norm before.

    Pascanu, Mikolov and Bengio, 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
    """
    parameters = list(parameters)
    norm = gradient_norm(parameters)
    if norm > limit:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.data *= parameter.dtype.type(limit / norm)
    return norm


# --- update rules ---


class Optimizer:
    """Base: named parameters, and one array of state a parameter for each name in `slots`; `kernel` updates one.

    `multipliers`: by name, of parameters whose rate or decay differs from the others'.
    """

    kernel: str
    slots: tuple[str, ...] = ()

    def __init__(
        self,
        parameters: dict[str, Parameter],
        weight_decay: float = 0.0,
        multipliers: dict[str, Multiplier] | None = None,
    ) -> None:
        self.parameters, self.weight_decay, self.multipliers = parameters, weight_decay, multipliers or {}
        self.steps, self.lr = 0, 0.0
        self.state = {
            slot: {name: p.place.xp.zeros_like(p.data) for name, p in parameters.items()} for slot in self.slots
        }

    def step(self, lr: float) -> None:
        """Update every parameter that has a gradient, at learning rate `lr`. Raises MinifcnError if one is frozen."""
        refuse_frozen({name: p for name, p in self.parameters.items() if p.grad is not None}, "step()")
        self.advance(lr)
        self.update()

    def advance(self, lr: float) -> None:
        """Half of a step: choose the numbers of the rule for the next one."""
        self.lr = lr
        self.steps += 1

    def update(self) -> None:
        """The other half: the kernel, by the numbers that `advance` chose; in a graph, before each replay."""
        names: dict[Device, list[str]] = {}
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                names.setdefault(parameter.place, []).append(name)
        for place, of_place in names.items():
            place.each(self.kernel, partial(self._calls, of_place))

    def _calls(self, names: list[str]) -> list[tuple[Any, ...]]:
        """The arguments of `kernel` for each of the parameters `names`."""
        calls = []
        for name in names:
            parameter, state = self.parameters[name], (self.state[slot][name] for slot in self.slots)
            calls.append((parameter.data, parameter.grad.data, *state, *self._rule(*self.rates(name, self.lr))))
        return calls

    def rates(self, name: str, lr: float) -> tuple[float, float]:
        """(learning rate, weight decay) of the parameter `name` where the common rate is `lr`."""
        multiplier = self.multipliers.get(name, Multiplier())
        return lr * multiplier.lr, self.weight_decay * multiplier.decay

    def _rule(self, lr: float, weight_decay: float) -> tuple[Any, ...]:
        """The arguments of `kernel` after the arrays."""
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

    kernel, slots = "sgd_step", ("velocity",)

    def __init__(
        self,
        parameters: dict[str, Parameter],
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        form: str = "pytorch",
        multipliers: dict[str, Multiplier] | None = None,
    ) -> None:
        super().__init__(parameters, weight_decay, multipliers)
        self.momentum, self.form = momentum, form

    def _rule(self, lr: float, weight_decay: float) -> tuple[Any, ...]:
        return lr, self.momentum, weight_decay, self.form


class Adam(Optimizer):
    """Adam; with `decoupled` weight decay it is AdamW."""

    kernel, slots = "adam_step", ("mean", "square")

    def __init__(
        self,
        parameters: dict[str, Parameter],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        multipliers: dict[str, Multiplier] | None = None,
    ) -> None:
        super().__init__(parameters, weight_decay, multipliers)
        self.betas, self.eps, self.decoupled = betas, eps, decoupled

    def _rule(self, lr: float, weight_decay: float) -> tuple[Any, ...]:
        return lr, self.betas, self.eps, weight_decay, self.steps, self.decoupled


OPTIMIZERS = ("sgd", "sgd-caffe", "adam", "adamw")


def kind(name: str) -> type[Optimizer]:
    """The class of the optimiser `name`, one of OPTIMIZERS."""
    return SGD if name.startswith("sgd") else Adam


def build(
    name: str,
    parameters: dict[str, Parameter],
    momentum: float,
    weight_decay: float,
    multipliers: dict[str, Multiplier] | None = None,
) -> Optimizer:
    """The optimiser `name`, one of OPTIMIZERS; `momentum` is beta1 for Adam."""
    if name in ("sgd", "sgd-caffe"):
        form = "caffe" if name == "sgd-caffe" else "pytorch"
        return SGD(parameters, momentum, weight_decay, form, multipliers)
    if name in ("adam", "adamw"):
        return Adam(
            parameters,
            (momentum, 0.999),
            weight_decay=weight_decay,
            decoupled=name == "adamw",
            multipliers=multipliers,
        )
    raise MinifcnError(f"optimizer (={name!r}) must be one of {', '.join(OPTIMIZERS)}")


# --- schedules ---


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
