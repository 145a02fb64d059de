"""NumPy's files: .npz, a zip archive of arrays, and .npy, one array, or one pickled dictionary of arrays.

The header of an array is a literal that NumPy parses; its shape is compared with the bytes that follow before an array
is made. Pickled objects are refused in .npz. A .npy of the old kind, such as vgg16.npy with {layer: [weights, biases]},
is read by the pickle reader that executes nothing (`pickles`).

Source: NumPy's format description, numpy/lib/format.py.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError
from . import archive
from .pickles import NUMPY, PickledArray, Unpickler
from .source import Source, flattened, from_bytes, reading

MAGIC = b"\x93NUMPY"


def read_npz(path: Path) -> Source:
    """Read an .npz. Raises CheckpointError."""
    with reading(path, "npz") as format, archive.opened(path) as members:
        arrays = {
            member.removesuffix(".npy"): _array(path, member, members.read(member)) for member in members.namelist()
        }
    return Source(path, format, arrays)


def read_npy(path: Path) -> Source:
    """Read an .npy that holds one array, or one pickled container of arrays. Raises CheckpointError."""
    with reading(path, "npy") as format:
        data = path.read_bytes()
        shape, _, dtype, start = _header(data)
        if not dtype.hasobject:
            return Source(path, format, {path.stem: _array(path, path.name, data)})
        if shape != ():
            raise CheckpointError(
                f"{path}: an array of {shape} pickled objects, not one dictionary of arrays; not read"
            )
        content = Unpickler(path, io.BytesIO(data[start:]), NUMPY).load()
        return Source(path, f"{format} of a pickled dictionary", flattened(content, _unwrapped))


def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether in Fortran's order, dtype, and where the numbers start."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"an array of format version {version}")
    return *readers[version](file), file.tell()


def _array(path: Path, name: str, data: bytes) -> np.ndarray:
    shape, fortran, dtype, start = _header(data)
    if dtype.hasobject or dtype.names is not None:
        raise CheckpointError(
            f"{path}: {name} holds pickled objects or records, not numbers; nothing of it was executed. Save plain "
            f"arrays"
        )
    return from_bytes(memoryview(data)[start:], dtype, shape, "F" if fortran else "C")


def _unwrapped(value: Any) -> Any:
    return value.value if isinstance(value, PickledArray) else value
