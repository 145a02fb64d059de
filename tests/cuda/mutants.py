"""Does every synchronisation of a kernel matter, and would its absence be seen?

`mutants` deletes each `__syncthreads`, `__syncwarp`, `cp_async_wait` and `cp_async_commit` of a source in turn;
`survivors` launches what remains under the sanitizer. A survivor is a synchronisation that nothing needs, or launches
that are too small to need it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from minifcn.kernels.cuda.executors import SanitizerError, SimExecutor
from minifcn.kernels.cuda.source import FOLDER

SYNCHRONISATION = re.compile(
    r"\b(__syncthreads|__syncwarp|cp_async_commit|cp_async_wait\s*<[^<>;]*>)\s*\([^();]*\)\s*;"
)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def mutants(text: str) -> Iterator[tuple[str, str]]:
    """(what was deleted and where, the text without it) for each synchronisation of `text`."""
    blanked = _COMMENT.sub(lambda comment: re.sub(r"[^\n]", " ", comment[0]), text)  # same places, no comments
    for call in SYNCHRONISATION.finditer(blanked):
        line = text.count("\n", 0, call.start()) + 1
        yield f"{call[1]} of line {line}", text[: call.start()] + ";" + text[call.end() :]


def survivors(file: Path, folder: Path, launches: Callable[[SimExecutor, str], None]) -> tuple[int, list[str]]:
    """(number of mutants of `file`, those that nothing was found in), built in `folder`.

    launches(on, path) runs the kernels of the source `path` on the executor `on`. Raises SanitizerError where the
    unchanged source has a finding already.
    """
    on = SimExecutor("check")
    launches(on, str(file))
    alive, count = [], 0
    folder.mkdir(exist_ok=True)
    for header in [*FOLDER.glob("*.cuh"), *file.parent.glob("*.cuh")]:
        (folder / header.name).write_text(header.read_text("utf-8"), "utf-8")
    for name, text in mutants(file.read_text("utf-8")):
        path = folder / f"{file.stem}-{count}{file.suffix}"
        path.write_text(text, "utf-8")
        count += 1
        try:
            launches(on, str(path))
        except SanitizerError:
            continue
        alive.append(f"{file.name}: {name}")
    return count, alive
