"""Which stream decided a pixel: every logit as a sum of parts, one for each stream of the network.

After the score layers an FCN is linear: upsampling, cropping and adding are. So with z the logits and s_i the scores of
stream i (score_fr from conv7, score_pool4, score_pool3; biases included),

    z = head(s_1, s_2, s_3) = head(s_1, 0, 0) + head(0, s_2, 0) + head(0, 0, s_3),

where `head` is `FCN.fused` and `FCN.upsampled`, and each term is a part of every logit, exact but for rounding.

With a the class that wins a pixel and b the runner-up, the margin z_a - z_b is the sum of what the parts say about the
two, m_i = part_i[a] - part_i[b]. The share of stream i is m_i / (|m_1| + |m_2| + ...), from -1 to 1: the part of the
evidence that it gives, negative where it speaks for the runner-up; where all streams agree, shares add up to 1. A
stream decides a pixel if another class wins without it.

Source: the linearity of the head of Long, Shelhamer and Darrell, 2015, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import MinifcnError
from .models import FCN
from .tensor import Tensor, no_grad

STREAMS = {"score_fr": "conv7", "score_pool4": "pool4", "score_pool3": "pool3"}  # score layer: where its input is from


def parts(network: FCN, images: Tensor) -> dict[str, np.ndarray]:
    """The part [N, classes, H, W] of the logits of `images` [N, 3, H, W] that comes from each stream.

    By score layer: score_fr, score_pool4, score_pool3, those that the network has. Dropout acts as the network's mode
    says.
    """
    with no_grad():
        scores = network.stream_scores(images)
        nothing = {name: Tensor(one.place.xp.zeros_like(one.data), device=one.place) for name, one in scores.items()}
        return {
            name: network.upsampled(network.fused(nothing | {name: own}), images.shape[2:]).numpy()
            for name, own in scores.items()
        }


@dataclass(frozen=True)
class Attribution:
    """Of one image: `label` [H, W], the class that wins; for each stream, by its score layer, its `shares` of the
    margin [H, W] in -1..1, and whether it `decides` [H, W].
    """

    label: np.ndarray
    shares: dict[str, np.ndarray]
    decides: dict[str, np.ndarray]


def attribute(network: FCN, image: Tensor) -> Attribution:
    """The attribution of `image` [1, 3, H, W]. Raises MinifcnError for a network of one stream, which decides all."""
    if not network.skips:
        raise MinifcnError("this network has one stream, which decides every pixel: there is nothing to tell apart")
    split = {name: part[0] for name, part in parts(network, image).items()}
    logits = sum(split.values())
    label = logits.argmax(axis=0)
    others = logits.copy()
    np.put_along_axis(others, label[None], -np.inf, axis=0)
    pair = np.stack([label, others.argmax(axis=0)])
    margins = {name: -np.diff(np.take_along_axis(part, pair, axis=0), axis=0)[0] for name, part in split.items()}
    evidence = np.maximum(sum(np.abs(margin) for margin in margins.values()), np.finfo(logits.dtype).tiny)
    return Attribution(
        label,
        {name: margin / evidence for name, margin in margins.items()},
        {name: (logits - part).argmax(axis=0) != label for name, part in split.items()},
    )
