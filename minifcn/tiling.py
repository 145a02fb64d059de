"""Large images in tiles: the same labels as of the whole image, in memory that a tile's size bounds.

An output pixel depends on the image within its receptive field only, so a tile of the output needs the tile of the
image and a halo around it; what the halo itself comes out as is thrown away. `receptive.needed` derives the halo, which
is as narrow as it can be: from the first row that the tile depends on, rounded down to the stride, to the last one.
Tiles at the border of the image have its own border. So nothing is blended, and tiles show no seams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .errors import MinifcnError
from .models import FCN
from .receptive import needed, stride

Size = tuple[int, int]


@dataclass(frozen=True)
class Tile:
    """Slices of rows and columns: of the `output` and of the image that it needs, both of the whole; of it in `own`."""

    output: tuple[slice, slice]
    image: tuple[slice, slice]

    @property
    def own(self) -> tuple[slice, slice]:
        """Where the tile lies in what the network makes of its part of the image."""
        return tuple(
            slice(out.start - part.start, out.stop - part.start)
            for out, part in zip(self.output, self.image, strict=True)
        )


def checked(network: FCN, tile: Size) -> Size:
    """`tile` = (height, width), or MinifcnError unless both are multiples of the stride."""
    step = stride(network)
    if any(side < step or side % step for side in tile):
        raise MinifcnError(f"tile (={tile[0]}x{tile[1]}) must have sides that are multiples of {step}")
    return tile


def _along(network: FCN, size: int, side: int) -> Iterator[tuple[slice, slice]]:
    """(output, image) of the tiles along one axis."""
    for start in range(0, size, side):
        stop = min(start + side, size)
        first, last = needed(network, size, start, stop - 1)
        yield slice(start, stop), slice(first, last + 1)


def tiles(network: FCN, size: Size, tile: Size) -> Iterator[Tile]:
    """The tiles of an image of `size` = (H, W), row by row; the last ones may be smaller. Raises as `checked` does."""
    height, width = checked(network, tile)
    for rows, image_rows in _along(network, size[0], height):
        for columns, image_columns in _along(network, size[1], width):
            yield Tile((rows, columns), (image_rows, image_columns))


def largest_part(network: FCN, size: Size, tile: Size) -> Size:
    """(height, width) of the largest part of the image that any tile needs."""
    return tuple(
        max(part.stop - part.start for _, part in _along(network, whole, side))
        for whole, side in zip(size, checked(network, tile), strict=True)
    )


def tiled(compute: Callable[[np.ndarray], np.ndarray], network: FCN, image: np.ndarray, tile: Size) -> np.ndarray:
    """`compute(image)`, put together from tiles.

    image [H, W, ...]; `compute` takes a part of it and returns [..., h, w] with the network's output for that part.
    """
    whole = None
    for one in tiles(network, image.shape[:2], tile):
        part = compute(image[one.image])[(..., *one.own)]
        if whole is None:
            whole = np.empty((*part.shape[:-2], *image.shape[:2]), part.dtype)
        whole[(..., *one.output)] = part
    return whole
