"""Tables between markers of a Markdown file, rewritten from stored records and from nothing else.

    <!-- bench:step-small -->
    ... the table of step-small.json ...
    <!-- /bench:step-small -->

The name is that of the record's file. Everything outside the markers stays as it is.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import MinifcnError
from ..files import write_text
from . import record, tables

MARKER = re.compile(r"<!-- (/?)bench:([\w.-]+) -->")


def _spans(text: str, path: Path) -> dict[str, tuple[int, int]]:
    """{name: (end of the opening marker, start of the closing one)}; raises MinifcnError where they do not pair up."""
    spans: dict[str, tuple[int, int]] = {}
    opened: re.Match | None = None
    for marker in MARKER.finditer(text):
        closing, name = marker.groups()
        if closing and (opened is None or opened[2] != name):
            raise MinifcnError(f"{path}: <!-- /bench:{name} --> closes nothing")
        if not closing and (opened is not None or name in spans):
            raise MinifcnError(f"{path}: <!-- bench:{name} --> opens inside another one, or a second time")
        if closing:
            spans[name] = (opened.end(), marker.start())
        opened = None if closing else marker
    if opened is not None:
        raise MinifcnError(f"{path}: <!-- bench:{opened[2]} --> is never closed")
    return spans


def rewrite(path: Path, records: list[Path]) -> list[str]:
    """Rewrite the table of each of `records` that `path` has markers for; one sentence a record.

    Raises MinifcnError where no record has markers or they do not pair up, RecordError for a file that is none.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise MinifcnError(f"{path}: cannot be read ({error.strerror})") from error
    found = {file.stem: record.read(file) for file in records}
    spans = _spans(text, path)
    known = [name for name in found if name in spans]
    if not known:
        raise MinifcnError(f"{path}: has no markers for {', '.join(found)}; it has {', '.join(spans) or 'none at all'}")
    for name in sorted(known, key=lambda name: -spans[name][0]):  # from the end, so that earlier places stay right
        start, end = spans[name]
        record.summarise(found[name])
        text = f"{text[:start]}\n{tables.markdown(found[name])}\n{text[end:]}"
    write_text(path, text)
    return [f"{name}: {'rewritten' if name in spans else 'no markers'} in {path}" for name in found]
