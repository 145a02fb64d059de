"""A step of training as one graph: a hundred small launches, captured once and then replayed as a whole.

Launching takes Python longer than a small kernel takes a GPU, and a fifth of a small network's step on a CPU. In steps
of one shape only a few numbers change; they lie in memory of the device, at addresses that the graph knows, and are
written there before each replay:

    images, labels      of each batch
    the share           dL/dl of a pixel's loss l, which the normalisation of the loss decides: [N, H, W], all equal
    the counters        that choose the dropout masks, one a batch
    the rates           and whatever else changes in the optimiser's table (`kernels/cuda/optimizers.py`)

What a step needs on the host stands around the graph: labels are checked before, the loss is summed up after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import MinifcnError
from .kernels.checks import check_target
from .models.trunk import Trunk
from .netgraph import NetworkGraph
from .nn.module import Parameter, refuse_frozen
from .ops.cross_entropy import IGNORE_INDEX, Labels
from .optim import Optimizer
from .tensor import Tensor

Loss = Callable[[Tensor, Any, Any, str], Tensor]  # of images, labels, class weights and reduction


@dataclass(frozen=True)
class Inputs:
    """One batch as a step graph takes it: images [N, 3, H, W], and labels, both on the device."""

    images: Any
    rule: Labels

    @property
    def form(self) -> tuple[Any, ...]:
        return tuple((tuple(array.shape), array.dtype.name) for array in (self.images, self.rule.target))


class StepGraph(NetworkGraph):
    """A step of `optimizer` over the mean gradient of some batches, whose number and shapes the first call decides.

    The first call launches its kernels one by one, which compiles them; the second one captures them, and so does one
    under other settings, over other arrays, or after `release`.
    loss(images, labels, class_weights, reduction): as `FCN.loss`; class_weights [C] or None, reduction, seed (of
    dropout): of every step. Bits are those of the same step launch by launch. Raises MinifcnError as a NetworkGraph.
    """

    what = "a step as one graph"

    def __init__(
        self,
        network: Trunk,
        optimizer: Optimizer,
        loss: Loss,
        class_weights: np.ndarray | None = None,
        reduction: str = "mean",
        seed: int = 0,
    ) -> None:
        super().__init__(network)
        self.optimizer, self.loss, self.seed = optimizer, loss, seed
        self.class_weights, self.reduction = class_weights, reduction
        self.forms: list[tuple[Any, ...]] | None = None  # of the batches of every call
        self.gradients: list[tuple[Parameter, Tensor | None]] | None = None

    def inputs(self, images: np.ndarray, labels: np.ndarray) -> Inputs:
        """A batch for a call. Raises ShapeError for a label that is neither a class nor ignored."""
        logits = (len(labels), self.network.classes, *labels.shape[1:])
        check_target(logits, labels, self.class_weights, IGNORE_INDEX)
        labels = labels if labels.dtype == np.uint8 else labels.astype(np.int64, copy=False)  # as kernels take them
        rule = Labels(labels, self.class_weights, IGNORE_INDEX, self.reduction)
        rule.on(self.place, self.network.dtype)
        return Inputs(self.place.asarray(images.astype(self.network.dtype, copy=False)), rule)

    def __call__(self, batches: Sequence[Inputs], step: int, lr: float) -> list[Any]:
        """The losses of `batches`, scalars of the device, in step `step` (counted from 0) at learning rate `lr`.

        Afterwards the parameters have the gradients of the step. Raises MinifcnError if one is frozen, or if the
        batches are not of the shapes of the first call.
        """
        refuse_frozen(dict(self.network.named_parameters()), self.what)
        forms = [batch.form for batch in batches]
        if self.forms is None:
            self._allocate(batches)
            self.forms = forms
        if forms != self.forms:
            raise MinifcnError(f"a graph of steps over {self.forms} was given batches of {forms}")
        self.optimizer.advance(lr)
        if self.gradients is None:
            self._write(batches, step)
            self._forget()
            self._launch()
        else:
            self._replay(batches, step)
        return [batch.rule.reduced(losses) for batch, losses in zip(batches, self.losses, strict=True)]

    def _allocate(self, batches: Sequence[Inputs]) -> None:
        """Memory of what changes from step to step, which lives as long as the graph."""
        xp = self.place.xp
        self.images = [self.like(batch.images) for batch in batches]
        self.labels = [xp.empty(batch.rule.target.shape, batch.rule.target.dtype) for batch in batches]
        self.shares = [xp.empty(batch.rule.target.shape, self.network.dtype) for batch in batches]
        self.counters = [xp.empty(1, np.uint32) for _ in batches]
        self.weights = batches[0].rule.weight

    def _write(self, batches: Sequence[Inputs], step: int) -> None:
        """Put what this step is about where the graph reads it."""
        dy = np.asarray(1 / len(batches), self.network.dtype)
        for i, batch in enumerate(batches):
            self.counters[i].fill((step * len(batches) + i) & 0xFFFFFFFF)
            for own, given in ((self.images[i], batch.images), (self.labels[i], batch.rule.target)):
                if self.graph is None:
                    own[...] = given
                else:
                    self.graph.feed(own, given)
            self.shares[i].fill(batch.rule.share(dy))

    def release(self) -> None:
        """Let go of the graph's memory, and of the step's gradients: the next call captures anew."""
        super().release()
        self._forget()

    def _forget(self) -> None:
        """Let go of all that the step before has left."""
        self.network.zero_grad()
        self.losses, self.gradients = [], []

    def _launch(self) -> None:
        """One step, launch by launch: what is captured."""
        self.network.train()
        for images, labels, share, counter in zip(self.images, self.labels, self.shares, self.counters, strict=True):
            self.network.at_step(self.seed, counter)
            losses = self.loss(Tensor(images, device=self.place), labels, self.weights, "none")
            losses.backward(share.reshape(losses.shape))
            self.losses.append(losses.data)
            del losses  # and with it what its backward pass needed, whose memory the next batch can have
        self.optimizer.update()
        self.gradients = [(parameter, parameter.grad) for parameter in self.network.parameters()]

    def _replay(self, batches: Sequence[Inputs], step: int) -> None:
        """One step as a graph; the second one is captured."""
        if self.graph is None or not self.unchanged:
            self.release()
            self.note()
            with self.capture():
                self._launch()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        self._write(batches, step)
        self.graph.replay()
