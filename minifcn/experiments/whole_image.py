"""A whole image at once against its patches one by one: the same scores and gradients, in a fraction of the time.

A classifier that slides over an image sees overlapping patches. An FCN computes all of its outputs in one pass, and
what patches share is computed once (Long, Shelhamer and Darrell, 2015, section 3.1).

So that both compute the same numbers, no layer pads here: with padding a patch would end in zeros where the image goes
on. Scores are compared, and so are the gradients of all weights, before anything is timed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import geometry
from ..kernels.checks import ShapeError
from ..models import FCN, build
from ..nn import Conv2d, MaxPool2d
from ..tensor import Tensor, no_grad
from ..viz import new_figure
from . import figures, timing
from .experiment import Experiment, Plan, Result

STRIDE = 32  # of the scores of an FCN-32s
BATCH = 10  # patches at once, where they are batched
TOLERANCE = 1e-3  # of the largest value, in float32: what summing in another order may change
PAPER = {"forward": (22, 1.2), "backward": (37, 2.4)}  # ms of a whole image, and of one of its 100 patches


class Sliding:
    """An FCN-32s without padding, whose score of a patch of `patch` x `patch` pixels is one number a class."""

    def __init__(self, backbone: str = "small", width: float = 1.0, classes: int = 21, seed: int = 0) -> None:
        self.network = build(
            "fcn32s", backbone=backbone, width=width, classes=classes, input_size=64, dropout=0.0, seed=seed
        )
        for name in self.network.trunk:
            layer = getattr(self.network, name)
            if isinstance(layer, (Conv2d, MaxPool2d)):
                layer.padding = 0
            if isinstance(layer, MaxPool2d):
                layer.ceil_mode = False
        score, rng = self.network.score_fr, np.random.Generator(np.random.Philox(seed))
        score.weight.data[...] = rng.standard_normal(score.weight.shape)  # it starts at zero, which would prove nothing
        self.patch = next(size for size in range(1, 1000) if self._fits(self.network, size))

    @staticmethod
    def _fits(network: FCN, size: int) -> bool:
        """Whether an image of `size` rows leaves exactly one score, and no layer an incomplete window."""
        for name in network.trunk:
            layer = getattr(network, name)
            match layer:
                case Conv2d():
                    window, stride = layer.weight.shape[2], layer.stride
                case MaxPool2d():
                    window, stride = layer.window, layer.stride
                case _:
                    continue
            try:
                out = geometry.conv_size(size, window, stride, 0, 1)
            except ShapeError:
                return False
            if (size - window) % stride:
                return False
            size = out
        return size == 1

    def scores(self, images: Tensor) -> Tensor:
        x = images
        for name in self.network.trunk:
            x = getattr(self.network, name)(x)
        return x

    def patches(self, image: np.ndarray, cells: int) -> np.ndarray:
        """The patch of each of cells x cells scores of `image` [1, 3, H, W]: [cells^2, 3, patch, patch]."""
        places = [(STRIDE * i, STRIDE * j) for i in range(cells) for j in range(cells)]
        return np.stack([image[0, :, y : y + self.patch, x : x + self.patch] for y, x in places])

    def size(self, cells: int) -> int:
        """Rows of an image with `cells` scores along either axis."""
        return self.patch + STRIDE * (cells - 1)

    def gradients(self, images: np.ndarray, dy: np.ndarray, batch: int) -> dict[str, np.ndarray]:
        """The gradients of all weights for the upstream `dy` of the scores of `images`, `batch` of them at a time."""
        self.network.zero_grad()
        for start in range(0, len(images), batch):
            self.scores(Tensor(images[start : start + batch])).backward(dy[start : start + batch])
        return {name: p.grad.numpy() for name, p in self.network.named_parameters() if p.grad is not None}


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, as a share of the largest value."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def compare(sliding: Sliding, image: np.ndarray, patches: np.ndarray, dy: np.ndarray) -> tuple[float, float]:
    """Largest differences of scores and of gradients between the whole image and its patches.

    `dy` [1, C, cells, cells] is the upstream gradient of the scores.
    """
    C, cells = dy.shape[1:3]
    with no_grad():
        whole = sliding.scores(Tensor(image)).numpy()
        single = np.concatenate([sliding.scores(Tensor(patch[None])).numpy() for patch in patches])
    scores = _distance(single.reshape(cells, cells, C).transpose(2, 0, 1), whole[0])
    ours = sliding.gradients(image, dy, 1)
    theirs = sliding.gradients(patches, _by_patch(dy), BATCH)
    return scores, max(_distance(theirs[name], ours[name]) for name in ours)


def _by_patch(dy: np.ndarray) -> np.ndarray:
    """[1, C, cells, cells] -> [cells^2, C, 1, 1]."""
    return np.ascontiguousarray(dy[0].reshape(dy.shape[1], -1).T)[:, :, None, None]


def run(plan: Plan) -> Result:
    cells = 2 if plan.quick else 10
    sliding = Sliding(plan.settings["backbone"], plan.settings["width"], seed=plan.settings["seed"])
    rng = np.random.Generator(np.random.Philox(plan.settings["seed"]))
    size = sliding.size(cells)
    image = rng.standard_normal((1, 3, size, size)).astype(np.float32)
    patches = sliding.patches(image, cells)
    dy = rng.standard_normal((1, sliding.network.classes, cells, cells)).astype(np.float32)
    differences = compare(sliding, image, patches, dy)
    plan.say(f"largest differences of the largest value: scores {differences[0]:.1e}, gradients {differences[1]:.1e}")

    def forward(images: np.ndarray, batch: int) -> None:
        with no_grad():
            for start in range(0, len(images), batch):
                sliding.scores(Tensor(images[start : start + batch]))

    ways = {"whole image": (image, 1, dy), f"patches, {BATCH} at once": (patches, BATCH, _by_patch(dy))}
    ways["patches, one by one"] = (patches, 1, _by_patch(dy))
    repeats = 1 if plan.quick else 5
    ahead = timing.medians({n: lambda i=i, b=b: forward(i, b) for n, (i, b, _) in ways.items()}, repeats)
    both = timing.medians({n: lambda w=w: sliding.gradients(w[0], w[2], w[1]) for n, w in ways.items()}, repeats)
    first = "whole image"
    rows: list[dict[str, Any]] = [
        {
            "way": name,
            "forward, ms": 1e3 * ahead[name],
            "forward, times": ahead[name] / ahead[first],
            "both ways, ms": 1e3 * both[name],
            "both ways, times": both[name] / both[first],
        }
        for name in ways
    ]
    batched = rows[1]
    same = max(differences) < TOLERANCE
    measured = (
        f"An image of {size} x {size} pixels has {cells} x {cells} scores, each of a patch of {sliding.patch} x "
        f"{sliding.patch}. In batches of {BATCH} the patches take {batched['forward, times']:.1f} times as long "
        f"forward, and {batched['both ways, times']:.1f} times forward and backward; pixels alone would say "
        f"{cells**2 * sliding.patch**2 / size**2:.1f}. Scores differ by {differences[0]:.0e} of the largest, gradients "
        f"by {differences[1]:.0e}: rounding."
    )
    columns = {"way": "s", "forward, ms": ".1f", "forward, times": ".1f"}
    columns |= {"both ways, ms": ".1f", "both ways, times": ".1f"}
    figure = new_figure(9.6, 2.4)
    panels = figure.subplots(1, 2, gridspec_kw={"wspace": 0.8})
    for axes, column in zip(panels, ("forward, ms", "both ways, ms"), strict=True):
        title, _, unit = column.rpartition(", ")
        figures.bars(axes, {row["way"]: [row[column]] for row in rows}, title, unit, "{:.0f}".format)
    summary = f"{batched['forward, times']:.1f}x forward, {batched['both ways, times']:.1f}x with backward"
    return Result(columns, rows, measured, summary, same and batched["forward, times"] > 5, figure)


EXPERIMENT = Experiment(
    name="whole-image",
    title="A whole image against its patches",
    paper=(
        f"FCN-AlexNet takes {PAPER['forward'][0]} ms for the 10 x 10 outputs of a 500 x 500 image, and "
        f"{PAPER['forward'][1]} ms for a single one from its own patch: more than 5 times as fast as patchwise; "
        f"backward {PAPER['backward'][0]} against {PAPER['backward'][1]} ms an output (Long et al., 2015, section 3.1)."
    ),
    run=run,
    budget="1 minute",
    accepts=("backbone", "width", "seed"),
    defaults={"backbone": "small", "width": 1.0, "seed": 0},
    quick={"width": 0.25},
)
