"""Net surgery: which tensor of a file goes where in a network, which layers are new, and what is left out.

Whatever does not fit is refused by name, and whatever is done is said by an Entry. Left out, because something else
takes its place: the classifier's last layer, layers that the user wants new, and fixed filters and scales that are the
network's own. Any other tensor that has a layer's name of ours and no place would change the function, so it is an
error; those of unknown names are listed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..models import FCN, Classifier
from ..nn import init
from .fitting import Misfit, as_oihw, fit, with_our_inputs
from .formats import Convention, Source

TRUNK = ("conv", "features")  # the latter are torchvision's that none of ours stands for
CLASSIFIER = ("fc6", "fc7")  # the layers whose width the user may choose
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

    convention: of the source, complete; replace: layers that stay as they were initialised, like those that the source
    itself calls untrained; fc_given: fc6 and fc7 stay so too if the source's do not fit. `operate` does it; `entries`
    and `new_layers` then say what was done.
    """

    def __init__(
        self,
        network: FCN | Classifier,
        source: Source,
        names: dict[str, str],
        convention: Convention,
        replace: Iterable[str] = (),
        fc_given: bool = False,
    ) -> None:
        self.network, self.source, self.convention = network, source, convention
        self.names = names
        self.own = dict(network.named_parameters())
        self.layers = dict.fromkeys(map(_layer, self.own))
        if unknown := sorted(set(replace) - set(self.layers)):
            raise CheckpointError(f"replace (={', '.join(unknown)}): the network's layers are {', '.join(self.layers)}")
        self.new_layers = self._new_layers(set(replace) | set(source.untrained), fc_given)
        self.entries: list[Entry] = []

    def operate(self) -> None:
        """Fill the network. Raises CheckpointError, which lists every misfit, and then changes nothing."""
        moved, missing, misfits = {}, [], {}
        for name in self.own:
            if _layer(name) in self.new_layers:
                self.entries.append(Entry(None, (), name, self.own[name].shape, self._filler(name)))
            elif name not in self.names:
                missing.append(name)
            else:
                try:
                    moved[name] = self._moved(name)
                except Misfit as misfit:
                    misfits[name] = str(misfit)
        complaints = self._leave_out()
        if misfits:
            listed = (f"{self.names[name]} for {name}: {text}" for name, text in misfits.items())
            complaints.append(", ".join(listed) + self._advice(misfits))
        if missing:
            hint = " (--fc N makes new ones, N channels wide)" if set(map(_layer, missing)) <= set(CLASSIFIER) else ""
            complaints.append(f"it has no {', '.join(missing)}{hint}")
        if complaints:
            raise CheckpointError(f"{self.source.path} does not fit the network: {'; '.join(complaints)}")
        self.network.load_state_dict(moved, missing_allowed=True)

    # --- new layers ---

    def _new_layers(self, replace: set[str], fc_given: bool) -> list[str]:
        known = set(map(_layer, self.names))
        new = replace | {layer for layer in self.layers if layer.startswith(HEAD) and layer not in known}
        classifier = [name for name in self.own if _layer(name) in CLASSIFIER]
        if fc_given and not all(name in self.names and self._fits(name) for name in classifier):
            new.update(CLASSIFIER)
        return [layer for layer in self.layers if layer in new]

    def _fits(self, name: str) -> bool:
        try:
            self._fit(name)
        except Misfit:
            return False
        return True

    def _filler(self, name: str) -> str:
        """How a parameter was initialised."""
        if not self.own[name].numpy().any():
            return "new: zero"
        return "new: bilinear" if name.startswith("upscore") else "new: He"

    # --- tensors that have a place ---

    def _theirs(self, name: str) -> np.ndarray:
        return self.source.arrays[self.names[name]]

    def _fit(self, name: str) -> tuple[np.ndarray, list[str]]:
        channels = [*self.network.channels.values()][-1]
        return fit(self._theirs(name), self.own[name].shape, _layer(name), channels, self.convention)

    def _moved(self, name: str) -> np.ndarray:
        """The source's tensor for our parameter `name`, as it belongs there; notes what was done."""
        array, steps = self._fit(name)
        if name == next(iter(self.own)):
            array, more = with_our_inputs(array, self.convention)
            steps += more
        with np.errstate(over="ignore"):
            array = array.astype(self.own[name].dtype, copy=False)
        if broken := np.count_nonzero(~np.isfinite(array)):
            raise CheckpointError(
                f"{self.source.path}: {self.names[name]} holds {broken:,} numbers that are not finite in {array.dtype}"
            )
        how = ", ".join(steps) or "copied"
        self.entries.append(Entry(self.names[name], self._theirs(name).shape, name, array.shape, how))
        return array

    def _advice(self, misfits: Iterable[str]) -> str:
        """What to do about tensors of another shape."""
        other = {"OIHW": "HWIO", "HWIO": "OIHW"}[self.convention.layout]
        kernels = [name for name in misfits if self._theirs(name).ndim == 4]
        if kernels and all(as_oihw(self._theirs(name), other).shape == self.own[name].shape for name in kernels):
            return f" (taken as {self.convention.layout}; with --layout {other} the convolutions would fit)"
        layers = dict.fromkeys(layer for layer in map(_layer, misfits) if not layer.startswith(TRUNK))
        return f" (--replace {','.join(layers)} makes new ones)" if layers else ""

    # --- tensors that have none ---

    def _leave_out(self) -> list[str]:
        """Note every tensor of the source that has no place; returns what must not be left out."""
        ours = {theirs: name for name, theirs in self.names.items()}
        homeless, complaints = [], []
        for theirs, array in self.source.arrays.items():
            name = ours.get(theirs, "")
            if name in self.own and _layer(name) not in self.new_layers:
                continue
            if name not in self.own and name.startswith(TRUNK):
                homeless.append(theirs)
                continue
            try:
                self.entries.append(Entry(theirs, array.shape, None, (), f"left out: {self._reason(name, array)}"))
            except Misfit as misfit:
                complaints.append(f"{theirs} {misfit}")
        if homeless:
            complaints.append(f"it is of another backbone, which also has {', '.join(homeless)}")
        return complaints

    def _reason(self, name: str, array: np.ndarray) -> str:
        """Why a tensor is left out. Raises Misfit if the network would then compute something else."""
        layer = _layer(name)
        if layer in self.new_layers:
            return f"{layer} is new"
        if layer == LAST:
            return "score layers take its place"
        if layer.startswith("upscore") and hasattr(self.network, layer):
            if not _is_bilinear(array, getattr(self.network, layer).window):
                raise Misfit("is not the fixed bilinear filter (--deconv learned keeps it)")
            return "the network upsamples by the same bilinear filter"
        if layer.startswith("scale_"):
            scale = getattr(self.network, "skip_scales", {}).get(layer.removeprefix("scale_"), 1.0)
            if not np.allclose(array, scale, rtol=1e-6, atol=0):
                raise Misfit(f"scales by other than {scale:g}, as the network does (fcn8s-at-once by 0.01 and 0.0001)")
            return f"the network scales by {scale:g} too"
        return "the network has no such layer"


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _is_bilinear(array: np.ndarray, window: int) -> bool:
    """Whether the weights [C, C, R, R], or [C, 1, R, R] by groups, are the bilinear filter of R = `window` a class."""
    if array.ndim != 4 or array.shape[1] not in (1, len(array)) or array.shape[2:] != (window, window):
        return False
    places = np.arange(len(array))
    own = array[places, places % array.shape[1]]
    alone = np.count_nonzero(array) == np.count_nonzero(own)
    return alone and np.allclose(own, init.bilinear(1, window, np.float64)[0, 0], rtol=0, atol=1e-6)
