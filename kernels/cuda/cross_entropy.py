"""Softmax cross entropy of every pixel."""

from __future__ import annotations

import numpy as np

from .. import checks
from ..layout import channels_first, channels_last, contiguous
from .launch import each, full, template

FILE = "cross_entropy.cu"


def prepared(on, dtype, classes, target, weight, ignore_index) -> tuple:
    """(target, weight of every class, ignore_index) as kernels take them: labels are uint8, or else int64."""
    weight = full(on, classes, 1, dtype) if weight is None else contiguous(weight)
    kind = np.uint8 if target.dtype == np.uint8 else np.int64
    return contiguous(target.astype(kind, copy=False)), weight, np.int64(ignore_index)


def check_target(on, x_shape, target, weight, ignore_index) -> None:
    """`checks.check_target`; labels that a graph is given in each replay are checked by who gives them."""
    checks.check_target(x_shape, target, weight, ignore_index, values=on.graph is None)


def cross_entropy_forward(on, x, target, weight=None, ignore_index=255):
    """See `reference.cross_entropy_forward`."""
    checks.same_dtype(x=x, weight=weight)
    check_target(on, x.shape, target, weight, ignore_index)
    logits = channels_last(x)
    losses, probabilities = on.xp.empty(target.shape, x.dtype), on.xp.empty(logits.shape, x.dtype)
    labels = prepared(on, x.dtype, x.shape[1], target, weight, ignore_index)
    expression = template("cross_entropy", x.dtype, labels[0].dtype)
    each(on, FILE, expression, target.size, logits, *labels, losses, probabilities, x.shape[1])
    return losses, channels_first(probabilities)


def cross_entropy_backward_input(on, dy, probabilities, target, weight=None, ignore_index=255):
    """See `reference.cross_entropy_backward_input`."""
    checks.same_dtype(dy=dy, probabilities=probabilities, weight=weight)
    check_target(on, probabilities.shape, target, weight, ignore_index)
    checks.expect_shape("dy", dy.shape, target.shape)
    last = channels_last(probabilities)
    dx = on.xp.empty(last.shape, dy.dtype)
    labels = prepared(on, dy.dtype, last.shape[3], target, weight, ignore_index)
    expression = template("cross_entropy_backward", dy.dtype, labels[0].dtype)
    each(on, FILE, expression, dx.size, contiguous(dy), last, *labels, dx, last.shape[3])
    return channels_first(dx)
