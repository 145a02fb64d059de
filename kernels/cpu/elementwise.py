"""ReLU, sum and multiple, element by element, in whatever memory order the first array has."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from .. import checks
from .layout import flat_views, like


@njit(cache=True, nogil=True, parallel=True)
def _relu(x, y):
    for i in prange(x.size):
        y[i] = 0 if x[i] <= 0 else x[i]  # NaN is not <= 0 and passes


@njit(cache=True, nogil=True, parallel=True)
def _relu_backward(dy, y, dx):
    for i in prange(y.size):
        dx[i] = 0 if y[i] <= 0 else dy[i]


@njit(cache=True, nogil=True, parallel=True)
def _add(x, y, total):
    for i in prange(x.size):
        total[i] = x[i] + y[i]


@njit(cache=True, nogil=True, parallel=True)
def _scale(x, factor, y):
    for i in prange(x.size):
        y[i] = x[i] * factor


def relu_forward(x):
    """See `reference.relu_forward`."""
    checks.same_dtype(x=x)
    order, (flat,) = flat_views(x)
    y = np.empty_like(flat)
    _relu(flat, y)
    return like(y, x.shape, order)


def relu_backward_input(dy, y):
    """See `reference.relu_backward_input`."""
    checks.same_dtype(dy=dy, y=y)
    checks.expect_shape("dy", dy.shape, y.shape)
    order, (flat_y, flat_dy) = flat_views(y, dy)
    dx = np.empty_like(flat_y)
    _relu_backward(flat_dy, flat_y, dx)
    return like(dx, y.shape, order)


def add_forward(x, y):
    """See `reference.add_forward`."""
    checks.same_dtype(x=x, y=y)
    checks.expect_shape("y", y.shape, x.shape)
    order, (flat_x, flat_y) = flat_views(x, y)
    total = np.empty_like(flat_x)
    _add(flat_x, flat_y, total)
    return like(total, x.shape, order)


def scale_forward(x, factor):
    """See `reference.scale_forward`."""
    checks.same_dtype(x=x)
    order, (flat,) = flat_views(x)
    y = np.empty_like(flat)
    _scale(flat, x.dtype.type(factor), y)
    return like(y, x.shape, order)
