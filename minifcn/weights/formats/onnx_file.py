"""ONNX models: the initialisers of the graph, and its constants.

They are read by the library onnx (`pip install "minifcn[weights]"`). Tensors kept in other files are refused. The
weights of a fully connected layer are handed on as [out, in]: whether they lie so in the file, its nodes say (Gemm's
transB; MatMul multiplies from the right). Convolutions are always OIHW; in which order a map was flattened, ONNX leaves
to the graph.

Source: onnx/onnx.proto; ONNX's operators Gemm, MatMul, Conv.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError
from .source import Convention, Source, reading

KNOWN = Convention(layout="OIHW")


def read(path: Path) -> Source:
    """Read an ONNX model. Raises CheckpointError, also where onnx is not installed."""
    try:
        import onnx
    except ImportError:
        raise CheckpointError(f'{path}: ONNX files are read by onnx: pip install "minifcn[weights]"') from None
    with reading(path, "ONNX") as format:
        graph = onnx.load_model_from_string(path.read_bytes()).graph
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            values = [one.t for one in node.attribute if node.op_type == "Constant" and one.name == "value"]
            tensors |= zip(node.output, values, strict=False)
        if not tensors:
            raise ValueError("it holds no weights")
        arrays = {name: _array(path, onnx, name, tensor) for name, tensor in tensors.items()}
        for name in _multiplied_from_the_right(graph) & arrays.keys():
            if arrays[name].ndim == 2:
                arrays[name] = arrays[name].T
        return Source(path, format, arrays, KNOWN)


def _array(path: Path, onnx: Any, name: str, tensor: Any) -> np.ndarray:
    if onnx.external_data_helper.uses_external_data(tensor):
        raise CheckpointError(f"{path}: {name} lies in another file; save the model with its weights in one file")
    array = onnx.numpy_helper.to_array(tensor)
    if array.dtype.kind not in "fiub":
        raise CheckpointError(f"{path}: {name} holds {array.dtype}, not numbers NumPy knows")
    return array


def _multiplied_from_the_right(graph: Any) -> set[str]:
    """Names of matrices [in, out]."""
    found = set()
    for node in graph.node:
        transposed = any(one.name == "transB" and one.i for one in node.attribute)
        if len(node.input) > 1 and (node.op_type == "MatMul" or (node.op_type == "Gemm" and not transposed)):
            found.add(node.input[1])
    return found
