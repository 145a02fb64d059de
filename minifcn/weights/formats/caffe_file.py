"""Caffe's .caffemodel: a NetParameter message, whose layers hold their weights as blobs.

    NetParameter       2 layers (V1LayerParameter), 100 layer (LayerParameter)
    LayerParameter     1 name, 7 blobs
    V1LayerParameter   4 name, 6 blobs, 1 layer (V0LayerParameter)
    V0LayerParameter   1 name, 50 blobs
    BlobProto          1..4 num, channels, height, width; 7 shape; 5 data (float), 8 double_data
    BlobShape          1 dim

Caffe reads images by OpenCV, as B, G, R in 0 .. 255, and subtracts a mean that the file does not hold: (103.939,
116.779, 123.68) for the VGG nets, (104.00698793, 116.66876762, 122.67891434) for CaffeNet and the released FCNs.

Source: BVLC/caffe, src/caffe/proto/caffe.proto; the means, fcn-berkeleyvision's layers and the VGG release.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path

import numpy as np

from . import protobuf
from .source import Convention, Source, reading

VGG_MEAN = (123.68, 116.779, 103.939)  # R, G, B
CAFFENET_MEAN = (122.67891434, 116.66876762, 104.00698793)
_LAYERS = {2: (4, 6), 100: (1, 7)}  # field of NetParameter: fields of the layer's name and blobs
_V0 = (1, 50)
_BLOBS = ("weight", "bias")


def read(path: Path) -> Source:
    """Read a .caffemodel. Raises CheckpointError."""
    with reading(path, "Caffe") as format, open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # stays open as long as an array looks into it
        arrays: dict[str, np.ndarray] = {}
        for number, layer in protobuf.fields(memoryview(data)):
            if number in _LAYERS:
                _add_layer(arrays, layer, *_LAYERS[number])
        if not arrays:
            raise ValueError("it holds no layer with weights")
        vgg = "conv1_1.weight" in arrays and "score_fr.weight" not in arrays
        return Source(
            path, format, arrays, Convention("OIHW", "CHW", "bgr", VGG_MEAN if vgg else CAFFENET_MEAN, (1.0,) * 3)
        )


def _add_layer(arrays: dict[str, np.ndarray], layer: memoryview, name_field: int, blobs_field: int) -> None:
    """Add the blobs of a layer as `name.weight`, `name.bias` (and `name.blob2` ...)."""
    name, blobs = "", []
    for number, value in protobuf.fields(layer):
        if number == name_field:
            name = str(value, "utf-8")
        elif number == blobs_field:
            blobs.append(_blob(value))
        elif number == 1 and blobs_field == 6:
            _add_layer(arrays, value, *_V0)
    for i, blob in enumerate(blobs):
        full = f"{name}.{_BLOBS[i] if i < len(_BLOBS) else f'blob{i}'}"
        if full in arrays:
            raise ValueError(f"two layers are called {name!r}")
        arrays[full] = blob


def _blob(message: memoryview) -> np.ndarray:
    """A blob's numbers in its shape; of an old 4-D shape, the leading ones go if there are two or more.

    Old files write a vector as (1, 1, 1, K) and a matrix as (1, 1, K, C).
    """
    legacy, shape, floats, doubles = [1, 1, 1, 1], None, [], []
    for number, value in protobuf.fields(message):
        if number in (1, 2, 3, 4):
            legacy[number - 1] = value
        elif number == 7:
            shape = [
                size
                for field, dims in protobuf.fields(value)
                if field == 1
                for size in ([dims] if isinstance(dims, int) else protobuf.varints(dims))
            ]
        elif number == 5:
            floats.append(value)
        elif number == 8:
            doubles.append(value)
    if shape is None:
        shape = legacy[3:] if legacy[:3] == [1, 1, 1] else legacy[2:] if legacy[:2] == [1, 1] else legacy
    found = protobuf.numbers(doubles, "<f8") if doubles else protobuf.numbers(floats, "<f4")
    if len(found) != math.prod(shape):
        raise ValueError(f"{len(found):,} numbers where shape {tuple(shape)} needs {math.prod(shape):,}")
    return found.reshape(shape)
