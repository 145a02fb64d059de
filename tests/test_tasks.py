"""Classification: the same runs with one label a picture, and FCNs that start from what they learned."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minifcn import cli, data, tasks
from minifcn.configuration import TrainConfig
from minifcn.errors import CheckpointError, TrainingError
from minifcn.recognizer import Recognizer
from minifcn.segmenter import Segmenter
from minifcn.training import Run

TINY = {"task": "classify", "data": "shapes:32x32", "width": 0.25, "batch": 16, "steps": 4, "lr": 0.01}


@pytest.fixture(scope="module", autouse=True)
def few_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.Shapes, "lengths", (64, 20))  # train, val
        yield


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    """A finished tiny run that tests only read."""
    folder = tmp_path_factory.mktemp("classifier") / "run"
    Run.start(folder, TrainConfig(**TINY)).train()
    return folder


def test_a_classifiers_run_has_the_same_files_and_its_own_scores(classifier):
    assert {path.name for path in classifier.iterdir()} == {
        "best.safetensors", "config.toml", "curves.png", "last.safetensors", "log.jsonl", "metrics.csv", "samples",
    }  # fmt: skip
    with (classifier / "metrics.csv").open() as table:
        (row,) = csv.DictReader(table)
    assert list(row) == ["epoch", "step", "loss", "lr", "accuracy", "mean_accuracy"]
    recognizer, shapes = Recognizer.load(classifier), data.open_dataset("shapes:32x32", "val")
    right = [recognizer(shapes[i].image).item() == shapes[i].label.item() for i in range(len(shapes))]
    assert float(row["accuracy"]) == pytest.approx(np.mean(right), abs=1e-12)
    first = json.loads((classifier / "log.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(np.log(8), rel=1e-5)  # fc8 starts at zero


def test_a_classifier_learns(tmp_path, monkeypatch):
    monkeypatch.setattr(data.Shapes, "lengths", (16, 16))  # train, val
    learn = {"steps": 60, "lr": 0.02, "dropout": 0.0, "width": 0.5, "evaluate_every": 100}
    Run.start(tmp_path / "run", TrainConfig(**TINY | learn)).train()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.5 * losses[0], "16 pictures can be learned by heart"


def test_a_classifiers_run_resumes_bit_for_bit(tmp_path):
    config = TrainConfig(**TINY | {"flip": True, "steps": 5, "reduction": "sum", "lr": 1e-3})
    Run.start(tmp_path / "whole", config).train()
    run = Run.start(tmp_path / "stopped", config)
    run.train(stop=lambda: run.standing.step >= 2)
    assert Run.resume(tmp_path / "stopped").train()
    files = [(tmp_path / name / "last.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert files[0] == files[1]


def test_an_fcn_starts_from_a_classifier(classifier, tmp_path, capsys):
    options = ["--data", "scenes:32x40", "--model", "fcn16s", "--width", "0.25", "--steps", "1", "--lr-new", "10"]
    folder = tmp_path / "fcn"
    assert cli.main(["train", "--init", str(classifier), *options, "--run", str(folder)]) == 0
    output = capsys.readouterr().out
    assert "new: score_fr, score_pool4" in output
    assert "fc6.weight: reshaped from 64 x 32 to 64 x 32 x 1 x 1" in output
    assert "fc7.weight: reshaped from 64 x 64 to 64 x 64 x 1 x 1" in output
    assert "fc8.weight: left behind" in output
    assert TrainConfig.from_toml(folder / "config.toml").input_size == 32, "fc6 has the classifier's window"
    assert Segmenter.load(folder).normalization == Recognizer.load(classifier).normalization


def test_evaluate_and_predict_know_what_they_are_given(classifier, tmp_path, capsys):
    target = tmp_path / "scores.json"
    assert cli.main(["evaluate", str(classifier), "--data", "shapes:32x32", "--json", str(target)]) == 0
    output = capsys.readouterr().out
    scores = json.loads(target.read_text())
    assert f"accuracy {scores['pixel_accuracy']:.4f}" in output.splitlines()
    assert "20 labelled images" in output
    assert cli.main(["evaluate", str(classifier), "--data", "scenes:32x32"]) == 2
    assert "data scenes:32x32 is for task 'segment', but the network's task is 'classify'" in capsys.readouterr().err
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert cli.main(["predict", str(classifier), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 0
    shares = Recognizer.load(classifier).probabilities(picture)
    best = int(shares.argmax())
    assert f"a.png  {data.Shapes.classes[best]} {shares[best]:.0%}, " in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_network_is_loaded_as_what_it_is(classifier):
    task, network = tasks.load(classifier)
    assert (task.name, type(network)) == ("classify", Recognizer)
    with pytest.raises(CheckpointError, match=r"holds a classifier, which Segmenter cannot use"):
        Segmenter.load(classifier)


def test_the_ledger_of_a_classifier(tmp_path, capsys):
    options = [f"--{name}={value}" for name, value in TINY.items()]
    assert cli.main(["train", *options, "--steps=1", "--run", str(tmp_path / "run")]) == 0
    output = capsys.readouterr().out
    assert "2.0794 = ln C = 2.0794, as zero scores must give" in output
    assert "alive in fc8; exactly zero below" in output
    assert "upsampling" not in output


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": "fcn8s"}, r"model \(='fcn8s'\) is not one of task 'classify'"),
        ({"task": "segment", "model": "classifier"}, r"model \(='classifier'\) is not one of task 'segment'"),
        ({"geometry": "pad100"}, r"geometry \(='pad100'\) is of FCNs, not of a classifier"),
        ({"data": "scenes:32x32"}, "data scenes:32x32 is for task 'segment', but the network's task is 'classify'"),
        ({"data": "shapes:32x40"}, "a classifier's images are square, these are 32x40"),
        ({"input_size": 0}, r"input_size \(=0\) must be at least 1"),
    ],
)
def test_what_cannot_be_classified_is_refused(tmp_path, wrong, message):
    with pytest.raises(TrainingError, match=message):
        Run.start(tmp_path / "run", TrainConfig(**TINY | wrong))
    assert not (tmp_path / "run").exists()
