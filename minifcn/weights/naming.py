"""What weights are called elsewhere, and what a way of naming says about inputs and memory order.

Ours are Caffe's layer names with ".weight" and ".bias". A file follows one scheme; prefixes such as "state_dict/" or
"module." are passed over. Where a name is known to come from one source of weights, so is the convention of its inputs;
where it is not, the user has to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..errors import CheckpointError
from .formats import Convention, Source
from .formats.caffe_file import VGG_MEAN

_LAYER = r"(?P<layer>(?:conv|fc|score|upscore|scale)\w*?)"
_PREFIX = r"(?:.*[/.])?"
_KINDS = {
    **dict.fromkeys(("weight", "weights", "w", "W", "0", "kernel"), "weight"),
    **dict.fromkeys(("bias", "biases", "b", "1"), "bias"),
}
_KERAS_CLASSIFIER = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}


def _in_255(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(255 * value for value in values)


@dataclass(frozen=True)
class Scheme:
    """pattern: of a source's names, with the groups `layer` and `kind`; known: what such names say."""

    name: str
    pattern: str
    known: Convention = field(default_factory=Convention)
    rename: Callable[[str, dict[str, str]], str] = lambda layer, _: layer  # (its layer, torchvision's) -> ours

    def ours(self, name: str, torchvision: dict[str, str]) -> str | None:
        """Our name of the parameter, or None if the scheme has no such name."""
        match = re.fullmatch(_PREFIX + self.pattern, name)
        return match and f"{self.rename(match['layer'], torchvision)}.{_KINDS[match['kind']]}"


def _keras(layer: str, _: dict[str, str]) -> str:
    return _KERAS_CLASSIFIER.get(layer) or re.sub(r"block(\d)_conv(\d)", r"conv\1_\2", layer)


SCHEMES = (
    Scheme("Caffe's layers (conv1_1.weight)", rf"{_LAYER}\.(?P<kind>weight|bias)", Convention("OIHW", "CHW")),
    Scheme(
        "VGG in .npz (conv1_1.w)",
        rf"{_LAYER}\.(?P<kind>[wb])",
        Convention("OIHW", "CHW", "bgr", VGG_MEAN, (1.0,) * 3),
    ),
    Scheme(
        "VGG in .npz by D. Frossard (conv1_1_W)",
        rf"{_LAYER}_(?P<kind>[Wb])",
        Convention("HWIO", "HWC", "rgb", VGG_MEAN, (1.0,) * 3),
    ),
    Scheme(
        "VGG in .npy (conv1_1: [weights, biases])",
        rf"{_LAYER}/(?P<kind>0|1|weights|biases)",
        Convention("HWIO", "HWC", "bgr", VGG_MEAN, (1.0,) * 3),
    ),
    Scheme(
        "Keras applications (block1_conv1)",
        r"(?P<layer>block\d_conv\d|fc[12]|predictions)/(?:.*[/_])?(?P<kind>kernel|bias|W|b)(?:_\d+)?(?::0)?",
        Convention("HWIO", "HWC", "bgr", VGG_MEAN, (1.0,) * 3),
        _keras,
    ),
    Scheme(
        "torchvision (features.0.weight)",
        r"(?P<layer>(?:features|classifier)\.\d+)\.(?P<kind>weight|bias)",
        Convention("OIHW", "CHW", "rgb", _in_255((0.485, 0.456, 0.406)), _in_255((0.229, 0.224, 0.225))),
        lambda layer, torchvision: torchvision.get(layer, layer),
    ),
)


def torchvision_layers(layers: Iterable[str]) -> dict[str, str]:
    """{"features.0": "conv1_1", ...}: torchvision counts convolutions, ReLUs and poolings in one row.

    layers: our names in order, poolings included. Its VGG classifier is a row of Linear, ReLU and Dropout: 0, 3, 6.
    """
    found, place = {}, 0
    for layer in layers:
        if layer.startswith("conv"):
            found[f"features.{place}"] = layer
            place += 2
        elif layer.startswith("pool"):
            place += 1
    return found | {"classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}


def resolve(source: Source, layers: Iterable[str]) -> tuple[Scheme, dict[str, str]]:
    """The scheme that the source follows, and {our name: its name}.

    layers: of the network, in order. Raises CheckpointError if it follows none, or two, or has two tensors for one
    place.
    """
    torchvision = torchvision_layers(layers)
    found = {scheme.name: _translated(source, scheme, torchvision) for scheme in SCHEMES}
    fitting = [scheme for scheme in SCHEMES if found[scheme.name]]
    if len(fitting) != 1:
        some = ", ".join(list(source.arrays)[:4])
        which = " and ".join(scheme.name for scheme in fitting) if fitting else "no known way of naming"
        known = "" if fitting else f"; known are {'; '.join(scheme.name for scheme in SCHEMES)}"
        raise CheckpointError(f"{source.path}: its {len(source.arrays)} tensors ({some} ...) follow {which}{known}")
    return fitting[0], found[fitting[0].name]


def _translated(source: Source, scheme: Scheme, torchvision: dict[str, str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for name in source.arrays:
        ours = scheme.ours(name, torchvision)
        if ours is not None and names.setdefault(ours, name) != name:
            raise CheckpointError(f"{source.path}: {names[ours]} and {name} would both become {ours}")
    return names
