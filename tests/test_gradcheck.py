"""The checker is checked: right gradients pass, plausible wrong ones are caught, a kink is reported as one."""

import numpy as np
import pytest

from minifcn import Op, Tensor, conv2d, ops, replaced
from minifcn import relu as tensor_relu
from minifcn.errors import DeviceError, MinifcnError
from minifcn.gradcheck import OPS, GradientError, NonSmooth, OpCase, Report, check_case, check_op, gradcheck
from minifcn.gradcheck.data import LAYOUTS, laid_out, signed, spaced, spaced_negative
from minifcn.gradcheck.report import Finding
from minifcn.kernels import reference
from minifcn.nn import Conv2d as ConvLayer

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3))


# --- right ones pass ---


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_function_of_tensors(dtype):
    def function(x, w):
        return (x * w).exp() / (x * x + 1.0)

    report = gradcheck(function, {"x": X.astype(dtype), "w": X[:1].astype(dtype)})
    assert report.passed, report
    assert {rule for rule, _ in report.worst} >= {"shape", "zero upstream", "run twice", "strides", "gradient, curved"}
    assert {subject for rule, subject in report.worst if rule == "gradient, curved"} == {"x", "w"}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_pair_of_plain_functions(dtype):
    report = gradcheck(np.sin, [X.astype(dtype)], backward=lambda dy, x: dy * np.cos(x))
    assert report.passed, report
    report = gradcheck(
        np.matmul,
        [X.astype(dtype), X.T.astype(dtype)],
        backward=lambda dy, a, b: (dy @ b.T, a.T @ dy),
        kind="linear",
        exact=True,
    )
    assert report.passed, report


def test_a_module_with_its_parameters():
    layer = ConvLayer(2, 3, 3, padding=1)
    weight, before = layer.weight, layer.weight.numpy().copy()
    report = gradcheck(layer, [RNG.standard_normal((2, 2, 4, 5))], kind="linear")
    assert report.passed, report
    assert {"x", "weight", "bias"} <= {subject for _, subject in report.worst}
    assert weight.dtype == np.float32  # it was checked in float64, and has its own values again
    assert weight.device == "cpu"
    assert weight.grad is None
    np.testing.assert_array_equal(weight.numpy(), before)


def test_a_module_with_a_wrong_bias_gradient():
    def wrong(dy):
        return reference.conv2d_backward_bias(dy) * dy.dtype.type(1.001)

    with replaced("cpu", conv2d_backward_bias=wrong):
        report = gradcheck(ConvLayer(2, 3, 3), [RNG.standard_normal((2, 2, 4, 5))], kind="linear")
    assert [failure.subject for failure in report.failures] == ["bias"]


# --- wrong ones are caught ---


# Each takes the true kernel and its arguments.


def transposed_weight(true, dy, w, size, stride, padding, dilation, groups):
    return true(dy, np.ascontiguousarray(w.swapaxes(2, 3)) if w.shape[2] == w.shape[3] else w, size, stride, padding,
                dilation, groups)  # fmt: skip


def flipped_window(true, dy, w, *rest):
    return true(dy, w[..., ::-1, ::-1], *rest)


def another_mask(true, dy, p, key):
    return true(dy, p, (key[0] + 1, *key[1:]))


def mask_alone(true, dy, p, key):
    return np.where(true(np.ones_like(dy), p, key) == 0, np.zeros_like(dy), dy)


def exchanged_channels(true, dy, w, size, stride, padding, dilation, groups):
    K, C = w.shape[:2]
    return true(dy, w.reshape(C, K, *w.shape[2:]).swapaxes(0, 1), size, stride, padding, dilation, groups)


def without_stride(true, dy, x, window, stride, padding, dilation, groups):
    """Taps that step by the dilation only, as if the stride were 1 at the image's first pixels."""
    patch = (*dy.shape[2:],)
    rows, columns = (d * (r - 1) + p for d, r, p in zip(dilation, window, patch, strict=True))
    whole = np.zeros((*x.shape[:2], rows, columns), x.dtype)
    h, w = min(rows, x.shape[2]), min(columns, x.shape[3])
    whole[:, :, :h, :w] = x[:, :, :h, :w]
    return true(dy, whole, window, 1, 0, dilation, groups)


state = {"calls": 0}


def remembering(true, *arguments):
    state["calls"] += 1
    return true(*arguments) * (1 + 1e-3 * (state["calls"] % 2))


def overwriting(true, dy, *rest):
    dx = true(dy, *rest)
    dy *= 2
    return dx


def spoiling_saved(true, dy, y):
    dx = true(dy, y)
    y[...] = 0
    return dx


def last_maximum(true, x, *window):
    """The last maximum of a window instead of the first."""
    y, argmax = true(x, *window)
    window, stride, padding, dilation, _ = window
    H, W = x.shape[2:]
    (R, S), (sh, sw), (ph, pw), (dh, dw) = window, stride, padding, dilation
    for n, c, p, q in np.ndindex(y.shape):
        for r in range(R):
            for s in range(S):
                h, w = p * sh - ph + r * dh, q * sw - pw + s * dw
                if 0 <= h < H and 0 <= w < W and x[n, c, h, w] == y[n, c, p, q]:
                    argmax[n, c, p, q] = r * S + s
    return y, argmax


def zero_padded_maximum(true, x, *window):
    """Padding counts as 0."""
    y, argmax = true(x, *window)
    if any(window[2]):
        y[..., 0, 0] = np.maximum(y[..., 0, 0], 0)
    return y, argmax


def without_overlap(true, dy, argmax, size, *window):
    """An element that wins twice keeps only the last window's gradient."""
    dx = np.zeros((*dy.shape[:2], *size), dy.dtype)
    (_, S), (sh, sw), (ph, pw), (dh, dw), _ = window
    for n, c, p, q in np.ndindex(dy.shape):
        r, s = divmod(int(argmax[n, c, p, q]), S)
        dx[n, c, p * sh - ph + r * dh, q * sw - pw + s * dw] = dy[n, c, p, q]
    return dx


def mean_over_batch(true, dy, *rest):
    return true(dy, *rest) / dy.dtype.type(max(1, len(dy)))


def missing_image(true, dy):
    return true(dy[1:]) if len(dy) > 1 else true(dy)


def always_include_pad(true, dy, size, window, stride, padding, ceil_mode, count_include_pad):
    return true(dy, size, window, stride, padding, ceil_mode, True)


def shifted(true, *arguments):
    return np.roll(true(*arguments), 1, axis=-1)


def void_counts(true, dy, probabilities, target, weight, ignore_index):
    """Ignored pixels get the gradient of class 0."""
    label = np.where(target == ignore_index, 0, target)
    return true(dy, probabilities, label, weight, -7)


def unweighted(true, dy, probabilities, target, weight, ignore_index):
    return true(dy, probabilities, target, None, ignore_index)


def without_onehot(true, dy, probabilities, target, weight, ignore_index):
    return (dy[:, None] * probabilities * (target != ignore_index)[:, None]).astype(dy.dtype)


def scaled(factor):
    return lambda true, *arguments: true(*arguments) * np.float32(factor)


def in_float64(true, *arguments):
    return true(*arguments).astype(np.float64)


def of_nan(true, *arguments):
    return np.full_like(true(*arguments), np.nan)


def one_nan(true, *arguments):
    result = true(*arguments)
    if result.size:
        result.reshape(-1)[-1] = np.nan
    return result


def ignoring_dy(true, dy, *rest):
    return true(np.ones_like(dy), *rest)


def raising(true, *arguments):
    raise IndexError("index 5 is out of bounds")


def head_of_void(true, dy, x, target, weight, ignore_index, *window):
    return true(dy, x, np.where(target == ignore_index, 0, target), weight, -7, *window)


HEAD = "upsample_cross_entropy"
MUTANTS = {
    "flipped window in dx": ("conv2d", "conv2d_backward_input", flipped_window),
    "transposed window in dx": ("conv2d", "conv2d_backward_input", transposed_weight),
    "exchanged channels in dx": ("conv2d", "conv2d_backward_input", exchanged_channels),
    "dx shifted by a pixel": ("conv2d", "conv2d_backward_input", shifted),
    "dx twice too large": ("conv2d", "conv2d_backward_input", scaled(2)),
    "dx 0.05 % too large": ("conv2d", "conv2d_backward_input", scaled(1.0005)),
    "dx ignores dy": ("conv2d", "conv2d_backward_input", ignoring_dy),
    "dx is NaN": ("conv2d", "conv2d_backward_input", of_nan),
    "one element of dx is NaN": ("conv2d", "conv2d_backward_input", one_nan),
    "dx depends on the previous call": ("conv2d", "conv2d_backward_input", remembering),
    "dy is overwritten": ("conv2d", "conv2d_backward_input", overwriting),
    "dx raises": ("conv2d", "conv2d_backward_input", raising),
    "forgotten stride in dw": ("conv2d", "conv2d_backward_weight", without_stride),
    "flipped dw": ("conv2d", "conv2d_backward_weight", lambda true, *a: true(*a)[..., ::-1, ::-1]),
    "mean over the batch in dw": ("conv2d", "conv2d_backward_weight", mean_over_batch),
    "dw 0.05 % too large": ("conv2d", "conv2d_backward_weight", scaled(1.0005)),
    "float64 leaks out of dw": ("conv2d", "conv2d_backward_weight", in_float64),
    "an image is missing in db": ("conv2d", "conv2d_backward_bias", missing_image),
    "db is the mean": ("conv2d", "conv2d_backward_bias", mean_over_batch),
    "flipped window in the transposed convolution": ("conv_transpose2d", "conv2d_forward", flipped_window),
    "last instead of first maximum": ("max_pool2d", "max_pool2d_forward", last_maximum),
    "padding of the maximum is 0": ("max_pool2d", "max_pool2d_forward", zero_padded_maximum),
    "no sum at overlapping windows": ("max_pool2d", "max_pool2d_backward_input", without_overlap),
    "max-pool dx shifted": ("max_pool2d", "max_pool2d_backward_input", shifted),
    "average divides by the whole window": ("avg_pool2d", "avg_pool2d_backward_input", always_include_pad),
    "average dx 0.05 % too large": ("avg_pool2d", "avg_pool2d_backward_input", scaled(1.0005)),
    "LRN forgets the neighbours": (
        "lrn", "lrn_backward_input", lambda true, dy, x, size, alpha, *rest: true(dy, x, 1, alpha / size, *rest),
    ),
    "LRN does not divide alpha": (
        "lrn", "lrn_backward_input", lambda true, dy, x, size, alpha, *rest: true(dy, x, size, alpha * size, *rest),
    ),
    "LRN forgets the way through s": (
        "lrn", "lrn_backward_input", lambda true, dy, x, *rule: dy * reference.lrn_forward(x, *rule) / x,
    ),
    "upsampling dx shifted": ("bilinear_upsample", "bilinear_upsample_backward_input", shifted),
    "crop dx at the wrong place": ("crop", "crop_backward_input", shifted),
    "ReLU passes everything": ("relu", "relu_backward_input", lambda true, dy, y: dy.copy()),
    "ReLU spoils its saved output": ("relu", "relu_backward_input", spoiling_saved),
    "another mask backward": ("dropout", "dropout_backward_input", another_mask),
    "no scale backward": ("dropout", "dropout_backward_input", mask_alone),
    "void pixels have a gradient": ("cross_entropy", "cross_entropy_backward_input", void_counts),
    "class weights forgotten": ("cross_entropy", "cross_entropy_backward_input", unweighted),
    "the label's 1 forgotten": ("cross_entropy", "cross_entropy_backward_input", without_onehot),
    "loss gradient 0.05 % too large": ("cross_entropy", "cross_entropy_backward_input", scaled(1.0005)),
    "the head's void pixels have a gradient": (HEAD, f"{HEAD}_backward_input", head_of_void),
    "the head forgets its offset": (HEAD, f"{HEAD}_backward_input", lambda true, *a: true(*a[:-1], (0, 0))),
    "the head forgets the weights": (
        HEAD,
        f"{HEAD}_backward_input",
        lambda true, dy, x, target, weight, *rest: true(dy, x, target, None, *rest),
    ),
    "the head's gradient 0.05 % too large": (HEAD, f"{HEAD}_backward_input", scaled(1.0005)),
    "SGD forgets the decay": (
        "sgd",
        "sgd_step",
        lambda true, w, g, v, lr, momentum, weight_decay, form: true(w, g, v, lr, momentum, 0.0, form),
    ),
    "SGD takes the other form": (
        "sgd",
        "sgd_step",
        lambda true, w, g, v, lr, momentum, weight_decay, form: true(w, g, v, lr, momentum, weight_decay, "pytorch"),
    ),
    "Adam does not count its steps": ("adam", "adam_step", lambda true, *a: true(*a[:-2], 1, a[-1])),
}  # fmt: skip


def by_keyword(kernel, change):
    """The wrong kernel; named arguments are passed on in the order of the call."""
    return lambda *arguments, **named: change(getattr(reference, kernel), *arguments, *named.values())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mutant", list(MUTANTS))
def test_a_wrong_kernel_is_caught(mutant, dtype):
    if mutant.startswith("float64") and dtype == "float64":
        pytest.skip("float64 cannot leak into float64")
    op, kernel, change = MUTANTS[mutant]
    wrong = {kernel: by_keyword(kernel, change)}
    report = check_op(op, "cpu", dtype, examples=100, kernels=wrong, shrink=False)
    assert not report.passed, f"survived {report.cases} cases"
    assert report.failing_case
    assert all(failure.where for failure in report.failures), report


def test_the_reference_in_the_mutants_place_passes():
    """What kills the mutants is the fault, not the way in which it is put there."""
    for op, kernel, _ in MUTANTS.values():
        report = check_op(op, kernels={kernel: by_keyword(kernel, lambda true, *a: true(*a))}, examples=5)
        assert report.passed, report


class WrongMean(Op):
    """The mean of all elements; its gradient forgets the division."""

    def forward(self, x):
        self.shape = x.shape
        return np.asarray(x.mean(), x.dtype)

    def backward(self, dy):
        return (np.broadcast_to(dy, self.shape),)


def test_an_op_with_a_wrong_normalisation():
    report = gradcheck(lambda x: WrongMean()(x), [X], kind="linear")
    assert not report.passed
    assert "gradient, linear of x" in str(report)


class Branch(Op):
    """x + y whose gradient of x is right only while that of y is asked for too."""

    def forward(self, x, y):
        return x + y

    def backward(self, dy):
        return (dy, dy) if self.wants(1) else (2 * dy, None)


def test_a_gradient_that_depends_on_what_else_is_asked_for():
    report = gradcheck(lambda x, y: Branch()(x, y), [X, X.copy()], kind="linear")
    assert [failure.rule for failure in report.failures] == ["asked for alone"]


def test_pointer_arithmetic_that_assumes_contiguity():
    def contiguous_only(x):
        if x.flags.c_contiguous:
            return x * 1.0
        return np.ascontiguousarray(x).reshape(-1)[::-1].reshape(x.shape)

    report = gradcheck(contiguous_only, [X], backward=lambda dy, x: dy, kind="linear")
    assert "strides" in {failure.rule for failure in report.failures}


@pytest.mark.parametrize(
    ("backward", "where"),
    [
        (lambda dy, x: dy.sum(), "but x is float64 (2, 3)"),
        (lambda dy, x: (dy, dy), "2 gradients for 1 inputs"),
        (lambda dy, x: None, "there is no gradient"),
        (lambda dy, x: dy.nonsense, "backward raised AttributeError"),
    ],
)
def test_what_is_no_gradient_at_all(backward, where):
    report = gradcheck(lambda x: x * 2, [X], backward=backward, kind="linear")
    assert where in report.failures[0].where


def test_a_forward_pass_of_another_dtype():
    report = gradcheck(lambda x: x.astype(np.float32), [X], backward=lambda dy, x: dy, kind="linear")
    assert "y is float32, but the inputs are float64" in report.failures[0].where


# --- kinks ---


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize("kind", ["curved", "piecewise"])
def test_a_kink_is_reported_neither_passed_nor_failed(kind):
    with pytest.raises(NonSmooth, match=r"output element \[1\]: slope .* ahead, .* behind"):
        gradcheck(relu, [np.array([-1.5, 0.0, 2.5])], backward=lambda dy, x: dy * (x > 0), kind=kind)


def test_a_kink_of_a_function_of_tensors():
    with pytest.raises(NonSmooth):
        gradcheck(tensor_relu, [np.zeros((2, 2))])


def test_other_numbers_are_drawn_at_a_kink():
    draws = []

    def inputs(rng):
        draws.append(1)
        return [np.array([0.0, 1.5]) if len(draws) < 5 else spaced(rng, (2,))]

    assert gradcheck(relu, inputs, backward=lambda dy, x: dy * (x > 0), kind="piecewise").passed
    assert len(draws) == 5


def test_twenty_redraws_and_no_more():
    draws = []

    def inputs(rng):
        draws.append(1)
        return [np.zeros(2)]

    with pytest.raises(NonSmooth):
        gradcheck(relu, inputs, backward=lambda dy, x: dy * (x > 0), kind="piecewise")
    assert len(draws) == 21


def test_an_op_that_has_a_kink_everywhere_fails():
    case = OpCase(tensor_relu, {"x": (3,)}, 0, kind="curved", fill=lambda rng, shape: np.zeros(shape))
    (finding,) = check_case(case, "reference")
    assert not finding.passed
    assert "20 redraws" in finding.where


def test_a_curve_is_not_linear():
    with pytest.raises(NonSmooth, match="not linear"):
        gradcheck(lambda x: x * x, [X], kind="linear")


# --- reports and arguments ---


def test_a_failure_shows_the_element_the_numbers_and_the_smallest_shape():
    def wrong(x):
        return reference.relu_forward(x) * x.dtype.type(3)

    report = check_op("relu", kernels={"relu_forward": wrong})
    text = str(report)
    assert report.name in text
    assert "FAILED" in text
    assert "shape" in text
    assert report.failing_case.startswith("relu(x ()")  # one number is enough
    with pytest.raises(GradientError) as caught:
        report.expect()
    assert caught.value.report is report
    plain = report.as_dict()
    assert plain["passed"] is False
    assert plain["failures"]


def test_the_worst_element_is_named():
    wrong = np.full(X.shape, 2.0)
    wrong[1, 2] = 4
    report = gradcheck(lambda x: 2 * x, [X], backward=lambda dy, x: wrong * dy, kind="linear")
    assert [failure.rule for failure in report.failures] == ["gradient, linear"]
    assert "worst element [1, 2]" in report.failures[0].where


def test_nan_is_worse_than_every_number():
    report = Report("f", "cpu", "float64")
    report.add("a", [Finding("parity", "y", 0.5, 1.0)])
    report.add("b", [Finding("parity", "y", float("nan"), 1.0)])
    report.add("c", [Finding("parity", "y", 0.7, 1.0)])
    assert not report.passed
    assert np.isnan(report.worst["parity", "y"].error)
    assert report.failing_case == "b"
    assert report.as_dict()["worst"][0]["error"] is None


def test_the_report_holds_the_worst_error_of_each_rule():
    report = check_op("conv2d", "reference", "float32", examples=10)
    assert report.passed, report
    assert report.cases == 11  # ten random ones, and one worked by hand
    assert 0 < report.worst["parity", "y"].error < 1e-6
    assert report.worst["parity", "y"].tolerance == 1e-5
    assert "11 cases, passed" in str(report)


def test_the_same_seed_gives_the_same_report():
    one, other = (check_op("avg_pool2d", "reference", examples=5, seed=3).as_dict() for _ in range(2))
    assert one == other


def test_arguments():
    with pytest.raises(MinifcnError, match="op 'conv3d' is not known; the ops are conv2d, "):
        check_op("conv3d")
    with pytest.raises(DeviceError, match="device 'tpu' is not known"):
        check_op("conv2d", "tpu")
    with pytest.raises(DeviceError, match="has no kernel 'conv9'"):
        check_op("conv2d", kernels={"conv9": relu})
    with pytest.raises(MinifcnError, match="kind \\(='smooth'\\) must be one of linear, curved, piecewise"):
        gradcheck(relu, [X], kind="smooth")
    with pytest.raises(MinifcnError, match="inputs must all be float32 or all be float64, got x0 float64, x1 int64"):
        gradcheck(conv2d, [X, np.arange(3)])


def test_inputs_may_be_tensors():
    assert gradcheck(lambda x: x * 2.0, [Tensor(X)], kind="linear").passed


# --- its data ---


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4, 5), (0, 3, 4, 5)])
def test_layouts_keep_the_values(layout, shape):
    x = np.asarray(RNG.standard_normal(shape))
    view = laid_out(x, layout)
    np.testing.assert_array_equal(view, x)
    if len(shape) == 4 and x.size:
        assert view.strides != x.strides


def test_spaced_numbers():
    for draw in (spaced, spaced_negative):
        x = np.sort(draw(np.random.default_rng(1), (4, 5)).reshape(-1))
        assert np.diff(x).min() >= 1
        assert abs(x).min() >= 0.5
    assert x.max() < 0
    assert abs(signed(np.random.default_rng(1), (1000,))).min() >= 0.5


def test_every_op_has_cases():
    functions = {name for name in ops.__all__ if name[0].islower()}
    assert functions | {"sgd", "adam"} == set(OPS)
