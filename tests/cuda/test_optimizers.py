"""All parameters in one launch: the bits of one launch each, and nothing read or written beside them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from minifcn import optim
from minifcn.device import get_device
from minifcn.errors import MinifcnError
from minifcn.kernels import cuda, reference
from minifcn.kernels.cuda.executors import ExecutorError, SanitizerError, SimExecutor
from minifcn.kernels.cuda.optimizers import CHUNK
from minifcn.kernels.cuda.source import FOLDER
from minifcn.nn import Parameter
from minifcn.optim import Multiplier
from minifcn.tensor import Tensor

from ..devices import on_devices
from ..test_optim import RULES, calls_of
from .test_checked import Redirected

SIZES = st.sampled_from([0, 1, 255, 257, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3]) | st.integers(0, 40)
on_simulator = pytest.mark.parametrize("device", on_devices("cuda-sim"))


class Counting:
    """An executor that counts launches."""

    graph = None

    def __init__(self, on):
        self.on, self.xp, self.kernel, self.launches = on, on.xp, on.kernel, 0

    def launch(self, *arguments, **named):
        self.launches += 1
        self.on.launch(*arguments, **named)


@on_simulator
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", list(RULES))
@hypothesis_settings(max_examples=12)
@given(sizes=st.lists(SIZES, max_size=6), seed=st.integers(0, 99))
def test_one_launch_has_the_bits_of_many(device, kernel, dtype, sizes, seed):
    on = Counting(get_device(device).executor)
    kernels = cuda.Kernels(on)
    together, alone, expected = (calls_of(kernel, sizes, dtype, seed) for _ in range(3))
    kernels.together[kernel](lambda: together)
    assert on.launches == (sum(sizes) > 0)
    for one, call, wanted in zip(together, alone, expected, strict=True):
        getattr(kernels, kernel)(*call)
        getattr(reference, kernel)(*wanted)
        for i in range(len(call) - len(RULES[kernel](0))):
            np.testing.assert_array_equal(one[i], call[i])
            close = {"rtol": 1e-4, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-13}
            np.testing.assert_allclose(one[i], wanted[i], **close)


@on_simulator
def test_parameters_of_both_dtypes_may_be_updated_together(device):
    kernels = cuda.kernels_of(device)
    mixed = [calls_of("sgd_step", [7, 9], dtype)[i] for i, dtype in enumerate((np.float32, np.float64))]
    expected = [calls_of("sgd_step", [7, 9], dtype)[i] for i, dtype in enumerate((np.float32, np.float64))]
    kernels.together["sgd_step"](lambda: mixed)
    for call, wanted in zip(mixed, expected, strict=True):
        kernels.sgd_step(*wanted)
        np.testing.assert_array_equal(call[0], wanted[0])


def held(name, device="cuda-sim"):
    """(parameters: a convolution's, one without a gradient, one with multipliers; their optimiser `name`)."""
    rng = np.random.default_rng(0)
    shapes = {"conv.weight": (5, 3, 2, 2), "conv.bias": (5,), "idle.weight": (4,), "score.bias": (CHUNK + 5,)}
    parameters = {key: Parameter(rng.standard_normal(shape), device) for key, shape in shapes.items()}
    for key, parameter in parameters.items():
        if key != "idle.weight":
            parameter.grad = Tensor(rng.standard_normal(parameter.shape), device=device)
    return parameters, optim.build(name, parameters, 0.9, 0.25, {"score.bias": Multiplier(4, 2)})


@on_simulator
@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_an_optimiser_launches_once_a_step(device, name, monkeypatch):
    """And does what it does on the other devices, one parameter after the other."""
    (found, optimizer), (expected, slow) = held(name), held(name, "reference")
    counting = Counting(get_device(device).executor)
    monkeypatch.setattr(get_device(device), "_kernels", cuda.Kernels(counting))
    for step in (1, 2):
        optimizer.step(0.1)
        slow.step(0.1)
        assert counting.launches == step
    for key, parameter in found.items():
        np.testing.assert_allclose(parameter.data, expected[key].data, rtol=1e-12, atol=1e-13)
    for slot, arrays in optimizer.state.items():
        for key, array in arrays.items():
            np.testing.assert_allclose(array, slow.state[slot][key], rtol=1e-12, atol=1e-13)
    assert not optimizer.state[optimizer.slots[0]]["idle.weight"].any()


@on_simulator
def test_a_frozen_parameter_stops_the_step_before_anything_changes(device):
    parameters, optimizer = held("sgd")
    parameters["score.bias"].freeze()
    before = {key: parameter.data.copy() for key, parameter in parameters.items()}
    with pytest.raises(MinifcnError, match=r"score\.bias"):
        optimizer.step(0.1)
    for key, parameter in parameters.items():
        np.testing.assert_array_equal(parameter.data, before[key])


@on_simulator
def test_a_read_only_array_of_a_table_is_refused(device):
    call = calls_of("sgd_step", [5], np.float32)[0]
    call[0].flags.writeable = False
    with pytest.raises(
        ExecutorError, match=r"an array that argument 0 \(rows\) points to is written to, but .* read-only"
    ):
        cuda.kernels_of(device).sgd_step(*call)


@on_simulator
@pytest.mark.parametrize("kernel", list(RULES))
def test_the_sanitizer_finds_nothing(device, kernel):
    kernels = cuda.Kernels(SimExecutor("check", "last"))
    calls = calls_of(kernel, [5, 0, CHUNK + 3, 1], np.float32)
    kernels.together[kernel](lambda: calls)


FAULTS = {  # what is planted, and what is said of it
    "an edge": ("i < end", "i <= end", r"out of bounds: .* an array that argument 0 \(rows\) points to"),
    "a row too many": ("high = count - 1", "high = count", r"out of bounds: .* of argument 0 \(rows\)"),
    "chunks that overlap": ("smaller(start + chunk,", "smaller(start + chunk + 1,", "race"),
    "a gradient is written": ("w[i] -=", "const_cast<T*>(g)[i] -=", "write to const"),
}


@on_simulator
@pytest.mark.parametrize("fault", list(FAULTS))
def test_the_sanitizer_knows_the_arrays_of_a_table(device, fault, tmp_path):
    there, planted, finding = FAULTS[fault]
    text = (FOLDER / "optimizers.cu").read_text("utf-8")
    assert text.count(there) == 1
    (tmp_path / "common.cuh").write_text((FOLDER / "common.cuh").read_text("utf-8"), "utf-8")
    path = tmp_path / "optimizers.cu"
    path.write_text(text.replace(there, planted), "utf-8")
    kernels = cuda.Kernels(Redirected(SimExecutor("check"), "optimizers.cu", str(path)))
    calls = calls_of("sgd_step", [5, CHUNK + 3, 1], np.float32)
    with pytest.raises(SanitizerError, match=finding):
        kernels.together["sgd_step"](lambda: calls)
