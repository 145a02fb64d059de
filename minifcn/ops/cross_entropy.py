"""Softmax cross entropy of every pixel: the loss of semantic segmentation.

Forward
    With logits x[n,c,h,w], the label t = target[n,h,w] of each pixel and the weight[c] of each class (1 by default),

    p[n,c,h,w] = exp(x[n,c,h,w]) / sum_j exp(x[n,j,h,w]),     l[n,h,w] = -weight[t] log p[n,t,h,w],

    and l = 0 where t is the ignored label. With x_j short for x[n,j,h,w] and m = max_j x_j, it is computed as
    weight[t] (log sum_j exp(x_j - m) - (x_t - m)): the same number, which cannot overflow. Then by `reduction`

    mean   L = sum l / sum weight[t] over the pixels that are not ignored (0 if there are none);
    full   L = sum l / (N H W), ignored pixels included;
    batch  L = sum l / N, the "unnormalised" loss of the released FCN nets, a sum over each image;
    sum    L = sum l;
    none   L = l, one number a pixel.

    Caffe calls the first four VALID, FULL, BATCH_SIZE and NONE.

Backward
    For one pixel, l = weight[t] (log sum_j exp(x_j) - x_t). By x_c, the logarithm has the derivative
    exp(x_c) / sum_j exp(x_j) = p_c, and x_t has 1 if c = t, else 0, written [c = t]:

    dx[n,c,h,w] = dl[n,h,w] weight[t] (p[n,c,h,w] - [c = t]),   dl = dL times 1/sum weight[t], 1/(N H W), 1/N, or 1.

    It is exactly zero at ignored pixels, and sums to zero over the channels everywhere: adding one number to all
    logits of a pixel changes nothing.

Source
    Bridle, 1990, "Probabilistic interpretation of feedforward classification network outputs"; Long, Shelhamer and
    Darrell, 2015, section 3.4; Caffe's SoftmaxWithLoss layer (Jia et al., 2014) for the normalisations.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from ..device import Device
from ..errors import MinifcnError
from ..tensor import Op, Tensor

REDUCTIONS = ("mean", "full", "batch", "sum", "none")
IGNORE_INDEX = 255


class Labels:
    """The labels [N, H, W] of a loss, the weights [C] of its classes, and how the losses of its pixels become one."""

    def __init__(
        self, target: Any, weight: Any = None, ignore_index: int = IGNORE_INDEX, reduction: str = "mean"
    ) -> None:
        if reduction not in REDUCTIONS:
            raise MinifcnError(f"reduction (={reduction!r}) must be one of {', '.join(REDUCTIONS)}")
        target, weight = (value.data if isinstance(value, Tensor) else value for value in (target, weight))
        self.target, self.weight = (
            value if value is None or hasattr(value, "dtype") else np.asarray(value) for value in (target, weight)
        )
        self.ignore_index, self.reduction = ignore_index, reduction

    def on(self, device: Device, dtype: Any) -> tuple[Any, Any, int]:
        """(target, weight, ignore_index) as the kernels of `device` take them."""
        if self.weight is not None:
            self.weight = self.weight.astype(dtype, copy=False)
        given = (self.target, self.weight)
        self.target, self.weight = (value if value is None else device.asarray(value) for value in given)
        on_host = all(value is None or isinstance(value, np.ndarray) for value in given)
        self._counted = given if on_host else (self.target, self.weight)  # on the host, nobody waits for the device
        self.xp = device.xp
        return self.target, self.weight, self.ignore_index

    @cached_property
    def normaliser(self) -> float:
        """What the sum of the pixels' losses is divided by; never 0."""
        target, weight = self._counted
        if self.reduction == "batch":
            return max(1, target.shape[0])
        if self.reduction == "full":
            return max(1, target.size)
        if self.reduction != "mean":
            return 1
        valid = target != self.ignore_index
        if weight is None:
            return int(np.count_nonzero(valid)) or 1
        return float(weight[target[valid]].sum(dtype=np.float64)) or 1

    def reduced(self, losses: Any) -> Any:
        """The loss, of the losses of all pixels."""
        if self.reduction == "none":
            return losses
        return self.xp.asarray(losses.sum(dtype=np.float64) / self.normaliser, dtype=losses.dtype)

    def share(self, dy: Any) -> Any:
        """The gradient of one pixel's loss, of the gradient of what `reduced` returned."""
        return dy / dy.dtype.type(self.normaliser)

    def spread(self, dy: Any) -> Any:
        """dl [N, H, W], the gradient of every pixel's loss, of the gradient of what `reduced` returned."""
        return dy if self.reduction == "none" else self.xp.broadcast_to(self.share(dy), self.target.shape)


class CrossEntropy(Op):
    """Loss (a scalar, or [N, H, W] for "none") of logits [N, C, H, W] against `labels`."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels

    def forward(self, x: Any) -> Any:
        self.arguments = self.labels.on(self.device, x.dtype)
        losses, self.probabilities = self.kernel("cross_entropy_forward")(x, *self.arguments)
        return self.labels.reduced(losses)

    def backward(self, dy: Any) -> tuple[Any]:
        dl = self.labels.spread(dy)
        return (self.kernel("cross_entropy_backward_input")(dl, self.probabilities, *self.arguments),)


def cross_entropy(
    x: Tensor,
    target: Any,
    weight: Any = None,
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
) -> Tensor:
    """Softmax cross entropy of logits x [N, C, H, W] against integer labels `target` [N, H, W] (array or Tensor).

    `weight` [C] scales each class; pixels labelled `ignore_index` do not count; `reduction` is mean, full,
    batch, sum or none. Raises ShapeError for a label that is neither a class nor ignored, and names it and its pixel.
    """
    return CrossEntropy(Labels(target, weight, ignore_index, reduction))(x)
