"""Modules: what holds parameters, how they are initialised, and the layers that FCNs are made of."""

from .layers import LRN, BilinearUpsample, Conv2d, ConvTranspose2d, Dropout, Layer, Linear, MaxPool2d, ReLU
from .module import Module, Parameter

__all__ = [
    "LRN",
    "BilinearUpsample",
    "Conv2d",
    "ConvTranspose2d",
    "Dropout",
    "Layer",
    "Linear",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
]
