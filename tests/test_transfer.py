"""Weights taken over from a checkpoint: what is new, what the inputs must look like, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from minifcn import checkpoint, models, transfer
from minifcn.checkpoint import Checkpoint
from minifcn.configuration import TrainConfig
from minifcn.data import Normalization
from minifcn.errors import CheckpointError, MinifcnError, TrainingError
from minifcn.tensor import Tensor
from minifcn.training import Run

MEAN, STD = (123.0, 117.0, 104.0), 1.0
NETWORK = {"backbone": "small", "classes": 3, "width": 0.1}


def network(model: str = "fcn32s", seed: int = 0, **settings) -> models.FCN:
    return models.build(model, **NETWORK | settings, seed=seed, dtype=np.float64)


def random_scores(net: models.FCN) -> models.FCN:
    """`net` with score layers that are not zero, so that its outputs say something."""
    rng = np.random.default_rng(1)
    for name, parameter in net.named_parameters():
        if name.startswith("score"):
            parameter.data[...] = rng.standard_normal(parameter.shape)
    return net


def inherit(net: models.FCN, path: Path, **settings) -> transfer.Inheritance:
    return transfer.inherit(net, checkpoint.load(path), path, **settings)


def file_of(net: models.FCN, path: Path, **about) -> Path:
    """A checkpoint as a conversion writes it."""
    data = {"classes": ["a", "b", "c"], "palette": [[0, 0, 0]] * 3, "mean": MEAN, "std": STD}
    Checkpoint(net.state_dict(), {"network": NETWORK, "data": data} | about).save(path)
    return path


def test_inputs_are_those_that_the_weights_know(tmp_path):
    path = file_of(network(), tmp_path / "a.safetensors")
    found = inherit(network(seed=1), path)
    assert found.normalization == Normalization(MEAN, STD)
    assert found.new_layers == []
    assert found.notes == ["inputs: mean 123, 117, 104 and std 1, taken over"]


def test_another_std_is_folded_into_the_first_layer_and_changes_no_output(tmp_path):
    source, target = random_scores(network()), network(seed=1)
    found = inherit(target, file_of(source, tmp_path / "a.safetensors"), std=(58.0, 57.0, 60.0))
    assert found.normalization == Normalization(MEAN, (58.0, 57.0, 60.0))
    image = np.random.default_rng(0).uniform(0, 255, (1, 40, 33, 3))
    outputs = [
        net.eval()(Tensor(((image - MEAN) / np.asarray(std)).transpose(0, 3, 1, 2))).numpy()
        for net, std in ((source, STD), (target, found.normalization.std))
    ]
    assert np.abs(outputs[0]).max() > 1
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-10, atol=1e-10 * np.abs(outputs[0]).max())
    assert "multiplied by 58, 57, 60" in found.notes[-1]


def test_another_mean_is_refused_and_explained_unless_it_is_meant(tmp_path):
    path = file_of(network(), tmp_path / "a.safetensors")
    with pytest.raises(TrainingError, match=r"mean 1, 2, 3 differs from 123, 117, 104.*zero padding.*--inputs given"):
        inherit(network(), path, mean=(1.0, 2.0, 3.0))
    assert inherit(network(), path, mean=MEAN).normalization.mean == MEAN
    target = network(seed=1)
    found = inherit(target, path, mean=(1.0, 2.0, 3.0), std=(2.0, 2.0, 2.0), inputs="given")
    assert found.normalization == Normalization((1.0, 2.0, 3.0), (2.0, 2.0, 2.0))
    np.testing.assert_array_equal(target.conv1_1.weight.data, network().conv1_1.weight.data)


def test_layers_that_the_file_calls_new_are_new(tmp_path):
    source = network("fcn8s")
    path = file_of(source, tmp_path / "a.safetensors", new_layers=["fc6", "fc7", "score_fr"])
    target = network("fcn8s", seed=1)
    assert inherit(target, path).new_layers == ["fc6", "fc7", "score_fr"]
    np.testing.assert_array_equal(target.fc6.weight.data, source.fc6.weight.data)


def test_new_layers_of_another_shape_start_anew_and_trained_ones_are_refused(tmp_path):
    source, other = network(classes=5), network(seed=1)
    path = file_of(source, tmp_path / "a.safetensors", new_layers=["score_fr"])
    found = inherit(other, path)
    assert found.new_layers == ["score_fr"]
    note = "score_fr.weight: starts anew, untrained in the file and there of another shape 5 x 26 x 1 x 1"
    assert note in found.notes
    with pytest.raises(CheckpointError, match=r"score_fr\.weight has shape \(5, 26, 1, 1\)"):
        inherit(network(seed=1), file_of(source, tmp_path / "b.safetensors"))


def test_a_missing_trunk_is_refused_by_name(tmp_path):
    source = network()
    weights = {name: array for name, array in source.state_dict().items() if not name.startswith("fc7")}
    about = {"network": NETWORK, "data": {"mean": MEAN, "std": STD}}
    Checkpoint(weights, about).save(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.safetensors: it has no fc7\.bias, fc7\.weight, which"):
        inherit(network(), tmp_path / "a.safetensors")
    Checkpoint(weights, about | {"new_layers": ["fc7"]}).save(tmp_path / "b.safetensors")
    assert inherit(network(), tmp_path / "b.safetensors").new_layers == ["fc7"]


def test_a_file_without_a_normalisation_is_refused(tmp_path):
    Checkpoint(network().state_dict(), {"network": NETWORK}).save(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="its header lacks or misnames 'data'"):
        inherit(network(), tmp_path / "a.safetensors")


def test_a_classifiers_layers_become_convolutions(tmp_path):
    source = network()
    weights = source.state_dict()
    flat = {name: weights[name].reshape(len(weights[name]), -1) for name in ("fc6.weight", "fc7.weight")}
    weights = {name: array for name, array in weights.items() if not name.startswith("score")} | flat
    weights |= {"fc8.weight": np.zeros((7, 26)), "fc8.bias": np.zeros(7)}
    path = tmp_path / "a.safetensors"
    Checkpoint(weights, {"network": {"model": "classifier"}, "data": {"mean": MEAN, "std": STD}}).save(path)
    target = network(seed=1)
    found = inherit(target, path)
    assert found.new_layers == ["score_fr"]
    np.testing.assert_array_equal(target.fc6.weight.data, source.fc6.weight.data)
    assert "fc6.weight: reshaped from 26 x 637 to 26 x 13 x 7 x 7" in found.notes
    assert "fc8.weight: left behind, the network has no such layer" in found.notes


def test_untrained_skips_are_left_behind_by_a_net_without_them_and_trained_ones_are_refused(tmp_path):
    skips = ["score_pool4", "score_pool3"]
    path = file_of(network("fcn8s"), tmp_path / "a.safetensors", new_layers=skips)
    found = inherit(network(seed=1), path)
    assert found.new_layers == []
    assert "score_pool3.weight: left behind, the network has no such layer" in found.notes
    with pytest.raises(MinifcnError, match=r"score_pool3\.bias is not a parameter of the network"):
        inherit(network(seed=1), file_of(network("fcn8s"), tmp_path / "b.safetensors"))


def test_caffes_filler_starts_new_layers_at_zero_and_leaves_upsampling_bilinear(tmp_path):
    source = network("fcn32s", deconv="learned")
    path = file_of(source, tmp_path / "a.safetensors", new_layers=["fc7"])
    target = network("fcn16s", seed=1, deconv="learned")
    found = inherit(target, path, filler="zero")
    assert found.new_layers == ["fc7", "score_pool4", "upscore16", "upscore2"]
    assert not target.fc7.weight.data.any()
    assert target.upscore2.weight.data.any()
    assert target.fc6.weight.data.any()


def test_a_run_keeps_the_rates_of_its_new_layers_when_it_is_resumed(tmp_path):
    settings = {"data": "scenes:32x40", "backbone": "small", "width": 0.1, "batch": 2, "flip": True}
    source = models.build("fcn32s", backbone="small", classes=8, width=0.1)
    path = file_of(source, tmp_path / "a.safetensors", new_layers=["fc7", "score_fr"])
    config = TrainConfig(
        **settings, model="fcn16s", init=str(path), lr=1e-6, lr_new=10, bias_rule="caffe", steps=6, clip_norm=0.5
    )
    whole = Run.start(tmp_path / "whole", config)
    assert whole.predictor.normalization == Normalization(MEAN, STD)
    rates = {name: whole.optimizer.rates(name, 1.0) for name in ("fc6.weight", "fc7.weight", "score_pool4.bias")}
    assert rates == {"fc6.weight": (1, 5e-4), "fc7.weight": (10, 5e-4), "score_pool4.bias": (20, 0)}
    whole.train()
    run = Run.start(tmp_path / "stopped", config)
    run.train(stop=lambda: run.standing.step >= 3)
    path.unlink()  # a resumed run does not need it again
    resumed = Run.resume(tmp_path / "stopped")
    assert resumed.standing.new_layers == ["fc7", "score_fr", "score_pool4"]
    assert resumed.predictor.normalization == Normalization(MEAN, STD)
    assert resumed.train()
    last = [(tmp_path / name / "last.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert last[0] == last[1]
