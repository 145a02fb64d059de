"""Networks: the classifiers over VGG backbones of any width, and the FCNs of the paper that are made from them."""

from .backbones import BACKBONES, Backbone
from .catalogue import NETWORKS, build
from .classifier import Classifier
from .fcn import AT_ONCE_SCALES, DECONVS, FCN, GEOMETRIES, MODELS, fcn8s, fcn8s_at_once, fcn16s, fcn32s

__all__ = [
    "AT_ONCE_SCALES",
    "BACKBONES",
    "DECONVS",
    "FCN",
    "GEOMETRIES",
    "MODELS",
    "NETWORKS",
    "Backbone",
    "Classifier",
    "build",
    "fcn8s",
    "fcn8s_at_once",
    "fcn16s",
    "fcn32s",
]
