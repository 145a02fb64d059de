"""Label colours: the PASCAL VOC colour map and the drawing of a label as an RGB picture.

The map is the rule of the VOC development kit (Everingham et al., "The PASCAL Visual Object Classes
Challenge"): bit 3j+c of the class number, counted from the lowest, is bit 7-j of channel c. So the
colours of neighbouring numbers differ in their highest bits.
"""

import numpy as np

VOID_COLOUR = (224, 224, 192)


def voc_palette(count: int) -> np.ndarray:
    """The first `count` (at most 256) colours of the VOC map: uint8 [count, 3], RGB."""
    numbers = np.arange(count)
    palette = np.zeros((count, 3), np.uint8)
    for channel in range(3):
        for j in range(8):
            palette[:, channel] |= ((numbers >> (3 * j + channel) & 1) << (7 - j)).astype(np.uint8)
    return palette


def colourise(label: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """A label (uint8 [H, W]) as an RGB picture (uint8 [H, W, 3]); values outside the palette get VOID_COLOUR."""
    colours = np.tile(np.asarray(VOID_COLOUR, np.uint8), (256, 1))
    colours[: len(palette)] = palette
    return colours[label]
