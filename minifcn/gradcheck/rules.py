"""The rules that every function with a backward pass must keep. Each yields findings; none lets a NaN pass.

They are applied in the order of `RULES`, cheap and fundamental ones first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ..kernels.settings import settings
from . import data
from .differences import directional, dot, norm, rms, worst_element
from .functions import Function, Pullback
from .report import Finding
from .tolerances import tolerance

DIRECTIONS = 3


@dataclass
class Subject:
    """A function at one point, with one upstream gradient, after one run."""

    function: Function
    names: list[str]
    arrays: list[np.ndarray]  # all of one dtype
    kind: str  # linear, curved or piecewise
    rng: np.random.Generator
    homogeneous: bool = False  # f(t x) = t f(x) for t > 0
    exact: bool = False  # integers give exact results
    y: np.ndarray = field(init=False)
    pullback: Pullback = field(init=False)
    dy: np.ndarray = field(init=False)
    gradients: list[np.ndarray] = field(init=False)
    reference: Function = field(init=False)

    def __post_init__(self) -> None:
        self.reference = self.function.in_reference()

    @property
    def dtype(self) -> np.dtype:
        return self.arrays[0].dtype

    def wide(self) -> list[np.ndarray]:
        """The same numbers in float64, as the reference gets them."""
        return [array.astype(np.float64) for array in self.arrays]

    def inputs(self) -> Iterator[tuple[int, str, np.ndarray, np.ndarray]]:
        """(i, name, x, dx) of each input."""
        yield from zip(range(len(self.names)), self.names, self.arrays, self.gradients, strict=True)


# --- how two arrays compare ---


def _largest_difference(got: np.ndarray, expected: np.ndarray) -> str:
    """The element that is furthest off: its index and both numbers."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return f"{got.dtype} {got.shape} instead of {expected.dtype} {expected.shape}"
    off = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    off = np.where(np.isnan(off) & ~(np.isnan(got) & np.isnan(expected)), np.inf, np.nan_to_num(off, nan=0.0))
    index = np.unravel_index(int(np.argmax(off)), off.shape)
    place = [int(k) for k in index]
    return f"element {place} is {got[index]!r} instead of {expected[index]!r}, shape {got.shape}"


def same(rule: str, subject: str, got: np.ndarray, expected: np.ndarray) -> Finding:
    """Both have the same shape, dtype and values; the sign of zero does not count, NaN equals NaN."""
    if got.dtype == expected.dtype and np.array_equal(got, expected, equal_nan=True):
        return Finding(rule, subject, 0.0)
    return Finding(rule, subject, np.inf, 0.0, _largest_difference(got, expected))


def close(rule: str, subject: str, got: np.ndarray, expected: np.ndarray, unit: float | None = None) -> Finding:
    """|got - expected| over `unit` (None: |expected|) is within the rule's tolerance; `got`'s dtype sets it."""
    limit = tolerance(rule, got.dtype)
    if got.shape != expected.shape:
        return Finding(rule, subject, np.inf, limit, _largest_difference(got, expected.astype(got.dtype)))
    off = norm(got.astype(np.float64) - expected)
    error = off / unit if (unit := norm(expected) if unit is None else unit) else (0.0 if off == 0 else np.inf)
    finding = Finding(rule, subject, error if np.isfinite(error) else np.inf, limit)
    if finding.passed:
        return finding
    return Finding(rule, subject, finding.error, limit, _largest_difference(got, expected.astype(got.dtype)))


# --- the rules ---


def shape_and_dtype(s: Subject) -> Iterator[Finding]:
    """y has the inputs' dtype, each dx its input's shape and dtype; inputs, y and dy are as they were.

    This is the first rule: it makes the run that the others look at.
    """
    before = [array.copy() for array in s.arrays]
    s.y, s.pullback = s.function.run(s.arrays)
    if s.y.dtype != s.dtype:
        yield Finding("dtype", "y", np.inf, 0.0, f"y is {s.y.dtype}, but the inputs are {s.dtype}")
        return
    s.dy = data.upstream(s.rng, s.y.shape).astype(s.dtype)
    y, dy = s.y.copy(), s.dy.copy()
    gradients = s.pullback(s.dy)
    if len(gradients) != len(s.names):
        yield Finding("shape", "dx", np.inf, 0.0, f"{len(gradients)} gradients for {len(s.names)} inputs")
        return
    for name, x, dx in zip(s.names, s.arrays, gradients, strict=True):
        if dx is None:
            yield Finding("shape", f"d{name}", np.inf, 0.0, "there is no gradient")
        elif (dx.shape, dx.dtype) != (x.shape, x.dtype):
            where = f"d{name} is {dx.dtype} {dx.shape}, but {name} is {x.dtype} {x.shape}"
            yield Finding("shape", f"d{name}", np.inf, 0.0, where)
        else:
            yield Finding("shape", f"d{name}", 0.0)
    s.gradients = gradients  # type: ignore[assignment]  # None was found above, and ends the check
    for name, x, copy in zip(s.names, s.arrays, before, strict=True):
        yield same("unchanged", name, x, copy)
    yield same("unchanged", "y", s.y, y)
    yield same("unchanged", "dy", s.dy, dy)


def zero_upstream(s: Subject) -> Iterator[Finding]:
    """dy = 0 gives a gradient of exactly 0."""
    for (_, name, x, _), dx in zip(s.inputs(), s.pullback(np.zeros_like(s.dy)), strict=True):
        yield same("zero upstream", f"d{name}", dx, np.zeros_like(x))


def linear_in_upstream(s: Subject) -> Iterator[Finding]:
    """2 dy gives 2 dx, bit for bit: doubling is exact in binary."""
    for (_, name, _, dx), twice in zip(s.inputs(), s.pullback(2 * s.dy), strict=True):
        yield same("doubled upstream", f"d{name}", twice, 2 * dx)


def repeatable(s: Subject) -> Iterator[Finding]:
    """Backward again, and forward and backward again, give the same bits."""
    for (_, name, _, dx), again in zip(s.inputs(), s.pullback(s.dy), strict=True):
        yield same("backward twice", f"d{name}", again, dx)
    y, pullback = s.function.run(s.arrays)
    yield same("run twice", "y", y, s.y)
    for (_, name, _, dx), again in zip(s.inputs(), pullback(s.dy), strict=True):
        yield same("run twice", f"d{name}", again, dx)


def threads(s: Subject) -> Iterator[Finding]:
    """One thread gives the same bits as all (on the device `cpu`)."""
    if s.function.device.name != "cpu":
        return
    with settings.using(threads=1):
        y, pullback = s.function.run(s.arrays)
        gradients = pullback(s.dy)
    yield same("one thread", "y", y, s.y)
    for (_, name, _, dx), again in zip(s.inputs(), gradients, strict=True):
        yield same("one thread", f"d{name}", again, dx)


def each_alone(s: Subject) -> Iterator[Finding]:
    """The gradient of one input does not depend on whether those of the others are asked for."""
    if len(s.names) == 1:
        return
    for i, name, _, dx in s.inputs():
        _, pullback = s.function.run(s.arrays, [j == i for j in range(len(s.names))])
        alone = pullback(s.dy)[i]
        yield same("asked for alone", f"d{name}", np.empty(0) if alone is None else alone, dx)


def strides(s: Subject) -> Iterator[Finding]:
    """Views with other strides, and a dy that repeats one number, give what contiguous arrays give."""
    layouts = s.rng.choice(list(data.LAYOUTS), len(s.arrays) + 1)
    y, pullback = s.function.run([data.laid_out(x, layout) for x, layout in zip(s.arrays, layouts, strict=False)])
    # A sum may cancel to almost nothing, so what went into it counts as well.
    yield close("strides", "y", y, s.y, norm(s.y) + 0.1 * max(norm(x) for x in s.arrays))
    repeated = np.broadcast_to(s.dtype.type(0.75), s.dy.shape)
    for dy, contiguous in ((data.laid_out(s.dy, layouts[-1]), s.dy), (repeated, repeated.copy())):
        expected = s.gradients if contiguous is s.dy else s.pullback(contiguous)
        for name, dx, other in zip(s.names, expected, pullback(dy), strict=True):
            yield close("strides", f"d{name}", other, dx, norm(dx) + 0.1 * norm(contiguous))


def gradient(s: Subject) -> Iterator[Finding]:
    """Every dx is the derivative that finite differences see, along random directions.

    Linear and piecewise linear functions are differenced as they are, in any dtype. Curved ones in float64: at the
    same numbers, by the reference's forward pass, which parity compares with the one under test.
    """
    rule = f"gradient, {s.kind}"
    limit = tolerance(rule, s.dtype)
    wide = s.kind == "curved" and s.dtype != np.float64
    forward, arrays = (s.reference.forward, s.wide()) if wide else (s.function.forward, s.arrays)
    for i, name, x, dx in s.inputs():
        for _ in range(DIRECTIONS):
            v = data.direction(s.rng, x.shape, s.kind)
            numeric = directional(forward, arrays, i, v, s.kind, s.dy)
            analytic = dot(dx, numeric.direction)
            unit = norm(dx) * rms(numeric.direction) + numeric.rounding / limit
            off = abs(numeric.value - analytic)
            error = off / unit if unit else (0.0 if off == 0 else np.inf)
            finding = Finding(rule, name, error if np.isfinite(error) else np.inf, limit)
            if not finding.passed:
                index, at_index, dx_index = worst_element(forward, arrays, i, s.kind, s.dy, dx)
                where = (
                    f"along a random direction the difference quotient is {numeric.value:.9g}, the gradient "
                    f"{analytic:.9g}; worst element {list(index)}: {at_index:.9g} against {dx_index:.9g}, "
                    f"shape {x.shape}"
                )
                yield Finding(rule, name, finding.error, limit, where)
                return
            yield finding


def adjoint(s: Subject) -> Iterator[Finding]:
    """<A v, dy> = <v, A* dy> for each input of a linear function; <y, dy> = <x, dx> for a homogeneous one."""
    if s.kind == "linear":
        for i, name, x, dx in s.inputs():
            v = data.signed(s.rng, x.shape).astype(s.dtype)
            at_v, at_zero = (
                s.function.forward([*s.arrays[:i], value, *s.arrays[i + 1 :]]) for value in (v, np.zeros_like(x))
            )
            image = at_v.astype(np.float64) - at_zero
            unit = (norm(at_v) + norm(at_zero)) * norm(s.dy) + norm(v) * norm(dx)
            yield _products("adjoint", name, dot(image, s.dy), dot(v, dx), unit, s.dtype)
    elif s.homogeneous:
        x = data.upstream(s.rng, s.arrays[0].shape).astype(s.dtype)
        y, pullback = s.function.run([x])
        (dx,) = pullback(s.dy)
        unit = norm(y) * norm(s.dy) + norm(x) * norm(dx)
        yield _products("adjoint", s.names[0], dot(y, s.dy), dot(x, dx), unit, s.dtype)


def _products(rule: str, name: str, left: float, right: float, unit: float, dtype: np.dtype) -> Finding:
    """Two inner products that should be equal."""
    off = abs(left - right)
    error = off / unit if unit else (0.0 if off == 0 else np.inf)
    where = f"<A v, dy> is {left:.9g}, <v, A* dy> is {right:.9g}"
    return Finding(rule, name, error if np.isfinite(error) else np.inf, tolerance(rule, dtype), where)


def parity(s: Subject) -> Iterator[Finding]:
    """y and every dx agree with the reference in float64; where that is exactly 0, dx is exactly 0 too.

    The unit is the usual size of the quantity: the root mean square over the data and over two copies of it with
    other signs, because one small sum may cancel to almost nothing.
    """
    if s.reference.device.name == s.function.device.name and s.dtype == np.float64:
        return
    wide, dy = s.wide(), s.dy.astype(np.float64)
    y, pullback = s.reference.run(wide)
    gradients = pullback(dy)
    sizes = [[norm(y)], *([norm(dx)] for dx in gradients)]
    for _ in range(2):
        other = [x * s.rng.choice((-1.0, 1.0), x.shape) for x in wide] if s.kind == "linear" else wide
        y_other, pullback = s.reference.run(other)
        flipped = pullback(dy * s.rng.choice((-1.0, 1.0), dy.shape))
        for known, array in zip(sizes, [y_other, *flipped], strict=True):
            known.append(norm(array))
    units = [rms(np.array(known)) for known in sizes]
    yield close("parity", "y", s.y, y, units[0])
    for (_, name, _, dx), expected, unit in zip(s.inputs(), gradients, units[1:], strict=True):
        yield close("parity", f"d{name}", dx, expected, unit)
        untouched = expected == 0
        yield same("zero where unused", f"d{name}", dx[untouched], np.zeros_like(dx[untouched]))


def integers(s: Subject) -> Iterator[Finding]:
    """On small integers, whose sums are exact, y and every dx equal the reference's. They tie often: so do maxima."""
    if not s.exact:
        return
    arrays = [data.small_integers(s.rng, x.shape) for x in s.arrays]
    dy = data.small_integers(s.rng, s.dy.shape)
    y, pullback = s.function.run([x.astype(s.dtype) for x in arrays])
    expected_y, expected_pullback = s.reference.run(arrays)
    yield same("integers", "y", y, expected_y.astype(s.dtype))
    for name, dx, expected in zip(s.names, pullback(dy.astype(s.dtype)), expected_pullback(dy), strict=True):
        yield same("integers", f"d{name}", dx, expected.astype(s.dtype))


Rule = Callable[[Subject], Iterator[Finding]]
RULES: list[Rule] = [
    shape_and_dtype,
    zero_upstream,
    linear_in_upstream,
    repeatable,
    threads,
    each_alone,
    strides,
    gradient,
    adjoint,
    parity,
    integers,
]


def apply(s: Subject) -> list[Finding]:
    """All findings, up to and with those of the first rule that is broken.

    Raises NonSmooth at a kink, and CallFailed where the function raises.
    """
    findings: list[Finding] = []
    for rule in RULES:
        findings += rule(s)
        if not all(finding.passed for finding in findings):
            break
    return findings
