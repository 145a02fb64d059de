"""Label maps in MATLAB files (.mat up to version 7.2), read by SciPy: `pip install minifcn[data]`."""

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..errors import DataError
from .files import FileError
from .labels import LabelFormat

SUFFIX = (".mat",)


def matlab_format(codes: Mapping[int, int], variable: str, field: str | None = None) -> LabelFormat:
    """Label files whose map is a variable of a .mat file, or a field of it; DataError where SciPy is missing."""
    if find_spec("scipy") is None:
        raise DataError("label files of MATLAB (.mat) need SciPy: pip install minifcn[data]")
    return LabelFormat(codes, partial(read_map, variable=variable, field=field), lambda path: "MATLAB")


def read_map(path: Path | str, variable: str, field: str | None = None) -> np.ndarray:
    """The integers [H, W] of a variable, or of one field of a structure; FileError says what is there instead."""
    value = _load(path, variable)
    name = variable
    if field is not None:
        name = f"{variable}.{field}"
        if value.dtype.names is None or field not in value.dtype.names or value.size != 1:
            raise FileError(path, f"{variable} is no structure with one field {field}")
        value = np.asarray(value[field].item())
    if value.ndim != 2 or value.dtype.kind not in "buif":
        raise FileError(path, f"{name} is no matrix of numbers but {value.dtype} of shape {value.shape}")
    with np.errstate(invalid="ignore"):  # NaN and infinity are found below
        whole = value.astype(np.int32)
    if not np.array_equal(whole, value):
        row, column = (int(i) for i in np.argwhere(whole != value)[0])
        rule = f"label value {value[row, column]} at row {row}, column {column} of {name} is no whole number of 32 bits"
        raise FileError(path, rule, (row, column))
    return whole


def _load(path: Path | str, variable: str) -> np.ndarray:
    from scipy.io import loadmat

    try:
        with open(path, "rb") as stream:
            variables = loadmat(stream)
    except FileNotFoundError as error:
        raise FileError(path, "no such file") from error
    except NotImplementedError as error:
        raise FileError(path, "a MATLAB file of version 7.3 (HDF5); save it again with -v7") from error
    except Exception as error:  # SciPy raises many types on damaged files
        raise FileError(path, f"cannot be read as a MATLAB file ({error})") from error
    if variable not in variables:
        found = ", ".join(name for name in variables if not name.startswith("__")) or "none"
        raise FileError(path, f"no variable {variable}; it holds {found}")
    return variables[variable]
