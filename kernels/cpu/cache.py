"""Where compiled kernels are kept: the user's cache folder, in a folder named after a digest of these sources.

Files beside the sources would outlive an uninstall, and Numba does not see when a function that another one calls has
changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numba
import platformdirs


def _folder() -> str:
    """NUMBA_CACHE_DIR where it is set, else the user's cache folder."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return os.environ["NUMBA_CACHE_DIR"]
    here = Path(__file__).parent
    # and the one file above this folder that becomes code: the matrices of Winograd's algorithm
    sources = [*sorted(here.glob("*.py")), here.parent / "winograd.py"]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:16]
    return os.path.join(platformdirs.user_cache_dir("minifcn"), f"numba-{numba.__version__}", digest)


FOLDER = _folder()


@contextmanager
def own_cache() -> Iterator[None]:
    """What is compiled inside is kept in FOLDER; a caller's own kernels stay where he wants them."""
    callers, numba.config.CACHE_DIR = numba.config.CACHE_DIR, FOLDER
    try:
        yield
    finally:
        numba.config.CACHE_DIR = callers
