"""`imagefolder`: pictures for classification, one folder a class.

All pictures come in one size, so that batches can be formed: scaled until they just cover it, keeping their
proportions, and cut to it about their centre (Pillow's `ImageOps.fit`, bilinear).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import DataError
from .dataset import Dataset, Sample
from .files import read_image
from .pairs import SPLITS, VAL_EVERY, class_names, directory, find
from .palette import voc_palette

SIZE = (224, 224)  # what the classifiers of the VGG and AlexNet papers see


def fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image uint8 [H, W, 3] in the size (H, W): scaled until it just covers it, and cut about its centre."""
    height, width = size
    return np.array(ImageOps.fit(Image.fromarray(image), (width, height), Image.Resampling.BILINEAR))


class ImageFolder(Dataset):
    """Samples read from image files with one class each; a label is [[class]].

    files: (path, class number) of each sample; size: (H, W) of all pictures.
    """

    task = "classify"

    def __init__(self, files: Sequence[tuple[Path, int]], classes: Sequence[str], size: tuple[int, int] = SIZE):
        if min(size) < 1:
            raise DataError(f"pictures of {size[0]}x{size[1]}: height and width must be at least 1 pixel")
        self.files, self.classes, self.size = tuple(files), tuple(classes), size
        self.palette = voc_palette(len(classes))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        path, number = self.files[index]
        image = fitted(read_image(path), self.size)
        return Sample(image, np.array([[number]], np.uint8), f"{self.classes[number]}/{path.stem}")

    def source(self, index: int) -> str:
        return str(self.files[index][0])


def open_image_folder(root: Path | str, split: str = "train", size: tuple[int, int] = SIZE) -> ImageFolder:
    """ROOT/train/CLASS/* and ROOT/val/CLASS/*, or ROOT/CLASS/* of which every fifth picture of a class is val.

    The folders of the train split, in sorted order, are the classes; at most 255, since labels are uint8.
    """
    root = directory(Path(root), "an image folder")
    if split not in SPLITS:
        raise DataError(f"{root}: an image folder has no split {split!r}; it has {', '.join(SPLITS)}")
    divided = any((root / name).is_dir() for name in SPLITS)
    train = home = root
    if divided:
        train, home = (
            directory(root / name, f"split {name!r}, since {root} has one folder a split") for name in ("train", split)
        )
    classes, files = _classes(train), []
    for folder in _subfolders(home):
        if folder.name not in classes:
            raise DataError(f"{folder}: no class of that name in {train}; its classes are {', '.join(classes)}")
        for place, path in enumerate(find(folder).paths.values(), start=1):
            if divided or (place % VAL_EVERY == 0) == (split == "val"):
                files.append((path, classes.index(folder.name)))
    if not files:
        hint = "" if divided else f"; every {VAL_EVERY}th picture of a class is val, or make folders train and val"
        raise DataError(f"{home}: no pictures for split {split!r}{hint}")
    return ImageFolder(files, classes, size)


def _subfolders(home: Path) -> list[Path]:
    return sorted(path for path in home.iterdir() if path.is_dir() and not path.name.startswith("."))


def _classes(home: Path) -> tuple[str, ...]:
    try:
        return class_names([folder.name for folder in _subfolders(home)])
    except DataError as error:
        raise DataError(f"{home}: {error}; an image folder has one folder a class") from error
