"""What a data set holds and what is wrong with it: counts, sizes, class shares, colours and broken files.

Reading goes on past a broken file, so that one report lists the faults of all of them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import DataError
from .dataset import IGNORE, Dataset
from .files import FileError, read_image, require_same_size
from .loader import ChannelMoments
from .open import open_dataset
from .pairs import SPLITS, PairDataset


@dataclass(frozen=True)
class Problem:
    """One fault: the split, the file (or data set), the pixel (row, column) where there is one, and the rule."""

    split: str
    file: str
    pixel: tuple[int, int] | None
    rule: str


@dataclass
class SplitReport:
    """Counts over one split; what could not be read is left out of them.

    sizes: pictures by (H, W); label_modes: label files by "grey", "palette", "RGB", ... ("array" where the
    labels are no files); histogram: pixels (in classification pictures) by label value, void as 255; mean and
    std of the image channels (R, G, B) in 0 .. 255, None if no image could be read.
    """

    split: str
    pairs: int
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    label_modes: Counter[str] = field(default_factory=Counter)
    histogram: Counter[int] = field(default_factory=Counter)
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def share(self, value: int) -> float:
        """The share of all label pixels that have this value (NaN where no label was read)."""
        return self.histogram[value] / total if (total := self.histogram.total()) else float("nan")

    @property
    def void_share(self) -> float:
        """The share of all label pixels that are void."""
        return self.share(IGNORE)


@dataclass
class DatasetReport:
    """All splits of a data set, its class names (empty if they could not be found) and its problems.

    task: see `Dataset`. problems holds the first of them, problem_count says how many there are.
    """

    name: str
    classes: tuple[str, ...] = ()
    splits: list[SplitReport] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    task: str = "segment"


def inspect_dataset(
    source: str | Dataset, *, classes: int | Sequence[str] | None = None, max_problems: int = 100
) -> DatasetReport:
    """Read every sample of the train and val splits of a data set named as for `open_dataset`, or of one Dataset.

    Faults of the data never raise; they become problems of the report, at most `max_problems` of them kept.
    """
    report = DatasetReport(source if isinstance(source, str) else type(source).__name__)

    def note(split: str, file: str, error: DataError) -> None:
        report.problem_count += 1
        if len(report.problems) < max_problems:
            problem = (
                (error.path, error.pixel, error.rule) if isinstance(error, FileError) else (file, None, str(error))
            )
            report.problems.append(Problem(split, *problem))

    if isinstance(source, Dataset):
        report.classes, report.task = source.classes, source.task
        report.splits.append(_inspect_split(getattr(source, "split", "all"), source, note))
        return report
    for split in SPLITS:
        try:
            dataset = open_dataset(source, split, classes=classes)
            report.classes, report.task = dataset.classes, dataset.task
        except DataError as error:
            dataset = _open_any_values(source, split)
            # A broken file turns up again below, when all of them are read.
            if dataset is None or not isinstance(error, FileError):
                note(split, source, error)
        if dataset is not None:
            report.splits.append(_inspect_split(split, dataset, note))
    return report


def _open_any_values(spec: str, split: str) -> Dataset | None:
    """A folder whose classes cannot be found, opened with every value allowed; None if that does not help."""
    if not spec.startswith("folder:"):
        return None
    try:
        return open_dataset(spec, split, classes=IGNORE)
    except DataError:
        return None


def _inspect_split(split: str, dataset: Dataset, note) -> SplitReport:
    report, moments = SplitReport(split, len(dataset)), ChannelMoments()
    for index in range(len(dataset)):
        image, label = _read_sample(split, dataset, index, report, note)
        if image is not None:
            report.sizes[image.shape[:2]] += 1
            moments.add(image)
        if label is not None:
            values, counts = np.unique(label, return_counts=True)
            report.histogram.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    if moments.count:
        report.mean, report.std = moments.mean, moments.std
    return report


def _read_sample(
    split: str, dataset: Dataset, index: int, report: SplitReport, note
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Image and label values, None for what cannot be read; each broken rule is noted."""
    image = label = None
    if not isinstance(dataset, PairDataset):
        try:
            sample = dataset[index]
        except DataError as error:
            note(split, dataset.source(index), error)
        else:
            image, label = sample.image, sample.label
            report.label_modes["array" if label is not None else "none"] += 1
        return image, label
    pair = dataset.pairs[index]

    def attempt(step, *arguments):
        try:
            return step(*arguments)
        except FileError as error:
            note(split, error.path, error)
            return None

    image = attempt(read_image, pair.image)
    mode = attempt(dataset.labels.storage, pair.label)
    if mode is not None:
        report.label_modes[mode] += 1
        label = attempt(dataset.labels.read, pair.label)
    if label is not None:
        attempt(dataset.labels.check, pair.label, label)
        label = dataset.labels.decode(label)
        if image is not None:
            attempt(require_same_size, pair.image, image, pair.label, label)
    return image, label
