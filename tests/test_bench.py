"""The benchmark is checked: its arithmetic by hand, its gate on wrong kernels, its files, its refusals, its peers."""

import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from minifcn import cli, ops
from minifcn.bench import (
    ceilings,
    compare,
    convolutions,
    devices,
    gate,
    inputs,
    layers,
    memory,
    networks,
    peer,
    quiet,
    readme,
    record,
    rounds,
    rungs,
    statistics,
    tables,
    waterfall,
)
from minifcn.bench.ceilings import Ceilings
from minifcn.bench.convolutions import OwnJob, Setting
from minifcn.bench.gate import Proof, Truth
from minifcn.bench.rounds import Budget
from minifcn.bench.work import OPS, Convolution, Network
from minifcn.device import get_device
from minifcn.errors import MinifcnError
from minifcn.kernels import memory as pool
from minifcn.kernels import reference
from minifcn.kernels.checks import ShapeError
from minifcn.kernels.settings import CUDA_RUNGS, PRECISIONS, settings
from minifcn.models import FCN

try:
    import torch
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch is not installed")
QUICK = Budget(rounds=3, seconds=0.001, limit=5)
CEILINGS = Ceilings(200.0, 30.0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """No long warm-up, samples of a millisecond, ceilings out of thin air."""
    monkeypatch.setattr(rounds, "WARM_SECONDS", 0.0)
    monkeypatch.setattr(rounds, "SAMPLE", 0.001)
    monkeypatch.setattr(ceilings, "measure", lambda threads, device="cpu": CEILINGS)


measure_ceilings = ceilings.measure


def test_the_ceilings_of_this_machine():
    found = measure_ceilings(1)
    assert 1 < found.fp32_gflops < 1000
    assert 0.5 < found.copy_gbs < 1000


def work(op="conv2d_forward", N=2, C=4, H=7, W=9, K=5, **others) -> Convolution:
    window = {"stride": (1, 1), "padding": (1, 1)} | others
    (stride, _), (padding, _) = window["stride"], window["padding"]
    P, Q = ((size + 2 * padding - 3) // stride + 1 for size in (H, W))
    return Convolution(op, "layer", (N, C, H, W), (K, C, 3, 3), (N, K, P, Q), **window)


# --- statistics, by hand -----------------------------------------------------------------------------------------


def test_ratios_are_formed_within_the_round():
    # Medians are 4 and 2, but round by round it is 4/1, 4/4, 9/2.
    found = statistics.ratios([4, 4, 9], [1, 4, 2])
    assert found.tolist() == [4, 1, 4.5]
    assert statistics.median(found) == 4
    with pytest.raises(ValueError, match="3 and 2 rounds"):
        statistics.ratios([1, 2, 3], [1, 2])


def test_quartiles_means_and_shares():
    assert statistics.interquartile_range([5, 1, 2, 4, 3]) == 2  # 4 - 2
    assert statistics.geometric_mean([1, 4]) == pytest.approx(2)
    assert statistics.geometric_mean([]) is None
    assert statistics.fast_share([2, 1.4, 0.9, None], 1) == 0.5  # None: a wrong kernel is never fast
    assert statistics.fast_share([2, 1.4, 0.9, None], 1.5) == 0.25


def test_the_interval_of_a_bootstrap():
    assert statistics.bootstrap([3.0] * 9) == (3, 3)
    low, high = statistics.bootstrap([1.0, 2.0])  # the median of two draws is 1, 1.5 or 2, with 1/4, 1/2, 1/4
    assert (low, high) == (1, 2)
    values = np.random.default_rng(1).normal(10, 1, 100)
    low, high = statistics.bootstrap(values)
    assert low < np.median(values) < high
    assert 0.25 < high - low < 1  # 2 * 1.96 * 1.25 / sqrt(100) = 0.49
    assert statistics.bootstrap(values) == (low, high)


def test_the_ratio_of_two_runs():
    assert statistics.ratio_of_medians([4, 4, 4], [2, 2, 2, 2]) == (2, (2, 2))


@pytest.mark.parametrize(
    ("interval", "itself", "expected"),
    [
        ((1.03, 1.5), None, "faster"),
        ((0.5, 0.97), None, "slower"),
        ((0.98, 1.02), None, "same"),
        ((1.01, 1.5), None, "undecided"),
        ((0.5, 1.5), None, "undecided"),
        ((0.97, 1.01), None, "undecided"),
        ((1.03, 1.5), (0.99, 1.01), "faster"),
        ((1.03, 1.5), (0.95, 1.04), "undecided"),  # the baseline differs as much from itself
        ((1.05, 1.5), (0.95, 1.04), "faster"),
        ((1.5, 1.6), (1.03, 1.1), "void"),
        ((1.5, 1.6), (0.9, 0.97), "void"),
        ((float("nan"), float("nan")), None, "undecided"),
    ],
)
def test_a_verdict_comes_from_intervals_alone(interval, itself, expected):
    assert statistics.verdict(interval, itself) == expected


# --- what is counted ---------------------------------------------------------------------------------------------


def test_flop_and_bytes_of_a_layer_of_vgg():
    one = work(N=1, C=64, H=224, W=224, K=64)
    assert one.flop == 3_699_376_128  # 2 * 224 * 224 * 64 * 64 * 9
    assert one.bytes == 4 * (2 * 64 * 224 * 224 + 64 * 64 * 9)
    assert one.own_flop("direct") == one.flop
    assert one.own_flop("winograd4") == 72 * 56 * 56 * 64 * 64  # 72 T C K
    assert one.own_flop("winograd2") == 32 * 112 * 112 * 64 * 64
    assert one.own_flop("winograd1d") * 3 == one.flop * 2  # 4 instead of 6 a pair
    assert one.shape == "1x64x224x224->64 k3 p1"


def test_pairs_of_pixels_are_counted_whole_and_forward_alone():
    one = work(N=2, C=3, H=5, W=7, K=16)
    assert one.own_flop("winograd1d") == 2 * 2 * 5 * 4 * 4 * 3 * 3 * 16  # 4 pairs in a row of 7
    for op in OPS[1:]:
        backward = work(op, N=2, C=3, H=5, W=7, K=16)
        assert backward.own_flop("winograd1d") == backward.flop


def test_taps_on_padding_are_not_counted_for_an_algorithm_without_them():
    one = Convolution("conv2d_forward", "", (1, 8, 4, 4), (8, 8, 7, 7), (1, 8, 4, 4), padding=(3, 3))
    assert one.own_flop("taps") * 49 == one.flop * 16  # each of the 4 pixels of an axis meets 4 of its 7 taps
    assert one.own_flop("gemm") == one.flop
    inside = replace(one, y_shape=(1, 8, 2, 2), w_shape=(8, 8, 3, 3), padding=(0, 0))
    assert inside.own_flop("taps") == inside.flop


def test_every_rung_of_this_machine():
    assert rungs.names("reference", "conv2d_forward") == ("numpy", "reference")
    for op in OPS:
        one, found = work(op, C=16, K=16), rungs.names("cpu", op)
        assert {"numpy", rungs.chosen("cpu", one)} <= set(found)
        proven = []
        for name in found:
            try:
                assert prove(one, rungs.kernel("cpu", op, name)).passed
            except ShapeError:
                continue
            proven.append(name)
        assert len(proven) > 2


def test_floors():
    assert CEILINGS.floor(200e9, 0) == 1
    assert CEILINGS.floor(200e9, 0, "float64") == 2
    assert CEILINGS.floor(1, 60e9) == 2


def test_steadiness():
    assert ceilings.steady(CEILINGS, Ceilings(195.0, 25.0))
    assert not ceilings.steady(CEILINGS, Ceilings(180.0, 30.0))
    assert not ceilings.steady(CEILINGS, Ceilings(200.0, 15.0))


def test_activations_leave_the_cache():
    one = work()
    assert one.rotating(32 << 20).sets == 8
    assert not one.rotating(32 << 20).cold(32 << 20)
    big = work(N=8, C=64, H=128, W=128)  # 33.5 MB a set
    assert big.rotating(32 << 20).sets == 2
    assert big.rotating(32 << 20).cold(32 << 20)


def test_layers_are_those_of_the_network():
    found = list(layers.works(Network("step", net="vgg16", size=(180, 240), batch=1)))
    shapes = {one.layer: one.shape for one in found if one.op == "conv2d_forward"}
    assert len(shapes) == 13 + 2 + 3
    assert shapes["conv1_1"] == "1x3x180x240->64 k3 p1"
    assert shapes["conv4_1"] == "1x256x23x30->512 k3 p1"
    assert shapes["fc6"] == "1x512x6x8->4096 k7 p3"
    assert shapes["score_pool3"] == "1x256x23x30->12 k1"
    assert next(one.layer for one in found if one.op == "conv2d_backward_input") == "conv1_2"
    assert sum(one.op == "conv2d_backward_weight" for one in found) == 18


# --- the gate ----------------------------------------------------------------------------------------------------


def prove(one: Convolution, kernel) -> Proof:
    return OwnJob(one, kernel).prove(gate.truths(one))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("whole", [True, False])
def test_right_kernels_pass(op, dtype, whole, monkeypatch):
    if not whole:
        monkeypatch.setattr(gate, "WHOLE", 0)
    for one in (work(op, dtype=dtype, C=11, K=13), work(op, dtype=dtype, stride=(2, 2), padding=(0, 0))):
        for device in ("cpu", "reference"):
            proof = prove(one, get_device(device).kernel(op))
            assert proof.passed, proof
            assert proof.largest < gate.TOLERANCES[dtype]


def damaged(op, damage):
    """The reference, whose output `damage` changes."""

    def kernel(*arguments):
        output = np.array(getattr(reference, op)(*arguments))
        damage(output)
        return output

    return kernel


def spoil_nan(output):
    output.flat[-1] = np.nan


def spoil_scale(output):
    output *= 1.0001


def spoil_element(output):
    output.flat[7] += 0.01 * np.abs(output).max()


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("spoil", [spoil_nan, spoil_scale, spoil_element])
def test_wrong_kernels_are_caught(op, spoil):
    proof = prove(work(op), damaged(op, spoil))
    assert not proof.passed
    assert "the output is off by" in proof.broken[0]


@pytest.mark.parametrize("op", OPS)
def test_a_wrong_channel_that_was_not_picked_is_caught(op, monkeypatch):
    """Only some channels of a large case are compared, but a signed sum of all."""
    monkeypatch.setattr(gate, "WHOLE", 0)
    one = work(op, C=40, K=40)
    picked = set(gate.truths(one)[0].looks[0].picks) | set(gate.truths(one)[0].looks[1].picks)
    missed = next(channel for channel in range(40) if channel not in picked)
    axis = 0 if op == "conv2d_backward_weight" else 1

    def spoil(output):
        output[(slice(None),) * axis + (missed,)] *= 1.01

    assert prove(one, getattr(reference, op)).passed
    assert not prove(one, damaged(op, spoil)).passed


def forgetful(x, w, b, *window):
    """Leaves one element of fresh memory unwritten, a large one that the pool hands out."""
    right = reference.conv2d_forward(x, w, b, *window)
    y = pool.empty(right.shape, right.dtype)
    y.reshape(-1)[1:] = right.reshape(-1)[1:]
    return y


def greedy(x, w, b, *window):
    y = reference.conv2d_forward(x, w, b, *window)
    x[...] = 0
    return y


def transformer(x, w, b, *window):
    y = reference.conv2d_forward(x, w, b, *window)
    w *= 1
    return y


def moody(x, w, b, *window, calls=[]):  # noqa: B006
    calls.append(1)
    return reference.conv2d_forward(x, w, b, *window) * np.float32(1 + 1e-7 * (len(calls) % 2))


def wide(x, w, b, *window):
    return reference.conv2d_forward(x, w, b, *window).astype(np.float64)


def small(x, w, b, *window):
    return reference.conv2d_forward(x, w, b, *window)[:1]


@pytest.mark.parametrize(
    ("kernel", "says"),
    [
        (forgetful, "off by nan"),
        (greedy, "changes its input x"),
        (transformer, "read-only"),
        (moody, "other bits"),
        (wide, "must be float32"),
        (small, "must be float32 (8, 5, 40, 40)"),
    ],
)
def test_other_broken_rules(kernel, says):
    proof = prove(work(N=8, H=40, W=40), kernel)  # large enough for the pool
    assert not proof.passed
    assert any(says in text for text in proof.broken), proof.broken


def test_errors():
    assert gate.errors(np.array([3.0, 4.5]), np.array([3.0, 4.0])) == (0.1, 0.125)
    assert gate.errors(np.zeros(2), np.zeros(2)) == (0, 0)
    assert gate.errors(np.ones(2), np.zeros(2)) == (1, 1)
    assert not gate.compare("it", np.array([np.nan]), np.array([1.0]), 1e9).passed
    assert not (Proof(0.0, 0.0) & Proof(np.nan, 0.0, ("bad",))).passed
    assert np.isnan((Proof(1.0, 0.0) & Proof(np.nan, 0.0)).l2)


# --- rounds ------------------------------------------------------------------------------------------------------


def contestant(log, name, seconds):
    def call(repeats):
        log.append(name)
        return seconds

    return call


def test_everyone_has_a_turn_in_every_round():
    log = []
    turns = {name: contestant(log, name, seconds) for name, seconds in (("own", 0.1), ("slow", 0.4), ("quick", 0.2))}
    taken = rounds.take(turns, Budget(4, 0.0, 9), "own", ("slow", "quick"))
    assert taken.twice == "quick"
    assert taken.stopped == "rounds and seconds"
    assert {name: len(times) for name, times in taken.times.items()} == {"own": 4, "slow": 4, "quick": 4, "again": 4}
    played = log[-16:]
    for start in range(0, 16, 4):
        assert sorted(played[start : start + 4]) == ["own", "quick", "quick", "slow"]
    assert len({tuple(played[start : start + 4]) for start in range(0, 16, 4)}) > 1


def test_when_rounds_end():
    turns = {"own": contestant([], "own", 0.1), "base": contestant([], "base", 0.2)}
    taken = rounds.take(turns, Budget(1000, 100.0, 100.0), "own", ("base",))
    assert (taken.stopped, len(taken.times["own"])) == ("steady ratio", rounds.FEWEST)
    taken = rounds.take(turns, Budget(1000, 100.0, 0.001), "own")
    assert taken.stopped == "time limit"


# --- records -----------------------------------------------------------------------------------------------------


def a_record(own=(2.0, 2.0, 2.0), base=(3.0, 3.0, 3.0), kind="layers", steady=True, **about):
    shape = {"params": {"x": (1, 64, 8, 8), "w": (64, 64, 3, 3)}, "flop": 4_718_592, "bytes": 180_224}
    row = record.row(
        op="conv2d_forward", layer="conv3_2", shape="1x64x8x8->64 k3 p1", dtype="float32", device="cpu",
        kernel=record.OWN, algorithm="direct", floor=1e-6, **shape,
    )  # fmt: skip
    record.judge(row, Proof(1e-7, 2e-7), {"torch nchw": Proof(1e-7, 1e-7)})
    seconds = {"own": own, "slow": [2 * one for one in own], "torch nchw": base, rounds.AGAIN: base}
    times = {name: [one * 1e-6 for one in many] for name, many in seconds.items()}
    taken = rounds.Rounds(times, "torch nchw", "rounds and seconds")
    record.fill(row, taken, "own", {record.TRANSFORM: "slow"}, ("torch nchw",))
    found = record.start(["minifcn"], 2) | {"kind": kind, "results": [row | about]}
    found["settings"] = record.settings(QUICK, baseline="torch")
    record.finish(found, CEILINGS, CEILINGS if steady else Ceilings(100.0, 30.0))
    return found


def written(path, **about):
    record.write(path, a_record(**about))
    return path


def test_a_row_by_hand():
    found = a_record()
    row = found["results"][0]
    assert (row["median_us"], row["iqr_us"], row["baseline"]) == (2, 0, "torch nchw")
    assert (row["ratio"], row["ratio_ci"], row["verdict"]) == (1.5, [1.5, 1.5], "faster")
    assert row["alternatives"][record.TRANSFORM]["ratio"] == 0.75
    assert row["pct_floor"] == 50
    assert found["geomean"] == {"forward": pytest.approx(1.5), "backward_input": None, "backward_weight": None}
    assert found["geomean_with_transform"]["forward"] == pytest.approx(0.75)
    assert (found["worst"], found["fast_1"], found["fast_1.5"]) == (1.5, 1, 1)


def test_a_busy_machine_gives_no_verdict():
    found = a_record(steady=False)
    assert found["calibration"]["ok"] is False
    assert found["results"][0]["verdict"] == "busy"
    assert any("BUSY" in line for line in tables.summary(found))


def test_a_step_carries_its_ratio_on_top():
    assert (a_record(kind="step")["ratio"], a_record(kind="step")["ratio_ci"]) == (1.5, [1.5, 1.5])


def test_records_come_back_as_they_were(tmp_path):
    found = a_record()
    record.write(tmp_path / "r.json", found)
    again = record.read(tmp_path / "r.json")
    assert again == json.loads(json.dumps(found))
    assert again["schema"] == "minifcn-bench/1"
    assert {"cpu", "cores", "threads"} <= set(again["machine"])
    before = json.dumps(again)
    again["results"][0]["ratio"] = 99  # derived figures follow from the raw times
    record.summarise(again)
    assert json.dumps(again) == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "schema (=None) must be 'minifcn-bench/1'"),
        ('{"schema": "minifcn-bench/9"}', "schema (='minifcn-bench/9')"),
        ('{"schema": "minifcn-bench/1", "kind": "step"}', "lacks machine, versions"),
    ],
)
def test_other_files_are_refused(tmp_path, content, says):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(record.RecordError, match=re.escape(says)):
        record.read(tmp_path / "r.json")
    with pytest.raises(record.RecordError, match="cannot be read"):
        record.read(tmp_path / "absent.json")


# --- compare -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ((2, 2, 2), (1, 1, 1), "FASTER"),
        ((1, 1, 1), (2, 2, 2), "SLOWER"),
        ((1, 1, 1), (1, 1, 1), "SAME"),
        ((1, 2, 3), (1, 2, 3), "undecided"),
    ],
)
def test_compare(tmp_path, capsys, old, new, expected):
    files = written(tmp_path / "old.json", own=old), written(tmp_path / "new.json", own=new)
    (row,) = compare.rows(*files)
    assert row.verdict == expected
    assert row.ratio == np.median(old) / np.median(new)
    status = cli.main(["bench", "--compare", *map(str, files)])
    assert status == (expected == "SLOWER")
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda found: found["machine"].update(cpu="another"), "cpu differs"),
        (lambda found: found["machine"].update(threads=64), "threads differs"),
        (lambda found: found["results"][0].update(precision="f64"), "precision differs (f32 and f64)"),
    ],
)
def test_compare_refuses_what_is_not_alike(tmp_path, capsys, change, says):
    other = a_record()
    change(other)
    record.write(tmp_path / "new.json", other)
    files = str(written(tmp_path / "old.json")), str(tmp_path / "new.json")
    assert cli.main(["bench", "--compare", *files]) == 2
    assert says in capsys.readouterr().err
    assert cli.main(["bench", "--compare", *files, "--anyway"]) == 0


def test_compare_needs_a_common_row(tmp_path):
    files = written(tmp_path / "old.json"), written(tmp_path / "new.json", layer="conv9")
    with pytest.raises(record.RecordError, match="no row in common"):
        compare.rows(*files)


# --- README ------------------------------------------------------------------------------------------------------

PAGE = "before\n<!-- bench:one -->\nold\n<!-- /bench:one -->\nbetween\n<!-- bench:two -->\n<!-- /bench:two -->\nafter\n"


def test_tables_stand_between_markers(tmp_path, capsys):
    page = tmp_path / "README.md"
    page.write_text(PAGE)
    files = [written(tmp_path / f"{name}.json") for name in ("one", "two", "three")]
    assert cli.main(["bench", "readme", "--readme", str(page), "--from", *map(str, files)]) == 0
    assert "three: no markers" in capsys.readouterr().out
    text = page.read_text()
    assert [part for part in ("before\n", "between\n", "after\n", "old") if part in text] == [
        "before\n",
        "between\n",
        "after\n",
    ]
    assert text.count("1.50 [1.50, 1.50]") == 2
    cli.main(["bench", "readme", "--readme", str(page), "--from", *map(str, files)])
    assert page.read_text() == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nothing", "has no markers for one; it has none at all"),
        ("<!-- bench:one -->", "is never closed"),
        ("<!-- /bench:one -->", "closes nothing"),
        ("<!-- bench:one --><!-- bench:two --><!-- /bench:two -->", "opens inside another one"),
        ("<!-- bench:one --><!-- /bench:one -->" * 2, "a second time"),
    ],
)
def test_broken_markers_change_nothing(tmp_path, text, says):
    page = tmp_path / "README.md"
    page.write_text(text)
    with pytest.raises(MinifcnError, match=says):
        readme.rewrite(page, [written(tmp_path / "one.json")])
    assert page.read_text() == text


# --- rungs -------------------------------------------------------------------------------------------------------


def refusing(*_):
    raise ShapeError("only 3x3 windows")


def test_every_rung_of_a_ladder_is_a_row(monkeypatch):
    rungs_of = {"direct": reference.conv2d_forward, "wrong": damaged("conv2d_forward", spoil_scale), "picky": refusing}
    of_numpy = rungs.kernel
    monkeypatch.setattr(rungs, "names", lambda device, op: (rungs.NUMPY, *rungs_of))
    monkeypatch.setattr(rungs, "kernel", lambda device, op, name: rungs_of.get(name) or of_numpy(device, op, name))
    monkeypatch.setattr(rungs, "chosen", lambda device, work: "direct")
    rows = list(layers.ladder([work()], Setting("cpu", QUICK, CEILINGS, 1 << 20), []))
    assert [row["kernel"] for row in rows] == ["numpy", "direct", "wrong", "picky"]
    assert [row["gate"] for row in rows] == ["ok", "ok", "WRONG", "n/a"]
    assert [bool(row.get("times_us")) for row in rows] == [True, True, False, False]
    assert rows[3]["notes"] == ["only 3x3 windows"]
    assert {row["chosen"] for row in rows} == {"direct"}
    assert record.TRANSFORM in rows[1]["alternatives"]
    assert "±" not in " ".join(tables.cells(rows[2]))


def test_another_algorithm_for_weights_that_change_is_said(monkeypatch):
    def rows():
        contestants = {record.OWN: get_device("cpu").kernel("conv2d_backward_input")}
        return list(convolutions.rows(work("conv2d_backward_input"), contestants, Setting("cpu", QUICK, CEILINGS, 1)))

    assert rows()[0]["notes"] == []
    monkeypatch.setattr(rungs, "chosen", lambda device, work, changing=False: "taps" if changing else "gemm")
    (row,) = rows()
    assert row["algorithm"] == "gemm"
    assert row["notes"] == ["with transform: taps, which needs none"]


def test_a_slow_reference_is_left_out_and_said_so(monkeypatch):
    monkeypatch.setattr(layers, "NUMPY_FLOP", 1)
    (row,) = layers.ladder([work()], Setting("reference", QUICK, CEILINGS, 1 << 20), [])
    assert row["kernel"] == "reference"
    assert row["notes"][0].startswith("numpy left out")


# --- other devices -----------------------------------------------------------------------------------------------


def test_less_precision_has_a_wider_tolerance_and_a_name():
    one = work()
    assert gate.accuracy(one) == "float32"
    assert gate.accuracy(replace(one, precision="tf32")) == "tf32"
    assert gate.accuracy(replace(one, precision="tf32", dtype="float64")) == "float64"
    assert set(gate.TOLERANCES) == set(networks.TOLERANCES) == {"float64", *PRECISIONS}
    assert [record.row(dtype="float32", precision=name)["precision"] for name in PRECISIONS] == [
        "f32", "3xtf32", "tf32", "bf16"
    ]  # fmt: skip
    assert CEILINGS.floor(1e30, 60e9, "tf32") == 2  # bytes alone: what tensor cores can do was not measured


def test_a_simulator_is_proven_but_its_times_mean_nothing():
    found = a_record(device=devices.SIMULATED)
    record.derive(found["results"][0])
    assert found["results"][0]["verdict"] == "simulated"
    assert devices.NOT_TIMES not in tables.summary(found)
    assert devices.NOT_TIMES in tables.summary(found | {"device": devices.SIMULATED})


def test_the_ladder_of_the_simulator():
    try:
        get_device(devices.SIMULATED)
    except MinifcnError as error:
        pytest.skip(str(error))
    one = work(C=8, K=8, H=5, W=4)
    setting = Setting(devices.SIMULATED, QUICK, CEILINGS, 1 << 20)
    rows = {row["kernel"]: row for row in layers.ladder([one], setting, [])}
    assert list(rows) == ["numpy", *CUDA_RUNGS]
    assert rows["tensor"]["gate"] == "n/a"  # at precision float32
    assert {row["gate"] for name, row in rows.items() if name != "tensor"} == {"ok"}
    assert {row["verdict"] for name, row in rows.items() if name != "tensor"} == {"simulated"}
    with settings.using(precision="bfloat16"):
        kernels = {"tensor": rungs.kernel(devices.SIMULATED, one.op, "tensor")}
        rounded = replace(one, precision="bfloat16")
        (row,) = convolutions.rows(rounded, kernels, setting)
        assert (row["gate"], row["precision"]) == ("ok", "bf16")
        assert row["error"]["l2"] > 1e-4
        assert tables.cells(row)[2] == "tensor (bf16)"
        seven = work(C=7, K=7, H=5, W=4, precision="bfloat16")  # tensor cores take eights
        (row,) = convolutions.rows(seven, {record.OWN: get_device(devices.SIMULATED).kernel(one.op)}, setting)
        assert (row["gate"], row["precision"], row["algorithm"]) == ("ok", "f32", "naive")
        assert row["error"]["l2"] < 1e-5
        assert tables.cells(row)[2] == "minifcn (naive)"
        (row,) = convolutions.rows(one, kernels, setting)  # claims to be float32
        assert row["gate"] == "WRONG"


class FakeEvent:
    def record(self):
        self.at = time.perf_counter()

    def synchronize(self):
        pass


def fake_cupy(called):
    """As much of CuPy as a benchmark asks for, on NumPy."""
    runtime = SimpleNamespace(
        getDeviceProperties=lambda number: {"name": b"H100", "multiProcessorCount": 132},
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13020,
    )
    cuda = SimpleNamespace(
        Event=FakeEvent,
        Device=lambda: SimpleNamespace(id=0, attributes={"L2CacheSize": 50 << 20}),
        get_elapsed_time=lambda begin, end: 1e3 * (end.at - begin.at),
        get_current_stream=lambda: SimpleNamespace(synchronize=lambda: called.append("waited")),
        runtime=runtime,
    )

    def kernel(inputs, outputs, body, name):
        called.append(body)
        return lambda x, y: time.sleep(0.001)

    arrays = {name: getattr(np, name) for name in ("ones", "empty", "copyto", "float32", "uint8")}
    return SimpleNamespace(cuda=cuda, ElementwiseKernel=kernel, __version__="14.2.0", **arrays)


def test_a_gpu_is_timed_by_its_own_clock(monkeypatch):
    called = []
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(called))
    monkeypatch.setattr(ceilings, "GPU_COPY_BYTES", 1 << 12)
    calls = []
    seconds = devices.sampler("cuda")(lambda i: (calls.append(i), time.sleep(0.002)), 4)
    assert calls[-4:] == [0, 1, 2, 3]
    assert 0.002 <= seconds < 0.01
    assert devices.cache_bytes("cuda") == 50 << 20
    assert devices.facts("cuda")["gpu"]["name"] == "H100"
    assert devices.facts("cpu") == {}
    devices.waiter("cuda")()
    assert called == ["waited"]
    found = measure_ceilings(1, "cuda")
    assert found.fp32_gflops > 0
    assert found.copy_gbs > 0
    assert called[-1].count("fmaf") == 8
    measured = record.start(["minifcn"], 1, "cuda") | {"kind": "layers", "results": []}
    record.finish(measured, CEILINGS, CEILINGS)
    assert len(measured["machine"]["gpu"]["state"]) == 2
    assert tables.facts(measured).startswith("H100; minifcn")


@pytest.mark.torch
def test_the_peer_rounds_as_it_is_told(other):
    """bfloat16 passes its own gate, and not that of float32."""
    for op in OPS:
        one = work(op, precision="bfloat16")
        truth = Truth(one, inputs.activations(one, 0) | inputs.weights(one))
        strict = Truth(replace(one, precision="float32"), inputs.activations(one, 0) | inputs.weights(one))
        other.ask("prepare", "half", one, "channels_last")
        found = other.ask("output", "half", 0)
        assert truth.prove(found).passed
        assert not strict.prove(found).passed
    # Not a step: on processors PyTorch 2.13 gets the weight gradient of a 7 x 7 window over so small a map wrong.
    one = Network("infer", size=(32, 40), batch=1, classes=5, precision="bfloat16")
    truth = other.ask("truth", replace(one, dtype="float64", precision="float32"), 0)
    other.ask("prepare", "half", one, "channels_last")
    found = other.ask("proof", "half", 0)
    assert networks.compare(found, truth, "bfloat16").passed
    assert not networks.compare(found, truth, "float32").passed


# --- the command line --------------------------------------------------------------------------------------------

TINY = ["--rounds", "3", "--seconds", "0.001"]
NETWORK = ["--size", "16x24", "--batch", "1", "--no-memory", *TINY]


@pytest.fixture
def _fused_head(monkeypatch):
    """The network's own loss and labels, where this checkout's networks lack them."""

    def loss(self, images, target, weight=None, ignore_index=255, reduction="mean"):
        return ops.cross_entropy(self(images), target, weight, ignore_index, reduction)

    for name, method in (("loss", loss), ("labels", lambda self, images: self(images).numpy().argmax(1))):
        if not hasattr(FCN, name):
            monkeypatch.setattr(FCN, name, method, raising=False)


def test_ladder_without_a_baseline(tmp_path, capsys):
    arguments = ["bench", "ladder", "--shape", "1x4x6x6->8", "--shape", "1x4x7x6->8 k1 s2", "--explain", *TINY]
    files = ["--json", str(tmp_path / "l.json"), "--plot", str(tmp_path / "l.png")]
    assert cli.main(arguments + files) == 0
    out = capsys.readouterr().out
    assert "1x4x7x6->8 k1 s2" in out
    assert "no baseline" in out
    found = record.read(tmp_path / "l.json")
    assert found["kind"] == "ladder"
    assert {row["kernel"] for row in found["results"]} >= {"numpy"}
    assert (tmp_path / "l.png").read_bytes().startswith(b"\x89PNG")


KERNELS = """
import numpy as np
from minifcn.kernels import reference
def fine(*arguments): return reference.conv2d_forward(*arguments)
def wrong(*arguments): return reference.conv2d_forward(*arguments) * np.float32(1.001)
def nan(*arguments): return reference.conv2d_forward(*arguments) * np.float32(np.nan)
def mutating(x, *arguments):
    y = reference.conv2d_forward(x, *arguments)
    x *= 2
    return y
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(KERNELS)
    return tmp_path / "mine.py"


@pytest.mark.parametrize("name", ["wrong", "nan", "mutating"])
def test_a_wrong_kernel_prints_wrong_and_no_time(mine, capsys, tmp_path, name):
    arguments = ["bench", "ladder", "--shape", "1x4x6x6->8", "--json", str(tmp_path / "r.json"), *TINY]
    assert cli.main([*arguments, "--kernel", f"conv2d_forward={mine}:{name}"]) == 1
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("forward") and f" {name} " in one]
    assert "±" not in line
    assert line.rstrip().endswith("WRONG")
    (row,) = [row for row in record.read(tmp_path / "r.json")["results"] if row["kernel"] == name]
    assert row["gate"] == row["verdict"] == "WRONG"
    assert not {"times_us", "median_us", "ratio"} & set(row)


@pytest.mark.usefixtures("_fused_head")
def test_a_kernel_runs_inside_the_network(mine, capsys):
    fine = ["--kernel", f"conv2d_forward={mine}:fine"]
    assert cli.main(["bench", "infer", *NETWORK, *fine]) == 0
    assert "minifcn + fine" in capsys.readouterr().out
    assert cli.main(["bench", "infer", *NETWORK, "--kernel", f"conv2d_forward={mine}:wrong"]) == 1
    assert "logits is off by" in capsys.readouterr().out
    assert cli.main(["bench", "infer", *NETWORK, "--kernel", f"avg_pool2d_forward={mine}:fine"]) == 2
    assert "never calls avg_pool2d_forward" in capsys.readouterr().err


@pytest.mark.usefixtures("_fused_head")
@pytest.mark.parametrize("task", ["step", "infer"])
def test_ours_is_replayed_on_the_cpu_and_replays_are_proven(task, mine, capsys, monkeypatch):
    assert cli.main(["bench", task, *NETWORK]) == 0
    assert "minifcn + graph" in capsys.readouterr().out
    assert cli.main(["bench", task, *NETWORK, "--no-graph"]) == 0
    assert "graph" not in capsys.readouterr().out
    assert cli.main(["bench", task, *NETWORK, "--graph", "--kernel", f"conv2d_forward={mine}:fine"]) == 2
    assert "--graph cannot be combined with --kernel" in capsys.readouterr().err
    monkeypatch.setattr("minifcn.kernels.cpu.graph.CpuGraph.feed", lambda graph, array, values: None)
    assert cli.main(["bench", task, *NETWORK]) == 1
    assert "WRONG" in capsys.readouterr().out


@pytest.mark.usefixtures("_fused_head")
@pytest.mark.parametrize("baseline", [None, pytest.param("torch-tuned", marks=[needs_torch, pytest.mark.torch])])
def test_step_and_infer(tmp_path, capsys, baseline):
    chosen = ["--baseline", baseline] if baseline else []
    for task in ("step", "infer"):
        page = tmp_path / "page.md"
        page.write_text(f"<!-- bench:{task} -->\n<!-- /bench:{task} -->\n")
        files = ["--json", str(tmp_path / f"{task}.json"), "--plot", str(tmp_path / "p.png"), "--readme", str(page)]
        assert cli.main(["bench", task, *NETWORK, *chosen, *files]) == 0
        found = record.read(tmp_path / f"{task}.json")
        assert (found["ratio"] is not None) == bool(baseline)
        assert found["results"][0]["truth"].startswith("torch" if baseline else "own")
        assert f"{task}, fcn8s small" in page.read_text()
        assert "where a step's time goes" in capsys.readouterr().out or task == "infer"


@needs_torch
@pytest.mark.torch
def test_layers_beside_torch(tmp_path, monkeypatch, capsys):
    def two(network):
        for op in OPS:
            yield work(op, C=64, K=3)

    monkeypatch.setattr(layers, "works", two)
    assert cli.main(["bench", "layers", "--baseline", "torch", "--json", str(tmp_path / "r.json"), *TINY]) == 0
    found = record.read(tmp_path / "r.json")
    assert [row["baseline_gate"] for row in found["results"]] == [{"torch nchw": "ok", "torch channels_last": "ok"}] * 3
    assert all(found["geomean"][direction] > 0 for direction in ("forward", "backward_input", "backward_weight"))
    assert len(found["results"][0]["baselines_us"]["torch nchw"]) == 3
    assert "torch" in found["versions"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "say what to measure"),
        (["step", "--size", "0x4"], "--size (=0x4)"),
        (["step", "--size", "big"], "--size (=big)"),
        (["infer", "--batch", "0"], "--batch (=0)"),
        (["ladder", "--shape", "1x2x3"], "must look like"),
        (["ladder", "--shape", "1x3x8x8->4 g2"], "groups (=2) must divide"),
        (["ladder", "--shape", "1x3x2x2->4 k5 p0"], "must fit into the padded input"),
        (["ladder", "--rounds", "0"], "--rounds (=0)"),
        (["ladder", "--device", "toaster"], "device 'toaster' is not known"),
        (["ladder", "--kernel", "absent.py:f"], "absent.py is not a file"),
        (["ladder", "--convolution", "magic"], "convolution (='magic')"),
        (["step", "--readme", "README.md"], "add --json FILE"),
    ],
)
def test_bad_input(arguments, says, capsys):
    assert cli.main(["bench", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_missing_baseline_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(peer.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["bench", "ladder", "--baseline", "torch"]) == 2
    assert "pip install torch" in capsys.readouterr().err


# --- PyTorch's side ----------------------------------------------------------------------------------------------


@needs_torch
@pytest.mark.torch
def test_the_peers_process_imports_no_numba():
    code = "import sys, minifcn.bench.torch_peer; print('numba' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], env=peer.environment(1), capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


@pytest.fixture(scope="module")
def other():
    if torch is None:
        pytest.skip("PyTorch is not installed")
    with peer.Peer("torch", 1) as process:
        yield process


@pytest.mark.torch
def test_peers_agree_on_convolutions(other):
    for op in OPS:
        for one in (work(op), work(op, stride=(2, 2), dtype="float64")):
            truth = Truth(one, inputs.activations(one, 0) | inputs.weights(one))
            for form in peer.FORMATS:
                other.ask("prepare", form, one, form)
                assert truth.prove(other.ask("output", form, 0)).passed
                assert not truth.prove(other.ask("output", form, 1)).passed  # other numbers
                assert other.ask("time", form, 2) > 0


@pytest.mark.torch
@pytest.mark.usefixtures("_fused_head")
@pytest.mark.parametrize("model", ["fcn32s", "fcn16s", "fcn8s", "fcn8s-at-once"])
def test_peers_agree_on_networks(other, model):
    """Logits, loss and every gradient, odd sizes, float64; and another network is seen as another."""
    one = Network("step", model, size=(37, 45), batch=2, classes=5, dtype="float64")
    truth = other.ask("truth", one, 0)
    found = networks.OwnNetwork(one, "cpu", data=False).proof(0)
    assert networks.compare(found, truth, "float64").passed
    assert len(found) == 2 + len(list(networks.OwnNetwork(one, "cpu", data=False).network.parameters()))
    elsewhere = networks.OwnNetwork(replace(one, model="fcn16s" if model == "fcn8s" else "fcn8s"), "cpu", data=False)
    assert not networks.compare(elsewhere.proof(0), truth, "float64").passed


@pytest.mark.torch
@pytest.mark.usefixtures("_fused_head")
def test_steps_from_the_same_weights_end_alike(other):
    """Three steps of both sides without dropout: the optimisers agree as well."""
    one = Network("step", size=(24, 24), batch=1, classes=5, dropout=0.0, dtype="float64")
    other.ask("prepare", "net", one, "nchw")
    own = networks.OwnNetwork(one, "cpu")
    for _ in range(3):
        other.ask("time", "net", 1)
        own.step(0)
    before = networks.OwnNetwork(one, "cpu", data=False).proof(0)
    found, expected = own.proof(0), other.ask("proof", "net", 0)
    assert networks.compare(found, expected, "float64").passed
    assert not networks.compare(before, expected, "float64").passed  # the steps did something


@pytest.mark.torch
def test_the_peers_errors_are_told(other):
    with pytest.raises(peer.PeerError, match="KeyError"):
        other.ask("time", "nobody", 1)
    with pytest.raises(peer.PeerError, match="AttributeError"):
        other.ask("nonsense")


def test_labels_may_differ_at_ties_only():
    logits = np.array([[[[1.0, 0.0]], [[1.0, 5.0]]]])  # [1, 2, 1, 2]: a tie, and class 1
    assert networks._compare_labels(np.array([[[0, 1]]]), logits, 1e-6).passed
    assert networks._compare_labels(np.array([[[1, 1]]]), logits, 1e-6).passed
    assert not networks._compare_labels(np.array([[[1, 0]]]), logits, 1e-6).passed


# --- where time and memory go ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_fused_head")
def test_the_waterfall_adds_up_and_knows_layers():
    one = Network("step", size=(16, 16), batch=1, classes=5)
    entries = waterfall.measure(one, "cpu", {})
    assert sum(entry["share"] for entry in entries) == pytest.approx(1, abs=0.01)
    named = {(entry["class"], entry["layer"]) for entry in entries if entry["class"].startswith("conv")}
    assert {("conv forward", "conv1_1"), ("conv backward, all in one", "fc6")} <= named
    assert {("conv backward weight", "score_pool4"), ("conv backward input", "score_pool4")} <= named
    assert "conv forward" in waterfall.text(entries)
    assert get_device("cpu").replacements == {}


def test_resident_memory_is_seen():
    before, _ = memory.resident()
    block = np.ones(64 << 20, np.uint8)
    now, peak = memory.resident()
    assert peak >= now >= before + (48 << 20)
    del block


@pytest.mark.skipif(not hasattr(FCN, "loss"), reason="this checkout's networks have no loss of their own")
def test_peak_memory_of_a_fresh_process():
    found = memory.measure("minifcn", Network("step", size=(16, 16), batch=1, classes=5), 1)
    assert 1 << 20 < found["peak_bytes"] < 1 << 30


def test_weights_lie_as_the_networks_own():
    assert convolutions._in_order(np.zeros((2, 3, 4, 5)), (0, 2, 3, 1), get_device("cpu")).strides == (480, 8, 120, 24)
    assert layers._w_order(np.zeros((2, 4, 5, 3)).transpose(0, 3, 1, 2)) == (0, 2, 3, 1)


# --- rest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("linux", [True, False])
def test_rest_waits_for_threads_that_spin(monkeypatch, tmp_path, linux):
    if not linux:
        monkeypatch.setattr(quiet, "THREADS", tmp_path / "absent")
    elif not quiet.THREADS.is_dir():
        pytest.skip("this system has no /proc")

    def spin():
        end = time.perf_counter() + 0.1
        while time.perf_counter() < end:
            sum(range(1000))

    thread = threading.Thread(target=spin)
    thread.start()
    assert quiet.rest()
    ended = not thread.is_alive()
    thread.join()
    assert ended
    started = time.perf_counter()
    assert quiet.rest()
    assert time.perf_counter() - started < 0.09


def test_rest_gives_up(monkeypatch):
    monkeypatch.setattr(quiet, "LIMIT", 0.02)
    monkeypatch.setattr(quiet, "_others_run", lambda: True)
    monkeypatch.setattr(quiet, "_time_goes_by", lambda: True)
    assert not quiet.rest()


def test_a_sample_is_the_mean_of_its_calls():
    calls = []
    seconds = quiet.sample(lambda i: (calls.append(i), time.sleep(0.002)), 4)
    assert calls[-4:] == [0, 1, 2, 3]
    assert len(calls) > 4  # some before the clock
    assert 0.002 <= seconds < 0.01
