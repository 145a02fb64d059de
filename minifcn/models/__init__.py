"""Networks: the FCNs of the paper over VGG backbones of any width."""

from .backbones import BACKBONES, Backbone
from .fcn import DECONVS, FCN, GEOMETRIES, MODELS, build, fcn8s, fcn8s_at_once, fcn16s, fcn32s

__all__ = [
    "BACKBONES",
    "DECONVS",
    "FCN",
    "GEOMETRIES",
    "MODELS",
    "Backbone",
    "build",
    "fcn8s",
    "fcn8s_at_once",
    "fcn16s",
    "fcn32s",
]
