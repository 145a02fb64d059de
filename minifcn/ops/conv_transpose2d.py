"""Transposed convolution ("deconvolution"): the adjoint of a convolution, used to restore resolution.

Forward
    Each input pixel (p,q), times the weights, is a window of numbers around its place, and the windows add up:

    y[n,k,h,w] = b[k] + sum_{c,p,q,r,s} x[n,c,p,q] w[c,k,r,s]   over all (p,r) and (q,s) that meet (h,w),
                                                                h = p stride - pad + r dilation,
                                                                w = q stride - pad + s dilation.

    Compare the convolution's gradient for its input: it is this very sum, with dy in x's place and the weight's
    first axis counting what is x's channel here. The output size is stride (H - 1) + dilation (R - 1) + 1 - 2 pad +
    output_padding; the last term says which of the `stride` input sizes that a convolution maps to H is meant.

Backward
    y is linear in x, in w and in b, so each derivative is the factor beside the variable.

    Input. x[n,c,p,q] stands in the outputs of its own window, each time beside a weight:

    dx[n,c,p,q] = sum_{k,r,s} w[c,k,r,s] dy[n,k,h,w],   h and w as in the forward pass, dy = 0 outside the image:

    the convolution of dy with w.

    Weight. w[c,k,r,s] stands beside every x[n,c,p,q], in the output that the two meet at:

    dw[c,k,r,s] = sum_{n,p,q} x[n,c,p,q] dy[n,k,h,w],   h and w likewise:

    the convolution's gradient for its weight with the two arrays exchanged.

    Bias. b[k] is added to every pixel of channel k: db[k] = sum_{n,h,w} dy[n,k,h,w].

    In the words of linear algebra: let A be the matrix of the convolution with w. Then y = A^T x (bias apart), hence
    dx = (A^T)^T dy = A dy. So there are no kernels of its own: all four are the convolution's.

Source
    Long, Shelhamer and Darrell, 2015, section 3.3 ("upsampling is backwards strided convolution"); Zeiler et al.,
    2010, "Deconvolutional networks"; Dumoulin and Visin, 2016, chapter 4.
"""

from __future__ import annotations

from typing import Any

from ..kernels import checks, geometry, memory
from ..tensor import Op, Tensor
from .conv2d import Size


class ConvTranspose2d(Op):
    """y [N, K, P, Q] of x [N, C, H, W], w [C, K/groups, R, S] and b [K] or None."""

    owns_gradients = takes_bfloat16 = True

    def __init__(
        self, stride: Size = 1, padding: Size = 0, output_padding: Size = 0, groups: int = 1, dilation: Size = 1
    ) -> None:
        self.window, self.output_padding = (stride, padding, dilation, groups), output_padding

    def forward(self, x: Any, w: Any, b: Any = None) -> Any:
        self.x, self.w, self.has_bias = x, w, b is not None
        size = geometry.conv_transpose2d(x.shape, w.shape, *self.window, self.output_padding)
        y = self.kernel("conv2d_backward_input")(x, w, size, *self.window)
        if b is None:
            return y
        checks.same_dtype(x=x, bias=b)
        checks.expect_shape("bias", b.shape, y.shape[1:2])
        memory.refuse_in_capture("adding the bias of a transposed convolution")
        return y + b[:, None, None]

    def backward(self, dy: Any) -> tuple[Any, Any, Any]:
        x, w = self.x, self.w
        dx = self.kernel("conv2d_forward")(dy, w, None, *self.window) if self.wants(0) else None
        dw = self.kernel("conv2d_backward_weight")(x, dy, w.shape[2:], *self.window) if self.wants(1) else None
        db = self.kernel("conv2d_backward_bias")(dy) if self.has_bias and self.wants(2) else None
        return dx, dw, db


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """Transposed convolution of x [N, C, H, W] with weight [C, K/groups, R, S] and bias [K]: [N, K, P, Q].

    P = stride (H - 1) + dilation (R - 1) + 1 - 2 padding + output_padding. Raises ShapeError where channels, groups
    or sizes do not fit.
    """
    return ConvTranspose2d(stride, padding, output_padding, groups, dilation)(x, weight, bias)
