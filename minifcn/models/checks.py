"""What networks ask of their settings: one message for each broken rule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..errors import MinifcnError


def one_of(name: str, value: Any, known: Iterable[Any]) -> None:
    """Raise MinifcnError unless `value` is one of `known`."""
    if value not in known:
        names = ", ".join(str(one) for one in known)
        raise MinifcnError(
            f"{name} (={value!r}) must be one of {names}" if names else f"{name} (={value!r}): there is none"
        )


def integer(name: str, value: Any, least: int) -> None:
    """Raise MinifcnError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise MinifcnError(f"{name} (={value!r}) must be an integer of at least {least}")


def positive(name: str, value: float) -> None:
    """Raise MinifcnError unless `value` is a finite number above 0."""
    if not (value > 0 and math.isfinite(value)):
        raise MinifcnError(f"{name} (={value}) must be above 0 and finite")


def probability(name: str, value: float) -> None:
    """Raise MinifcnError unless 0 <= `value` < 1."""
    if not 0 <= value < 1:
        raise MinifcnError(f"{name} (={value}) must be at least 0 and below 1")


def factors(name: str, value: dict[str, float], known: Iterable[str]) -> None:
    """Raise MinifcnError unless every key is one of `known` and every value finite."""
    for key, factor in value.items():
        one_of(f"key of {name}", key, known)
        if not math.isfinite(factor):
            raise MinifcnError(f"{name}[{key!r}] (={factor}) must be finite")
