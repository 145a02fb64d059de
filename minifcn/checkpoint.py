"""Checkpoints: one safetensors file, whole or absent, that holds weights, optimiser state and the story of the run.

Tensors: every parameter by its name, and "optimizer/SLOT/NAME" for the optimiser's. Header entry "minifcn": JSON with
the format, the network's settings, what its classes and inputs mean, and the state of the training. Weights and state
share a file so that no crash can leave one without the other. safetensors holds numbers only: nothing in a checkpoint
can be executed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from .errors import CheckpointError
from .files import write_atomically

FORMAT = "minifcn-checkpoint/1"
_OPTIMIZER = "optimizer/"


@dataclass
class Checkpoint:
    """weights by parameter name; optimizer state by "slot/name"; `about`: everything else, as JSON can hold it.

    about["network"]: settings of `models.build`; about["data"]: classes, palette, mean, std; about["training"]: where
    the run stands.
    """

    weights: dict[str, np.ndarray]
    about: dict[str, Any]
    optimizer: dict[str, np.ndarray] = field(default_factory=dict)

    def save(self, path: str | os.PathLike) -> None:
        """Write to `path`, whole or not at all. Raises CheckpointError rather than keep weights that are not finite."""
        broken = [name for name, array in self.weights.items() if not np.isfinite(array).all()]
        if broken:
            raise CheckpointError(f"not saved to {path}: weights are not finite in {', '.join(broken)}")
        tensors = dict(self.weights) | {_OPTIMIZER + name: array for name, array in self.optimizer.items()}
        header = {"minifcn": json.dumps({"format": FORMAT} | self.about, allow_nan=False)}
        write_atomically(path, lambda file: _write(file, tensors, header))


# The names of the format (https://github.com/huggingface/safetensors, "Format").
_DTYPES = {"float32": "F32", "float64": "F64"}


def _write(file: BinaryIO, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write a safetensors file one tensor after the other.

    The library's own writer wants all of them C-contiguous at once, which is a copy of every convolution's weights.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, array in tensors.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.name], "shape": array.shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned in the file
    file.write(len(text).to_bytes(8, "little") + text)
    for array in tensors.values():
        file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")))


def load(path: str | os.PathLike) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError for a missing, corrupt or foreign file."""
    with _opened(path) as (file, about):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    return Checkpoint(
        {name: array for name, array in tensors.items() if not name.startswith(_OPTIMIZER)},
        about,
        {name.removeprefix(_OPTIMIZER): array for name, array in tensors.items() if name.startswith(_OPTIMIZER)},
    )


def about(path: str | os.PathLike) -> dict[str, Any]:
    """What a checkpoint says of itself, without its tensors. Raises CheckpointError as `load` does."""
    with _opened(path) as (_, found):
        return found


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The open file and its `about`."""
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get("minifcn")
            if header is None:
                raise CheckpointError(f"{path}: a safetensors file, but not one that minifcn wrote")
            found = json.loads(header)
            if found.pop("format", None) != FORMAT:
                raise CheckpointError(f"{path}: not of the format {FORMAT!r}")
            yield file, found
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint, it is corrupt or foreign ({error})") from error


def find(path: str | os.PathLike) -> Path:
    """The checkpoint meant by `path`: the file itself, or the best (else the last) one of a run's folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    for name in ("best.safetensors", "last.safetensors"):
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"{path}: this folder holds neither best.safetensors nor last.safetensors")
