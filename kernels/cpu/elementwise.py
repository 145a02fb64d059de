"""ReLU, sum and multiple, element by element, in whatever memory order the first array has."""

from __future__ import annotations

import numpy as np
from numba import njit

from .. import checks, memory
from ..layout import in_one_order
from .layout import flat_views, like
from .threads import jobs, parts, run, share


@njit(cache=True, nogil=True)
def _relu(team, x, y):
    zero = x.dtype.type(0)
    for job in jobs(team):
        first, last = share(team, job, x.size)
        for i in range(np.uintp(first), np.uintp(last)):
            y[i] = zero if x[i] <= zero else x[i]  # NaN is not <= 0 and passes


@njit(cache=True, nogil=True)
def _relu_backward(team, dy, y, dx):
    zero = y.dtype.type(0)
    for job in jobs(team):
        first, last = share(team, job, y.size)
        for i in range(np.uintp(first), np.uintp(last)):
            dx[i] = zero if y[i] <= zero else dy[i]


@njit(cache=True, nogil=True)
def _add(team, x, y, total):
    for job in jobs(team):
        first, last = share(team, job, x.size)
        for i in range(np.uintp(first), np.uintp(last)):
            total[i] = x[i] + y[i]


@njit(cache=True, nogil=True)
def _scale(team, x, factor, y):
    for job in jobs(team):
        first, last = share(team, job, x.size)
        for i in range(np.uintp(first), np.uintp(last)):
            y[i] = x[i] * factor


def relu_forward(x):
    """See `reference.relu_forward`."""
    checks.same_dtype(x=x)
    order, (flat,) = flat_views(x)
    y = memory.empty(flat.shape, x.dtype)
    run(_relu, parts(x.size), flat, y)
    return like(y, x.shape, order)


def relu_backward_input(dy, y):
    """See `reference.relu_backward_input`."""
    checks.same_dtype(dy=dy, y=y)
    checks.expect_shape("dy", dy.shape, y.shape)
    order, (flat_y, flat_dy) = flat_views(y, dy)
    dx = memory.empty(flat_y.shape, y.dtype)
    run(_relu_backward, parts(y.size), flat_dy, flat_y, dx)
    return like(dx, y.shape, order)


def add_forward(x, y):
    """See `reference.add_forward`."""
    checks.same_dtype(x=x, y=y)
    checks.expect_shape("y", y.shape, x.shape)
    order, (flat_x, flat_y) = flat_views(x, y)
    total = memory.empty(flat_x.shape, x.dtype)
    run(_add, parts(x.size), flat_x, flat_y, total)
    return like(total, x.shape, order)


def accumulate(total, array) -> None:
    """total += array, in place and in one launch, which a graph can hold."""
    total, array = in_one_order(total, array)
    run(_add, parts(total.size), total, array, total)


def scale_forward(x, factor):
    """See `reference.scale_forward`."""
    checks.same_dtype(x=x)
    order, (flat,) = flat_views(x)
    y = memory.empty(flat.shape, x.dtype)
    run(_scale, parts(x.size), flat, x.dtype.type(factor), y)
    return like(y, x.shape, order)
