"""Rounding to bfloat16 in memory, and back: where a network's activations begin and end to be stored as that.

Forward
    stored    y[i] = x[i] rounded to 8 bits of mantissa, to the nearest number, ties to even
    widened   y[i] = x[i], exactly, as float32

Backward
    Rounding is taken for what it approximates, the identity, so that for both dx[i] = dy[i], in the type of x: widened
    on the way back from `stored`, and rounded on the way back from `widened`.

Source
    Kalamkar et al., 2019, "A study of BFLOAT16 for deep learning training"; Micikevicius et al., 2018, "Mixed precision
    training", for activations of 16 bits beside weights and sums of 32.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor


class Stored(Op):
    """y, bfloat16, of x, float32."""

    takes_bfloat16 = True

    def forward(self, x: Any) -> Any:
        return self.device.rounded(x)

    def backward(self, dy: Any) -> tuple[Any]:
        return (self.device.widened(dy),)


class Widened(Op):
    """y, float32, of x, bfloat16."""

    takes_bfloat16 = True

    def forward(self, x: Any) -> Any:
        return self.device.widened(x)

    def backward(self, dy: Any) -> tuple[Any]:
        return (self.device.rounded(dy),)


def stored(x: Tensor) -> Tensor:
    """x as activations are stored on its device under the current settings: bfloat16, or as it is."""
    return x if x.place.storage(x.dtype) == x.dtype else Stored()(x)


def widened(x: Tensor) -> Tensor:
    """x as float32 where it is stored as bfloat16, else x itself."""
    return Widened()(x) if x.is_bfloat16 else x
