"""Training: a run is a function of its configuration, survives every interruption, and refuses what cannot work."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save_file

import minifcn
from minifcn import checkpoint, cli, ops
from minifcn.checkpoint import Checkpoint
from minifcn.configuration import TrainConfig
from minifcn.device import get_device
from minifcn.errors import CheckpointError, DataError, DeviceError, FileWriteError, TrainingError
from minifcn.kernels.settings import SettingError
from minifcn.kernels.settings import settings as kernel_settings
from minifcn.segmenter import Segmenter
from minifcn.training import Run

from .devices import on_devices

TINY = {"data": "scenes:32x40", "width": 0.25, "batch": 4, "steps": 6}
COMMAND = [sys.executable, "-m", "minifcn", "train"]
TINY_OPTIONS = ["--data", "scenes:32x40", "--width", "0.25", "--batch", "4"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished tiny run that tests only read."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    Run.start(folder, TrainConfig(**TINY)).train()
    return folder


def weights(folder: Path) -> dict[str, np.ndarray]:
    """Everything that a run's last checkpoint holds, optimiser state included."""
    return load_file(folder / "last.safetensors")


def assert_same_bits(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert any(name.startswith("optimizer/") for name in first)


def logged(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines]


def test_a_run_leaves_all_its_files(trained):
    assert {path.name for path in trained.iterdir()} == {
        "best.safetensors",
        "config.toml",
        "curves.png",
        "last.safetensors",
        "log.jsonl",
        "metrics.csv",
        "samples",
    }
    assert [path.name for path in (trained / "samples").iterdir()] == ["epoch-001.png"]
    assert [step for step, _ in logged(trained)] == [1, 2, 3, 4, 5, 6]
    assert TrainConfig.from_toml(trained / "config.toml") == TrainConfig(**TINY)


def test_training_lowers_the_loss(tmp_path):
    run = Run.start(tmp_path / "run", TrainConfig(**TINY | {"steps": 40, "width": 0.5, "lr": 0.02, "dropout": 0.0}))
    run.train()
    losses = [loss for _, loss in logged(tmp_path / "run")]
    assert losses[0] == pytest.approx(np.log(8), rel=1e-5)
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


REPLACEMENT = {"sampling": "replacement", "epoch_images": 40}


@pytest.mark.parametrize(
    "extra", [{}, {"accumulate": 3, "optimizer": "adamw", "lr": 0.001, "flip": True} | REPLACEMENT]
)
def test_stopped_anywhere_and_resumed_is_the_same_run(tmp_path, extra):
    config = TrainConfig(**TINY | extra | {"steps": 7, "save_every": 2})
    Run.start(tmp_path / "whole", config).train()
    for stop_after in (1, 4):
        folder = tmp_path / f"stopped-{stop_after}"
        run = Run.start(folder, config)
        assert not run.train(stop=lambda run=run, last=stop_after: run.standing.step >= last)
        assert run.standing.step == stop_after
        assert Run.resume(folder).train()
        assert_same_bits(folder, tmp_path / "whole")
        assert logged(folder) == logged(tmp_path / "whole")


def test_a_run_over_an_epoch_boundary_resumes_to_the_same_metrics(tmp_path):
    config = TrainConfig(**TINY | {"batch": 300, "steps": 5, "data": "scenes:32x32", "width": 0.1, "save_every": 1})
    Run.start(tmp_path / "whole", config).train()
    run = Run.start(tmp_path / "stopped", config)
    run.train(stop=lambda: run.standing.step >= 3)
    (tmp_path / "stopped" / "log.jsonl").open("a").write('{"step": 4, "epoch": 2, "lo')  # as a kill may leave it
    Run.resume(tmp_path / "stopped").train()
    assert_same_bits(tmp_path / "stopped", tmp_path / "whole")
    for name in ("metrics.csv", "config.toml"):
        assert (tmp_path / "stopped" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert len((tmp_path / "whole" / "metrics.csv").read_text().splitlines()) == 1 + 3


@pytest.mark.parametrize("clip_norm", [None, 1e-3])
def test_a_step_is_caffes_over_iter_size_batches(tmp_path, clip_norm):
    """Gradients are summed, clipped and divided by iter_size: w - lr (g1 + g2) min(1, clip / |g1 + g2|) / 2."""
    settings = {"batch": 2, "accumulate": 2, "steps": 1, "dropout": 0.0, "dtype": "float64", "schedule": "fixed"}
    rule = {"optimizer": "sgd-caffe", "momentum": 0.99, "weight_decay": 0.0, "reduction": "batch", "lr": 1e-7}
    run = Run.start(tmp_path / "run", TrainConfig(**TINY | settings | rule | {"clip_norm": clip_norm}))
    network = run.network.train()
    before = {name: parameter.data.copy() for name, parameter in network.named_parameters()}
    batches = run.loader.epoch(0)
    for batch in (next(batches), next(batches)):
        network.loss(minifcn.Tensor(batch.images.astype(np.float64)), batch.labels, reduction="batch").backward()
    batches.close()
    total = {name: parameter.grad.data.copy() for name, parameter in network.named_parameters()}
    norm = np.sqrt(sum((gradient**2).sum() for gradient in total.values()))
    factor = 1 if clip_norm is None else clip_norm / norm
    assert factor == 1 or factor < 0.5
    run._end_epoch = lambda: None
    run.train()
    for name, parameter in network.named_parameters():
        expected = -1e-7 * factor * total[name] / 2
        np.testing.assert_allclose(parameter.data - before[name], expected, rtol=1e-6, atol=1e-15)


def test_the_graph_of_a_batch_is_gone_before_the_next_batch_of_a_step(tmp_path):
    peaks = []
    for accumulate in (1, 3):
        folder = tmp_path / str(accumulate)
        settings = {"data": "scenes:96x96", "batch": 4, "width": 0.25, "steps": 1, "evaluate_every": 100}
        with kernel_settings.using(threads=1):  # a helper that is late holds its arrays a little longer
            Run.start(folder, TrainConfig(**settings, accumulate=accumulate)).train()
        lines = (folder / "log.jsonl").read_text().splitlines()
        peaks.append(json.loads(lines[0])["peak_mib"])
    assert peaks[1] < 1.2 * peaks[0]


def test_killed_at_a_random_step_and_resumed_is_bit_identical(tmp_path):
    options = [*TINY_OPTIONS, "--steps", "30", "--save-every", "4"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*COMMAND, *options, "--run", str(whole)], check=True, capture_output=True)
    process = subprocess.Popen([*COMMAND, *options, "--run", str(killed)], stdout=subprocess.DEVNULL)
    stop_at, deadline = int(np.random.default_rng().integers(1, 28)), time.monotonic() + 120
    log = killed / "log.jsonl"
    while not (log.exists() and len(log.read_text().splitlines()) >= stop_at) and process.poll() is None:
        assert time.monotonic() < deadline, "the run never reached the step to kill it at"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, f"it ended before step {stop_at}"
    subprocess.run([*COMMAND, "--run", str(killed), "--resume"], check=True, capture_output=True)
    assert_same_bits(whole, killed)
    assert logged(whole) == logged(killed), f"killed at step {stop_at}"


def test_one_two_and_four_threads_give_the_same_bits(tmp_path):
    for threads in ("1", "2", "4"):
        command = [*COMMAND, *TINY_OPTIONS, "--steps", "5", "--flip", "--run", str(tmp_path / threads)]
        subprocess.run([*command, "--threads", threads], check=True, capture_output=True)
    assert_same_bits(tmp_path / "1", tmp_path / "2")
    assert_same_bits(tmp_path / "1", tmp_path / "4")


def test_ctrl_c_saves_and_says_how_to_resume(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [*COMMAND, *TINY_OPTIONS, "--steps", "100000", "--run", str(folder)], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not ((folder / "log.jsonl").exists() and (folder / "log.jsonl").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"minifcn train --run {folder} --resume" in output
    step = Run.resume(folder).standing.step
    assert step >= 1
    assert f"saved at step {step}" in output


# --- what cannot work --------------------------------------------------------------------------------------


def test_a_loss_that_is_not_a_number_stops_the_run_and_keeps_the_last_good_weights(tmp_path, capsys):
    arguments = [*TINY_OPTIONS, "--steps", "50", "--lr", "1e30", "--run", str(tmp_path / "run")]
    assert cli.main(["train", *arguments]) == 2
    message = capsys.readouterr().err
    assert "the loss became" in message
    assert "step" in message
    assert "images train_000" in message, "it names the images of the batch"
    assert "last.safetensors" in message
    assert all(np.isfinite(array).all() for array in weights(tmp_path / "run").values())


def test_weights_that_are_not_finite_are_not_saved(trained, tmp_path):
    saved = checkpoint.load(trained / "last.safetensors")
    saved.weights["fc6.bias"] = saved.weights["fc6.bias"].copy()
    saved.weights["fc6.bias"][0] = np.nan
    with pytest.raises(CheckpointError, match=r"not finite in fc6\.bias"):
        saved.save(tmp_path / "bad.safetensors")
    assert not (tmp_path / "bad.safetensors").exists()


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    run = Run.start(tmp_path / "run", TrainConfig(**TINY))
    before = (tmp_path / "run" / "last.safetensors").read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileWriteError, match="No space left on device"):
        run.train()
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before
    assert not list((tmp_path / "run").glob(".minifcn-*"))


def test_a_missing_gpu_is_named(capsys):
    try:
        get_device("cuda")
        pytest.skip("there is a GPU")
    except DeviceError as error:
        expected = str(error)
    assert cli.main(["train", "--device", "cuda"]) == 2
    assert capsys.readouterr().err == f"minifcn train: {expected}\n"
    assert expected.startswith("device 'cuda' needs ")
    with pytest.raises(DeviceError, match="device 'cuda' needs "):
        minifcn.Tensor([1.0], device="cuda")


@given(data=st.data())
def test_the_format_s_own_library_reads_what_was_saved(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("saved") / "a.safetensors"
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
    arrays = st.sampled_from([np.float32, np.float64]).flatmap(
        lambda dtype: hnp.arrays(dtype, shapes, elements=st.floats(-(2.0**99), 2.0**99, width=32))
    )
    drawn = data.draw(st.dictionaries(st.text("abc._é", min_size=1, max_size=5), arrays, max_size=5))
    weights = {name: array.T if data.draw(st.booleans()) else array for name, array in drawn.items()}
    state = {f"momentum/{name}": -array for name, array in weights.items()}
    Checkpoint(weights, {"network": {"classes": 3}}, state).save(path)
    read = load_file(path)
    expected = weights | {f"optimizer/{name}": array for name, array in state.items()}
    assert read.keys() == expected.keys()
    for name, array in expected.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    assert checkpoint.about(path) == {"network": {"classes": 3}}


def test_saving_copies_no_more_than_one_tensor(tmp_path):
    size = 1 << 20
    weights = {str(i): np.zeros((4, size // 16)).T for i in range(8)}  # not C-contiguous
    tracemalloc.start()
    try:
        Checkpoint(weights, {}).save(tmp_path / "a.safetensors")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert weights["0"].nbytes <= most < 2 * weights["0"].nbytes


def test_corrupt_and_foreign_checkpoints_are_refused(trained, tmp_path):
    good = (trained / "last.safetensors").read_bytes()
    cases = {"truncated": good[: len(good) // 2], "noise": os.urandom(2000), "empty": b""}
    for name, content in cases.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{name}\.safetensors: .*corrupt or foreign"):
            checkpoint.load(path)
    save_file({"a": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not one that minifcn wrote"):
        checkpoint.load(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        checkpoint.load(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match="neither best"):
        Segmenter.load(tmp_path)


def test_a_resume_from_a_corrupt_checkpoint_changes_nothing(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / "last.safetensors").write_bytes(b"broken")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="corrupt or foreign"):
        Run.resume(folder)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make_folder(root: Path, sizes: list[tuple[int, int]], values=(0, 1, 2)) -> Path:
    """A data set of random images and labels of the given sizes (H, W)."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for i, (H, W) in enumerate(sizes):
        Image.fromarray(rng.integers(0, 256, (H, W, 3), np.uint8)).save(root / "images" / f"{i:02d}.png")
        Image.fromarray(rng.choice(np.array(values, np.uint8), (H, W))).save(root / "labels" / f"{i:02d}.png")
    return root


def test_a_checkpoint_for_other_classes_is_refused(trained, tmp_path, capsys):
    data = make_folder(tmp_path / "three", [(32, 32)] * 5)
    assert cli.main(["evaluate", str(trained), "--data", f"folder:{data}"]) == 2
    message = capsys.readouterr().err
    assert "trained for 8 classes" in message
    assert "has 3" in message
    with pytest.raises(CheckpointError, match=r"score_fr\.weight has shape \(8, 64, 1, 1\), but the network needs \(3"):
        Run.start(tmp_path / "run", TrainConfig(data=f"folder:{data}", width=0.25, init=str(trained)))
    assert not (tmp_path / "run").exists()


def test_a_batch_of_different_sizes_names_both_files(tmp_path):
    data = make_folder(tmp_path / "mixed", [(32, 32), (40, 32), (32, 32), (40, 32), (32, 32)])
    run = Run.start(tmp_path / "run", TrainConfig(data=f"folder:{data}", width=0.25, batch=4, steps=1))
    with pytest.raises(DataError, match=r"\.png .*a batch needs one size: crop, or use batch size 1"):
        run.train()
    cropped = TrainConfig(data=f"folder:{data}", width=0.25, batch=4, steps=1, crop=(32, 32))
    assert Run.start(tmp_path / "cropped", cropped).train()
    single = TrainConfig(data=f"folder:{data}", width=0.25, batch=1, steps=2)
    assert Run.start(tmp_path / "single", single).train()


def test_images_that_are_all_void_train_nothing_and_break_nothing(tmp_path):
    data = make_folder(tmp_path / "void", [(32, 32)] * 5, values=(255,))
    (data / "classes.txt").write_text("a\nb\nc\n")
    config = TrainConfig(data=f"folder:{data}", width=0.25, batch=2, steps=2, weight_decay=0.0)
    run = Run.start(tmp_path / "run", config)
    before = {name: array.copy() for name, array in run.network.state_dict().items()}
    assert run.train()
    assert [loss for _, loss in logged(tmp_path / "run")] == [0, 0]
    assert all((array == before[name]).all() for name, array in run.network.state_dict().items())


@pytest.mark.parametrize(
    ("device", "setting", "had"),
    [
        ("cpu", {"precision": "tf32"}, "float32"),
        ("reference", {"precision": "bfloat16"}, "float32"),
        ("cpu", {"convolution": "tiled"}, "direct"),
        ("reference", {"convolution": "winograd2"}, "none"),
    ],
)
def test_what_a_device_does_not_have_is_refused_before_anything_is_written(tmp_path, device, setting, had):
    (value,) = setting.values()
    with pytest.raises(SettingError, match=f"{value}.* device '{device}', which has {had}"):
        Run.start(tmp_path / "run", TrainConfig(**TINY | setting, device=device))
    assert not (tmp_path / "run").exists()


def test_settings_out_of_range_are_named(tmp_path, trained, capsys):
    for wrong, message in [
        ({"batch": 0}, r"batch \(=0\) must be at least 1"),
        ({"lr": 0.0}, r"learning rate \(=0\.0\) must be above 0"),
        ({"dropout": 1.0}, r"dropout \(=1\.0\)"),
        ({"momentum": 1.0}, r"momentum \(=1\.0\) must be at least 0 and below 1"),
        ({"weight_decay": -1.0}, r"weight_decay \(=-1\.0\) must be at least 0"),
        ({"width": -1.0}, r"width \(=-1\.0\) must be above 0"),
        ({"class_weights": (1.0, 2.0)}, "2 numbers for 8 classes"),
        ({"mean": (1.0,)}, r"mean \(=\(1\.0,\)\) must have 3 numbers"),
        ({"model": "unet"}, "model .*'unet'.* must be one of fcn32s"),
    ]:
        with pytest.raises(minifcn.MinifcnError, match=message):
            Run.start(tmp_path / "run", TrainConfig(**wrong))
        assert not (tmp_path / "run").exists()
    assert cli.main(["train", *TINY_OPTIONS, "--run", str(trained)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert cli.main(["train", "--run", str(trained), "--resume", "--lr", "1"]) == 2
    assert "leave out --lr" in capsys.readouterr().err
    assert cli.main(["train", "--resume"]) == 2
    assert "--resume needs --run DIR" in capsys.readouterr().err
    assert cli.main(["train", "--run", str(tmp_path / "none"), "--resume"]) == 2
    assert "no run to resume" in capsys.readouterr().err
    (tmp_path / "config.toml").write_text("lr = [")
    with pytest.raises(TrainingError, match=r"config\.toml: not a readable TOML file"):
        TrainConfig.from_toml(tmp_path / "config.toml")


# --- stages, and the other commands ------------------------------------------------------------------------


def test_stages_copy_what_they_share_and_start_the_skips_at_zero(tmp_path):
    previous = None
    for model, new in (("fcn32s", None), ("fcn16s", ["score_pool4"]), ("fcn8s", ["score_pool3"])):
        config = TrainConfig(**TINY | {"steps": 2, "model": model, "init": previous and str(previous)})
        run = Run.start(tmp_path / model, config)
        assert run.standing.new_layers == new
        if previous:
            parent = checkpoint.load(previous / "best.safetensors").weights
            own = run.network.state_dict()
            assert all((own[name] == parent[name]).all() for name in parent)
            assert not own[f"{new[0]}.weight"].any()
        run.train()
        previous = tmp_path / model
    with pytest.raises(CheckpointError, match=r"fc6\.weight has shape"):
        Run.start(tmp_path / "wide", TrainConfig(**TINY | {"width": 0.5, "init": str(previous)}))


def test_learned_upsampling_of_a_coarser_net_is_left_behind(tmp_path):
    settings = TINY | {"steps": 1, "deconv": "learned"}
    Run.start(tmp_path / "32", TrainConfig(**settings | {"model": "fcn32s"})).train()
    run = Run.start(tmp_path / "16", TrainConfig(**settings | {"model": "fcn16s", "init": str(tmp_path / "32")}))
    assert run.standing.new_layers == ["score_pool4", "upscore16", "upscore2"]


def test_evaluate_prints_and_writes_the_scores(trained, tmp_path, capsys):
    target, picture = tmp_path / "scores.json", tmp_path / "confusion.png"
    arguments = [str(trained), "--data", "scenes:32x40", "--json", str(target), "--confusion", str(picture)]
    assert cli.main(["evaluate", *arguments]) == 0
    output = capsys.readouterr().out
    scores = json.loads(target.read_text())
    assert f"mean IU {scores['mean_iu']:.4f}" in output.splitlines()
    assert "absent classes: nanmean" in output
    with (trained / "metrics.csv").open() as table:
        last = dict(zip(*[line.strip().split(",") for line in table], strict=True))
    assert scores["mean_iu"] == pytest.approx(float(last["mean_iu"]), abs=1e-12)
    counts = np.array(scores["confusion"])
    assert scores["pixel_accuracy"] == pytest.approx(np.trace(counts) / counts.sum())
    assert Image.open(picture).size[0] > 200


def test_predict_writes_palette_overlay_and_legend(trained, tmp_path, capsys):
    images = tmp_path / "photos"
    images.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (37, 53, 3), np.uint8)).save(images / "a.png")
    Image.fromarray(rng.integers(0, 256, (20, 31), np.uint8)).save(images / "b.jpg")
    out = tmp_path / "out"
    assert cli.main(["predict", str(trained), str(images), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {"a.png", "a_overlay.png", "b.png", "b_overlay.png", "legend.png"}
    label = Image.open(out / "a.png")
    assert (label.mode, label.size) == ("P", (53, 37))
    segmenter = minifcn.Segmenter.load(trained)
    expected = segmenter.logits(np.asarray(Image.open(images / "a.png"))[None])[0].argmax(axis=0)
    assert (np.asarray(label) == expected).all()
    (tmp_path / "empty").mkdir()
    assert cli.main(["predict", str(trained), str(tmp_path / "empty")]) == 2
    assert "holds no images" in capsys.readouterr().err
    (images / "b.png").write_bytes(b"not an image")
    assert cli.main(["predict", str(trained), str(images), "--out", str(out)]) == 2
    assert "would both be written as b.png" in capsys.readouterr().err
    before = (images / "a.png").read_bytes()
    assert cli.main(["predict", str(trained), str(images / "a.png"), "--out", str(images)]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert (images / "a.png").read_bytes() == before
    (images / "legend.jpg").write_bytes((images / "b.jpg").read_bytes())
    assert cli.main(["predict", str(trained), str(images / "legend.jpg"), "--out", str(out)]) == 2
    assert "legend.jpg and the legend would both be written as legend.png" in capsys.readouterr().err
    assert cli.main(["predict", str(trained), str(images / "b.png"), "--out", str(out)]) == 2
    assert "b.png" in capsys.readouterr().err


def test_doctor_shows_the_machine_and_finds_what_is_wrong(tmp_path, capsys):
    assert cli.main(["doctor"]) == 0
    output = capsys.readouterr().out
    assert minifcn.__version__ in output
    assert "kernel cache" in output
    data = make_folder(tmp_path / "broken", [(32, 32)] * 5)
    (data / "classes.txt").write_text("a\nb\n")  # but label 2 occurs
    Image.new("RGB", (16, 16)).save(data / "labels" / "01.png")
    assert cli.main(["doctor", "--data", f"folder:{data}"]) == 1
    output = capsys.readouterr().out
    assert "01.png" in output
    assert "RGB" in output
    assert "00.png, row" in output


def test_a_network_may_be_used_on_the_reference_device(trained):
    image = np.random.default_rng(0).integers(0, 256, (33, 45, 3), np.uint8)
    fast, slow = (Segmenter.load(trained, device).logits(image[None]) for device in ("cpu", "reference"))
    assert np.abs(fast - slow).max() <= 1e-4 * np.abs(slow).max()


@pytest.mark.parametrize("device", on_devices("cuda-sim", "cuda"))
def test_training_on_cuda_gives_the_losses_of_the_cpu(tmp_path, device):
    """Over twenty steps, dropout included: its masks are the same."""
    losses = {}
    for place in ("cpu", device):
        config = TrainConfig(**TINY | {"steps": 100, "device": place, "lr": 0.02})
        run = Run.start(tmp_path / place, config)
        run.train(stop=lambda run=run: run.standing.step == 20)
        losses[place] = [loss for _, loss in logged(tmp_path / place)]
    assert len(losses["cpu"]) == 20
    np.testing.assert_allclose(losses[device], losses["cpu"], rtol=1e-5)


def test_class_weights_change_the_loss_as_they_should():
    x, target = np.zeros((1, 3, 1, 2)), np.array([[[0, 2]]])
    x[0, 0, 0, 0] = 1
    loss = ops.cross_entropy(minifcn.Tensor(x), target, weight=[1.0, 1.0, 3.0]).item()
    # pixel 0: log(e + 2) - 1, weight 1; pixel 1: log 3, weight 3; over the sum of the weights
    assert loss == pytest.approx((np.log(np.e + 2) - 1 + 3 * np.log(3)) / 4)
