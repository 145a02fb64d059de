"""What kernels derive from weights that nobody writes to for a while, such as their copies in bfloat16.

A device says which arrays are such constants (`Device.constant`); what is derived from one is forgotten with it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any

_derived: dict[int, tuple[weakref.ref, dict[Hashable, Any]]] = {}


def register(array: Any) -> Any:
    """`array`, from now on a constant."""
    key, forget = id(array), _derived.pop  # by itself: when Python ends, modules are emptied before the last arrays go
    _derived[key] = (weakref.ref(array, lambda _: forget(key, None)), {})
    return array


def derived(array: Any, what: Hashable, make: Callable[[], Any]) -> Any:
    """make(), or what it made before under the name `what` for this very `array`, if that is a constant."""
    if id(array) not in _derived:
        return make()
    made = _derived[id(array)][1]
    if what not in made:
        made[what] = make()
    return made[what]
