"""Sum of two tensors, with broadcasting.

Forward
    y[i] = a[i] + b[i]

    The difference a[i] - b[i] is a[i] + (-1) b[i].

Backward
    d y[i] / d a[i] = 1 and d y[i] / d b[i] = 1, so both inputs receive the upstream gradient unchanged:

    da[i] = dy[i],   db[i] = dy[i],

    summed over the axes along which an input was repeated to fit the other. In particular a value that is used
    twice receives the sum of both gradients, which is why gradients accumulate.

Source
    Sum rule of differential calculus.
"""

from __future__ import annotations

from typing import Any

from ..tensor import Op, Tensor
from .broadcasting import operands, unbroadcast
from .scale import scale


class Add(Op):
    """y = a + b."""

    takes_bfloat16 = True

    def forward(self, a: Any, b: Any) -> Any:
        self.shapes = a.shape, b.shape
        alike = a.shape == b.shape and a.dtype == b.dtype
        by_kernel = alike or any(map(self.device.is_bfloat16, (a.dtype, b.dtype)))  # which refuses what does not fit
        return self.kernel("add_forward")(a, b) if by_kernel else a + b

    def backward(self, dy: Any) -> tuple[Any, Any]:
        return unbroadcast(dy, self.shapes[0]), unbroadcast(dy, self.shapes[1])


def add(a: Any, b: Any) -> Tensor:
    """a + b, elementwise with broadcasting; one of the two may be a number or an array."""
    return Add()(*operands(a, b))


def subtract(a: Any, b: Any) -> Tensor:
    """a - b = a + (-1) b."""
    a, b = operands(a, b)
    return Add()(a, scale(b, -1.0))
