"""One convolution: proven, timed beside PyTorch in both memory formats, and put into rows of the record.

Weights that are read-only are constant to the kernels, which may keep what they derive from them (as in inference); of
writable ones they derive it anew in every call (as in training). Both are timed: `time` and `with transform`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..device import Device, get_device
from ..kernels.checks import ShapeError
from . import gate, inputs, record, rungs
from .ceilings import Ceilings
from .devices import sampler
from .gate import RIGHT, Proof, Truth
from .peer import FORMATS, Peer
from .rounds import Budget, Contestant, take
from .work import Convolution

Kernel = Callable[..., np.ndarray]


CHANNELS_LAST = (0, 2, 3, 1)  # [N, C, H, W] over NHWC memory: what the networks' kernels hand to each other


def _in_order(array: np.ndarray, order: tuple[int, ...], place: Device) -> Any:
    """A copy of `array` on the device `place`, whose axes lie in memory in `order`, outermost first."""
    return place.asarray(np.array(array.transpose(order), order="C")).transpose([int(i) for i in np.argsort(order)])


class OwnJob:
    """A kernel of this project's contract on the sets of data of `work`, which lie on `device`."""

    def __init__(self, work: Convolution, kernel: Kernel, device: str = "cpu") -> None:
        self.work, self.kernel, self.place = work, kernel, get_device(device)
        self.shared = {name: self.place.asarray(array) for name, array in inputs.weights(work).items()}
        if "w" in self.shared:
            self.shared["w"] = _in_order(inputs.weights(work)["w"], work.w_order, self.place)
        self.sets = [self.activations(inputs.TIMED + number) for number in range(work.sets)]

    def activations(self, number: int) -> dict[str, Any]:
        arrays = inputs.activations(self.work, number)
        return {name: _in_order(array, CHANNELS_LAST, self.place) for name, array in arrays.items()}

    def with_weights(self, writable: bool) -> dict[str, Any]:
        """The weights as constants, or as a training step has them."""
        found = {name: array.copy(order="K") for name, array in self.shared.items()}
        return found if writable else {name: self.place.constant(array) for name, array in found.items()}

    def call(self, data: dict[str, Any]) -> Any:
        work = self.work
        if work.op == "conv2d_forward":
            return self.kernel(data["x"], data["w"], data["b"], *work.window)
        if work.op == "conv2d_backward_input":
            return self.kernel(data["dy"], data["w"], work.x_shape[2:], *work.window)
        return self.kernel(data["dy"], data["x"], work.w_shape[2:], *work.window)

    def contestant(self, writable: bool) -> Contestant:
        shared = self.with_weights(writable)
        sets = [one | shared for one in self.sets]
        sample = sampler(self.place.name)
        return lambda repeats: sample(lambda i: self.call(sets[i % len(sets)]), repeats)

    def prove(self, truths: list[Truth]) -> Proof:
        proof = RIGHT
        for writable in (False, True) if self.work.uses_weights else (True,):
            shared = self.with_weights(writable)
            for number, truth in enumerate(truths):
                data = self.activations(number) | shared
                proof &= gate.prove(self.work, lambda data=data: self.call(data), data, truth, self.place)
        return proof


@dataclass(frozen=True)
class Setting:
    """What all rows of a run share."""

    device: str
    budget: Budget
    ceilings: Ceilings
    cache_bytes: int
    peer: Peer | None = None


def rows(work: Convolution, kernels: dict[str, Kernel], setting: Setting) -> Iterator[dict[str, Any]]:
    """A row of the record for each of `kernels`, all timed in the same rounds."""
    work = work.rotating(setting.cache_bytes)
    truths = gate.truths(work)
    jobs, contestants, proofs, refused = {}, {}, {}, {}
    for name, kernel in kernels.items():
        job = OwnJob(work, kernel, setting.device)
        try:
            proofs[name] = job.prove(truths)
        except ShapeError as error:
            refused[name] = str(error)
            continue
        if proofs[name].passed:
            jobs[name] = job
            contestants[name] = job.contestant(writable=not work.uses_weights)
            if _has_transform(work, name, setting.device):
                contestants[f"{name} {record.TRANSFORM}"] = job.contestant(writable=True)
    baselines, baseline_proofs = _baselines(work, truths, setting.peer)
    if contestants:
        taken = take(contestants | baselines, setting.budget, next(iter(contestants)), tuple(baselines))
    for name in kernels:
        own = name == record.OWN
        algorithm = rungs.chosen(setting.device, work) if own else name
        row = record.row(
            op=work.op, layer=work.layer, shape=work.shape, layout="channels_last", dtype=work.dtype,
            precision=rungs.computed(work, algorithm), params=work.params, device=setting.device, kernel=name,
            algorithm=algorithm, flop=work.flop, bytes=work.bytes,
            floor=setting.ceilings.floor(work.own_flop(algorithm), work.bytes, gate.accuracy(work)),
            cold=work.cold(setting.cache_bytes), sets=work.sets,
        )  # fmt: skip
        if name in refused:
            record.refuse(row, refused[name])
        else:
            record.judge(row, proofs[name], baseline_proofs)
        if name in jobs:
            alternatives = (
                {record.TRANSFORM: f"{name} {record.TRANSFORM}"} if _has_transform(work, name, setting.device) else {}
            )
            record.fill(row, taken, name, alternatives, tuple(baselines))
            if own and alternatives and (other := rungs.chosen(setting.device, work, changing=True)) != algorithm:
                row["notes"].append(f"{record.TRANSFORM}: {other}, which needs none")
        yield row
    if setting.peer:
        setting.peer.ask("drop")


def _has_transform(work: Convolution, name: str, device: str) -> bool:
    """Whether kernel `name` may derive something from weights: neither the reference nor CUDA's do."""
    return work.uses_weights and name != rungs.NUMPY and not device.startswith("cuda")


def _baselines(
    work: Convolution, truths: list[Truth], peer: Peer | None
) -> tuple[dict[str, Contestant], dict[str, Proof]]:
    """PyTorch in each memory format: those that are right as contestants, and all proofs."""
    contestants, proofs = {}, {}
    for form in FORMATS if peer else ():
        name = f"{peer.baseline} {form}"
        peer.ask("prepare", name, work, form)
        proofs[name] = RIGHT
        for number, truth in enumerate(truths):
            proofs[name] &= truth.prove(peer.ask("output", name, number))
        if proofs[name].passed:
            contestants[name] = lambda repeats, name=name: peer.ask("time", name, repeats)
    return contestants, proofs
