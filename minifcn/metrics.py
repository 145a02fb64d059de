"""Scores of a segmentation from its confusion matrix (Long, Shelhamer, Darrell 2014, section 5).

With n_ij the pixels of class i predicted as j, t_i = sum_j n_ij and C classes:

    pixel accuracy         sum_i n_ii / sum_i t_i
    mean accuracy          mean_i of n_ii / t_i
    mean IU                mean_i of n_ii / (t_i + sum_j n_ji - n_ii)
    frequency weighted IU  sum_i t_i IU_i / sum_i t_i

The matrix is summed over the whole set before anything is divided. The paper does not say what a mean does
with a class that is absent from the set; programs differ, so the policy has a name (`ABSENT`) that belongs to
each score.
"""

from dataclasses import dataclass

import numpy as np

from .errors import MinifcnError

ABSENT = {
    "nanmean": "accuracy over classes in the ground truth, IU over classes in ground truth or prediction",
    "present": "both means over classes in the ground truth",
    "zero": "both means over all classes, an absent class counts 0",
}


class ConfusionMatrix:
    """Pixel counts `counts[true class, predicted class]`, int64 [C, C], summed over updates."""

    def __init__(self, classes: int):
        if classes < 1:
            raise MinifcnError(f"a confusion matrix needs at least 1 class, got {classes}")
        self.classes = classes
        self.counts = np.zeros((classes, classes), np.int64)

    def update(self, target: np.ndarray, prediction: np.ndarray, ignore: int = 255) -> None:
        """Add the pixels of `target` and `prediction`, integers of one shape; target == `ignore` is left out.

        Raises `MinifcnError`, and counts nothing, for two shapes or a value outside 0..C-1 (`ignore` apart).
        """
        target, prediction = np.asarray(target), np.asarray(prediction)
        if target.shape != prediction.shape:
            raise MinifcnError(f"target has shape {target.shape}, prediction {prediction.shape}; they must be equal")
        known = target != ignore
        true = self._checked("target", target[known])
        predicted = self._checked("prediction", prediction)[known]
        pairs = np.bincount(true * self.classes + predicted, minlength=self.classes**2)
        self.counts += pairs.reshape(self.counts.shape)

    def _checked(self, name: str, values: np.ndarray) -> np.ndarray:
        if values.dtype.kind not in "iu":
            raise MinifcnError(f"{name} must hold integers, got {values.dtype}")
        if values.size and not 0 <= (low := values.min()) <= (high := values.max()) < self.classes:
            wrong = low if low < 0 else high
            raise MinifcnError(f"{name} holds {wrong}, outside the classes 0..{self.classes - 1}")
        return values.astype(np.int64, copy=False)

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        """The matrix of both sets together."""
        if not isinstance(other, ConfusionMatrix):
            return NotImplemented
        if self.classes != other.classes:
            raise MinifcnError(f"cannot add confusion matrices of {self.classes} and {other.classes} classes")
        total = ConfusionMatrix(self.classes)
        total.counts = self.counts + other.counts
        return total


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class Scores:
    """Scores as fractions 0..1, NaN where undefined (0/0).

    `accuracy` and `iu` are float64 [C]: NaN for a class that is not in the ground truth, or in neither ground
    truth nor prediction. They do not depend on the policy `absent`; the two means do.
    """

    pixel_accuracy: float
    mean_accuracy: float
    mean_iu: float
    frequency_weighted_iu: float
    accuracy: np.ndarray
    iu: np.ndarray
    absent: str

    def as_dict(self) -> dict:
        """Plain values for JSON; NaN becomes None."""

        def plain(value: float | str | np.ndarray) -> float | str | list | None:
            if isinstance(value, np.ndarray):
                return [plain(v) for v in value]
            if isinstance(value, str):
                return value
            return None if np.isnan(value) else float(value)

        return {name: plain(value) for name, value in vars(self).items()}


def scores(counts: np.ndarray, absent: str = "nanmean") -> Scores:
    """The four scores of the paper and the scores per class of `counts`, integer [C, C] (true, predicted).

    `absent` names what the means do with absent classes, see `ABSENT`. No pixels at all gives NaN everywhere.
    Raises `MinifcnError` for an unknown policy or a matrix that is not square.
    """
    if absent not in ABSENT:
        raise MinifcnError(f"unknown policy {absent!r} for absent classes, choose one of {', '.join(ABSENT)}")
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise MinifcnError(f"a confusion matrix is square, got shape {counts.shape}")
    right = np.diag(counts)
    true, predicted, total = counts.sum(axis=1), counts.sum(axis=0), counts.sum()
    accuracy = _ratio(right, true)
    iu = _ratio(right, true + predicted - right)
    if absent == "zero" and total:
        accuracy_of, iu_of = np.nan_to_num(accuracy), np.nan_to_num(iu)
    elif absent == "present":
        accuracy_of, iu_of = accuracy[true > 0], iu[true > 0]
    else:
        accuracy_of, iu_of = accuracy, iu
    return Scores(
        pixel_accuracy=float(_ratio(right.sum(), total)),
        mean_accuracy=_mean(accuracy_of),
        mean_iu=_mean(iu_of),
        frequency_weighted_iu=float(_ratio((true * np.nan_to_num(iu)).sum(), total)),
        accuracy=accuracy,
        iu=iu,
        absent=absent,
    )


def constant_predictor(true: np.ndarray, absent: str = "nanmean") -> tuple[int, Scores]:
    """The best a predictor can do that says one class everywhere: (that class, its scores).

    `true`: pixels per class in the ground truth, integer [C]. Saying class k scores t_k / sum(t) for the pixel
    accuracy and for IU_k, and 0 for every other class that is present, so the most frequent class is best
    (the first of equals).
    """
    true = np.asarray(true)
    if true.ndim != 1 or not true.size:
        raise MinifcnError(f"pixels per class must have shape [C], got {true.shape}")
    best = int(true.argmax())
    counts = np.zeros((true.size, true.size), np.int64)
    counts[:, best] = true
    return best, scores(counts, absent)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator in float64, NaN where the denominator is 0, without a warning."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator > 0)


def _mean(values: np.ndarray) -> float:
    """The mean of the values that are not NaN; NaN if there are none, without a warning."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
