"""Foreign weight files: what each format's own library wrote is read; broken and hostile ones are refused, unexecuted.

Caffe's messages are written by protobuf's own library, from a descriptor made here of the field numbers in BVLC's
caffe.proto.
"""

import contextlib
import io
import os
import pickle
import re
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from minifcn import cli, convert
from minifcn.errors import CheckpointError
from minifcn.models import build
from minifcn.weights import read
from minifcn.weights.formats import protobuf, source

RNG = np.random.default_rng(0)
ARRAYS = {
    "conv1_1.weight": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "conv1_1.bias": RNG.standard_normal(4).astype(np.float32),
    "fc6.weight": RNG.standard_normal((5, 8)).astype(np.float32),
}


def refused(path, match, capsys) -> None:
    """The command fails in one sentence that matches, and leaves nothing behind."""
    before = sorted(os.listdir(path.parent))
    out = path.parent / "out.safetensors"
    assert cli.main(["convert", str(path), "--to", "fcn32s-small", "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"minifcn convert: {path}")
    assert message.count("\n") == 1
    assert re.search(match, message)
    assert sorted(os.listdir(path.parent)) == before


def same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape


class Payload:
    """A pickle of it makes a file when it is loaded by the standard library."""

    def __init__(self, victim):
        self.victim = str(victim)

    def __reduce__(self):
        return open, (self.victim, "w")


@pytest.fixture
def payload(tmp_path_factory):
    """An object whose pickle is dangerous, as is shown here; afterwards nothing has executed it."""
    victim = tmp_path_factory.mktemp("victim") / "executed"
    armed = Payload(victim)
    pickle.loads(pickle.dumps(armed)).close()
    assert victim.exists()
    victim.unlink()
    yield armed
    assert not victim.exists()


# --- writers: a small file in each format ------------------------------------------------------------------------


def write_npz(path, arrays):
    np.savez(path, **arrays)


def write_torch(path, arrays, wrap=lambda state: state):
    """A file as torch.save writes it, by the standard library and stand-ins for the names in PyTorch."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    class FloatStorage:
        pass

    def _rebuild_tensor_v2():
        raise AssertionError("only its name is pickled")

    FloatStorage.__module__, FloatStorage.__qualname__ = "torch", "FloatStorage"
    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, _rebuild_tensor_v2

    class Storage:
        def __init__(self, key, length):
            self.id = ("storage", FloatStorage, key, "cpu", length)

    class Tensor:
        def __init__(self, key, array):
            strides = tuple(stride // 4 for stride in array.strides)
            self.arguments = (Storage(key, array.size), 0, array.shape, strides, False, OrderedDict())

        def __reduce__(self):
            return _rebuild_tensor_v2, self.arguments

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return value.id if isinstance(value, Storage) else None

    state = OrderedDict((name, Tensor(str(i), array)) for i, (name, array) in enumerate(arrays.items()))
    state._metadata = {"": {"version": 1}}
    file = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        Pickler(file, protocol=2).dump(wrap(state))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", file.getvalue())
        archive.writestr("archive/byteorder", "little")
        for i, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{i}", array.tobytes())
        archive.writestr("archive/version", "3\n")


def caffe_messages():
    """The classes of BVLC's caffe.proto that matter, by its field numbers."""
    pytest.importorskip("google.protobuf")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    Field = descriptor_pb2.FieldDescriptorProto
    numbers = {"int32": Field.TYPE_INT32, "int64": Field.TYPE_INT64, "float": Field.TYPE_FLOAT}
    numbers |= {"double": Field.TYPE_DOUBLE, "string": Field.TYPE_STRING}

    def message(name, *fields):
        made = file.message_type.add(name=name)
        for number, kind, label, field in fields:
            one = made.field.add(name=field, number=number)
            one.label = Field.LABEL_REPEATED if label else Field.LABEL_OPTIONAL
            if kind in numbers:
                one.type = numbers[kind]
            else:
                one.type, one.type_name = Field.TYPE_MESSAGE, f".caffe.{kind}"
            one.options.packed = label == "packed"

    message("BlobShape", (1, "int64", "packed", "dim"))
    sizes = [(i, "int32", "", name) for i, name in enumerate(("num", "channels", "height", "width"), 1)]
    data = [(7, "BlobShape", "", "shape"), (8, "double", "packed", "double_data"), (6, "float", "packed", "diff")]
    message("BlobProto", (5, "float", "packed", "data"), *data, *sizes)
    message("UnpackedBlobProto", (5, "float", "repeated", "data"), *data, *sizes)
    for blob in ("", "Unpacked"):
        kind = f"{blob}BlobProto"
        message(f"{blob}V0LayerParameter", (1, "string", "", "name"), (50, kind, "repeated", "blobs"))
        v1 = [(4, "string", "", "name"), (6, kind, "repeated", "blobs"), (1, f"{blob}V0LayerParameter", "", "layer")]
        message(f"{blob}V1LayerParameter", *v1)
        message(f"{blob}LayerParameter", (1, "string", "", "name"), (7, kind, "repeated", "blobs"))
        nets = [
            (2, f"{blob}V1LayerParameter", "repeated", "layers"),
            (100, f"{blob}LayerParameter", "repeated", "layer"),
        ]
        message(f"{blob}NetParameter", (1, "string", "", "name"), *nets)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        one.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{one.name}"))
        for one in file.message_type
    }


def write_caffe(path, arrays, version="new", unpacked=False, double=False, legacy=False):
    """version: how layers are written, "new", "V1" or "V0"; legacy: 4-D shapes."""
    net = caffe_messages()[f"{'Unpacked' if unpacked else ''}NetParameter"](name="net")
    layers = {}
    for name, array in arrays.items():
        layer = name.rpartition(".")[0]
        if layer not in layers:
            made = net.layer.add() if version == "new" else net.layers.add()
            layers[layer] = made.layer if version == "V0" else made
            layers[layer].name = layer
        blob = layers[layer].blobs.add()
        getattr(blob, "double_data" if double else "data").extend(array.ravel().tolist())
        if legacy:
            blob.num, blob.channels, blob.height, blob.width = (1,) * (4 - array.ndim) + array.shape
        else:
            blob.shape.dim.extend(array.shape)
    path.write_bytes(net.SerializeToString())


KERAS = {
    "block1_conv1/block1_conv1_W_1:0": RNG.standard_normal((3, 3, 3, 4)).astype(np.float32),
    "block1_conv1/block1_conv1_b_1:0": RNG.standard_normal(4).astype(np.float32),
    "fc1/kernel:0": RNG.standard_normal((8, 5)).astype(np.float32),
}


def write_keras(path, arrays, group=None):
    """group: "model_weights" in a model file."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        root = file.create_group(group) if group else file
        layers = {}
        for name in arrays:
            layers.setdefault(name.split("/")[0], []).append(name)
        root.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, names in layers.items():
            root.create_group(layer).attrs["weight_names"] = [name.encode() for name in names]
            for name in names:
                root[layer][name] = arrays[name]


def write_onnx(path, arrays, transposed=True):
    """A convolution and a fully connected layer; the latter's weights as [out, in] if `transposed`."""
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    nodes = [
        onnx.helper.make_node("Conv", ["x", "conv1_1.weight", "conv1_1.bias"], ["y"]),
        onnx.helper.make_node("Gemm", ["y", "fc6.weight"], ["z"], transB=int(transposed)),
    ]
    info = onnx.helper.make_tensor_value_info
    shapes = [info("x", 1, [1, 3, 4, 4])], [info("z", 1, [1, 5])]
    path.write_bytes(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", *shapes, tensors)).SerializeToString())


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.safetensors", lambda path, arrays: save_file(arrays, path)),
        ("a.npz", write_npz),
        ("a.pth", write_torch),
        ("a.caffemodel", write_caffe),
        ("a.onnx", write_onnx),
    ],
)
def test_a_file_is_read_whatever_it_is_called(name, write, tmp_path):
    write(tmp_path / name, ARRAYS)
    same(read(tmp_path / name).arrays, ARRAYS)
    renamed = (tmp_path / name).rename(tmp_path / "weights.bin")
    if not name.endswith((".caffemodel", ".onnx")):  # protocol buffers do not say what they are
        same(read(renamed).arrays, ARRAYS)


@pytest.mark.parametrize("group", [None, "model_weights"])
def test_keras(group, tmp_path):
    write_keras(tmp_path / "a.h5", KERAS, group)
    found = read(tmp_path / "a.h5")
    same(found.arrays, KERAS)
    assert (found.known.layout, found.known.flatten, found.known.colors) == ("HWIO", "HWC", None)


@pytest.mark.parametrize(
    "how", [{}, {"version": "V1"}, {"version": "V0", "legacy": True}, {"unpacked": True}, {"double": True}]
)
def test_caffe(how, tmp_path):
    """Of old 4-D shapes, (1, 1, 1, K) and (1, 1, K, C), the leading ones go."""
    write_caffe(tmp_path / "a.caffemodel", ARRAYS, **how)
    found = read(tmp_path / "a.caffemodel")
    same(found.arrays, ARRAYS)
    assert (found.known.layout, found.known.colors, found.known.std) == ("OIHW", "bgr", (1, 1, 1))
    assert found.known.mean == (123.68, 116.779, 103.939)


def test_the_released_fcns_have_another_mean_than_the_vgg_nets(tmp_path):
    write_caffe(tmp_path / "a.caffemodel", ARRAYS | {"score_fr.weight": np.ones((2, 5, 1, 1), np.float32)})
    assert read(tmp_path / "a.caffemodel").known.mean == (122.67891434, 116.66876762, 104.00698793)


def test_onnx_matrices_are_out_times_in(tmp_path):
    write_onnx(tmp_path / "a.onnx", ARRAYS | {"fc6.weight": ARRAYS["fc6.weight"].T.copy()}, transposed=False)
    same(read(tmp_path / "a.onnx").arrays, ARRAYS)


def test_containers_in_a_pytorch_file_become_names(tmp_path):
    write_torch(tmp_path / "a.pth", ARRAYS, lambda state: {"state_dict": state, "epoch": 3, "history": [1.5, "best"]})
    same(read(tmp_path / "a.pth").arrays, {f"state_dict/{name}": array for name, array in ARRAYS.items()})


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_npy_of_a_pickled_dictionary(protocol, tmp_path):
    """As vgg16.npy; Python 2 wrote protocol 2, in which bytes are a text."""
    pair = [ARRAYS["conv1_1.weight"], np.asfortranarray(ARRAYS["fc6.weight"]), ARRAYS["conv1_1.bias"].astype(">f8")]
    content = np.array({"conv1_1": pair}, object)
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    (tmp_path / "a.npy").write_bytes(file.getvalue() + pickle.dumps(content, protocol))
    assert np.load(tmp_path / "a.npy", allow_pickle=True).item().keys() == {"conv1_1"}  # it is NumPy's format
    same(read(tmp_path / "a.npy").arrays, {f"conv1_1/{i}": array for i, array in enumerate(pair)})


def test_a_npy_of_one_array(tmp_path):
    np.save(tmp_path / "a.npy", ARRAYS["fc6.weight"])
    same(read(tmp_path / "a.npy").arrays, {"a": ARRAYS["fc6.weight"]})


@pytest.mark.torch
@pytest.mark.parametrize("new", [True, False])
def test_pytorchs_own_files(new, tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.randn(6, 4)
    state = {
        "plain": torch.randn(2, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "transposed": base.T,
        "part": base[1:4, ::2],
        "half": torch.randn(3).half(),
        "bfloat16": torch.randn(5).bfloat16(),
        "double": torch.randn(2).double(),
        "whole": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    content = {"state": torch.nn.Linear(3, 2).state_dict(), "more": [state, OrderedDict(), torch.Size([3])]}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    expected = {f"state/{name}": array.numpy() for name, array in content["state"].items()}
    expected |= {f"more/0/{name}": array.detach().to(array.dtype) for name, array in state.items()}
    expected = {
        name: np.asarray(array.float() if getattr(array, "dtype", None) == torch.bfloat16 else array)
        for name, array in expected.items()
    }
    same(read(tmp_path / "a.pt").arrays, expected)


def as_caffe(path, state):
    """B, G, R, and old 4-D shapes."""
    write_caffe(path, state | {"conv1_1.weight": state["conv1_1.weight"][:, ::-1]}, version="V1", legacy=True)


def as_keras(path, state):
    """B, G, R, weights [rows, columns, in, out], and maps flattened with channels last."""
    names = {"fc6": "fc1", "fc7": "fc2", "fc8": "predictions"}
    changed = {}
    for name, array in state.items():
        layer, kind = name.split(".")
        layer = names.get(layer) or f"block{layer[4]}_conv{layer[6]}"
        array = array[:, ::-1] if name == "conv1_1.weight" else array
        if name == "fc6.weight":
            array = np.moveaxis(array.reshape(len(array), -1, 2, 2), 1, 3).reshape(array.shape)
        array = np.moveaxis(array, (0, 1), (3, 2)) if array.ndim == 4 else array.T
        changed[f"{layer}/{layer}_{'W' if kind == 'weight' else 'b'}_1:0"] = array
    write_keras(path, changed)


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("a.caffemodel", as_caffe, {}),
        ("a.h5", as_keras, {}),
        ("a.onnx", write_onnx, {"colors": "rgb", "mean": (9, 8, 7), "std": 1}),
        ("a.pth", write_torch, {"colors": "rgb", "mean": (9, 8, 7), "std": 1}),
    ],
)
def test_a_classifier_in_every_format_is_the_same_network(name, write, said, tmp_path):
    small = {"backbone": "small", "width": 0.25, "fc": 6, "input_size": 64, "classes": 5}
    state = {one: array.copy() for one, array in build("classifier", seed=1, **small).state_dict().items()}
    state["fc8.weight"] += 1
    write(tmp_path / name, {one: np.ascontiguousarray(array) for one, array in state.items()})
    found = convert(tmp_path / name, "classifier", **said, **small)
    same(found.network.state_dict(), state)
    assert found.normalization.mean == said.get("mean", (123.68, 116.779, 103.939))


# --- what is refused ---------------------------------------------------------------------------------------------

SMALL = {
    "a.safetensors": lambda path: save_file(ARRAYS, path),
    "a.npz": lambda path: write_npz(path, ARRAYS),
    "a.npy": lambda path: np.save(path, {"conv1_1": list(ARRAYS.values())}, allow_pickle=True),
    "a.pth": lambda path: write_torch(path, ARRAYS),
    "a.caffemodel": lambda path: write_caffe(path, ARRAYS),
    "a.h5": lambda path: write_keras(path, KERAS),
    "a.onnx": lambda path: write_onnx(path, ARRAYS),
}


@pytest.mark.parametrize("kept", [0.0, 0.2, 0.6, 0.99])
@pytest.mark.parametrize("name", SMALL)
def test_a_truncated_file(name, kept, tmp_path, capsys):
    SMALL[name](tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(kept * len(data))])
    refused(tmp_path / name, "cut off" if kept else "empty", capsys)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "a.h5"])  # HDF5's own code reads that
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bytes_that_are_wrong_are_read_or_refused(name, data, tmp_path):
    """No other error, no crash, and no more numbers than the file has room for."""
    if not (tmp_path / "whole").exists():
        SMALL[name](tmp_path / name)
        (tmp_path / name).rename(tmp_path / "whole")
    content = bytearray((tmp_path / "whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    (tmp_path / name).write_bytes(content)
    with contextlib.suppress(CheckpointError):
        arrays = read(tmp_path / name).arrays
        assert sum(array.nbytes for array in arrays.values()) <= source.EXPANSION * len(content)


def test_what_is_no_weight_file(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("weights, they say")
    refused(tmp_path / "a.txt", "neither its content nor its name is of a known format", capsys)
    refused(tmp_path / "missing.pth", "No such file", capsys)
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
        archive.writestr("word/document.xml", "x")
    refused(tmp_path / "a.docx", r"neither NumPy's nor PyTorch's \(word/document.xml", capsys)


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (b"{}", 1 << 60),
        (b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}', None),
        (b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,16]}}', None),
        (
            b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
            None,
        ),
    ],
)
def test_a_safetensors_header_that_lies(header, length, tmp_path, capsys):
    data = struct.pack("<Q", length or len(header)) + header + bytes(16)
    (tmp_path / "a.safetensors").write_bytes(data)
    refused(tmp_path / "a.safetensors", "not a readable safetensors file", capsys)


def test_a_dtype_that_numpy_lacks(tmp_path, capsys):
    header = b'{"a":{"dtype":"BF16","shape":[8],"data_offsets":[0,16]}}'
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    refused(tmp_path / "a.safetensors", "a is of dtype BF16, which NumPy lacks", capsys)


def npy(header: dict, data: bytes) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def test_pickled_objects_in_an_npz(payload, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", good=np.ones(3), bad=np.array([payload], object), allow_pickle=True)
    refused(tmp_path / "a.npz", r"bad.npy holds pickled objects .* nothing of it was executed", capsys)


def test_sizes_that_a_zip_claims(tmp_path, capsys):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(2_000_000, np.float32))
    refused(tmp_path / "a.npz", "claims to hold 8,000,128 bytes", capsys)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("a.npy", npy({"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}, bytes(16)))
    refused(tmp_path / "b.npz", "16 bytes where shape", capsys)


def test_a_npy_that_executes_code(payload, tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.array({"conv1_1": [payload]}, object), allow_pickle=True)
    refused(tmp_path / "a.npy", "its pickle names .*open, .* nothing was executed", capsys)
    np.save(tmp_path / "b.npy", np.array([payload, 1], object), allow_pickle=True)
    refused(tmp_path / "b.npy", r"pickled objects, not one dictionary", capsys)


def test_containers_without_end(tmp_path, capsys):
    """A list of twice a list of twice a list ...: a short pickle with 2^40 leaves; and one that contains itself."""
    nested = [1.0]
    for _ in range(12):
        nested = [nested] * 4
    np.save(tmp_path / "a.npy", np.array({"a": nested}, object), allow_pickle=True)
    refused(tmp_path / "a.npy", "containers within containers without end", capsys)
    nested = []
    nested.append(nested)
    np.save(tmp_path / "b.npy", np.array({"a": nested}, object), allow_pickle=True)
    refused(tmp_path / "b.npy", "containers within containers without end", capsys)


def pth(path, pickled: bytes, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, data in members.items():
            archive.writestr(f"archive/data/{name.removeprefix('s')}", data)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pytorch_file_that_executes_code(protocol, payload, tmp_path, capsys):
    pth(tmp_path / "a.pth", pickle.dumps({"a": 1.0, "b": payload}, protocol))
    refused(tmp_path / "a.pth", "its pickle names .*open, .* nothing was executed", capsys)


@pytest.mark.parametrize(
    "pickled",
    [
        b"(S'touch victim'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch victim'\no.",  # OBJ
        b"\x80\x02cbuiltins\neval\n)\x81.",  # NEWOBJ
        b"\x82\x01.",  # EXT1
    ],
)
def test_opcodes_that_build_objects(pickled, tmp_path, capsys):
    pth(tmp_path / "a.pth", pickled)
    refused(tmp_path / "a.pth", "its pickle (builds an object|names ).* nothing was executed", capsys)


def tensor(length=4, offset=0, size=(4,), stride=(1,), kind=b"FloatStorage") -> bytes:
    """A pickle of {"a": a tensor}, protocol 2, by hand."""

    def numbers(values):
        return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"

    storage = b"(X\x07\x00\x00\x00storagectorch\n" + kind + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuI%d\ntQ" % length
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"I%d\n" % offset + numbers(size) + numbers(stride)
    return b"\x80\x02}X\x01\x00\x00\x00a" + call + b"\x89NtRs."


def test_the_tensor_by_hand_is_right(tmp_path):
    pth(tmp_path / "a.pth", tensor(), s0=np.arange(4, dtype="<f4").tobytes())
    same(read(tmp_path / "a.pth").arrays, {"a": np.arange(4, dtype=np.float32)})


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"length": 5}, "16 bytes where shape"),
        ({"length": 1 << 60}, "16 bytes where shape"),
        ({"length": -4}, r"shape \(-4,\)"),
        ({"offset": 1}, "in a storage of 4 numbers"),
        ({"offset": -1}, "a tensor of size"),
        ({"size": (2,), "stride": (4,)}, "in a storage of 4 numbers"),
        ({"size": (4,), "stride": (-1,)}, "a tensor of size"),
        ({"size": (1 << 50,), "stride": (0,)}, "in a storage of 4 numbers"),
        ({"size": (2, 2)}, "a tensor of size"),
        ({"kind": b"QInt8Storage"}, "names torch.QInt8Storage"),
    ],
)
def test_tensors_that_reach_beyond_their_storage(how, match, tmp_path, capsys):
    pth(tmp_path / "a.pth", tensor(**how), s0=bytes(16))
    refused(tmp_path / "a.pth", match, capsys)


def test_a_storage_that_is_missing(tmp_path, capsys):
    pth(tmp_path / "a.pth", tensor())
    refused(tmp_path / "a.pth", "There is no item named 'archive/data/0'", capsys)


def legacy(content: bytes, *storages: tuple[str, bytes]) -> bytes:
    """A file of PyTorch before 1.6: magic number, protocol, system, content, keys, storages."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
    keys = pickle.dumps([key for key, _ in storages], 2)
    return b"".join(pickle.dumps(one, 2) for one in head) + content + keys + b"".join(data for _, data in storages)


def test_an_old_pytorch_file(payload, tmp_path, capsys):
    numbers = np.arange(4, dtype="<f4").tobytes()
    good = legacy(tensor(), ("0", struct.pack("<q", 4) + numbers))
    (tmp_path / "a.pth").write_bytes(good)
    same(read(tmp_path / "a.pth").arrays, {"a": np.arange(4, dtype=np.float32)})
    for kept in (20, 60, len(good) // 2, len(good) - 1):
        (tmp_path / "a.pth").write_bytes(good[:kept])
        refused(tmp_path / "a.pth", "cut off", capsys)
    (tmp_path / "a.pth").write_bytes(legacy(tensor(), ("0", struct.pack("<q", 1 << 60) + numbers)))
    refused(tmp_path / "a.pth", "storage 0 has 1152921504606846976 numbers instead of 4", capsys)
    (tmp_path / "a.pth").write_bytes(legacy(tensor(1 << 60), ("0", struct.pack("<q", 1 << 60) + numbers)))
    refused(tmp_path / "a.pth", "16 bytes where shape", capsys)
    (tmp_path / "a.pth").write_bytes(legacy(pickle.dumps(payload, 2)))
    refused(tmp_path / "a.pth", "its pickle names .*open, .* nothing was executed", capsys)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\xa2\x06\xff\xff\xff\xff\xff\xff\xff\x7f", "field 100 claims"),
        (b"\xa2\x06" + b"\xff" * 11, "an integer of more than ten bytes"),
        (b"\xa2\x06\x80", "an integer is cut off"),
        (b"\x13", "field 2 is of the unknown wire type 3"),
        (b"\x0a\x03net", "it holds no layer with weights"),
        # layer 100 { name: "a", blob 7 { data: 3 bytes } }, then { shape { dim: 2^62 }, data: 4 bytes }
        (b"\xa2\x06\x0a\x0a\x01a\x3a\x05\x2a\x03abc", "do not fill their field"),
        (b"\xa2\x06\x18\x0a\x01a\x3a\x13\x3a\x0b\x0a\x09" + b"\x80" * 8 + b"\x40\x2a\x04abcd", "1 numbers where shape"),
    ],
)
def test_protocol_buffers_that_lie(data, match, tmp_path, capsys):
    (tmp_path / "a.caffemodel").write_bytes(data)
    refused(tmp_path / "a.caffemodel", match, capsys)


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_variable_length_integers(values):
    """Against an encoder written from the definition: seven bits a byte, from the lowest, the last without bit 7."""
    data = bytearray()
    for value in values:
        while value > 127:
            data.append(128 | value & 127)
            value >>= 7
        data.append(value)
    assert protobuf.varints(memoryview(bytes(data))) == values


def test_an_h5_that_leads_elsewhere(tmp_path, capsys):
    h5py = pytest.importorskip("h5py")
    write_keras(tmp_path / "other.h5", KERAS)
    outside = tmp_path / "secret"
    outside.write_bytes(bytes(4 * 108))
    path, name = tmp_path / "a.h5", "block1_conv1_W_1:0"

    def changed(change, match):
        write_keras(path, KERAS)
        with h5py.File(path, "a") as file:
            group = file["block1_conv1/block1_conv1"] if "block1_conv1/block1_conv1" in file else file["block1_conv1"]
            del group[name]
            change(group)
        refused(path, match, capsys)

    where = f"block1_conv1/block1_conv1/{name}"
    changed(lambda group: group.__setitem__(name, h5py.ExternalLink("other.h5", where)), "a link to elsewhere")
    changed(lambda group: group.__setitem__(name, h5py.SoftLink("/fc1")), "a link to elsewhere")
    external = [(str(outside), 0, h5py.h5f.UNLIMITED)]
    changed(lambda group: group.create_dataset(name, (108,), "f4", external=external), "lies in another file")
    changed(lambda group: group.create_dataset(name, (1 << 40,), "f4", chunks=(64,)), "claims to hold 4,398,")
    changed(lambda group: group.create_dataset(name, data=[b"text"]), "not numbers")


def test_an_h5_of_something_else(tmp_path, capsys):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.ones(3)
    refused(tmp_path / "a.h5", "an HDF5 file, but not of Keras's layers", capsys)


def test_an_onnx_that_leads_elsewhere(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    write_onnx(tmp_path / "a.onnx", ARRAYS)
    for change, match in (
        (lambda one: onnx.external_data_helper.set_external_data(one, "/etc/hostname"), "lies in another file"),
        (lambda one: one.dims.append(1 << 40), "not a readable ONNX file"),
    ):
        model = onnx.load_model_from_string((tmp_path / "a.onnx").read_bytes())
        change(model.graph.initializer[0])
        (tmp_path / "b.onnx").write_bytes(model.SerializeToString())
        refused(tmp_path / "b.onnx", match, capsys)


@pytest.mark.parametrize(("name", "library"), [("a.h5", "h5py"), ("a.onnx", "onnx")])
def test_a_library_that_is_not_installed(name, library, tmp_path, capsys, monkeypatch):
    SMALL[name](tmp_path / name)
    monkeypatch.setitem(sys.modules, library, None)
    refused(tmp_path / name, rf'read by {library}: pip install "minifcn\[weights\]"', capsys)
