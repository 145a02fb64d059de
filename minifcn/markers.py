"""Passages of a Markdown page that a command rewrites; everything outside their markers stays as it is.

<!-- KIND:NAME -->
... what the command writes ...
<!-- /KIND:NAME -->
"""

from __future__ import annotations

import re
from pathlib import Path

from .errors import MinifcnError


def marked(kind: str, name: str, content: str = "") -> str:
    """A passage with its markers."""
    return f"<!-- {kind}:{name} -->\n{content}\n<!-- /{kind}:{name} -->"


def spans(text: str, kind: str, path: Path) -> dict[str, tuple[int, int]]:
    """{name: (end of the opening marker, start of the closing one)} of a `kind` of passages in `text`, the page `path`.

    Raises MinifcnError where the markers do not pair up.
    """
    found: dict[str, tuple[int, int]] = {}
    opened: re.Match | None = None
    for marker in re.finditer(rf"<!-- (/?){re.escape(kind)}:([\w.-]+) -->", text):
        closing, name = marker.groups()
        if closing and (opened is None or opened[2] != name):
            raise MinifcnError(f"{path}: <!-- /{kind}:{name} --> closes nothing")
        if not closing and (opened is not None or name in found):
            raise MinifcnError(f"{path}: <!-- {kind}:{name} --> opens inside another one, or a second time")
        if closing:
            found[name] = (opened.end(), marker.start())
        opened = None if closing else marker
    if opened is not None:
        raise MinifcnError(f"{path}: <!-- {kind}:{opened[2]} --> is never closed")
    return found


def replaced(text: str, kind: str, passages: dict[str, str], path: Path) -> str:
    """`text`, the page `path`, with new content between the markers of each of `passages` that it has.

    Raises MinifcnError where it has none of them, or markers do not pair up.
    """
    places = spans(text, kind, path)
    known = [name for name in passages if name in places]
    if not known:
        has = ", ".join(places) or "none at all"
        raise MinifcnError(f"{path}: has no markers for {', '.join(passages)}; it has {has}")
    for name in sorted(known, key=lambda name: -places[name][0]):  # from the end, so that earlier places stay right
        start, end = places[name]
        text = f"{text[:start]}\n{passages[name]}\n{text[end:]}"
    return text


def read(path: Path) -> str:
    """The text of a page. Raises MinifcnError if it cannot be read."""
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise MinifcnError(f"{path}: cannot be read ({error.strerror})") from error
