"""Local response normalisation: the channels that an element looks at are its neighbours in memory."""

from __future__ import annotations

from .. import checks
from ..layout import channels_first, channels_last
from ..storage import sums_in
from .launch import each, template
from .storage import same_storage

FILE = "lrn.cu"


def _numbers(dtype, size, alpha, beta, k) -> tuple:
    """Channels on either side, alpha / size, beta and k, as the kernels take them."""
    number = sums_in(dtype).type
    return (size // 2, number(alpha / size), number(beta), number(k))


def lrn_forward(on, x, size, alpha, beta, k):
    """See `reference.lrn_forward`."""
    same_storage(x=x)
    checks.check_lrn(x.shape, size, alpha, k)
    N, C, H, W = x.shape
    y = on.xp.empty((N, H, W, C), x.dtype)
    each(on, FILE, template("lrn", x.dtype), y.size, channels_last(x), y, *_numbers(x.dtype, size, alpha, beta, k), C)
    return channels_first(y)


def lrn_backward_input(on, dy, x, size, alpha, beta, k):
    """See `reference.lrn_backward_input`."""
    same_storage(dy=dy, x=x)
    checks.check_lrn(x.shape, size, alpha, k)
    checks.expect_shape("dy", dy.shape, x.shape)
    N, C, H, W = x.shape
    dx = on.xp.empty((N, H, W, C), x.dtype)
    arrays, rule = (channels_last(dy), channels_last(x), dx), _numbers(x.dtype, size, alpha, beta, k)
    each(on, FILE, template("lrn_backward", x.dtype), dx.size, *arrays, *rule, C)
    return channels_first(dx)
