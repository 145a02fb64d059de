"""The sanity ledger: what theory says about step 0 of a training, held against what is measured.

Most failed trainings of FCNs fail before the first step: a loss that is not what zero scores must give, upsampling that
was never initialised, a rate that means something else under another loss or momentum, an update too small for the
precision to hold. Each line of the ledger is one such diagnosis. Nothing is changed by it.

Sources: the loss and gradients of zero score layers follow from the softmax (`ops/cross_entropy.py`); an update of
relative size below half a unit in the last place (2^-24 for float32) is rounded away (Goldberg, 1991, "What every
computer scientist should know about floating-point arithmetic"); a constant gradient g under momentum mu moves a weight
by lr g / (1 - mu) a step once it is steady, the sum of the geometric series; on a quadratic of curvature c, gradient
descent with momentum mu is stable for lr < 2 (1 + mu) / c (Polyak, 1964, "Some methods of speeding up the convergence
of iteration methods").
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import metrics
from .data import IGNORE, Batch
from .models import FCN, Classifier
from .nn import BilinearUpsample, ConvTranspose2d, Parameter, init
from .tensor import Tensor
from .training import Run

LABELS = 100  # training labels that the baselines are counted on
POWER_ROUNDS = 4  # of the power iteration for the curvature
SMALLEST_RATE = 1e-20
PROBE = 1e-3  # of the weights' size: how far apart the two gradients are taken


@dataclass(frozen=True)
class Line:
    """One finding: `ok` True (as theory says), False (a warning), None (for information)."""

    ok: bool | None
    topic: str
    text: str


def examine(run: Run) -> list[Line]:
    """The ledger of a run before its first step: some POWER_ROUNDS + 2 forward and backward passes on its first batch.

    Beside what training needs it takes three times the memory of the weights for a while, where the optimiser is SGD
    (`planner.training` counts that).
    """
    batches = run.loader.epoch(0)
    batch = next(batches)
    batches.close()
    network = run.network.train().at_step(run.config.seed, 0)
    loss = _differentiate(run, batch)
    lines = [
        _input(batch),
        _loss(run, batch, loss),
        *_upsampling(network),
        _gradients(network),
        _baseline(run),
        _rate(run, batch),
        *_precision(run),
    ]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # a step may lead anywhere
        lines += _steps(run, batch, loss)
    network.zero_grad()
    return lines


def _differentiate(run: Run, batch: Batch) -> float:
    """The loss of the batch, whose gradients the parameters then hold."""
    run.network.zero_grad()
    images = Tensor(batch.images.astype(run.config.dtype, copy=False), device=run.device)
    loss = run.task.loss(run.network, images, batch.labels, run.class_weights, run.config.reduction)
    loss.backward()
    return loss.item()


def _alive(array: np.ndarray) -> bool:
    return bool(np.any(array))


def _score_layers(network: FCN | Classifier) -> dict[str, bool]:
    """Each score layer, of a classifier fc8, and whether its weights let a gradient through."""
    names = [name for name in vars(network) if name.startswith("score_") or name == "fc8"]
    return {name: _alive(getattr(network, name).weight.numpy()) for name in names}


def _upsampling_layers(network: FCN | Classifier) -> dict[str, BilinearUpsample | ConvTranspose2d]:
    return {name: layer for name, layer in vars(network).items() if name.startswith("upscore")}


def _input(batch: Batch) -> Line:
    mean, std = float(batch.images.mean()), float(batch.images.std())
    text = f"first batch {batch.images.shape}: mean {mean:.2f}, standard deviation {std:.2f}"
    if not 0.1 <= std <= 10:
        return Line(False, "input", f"{text}; He initialisation expects about 1, and rates scale with its square")
    return Line(True, "input", text)


def pixels_counted(reduction: str, labelled: int, pixels: int, images: int) -> float:
    """How many times the mean loss of a labelled pixel a loss is, on `images` images of together `pixels` pixels."""
    return labelled / {"mean": max(labelled, 1), "full": pixels, "batch": images, "sum": 1}[reduction]


def momentum_gain(optimizer: str, momentum: float) -> float:
    """How many times its first step a constant gradient moves a weight."""
    return 1 / (1 - momentum) if optimizer.startswith("sgd") else 1.0


def half_ulp(dtype: str) -> float:
    """A relative change below this is rounded away."""
    return float(np.finfo(dtype).eps) / 2


def _pixels(run: Run, batch: Batch) -> float:
    labels = batch.labels
    return pixels_counted(run.config.reduction, int((labels != IGNORE).sum()), labels.size, len(labels))


def _loss(run: Run, batch: Batch, measured: float) -> Line:
    labelled = batch.labels[batch.labels != IGNORE]
    if not labelled.size:
        return Line(False, "loss", f"the first batch has no labelled {run.task.unit}: its loss and gradient are 0")
    if any(_score_layers(run.network).values()):
        chance = f"guessing gives ln {run.network.classes} = {math.log(run.network.classes):.4f} per {run.task.unit}"
        return Line(None, "loss", f"{measured:.4f}; the score layers are trained already, {chance}")
    weight = 1.0
    if run.class_weights is not None and run.config.reduction != "mean":
        weight = float(run.class_weights[labelled].mean(dtype=np.float64))
    expected = weight * _pixels(run, batch) * math.log(run.network.classes)
    formulas = {"mean": "ln C", "full": "N_valid ln C / (N H W)", "batch": "N_valid ln C / N", "sum": "N_valid ln C"}
    formula = formulas[run.config.reduction]
    agrees = abs(measured - expected) <= 1e-4 * expected
    relation = "=" if agrees else "is not"
    return Line(agrees, "loss", f"{measured:.4f} {relation} {formula} = {expected:.4f}, as zero scores must give")


def _upsampling(network: FCN | Classifier) -> Iterator[Line]:
    """Whether any upsampling kernel is dead, or not the bilinear one."""
    for name, layer in _upsampling_layers(network).items():
        if isinstance(layer, BilinearUpsample):
            continue
        weight = layer.weight.numpy()
        bilinear = init.bilinear(network.classes, weight.shape[2], weight.dtype)
        if not _alive(weight):
            yield Line(False, "upsampling", f"{name} is all zero: no logit and no gradient can pass it, for ever")
        elif not np.array_equal(weight, bilinear):
            distance = float(np.linalg.norm(weight - bilinear) / np.linalg.norm(bilinear))
            yield Line(
                None, "upsampling", f"{name} is {distance:.0%} away from the bilinear filter: trained, or not set"
            )
    if not _upsampling_layers(network):
        return
    kinds = {type(layer).__name__ for layer in _upsampling_layers(network).values()}
    kind = "learned, from bilinear" if kinds == {"ConvTranspose2d"} else "fixed bilinear"
    yield Line(None, "upsampling", f"{kind}: {', '.join(_upsampling_layers(network))}")


def _trained_layers(network: FCN | Classifier) -> set[str]:
    return {name.rsplit(".", 1)[0] for name, _ in network.named_parameters()}


def _expected_alive(network: FCN | Classifier) -> set[str]:
    """Layers that must receive a gradient: those with a path of weights that are not zero up to the loss."""
    open_scores = {name for name, is_open in _score_layers(network).items() if is_open}
    alive = set(_score_layers(network))
    # what lies below each score layer, by block
    reach = {"score_fr": 7, "fc8": 7, "score_pool4": 4, "score_pool3": 3}
    deepest = max((reach[name] for name in open_scores), default=0)
    for layer in _trained_layers(network) - alive:
        if layer.startswith("upscore"):
            if open_scores:
                alive.add(layer)
        elif int(layer.removeprefix("conv").removeprefix("fc")[0]) <= deepest:
            alive.add(layer)
    return alive


def _gradients(network: FCN | Classifier) -> Line:
    measured = {
        name.rsplit(".", 1)[0]
        for name, parameter in network.named_parameters()
        if parameter.grad is not None and _alive(parameter.grad.numpy())
    }
    alive = ", ".join(sorted(measured)) or "no layer"
    learned = _upsampling_layers(network).keys() & _trained_layers(network)
    if any(not _alive(getattr(network, name).weight.numpy()) for name in learned):
        return Line(None, "gradients", f"alive in {alive}; the dead upsampling stops all others")
    expected = _expected_alive(network)
    dead, surprising = sorted(expected - measured), sorted(measured - expected)
    if dead:
        return Line(False, "gradients", f"zero in {', '.join(dead)}, which should be alive: dead ReLUs, or no labels")
    if surprising:
        return Line(False, "gradients", f"not zero in {', '.join(surprising)}, which zero weights above should stop")
    if measured == _trained_layers(network):
        return Line(True, "gradients", "alive in every layer")
    return Line(True, "gradients", f"alive in {alive}; exactly zero below, until these weights have moved")


def _baseline(run: Run) -> Line:
    """What saying one class everywhere scores, and the loss of knowing nothing but the class shares."""
    indices = np.unique(np.linspace(0, len(run.train_set) - 1, min(LABELS, len(run.train_set))).astype(int))
    counts = sum(np.bincount(run.train_set[int(i)].label.ravel(), minlength=256) for i in indices)
    counts = counts[: run.network.classes]
    if not counts.sum():
        return Line(False, "baseline", f"none of {len(indices)} training labels has a labelled {run.task.unit}")
    best, scores = metrics.constant_predictor(counts, run.config.absent)
    share = counts[counts > 0] / counts.sum()
    entropy = -float((share * np.log(share)).sum())
    absent = [name for name, count in zip(run.train_set.classes, counts, strict=True) if not count]
    shown = ", ".join(f"{title} {getattr(scores, name):.3f}" for title, name in run.task.shown)
    text = (
        f"{run.train_set.classes[best]} everywhere gives {shown}; the class shares alone a loss of {entropy:.3f} per "
        f"{run.task.unit}"
    )
    if absent:
        return Line(False, "baseline", f"{text}; no {run.task.unit} of {', '.join(absent)} in {len(indices)} labels")
    return Line(None, "baseline", text)


def _momentum_gain(run: Run) -> float:
    return momentum_gain(run.config.optimizer, run.config.momentum)


def _rate(run: Run, batch: Batch) -> Line:
    """The rate in the units of the mean loss, with momentum: comparable between recipes."""
    config = run.config
    if not config.optimizer.startswith("sgd"):
        return Line(None, "rate", f"{config.optimizer} moves each weight by about lr = {config.lr:g} a step")
    pixels = _pixels(run, batch)
    effective = config.lr * pixels * _momentum_gain(run)
    text = (
        f"lr {config.lr:g} x {pixels:,.0f} (loss: {config.reduction}) / (1 - momentum {config.momentum:g}) = "
        f"{effective:.2g} in units of the mean loss; the released FCN-32s has 1.9e-3"
    )
    return Line(False if effective > 5 else None, "rate", text)


def _steps(run: Run, batch: Batch, loss: float) -> Iterator[Line]:
    """What the first step does to the loss of its batch, and whether the rate is stable where it leads."""
    if not run.config.optimizer.startswith("sgd"):
        yield Line(None, "first step", "its size does not depend on the gradient's")
        return
    before = {name: parameter.data.copy() for name, parameter in _moving(run).items()}
    gradient = _gradient(run)
    rate = run.schedule(0)
    try:
        promised = _move(run, before, gradient, rate)
        lowered = after = _differentiate(run, batch)
        while not lowered <= loss and rate > SMALLEST_RATE:
            rate /= 10
            _move(run, before, gradient, rate)
            lowered = _differentiate(run, batch)
        del gradient
        stability = _stability(run, batch, rate)
        yield _first_step(loss, promised, after, stability.ok)
        yield stability
    finally:
        for name, array in before.items():
            run.optimizer.parameters[name].data[...] = array


def _moving(run: Run) -> dict[str, Parameter]:
    return {name: p for name, p in run.optimizer.parameters.items() if p.grad is not None}


def _gradient(run: Run) -> dict[str, Any]:
    return {name: parameter.grad.data for name, parameter in _moving(run).items()}


def _move(run: Run, start: dict[str, np.ndarray], gradient: dict[str, np.ndarray], rate: float) -> float:
    """Go to one step of gradient descent from `start`; returns what it lowers the loss by to first order, lr |g|^2."""
    promised = 0.0
    for name, g in gradient.items():
        own, _ = run.optimizer.rates(name, rate)
        promised += own * _dot(g, g)
        run.optimizer.parameters[name].data[...] = start[name] - g.dtype.type(own) * g
    return promised


def _first_step(loss: float, promised: float, after: float, stable: bool | None) -> Line:
    """A step that is small enough keeps its promise. One that does not may be made good where the rate is stable."""
    text = f"the loss of its batch by {abs(loss - after):.3g} of {loss:.4g}; to first order, lr |g|^2, "
    if after <= loss:
        return Line(True, "first step", f"lowers {text}{promised:.3g}")
    remedy = "" if stable else ": lower --lr"
    return Line(None if stable else False, "first step", f"raises {text}it would fall by {promised:.3g}{remedy}")


def _stability(run: Run, batch: Batch, taken: float) -> Line:
    """Whether the rate is below what the loss's curvature allows after a step at the rate `taken`.

    Along an eigenvector of the Hessian H with eigenvalue c, gradient descent with momentum mu shrinks the distance from
    the minimum of a quadratic for lr < 2 (1 + mu) / c, and lets it grow beyond (Polyak, 1964). The largest c of D H,
    D the multipliers of the rates, is found by power iteration; H s is the difference of two gradients (Pearlmutter,
    1994, section 2). A power iteration gives a lower bound of c, so the limit is an upper bound of the stable rates.
    """
    gradient = vector = _gradient(run)  # s = D vector; the first direction is that of the step itself
    multiplier = {name: run.optimizer.rates(name, 1.0)[0] for name in gradient}
    size = math.sqrt(sum(_dot(parameter.data, parameter.data) for parameter in _moving(run).values()))
    curvature = 0.0
    for _ in range(POWER_ROUNDS):
        length = math.sqrt(sum(multiplier[name] ** 2 * _dot(v, v) for name, v in vector.items()))
        if size == 0 or length == 0:
            break
        distance = PROBE * size / length
        _shift(run, vector, multiplier, distance)
        _differentiate(run, batch)
        _shift(run, vector, multiplier, -distance)  # back, to rounding, which is far below the probe's distance
        product = _gradient(run)
        for name, g in gradient.items():
            product[name] -= g
            product[name] /= g.dtype.type(distance)
        # Rayleigh's quotient s H s / s D^-1 s
        along = sum(multiplier[name] * _dot(v, product[name]) for name, v in vector.items())
        curvature = along / sum(multiplier[name] * _dot(v, v) for name, v in vector.items())
        vector = product
    if not math.isfinite(curvature):
        return Line(
            False, "stability", "the gradient near the first step is not finite: lower --lr, or scale the input"
        )
    if curvature <= 0:
        return Line(None, "stability", "the loss does not curve upwards here: no rate is too large for it")
    limit, rate = 2 * (1 + run.config.momentum) / curvature, run.schedule(0)
    where = "the first step" if taken == rate else f"a step at lr {taken:.2g}"
    text = f"curvature {curvature:.3g} after {where} allows rates below 2 (1 + momentum) / it = {limit:.2g}"
    if rate > limit:
        return Line(False, "stability", f"{text}; lr {rate:g} is {rate / limit:.3g} times that: steps grow, lower it")
    return Line(True, "stability", text)


def _shift(run: Run, direction: dict[str, Any], multiplier: dict[str, float], distance: float) -> None:
    """Move the weights by `distance` along D `direction`."""
    for name, v in direction.items():
        run.optimizer.parameters[name].data += v.dtype.type(distance * multiplier[name]) * v


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    """The inner product of two arrays of one shape, summed in float64."""
    return float((a * b).sum(dtype=np.float64))


def _precision(run: Run) -> Iterator[Line]:
    """Whether weight decay and updates are large enough to change a weight at all."""
    config = run.config
    least = half_ulp(config.dtype)
    if config.weight_decay and config.optimizer != "adam":
        shrink = config.lr * config.weight_decay * _momentum_gain(run)
        if shrink < least:
            yield Line(
                False,
                "weight decay",
                f"lr x decay / (1 - momentum) = {shrink:.1g} of a weight a step, below {config.dtype}'s half-ulp "
                f"{least:.1g}: it is rounded away",
            )
        else:
            yield Line(True, "weight decay", f"shrinks weights by {shrink:.1g} of themselves a step")
    if not config.optimizer.startswith("sgd"):
        return
    lost = total = 0
    for name, parameter in _moving(run).items():
        w, g = parameter.numpy(), parameter.grad.numpy()
        moving = (w != 0) & (g != 0)
        update = (
            run.optimizer.rates(name, run.schedule(0))[0] * np.abs(g[moving], dtype=np.float64) * _momentum_gain(run)
        )
        lost += int((update < least * np.abs(w[moving])).sum())
        total += int(moving.sum())
    if total and lost > total / 2:
        yield Line(False, "updates", f"{lost / total:.0%} of the weights' updates are below half an ulp and lost")
    elif total:
        yield Line(True, "updates", f"{1 - lost / total:.1%} of the weights' updates are above half an ulp")
