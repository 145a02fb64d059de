"""Numbers in memory as bfloat16 (`minifcn.kernels.storage`): what kernels ask of their arrays, and conversions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import ShapeError, same_dtype
from ..layout import flat_views, like
from ..storage import BFLOAT16
from .constants import derived
from .launch import each, template

FILE = "storage.cu"


def same_storage(of_sums: dict[str, Any] | None = None, **arrays: Any) -> None:
    """Raise unless all arrays are float32, all are float64 or all are bfloat16, and those `of_sums` are what numbers
    of that type are summed in, float32 for bfloat16; None is skipped.
    """
    present = {name: array for name, array in arrays.items() if array is not None}
    dtypes = {array.dtype for array in present.values()}
    if BFLOAT16 not in dtypes:
        same_dtype(**arrays, **of_sums or {})
        return
    wide = {name: array for name, array in (of_sums or {}).items() if array is not None}
    if len(dtypes) != 1 or any(array.dtype != np.float32 for array in wide.values()):
        listed = ", ".join(f"{name} {name_of(array.dtype)}" for name, array in (present | wide).items())
        beside = f", and {', '.join(wide)} float32" if wide else ""
        raise ShapeError(f"{', '.join(present)} must have one type{beside} where that is bfloat16, got {listed}")


def name_of(dtype: np.dtype) -> str:
    """The name of what an array of `dtype` holds, where no whole numbers are expected."""
    return "bfloat16" if dtype == BFLOAT16 else str(dtype)


def rounded(on: Any, x: Any) -> Any:
    """x, float32, as bfloat16: to nearest, ties to even. Raises ShapeError for another dtype."""
    return _converted(on, x, np.dtype(np.float32), BFLOAT16)


def widened(on: Any, x: Any) -> Any:
    """x, bfloat16, as float32: exact. Raises ShapeError for another dtype."""
    return _converted(on, x, BFLOAT16, np.dtype(np.float32))


def _converted(on: Any, x: Any, source: np.dtype, target: np.dtype) -> Any:
    if x.dtype != source:
        raise ShapeError(f"an array of {name_of(source)} was to become {name_of(target)}, but it is {name_of(x.dtype)}")
    order, (flat,) = flat_views(x)
    y = on.xp.empty(flat.shape, target)
    each(on, FILE, template("convert", source, target), x.size, flat, y)
    return like(y, x.shape, order)


def stored(on: Any, w: Any, dtype: np.dtype) -> Any:
    """Weights as kernels on activations of `dtype` take them: w itself, or its copy in bfloat16."""
    if w.dtype == dtype:
        return w
    return derived(w, "stored", lambda: rounded(on, w))
