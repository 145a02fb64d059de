"""Gradient checks for any op, kernel, module or plain function.

    from minifcn.gradcheck import gradcheck, check_op

    print(gradcheck(lambda x: (x * x).sum(), [np.array([1.0, 2.0])]))     # any function of Tensors
    print(gradcheck(forward, [x, w], backward=backward, kind="linear"))   # any pair of plain functions
    print(check_op("conv2d", device="cpu", dtype="float32"))              # an op, at random geometries
    print(check_op("relu", kernels={"relu_backward_input": mine}))        # a kernel of one's own

What is checked stands in `rules`, how gradients are differenced in `differences`, all limits in `tolerances`, and
the random geometries of every op in `cases`.
"""

from .cases import OPS, OpCase, StepCase
from .checker import check_case, check_op, gradcheck
from .differences import NonSmooth
from .report import Finding, GradientError, Report

__all__ = [
    "OPS",
    "Finding",
    "GradientError",
    "NonSmooth",
    "OpCase",
    "Report",
    "StepCase",
    "check_case",
    "check_op",
    "gradcheck",
]
