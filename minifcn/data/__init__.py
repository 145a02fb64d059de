"""Data sets and the way from files to batches.

`open_dataset` opens any data set by a short text, `Augment` varies samples, `Loader` makes batches and
`inspect_dataset` reports what a data set holds and what is wrong with it.
"""

from .augment import Augment
from .cityscapes import open_cityscapes
from .context import open_context
from .dataset import IGNORE, Dataset, Sample
from .files import FileError, read_image
from .folders import open_camvid, open_folder
from .imagefolder import ImageFolder, fitted, open_image_folder
from .inspect import DatasetReport, Problem, SplitReport, inspect_dataset
from .labels import LabelFormat, read_label
from .loader import Batch, Loader, Normalization
from .nyud import open_nyud
from .open import KNOWN, open_dataset
from .pairs import PairDataset, class_names
from .palette import VOID_COLOUR, colourise, voc_palette
from .scenes import Scenes
from .shapes import Shapes
from .siftflow import open_siftflow
from .voc import open_sbd, open_voc

__all__ = [
    "IGNORE",
    "KNOWN",
    "VOID_COLOUR",
    "Augment",
    "Batch",
    "Dataset",
    "DatasetReport",
    "FileError",
    "ImageFolder",
    "LabelFormat",
    "Loader",
    "Normalization",
    "PairDataset",
    "Problem",
    "Sample",
    "Scenes",
    "Shapes",
    "SplitReport",
    "class_names",
    "colourise",
    "fitted",
    "inspect_dataset",
    "open_camvid",
    "open_cityscapes",
    "open_context",
    "open_dataset",
    "open_folder",
    "open_image_folder",
    "open_nyud",
    "open_sbd",
    "open_siftflow",
    "open_voc",
    "read_image",
    "read_label",
    "voc_palette",
]
