"""Numba kernels: the reference's functions, compiled, parallel over pixels or channels, channels last in memory.

`layout` brings arrays into and out of channels-last order, `microkernel` is the inner loop of all convolutions, and
`threads` hands out jobs, whose outputs are disjoint and whose number depends on the problem alone, so that the result
does not depend on the number of threads. Outputs come from the pool of `memory`.

Compiled code is kept in the user's cache folder, in a folder named after a digest of these sources: files beside the
sources would outlive an uninstall, and Numba does not see when a function that another one calls has changed.

The convolutions' threads are Numba's own, of its choice of layer (NUMBA_THREADING_LAYER overrides it). The plainest,
`workqueue`, must not be entered twice at once: a lock sees to that.
"""

import functools
import hashlib
import os
import threading
from collections.abc import Callable
from importlib import resources

import numba
import platformdirs


def _cache_folder() -> str:
    """Where compiled kernels are kept: NUMBA_CACHE_DIR where it is set, else the user's cache folder."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return os.environ["NUMBA_CACHE_DIR"]
    sources = sorted(
        (file for file in resources.files(__name__).iterdir() if file.name.endswith(".py")),
        key=lambda file: file.name,
    )
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:16]
    return os.path.join(platformdirs.user_cache_dir("minifcn"), f"numba-{numba.__version__}", digest)


CACHE_FOLDER = _cache_folder()
_callers_folder, numba.config.CACHE_DIR = numba.config.CACHE_DIR, CACHE_FOLDER
try:
    from .conv2d import conv2d_backward_bias, conv2d_backward_input, conv2d_backward_weight, conv2d_forward
    from .crop import crop_backward_input, crop_forward, crop_sum_forward
    from .cross_entropy import cross_entropy_backward_input, cross_entropy_forward
    from .dropout import dropout_backward_input, dropout_forward
    from .elementwise import add_forward, relu_backward_input, relu_forward, scale_forward
    from .optimizers import adam_step, sgd_step
    from .pool2d import (
        avg_pool2d_backward_input,
        avg_pool2d_forward,
        max_pool2d_backward_input,
        max_pool2d_forward,
    )
    from .upsample import bilinear_upsample_backward_input, bilinear_upsample_forward
    from .upsample_cross_entropy import (
        upsample_argmax,
        upsample_cross_entropy_backward_input,
        upsample_cross_entropy_forward,
    )
finally:
    numba.config.CACHE_DIR = _callers_folder  # the caller's own kernels stay where he wants them

__all__ = [
    "adam_step",
    "add_forward",
    "avg_pool2d_backward_input",
    "avg_pool2d_forward",
    "bilinear_upsample_backward_input",
    "bilinear_upsample_forward",
    "conv2d_backward_bias",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "conv2d_forward",
    "crop_backward_input",
    "crop_forward",
    "crop_sum_forward",
    "cross_entropy_backward_input",
    "cross_entropy_forward",
    "dropout_backward_input",
    "dropout_forward",
    "max_pool2d_backward_input",
    "max_pool2d_forward",
    "relu_backward_input",
    "relu_forward",
    "scale_forward",
    "sgd_step",
    "upsample_argmax",
    "upsample_cross_entropy_backward_input",
    "upsample_cross_entropy_forward",
]

_one_at_a_time = threading.RLock()


def _serialised(kernel: Callable) -> Callable:
    """`kernel`, entered by one Python thread at a time."""

    @functools.wraps(kernel)
    def run(*arguments, **named):
        with _one_at_a_time:
            return kernel(*arguments, **named)

    return run


globals().update({name: _serialised(globals()[name]) for name in __all__})
