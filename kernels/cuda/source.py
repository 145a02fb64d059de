"""CUDA sources as one text: what a compiler is given, on the GPU and on the host.

Includes are pasted in, because CuPy's cache does not see what an included file says; `#line` keeps every line's own
file and number for messages and debuggers.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

FOLDER = Path(__file__).parent  # the kernels, and the includes of kernels that lie elsewhere

_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_DEFINE = re.compile(r"^\s*#\s*define[ \t]+(\w+)[ \t]+((?:.*\\\n)*.*)", re.MULTILINE)


class ExecutorError(ValueError):
    """A kernel that cannot be found, compiled or launched; the message says what is wrong, or missing, and why."""


def path_of(file: str) -> Path:
    """Where `file` is: inside kernels/cuda, or at an absolute path. Raises ExecutorError where there is none."""
    path = (FOLDER / file).resolve()
    if not path.is_file():
        raise ExecutorError(f"kernel file {file}: there is no {path}")
    return path


def pasted(path: Path) -> str:
    """The text of `path` with each file that it includes in its place, once. Raises ExecutorError for a missing one."""
    return _pasted(path, set())


def _pasted(path: Path, seen: set[Path]) -> str:
    seen.add(path)
    text = [f'#line 1 "{path}"']
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        include = _INCLUDE.match(line)
        if include:
            found = [folder / include[1] for folder in (path.parent, FOLDER) if (folder / include[1]).is_file()]
            if not found:
                raise ExecutorError(
                    f"{path}:{number} includes {include[1]!r}, which is neither beside it nor in {FOLDER}"
                )
            file = found[0].resolve()
            line = "" if file in seen else _pasted(file, seen) + f'\n#line {number + 1} "{path}"'
        elif line.strip() == "#pragma once":
            line = ""
        text.append(line)
    return "\n".join(text)


@functools.lru_cache(maxsize=256)
def parameter_names(text: str, kernel: str) -> tuple[str, ...]:
    """The names of the parameters of the `__global__` function `kernel`, for messages; () where they are not found."""
    text = _COMMENT.sub(" ", text)
    start = re.search(rf"__global__[^;{{}}]*?\b{re.escape(kernel)}\s*\(([^)]*)\)", text)
    if not start:
        return ()
    macros = {name: body.replace("\\\n", " ") for name, body in _DEFINE.findall(text)}
    parameters = re.sub(r"\w+", lambda word: macros.get(word[0], word[0]), start[1])
    return tuple(re.findall(r"(\w+)\s*(?:,|$)", parameters.strip()))
