"""A pickle reader that builds tensors, containers, numbers and texts, and can do nothing else.

A pickle is a program for a stack machine, and the standard library's machine calls whatever the program names. This one
knows the opcodes of data only. A name, "module.thing", is looked up in a table of ours and never imported; what it
stands for there takes and returns plain values. Opcodes are split by the standard library's `pickletools`, which checks
every length against the bytes that are there.

Source: the opcodes and their meaning, CPython's Lib/pickletools.py; the state of an array, NumPy's ndarray.__reduce__.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from ...errors import CheckpointError
from .source import from_bytes

_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
_MARK = object()


class Buildable:
    """A value that a pickle completes with a BUILD opcode."""

    def build(self, state: Any) -> None:
        raise NotImplementedError


class Unpickler:
    """Reads one pickle after the other from `file`, an mmap or BytesIO: `read` there gives no more than there is.

    known: by "module.thing", the functions that a pickle may call and the values that it may name; persistent: gives
    what a persistent id stands for. `path` is for messages.
    """

    def __init__(
        self, path: Any, file: BinaryIO, known: Mapping[str, Any], persistent: Callable[[Any], Any] | None = None
    ) -> None:
        self.path, self.file, self.known, self.persistent = path, file, known, persistent

    def load(self) -> Any:
        """The next pickle's value; the file then stands behind it.

        Raises CheckpointError for a name or an opcode that is not allowed, ValueError, LookupError or TypeError for a
        broken pickle.
        """
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        for opcode, argument, _ in pickletools.genops(self.file):
            if opcode.name == "STOP":
                return self.stack.pop()
            self._run(opcode.name, argument)
        raise ValueError("a pickle has no end")

    def _run(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case _ if name in _LITERALS:
                stack.append(argument)
            case _ if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case _ if name in _EMPTY:
                stack.append(_EMPTY[name]())
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                stack.append(_MARK)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._take(int(name[-1]))))
            case "TUPLE":
                stack.append(tuple(self._take_to_mark()))
            case "LIST":
                stack.append(self._take_to_mark())
            case "DICT":
                stack.append(_pairs(self._take_to_mark()))
            case "APPEND" | "APPENDS":
                values = self._take(1) if name == "APPEND" else self._take_to_mark()
                _of_type(stack[-1], list).extend(values)
            case "SETITEM" | "SETITEMS":
                values = self._take(2) if name == "SETITEM" else self._take_to_mark()
                _of_type(stack[-1], dict).update(_pairs(values))
            case "GLOBAL":
                stack.append(self._known(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                stack.append(self._known(*self._take(2)))
            case "REDUCE":
                function, arguments = self._take(2)
                stack.append(function(*_of_type(arguments, tuple)))  # only what `known` holds can be called
            case "BUILD":
                (state,) = self._take(1)
                if type(stack[-1]) is not dict:  # attributes of an ordered dictionary, PyTorch's _metadata, are let go
                    _of_type(stack[-1], Buildable).build(state)
            case "BINPERSID" if self.persistent is not None:
                stack.append(self.persistent(*self._take(1)))
            case _:
                raise self._refused(f"builds an object (opcode {name})")

    def _take(self, count: int) -> list[Any]:
        """The last `count` values of the stack, taken off it."""
        if len(self.stack) < count:
            raise IndexError("an opcode lacks its operands")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _take_to_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                taken = self.stack[place + 1 :]
                del self.stack[place:]
                return taken
        raise IndexError("an opcode lacks its mark")

    def _known(self, module: Any, thing: Any) -> Any:
        name = f"{module}.{thing}"
        if name not in self.known:
            raise self._refused(f"names {name}")
        return self.known[name]

    def _refused(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: its pickle {what}, and only tensors, containers, numbers and texts are read; nothing was "
            f"executed. Save plain tensors: in PyTorch, model.state_dict()"
        )


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a pickle treats a {type(value).__name__} as a {kind.__name__}")
    return value


def _pairs(values: list[Any]) -> dict[Any, Any]:
    return dict(zip(values[::2], values[1::2], strict=True))


# --- NumPy's arrays ----------------------------------------------------------------------------------------------


class _DType(Buildable):
    """numpy.dtype("f4"), and its byte order from the state."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[fiu][1248]|b1|O8?", code):
            raise ValueError(f"an array of dtype {code!r}")
        self.code, self.order = code, "<"

    def build(self, state: Any) -> None:
        self.order = state[1]

    def value(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(self.order)


class PickledArray(Buildable):
    """An array, `value` after BUILD; one of objects stands for the list of them, or for the only one of shape ()."""

    value: Any = None

    def build(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if dtype.code.startswith("O"):
            self.value = _of_type(data, list)[0] if shape == () else _of_type(data, list)
        else:
            data = data.encode("latin1") if isinstance(data, str) else data  # a byte string of Python 2
            self.value = from_bytes(data, dtype.value(), shape, "F" if fortran else "C")


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


NUMPY: dict[str, Any] = {
    "_codecs.encode": _encode,
    "numpy.dtype": _DType,
    "numpy.ndarray": None,  # the type of array that _reconstruct is asked for
    "numpy.core.multiarray._reconstruct": lambda *_: PickledArray(),
    "numpy._core.multiarray._reconstruct": lambda *_: PickledArray(),
}
