"""The ledger says what theory says, and warns of each fault that is planted."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from minifcn import cli, ledger, optim
from minifcn.configuration import TrainConfig
from minifcn.errors import TrainingError
from minifcn.nn import Parameter
from minifcn.tensor import Tensor
from minifcn.training import Run

TINY = {"data": "scenes:32x40", "width": 0.25, "batch": 2, "steps": 2}


@pytest.fixture
def start(tmp_path):
    def make(**settings):
        return Run.start(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", TrainConfig(**TINY | settings))

    return make


def line(run, topic):
    found = [one for one in ledger.examine(run) if one.topic == topic]
    assert found, f"no line about {topic}"
    return found[0]


@pytest.mark.parametrize("reduction", ["mean", "full", "batch", "sum"])
def test_zero_scores_give_the_loss_of_theory(start, reduction):
    run = start(reduction=reduction)
    found = line(run, "loss")
    assert found.ok
    valid = int((next(run.loader.epoch(0)).labels != 255).sum())
    share = valid / (2 * 32 * 40)
    expected = {"mean": 1, "full": share, "batch": valid / 2, "sum": valid}[reduction] * np.log(8)
    assert float(re.search(r"^([\d.]+) =", found.text)[1]) == pytest.approx(expected, rel=1e-4)


def test_a_wrong_loss_is_noticed(start):
    run = start()
    run.network.score_fr.bias.data[0] = 3  # no longer the loss of zero scores, though the weights are zero
    assert line(run, "loss").ok is False


def test_a_fresh_network_learns_in_its_score_layers_alone(start):
    found = line(start(), "gradients")
    assert found.ok
    assert "alive in score_fr, score_pool3, score_pool4;" in found.text


def test_a_stage_lets_the_gradient_through_the_main_path(start, tmp_path):
    parent = start(model="fcn32s")
    parent.train()
    found = line(start(model="fcn16s", init=str(parent.folder)), "gradients")
    assert found.ok
    assert found.text == "alive in every layer"


def test_a_dead_upsampling_is_named(start):
    run = start(deconv="learned")
    assert line(run, "gradients").ok
    run.network.upscore2.weight.data[...] = 0
    found = line(run, "upsampling")
    assert found.ok is False
    assert "upscore2 is all zero" in found.text
    run.network.upscore8.weight.data *= 1.5
    assert any("upscore8 is 50% away" in one.text for one in ledger.examine(run))


def test_dead_relus_are_named(start):
    run = start()
    run.network.fc7.bias.data[...] = -1e6  # nothing comes out, so score_fr.weight gets nothing
    run.network.score_fr.weight.data[...] = 1
    found = line(run, "gradients")
    assert found.ok is False
    assert "conv5_1" in found.text


def test_baseline_of_the_constant_predictor(start):
    run = start()
    found = line(run, "baseline")
    indices = np.unique(np.linspace(0, 599, 100).astype(int))
    labels = np.concatenate([run.train_set[int(i)].label.ravel() for i in indices])
    share = np.array([(labels == k).sum() for k in range(8)]) / (labels != 255).sum()
    assert f"{run.train_set.classes[share.argmax()]} everywhere" in found.text
    assert f"pixel accuracy {share.max():.3f}, mean IU {share.max() / 8:.3f}" in found.text
    assert f"a loss of {-(share * np.log(share)).sum():.3f}" in found.text


def test_the_released_recipe_in_units_of_the_mean_loss(start):
    # Sum loss, lr 1e-10, momentum .99: times the labelled pixels, over 1 - .99.
    run = start(reduction="sum", lr=1e-10, momentum=0.99)
    valid = int((next(run.loader.epoch(0)).labels != 255).sum())
    assert f"= {1e-10 * valid / 0.01:.2g} in units of the mean loss" in line(run, "rate").text
    decay = line(run, "weight decay")  # 1e-10 x 5e-4 / .01 = 5e-12, below 2^-24
    assert decay.ok is False
    assert "= 5e-12" in decay.text


def test_a_rate_that_overshoots_is_noticed(start):
    assert line(start(), "first step").ok
    assert line(start(lr=50.0), "first step").ok is False


def test_inputs_of_the_wrong_size_are_noticed(start):
    assert line(start(), "input").ok
    assert line(start(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), "input").ok is False


def test_updates_below_half_an_ulp_are_noticed(start):
    parent = start()
    parent.train()
    assert line(start(init=str(parent.folder)), "updates").ok
    assert line(start(init=str(parent.folder), lr=1e-12), "updates").ok is False


def test_the_ledger_changes_nothing(start):
    run = start()
    before = {name: array.copy() for name, array in run.network.state_dict().items()}
    ledger.examine(run)
    assert all((array == before[name]).all() for name, array in run.network.state_dict().items())
    assert all(parameter.grad is None for parameter in run.network.parameters())


def test_it_is_printed_once_and_can_be_turned_off(tmp_path, capsys):
    options = ["train", "--data", "scenes:32x40", "--width", "0.25", "--batch", "2", "--steps", "1"]
    assert cli.main([*options, "--run", str(tmp_path / "with")]) == 0
    assert "as zero scores must give" in capsys.readouterr().out
    assert cli.main(["train", "--run", str(tmp_path / "with"), "--resume"]) == 0
    assert "zero scores" not in capsys.readouterr().out
    assert cli.main([*options, "--run", str(tmp_path / "without"), "--no-ledger"]) == 0
    assert "zero scores" not in capsys.readouterr().out


# --- the first step, and the curvature that it meets --------------------------------------------------------

COLOURS = {"mean": (120.0, 120.0, 120.0), "std": (1.0, 1.0, 1.0)}  # inputs of 0..255: features a hundred times as large


@pytest.mark.parametrize(
    ("settings", "stable"),
    [({"lr": 0.05}, True), ({"lr": 5.0}, False), ({"lr": 1e-4} | COLOURS, True), ({"lr": 3e-3} | COLOURS, False)],
)
def test_a_rate_is_called_stable_where_training_is(start, settings, stable):
    """Held against what happens: 20 steps lower the loss throughout, or raise it manyfold at least once."""
    run = start(**settings, steps=20, batch=4, schedule="fixed")
    assert line(run, "stability").ok is stable
    run._end_epoch = lambda: None
    try:
        run.train()
    except TrainingError:
        assert not stable
    losses = [json.loads(text)["loss"] for text in (run.folder / "log.jsonl").read_text().splitlines()]
    if stable:
        assert max(losses) < 1.2 * losses[0]
        assert np.mean(losses[-5:]) < 0.8 * losses[0]
    else:
        assert max(losses) > 5 * losses[0]


def test_the_curvature_of_a_known_quadratic(start, monkeypatch):
    """L = sum of c w^2 / 2 with c = 3, 1, and multipliers 1, 5 of the rates: D H has the eigenvalues 3 and 5."""
    run = start(momentum=0.5, lr=0.5)
    held = {"a.weight": Parameter(np.array([2.0])), "b.weight": Parameter(np.array([1.0]))}
    curvatures = {"a.weight": 3.0, "b.weight": 1.0}
    run.optimizer = optim.build("sgd", held, 0.5, 0.0, {"b.weight": optim.Multiplier(5)})

    def differentiate(run, batch):
        for name, parameter in held.items():
            parameter.grad = Tensor(curvatures[name] * parameter.data)
        return sum(c * held[name].data.item() ** 2 / 2 for name, c in curvatures.items())

    monkeypatch.setattr(ledger, "_differentiate", differentiate)
    monkeypatch.setattr(ledger, "POWER_ROUNDS", 60)
    loss = differentiate(run, None)
    first, stability = ledger._steps(run, None, loss)
    # lr |g|^2 = .5 36 + 2.5 1 = 20.5; w = 2 - .5 6 = -1, 1 - 2.5 = -1.5: L goes from 6.5 to 1.5 + 1.125 = 2.625
    assert first.text == "lowers the loss of its batch by 3.88 of 6.5; to first order, lr |g|^2, 20.5"
    assert "curvature 5 after the first step allows rates below 2 (1 + momentum) / it = 0.6" in stability.text
    assert stability.ok
    assert [parameter.data.item() for parameter in held.values()] == [2, 1], "the weights are put back"
    run.schedule = replace(run.schedule, lr=1.0)
    # w = -4, -4: L = 24 + 8, above 6.5; a tenth of the rate lowers it
    first, stability = ledger._steps(run, None, differentiate(run, None))
    assert first.text == (
        "raises the loss of its batch by 25.5 of 6.5; to first order, lr |g|^2, it would fall by 41: lower --lr"
    )
    assert "after a step at lr 0.1 allows rates below 2 (1 + momentum) / it = 0.6; lr 1 is 1.67 times" in stability.text
    assert stability.ok is False
