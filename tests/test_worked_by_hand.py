"""Known answers: the five cases of docs/worked-by-hand.md on every device and in both dtypes.

The numbers come from arithmetic that the document writes out line by line. A test adds up those lines, another one
compares the document's tables with those of `minifcn.gradcheck.known`, so that none of the three can change alone.
"""

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from minifcn import replaced
from minifcn.gradcheck.known import CASES, check_known
from minifcn.kernels import reference

DOCUMENT = Path(__file__).parent.parent / "docs" / "worked-by-hand.md"

# --- the kernels -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["reference", "cpu"])
def device(request):
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.mark.parametrize("case", CASES)
def test_every_device_has_the_answers_by_hand(case, device, dtype):
    findings = check_known(case, device, dtype)
    assert len(findings) == {"conv2d": 4, "max_pool2d": 2}.get(case, 3)
    for finding in findings:
        assert finding.passed, finding.where
        if case != "cross_entropy" or "void" in finding.subject:
            assert finding.error == finding.tolerance == 0


@pytest.mark.parametrize(
    ("case", "kernel"),
    [
        ("conv2d", "conv2d_backward_input"),
        ("conv2d", "conv2d_backward_bias"),
        ("max_pool2d", "max_pool2d_forward"),
        ("conv_transpose2d", "conv2d_forward"),
        ("crop_sum", "crop_backward_input"),
        ("cross_entropy", "cross_entropy_backward_input"),
    ],
)
def test_a_wrong_kernel_does_not_have_them(case, kernel):
    def wrong(*arguments):
        result = getattr(reference, kernel)(*arguments)
        (result[0] if isinstance(result, tuple) else result).reshape(-1)[0] += 1
        return result

    with replaced("reference", **{kernel: wrong}):
        failures = [finding for finding in check_known(case, "reference", "float64") if not finding.passed]
        assert failures
        assert "by hand" in failures[0].where


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
