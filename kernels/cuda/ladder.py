"""The ladder of convolution kernels, and which rung and tile a shape takes: the only place where that is decided.

| rung | idea | for |
|---|---|---|
| naive | one thread an output, the definition's loops | everything; few channels |
| tiled | implicit GEMM through shared memory | any channels |
| blocked | 8 x 8 outputs a thread, pieces of 16 bytes, double buffering | channels in fours; not bfloat16 |
| tensor | tensor cores, asynchronous copies; numbers as `settings.precision` says | float32, channels in fours |

`settings.convolution` overrides the choice: a rung's name takes that rung wherever it can compute the shape. At
precision "float32" no tensor core is used. float64 is never rounded to less. What is stored as bfloat16 is multiplied
as that, whatever the setting, and where channels are not in eights by the other rungs, whose sums are float32 too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..geometry import Conv2dGeometry
from ..settings import CUDA_RUNGS, settings
from ..storage import BFLOAT16
from .launch import tiles

FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT = DIRECTIONS = (
    "conv2d_forward",
    "conv2d_backward_input",
    "conv2d_backward_weight",
)
FEW_CHANNELS = 16  # below, on either side, tiles would be mostly empty
FEW_STRIDES = 4  # with more, a pixel of dx meets few of the taps that a tile goes through
ENOUGH_BLOCKS = 132  # an H100 has so many multiprocessors
MOST_BLOCKS = 65535  # along y, where groups are, with taps or with tiles of channels
MODES = {"bfloat16": 0, "tf32": 1, "3xtf32": 3}  # of `conv2d_tensor.cu`


@dataclass(frozen=True)
class Rung:
    """A rung, its tile of pixels x channels (of a weight gradient: output x input channels), the MODE of "tensor"."""

    name: str
    tile: tuple[int, int]
    mode: int | None = None


def _precision(dtype: np.dtype) -> str | None:
    """What numbers of `dtype` become on their way into a product of tensor cores; None: nothing that those have."""
    if dtype == BFLOAT16:
        return "bfloat16"
    return settings.precision if dtype == np.float32 else None


def supports(name: str, direction: str, geo: Conv2dGeometry, dtype: np.dtype) -> bool:
    """Whether the rung `name` can compute this direction of the convolution."""
    if name == "naive":
        return True
    inputs, outputs = geo.C // geo.groups, geo.K // geo.groups
    if geo.groups * max(geo.R * geo.S, tiles(max(inputs, outputs), 64)) > MOST_BLOCKS:
        return False
    if name == "tiled":
        return True
    if name == "blocked" and dtype == BFLOAT16:
        return False
    precision = _precision(dtype)
    if name == "tensor" and precision not in MODES:
        return False
    length = 8 if name == "tensor" and precision == "bfloat16" else 4
    read = {FORWARD: (inputs,), BACKWARD_INPUT: (outputs,), BACKWARD_WEIGHT: (inputs, outputs)}[direction]
    return all(channels % length == 0 for channels in read)


def _name(direction: str, geo: Conv2dGeometry, dtype: np.dtype) -> str:
    settings.refuse_others("cuda")
    wanted = settings.convolution
    if wanted in CUDA_RUNGS and supports(wanted, direction, geo, dtype):
        return wanted
    skips_taps = direction == BACKWARD_INPUT and math.prod(geo.stride) > FEW_STRIDES
    if skips_taps or min(geo.C, geo.K) // geo.groups < FEW_CHANNELS:
        return "naive"
    return next(name for name in ("tensor", "blocked", "tiled", "naive") if supports(name, direction, geo, dtype))


def choose(direction: str, geo: Conv2dGeometry, dtype: np.dtype) -> Rung:
    """The rung that this direction of a convolution takes."""
    name = _name(direction, geo, dtype)
    mode = MODES[_precision(dtype)] if name == "tensor" else None
    if name in ("naive", "tiled") or dtype == np.float64 or (name == "tensor" and direction == BACKWARD_WEIGHT):
        return Rung(name, (64, 64), mode)
    large = (128, 64) if name == "tensor" else (128, 128)
    rows, columns = {
        FORWARD: (geo.N * geo.P * geo.Q, geo.K),
        BACKWARD_INPUT: (geo.N * geo.H * geo.W, geo.C),
        BACKWARD_WEIGHT: (geo.K, geo.C),
    }[direction]
    blocks = (rows // large[0]) * (columns // geo.groups // large[1]) * geo.groups
    if direction == BACKWARD_WEIGHT:
        blocks *= ENOUGH_BLOCKS  # pixels are split as well
    return Rung(name, large if blocks >= ENOUGH_BLOCKS else (64, 64), mode)
