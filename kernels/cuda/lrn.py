"""Local response normalisation: the channels that an element looks at are its neighbours in memory."""

from __future__ import annotations

from .. import checks
from ..layout import channels_first, channels_last
from .launch import each, template

FILE = "lrn.cu"


def _numbers(dtype, size, alpha, beta, k) -> tuple:
    """Channels on either side, alpha / size, beta and k, as the kernels take them."""
    return (size // 2, dtype.type(alpha / size), dtype.type(beta), dtype.type(k))


def lrn_forward(on, x, size, alpha, beta, k):
    """See `reference.lrn_forward`."""
    checks.same_dtype(x=x)
    checks.check_lrn(x.shape, size, alpha, k)
    N, C, H, W = x.shape
    y = on.xp.empty((N, H, W, C), x.dtype)
    each(on, FILE, template("lrn", x.dtype), y.size, channels_last(x), y, *_numbers(x.dtype, size, alpha, beta, k), C)
    return channels_first(y)


def lrn_backward_input(on, dy, x, size, alpha, beta, k):
    """See `reference.lrn_backward_input`."""
    checks.same_dtype(dy=dy, x=x)
    checks.check_lrn(x.shape, size, alpha, k)
    checks.expect_shape("dy", dy.shape, x.shape)
    N, C, H, W = x.shape
    dx = on.xp.empty((N, H, W, C), x.dtype)
    arrays, rule = (channels_last(dy), channels_last(x), dx), _numbers(x.dtype, size, alpha, beta, k)
    each(on, FILE, template("lrn_backward", x.dtype), dx.size, *arrays, *rule, C)
    return channels_first(dx)
