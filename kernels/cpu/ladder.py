"""The ladder of convolution algorithms, and which rung a shape takes: the only place where that is decided.

| rung | idea | for |
|---|---|---|
| direct | the definition's loops | everything; keeps each NaN to the outputs that depend on it |
| gemm | implicit GEMM: overlapping rows of a small buffer times panels of weights | everything |
| pointwise | one plain product, nothing gathered | 1x1 |
| taps | one product a tap, weights read once where they lie, no work on padding | more weights than pixels |
| winograd1d | F(2, 3) along rows: 1.5 times fewer multiplications; backward by gemm | 3x3, stride 1, few channels |
| winograd2 | F(2x2, 3x3): 2.25 times fewer multiplications | 3x3 of stride 1, whole vectors of channels |
| winograd4 | F(4x4, 3x3): 4 times fewer | the same |

Weights that change are transformed at every call. Where they are many and the pixels very few, that is not worth it for
the gradient of the input.

`settings.convolution` overrides the choice: "exact" leaves out Winograd, whose sums round a little more; a rung's name
takes that rung wherever it can compute the shape. Each rung is a module or object with `supports`, and for each
direction a function on channels-last arrays; `forward_weights` and `backward_input_weights` bring the weights into its
form.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ..geometry import Conv2dGeometry
from ..settings import settings
from . import direct, gemm, pointwise, taps, winograd1d
from .winograd import Winograd

RUNGS: dict[str, Any] = {
    "direct": direct,
    "gemm": gemm,
    "pointwise": pointwise,
    "taps": taps,
    "winograd1d": winograd1d,
    "winograd2": Winograd(2),
    "winograd4": Winograd(4),
}
MANY_WEIGHTS = 1 << 18  # from so many on, and up to
FEW_PIXELS = 512  # so many, the weights outweigh the pixels
LEAST_PIXELS = 128  # up to so many, Winograd's transform of such weights takes longer than its products save
FEW_CHANNELS = 8  # so many at most, of the input, are few
DIRECTIONS = ("conv2d_forward", "conv2d_backward_input", "conv2d_backward_weight")


def _exact(geo: Conv2dGeometry, dtype: np.dtype) -> str:
    """The fastest rung that sums directly: taps where the weights outweigh the pixels."""
    pixels = geo.N * max(geo.P * geo.Q, geo.H * geo.W)
    outweighed = geo.K * geo.C * geo.R * geo.S >= MANY_WEIGHTS and pixels <= FEW_PIXELS
    if outweighed and taps.supports(geo, dtype):
        return "taps"
    return "pointwise" if pointwise.supports(geo, dtype) else "gemm"


def choose(geo: Conv2dGeometry, dtype: np.dtype | type) -> str:
    """The rung that a convolution of this geometry takes, in all directions."""
    settings.refuse_others("cpu")
    return _chosen(geo, np.dtype(dtype), settings.convolution)


def choose_backward_input(geo: Conv2dGeometry, dtype: np.dtype | type, changing: bool) -> str:
    """The rung of the gradient of the input alone; `changing`: its weights would be transformed for this one call."""
    name = choose(geo, dtype)
    if not changing or settings.convolution != "fastest" or geo.N * geo.H * geo.W > LEAST_PIXELS:
        return name
    return _exact(geo, dtype) if geo.K * geo.C * geo.R * geo.S >= MANY_WEIGHTS else name


def computing(op: str, geo: Conv2dGeometry, dtype: np.dtype | type, changing: bool = False) -> str:
    """The rung whose function computes `op`, one of DIRECTIONS: that one, or another to which it leaves the op."""

    def function(name: str) -> Any:
        return getattr(RUNGS[name], op.removeprefix("conv2d_"))

    backward = op == "conv2d_backward_input"
    taken = function(choose_backward_input(geo, dtype, changing) if backward else choose(geo, dtype))
    return next(name for name in RUNGS if function(name) == taken)


@lru_cache(maxsize=1024)
def _chosen(geo: Conv2dGeometry, dtype: np.dtype, wanted: str) -> str:
    """The rung for the setting `wanted`."""
    if wanted in RUNGS:
        return wanted if RUNGS[wanted].supports(geo, dtype) else _exact(geo, dtype)
    if wanted != "exact" and RUNGS["winograd4"].supports(geo, dtype):
        return "winograd4"
    if wanted != "exact" and geo.C <= FEW_CHANNELS and winograd1d.supports(geo, dtype):
        return "winograd1d"
    return _exact(geo, dtype)
