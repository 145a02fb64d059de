"""The memory planner: its rehearsal asks for what the real thing asks for and costs nothing; what fits; the command."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn import Tensor, cli, ledger, no_grad, optim, planner
from minifcn.configuration import TrainConfig
from minifcn.errors import MinifcnError
from minifcn.kernels import memory
from minifcn.kernels.memory import Pool
from minifcn.kernels.settings import settings
from minifcn.models import GEOMETRIES, build
from minifcn.training import Run

SETTINGS = {"model": "fcn8s", "backbone": "small", "classes": 5}


@pytest.fixture
def one_thread():
    """A helper that is late keeps arrays alive a little longer, so that with two a pool may be larger than planned."""
    with settings.using(threads=1):
        yield


def planned_pool(plan, outside, phase):
    """What a plan says of the kernels' arrays alone."""
    return plan.phases[phase] - sum(plan.parts[name] for name in outside)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize(("deconv", "dtype"), [("fixed", "float32"), ("learned", "float32"), ("fixed", "float64")])
def test_a_step_asks_for_what_was_planned(one_thread, monkeypatch, geometry, deconv, dtype):
    about = SETTINGS | {"geometry": geometry, "deconv": deconv, "dtype": dtype}
    plan = planner.training(planner.without_values(about), (70, 52), 2, optim.SGD)
    pool = Pool()
    monkeypatch.setattr(memory, "empty", pool.empty)
    monkeypatch.setattr(memory, "workspace", pool.workspace)
    net = build(**about)
    images = Tensor(np.random.default_rng(0).random((2, 70, 52, 3)).astype(dtype).transpose(0, 3, 1, 2))

    def step():
        net.zero_grad()
        net.loss(images, np.zeros((2, 70, 52), np.int64)).backward()

    for _ in range(3):
        step()
    outside = ("optimiser state", "images and labels", "code of the kernels")
    assert planned_pool(plan, outside, "a step") == pool.usage().resident
    assert plan.parts["weights"] == plan.parts["gradients"] == sum(one.data.nbytes for one in net.parameters())
    assert all(count > 0 for count in plan.parts.values())


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_labelling_asks_for_what_was_planned(one_thread, monkeypatch, geometry):
    about = SETTINGS | {"geometry": geometry}
    plan = planner.prediction(planner.without_values(about), (90, 130))
    pool = Pool()
    monkeypatch.setattr(memory, "empty", pool.empty)
    monkeypatch.setattr(memory, "workspace", pool.workspace)
    net = build(**about).eval().freeze()
    images = Tensor(np.random.default_rng(0).random((1, 90, 130, 3)).astype(np.float32).transpose(0, 3, 1, 2))
    with no_grad():
        net.labels(images)
        net.labels(images)
    outside = ("images and labels", "code of the kernels")
    assert planned_pool(plan, outside, "labelling more images") == pool.usage().resident


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_ledger_asks_for_what_was_planned(one_thread, monkeypatch, tmp_path, optimizer):
    config = TrainConfig(data="scenes:96x80", batch=2, steps=5, optimizer=optimizer)
    run = Run.start(tmp_path / "run", config)
    plan = planner.training(run.network, (96, 80), 2, optim.kind(optimizer), ledger=True)
    pool = Pool()
    monkeypatch.setattr(memory, "empty", pool.empty)
    monkeypatch.setattr(memory, "workspace", pool.workspace)
    ledger.examine(run)
    weights = [one.data.nbytes for one in run.network.parameters()]
    held = 2 * sum(weights) + max(weights)  # the network itself and the weights before, and one array in passing
    outside = ("optimiser state", "images and labels", "code of the kernels")
    if optimizer == "adam":  # whose step does not depend on the gradient's size
        assert "the ledger before the first step" not in plan.phases
    else:
        planned = planned_pool(plan, outside, "the ledger before the first step")
        assert planned - held == pytest.approx(pool.usage().resident, rel=0.02)


def test_masks_and_activations_by_hand():
    """One bit an element of each ReLU, which says what a pooling needs as well, as `kernels` says."""
    about = SETTINGS | {"width": 0.5, "dropout": 0.0}
    net = planner.without_values(about)
    plan = planner.training(net, (64, 64), 1, optim.SGD)
    masks = 0
    side = 64
    for block in ((8,), (16,), (32, 32), (64, 64), (64, 64)):
        masks += sum(side * side * channels // 8 for channels in block)
        side //= 2
    masks += 2 * side * side * 128 // 8  # fc6, fc7
    assert plan.parts["masks"] == masks


def test_a_rehearsal_computes_nothing_and_leaves_nothing():
    before = memory.usage().used
    net = build(**SETTINGS)
    weights = [one.numpy().copy() for one in net.parameters()]
    used = memory.usage().used
    planner.training(net, (64, 64), 1, optim.Adam)
    planner.prediction(net, (64, 64))
    assert memory.usage().used == used > before
    assert not memory.rehearsing()
    assert all(np.array_equal(one.numpy(), old) for one, old in zip(net.parameters(), weights, strict=True))
    assert all(one.grad is None and not one.is_frozen for one in net.parameters())
    images = Tensor(np.ones((1, 3, 8, 8), np.float32))
    assert np.isfinite(net(images).numpy()).all()


def test_a_rehearsal_ends_with_an_error():
    with pytest.raises(ZeroDivisionError), memory.rehearsal():
        raise ZeroDivisionError
    assert not memory.rehearsing()


def test_kernels_of_other_threads_run_during_a_rehearsal():
    images = Tensor(np.random.default_rng(0).standard_normal((2, 3, 128, 128)).astype(np.float32))
    net = build(**SETTINGS).eval()
    with no_grad():
        expected = net(images).numpy()
        with memory.rehearsal() as pool, ThreadPoolExecutor(1) as other:
            found = other.submit(lambda: (memory.rehearsing(), net(images).numpy())).result()
            assert pool.usage().resident == 0
    assert not found[0]
    assert np.array_equal(found[1], expected)


def test_other_devices_are_refused():
    with pytest.raises(MinifcnError, match="device cpu, not for reference"):
        planner.prediction(build(**SETTINGS, width=0.1).to("reference"), (8, 8))


@given(limit=st.integers(0, 3000), most=st.integers(1, 2500))
def test_the_largest_that_fits(limit, most):
    asked = []

    def fits(number):
        asked.append(number)
        return number <= limit

    assert planner.largest(fits, most) == min(limit, most)
    assert max(asked) <= most


def test_memory_grows_with_the_image_and_a_tile_bounds_it():
    net = planner.without_values(SETTINGS)
    small, large = (planner.prediction(net, size).total for size in ((256, 256), (512, 1024)))
    assert small < large
    height, width = planner.fitting_tile(net, large)
    assert height == width
    assert height % 32 == 0
    with pytest.raises(MinifcnError, match="not even a tile of 32x32 fits"):
        planner.fitting_tile(net, 1 << 20)


def test_a_file_has_what_is_available():
    assert 0 < planner.available() < 1 << 50


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--memory", "4G"], 0, "fits"),
        (["--memory", "20M"], 1, "does not fit"),
        (["--predict", "--memory", "2GiB"], 0, "any image in tiles of"),
        (["--predict", "--memory", "20M"], 1, "not even a tile of 32x32 fits"),
    ],
)
def test_the_command(capsys, options, status, says):
    assert cli.main(["plan", "--size", "64x64", "--batch", "2", *options]) == status
    assert says in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--memory", "much"], ["--size", "64"], ["--memory", "0G"]])
def test_the_command_refuses_what_it_cannot_read(options, capsys):
    with pytest.raises(SystemExit):
        cli.main(["plan", *options])
    assert "must be" in capsys.readouterr().err
