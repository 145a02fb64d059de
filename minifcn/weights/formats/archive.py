"""Zip archives, the wrapping of .npz and of PyTorch's files, with their claims checked before anything is unpacked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from zipfile import ZipFile

from .source import bound


@contextmanager
def opened(path: str | os.PathLike) -> Iterator[ZipFile]:
    """The archive, once the sizes that its members claim, all together, are known to be possible.

    A member gives at most the bytes that it claims, so this bounds all that can be read. Raises CheckpointError.
    """
    with ZipFile(path) as archive:
        bound(path, sum(member.file_size for member in archive.infolist()))
        names = archive.namelist()
        if len(set(names)) < len(names):
            raise ValueError("two members have the same name")
        yield archive
