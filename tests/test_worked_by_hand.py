"""Known answers: the five cases of docs/worked-by-hand.md, typed in again, on every device and in both dtypes.

The numbers come from arithmetic that the document writes out line by line. A test adds up those lines, another one
compares the document's tables with the ones here, so that none of the three can change alone.
"""

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import minifcn
from minifcn import Tensor

DOCUMENT = Path(__file__).parent.parent / "docs" / "worked-by-hand.md"

CASES = {
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
        "e": [[1, 4, 2], [1, 3, 5], [2, 1, 1]],
        "target": [[2, 255, 0]],
        "dL": [[16]],
        "p": [[0.25, 0.5, 0.25], [0.25, 0.375, 0.625], [0.5, 0.125, 0.125]],
        "L": [[1.0397207708399179]],  # 3/2 log 2
        "dx": [[2, 0, -6], [2, 0, 5], [-4, 0, 1]],
    },
}


# --- the kernels -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["reference", "cpu"])
def device(request):
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


def planes(case, *names, device, dtype):
    """Tensors [1, 1, H, W] of a case's tables."""
    return [Tensor(np.array(CASES[case][name], dtype)[None, None], True, device) for name in names]


def backward(y, case, dtype):
    y.backward(np.array(CASES[case]["dy"], dtype)[None, None])


def is_equal(found, case, name, dtype):
    """Whole numbers, so not a single bit may differ."""
    array = found.numpy()
    expected = np.array(CASES[case][name], dtype)[None, None]
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, expected.reshape(array.shape), strict=True)


def test_convolution(device, dtype):
    x, w = planes("conv2d", "x", "w", device=device, dtype=dtype)
    b = Tensor(np.array(CASES["conv2d"]["b"][0], dtype), True, device)
    y = minifcn.conv2d(x, w, b, padding=1)
    backward(y, "conv2d", dtype)
    for found, name in ((y, "y"), (x.grad, "dx"), (w.grad, "dw"), (b.grad, "db")):
        is_equal(found, "conv2d", name, dtype)


def test_overlapping_maxima_with_ties(device, dtype):
    (x,) = planes("max_pool2d", "x", device=device, dtype=dtype)
    y = minifcn.max_pool2d(x, 3, stride=2, ceil_mode=True)
    backward(y, "max_pool2d", dtype)
    is_equal(y, "max_pool2d", "y", dtype)
    is_equal(x.grad, "max_pool2d", "dx", dtype)


def test_transposed_convolution(device, dtype):
    x, w = planes("conv_transpose2d", "x", "w", device=device, dtype=dtype)
    y = minifcn.conv_transpose2d(x, w, stride=2)
    backward(y, "conv_transpose2d", dtype)
    for found, name in ((y, "y"), (x.grad, "dx"), (w.grad, "dw")):
        is_equal(found, "conv_transpose2d", name, dtype)


def test_crop_and_sum(device, dtype):
    x, skip = planes("crop_sum", "x", "skip", device=device, dtype=dtype)
    y = minifcn.crop_sum(x, skip, offset=(1, 2))
    backward(y, "crop_sum", dtype)
    for found, name in ((y, "y"), (x.grad, "dx"), (skip.grad, "dskip")):
        is_equal(found, "crop_sum", name, dtype)


def test_softmax_loss_with_a_void_pixel(device, dtype):
    case = CASES["cross_entropy"]
    logits = np.log(np.array(case["e"], np.float64)).astype(dtype)[None, :, None, :]  # classes x pixels -> [1, C, 1, W]
    x = Tensor(logits, True, device)
    loss = minifcn.cross_entropy(x, np.array(case["target"])[None], reduction="mean")
    loss.backward(np.array(case["dL"][0][0], dtype))
    rounding = {"float32": 1e-6, "float64": 1e-14}[dtype]
    assert loss.dtype == x.grad.dtype == dtype
    assert abs(loss.item() - case["L"][0][0]) <= rounding
    found, expected = x.grad.numpy()[0, :, 0, :], np.array(case["dx"], np.float64)
    assert np.abs(found - expected).max() <= 16 * rounding
    assert not found[:, 1].any()  # exactly zero at the void pixel


# --- the document ------------------------------------------------------------------------------------------------


def blocks(section, kind):
    return re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)


def sections():
    """The text of each case of the document, by the name of its op."""
    return {re.search(r"`(\w+)\(", part)[1]: part for part in DOCUMENT.read_text().split("\n## ")[1:]}


def tables(section):
    """All tables of numbers: a row that begins with a name begins a table."""
    found = {}
    for line in "".join(blocks(section, "numbers")).splitlines():
        name, *numbers = line.split() if not line.startswith(" ") else [None, *line.split()]
        if name is not None:
            assert name not in found, f"two tables of {name}"
            rows = found[name] = []
        rows.append([float(Fraction(number)) for number in numbers])
    return found


def test_the_document_has_these_cases():
    assert sections().keys() == CASES.keys()


@pytest.mark.parametrize("case", CASES)
def test_the_tables_of_the_document_are_the_ones_here(case):
    assert tables(sections()[case]) == CASES[case]


@pytest.mark.parametrize("case", CASES)
def test_every_step_of_the_document_adds_up(case):
    """In `dx[1,2] = dy[0,0] + dy[0,1] = 2 + 3 = 5` all four are one number, the first as the table has it."""
    numbers, seen = CASES[case], 0

    def look_up(match):
        rows = np.array(numbers[match[1]])
        return f"({(rows.ravel() if ',' not in match[2] else rows)[tuple(map(int, match[2].split(',')))]})"

    for line in "".join(blocks(sections()[case], "steps")).splitlines():
        sides = [re.sub(r"\b([A-Za-z]+)\[([\d,]+)\]", look_up, side) for side in line.split(" = ")]
        values = [eval(side, {"__builtins__": {}, "max": max, "log": math.log}) for side in sides]
        assert len(values) > 1, line
        assert max(values) - min(values) <= 1e-15, line
        seen += 1
    assert seen
