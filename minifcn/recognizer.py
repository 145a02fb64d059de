"""A trained classifier in use: from a photograph to what it shows."""

from __future__ import annotations

import numpy as np

from .data import fitted
from .models import Classifier
from .segmenter import Segmenter


class Recognizer(Segmenter):
    """As Segmenter, with one label [1, 1] for a whole picture, as data sets for classification have it.

    A picture is brought to the network's input size first: scaled until it just covers it, and cut about its centre.
    """

    network_type = Classifier

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """The softmax of the class scores, float64 [C], of an RGB image uint8 [H, W, 3]."""
        scores = self.logits(fitted(image, (self.network.input_size,) * 2)[None])[0].astype(np.float64)
        exponentials = np.exp(scores - scores.max())
        return exponentials / exponentials.sum()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The most likely class, uint8 [1, 1], of an RGB image uint8 [H, W, 3]."""
        return self.probabilities(image).argmax().astype(np.uint8).reshape(1, 1)
