"""Answers worked out by hand: the five cases of docs/worked-by-hand.md, where every product and sum is written out.

Each case is one image of one channel. The inputs are named as in the document; "y" is the output, "dy" its upstream
gradient, "dx" and so on the gradients. All are whole numbers, so that no device may differ by a bit, but for the
softmax loss, whose logits are the logarithms of "e".
"""

from __future__ import annotations

import numpy as np

from .. import ops
from ..device import Device
from ..tensor import Tensor
from .report import Finding
from .tolerances import tolerance

RULE = "known answer"
Table = list[list[float]]

CASES: dict[str, dict[str, Table]] = {
    "conv2d": {
        "x": [[1, 2, 0], [3, -1, 1]],
        "w": [[1, 0, 2], [-1, 3, 1], [0, 2, -2]],
        "b": [[1]],
        "dy": [[1, -1, 2], [0, 3, 1]],
        "y": [[14, 2, 1], [13, -3, 7]],
        "dx": [[7, -3, 11], [-1, 4, 12]],
        "dw": [[5, 6, 0], [11, -3, 5], [-5, 6, -2]],
        "db": [[6]],
    },
    "max_pool2d": {
        "x": [[-3, -5, -4, -5], [-2, -6, -1, -7], [-8, -1, -9, -2], [-4, -3, -2, -6]],
        "dy": [[2, 3], [5, -4]],
        "y": [[-1, -1], [-1, -2]],
        "dx": [[0, 0, 0, 0], [0, 0, 5, 0], [0, 5, 0, -4], [0, 0, 0, 0]],
    },
    "conv_transpose2d": {
        "x": [[1, 2], [-1, 3]],
        "w": [[1, 0, 2], [0, 1, -1], [2, 1, 0]],
        "dy": [[1, 1, 2, 0, -1], [0, 1, -1, 3, 0], [2, 0, -1, 1, 1], [1, 2, 0, 1, -2], [1, 0, 3, -2, 1]],
        "y": [[1, 0, 4, 0, 4], [0, 1, -1, 2, -2], [1, 1, 5, 2, 6], [0, -1, 1, 3, -3], [-2, -1, 6, 3, 0]],
        "dx": [[11, 2], [4, 8]],
        "dw": [[0, 4, 4], [-3, 8, -7], [8, -4, 1]],
    },
    "crop_sum": {
        "x": [[10, 20], [30, 40]],
        "skip": [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15], [16, 17, 18, 19, 20]],
        "dy": [[2, -1], [4, 3]],
        "y": [[18, 29], [43, 54]],
        "dx": [[2, -1], [4, 3]],
        "dskip": [[0, 0, 0, 0, 0], [0, 0, 2, -1, 0], [0, 0, 4, 3, 0], [0, 0, 0, 0, 0]],
    },
    "cross_entropy": {
        "e": [[1, 4, 2], [1, 3, 5], [2, 1, 1]],  # classes x pixels
        "target": [[2, 255, 0]],
        "dL": [[16]],
        "p": [[0.25, 0.5, 0.25], [0.25, 0.375, 0.625], [0.5, 0.125, 0.125]],
        "L": [[1.0397207708399179]],  # 3/2 log 2
        "dx": [[2, 0, -6], [2, 0, 5], [-4, 0, 1]],
    },
}
# How the document calls each op on its inputs.
_CALLS = {
    "conv2d": (("x", "w", "b"), lambda x, w, b: ops.conv2d(x, w, b, padding=1)),
    "max_pool2d": (("x",), lambda x: ops.max_pool2d(x, 3, stride=2, ceil_mode=True)),
    "conv_transpose2d": (("x", "w"), lambda x, w: ops.conv_transpose2d(x, w, stride=2)),
    "crop_sum": (("x", "skip"), lambda x, skip: ops.crop_sum(x, skip, offset=(1, 2))),
}


def check_known(op: str, device: str | Device, dtype: str) -> list[Finding]:
    """One finding for the output and one for each gradient of `op`'s case; none where it has no case."""
    if op not in CASES:
        return []
    case = CASES[op]
    if op == "cross_entropy":
        return _check_cross_entropy(case, device, dtype)
    names, call = _CALLS[op]
    shaped = {name: np.array(case[name], dtype)[None, None] for name in names}
    if "b" in shaped:
        shaped["b"] = shaped["b"].reshape(-1)
    inputs = {name: Tensor(array, True, device) for name, array in shaped.items()}
    y = call(*inputs.values())
    y.backward(np.array(case["dy"], dtype)[None, None])
    found = {"y": y} | {f"d{name}": x.grad for name, x in inputs.items()}
    return [_compare(name, array.numpy(), case[name], 0.0) for name, array in found.items()]


def _check_cross_entropy(case: dict[str, Table], device: str | Device, dtype: str) -> list[Finding]:
    logits = np.log(np.array(case["e"], np.float64)).astype(dtype)[None, :, None, :]
    x = Tensor(logits, True, device)
    loss = ops.cross_entropy(x, np.array(case["target"])[None])
    loss.backward(np.array(case["dL"][0][0], dtype))
    limit = tolerance(RULE, dtype)
    void = x.grad.numpy()[0, :, 0, 1]
    return [
        _compare("L", loss.numpy(), case["L"], limit),
        _compare("dx", x.grad.numpy(), case["dx"], 16 * limit),
        _compare("dx of the void pixel", void, [[0], [0], [0]], 0.0),
    ]


def _compare(name: str, found: np.ndarray, table: Table, limit: float) -> Finding:
    expected = np.array(table, np.float64)
    if found.size != expected.size:
        return Finding(RULE, name, np.inf, limit, f"shape {found.shape} for a table of {expected.shape}")
    off = np.abs(found.astype(np.float64).reshape(expected.shape) - expected)
    error = float(off.max()) if np.isfinite(off).all() else np.inf
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(off)), off.shape))
    where = f"element {list(index)} of {name} is {found.reshape(expected.shape)[index]:g}, by hand {expected[index]:g}"
    return Finding(RULE, name, error, limit, where)
