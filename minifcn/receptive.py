"""Receptive fields: which part of the image a pixel of the output depends on, and how much of it counts.

Theoretical. Output u of a convolution looks at the pixels from u s - p to u s - p + d (R - 1); pixel i of a transposed
convolution is added to the outputs from i s - p on (`kernels.geometry`). Followed from the output back to the image,
through crops and along every stream, an interval of rows (or columns) becomes the interval that it depends on, padding
included: exact, because all windows are without holes. Araujo, Norris and Sim, 2019, "Computing receptive fields of
convolutional neural networks".

Effective. The size of the gradient of one logit by each pixel of the image, summed over the colours: most of the
theoretical field hardly counts. Luo, Li, Urtasun and Zemel, 2016, "Understanding the effective receptive field in deep
convolutional neural networks".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from .errors import MinifcnError
from .kernels.geometry import Pair
from .models import FCN
from .nn import Module
from .tensor import Tensor


def stride(network: FCN) -> int:
    """Image pixels from one output of the trunk to the next: 32."""
    return int(1 / network.coordinate_maps()["score_fr"].scale)


def _image_reach(network: FCN, layer: str, first: int, last: int) -> Pair:
    """(first, last) pixel of the image that the outputs first..last of a layer of the trunk depend on."""
    for name in reversed(network.trunk[: network.trunk.index(layer) + 1]):
        first, last = getattr(network, name).reach(first, last)
    return first, last


def reach(network: FCN, first: int, last: int) -> dict[str, Pair]:
    """(first, last) row (or column) of the image that the output's rows first..last depend on, through each stream.

    By score layer. Rows below 0, or beyond the image, are padding.
    """

    def back(layer: str, span: Pair) -> Pair:
        """What outputs `span` of `layer`, after its crop, are made from."""
        offset = network.offsets.get(layer, 0)
        return getattr(network, layer).reach(span[0] + offset, span[1] + offset)

    span, found = back(network.last_upsampling, (first, last)), {}
    for up, pool, score in reversed(network.skips):
        found[score] = _image_reach(network, pool, *back(score, span))
        span = back(up, span)
    return {"score_fr": _image_reach(network, "score_fr", *span)} | found


def total_reach(network: FCN, first: int, last: int) -> Pair:
    """`reach` through all streams together."""
    spans = reach(network, first, last).values()
    return min(start for start, _ in spans), max(end for _, end in spans)


def field(network: FCN, layer: str = "score_fr") -> int:
    """Side of the square of the image that one output of a layer of the trunk depends on, in pixels."""
    first, last = _image_reach(network, layer, 0, 0)
    return last - first + 1


def needed(network: FCN, size: int, first: int, last: int) -> Pair:
    """(first, last) row of an image of `size` rows that give the output's rows first..last as the whole image does.

    The rows that they depend on, as far as the image has them, from a multiple of the stride on. The start must be one,
    because windows count from it; the end is free. Cut there, the network computes the same numbers at all places that
    these outputs depend on: each lies `start / stride` places further up, and what padding has replaced beyond a cut
    lies outside their reach, or is padding in the whole image, too. Where rounding up adds an incomplete window, it
    does so at the image's own end, as the rows left out are whole strides.
    """
    start, end = total_reach(network, first, last)
    step = stride(network)
    return max(0, start // step * step), min(size - 1, end)


@contextmanager
def _constant_weights(network: Module) -> Iterator[None]:
    """No gradients for the parameters, within the block."""
    wanting = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in wanting:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad = True


def effective(network: FCN, images: Tensor, row: int, column: int, label: int | None = None) -> np.ndarray:
    """sum over the colours of |d logit / d image| [H, W] for the logit of class `label` at a pixel of the output.

    images [1, 3, H, W], normalised; `label` None is the class that wins there. Only the part of the image that the
    pixel depends on is computed. Raises MinifcnError for a pixel or class that there is none of.
    """
    H, W = images.shape[2:]
    for name, value, count in (("row", row, H), ("column", column, W), ("class", label, network.classes)):
        if value is not None and not 0 <= value < count:
            raise MinifcnError(f"{name} (={value}) must lie in 0..{count - 1}")
    (top, bottom), (left, right) = needed(network, H, row, row), needed(network, W, column, column)
    window = np.s_[top : bottom + 1, left : right + 1]
    with _constant_weights(network):
        part = Tensor(images.data[(..., *window)], requires_grad=True, device=images.place)
        logits = network(part)
        at = np.s_[0, :, row - top, column - left]
        label = int(logits.numpy()[at].argmax()) if label is None else label
        dy = np.zeros(logits.shape, logits.dtype)
        dy[at][label] = 1
        logits.backward(dy)
    found = np.zeros((H, W), logits.dtype)
    found[window] = np.abs(part.grad.numpy()[0]).sum(axis=0)
    return found


def box(weights: np.ndarray, share: float = 0.95) -> tuple[Pair, Pair]:
    """((top, bottom), (left, right)): rows and columns between which `share` of the sum of `weights` [H, W] lies.

    Along each axis as much is left out before as behind. All of them where the sum is 0.
    """

    def middle(line: np.ndarray) -> Pair:
        below, outside = np.cumsum(line), (1 - share) / 2 * line.sum()
        if not below[-1] > 0:
            return 0, len(line) - 1
        return tuple(int(np.searchsorted(below, bound)) for bound in (outside, below[-1] - outside))

    return middle(weights.sum(axis=1)), middle(weights.sum(axis=0))
