"""What kernels derive from weights, kept while the weights cannot change.

An array that NumPy does not let anyone write to is a constant: what is made from it is made once, and forgotten with
it. Any other array may differ at the next call.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

_derived: dict[int, tuple[weakref.ref, dict[Hashable, Any]]] = {}


def is_constant(array: np.ndarray) -> bool:
    """Whether neither the array nor one that it is a view of can be written to."""
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return False
        array = array.base
    return True


def forget(array: np.ndarray) -> None:
    """Drop what was derived from `array`: it was a constant, and is one no longer."""
    _derived.pop(id(array), None)


def derived(array: np.ndarray, what: Hashable, make: Callable[[], Any]) -> Any:
    """make(), or what it made before for this very `array`, a constant, under the name `what`."""
    key = id(array)
    if key not in _derived:
        forget = _derived.pop  # by itself: when Python ends, modules are emptied before the last arrays go
        _derived[key] = (weakref.ref(array, lambda _: forget(key, None)), {})
    made = _derived[key][1]
    if what in made:
        return made[what]
    result = make()
    # kept, a result that shares the array's memory would keep the array alive
    if not (isinstance(result, np.ndarray) and np.may_share_memory(result, array)):
        made[what] = result
    return result
