"""The wire format of protocol buffers: a message is a row of fields, each a key and a value.

A key is a variable-length integer, 8 x (field number) + wire type; a value of type 0 is such an integer, of type 1
eight bytes, of type 5 four, of type 2 a length and as many bytes, be they a text, a message or packed numbers. Nothing
else is needed to read a message whose field numbers one knows.

Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_FIXED = {1: 8, 5: 4}  # bytes of these wire types


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of each field in order: an integer for wire type 0, else a view of the value's bytes.

    Raises ValueError for a length that reaches beyond the message, and for what is no field.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in _FIXED:
            length = _FIXED[kind]
        else:
            raise ValueError(f"field {number} is of the unknown wire type {kind}")
        if number == 0 or length > len(message) - at:
            raise ValueError(f"field {number} claims {length:,} bytes where {len(message) - at:,} are left")
        yield number, message[at : at + length]
        at += length


def varints(packed: memoryview) -> list[int]:
    """Packed integers."""
    found, at = [], 0
    while at < len(packed):
        value, at = _varint(packed, at)
        found.append(value)
    return found


def numbers(parts: list[memoryview], dtype: str) -> np.ndarray:
    """A repeated field of float or double: packed into one part, or a part each, or both."""
    if any(len(part) % np.dtype(dtype).itemsize for part in parts):
        raise ValueError(f"numbers of {np.dtype(dtype).itemsize} bytes do not fill their field")
    if len(parts) == 1:
        return np.frombuffer(parts[0], dtype)
    return np.frombuffer(b"".join(parts), dtype)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The integer at `at`, seven bits a byte from the lowest up, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("an integer is cut off")
        byte = message[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise ValueError("an integer of more than ten bytes")
