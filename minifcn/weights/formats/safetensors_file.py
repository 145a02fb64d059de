"""safetensors files; those that minifcn wrote say in their header what their inputs are, and what is untrained.

The library compares the header with the size of the file before it reads a tensor.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import safe_open

from ... import checkpoint
from ...errors import CheckpointError
from .source import Convention, Source, reading

_NUMBERS = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


def read(path: Path) -> Source:
    """Read a safetensors file. Raises CheckpointError."""
    with reading(path, "safetensors") as format, safe_open(path, framework="numpy") as file:
        if "minifcn" in (file.metadata() or {}):
            return _read_our_own(path)
        arrays = {}
        for name in file.keys():  # noqa: SIM118 (not a dictionary)
            kind = file.get_slice(name).get_dtype()
            if kind not in _NUMBERS:
                raise CheckpointError(f"{path}: {name} is of dtype {kind}, which NumPy lacks; save it as float32")
            arrays[name] = file.get_tensor(name)
        return Source(path, format, arrays)


def _read_our_own(path: Path) -> Source:
    saved = checkpoint.load(path)
    mean, std = (tuple(np.broadcast_to(saved.about["data"][name], 3).tolist()) for name in ("mean", "std"))
    known = Convention("OIHW", "CHW", "rgb", mean, std)
    return Source(path, "minifcn checkpoint", saved.weights, known, tuple(saved.about.get("new_layers") or ()))
