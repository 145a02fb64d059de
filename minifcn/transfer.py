"""Weights that one network takes over from another's checkpoint, and what it must know of them.

From a coarser FCN to a finer one, from a classifier to an FCN, from a converted file to the network it was made for.
A fully connected layer over a map [C, R, S] is a convolution with an R x S window (Long, Shelhamer and Darrell, 2015,
section 3.1): its weights [K, C R S], flattened in the order C, R, S, are reshaped, and nothing else.

Weights know their inputs: x = (colour - mean) / std. With another std' the first layer sees x std / std', and
w' = w std' / std undoes that exactly. Another mean would shift x by a constant, which a bias could undo everywhere but
where the window hangs over into the zero padding; so it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .checkpoint import Checkpoint
from .data import Normalization
from .errors import CheckpointError, TrainingError
from .nn import Module

FILLERS = ("he", "zero")
INPUTS = ("kept", "given")
FINER = ("score_pool", "upscore")  # layers that a coarser net lacks
HEAD = "fc8"  # a classifier's last layer, which an FCN replaces by score_fr


@dataclass(frozen=True)
class Inheritance:
    """new_layers: those that start anew; normalization: of the network's inputs; notes: what was done, a line each."""

    new_layers: list[str]
    normalization: Normalization
    notes: list[str]


def sizes(saved: Checkpoint, **chosen: int | None) -> dict[str, int | None]:
    """The settings `chosen` (fc, input_size), those that are None as the network in the file `saved` has them."""
    own = saved.about.get("network") or {}
    return {name: own.get(name) if value is None else value for name, value in chosen.items()}


def inherit(
    network: Module,
    saved: Checkpoint,
    path: Path,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    inputs: str = "kept",
    filler: str = "he",
) -> Inheritance:
    """Copy the weights `saved` in the file `path` into `network`, and say what follows from them.

    mean, std: of the inputs, None for the file's own. inputs "kept": weights are to see what they were trained on, so
    another std is folded into the first layer and another mean refused; "given": mean and std count as they stand.
    filler: layers that the file has no trained weights for keep their values ("he") or, if it is "zero" (Caffe's
    default), become 0; upsampling stays bilinear. Only skip scores and upsampling may be missing, a classifier's last
    layer, and what the file itself calls new. Raises CheckpointError, TrainingError (mean) otherwise.
    """
    own = {name: parameter.shape for name, parameter in network.named_parameters()}
    weights, notes = _fitting(saved, own)
    new = sorted(_new_layers(saved, weights, own, path))
    normalization, factor = _normalization(saved, path, mean, std, inputs, notes)
    network.load_state_dict(weights, missing_allowed=True)
    if factor is not None:
        first = next(iter(network.parameters()))
        first.data *= first.place.asarray(np.asarray(factor, first.dtype).reshape(1, 3, 1, 1))
    if filler == "zero":
        filled = [layer for layer in new if not layer.startswith("upscore")]
        for layer in filled:
            getattr(network, layer).weight.data[...] = 0
        notes += [f"{layer}: filled with zeros" for layer in filled]
    return Inheritance(new, normalization, notes)


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _fitting(saved: Checkpoint, own: dict[str, tuple[int, ...]]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The file's weights in the shapes of the network, without those that have no place in it; notes on both."""
    weights, notes = {}, []
    untrained = _called_new(saved)
    for name, array in saved.weights.items():
        shape = own.get(name)
        if shape is None and (_layer(name) in untrained or _layer(name).startswith((HEAD, "upscore"))):
            # the last upsampling of a coarser net has no place in a finer one, nor has a skip in one without it
            notes.append(f"{name}: left behind, the network has no such layer")
        elif shape is not None and {array.ndim, len(shape)} == {2, 4} and array.size == np.prod(shape):
            weights[name] = array.reshape(shape)
            notes.append(f"{name}: reshaped from {_times(array.shape)} to {_times(shape)}")
        elif shape is not None and array.shape != shape and _layer(name) in untrained:
            notes.append(f"{name}: starts anew, untrained in the file and there of another shape {_times(array.shape)}")
        else:
            weights[name] = array
    return weights, notes


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)


def _called_new(saved: Checkpoint) -> set[str]:
    """The layers that whoever wrote the file initialised and nobody has trained since."""
    return set(saved.about.get("new_layers") or ())


def _new_layers(
    saved: Checkpoint, weights: dict[str, np.ndarray], own: dict[str, tuple[int, ...]], path: Path
) -> set[str]:
    """The layers that start anew: missing in the file, or untrained in it."""
    untrained = _called_new(saved)
    may_miss = untrained | ({"score_fr"} if f"{HEAD}.weight" in saved.weights else set())
    missing = {name: _layer(name) for name in own if name not in weights}
    lost = sorted(name for name, layer in missing.items() if layer not in may_miss and not layer.startswith(FINER))
    if lost:
        raise CheckpointError(f"{path}: it has no {', '.join(lost)}, which the network would leave untrained")
    return set(missing.values()) | untrained & {_layer(name) for name in own}


def _normalization(
    saved: Checkpoint,
    path: Path,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    inputs: str,
    notes: list[str],
) -> tuple[Normalization, np.ndarray | None]:
    """The normalisation of the inputs, and the factor of each input channel of the first layer (None: all 1)."""
    try:
        known = Normalization(saved.about["data"]["mean"], saved.about["data"]["std"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its header lacks or misnames {error}") from error
    wanted = Normalization(mean or known.mean, std or known.std)
    text = f"mean {_colour(wanted.mean)} and std {_colour(wanted.std)}"
    if inputs == "given":
        notes.append(f"inputs: {text}, as given")
        return wanted, None
    if wanted.mean != known.mean:
        raise TrainingError(
            f"mean {_colour(wanted.mean)} differs from {_colour(known.mean)}, which the weights in {path} were trained "
            f"with; where windows reach into zero padding no bias makes up for that. Leave out --mean to take theirs, "
            f"or add --inputs given to subtract yours all the same, as Caffe would"
        )
    factor = np.broadcast_to(np.asarray(wanted.std) / np.asarray(known.std), 3)
    if (factor == 1).all():
        notes.append(f"inputs: {text}, taken over")
        return wanted, None
    notes.append(f"inputs: {text}; the first layer is multiplied by {_colour(factor)}, which gives the same outputs")
    return wanted, factor


def _colour(values: float | Sequence[float]) -> str:
    """One number, or R, G, B."""
    return ", ".join(f"{value:.6g}" for value in np.atleast_1d(np.asarray(values, float)))
