"""Readers of other frameworks' weight files, one file a format, each `read(path) -> Source`.

`read` here knows a format by its content, and by the file's name where the content does not say.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

from ...errors import CheckpointError
from . import caffe_file, keras_file, numpy_file, onnx_file, safetensors_file, torch_file
from .source import Convention, Source, reading

__all__ = ["KNOWN", "Convention", "Source", "read"]

KNOWN = ".safetensors, .npz, .npy, .pth or .pt of PyTorch, .caffemodel, .h5 of Keras, .onnx"
_BY_SUFFIX = {
    ".safetensors": safetensors_file.read,
    ".npz": numpy_file.read_npz,
    ".npy": numpy_file.read_npy,
    ".pth": torch_file.read_zip,
    ".pt": torch_file.read_zip,
    ".caffemodel": caffe_file.read,
    ".h5": keras_file.read,
    ".hdf5": keras_file.read,
    ".onnx": onnx_file.read,
}
_BY_START = {
    numpy_file.MAGIC: numpy_file.read_npy,
    keras_file.MAGIC: keras_file.read,
    torch_file.LEGACY_START: torch_file.read_legacy,
}


def read(path: str | os.PathLike) -> Source:
    """Read a weight file of any known format; nothing in it is executed.

    Raises CheckpointError, which names the file, for one that is missing, unknown, corrupt or hostile.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if not start:
        raise CheckpointError(f"{path}: the file is empty")
    reader = _by_content(path, start) or _BY_SUFFIX.get(path.suffix.lower())
    if reader is None:
        raise CheckpointError(f"{path}: neither its content nor its name is of a known format ({KNOWN})")
    return reader(path)


def _by_content(path: Path, start: bytes) -> Callable[[Path], Source] | None:
    for magic, reader in _BY_START.items():
        if start.startswith(magic):
            return reader
    if start.startswith(b"PK\x03\x04"):
        return _by_members(path)
    if start[8:9] == b"{":  # a length of eight bytes, then the header's JSON
        return safetensors_file.read
    return None


def _by_members(path: Path) -> Callable[[Path], Source] | None:
    """Which of the formats that are zip archives it is."""
    with reading(path, "zip"), ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return torch_file.read_zip
    if names and all(name.endswith(".npy") for name in names):
        return numpy_file.read_npz
    raise CheckpointError(f"{path}: a zip archive, but neither NumPy's nor PyTorch's ({', '.join(names[:3])} ...)")
