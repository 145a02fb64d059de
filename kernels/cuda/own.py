"""A convolution kernel of one's own: a `.cu` file whose first comment says how to launch it.

    // kernel: conv2d_forward                      the kernel of the contract that it stands for
    // entry:  my_convolution<T>                   its name in C++; T becomes float or double
    // grid:   ceil(N * P * Q / 64), ceil(K / 64)  blocks along x, y and z; integers, + - * / ceil min max, the sizes
    // block:  256                                 threads, likewise
    // shared: 0                                   bytes of dynamic shared memory, likewise; may be left out

The sizes are N C H W K R S P Q and groups. Arrays are channels last, `bias` is zeros where there is none, and after its
arrays every kernel takes the integers CONV2D_SIZES of `conv2d.cuh`:

    conv2d_forward          const T* x, const T* w, const T* bias, T* y
    conv2d_backward_input   const T* dy, const T* w, T* dx
    conv2d_backward_weight  const T* dy, const T* x, T* dw

with x [N, H, W, C], w and dw [K, R, S, C / groups], y and dy [N, P, Q, K]. `#include "conv2d.cuh"` and "ptx.cuh" work.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import checks, geometry
from ..layout import channels_first, channels_last
from .conv2d import checked_bias, conv2d_sizes
from .launch import NAMES, blocks, full
from .source import ExecutorError

SIZES = ("N", "C", "H", "W", "K", "R", "S", "P", "Q", "groups")
KEYS = ("kernel", "entry", "grid", "block", "shared")
_LINE = re.compile(r"//\s*(\w+):\s*(.*?)\s*$")
_OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}
_FUNCTIONS: dict[str, Callable] = {"ceil": math.ceil, "min": min, "max": max}


def _header(path: Path) -> dict[str, str]:
    """The lines `// key: value` of the file's first comment. Raises ExecutorError for a key that is missing."""
    found = {}
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("//"):
            break
        match = _LINE.match(line)
        if match and match[1] in KEYS:
            found[match[1]] = match[2]
    missing = [key for key in KEYS[:-1] if key not in found]
    if missing:
        raise ExecutorError(f"{path}: its first comment has no line `// {missing[0]}: ...` (minifcn.kernels.cuda.own)")
    return {"shared": "0"} | found


def _values(path: Path, formula: str, sizes: dict[str, int]) -> list[int]:
    """The numbers of `formula`, parts of which commas separate. Raises ExecutorError for what is no such formula."""

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.Name) and node.id in sizes:
            return sizes[node.id]
        if isinstance(node, (ast.BinOp, ast.UnaryOp)) and type(node.op) in _OPERATIONS:
            operands = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.operand,)
            return _OPERATIONS[type(node.op)](*map(value, operands))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in _FUNCTIONS and not node.keywords:
            return _FUNCTIONS[node.func.id](*map(value, node.args))
        raise ExecutorError(f"{path}: {ast.unparse(node)!r} in {formula!r} is neither a size nor + - * / ceil min max")

    try:
        tree = ast.parse(f"({formula},)", mode="eval").body
    except SyntaxError as error:
        raise ExecutorError(f"{path}: {formula!r} is no formula ({error.msg})") from error
    values = [value(node) for node in tree.elts]
    for one in values:
        if one != int(one) or one < 0:
            raise ExecutorError(f"{path}: {formula!r} is {one:g} for {sizes}, but must be an integer of at least 0")
    return [int(one) for one in values]


def load(on: Any, path: str | Path) -> tuple[str, Callable]:
    """(kernel name, function with that kernel's signature) of a `.cu` file, run by the executor `on`.

    Raises ExecutorError where the header is not complete or names another kernel; the function raises it where a
    formula is none or the source does not compile.
    """
    path = Path(path).resolve()
    header = _header(path)

    def launch(geo: geometry.Conv2dGeometry, dtype: Any, *arrays: Any) -> None:
        known = {name: getattr(geo, name) for name in SIZES}
        grid, (threads, *_), (shared, *_) = (_values(path, header[key], known) for key in ("grid", "block", "shared"))
        expression = re.sub(r"\bT\b", NAMES[dtype], header["entry"])
        blocks(on, str(path), expression, tuple([*grid, 1, 1][:3]), threads, shared, *arrays, *conv2d_sizes(geo))

    def forward(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
        checks.same_dtype(x=x, weight=w, bias=b)
        geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
        y, bias = on.xp.empty((geo.N, geo.P, geo.Q, geo.K), x.dtype), checked_bias(geo, b)
        bias = full(on, geo.K, 0, x.dtype) if bias is None else bias
        launch(geo, x.dtype, channels_last(x), channels_last(w), bias, y)
        return channels_first(y)

    def backward_input(dy, w, input_size, stride=1, padding=0, dilation=1, groups=1):
        checks.same_dtype(dy=dy, weight=w)
        geo = geometry.conv2d_backward_input(dy.shape, w.shape, input_size, stride, padding, dilation, groups)
        dx = on.xp.empty((geo.N, geo.H, geo.W, geo.C), dy.dtype)
        launch(geo, dy.dtype, channels_last(dy), channels_last(w), dx)
        return channels_first(dx)

    def backward_weight(dy, x, window, stride=1, padding=0, dilation=1, groups=1):
        checks.same_dtype(dy=dy, x=x)
        geo = geometry.conv2d_backward_weight(dy.shape, x.shape, window, stride, padding, dilation, groups)
        dw = on.xp.empty((geo.K, geo.R, geo.S, geo.C // geo.groups), x.dtype)
        launch(geo, x.dtype, channels_last(dy), channels_last(x), dw)
        return channels_first(dw)

    functions = {
        "conv2d_forward": forward,
        "conv2d_backward_input": backward_input,
        "conv2d_backward_weight": backward_weight,
    }
    if header["kernel"] not in functions:
        raise ExecutorError(f"{path}: kernel (={header['kernel']!r}) must be one of {', '.join(functions)}")
    function = functions[header["kernel"]]
    function.__name__ = path.stem  # as benchmarks call it
    return header["kernel"], function
