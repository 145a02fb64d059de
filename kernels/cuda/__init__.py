"""CUDA kernels: the reference's functions in CUDA C++, parallel over elements or tiles, channels last in memory.

Each op is a `.cu` file, whose head says the mathematics and the ladder, beside a launcher of the same name; `launch`
computes every grid and block. Launchers take an executor first (`executors`): with `cuda` they run on a GPU through
CuPy, with `cuda-sim` the very same sources run on the host. `Kernels` binds them to one, and has then the functions of
the contract.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from . import constants, own
from .conv2d import (
    conv2d_backward_bias,
    conv2d_backward_input,
    conv2d_backward_weight,
    conv2d_forward,
    conv2d_relu_backward,
    conv2d_relu_forward,
    conv2d_relu_max_pool2d_backward,
    conv2d_relu_max_pool2d_forward,
)
from .crop import crop_backward_input, crop_forward, crop_sum_forward
from .cross_entropy import cross_entropy_backward_input, cross_entropy_forward
from .dropout import dropout_backward_input, dropout_forward
from .elementwise import add_forward, relu_backward_input, relu_forward, scale_forward
from .executors import CupyExecutor, Executor, ExecutorError, SimExecutor
from .lrn import lrn_backward_input, lrn_forward
from .optimizers import adam_step, adam_steps, sgd_step, sgd_steps
from .pool2d import (
    avg_pool2d_backward_input,
    avg_pool2d_forward,
    max_pool2d_backward_input,
    max_pool2d_forward,
)
from .storage import rounded, widened
from .upsample import bilinear_upsample_backward_input, bilinear_upsample_forward
from .upsample_cross_entropy import (
    upsample_argmax,
    upsample_cross_entropy_backward_input,
    upsample_cross_entropy_forward,
)

LAUNCHERS = (
    adam_step,
    add_forward,
    avg_pool2d_backward_input,
    avg_pool2d_forward,
    bilinear_upsample_backward_input,
    bilinear_upsample_forward,
    conv2d_backward_bias,
    conv2d_backward_input,
    conv2d_backward_weight,
    conv2d_forward,
    conv2d_relu_backward,
    conv2d_relu_forward,
    conv2d_relu_max_pool2d_backward,
    conv2d_relu_max_pool2d_forward,
    crop_backward_input,
    crop_forward,
    crop_sum_forward,
    cross_entropy_backward_input,
    cross_entropy_forward,
    dropout_backward_input,
    dropout_forward,
    lrn_backward_input,
    lrn_forward,
    max_pool2d_backward_input,
    max_pool2d_forward,
    relu_backward_input,
    relu_forward,
    scale_forward,
    sgd_step,
    upsample_argmax,
    upsample_cross_entropy_backward_input,
    upsample_cross_entropy_forward,
)

TOGETHER = {"adam_step": adam_steps, "sgd_step": sgd_steps}  # one launch for many calls of a kernel


EXECUTORS: dict[str, Callable[[], Executor]] = {"cuda": CupyExecutor, "cuda-sim": SimExecutor}


class Kernels:
    """The functions of the contract, run by `executor`; `__all__` names them, as in a device's module.

    `together`: by the name of a kernel, a function of a list of its calls' arguments that runs them in one launch.
    `rounded` and `widened`: float32 as bfloat16 and back.
    """

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.__all__ = [launcher.__name__ for launcher in LAUNCHERS]
        for launcher in LAUNCHERS:
            setattr(self, launcher.__name__, functools.partial(launcher, executor))
        self.together = {name: functools.partial(launcher, executor) for name, launcher in TOGETHER.items()}
        self.rounded, self.widened = functools.partial(rounded, executor), functools.partial(widened, executor)


@functools.cache
def kernels_of(device: str) -> Kernels:
    """The kernels of "cuda" or "cuda-sim". Raises ExecutorError, which says what is missing, where it cannot be."""
    return Kernels(EXECUTORS[device]())


__all__ = ["EXECUTORS", "LAUNCHERS", "ExecutorError", "Kernels", "SimExecutor", "constants", "kernels_of", "own"]
