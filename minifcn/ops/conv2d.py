"""Two-dimensional convolution (in mathematics: cross-correlation, the window is not flipped).

Forward
    y[n,k,p,q] = b[k] + sum_{c,r,s} w[k,c,r,s] x[n,c,h,w],   h = p stride - pad + r dilation,
                                                             w = q stride - pad + s dilation,

    with x = 0 outside the image. (p,q) is a pixel of the output and k one of its K channels; c runs over the C channels
    of the input, (r,s) over the window R x S.

Backward
    y is linear in x, in w and in b, so each derivative is the factor beside the variable.

    Input. x[n,c,h,w] is multiplied by w[k,c,r,s] in every y[n,k,p,q] whose window has its element (r,s) at (h,w):

    dx[n,c,h,w] = sum_{k,r,s} w[k,c,r,s] dy[n,k,p,q],   p = (h + pad - r dilation) / stride where that is an
                                                        integer from 0 to P-1, q likewise.

    r has changed its sign: this is a convolution of dy with the window turned by 180 degrees and c, k exchanged,
    over a dy with stride - 1 zeros between its pixels.

    Weight. w[k,c,r,s] is multiplied by x[n,c,h,w] in y[n,k,p,q], for every image and every output pixel:

    dw[k,c,r,s] = sum_{n,p,q} dy[n,k,p,q] x[n,c,h,w],   h and w as in the forward pass.

    Bias. b[k] is added to every pixel of channel k: db[k] = sum_{n,p,q} dy[n,k,p,q].

    With groups, k and c run over one group's channels, each group by itself.

Source
    LeCun et al., 1989, "Backpropagation applied to handwritten zip code recognition"; Dumoulin and Visin, 2016,
    "A guide to convolution arithmetic for deep learning", for the sizes; Krizhevsky et al., 2012, for groups.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor

Size = int | tuple[int, int]


class Conv2d(Op):
    """y [N, K, P, Q] of x [N, C, H, W], w [K, C/groups, R, S] and b [K] or None."""

    owns_gradients = takes_bfloat16 = True

    def __init__(self, stride: Size = 1, padding: Size = 0, dilation: Size = 1, groups: int = 1) -> None:
        self.window = (stride, padding, dilation, groups)

    def forward(self, x: Any, w: Any, b: Any = None) -> Any:
        self.x, self.w, self.has_bias = x, w, b is not None
        return self.kernel("conv2d_forward")(x, w, b, *self.window)

    def backward(self, dy: Any) -> tuple[Any, Any, Any]:
        x, w = self.x, self.w
        dx = self.kernel("conv2d_backward_input")(dy, w, x.shape[2:], *self.window) if self.wants(0) else None
        dw = self.kernel("conv2d_backward_weight")(dy, x, w.shape[2:], *self.window) if self.wants(1) else None
        db = self.kernel("conv2d_backward_bias")(dy) if self.has_bias and self.wants(2) else None
        return dx, dw, db


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution of x [N, C, H, W] with weight [K, C/groups, R, S] and bias [K]: [N, K, P, Q].

    P = floor((H + 2 padding - dilation (R - 1) - 1) / stride) + 1. `stride`, `padding` and `dilation` are
    integers or (vertical, horizontal) pairs. Raises ShapeError where channels, groups or sizes do not fit.
    """
    return Conv2d(stride, padding, dilation, groups)(x, weight, bias)
