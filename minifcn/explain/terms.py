"""Sums of products, written out: what every worked example is made of.

An output element is a sum of terms, a term is a product of factors, and a factor is an element of an input or a
constant. The product rule then gives every gradient by bookkeeping alone: the derivative of a term with respect to
one of its factors is the product of the others, so

    dx[i] = sum over the terms that contain x[i] of (the other factors) times dy of the output the term belongs to.

Nothing here knows of kernels: the terms are enumerated index by index, in plain Python.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

Index = tuple[int, ...]


def number(value: float) -> str:
    """As short as it can be read: integers without a point, others with four digits; rounding noise is dropped."""
    if not math.isfinite(value):
        return str(value)
    value = round(value, 9)
    return str(int(value)) if value == int(value) else f"{value:.4g}"


def element(name: str, index: Index) -> str:
    """x[0,1,2]; a scalar has no brackets."""
    return f"{name}[{','.join(map(str, index))}]" if index else name


def planes(name: str, array: np.ndarray) -> list[tuple[str, list[list[str]]]]:
    """`array` as tables of numbers, one for each plane of its last two axes: (its name, its rows)."""
    leading = array.shape[:-2]
    return [
        (element(name, index), [[number(value) for value in row] for row in np.atleast_2d(array[index])])
        for index in np.ndindex(leading)
    ]


@dataclass(frozen=True)
class Factor:
    """A value, its name in formulas and how it is written in numbers; `of` says which input element it is."""

    text: str
    value: float
    shown: str
    of: tuple[str, Index] | None = None


def constant(text: str, value: float, shown: str | None = None) -> Factor:
    """A factor that depends on no input; `shown` is how it is written in numbers (default: as a decimal)."""
    return Factor(text, value, number(value) if shown is None else shown)


def entry(name: str, array: np.ndarray, *index: int) -> Factor:
    """The element of an input at `index`."""
    value = float(array[index])
    return Factor(element(name, index), value, number(value), (name, index))


@dataclass(frozen=True)
class Term:
    """One addend of the output element `out`: the product of `factors`."""

    out: Index
    factors: tuple[Factor, ...]


@dataclass(frozen=True)
class Share:
    """One addend of d y[out] / d (the input element `of`): the product of `factors`, 1 if there are none."""

    of: tuple[str, Index]
    out: Index
    factors: tuple[Factor, ...]


@dataclass(frozen=True)
class Sum:
    """An element worked out: `target` = `terms` added up = `numbers` added up = `value`."""

    index: Index
    target: str
    terms: tuple[str, ...]
    numbers: tuple[str, ...]
    value: float


def add_up(target: str, index: Index, products: Iterable[tuple[Factor, ...]]) -> Sum:
    """The element `target`[index] as the sum of `products`."""
    products = list(products)
    numbers = ["*".join(_in_product(factor.shown) for factor in factors) for factors in products]
    if products and len(products[0]) == 1:
        numbers[0] = products[0][0].shown  # a sum may begin with a negative number
    return Sum(
        index,
        element(target, index),
        tuple(" ".join(factor.text for factor in factors) for factors in products),
        tuple(numbers),
        math.fsum(math.prod(factor.value for factor in factors) for factors in products),
    )


def _in_product(shown: str) -> str:
    return f"({shown})" if shown.startswith("-") else shown


def outputs(name: str, shape: Index, terms: Iterable[Term]) -> list[Sum]:
    """Every output element as the sum of its terms."""
    products: dict[Index, list[tuple[Factor, ...]]] = {index: [] for index in np.ndindex(shape)}
    for term in terms:
        products[term.out].append(term.factors)
    return [add_up(name, index, factors) for index, factors in products.items()]


def product_rule(terms: Iterable[Term]) -> Iterator[Share]:
    """The derivative of every term with respect to each input element in it."""
    for term in terms:
        for i, factor in enumerate(term.factors):
            if factor.of is not None:
                yield Share(factor.of, term.out, term.factors[:i] + term.factors[i + 1 :])


def gradient(name: str, shape: Index, shares: Iterable[Share], output: str, dy: np.ndarray) -> list[Sum]:
    """Every element of the gradient for the input `name`: its shares times dy of their outputs, added up."""
    products: dict[Index, list[tuple[Factor, ...]]] = {index: [] for index in np.ndindex(shape)}
    for share in shares:
        if share.of[0] == name:
            upstream = entry(f"d{output}", dy, *share.out)
            products[share.of[1]].append((*share.factors, upstream))
    return [add_up(f"d{name}", index, factors) for index, factors in products.items()]
