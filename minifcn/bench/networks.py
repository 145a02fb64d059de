"""Whole networks: a training step, or images to labels, beside PyTorch's, from the same weights and images.

Before it is timed, with dropout off: logits, loss and every gradient are held against float64. That is PyTorch's in
float64 where there is a PyTorch, else our own in float64 with exact convolutions. A step is forward, loss, backward and
SGD with momentum and weight decay, dropout on; an inference is images to class labels, with constant weights. Both are
replayed as one graph where `minifcn train` and `minifcn predict` do so, and then the graph is what is held against
float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .. import models
from ..device import get_device, replaced
from ..errors import MinifcnError
from ..kernels.settings import settings
from ..labelgraph import LabelGraph
from ..nn import Dropout
from ..optim import SGD
from ..stepgraph import StepGraph
from ..tensor import Tensor, no_grad
from . import gate, inputs, record
from .convolutions import Setting
from .devices import sampler
from .gate import RIGHT, Proof
from .peer import FORMATS
from .rounds import NETWORK, Contestant, take
from .work import Network

IGNORE = 255
REPLAYED = 3  # so many calls, on sets of their own, until one is a mere replay: launched, captured, replayed
# Of a whole network: rounding adds up over its layers, and a few pixels change sides at a kink of ReLU or pooling.
TOLERANCES = {
    "float32": {"logits": 1e-4, "loss": 1e-5, "gradient": 1e-2},
    "float64": {"logits": 1e-11, "loss": 1e-12, "gradient": 1e-9},
    "3xtf32": {"logits": 1e-4, "loss": 1e-5, "gradient": 1e-2},
    "tf32": {"logits": 1e-2, "loss": 1e-3, "gradient": 2e-1},
    "bfloat16": {"logits": 5e-2, "loss": 1e-2, "gradient": 5e-1},
}


class OwnNetwork:
    """Our side of `work`: built as a user builds it, with the weights of `inputs`."""

    def __init__(self, work: Network, device: str, data: bool = True) -> None:
        self.work, self.place = work, get_device(device)
        about = {"backbone": work.net, "classes": work.classes, "dropout": work.dropout, "dtype": work.dtype}
        self.network = models.build(work.model, **about).to(device)
        for name, parameter in self.network.named_parameters():
            parameter.data[...] = parameter.place.asarray(inputs.parameter(name, parameter.shape, work.dtype))
        if work.task == "infer":
            self.network.eval().freeze()
        self.optimizer = SGD(dict(self.network.named_parameters()), work.MOMENTUM, work.WEIGHT_DECAY)
        self.graph = StepGraph(self.network, self.optimizer, self._loss) if work.graph and work.task == "step" else None
        self.labels = LabelGraph(self.network) if work.graph and work.task == "infer" else self.network.labels
        prepared = self._set if self.graph is None else lambda number: self.graph.inputs(*self._drawn(number))
        self.sets = [prepared(inputs.TIMED + number) for number in range(work.sets)] if data else []
        self.steps = 0

    def _drawn(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of the host."""
        images = inputs.images(self.work, number)
        pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1))  # channels last, as a picture is read and loaded
        return pixels.transpose(0, 3, 1, 2), inputs.labels(self.work, number)

    def _set(self, number: int) -> tuple[Tensor, Any]:
        images, labels = self._drawn(number)
        return Tensor(images, device=self.place), self.place.asarray(labels)

    def _loss(self, images: Tensor, labels: Any, weight: Any, reduction: str) -> Tensor:
        return self.network.loss(images, labels, weight, IGNORE, reduction)

    def step(self, number: int) -> Tensor:
        """The loss, which nobody has waited for."""
        if self.graph is not None:
            (loss,) = self.graph([self.sets[number % len(self.sets)]], self.steps, self.work.LR)
            self.steps += 1
            return Tensor(loss, device=self.place)
        images, target = self.sets[number % len(self.sets)]
        self.network.at_step(0, self.steps).zero_grad()
        loss = self._loss(images, target, None, "mean")
        loss.backward()
        self.optimizer.step(self.work.LR)
        self.steps += 1
        return loss

    def infer(self, number: int) -> Any:
        with no_grad():
            return self.labels(self.sets[number % len(self.sets)][0])

    def call(self, number: int) -> Any:
        return self.step(number) if self.work.task == "step" else self.infer(number)

    def contestant(self) -> Contestant:
        sample = sampler(self.place.name)
        return lambda repeats: sample(self.call, repeats)

    def proof(self, number: int) -> dict[str, np.ndarray]:
        """Logits, and for a step loss and every gradient, else labels, of set `number`, dropout off."""
        images, _ = self._set(number)
        self.network.eval()
        with no_grad():
            found = {"logits": self.network(images).numpy()}
        if self.work.task == "step":
            found["loss"] = (self._loss_by_graph if self.graph else self._loss_and_gradients)(number)
            found |= {name: parameter.grad.numpy() for name, parameter in self.network.named_parameters()}
            self.network.zero_grad()
            self.network.train()
        else:
            for other in range(REPLAYED - 1, 0, -1):
                self.labels(self._set(number + other)[0])
            labels = self.labels(images)
            found["labels"] = labels.numpy() if isinstance(labels, Tensor) else self.place.to_host(labels)
        return found

    def _loss_and_gradients(self, number: int) -> np.ndarray:
        """The loss of set `number`; the parameters have their gradients."""
        self.network.zero_grad()
        loss = self._loss(*self._set(number), None, "mean")
        loss.backward()
        return np.asarray(loss.numpy())

    def _loss_by_graph(self, number: int) -> np.ndarray:
        """The same by replay, in a step of rate 0 that leaves the weights as they are."""
        dropouts = [module for _, module in self.network.named_modules() if isinstance(module, Dropout)]
        graph = StepGraph(self.network, SGD(self.optimizer.parameters), self._loss)
        for module in dropouts:
            module.p = 0.0
        for step in range(REPLAYED):
            (loss,) = graph([graph.inputs(*self._drawn(number + REPLAYED - 1 - step))], step, 0.0)
        for module in dropouts:
            module.p = self.work.dropout
        return np.asarray(self.place.to_host(loss))


def _kind(name: str) -> str:
    return name if name in ("logits", "loss") else "gradient"


def worst_by_kind(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> dict[str, float | None]:
    """The largest L2 error of logits, loss and gradients, for the record."""
    worst: dict[str, float] = {}
    for name in found.keys() & truth.keys() - {"labels"}:
        if found[name].shape == truth[name].shape:
            worst[_kind(name)] = max(worst.get(_kind(name), 0.0), gate.errors(found[name], truth[name])[0])
    return {kind: record.finite(value) for kind, value in sorted(worst.items())}


def compare(found: dict[str, np.ndarray], truth: dict[str, np.ndarray], accuracy: str) -> Proof:
    """Every quantity by its L2 error; a label may differ only where float64 leaves both classes equal to rounding."""
    proof, limits = RIGHT, TOLERANCES[accuracy]
    if set(found) != set(truth):
        return Proof(np.nan, np.nan, (f"quantities differ: {', '.join(sorted(set(found) ^ set(truth)))}",))
    for name, value in found.items():
        if name == "labels":
            proof &= _compare_labels(value, truth["logits"], limits["logits"])
            continue
        if value.shape != truth[name].shape:
            proof &= Proof(np.nan, np.nan, (f"{name} has shape {value.shape}, but must have {truth[name].shape}",))
            continue
        l2, largest = gate.errors(value, truth[name])
        limit = limits[_kind(name)]
        broken = () if l2 <= limit else (f"{name} is off by {l2:.1e} (L2); allowed is {limit:.0e}",)
        proof &= Proof(l2, largest, broken)
    return proof


def _compare_labels(labels: np.ndarray, logits: np.ndarray, tolerance: float) -> Proof:
    chosen = np.take_along_axis(logits, labels.astype(np.int64)[:, None], 1)[:, 0]
    behind = logits.max(1) - chosen
    wrong = int((behind > 2 * tolerance * np.abs(logits).max()).sum())
    return RIGHT if not wrong else Proof(0.0, 0.0, (f"{wrong} labels are not those of the largest logit",))


def _truth(work: Network, setting: Setting) -> tuple[str, dict[str, np.ndarray]]:
    """(whose, what) in float64."""
    wide = replace(work, dtype="float64", precision="float32", graph=False)
    if setting.peer:
        return "torch float64", setting.peer.ask("truth", wide, 0)
    with settings.using(convolution="exact", precision="float32"):
        return "own float64, exact convolutions", OwnNetwork(wide, "cpu", data=False).proof(0)


def _noting(called: set[str], name: str, kernel: Callable) -> Callable:
    """`kernel`, which puts its name into `called`."""

    def noted(*arguments: Any, **named: Any) -> Any:
        called.add(name)
        return kernel(*arguments, **named)

    return noted


def row(work: Network, setting: Setting, kernels: dict[str, Callable]) -> tuple[dict[str, Any], str]:
    """The row of `work`, kernels of a user's in the device's place, and whose float64 it was held against."""
    whose, truth = _truth(work, setting)
    accuracy = gate.accuracy(work)
    peer, baseline_proofs, contestants = setting.peer, {}, {}
    result = record.row(
        op=work.task, layer=work.name, shape=work.shape, layout="channels_last", dtype=work.dtype,
        precision=work.precision, device=setting.device,
        kernel=" + ".join([record.OWN, *["graph"] * work.graph, *(one.__name__ for one in kernels.values())]),
        algorithm=settings.convolution, cold=True, sets=work.sets,
        params={"size": work.size, "batch": work.batch, "classes": work.classes},
    )  # fmt: skip
    for form in FORMATS if peer else ():
        name = f"{peer.baseline} {form}"
        peer.ask("prepare", name, work, form)
        baseline_proofs[name] = compare(peer.ask("proof", name, 0), truth, accuracy)
        if baseline_proofs[name].passed:
            contestants[name] = lambda repeats, name=name: peer.ask("time", name, repeats)
    called: set[str] = set()
    with replaced(setting.device, **{name: _noting(called, name, kernel) for name, kernel in kernels.items()}):
        own = OwnNetwork(work, setting.device)
        found = own.proof(0)
    unused = sorted(set(kernels) - called)
    if unused:
        raise MinifcnError(
            f"--kernel: {work.name} ({work.task}) never calls {', '.join(unused)}, so nothing was measured"
        )
    with replaced(setting.device, **kernels):
        proof = compare(found, truth, accuracy)
        result["errors_by_kind"] = worst_by_kind(found, truth)
        del found, truth
        record.judge(result, proof, baseline_proofs)
        if proof.passed:
            everyone = {record.OWN: own.contestant()} | contestants
            taken = take(everyone, setting.budget, record.OWN, tuple(contestants), NETWORK)
            last = own.call(0).item() if work.task == "step" else 0.0
            if not np.isfinite(last):
                proof = Proof(np.nan, np.nan, (f"the loss became {last} after {own.steps} steps",))
                record.judge(result, proof, {})
            else:
                record.fill(result, taken, record.OWN, {}, tuple(contestants))
    if peer:
        peer.ask("drop")
    return result, whose
