"""The classifiers that FCNs are made of: a backbone, then fc6, fc7 and fc8, which see the whole last pooling.

A fully connected layer on a map of C x R x S is a convolution with a window of R x S that fits in one place
(`ops/linear.py`). So the weights of a classifier are those of an FCN-32s, fc8 becoming score_fr, without a change but
of shape: fc6 [K, C R S] -> [K, C, R, S]. `Classifier.to_fcn` makes it (Long, Shelhamer and Darrell, 2015, section 3.1).

What is then equal. From the last pooling on, everything, exactly: an output of fc8 as a convolution is the classifier
on the window of that pooling that begins there, for every window of a map of any size. From the image on, where images
begin and end alike: at the classifier's own size, with the classifier's paddings, the one output is its logits. A
window cut out of a larger image is another matter: the classifier pads it with zeros where the FCN sees the image's
next pixels. The two are equal for every window, at steps of the stride, only where no convolution pads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import ops
from ..kernels.checks import expect_shape, label_dtype
from ..nn import Linear
from ..ops.cross_entropy import IGNORE_INDEX
from ..ops.storage import stored, widened
from ..tensor import Tensor, no_grad
from .fcn import FCN
from .trunk import Trunk, expect_images


class Classifier(Trunk):
    """Images [N, 3, S, S] to class scores [N, classes].

    input_size: S (None: the backbone's own, 224 for VGG); fc6's window is what is left of S at the last pooling. Other
    settings as of FCN. fc8 starts at zero, all other layers He-initialised from `seed`. Raises MinifcnError for a
    setting out of range.
    """

    def __init__(
        self,
        backbone: str = "vgg16",
        classes: int = 1000,
        width: float = 1.0,
        dropout: float = 0.5,
        fc: int | None = None,
        input_size: int | None = None,
        seed: int = 0,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__("classifier", backbone, classes, width, fc, input_size, dropout, seed, dtype)
        self.input_size = self.plan.input_size
        self._add("fc8", Linear(self.plan.fc, self.classes, dtype=self.dtype))

    def _fully_connected(self, C: int, K: int, window: int, rng: np.random.Generator) -> Linear:
        return Linear(C * window**2, K, relu=True, rng=rng, dtype=self.dtype)

    # --- use ---

    @property
    def unlaunched(self) -> str:
        """See `Trunk.unlaunched`."""
        return "flattens maps without a kernel"

    def forward(self, x: Tensor) -> Tensor:
        expect_images(x, (self.input_size, self.input_size))
        return widened(self.through(stored(x))[0])

    def loss(
        self,
        images: Tensor,
        target: Any,
        weight: Any = None,
        ignore_index: int = IGNORE_INDEX,
        reduction: str = "mean",
    ) -> Tensor:
        """Softmax cross entropy of `images` against `target` [N], an array or Tensor of integers.

        `weight`, `ignore_index` and `reduction` as of `ops.cross_entropy`. Raises ShapeError for a target of another
        shape, or with a label that is neither a class nor ignored.
        """
        expect_shape("target", target.shape, images.shape[:1])
        pixels = (target.data if isinstance(target, Tensor) else target)[:, None, None]
        logits = ops.reshape(self(images), (images.shape[0], self.classes, 1, 1))
        loss = ops.cross_entropy(logits, pixels, weight, ignore_index, reduction)
        return ops.reshape(loss, target.shape) if reduction == "none" else loss

    def labels(self, images: Tensor) -> np.ndarray:
        """The class with the largest score of every image, [N], uint8 up to 256 classes; it has no gradient."""
        with no_grad():
            return self(images).numpy().argmax(axis=1).astype(label_dtype(self.classes))

    # --- as an FCN ---

    def convolutional_weights(self) -> dict[str, np.ndarray]:
        """The weights under the names and shapes of an FCN-32s: all of its parameters, fc8's as score_fr."""
        weights = {}
        for name, array in self.state_dict().items():
            layer, kind = name.split(".")
            if kind == "weight" and layer in ("fc6", "fc7", "fc8"):
                window = self.plan.fc6_window if layer == "fc6" else 1
                array = array.reshape(len(array), -1, window, window)
            weights[name.replace("fc8", "score_fr")] = array
        return weights

    def to_fcn(self, stride: int = 32, classes: int | None = None, **settings: Any) -> FCN:
        """An FCN of `stride` with copies of these weights; `settings`: geometry, deconv, skip_scales, seed, as of FCN.

        Skips start at zero. So does score_fr where `classes` is given; None keeps the classifier's own and fc8.
        """
        network = FCN(stride, classes=self.classes if classes is None else classes, **self.shared, **settings)
        weights = self.convolutional_weights()
        if classes is not None:
            weights = {name: array for name, array in weights.items() if not name.startswith("score_fr")}
        network.load_state_dict(weights, missing_allowed=True)
        return network
