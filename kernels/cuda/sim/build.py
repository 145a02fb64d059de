"""Compile kernels for the host, each once: a shared library a kernel, and one of the runtime that they are linked with.

Libraries lie in the user's cache folder, named after a digest of all that they are made from: sources, compiler, flags.
They appear whole or not at all, so several processes can build at once.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from ..source import ExecutorError

HERE = Path(__file__).parent

# What the flavours compile kernels with (docs/cuda-sim.md). The hooks of -fsanitize are the sanitizer's own: no
# library of the compiler is linked.
FLAVOURS = {
    "fast": ["-O2", "-g1"],
    "parallel": ["-O2", "-g1", "-DSIM_PARALLEL"],
    "check": [
        *("-O1", "-g", "-DSIM_CHECK", "-fsanitize=thread"),
        "-fsanitize=alignment,bounds,shift,signed-integer-overflow,integer-divide-by-zero,float-cast-overflow",
    ],
    "debug": ["-O0", "-g"],
}
_SHARED = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-ffp-contract=off", "-fno-math-errno"]
_SHARED += ["-gdwarf-4"]  # addr2line of binutils 2.40 takes the first file of DWARF 5 for another one
_NOBITS = 8  # a section's type in ELF
_RUNTIME = ["runtime.cpp", "fiber.cpp"]
_DYNAMIC_SHARED = re.compile(r"extern\s+__shared__\s+(?:__align__\(\d+\)\s+)?([\w\s]+?)\s+(\w+)\s*\[\s*\]\s*;")


@functools.cache
def compiler() -> tuple[str, str]:
    """(command, version) of the host's C++ compiler: $CXX, g++ or clang++. Raises ExecutorError where there is none."""
    wanted = os.environ.get("CXX")
    if wanted and not shutil.which(wanted):
        raise ExecutorError(f"device 'cuda-sim' was to compile kernels with $CXX, but there is no command {wanted!r}")
    for name in (wanted,) if wanted else ("g++", "clang++"):
        command = shutil.which(name)
        if command:
            shown = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
            return command, shown.stdout
    raise ExecutorError(
        "device 'cuda-sim' compiles kernels with a C++ compiler, and found neither g++ nor clang++: install one "
        "(Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++)"
    )


@functools.cache
def _target() -> list[str]:
    """The processor to compile for: one with fused multiply-add where this one has it, or fmaf would be a call."""
    try:
        flags = set(re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1].split())
    except (OSError, TypeError):
        flags = set()
    newer = platform.machine() == "x86_64" and {"avx2", "bmi2", "fma", "f16c", "movbe"} <= flags
    return ["-march=x86-64-v3"] if newer else []


def _folder() -> Path:
    return Path(platformdirs.user_cache_dir("minifcn")) / "cuda-sim"


def _flags(flavour: str) -> list[str]:
    return [*_SHARED, *_target(), *FLAVOURS[flavour]]


@functools.cache
def _headers() -> str:
    return "".join((HERE / name).read_text("utf-8") for name in ("cuda.h", "runtime.h"))


def _library(name: str, made_from: list[str], compile_into: Callable[[Path, str], None]) -> Path:
    """The library `name`-digest.so, which compile_into(folder, file) makes where none has these ingredients yet."""
    digest = hashlib.sha256("\0".join([*made_from, *compiler()]).encode()).hexdigest()[:20]
    library = _folder() / f"{name}-{digest}.so"
    if not library.exists():
        try:
            library.parent.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(dir=library.parent)
        except OSError as error:
            raise ExecutorError(f"cuda-sim keeps compiled kernels in {library.parent}: {error.strerror}") from error
        with folder as scratch:
            compile_into(Path(scratch), library.name)
            os.replace(Path(scratch) / library.name, library)
    return library


def _run(arguments: list[str], what: str) -> None:
    done = subprocess.run([compiler()[0], *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        shown = "\n".join(done.stderr.splitlines()[:30])
        raise ExecutorError(f"{what} does not compile for the host ({Path(compiler()[0]).name}):\n{shown}")


@functools.cache
def runtime(flavour: str) -> Path:
    """The runtime's library for `flavour`."""
    sources = [file.read_text("utf-8") for file in sorted(HERE.iterdir()) if file.suffix in (".h", ".cpp")]
    defines = [flag for flag in FLAVOURS[flavour] if flag.startswith("-D")]  # "fast" and "debug" share one
    flags = ["-std=c++17", "-fPIC", "-shared", "-O2", *_target(), *defines]
    files = [str(HERE / name) for name in (*_RUNTIME, *(["sanitizer.cpp"] if flavour == "check" else []))]

    def compile_into(scratch: Path, name: str) -> None:
        _run(
            [*flags, *files, f"-Wl,-soname,{name}", "-o", str(scratch / name), "-ldl", "-pthread"], "cuda-sim's runtime"
        )

    return _library("runtime", [*sources, *flags], compile_into)


def module(text: str, expression: str, flavour: str) -> Path:
    """The library of the kernel `expression` (a template-id) of the pasted source `text`.

    Raises ExecutorError, with the compiler's message, where it does not compile.
    """
    # `extern static` is no C++, so dynamic shared memory becomes a pointer to where the launch keeps it
    text = _DYNAMIC_SHARED.sub(r"SIM_DYNAMIC_SHARED(\1, \2);", text)
    unit = f'#include "cuda.h"\n{text}\n#line 1 "launched kernel"\nSIM_EXPORT({expression})\n'
    flags = _flags(flavour)
    linked_with = runtime(flavour)

    def compile_into(scratch: Path, name: str) -> None:
        source, compiled = scratch / "kernel.cpp", str(scratch / "kernel.o")
        source.write_text(unit, "utf-8")
        sections = ["-ffunction-sections", "-fdata-sections"]  # only what the kernel uses: .bss is its shared memory
        _run([*flags, *sections, f"-I{HERE}", "-c", str(source), "-o", compiled], expression)
        linked = ["-shared", "-nostartfiles", "-Wl,--gc-sections,-Bsymbolic", "-Wl,-rpath,$ORIGIN", str(linked_with)]
        _run([compiled, *linked, "-o", str(scratch / name)], expression)

    return _library(
        re.sub(r"\W+", "-", expression)[:60].strip("-"), [unit, _headers(), str(linked_with), *flags], compile_into
    )


def static_shared(library: Path) -> int:
    """The bytes of static shared memory of a kernel's library: the sections without content, in eights."""
    elf = library.read_bytes()
    (table,), (size, count) = struct.unpack_from("<Q", elf, 0x28), struct.unpack_from("<HH", elf, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", elf, table + i * size) for i in range(count)]
    return sum(section[5] for section in sections if section[1] == _NOBITS)
