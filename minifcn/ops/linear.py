"""A fully connected layer: every output sees every input.

Forward
    y[n,k] = b[k] + sum_i w[k,i] x[n,i]

    This is the convolution of an image of one pixel with a window of one pixel, and is computed as one. Read the other
    way it is the observation that FCNs are made of: where i numbers the elements (c,r,s) of a map of R x S pixels, y is
    the only output of a convolution of that map with w[k,c,r,s], and on a larger map that convolution is the layer
    applied at every place.

Backward
    y is linear in x, in w and in b:

    dx[n,i] = sum_k w[k,i] dy[n,k],   dw[k,i] = sum_n x[n,i] dy[n,k],   db[k] = sum_n dy[n,k].

Source
    Rumelhart, Hinton and Williams, 1986, "Learning representations by back-propagating errors"; Long, Shelhamer and
    Darrell, 2015, section 3.1, for the layer as a convolution.
"""

from __future__ import annotations

from typing import Any

from ..kernels.checks import ShapeError
from ..tensor import Op, Tensor

WINDOW = (1, 0, 1, 1)  # stride, padding, dilation, groups


def _pixel(matrix: Any) -> Any:
    """[N, D] as images (or windows) of one pixel, [N, D, 1, 1]."""
    return matrix[:, :, None, None]


class Linear(Op):
    """y = x w^T + b: [N, K] of x [N, D], w [K, D] and b [K] or None."""

    owns_gradients = takes_bfloat16 = True

    def forward(self, x: Any, w: Any, b: Any = None) -> Any:
        if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1]:
            raise ShapeError(f"x (={tuple(x.shape)}) must be [N, D], and weight (={tuple(w.shape)}) [K, D]")
        self.x, self.w, self.has_bias = x, w, b is not None
        return self.kernel("conv2d_forward")(_pixel(x), _pixel(w), b, *WINDOW)[:, :, 0, 0]

    def backward(self, dy: Any) -> tuple[Any, Any, Any]:
        dy, x, w = _pixel(dy), _pixel(self.x), _pixel(self.w)
        dx = self.kernel("conv2d_backward_input")(dy, w, (1, 1), *WINDOW)[:, :, 0, 0] if self.wants(0) else None
        dw = self.kernel("conv2d_backward_weight")(dy, x, (1, 1), *WINDOW)[:, :, 0, 0] if self.wants(1) else None
        db = self.kernel("conv2d_backward_bias")(dy) if self.has_bias and self.wants(2) else None
        return dx, dw, db


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [N, D] times weight [K, D] transposed, plus bias [K]: [N, K]. Raises ShapeError where the sizes do not fit."""
    return Linear()(x, weight, bias)
