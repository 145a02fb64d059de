"""Scores against hand arithmetic, a naive loop over pixels, and the invariances they must have."""

import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minifcn.errors import MinifcnError
from minifcn.metrics import ABSENT, ConfusionMatrix, constant_predictor, scores

NAN = float("nan")


def matrix(target, prediction, classes, **kwargs):
    confusion = ConfusionMatrix(classes)
    confusion.update(np.array(target, np.uint8), np.array(prediction), **kwargs)
    return confusion


def same(actual, expected):
    """Equal to 1e-12, NaN only where NaN is expected."""
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=0, equal_nan=True)


# Worked by hand. Classes 0..3; class 2 is predicted but never true, class 3 occurs nowhere, v is void:
#
#   target       0 0 0 0 1 1 1 v      counts     pred 0  1  2  3 | t
#   prediction   0 0 0 1 1 1 2 2      true 0:         3  1  0  0 | 4
#                                     true 1:         0  2  1  0 | 3
#                                     sums:           3  3  1  0 | 7
#
#   pixel accuracy  (3 + 2) / 7
#   accuracy        3/4, 2/3, -, -
#   IU              3/(4+3-3) = 3/4, 2/(3+3-2) = 1/2, 0/(0+1-0) = 0, -
#   fw IU           (4 * 3/4 + 3 * 1/2) / 7 = 4.5/7
TARGET = [[0, 0, 0, 0], [1, 1, 1, 255]]
PREDICTION = [[0, 0, 0, 1], [1, 1, 2, 2]]
COUNTS = [[3, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
SUM_ACCURACY = 3 / 4 + 2 / 3  # 17/12
SUM_IU = 3 / 4 + 1 / 2 + 0  # 5/4


def test_counts_worked_by_hand():
    confusion = matrix(TARGET, PREDICTION, 4)
    assert confusion.counts.dtype == np.int64
    np.testing.assert_array_equal(confusion.counts, COUNTS)


@pytest.mark.parametrize(
    ("absent", "mean_accuracy", "mean_iu"),
    [
        ("nanmean", SUM_ACCURACY / 2, SUM_IU / 3),  # class 2 is no class of the truth, yet its IU is 0
        ("present", SUM_ACCURACY / 2, SUM_IU / 2),
        ("zero", SUM_ACCURACY / 4, SUM_IU / 4),
    ],
)
def test_scores_worked_by_hand(absent, mean_accuracy, mean_iu):
    result = scores(np.array(COUNTS), absent)
    same(result.pixel_accuracy, 5 / 7)
    same(result.mean_accuracy, mean_accuracy)
    same(result.mean_iu, mean_iu)
    same(result.frequency_weighted_iu, 4.5 / 7)
    same(result.accuracy, [3 / 4, 2 / 3, NAN, NAN])
    same(result.iu, [3 / 4, 1 / 2, 0, NAN])
    assert result.absent == absent


def test_the_default_policy_is_nanmean():
    same(scores(np.array(COUNTS)).mean_iu, 5 / 12)


def test_as_dict_holds_none_for_nan():
    plain = scores(np.array([[2, 0], [0, 0]])).as_dict()
    assert plain == {
        "pixel_accuracy": 1.0,
        "mean_accuracy": 1.0,
        "mean_iu": 1.0,
        "frequency_weighted_iu": 1.0,
        "accuracy": [1.0, None],
        "iu": [1.0, None],
        "absent": "nanmean",
    }
    assert type(plain["iu"][0]) is float


@pytest.mark.parametrize("absent", ABSENT)
def test_void_only_gives_nan_and_no_warning(absent):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = scores(matrix([255, 255], [0, 1], 2).counts, absent)
    for name in ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu"):
        assert math.isnan(getattr(result, name)), name
    assert np.isnan(result.accuracy).all()
    assert np.isnan(result.iu).all()


@pytest.mark.parametrize("absent", ABSENT)
def test_perfect_and_disjoint_predictions(absent):
    perfect = scores(np.diag([5, 1, 7]), absent)
    worst = scores(np.array([[0, 5], [2, 0]]), absent)
    for name in ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu"):
        assert getattr(perfect, name) == 1
        assert getattr(worst, name) == 0


# --- against a loop over pixels -------------------------------------------------------------------


@st.composite
def pixels(draw, max_classes=5):
    """(C, target with void, prediction), targets drawn from a few classes so that absent ones are common."""
    classes = draw(st.integers(1, max_classes))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=5))
    of = st.sampled_from([*range(draw(st.integers(1, classes))), 255])
    target = draw(hnp.arrays(np.uint8, shape, elements=of))
    dtype = draw(st.sampled_from([np.uint8, np.int32, np.int64]))
    prediction = draw(hnp.arrays(dtype, shape, elements=st.integers(0, classes - 1)))
    return classes, target, prediction


def naive_scores(classes, target, prediction, absent):
    """Sets of pixel positions and plain division, straight from the definitions."""
    pairs = [(int(t), int(p)) for t, p in zip(target.ravel(), prediction.ravel(), strict=True) if t != 255]
    accuracy, iu, weighted = [], [], 0.0
    for c in range(classes):
        true = {i for i, (t, _) in enumerate(pairs) if t == c}
        predicted = {i for i, (_, p) in enumerate(pairs) if p == c}
        accuracy.append(len(true & predicted) / len(true) if true else None)
        iu.append(len(true & predicted) / len(true | predicted) if true | predicted else None)
        if true:
            weighted += len(true) / len(pairs) * iu[c]

    def mean(values):
        if not pairs:
            return NAN
        if absent == "zero":
            values = [v or 0 for v in values]
        if absent == "present":
            values = [v for v, a in zip(values, accuracy, strict=True) if a is not None]
        values = [v for v in values if v is not None]
        return sum(values) / len(values)

    right = sum(t == p for t, p in pairs)
    overall = (right / len(pairs), mean(accuracy), mean(iu), weighted) if pairs else (NAN,) * 4
    return overall, [NAN if a is None else a for a in accuracy], [NAN if v is None else v for v in iu]


@given(drawn=pixels(), absent=st.sampled_from(list(ABSENT)))
def test_equals_a_naive_loop(drawn, absent):
    classes, target, prediction = drawn
    result = scores(matrix(target, prediction, classes).counts, absent)
    overall, accuracy, iu = naive_scores(classes, target, prediction, absent)
    ours = (result.pixel_accuracy, result.mean_accuracy, result.mean_iu, result.frequency_weighted_iu)
    same(ours, overall)
    same(result.accuracy, accuracy)
    same(result.iu, iu)


@given(drawn=pixels())
def test_counts_equal_a_naive_loop(drawn):
    classes, target, prediction = drawn
    expected = [[0] * classes for _ in range(classes)]
    for t, p in zip(target.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if t != 255:
            expected[t][p] += 1
    np.testing.assert_array_equal(matrix(target, prediction, classes).counts, expected)


# --- invariances ----------------------------------------------------------------------------------


@given(drawn=pixels(), absent=st.sampled_from(list(ABSENT)), data=st.data())
def test_renaming_the_classes_permutes_the_class_scores_only(drawn, absent, data):
    classes, target, prediction = drawn
    new = np.array(data.draw(st.permutations(range(classes))), np.uint8)
    renamed = np.where(target == 255, 255, new[np.where(target == 255, 0, target)])
    a = scores(matrix(target, prediction, classes).counts, absent)
    b = scores(matrix(renamed, new[prediction], classes).counts, absent)
    same(b.iu[new], a.iu)
    same(b.accuracy[new], a.accuracy)
    for name in ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu"):
        same(getattr(b, name), getattr(a, name))


@given(drawn=pixels(), data=st.data())
def test_order_and_grouping_of_updates_do_not_matter(drawn, data):
    classes, target, prediction = drawn
    at_once = matrix(target, prediction, classes)
    target, prediction = target.ravel(), prediction.ravel()
    order = np.array(data.draw(st.permutations(range(target.size))))
    cut = data.draw(st.integers(0, target.size))
    first, second = ConfusionMatrix(classes), ConfusionMatrix(classes)
    first.update(target[order[:cut]], prediction[order[:cut]])
    second.update(target[order[cut:]], prediction[order[cut:]])
    before = first.counts.copy()
    np.testing.assert_array_equal((first + second).counts, at_once.counts)
    np.testing.assert_array_equal(first.counts, before)  # `+` leaves its operands alone
    first.update(target[order[cut:]], prediction[order[cut:]])
    np.testing.assert_array_equal(first.counts, at_once.counts)


@given(drawn=pixels())
def test_what_is_predicted_on_void_does_not_matter(drawn):
    classes, target, prediction = drawn
    other = np.where(target == 255, (prediction + 1) % classes, prediction)
    np.testing.assert_array_equal(matrix(target, other, classes).counts, matrix(target, prediction, classes).counts)


@given(drawn=pixels())
def test_iu_is_symmetric_in_target_and_prediction(drawn):
    classes, target, prediction = drawn
    counts = matrix(target, prediction, classes).counts
    same(scores(counts.T).iu, scores(counts).iu)


def test_products_of_uint8_do_not_wrap():
    # 200 * 254 + 253 needs 16 bits; hand: one pixel at [200, 253].
    confusion = matrix([200], np.array([253], np.uint8), 254)
    assert confusion.counts[200, 253] == 1
    assert confusion.counts.sum() == 1


def test_another_ignore_value():
    np.testing.assert_array_equal(matrix([0, 1, 1], [1, 1, 0], 2, ignore=0).counts, [[0, 0], [1, 1]])


# --- the constant predictor -----------------------------------------------------------------------


@pytest.mark.parametrize(("absent", "mean_iu"), [("nanmean", 0.6 / 3), ("present", 0.6 / 3), ("zero", 0.6 / 4)])
def test_constant_predictor_worked_by_hand(absent, mean_iu):
    # 1, 6, 3 and 0 pixels: always class 1 is right for 6 of 10, and IU_1 = 6/10.
    best, result = constant_predictor(np.array([1, 6, 3, 0]), absent)
    assert best == 1
    same(result.pixel_accuracy, 0.6)
    same(result.mean_iu, mean_iu)


@given(
    true=hnp.arrays(np.int64, st.integers(1, 6), elements=st.integers(0, 9)),
    absent=st.sampled_from(list(ABSENT)),
)
def test_no_constant_beats_the_best_one(true, absent):
    target = np.repeat(np.arange(true.size), true).astype(np.uint8)
    best, result = constant_predictor(true, absent)
    every = [naive_scores(true.size, target, np.full_like(target, k), absent)[0] for k in range(true.size)]
    same(result.pixel_accuracy, every[best][0])
    same(result.mean_iu, every[best][2])
    if target.size:
        assert result.pixel_accuracy >= max(e[0] for e in every) - 1e-12
        assert result.mean_iu >= max(e[2] for e in every) - 1e-12


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "prediction", "message"),
    [
        (
            np.zeros((2, 3), np.uint8),
            np.zeros((3, 2), int),
            r"target has shape \(2, 3\), prediction \(3, 2\)",
        ),
        (np.zeros(2, np.uint8), np.array([0, 3]), r"prediction holds 3, outside the classes 0\.\.2"),
        (np.zeros(2, np.uint8), np.array([-1, 0]), r"prediction holds -1, outside"),
        (np.array([0, 255], np.uint8), np.array([0, 255]), "prediction holds 255"),
        (np.array([0, 128], np.uint8), np.zeros(2, int), r"target holds 128, outside the classes 0\.\.2"),
        (np.zeros(2, np.uint8), np.zeros(2, np.float32), "prediction must hold integers, got float32"),
        (np.zeros(2, np.float32), np.zeros(2, int), "target must hold integers, got float32"),
    ],
)
def test_bad_updates_are_refused_and_count_nothing(target, prediction, message):
    confusion = ConfusionMatrix(3)
    with pytest.raises(MinifcnError, match=message):
        confusion.update(target, prediction)
    assert not confusion.counts.any()


def test_other_bad_values():
    with pytest.raises(MinifcnError, match="at least 1 class, got 0"):
        ConfusionMatrix(0)
    with pytest.raises(MinifcnError, match="of 2 and 3 classes"):
        ConfusionMatrix(2) + ConfusionMatrix(3)
    with pytest.raises(TypeError):
        ConfusionMatrix(2) + 1
    with pytest.raises(MinifcnError, match=r"'drop'.*nanmean, present, zero"):
        scores(np.eye(2, dtype=int), "drop")
    with pytest.raises(MinifcnError, match=r"square, got shape \(2, 3\)"):
        scores(np.zeros((2, 3), int))
    with pytest.raises(MinifcnError, match=r"shape \[C\], got \(2, 2\)"):
        constant_predictor(np.eye(2, dtype=int))


def test_importing_the_metrics_is_light():
    code = "import sys, minifcn.metrics; print({'PIL', 'matplotlib'} & set(sys.modules))"
    root = Path(__file__).parents[1]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
