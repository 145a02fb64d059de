"""Local response normalisation: every element over a power of the energy of the channels around it.

Forward
    y[n,c,h,w] = x[n,c,h,w] s[n,c,h,w]^(-beta),   s[n,c,h,w] = k + alpha / size sum_j x[n,j,h,w]^2,

    where j runs over the channels from c - (size - 1) / 2 to c + (size - 1) / 2 that there are. Where few channels
    answer strongly they keep their lead, where many do they damp each other. alpha is divided by the size, as Caffe and
    PyTorch do; the paper does not.

Backward
    x[j] stands in y[j] itself and in the s of every channel c whose window holds j; pixels do not mix, so that n, h and
    w are left out. With d s[c] / d x[j] = 2 alpha / size x[j] the product and the chain rule give

    d y[c] / d x[j] = [c = j] s[c]^(-beta) - 2 alpha beta / size x[c] s[c]^(-beta - 1) x[j],

    and since the window is symmetric, c sees j where j sees c:

    dx[j] = dy[j] s[j]^(-beta) - 2 alpha beta / size x[j] sum_c dy[c] x[c] s[c]^(-beta - 1),

    c from j - (size - 1) / 2 to j + (size - 1) / 2. Only x is kept: s is computed again.

Source
    Krizhevsky, Sutskever and Hinton, 2012, "ImageNet classification with deep convolutional neural networks", section
    3.3; Caffe's LRN layer (Jia et al., 2014) for the divided alpha.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor


class LRN(Op):
    """y [N, C, H, W] of x [N, C, H, W]."""

    takes_bfloat16 = True

    def __init__(self, size: int, alpha: float, beta: float, k: float) -> None:
        self.rule = (size, alpha, beta, k)

    def forward(self, x: Any) -> Any:
        self.x = x
        return self.kernel("lrn_forward")(x, *self.rule)

    def backward(self, dy: Any) -> tuple[Any]:
        return (self.kernel("lrn_backward_input")(dy, self.x, *self.rule),)


def lrn(x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x [N, C, H, W] over (k + alpha / size sum of squares of the `size` channels around)^beta, as PyTorch's
    `local_response_norm`; the defaults are those of Caffe's AlexNet.

    Raises ShapeError unless `size` is odd, alpha >= 0 and k > 0.
    """
    return LRN(size, alpha, beta, k)(x)
