"""Code that is compiled once for each dtype and called by its address.

Numba compiles what a kernel calls into the kernel: again for every kernel, and for every combination of argument types.
For long stretches of vector code, the micro-kernel and the tile programs, that was measured to take most of the time of
a first run. So they are compiled by themselves, as C functions of a pointer to their arguments, and kernels get their
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
from numba.core import cgutils
from numba.extending import intrinsic

from .cache import own_cache
from .vectors import Vectors

WORD = ir.IntType(64)  # of the memory that arguments are passed in
_functions: list[Callable] = []  # of one pointer
_compiled: list = []  # kept alive, as their addresses are in use


def _of(count: int) -> Callable:
    """Decorator of an intrinsic of *arguments that has Numba see `count` single ones: it wants a tuple for a star."""

    def decorate(function: Callable) -> Callable:
        names = ["typingctx", *(f"argument{i}" for i in range(count))]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        function.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])
        return intrinsic(function)

    return decorate


def code(emit: Callable, kinds: str) -> Callable:
    """An intrinsic that loads the arguments of emit(v, *values), which writes LLVM IR, from the memory it points to.

    Their `kinds`: n integer, a pointer to scalars, m pointer to bytes. `v` is Vectors of the scalars that the type of
    the intrinsic's one argument points to.
    """
    wanted = len(inspect.signature(emit).parameters) - 1
    if wanted != len(kinds):
        raise TypeError(f"{emit.__name__} takes {wanted} values, but {kinds!r} are the kinds of {len(kinds)}")

    @intrinsic
    def body(typingctx, arguments):
        def generate(context, builder, signature, values):
            v = Vectors(context, builder, signature.args[0].dtype)
            pointers = {"a": v.element.as_pointer(), "m": ir.IntType(8).as_pointer()}
            words, passed = builder.bitcast(values[0], WORD.as_pointer()), []
            for i, kind in enumerate(kinds):
                word = builder.load(builder.gep(words, [v.index(i)]))
                passed.append(word if kind == "n" else builder.inttoptr(word, pointers[kind]))
            emit(v, *passed)
            return context.get_dummy_value()

        return types.void(arguments), generate

    body.kinds = kinds
    return body


def outlined(function: Callable, body: Callable) -> Callable:
    """What kernels call in the place of `function`, which hands a pointer to its arguments on to `body`, from `code`.

    A call is call(tools, *arguments), in which two arguments stand for each array: itself and its first element. They
    are passed in memory: a C function with a dozen arguments was measured to lose a hundred cycles in copying them.
    """
    number, kinds = len(_functions), body.kinds
    _functions.append(function)

    @_of(1 + len(kinds) + sum(kind != "n" for kind in kinds))
    def call(typingctx, tools, *arguments):
        def generate(context, builder, signature, values):
            array_types = signature.args
            scalar = next(t.dtype for t in array_types[1:] if isinstance(t, types.Array) and t.dtype != types.uint8)
            v, rest = Vectors(context, builder, scalar), iter(range(1, len(values)))
            words = cgutils.alloca_once(builder, WORD, len(kinds))
            for place, kind in enumerate(kinds):
                i = next(rest)
                word = values[i]
                if kind != "n":
                    word = builder.ptrtoint(v.at(values[i], array_types[i], values[next(rest)]), WORD)
                builder.store(word, builder.gep(words, [v.index(place)]))
            target = ir.FunctionType(ir.VoidType(), [words.type])
            address = builder.load(v.at(values[0], array_types[0], v.index(number)))
            builder.call(builder.inttoptr(address, target.as_pointer()), [words])
            return context.get_dummy_value()

        return types.void(tools, *(t if isinstance(t, types.Array) else types.intp for t in arguments)), generate

    return call


@cache
def tools(dtype: np.dtype) -> np.ndarray:
    """The addresses of all outlined functions for arrays of `dtype`, int64, compiled when they are first asked for."""
    scalar = numba.from_dtype(np.dtype(dtype))
    addresses = []
    for function in _functions:
        with own_cache():
            compiled = numba.cfunc(types.void(types.CPointer(scalar)), cache=True)(function)
        _compiled.append(compiled)
        addresses.append(compiled.address)
    return np.array(addresses, np.int64)
