"""Reading one image or one label file with Pillow, and the rules that a file must keep.

Images come as RGB uint8 whatever their mode: grey is repeated, a palette is resolved, alpha is dropped
(not composited), 16-bit colour keeps its upper byte as Pillow reads it. Greyscale of more than 8 bits
(and float) is refused: whether its range is 10, 12 or 16 bits is not in the file, so any scaling would be
a guess. An EXIF orientation is ignored, since labels carry none and must stay aligned with their image.
Of a file with several frames the first is read.

Labels hold class numbers, so only index modes are read: L, P (the indices, not the colours), 1, and 16-bit
or 32-bit integers if all values fit.
"""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"))
DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # greyscale of 16 or 32 bits


class FileError(DataError):
    """A file that breaks a rule; pixel is (row, column) where one is at fault."""

    def __init__(self, path: Path | str, rule: str, pixel: tuple[int, int] | None = None):
        super().__init__(f"{path}: {rule}")
        self.path, self.rule, self.pixel = str(path), rule, pixel


def read_image(path: Path | str) -> np.ndarray:
    """An image file as uint8 [H, W, 3] RGB; FileError if it is missing, damaged, too large or deep grey."""
    picture = _decode(path)
    if picture.mode in DEEP_GREY or picture.mode == "F":
        raise FileError(
            path,
            f"greyscale of more than 8 bits (mode {picture.mode}) is not read as an image, since its range is not "
            "known; convert it to 8 bits first",
        )
    try:
        return np.array(picture.convert("RGB"))
    except ValueError as error:
        raise FileError(path, f"mode {picture.mode} cannot be converted to RGB ({error})") from error


def read_values(path: Path | str) -> np.ndarray:
    """The raw integers [H, W] of a label file of any index mode; FileError for colour labels."""
    picture = _decode(path)
    if picture.mode == "1":
        return np.array(picture, np.uint8)
    if picture.mode in ("L", "P") or picture.mode in DEEP_GREY:
        return np.array(picture)
    if picture.mode in ("RGB", "RGBA"):
        colours = len(np.unique(np.array(picture.convert("RGB")).reshape(-1, 3), axis=0))
        raise FileError(
            path,
            f"an {picture.mode} label with {colours} distinct colours; labels must hold class numbers, one channel "
            "(greyscale or palette): replace each colour by its class number",
        )
    raise FileError(
        path, f"a label of mode {picture.mode}; labels must be greyscale or palette images of class numbers"
    )


def require_same_size(image_path: Path | str, image: np.ndarray, label_path: Path | str, label: np.ndarray) -> None:
    """FileError unless image [H, W, 3] and label [H, W] agree in H and W."""
    if image.shape[:2] != label.shape:
        (h, w), (label_h, label_w) = image.shape[:2], label.shape
        raise FileError(label_path, f"the label is {label_h}x{label_w} (HxW) but its image {image_path} is {h}x{w}")


def label_mode(path: Path | str) -> str:
    """How a label file stores its pixels: "grey", "palette", "RGB", "1 bit", "deep grey" or Pillow's mode name."""
    mode = _decode(path).mode
    if mode in DEEP_GREY:
        return "deep grey"
    return {"L": "grey", "P": "palette", "1": "1 bit"}.get(mode, mode)


def _decode(path: Path | str) -> Image.Image:
    """A decoded picture; every way in which a file can fail becomes a FileError."""
    limit = Image.MAX_IMAGE_PIXELS
    try:
        with Image.open(path) as picture:
            if limit is not None and picture.width * picture.height > limit:
                raise _too_large(path, picture.width * picture.height)
            picture.load()
            return picture
    except FileError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, int(re.search(r"\d+", str(error)).group())) from error
    except FileNotFoundError as error:
        raise FileError(path, "no such file") from error
    except Image.UnidentifiedImageError as error:
        raise FileError(path, "not an image file that Pillow knows") from error
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        raise FileError(path, f"cannot be decoded as an image ({error})") from error


def _too_large(path: Path | str, pixels: int) -> FileError:
    return FileError(
        path, f"{pixels} pixels; at most {Image.MAX_IMAGE_PIXELS} are read (Pillow's guard against decompression bombs)"
    )
