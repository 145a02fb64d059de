"""`shapes`: a generated data set for classification, so that a classifier can be trained without downloads.

One shape of a class's outline, turned, scaled and placed at random, lies on an uneven ground that thin strokes
cross. Shape and ground are of random colours that differ by at least CONTRAST in every channel; each colour
alone is spread evenly over all colours, so that only the outline tells the class.

Outlines are signed distances, negative inside, in units of the shape's radius; points and edges of a star are
folded into one sector (I. Quilez, "2D distance functions"), and a regular polygon is a star whose inner points
lie on its edges.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

from .generated import Generated
from .palette import voc_palette

CONTRAST = 0.3  # least difference of shape and ground in each channel, of 1
Outline = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _disc(x: np.ndarray, y: np.ndarray, radius: float = 1.0) -> np.ndarray:
    return np.hypot(x, y) - radius


def _star(points: int, inner: float) -> Outline:
    """A star of outer radius 1 and inner radius `inner`."""
    half = np.pi / points
    edge = np.array([inner * np.cos(half) - 1, inner * np.sin(half)])  # from an outer point (1, 0) to the inner one
    across, along = np.array([edge[1], -edge[0]]) / np.hypot(*edge)

    def distance(x, y):
        angle = np.abs((np.arctan2(y, x) + half) % (2 * half) - half)
        radius = np.hypot(x, y)
        return across * (radius * np.cos(angle) - 1) + along * radius * np.sin(angle)

    return distance


def _polygon(corners: int) -> Outline:
    return _star(corners, np.cos(np.pi / corners))


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    long, short = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    return np.maximum(long - 0.95, short - 0.3)


OUTLINES: dict[str, Outline] = {
    "disc": _disc,
    "ring": lambda x, y: np.abs(_disc(x, y, 0.75)) - 0.25,
    "half disc": lambda x, y: np.maximum(_disc(x, y), -x),
    "crescent": lambda x, y: np.maximum(_disc(x, y), -_disc(x - 0.5, y, 0.85)),
    "triangle": _polygon(3),
    "square": _polygon(4),
    "star": _star(5, 0.42),
    "cross": _cross,
}


class Shapes(Generated):
    """Pictures of one shape each, of eight classes; a label is [[class]]. See `Generated` for the arguments.

    2000 train and 400 val pictures, each side at least 24 pixels.
    """

    classes = tuple(OUTLINES)
    palette = voc_palette(len(OUTLINES))
    task = "classify"
    title = "shapes"
    lengths = (2000, 400)
    smallest = 24

    def __init__(
        self, split: str = "train", *, seed: int = 0, size: tuple[int, int] = (64, 64), length: int | None = None
    ):
        super().__init__(split, seed, size, length)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.size
        number = int(rng.integers(len(OUTLINES)))
        ground = rng.random(3)
        colour = (ground + rng.uniform(CONTRAST, 1 - CONTRAST, 3)) % 1
        image = np.empty((height, width, 3))
        image[:] = ground
        image += 0.25 * (_noise(rng, height, width, 3) + _noise(rng, height, width, 9))[..., None]
        y, x = np.mgrid[:height, :width] + 0.5
        for _ in range(rng.integers(2, 5)):
            _blend(image, _stroke(rng, x, y, min(height, width)), rng.random(3))

        radius = min(height, width) * rng.uniform(0.2, 0.38)
        x, y = x - rng.uniform(radius, width - radius), y - rng.uniform(radius, height - radius)
        turn = rng.uniform(0, 2 * np.pi)
        cos, sin = np.cos(turn) / radius, np.sin(turn) / radius
        outline = OUTLINES[self.classes[number]](cos * x + sin * y, cos * y - sin * x)
        texture = 0.12 * _noise(rng, height, width, 6)[..., None]
        _blend(image, radius * outline, colour + texture)

        image += rng.uniform(0.005, 0.03) * rng.standard_normal(image.shape)
        return np.clip(255 * image + 0.5, 0, 255).astype(np.uint8), np.array([[number]], np.uint8)


def _blend(image: np.ndarray, distance: np.ndarray, colour: np.ndarray) -> None:
    """Paint `colour` where the signed distance (pixels) is negative, with an edge one pixel wide."""
    image += np.clip(0.5 - distance, 0, 1)[..., None] * (colour - image)


def _stroke(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, short: int) -> np.ndarray:
    """The signed distance of a straight stroke across the picture."""
    turn = rng.uniform(0, np.pi)
    across = np.cos(turn) * (x - rng.choice(x[0])) + np.sin(turn) * (y - rng.choice(y[:, 0]))
    return np.abs(across) - rng.uniform(0.005, 0.02) * short


def _noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Smooth noise in -1 .. 1 [H, W]: a grid of random values, `cells` a side, between which is interpolated."""
    grid = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
