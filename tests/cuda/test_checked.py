"""The kernels under the sanitizer: it finds nothing in them, and misses each synchronisation that is deleted."""

import numpy as np
import pytest

from minifcn.kernels import cuda, geometry
from minifcn.kernels.settings import settings

from ..devices import on_devices
from . import mutants

F32 = np.float32


class Redirected:
    """An executor that takes the source at `path` for the file of `name`."""

    graph = None

    def __init__(self, on, name, path):
        self.on, self.name, self.path, self.xp = on, name, path, on.xp

    def kernel(self, file, expression):
        return self.on.kernel(self.path if file == self.name else file, expression)

    def launch(self, *arguments, **named):
        self.on.launch(*arguments, **named)


def normal(*shapes):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(F32) for shape in shapes]


GEO = geometry.conv2d((1, 40, 9, 8), (72, 40, 2, 1), 1, (0, 1))  # several steps of every loop, and ragged edges


def forth(kernels, rung, precision="float32"):
    """Forward, and the weights' gradient: one product each."""
    x, w, dy = normal(GEO.x_shape, GEO.w_shape, GEO.y_shape)
    with settings.using(convolution=rung, precision=precision):
        kernels.conv2d_relu_forward(x, w, None, 1, (0, 1))
        kernels.conv2d_backward_weight(dy, x, (2, 1), 1, (0, 1))


def forth_and_back(kernels, rung, precision="float32"):
    """The fused kernels of both directions."""
    x, w, dy = normal(GEO.x_shape, GEO.w_shape, GEO.y_shape)
    with settings.using(convolution=rung, precision=precision):
        _, mask = kernels.conv2d_relu_forward(x, w, None, 1, (0, 1))
        kernels.conv2d_relu_backward(dy, mask, x, w, 1, (0, 1))


def head(kernels):
    x, dy = normal((1, 3, 2, 3), (1, 24, 36))
    target = np.arange(dy.size).reshape(dy.shape) % 4
    kernels.upsample_cross_entropy_backward_input(dy, x, target.astype(np.uint8), None, 3, 12, 6, 0)


RUNS = {
    "conv2d_tiled.cu": lambda kernels: forth(kernels, "tiled"),
    "conv2d_blocked.cu": lambda kernels: forth(kernels, "blocked"),
    "conv2d_tensor.cu": lambda kernels: forth(kernels, "tensor", "tf32"),
    "upsample_cross_entropy.cu": head,
}


@pytest.mark.parametrize("device", on_devices("cuda-sim"))
@pytest.mark.parametrize("rung", [("tiled",), ("blocked",), ("tensor", "bfloat16")])
def test_nothing_is_found_in_fused_convolutions(device, rung):
    forth_and_back(cuda.Kernels(cuda.SimExecutor("check")), *rung)


@pytest.mark.parametrize("device", on_devices("cuda-sim"))
@pytest.mark.parametrize("file", list(RUNS))
def test_every_synchronisation_is_needed_and_missed(device, file, tmp_path):
    def launches(on, path):
        RUNS[file](cuda.Kernels(Redirected(on, file, path)))

    count, alive = mutants.survivors(mutants.FOLDER / file, tmp_path, launches)
    assert count >= 2
    assert not alive
