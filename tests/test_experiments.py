"""Experiments: what each computes, held against hand-worked values; records, the page of all, and the command."""

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minifcn import cli, models
from minifcn.configuration import TrainConfig
from minifcn.data import IGNORE, Sample
from minifcn.errors import MinifcnError, TrainingError
from minifcn.experiments import (
    EXPERIMENTS,
    Result,
    crops,
    deconv,
    document,
    experiment,
    geometry,
    iu_bound,
    loss_sampling,
    read,
    shift_and_stitch,
    skips,
    whole_image,
    write_document,
)
from minifcn.experiments.trainings import TINY, spread, trained
from minifcn.metrics import ConfusionMatrix, scores
from minifcn.tensor import Tensor
from minifcn.viz import new_figure

DOCS = Path(__file__).resolve().parents[1] / "docs"
NAMES = [
    "whole-image",
    "shift-and-stitch",
    "loss-sampling",
    "iu-bound",
    "skips",
    "deconv",
    "momentum",
    "crops",
    "geometry",
    "trunk",
]


# --- the registry ------------------------------------------------------------------------------------------------


def test_all_experiments_of_the_paper_are_there():
    assert list(EXPERIMENTS) == NAMES
    for name, one in EXPERIMENTS.items():
        assert one.name == name
        assert one.title
        assert one.budget
        assert import_module(f"minifcn.experiments.{name.replace('-', '_')}").EXPERIMENT is one
        assert any(source in one.paper for source in ("et al., 2015", "et al., 2017", "the authors' code"))


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_known_and_none_is_both_varied_and_taken(name):
    one = EXPERIMENTS[name]
    known = {*experiment.TRAINING, "stage_rate", "staged_only", "pretrain_epochs"}
    assert set(one.accepts) <= known
    assert set(one.defaults) | set(one.quick) <= known
    if "epochs" in one.accepts:
        one.plan({}, Path()).config(sampling="replacement")


def test_plans_refuse_what_has_no_effect():
    with pytest.raises(MinifcnError, match="--epochs is not a setting of experiment iu-bound: --data, --seed"):
        EXPERIMENTS["iu-bound"].plan({"epochs": 3}, Path())
    with pytest.raises(MinifcnError, match="--momentum is not a setting of experiment momentum"):
        EXPERIMENTS["momentum"].plan({"momentum": 0.5}, Path())
    with pytest.raises(MinifcnError, match=r"--seeds \(=2\): nothing in experiment iu-bound differs"):
        EXPERIMENTS["iu-bound"].plan({}, Path(), seeds=2)
    with pytest.raises(MinifcnError, match=r"--seeds \(=0\) must be at least 1"):
        EXPERIMENTS["deconv"].plan({}, Path(), seeds=0)
    assert EXPERIMENTS["deconv"].plan({"seed": 5}, Path(), seeds=2).seeds == (5, 6)


# --- the bound of the mean IU ------------------------------------------------------------------------------------

LABEL = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [2, 2, 3, IGNORE], [2, 2, IGNORE, IGNORE]], np.uint8)


def iu_of(prediction: np.ndarray) -> list[float]:
    matrix = ConfusionMatrix(4)
    matrix.update(LABEL, prediction)
    return scores(matrix.counts).iu.tolist()


def test_votes_of_a_label_by_hand():
    expected = np.zeros((4, 2, 2), int)
    expected[0, 0, 0], expected[1, 0, 0], expected[1, 0, 1], expected[2, 1, 0], expected[3, 1, 1] = 3, 1, 4, 4, 1
    np.testing.assert_array_equal(iu_bound.votes(LABEL, 2, 4), expected)
    np.testing.assert_array_equal(iu_bound.votes(LABEL, 8, 4)[:, 0, 0], [3, 5, 4, 1])  # a cell larger than the label


def test_nearest_takes_the_centre_and_the_majority_where_that_is_void():
    found = iu_bound.nearest(LABEL, 2, 4)
    np.testing.assert_array_equal(found, [[1, 1, 1, 1], [1, 1, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
    assert iu_of(found) == [0, 5 / 8, 1, 1]


def test_bilinear_takes_the_majority():
    # at factor 2 a pixel's own cell weighs 9/16, so that interpolation cannot turn it
    found = iu_bound.bilinear(LABEL, 2, 4)
    np.testing.assert_array_equal(found, [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
    assert iu_of(found) == [3 / 4, 4 / 5, 1, 1]


def test_bilinear_rounds_a_corner_by_hand():
    # F = 4: the inner pixel of cell (0, 0) nearest to the three others weighs (5/8)^2 < 1/2, so that they outvote it
    label = np.ones((8, 8), np.uint8)
    label[:4, :4] = 0
    found = iu_bound.bilinear(label, 4, 2)
    assert found[3, 3] == 1
    assert found[3, 2] == 0
    assert found[0, 0] == 0
    assert (found[4:] == 1).all()


@given(
    factor=st.sampled_from([1, 2, 3, 4, 8]),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_nearest_gives_back_what_is_constant_in_its_cells(factor, shape, seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, shape).astype(np.uint8).repeat(factor, 0).repeat(factor, 1)
    void = rng.random(label.shape) < 0.2
    broken = np.where(void, IGNORE, label).astype(np.uint8)
    assert (iu_bound.nearest(broken, factor, 3) == label)[~void].all()


# --- whole image, shift-and-stitch -------------------------------------------------------------------------------


def test_receptive_fields_by_hand():
    # 3x3: 3; 2x2 pooling: 4; 3x3 at stride 2: 8. With pool2, 3: 8, 10, 18, 26, 30, and 3x3 at stride 8: 46
    assert shift_and_stitch.Stages(2).receptive == 8
    assert shift_and_stitch.Stages(8).receptive == 46


@pytest.mark.parametrize("factor", [2, 4])
def test_shift_and_stitch_is_the_dilated_network(factor):
    assert shift_and_stitch.differing(factor, seed=3) == (0, 8 * (8 * factor) ** 2)


def test_a_wrong_dilation_differs(monkeypatch):
    right = shift_and_stitch.ops.conv2d_relu

    def undilated(x: Tensor, w: Tensor, dilation: int = 1) -> Tensor:
        rest = 2 * (dilation - 1)  # so that the output is as large
        return right(Tensor(x.data[:, :, rest:, rest:].copy()), w)

    monkeypatch.setattr(shift_and_stitch.ops, "conv2d_relu", undilated)
    wrong, total = shift_and_stitch.differing(2)
    assert wrong > total / 4


def sliding_case() -> tuple:
    sliding, rng = whole_image.Sliding(width=0.1, classes=3, seed=1), np.random.default_rng(0)
    size = sliding.size(2)
    image = rng.standard_normal((1, 3, size, size)).astype(np.float32)
    return sliding, image, sliding.patches(image, 2), rng.standard_normal((1, 3, 2, 2)).astype(np.float32)


def test_a_whole_image_is_all_of_its_patches():
    sliding, *case = sliding_case()
    # fc6 sees 2 x 2 of pool5, so 4 before it, and before two 3x3 each 8, 16 -> 20, 40 -> 44, and one each 88 -> 90, 182
    assert sliding.patch == 182
    assert case[0].shape[2] == 182 + 32
    assert max(whole_image.compare(sliding, *case)) < 1e-4


def test_padding_would_part_the_whole_image_from_its_patches():
    sliding, *case = sliding_case()
    sliding.network.conv1_1.padding = 1  # as many scores as before, of patches with a frame of zeros
    assert max(whole_image.compare(sliding, *case)) > whole_image.TOLERANCE


# --- sampling, upsampling, crops, geometries ---------------------------------------------------------------------


def test_cells_are_kept_or_dropped_whole():
    label = np.random.default_rng(0).integers(0, 5, (70, 96)).astype(np.uint8)
    sample = Sample(np.zeros((70, 96, 3), np.uint8), label, "one")
    kept = []
    for seed in range(200):
        found = loss_sampling.CellSampling(0.25)(sample, np.random.default_rng(seed)).label
        for y in range(0, 70, 32):
            for x in range(0, 96, 32):
                cell = found[y : y + 32, x : x + 32]
                kept.append(bool((cell == label[y : y + 32, x : x + 32]).all()))
                assert kept[-1] or (cell == IGNORE).all()
    assert abs(np.mean(kept) - 0.25) < 4 * (0.25 * 0.75 / len(kept)) ** 0.5
    flipped = loss_sampling.CellSampling(1.0, lambda one, rng: Sample(one.image, one.label[:, ::-1], one.name))
    np.testing.assert_array_equal(flipped(sample, np.random.default_rng(0)).label, label[:, ::-1])


class Holder:
    def __init__(self, network):
        self.network = network


def test_movement_of_filters_by_hand():
    assert deconv.movement(Holder(models.build("fcn8s", backbone="small", classes=2, width=0.01))) is None
    network = models.build("fcn16s", backbone="small", classes=2, width=0.01, deconv="learned")
    assert deconv.movement(Holder(network)) == 0
    for name in ("upscore2", "upscore16"):
        getattr(network, name).weight.data *= 1.5
    assert deconv.movement(Holder(network)) == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        ("fcn32s", 224, 13),  # ceil((224 + 198) / 32) - 6 = 8 scores; 32 * 7 + 64 = 288, so 64 / 2 = 32, not 19
        ("fcn16s", 224, 13),  # 2 * 8 + 2 = 18; 16 * 17 + 32 = 304, so 80 / 2 = 40, not 27
        ("fcn8s", 224, 13),  # 2 * 18 + 2 = 38; 8 * 37 + 16 = 312, so 88 / 2 = 44, not 31
        ("fcn32s", 500, 3),  # 16 scores; 32 * 15 + 64 = 544, so 44 / 2 = 22, not 19
    ],
)
def test_alignment_errors_of_centred_crops(model, size, expected):
    derived, centred = crops.alignment_error(model, size)
    assert derived < 1e-9
    assert centred == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("padding", "model", "expected"),
    [  # px from the edge that are damped, and by how much, worked out from the filters' sums
        ("pad100", "fcn32s", {"score_fr": (13, 0.609)}),
        ("pad100", "fcn8s", {"score_fr": (25, 0.609), "score_pool4": (0, 1), "score_pool3": (0, 1)}),
        ("exact", "fcn32s", {"score_fr": (16, 0.516)}),
        ("exact", "fcn8s", {"score_fr": (28, 0.316), "score_pool4": (12, 0.422), "score_pool3": (4, 0.562)}),
    ],
)
def test_attenuation_at_the_border(padding, model, expected):
    found = geometry.attenuation(padding, model)
    assert found.keys() == expected.keys()
    for score, (pixels, least) in expected.items():
        assert found[score] == (pixels, pytest.approx(least, abs=6e-4))


def test_multiplications_of_vgg16():
    # 10^9 at 500 x 500 and 21 classes, as counted by hand from the layers' table
    for padding, expected in (("pad100", 181.0), ("exact", 107.8)):
        found = geometry.multiplications("fcn8s", padding, (500, 500), "vgg16", 21) / 1e9
        assert found == pytest.approx(expected, abs=0.05)


# --- trainings ---------------------------------------------------------------------------------------------------


def test_a_run_that_is_there_goes_on_and_another_one_is_refused(tmp_path):
    said = []
    plan = EXPERIMENTS["deconv"].plan({}, tmp_path, quick=True, say=said.append)
    first = trained(plan, "one", plan.config())
    assert len(said) == 1
    assert first.finished
    again = trained(plan, "one", plan.config())
    assert len(said) == 1
    assert again.rows[-1]["mean_iu"] == first.rows[-1]["mean_iu"]
    with pytest.raises(TrainingError, match=r"holds a run with lr \(=0.02\), not 0.5"):
        trained(plan, "one", plan.config(lr=0.5))


def test_spread_shows_the_extremes():
    assert spread([0.5]) == "50.0"
    assert spread([0.5, 0.25, 0.75]) == "50.0 (25.0 to 75.0)"


def test_only_nets_with_all_skips_are_trained_at_once(tmp_path):
    with pytest.raises(MinifcnError, match=r"--model \(=fcn16s\) is the net trained at once: fcn8s or fcn8s-at-once"):
        skips.run(EXPERIMENTS["skips"].plan({"model": "fcn16s"}, tmp_path, quick=True))


# --- the command, records and the page ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> Path:
    """A folder with the records of all experiments, by `--quick`."""
    folder = tmp_path_factory.mktemp("quick")
    for name in NAMES:
        assert cli.main(["experiment", name, "--quick", "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_each_leaves_a_record_and_a_figure(quick, name):
    result = read(quick / f"{name}.json")
    assert result.about["experiment"] == name
    assert result.about["quick"] is True
    assert result.rows
    assert all(set(row) <= set(result.columns) for row in result.rows)
    assert result.measured.endswith(".")
    assert result.summary
    assert isinstance(result.agrees, bool)
    picture = Image.open(quick / f"{name}.png")
    assert picture.width > 300
    assert (quick / f"{name}.png").stat().st_size < 80_000
    assert str(quick) not in (quick / f"{name}.json").read_text()


def test_online_learning_steps_as_often_as_it_sees_images(quick):
    assert [row["steps"] for row in read(quick / "momentum.json").rows] == [1, 20, 20, 20]


def test_the_page_has_every_record_and_keeps_its_own_text(quick, tmp_path):
    page = tmp_path / "page.md"
    assert cli.main(["experiment", "--table", str(page), "--from", str(quick)]) == 0
    text = page.read_text()
    for name, one in EXPERIMENTS.items():
        assert f"[{one.title}](#{name})" in text
        assert f"(page/{name}.png)" in text
        assert f"minifcn experiment {name} --quick" in text
        assert (tmp_path / "page" / f"{name}.png").exists()
    page.write_text(text.replace("# The paper's", "My words.\n\n# The paper's"))
    write_document(page, [], EXPERIMENTS)
    assert page.read_text() == text.replace("# The paper's", "My words.\n\n# The paper's")


def result_of(name: str = "iu-bound", **about) -> Result:
    figure = new_figure(2, 2)
    given = {"experiment": name, "settings": {}, "seeds": [0], "quick": False, "seconds": 1.0, "threads": 2, "date": ""}
    return Result({"a": "s", "b": ".1f"}, [{"a": "x", "b": 1.25}, {"a": "y"}], "M.", "s", True, figure, given | about)


def test_a_table_by_hand():
    assert document.rows(result_of()) == "| a | b |\n|---|---:|\n| x | 1.2 |\n| y | - |"


def test_the_command_says_what_was_chosen():
    chosen = EXPERIMENTS["deconv"]
    settings = chosen.defaults | {"lr": 0.1, "flip": True, "mean": [1.0, 2.0, 3.0]}
    found = document.command(result_of("deconv", settings=settings, seeds=[0, 1]), chosen)
    assert found == "minifcn experiment deconv --lr 0.1 --flip --mean 1.0,2.0,3.0 --seeds 2"


def test_records_do_not_say_where_files_lie():
    plan = EXPERIMENTS["skips"].plan({"data": "camvid:/home/me/data", "init": "/home/me/vgg16.safetensors"}, Path())
    chosen = experiment.Experiment("x", "X", "", lambda plan: result_of(), "")
    about = experiment.conduct(chosen, plan).about
    assert about["settings"]["data"] == "camvid:DIR"
    assert about["settings"]["init"] == "vgg16.safetensors"


def test_pages_refuse_what_is_no_record(tmp_path):
    page, folder = tmp_path / "page.md", tmp_path / "records"
    folder.mkdir()
    with pytest.raises(MinifcnError, match="holds no records of experiments"):
        write_document(page, [folder], EXPERIMENTS)
    (folder / "one.json").write_text("{}")
    with pytest.raises(MinifcnError, match=r"schema \(=None\) must be 'minifcn-experiment/1'"):
        write_document(page, [folder], EXPERIMENTS)
    (folder / "one.json").write_text("{")
    with pytest.raises(MinifcnError, match="is not JSON"):
        read(folder / "one.json")
    result_of("flying").write(folder, "one")
    with pytest.raises(MinifcnError, match="of an unknown experiment, 'flying'"):
        write_document(page, [folder], EXPERIMENTS)
    assert not page.exists()
    result_of().write(folder, "one")
    page.write_text("no markers")
    with pytest.raises(MinifcnError, match="has no markers for table, results; it has none at all"):
        write_document(page, [folder], EXPERIMENTS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say which experiment"),
        (["--from", "x"], "--from names what --table"),
        (["iu-bound", "--epochs", "3"], "--epochs is not a setting of experiment iu-bound"),
        (["skips", "--recipe", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_the_command_refuses(words, message, capsys):
    assert cli.main(["experiment", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_list_names_all(capsys):
    assert cli.main(["experiment", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in NAMES)


def test_the_documents_page_is_what_its_records_say(tmp_path):
    page = tmp_path / "experiments.md"
    page.write_text((DOCS / "experiments.md").read_text())
    write_document(page, [DOCS / "experiments"], EXPERIMENTS)
    assert page.read_text() == (DOCS / "experiments.md").read_text()
    found = [json.loads(file.read_text())["about"] for file in (DOCS / "experiments").glob("*.json")]
    assert {about["experiment"] for about in found} == set(NAMES)
    assert not any(about["quick"] for about in found)
    assert all(file.stat().st_size < 80_000 for file in (DOCS / "experiments").iterdir())


def test_tiny_settings_are_settings():
    assert TrainConfig(**TINY).steps == 3
