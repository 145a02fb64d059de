"""The settings of a training run: every one with its default, its help and its limits, and how files hold them."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import tomli_w

from . import metrics, models, optim
from .data.open import KNOWN
from .device import known_devices
from .errors import TrainingError
from .kernels.settings import POLICIES, PRECISIONS, RUNGS, settings
from .ops.cross_entropy import REDUCTIONS
from .transfer import FILLERS, INPUTS

NETWORKS = tuple(models.NETWORKS)
DEFAULT_MODELS = {"segment": "fcn8s", "classify": "classifier"}
SAMPLINGS = ("shuffle", "replacement")


def _setting(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A field of the configuration; the command line makes an option of it. A `default` may be a function."""
    kind = "default_factory" if callable(default) else "default"
    return field(metadata={"help": help, "choices": choices}, **{kind: default})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a run depends on. None: not set, or measured."""

    task: str = _setting("segment", "a class for every pixel, or for every image", tuple(DEFAULT_MODELS))
    data: str = _setting("scenes", f"data set: {KNOWN}")
    model: str | None = _setting(None, "network (default: fcn8s, or the classifier of task classify)", NETWORKS)
    backbone: str = _setting("small", "trunk of the network", tuple(models.BACKBONES))
    geometry: str = _setting("exact", "exact sizes, or the released nets' padding by 100", models.GEOMETRIES)
    width: float = _setting(1.0, "multiplies all channel numbers of the backbone")
    deconv: str = _setting("fixed", "upsampling: bilinear for ever, or learned from there", models.DECONVS)
    fc: int | None = _setting(None, "channels of fc6 and fc7 (default: init's, or the backbone's, times width)")
    input_size: int | None = _setting(
        None, "side of the images that a classifier sees, which gives fc6 its window (default: init's, or the data's)"
    )
    dropout: float = _setting(0.5, "dropout probability after fc6 and fc7")
    init: str | None = _setting(None, "start from the weights of this run or checkpoint (32s -> 16s -> 8s)")
    filler: str = _setting("he", "layers that --init has no weights for start from He's normal, or at zero", FILLERS)
    inputs: str = _setting(
        "kept", "with --init: inputs as its weights know them, or by --mean and --std as they stand", INPUTS
    )
    epochs: int = _setting(12, "passes over the training images")
    steps: int | None = _setting(None, "stop after this many steps instead")
    sampling: str = _setting("shuffle", "an epoch has every image once, or images drawn with replacement", SAMPLINGS)
    epoch_images: int | None = _setting(None, "images an epoch draws with replacement (default: as many as there are)")
    batch: int = _setting(8, "images a batch")
    accumulate: int = _setting(1, "batches a step; their gradients are averaged, as by Caffe's iter_size")
    optimizer: str = _setting("sgd", "update rule; sgd-caffe keeps the rate inside the velocity", optim.OPTIMIZERS)
    lr: float = _setting(0.05, "learning rate")
    lr_new: float = _setting(1.0, "multiplies the rate of layers that --init had no weights for")
    bias_rule: str = _setting(
        "plain",
        "biases at twice the rate without decay: " + "; ".join(f"{k}: {v}" for k, v in optim.BIAS_RULES.items()),
        tuple(optim.BIAS_RULES),
    )
    clip_norm: float | None = _setting(None, "largest L2 norm of the gradient, summed over the batches of a step")
    momentum: float = _setting(0.9, "momentum (Adam: beta1)")
    weight_decay: float = _setting(5e-4, "weight decay")
    schedule: str = _setting("poly", "learning rate over time", optim.SCHEDULES)
    power: float = _setting(0.9, "poly: exponent of (1 - t / T)")
    drop_every: int = _setting(1000, "step: steps between drops of the learning rate")
    gamma: float = _setting(0.1, "step: factor of each drop")
    reduction: str = _setting(
        "mean",
        "loss: mean over labelled pixels, mean over all, void included (full), sum over each image (batch), plain sum",
        REDUCTIONS[:-1],
    )
    class_weights: tuple[float, ...] | None = _setting(None, "weight of each class in the loss: W0,W1,...")
    flip: bool = _setting(False, "mirror images at random")
    scale: tuple[float, ...] | None = _setting(None, "resize images at random by a factor from LOW,HIGH")
    crop: tuple[int, ...] | None = _setting(None, "crop images at random to HEIGHT,WIDTH")
    jitter: float = _setting(0.0, "vary brightness, contrast and saturation by up to this fraction")
    mean: tuple[float, ...] | None = _setting(
        None, "mean colour R,G,B that is subtracted (default: init's, or measured)"
    )
    std: tuple[float, ...] | None = _setting(None, "contrast R,G,B that is divided by (default: init's, or measured)")
    seed: int = _setting(0, "seed of everything random")
    dtype: str = _setting("float32", "precision", ("float32", "float64"))
    device: str = _setting("cpu", f"where to compute: {', '.join(known_devices())}")
    convolution: str = _setting(  # part of a run, as algorithms round differently
        lambda: settings.convolution,
        "algorithm of convolutions: fastest, exact or a rung (default: fastest, or MINIFCN_CONVOLUTION)",
        POLICIES + RUNGS,
    )
    precision: str = _setting(
        lambda: settings.precision,
        "of products in convolutions, on cuda and cuda-sim; at bfloat16 also of activations in memory "
        "(default: float32, or MINIFCN_PRECISION)",
        PRECISIONS,
    )
    graph: bool | None = _setting(
        None,
        "replay steps as one graph of launches (default: on where --device is cpu or cuda and batches have one shape: "
        "--crop, or a --batch above 1 without --scale; never with --clip-norm, task classify, alexnet's fixed "
        "upsampling); cuda-sim rehearses it",
    )
    absent: str = _setting("nanmean", "rule for classes that do not occur, in mean scores", tuple(metrics.ABSENT))
    evaluate_every: int = _setting(1, "epochs between evaluations")
    save_every: int | None = _setting(None, "also save every so many steps")

    def __post_init__(self) -> None:
        if self.model is None and self.task in DEFAULT_MODELS:
            object.__setattr__(self, "model", DEFAULT_MODELS[self.task])
        for one in fields(self):
            value, choices = getattr(self, one.name), one.metadata["choices"]
            if choices and value not in choices and not (value is None and one.default is None):
                raise TrainingError(f"{one.name} (={value!r}) must be one of {', '.join(choices)}")
        for name in (
            "epochs",
            "steps",
            "batch",
            "accumulate",
            "evaluate_every",
            "save_every",
            "drop_every",
            "fc",
            "epoch_images",
            "input_size",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TrainingError(f"{name} (={value}) must be at least 1")
        self._check_task()
        self._check_graph()
        for name, length in (("mean", 3), ("std", 3), ("scale", 2), ("crop", 2)):
            value = getattr(self, name)
            if value is not None and len(value) != length:
                raise TrainingError(f"{name} (={value}) must have {length} numbers")
        if not 0 <= self.dropout < 1:
            raise TrainingError(f"dropout (={self.dropout}) must be at least 0 and below 1")
        if not 0 <= self.momentum < 1:
            raise TrainingError(f"momentum (={self.momentum}) must be at least 0 and below 1")
        for name in ("weight_decay", "lr_new"):
            if not getattr(self, name) >= 0:
                raise TrainingError(f"{name} (={getattr(self, name)}) must be at least 0")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise TrainingError(f"clip_norm (={self.clip_norm}) must be above 0")
        if self.epoch_images is not None and self.sampling != "replacement":
            raise TrainingError(f"epoch_images (={self.epoch_images}) needs sampling 'replacement'")
        if self.seed < 0:
            raise TrainingError(f"seed (={self.seed}) must be at least 0")

    def _check_task(self) -> None:
        if (self.task == "classify") != (self.model == "classifier"):
            raise TrainingError(f"model (={self.model!r}) is not one of task {self.task!r}")
        if self.task == "classify":
            for one in fields(self):
                if one.name in ("geometry", "deconv") and getattr(self, one.name) != one.default:
                    raise TrainingError(f"{one.name} (={getattr(self, one.name)!r}) is of FCNs, not of a classifier")

    def _graph_needs(self) -> str | None:
        """What stands against steps as one graph, whatever the network; None where nothing does."""
        if self.device == "reference":
            return "needs device cpu, cuda or cuda-sim, not 'reference'"
        if self.clip_norm is not None:
            return f"cannot be combined with clip_norm (={self.clip_norm}), which waits for the gradient's norm"
        return None

    def _check_graph(self) -> None:
        needs = self._graph_needs()
        if self.graph and needs:
            raise TrainingError(f"graph (=True) {needs}: leave it out")

    @property
    def replays_steps(self) -> bool:
        """Whether steps are replayed as one graph, if it can hold the network: `graph`, or its default."""
        if self.graph is not None:
            return self.graph
        one_shape = self.crop is not None or (self.batch > 1 and self.scale is None)
        return self.device != "cuda-sim" and one_shape and self._graph_needs() is None

    def to_toml(self) -> str:
        return tomli_w.dumps({name: value for name, value in asdict(self).items() if value is not None})

    @classmethod
    def from_toml(cls, path: Path) -> TrainConfig:
        """Read a run's config.toml. Raises TrainingError for a file that is missing, broken or of another version."""
        if not path.exists():
            raise TrainingError(f"{path}: not found, so there is no run to resume")
        return cls(**checked_settings(read_toml(path), path))


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises TrainingError if it is missing or broken."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: not a readable TOML file ({error})") from error


def known_settings(names: Iterable[str], path: Path) -> None:
    """Raise TrainingError if one of `names`, keys of the file `path`, is not a setting of TrainConfig."""
    known = [one.name for one in fields(TrainConfig)]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise TrainingError(f"{path}: {name} is not a setting of minifcn train{hint}")


def checked_settings(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """`values` of the TOML file `path` as arguments of TrainConfig.

    Raises TrainingError for a setting that TrainConfig lacks, or a value of another type than it has.
    """
    known_settings(values, path)
    types = {one.name: one.type.removesuffix(" | None") for one in fields(TrainConfig)}
    checked = {}
    for name, value in values.items():
        kind, fits, convert = _KINDS[types[name]]
        if not fits(value):
            raise TrainingError(f"{path}: {name} (={value!r}) must be {kind}")
        checked[name] = convert(value)
    return checked


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_whole(value)


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


# By the type of a setting: what it is called, which values of a TOML file fit, and how they are converted.
_KINDS: dict[str, tuple[str, Callable[[Any], bool], Callable[[Any], Any]]] = {
    "bool": ("true or false", lambda value: isinstance(value, bool), bool),
    "float": ("a number", _is_number, float),
    "int": ("a whole number", _is_whole, int),
    "str": ("a text", lambda value: isinstance(value, str), str),
    "tuple[float, ...]": ("a list of numbers", _list_of(_is_number), lambda values: tuple(map(float, values))),
    "tuple[int, ...]": ("a list of whole numbers", _list_of(_is_whole), tuple),
}
