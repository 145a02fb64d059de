"""Rates of single parameters, clipping, and Caffe's solver: each against values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn import optim
from minifcn.errors import MinifcnError
from minifcn.kernels import cpu, reference
from minifcn.kernels.cpu.threads import GRAIN
from minifcn.nn import Parameter
from minifcn.optim import Multiplier, multipliers
from minifcn.tensor import Tensor

NAMES = ("conv1_1.weight", "conv1_1.bias", "score_fr.weight", "score_fr.bias")


def parameters(**values: list[float]) -> dict[str, Parameter]:
    return {name.replace("__", "."): Parameter(np.array(value, np.float64)) for name, value in values.items()}


def give(parameters: dict[str, Parameter], **gradients: list[float]) -> None:
    for name, value in gradients.items():
        parameters[name.replace("__", ".")].grad = Tensor(np.array(value, np.float64))


@pytest.mark.parametrize(
    ("rule", "doubled"), [("plain", ()), ("caffe", (NAMES[1], NAMES[3])), ("caffe-scores", (NAMES[3],))]
)
def test_which_biases_learn_at_twice_the_rate_without_decay(rule, doubled):
    found = multipliers(NAMES, rule)
    assert found == {name: Multiplier(2, 0) if name in doubled else Multiplier(1, 1) for name in NAMES}


def test_new_layers_have_their_own_rate_and_the_bias_rule_on_top():
    found = multipliers(NAMES, "caffe", ["score_fr"], 10)
    assert [found[name] for name in NAMES] == [Multiplier(), Multiplier(2, 0), Multiplier(10), Multiplier(20, 0)]


def test_an_unknown_bias_rule_is_named():
    with pytest.raises(MinifcnError, match=r"bias_rule .*'none'.* must be one of plain, caffe, caffe-scores"):
        multipliers(NAMES, "none")


def test_two_steps_of_caffes_solver_by_hand():
    # v = mu v + lr lr_mult (g + wd decay_mult w), w -= v; mu .5, wd .1, lr 1 and then .5 (inside the velocity)
    held = parameters(a__weight=[2.0], a__bias=[2.0])
    solver = optim.build("sgd-caffe", held, 0.5, 0.1, multipliers(held, "caffe"))
    give(held, a__weight=[1.0], a__bias=[1.0])
    solver.step(1.0)
    # weight: v = 1 + .2 = 1.2, w = .8; bias: v = 2, w = 0
    np.testing.assert_allclose([held["a.weight"].data[0], held["a.bias"].data[0]], [0.8, 0.0], rtol=1e-15)
    solver.step(0.5)
    # weight: v = .6 + .5 (1 + .08) = 1.14, w = -.34; bias: v = 1 + 1, w = -2
    np.testing.assert_allclose([held["a.weight"].data[0], held["a.bias"].data[0]], [-0.34, -2.0], rtol=1e-14)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_multipliers_are_a_rate_and_a_decay_of_ones_own(name):
    """A parameter with multipliers moves like one in an optimiser with that rate and decay for all."""
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal(5), rng.standard_normal((3, 5))
    mixed, alone = parameters(a__weight=start, b__weight=start), parameters(b__weight=start)
    one = optim.build(name, mixed, 0.9, 0.25, {"b.weight": Multiplier(4, 2)})
    other = optim.build(name, alone, 0.9, 0.5)
    for gradient in gradients:
        give(mixed, a__weight=gradient, b__weight=gradient)
        give(alone, b__weight=gradient)
        one.step(0.125)
        other.step(0.5)
    np.testing.assert_array_equal(mixed["b.weight"].data, alone["b.weight"].data)
    assert (mixed["a.weight"].data != alone["b.weight"].data).all()


def test_clipping_by_hand():
    held = parameters(a__weight=[0.0, 0.0], b__weight=[0.0], c__weight=[0.0])
    give(held, a__weight=[2.0, -3.0], b__weight=[6.0])  # norm 7; c has no gradient
    assert optim.clip_gradients(held.values(), 14.0) == 7
    np.testing.assert_array_equal(held["a.weight"].grad.data, [2, -3])
    assert optim.clip_gradients(held.values(), 3.5) == 7
    np.testing.assert_array_equal(held["a.weight"].grad.data, [1, -1.5])
    np.testing.assert_array_equal(held["b.weight"].grad.data, [3])
    assert held["c.weight"].grad is None


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_a_clipped_gradient_keeps_its_direction_and_has_the_norm_of_the_limit(seed, limit):
    rng = np.random.default_rng(seed)
    held = {
        "a.weight": Parameter(np.zeros((3, 2, 3, 3), np.float32)),  # channels last in memory
        "a.bias": Parameter(np.zeros(3, np.float32)),
    }
    for parameter in held.values():
        parameter.grad = Tensor(rng.standard_normal(parameter.shape).astype(np.float32))
    before = [parameter.grad.data.copy() for parameter in held.values()]
    norm = math.sqrt(sum(float((array.astype(np.float64) ** 2).sum()) for array in before))
    assert optim.clip_gradients(held.values(), limit) == pytest.approx(norm, rel=1e-12)
    factor = min(1, limit / norm)
    for parameter, array in zip(held.values(), before, strict=True):
        np.testing.assert_allclose(parameter.grad.data, factor * array, rtol=1e-6)


# --- many parameters in one launch ---

RULES = {
    "sgd_step": lambda i: (0.1 * i + 0.01, 0.9, 0.01 * i, ("caffe", "pytorch")[i % 2]),
    "adam_step": lambda i: (0.1 * i + 0.01, (0.8, 0.99), 1e-8, 0.01 * i, i + 1, bool(i % 2)),
}


def calls_of(kernel, sizes, dtype, seed=0):
    """Arguments of `kernel` for a parameter of each size, with rates and decays of its own."""
    rng = np.random.default_rng(seed)
    states = 1 if kernel == "sgd_step" else 2
    return [
        (
            *(rng.standard_normal(size).astype(dtype) for _ in range(2)),
            *(abs(rng.standard_normal(size)).astype(dtype) for _ in range(states)),
            *RULES[kernel](i),
        )
        for i, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", list(RULES))
@given(
    sizes=st.lists(st.integers(0, 40) | st.sampled_from([GRAIN - 1, GRAIN, 2 * GRAIN + 3]), max_size=6),
    seed=st.integers(0, 99),
)
def test_one_launch_for_many_parameters_has_the_bits_of_one_launch_each(kernel, dtype, sizes, seed):
    together, alone, expected = (calls_of(kernel, sizes, dtype, seed) for _ in range(3))
    cpu.together[kernel](lambda: together)
    for one, call, wanted in zip(together, alone, expected, strict=True):
        getattr(cpu, kernel)(*call)
        getattr(reference, kernel)(*wanted)
        for i in range(len(call) - len(RULES[kernel](0))):
            np.testing.assert_array_equal(one[i], call[i])
            close = {"rtol": 1e-4, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-12, "atol": 1e-13}
            np.testing.assert_allclose(one[i], wanted[i], **close)


def test_one_launch_takes_parameters_of_both_dtypes_in_any_memory_order():
    rng = np.random.default_rng(0)
    found, expected = ([], [])
    for dtype, shape in ((np.float32, (5, 3, 2, 4)), (np.float64, (7,)), (np.float32, (2, 6, 1, 1))):
        w, g, velocity = (rng.standard_normal(shape).astype(dtype) for _ in range(3))
        expected.append((w.copy(), g, velocity.copy(), 0.5, 0.9, 0.1))
        if len(shape) == 4:  # channels last; the gradient lies in another order, and nobody may write to it
            w, velocity = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (w, velocity))
        g.flags.writeable = False
        found.append((w, g, velocity, 0.5, 0.9, 0.1))
    cpu.together["sgd_step"](lambda: found)
    for call, wanted in zip(found, expected, strict=True):
        reference.sgd_step(*wanted)
        np.testing.assert_allclose(call[0], wanted[0], rtol=1e-5)
        np.testing.assert_allclose(call[2], wanted[2], rtol=1e-5)
