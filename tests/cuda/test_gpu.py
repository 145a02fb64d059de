"""On a GPU: every kernel gives what the reference gives, twice the same bits, and takes the registers of its budget.

`benchmarks/gpu.sh` runs these; MINIFCN_GPU_TESTS=cuda-sim rehearses them on the host.
"""

import os

import numpy as np
import pytest

from minifcn.device import get_device
from minifcn.errors import DeviceError
from minifcn.kernels import cuda, reference
from minifcn.kernels.settings import settings

from . import budget, vectors
from .calls import DTYPES, calls, instances, listed, stored_calls, variants

DEVICE = os.environ.get("MINIFCN_GPU_TESTS", "cuda")
TOLERANCES = {"float64": 1e-12, "float32": 2e-5, "3xtf32": 2e-5, "tf32": 1e-2, "bfloat16": 5e-2}


@pytest.fixture(scope="module")
def place():
    try:
        return get_device(DEVICE)
    except DeviceError as error:
        pytest.skip(str(error))


def on_device(place, arguments):
    """The arrays among `arguments`, copied to the device in their memory order."""
    return [place.asarray(one.copy(order="K")) if isinstance(one, np.ndarray) else one for one in arguments]


def results(place, name, arguments):
    """What a kernel returns, or the arrays that it changes, on the host."""
    given = on_device(place, arguments)
    found = place.kernel(name)(*given)
    if found is None:
        found = tuple(one for one in given if isinstance(one, place.xp.ndarray))
    return listed(name, tuple(place.to_host(one) for one in listed("", found)))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", variants(), ids=lambda one: f"{one['convolution']}-{one['precision']}")
def test_every_kernel(place, variant, dtype):
    limit = TOLERANCES["float64" if dtype is np.float64 else variant["precision"]]
    with settings.using(**variant):
        for name, arguments in calls(dtype):
            if variant["convolution"] != "fastest" and not name.startswith("conv2d"):
                continue
            found, again = (results(place, name, arguments) for _ in range(2))
            assert [one.tobytes() for one in found] == [one.tobytes() for one in again], name
            for one, other in zip(found, results(get_device("reference"), name, arguments), strict=True):
                assert (one.shape, one.dtype) == (other.shape, other.dtype), name
                if one.dtype.kind == "f":
                    assert np.all(np.abs(one - other) <= limit * max(1, np.abs(other).max(initial=0))), name
                elif limit < 1e-3:  # masks differ where a sum of less precision is nearly 0
                    assert np.array_equal(one, other), name


@pytest.mark.gpu
@pytest.mark.parametrize("convolution", ["fastest", "naive", "tiled", "tensor"])
def test_every_kernel_on_bfloat16(place, convolution):
    """Within its rounding, 2^-8 of the largest result, of the reference on the same numbers in float64."""
    with settings.using(convolution=convolution):
        for name, arguments, exact in stored_calls(calls(np.float32)):
            found, again = (results(place, name, arguments) for _ in range(2))
            assert [one.tobytes() for one in found] == [one.tobytes() for one in again], name
            wide = [one.astype(float) if getattr(one, "dtype", None) == np.float32 else one for one in exact]
            for one, other in zip(found, results(get_device("reference"), name, wide), strict=True):
                assert one.shape == other.shape, name
                if one.dtype.kind == "f":
                    assert np.all(np.abs(one - other) <= 2.0**-8 * np.abs(other).max(initial=0)), name


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE != "cuda", reason="the simulator has no registers")
def test_registers_and_local_memory(place):
    """What the driver says of each compiled kernel; an architecture beside the budget's may take a few more."""
    allowed = budget.read()
    for file, expressions in instances().items():
        for expression in expressions:
            kernel = cuda.kernels_of(DEVICE).executor.kernel(file, expression)
            figures = allowed[file][expression]["sm_90"]
            assert kernel.num_regs <= figures["registers"] + 16, expression
            assert kernel.local_size_bytes <= figures.get("local", 0), expression


@pytest.mark.gpu
def test_the_wrappers(place, tmp_path):
    """Recorded here and read again: the same bits on every run."""
    path = vectors.record(DEVICE, tmp_path)
    on = cuda.kernels_of(DEVICE).executor
    for kernel in vectors.KERNELS:
        given, after = vectors.recorded(path, kernel, 0)
        assert vectors.same(kernel, vectors.run(on, kernel, given), after)


def test_the_reference_accepts_every_call():
    for name, arguments in calls(np.float64):
        getattr(reference, name)(*[one.copy() if isinstance(one, np.ndarray) else one for one in arguments])
