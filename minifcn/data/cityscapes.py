"""Cityscapes: street scenes with 19 classes for training (Cordts et al., "The Cityscapes dataset for semantic urban
scene understanding", 2016); ids, names and colours are those of the authors' `cityscapesscripts/helpers/labels.py`.
"""

from pathlib import Path

import numpy as np

from .dataset import IGNORE
from .labels import LabelFormat, plain_codes
from .pairs import PairDataset, directory, find, match

IDS = {  # of the classes that are trained, in their order; name and colour
    7: ("road", (128, 64, 128)),
    8: ("sidewalk", (244, 35, 232)),
    11: ("building", (70, 70, 70)),
    12: ("wall", (102, 102, 156)),
    13: ("fence", (190, 153, 153)),
    17: ("pole", (153, 153, 153)),
    19: ("traffic light", (250, 170, 30)),
    20: ("traffic sign", (220, 220, 0)),
    21: ("vegetation", (107, 142, 35)),
    22: ("terrain", (152, 251, 152)),
    23: ("sky", (70, 130, 180)),
    24: ("person", (220, 20, 60)),
    25: ("rider", (255, 0, 0)),
    26: ("car", (0, 0, 142)),
    27: ("truck", (0, 0, 70)),
    28: ("bus", (0, 60, 100)),
    31: ("train", (0, 80, 100)),
    32: ("motorcycle", (0, 0, 230)),
    33: ("bicycle", (119, 11, 32)),
}
LAST_ID = 33
CLASSES = tuple(name for name, _ in IDS.values())
PALETTE = np.array([colour for _, colour in IDS.values()], np.uint8)


def open_cityscapes(root: Path | str, split: str = "train") -> PairDataset:
    """ROOT/leftImg8bit/<split>/CITY/*_leftImg8bit.png and ROOT/gtFine/<split>/CITY/*_gtFine_labelIds.png.

    Ids that are not trained are void. A split without labelIds is read from *_gtFine_labelTrainIds.png, which hold
    the 19 classes themselves and 255.
    """
    root = directory(Path(root), "Cityscapes")
    images, folder = (directory(root / kind / split, "Cityscapes") for kind in ("leftImg8bit", "gtFine"))
    if any(folder.glob("*/*_gtFine_labelIds.png")):
        codes = dict.fromkeys([*range(LAST_ID + 1), IGNORE], IGNORE)  # 255 is id -1, licence plate, in 8 bits
        end, codes = "_gtFine_labelIds", codes | {raw: number for number, raw in enumerate(IDS)}
    else:
        end, codes = "_gtFine_labelTrainIds", plain_codes(len(CLASSES))
    labels = find(folder, pattern="*/*", end=end)
    pairs = match(find(images, pattern="*/*", end="_leftImg8bit"), labels)
    return PairDataset(pairs, CLASSES, PALETTE, LabelFormat(codes))
