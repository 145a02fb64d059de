"""Softmax cross entropy of every pixel, in NumPy and float64.

probabilities = exp(x - m) / sum_c exp(x - m), m = max_c x; the loss of a pixel with label t and class weight
w[t] is -w[t] log probability[t], computed as w[t] (log sum_c exp(x_c - m) - (x_t - m)), which no logit can
overflow. Derivation: `minifcn/ops/cross_entropy.py`.
"""

from __future__ import annotations

import numpy as np

from .. import checks


def _pixel_weights(dtype, classes, target, weight, ignore_index) -> tuple[np.ndarray, np.ndarray]:
    """(w[t], t) of every pixel: weight 0 and class 0 where it is ignored."""
    valid = target != ignore_index
    label = np.where(valid, target, 0).astype(np.intp)
    per_class = np.ones(classes, dtype) if weight is None else weight
    return np.where(valid, per_class[label], dtype.type(0)), label


def cross_entropy_forward(x, target, weight=None, ignore_index=255):
    """(losses [N, H, W], probabilities [N, C, H, W]) of logits x [N, C, H, W]; 0 at ignored pixels."""
    checks.same_dtype(x=x, weight=weight)
    checks.check_target(x.shape, target, weight, ignore_index)
    w, label = _pixel_weights(x.dtype, x.shape[1], target, weight, ignore_index)
    shifted = x.astype(np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1, keepdims=True)
    of_label = np.take_along_axis(shifted, label[:, None], axis=1)
    losses = np.where(target == ignore_index, 0, (np.log(total) - of_label)[:, 0] * w)
    return losses.astype(x.dtype), (exponentials / total).astype(x.dtype)


def cross_entropy_backward_input(dy, probabilities, target, weight=None, ignore_index=255):
    """dx [N, C, H, W] = dy w[t] (probability - onehot(t)) for dy [N, H, W]; exactly 0 at ignored pixels."""
    checks.same_dtype(dy=dy, probabilities=probabilities, weight=weight)
    checks.check_target(probabilities.shape, target, weight, ignore_index)
    checks.expect_shape("dy", dy.shape, target.shape)
    w, label = _pixel_weights(dy.dtype, probabilities.shape[1], target, weight, ignore_index)
    classes = np.arange(probabilities.shape[1])[:, None, None]
    dx = (dy * w)[:, None] * (probabilities - (classes == label[:, None]))
    return np.where((target == ignore_index)[:, None], dy.dtype.type(0), dx).astype(dy.dtype)
