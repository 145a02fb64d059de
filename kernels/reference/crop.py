"""Crop, and crop-and-sum, in NumPy. y[n,c,p,q] = x[n,c, p + top, q + left]; the adjoint pads with zeros."""

from __future__ import annotations

import numpy as np

from .. import checks, geometry


def crop_forward(x, offset, size):
    """y [N, C, P, Q] = the window of x [N, C, H, W] at `offset` = (top, left) of `size` = (P, Q)."""
    checks.same_dtype(x=x)
    (top, left), (height, width) = geometry.crop_window(x.shape, offset, size)
    return x[:, :, top : top + height, left : left + width].copy()


def crop_backward_input(dy, offset, input_size):
    """dx [N, C, H, W]: zero everywhere, dy in the window."""
    checks.same_dtype(dy=dy)
    checks.expect_rank4("dy", dy.shape)
    dx = np.zeros((*dy.shape[:2], *input_size), dy.dtype)
    (top, left), (height, width) = geometry.crop_window(dx.shape, offset, dy.shape[2:])
    dx[:, :, top : top + height, left : left + width] = dy
    return dx


def crop_sum_forward(x, skip, offset):
    """y [N, C, H, W] = x + the window of `skip` at `offset` that has x's size."""
    checks.same_dtype(x=x, skip=skip)
    top, left = geometry.crop_sum_offset(x.shape, skip.shape, offset)
    return x + skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
