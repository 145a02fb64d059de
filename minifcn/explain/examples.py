"""The worked example of every op: small numbers, chosen so that stride, padding, overlap, ties and the like happen.

Output sizes, window places, filters and masks are written down here from the formulas, independently of
`minifcn.kernels`, so that the comparison with a kernel is a check. To explain a new op, add a function to `EXAMPLES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import ops
from ..tensor import Tensor
from .terms import Factor, Index, Share, Sum, Term, add_up, constant, element, entry, number, outputs, product_rule


@dataclass(frozen=True)
class Window:
    """A rectangle of the large plane and the elements of the small one that belong to it."""

    cells: tuple[Index, ...]
    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Drawing:
    """The windows of an op as pictures: `large` and `small` name the planes they connect."""

    large: str
    small: str
    windows: tuple[Window, ...]
    caption: str


@dataclass(frozen=True)
class Example:
    """`op(*inputs, **arguments)`, its outputs and the shares of its gradients written out.

    `outputs` are the output elements, `steps` what is computed on the way to them, `shares` the addends of every
    derivative; `dy` is the upstream gradient, of the output's shape. `notes` say what to look at, `untouched` why an
    element may be in no term.
    """

    op: Callable[..., Tensor]
    inputs: dict[str, np.ndarray]
    dy: np.ndarray
    outputs: list[Sum]
    shares: list[Share]
    arguments: dict[str, Any] = field(default_factory=dict)
    kind: str = "linear"
    output: str = "y"
    steps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    untouched: str = ""
    drawing: Drawing | None = None

    @property
    def call(self) -> str:
        """The call as one writes it."""
        options = (
            f"{key}={key if isinstance(value, np.ndarray) else repr(value)}" for key, value in self.arguments.items()
        )
        return f"{self.op.__name__}({', '.join([*self.inputs, *options])})"

    @property
    def given(self) -> dict[str, np.ndarray]:
        """All arrays of the example but dy: the inputs, and the arguments that are arrays."""
        return self.inputs | {key: value for key, value in self.arguments.items() if isinstance(value, np.ndarray)}


def _from_terms(op: Callable, inputs: dict[str, np.ndarray], dy: np.ndarray, terms: list[Term], **rest: Any) -> Example:
    """An example whose outputs are the sums of `terms`, and its shares what the product rule makes of them."""
    return Example(op, inputs, dy, outputs("y", dy.shape, terms), list(product_rule(terms)), **rest)


def _array(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def _plane(values: Any) -> np.ndarray:
    """One image of one channel: [1, 1, H, W]."""
    return _array(values)[None, None]


# --- windows -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slide:
    """A square window that slides over a large plane: where it starts, by the formula p stride - pad."""

    large: tuple[int, int]
    small: tuple[int, int]
    window: int
    stride: int
    padding: int

    def cells(self) -> Iterator[tuple[int, int]]:
        yield from np.ndindex(self.small)

    def start(self, u: int) -> int:
        return u * self.stride - self.padding

    def taps(self, p: int, q: int) -> Iterator[tuple[int, int, int, int]]:
        """(r, s, h, w) of the window's elements that lie inside the large plane, in row-major order."""
        for r, s in np.ndindex(self.window, self.window):
            h, w = self.start(p) + r, self.start(q) + s
            if 0 <= h < self.large[0] and 0 <= w < self.large[1]:
                yield r, s, h, w

    def drawn(self, large: str, small: str, caption: str) -> Drawing:
        windows = (Window(((p, q),), self.start(p), self.start(q), self.window, self.window) for p, q in self.cells())
        return Drawing(large, small, tuple(windows), caption)


FILTER = [[1, 2, 0], [0, 1, -1], [3, 0, 2]]


def _conv2d(bias: float = 1) -> Example:
    x, w, b = _plane([[1, 0, 2], [3, 1, -1], [0, 2, 1]]), _plane(FILTER), _array([bias])
    slide = Slide(large=(3, 3), small=(2, 2), window=3, stride=2, padding=1)
    terms = []
    for p, q in slide.cells():
        out = (0, 0, p, q)
        terms.append(Term(out, (entry("b", b, 0),)))
        terms += [Term(out, (entry("w", w, 0, 0, r, s), entry("x", x, 0, 0, h, v))) for r, s, h, v in slide.taps(p, q)]
    return _from_terms(
        ops.conv2d,
        {"x": x, "w": w, "b": b},
        _plane([[2, -1], [3, 1]]),
        terms,
        arguments={"stride": 2, "padding": 1},
        notes=(
            "One image and one channel; more of them only make the sums longer.",
            "The centre x[0,0,1,1] lies in all four windows, a corner in one: see the number of terms of dx.",
            "In dx the window's index falls while the output's rises: w[0,0,2,2] dy[0,0,0,0] + ... + w[0,0,0,0] "
            "dy[0,0,1,1]. That is the window turned by 180 degrees.",
        ),
        drawing=slide.drawn(
            "x", "y", "Each output is the sum of the numbers in its window times the weights in their corners, plus b."
        ),
    )


def _conv2d_relu() -> Example:
    convolution, steps, outputs, passes = _conv2d(bias=-3.5), [], [], {}
    for total in convolution.outputs:
        z, at = element("z", total.index), ",".join(map(str, total.index))
        passes[total.index] = constant(f"m[{at}]", float(total.value > 0))
        steps.append(f"{z} = {' + '.join(total.terms)} = {number(total.value)}, so m[{at}] = {int(total.value > 0)}")
        relu = constant(f"max({z}, 0)", max(total.value, 0), f"max({number(total.value)}, 0)")
        outputs.append(add_up("y", total.index, [(relu,)]))
    return replace(
        convolution,
        op=ops.conv2d_relu,
        outputs=outputs,
        shares=[Share(share.of, share.out, (passes[share.out], *share.factors)) for share in convolution.shares],
        kind="piecewise",
        steps=tuple(steps),
        notes=(
            "The convolution of `minifcn explain conv2d` with another bias: ReLU blocks two of the four outputs.",
            "Where m is 0, whatever dy is, nothing of it reaches x, w or b: compare each term's first factor.",
        ),
        drawing=None,
    )


def _conv2d_relu_max_pool2d() -> Example:
    x, w, b = (
        _plane([[1, 0, 2, 1], [3, 1, -1, 0], [0, 2, 1, 2], [1, -1, 0, 0]]),
        _plane([[1, -1], [0, 2]]),
        _array([-0.5]),
    )
    slide = Slide(large=(4, 4), small=(3, 3), window=2, stride=1, padding=0)
    pools = Slide(large=(3, 3), small=(2, 2), window=2, stride=2, padding=0)
    terms, steps, results, passes = [], [], [], {}
    for p, q in slide.cells():
        out = (0, 0, p, q)
        terms.append(Term(out, (entry("b", b, 0),)))
        terms += [Term(out, (entry("w", w, 0, 0, r, s), entry("x", x, 0, 0, h, v))) for r, s, h, v in slide.taps(p, q)]
    totals = {total.index: total for total in outputs("z", (1, 1, 3, 3), terms)}
    for i, j in pools.cells():
        places = [(0, 0, p, q) for _, _, p, q in pools.taps(i, j)]
        largest = max(places, key=lambda place: totals[place].value)
        texts, values = ([f(place) for place in places] for f in (lambda z: element("z", z), lambda z: totals[z].value))
        maximum = constant(f"max({', '.join(texts)}, 0)", max(*values, 0), f"max({', '.join(map(number, values))}, 0)")
        results.append(add_up("y", (0, 0, i, j), [(maximum,)]))
        for place in places:
            won = int(place == largest and totals[place].value > 0)
            at = ",".join(map(str, place))
            passes[place] = constant(f"m[{at}]", won), (0, 0, i, j)
    for place, total in totals.items():
        m = passes[place][0]
        steps.append(f"{total.target} = {' + '.join(total.terms)} = {number(total.value)}, {m.text} = {m.shown}")
    shares = product_rule(terms)
    return Example(
        ops.conv2d_relu_max_pool2d,
        {"x": x, "w": w, "b": b},
        _plane([[2, -1], [3, 5]]),
        results,
        [Share(s.of, passes[s.out][1], (passes[s.out][0], *s.factors)) for s in shares],
        arguments={"ceil_mode": True},
        kind="piecewise",
        steps=tuple(steps),
        notes=(
            "z has 3 rows and columns: the windows at its right and lower edge hang over it (`ceil_mode`).",
            "m is 1 where z won its window and is above 0: three times, as the last window holds nothing above 0.",
            "Each dy stands beside the four z of its window, or those that there are; m lets one of them have it.",
        ),
    )


def _conv_transpose2d() -> Example:
    x, w, b = _plane([[1, 2], [3, -1]]), _plane(FILTER), _array([1])
    slide = Slide(large=(3, 3), small=(2, 2), window=3, stride=2, padding=1)
    terms = [Term((0, 0, h, v), (entry("b", b, 0),)) for h, v in np.ndindex(slide.large)]
    for p, q in slide.cells():
        terms += [
            Term((0, 0, h, v), (entry("x", x, 0, 0, p, q), entry("w", w, 0, 0, r, s)))
            for r, s, h, v in slide.taps(p, q)
        ]
    return _from_terms(
        ops.conv_transpose2d,
        {"x": x, "w": w, "b": b},
        _plane([[1, 0, -1], [2, 1, 0], [0, 3, 1]]),
        terms,
        arguments={"stride": 2, "padding": 1},
        notes=(
            "Size: 2 (2 - 1) + (3 - 1) + 1 - 2 = 3. The padding cuts one row and column off every side of the sum.",
            "Windows are 3 wide and 2 apart, so neighbours overlap: y[0,0,1,1] receives from all four pixels of x.",
            "The same window as in `minifcn explain conv2d`, read the other way: there each y gathers from a window "
            "of x, here each x spreads into a window of y.",
        ),
        drawing=slide.drawn(
            "y",
            "x",
            "Each input pixel is multiplied with all weights of its window (in the corners) and added to what lies "
            "there. Dashed places are cut off by the padding.",
        ),
    )


def _linear() -> Example:
    x, w, b = _array([[1, 2, -1], [3, 0, 4]]), _array([[2, 0, 1], [1, -1, 3]]), _array([1, -2])
    terms = []
    for n, k in np.ndindex(2, 2):
        terms.append(Term((n, k), (entry("b", b, k),)))
        terms += [Term((n, k), (entry("w", w, k, i), entry("x", x, n, i))) for i in range(3)]
    return _from_terms(
        ops.linear,
        {"x": x, "w": w, "b": b},
        _array([[2, -1], [3, 1]]),
        terms,
        notes=(
            "Two images of three features, two outputs each.",
            "A column of w says how much one feature counts for each output: the same column carries dy back to it.",
        ),
    )


def _max_pool2d() -> Example:
    x = _plane([[1, 3, 2, 0], [0, 2, 5, 1], [4, 1, 0, -2], [2, 4, 1, -1]])
    slide = Slide(large=(4, 4), small=(2, 2), window=3, stride=2, padding=0)
    terms = []
    for p, q in slide.cells():
        places = [(h, v) for _, _, h, v in slide.taps(p, q)]
        winner = max(places, key=lambda place: x[0, 0, *place])  # Python's max keeps the first of equals
        terms.append(Term((0, 0, p, q), (entry("x", x, 0, 0, *winner),)))
    return _from_terms(
        ops.max_pool2d,
        {"x": x},
        _plane([[2, 1], [3, -1]]),
        terms,
        arguments={"kernel_size": 3, "stride": 2, "ceil_mode": True},
        kind="piecewise",
        untouched="largest in no window",
        notes=(
            "Windows start at 0 and 2; the second ones hang over the edge (`ceil_mode`) and are clipped.",
            "x[0,0,1,2] = 5 is the largest of both upper windows, so two gradients add up there.",
            "The lower left window holds 4 twice, at [2,0] and [3,1]: a tie. The first in row-major order takes all.",
            "At a tie the slope depends on the side: raising one of the two raises y, lowering it does nothing. The "
            "last column then shows both slopes, and the gradient is one of the values between them.",
        ),
        drawing=slide.drawn(
            "x", "y", "Each output is the largest number (ringed) in its window. Dashed: off the edge."
        ),
    )


def _avg_pool2d() -> Example:
    x = _plane([[4, 0, 2, 10], [0, 8, -2, 0], [9, 3, 3, 12]])
    slide = Slide(large=(3, 4), small=(2, 2), window=3, stride=2, padding=1)
    terms = []
    for p, q in slide.cells():
        taps = list(slide.taps(p, q))
        share = constant(f"1/{len(taps)}", 1 / len(taps), f"1/{len(taps)}")
        terms += [Term((0, 0, p, q), (share, entry("x", x, 0, 0, h, v))) for _, _, h, v in taps]
    return _from_terms(
        ops.avg_pool2d,
        {"x": x},
        _plane([[4, 6], [-8, 12]]),
        terms,
        arguments={"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
        notes=(
            "`count_include_pad=False`: m counts the real elements of a window, 4 in the left ones and 6 in the right.",
            "With the default (Caffe's rule) the padding counts as zeros, and every m here would be 9.",
        ),
        drawing=slide.drawn("x", "y", "Each output is the mean of the numbers inside its window. Dashed: padding."),
    )


def _lrn() -> Example:
    x, dy = (_array(values).reshape(1, 3, 1, 1) for values in ([1, 2, -1], [36, -49, 72]))
    seen = {j: [c for c in (j - 1, j, j + 1) if 0 <= c < 3] for j in range(3)}
    steps, s, outputs, shares = [], {}, [], []
    for j, channels in seen.items():
        at, values = f"[0,{j},0,0]", [x[0, c, 0, 0] for c in channels]
        s[j] = 1 + sum(value**2 for value in values)
        squares = " + ".join(f"({number(value)})^2" if value < 0 else f"{number(value)}^2" for value in values)
        steps.append(f"s{at} = 1 + 3/3 ({squares}) = {number(s[j])}")
        quotient = constant(f"x{at} / s{at}", x[0, j, 0, 0] / s[j], f"{number(x[0, j, 0, 0])}/{number(s[j])}")
        outputs.append(add_up("y", (0, j, 0, 0), [(quotient,)]))
        direct = constant(f"1 / s{at}", 1 / s[j], f"1/{number(s[j])}")
        shares.append(Share(("x", (0, j, 0, 0)), (0, j, 0, 0), (direct,)))
        for c in channels:
            there = f"[0,{c},0,0]"
            total = 1 + sum(x[0, i, 0, 0] ** 2 for i in seen[c])
            damping = constant(f"(-2 / s{there}^2)", -2 / total**2, f"(-2/{number(total)}^2)")
            factors = (damping, entry("x", x, 0, j, 0, 0), entry("x", x, 0, c, 0, 0))
            shares.append(Share(("x", (0, j, 0, 0)), (0, c, 0, 0), factors))
    return Example(
        ops.lrn,
        {"x": x},
        dy,
        outputs,
        shares,
        arguments={"size": 3, "alpha": 3, "beta": 1, "k": 1},
        kind="curved",
        steps=tuple(steps),
        notes=(
            "Three channels of one pixel. alpha = size = 3, beta = 1 and k = 1 leave y = x / s, s = 1 + a sum of "
            "squares.",
            "The outer channels have one neighbour, the middle one two: what is not there counts as 0.",
            "Every dx has one term of its own y, and one for each channel whose s it stands in, its own among them.",
        ),
    )


def _bilinear_upsample() -> Example:
    x = _plane([[16, 32], [0, 64]])
    slide = Slide(large=(4, 4), small=(2, 2), window=4, stride=2, padding=1)
    taps = [1 - abs(t - 1.5) / 2 for t in range(4)]
    terms = []
    for i, j in slide.cells():
        for r, s, p, q in slide.taps(i, j):
            filters = constant(f"f[{r}]", taps[r]), constant(f"f[{s}]", taps[s])
            terms.append(Term((0, 0, p, q), (*filters, entry("x", x, 0, 0, i, j))))
    return _from_terms(
        ops.bilinear_upsample,
        {"x": x},
        _plane([[1, 0, 2, 0], [0, 4, 0, -1], [3, 0, 1, 0], [0, 2, 0, 4]]),
        terms,
        arguments={"factor": 2},
        steps=tuple(f"f[{t}] = 1 - |{t} - 1.5| / 2 = {tap}" for t, tap in enumerate(taps)),
        notes=(
            "F = 2, so R = 4, the centre is 1.5 and the padding (F - 1)/2 rounded up is 1.",
            "f[0] + f[2] = f[1] + f[3] = 1: between four neighbours y is a weighted mean of them.",
            "The corner y[0,0,0,0] sees one pixel only, with the weight 9/16: the edge is damped.",
        ),
        drawing=slide.drawn(
            "y", "x", "Each input pixel spreads a pyramid of weights (in the corners) over its window of y."
        ),
    )


def _cropped(large: str, offset: tuple[int, int], size: tuple[int, int], caption: str) -> Drawing:
    return Drawing(large, "y", (Window(tuple(np.ndindex(size)), *offset, *size),), caption)


def _crop() -> Example:
    x = _plane([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]])
    top, left = 1, 2
    terms = [Term((0, 0, p, q), (entry("x", x, 0, 0, p + top, q + left),)) for p, q in np.ndindex(2, 2)]
    return _from_terms(
        ops.crop,
        {"x": x},
        _plane([[2, -1], [3, 5]]),
        terms,
        arguments={"offset": (top, left), "size": (2, 2)},
        untouched="outside the window",
        drawing=_cropped("x", (top, left), (2, 2), "The window is copied; its top left corner is the offset."),
    )


def _crop_sum() -> Example:
    x = _plane([[10, 20], [30, 40]])
    skip = _plane([[1, 2, 3, 4], [5, 6, 7, 8], [9, 0, 1, 2], [3, 4, 5, 6]])
    top, left = 1, 2
    terms = []
    for p, q in np.ndindex(2, 2):
        terms.append(Term((0, 0, p, q), (entry("x", x, 0, 0, p, q),)))
        terms.append(Term((0, 0, p, q), (entry("skip", skip, 0, 0, p + top, q + left),)))
    return _from_terms(
        ops.crop_sum,
        {"x": x, "skip": skip},
        _plane([[2, -1], [3, 5]]),
        terms,
        arguments={"offset": (top, left)},
        untouched="outside the window",
        notes=("An offset that is wrong by one would move dskip by one pixel, and change no number of dx.",),
        drawing=_cropped("skip", (top, left), (2, 2), "x is added to this window of skip."),
    )


# --- the loss ----------------------------------------------------------------------------------------------------


def _cross_entropy() -> Example:
    exponentials = _array([[[1, 3], [2, 1]], [[2, 1], [1, 1]], [[5, 4], [1, 2]]])[None]  # [1, 3, 2, 2]
    x, target, void = np.log(exponentials), np.array([[[1, 0], [255, 2]]]), 255
    weight = _array([1, 2, 1])
    C, H, W = x.shape[1:]
    total_weight = sum(weight[t] for t in target.flat if t != void)
    steps, losses, shares = [], [], []
    for h, w in np.ndindex(H, W):
        t, e = int(target[0, h, w]), [exponentials[0, c, h, w] for c in range(C)]
        place = f"0,{h},{w}"
        if t == void:
            steps.append(f"l[{place}] = 0, because target[{place}] = {void} is the ignored label")
            continue
        for c in range(C):
            p = e[c] / sum(e)
            steps.append(f"p[0,{c},{h},{w}] = {number(e[c])} / ({' + '.join(map(number, e))}) = {number(p)}")
            hit = int(c == t)
            text = f"weight[{t}] (p[0,{c},{h},{w}] - {hit}) / {number(total_weight)}"
            shown = f"{number(weight[t])}*({number(p)} - {hit})/{number(total_weight)}"
            shares.append(Share(("x", (0, c, h, w)), (), (Factor(text, weight[t] * (p - hit) / total_weight, shown),)))
        loss = -weight[t] * math.log(e[t] / sum(e))
        probability = number(e[t] / sum(e))
        steps.append(
            f"l[{place}] = -weight[{t}] log p[0,{t},{h},{w}] = -{number(weight[t])} log {probability} = {number(loss)}"
        )
        losses.append(
            (
                constant(
                    f"l[{place}] / {number(total_weight)}",
                    loss / total_weight,
                    f"{number(loss)}/{number(total_weight)}",
                ),
            )
        )
    return Example(
        ops.cross_entropy,
        {"x": x},
        _array(-8),
        [add_up("L", (), losses)],
        shares,
        arguments={"target": target, "weight": weight, "reduction": "mean"},
        kind="curved",
        output="L",
        steps=tuple(steps),
        untouched="the pixel is ignored",
        notes=(
            "Three classes, 2 x 2 pixels. The logits are logarithms of small integers: exp(x) is 1, 2, 5 at the first "
            "pixel, so its probabilities are 1/8, 2/8 and 5/8.",
            "The pixel [1,0] is void: no loss, no gradient, and not counted. The weights of the three others' labels "
            "1, 0 and 2 add up to 2 + 1 + 1 = 4, what the mean divides by.",
            "In a training dL is 1; -8 shows that it is passed on.",
            "At each pixel the three gradients add up to 0: softmax moves probability from one class to others.",
        ),
    )


def _upsample_cross_entropy() -> Example:
    x = _array([[[0, 0]], [[0, 4 * math.log(2)]]])[None]  # [1, 2, 1, 2]
    taps, left, padding, factor = [0.25, 0.75, 0.75, 0.25], 1, 1, 2
    target, void = np.array([[[0, 1, 255]]]), 255
    steps = [f"f[{t}] = 1 - |{t} - 1.5| / 2 = {tap}" for t, tap in enumerate(taps)]
    losses, shares, count = [], [], 2
    for q in range(3):
        t = int(target[0, 0, q])
        if t == void:
            steps.append(f"l[0,0,{q}] = 0, because target[0,0,{q}] = {void} is the ignored label")
            continue
        reached = [(j, q + left + padding - factor * j) for j in range(2)]
        z = [sum(taps[s] * x[0, c, 0, j] for j, s in reached) for c in range(2)]
        for c in range(2):
            mixed = " + ".join(f"f[{s}] x[0,{c},0,{j}]" for j, s in reached)
            steps.append(f"z[0,{c},0,{q}] = {mixed} = {number(z[c])}, its exponential is {number(math.exp(z[c]))}")
        e = [math.exp(value) for value in z]
        for c in range(2):
            p, hit = e[c] / sum(e), int(c == t)
            steps.append(f"p[0,{c},0,{q}] = {number(e[c])} / ({' + '.join(map(number, e))}) = {number(p)}")
            text, shown = f"(p[0,{c},0,{q}] - {hit}) / {count}", f"({number(p)} - {hit})/{count}"
            slope = Factor(text, (p - hit) / count, shown)
            shares += [Share(("x", (0, c, 0, j)), (), (constant(f"f[{s}]", taps[s]), slope)) for j, s in reached]
        loss = -math.log(e[t] / sum(e))
        steps.append(f"l[0,0,{q}] = -log p[0,{t},0,{q}] = {number(loss)}")
        losses.append((constant(f"l[0,0,{q}] / {count}", loss / count, f"{number(loss)}/{count}"),))
    return Example(
        ops.upsample_cross_entropy,
        {"x": x},
        _array(-18),
        [add_up("L", (), losses)],
        shares,
        arguments={"target": target, "factor": (1, 2), "offset": (0, 1)},
        kind="curved",
        output="L",
        steps=tuple(steps),
        notes=(
            "Two classes on a coarse row of two pixels, made twice as wide: four pixels, of which the last three have "
            "labels (left = 1), the third a void one.",
            "x[0,1,0,1] = 4 log 2, so that the exponentials of the logits z are 2 and 8 at the two pixels that count.",
            "Every gradient of a pixel is shared out to the two coarse pixels that its logits were mixed from, with "
            "the same weights f.",
        ),
    )


# --- element by element ------------------------------------------------------------------------------------------


def _add() -> Example:
    return _of_two(ops.add, lambda a, b: [(a,), (b,)])


def _subtract() -> Example:
    return _of_two(ops.subtract, lambda a, b: [(a,), (constant("(-1)", -1, "-1"), b)])


def _multiply() -> Example:
    return _of_two(ops.multiply, lambda a, b: [(a, b)])


BROADCAST = "b has one row and is used for both rows of a: its gradient is a sum of two."


def _two() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a, b (one row for both of a's) and dy."""
    return _array([[1, 2], [3, -4]]), _array([2, -5]), _array([[2, -1], [3, 1]])


def _of_two(op: Callable, products: Callable[[Factor, Factor], list[tuple[Factor, ...]]]) -> Example:
    """An op whose output element is the sum of `products` of the elements a and b."""
    a, b, dy = _two()
    terms = [
        Term((i, j), factors)
        for i, j in np.ndindex(a.shape)
        for factors in products(entry("a", a, i, j), entry("b", b, j))
    ]
    return _from_terms(op, {"a": a, "b": b}, dy, terms, notes=(BROADCAST,))


def _divide() -> Example:
    a, b, dy = _two()
    quotients, shares = [], []
    for i, j in np.ndindex(a.shape):
        x, y = entry("a", a, i, j), entry("b", b, j)
        bottom = f"({y.shown})" if y.value < 0 else y.shown
        quotients.append(
            add_up("y", (i, j), [(constant(f"{x.text} / {y.text}", x.value / y.value, f"{x.shown}/{bottom}"),)])
        )
        shares.append(Share(("a", (i, j)), (i, j), (constant(f"1 / {y.text}", 1 / y.value, f"1/{bottom}"),)))
        slope = constant(f"(-{x.text} / {y.text}^2)", -x.value / y.value**2, f"{number(-x.value)}/{bottom}^2")
        shares.append(Share(("b", (j,)), (i, j), (slope,)))
    return Example(ops.divide, {"a": a, "b": b}, dy, quotients, shares, kind="curved", notes=(BROADCAST,))


def _of_one(
    op: Callable,
    x: np.ndarray,
    dy: np.ndarray,
    value: Callable[[Factor], Factor],
    slope: Callable[[Factor], Factor],
    **rest: Any,
) -> Example:
    """An op of each element of x by itself: its `value` and its local derivative, the `slope`."""
    entries = {index: entry("x", x, *index) for index in np.ndindex(x.shape)}
    rows = [add_up("y", index, [(value(e),)]) for index, e in entries.items()]
    shares = [Share(("x", index), index, (slope(e),)) for index, e in entries.items()]
    return Example(op, {"x": x}, dy, rows, shares, **rest)


def _relu() -> Example:
    return _of_one(
        ops.relu,
        _array([-2, 0, 3, 1]),
        _array([5, 7, -1, 2]),
        lambda x: constant(f"max({x.text}, 0)", max(x.value, 0), f"max({x.shown}, 0)"),
        lambda x: constant("1" if x.value > 0 else "0", float(x.value > 0)),
        kind="piecewise",
        notes=("At x[1] = 0 the slope is 0 on the left and 1 on the right, times dy = 7. The rule takes 0.",),
    )


def _dropout() -> Example:
    x, dy = _array([3, -1, 4, 2]), _array([5, 1, -2, 3])
    words = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)  # Salmon et al.'s known answer for key and counter 0
    p, terms, steps = 0.5, [], []
    for i, word in enumerate(words):
        share = word / 2**32
        kept = share >= p
        steps.append(f"m[{i}] = {int(kept)}, because the random number {share:.4f} is {'not ' * kept}below p")
        factors = constant(f"m[{i}]", float(kept)), constant("1/(1 - p)", 1 / (1 - p)), entry("x", x, i)
        terms.append(Term((i,), factors))
    return _from_terms(
        ops.dropout,
        {"x": x},
        dy,
        terms,
        arguments={"p": p, "seed": 0, "step": 0, "layer": 0},
        steps=tuple(steps),
        notes=("p = 0.5, so 1/(1 - p) = 2. The four numbers are the generator's published first ones for seed 0.",),
    )


def _power() -> Example:
    def value(x: Factor) -> Factor:
        return constant(f"{x.text}^3", x.value**3, f"({x.shown})^3" if x.value < 0 else f"{x.shown}^3")

    def slope(x: Factor) -> Factor:
        return constant(f"3 {x.text}^2", 3 * x.value**2, f"3*({x.shown})^2" if x.value < 0 else f"3*{x.shown}^2")

    x, dy = _array([1, 2, -2]), _array([5, -1, 2])
    return _of_one(ops.power, x, dy, value, slope, arguments={"exponent": 3}, kind="curved")


def _exp() -> Example:
    def value(x: Factor) -> Factor:
        return constant(f"exp({x.text})", math.exp(x.value), f"exp({x.shown})")

    x, dy = _array([0, 1, -1]), _array([5, -1, 2])
    return _of_one(ops.exp, x, dy, value, value, kind="curved")


def _log() -> Example:
    x, dy = _array([1, 2, 0.5]), _array([5, -1, 2])
    return _of_one(
        ops.log,
        x,
        dy,
        lambda x: constant(f"log({x.text})", math.log(x.value), f"log({x.shown})"),
        lambda x: constant(f"1 / {x.text}", 1 / x.value, f"1/{x.shown}"),
        kind="curved",
    )


def _scale() -> Example:
    x, dy = _array([4, -2, 3]), _array([2, 6, -1])
    terms = [Term((i,), (constant("f", 0.5), entry("x", x, i))) for i in range(3)]
    return _from_terms(ops.scale, {"x": x}, dy, terms, arguments={"factor": 0.5}, notes=("f is the factor 0.5.",))


# --- whole tensors -----------------------------------------------------------------------------------------------


def _sum() -> Example:
    x, dy = _array([[1, 2, 3], [4, 5, 6]]), _array([2, -1])
    terms = [Term((j,), (entry("x", x, j, i),)) for j, i in np.ndindex(x.shape)]
    return _from_terms(
        ops.sum,
        {"x": x},
        dy,
        terms,
        arguments={"axis": 1},
        notes=("Rows are summed: dy has one number a row, and each element of the row receives it.",),
    )


def _mean() -> Example:
    x, dy = _array([[1, 2, 3], [4, 5, 6]]), _array([6, -3])
    third = constant("1/3", 1 / 3, "1/3")
    terms = [Term((j,), (third, entry("x", x, j, i))) for j, i in np.ndindex(x.shape)]
    return _from_terms(ops.mean, {"x": x}, dy, terms, arguments={"axis": 1})


def _reshape() -> Example:
    x, dy = _array([[1, 2, 3], [4, 5, 6]]), _array([[1, -1], [2, 0], [3, 5]])
    terms = [Term(out, (entry("x", x, *index),)) for out, index in zip(np.ndindex(3, 2), np.ndindex(2, 3), strict=True)]
    return _from_terms(ops.reshape, {"x": x}, dy, terms, arguments={"shape": (3, 2)})


EXAMPLES: dict[str, Example] = {
    example.op.__name__: example
    for example in (
        _conv2d(),
        _conv2d_relu(),
        _conv2d_relu_max_pool2d(),
        _conv_transpose2d(),
        _linear(),
        _max_pool2d(),
        _avg_pool2d(),
        _lrn(),
        _bilinear_upsample(),
        _crop(),
        _crop_sum(),
        _relu(),
        _dropout(),
        _cross_entropy(),
        _upsample_cross_entropy(),
        _add(),
        _subtract(),
        _multiply(),
        _divide(),
        _power(),
        _exp(),
        _log(),
        _scale(),
        _sum(),
        _mean(),
        _reshape(),
    )
}
