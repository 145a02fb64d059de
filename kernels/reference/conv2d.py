"""Convolution in NumPy: one einsum a tap, in float64.

y[n,k,p,q] = b[k] + sum_{c,r,s} w[k,c,r,s] x[n,c, p stride - pad + r dilation, q stride - pad + s dilation],
x = 0 outside the image: what deep learning calls convolution, and mathematics cross-correlation. The
derivation of the three gradients stands in `minifcn/ops/conv2d.py`.
"""

from __future__ import annotations

import numpy as np

from .. import checks, geometry
from ..geometry import Conv2dGeometry
from .elementwise import relu_forward
from .pool2d import max_pool2d_forward


def _padded(x: np.ndarray, geo: Conv2dGeometry) -> np.ndarray:
    """x with its zero border, in float64, channels split into groups: [N, G, C/G, H+2pad, W+2pad]."""
    (ph, pw) = geo.padding
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    return x.reshape(geo.N, geo.groups, geo.C // geo.groups, *x.shape[2:])


def _tap(padded: np.ndarray, r: int, s: int, geo: Conv2dGeometry) -> np.ndarray:
    """The view [N, G, C/G, P, Q] of all padded pixels that tap (r, s) meets, one an output pixel."""
    (sh, sw), (dh, dw) = geo.stride, geo.dilation
    top, left = r * dh, s * dw
    return padded[..., top : top + (geo.P - 1) * sh + 1 : sh, left : left + (geo.Q - 1) * sw + 1 : sw]


def _grouped_weight(w: np.ndarray, geo: Conv2dGeometry) -> np.ndarray:
    """w as [G, K/G, C/G, R, S] in float64."""
    return w.astype(np.float64).reshape(geo.groups, geo.K // geo.groups, *w.shape[1:])


def _grouped_output(dy: np.ndarray, geo: Conv2dGeometry) -> np.ndarray:
    """dy as [N, G, K/G, P, Q] in float64."""
    return dy.astype(np.float64).reshape(geo.N, geo.groups, geo.K // geo.groups, geo.P, geo.Q)


def conv2d_forward(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """y [N, K, P, Q] of x [N, C, H, W], w [K, C/groups, R, S] and b [K] or None."""
    checks.same_dtype(x=x, weight=w, bias=b)
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    padded, grouped = _padded(x, geo), _grouped_weight(w, geo)
    y = np.zeros((geo.N, geo.groups, geo.K // geo.groups, geo.P, geo.Q))
    for r in range(geo.R):
        for s in range(geo.S):
            y += np.einsum("ngcpq,gkc->ngkpq", _tap(padded, r, s, geo), grouped[..., r, s])
    y = y.reshape(geo.y_shape)
    if b is not None:
        checks.expect_shape("bias", b.shape, (geo.K,))
        y += b.astype(np.float64)[:, None, None]
    return y.astype(x.dtype)


def conv2d_backward_input(dy, w, input_size, stride=1, padding=0, dilation=1, groups=1):
    """dx [N, C, H, W] for an input of size `input_size` = (H, W): each tap scatters what it gathered."""
    checks.same_dtype(dy=dy, weight=w)
    geo = geometry.conv2d_backward_input(dy.shape, w.shape, input_size, stride, padding, dilation, groups)
    grouped_dy, grouped_w = _grouped_output(dy, geo), _grouped_weight(w, geo)
    padded = _padded(np.zeros(geo.x_shape), geo)
    for r in range(geo.R):
        for s in range(geo.S):
            _tap(padded, r, s, geo)[...] += np.einsum("ngkpq,gkc->ngcpq", grouped_dy, grouped_w[..., r, s])
    (ph, pw) = geo.padding
    dx = padded[..., ph : ph + geo.H, pw : pw + geo.W].reshape(geo.x_shape)
    return dx.astype(dy.dtype)


def conv2d_backward_weight(dy, x, window, stride=1, padding=0, dilation=1, groups=1):
    """dw [K, C/groups, R, S]: each tap's inputs against all upstream gradients."""
    checks.same_dtype(dy=dy, x=x)
    geo = geometry.conv2d_backward_weight(dy.shape, x.shape, window, stride, padding, dilation, groups)
    padded, grouped_dy = _padded(x, geo), _grouped_output(dy, geo)
    dw = np.zeros((geo.groups, geo.K // geo.groups, *geo.w_shape[1:]))
    for r in range(geo.R):
        for s in range(geo.S):
            dw[..., r, s] = np.einsum("ngkpq,ngcpq->gkc", grouped_dy, _tap(padded, r, s, geo))
    return dw.reshape(geo.w_shape).astype(x.dtype)


def conv2d_backward_bias(dy):
    """db [K]: the sum of dy [N, K, P, Q] over all images and pixels."""
    checks.same_dtype(dy=dy)
    checks.expect_rank4("dy", dy.shape)
    return dy.sum(axis=(0, 2, 3), dtype=np.float64).astype(dy.dtype)


def relu_mask(y):
    """One bit an element of y [N, K, P, Q], set where ReLU passes: [N, P, Q, ceil(K/8)], channel k in bit k mod 8."""
    return np.packbits(~(y <= 0).transpose(0, 2, 3, 1), axis=3, bitorder="little")  # NaN passes


def masked(dy, mask):
    """dy [N, K, P, Q] where its bit of `mask` is set, else 0."""
    passes = np.unpackbits(mask, axis=3, count=dy.shape[1], bitorder="little").transpose(0, 3, 1, 2)
    return np.where(passes, dy, dy.dtype.type(0))


def conv2d_relu_forward(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """(relu(y), mask) of the convolution's y [N, K, P, Q]; the mask tells which of its elements ReLU let pass."""
    y = conv2d_forward(x, w, b, stride, padding, dilation, groups)
    return relu_forward(y), relu_mask(y)


def conv2d_relu_backward(dy, mask, x, w, stride=1, padding=0, dilation=1, groups=1, needs=(True, True, True)):
    """(dx, dw, db) of both together; None where `needs` does not ask for it."""
    checks.same_dtype(dy=dy, x=x, weight=w)
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    checks.expect_shape("dy", dy.shape, geo.y_shape)
    checks.expect_shape("mask", mask.shape, geometry.mask_shape(geo.y_shape))
    dz, window = masked(dy, mask), (stride, padding, dilation, groups)
    return (
        conv2d_backward_input(dz, w, x.shape[2:], *window) if needs[0] else None,
        conv2d_backward_weight(dz, x, w.shape[2:], *window) if needs[1] else None,
        conv2d_backward_bias(dz) if needs[2] else None,
    )


def conv2d_relu_max_pool2d_forward(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, ceil_mode=False):
    """(the maxima of relu(y) over windows of 2 x 2, mask): y the convolution's [N, K, P, Q], and the mask, of its size,
    tells which of its elements ReLU let pass and won their window.
    """
    y, mask = conv2d_relu_forward(x, w, b, stride, padding, dilation, groups)
    maxima, argmax = max_pool2d_forward(y, 2, ceil_mode=ceil_mode)
    p, q = np.arange(y.shape[2])[:, None], np.arange(y.shape[3])
    won = spread(argmax, y.shape) == 2 * (p % 2) + q % 2
    won &= (p < 2 * maxima.shape[2]) & (q < 2 * maxima.shape[3])  # without a ceiling some may be in no window
    return maxima, mask & np.packbits(won.transpose(0, 2, 3, 1), axis=3, bitorder="little")


def spread(dy, shape):
    """dz [N, K, P, Q] = `shape`: what dy has for the 2 x 2 window of each element; 0 for those in no window."""
    dz = np.zeros(shape, dy.dtype)
    spread = dy.repeat(2, axis=2).repeat(2, axis=3)[:, :, : shape[2], : shape[3]]
    dz[:, :, : spread.shape[2], : spread.shape[3]] = spread
    return dz


def conv2d_relu_max_pool2d_backward(
    dy, mask, x, w, stride=1, padding=0, dilation=1, groups=1, ceil_mode=False, needs=(True, True, True)
):
    """(dx, dw, db) of all three together; None where `needs` does not ask for it."""
    checks.same_dtype(dy=dy, x=x, weight=w)
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    checks.expect_shape("dy", dy.shape, geometry.max_pool2d(geo.y_shape, 2, ceil_mode=ceil_mode).y_shape)
    return conv2d_relu_backward(spread(dy, geo.y_shape), mask, x, w, stride, padding, dilation, groups, needs)
