"""What every kernel asks of its arguments, on every device; one message for each broken rule."""

from __future__ import annotations

import numpy as np


class ShapeError(ValueError):
    """Shapes, windows, dtypes or labels that do not fit together; the message names the values and the rule."""


FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}


def same_dtype(**arrays) -> None:
    """Raise unless all arrays are float32, or all are float64; None is skipped."""
    dtypes = {array.dtype for array in arrays.values() if array is not None}
    if len(dtypes) != 1 or not dtypes <= FLOATS:
        listed = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items() if array is not None)
        raise ShapeError(f"arrays must all be float32 or all be float64, got {listed}")


def expect_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise unless `shape` is `expected`."""
    if tuple(shape) != tuple(expected):
        raise ShapeError(f"{name} has shape {tuple(shape)}, but must have {tuple(expected)}")


def expect_rank4(name: str, shape: tuple[int, ...]) -> None:
    """Raise unless `shape` has the four axes [N, C, H, W]."""
    if len(shape) != 4:
        raise ShapeError(f"{name} must have 4 axes [N, C, H, W], but has shape {tuple(shape)}")


def expect_rank3(name: str, shape: tuple[int, ...]) -> None:
    """Raise unless `shape` has the three axes [N, P, Q]."""
    if len(shape) != 3:
        raise ShapeError(f"{name} must have 3 axes [N, P, Q], but has shape {tuple(shape)}")


def label_dtype(classes: int) -> type:
    """What holds predicted labels: one byte, where all classes fit into it."""
    return np.uint8 if classes <= 256 else np.int32


def check_lrn(x_shape, size, alpha, k) -> None:
    """Raise unless x has channels to sum over, and every sum is above 0."""
    expect_rank4("x", x_shape)
    if isinstance(size, bool) or not hasattr(size, "__index__") or size < 1 or size % 2 == 0:
        raise ShapeError(f"size (={size}) must be an odd number of channels")
    if not (alpha >= 0 and k > 0):
        raise ShapeError(f"alpha (={alpha}) must be at least 0 and k (={k}) above 0")


def expect_argmax(argmax, expected: tuple[int, ...]) -> None:
    """Raise unless `argmax` holds a tap number for every output of shape `expected`."""
    expect_shape("argmax", argmax.shape, expected)
    if argmax.dtype != np.uint8:
        raise ShapeError(f"argmax must be uint8, the number r S + s of a tap, but is {argmax.dtype}")


def check_target(x_shape, target, weight, ignore_index, values=True) -> None:
    """Raise unless `target` [N, H, W] holds integers, each a class of x [N, C, H, W] or the ignored label.

    values False: without a look at the labels themselves.
    """
    expect_rank4("logits", x_shape)
    expect_shape("target", target.shape, (x_shape[0], *x_shape[2:]))
    if target.dtype.kind not in "iu":
        raise ShapeError(f"target must hold integers, but has dtype {target.dtype}")
    if weight is not None:
        expect_shape("weight", weight.shape, (x_shape[1],))
    if not values:
        return
    wrong = target >= x_shape[1]
    if target.dtype.kind == "i":
        wrong |= target < 0
    wrong &= target != ignore_index
    if wrong.any():
        n, h, w = (int(i) for i in np.argwhere(wrong)[0])
        raise ShapeError(
            f"label (={target[n, h, w]}) of image {n}, row {h}, column {w} must be a class from 0 to "
            f"{x_shape[1] - 1} or the ignored label {ignore_index}"
        )


FORMS = ("caffe", "pytorch")


def check_sgd(w, g, velocity, form) -> None:
    """Raise unless the arrays fit each other and the form is known."""
    same_dtype(w=w, g=g, velocity=velocity)
    expect_shape("g", g.shape, w.shape)
    expect_shape("velocity", velocity.shape, w.shape)
    if form not in FORMS:
        raise ShapeError(f"form (={form!r}) must be one of {', '.join(FORMS)}")


def check_adam(w, g, mean, square, step) -> None:
    """Raise unless the arrays fit each other and the step counts from 1."""
    same_dtype(w=w, g=g, mean=mean, square=square)
    for name, array in (("g", g), ("mean", mean), ("square", square)):
        expect_shape(name, array.shape, w.shape)
    if step < 1:
        raise ShapeError(f"step (={step}) must count from 1")
