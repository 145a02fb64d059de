"""The checker's two doors: `gradcheck` for one function at given inputs, `check_op` for an op at random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hypothesis
import numpy as np

from ..device import Device, get_device, replaced
from ..errors import MinifcnError
from ..nn import Module
from ..tensor import Tensor
from . import rules
from .cases import OPS, Case, Cases, OpCase, StepCase
from .differences import NonSmooth, norm
from .functions import ArrayFunction, CallFailed, Function, TensorFunction
from .known import check_known
from .report import Finding, GradientError, Report
from .tolerances import STEPS

REDRAWS = 20  # how often other numbers are drawn when the first ones lie at a kink

Inputs = Sequence[Any] | Mapping[str, Any]


def gradcheck(
    function: Callable,
    inputs: Inputs | Callable[[np.random.Generator], Inputs],
    *,
    backward: Callable | None = None,
    kind: str = "curved",
    homogeneous: bool = False,
    exact: bool = False,
    parameters: Mapping[str, Tensor] | None = None,
    reference: Callable | None = None,
    device: str | Device = "cpu",
    seed: int = 0,
    name: str | None = None,
) -> Report:
    """Check the backward pass of any function against finite differences and the rules of `gradcheck.rules`.

    Two forms. `gradcheck(f, [x, w])` takes a function of Tensors that returns a Tensor: an op, a Module (whose
    parameters are checked as well) or anything built of them. `gradcheck(forward, [x, w], backward=b)` takes plain
    functions of arrays: y = forward(x, w), and b(dy, x, w) returns one gradient, or one for each input.

    `inputs` are arrays of one float dtype, as a list or by name, or a function that draws them from a generator: then
    a kink is no verdict, but asks for other numbers, at most 20 times. `kind` is "linear" (in each input by itself),
    "curved" or "piecewise"; see `gradcheck.tolerances`. `homogeneous` and `exact` promise f(t x) = t f(x) for t > 0,
    and exact results for integers. `parameters` are Tensors that the function holds inside. A float32 gradient of a
    curved function is compared with float64 differences: of the same ops on the device `reference`, or of
    `reference`, or of `forward` on float64 arrays.

    Returns a Report; `report.expect()` raises GradientError where it failed. Raises NonSmooth at a kink.
    """
    if kind not in STEPS:
        raise MinifcnError(f"kind (={kind!r}) must be one of {', '.join(STEPS)}")
    if parameters is None and isinstance(function, Module):
        parameters = dict(function.named_parameters())
    held = {key: value for key, value in (parameters or {}).items() if value.requires_grad}
    if backward is None:
        checked: Function = TensorFunction(function, device, held)
    else:
        checked = ArrayFunction(function, backward, reference)

    def subject(attempt: int) -> rules.Subject:
        rng = np.random.default_rng([seed, attempt])
        given = _named(inputs(rng) if callable(inputs) else inputs)
        dtype = _common_dtype(given)
        arrays = given | {key: value.numpy().astype(dtype) for key, value in held.items()}
        return rules.Subject(checked, list(arrays), list(arrays.values()), kind, rng, homogeneous, exact)

    findings, dtype = _findings(subject, redraw=callable(inputs))
    title = name or getattr(function, "__name__", type(function).__name__)
    report = Report(title, checked.device.name if backward is None else "its own functions", dtype)
    report.add(f"{title}, seed {seed}", findings)
    return report


def _named(inputs: Inputs) -> dict[str, np.ndarray]:
    """The inputs by name: "x" for a single one, else "x0", "x1", ..."""
    if not isinstance(inputs, Mapping):
        inputs = {"x" if len(inputs) == 1 else f"x{i}": value for i, value in enumerate(inputs)}
    return {name: np.asarray(value.numpy() if isinstance(value, Tensor) else value) for name, value in inputs.items()}


def _common_dtype(arrays: Mapping[str, np.ndarray]) -> np.dtype:
    dtypes = {array.dtype for array in arrays.values()}
    if len(dtypes) != 1 or not dtypes <= {np.dtype(np.float32), np.dtype(np.float64)}:
        listed = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise MinifcnError(f"inputs must all be float32 or all be float64, got {listed or 'none'}")
    return dtypes.pop()


def _findings(subject: Callable[[int], rules.Subject], redraw: bool) -> tuple[list[Finding], str]:
    """(findings, dtype) of the first attempt that meets no kink; raises NonSmooth where there is none."""
    for attempt in range(REDRAWS + 1):
        s = subject(attempt)
        try:
            return rules.apply(s), s.dtype.name
        except NonSmooth:
            if not redraw or attempt == REDRAWS:
                raise
        except CallFailed as error:
            return [Finding("call", "the function", np.inf, 0.0, str(error))], s.dtype.name
    raise AssertionError("unreachable")


# --- ops at random geometries ---


def check_case(case: Case, device: str | Device = "cpu", dtype: str = "float64") -> list[Finding]:
    """All findings of one case; those of the first broken rule end the list."""
    if isinstance(case, StepCase):
        return _check_steps(case, get_device(device), np.dtype(dtype))

    def subject(attempt: int) -> rules.Subject:
        rng = np.random.default_rng([case.seed, attempt])
        arrays = [case.fill(rng, shape).astype(dtype) for shape in case.shapes.values()]
        function = TensorFunction(case.function, device)
        return rules.Subject(function, list(case.shapes), arrays, case.kind, rng, case.homogeneous, case.exact)

    try:
        return _findings(subject, redraw=True)[0]
    except NonSmooth as error:
        return [Finding("smooth", "the function", np.inf, 0.0, f"{error}, in all of {REDRAWS} redraws")]


def _check_steps(case: StepCase, device: Device, dtype: np.dtype) -> list[Finding]:
    """An optimiser's steps agree with the reference in float64, repeat to the bit, and leave the gradient alone."""
    rng = np.random.default_rng(case.seed)
    names = ["w", *case.state]
    gradients = [rng.standard_normal(case.shape).astype(dtype) for _ in case.steps]
    start = [rng.standard_normal(case.shape).astype(dtype), *(np.zeros(case.shape, dtype) for _ in case.state)]

    def run(kernel: Callable, dtype: np.dtype) -> list[np.ndarray]:
        w, *state = (array.astype(dtype) for array in start)
        for g, arguments in zip(gradients, case.steps, strict=True):
            kernel(w, g.astype(dtype, copy=False), *state, **arguments)
        return [w, *state]

    before = [g.copy() for g in gradients]
    try:
        got, again = run(device.kernel(case.kernel), dtype), run(device.kernel(case.kernel), dtype)
    except Exception as error:
        return [Finding("call", case.kernel, np.inf, 0.0, f"{type(error).__name__}: {error}")]
    expected = run(Device("reference").kernel(case.kernel), np.dtype(np.float64))
    findings = [rules.same("unchanged", "g", g, copy) for g, copy in zip(gradients, before, strict=True)]
    for name, array, twin, right in zip(names, got, again, expected, strict=True):
        findings.append(rules.same("run twice", name, twin, array))
        findings.append(rules.close("parity", name, array, right, norm(right)))
    return findings


def _check_by_hand(name: str, place: Device, report: Report) -> None:
    """Add what `known` says of the op, if anything; raises GradientError where it fails."""
    try:
        findings = check_known(name, place, report.dtype)
    except Exception as error:
        findings = [Finding("call", "the function", np.inf, 0.0, f"{type(error).__name__}: {error}")]
    if findings:
        report.add(f"{name}, worked by hand", findings)
        report.expect()


def check_op(
    name: str,
    device: str | Device = "cpu",
    dtype: str = "float64",
    examples: int = 25,
    seed: int = 0,
    kernels: Mapping[str, Callable] | None = None,
    cases: Cases | None = None,
    shrink: bool = True,
) -> Report:
    """Check the op `name` (a key of OPS) on `device` at `examples` random geometries.

    `kernels` replace kernels of the device by name, so that one's own can be checked; `cases` replace the strategy
    that OPS has. On failure the report holds the smallest case that Hypothesis could shrink it to, or the first one
    without `shrink`. Raises MinifcnError for an unknown name, DeviceError for an unknown device or kernel.
    """
    if name not in OPS and cases is None:
        raise MinifcnError(f"op {name!r} is not known; the ops are {', '.join(OPS)}")
    place = get_device(device)
    report = Report(name, place.name, np.dtype(dtype).name)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        derandomize=False,
        phases=[hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if shrink else [])],
        suppress_health_check=list(hypothesis.HealthCheck),
        verbosity=hypothesis.Verbosity.quiet,
    )
    @hypothesis.given(OPS[name] if cases is None else cases)
    def each(case: OpCase | StepCase) -> None:
        findings = check_case(case, place, dtype)
        note = report.add if report.passed else report.blame  # after the first failure, cases only get smaller
        note(str(case), findings)
        if not all(finding.passed for finding in findings):
            raise GradientError(report)

    try:
        with replaced(place, **(kernels or {})):
            each()
            if cases is None:
                _check_by_hand(name, place, report)
    except GradientError:
        pass
    return report
