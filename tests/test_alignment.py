"""Coordinate maps, crop offsets and the ramp test, against the released nets and hand arithmetic.

The maps below are the worked products of b' = (b + p - (k-1)/2) / s (convolution, pooling) and
b' = s b + (k-1)/2 - p (upsampling), done by hand; the offsets stand in the prototxt files of the released FCNs.
"""

import argparse
import json
from fractions import Fraction as F

import numpy as np
import pytest

from minifcn import alignment
from minifcn.cli import align
from minifcn.errors import MinifcnError
from minifcn.kernels.checks import ShapeError
from minifcn.models import GEOMETRIES, MODELS, build

NETS = ("fcn32s", "fcn16s", "fcn8s")


def thin(model: str, geometry: str, **settings):
    """A network of one channel a layer: where things lie does not depend on channels."""
    return build(model, backbone="small", geometry=geometry, classes=2, width=1e-3, **settings)


# --- derivation --------------------------------------------------------------------------------------------------

OFFSETS = {
    ("fcn32s", "pad100"): {"upscore": 19},
    ("fcn16s", "pad100"): {"score_pool4": 5, "upscore16": 27},
    ("fcn8s", "pad100"): {"score_pool4": 5, "score_pool3": 9, "upscore8": 31},
    ("fcn8s-at-once", "pad100"): {"score_pool4": 5, "score_pool3": 9, "upscore8": 31},
    ("fcn32s", "exact"): {"upscore": 0},
    ("fcn16s", "exact"): {"upscore2": 0, "upscore16": 0},
    ("fcn8s", "exact"): {"upscore2": 0, "upscore_pool4": 0, "upscore8": 0},
    ("fcn8s-at-once", "exact"): {"upscore2": 0, "upscore_pool4": 0, "upscore8": 0},
}


@pytest.mark.parametrize(("model", "geometry"), OFFSETS)
def test_offsets_are_those_of_the_released_nets(model, geometry):
    net = thin(model, geometry)
    derived = {crop.layer: crop.offset for crop in alignment.derive(net).crops}
    assert derived == net.offsets == OFFSETS[model, geometry]


MAPS = {
    "pad100": {
        "conv1_1": (F(1), F(99)),
        "pool1": (F(1, 2), F("49.25")),
        "pool2": (F(1, 4), F("24.375")),
        "pool3": (F(1, 8), F("11.9375")),
        "pool4": (F(1, 16), F("5.71875")),
        "pool5": (F(1, 32), F("2.609375")),
        "fc6": (F(1, 32), F("-0.390625")),
        "score_fr": (F(1, 32), F("-0.390625")),
        "upscore2": (F(1, 16), F("0.71875")),
        "upscore_pool4": (F(1, 8), F("2.9375")),
        "upscore8": (F(1), F(31)),
    },
    "exact": {
        "conv1_1": (F(1), F(0)),
        "pool1": (F(1, 2), F("-0.25")),
        "pool2": (F(1, 4), F("-0.375")),
        "pool3": (F(1, 8), F("-0.4375")),
        "pool4": (F(1, 16), F("-0.46875")),
        "pool5": (F(1, 32), F("-0.484375")),
        "fc6": (F(1, 32), F("-0.484375")),
        "score_fr": (F(1, 32), F("-0.484375")),
        "upscore2": (F(1, 16), F("-0.46875")),
        "upscore_pool4": (F(1, 8), F("-0.4375")),
        "upscore8": (F(1), F(0)),
    },
}


@pytest.mark.parametrize("backbone", ["small", "vgg16"])
@pytest.mark.parametrize("deconv", ["fixed", "learned"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_maps_are_those_worked_out_by_hand(geometry, deconv, backbone):
    net = build("fcn8s", backbone=backbone, geometry=geometry, deconv=deconv, classes=2, width=1e-3)
    steps = {step.layer: step for step in alignment.derive(net).steps}
    found = {name: (steps[name].total.scale, steps[name].total.shift) for name in MAPS[geometry]}
    assert found == MAPS[geometry]


@pytest.mark.parametrize(("model", "shift"), [("fcn32s", F(19)), ("fcn16s", F(27)), ("fcn8s", F(31))])
def test_last_map_of_every_padded_net(model, shift):
    last = alignment.derive(thin(model, "pad100")).steps[-1]
    assert (last.total.scale, last.total.shift) == (1, shift)


def test_every_step_continues_the_one_it_reads():
    for model in NETS:
        for geometry in GEOMETRIES:
            known = {"image": (F(1), F(0))}
            for step in alignment.derive(thin(model, geometry)).steps:
                a, b = known[step.source]
                known[step.layer] = (step.own.scale * a, step.own.scale * b + step.own.shift)
                assert (step.total.scale, step.total.shift) == known[step.layer]


ALEXNET = {
    # conv1 (100 - 5)/4 = 95/4; pool1 and pool2 (b - 1)/2; fc6 b - 5/2; upscore 32 b + 31
    "pad100": {"conv1": F(95, 4), "pool1": F(91, 8), "pool2": F(83, 16), "pool5": F(67, 32), "fc6": F(-13, 32)},
    # half of every odd window: nothing moves; fc6's window of 6, padded by 3, begins half a pixel early
    "exact": {"conv1": F(0), "pool1": F(0), "pool2": F(0), "pool5": F(0), "fc6": F(1, 2)},
}
ALEXNET_CROP = {"pad100": 18, "exact": 47}


@pytest.mark.parametrize("deconv", ["fixed", "learned"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_alexnet_is_aligned_by_a_window_of_63(geometry, deconv):
    net = build("fcn32s", backbone="alexnet", geometry=geometry, deconv=deconv, classes=2, width=1e-3)
    derivation = alignment.derive(net)
    steps = {step.layer: step for step in derivation.steps}
    assert {name: steps[name].total.shift for name in ALEXNET[geometry]} == ALEXNET[geometry]
    assert (steps["upscore"].window, steps["upscore"].padding) == (63, 0)
    assert net.offsets == {crop.layer: crop.offset for crop in derivation.crops} == {"upscore": ALEXNET_CROP[geometry]}
    assert derivation.infeasible(range(1, 1001)) == []
    for size in ((375, 97), (224, 131)):
        assert alignment.ramp_error(net, size) < 1e-9
    net.offsets["upscore"] -= 1
    assert alignment.ramp_error(net, (131, 97)) == pytest.approx(1, abs=1e-9)


def test_a_window_of_64_would_leave_alexnet_half_a_pixel_off():
    """18.5 pixels, which is no crop."""
    net = build("fcn32s", backbone="alexnet", geometry="pad100", classes=2, width=1e-3)
    net.upscore.window = 64
    with pytest.raises(ShapeError, match=r"crop offset \(=37/2\) must be an integer"):
        alignment.derive(net).sizes(100)


def test_sizes_of_a_500_pixel_image_in_alexnet():
    """(500 + 200 - 11)//4 + 1 = 173; ceil(170/2) + 1 = 86; 43; 21; 16; 32*15 + 63 = 543. Exact: ceil(500/s)."""
    layers = ("conv1", "pool1", "pool2", "pool5", "fc6", "upscore")
    expected = {"pad100": (173, 86, 43, 21, 16, 543), "exact": (125, 63, 32, 16, 17, 575)}
    for geometry, rows in expected.items():
        net = build("fcn32s", backbone="alexnet", geometry=geometry, classes=2, width=1e-3)
        sizes = alignment.derive(net).sizes(500)
        assert tuple(sizes[name] for name in layers) == rows


# --- sizes -------------------------------------------------------------------------------------------------------


def test_sizes_of_a_500_pixel_image():
    """The table of the padded VGG net at H = 500, from its prototxt's rules by hand."""
    sizes = alignment.derive(thin("fcn8s", "pad100")).sizes(500)
    expected = {"conv1_1": 698, "pool1": 349, "pool2": 175, "pool3": 88, "pool4": 44, "pool5": 22, "fc6": 16}
    expected |= {"score_fr": 16, "upscore2": 34, "upscore_pool4": 70, "upscore8": 568}
    assert {name: sizes[name] for name in expected} == expected


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("model", NETS)
def test_every_size_from_1_to_400_is_feasible(model, geometry):
    derivation = alignment.derive(thin(model, geometry))
    for size in range(1, 401):
        found = derivation.sizes(size)  # raises where a window or a crop does not fit
        for crop in derivation.crops:
            assert found[crop.layer] - found[crop.reference] >= crop.offset
        if geometry == "exact":
            assert [found[f"pool{i}"] for i in (3, 4, 5)] == [-(-size // s) for s in (8, 16, 32)]


@pytest.mark.parametrize(("model", "count"), [("fcn32s", 1139), ("fcn16s", 395), ("fcn8s", 25)])
def test_floor_pooling_would_refuse_sizes_that_ceil_takes(model, count):
    """Counted over H = 1..2999 by a program of its own, from Caffe's rules."""
    derivation = alignment.derive(thin(model, "pad100"))
    assert derivation.infeasible(range(1, 3000)) == []
    assert len(derivation.infeasible(range(1, 3000), ceil_mode=False)) == count


def test_without_ceil_the_exact_geometry_takes_multiples_of_32_only():
    bad = alignment.derive(thin("fcn8s", "exact")).infeasible(range(1, 201), ceil_mode=False)
    assert sorted(set(range(1, 201)) - set(bad)) == [32, 64, 96, 128, 160, 192]


def test_a_size_that_does_not_fit_is_named():
    """46 rows and floor: 244, 122, 61, 30, 15, 7, fc6 1, upscore 64, but the crop needs 19 + 46 = 65."""
    derivation = alignment.derive(thin("fcn32s", "pad100"))
    derivation.sizes(45, ceil_mode=False)
    with pytest.raises(ShapeError, match="upscore has 64 rows for an image of 46, but its crop needs 65"):
        derivation.sizes(46, ceil_mode=False)


@pytest.mark.parametrize(("size", "surplus", "shift"), [(224, 64, 13), (500, 44, 3)])
def test_centred_crop_of_the_32s_net(size, surplus, shift):
    """224: ceil(422/32) - 6 = 8 scores, 32*7 + 64 = 288 rows, 64 too many; 32 - 19 = 13. 500: 544, 44; 22 - 19 = 3."""
    derivation = alignment.derive(thin("fcn32s", "pad100"))
    (crop,), sizes = derivation.crops, derivation.sizes(size)
    assert (crop.surplus(sizes), crop.centred_shift(sizes)) == (surplus, shift)


@pytest.mark.parametrize(
    ("model", "low", "high"), [("fcn32s", 38, 69), ("fcn16s", 54, 85), ("fcn8s", 62, 93)], ids=NETS
)
def test_range_of_surplus_rows(model, low, high):
    derivation = alignment.derive(thin(model, "pad100"))
    found = [derivation.crops[-1].surplus(derivation.sizes(size)) for size in range(100, 400)]
    assert (min(found), max(found)) == (low, high)


def test_a_centred_crop_of_a_skip_counts_its_pixels_in_the_image():
    """pool4 has 9 or 10 rows too many: with 9 a centred crop drops 4 for 5, which is 16 pixels of the image."""
    derivation = alignment.derive(thin("fcn16s", "pad100"))
    crop = derivation.crops[0]
    shifts = {crop.surplus(sizes): crop.centred_shift(sizes) for sizes in map(derivation.sizes, range(1, 200))}
    assert shifts == {9: -16, 10: 0}


# --- measurement -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [97, 224, 375, 500, 511])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("model", NETS)
def test_ramp_comes_back_where_it_was(model, geometry, size):
    errors = alignment.ramp_errors(thin(model, geometry), (size, 97))
    streams = {"fcn32s": 1, "fcn16s": 2, "fcn8s": 3}[model]
    assert list(errors) == ["score_fr", "score_pool4", "score_pool3"][:streams]
    assert max(errors.values()) < 1e-9


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("model", ["fcn8s", "fcn8s-at-once"])
def test_ramp_on_both_devices_with_learned_upsampling_and_more_columns_than_rows(model, device):
    net = thin(model, "pad100", deconv="learned")
    before = {name: array.copy() for name, array in net.state_dict().items()}
    assert alignment.ramp_error(net, (110, 203), device) < 1e-9
    assert all(np.array_equal(array, before[name]) for name, array in net.state_dict().items())


# (model, geometry, layer whose offset is wrong, by how much, image, what each stream is off by)
FAULTS = [
    ("fcn32s", "pad100", "upscore", 1, 224, {"score_fr": 1}),
    ("fcn32s", "pad100", "upscore", -3, 224, {"score_fr": 3}),
    ("fcn16s", "pad100", "score_pool4", -1, 224, {"score_fr": 0, "score_pool4": 16}),
    ("fcn8s", "pad100", "score_pool3", 2, 224, {"score_fr": 0, "score_pool4": 0, "score_pool3": 16}),
    ("fcn8s", "pad100", "score_pool4", -2, 224, {"score_fr": 0, "score_pool4": 32, "score_pool3": 0}),
    ("fcn8s", "pad100", "upscore8", 5, 224, {"score_fr": 5, "score_pool4": 5, "score_pool3": 5}),
    # 150 rows: pool5 5, pool4 10, pool3 19, so that upscore_pool4 has one row to spare
    ("fcn8s", "exact", "upscore_pool4", 1, 150, {"score_fr": 8, "score_pool4": 8, "score_pool3": 0}),
    # 142 rows: pool5 5, pool4 9, so that upscore2 has one
    ("fcn16s", "exact", "upscore2", 1, 142, {"score_fr": 16, "score_pool4": 0}),
    ("fcn16s", "exact", "upscore16", 2, 150, {"score_fr": 2, "score_pool4": 2}),
]


@pytest.mark.parametrize(("model", "geometry", "layer", "wrong", "size", "expected"), FAULTS)
def test_a_wrong_offset_is_measured_in_pixels(model, geometry, layer, wrong, size, expected):
    net = thin(model, geometry)
    net.offsets[layer] += wrong
    assert alignment.ramp_errors(net, (size, size)) == pytest.approx(expected, abs=1e-9)
    assert alignment.ramp_error(net, (size, size)) == pytest.approx(max(expected.values()), abs=1e-9)


def test_a_wrong_layer_is_measured_in_pixels():
    """fc6 with one pixel more padding looks one of its pixels too early: 32 of the image."""
    net = thin("fcn32s", "exact")
    net.fc6.padding += 1
    assert alignment.ramp_error(net, (224, 224)) == pytest.approx(32, abs=1e-9)


def test_a_shifted_pooling_is_measured_in_pixels():
    """pool3 with a window of 4 for 2 is centred one row of pool2 later: 4 pixels of the image."""
    net = thin("fcn32s", "exact")
    net.pool3.window = 4
    assert alignment.ramp_error(net, (224, 224)) == pytest.approx(4, abs=1e-9)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_an_image_too_small_to_measure_is_an_error(geometry):
    with pytest.raises(MinifcnError, match=r"size \(=30x200\) is too small"):
        alignment.ramp_error(thin("fcn8s", geometry), (30, 200))


# --- the command -------------------------------------------------------------------------------------------------


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    align.add_arguments(parser)
    return align.run(parser.parse_args(words))


def test_command_prints_the_derivation_and_writes_it(tmp_path, capsys):
    file = tmp_path / "align.json"
    assert run("fcn8s", "--geometry", "pad100", "--size", "224x500", "--json", str(file)) == 0
    text = capsys.readouterr().out
    for words in ("x/16 + 183/32", "(x/8 + 191/16) - (x/8 + 47/16)", "all of 1..1000", "Aligned"):
        assert words in text
    found = json.loads(file.read_text())
    assert {crop["layer"]: crop["offset"] for crop in found["crops"]} == OFFSETS["fcn8s", "pad100"]
    assert found["size"] == [224, 500]
    assert found["infeasible"]["ceil"] == []
    assert len(found["infeasible"]["floor"]) == 25
    assert max(found["ramp_error_px"].values()) < 1e-9
    (fc6,) = (step for step in found["steps"] if step["layer"] == "fc6")
    assert fc6["total"] == {"scale": "1/32", "shift": "-25/64"}
    assert fc6["size"] == [8, 16]


def test_command_says_how_far_off_a_centred_crop_is(capsys):
    assert run("fcn32s", "--geometry", "pad100", "--size", "224x500") == 0
    assert "+13, +3" in capsys.readouterr().out


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_command_for_every_model(model, geometry, capsys):
    assert run(model, "--geometry", geometry, "--backbone", "vgg16", "--size", "97x131") == 0
    assert "Aligned" in capsys.readouterr().out


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_command_for_alexnet(geometry, capsys):
    assert run("fcn32s", "--geometry", geometry, "--backbone", "alexnet", "--size", "97x131") == 0
    assert "Aligned" in capsys.readouterr().out


def test_command_fails_on_a_network_out_of_alignment(monkeypatch, capsys):
    def crooked(*arguments, **settings):
        net = build(*arguments, **settings)
        net.offsets["upscore8"] += 1
        return net

    monkeypatch.setattr(align, "build", crooked)
    assert run("fcn8s", "--geometry", "pad100", "--size", "150x150") == 1
    assert "Out of alignment" in capsys.readouterr().out


@pytest.mark.parametrize("size", ["375", "0x5", "axb", "3x4x5", "-3x4"])
def test_command_refuses_a_size_that_is_none(size, capsys):
    with pytest.raises(SystemExit) as stop:
        run("fcn8s", f"--size={size}")
    assert stop.value.code == 2
    assert "must be HxW" in capsys.readouterr().err
