"""Pictures: labels in colour, overlays, contact sheets, training curves, confusion matrices.

Labels are uint8 [H, W], class indices and 255 for void; a palette is uint8 [C, 3] RGB. Figures are matplotlib
`Figure` objects without pyplot, so nothing here touches global state. PNG files are written whole or not at all.
"""

import math
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .data.dataset import IGNORE
from .data.palette import VOID_COLOUR, colourise
from .errors import MinifcnError
from .files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#65717e", "#e3e7eb"
BLUE, ORANGE, GREEN = "#2364aa", "#d9731a", "#3c8d5a"

TILE_WIDTH = (160, 480)  # a smaller tile of the contact sheet is enlarged, a wider or higher one reduced
MARGIN, GAP = 16, 8


# --- labels in colour ---------------------------------------------------------------------------------------


def colorize(label: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The colour of each pixel's class: uint8 [H, W] -> uint8 [H, W, 3], void in `VOID_COLOUR`.

    Raises `MinifcnError` for a class that the palette does not have.
    """
    return colourise(_checked_label(label, _checked_palette(palette)), palette)


def save_picture(path: str | os.PathLike, picture: "np.ndarray | Image.Image") -> None:
    """Write an RGB picture (uint8 [H, W, 3] or a Pillow image) as PNG, whole or not at all."""
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(_checked_image(picture))
    write_atomically(path, lambda file: picture.save(file, format="PNG"))


def save_palette_png(path: str | os.PathLike, label: np.ndarray, palette: np.ndarray) -> None:
    """Write `label` as a PNG of mode P: the stored byte is the class (255 stays 255), the palette its colour."""
    picture = Image.fromarray(_checked_label(label, _checked_palette(palette)))
    picture.putpalette(colourise(np.arange(256), palette).tobytes())  # turns mode L into P
    save_picture(path, picture)


def overlay(image: np.ndarray, label: np.ndarray, palette: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """`image` uint8 [H, W, 3] tinted with the colours of `label`, weight `alpha` in 0..1; -> uint8 [H, W, 3].

    A white line of one pixel parts two classes; void, tinted like a class, parts them by itself.
    """
    image, label = _checked_image(image), np.asarray(label)
    if image.shape[:2] != label.shape:
        raise MinifcnError(f"image has size {image.shape[:2]}, label {label.shape}; they must be equal")
    if not 0 <= alpha <= 1:
        raise MinifcnError(f"alpha must lie in 0..1, got {alpha}")
    blended = np.rint((1 - alpha) * image + alpha * colorize(label, palette)).astype(np.uint8)
    blended[_contours(label)] = 255
    return blended


def _contours(label: np.ndarray) -> np.ndarray:
    """True where the pixel below or to the right has another class (void is none): lines of one pixel."""
    edge = np.zeros(label.shape, bool)
    for here, there in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        a, b = label[here], label[there]
        edge[here] |= (a != b) & (a != IGNORE) & (b != IGNORE)
    return edge


def _checked_palette(palette: np.ndarray) -> np.ndarray:
    palette = np.asarray(palette)
    if palette.dtype != np.uint8 or palette.ndim != 2 or palette.shape[1] != 3 or not 1 <= len(palette) <= IGNORE:
        raise MinifcnError(f"a palette is uint8 [C, 3] with 1..{IGNORE} classes, got {palette.dtype} {palette.shape}")
    return palette


def _checked_label(label: np.ndarray, palette: np.ndarray) -> np.ndarray:
    label = np.asarray(label)
    if label.dtype != np.uint8 or label.ndim != 2 or not label.size:
        raise MinifcnError(f"a label is uint8 [H, W], got {label.dtype} {label.shape}")
    known = label[label != IGNORE]
    if known.size and known.max() >= len(palette):
        raise MinifcnError(f"label holds {known.max()}, the palette has the classes 0..{len(palette) - 1}")
    return label


def _checked_image(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise MinifcnError(f"an image is uint8 [H, W, 3], got {image.dtype} {image.shape}")
    return image


def _checked_names(classes: Sequence[str], count: int, of: str) -> Sequence[str]:
    if len(classes) != count:
        raise MinifcnError(f"{len(classes)} class names for {count} classes of the {of}")
    return classes


# --- legend and contact sheet -------------------------------------------------------------------------------


def legend(classes: Sequence[str], palette: np.ndarray, width: int = 640) -> Image.Image:
    """Colour patches with class names, in as many equal columns as fit into `width` pixels (RGB picture)."""
    _checked_names(classes, len(_checked_palette(palette)), "palette")
    return _legend(list(zip(classes, map(tuple, palette.tolist()), strict=True)), width)


def sample_sheet(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    palette: np.ndarray,
    classes: Sequence[str],
) -> Image.Image:
    """A contact sheet, one row 'image | label | prediction' per sample, with a legend of the classes that occur.

    Samples may differ in size. Small ones are enlarged by a whole factor with hard pixels, large ones reduced.
    """
    if not len(images) == len(labels) == len(predictions) or not len(images):
        counts = f"{len(images)} images, {len(labels)} labels, {len(predictions)} predictions"
        raise MinifcnError(f"a sheet needs equally many and at least 1 of each, got {counts}")
    _checked_names(classes, len(_checked_palette(palette)), "palette")
    for image, label, prediction in zip(images, labels, predictions, strict=True):
        sizes = np.shape(_checked_image(image))[:2], np.shape(label), np.shape(prediction)
        if len(set(sizes)) > 1:
            raise MinifcnError("image, label, prediction have sizes {}, {}, {}; must be equal".format(*sizes))

    rows = [
        (_tile(image), _tile(colorize(label, palette)), _tile(colorize(prediction, palette)))
        for image, label, prediction in zip(images, labels, predictions, strict=True)
    ]
    column = max(TILE_WIDTH[0], max(row[0].width for row in rows))
    width = 2 * MARGIN + 3 * column + 2 * GAP
    strip = _legend(_occurring([*labels, *predictions], palette, classes), width - 2 * MARGIN)
    top = MARGIN + 26
    height = top + sum(row[0].height + GAP for row in rows) + GAP + strip.height + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, title in enumerate(("image", "label", "prediction")):
        draw.text((MARGIN + i * (column + GAP), MARGIN), title, INK, _font(15, bold=True))
    y = top
    for row in rows:
        for i, tile in enumerate(row):
            sheet.paste(tile, (MARGIN + i * (column + GAP), y))
        y += row[0].height + GAP
    sheet.paste(strip, (MARGIN, y + GAP))
    return sheet


def _tile(pixels: np.ndarray) -> Image.Image:
    """The picture at a readable size: whole factors with hard pixels up, and down so that no detail is invented."""
    height, width = pixels.shape[:2]
    low, high = TILE_WIDTH
    picture = Image.fromarray(pixels)
    factor = min(math.ceil(low / width), high // height)
    if factor > 1:
        return picture.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    shrink = max(width, height) / high
    if shrink > 1:
        size = max(1, round(width / shrink)), max(1, round(height / shrink))
        return picture.resize(size, Image.Resampling.BOX)
    return picture


def _occurring(labels: list, palette: np.ndarray, classes: Sequence[str]) -> list[tuple[str, tuple]]:
    present = np.unique(np.concatenate([np.unique(label) for label in labels])).tolist()
    return [("void", VOID_COLOUR) if i == IGNORE else (classes[i], tuple(palette[i].tolist())) for i in present]


def _legend(entries: list[tuple[str, tuple]], width: int) -> Image.Image:
    patch, line, between = 16, 24, 20
    font = _font(14)
    widest = max(math.ceil(font.getlength(name)) for name, _ in entries)
    cell = min(patch + 8 + widest + between, width)
    lines = math.ceil(len(entries) / max(1, (width + between) // cell))
    columns = math.ceil(len(entries) / lines)
    picture = Image.new("RGB", (width, line * lines), "white")
    draw = ImageDraw.Draw(picture)
    for i, (name, colour) in enumerate(entries):
        x, y = i % columns * cell, i // columns * line
        draw.rounded_rectangle((x, y + 4, x + patch - 1, y + 3 + patch), 3, colour, outline="#9aa5b1")
        draw.text((x + patch + 8, y + line / 2), _shortened(name, font, cell - patch - 8), INK, font, anchor="lm")
    return picture


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: the same letters on each machine, and more than Latin."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), size)


# --- figures ------------------------------------------------------------------------------------------------


def curves(path: str | os.PathLike, rows: Sequence[dict[str, Any]]) -> None:
    """Write the course of a training as PNG: loss, validation scores and learning rate over epochs.

    Each row is one epoch: "epoch", "loss", "lr", "mean_iu" and "pixel_accuracy", or "accuracy" (fractions 0..1). All
    but "epoch" may be missing, None or NaN, such as the scores of an epoch without validation.
    """
    if not rows:
        raise MinifcnError(f"nothing to draw in {path}: no epochs")
    if any("epoch" not in row for row in rows):
        raise MinifcnError(f"cannot draw {path}: a row without 'epoch'")
    figure = new_figure(13, 3.4)
    loss, validation, rate = figure.subplots(1, 3, gridspec_kw={"left": 0, "right": 1, "wspace": 0.25})
    _panel(loss, "training loss", rows, {"loss": ("loss", BLUE)}, _number)
    scores = {"pixel_accuracy": ("pixel accuracy", GREEN), "mean_iu": ("mean IU", ORANGE)}
    scores["accuracy"] = ("accuracy", GREEN)
    _panel(validation, "validation", rows, scores, lambda v: f"{100 * v:.3g} %")
    _panel(rate, "learning rate", rows, {"lr": ("learning rate", BLUE)}, _number)
    save_figure(figure, path)


def confusion_picture(path: str | os.PathLike, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Write the confusion matrix `counts` [C, C] (true, predicted) as PNG, each row as percent of the true class.

    Percentages that round to 0 are left out; a class without ground truth has a grey row.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise MinifcnError(f"a confusion matrix is square, got shape {counts.shape}")
    size = len(_checked_names(classes, len(counts), "confusion matrix"))
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)

    side = max(2.4, 0.42 * size)
    figure = new_figure(side, side)
    axes = figure.add_axes((0, 0, 1, 1))  # the labels lie outside, where `save_figure` makes room
    axes.set_facecolor(GRID)
    axes.imshow(np.ma.masked_invalid(share), cmap="Blues", vmin=0, vmax=1)
    for i, j in zip(*np.nonzero(np.nan_to_num(share) >= 0.005), strict=True):
        colour = "white" if share[i, j] > 0.55 else INK
        axes.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(size), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), classes)
    axes.set_xlabel("predicted class", color=MUTED)
    axes.set_ylabel("true class", color=MUTED)
    axes.set_title("percent of the pixels of each true class", loc="left", color=INK, fontsize=11, pad=10)
    axes.set_xticks(np.arange(1, size) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, size) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    save_figure(figure, path)


def _panel(
    axes: "Axes",
    title: str,
    rows: Sequence[dict[str, Any]],
    series: dict[str, tuple[str, str]],
    write: Callable[[float], str],
) -> None:
    """One small plot over epochs; `series` maps a key of the rows to (name, colour), `write` makes tick labels."""
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in rows]
    highest = 0.0
    for key, (name, colour) in series.items():
        points = [(row["epoch"], row[key]) for row in rows if _is_number(row.get(key))]
        if not points:
            continue
        marker = "o" if len(points) <= 30 else None
        axes.plot(*zip(*points, strict=True), color=colour, label=name, lw=2, marker=marker, ms=4)
        highest = max(highest, *(value for _, value in points))
    axes.set_title(title, loc="left", color=INK, fontsize=12, fontweight="bold", pad=12)
    axes.set_xlabel("epoch", color=MUTED)
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(lambda value, _: write(value))
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(length=0, labelcolor=MUTED)
    if highest > 0:
        axes.set_ylim(0, 1.08 * highest)
    if not axes.lines:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", color=MUTED)
    elif len(series) > 1:
        box = {"loc": "lower right", "bbox_to_anchor": (1.02, 1.0), "ncols": len(series)}
        axes.legend(**box, frameon=False, labelcolor=INK, handlelength=1.2, columnspacing=1.2, borderpad=0.2)


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def new_figure(width: float, height: float) -> "Figure":
    """An empty white figure of so many inches, without any global state of matplotlib."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, facecolor="white")


def save_figure(figure: "Figure", path: str | os.PathLike) -> None:
    """Write `figure` to `path` as PNG, whole or not at all. Raises FileWriteError."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.2))
