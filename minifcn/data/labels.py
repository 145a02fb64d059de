"""What the numbers in label files mean: raw values become class numbers, and every pixel is checked.

A format lists all raw values that may occur, each with its class number or IGNORE. Anything else in a file is
a fault that names the pixel; nothing is guessed.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .dataset import IGNORE
from .files import FileError, label_mode, read_image, read_values, require_same_size

UNKNOWN = -1  # in the table, a raw value that may not occur


@dataclass(frozen=True)
class LabelFormat:
    """codes: raw value -> class number or IGNORE; read: path -> raw integers [H, W]; storage: path -> how a file
    stores them, for reports. Both raise FileError.
    """

    codes: Mapping[int, int]
    read: Callable[[Path | str], np.ndarray] = read_values
    storage: Callable[[Path | str], str] = label_mode

    def load(self, path: Path | str) -> np.ndarray:
        """The class numbers uint8 [H, W] of a file; FileError names the first pixel that has none."""
        values = self.read(path)
        self.check(path, values)
        return self.decode(values).astype(np.uint8)

    def check(self, path: Path | str, values: np.ndarray) -> None:
        """FileError if one of the raw values [H, W] that were read from `path` may not occur."""
        unknown = self._look_up(values) == UNKNOWN
        if unknown.any():
            row, column = (int(i) for i in np.unravel_index(np.argmax(unknown), values.shape))
            rule = f"label value {values[row, column]} at row {row}, column {column}; allowed are {self._allowed()}"
            raise FileError(path, rule, (row, column))

    def decode(self, values: np.ndarray) -> np.ndarray:
        """Raw values as class numbers and IGNORE; those that may not occur stay as they are."""
        numbers = self._look_up(values)
        return np.where(numbers == UNKNOWN, values, numbers)

    def _allowed(self) -> str:
        voids = [raw for raw, code in self.codes.items() if code == IGNORE]
        classes = [raw for raw, code in self.codes.items() if code != IGNORE]
        count = f"{1 + max(self.codes[raw] for raw in classes)} classes"
        if len(_ranges(voids)) > 2:  # among the classes
            return f"{', '.join(_ranges(self.codes))} ({count}, the others void)"
        shown = f"{', '.join(_ranges(classes))} ({count})"
        return f"{shown} and {' or '.join(_ranges(voids))} (void)" if voids else shown

    def _look_up(self, values: np.ndarray) -> np.ndarray:
        low, table = self._table
        index = values.astype(np.int64) - low
        inside = (index >= 0) & (index < len(table))
        return np.where(inside, table[np.where(inside, index, 0)], UNKNOWN)

    @cached_property
    def _table(self) -> tuple[int, np.ndarray]:
        """The least raw value, and the class numbers of it and its successors."""
        low = min(self.codes)
        table = np.full(max(self.codes) - low + 1, UNKNOWN, np.int16)
        for raw, number in self.codes.items():
            table[raw - low] = number
        return low, table


def plain_codes(classes: int, void: int = IGNORE) -> dict[int, int]:
    """Files that hold the class numbers themselves, and `void` or IGNORE where there is none."""
    return {number: number for number in range(classes)} | {void: IGNORE, IGNORE: IGNORE}


def shifted_codes(classes: int, voids: Iterable[int] = (0,)) -> dict[int, int]:
    """Files that count the classes from 1, as MATLAB does, with `voids` where there is none."""
    return {number + 1: number for number in range(classes)} | dict.fromkeys(voids, IGNORE)


def read_label(path: Path | str, classes: int, void: int = IGNORE) -> np.ndarray:
    """A label file as uint8 [H, W] of class numbers 0 .. classes-1 and IGNORE.

    void: the raw value that means "no class" in this file; it becomes IGNORE (as does IGNORE itself).
    FileError names the first pixel whose value is neither.
    """
    return LabelFormat(plain_codes(classes, void)).load(path)


def read_pair(image_path: Path | str, label_path: Path | str, labels: LabelFormat) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 [H, W, 3] and its label uint8 [H, W]; FileError if their sizes differ."""
    image, label = read_image(image_path), labels.load(label_path)
    require_same_size(image_path, image, label_path, label)
    return image, label


def _ranges(numbers: Iterable[int]) -> list[str]:
    """Whole numbers as texts of runs: 3, 4, 5, 9 becomes "3 .. 5", "9"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [str(first) if first == last else f"{first} .. {last}" for first, last in runs]
