"""PyTorch's files: the zip archive of today, and the row of pickles that PyTorch before 1.6 wrote.

Both hold a pickle of containers, in which a tensor is a call of torch._utils._rebuild_tensor_v2(storage, offset, size,
stride, ...), and a storage a persistent id ("storage", type, key, device, length); the bytes of storage `key` lie
elsewhere: in the archive's member data/KEY, or behind the pickles. The calls are taken for descriptions (`Tensor`), and
an array is made when a description was found to lie within its storage.

Source: PyTorch's torch/serialization.py, torch/_utils.py.
"""

from __future__ import annotations

import io
import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError
from . import archive
from .pickles import Unpickler
from .source import Convention, Source, flattened, from_bytes, reading

KNOWN = Convention(layout="OIHW", flatten="CHW")  # torch.nn.Conv2d, torch.nn.Linear, torch.flatten
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x80\x02\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little")
LEGACY_PROTOCOL = 1001

BFLOAT16 = "bfloat16"
_STORAGES = {
    "Double": "f8",
    "Float": "f4",
    "Half": "f2",
    "BFloat16": BFLOAT16,
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "?",
}


@dataclass(frozen=True)
class Storage:
    """A run of `length` numbers in the file, found by `key`."""

    code: str  # of its numbers
    key: str
    length: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage, in numbers, not bytes."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def of(self, numbers: np.ndarray) -> np.ndarray:
        """The view of the storage's `numbers`. Raises ValueError if it reaches beyond them or repeats them."""
        if len(self.size) != len(self.stride) or min((self.offset, *self.size, *self.stride), default=0) < 0:
            raise ValueError(f"a tensor of size {self.size} and stride {self.stride}")
        last = self.offset + sum((n - 1) * stride for n, stride in zip(self.size, self.stride, strict=True))
        count = math.prod(self.size)
        if count > len(numbers) or (count and last >= len(numbers)):
            raise ValueError(f"a tensor of size {self.size} in a storage of {len(numbers)} numbers")
        strides = tuple(stride * numbers.itemsize for stride in self.stride)
        start = numbers[self.offset :] if count else numbers[:0]
        return np.lib.stride_tricks.as_strided(start, self.size, strides, writeable=False)


def _rebuild_tensor(storage: Storage, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    return Tensor(storage, offset, tuple(size), tuple(stride))


_CALLS: dict[str, Any] = {
    "collections.OrderedDict": lambda pairs=(): dict(pairs),
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch.Size": tuple,
} | {f"torch.{name}Storage": code for name, code in _STORAGES.items()}


def _storage(identifier: Any) -> Storage:
    """What a persistent id names: ("storage", type, key, device, length), in old files with a view behind."""
    kind, code, key, _, length, *view = identifier
    if kind != "storage" or code not in _STORAGES.values() or view not in ([], [None]):
        raise ValueError(f"a storage described by {identifier!r}")
    return Storage(code, str(key), length)


def _numbers(storage: Storage, data: Any, order: str) -> np.ndarray:
    """A storage's bytes as numbers; bfloat16 is the upper half of a float32."""
    if storage.code == BFLOAT16:
        upper = from_bytes(data, np.dtype(f"{order}u2"), (storage.length,))
        return (upper.astype(np.uint32) << 16).view(np.float32)
    return from_bytes(data, np.dtype(storage.code).newbyteorder(order), (storage.length,))


def _source(path: Path, format: str, content: Any, numbers: Callable[[Storage], np.ndarray]) -> Source:
    def unwrap(value: Any) -> Any:
        return value.of(numbers(value.storage)) if isinstance(value, Tensor) else value

    return Source(path, format, flattened(content, unwrap), KNOWN)


def read_zip(path: Path) -> Source:
    """Read a file of torch.save since PyTorch 1.6. Raises CheckpointError."""
    with reading(path, "PyTorch zip") as format, archive.opened(path) as members:
        (pickle,) = (name for name in members.namelist() if name.rpartition("/")[2] == "data.pkl")
        folder = pickle.removesuffix("data.pkl")
        order = "<"
        if f"{folder}byteorder" in members.namelist():
            order = {b"little": "<", b"big": ">"}[members.read(f"{folder}byteorder")]
        kept: dict[Storage, np.ndarray] = {}

        def numbers(storage: Storage) -> np.ndarray:
            if storage not in kept:
                kept[storage] = _numbers(storage, members.read(f"{folder}data/{storage.key}"), order)
            return kept[storage]

        content = Unpickler(path, io.BytesIO(members.read(pickle)), _CALLS, _storage).load()
        return _source(path, format, content, numbers)


def read_legacy(path: Path) -> Source:
    """Read a file of torch.save before PyTorch 1.6. Raises CheckpointError."""
    with reading(path, "old PyTorch") as format, open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # stays open as long as an array looks into it
        described: dict[str, Storage] = {}

        def persistent(identifier: Any) -> Storage:
            storage = _storage(identifier)
            if described.setdefault(storage.key, storage) != storage:
                raise ValueError(f"storage {storage.key} is described in two ways")
            return storage

        unpickler = Unpickler(path, data, _CALLS, persistent)
        magic, protocol, system = (unpickler.load() for _ in range(3))
        if magic != LEGACY_MAGIC or protocol != LEGACY_PROTOCOL or system.get("little_endian") is not True:
            raise CheckpointError(f"{path}: a PyTorch file of protocol {protocol} or byte order that is not read")
        content, keys = unpickler.load(), unpickler.load()
        numbers, view = {}, memoryview(data)
        for key in keys:
            storage, start = described[key], data.tell() + 8
            length = int.from_bytes(view[data.tell() : start], "little")
            if length != storage.length:
                raise ValueError(f"storage {key} has {length} numbers instead of {storage.length}")
            end = start + length * (2 if storage.code == BFLOAT16 else np.dtype(storage.code).itemsize)
            numbers[storage] = _numbers(storage, view[start:end], "<")
            data.seek(end)
        return _source(path, format, content, numbers.__getitem__)
