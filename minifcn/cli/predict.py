"""`minifcn predict`: label photographs with a trained network."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from .. import tasks, viz
from ..data import read_image
from ..errors import DataError, FileWriteError
from ..recognizer import Recognizer
from ..segmenter import Segmenter
from .console import add_device, console, tracked

HELP = "label images: a palette PNG and an overlay for each, and a legend; or say what a classifier sees in them"
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}
LEGEND = "legend.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder of a run, or a checkpoint file")
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder to write to (predictions)")
    parser.add_argument("--alpha", type=float, default=0.5, help="opacity of the overlay's colours (0.5)")
    add_device(parser)


def _image_files(paths: list[Path]) -> list[Path]:
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
        for name in _outputs(file):
            if name in taken:
                raise DataError(f"{file} and {taken[name]} would both be written as {name}")
            taken[name] = file
    return list(dict.fromkeys(files))


def _outputs(file: Path) -> tuple[str, str]:
    """The names of an image's palette PNG and overlay."""
    return f"{file.stem}.png", f"{file.stem}_overlay.png"


def run(arguments: argparse.Namespace) -> int:
    files = _image_files(arguments.images)
    task, predictor = tasks.load(arguments.run_folder, arguments.device)
    if task.name == "classify":
        return _classify(predictor, files)
    return _segment(predictor, files, arguments.out, arguments.alpha)


def _classify(recognizer: Recognizer, files: list[Path]) -> int:
    """Print the most likely classes of each image."""
    for file in files:
        console.print(f"{file}  {_largest(recognizer.classes, recognizer.probabilities(read_image(file)))}")
    return 0


def _largest(classes: tuple[str, ...], shares: np.ndarray) -> str:
    """The names of up to three classes with the largest shares of 1."""
    return ", ".join(f"{classes[k]} {shares[k]:.0%}" for k in np.argsort(-shares)[:3] if shares[k] >= 0.005)


def _segment(segmenter: Segmenter, files: list[Path], out: Path, alpha: float) -> int:
    """Write a palette PNG and an overlay of each image, and a legend."""
    inputs = {file.resolve(): file for file in files}
    for name in (name for file in files for name in (*_outputs(file), LEGEND)):
        if (out / name).resolve() in inputs:
            raise DataError(f"{out / name} is an image to label and would be overwritten: name another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileWriteError(f"cannot make {out}: {error.strerror}") from error
    for file in tracked(files, len(files), "predicting"):
        image = read_image(file)
        label = segmenter(image)
        palette_png, overlay_png = _outputs(file)
        viz.save_palette_png(out / palette_png, label, segmenter.palette)
        painted = viz.overlay(image, label, segmenter.palette, alpha)
        viz.save_picture(out / overlay_png, painted)
        shares = np.bincount(label.ravel(), minlength=len(segmenter.classes)) / label.size
        largest = _largest(segmenter.classes, shares)
        console.print(f"{file}  {image.shape[1]}x{image.shape[0]}  {largest}", soft_wrap=True)
    viz.save_picture(out / LEGEND, viz.legend(segmenter.classes, segmenter.palette))
    print(f"{len(files)} predictions, overlays and legend.png in {out}")
    return 0
