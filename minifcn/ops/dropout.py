"""Inverted dropout with a counter-based mask.

Forward
    y[i] = m[i] x[i] / (1 - p),   m[i] = 1 with probability 1 - p, else 0

    The division keeps the expectation, E[y[i]] = x[i], so that nothing is left to do when predicting. The mask is a
    function of (seed, step, layer, i) alone: the same on every device, and again the same after a resume.

Backward
    For a mask that is drawn, y is linear in x with the diagonal matrix m / (1 - p):

    dx[i] = m[i] dy[i] / (1 - p).

    The mask is not stored but drawn again from the same key.

Source
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, 2014, "Dropout: a simple way to prevent neural
    networks from overfitting"; Salmon et al., 2011, for the generator (Philox4x32-10).
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor


class Dropout(Op):
    """y = x masked with probability p and scaled by 1 / (1 - p); `key` = (seed, step, layer)."""

    takes_bfloat16 = True

    def __init__(self, p: float, key: tuple[int, int, int]) -> None:
        self.p, self.key = p, key

    def forward(self, x: Any) -> Any:
        return self.kernel("dropout_forward")(x, self.p, self.key)

    def backward(self, dy: Any) -> tuple[Any]:
        return (self.kernel("dropout_backward_input")(dy, self.p, self.key),)


def dropout(
    x: Tensor, p: float = 0.5, training: bool = True, *, seed: int = 0, step: int = 0, layer: int = 0
) -> Tensor:
    """Each element 0 with probability `p` (0 <= p < 1), else over 1 - p; x itself when not training.

    The mask depends on (seed, step, layer) and the element's place only: count `step` up yourself.
    """
    return Dropout(p, (seed, step, layer))(x) if training and p else x
