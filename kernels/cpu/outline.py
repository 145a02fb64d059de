"""Code that is compiled once for each dtype and called by its address.

Numba compiles what a kernel calls into the kernel: again for every kernel, and for every combination of argument types.
For long stretches of vector code, the micro-kernel and the tile programs, that was measured to take most of the time of
a first run. So they are compiled by themselves, as C functions of pointers and integers, and kernels get their
addresses in an array, `tools(dtype)`, which they pass down to the calls. (An address inside a kernel could not be kept
in a cache on disk.)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .cache import own_cache
from .vectors import Vectors

_functions: list[tuple[Callable, str]] = []  # (Python function of pointers and integers, kinds of its arguments)
_compiled: list = []  # kept alive, as their addresses are in use


def _of(count: int) -> Callable:
    """Decorator of an intrinsic of *arguments that has Numba see `count` single ones: it wants a tuple for a star."""

    def decorate(function: Callable) -> Callable:
        names = ["typingctx", *(f"argument{i}" for i in range(count))]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        function.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])
        return intrinsic(function)

    return decorate


def code(emit: Callable) -> Callable:
    """An intrinsic of pointers and integers from emit(v, *values), which writes LLVM IR.

    Its `v`, Vectors, are of the scalars that the first pointer points to.
    """

    @_of(len(inspect.signature(emit).parameters) - 1)
    def body(typingctx, *arguments):
        def generate(context, builder, signature, values):
            scalar = next(t.dtype for t in signature.args if isinstance(t, types.CPointer))
            emit(Vectors(context, builder, scalar), *values)
            return context.get_dummy_value()

        return types.void(*arguments), generate

    return body


def outlined(function: Callable, kinds: str) -> Callable:
    """What kernels call in the place of `function`, whose arguments are of `kinds`: n integer, a scalars, m bytes.

    A call is call(tools, *arguments), in which two arguments stand for each array: itself and its first element.
    """
    number = len(_functions)
    _functions.append((function, kinds))

    @_of(1 + len(kinds) + sum(kind != "n" for kind in kinds))
    def call(typingctx, tools, *arguments):
        def generate(context, builder, signature, values):
            array_types = signature.args
            scalar = next(t.dtype for t in array_types[1:] if isinstance(t, types.Array) and t.dtype != types.uint8)
            v, passed, rest = Vectors(context, builder, scalar), [], iter(range(1, len(values)))
            for kind in kinds:
                i = next(rest)
                passed.append(values[i] if kind == "n" else v.at(values[i], array_types[i], values[next(rest)]))
            target = ir.FunctionType(ir.VoidType(), [value.type for value in passed])
            address = builder.load(v.at(values[0], array_types[0], v.index(number)))
            builder.call(builder.inttoptr(address, target.as_pointer()), passed)
            return context.get_dummy_value()

        return types.void(tools, *(t if isinstance(t, types.Array) else types.intp for t in arguments)), generate

    return call


@cache
def tools(dtype: np.dtype) -> np.ndarray:
    """The addresses of all outlined functions for arrays of `dtype`, int64, compiled when they are first asked for."""
    scalar = numba.from_dtype(np.dtype(dtype))
    kinds_of = {"n": types.intp, "a": types.CPointer(scalar), "m": types.CPointer(types.uint8)}
    addresses = []
    for function, kinds in _functions:
        with own_cache():
            compiled = numba.cfunc(types.void(*(kinds_of[kind] for kind in kinds)), cache=True)(function)
        _compiled.append(compiled)
        addresses.append(compiled.address)
    return np.array(addresses, np.int64)
