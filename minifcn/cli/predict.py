"""`minifcn predict`: label photographs with a trained network."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from .. import viz
from ..data import read_image
from ..errors import DataError, FileWriteError
from ..segmenter import Segmenter
from .console import add_device, console, tracked, use_threads

HELP = "label images: a palette PNG and an overlay for each, and a legend"
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="folder of a run, or a checkpoint file")
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="image files, or folders of them")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder to write to (predictions)")
    parser.add_argument("--alpha", type=float, default=0.5, help="opacity of the overlay's colours (0.5)")
    add_device(parser)


def _image_files(paths: list[Path]) -> list[Path]:
    """All image files that are meant; raises DataError for a missing one, an empty folder, or two of one name."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not found:
                raise DataError(f"{path}: this folder holds no images ({', '.join(sorted(SUFFIXES))})")
            files += found
        else:
            files.append(path)
    by_stem: dict[str, Path] = {}
    for file in files:
        if by_stem.setdefault(file.stem, file) != file:
            raise DataError(f"{file} and {by_stem[file.stem]} would both be written as {file.stem}.png")
    return list(by_stem.values())


def run(arguments: argparse.Namespace) -> int:
    use_threads(arguments.threads)
    files = _image_files(arguments.images)
    segmenter = Segmenter.load(arguments.run_folder, arguments.device)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileWriteError(f"cannot make {arguments.out}: {error.strerror}") from error
    for file in tracked(files, len(files), "predicting"):
        image = read_image(file)
        label = segmenter(image)
        viz.save_palette_png(arguments.out / f"{file.stem}.png", label, segmenter.palette)
        painted = viz.overlay(image, label, segmenter.palette, arguments.alpha)
        viz.save_picture(arguments.out / f"{file.stem}_overlay.png", painted)
        shares = np.bincount(label.ravel(), minlength=len(segmenter.classes)) / label.size
        largest = [f"{segmenter.classes[k]} {shares[k]:.0%}" for k in np.argsort(-shares)[:3] if shares[k] >= 0.005]
        console.print(f"{file}  {image.shape[1]}x{image.shape[0]}  {', '.join(largest)}", soft_wrap=True)
    viz.save_picture(arguments.out / "legend.png", viz.legend(segmenter.classes, segmenter.palette))
    print(f"{len(files)} predictions, overlays and legend.png in {arguments.out}")
    return 0
