"""Mutants of every op's backward pass, generated, and all caught; a weakened checker lets some of them live.

`test_gradcheck.py` plants faults that belong to one kernel (a forgotten stride, the last instead of the first maximum);
here one list of faults is applied to each op there is, so that a new op is covered when it is added.
"""

import numpy as np
import pytest

from minifcn import cli
from minifcn.gradcheck import OPS, NonSmooth, check_op, data, differences, gradcheck, rules, tolerances
from minifcn.tensor import Op

CLASSES = {cls.__name__.lower(): cls for cls in Op.__subclasses__() if cls.__module__.startswith("minifcn.ops")}
CLASS_OF = {name: CLASSES[{"subtract": "add", "mean": "sum"}.get(name, name.replace("_", ""))] for name in OPS
            if name not in ("sgd", "adam")}  # fmt: skip


def changed(change):
    """A backward pass whose gradients go through `change`."""
    return lambda true: lambda self, dy: tuple(None if g is None else change(np.array(g)) for g in true(self, dy))


def fed(change):
    """A backward pass whose upstream gradient goes through `change`."""
    return lambda true: lambda self, dy: true(self, change(dy))


def without_the_last(gradient):
    if gradient.size:
        gradient.reshape(-1)[-1] = 0
    return gradient


def one_ulp_of_void(gradient):
    return np.where(gradient == 0, gradient.dtype.type(1e-3), gradient)


def turned(array):
    """Reversed along every axis: the window, the image, the channels and the batch the wrong way round."""
    return np.ascontiguousarray(array[tuple(slice(None, None, -1) for _ in array.shape)])


GENERATED = {
    "0.05 % too large": changed(lambda g: g * g.dtype.type(1.0005)),
    "sign lost": changed(lambda g: -g),
    "last element skipped": changed(without_the_last),
    "no exact zero": changed(one_ulp_of_void),
    "upstream turned round": fed(turned),
    "upstream ignored": fed(np.ones_like),
    "upstream squared": fed(np.square),
    "NaN": changed(lambda g: np.full_like(g, np.nan)),
}


def test_every_op_has_a_class_to_mutate():
    assert set(CLASS_OF) == set(OPS) - {"sgd", "adam"}
    assert len(GENERATED) >= 4


@pytest.mark.parametrize("mutant", GENERATED)
@pytest.mark.parametrize("op", CLASS_OF)
def test_a_generated_mutant_dies(op, mutant, monkeypatch):
    cls = CLASS_OF[op]
    monkeypatch.setattr(cls, "backward", GENERATED[mutant](cls.backward))
    # Some short searches instead of a long one: Hypothesis stays near the cases that it began with.
    reports = (check_op(op, "reference", "float64", examples=20, seed=seed, shrink=False) for seed in range(10))
    assert not all(report.passed for report in reports), "survived 200 cases"


# --- the checker, weakened ---------------------------------------------------------------------------------


def dies(op, dtype, monkeypatch, mutant):
    cls = CLASS_OF[op]
    with monkeypatch.context() as patch:
        patch.setattr(cls, "backward", GENERATED[mutant](cls.backward))
        return not check_op(op, "reference", dtype, examples=30, shrink=False).passed


def test_an_upstream_of_ones_lets_a_turned_gradient_live(monkeypatch):
    assert dies("crop", "float64", monkeypatch, "upstream turned round")
    for module in (data, rules):
        if hasattr(module, "upstream"):
            monkeypatch.setattr(module, "upstream", lambda rng, shape: np.ones(shape))
    assert not dies("crop", "float64", monkeypatch, "upstream turned round")


def test_a_tolerance_a_thousand_times_wider_lets_a_wrong_scale_live(monkeypatch):
    assert dies("cross_entropy", "float32", monkeypatch, "0.05 % too large")
    wider = {rule: {dtype: 1000 * limit for dtype, limit in row.items()} for rule, row in tolerances.TOLERANCES.items()}
    monkeypatch.setattr(tolerances, "TOLERANCES", wider)
    assert not dies("cross_entropy", "float32", monkeypatch, "0.05 % too large")


def test_without_kink_detection_half_a_derivative_at_the_kink_lives(monkeypatch):
    """A central difference of ReLU at 0 is 1/2, so a derivative of 1/2 there looks right."""

    def half(dy, x):
        return dy * np.where(x > 0, 1.0, np.where(x == 0, 0.5, 0.0))

    def check():
        return gradcheck(lambda x: np.maximum(x, 0), [np.zeros((2, 3))], backward=half, kind="curved")

    with pytest.raises(NonSmooth):
        check()
    monkeypatch.setattr(differences, "_refuse_kinks", lambda *arguments: None)
    assert check().passed


def test_a_kink_is_redrawn_and_without_redraws_refused(monkeypatch):
    draws = []

    def inputs(rng):
        draws.append(len(draws))
        return [np.zeros(3) if len(draws) < 3 else np.array([-1.0, 2.0, 3.0])]

    def check():
        draws.clear()
        backward = lambda dy, x: dy * (x > 0)  # noqa: E731
        return gradcheck(lambda x: np.maximum(x, 0), inputs, backward=backward, kind="curved")

    assert check().passed
    assert len(draws) == 3
    monkeypatch.setattr("minifcn.gradcheck.checker.REDRAWS", 0)
    with pytest.raises(NonSmooth):
        check()


# --- the command -------------------------------------------------------------------------------------------


def test_the_command_passes_what_is_right(tmp_path, capsys):
    target, certificate = tmp_path / "checks.json", tmp_path / "certificate.md"
    options = ["--device", "reference", "--examples", "5", "--json", str(target), "--certificate", str(certificate)]
    assert cli.main(["check", "relu", "crop_sum", *options]) == 0
    output = capsys.readouterr().out
    assert "all 4 passed" in output
    assert '"name": "crop_sum"' in target.read_text()
    assert "| crop_sum | reference | float64 |" in certificate.read_text()


def test_the_command_finds_a_wrong_kernel_of_ones_own(tmp_path, capsys):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from minifcn.kernels import cpu\n"
        "def relu_backward_input(dy, y):\n"
        "    return cpu.relu_backward_input(dy, y) * dy.dtype.type(1.0005)\n"
        "def right(x):\n"
        "    return cpu.relu_forward(x)\n"
    )
    certificate = tmp_path / "certificate.md"
    options = ["--examples", "10", "--certificate", str(certificate)]
    assert cli.main(["check", "--kernel", f"{mine}:relu_backward_input", *options]) == 2
    captured = capsys.readouterr()
    assert "FAILED" in captured.out
    assert "smallest failing case: relu" in captured.out
    assert "worst element" in captured.out
    assert "not written, because 2 checks failed" in captured.err
    assert not certificate.exists()
    assert cli.main(["check", "--kernel", f"{mine}:relu_backward_input", "--examples", "10"]) == 1
    assert cli.main(["check", "--kernel", f"relu_forward={mine}:right", "--examples", "10"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nothing"], "nothing: not known; known are conv2d"),
        (["--kernel", "absent.py:f"], "absent.py is not a file"),
        (["--kernel", "nonsense"], "write [NAME=]FILE.py:FUNCTION"),
        (["--device", "tpu"], "'tpu' is not known"),
        (["--device", "cpu", "--sanitize"], "--sanitize needs --device cuda-sim, and no other"),
        (["--examples", "0"], "--examples (=0) must be at least 1"),
        (["--threads", "0"], "--threads (=0) must be an integer from 1 to 256"),
    ],
)
def test_the_command_names_what_is_wrong(options, message, capsys):
    assert cli.main(["check", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_kernel_of_ones_own_runs_inside_the_networks_too(tmp_path, capsys):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from minifcn.kernels import cpu\n"
        "def conv2d_backward_weight(*arguments):\n"
        "    return cpu.conv2d_backward_weight(*arguments) * 1.0005\n"
    )
    options = ["--kernel", f"{mine}:conv2d_backward_weight", "--dtype", "float64"]
    assert cli.main(["check", "fcn32s", *options]) == 1
    assert "gradient, network of conv1_1.weight" in capsys.readouterr().out


def test_a_network_is_checked_whole(capsys):
    assert cli.main(["check", "fcn32s", "--device", "cpu", "--dtype", "float64"]) == 0
    assert "fcn32s" in capsys.readouterr().out
