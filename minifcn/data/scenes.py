"""`scenes`: a generated data set of street scenes with exact labels, so that nothing need be downloaded.

A scene is a small one-point perspective: a ground plane with a road that runs to a vanishing point on
the horizon, mountains and a balloon behind it, and buildings, trees and cars that stand on it. An object
`a` camera heights tall whose foot is at depth t (0 at the horizon, 1 at the lower edge) is a * t * GROUND
pixels tall, and nearer objects are painted over farther ones. Textures are sums of value noise at
several scales; round things are shaded by Lambert's cosine law; shadows fall away from the sun. Blur,
colour cast, vignetting and Gaussian sensor noise come last. Every colour varies between instances, so
that a class is known by shape, texture and place rather than by colour.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .dataset import IGNORE
from .generated import Generated

CLASSES = ("sky", "mountain", "building", "tree", "grass", "road", "car", "balloon")
SKY, MOUNTAIN, BUILDING, TREE, GRASS, ROAD, CAR, BALLOON = range(len(CLASSES))
PALETTE = np.array(
    [
        (96, 165, 235),
        (139, 125, 166),
        (199, 92, 70),
        (34, 112, 60),
        (150, 200, 84),
        (110, 112, 122),
        (246, 190, 52),
        (222, 74, 158),
    ],
    np.uint8,
)
GROUND = 52.0  # pixels from the horizon to the nearest ground, in a picture 96 pixels high


class Scenes(Generated):
    """Generated street scenes of eight classes; see the module's text, and `Generated` for the arguments.

    600 train and 80 val scenes, each side at least 32 pixels.
    """

    classes = CLASSES
    palette = PALETTE
    title = "scenes"
    lengths = (600, 80)
    smallest = 32

    def __init__(
        self, split: str = "train", *, seed: int = 0, size: tuple[int, int] = (96, 128), length: int | None = None
    ):
        super().__init__(split, seed, size, length)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return generate(rng, *self.size)


def generate(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """One scene: image uint8 [H, W, 3] and label uint8 [H, W] with a void line between regions."""
    view = _View(rng, height, width)
    _sky(view)
    _mountains(view)
    _balloon(view)
    _meadow(view)
    _road(view)
    things = _arrange(view)
    for thing in things:
        _shadow(view, thing)
    for thing in things:
        thing.paint(view, thing)
    return _photograph(view), _outline(view.label)


class _View:
    """The canvas (image float32 [3, H, W] in about 0 .. 1, label uint8 [H, W]), the camera and the light."""

    def __init__(self, rng: np.random.Generator, height: int, width: int):
        self.rng, self.height, self.width = rng, height, width
        self.unit = min(height, 0.75 * width) / 96
        self.image = np.empty((3, height, width), np.float32)
        self.label = np.full((height, width), SKY, np.uint8)
        self.y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
        self.x = np.arange(width, dtype=np.float32)[None, :] + np.float32(0.5)

        self.horizon = height * rng.uniform(0.42, 0.5)
        self.centre = width * rng.uniform(0.38, 0.62)  # x of the vanishing point
        self.half_road = 52 * self.unit * rng.uniform(0.85, 1.1)  # half width of the road at t = 1
        self.lean = width * rng.uniform(-0.12, 0.12)  # sideways run of the road from t = 0 to t = 1
        self.bend = width * rng.uniform(-0.09, 0.09)

        self.sun_side = float(rng.choice((-1, 1))) * rng.uniform(0.35, 1.0)
        self.warmth = rng.beta(1.0, 2.2)  # 0 noon .. 1 evening
        self.overcast = rng.beta(1.0, 3.0)  # 0 clear .. 1 grey
        self.sun = 0.78 * (1 - 0.75 * self.overcast) * _rgb(1.0, 0.97 - 0.2 * self.warmth, 0.9 - 0.42 * self.warmth)
        self.ambient = _rgb(0.55, 0.59, 0.66) + 0.12 * self.overcast
        self.haze = _mix(_rgb(0.76, 0.84, 0.93), _rgb(0.98, 0.80, 0.62), self.warmth)
        self.haze = _mix(self.haze, _rgb(0.82, 0.83, 0.85), self.overcast)

        short = 96 * self.unit
        self.broad = self.noise((short / 3, short / 7, short / 14))
        self.detail = self.noise((5 * self.unit, 2.2 * self.unit))
        self.grain = 2 * rng.random((height, width), dtype=np.float32) - 1

    def noise(self, cells: tuple[float, ...]) -> np.ndarray:
        """Value noise in about -1 .. 1: random grids of the given cell sizes (pixels), each of 0.6 the last weight."""
        total = np.zeros((self.height, self.width), np.float32)
        for octave, cell in enumerate(cells):
            rows = _interpolation(self.height, max(2, round(self.height / cell)))
            columns = _interpolation(self.width, max(2, round(self.width / cell)))
            grid = self.rng.random((rows.cells + 1, columns.cells + 1), dtype=np.float32) - np.float32(0.5)
            total += np.float32(2 * 0.6**octave) * columns.spread(rows.spread(grid, axis=0), axis=1)
        return total

    def road_at(self, t):
        """x of the road's middle and its half width at depth t."""
        return self.centre + self.lean * t + self.bend * t * (1 - t) * 2, self.half_road * t

    def foot(self, t: float) -> float:
        """y of the ground at depth t."""
        return self.horizon + t * (self.height - self.horizon)

    def window(self, top: float, left: float, bottom: float, right: float) -> tuple[slice, slice]:
        """The pixels of a rectangle, cut to the canvas (perhaps none)."""
        rows = slice(min(self.height, max(0, int(top) - 1)), min(self.height, max(0, int(bottom) + 2)))
        columns = slice(min(self.width, max(0, int(left) - 1)), min(self.width, max(0, int(right) + 2)))
        return rows, columns

    def lit(self, albedo: np.ndarray, lambert) -> np.ndarray:
        """Colour of a surface: albedo times (sky light + sun light times the cosine `lambert`)."""
        return albedo * (self.ambient + self.sun * np.maximum(lambert, np.float32(0)))

    def far(self, colour: np.ndarray, t: float) -> np.ndarray:
        """The colour seen through the air from depth t."""
        return _mix(colour, self.haze, 0.55 * (1 - t) ** 5)

    def blend(self, window: tuple[slice, slice], alpha: np.ndarray, colour: np.ndarray) -> None:
        """Mix `colour` into the image with weight `alpha`; the label stays."""
        target = self.image[:, window[0], window[1]]
        target += alpha * (colour - target)

    def mark(self, window: tuple[slice, slice], alpha: np.ndarray, label: int) -> None:
        """Give `label` to the pixels that are covered by more than a half."""
        np.copyto(self.label[window], np.uint8(label), where=alpha > 0.5)


def _rgb(red: float, green: float, blue: float) -> np.ndarray:
    return np.array([red, green, blue], np.float32)[:, None, None]


def _mix(a, b, weight):
    return a + weight * (b - a)


def _cover(distance: np.ndarray) -> np.ndarray:
    """Share of a pixel inside an outline, from the signed distance (pixels, negative inside) of its centre."""
    return np.clip(0.5 - distance, 0, 1)


def _box(x: np.ndarray, y: np.ndarray, half_x: float, half_y: float, corner: float) -> np.ndarray:
    """Signed distance to a rectangle about the origin with rounded corners."""
    dx, dy = np.abs(x) - (half_x - corner), np.abs(y) - (half_y - corner)
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner


def _polygon(x: np.ndarray, y: np.ndarray, corners: list[tuple[float, float]]) -> np.ndarray:
    """Signed distance (a lower bound near corners) to a convex polygon, corners (x, y) in either sense of rotation."""
    area = 0.0
    edges = list(zip(corners, corners[1:] + corners[:1], strict=True))
    for (x0, y0), (x1, y1) in edges:
        area += x0 * y1 - x1 * y0
    sense = 1 if area > 0 else -1
    distance = None
    for (x0, y0), (x1, y1) in edges:
        length = max(float(np.hypot(x1 - x0, y1 - y0)), 1e-6) * sense
        nx, ny = (y1 - y0) / length, (x0 - x1) / length
        side = x * np.float32(nx) + (y * np.float32(ny) - np.float32(nx * x0 + ny * y0))
        distance = side if distance is None else np.maximum(distance, side)
    return distance


@dataclass(frozen=True)
class _Spread:
    """Smoothstep interpolation from cells + 1 grid values to pixels: each lies `weight` past grid value `index`.

    Gathering rather than a matrix product keeps BLAS, and with it a pool of threads, out of the loader's way.
    """

    cells: int
    index: np.ndarray
    weight: np.ndarray

    def spread(self, grid: np.ndarray, axis: int) -> np.ndarray:
        low, high = grid.take(self.index, axis), grid.take(self.index + 1, axis)
        weight = self.weight if axis == grid.ndim - 1 else self.weight[:, None]
        return low + weight * (high - low)


@lru_cache(maxsize=64)
def _interpolation(size: int, cells: int) -> _Spread:
    """`size` pixels spread evenly over `cells` cells."""
    place = (np.arange(size) + 0.5) / size * cells
    index = np.minimum(place.astype(int), cells - 1)
    step = place - index
    return _Spread(cells, index, (step * step * (3 - 2 * step)).astype(np.float32))


def _sky(view: _View) -> None:
    rng = view.rng
    zenith = _mix(_rgb(*rng.uniform((0.1, 0.32, 0.7), (0.32, 0.54, 0.95))), _rgb(0.45, 0.45, 0.62), view.warmth)
    zenith = _mix(zenith, _rgb(0.58, 0.61, 0.66), view.overcast)
    height = np.clip(view.y / view.horizon, 0, 1) ** 1.3
    view.image[:] = _mix(zenith, view.haze, height)
    sunward = np.clip(0.5 + view.sun_side * (view.x / view.width - 0.5), 0, 1) ** 2
    view.image += 0.14 * sunward * height * view.sun

    stretch = view.broad + 0.35 * view.detail * (0.4 + height)
    clouds = np.clip(1.5 * stretch + rng.uniform(-0.9, 0.5) + 0.5 * view.overcast, 0, 1) * rng.uniform(0.55, 0.95)
    above = np.maximum(np.arange(view.height) - max(1, round(5 * view.unit)), 0)
    shade = view.broad[above]
    colour = _mix(_rgb(0.99, 0.97, 0.96), view.haze, 0.35) * (0.92 - 0.16 * np.clip(shade, -0.6, 1) * clouds)
    view.image += clouds * (1 - 0.45 * height) * (colour - view.image)


def _mountains(view: _View) -> None:
    rng = view.rng
    rock = _rgb(*rng.uniform((0.26, 0.3, 0.24), (0.58, 0.52, 0.58)))
    wood = _rgb(*rng.uniform((0.12, 0.24, 0.12), (0.36, 0.44, 0.26)))
    snow_line = rng.uniform(0.25, 1.4)
    for nearer in range(2):
        cells = 4 + 2 * nearer
        columns = [_interpolation(view.width, cells * 2**octave) for octave in range(4)]
        ridge = sum(
            0.45**o * c.spread(rng.random(c.cells + 1, dtype=np.float32), axis=0) for o, c in enumerate(columns)
        )
        low, high = float(ridge.min()), float(ridge.max())
        ridge = (ridge - low) / (high - low + 1e-6)
        tall = view.unit * (rng.uniform(11, 18) if nearer else rng.uniform(20, 33))
        floor = view.unit * (3 if nearer else 8)
        top = view.horizon - floor - tall * ridge[None, :]
        window = view.window(view.horizon - floor - tall, 0, view.horizon + 2, view.width)
        y = view.y[window[0]]
        rise = np.clip((view.horizon - y) / (floor + tall), 0, 1)
        folds = np.abs(view.broad[window]) * 1.6 + 0.5 * view.detail[window]
        slope = np.gradient(ridge).astype(np.float32)[None, :] * view.width / 9
        light = 0.55 + view.sun_side * 0.45 * np.tanh(slope) + 0.3 * (folds - 0.5)
        albedo = _mix(wood, rock, np.clip(1.4 * rise + 0.25 * folds - (0.3 if nearer else 0.0), 0, 1))
        snow = np.clip(5 * (rise + 0.16 * folds - snow_line), 0, 1)
        albedo = _mix(albedo, _rgb(0.93, 0.95, 1.0), snow)
        colour = _mix(view.lit(albedo, light), view.haze, 0.2 if nearer else 0.42)
        alpha = _cover(top - y + 0.8 * view.detail[window])
        view.blend(window, alpha, colour)
        view.mark(window, alpha, MOUNTAIN)


def _balloon(view: _View) -> None:
    rng = view.rng
    for number in range(1 + (rng.random() < 0.2)):
        radius = view.unit * rng.uniform(12.5, 17) * (1, 0.72)[number]
        x0 = min(max(view.centre + view.width * rng.uniform(-0.3, 0.3), radius * 0.7), view.width - radius * 0.7)
        y0 = max(view.height * rng.uniform(0.1, 0.24), radius * 0.75)
        window = view.window(y0 - radius, x0 - radius, y0 + 2 * radius, x0 + radius)
        x, y = view.x[:, window[1]] - x0, view.y[window[0]] - y0
        # Below its middle the envelope narrows like a drop until it meets the basket.
        down = np.clip(y / (1.5 * radius), 0, 1)
        half = np.where(y < 0, np.sqrt(np.maximum(radius**2 - y * y, 0)), radius * (1 - 0.85 * down**1.6))
        ends = np.maximum(-radius - y, y - 1.35 * radius)
        alpha = _cover(np.maximum(np.abs(x) - half, ends))
        across = np.clip(x / np.maximum(half, 1), -1, 1)
        gores = np.floor(np.arcsin(across) * rng.integers(4, 7) / np.pi + 0.5).astype(int) % 2
        if rng.random() < 0.35:
            gores = np.broadcast_to(np.floor((y + radius) * rng.uniform(2.4, 4) / radius).astype(int) % 2, gores.shape)
        first, second = (_vivid(rng) for _ in range(2))
        if rng.random() < 0.5:
            second = _rgb(0.95, 0.93, 0.86)
        lambert = 0.35 + 0.6 * across * view.sun_side - 0.45 * y / radius
        round_off = 1 - 0.35 * across**2
        colour = view.lit(np.where(gores, first, second), lambert) * round_off
        view.blend(window, alpha, _mix(colour, view.haze, 0.1))
        basket = _cover(_box(x, y - 1.5 * radius, 0.19 * radius, 0.17 * radius, 0.04 * radius))
        view.blend(window, basket, view.lit(_rgb(0.42, 0.28, 0.16), 0.3 + 0.05 * view.detail[window]))
        view.mark(window, np.maximum(alpha, basket), BALLOON)


def _vivid(rng: np.random.Generator) -> np.ndarray:
    """A saturated colour of any hue."""
    hue = rng.random() * 6 - np.array([0.0, 2.0, 4.0])
    wheel = np.clip(np.abs((hue + 3) % 6 - 3), 0, 2) - 1  # -1 where the channel is full, 1 where it is absent
    strength = rng.uniform(0.55, 0.95)
    return _rgb(*(rng.uniform(0.6, 0.95) * (1 - strength * np.clip(0.5 + 0.5 * wheel, 0, 1))))


def _meadow(view: _View) -> None:
    rng = view.rng
    window = view.window(view.horizon, 0, view.height, view.width)
    y = view.y[window[0]]
    t = np.clip((y - view.horizon) / (view.height - view.horizon), 0.004, 1)
    # Patches keep their size on the ground, so their rows crowd together towards the horizon.
    strips, columns = _interpolation(256, 24), _interpolation(view.width, 12)
    row = np.clip(60 * np.log(60 * t) / np.log(60) * 4.2, 0, 255).astype(int)[:, 0]
    patches = rng.random((strips.cells + 1, columns.cells + 1), dtype=np.float32) - np.float32(0.5)
    patches = columns.spread(strips.spread(patches, axis=0)[row], axis=1)
    fresh = _rgb(*rng.uniform((0.28, 0.46, 0.12), (0.48, 0.66, 0.26)))
    dry = _rgb(*rng.uniform((0.5, 0.48, 0.2), (0.74, 0.64, 0.38)))
    albedo = _mix(fresh, dry, np.clip(rng.uniform(-0.15, 0.65) + 0.9 * patches, 0, 1))
    blades = 0.22 * np.sqrt(t) * (0.7 * view.detail[window] + 0.6 * view.grain[window])
    colour = view.lit(albedo, 0.62 + blades + 0.25 * patches) * (1 + 0.5 * blades)
    edge = _cover(view.horizon - y + 0.9 * view.broad[window])
    view.blend(window, edge, _mix(colour, view.haze, 0.5 * (1 - t) ** 6))
    view.mark(window, edge, GRASS)


def _road(view: _View) -> None:
    rng = view.rng
    window = view.window(view.horizon + 1, 0, view.height, view.width)
    t = np.clip((view.y[window[0]] - view.horizon) / (view.height - view.horizon), 0, 1)
    middle, half = view.road_at(t)
    x = view.x - middle
    across = x / np.maximum(half, 0.5)
    tint = rng.uniform(-0.03, 0.03)
    asphalt = _rgb(1 + tint, 1, 1 - tint) * rng.uniform(0.26, 0.58)
    if rng.random() < 0.2:
        asphalt = _rgb(*rng.uniform((0.5, 0.42, 0.32), (0.62, 0.5, 0.38)))
    wear = 0.05 * np.cos(across * 2 * np.pi) + 0.1 * view.broad[window]
    rough = 0.16 * np.sqrt(t) * (0.5 * view.grain[window] + 0.5 * view.detail[window])
    colour = view.lit(asphalt, 0.6 + wear + rough) * (1 + rough)
    # Dashes repeat along the ground, where the distance is 1 / t.
    dash = np.clip(4 * np.sin(2 * np.pi * (rng.uniform(1.5, 2.5) / np.maximum(t, 0.02) + rng.random())) + 1, 0, 1)
    line = 0.022 + 0.4 / np.maximum(half, 0.5)
    paint = np.clip((line - np.abs(across)) * half + 0.3, 0, 1) * dash
    paint = np.maximum(paint, np.clip((line - np.abs(np.abs(across) - 0.93)) * half + 0.3, 0, 1))
    paint = paint * np.clip(t * 2.5, 0, 1) * rng.uniform(0.35, 0.95)
    colour += paint * (view.lit(_rgb(0.92, 0.92, 0.86), 0.6) - colour)
    colour = _mix(colour, view.haze, 0.5 * (1 - t) ** 6)
    alpha = _cover(np.abs(x) - half + 0.8 * np.sqrt(t) * view.detail[window])
    view.blend(window, alpha, colour)
    view.mark(window, alpha, ROAD)


@dataclass(frozen=True)
class _Thing:
    """An object on the ground: who paints it, depth t, x of its foot, width and height in pixels."""

    paint: Callable[[_View, "_Thing"], None]
    t: float
    x: float
    width: float
    height: float


def _arrange(view: _View) -> list[_Thing]:
    """Choose and place what stands on the ground, farthest first."""
    rng = view.rng
    things = []

    def beside(paint, side, t, gap, width, height):
        """Off the road (side -1 or 1); gap, width and height in camera heights."""
        scale = t * GROUND * view.unit
        middle, half = view.road_at(t)
        x = middle + side * (half + (gap + width / 2) * scale)
        things.append(_Thing(paint, t, x, width * scale, height * scale))

    built_up = int(rng.choice((-1, 1)))
    for side, near, far in ((built_up, 0.22, 0.36), (-built_up, 0.15, 0.26), (built_up, 0.12, 0.18)):
        if side == built_up or rng.random() < 0.6:
            t, gap, wide, tall = rng.uniform((near, 0.3, 2, 2.2), (far, 1.2, 3.6, 3.6)).tolist()
            beside(_building, side, t, gap, wide, tall)
    for number in range(rng.integers(3, 6)):
        side = -built_up if number == 0 or rng.random() < 0.6 else built_up
        t = rng.uniform(0.16, 0.5) if number else rng.uniform(0.3, 0.5)
        tall = rng.uniform(2.0, 3.2)
        beside(_tree, side, t, rng.uniform(0.0, 2.4) - 0.2 * tall, tall * rng.uniform(0.6, 0.85), tall)
    lane = 0.48 * int(rng.choice((-1, 1)))
    for number in range(rng.integers(1, 4)):
        t = rng.uniform(0.55, 0.85) if number == 0 else rng.uniform(0.25, 0.5)
        tall = t * GROUND * view.unit * rng.uniform(0.68, 0.9)
        if rng.random() < 0.35:
            paint, wide = _car_side, tall * rng.uniform(2.2, 2.7)
        else:
            paint, wide = _car_end, tall * rng.uniform(1.1, 1.3)
        middle, half = view.road_at(t)
        x = middle + half * (lane * (-1) ** number + rng.uniform(-0.08, 0.08))
        things.append(_Thing(paint, t, x, wide, tall))
    return sorted(things, key=lambda thing: thing.t)


def _shadow(view: _View, thing: _Thing) -> None:
    """Darken the ground on the side away from the sun; the shadow is a flat ellipse about the foot."""
    y0, run = view.foot(thing.t), -view.sun_side * 0.55 * thing.height
    half_x, half_y = thing.width * 0.5 + abs(run) * 0.5, max(1.2, 0.1 * thing.height + 0.05 * thing.width)
    x0 = thing.x + run * 0.6
    window = view.window(max(y0 - half_y, view.horizon + 1), x0 - half_x, y0 + half_y, x0 + half_x)
    x, y = (view.x[:, window[1]] - x0) / half_x, (view.y[window[0]] - y0) / half_y
    depth = np.clip(1.6 * (1 - x * x - y * y), 0, 1) * (0.55 - 0.3 * view.overcast)
    view.image[:, window[0], window[1]] *= 1 - depth * _rgb(1.0, 0.96, 0.85)


def _building(view: _View, thing: _Thing) -> None:
    rng, unit = view.rng, view.unit
    base, x0, x1 = view.foot(thing.t), thing.x - thing.width / 2, thing.x + thing.width / 2
    gable = rng.random() < 0.45
    tall = thing.height * (0.72 if gable else 1.0)
    top, peak = base - tall, base - thing.height
    inner = x1 if thing.x < view.centre else x0  # the corner that faces the road
    depth = rng.uniform(0.25, 0.5)

    def back(x, y):
        """The point behind (x, y) at the building's rear: moved towards the vanishing point."""
        return x + depth * (view.centre - x), y + depth * (view.horizon - y)

    rear_x, rear_top = back(inner, top)
    window = view.window(
        min(peak, rear_top), min(x0, rear_x, back(thing.x, peak)[0]), base, max(x1, rear_x, back(thing.x, peak)[0])
    )
    x, y = view.x[:, window[1]], view.y[window[0]]
    wall = _rgb(*rng.uniform(-0.07, 0.07, 3)) + _rgb(0.97, 0.92, 0.84) * rng.uniform(0.5, 0.95)
    if rng.random() < 0.4:
        wall = _rgb(*rng.uniform((0.45, 0.24, 0.18), (0.68, 0.4, 0.3)))  # brick
    floors = max(2, round(tall / (unit * rng.uniform(8, 12))))
    bays = max(2, round(thing.width / (unit * rng.uniform(7.5, 11))))
    rough = 0.06 * view.detail[window] + 0.05 * view.grain[window]
    bright = rng.uniform(0.05, 0.5)
    glass = _mix(_rgb(0.1, 0.13, 0.18), view.haze, bright) * (0.9 + 0.5 * view.broad[window])
    faces_sun = (view.sun_side > 0) == (inner == x1)

    def face(u, v, share, lambert):
        """Wall with windows; u counts bays, v falls from 1 at the ground to 0 at the top."""
        courses = np.float32(0.05) * np.sign(np.sin(v * np.float32(tall / unit * 2.1)))
        colour = view.lit(wall * (1 + rough + courses), lambert)
        fu, storey = u - np.floor(u), v * floors
        fv = storey - np.floor(storey)
        opening = (np.abs(fu - 0.5) < share) & (np.abs(fv - 0.5) < 0.27)
        sill = (np.abs(fu - 0.5) < share + 0.06) & (np.abs(fv - 0.8) < 0.06)
        colour = np.where(sill, colour * 1.18, colour)
        return np.where(opening, glass, colour)

    share = rng.uniform(0.2, 0.3)
    front = _cover(_polygon(x, y, [(x0, top), (x1, top), (x1, base), (x0, base)]))
    colour = face((x - x0) / thing.width * bays, (y - top) / tall, share, 0.35 if faces_sun else 0.55)

    side = _cover(_polygon(x, y, [(inner, top), (inner, base), back(inner, base), back(inner, top)]))
    run = np.clip((x - inner) / (view.centre - inner), 0, 0.95)
    scale = 1 - run
    ceiling = view.horizon + (top - view.horizon) * scale
    u = run / scale * bays * rng.uniform(1.2, 2.2)
    flank = face(u, (y - ceiling) / (tall * scale), share, 0.85 if faces_sun else 0.05)

    view.blend(window, side, view.far(flank, thing.t))
    view.blend(window, front, view.far(colour, thing.t))
    alpha = np.maximum(front, side)
    roof = _rgb(*rng.uniform((0.3, 0.2, 0.16), (0.62, 0.36, 0.3))) * (1 + 2 * rough)
    if gable:
        ridge, eave = (thing.x, peak), (inner, top)
        attic = _cover(_polygon(x, y, [(x0, top), ridge, (x1, top)]))
        slope = _cover(_polygon(x, y, [ridge, eave, back(*eave), back(*ridge)]))
        tiles = 1 + 0.12 * np.sin(y * np.float32(2.4 / unit))
        view.blend(window, slope, view.far(view.lit(roof * tiles, 0.9 if faces_sun else 0.35), thing.t))
        gable_wall = view.lit(wall * (1 + rough), 0.35 if faces_sun else 0.55)
        view.blend(window, attic, view.far(gable_wall, thing.t))
        verge = np.abs(np.abs(x - thing.x) * (top - peak) / (thing.width / 2) - (y - peak)) < 1.6 * unit
        view.blend(window, attic * verge, view.far(view.lit(roof, 0.3), thing.t))
        alpha = np.maximum(alpha, np.maximum(attic, slope))
    else:
        cornice = front * (np.abs(y - top) < 1.8 * unit) + side * (np.abs(y - ceiling) < 1.8 * unit)
        view.blend(window, np.minimum(cornice, 1), view.far(view.lit(wall * 1.12, 0.5), thing.t))
    view.mark(window, alpha, BUILDING)


def _tree(view: _View, thing: _Thing) -> None:
    rng = view.rng
    base, half, tall = view.foot(thing.t), thing.width / 2, thing.height
    window = view.window(base - 1.08 * tall, thing.x - 1.1 * half, base, thing.x + 1.1 * half)
    x, y = view.x[:, window[1]] - np.float32(thing.x), np.float32(base) - view.y[window[0]]  # y upwards
    bark = view.lit(_rgb(*rng.uniform((0.24, 0.17, 0.11), (0.44, 0.33, 0.24))), 0.45 + view.sun_side * x / (0.1 * half))
    girth = max(1.5 * view.unit, 0.05 * tall)
    trunk = _cover(np.maximum(np.abs(x) - girth * (1.25 - y / tall), y - 0.6 * tall))
    view.blend(window, trunk, view.far(bark, thing.t))

    leaf = _rgb(*rng.uniform((0.14, 0.28, 0.08), (0.36, 0.5, 0.2)))
    if rng.random() < 0.22:  # autumn
        leaf = _rgb(*rng.uniform((0.58, 0.24, 0.06), (0.85, 0.55, 0.16)))
    ragged = 0.16 * view.detail[window] + 0.1 * view.grain[window]
    if rng.random() < 0.3:  # conifer: a cone in tiers
        rise = np.clip((y / tall - 0.14) / 0.86, 0, 1)
        tier = rise * int(rng.integers(4, 7))
        skirt = (1 - rise) * (0.78 + 0.3 * (1 - (tier - np.floor(tier))))
        inside = np.where((y > 0.12 * tall) & (y < tall), 0.8 * skirt - np.abs(x) / half, -1)
        lambert = 0.35 + 0.75 * view.sun_side * x / half - np.float32(0.45) * (tier - np.floor(tier) < 0.25)
        leaf = leaf * np.float32(0.8)
    else:  # a crown of overlapping balls
        inside = np.full((y.shape[0], x.shape[1]), -1, np.float32)
        lambert = np.zeros_like(inside)
        places = [(0.0, 0.62, 0.62)] + [
            (np.cos(a) * 0.42, 0.64 + np.sin(a) * 0.2, rng.uniform(0.38, 0.52))
            for a in rng.uniform(0, 6.28) + 1.257 * np.arange(5)
        ]
        for across, up, radius in places:
            px, py, reach = np.float32(across * half), np.float32(up * tall), np.float32(radius)
            dx, dy = (x - px) / (half * reach), (y - py) / (0.62 * tall * reach)
            ball = (1 - np.sqrt(dx * dx + dy * dy)) * reach
            nearer = ball > inside
            np.copyto(inside, ball, where=nearer)
            np.copyto(lambert, 0.3 + 0.45 * view.sun_side * dx + 0.45 * dy, where=nearer)
    alpha = _cover(-(inside + 0.11 * view.detail[window] + 0.03 * view.grain[window]) * half)
    colour = view.lit(leaf * (1 + 1.5 * ragged), lambert + 2.2 * ragged)
    view.blend(window, alpha, view.far(colour, thing.t))
    view.mark(window, np.maximum(alpha, trunk), TREE)


def _car_paint(view: _View) -> np.ndarray:
    """Body colours: about half vivid, else white to black."""
    if view.rng.random() < 0.55:
        return _vivid(view.rng)
    return _rgb(1.0, 1.0, 1.02) * float(view.rng.choice((0.1, 0.2, 0.5, 0.7, 0.92)))


def _car_end(view: _View, thing: _Thing) -> None:
    """A car seen from the front (white lamps) or from behind (red lamps)."""
    base, half, tall = view.foot(thing.t), thing.width / 2, thing.height
    window = view.window(base - tall, thing.x - half, base + 1, thing.x + half)
    x, y = view.x[:, window[1]] - np.float32(thing.x), np.float32(base) - view.y[window[0]]
    up = y / tall
    tyres = _cover(_box(np.abs(x) - 0.72 * half, y - 0.14 * tall, 0.18 * half, 0.14 * tall, 0.04 * tall))
    body = _cover(_box(x, y - 0.38 * tall, half, 0.27 * tall, 0.1 * tall))
    taper = half * (0.94 - 0.3 * np.clip((up - 0.55) / 0.45, 0, 1))
    cabin = _cover(np.maximum(np.abs(x) - taper, np.maximum(y - tall, 0.5 * tall - y)))
    pane = _cover(np.maximum(np.abs(x) - taper + 0.13 * half, np.maximum(y - 0.91 * tall, 0.62 * tall - y)))
    enamel = _car_paint(view)
    shine = 0.35 + 0.45 * up + 0.25 * view.sun_side * x / half
    view.blend(window, tyres, _rgb(0.06, 0.06, 0.07))
    view.blend(window, np.maximum(body, cabin), view.lit(enamel, shine))
    glass = _mix(_rgb(0.08, 0.1, 0.13), view.haze, np.clip(0.75 * (up - 0.55) + 0.35 * x / half, 0, 0.8))
    view.blend(window, pane, glass)
    view.blend(window, body * (np.abs(up - 0.2) < 0.07), view.lit(_rgb(0.16, 0.16, 0.17), 0.4))
    front = view.rng.random() < 0.4
    lamps = _cover(_box(np.abs(x) - 0.76 * half, y - 0.47 * tall, 0.17 * half, 0.06 * tall, 0.03 * tall))
    view.blend(window, lamps, _rgb(1.0, 0.97, 0.85) if front else _rgb(0.75, 0.08, 0.07))
    plate = _cover(_box(x, y - 0.33 * tall, 0.26 * half, 0.05 * tall, 0.01 * tall))
    view.blend(window, plate, view.lit(_rgb(0.9, 0.9, 0.85), 0.4))
    view.mark(window, np.maximum(np.maximum(body, cabin), tyres), CAR)


def _car_side(view: _View, thing: _Thing) -> None:
    """A car seen from its side, heading left or right."""
    rng = view.rng
    base, half, tall = view.foot(thing.t), thing.width / 2, thing.height
    window = view.window(base - tall, thing.x - half, base + 1, thing.x + half)
    ahead = rng.choice((-1.0, 1.0))
    x, y = np.float32(ahead) * (view.x[:, window[1]] - np.float32(thing.x)), np.float32(base) - view.y[window[0]]
    body = _cover(_box(x, y - 0.4 * tall, half, 0.23 * tall, 0.12 * tall))
    outline = [(-0.86, 0.58), (-0.62, 1.0), (0.12, 1.0), (0.5, 0.58)]
    cabin = _cover(_polygon(x, y, [(across * half, up * tall) for across, up in outline]))
    outline = [(-0.72, 0.63), (-0.55, 0.92), (0.08, 0.92), (0.38, 0.63)]
    pane = _cover(_polygon(x, y, [(across * half, up * tall) for across, up in outline]))
    pane = pane * (np.abs(x + 0.18 * half) > 0.04 * half)  # the pillar between the doors
    enamel = _car_paint(view)
    shine = 0.25 + 0.65 * y / tall
    view.blend(window, np.maximum(body, cabin), view.lit(enamel, shine))
    view.blend(window, pane, _mix(_rgb(0.08, 0.1, 0.13), view.haze, np.clip(1.3 * (y / tall - 0.5), 0, 0.6)))
    view.blend(window, body * (np.abs(x + 0.2 * half) < 0.35) * 0.5, enamel * np.float32(0.3))
    lamp = _cover(_box(x - 0.92 * half, y - 0.48 * tall, 0.07 * half, 0.06 * tall, 0.0))
    view.blend(window, lamp * body, _rgb(1.0, 0.95, 0.8))
    from_hub = np.hypot(np.abs(x) - 0.6 * half, y - 0.21 * tall)
    tyres, hubs = _cover(from_hub - 0.22 * tall), _cover(from_hub - 0.11 * tall)
    view.blend(window, tyres, _rgb(0.06, 0.06, 0.07))
    view.blend(window, hubs, view.lit(_rgb(0.6, 0.6, 0.62), 0.4))
    view.mark(window, np.maximum(np.maximum(body, cabin), tyres), CAR)


def _photograph(view: _View) -> np.ndarray:
    """The camera: slight blur, vignetting, exposure and colour cast, sensor noise; uint8 [H, W, 3]."""
    rng, image = view.rng, view.image
    blur = np.float32(rng.uniform(0.04, 0.16))
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:, :, :-1], np.s_[:, :, 1:])):
        flow = blur * (image[second] - image[first])  # one step of heat conduction
        image[first] += flow
        image[second] -= flow
    off_centre = ((view.x / view.width - 0.5) ** 2 + (view.y / view.height - 0.5) ** 2).astype(np.float32)
    cast = _rgb(*rng.uniform(0.95, 1.05, 3)) * rng.uniform(0.92, 1.15)
    image *= cast * (1 - np.float32(rng.uniform(0.1, 0.35)) * off_centre)
    image += 0.35 * image * (1 - image) * (2 * image - 1)  # the film's S-shaped curve
    image += np.float32(rng.uniform(0.006, 0.02)) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image.transpose(1, 2, 0) * 255 + 0.5, 0, 255).astype(np.uint8)


def _outline(label: np.ndarray) -> np.ndarray:
    """The label with void on one side of every boundary: the upper or left pixel of two that differ."""
    outlined = label.copy()
    outlined[:-1][label[:-1] != label[1:]] = IGNORE
    outlined[:, :-1][label[:, :-1] != label[:, 1:]] = IGNORE
    return outlined
