"""minifcn: a fully convolutional network for semantic segmentation, every gradient written by hand.

Long, Shelhamer and Darrell, 2015, "Fully Convolutional Networks for Semantic Segmentation".
"""

import importlib.util
import sys
from pathlib import Path

__version__ = "0.1.0"


def _load_kernels_of_a_checkout() -> None:
    """In a checkout the package minifcn.kernels lies beside this one, in the folder `kernels`.

    Installed, it lies inside, because a wheel that owned the top-level name `kernels` would overwrite another
    project's package of that name.
    """
    here = Path(__file__).resolve().parent
    folder = here.parent / "kernels"
    if (here / "kernels").is_dir() or not (folder / "geometry.py").is_file():
        return
    name = f"{__name__}.kernels"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


_load_kernels_of_a_checkout()

from . import kernels  # noqa: E402
from .device import known_devices, replaced  # noqa: E402
from .errors import MinifcnError  # noqa: E402
from .ops import (  # noqa: E402
    avg_pool2d,
    bilinear_upsample,
    conv2d,
    conv_transpose2d,
    crop,
    crop_sum,
    cross_entropy,
    dropout,
    max_pool2d,
    relu,
)
from .tensor import Op, Tensor, from_dlpack, no_grad  # noqa: E402

__all__ = [
    "MinifcnError",
    "Op",
    "Tensor",
    "avg_pool2d",
    "bilinear_upsample",
    "conv2d",
    "conv_transpose2d",
    "crop",
    "crop_sum",
    "cross_entropy",
    "dropout",
    "from_dlpack",
    "kernels",
    "known_devices",
    "max_pool2d",
    "no_grad",
    "relu",
    "replaced",
]
