"""NYUDv2 as FCN's authors lay it out (`nyud_layers.py` of fcn.berkeleyvision.org): indoor scenes, 40 classes
(Gupta, Arbelaez and Malik, "Perceptual organization and recognition of indoor scenes from RGB-D images", 2013).

Only the colour images are read. Depth and HHA (`data/depth`, `data/hha`) would need networks with other inputs.
"""

from pathlib import Path

from ..errors import DataError
from .labels import LabelFormat, shifted_codes
from .matlab import SUFFIX, matlab_format
from .pairs import SPLITS, PairDataset, directory, find, first_directory, match, read_list, read_split, require_disjoint
from .palette import voc_palette

CLASSES = (  # data/nyud/classes.txt of the same repository
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture"),
    *("counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes"),
    *("ceiling", "books", "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard"),
    *("person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture"),
    "otherprop",
)


def open_nyud(root: Path | str, split: str = "train", trainval: bool = False) -> PairDataset:
    """ROOT/data/images/img_ID.png (or ROOT/images), ROOT/segmentation/img_ID.mat or .png, lists of IDs in
    ROOT/<split>.txt.

    Labels count the classes from 1, and 0 is void. split: the list's name; "trainval" is train and val together
    where it has no list. trainval: the paper's protocol, in which train means trainval and val means test.
    """
    root = directory(Path(root), "NYUDv2")
    images = find(first_directory(root, ("data/images", "images"), "NYUDv2's colour images"), start="img_")
    folder, codes = directory(root / "segmentation", "NYUDv2"), shifted_codes(len(CLASSES))
    if any(folder.glob("*.mat")):
        labels, numbers = find(folder, suffixes=SUFFIX, start="img_"), matlab_format(codes, "segmentation")
    else:
        labels, numbers = find(folder, start="img_"), LabelFormat(codes)
    pairs = match(images, labels, _listed(root, split, trainval))
    return PairDataset(pairs, CLASSES, voc_palette(len(CLASSES)), numbers)


def _listed(root: Path, split: str, trainval: bool) -> dict[str, str]:
    if not trainval:
        if split == "trainval" and not (root / "trainval.txt").exists():
            return read_split(root, "train") | read_split(root, "val")
        return read_split(root, split)
    if split not in SPLITS:
        raise DataError(f"{root}: NYUDv2 with @trainval has no split {split!r}; it has {', '.join(SPLITS)}")
    train, test = _listed(root, "trainval", False), read_list(root / "test.txt")
    require_disjoint(train, test)
    return train if split == "train" else test
