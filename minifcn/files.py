"""Files that are written whole or not at all.

The content goes to a temporary file beside the target, is forced to the disk, and then takes the target's
name in one step (POSIX rename is atomic within a file system). Until that step the old file is untouched.
"""

import errno
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from .errors import FileWriteError


def write_atomically(path: str | os.PathLike, data: bytes | Callable[[BinaryIO], None]) -> None:
    """Write `data`, or what `data(file)` writes to the open binary file, as the new content of `path`.

    A symbolic link is followed; the folder must exist. On any error the temporary file is removed and the old
    file stays as it was; an `OSError` (full disk, no permission) becomes a `FileWriteError` with the file and
    the reason, every other exception of the writer passes through.
    """
    target = Path(os.path.realpath(path))
    # A rename onto /dev/null or a pipe would replace the device itself by a plain file.
    if target.exists() and not target.is_file():
        raise FileWriteError(f"cannot write {path}: it exists and is not a regular file")
    temporary = target.with_name(f".minifcn-{secrets.token_hex(8)}.tmp")
    try:
        try:
            with open(temporary, "xb") as file:
                if callable(data):
                    data(file)
                else:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:  # an interrupt leaves no stray file either
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
    except OSError as error:
        raise FileWriteError(f"cannot write {path}: {error.strerror or error}") from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all (see `write_atomically`)."""
    write_atomically(path, text.encode())


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented standard JSON, whole or not at all (see `write_atomically`).

    Raises `FileWriteError` for what JSON cannot hold: foreign types, and NaN or infinity.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FileWriteError(f"cannot write {path} as JSON: {error}") from error
    write_text(path, text + "\n")


def _sync_folder(folder: Path) -> None:
    """Force the new name to the disk, where the system can do that for a folder."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no folder sync
            raise
    finally:
        os.close(descriptor)
