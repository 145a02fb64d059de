"""The derivation of an op, read from the docstring of its file: a title and the sections Forward, Backward, Source."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass

from .. import ops
from ..errors import MinifcnError

SECTIONS = ("Forward", "Backward", "Source")
LEGEND = (
    "L is the loss at the end of the network, y the output of this op and dy = dL/dy the upstream gradient, which is "
    "given; dx = dL/dx is the gradient for the input x, and so on. x[n,c] is the plane of image n and channel c."
)
OPS = tuple(name for name in ops.__all__ if name.islower())


@dataclass(frozen=True)
class Derivation:
    """`title` in one sentence; the text of each section, its indentation removed, its line breaks kept."""

    op: str
    title: str
    sections: dict[str, str]


def derivation(op: str) -> Derivation:
    """The derivation of the public function `op` of `minifcn.ops`.

    Raises MinifcnError for an unknown op, and for a docstring that lacks a section or has an empty one.
    """
    if op not in OPS:
        raise MinifcnError(f"op {op!r} is not known; the ops are {', '.join(OPS)}")
    module = sys.modules[getattr(ops, op).__module__]
    return parse(op, module.__doc__ or "")


def parse(op: str, docstring: str) -> Derivation:
    """The derivation in `docstring`; raises MinifcnError where a section is missing or empty."""
    title: list[str] = []
    sections: dict[str, list[str]] = {}
    lines = title
    for line in inspect.cleandoc(docstring).splitlines():
        if line in SECTIONS:
            lines = sections.setdefault(line, [])
        else:
            lines.append(line)
    texts = {name: inspect.cleandoc("\n".join(["", *lines])) for name, lines in sections.items()}
    for name in SECTIONS:
        if not texts.get(name):
            raise MinifcnError(f"the docstring of {op} has no section {name} (it needs {', '.join(SECTIONS)})")
    return Derivation(op, " ".join(title).strip(), texts)
