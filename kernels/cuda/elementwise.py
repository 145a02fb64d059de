"""ReLU, sum and multiple, in whatever memory order the first array has."""

from __future__ import annotations

from .. import checks
from ..layout import flat_views, like
from ..storage import sums_in
from .launch import each, template
from .storage import same_storage

FILE = "elementwise.cu"


def relu_forward(on, x):
    """See `reference.relu_forward`."""
    same_storage(x=x)
    order, (flat,) = flat_views(x)
    y = on.xp.empty(flat.shape, x.dtype)
    each(on, FILE, template("relu", x.dtype), x.size, flat, y)
    return like(y, x.shape, order)


def relu_backward_input(on, dy, y):
    """See `reference.relu_backward_input`."""
    same_storage(dy=dy, y=y)
    checks.expect_shape("dy", dy.shape, y.shape)
    order, (flat_y, flat_dy) = flat_views(y, dy)
    dx = on.xp.empty(flat_y.shape, y.dtype)
    each(on, FILE, template("relu_backward", y.dtype), y.size, flat_dy, flat_y, dx)
    return like(dx, y.shape, order)


def add_forward(on, x, y):
    """See `reference.add_forward`."""
    same_storage(x=x, y=y)
    checks.expect_shape("y", y.shape, x.shape)
    order, (flat_x, flat_y) = flat_views(x, y)
    total = on.xp.empty(flat_x.shape, x.dtype)
    each(on, FILE, template("add", x.dtype), x.size, flat_x, flat_y, total)
    return like(total, x.shape, order)


def scale_forward(on, x, factor):
    """See `reference.scale_forward`."""
    same_storage(x=x)
    order, (flat,) = flat_views(x)
    y = on.xp.empty(flat.shape, x.dtype)
    each(on, FILE, template("scale", x.dtype), x.size, flat, sums_in(x.dtype).type(factor), y)
    return like(y, x.shape, order)
