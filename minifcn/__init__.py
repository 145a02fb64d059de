"""minifcn: a fully convolutional network for semantic segmentation, every gradient written by hand.

Long, Shelhamer and Darrell, 2015, "Fully Convolutional Networks for Semantic Segmentation".
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

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

from . import kernels, models, nn, ops, optim  # noqa: E402
from .device import known_devices, replaced  # noqa: E402
from .errors import MinifcnError  # noqa: E402
from .kernels.settings import settings as config  # noqa: E402
from .ops import (  # noqa: E402
    avg_pool2d,
    bilinear_upsample,
    conv2d,
    conv2d_relu,
    conv2d_relu_max_pool2d,
    conv_transpose2d,
    crop,
    crop_sum,
    cross_entropy,
    dropout,
    linear,
    lrn,
    max_pool2d,
    relu,
    upsample_cross_entropy,
)
from .tensor import Op, Tensor, from_dlpack, no_grad  # noqa: E402

# What reads files and draws pictures is imported when it is first used, so that `import minifcn` stays quick.
_ON_DEMAND = {
    "Run": "training",
    "Segmenter": "segmenter",
    "TrainConfig": "configuration",
    "convert": "weights",
    "open_dataset": "data",
    "scores": "metrics",
}


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return getattr(importlib.import_module(f"{__name__}.{_ON_DEMAND[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "MinifcnError",
    "Op",
    "Run",
    "Segmenter",
    "Tensor",
    "TrainConfig",
    "avg_pool2d",
    "bilinear_upsample",
    "config",
    "conv2d",
    "conv2d_relu",
    "conv2d_relu_max_pool2d",
    "conv_transpose2d",
    "convert",
    "crop",
    "crop_sum",
    "cross_entropy",
    "dropout",
    "from_dlpack",
    "kernels",
    "known_devices",
    "linear",
    "lrn",
    "max_pool2d",
    "models",
    "nn",
    "no_grad",
    "open_dataset",
    "ops",
    "optim",
    "relu",
    "replaced",
    "scores",
    "upsample_cross_entropy",
]
