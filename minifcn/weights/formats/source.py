"""What a reader hands on: named arrays, what the file itself says of them, and the bounds that all readers keep.

A file is a stranger's. Nothing in it is executed, and no size that it claims is believed before it was compared with
the size of the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError

EXPANSION = 100  # trained weights hardly compress: a file that claims to grow more than this is a trap
ENTRIES = 250_000  # values in nested containers
DEPTH = 16


@dataclass(frozen=True)
class Convention:
    """How a network's weights lie and what its inputs are; None where nothing says so.

    layout: of convolutions, "OIHW" (and fully connected weights [out, in]) or "HWIO" ([in, out]); flatten: the order in
    which a map becomes the input of a fully connected layer, "CHW" or "HWC"; colors: the first layer's input channels,
    "rgb" or "bgr"; mean, std: of these inputs, x = (colour - mean) / std, as R, G, B in 0 .. 255.
    """

    layout: str | None = None
    flatten: str | None = None
    colors: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def or_else(self, other: Convention) -> Convention:
        """This convention, and `other` where it says nothing."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        return Convention(**{name: getattr(other, name) if own[name] is None else own[name] for name in own})


@dataclass(frozen=True)
class Source:
    """arrays: by the names in the file, of numbers only; known: what the format says about them; untrained: layers that
    the file itself calls so.
    """

    path: Path
    format: str
    arrays: dict[str, np.ndarray]
    known: Convention = field(default_factory=Convention)
    untrained: tuple[str, ...] = ()


@contextmanager
def reading(path: str | os.PathLike, format: str) -> Iterator[str]:
    """Gives `format`; whatever broken content makes a parser raise becomes a CheckpointError that names the file.

    Whatever: bytes of a stranger's drive the libraries below to errors that no list of ours foresees.
    """
    try:
        yield format
    except CheckpointError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: not a readable {format} file, it is corrupt or cut off ({reason})") from error


def bound(path: str | os.PathLike, claimed: int) -> None:
    """Raise CheckpointError if the file claims to hold more bytes than a file of its size can."""
    size = os.path.getsize(path)
    if claimed > EXPANSION * size:
        raise CheckpointError(
            f"{path}: it claims to hold {claimed:,} bytes of weights in {size:,} bytes of file, over {EXPANSION} times "
            f"as many; not read"
        )


def from_bytes(data: Any, dtype: np.dtype, shape: tuple[int, ...], order: str = "C") -> np.ndarray:
    """`data` as an array, without a copy. Raises ValueError unless it has exactly the bytes that `shape` needs."""
    if any(not isinstance(size, int) or size < 0 for size in shape):
        raise ValueError(f"shape {shape}")
    needed = dtype.itemsize
    for size in shape:
        needed *= size
    if needed != len(data):
        raise ValueError(f"{len(data):,} bytes where shape {shape} needs {needed:,}")
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def flattened(value: Any, unwrap: Callable[[Any], Any] = lambda value: value) -> dict[str, np.ndarray]:
    """The arrays in nested dictionaries and sequences, by their keys joined with "/"; numbers and texts are left out.

    unwrap: turns a reader's own kind of value into an array or a container. Raises ValueError for more than ENTRIES
    values, as a short file can refer to one of them over and over.
    """
    arrays: dict[str, np.ndarray] = {}
    waiting, seen = [((), value)], 0
    while waiting:
        keys, value = waiting.pop()
        value, seen = unwrap(value), seen + 1
        if seen > ENTRIES or len(keys) > DEPTH:
            raise ValueError("containers within containers without end")
        if isinstance(value, np.ndarray):
            name = "/".join(map(str, keys))
            if name in arrays:
                raise ValueError(f"two arrays are called {name!r}")
            arrays[name] = value
        elif isinstance(value, dict):
            waiting += [((*keys, key), below) for key, below in reversed(value.items())]
        elif isinstance(value, list | tuple):
            waiting += [((*keys, key), below) for key, below in reversed(list(enumerate(value)))]
    return arrays
