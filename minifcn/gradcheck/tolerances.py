"""Every tolerance of the checker, by rule and dtype, and the step of every kind of function.

The kinds say what a difference quotient can know about a function:

* linear     linear or affine in each input by itself (convolution, pooling by mean, crop, product): the difference is
             exact for every step, so the step is 1, where only rounding is left.
* curved     smooth (softmax loss, exp): step 1e-6, always in float64, because at float32's best step the difference
             is 1000 times worse than the gradient it should judge.
* piecewise  linear between kinks (ReLU, maximum): on half-integers that are 1 apart, with integer directions and the
             step 1/32, no kink is met and the difference is exact.

Rules that are not listed here are exact: their tolerance is 0.
"""

from __future__ import annotations

import numpy as np

STEPS = {"linear": 1.0, "curved": 1e-6, "piecewise": 1 / 32}

TOLERANCES = {
    # the finite difference against the gradient, over |dx| rms(v), the usual size of <dx, v>
    "gradient, linear": {"float64": 1e-10, "float32": 1e-4},
    "gradient, curved": {"float64": 1e-6, "float32": 1e-5},
    "gradient, piecewise": {"float64": 1e-10, "float32": 1e-6},
    # the same for the loss of a whole network: some twenty layers of rounding
    "gradient, network": {"float64": 1e-6, "float32": 1e-4},
    # <A v, dy> against <v, A* dy>, over |A v| |dy| + |v| |A* dy|
    "adjoint": {"float64": 1e-12, "float32": 1e-5},
    # against the reference in float64, relative L2
    "parity": {"float64": 1e-12, "float32": 1e-5},
    # a softmax loss worked out by hand, absolute; whole numbers are exact
    "known answer": {"float64": 1e-14, "float32": 1e-6},
    # against the result of contiguous inputs, relative L2: a library's sum may run in another order
    "strides": {"float64": 1e-12, "float32": 1e-5},
}


def tolerance(rule: str, dtype: np.dtype | str) -> float:
    """The tolerance of `rule` for `dtype`; 0 for an exact rule."""
    return TOLERANCES[rule][np.dtype(dtype).name] if rule in TOLERANCES else 0.0
