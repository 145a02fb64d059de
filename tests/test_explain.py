"""Explanations: every op has one, its three numbers agree, a wrong kernel is noticed, the page stands by itself."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minifcn
from minifcn import ops
from minifcn.cli import main
from minifcn.errors import MinifcnError
from minifcn.explain import EXAMPLES, derivation, page, work
from minifcn.explain.derivation import OPS, SECTIONS, parse
from minifcn.explain.formulas import is_display, typeset
from minifcn.explain.terms import Term, add_up, constant, entry, gradient, number, outputs, product_rule
from minifcn.explain.worked import Row, Slopes
from minifcn.kernels import reference

DEVICES = ("reference", "cpu")
WINDOWED = ("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "bilinear_upsample", "crop", "crop_sum")


# --- every op ----------------------------------------------------------------------------------------------------


def test_every_public_op_is_explained():
    functions = {name for name in ops.__all__ if not isinstance(getattr(ops, name), type)}
    assert set(OPS) == functions == set(EXAMPLES)


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_the_sections(op):
    text = derivation(op)
    assert tuple(text.sections) == SECTIONS
    assert text.title.endswith(".")
    assert "dy" in text.sections["Backward"] or "dl" in text.sections["Backward"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("op", OPS)
def test_by_hand_kernel_and_difference_agree(op, device):
    worked = work(EXAMPLES[op], device)
    assert worked.agrees
    assert worked.gradients.keys() == EXAMPLES[op].inputs.keys()
    assert all(row.slopes is not None for rows in worked.gradients.values() for row in rows)
    assert not np.array_equal(EXAMPLES[op].dy, np.ones_like(EXAMPLES[op].dy))  # ones would see too little


def test_the_examples_show_what_they_promise():
    pool = work(EXAMPLES["max_pool2d"])
    kinks = {row.by_hand.index[2:] for row in pool.gradients["x"] if row.slopes.is_kink}
    assert kinks == {(2, 0), (3, 1)}  # the tie
    assert max(len(row.by_hand.terms) for row in pool.gradients["x"]) == 2  # one element wins twice
    loss = EXAMPLES["cross_entropy"]
    assert 255 in loss.arguments["target"]


# --- terms -------------------------------------------------------------------------------------------------------


def written(op, name, index):
    """An element of the gradient as `minifcn explain` writes it."""
    total = next(row.by_hand for row in work(EXAMPLES[op]).gradients[name] if row.by_hand.index == index)
    return f"{total.target} = {' + '.join(total.terms)} = {' + '.join(total.numbers)} = {number(total.value)}"


def test_terms_are_written_as_one_would():
    # x = [[1, 0, 2], [3, 1, -1], [0, 2, 1]], w = [[1, 2, 0], [0, 1, -1], [3, 0, 2]], dy = [[2, -1], [3, 1]], stride 2
    assert written("conv2d", "x", (0, 0, 1, 1)) == (
        "dx[0,0,1,1] = w[0,0,2,2] dy[0,0,0,0] + w[0,0,2,0] dy[0,0,0,1] + w[0,0,0,2] dy[0,0,1,0] "
        "+ w[0,0,0,0] dy[0,0,1,1] = 2*2 + 3*(-1) + 0*3 + 1*1 = 2"
    )
    assert written("conv2d", "w", (0, 0, 0, 1)) == (
        "dw[0,0,0,1] = x[0,0,1,0] dy[0,0,1,0] + x[0,0,1,2] dy[0,0,1,1] = 3*3 + (-1)*1 = 8"
    )
    assert written("max_pool2d", "x", (0, 0, 1, 2)) == "dx[0,0,1,2] = dy[0,0,0,0] + dy[0,0,0,1] = 2 + 1 = 3"
    assert written("crop_sum", "skip", (0, 0, 1, 3)) == "dskip[0,0,1,3] = dy[0,0,0,1] = -1 = -1"
    assert written("cross_entropy", "x", (0, 1, 0, 0)) == (
        "dx[0,1,0,0] = weight[1] (p[0,1,0,0] - 1) / 4 dL = 2*(0.25 - 1)/4*(-8) = 3"
    )
    assert written("divide", "b", (1,)) == (
        "db[1] = (-a[0,1] / b[1]^2) dy[0,1] + (-a[1,1] / b[1]^2) dy[1,1] = (-2/(-5)^2)*(-1) + 4/(-5)^2*1 = 0.24"
    )


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_the_product_rule_of_a_bilinear_form(rows, columns, seed):
    """y = A x: dA = dy x^T and dx = A^T dy."""
    rng = np.random.default_rng(seed)
    A, x, dy = (rng.integers(-9, 10, shape).astype(float) for shape in ((rows, columns), columns, rows))
    terms = [Term((i,), (entry("A", A, i, j), entry("x", x, j))) for i, j in np.ndindex(A.shape)]
    shares = list(product_rule(terms))
    assert [total.value for total in outputs("y", (rows,), terms)] == list(A @ x)
    assert [total.value for total in gradient("x", x.shape, shares, "y", dy)] == list(A.T @ dy)
    assert [total.value for total in gradient("A", A.shape, shares, "y", dy)] == list(np.outer(dy, x).ravel())


def test_slopes_decide():
    assert Slopes(2.0, 2.0, "linear").allows(2.0)
    assert not Slopes(2.0, 2.0, "linear").allows(2.001)
    assert not Slopes(0.0, 4.0, "linear").allows(1.0)  # only a piecewise op may have a kink
    kink = Slopes(0.0, 3.0, "piecewise")
    assert kink.is_kink
    assert [kink.allows(value) for value in (-0.1, 0.0, 1.0, 3.0, 3.1)] == [False, True, True, True, False]
    for slopes in (Slopes(math.nan, 1.0, "linear"), Slopes(math.nan, math.nan, "piecewise")):
        assert not slopes.allows(1.0)
        assert not slopes.allows(math.nan)


def test_nan_never_agrees():
    one = add_up("y", (), [(constant("1", 1.0),)])
    assert Row(one, 1.0).agrees
    assert not Row(one, math.nan).agrees
    assert not Row(one, 1.0, Slopes(math.nan, math.nan, "linear")).agrees


# --- wrong kernels -----------------------------------------------------------------------------------------------


def unturned(dy, w, *rest):
    return reference.conv2d_backward_input(dy, w[..., ::-1, ::-1], *rest)


def shifted_forward(x, skip, offset):
    return reference.crop_sum_forward(x, skip, (offset[0] + 1, offset[1]))


def no_void(dy, probabilities, target, weight, ignore_index):
    return reference.cross_entropy_backward_input(dy, probabilities, np.where(target == 255, 0, target), weight, -1)


def no_overlap(dy, argmax, size, window, stride, *rest):
    """An element that won several windows gets the last one's gradient only."""
    dx = np.zeros((*dy.shape[:2], *size))
    for n, c, p, q in np.ndindex(dy.shape):
        r, s = divmod(int(argmax[n, c, p, q]), window)
        dx[n, c, p * stride + r, q * stride + s] = dy[n, c, p, q]
    return dx


def slightly_large(dy, y):
    return 1.000001 * reference.relu_backward_input(dy, y)


def of_another_shape(x, factor):
    return x[:-1] * factor


def not_a_number(dy, y):
    return np.full_like(dy, np.nan)


@pytest.mark.parametrize(
    ("op", "kernel", "wrong"),
    [
        ("conv2d", "conv2d_backward_input", unturned),
        ("conv_transpose2d", "conv2d_backward_input", unturned),
        ("crop_sum", "crop_sum_forward", shifted_forward),
        ("cross_entropy", "cross_entropy_backward_input", no_void),
        ("max_pool2d", "max_pool2d_backward_input", no_overlap),
        ("relu", "relu_backward_input", slightly_large),
        ("relu", "relu_backward_input", not_a_number),
        ("scale", "scale_forward", of_another_shape),
    ],
)
def test_a_wrong_kernel_is_noticed(op, kernel, wrong, capsys):
    with minifcn.replaced("cpu", **{kernel: wrong}):
        assert main(["explain", op]) == 1
    assert "DISAGREE" in capsys.readouterr().out
    assert main(["explain", op]) == 0


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_lists_the_ops(capsys):
    assert main(["explain"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if "  " in line}
    assert listed == set(OPS)


def test_an_unknown_op_is_refused_with_the_list(capsys):
    assert main(["explain", "conv3d"]) == 2
    message = capsys.readouterr().err
    assert "conv3d" in message
    assert all(op in message for op in OPS)
    assert main(["explain", "relu", "--device", "abacus"]) == 2


@pytest.mark.parametrize("device", DEVICES)
def test_the_command_prints_derivation_and_numbers(device, capsys):
    assert main(["explain", "conv_transpose2d", "--device", device]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out  # no colours into a pipe
    for part in (*SECTIONS, "dx[n,c,p,q] = sum_{k,r,s} w[c,k,r,s] dy[n,k,h,w]", f"kernel ({device})", "difference"):
        assert part in out
    assert re.search(r"y\[0,0,1,1\] += b\[0\] \+ x\[0,0,0,0\] w\[0,0,2,2\] \+ x\[0,0,0,1\] w\[0,0,2,0\]", out)
    assert "= 1 + 1*2 + 2*3 + 3*0 + (-1)*1 = 8" in out
    assert "All 23 numbers agree" in out
    assert max(len(line) for line in out.splitlines()) <= 120


def test_docstrings_without_a_section_are_refused():
    with pytest.raises(MinifcnError, match="no section Source"):
        parse("square", "Square.\n\nForward\n    y = x^2\n\nBackward\n    dx = 2 x dy\n")
    with pytest.raises(MinifcnError, match="no section Forward"):
        parse("square", "")
    text = parse(
        "square", "Square.\n\nForward\n    y = x^2\n\n    for all x\n\nBackward\n    dx\n\nSource\n    Euclid\n"
    )
    assert (text.title, text.sections["Forward"]) == ("Square.", "y = x^2\n\nfor all x")


# --- the page ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS)
def test_the_page_stands_by_itself(op, tmp_path):
    file = tmp_path / "op.html"
    assert main(["explain", op, "--html", str(file)]) == 0
    text = file.read_text()
    tree = ET.fromstring(text)  # well-formed
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|<link", text)
    assert not any(name in element.attrib for element in tree.iter() for name in ("src", "href"))
    assert len(list(tree.iter("math"))) > 10
    windows = EXAMPLES[op].drawing.windows if EXAMPLES[op].drawing else ()
    assert len(list(tree.iter("svg"))) == len(windows)
    assert bool(windows) == (op in WINDOWED)
    assert "DISAGREE" not in text
    drawn = " ".join("".join(element.itertext()) for element in tree.iter("td"))
    rows = [row for rows in work(EXAMPLES[op]).gradients.values() for row in rows if not row.is_untouched]
    assert all(number(row.by_hand.value).replace("-", "−") in drawn for row in rows)


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    assert main(["explain", "relu", "--html", str(tmp_path / "missing" / "op.html")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_wrong_kernel_is_marked_on_the_page():
    with minifcn.replaced("cpu", relu_backward_input=slightly_large):
        text = page(derivation("relu"), work(EXAMPLES["relu"]))
    assert "class='wrong'" in text
    assert "DISAGREE" in text


# --- formulas ----------------------------------------------------------------------------------------------------


def parts(text):
    """What is typeset in `text`: the formulas without their tags, in the order of the page."""
    root = ET.fromstring(f"<p>{typeset(text)}</p>")
    return ["".join(math_.itertext()) for math_ in root.iter("math")]


def test_formulas_are_told_from_words():
    assert parts("y is linear in x, and a window has the factor 1/m there") == ["1m"]
    assert parts("dx[i] = sum_j w[j] dy[j], a sum over all j") == ["dxi=∑jwjdyj"]
    assert parts("A sum of 3 numbers, one - or two - of them") == []
    assert parts("In every y[n,k,p,q] whose window has (r,s) at (h,w):") == ["yn,k,p,q", "(r,s)", "(h,w)"]
    assert parts("d y[i] / d x[i] = 1 / x[i], so") == ["∂yi∂xi=1xi"]
    assert is_display("y[i] = a[i] + b[i]")
    assert not is_display("With x[i] = 1 the output is 1")


def test_formulas_have_the_structure_of_mathml():
    fraction = ET.fromstring(typeset("(h + pad - r dilation) / stride"))
    top, bottom = fraction.find("mrow/mfrac")
    assert ("".join(top.itertext()), "".join(bottom.itertext())) == ("h+pad−rdilation", "stride")
    assert ET.fromstring(typeset("x[i]^(e - 1)")).find("mrow/msup") is not None
    under = ET.fromstring(typeset("sum_{r,s} w[r,s]")).find("mrow/munder")
    assert "".join(under[1].itertext()) == "r,s"


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), max_size=40))
def test_any_text_gives_well_formed_mathml(text):
    root = ET.fromstring(f"<p>{typeset(text)}</p>")
    for fraction in root.iter("mfrac"):
        assert len(fraction) == 2
    for script in (*root.iter("msub"), *root.iter("msup"), *root.iter("munder")):
        assert len(script) == 2
