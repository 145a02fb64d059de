"""The head of a segmentation network, composed: bilinear upsampling, crop, and softmax cross entropy or maximum.

The window of the upsampled logits at `offset` has the size of `target` (or `size`). Derivation:
`minifcn/ops/upsample_cross_entropy.py`.
"""

from __future__ import annotations

import numpy as np

from .. import checks, geometry
from .crop import crop_backward_input, crop_forward
from .cross_entropy import cross_entropy_backward_input, cross_entropy_forward
from .upsample import bilinear_upsample_backward_input, bilinear_upsample_forward


def upsample_cross_entropy_forward(x, target, weight=None, ignore_index=255, factor=1, padding=0, offset=0):
    """losses [N, P, Q] of the coarse logits x [N, C, H, W] against `target` [N, P, Q]; 0 at ignored pixels."""
    checks.same_dtype(x=x, weight=weight)
    checks.expect_rank3("target", target.shape)
    logits = crop_forward(bilinear_upsample_forward(x, factor, padding), offset, target.shape[1:])
    return cross_entropy_forward(logits, target, weight, ignore_index)[0]


def upsample_cross_entropy_backward_input(
    dy, x, target, weight=None, ignore_index=255, factor=1, padding=0, offset=0
):  # fmt: skip
    """dx [N, C, H, W] for dy [N, P, Q]: the adjoints of the crop and of the upsampling, on the logits' gradient."""
    checks.same_dtype(dy=dy, x=x, weight=weight)
    checks.expect_rank3("target", target.shape)
    geo, _ = geometry.upsample_window(x.shape, factor, padding, offset, target.shape[1:])
    logits = crop_forward(bilinear_upsample_forward(x, factor, padding), offset, target.shape[1:])
    _, probabilities = cross_entropy_forward(logits, target, weight, ignore_index)
    dlogits = cross_entropy_backward_input(dy, probabilities, target, weight, ignore_index)
    whole = crop_backward_input(dlogits, offset, (geo.P, geo.Q))
    return bilinear_upsample_backward_input(whole, x.shape[2:], factor, padding)


def upsample_argmax(x, factor, padding, offset, size):
    """The class of the largest upsampled logit of each pixel, [N, P, Q] for `size` = (P, Q); `checks.label_dtype`.

    The first of equal ones wins, and NaN wins over numbers.
    """
    checks.same_dtype(x=x)
    logits = crop_forward(bilinear_upsample_forward(x, factor, padding), offset, size)
    return np.argmax(logits, axis=1).astype(checks.label_dtype(x.shape[1]))
