"""A kernel of one's own in a .cu file: read, launched, proven like all others, and refused in clear words."""

import re
from pathlib import Path

import numpy as np
import pytest

from minifcn import cli
from minifcn.cli import check
from minifcn.device import load_kernel
from minifcn.errors import DeviceError
from minifcn.gradcheck.cases import OPS
from minifcn.gradcheck.networks import NETWORKS
from minifcn.gradcheck.report import Report
from minifcn.kernels import geometry, reference
from minifcn.kernels.cuda import own
from minifcn.kernels.cuda.source import ExecutorError

from ..devices import on_devices

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "05_a_cuda_kernel_of_your_own.cu"
on_cuda = pytest.mark.parametrize("device", on_devices("cuda-sim"))

BACKWARD = """\
// kernel: {kernel}
// entry:  mine<T>
// grid:   ceil({count} / 64)
// block:  64
#include "conv2d.cuh"
template <typename T>
__global__ void mine(const T* {first}, const T* {second}, T* gradient, CONV2D_SIZES) {{
    const Conv2d geo = CONV2D_GEOMETRY;
    const long long i = element();
    if (i >= (long long){count}) return;
    T sum = 0;
{body}
    gradient[i] = sum;
}}
"""
INPUT = """\
    const Place at(i, H, W, C);
    for (int r = 0; r < R; r++)
        for (int s = 0; s < S; s++) {
            const long long pixel = Roles<true>(geo).source(geo, at.n, at.h, at.w, r, s);
            for (int k = 0; pixel >= 0 && k < K; k++) sum += dy[pixel * K + k] * w[((k * R + r) * S + s) * C + at.c];
        }"""
WEIGHT = """\
    const Place at(i, R, S, C);
    for (long long pixel = 0; pixel < (long long)N * P * Q; pixel++) {
        const Place to(pixel, P, Q, 1);
        const long long from = Roles<false>(geo).source(geo, to.n, to.h, to.w, at.h, at.w);
        if (from >= 0) sum += dy[pixel * K + at.n] * x[from * C + at.c];
    }"""


def written(folder, text, name="mine"):
    file = folder / f"{name}.cu"
    file.write_text(text, "utf-8")
    return str(file)


@on_cuda
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_three_kernels_of_a_convolution(device, dtype, tmp_path):
    rng, window = np.random.default_rng(0), ((2, 1), (1, 0), (1, 2), 1)
    geo = geometry.conv2d((2, 3, 7, 6), (5, 3, 3, 2), *window)
    x, w, b, dy = (rng.integers(-4, 5, shape).astype(dtype) for shape in (geo.x_shape, geo.w_shape, 5, geo.y_shape))
    texts = {
        "conv2d_forward": EXAMPLE.read_text("utf-8"),
        "conv2d_backward_input": BACKWARD.format(
            kernel="conv2d_backward_input", count="N * H * W * C", first="dy", second="w", body=INPUT
        ),
        "conv2d_backward_weight": BACKWARD.format(
            kernel="conv2d_backward_weight", count="K * R * S * C", first="dy", second="x", body=WEIGHT
        ),
    }
    arguments = {
        "conv2d_forward": (x, w, b, *window),
        "conv2d_backward_input": (dy, w, (7, 6), *window),
        "conv2d_backward_weight": (dy, x, (3, 2), *window),
    }
    for name, text in texts.items():
        found, kernel = load_kernel(written(tmp_path, text, name), device)
        assert found == name
        np.testing.assert_array_equal(kernel(*arguments[name]), getattr(reference, name)(*arguments[name]))


@on_cuda
def test_it_is_proven_as_all_kernels_are(device, tmp_path, capsys):
    options = ["check", "conv2d", "--device", device, "--dtype", "float64", "--examples", "3", "--kernel"]
    assert cli.main([*options, str(EXAMPLE)]) == 0
    assert "all 1 passed" in capsys.readouterr().out
    wrong = EXAMPLE.read_text("utf-8").replace("sum[j] + bias[k0 + j]", "sum[j]")
    assert cli.main([*options, written(tmp_path, wrong)]) == 1


@on_cuda
def test_the_sanitizer_checks_every_op_and_a_network_where_asked(device, monkeypatch):
    asked = []
    report = Report("op", device, "float64")
    monkeypatch.setattr(check, "check_op", lambda name, *_: asked.append(name) or report)
    monkeypatch.setattr(check, "check_network", lambda name, *_: asked.append(name) or report)
    options = ["check", "--device", device, "--sanitize", "--dtype", "float64"]
    for extra, expected in (([], [*OPS]), (["--all"], [*OPS, *NETWORKS]), (["fcn8s"], ["fcn8s"])):
        assert cli.main(options + extra) == 0
        assert asked == expected
        asked.clear()


@on_cuda
def test_the_sanitizer_sees_its_faults(device, tmp_path, capsys):
    text = EXAMPLE.read_text("utf-8").replace("if (i >= (", "if (i > (")
    options = ["--device", device, "--sanitize", "--dtype", "float64", "--examples", "3", "--kernel"]
    assert cli.main(["check", "conv2d", *options, written(tmp_path, text)]) == 1
    assert "mine.cu" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("// entry:", "// enter:"), "its first comment has no line `// entry: ...`"),
        (("kernel: conv2d_forward", "kernel: relu_forward"), "kernel (='relu_forward') must be one of conv2d_forward,"),
    ],
)
@on_cuda
def test_a_wrong_header_is_refused(device, change, message, tmp_path):
    with pytest.raises(DeviceError, match=re.escape(message)):
        load_kernel(written(tmp_path, EXAMPLE.read_text("utf-8").replace(*change)), device)


@pytest.mark.parametrize(
    ("file", "device", "message"),
    [
        ("absent.cu", "cuda-sim", "absent.cu is not a file"),
        (str(EXAMPLE), "cpu", "a .cu file needs --device cuda or cuda-sim, not cpu"),
        (f"conv2d_backward_input={EXAMPLE}", "cuda-sim", "says that it is conv2d_forward"),
    ],
)
def test_a_kernel_that_does_not_fit_is_refused(file, device, message):
    with pytest.raises(DeviceError, match=re.escape(message)):
        load_kernel(file, device)


SIZES = {"N": 2, "K": 5, "P": 7}


@pytest.mark.parametrize(
    ("formula", "values"),
    [("128", [128]), ("ceil(N * P / 4), K", [4, 5]), ("max(1, K - 7), min(N, P) + 1", [1, 3]), ("-(1 - K)", [4])],
)
def test_formulas(formula, values):
    assert own._values(Path("mine.cu"), formula, SIZES) == values


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("N / 4", "'N / 4' is 0.5 for"),
        ("1 - N", "'1 - N' is -1 for"),
        ("Z + 1", "'Z' in 'Z + 1' is neither a size nor + - * / ceil min max"),
        ("2 ** N", "'2 ** N' in '2 ** N' is neither"),
        ("__import__('os')", "is neither a size"),
        ("N.real", "'N.real' in 'N.real' is neither"),
        ("1.5", "'1.5' in '1.5' is neither"),
        ("(N", "'(N' is no formula"),
    ],
)
def test_what_is_no_formula_is_refused(formula, message):
    with pytest.raises(ExecutorError, match=re.escape(message)):
        own._values(Path("mine.cu"), formula, SIZES)
