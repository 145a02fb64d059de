"""Shift-and-stitch is the network with dilated filters, to the last bit.

A network of stride F gives one score for F x F pixels. Shift-and-stitch runs it on all F^2 shifts of the image and
interlaces the outputs. The same scores come from one pass in which a pooling of stride 2 has stride 1 instead, and all
windows after it are dilated by 2 more (the algorithme a trous; Long, Shelhamer and Darrell, 2015, section 3.2).

Exactness: image and weights are whole numbers, and so small that no sum leaves the 53 bits of float64. Then no order
of summation rounds, and equal means equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..kernels.settings import settings
from ..models.backbones import BACKBONES, Conv, Pool
from ..tensor import Tensor, no_grad
from ..viz import new_figure
from . import figures, timing
from .experiment import Experiment, Plan, Result

FACTORS = (2, 4, 8)
CELLS = 8  # scores along either axis of one pass
CLASSES = 8


class Stages:
    """The convolutions and poolings of the backbone "small" up to stride `factor`, without padding, and 3 x 3 scores.

    Weights are -1, 0 or 1: below 255 * 27 * 144 * 288 * 576 * 576 < 2^53, no sum of scores rounds.
    """

    def __init__(self, factor: int, seed: int = 0, dtype: Any = np.float64) -> None:
        rng = np.random.Generator(np.random.Philox(seed))
        self.factor, self.receptive = factor, 1
        self.layers: list[Tensor | int] = []  # the weights of a convolution, or the window of a pooling
        C, stride = 3, 1

        def convolve(channels: int) -> None:
            nonlocal C
            weights = rng.integers(-1, 2, (channels, C, 3, 3)).astype(dtype)
            self.layers.append(Tensor(weights))
            self.receptive += 2 * stride
            C = channels

        for layer in BACKBONES["small"].layers:
            match layer:
                case Conv():
                    convolve(layer.channels)
                case Pool():
                    self.layers.append(layer.window)
                    self.receptive += (layer.window - 1) * stride
                    stride *= layer.stride
            if stride == factor:
                break
        convolve(CLASSES)

    @property
    def size(self) -> int:
        """Rows of an image that has CELLS whole scores along either axis under every shift."""
        return self.receptive + self.factor * CELLS - 1

    def coarse(self, x: Tensor) -> Tensor:
        """Scores of stride `factor`."""
        for layer in self.layers:
            x = ops.max_pool2d(x, layer) if isinstance(layer, int) else ops.conv2d_relu(x, layer)
        return x

    def dilated(self, x: Tensor) -> Tensor:
        """Scores of stride 1 in one pass."""
        dilation = 1
        for layer in self.layers:
            if isinstance(layer, int):
                x = ops.max_pool2d(x, layer, stride=1, dilation=dilation)
                dilation *= layer
            else:
                x = ops.conv2d_relu(x, layer, dilation=dilation)
        return x

    def stitched(self, x: Tensor) -> np.ndarray:
        """Scores of stride 1 by factor^2 passes over shifted images."""
        F, length = self.factor, x.shape[2] - self.factor + 1
        y = np.empty((x.shape[0], CLASSES, F * CELLS, F * CELLS), x.dtype)
        for i in range(F):
            for j in range(F):
                shifted = Tensor(np.ascontiguousarray(x.data[:, :, i : i + length, j : j + length]))
                y[:, :, i::F, j::F] = self.coarse(shifted).numpy()
        return y


def image(stages: Stages, seed: int, dtype: Any = np.float64) -> Tensor:
    """A random image [1, 3, size, size] of whole numbers, 0 .. 255, so that sums are exact."""
    rng = np.random.Generator(np.random.Philox(seed))
    return Tensor(rng.integers(0, 256, (1, 3, stages.size, stages.size)).astype(dtype))


def differing(factor: int, seed: int = 0) -> tuple[int, int]:
    """(scores that differ between the two, all scores)."""
    stages = Stages(factor, seed)
    with no_grad(), settings.using(convolution="exact"):  # Winograd's fractions would round
        x = image(stages, seed)
        stitched, dilated = stages.stitched(x), stages.dilated(x).numpy()
    return int((stitched != dilated).sum()), stitched.size


def run(plan: Plan) -> Result:
    rows: list[dict[str, Any]] = []
    for factor in FACTORS[:2] if plan.quick else FACTORS:
        wrong, total = differing(factor)
        stages = Stages(factor, dtype=np.float32)
        x = image(stages, 0, np.float32)
        calls = {
            "coarse": lambda s=stages, x=x: s.coarse(x),
            "dilated": lambda s=stages, x=x: s.dilated(x),
            "stitched": lambda s=stages, x=x: s.stitched(x),
        }
        with no_grad():
            seconds = timing.medians(calls, 1 if plan.quick else 7)
        plan.say(f"stride {factor}: {wrong} of {total} scores differ")
        times = {f"{name}, ms": 1e3 * value for name, value in seconds.items()}
        rows.append({"stride": factor, "passes": factor**2, "scores": total, "differing": wrong} | times)
    exact, last = all(row["differing"] == 0 for row in rows), rows[-1]
    cost = {name: last[f"{name}, ms"] / last["coarse, ms"] for name in ("dilated", "stitched")}
    measured = (
        f"Of {sum(row['scores'] for row in rows):,} scores, {sum(row['differing'] for row in rows)} differ. At stride "
        f"{last['stride']} the dilated network takes {cost['dilated']:.0f} times as long as one coarse pass, and "
        f"shift-and-stitch, with its {last['passes']} passes, {cost['stitched']:.0f} times."
    )
    columns = {"stride": "d", "passes": "d", "scores": ",d", "differing": "d"}
    columns |= {name: ".2f" for name in rows[0] if name.endswith("ms")}
    figure = new_figure(6.4, 3.4)
    names = {"coarse": "one coarse pass", "dilated": "dilated network", "stitched": "shift-and-stitch"}
    strides = [row["stride"] for row in rows]
    series = {title: (strides, [row[f"{name}, ms"] for row in rows]) for name, title in names.items()}
    axes = figure.subplots()
    figures.lines(axes, series, "cost of scores for every pixel", "stride of the network", "ms, logarithmic")
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(strides, strides, minor=False)
    axes.minorticks_off()
    summary = f"{'equal to the last bit' if exact else 'not equal'}; {cost['dilated']:.0f}x and {cost['stitched']:.0f}x"
    summary += f" the cost of a coarse pass at stride {last['stride']}"
    return Result(columns, rows, measured, summary, exact, figure)


EXPERIMENT = Experiment(
    name="shift-and-stitch",
    title="Shift-and-stitch equals the dilated network",
    paper=(
        "Interlacing the outputs for all shifted inputs gives the same output as a stride of 1 with filters enlarged "
        "by zeros; the finer output costs accordingly, and upsampling with skips was the better trade (Long et al., "
        "2015, sections 3.2 and 4.2)."
    ),
    run=run,
    budget="10 s",
)
