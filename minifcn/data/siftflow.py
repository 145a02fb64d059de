"""SIFT Flow: 2688 outdoor pictures with 33 semantic and 3 geometric classes (Tighe and Lazebnik, "SuperParsing",
2010; Liu, Yuen and Torralba, "Nonparametric scene parsing", 2009).

Names and label values are those of `siftflow_layers.py` and `data/sift-flow` of fcn.berkeleyvision.org, which
also name two pictures without annotation. Cow, desert and moon do not occur in the test set.
"""

import re
from pathlib import Path

from ..errors import DataError
from .labels import shifted_codes
from .matlab import SUFFIX, matlab_format
from .pairs import SPLITS, PairDataset, directory, find, match, read_list, require_disjoint
from .palette import voc_palette

SEMANTIC = (
    *("awning", "balcony", "bird", "boat", "bridge", "building", "bus", "car", "cow", "crosswalk", "desert", "door"),
    *("fence", "field", "grass", "moon", "mountain", "person", "plant", "pole", "river", "road", "rock", "sand"),
    *("sea", "sidewalk", "sign", "sky", "staircase", "streetlight", "sun", "tree", "window"),
)
GEOMETRIC = ("sky", "horizontal", "vertical")
FOLDER = "spatial_envelope_256x256_static_8outdoorcategories"
UNANNOTATED = ("highway_bost181", "street_urb506")


def open_siftflow(root: Path | str, split: str = "train", geometric: bool = False) -> PairDataset:
    """Pictures in ROOT/Images/<FOLDER>, semantic labels in ROOT/SemanticLabels, geometric ones in ROOT/GeoLabels.

    Labels count the classes from 1; void is 0, in the geometric ones -1 as well. split: "val" is the test set,
    ROOT/test.txt or TestSet1.txt; "train" is ROOT/trainval.txt, or without it all other annotated pictures.
    """
    root = directory(Path(root), "SIFT Flow")
    if split not in SPLITS:
        raise DataError(f"{root}: SIFT Flow has no split {split!r}; it has {', '.join(SPLITS)}")
    images = find(directory(root / "Images" / FOLDER, "SIFT Flow"))
    home = root / ("GeoLabels" if geometric else "SemanticLabels")
    labels = find(directory(home / FOLDER, "SIFT Flow"), suffixes=SUFFIX)
    test = _base_names(root / ("test.txt" if (root / "test.txt").exists() else "TestSet1.txt"))
    if (root / "trainval.txt").exists():
        train = _base_names(root / "trainval.txt")
        require_disjoint(train, test)
    else:
        train = {name: str(images.folder) for name in images.paths if name not in test}
    listed = train if split == "train" else test
    listed = {name: place for name, place in listed.items() if name not in UNANNOTATED}
    classes = GEOMETRIC if geometric else SEMANTIC
    codes = shifted_codes(len(classes), (-1, 0) if geometric else (0,))
    return PairDataset(match(images, labels, listed), classes, voc_palette(len(classes)), matlab_format(codes, "S"))


def _base_names(path: Path) -> dict[str, str]:
    """A list whose lines may begin with folders, separated by / or \\."""
    return {re.split(r"[\\/]", name)[-1]: place for name, place in read_list(path).items()}
