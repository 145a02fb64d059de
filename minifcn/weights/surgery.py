"""Net surgery: a classifier's weights in a fully convolutional network.

A fully connected layer over a map [C, R, S] is a convolution with an R x S window, so its weights are reshaped, once
their rows are known to run in the order C, R, S. The classifier's last layer is left out, and score layers take its
place. The first layer takes over the inputs' convention: with x = (colour - mean) / std and w' = w / std,

    sum w (colour - mean) / std = sum w' (colour - mean),

exactly, zero padding included, as 0 is the mean colour in both; and channels B, G, R become R, G, B. So a converted
network takes R, G, B in 0 .. 255 minus a mean, which its checkpoint holds.

Whatever does not fit is refused by name, and whatever is done is said by an Entry.

Source: Long, Shelhamer and Darrell, 2015, section 3.1; Shelhamer's net_surgery example in BVLC/caffe.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..models import FCN
from ..nn import init
from .formats import Convention, Source

TRUNK = "conv"
CLASSIFIER = ("fc6", "fc7")  # the layers whose width the user may choose
FLATTENING = "fc6"  # the layer that sees a map
LAST = "fc8"  # a classifier's last layer
HEAD = ("score", "upscore")  # layers that a classifier lacks


@dataclass(frozen=True)
class Entry:
    """What became of a tensor: its name in the file (None: it is new), in the network (None: left out), and how."""

    source: str | None
    shape: tuple[int, ...]  # in the file
    target: str | None
    target_shape: tuple[int, ...]
    how: str

    def as_dict(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


class Surgery:
    """Moves the tensors of `source`, called `names` = {ours: its}, into `network`.

    convention: of the source, complete; replace: layers that stay as they were initialised; fc_given: fc6 and fc7 stay
    so too if the source's do not fit. `operate` does it; `entries` and `new_layers` then say what was done.
    """

    def __init__(
        self,
        network: FCN,
        source: Source,
        names: dict[str, str],
        convention: Convention,
        replace: Iterable[str] = (),
        fc_given: bool = False,
    ) -> None:
        self.network, self.source, self.names, self.convention = network, source, names, convention
        self.own = dict(network.named_parameters())
        self.first = next(iter(self.own))
        self.channels = [len(own.data) for name, own in self.own.items() if name.startswith(TRUNK)][-1]  # of its map
        self.layers: dict[str, list[str]] = {}
        for name in self.own:
            self.layers.setdefault(_layer(name), []).append(name)
        self.replace = set(replace)
        if unknown := sorted(self.replace - set(self.layers)):
            raise CheckpointError(f"replace (={', '.join(unknown)}): the network has {', '.join(self.layers)}")
        self.fc_given = fc_given
        self.entries: list[Entry] = []
        self.new_layers: list[str] = []

    def operate(self) -> None:
        """Fill the network. Raises CheckpointError, which lists every misfit, and then changes nothing."""
        self.new_layers = self._find_new()
        moved, complaints, missing, unfit = {}, [], [], []
        for layer, parameters in self.layers.items():
            if layer in self.new_layers:
                self.entries += [Entry(None, (), name, self.own[name].shape, self._filler(name)) for name in parameters]
                continue
            for name in parameters:
                if name not in self.names:
                    missing.append(name)
                    continue
                try:
                    moved[name] = self._moved(name)
                except _Misfit as misfit:
                    complaints.append(str(misfit))
                    unfit.append(name)
        complaints += self._leave_out() + self._lacks(missing) + self._advice(unfit)
        if complaints:
            raise CheckpointError(f"{self.source.path} does not fit the network: {'; '.join(complaints)}")
        self.network.load_state_dict(moved, missing_allowed=True)

    # --- which layers are new ---

    def _find_new(self) -> list[str]:
        new = set(self.replace)
        for layer, parameters in self.layers.items():
            if layer.startswith(HEAD) and not any(name in self.names for name in parameters):
                new.add(layer)
        if self.fc_given and not all(self._fits(name) for layer in CLASSIFIER for name in self.layers.get(layer, [])):
            new |= set(CLASSIFIER) & set(self.layers)
        return [layer for layer in self.layers if layer in new]

    def _fits(self, name: str) -> bool:
        if name not in self.names:
            return False
        try:
            self._reshaped(name)
        except _Misfit:
            return False
        return True

    def _filler(self, name: str) -> str:
        """How a parameter was initialised."""
        if not self.own[name].numpy().any():
            return "new: zero"
        return "new: bilinear" if name.startswith("upscore") else "new: He"

    def _lacks(self, missing: list[str]) -> list[str]:
        if not missing:
            return []
        hint = "; --fc N makes fc6 and fc7 new, N channels wide" if set(map(_layer, missing)) <= set(CLASSIFIER) else ""
        return [f"it has no {', '.join(missing)}{hint}"]

    def _advice(self, unfit: list[str]) -> list[str]:
        """What to do about parameters of another shape."""
        other = {"OIHW": "HWIO", "HWIO": "OIHW"}[self.convention.layout]
        kernels = [name for name in unfit if self.source.arrays[self.names[name]].ndim == 4]
        if kernels and all(_as_oihw(self._theirs(name), other).shape == self.own[name].shape for name in kernels):
            return [f"with --layout {other} the convolutions would fit"]
        layers = dict.fromkeys(layer for layer in map(_layer, unfit) if not layer.startswith(TRUNK))
        return [f"--replace {','.join(layers)} makes these layers new"] if layers else []

    # --- tensor by tensor ---

    def _moved(self, name: str) -> np.ndarray:
        """The source's tensor for our parameter `name`, as it belongs there; notes what was done."""
        array, steps = self._reshaped(name)
        if name == self.first:
            array, more = self._with_our_inputs(array)
            steps += more
        with np.errstate(over="ignore"):
            array = array.astype(self.own[name].dtype, copy=False)
        if not np.isfinite(array).all():
            raise CheckpointError(
                f"{self.source.path}: {self.names[name]} holds {np.count_nonzero(~np.isfinite(array))} numbers that "
                f"are not finite in {array.dtype}"
            )
        how = ", ".join(steps) or "copied"
        self.entries.append(Entry(self.names[name], self._theirs(name).shape, name, array.shape, how))
        return array

    def _theirs(self, name: str) -> np.ndarray:
        return self.source.arrays[self.names[name]]

    def _reshaped(self, name: str) -> tuple[np.ndarray, list[str]]:
        """The tensor in the order and shape of ours, and what that took. Raises _Misfit."""
        theirs, shape, layout = self._theirs(name), self.own[name].shape, self.convention.layout
        if theirs.dtype.kind != "f":
            raise _Misfit(f"{self.names[name]} holds {theirs.dtype}, not floating point numbers")
        array, steps = _as_oihw(theirs, layout), []
        if array is not theirs:
            steps.append("transposed HWIO to OIHW" if array.ndim == 4 else "transposed [in, out] to [out, in]")
        if array.ndim in (2, 4) and len(shape) in (2, 4) and len(array) == shape[0] and array.size == np.prod(shape):
            array, more = self._refolded(array, shape, _layer(name))
            steps += more
        if array.shape != shape:
            raise _Misfit(
                f"{self.names[name]} ({_times(theirs.shape)}, {layout}) does not fit {name} ({_times(shape)})"
            )
        return array, steps

    def _refolded(self, array: np.ndarray, shape: tuple[int, ...], layer: str) -> tuple[np.ndarray, list[str]]:
        """A fully connected layer [K, C R S] as a convolution [K, C, R, S], or the other way round, or as it is."""
        steps = []
        if array.ndim == 2 and layer == FLATTENING and self.convention.flatten == "HWC":
            C = shape[1] if len(shape) == 4 else self.channels
            R = math.isqrt(array.shape[1] // C)
            array = array.reshape(len(array), R, R, C).transpose(0, 3, 1, 2).reshape(array.shape)
            steps.append("rows in the order H,W,C to C,H,W")
        if array.ndim != len(shape):
            array = array.reshape(shape)
            steps.append("fully connected to convolution" if len(shape) == 4 else "convolution to fully connected")
        return array, steps

    def _with_our_inputs(self, array: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """The first layer for inputs R, G, B in 0 .. 255 minus the mean."""
        steps = []
        if self.convention.colors == "bgr":
            array = array[:, ::-1]
            steps.append("input channels B,G,R to R,G,B")
        if any(one != 1 for one in self.convention.std):
            array = array.astype(np.float64) / np.asarray(self.convention.std).reshape(1, 3, 1, 1)
            steps.append(f"R,G,B divided by std {', '.join(f'{one:g}' for one in self.convention.std)}")
        return array, steps

    # --- what is left out ---

    def _leave_out(self) -> list[str]:
        """Note every tensor of the source that has no place; returns what must not be left out."""
        complaints = []
        ours = {theirs: name for name, theirs in self.names.items()}
        for theirs, array in self.source.arrays.items():
            name = ours.get(theirs)
            if name is not None and name in self.own and _layer(name) not in self.new_layers:
                continue
            how, complaint = self._reason(name, array)
            self.entries.append(Entry(theirs, array.shape, None, (), how))
            complaints += [f"{theirs} {complaint}"] if complaint else []
        return complaints

    def _reason(self, name: str | None, array: np.ndarray) -> tuple[str, str]:
        """Why a tensor is left out, and a complaint if the network would then compute something else."""
        layer = _layer(name or "")
        if layer in self.new_layers:
            return f"left out: {layer} is new", ""
        if layer == LAST:
            return "left out: score layers take the place of the classifier's last layer", ""
        if layer.startswith(TRUNK):
            return "", "has no place: the file is of another backbone"
        if layer.startswith("upscore") and hasattr(self.network, layer):
            if _is_bilinear(array):
                return "left out: the network upsamples by the same bilinear filter", ""
            return "", "is not the fixed bilinear filter (--deconv learned keeps it)"
        if layer.startswith("scale_"):
            scale = getattr(self.network, "skip_scales", {}).get(layer.removeprefix("scale_"), 1.0)
            if np.allclose(array, scale, rtol=1e-6, atol=0):
                return f"left out: the network scales by {scale:g} too", ""
            return "", f"is not the network's scale {scale:g} (fcn8s-at-once has {layer.removeprefix('scale_')} scaled)"
        return "left out: the network has no such layer", ""


class _Misfit(Exception):
    """A tensor that does not fit its place."""


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _as_oihw(array: np.ndarray, layout: str) -> np.ndarray:
    """Weights of a convolution as [out, in, rows, columns], fully connected ones as [out, in]; others as they are."""
    if layout == "OIHW" or array.ndim not in (2, 4):
        return array
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _is_bilinear(array: np.ndarray) -> bool:
    """Whether the weights [C, C, R, R], or [C, 1, R, R] by groups, upsample each class bilinearly by R / 2."""
    if array.ndim != 4 or array.shape[2] != array.shape[3] or array.shape[2] % 2:
        return False
    expected = init.bilinear(len(array), array.shape[2] // 2, np.float64)
    if array.shape[1] == 1:
        expected = expected[np.arange(len(array)), np.arange(len(array))][:, None]
    return array.shape == expected.shape and np.allclose(array, expected, rtol=0, atol=1e-6)
