"""Keras's .h5: weight files, and model files, whose group `model_weights` is a weight file.

Every layer is a group, listed by the attribute `layer_names`, whose attribute `weight_names` lists its data sets. They
are read by the library h5py (`pip install "minifcn[weights]"`). A link could lead to another file, and a data set lie
in another file, so both are refused; data sets can claim any size, so that is compared with the file's.

Source: keras/saving/legacy/hdf5_format.py; the HDF5 format's links and external storage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError
from .source import Convention, Source, bound, reading

KNOWN = Convention(layout="HWIO", flatten="HWC")  # TensorFlow's order of dimensions
MAGIC = b"\x89HDF\r\n\x1a\n"


def read(path: Path) -> Source:
    """Read a weight file or a model file. Raises CheckpointError, also where h5py is not installed."""
    try:
        import h5py
    except ImportError:
        raise CheckpointError(f'{path}: Keras files are read by h5py: pip install "minifcn[weights]"') from None
    with reading(path, "Keras") as format, h5py.File(path, "r") as file:
        root = _inside(path, h5py, file, "model_weights") if "model_weights" in file else file
        if "layer_names" not in root.attrs:
            raise CheckpointError(
                f"{path}: an HDF5 file, but not of Keras's layers (no attribute layer_names); of Keras 3, save "
                f"weights to a file called .h5, not .weights.h5"
            )
        found = {}
        for layer in map(_text, root.attrs["layer_names"]):
            group = _inside(path, h5py, root, layer)
            for name in map(_text, group.attrs["weight_names"]):
                found[f"{layer}/{name.removeprefix(f'{layer}/')}"] = _inside(path, h5py, group, name)
        bound(path, sum(data.nbytes for data in found.values()))
        return Source(path, format, {name: _numbers(path, name, data) for name, data in found.items()}, KNOWN)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _inside(path: Path, h5py: Any, group: Any, name: str) -> Any:
    """What `name` leads to, link by link, within this file."""
    for part in name.split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise CheckpointError(f"{path}: {name} is a link to elsewhere; not followed")
        group = group[part]
    return group


def _numbers(path: Path, name: str, data: Any) -> np.ndarray:
    if data.external or data.is_virtual:
        raise CheckpointError(f"{path}: {name} lies in another file; not read")
    if data.dtype.kind not in "fiub":
        raise CheckpointError(f"{path}: {name} holds {data.dtype}, not numbers")
    return data[()]
