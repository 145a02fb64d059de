"""Data sets and the way from files to batches.

`open_dataset` opens any data set by a short text, `Augment` varies samples, `Loader` makes batches and
`inspect_dataset` reports what a data set holds and what is wrong with it.
"""

from .augment import Augment
from .dataset import IGNORE, Dataset, Sample
from .files import FileError, read_image, read_label
from .folders import PairDataset, class_names, open_camvid, open_folder, open_voc
from .inspect import DatasetReport, Problem, SplitReport, inspect_dataset
from .loader import Batch, Loader, Normalization
from .open import KNOWN, open_dataset
from .palette import VOID_COLOUR, colourise, voc_palette
from .scenes import Scenes

__all__ = [
    "IGNORE",
    "KNOWN",
    "VOID_COLOUR",
    "Augment",
    "Batch",
    "Dataset",
    "DatasetReport",
    "FileError",
    "Loader",
    "Normalization",
    "PairDataset",
    "Problem",
    "Sample",
    "Scenes",
    "SplitReport",
    "class_names",
    "colourise",
    "inspect_dataset",
    "open_camvid",
    "open_dataset",
    "open_folder",
    "open_voc",
    "read_image",
    "read_label",
    "voc_palette",
]
