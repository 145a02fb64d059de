"""Tables between markers of a Markdown file, rewritten from stored records and from nothing else.

    <!-- bench:step-small -->
    ... the table of step-small.json ...
    <!-- /bench:step-small -->

The name is that of the record's file. Everything outside the markers stays as it is.
"""

from __future__ import annotations

from pathlib import Path

from .. import markers
from ..files import write_text
from . import record, tables

KIND = "bench"


def rewrite(path: Path, records: list[Path]) -> list[str]:
    """Rewrite the table of each of `records` that `path` has markers for; one sentence a record.

    Raises MinifcnError where no record has markers or they do not pair up, RecordError for a file that is none.
    """
    text = markers.read(path)
    found = {file.stem: record.read(file) for file in records}
    for one in found.values():
        record.summarise(one)
    write_text(path, markers.replaced(text, KIND, {name: tables.markdown(one) for name, one in found.items()}, path))
    known = markers.spans(text, KIND, path)
    return [f"{name}: {'rewritten' if name in known else 'no markers'} in {path}" for name in found]
