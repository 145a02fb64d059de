"""`minifcn predict`: label photographs with a trained network."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from .. import attribution, pictures, receptive, tasks, viz
from ..data import read_image
from ..errors import DataError, FileWriteError, MinifcnError
from ..recognizer import Recognizer
from ..segmenter import Segmenter
from .console import add_device, add_tile, chosen_tile, console, tracked

HELP = "label images: a palette PNG and an overlay for each, and a legend; or say what a classifier sees in them"
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}
LEGEND = "legend.png"
STREAMS, FIELD = "_streams.png", "_field.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder of a run, or a checkpoint file")
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder to write to (predictions)")
    parser.add_argument("--alpha", type=float, default=0.5, help="opacity of the overlay's colours (0.5)")
    add_tile(parser)
    parser.add_argument("--attribute", action="store_true", help="also draw which stream of the network decided what")
    parser.add_argument(
        "--receptive", nargs="?", const="centre", type=_pixel, metavar="ROW,COLUMN",
        help="also draw the receptive field of a pixel (default: the centre)",
    )  # fmt: skip
    add_device(parser)


def _pixel(text: str) -> tuple[int, int] | str:
    """(row, column) of "ROW,COLUMN", or "centre"."""
    parts = text.split(",")
    if text == "centre":
        return text
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} must be ROW,COLUMN, two integers from 0, or centre")
    return int(parts[0]), int(parts[1])


def _image_files(paths: list[Path], endings: list[str]) -> list[Path]:
    """All image files that are meant; raises DataError for an empty folder, or two that would share an output."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not found:
                raise DataError(f"{path}: this folder holds no images ({', '.join(sorted(SUFFIXES))})")
            files += found
        else:
            files.append(path)
    taken: dict[str, Path | str] = {LEGEND: "the legend"}
    for file in dict.fromkeys(files):
        for name in _outputs(file, endings):
            if name in taken:
                raise DataError(f"{file} and {taken[name]} would both be written as {name}")
            taken[name] = file
    return list(dict.fromkeys(files))


def _endings(arguments: argparse.Namespace) -> list[str]:
    """What the names of an image's outputs end in: palette PNG, overlay, and what else is asked for."""
    extra = {STREAMS: arguments.attribute, FIELD: arguments.receptive is not None}
    return [".png", "_overlay.png", *(ending for ending, wanted in extra.items() if wanted)]


def _outputs(file: Path, endings: list[str]) -> list[str]:
    """The names of an image's outputs."""
    return [file.stem + ending for ending in endings]


def _draw_streams(path: Path, segmenter: Segmenter, image: np.ndarray) -> None:
    found = attribution.attribute(segmenter.network, segmenter.input(image[None]))
    pictures.attribution_picture(path, image, found, segmenter.palette, segmenter.classes)


def _draw_field(path: Path, segmenter: Segmenter, image: np.ndarray, pixel: tuple[int, int] | str) -> None:
    row, column = (image.shape[0] // 2, image.shape[1] // 2) if pixel == "centre" else pixel
    effective = receptive.effective(segmenter.network, segmenter.input(image[None]), row, column)
    reach = [receptive.reach(segmenter.network, at, at) for at in (row, column)]
    pictures.receptive_picture(path, image, (row, column), *reach, effective, receptive.box(effective))


def run(arguments: argparse.Namespace) -> int:
    files = _image_files(arguments.images, _endings(arguments))
    task, predictor = tasks.load(arguments.run_folder, arguments.device)
    if task.name == "classify":
        return _classify(predictor, files, arguments)
    return _segment(predictor, files, arguments)


def _classify(recognizer: Recognizer, files: list[Path], arguments: argparse.Namespace) -> int:
    """Print the most likely classes of each image."""
    chosen_tile(recognizer.network, arguments.tile)
    if arguments.attribute or arguments.receptive:
        raise MinifcnError("--attribute and --receptive are for networks that label pixels, not for a classifier")
    for file in files:
        console.print(f"{file}  {_largest(recognizer.classes, recognizer.probabilities(read_image(file)))}")
    return 0


def _largest(classes: tuple[str, ...], shares: np.ndarray) -> str:
    """The names of up to three classes with the largest shares of 1."""
    return ", ".join(f"{classes[k]} {shares[k]:.0%}" for k in np.argsort(-shares)[:3] if shares[k] >= 0.005)


def _segment(segmenter: Segmenter, files: list[Path], arguments: argparse.Namespace) -> int:
    """Write a palette PNG and an overlay of each image, the pictures that are asked for, and a legend."""
    out, endings = arguments.out, _endings(arguments)
    inputs = {file.resolve(): file for file in files}
    for name in (name for file in files for name in (*_outputs(file, endings), LEGEND)):
        if (out / name).resolve() in inputs:
            raise DataError(f"{out / name} is an image to label and would be overwritten: name another --out")
    segmenter.tile = chosen_tile(segmenter.network, arguments.tile)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileWriteError(f"cannot make {out}: {error.strerror}") from error
    for file in tracked(files, len(files), "predicting"):
        image = read_image(file)
        label = segmenter(image)
        palette_png, overlay_png, *_ = (out / name for name in _outputs(file, endings))
        viz.save_palette_png(palette_png, label, segmenter.palette)
        viz.save_picture(overlay_png, viz.overlay(image, label, segmenter.palette, arguments.alpha))
        if arguments.attribute:
            _draw_streams(out / (file.stem + STREAMS), segmenter, image)
        if arguments.receptive is not None:
            _draw_field(out / (file.stem + FIELD), segmenter, image, arguments.receptive)
        shares = np.bincount(label.ravel(), minlength=len(segmenter.classes)) / label.size
        largest = _largest(segmenter.classes, shares)
        console.print(f"{file}  {image.shape[1]}x{image.shape[0]}  {largest}", soft_wrap=True)
    viz.save_picture(out / LEGEND, viz.legend(segmenter.classes, segmenter.palette))
    print(f"{len(files)} predictions, overlays and legend.png in {out}")
    return 0
