"""Functions that kernels call: compiled once for each combination of types.

Numba's own decorator compiles a function again for every constant that a caller passes as an argument, which was
measured to take a quarter of a first run's time and to make no kernel faster.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import njit, types


def callee(function: Callable) -> Callable:
    """`function`, compiled as kernels are, to whom a constant is a number like any other."""
    compiled = njit(cache=True, nogil=True)(function)
    choose = compiled.get_call_template

    def choose_by_type(arguments, named):
        named = {name: types.unliteral(one) for name, one in named.items()}
        return choose(tuple(types.unliteral(one) for one in arguments), named)

    compiled.get_call_template = choose_by_type
    return compiled
