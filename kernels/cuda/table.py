"""A kernel's argument that holds addresses of arrays: how one launch works on any number of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """`memory`: rows of a C++ struct, as bytes on the device; `read` and `written`: the arrays that rows point to.

    An executor sees the arguments of a launch and not what they point to, so the sanitizer is told of it here.
    """

    memory: Any
    read: tuple[Any, ...]
    written: tuple[Any, ...]
