"""The project's launchers on NVRTC's PTX for sm_80: every kernel gives what host and reference give."""

import numpy as np
import pytest

from minifcn.kernels import cuda, reference
from minifcn.kernels.cuda.optimizers import CHUNK
from minifcn.kernels.settings import settings

from .calls import CONVOLUTIONS, DTYPES, calls, instances, listed, stored_calls, variants
from .executor import PtxExecutor
from .nvrtc import NEEDS_NVRTC
from .test_optimizers import calls_of as optimizer_calls

pytestmark = NEEDS_NVRTC
TOLERANCES = {np.float32: 2e-6, np.float64: 1e-14}  # of the largest of the results
BY_PRECISION = {"float32": 2e-6, "3xtf32": 2e-6, "tf32": 1e-3, "bfloat16": 1e-2}
CALLING = ("lrn_forward", "lrn_backward_input")  # pow in float64 is a function of its own: the interpreter has no calls
CONVOLUTION_CALLS = ("conv2d_forward", "conv2d_backward_input", "conv2d_backward_weight", "conv2d_relu_forward")


@pytest.fixture(scope="module")
def ptx():
    return cuda.Kernels(PtxExecutor(instances()))


@pytest.fixture(scope="module")
def simulator():
    try:
        return cuda.kernels_of("cuda-sim")
    except cuda.ExecutorError as error:
        pytest.skip(f"the simulator is not available: {error}")


def results(kernels, name, arguments):
    """The arrays that a kernel returns, or those that it changed."""
    own = [np.array(one, order="K") if isinstance(one, np.ndarray) else one for one in arguments]
    found = getattr(kernels, name)(*own)
    if found is None:  # an optimiser
        return [one for one in own if isinstance(one, np.ndarray)]
    return listed(name, found)


def close(found, expected, tolerance):
    """Equal whole numbers, and floats within `tolerance` of the largest one; NaN is never close."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        if one.dtype.kind != "f":
            assert np.array_equal(one, other)
        else:
            assert np.all(np.abs(one - other) <= tolerance * max(1, np.abs(other).max(initial=0)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kernel(ptx, simulator, dtype):
    """Few approximations apart (exp, log), the host computes the same bits."""
    for name, arguments in calls(dtype):
        if dtype is np.float64 and name in CALLING:
            continue
        found = results(ptx, name, arguments)
        close(found, results(reference, name, arguments), 10 * TOLERANCES[dtype])
        close(found, results(simulator, name, arguments), TOLERANCES[dtype])
        if name.startswith(("conv2d", "max_pool2d", "dropout", "relu", "crop", "add")):
            again = results(simulator, name, arguments)
            assert [one.tobytes() for one in found] == [one.tobytes() for one in again], name


@pytest.mark.parametrize("convolution", ["fastest", "tiled"])
def test_every_kernel_on_bfloat16(ptx, simulator, convolution):
    """The host computes the same bits, but for losses, which are float32."""
    with settings.using(convolution=convolution):
        for name, arguments, _ in stored_calls(calls(np.float32)):
            if convolution != "fastest" and name not in CONVOLUTION_CALLS:
                continue
            found, expected = (results(kernels, name, arguments) for kernels in (ptx, simulator))
            if name == "upsample_cross_entropy_forward":
                close(found, expected, TOLERANCES[np.float32])
            else:
                assert [one.tobytes() for one in found] == [one.tobytes() for one in expected], name


def test_conversions_of_bfloat16(ptx, simulator):
    a = np.array([1, 3e38, 0, -1e-40], np.float32)
    assert ptx.rounded(a).tobytes() == simulator.rounded(a).tobytes()
    assert ptx.widened(ptx.rounded(a)).tobytes() == simulator.widened(simulator.rounded(a)).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", ["sgd_step", "adam_step"])
def test_parameters_updated_together(ptx, simulator, kernel, dtype):
    """Several rows in one table, one of them longer than a block's chunk."""
    found, expected = (optimizer_calls(kernel, [3, CHUNK + 2, 40], dtype) for _ in range(2))
    ptx.together[kernel](lambda: found)
    simulator.together[kernel](lambda: expected)
    for one, other in zip(found, expected, strict=True):
        arrays = [array for array in one if isinstance(array, np.ndarray)]
        close(arrays, other[: len(arrays)], TOLERANCES[dtype])


@pytest.mark.parametrize("variant", list(variants())[1:], ids=lambda one: f"{one['convolution']}-{one['precision']}")
def test_every_rung(ptx, simulator, variant):
    with settings.using(**variant):
        for name, arguments in calls(np.float32):
            if name not in CONVOLUTION_CALLS:
                continue
            found = results(ptx, name, arguments)
            tolerance = BY_PRECISION[variant["precision"]]
            if name != "conv2d_relu_forward":  # its mask may differ where a sum is nearly 0
                close(found, results(reference, name, arguments), 10 * tolerance)
            close(found, results(simulator, name, arguments), 2e-6)


def test_calls_reach_the_rungs():
    """Some of the shapes can be computed by every rung."""
    assert any(x[1] % 8 == 0 and w[0] % 8 == 0 for x, w, _ in CONVOLUTIONS)
