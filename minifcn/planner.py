"""The memory planner: what a training step or a prediction will need, before it is run, and what would fit.

Planned is what a user sees: the largest resident size of the process above what its imports take (some 110 MB; with
matplotlib, which draws the curves of a training, 135). The network is walked through in a rehearsal
(`kernels.memory.rehearsal`): its own forward pass, backward pass and labelling run on arrays of the true shapes, which
geometry gives, but no kernel computes anything, so that nearly no memory or time is used. So lives of arrays,
workspaces, and buffers that wait to be used again are those of the real thing. Added is what lies outside the pool: the
optimiser's state, images and labels, the file that weights are read from, and the kernels' code.

Not in a plan: compiling the kernels, which a new version does once (some 200 MB more). On a busy machine a helper
thread may hold arrays a little longer, and up to a tenth more be resident.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import models
from .errors import MinifcnError
from .kernels import memory
from .models import FCN
from .nn import Parameter
from .optim import SGD, Optimizer
from .receptive import stride
from .tensor import Tensor, no_grad
from .tiling import largest_part

Size = tuple[int, int]
# Measured: what Numba keeps of the kernels that it has loaded.
CODE_OF_TRAINING, CODE_OF_LABELLING, CODE_OF_BOTH = 92 << 20, 64 << 20, 104 << 20
FAR = 1 << 13  # pixels: an image in which a tile has its whole halo


@dataclass(frozen=True)
class Plan:
    """Bytes: what a step or a prediction needs, by what it is for (`parts`), and the most of each phase (`phases`)."""

    parts: dict[str, int]
    phases: dict[str, int]

    @property
    def worst(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=self.phases.__getitem__)

    @property
    def total(self) -> int:
        """Of the phase that needs most."""
        return self.phases[self.worst]


def _copy_without_values(network: FCN) -> FCN:
    """The network with parameters of the same shapes that lie in the pool of the rehearsal."""
    parameters = {id(one): Parameter(np.empty(one.shape, one.dtype)) for one in network.parameters()}
    return copy.deepcopy(network, parameters)


@contextmanager
def _rehearsed(network: FCN) -> Iterator[tuple[FCN, memory.Pool]]:
    """(a copy of the network, the pool) of a rehearsal. Raises MinifcnError for a network that is not on the CPU."""
    devices = {parameter.device for parameter in network.parameters()}
    if devices != {"cpu"}:
        raise MinifcnError(f"memory can be planned for device cpu, not for {', '.join(sorted(devices))}")
    with memory.rehearsal() as pool, np.errstate(all="ignore"):
        try:
            yield _copy_without_values(network), pool
        except MemoryError as error:
            raise MinifcnError(f"this machine has not even the addresses for it: {error}") from error


def _size(arrays: list[Tensor]) -> int:
    return sum(one.data.nbytes for one in arrays)


def _largest(network: FCN) -> int:
    return max(parameter.data.nbytes for parameter in network.parameters())


def _building(network: FCN) -> int:
    """The most that making the network takes: each parameter is drawn, then copied to its place."""
    done = most = 0
    for parameter in network.parameters():
        most, done = max(most, done + 2 * parameter.data.nbytes), done + parameter.data.nbytes
    return most


def _images(network: FCN, size: Size, batch: int) -> Tensor:
    dtype = network.parameters()[0].dtype
    return Tensor(np.empty((batch, *size, 3), dtype).transpose(0, 3, 1, 2))


def _masks(tensor: Tensor) -> int:
    """Bytes that the graph of `tensor` keeps as masks of ReLUs and winners of poolings."""
    seen, waiting, total = set(), [tensor], 0
    while waiting:
        op = waiting.pop().op
        if op is None or id(op) in seen:
            continue
        seen.add(id(op))
        waiting += [one for one in op.inputs if one is not None]
        total += sum(getattr(getattr(op, name, None), "nbytes", 0) for name in ("mask", "argmax"))
    return total


def training(
    network: FCN,
    size: Size,
    batch: int,
    optimizer: type[Optimizer],
    *,
    ahead: int = 0,
    kept: int = 0,
    ledger: bool = False,
) -> Plan:
    """The plan of a training step on `batch` images of `size` = (H, W).

    `ahead`: batches that a loader keeps ready; `kept`: bytes that the data sets keep in memory; `ledger`: whether its
    examination (`ledger.examine`) comes first.
    """
    weights = _size(network.parameters())
    state = weights * len(optimizer.slots)
    with _rehearsed(network) as (actor, pool):
        images, target = _images(network, size, batch), np.zeros((batch, *size), np.int64)
        inputs = (1 + ahead) * (images.data.nbytes + target.nbytes)

        def step() -> tuple[int, int]:
            """(activations, masks) that the forward pass keeps for the way back."""
            before = pool.usage().used
            actor.train().zero_grad()
            loss = actor.loss(images, target)
            kept, masks = pool.usage().used - before, _masks(loss)
            loss.backward()
            return kept - masks, masks

        activations, masks = step()
        outside = state + inputs + kept + CODE_OF_TRAINING
        phases = {"making the network": _building(network)}
        if ledger and optimizer is SGD:
            _probe(actor, step)
            phases["the ledger before the first step"] = pool.usage().resident + weights + _largest(network) + outside
            actor.zero_grad()
            pool.release()
            pool.reset_peak()
        step()  # gradients of the step before are still there when it begins, and buffers wait
        step()
        phases["a step"] = total = pool.usage().resident + outside
        with no_grad(), actor.eval().frozen():
            actor.labels(Tensor(images.data[:1]))
        outside += CODE_OF_BOTH - CODE_OF_TRAINING
        phases["labelling an image between steps"] = pool.usage().resident + outside
        pool.reset_peak()
        phases["writing a checkpoint"] = pool.usage().resident + _largest(network) + outside
    parts = {
        "weights": weights,
        "gradients": weights,
        "optimiser state": state,
        "activations": activations,
        "masks": masks,
        "images and labels": inputs + kept,
        "code of the kernels": CODE_OF_TRAINING,
    }
    parts["workspaces and waiting buffers"] = total - sum(parts.values())
    return Plan(parts, phases)


def _probe(actor: FCN, step: Callable[[], Any]) -> None:
    """Three steps that hold as many gradients as `ledger.examine` does: of the first, then of its probes."""
    held: list[Any] = [[parameter.grad for parameter in actor.parameters()]]
    step()
    held = [[parameter.grad for parameter in actor.parameters()]]
    for _ in range(2):
        step()
        held.append([parameter.grad for parameter in actor.parameters()])


def prediction(network: FCN, size: Size, batch: int = 1) -> Plan:
    """The plan of labelling images of `size` = (H, W) with a network that was read from a file, and is frozen.

    The first image finds no buffers of others, and transforms the weights of a layer when it comes to it.
    """
    weights = _size(network.parameters())
    with _rehearsed(network) as (actor, pool):
        images = _images(network, size, batch)
        inputs = 2 * images.data.nbytes + 4 * batch * size[0] * size[1]  # normalised and not, RGB and labels
        outside = inputs + CODE_OF_LABELLING
        phases = {"reading the network": weights + _building(network)}
        actor.eval().freeze()
        with no_grad():
            before = pool.usage().used
            actor.labels(images)
            transforms = pool.usage().used - before
            phases["labelling the first image"] = pool.usage().resident + outside
            actor.labels(images)
            phases["labelling more images"] = total = pool.usage().resident + outside
    parts = {
        "weights": weights,
        "transformed weights": transforms,
        "images and labels": inputs,
        "code of the kernels": CODE_OF_LABELLING,
    }
    parts["activations, workspaces and waiting buffers"] = total - sum(parts.values())
    return Plan(parts, phases)


def available() -> int:
    """Bytes that this process may still take: what the system has free or can free, or a container's limit leaves."""
    limits = []
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        limits.append(int(fields["MemAvailable"].split()[0]) << 10)
    except (OSError, KeyError, ValueError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    group = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limits.append(int((group / limit).read_text()) - int((group / used).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return max(0, min(limits))


def without_values(settings: dict[str, Any]) -> FCN:
    """The network of `models.build(**settings)` with shapes only: to be planned for, not to be used."""
    with memory.rehearsal():
        return models.build(**settings)


def fitting_tile(network: FCN, limit: int) -> Size:
    """The largest square tile whose labelling takes at most `limit` bytes, its halo included.

    Raises MinifcnError if not even the smallest one does.
    """
    step = stride(network)

    def need(steps: int) -> int:
        side = step * steps
        return prediction(network, largest_part(network, (FAR, FAR), (side, side))).total

    steps = largest(lambda steps: need(steps) <= limit, FAR // step // 2)
    if not steps:
        raise MinifcnError(f"not even a tile of {step}x{step} fits: it needs {readable(need(1))} of {readable(limit)}")
    return step * steps, step * steps


def readable(count: int) -> str:
    """`count` bytes in MiB or GiB."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def largest(fits: Callable[[int], bool], most: int = 1 << 14) -> int:
    """The largest n in 0..most for which all of 1..n fit, where `fits` goes from true to false once."""
    high = 1
    while high <= most and fits(high):
        high *= 2
    low = high // 2
    while high - low > 1 and low < most:
        middle = (low + high) // 2
        low, high = (middle, high) if middle <= most and fits(middle) else (low, middle)
    return low
