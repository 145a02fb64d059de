"""Broadcasting and its adjoint, for the arithmetic of two tensors.

Where the forward pass repeats an element along an axis, the chain rule adds up the gradients of all its copies:
d/dx of (x, x, ..., x) is a row of ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import MinifcnError
from ..tensor import Tensor


def operands(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both as Tensors of one device; a number or an array takes the dtype and device of the other one.

    Raises MinifcnError where that is stored as bfloat16.
    """
    like = a if isinstance(a, Tensor) else b

    def lift(value: Any) -> Tensor:
        if isinstance(value, Tensor):
            return value
        if like.is_bfloat16:
            raise MinifcnError("a number or an array cannot become bfloat16: ops.storage.widened() the tensor first")
        return Tensor(np.asarray(value, like.dtype), device=like.place)

    return lift(a), lift(b)


def unbroadcast(gradient: Any, shape: tuple[int, ...]) -> Any:
    """`gradient` summed over the axes along which an array of `shape` was repeated."""
    extra = gradient.ndim - len(shape)
    repeated = tuple(extra + axis for axis, size in enumerate(shape) if size == 1 and gradient.shape[extra + axis] != 1)
    axes = tuple(range(extra)) + repeated
    return gradient.sum(axis=axes, keepdims=True).reshape(shape) if axes else gradient
