"""Frozen weights: nobody writes to them, kernels prepare them once, and what is written in between is seen."""

from dataclasses import replace

import numpy as np
import pytest

import minifcn
from minifcn import models, optim
from minifcn.configuration import TrainConfig
from minifcn.data import Dataset, Normalization, open_dataset
from minifcn.errors import DataError, MinifcnError
from minifcn.kernels.cpu import ladder
from minifcn.kernels.cpu.constants import is_constant
from minifcn.kernels.settings import settings
from minifcn.segmenter import Segmenter
from minifcn.tensor import Tensor
from minifcn.training import Run

CLASSES = 8


def network(seed: int = 0):
    """A narrow network whose every weight is random, in evaluation mode."""
    net = models.build("fcn8s", backbone="small", classes=CLASSES, width=1.0).eval()
    randomise(net, seed)
    return net


def randomise(net, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for parameter in net.parameters():
        fan_in = max(1, parameter.size // parameter.shape[0])
        parameter.data[...] = rng.standard_normal(parameter.shape) * (2 / fan_in) ** 0.5


def image(seed: int = 1, size: tuple[int, int] = (33, 46)) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal((1, 3, *size)).astype(np.float32))


class FewScenes(Dataset):
    """The first `count` validation scenes; the label of image `lost` is missing."""

    def __init__(self, count: int, lost: int | None = None) -> None:
        self.scenes, self.count, self.lost = open_dataset("scenes:32x48", "val"), count, lost
        self.classes, self.palette = self.scenes.classes, self.scenes.palette

    def __len__(self) -> int:
        return self.count

    def source(self, index: int) -> str:
        return f"scene {index}"

    def __getitem__(self, index: int):
        sample = self.scenes[index]
        return replace(sample, label=None) if index == self.lost else sample


def segmenter_of(net) -> Segmenter:
    scenes = FewScenes(1)
    return Segmenter(net, Normalization((120, 120, 120), 50), scenes.classes, scenes.palette)


@pytest.fixture
def prepared(monkeypatch) -> list[str]:
    """Grows by a rung's name whenever weights are brought into the form that it wants."""
    calls: list[str] = []
    for name, rung in ladder.RUNGS.items():
        for function in ("forward_weights", "backward_input_weights"):
            make = getattr(rung, function)
            monkeypatch.setattr(rung, function, lambda geo, w, name=name, make=make: calls.append(name) or make(geo, w))
    return calls


def are_writable(net) -> bool:
    return all(parameter.data.flags.writeable and not parameter.is_frozen for parameter in net.parameters())


# --- what freezing is --------------------------------------------------------------------------------------------


def test_frozen_weights_are_the_same_numbers_and_cannot_be_written_to():
    net = network()
    before = {name: array.copy(order="K") for name, array in net.state_dict().items()}
    assert net.freeze() is net
    for name, parameter in net.named_parameters():
        assert is_constant(parameter.data)
        assert parameter.data.strides == before[name].strides
        np.testing.assert_array_equal(parameter.numpy(), before[name])
        with pytest.raises(ValueError, match="read-only"):
            parameter.data[...] = 0
        with pytest.raises(ValueError, match="read-only"):
            parameter.numpy()[0] = 0
    assert net.unfreeze() is net
    assert are_writable(net)
    randomise(net, 1)


def test_freezing_twice_is_freezing_once():
    net = network().freeze().freeze()
    net.unfreeze()
    assert are_writable(net)


def test_a_block_restores_what_was_before():
    net = network()
    net.fc6.freeze()
    with net.frozen():
        assert all(parameter.is_frozen for parameter in net.parameters())
    assert {name for name, parameter in net.named_parameters() if parameter.is_frozen} == {"fc6.weight", "fc6.bias"}


@pytest.mark.parametrize("convolution", ["exact", "direct", "gemm", "winograd1d", "winograd2", "winograd4"])
def test_the_same_labels_and_logits_to_the_last_bit(convolution):
    """Under one algorithm; "fastest" may choose another one where weights are prepared only once."""
    net, x = network(), image()
    with settings.using(convolution=convolution):
        logits, labels = net(x).numpy().copy(), net.labels(x)
        with net.frozen():
            for _ in range(2):
                np.testing.assert_array_equal(net(x).numpy(), logits)
                np.testing.assert_array_equal(net.labels(x), labels)
    assert len(np.unique(labels)) > 1


def test_gradients_of_frozen_weights_are_the_same():
    net, x = network(), image()
    target = np.random.default_rng(2).integers(0, CLASSES, (1, *x.shape[2:]))

    def gradients() -> dict[str, np.ndarray]:
        net.zero_grad()
        net.loss(x, target).backward()
        return {name: parameter.grad.numpy().copy() for name, parameter in net.named_parameters()}

    with settings.using(convolution="winograd4"):
        expected = gradients()
        with net.frozen():
            found = gradients()
    assert all(expected[name].any() and np.array_equal(found[name], expected[name]) for name in expected)


def test_what_was_written_in_between_is_seen():
    """What kernels derived from weights that have changed since must not be used again."""
    net, x = network(), image()
    with settings.using(convolution="winograd4"):
        for seed in (3, 4):
            randomise(net, seed)
            with net.frozen():
                found = net(x).numpy().copy()
            np.testing.assert_array_equal(found, network(seed)(x).numpy())


# --- who would write ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_an_optimiser_refuses_frozen_parameters_and_changes_nothing(name):
    net, x = network(), image()
    optimizer = optim.build(name, dict(net.named_parameters()), 0.9, 0.0)
    net.loss(x, np.zeros((1, *x.shape[2:]), np.uint8)).backward()
    before = {key: array.copy() for key, array in net.state_dict().items()}
    net.conv1_1.freeze()
    with pytest.raises(MinifcnError, match=r"^step\(\) .* frozen .*\(conv1_1\.weight, conv1_1\.bias\): call unfreeze"):
        optimizer.step(0.1)
    assert optimizer.steps == 0
    assert all(np.array_equal(array, before[key]) for key, array in net.state_dict().items())
    net.unfreeze()
    optimizer.step(0.1)
    assert optimizer.steps == 1
    assert not np.array_equal(net.conv1_1.bias.numpy(), before["conv1_1.bias"])


def test_an_optimiser_leaves_frozen_parameters_without_a_gradient_alone():
    net, x = network(), image()
    optimizer = optim.build("sgd", dict(net.named_parameters()), 0.9, 0.0)
    net.loss(x, np.zeros((1, *x.shape[2:]), np.uint8)).backward()
    net.conv1_1.freeze().zero_grad()
    before = net.conv1_1.weight.numpy().copy()
    optimizer.step(0.1)
    np.testing.assert_array_equal(net.conv1_1.weight.numpy(), before)


def test_load_state_dict_refuses_frozen_parameters_and_changes_nothing():
    net, other = network(0), network(1)
    before = {key: array.copy() for key, array in net.state_dict().items()}
    net.score_fr.freeze()
    with pytest.raises(MinifcnError, match=r"^load_state_dict\(\) .*\(score_fr\.weight, score_fr\.bias\)"):
        net.load_state_dict(other.state_dict())
    assert all(np.array_equal(array, before[key]) for key, array in net.state_dict().items())
    net.unfreeze().load_state_dict(other.freeze().state_dict())
    assert are_writable(net)


def test_a_frozen_network_moves_and_stays_frozen():
    net = network().freeze().to("reference")
    assert all(is_constant(parameter.data) for parameter in net.parameters())
    assert {parameter.device for parameter in net.parameters()} == {"reference"}
    assert are_writable(net.unfreeze())


# --- who freezes -------------------------------------------------------------------------------------------------


def test_an_evaluation_prepares_weights_once(prepared):
    net = network()
    layers = sum(parameter.ndim == 4 for parameter in net.parameters())
    segmenter = segmenter_of(net)
    whole = segmenter.evaluate(FewScenes(4))
    assert len(prepared) == layers
    assert are_writable(net)
    single = [segmenter(FewScenes(4)[index].image) for index in range(4)]
    assert len(prepared) == 5 * layers  # image by image: anew each time
    counts = minifcn.segmenter.sum_confusion((), CLASSES)
    for index, label in enumerate(single):
        counts.update(FewScenes(4)[index].label, label)
    np.testing.assert_array_equal(whole.counts, counts.counts)


@pytest.mark.parametrize("leave", ["an error", "a break"])
def test_weights_are_writable_after_an_evaluation_that_ends_early(leave):
    net = network()
    segmenter = segmenter_of(net)
    if leave == "an error":
        with pytest.raises(DataError, match="scene 1: has no label"):
            segmenter.evaluate(FewScenes(3, lost=1))
    else:
        confusions = segmenter.confusions(FewScenes(3))
        next(confusions)
        assert net.conv1_1.weight.is_frozen
        confusions.close()
    assert are_writable(net)


def test_a_loaded_segmenter_is_frozen_and_a_run_is_not(tmp_path, prepared):
    config = {"data": "scenes:32x48", "width": 0.5, "batch": 4, "steps": 2, "accumulate": 2}
    run = Run.start(tmp_path / "run", TrainConfig(**config))
    run.train()
    assert are_writable(run.network)
    layers = sum(parameter.ndim == 4 for parameter in run.network.parameters())
    segmenter = Segmenter.load(tmp_path / "run")
    assert all(parameter.is_frozen for parameter in segmenter.network.parameters())
    del prepared[:]
    for index in range(3):
        segmenter(FewScenes(3)[index].image)
    assert len(prepared) == layers
    del prepared[:]
    run.standing.losses = [1.0]
    run._end_epoch()  # 80 validation images, and four of them drawn
    assert len(prepared) == layers
    assert are_writable(run.network)
