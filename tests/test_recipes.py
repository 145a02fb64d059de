"""Recipes: the released solvers as files, refused where they are wrong, and translated between losses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minifcn import cli, models, optim, recipes
from minifcn.checkpoint import Checkpoint
from minifcn.configuration import TrainConfig
from minifcn.errors import TrainingError
from minifcn.tensor import Tensor

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
HEAVY = {"momentum": 0.99, "accumulate": 1, "reduction": "batch", "bias_rule": "caffe", "sampling": "replacement"}
ALEXNET = {"momentum": 0.9, "accumulate": 20, "reduction": "mean", "backbone": "alexnet"}
CVPR = {"momentum": 0.9, "accumulate": 20, "reduction": "mean", "bias_rule": "caffe", "epochs": 175}
# The table of solvers of the released nets (the prototxt files), and of the first paper's text.
SOLVERS = {
    "fcn32s-voc-heavy": HEAVY | {"lr": 1e-10, "steps": 100_000, "epoch_images": 4000},
    "fcn16s-voc-heavy": HEAVY | {"lr": 1e-12, "steps": 100_000, "epoch_images": 4000},
    "fcn8s-voc-heavy": HEAVY | {"lr": 1e-14, "steps": 100_000, "epoch_images": 4000},
    "fcn8s-at-once-voc-heavy": HEAVY | {"lr": 1e-10, "steps": 300_000, "model": "fcn8s-at-once"},
    "fcn32s-alexnet-voc": ALEXNET | {"lr": 1e-4, "steps": 100_000, "bias_rule": "caffe-scores"},
    "fcn32s-context-heavy": HEAVY | {"lr": 1e-10, "epoch_images": 8000, "steps": 400_000},
    "fcn16s-context-heavy": HEAVY | {"lr": 1e-12, "epoch_images": 8000, "steps": 400_000},
    "fcn8s-context-heavy": HEAVY | {"lr": 1e-14, "epoch_images": 8000, "steps": 400_000},
    "fcn32s-siftflow-heavy": HEAVY | {"lr": 1e-10, "epoch_images": 2000, "steps": 100_000},
    "fcn16s-siftflow-heavy": HEAVY | {"lr": 1e-12, "epoch_images": 2000, "steps": 100_000},
    "fcn8s-siftflow-heavy": HEAVY | {"lr": 1e-12, "epoch_images": 2000, "mean": [108.353, 115.294, 114.578]},
    "fcn32s-nyud-color-heavy": HEAVY | {"lr": 1e-10, "epoch_images": 2000, "mean": [92.318, 97.203, 116.190]},
    "fcn32s-nyud-hha-heavy": HEAVY | {"lr": 1e-10, "epoch_images": 2000},
    "fcn32s-nyud-color-d-heavy": HEAVY | {"lr": 1e-10},
    "fcn32s-nyud-late-heavy": HEAVY | {"lr": 1e-12},
    "fcn32s-vgg16-voc-cvpr": CVPR | {"lr": 1e-4},
    "fcn32s-alexnet-voc-cvpr": CVPR | {"lr": 1e-3, "backbone": "alexnet"},
    "fcn32s-googlenet-voc-cvpr": CVPR | {"lr": 5e-5},
}
COMMON = {"batch": 1, "weight_decay": 5e-4, "schedule": "fixed", "optimizer": "sgd-caffe", "geometry": "pad100"}


def recipe(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", SOLVERS)
def test_every_released_solver_is_a_recipe(name):
    if SOLVERS[name].get("backbone", "vgg16") not in models.BACKBONES:
        pytest.skip("its backbone is not there")
    found = recipes.load(FOLDER / f"{name}.toml")
    expected = COMMON | {"deconv": "fixed", "filler": "zero"} | SOLVERS[name]
    if "mean" in expected:
        expected = expected | {"mean": tuple(expected["mean"]), "std": (1, 1, 1), "inputs": "given"}
    assert {key: found.settings.get(key) for key in expected} == expected
    assert found.about.keys() >= {"title", "source", "expect"}
    assert found.needs.keys() == {"init", "data"}


def test_no_recipe_of_a_released_net_is_left_unchecked():
    own = {path.stem for path in FOLDER.glob("*.toml") if path.stem not in SOLVERS}
    assert not {name for name in own if name.endswith(("heavy", "cvpr"))}
    assert len(SOLVERS) == 18


@pytest.mark.parametrize("path", sorted(FOLDER.glob("camvid-*.toml")), ids=lambda path: path.stem)
def test_our_own_recipes_can_be_run(path):
    found = recipes.load(path)
    config = found.config({name: "a" for name in found.needs})
    assert found.about.keys() >= {"title", "source", "expect"}
    assert config.epochs <= 10 or config.backbone == "small"
    assert len(config.class_weights or range(11)) == 11


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("momentun = 0.9", r"r\.toml: momentun is not a setting of minifcn train; did you mean momentum\?"),
        ("lr = true", r"r\.toml: lr \(=True\) must be a number"),
        ('lr = "1e-3"', r"r\.toml: lr \(='1e-3'\) must be a number"),
        ("batch = 1.5", r"r\.toml: batch \(=1\.5\) must be a whole number"),
        ("mean = 3", r"r\.toml: mean \(=3\) must be a list of numbers"),
        ("crop = [1.5, 2]", r"r\.toml: crop \(=\[1\.5, 2\]\) must be a list of whole numbers"),
        ("flip = 1", r"r\.toml: flip \(=1\) must be true or false"),
        ("batch = 0", r"r\.toml: batch \(=0\) must be at least 1"),
        ("epoch_images = 5", r"r\.toml: epoch_images \(=5\) needs sampling 'replacement'"),
        ("[about]\nauthor = 'me'", r"r\.toml: about\.author is unknown; there are title"),
        ("[about]\ntitle = 3", r"r\.toml: about\.title must be a str"),
        ("[needs]\ndatum = 'x'", r"r\.toml: datum is not a setting of minifcn train; did you mean data\?"),
        ("lr = [", r"r\.toml: not a readable TOML file"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_named(tmp_path, text, message):
    with pytest.raises(TrainingError, match=message):
        recipes.load(recipe(tmp_path / "r.toml", text))


def test_a_recipe_says_what_it_needs_and_what_it_cannot_do(tmp_path, capsys):
    assert cli.main(["train", "--recipe", str(FOLDER / "fcn32s-voc-heavy.toml"), "--data", "scenes"]) == 2
    assert "the recipe also needs --init (VGG16 of the Caffe model zoo" in capsys.readouterr().err
    found = recipes.load(FOLDER / "fcn32s-nyud-color-d-heavy.toml")
    with pytest.raises(TrainingError, match=r"color-d-heavy\.toml: cannot be run, .*fourth plane"):
        found.config({"init": "a", "data": "scenes"})
    assert cli.main(["train", "--recipe", str(tmp_path / "none.toml")]) == 2
    assert "none.toml: not a readable TOML file" in capsys.readouterr().err


def test_options_count_over_the_recipe(tmp_path):
    path = recipe(tmp_path / "r.toml", "lr = 1\nbatch = 3\nmean = [1, 2, 3]")
    assert recipes.load(path).config({"batch": 5}) == TrainConfig(lr=1.0, batch=5, mean=(1.0, 2.0, 3.0))


def test_a_run_from_a_released_recipe(tmp_path, capsys):
    settings = {"backbone": "small", "classes": 8, "width": 0.1, "geometry": "pad100"}
    data = {"mean": (122.7, 116.7, 104.0), "std": 1.0}
    source = models.build("fcn32s", **settings)
    Checkpoint(source.state_dict(), {"data": data, "new_layers": ["score_fr"]}).save(tmp_path / "a.safetensors")
    options = ["--data", "scenes:32x32", "--init", str(tmp_path / "a.safetensors"), "--backbone", "small"]
    options += ["--width", "0.1", "--epoch-images", "2", "--steps", "2", "--run", str(tmp_path / "run")]
    assert cli.main(["train", "--recipe", str(FOLDER / "fcn32s-voc-heavy.toml"), *options]) == 0
    config = TrainConfig.from_toml(tmp_path / "run" / "config.toml")
    assert (config.lr, config.momentum, config.reduction, config.steps) == (1e-10, 0.99, "batch", 2)
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 2
    output = capsys.readouterr().out
    assert "inputs: mean 122.7, 116.7, 104 and std 1, taken over" in output
    assert cli.main(["train", "--run", str(tmp_path / "run"), "--resume", "--recipe", "x"]) == 2
    assert "leave out --recipe" in capsys.readouterr().err


# --- the translator ------------------------------------------------------------------------------------------


def test_the_released_rates_in_units_of_the_mean_loss():
    # 375 x 500 = 187,500 pixels: 1e-10 x 187,500 = 1.875e-5, decay 5e-4 / 187,500 = 2.6667e-9
    found = recipes.translate(recipes.load(FOLDER / "fcn32s-voc-heavy.toml"), "mean", 187_500)
    assert found.settings["lr"] == pytest.approx(1.875e-5, rel=1e-11)
    assert found.settings["weight_decay"] == pytest.approx(8e-9 / 3, rel=1e-11)
    assert found.settings["reduction"] == "mean"
    assert recipes.translate(found, "batch", 187_500).settings["lr"] == pytest.approx(1e-10, rel=1e-11)


@pytest.mark.parametrize("optimizer", ["sgd", "sgd-caffe"])
@pytest.mark.parametrize(("old", "new"), [("mean", "sum"), ("batch", "mean"), ("sum", "full"), ("full", "batch")])
def test_a_translated_recipe_takes_the_same_steps(tmp_path, optimizer, old, new):
    """A linear score layer under both recipes: batches of 2 images of 3 x 4 pixels, all labelled."""
    text = f'reduction = "{old}"\noptimizer = "{optimizer}"\nbatch = 2\nlr = 0.01\nweight_decay = 0.3\nclip_norm = 1e-3'
    first = recipes.load(recipe(tmp_path / "r.toml", text))
    weights = []
    for one in (first, recipes.translate(first, new, 12)):
        config = TrainConfig(**one.settings)
        net = models.build("fcn32s", backbone="small", classes=3, width=0.05, seed=1, dtype=np.float64).eval()
        solver = optim.build(optimizer, dict(net.named_parameters()), config.momentum, config.weight_decay)
        net.score_fr.weight.data[...] = np.random.default_rng(2).standard_normal(net.score_fr.weight.shape)
        rng = np.random.default_rng(3)
        for _ in range(3):
            net.zero_grad()
            images, labels = Tensor(rng.standard_normal((2, 3, 3, 4))), rng.integers(0, 3, (2, 3, 4))
            net.loss(images, labels, reduction=config.reduction).backward()
            optim.clip_gradients(net.parameters(), config.clip_norm)
            solver.step(config.lr)
        weights.append(np.concatenate([parameter.data.ravel() for parameter in net.parameters()]))
    start = models.build("fcn32s", backbone="small", classes=3, width=0.05, seed=1, dtype=np.float64)
    moved = np.abs(weights[0] - np.concatenate([parameter.data.ravel() for parameter in start.parameters()])).max()
    assert np.abs(weights[1] - weights[0]).max() <= 1e-9 * moved


def test_adams_rate_does_not_depend_on_the_loss(tmp_path):
    base = recipes.load(recipe(tmp_path / "r.toml", 'optimizer = "adam"\nlr = 1e-3\nweight_decay = 0.1'))
    assert recipes.translate(base, "batch", 100).settings == base.settings | {
        "reduction": "batch",
        "weight_decay": 10.0,
    }
    decoupled = replace(base, settings=base.settings | {"optimizer": "adamw"})
    assert recipes.translate(decoupled, "batch", 100).settings == decoupled.settings | {"reduction": "batch"}


def test_what_a_recipe_means(tmp_path, capsys):
    target = tmp_path / "mean.toml"
    assert cli.main(["recipe", str(FOLDER / "fcn32s-voc-heavy.toml"), "--as", "mean", "-o", str(target)]) == 0
    output = capsys.readouterr().out
    assert "lr 1e-10 x 187,500 (loss: batch) = 1.9e-05 under the mean loss; / (1 - momentum 0.99) = 0.0019" in output
    assert "look  weight decay: shrinks a weight by 5e-12 of itself a step, below float32's half-ulp 6e-08" in output
    assert "0.99 at a batch of 1 forgets as slowly as 0.9 at one of 10.5" in output
    again = recipes.load(target)
    assert again.settings["lr"] == 1.875e-5
    assert again.about["differs"] == ["translated from fcn32s-voc-heavy.toml, loss batch, for images of 187500 pixels"]
    # 1e-14 x 187,500 / .01 = 1.9e-7: only gradients above 6e-8 / 1.9e-7 = .32 of their weight move it
    assert cli.main(["recipe", str(FOLDER / "fcn8s-voc-heavy.toml")]) == 0
    assert "is above 0.3 of it: most updates are rounded away" in capsys.readouterr().out
    assert cli.main(["recipe", str(FOLDER / "fcn8s-voc-heavy.toml"), "-o", str(target)]) == 2
    assert "say with --as" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["recipe", str(FOLDER / "fcn8s-voc-heavy.toml"), "--pixels", "0x5"])
    assert "'0x5' is not HEIGHTxWIDTH" in capsys.readouterr().err
