"""The convolution kernels of the contract: each asks the ladder for a rung, and brings arrays into channels-last order.

The fused pair `conv2d_relu_forward` and `conv2d_relu_backward` keeps one bit an output that tells whether ReLU let it
pass: bit k of pixel [n, p, q] is bit k mod 8 of byte mask[n, p, q, k div 8].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from .. import checks, geometry, memory
from .constants import derived, forget, is_constant
from .gemm import add_sums
from .ladder import DIRECTIONS, RUNGS, choose, choose_backward_input
from .layout import channels_first, channels_last
from .runs import clear_run
from .threads import jobs, run, share
from .tiles import POOLED
from .windows import maxima, spread, windows_of

BIAS_GRAIN = 1 << 16  # elements of dy that are worth a job of the bias gradient,
BIAS_JOBS = 16  # which has this many at most


def _forward(geo, name, x, w, b, relu):
    """(y [N, K, P, Q], mask or None) by the rung `name`."""
    bias = np.zeros(geo.K, x.dtype) if b is None else np.ascontiguousarray(memory.plain(b))
    weights = _weights(geo, name, "forward_weights", w)
    y, mask = RUNGS[name].forward(geo, channels_last(x), weights, bias, relu)
    return channels_first(y), mask


def _pools(name, geo, dtype) -> bool:
    """Whether the rung `name` writes maxima of 2 x 2 windows, and reads their gradients."""
    return getattr(RUNGS[name], "pools", lambda geo, dtype: False)(geo, dtype)


def _weights(geo, name, function, w):
    """The weights in the form that a rung wants; kept where they are constant."""
    rung = RUNGS[name]
    if not is_constant(w):
        forget(w)
        as_they_are = getattr(rung, "takes_weights_as_they_are", lambda geo: False)
        return channels_last(w) if as_they_are(geo) else getattr(rung, function)(geo, channels_last(w))
    # The padding decides which taps a phase of the backward pass has, a small image which phases there are.
    phases = min(geo.H, geo.stride[0]), min(geo.W, geo.stride[1])
    what = (name, function, geo.stride, geo.padding, geo.dilation, geo.groups, phases)
    return derived(w, what, lambda: getattr(rung, function)(geo, channels_last(memory.plain(w))))


def _backward_input(geo, name, dy, mask, w):
    """dx [N, C, H, W] by the rung `name`."""
    return channels_first(
        RUNGS[name].backward_input(geo, channels_last(dy), mask, _weights(geo, name, "backward_input_weights", w))
    )


def _backward_weight(geo, name, dy, mask, x):
    """(dw [K, C / groups, R, S], db [K]) by the rung `name`."""
    dw, db = RUNGS[name].backward_weight(geo, channels_last(dy), mask, channels_last(x))
    return channels_first(dw), db


def _check_bias(b, geo) -> None:
    """ShapeError unless b is None or [K]."""
    if b is not None:
        checks.expect_shape("bias", b.shape, (geo.K,))


def conv2d_forward(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """See `reference.conv2d_forward`."""
    checks.same_dtype(x=x, weight=w, bias=b)
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    _check_bias(b, geo)
    return _forward(geo, choose(geo, x.dtype), x, w, b, False)[0]


def conv2d_backward_input(dy, w, input_size, stride=1, padding=0, dilation=1, groups=1):
    """See `reference.conv2d_backward_input`."""
    checks.same_dtype(dy=dy, weight=w)
    geo = geometry.conv2d_backward_input(dy.shape, w.shape, input_size, stride, padding, dilation, groups)
    return _backward_input(geo, choose_backward_input(geo, dy.dtype, not is_constant(w)), dy, None, w)


def conv2d_backward_weight(dy, x, window, stride=1, padding=0, dilation=1, groups=1):
    """See `reference.conv2d_backward_weight`."""
    checks.same_dtype(dy=dy, x=x)
    geo = geometry.conv2d_backward_weight(dy.shape, x.shape, window, stride, padding, dilation, groups)
    return _backward_weight(geo, choose(geo, dy.dtype), dy, None, x)[0]


@njit(cache=True, nogil=True)
def _column_sums(team, matrix, sums, db):
    """db [K]: first sums [job, K] in float64 of each job's rows of `matrix` [pixels, K], then their sum in order."""
    K = matrix.shape[1]
    for job in jobs(team, 0):
        first, last = share(team, job, matrix.shape[0])
        clear_run(sums[job], 0, K)
        for i in range(first, last):
            for k in range(K):
                sums[job, k] += matrix[i, k]
    for _ in jobs(team, 1):
        add_sums(sums, 0, K, db)


def conv2d_backward_bias(dy):
    """See `reference.conv2d_backward_bias`."""
    checks.same_dtype(dy=dy)
    checks.expect_rank4("dy", dy.shape)
    K = dy.shape[1]
    sums = memory.empty((min(BIAS_JOBS, max(1, dy.size // BIAS_GRAIN)), K), np.float64)
    db = memory.empty((K,), dy.dtype)
    run(_column_sums, (len(sums), 1), channels_last(dy).reshape(-1, K), sums, db)
    return db


def conv2d_relu_forward(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """See `reference.conv2d_relu_forward`."""
    checks.same_dtype(x=x, weight=w, bias=b)
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    _check_bias(b, geo)
    return _forward(geo, choose(geo, x.dtype), x, w, b, True)


def conv2d_relu_backward(dy, mask, x, w, stride=1, padding=0, dilation=1, groups=1, needs=(True, True, True)):
    """See `reference.conv2d_relu_backward`."""
    checks.same_dtype(dy=dy, x=x, weight=w)
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    checks.expect_shape("mask", mask.shape, geometry.mask_shape(geo.y_shape))
    mask, dx, dw, db = np.ascontiguousarray(mask), None, None, None
    name = choose(geo, dy.dtype)
    if needs[0]:
        dx = _backward_input(geo, choose_backward_input(geo, dy.dtype, not is_constant(w)), dy, mask, w)
    if needs[1] or needs[2]:
        dw, db = _backward_weight(geo, name, dy, mask, x)
    return dx, dw if needs[1] else None, db if needs[2] else None


def conv2d_relu_max_pool2d_forward(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, ceil_mode=False):
    """See `reference.conv2d_relu_max_pool2d_forward`."""
    checks.same_dtype(x=x, weight=w, bias=b)
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    windows = geometry.max_pool2d(geo.y_shape, 2, ceil_mode=ceil_mode)
    _check_bias(b, geo)
    name = choose(geo, x.dtype)
    if _pools(name, geo, x.dtype):
        y, mask = _forward(geo, name, x, w, b, POOLED)
    else:
        y, mask = maxima(channels_last(_forward(geo, name, x, w, b, False)[0]))
        y = channels_first(y)
    if windows.y_shape != y.shape:  # pixels that are in no window
        memory.refuse_in_capture("cutting maxima off a map of odd sizes")
        y = y[:, :, : windows.P, : windows.Q]
        mask[:, 2 * windows.P :] = 0
        mask[:, :, 2 * windows.Q :] = 0
    return y, mask


def conv2d_relu_max_pool2d_backward(
    dy, mask, x, w, stride=1, padding=0, dilation=1, groups=1, ceil_mode=False, needs=(True, True, True)
):
    """See `reference.conv2d_relu_max_pool2d_backward`."""
    checks.same_dtype(dy=dy, x=x, weight=w)
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    checks.expect_shape("dy", dy.shape, geometry.max_pool2d(geo.y_shape, 2, ceil_mode=ceil_mode).y_shape)
    checks.expect_shape("mask", mask.shape, geometry.mask_shape(geo.y_shape))
    mask, dx, dw, db = np.ascontiguousarray(mask), None, None, None
    name = choose(geo, dy.dtype)
    shape, last = (geo.N, geo.P, geo.Q, geo.K), channels_last(dy)
    if not _pools(name, geo, dy.dtype) or last.shape != windows_of(shape):
        dy = channels_first(spread(last, shape))
    if needs[0]:
        dx = _backward_input(geo, name, dy, mask, w)
    if needs[1] or needs[2]:
        dw, db = _backward_weight(geo, name, dy, mask, x)
    return dx, dw if needs[1] else None, db if needs[2] else None


def rung(op: str, name: str) -> Callable:
    """The kernel `op`, one of the ladder's DIRECTIONS, by the rung `name`.

    It raises ShapeError where the rung cannot compute a shape.
    """

    def check(geo, dtype) -> None:
        if not RUNGS[name].supports(geo, dtype):
            raise checks.ShapeError(f"rung {name!r} does not compute a convolution of {geo} in {np.dtype(dtype)}")

    def forward(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
        geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
        check(geo, x.dtype)
        return _forward(geo, name, x, w, b, False)[0]

    def backward_input(dy, w, input_size, stride=1, padding=0, dilation=1, groups=1):
        geo = geometry.conv2d_backward_input(dy.shape, w.shape, input_size, stride, padding, dilation, groups)
        check(geo, dy.dtype)
        return _backward_input(geo, name, dy, None, w)

    def backward_weight(dy, x, window, stride=1, padding=0, dilation=1, groups=1):
        geo = geometry.conv2d_backward_weight(dy.shape, x.shape, window, stride, padding, dilation, groups)
        check(geo, dy.dtype)
        return _backward_weight(geo, name, dy, None, x)[0]

    return dict(zip(DIRECTIONS, (forward, backward_input, backward_weight), strict=True))[op]
