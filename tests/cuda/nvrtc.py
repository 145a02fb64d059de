"""What NVRTC makes of the kernels: PTX, machine code, registers, spills, shared memory; no GPU, driver or CuPy needed.

The library comes from PyPI (`pip install "minifcn[nvrtc]"`) or from a CUDA installation. Options are those that CuPy
compiles with. `nvdisasm`, from the same place, shows the machine code; without it only PTX is looked at.
"""

from __future__ import annotations

import base64
import ctypes
import ctypes.util
import functools
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from minifcn.files import write_json
from minifcn.kernels.cuda import source

ARCHES = ("sm_80", "sm_90")
CACHE = user_cache_path("minifcn", appauthor=False) / "nvrtc"
OPTIONS = ("-std=c++17", "-ftz=true", "--device-as-default-execution-space", "-lineinfo", "--ptxas-options=-v")


class NvrtcError(RuntimeError):
    """NVRTC is not here, or refuses a source; the message is its log."""


def _packaged(pattern: str) -> str | None:
    """A file of NVIDIA's packages on PyPI: they all share the folder `nvidia`."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations or () if spec else ()
    return next((str(path) for folder in folders for path in sorted(Path(folder).glob(pattern))), None)


@functools.cache
def library() -> ctypes.CDLL:
    """libnvrtc. Raises NvrtcError where there is none."""
    path = _packaged("*/lib/libnvrtc.so.*") or ctypes.util.find_library("nvrtc")
    if path is None:
        raise NvrtcError('NVRTC is not installed: pip install "minifcn[nvrtc]" brings it (150 MB)')
    return ctypes.CDLL(path)


def missing() -> str | None:
    """Why NVRTC cannot be used here, or None."""
    try:
        library()
    except (NvrtcError, OSError) as error:
        return str(error)
    return None


NEEDS_NVRTC = [pytest.mark.nvrtc, pytest.mark.skipif(missing() is not None, reason=f"{missing()}")]


def version() -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


@dataclass(frozen=True)
class Resources:
    """What one kernel takes of a multiprocessor: registers a thread, bytes of the others (shared: static only)."""

    registers: int
    stack: int
    spills: int
    shared: int


@dataclass(frozen=True)
class Code:
    """A compiled source: its kernels by C++ expression, each under the name that the code has for it."""

    ptx: str
    cubin: bytes
    names: dict[str, str]
    resources: dict[str, Resources]


class _Program:
    """An nvrtcProgram; a context manager."""

    def __init__(self, text: str, name: str) -> None:
        self.handle = ctypes.c_void_p()
        self._call("CreateProgram", ctypes.byref(self.handle), text.encode(), name.encode(), 0, None, None, program=())

    def _call(self, function: str, *arguments: object, program: tuple | None = None) -> int:
        before = (self.handle,) if program is None else program
        status = getattr(library(), f"nvrtc{function}")(*before, *arguments)
        if status and function != "CompileProgram":
            raise NvrtcError(f"nvrtc{function}: status {status}")
        return status

    def compile(self, expressions: tuple[str, ...], options: tuple[str, ...]) -> str:
        """The log. Raises NvrtcError with it where the source is refused."""
        for one in expressions:
            self._call("AddNameExpression", one.encode())
        texts = (ctypes.c_char_p * len(options))(*(one.encode() for one in options))
        status = self._call("CompileProgram", len(options), texts)
        log = self.output("ProgramLog").decode()
        if status:
            raise NvrtcError(log)
        return log

    def output(self, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"Get{what}Size", ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"Get{what}", buffer)
        return buffer.raw if what == "CUBIN" else buffer.value

    def lowered(self, expression: str) -> str:
        name = ctypes.c_char_p()
        self._call("GetLoweredName", expression.encode(), ctypes.byref(name))
        return name.value.decode()

    def __enter__(self) -> _Program:
        return self

    def __exit__(self, *_: object) -> None:
        library().nvrtcDestroyProgram(ctypes.byref(self.handle))


@functools.cache
def compile_source(file: str, expressions: tuple[str, ...], arch: str) -> Code:
    """The kernels `expressions` of a .cu file of `kernels/cuda` (or of a path), for `arch`; kept between runs.

    Raises NvrtcError with NVRTC's log.
    """
    text, options = source.pasted(source.path_of(file)), (f"-arch={arch}", *OPTIONS)
    key = hashlib.sha256(repr((version(), text, expressions, options)).encode()).hexdigest()[:32]
    kept = CACHE / f"{key}.json"
    if not kept.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        write_json(kept, _compile(text, Path(file).name, expressions, options))
    found = json.loads(kept.read_text())
    resources = _resources(found["log"])
    by_expression = {one: resources[name] for one, name in found["names"].items()}
    return Code(found["ptx"], base64.b64decode(found["cubin"]), found["names"], by_expression)


def _compile(text: str, name: str, expressions: tuple[str, ...], options: tuple[str, ...]) -> dict[str, object]:
    with _Program(text, name) as program:
        log = program.compile(expressions, options)
        return {
            "log": log,
            "ptx": program.output("PTX").decode(),
            "cubin": base64.b64encode(program.output("CUBIN")).decode(),
            "names": {one: program.lowered(one) for one in expressions},
        }


def _resources(log: str) -> dict[str, Resources]:
    """Figures by kernel, from what ptxas says with -v."""
    found = {}
    for name, text in re.findall(r"Compiling entry function '([^']+)'(.*?)(?=Compiling entry function|\Z)", log, re.S):

        def number(pattern: str, text: str = text) -> int:
            return sum(map(int, re.findall(pattern, text)))

        found[name] = Resources(
            registers=number(r"Used (\d+) registers"),
            stack=number(r"(\d+) bytes stack frame"),
            spills=number(r"(\d+) bytes spill (?:stores|loads)"),
            shared=number(r"(\d+) bytes smem"),
        )
    return found


# --- instructions ---


def disassembler() -> str | None:
    """The path of nvdisasm, or None."""
    return _packaged("*/bin/nvdisasm") or shutil.which("nvdisasm")


def instructions(code: Code) -> dict[str, Counter[str]]:
    """How often each kernel of `code` has each opcode: of machine code with nvdisasm, else of PTX."""
    if disassembler() is None:
        found = {}
        for head, body in re.findall(r"\.entry\s+([\w$]+)(.*?)(?=\.entry\s|\Z)", code.ptx, re.S):
            found[head] = Counter(re.findall(r"^\s*(?:@!?%\w+\s+)?([a-z]\w*(?:\.\w+)*)[\s;]", body, re.M))
        return found
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code.cubin)
        file.flush()
        text = subprocess.run(
            [disassembler(), "--print-code", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = {}
    for name, body in re.findall(r"^\s*\.section\s+\.text\.([\w$]+)(.*?)(?=^\s*\.section\s|\Z)", text, re.S | re.M):
        found[name] = Counter(re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", body))
    return found
