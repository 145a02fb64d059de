"""A step as one graph: the bits of the step launch by launch; what a graph would freeze or leave out shows."""

import functools
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from minifcn import cli, device, models, ops, optim
from minifcn.bench.networks import OwnNetwork
from minifcn.bench.work import Network
from minifcn.configuration import TrainConfig
from minifcn.device import Device, get_device
from minifcn.errors import MinifcnError, TrainingError
from minifcn.kernels import cuda
from minifcn.kernels.checks import ShapeError
from minifcn.kernels.cpu import graph as cpu_graph
from minifcn.kernels.cpu import optimizers as cpu_optimizers
from minifcn.kernels.cuda import launch, optimizers
from minifcn.kernels.cuda.executors import ExecutorError
from minifcn.kernels.graph import Graph
from minifcn.kernels.memory import CaptureError
from minifcn.models.trunk import Trunk
from minifcn.stepgraph import StepGraph
from minifcn.tensor import Tensor
from minifcn.training import Run

from .cuda import fakecupy
from .devices import on_devices

on_host = pytest.mark.parametrize("place", on_devices("cpu", "cuda-sim"))
on_simulator = pytest.mark.parametrize("place", on_devices("cuda-sim"))
# 7 images an epoch, drawn anew: steps of batches [2, 2] and [2, 1], so that every other one is of another shape.
SMALL = {
    "data": "scenes:32x32",
    "crop": (16, 24),
    "width": 0.1,
    "batch": 2,
    "accumulate": 2,
    "sampling": "replacement",
    "epoch_images": 7,
    "steps": 12,
    "evaluate_every": 99,
    "lr": 0.02,
    "weight_decay": 0.01,
}
WEIGHTS = (0.5, 3.0, 1.0, 0.25, 2.0, 1.5, 0.75, 1.0)
RUNS = {
    "sgd-caffe": {
        "optimizer": "sgd-caffe",
        "reduction": "batch",
        "bias_rule": "caffe",
        "lr": 1e-4,
        "accumulate": 1,
        "batch": 3,
    },
    "class weights": {"class_weights": WEIGHTS},
    "full steps": {"class_weights": WEIGHTS, "epoch_images": 8},
    "adam": {"optimizer": "adam", "lr": 1e-3, "schedule": "step", "drop_every": 3},
    "adamw, float64": {"optimizer": "adamw", "lr": 1e-3, "dtype": "float64", "class_weights": WEIGHTS},
    "learned, at once": {"deconv": "learned", "model": "fcn8s-at-once", "reduction": "full"},
    "bfloat16": {"precision": "bfloat16", "width": 0.25},
    "alexnet": {"backbone": "alexnet", "model": "fcn32s", "deconv": "learned", "width": 0.05, "steps": 6, "lr": 1e-3},
}


@pytest.fixture(autouse=True)
def _garbage(monkeypatch):
    """All memory of a graph on the CPU begins each replay as NaN, as that of one on the simulator does by itself."""
    launch_all = cpu_graph.CpuGraph._launch

    def spoiled(graph):
        graph.memory.spoil()
        launch_all(graph)

    monkeypatch.setattr(cpu_graph.CpuGraph, "_launch", spoiled)


def trained(folder, **settings):
    """(run, loss of every step) of a whole training."""
    run = Run.start(folder, TrainConfig(**SMALL | settings))
    run.train()
    return run, losses_of(folder)


def losses_of(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def state_of(run):
    return run.network.state_dict() | run.optimizer.state_dict()


def same(run, other):
    found, expected = state_of(run), state_of(other)
    return found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)


@functools.cache
def launched(folder, name, place):
    """The run `name` of RUNS, launch by launch."""
    return trained(folder / f"{name} on {place}", **RUNS[name], device=place, graph=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("launched")


# --- whole trainings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", on_devices("cpu", "cuda-sim", "cuda"))
@pytest.mark.parametrize("name", list(RUNS))
def test_a_training_has_the_bits_of_one_without(place, name, folder, tmp_path):
    if RUNS[name].get("precision") and place == "cpu":
        pytest.skip("the CPU has no other precision")
    expected, losses = launched(folder, name, place)
    run, found = trained(tmp_path / "run", **RUNS[name], device=place, graph=True)
    assert found == losses
    assert len(set(losses)) == len(losses) == run.total_steps
    assert same(run, expected)
    assert expected.step_graph is None
    if place == "cpu":  # the evaluation, and steps of another shape, work in the memory of a graph on the CPU
        assert run.step_graph.graph is None
    else:
        assert run.step_graph.graph is not None
    if place == "cuda-sim":
        assert len(run.step_graph.graph.launches) > 50


@on_host
def test_a_step_of_another_shape_is_launched(place, tmp_path, monkeypatch):
    """Of 12 steps six are full: the first is launched from the graph's inputs, the second captured, five replayed."""
    counted = {"calls": 0, "replays": 0}

    def counting(name, function):
        def call(*arguments):
            counted[name] += 1
            return function(*arguments)

        return call

    monkeypatch.setattr(StepGraph, "__call__", counting("calls", StepGraph.__call__))
    monkeypatch.setattr(StepGraph, "_replay", counting("replays", StepGraph._replay))
    trained(tmp_path / "run", graph=True, device=place)
    assert counted == {"calls": 6, "replays": 5}


@on_host
def test_the_graph_is_for_full_steps_of_one_shape(place, tmp_path):
    """Also where a resumed run begins with a smaller one."""
    run = Run.start(tmp_path / "run", TrainConfig(**SMALL, graph=True, device=place))
    sizes = {"full": (2, 3, 16, 24), "short": (1, 3, 16, 24), "other": (2, 3, 16, 16)}

    def fits(*names):
        return run._fits_graph([SimpleNamespace(images=np.empty(sizes[name])) for name in names])

    assert not fits("full", "short")
    assert not fits("short", "short")
    assert not fits("full")
    assert not fits("full", "other")
    assert fits("full", "full")
    assert not fits("other", "other")
    assert fits("full", "full")


@on_host
@pytest.mark.parametrize("stop", [2, 5])
def test_a_resumed_training_has_the_bits_of_one_without(place, stop, folder, tmp_path):
    expected, losses = launched(folder, "class weights", place)
    run = Run.start(tmp_path / "run", TrainConfig(**SMALL | RUNS["class weights"], graph=True, device=place))
    run.train(stop=lambda: run.standing.step == stop)
    again = Run.resume(tmp_path / "run")
    assert again.config.graph is True
    again.train()
    assert losses_of(tmp_path / "run") == losses
    assert same(again, expected)


# --- what must not be in a graph: each makes a training wrong --------------------------------------------------------


def at_a_fixed_step(self, seed, step):
    """`Trunk.at_step` with the step by value."""
    return AT_STEP(self, seed, int(step[0]) if isinstance(step, np.ndarray) else step)


AT_STEP, WRITE = Trunk.at_step, StepGraph._write


def with_the_shares_of_the_first_step(self, batches, step):
    """`StepGraph._write` as if the loss's normalisation were a constant."""
    self.first = getattr(self, "first", batches)
    WRITE(self, batches, step)
    for share, batch in zip(self.shares, self.first, strict=True):
        share.fill(batch.rule.share(np.asarray(1 / len(batches), share.dtype)))


def constant(on, make):
    """`launch.from_host` by value."""
    return on.xp.asarray(make()) if on.graph is None else on.graph.constant(make().copy())


def constant_on_the_cpu(make, given, later):
    """`graph.from_host` by value."""
    return make(given)


def nothing_new(self, array, values):
    """`Graph.feed` that leaves what was there."""


FREEZING = {
    "a dropout step by value": [(Trunk, "at_step", at_a_fixed_step)],
    "rates by value": [(optimizers, "from_host", constant), (cpu_optimizers, "from_host", constant_on_the_cpu)],
    "shares by value": [(StepGraph, "_write", with_the_shares_of_the_first_step)],
    "images of the capture": [(cpu_graph.CpuGraph, "feed", nothing_new), (Graph, "feed", nothing_new)],
}


@on_host
@pytest.mark.parametrize("fault", list(FREEZING))
def test_what_is_frozen_shows(place, fault, folder, tmp_path, monkeypatch):
    _, losses = launched(folder, "full steps", place)
    for target in FREEZING[fault]:
        monkeypatch.setattr(*target)
    _, found = trained(tmp_path / "run", **RUNS["full steps"], graph=True, device=place)
    assert found[0] == losses[0]
    assert found != losses


@on_host
def test_what_is_left_out_shows(place, tmp_path, monkeypatch):
    monkeypatch.setattr(Device, "add", lambda self, a, b: a + b)
    with pytest.raises(TrainingError, match="the loss became nan"):
        trained(tmp_path / "run", graph=True, device=place)


def test_an_array_that_numpy_would_bring_into_order_is_refused():
    """On the CPU, where NumPy computes on arrays of the graph without a word."""
    place, x = get_device("cpu"), np.zeros((1, 4, 4, 8), np.float32)
    with pytest.raises(CaptureError, match=r"bringing an array .* into order is not a launch"), place.capture():
        place.kernel("relu_forward")(x[:, ::2])
    with pytest.raises(CaptureError, match=r"the copy of a map .* is not a launch"), place.capture():
        ops.reshape(Tensor(x.transpose(0, 3, 1, 2)), (1, 32, 4))


# --- what a graph of steps refuses ------------------------------------------------------------------------------------


def tiny(place="cuda-sim"):
    network = models.build("fcn32s", backbone="small", classes=3, width=0.05).to(place)
    return network, optim.SGD(dict(network.named_parameters()))


def loss_of(network):
    return lambda images, labels, weight, reduction: network.loss(images, labels, weight, 255, reduction)


def batch(size=(8, 8), label=1, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((1, 3, *size)).astype(np.float32), np.full((1, *size), label, np.int64)


@on_host
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_are_those_of_the_step(place, reduction):
    """And those of an ordinary step in between are not touched."""
    (network, optimizer), (other, slow) = tiny(place), tiny(place)
    step = StepGraph(network, optimizer, loss_of(network), None, reduction, seed=3)
    for number in range(4):
        images, labels = batch(seed=number)
        (found,) = step([step.inputs(images, labels)], number, 1e-3)
        other.train().at_step(3, number).zero_grad()
        loss = other.loss(Tensor(images, device=place), labels, None, 255, reduction)
        loss.backward()
        slow.step(1e-3)
        assert found == loss.item()
        for parameter, expected in zip(network.parameters(), other.parameters(), strict=True):
            np.testing.assert_array_equal(parameter.grad.numpy(), expected.grad.numpy())
            np.testing.assert_array_equal(parameter.numpy(), expected.numpy())
        network.zero_grad()


@on_host
def test_misuse_is_named(place):
    network, optimizer = tiny(place)
    step = StepGraph(network, optimizer, loss_of(network))
    with pytest.raises(ShapeError, match=r"label \(=3\) of image 0, row 0, column 0 must be a class from 0 to 2"):
        step.inputs(*batch(label=3))
    for number in range(3):
        (loss,) = step([step.inputs(*batch())], number, 0.1)
        assert np.isfinite(loss)
    with pytest.raises(MinifcnError, match=r"a graph of steps over .*8, 8.* was given batches of .*9, 9"):
        step([step.inputs(*batch((9, 9)))], 3, 0.1)
    network.fc6.weight.freeze()
    before = {name: array.copy() for name, array in network.state_dict().items()}
    with pytest.raises(MinifcnError, match=r"a step as one graph would write to frozen parameters \(fc6.weight\)"):
        step([step.inputs(*batch())], 3, 0.1)
    assert all(np.array_equal(array, before[name]) for name, array in network.state_dict().items())
    assert optimizer.steps == 3
    with pytest.raises(MinifcnError, match="needs device cpu, cuda or cuda-sim, not reference"):
        StepGraph(*tiny("reference"), None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"device": "reference"}, r"graph \(=True\) needs device cpu, cuda or cuda-sim, not 'reference'"),
        ({"device": "cuda", "clip_norm": 5.0}, r"clip_norm \(=5.0\), which waits for the gradient's norm"),
    ],
)
def test_settings_that_a_graph_refuses(settings, words):
    with pytest.raises(TrainingError, match=words):
        TrainConfig(**settings, graph=True)
    assert not TrainConfig(**settings).replays_steps
    assert not TrainConfig(**settings, graph=False).replays_steps


NO_LAUNCHES = {
    "classifier": ({"task": "classify", "data": "shapes:32x32"}, "classifier over small, which flattens maps"),
    "upsampling": ({"data": "scenes:32x48", "model": "fcn32s", "backbone": "alexnet"}, "fcn32s over alexnet, which"),
}


@on_host
@pytest.mark.parametrize("name", list(NO_LAUNCHES))
def test_networks_that_a_graph_cannot_hold(place, name, tmp_path):
    """Nothing is written by a run that asks for a graph; by default it has none."""
    settings, words = NO_LAUNCHES[name]
    config = TrainConfig(**settings, width=0.1, device=place, graph=True)
    with pytest.raises(TrainingError, match=rf"graph \(=True\) is not for {words} .*without a kernel: leave it out"):
        Run.start(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()
    run = Run(tmp_path / "run", replace(config, graph=None))
    assert not run.replays
    assert Run(tmp_path / "run", TrainConfig(data="scenes:32x48", width=0.1, device=place, graph=True)).replays
    parameters = dict(run.network.named_parameters())
    with pytest.raises(MinifcnError, match=r"a step as one graph cannot hold this network: it .* without a kernel"):
        StepGraph(run.network, optim.SGD(parameters), loss_of(run.network))


@on_host
def test_other_arrays_of_parameters_are_captured_anew(place):
    network, optimizer = tiny(place)
    step = StepGraph(network, optimizer, loss_of(network))
    for number in range(4):
        if number == 3:  # two replays are behind it
            bias = network.score_fr.bias
            bias.data = bias.data + 1
            old = bias.numpy().copy()
        step([step.inputs(*batch())], number, 0.1)
    assert not np.array_equal(bias.numpy(), old)
    assert step.unchanged


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"batch": 1}, False),
        ({"batch": 1, "crop": (64, 64)}, True),
        ({"scale": (0.5, 2.0)}, False),
        ({"scale": (0.5, 2.0), "crop": (64, 64)}, True),
        ({"graph": False}, False),
        ({"batch": 1, "graph": True}, True),
        ({"device": "cpu"}, True),
        ({"device": "cpu", "batch": 1}, False),
        ({"device": "cuda-sim"}, False),
        ({"device": "cuda-sim", "graph": True}, True),
    ],
)
def test_the_default(settings, expected):
    assert TrainConfig(**{"device": "cuda"} | settings).replays_steps is expected


@pytest.mark.parametrize("graph", [True, False, None])
def test_the_setting_is_kept(graph, tmp_path):
    config = TrainConfig(device="cuda-sim", graph=graph)
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert ("graph" in config.to_toml()) == (graph is not None)
    assert TrainConfig.from_toml(tmp_path / "config.toml") == config


@on_host
def test_the_command(place, tmp_path, capsys):
    options = ["train", "--device", place, "--data", "scenes:32x32", "--crop", "16,24", "--width", "0.05"]
    options += ["--steps", "3", "--batch", "1", "--no-ledger", "--run", str(tmp_path / "run")]
    assert cli.main([*options, "--graph"]) == 0
    assert f"3 steps on device {place}, replayed as one graph" in " ".join(capsys.readouterr().out.split())
    assert TrainConfig.from_toml(tmp_path / "run" / "config.toml").graph is True
    assert cli.main(["train", "--device", "reference", "--graph", "--run", str(tmp_path / "other")]) == 2
    assert "graph (=True) needs device cpu, cuda or cuda-sim, not 'reference'" in " ".join(
        capsys.readouterr().err.split()
    )


# --- the benchmark ----------------------------------------------------------------------------------------------------


@on_host
def test_a_benchmark_takes_the_same_steps(place, capsys):
    one = Network("step", "fcn32s", size=(8, 8), batch=1, classes=3, sets=2)
    own, other = (OwnNetwork(replace(one, graph=graph), place) for graph in (True, False))
    losses = [own.call(number).item() for number in range(3)]
    assert losses == [other.call(number).item() for number in range(3)]
    assert len(set(losses)) == 3
    assert own.graph.graph is not None
    assert cli.main(["bench", "step", "--graph", "--device", "reference"]) == 2
    assert "--graph needs a device that has graphs of launches, not reference" in capsys.readouterr().err


# --- the other executor -----------------------------------------------------------------------------------------------


@pytest.fixture
def _fake_gpu(monkeypatch):
    """The device `cuda`, whose kernels the simulator runs."""
    monkeypatch.setitem(sys.modules, "cupy", fakecupy.module())
    monkeypatch.setattr(device, "_DEVICES", {name: one for name, one in device._DEVICES.items() if name != "cuda"})
    cuda.kernels_of.cache_clear()
    launch._tables.cache_clear()
    yield
    cuda.kernels_of.cache_clear()
    launch._tables.cache_clear()


@on_simulator
@pytest.mark.usefixtures("_fake_gpu")
@pytest.mark.parametrize("name", ["class weights", "adam"])
def test_by_stream_capture(place, name, folder, tmp_path):
    """On a `cupy` that captures launches alone: no copy between host and device, no memory but the graph's own."""
    expected, losses = launched(folder, name, "cuda-sim")
    run, found = trained(tmp_path / "run", **RUNS[name], device="cuda")
    assert run.config.graph is None
    assert run.step_graph.graph.captured.replays == 5
    assert len(run.step_graph.graph.captured.launches) > 50
    assert found == losses
    assert same(run, expected)


@on_simulator
@pytest.mark.usefixtures("_fake_gpu")
def test_what_cannot_be_captured_is_named(place, tmp_path, monkeypatch):
    monkeypatch.setattr(Device, "add", lambda self, a, b: self.asarray(np.array(a + b)))
    with pytest.raises(ExecutorError, match=r"device 'cuda' cannot capture these launches .*StreamCaptureUnsupported"):
        trained(tmp_path / "run", device="cuda")
    assert fakecupy.CURRENT.launches is None
