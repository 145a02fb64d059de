"""Launches on the CPU as a graph: what it leaves out is NaN, what it is fed is read, and its memory is used again."""

import dataclasses
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from minifcn import models, ops
from minifcn.configuration import TrainConfig
from minifcn.data import Normalization
from minifcn.device import get_device, replaced
from minifcn.errors import DeviceError, MinifcnError
from minifcn.gradcheck.cases import OPS
from minifcn.kernels import memory
from minifcn.kernels.memory import CaptureError
from minifcn.kernels.settings import settings
from minifcn.labelgraph import LabelGraph
from minifcn.segmenter import Segmenter
from minifcn.tensor import Tensor
from minifcn.training import Observer, Run

from .devices import on_devices

CPU = get_device("cpu")
# Those whose passes are launches alone, where arrays are channels last and losses are not reduced.
LAUNCHED = (
    "conv2d",
    "conv2d_relu",
    "conv2d_relu_max_pool2d",
    "conv_transpose2d",
    "max_pool2d",
    "avg_pool2d",
    "lrn",
    "bilinear_upsample",
    "crop",
    "crop_sum",
    "relu",
    "dropout",
    "cross_entropy",
    "upsample_cross_entropy",
    "add",
    "scale",
)

# What NumPy does then: cut off the last pixels, which no window of the pooling meets, and add a bias.
REFUSED = ("conv2d_relu_max_pool2d", "conv_transpose2d")


def channels_last(array):
    """`array` in memory of its own, channels last if it is a map."""
    if array.ndim != 4:
        return array.copy()
    return array.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)


def passes(case, arrays, dy):
    """[y, and the gradient of every input] of an op; dy(shape) makes the upstream gradient."""
    y = case.function(*(Tensor(array, requires_grad=True) for array in arrays))
    return [y.data, *(dx for dx in y.op.backward(dy(y.shape)) if dx is not None)]


def is_launched(case):
    """Not an empty batch or a sum of two shapes, which are NumPy's, no upsampling by matrices, no dropout at p = 0."""
    arguments, shapes = case.arguments, case.shapes.values()
    if not all(all(shape) for shape in shapes) or (case.call is ops.add and len(set(shapes)) == 2):
        return False
    return arguments.get("window") is None and arguments.get("p") != 0


def bits(arrays):
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LAUNCHED)
@given(data=st.data())
def test_a_replay_has_the_bits_of_the_launches(name, dtype, data):
    """Forward and backward, in memory full of NaN, twice; then fed with other inputs, in that order and in another."""
    case = data.draw(OPS[name].filter(is_launched))
    if "reduction" in case.arguments:
        case = dataclasses.replace(case, arguments=case.arguments | {"reduction": "none"})
    rng = np.random.default_rng(case.seed)
    sets = [[channels_last(case.fill(rng, shape).astype(dtype)) for shape in case.shapes.values()] for _ in range(3)]
    upstream = {}

    def dy(shape):
        if shape not in upstream:
            upstream[shape] = channels_last(rng.standard_normal(shape).astype(dtype))
        return upstream[shape]

    expected = [bits(passes(case, arrays, dy)) for arrays in sets]
    sets[2] = [np.array(array, order="C") for array in sets[2]]
    own = [channels_last(array) for array in sets[0]]
    try:
        with CPU.capture() as graph:
            found = passes(case, own, dy)
    except CaptureError:
        assert name in REFUSED
        reject()
    for number in (0, 0, 1, 2, 0):
        for array, values in zip(own, sets[number], strict=True):
            graph.feed(array, values)
        graph.memory.spoil()
        graph.replay()
        assert bits(found) == expected[number]


def test_a_capture_runs_nothing_and_ends():
    x = channels_last(np.full((1, 8, 4, 4), -1.0, np.float32))
    relu = CPU.kernel("relu_forward")
    with CPU.capture() as graph:
        y = relu(x)
        graph.memory.spoil()
        assert np.isnan(y).all()
    assert np.isnan(y).all()
    assert len(graph.launches) == 1
    assert not relu(x).any()
    graph.replay()
    assert not y.any()


def test_a_capture_that_fails_ends_too():
    with pytest.raises(ZeroDivisionError), CPU.capture():
        1 / 0  # noqa: B018
    assert memory.usage().used >= 0
    memory.refuse_in_capture("a launch")  # nothing is captured any more


def test_memory_is_used_again_within_a_graph_and_returned_after_it(monkeypatch):
    """Of ten maps, one after the other, two are alive at a time. (A late helper would keep others alive, so: none.)"""
    pool = memory.Pool()
    monkeypatch.setattr(memory, "pool", pool)
    x = channels_last(np.random.default_rng(0).standard_normal((1, 64, 64, 64)).astype(np.float32))
    scale = CPU.kernel("scale_forward")
    with settings.using(threads=1):
        with CPU.capture() as graph:
            y = x
            for _ in range(10):
                y = scale(y, 2.0)
        assert len(graph.launches) == 10
        assert x.nbytes <= pool.usage().used <= 3 * x.nbytes
        graph.replay()
    np.testing.assert_array_equal(y, 1024 * x)
    graph = weakref.ref(graph)
    del y
    gc.collect()
    assert graph() is None
    assert pool.usage().used == 0


def test_an_input_is_read_where_it_lies():
    x, other = (channels_last(np.full((2, 3, 4, 5), value)) for value in (1.0, 2.0))
    with CPU.capture() as graph:
        y = CPU.kernel("scale_forward")(x, 3.0)
    graph.feed(x, other)
    other[...] = 5
    graph.replay()
    assert (y == 15).all()
    assert (x == 1).all()
    graph.feed(x, np.ascontiguousarray(other))  # in another order: copied
    other[...] = 7
    graph.replay()
    assert (y == 15).all()
    assert (x == 5).all()


def test_a_part_of_an_input_is_copied():
    x = np.arange(12.0).reshape(3, 4)
    with CPU.capture() as graph:
        y = CPU.kernel("scale_forward")(x[1:], 2.0)
    graph.feed(x, -x.copy())
    graph.replay()
    np.testing.assert_array_equal(y, -2 * np.arange(4.0, 12.0).reshape(2, 4))


def test_kernels_of_ones_own_are_not_captured():
    with (
        replaced("cpu", relu_forward=lambda x: x),
        pytest.raises(DeviceError, match=r"a graph cannot hold kernels of one's own \(relu_forward\)"),
        CPU.capture(),
    ):
        pass
    with (
        pytest.raises(DeviceError, match="device 'reference' has no graphs of launches"),
        get_device("reference").capture(),
    ):
        pass


# --- labels by one graph ----------------------------------------------------------------------------------------------


def network(**settings_of):
    about = {"name": "fcn8s", "backbone": "small", "classes": 5, "width": 0.25} | settings_of
    net = models.build(about.pop("name"), **about)
    for i, parameter in enumerate(net.parameters()):
        parameter.data[...] = 0.2 * np.random.default_rng(i).standard_normal(parameter.shape)
    return net.eval().freeze()


def images(seed, size=(2, 3, 40, 33)):
    return Tensor(channels_last(np.random.default_rng(seed).standard_normal(size).astype(np.float32)))


@pytest.mark.parametrize(
    "about",
    [
        {},
        {"geometry": "pad100"},
        {"deconv": "learned"},
        {"name": "fcn32s", "backbone": "alexnet", "deconv": "learned"},
        {"name": "fcn8s-at-once"},
        {"name": "fcn16s", "backbone": "vgg16", "width": 0.05, "fc": 32},
    ],
)
@pytest.mark.parametrize("place", on_devices("cpu", "cuda-sim", "cuda"))
def test_labels_are_those_of_the_network(place, about):
    net = network(**about).to(place)
    labels = LabelGraph(net)
    for number in range(4):
        if labels.graph and place == "cpu":
            labels.graph.memory.spoil()
        x = images(number).to(place)
        found, expected = labels(x), net.labels(x)
        assert len(np.unique(expected)) > 1
        np.testing.assert_array_equal(found, expected)
    assert labels.graph is not None
    kept = found.copy()
    labels(images(9).to(place))
    np.testing.assert_array_equal(found, kept)


def test_another_shape_setting_or_weight_is_captured_anew():
    net = network()
    labels = LabelGraph(net)

    def check(number, size=(2, 3, 40, 33)):
        x = images(number, size)
        np.testing.assert_array_equal(labels(x), net.labels(x))
        return labels.graph is not None

    assert [check(0), check(1)] == [False, True]
    assert [check(2, (1, 3, 32, 64)), check(3, (1, 3, 32, 64))] == [False, True]
    with settings.using(convolution="exact"):
        assert [check(4, (1, 3, 32, 64)), check(5, (1, 3, 32, 64))] == [False, True]
    assert not check(6, (1, 3, 32, 64))
    assert check(7, (1, 3, 32, 64))
    net.unfreeze()
    net.score_fr.bias.data[...] = [9, -9, 9, -9, 9]
    with pytest.raises(MinifcnError, match=r"evaluation mode that is frozen"):
        labels(images(8, (1, 3, 32, 64)))
    net.freeze()
    assert [check(8, (1, 3, 32, 64)), check(9, (1, 3, 32, 64))] == [False, True]


def test_callers_in_many_threads_at_once_get_their_own_labels():
    net = network()
    labels = LabelGraph(net)
    inputs = [images(number) for number in range(6)]
    expected = [net.labels(x) for x in inputs]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(5):
            for found, right in zip(pool.map(labels, inputs), expected, strict=True):
                np.testing.assert_array_equal(found, right)


def test_what_labels_by_one_graph_need_is_named():
    with pytest.raises(MinifcnError, match="a graph of labels cannot hold this network: it reorders maps"):
        LabelGraph(network(name="fcn32s", backbone="alexnet"))
    with pytest.raises(MinifcnError, match="a graph of labels needs device cpu, cuda or cuda-sim, not reference"):
        LabelGraph(network().to("reference"))
    with pytest.raises(MinifcnError, match="evaluation mode that is frozen"):
        LabelGraph(network().train())(images(0))
    labels = LabelGraph(network())
    for _ in range(2):
        labels(images(0))
    labels.network.train()
    with pytest.raises(MinifcnError, match="evaluation mode that is frozen"):
        labels(images(0))


# --- where it is used without being asked for -------------------------------------------------------------------------


def test_a_segmenter_replays_images_of_one_size_and_says_the_same():
    rng, classes = np.random.default_rng(0), tuple("abcde")
    segmenter = Segmenter(network(), Normalization((120, 120, 120), 50), classes, np.zeros((5, 3), np.uint8))
    replayed = []
    for size in [(33, 40), (33, 40), (33, 40), (40, 33), (33, 40), (33, 40)]:
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        expected = segmenter.logits(image[None])[0].argmax(0)
        np.testing.assert_array_equal(segmenter(image), expected)
        replayed.append(segmenter.graph.graph is not None)
    assert replayed == [False, True, True, False, False, True]
    relu = []
    with replaced("cpu", relu_forward=lambda x: relu.append(x) or CPU._module.relu_forward(x)):
        np.testing.assert_array_equal(segmenter(image), expected)
    assert relu  # the user's kernel ran, and no graph without it
    segmenter.network = network(classes=3)
    assert segmenter(image).max() < 3
    segmenter.release()
    assert segmenter.graph is None


def test_a_training_replays_its_steps_and_lends_the_memory(tmp_path):
    """By default; the evaluation after an epoch finds no graph of steps, and leaves none of labels."""
    settings_of = {"data": "scenes:32x32", "width": 0.1, "batch": 4, "epoch_images": 12, "sampling": "replacement"}
    run = Run.start(tmp_path / "run", TrainConfig(**settings_of, epochs=2))
    assert run.config.replays_steps
    graphs = []

    class Watching(Observer):
        def stepped(self, run, loss, lr):
            graphs.append(run.step_graph.graph is not None)

        def evaluating(self, run, done, total):
            assert run.step_graph.graph is None

    run.observer = Watching()
    run.train()
    assert graphs == [False, True, True, True, True, True]
    assert run.predictor.graph is None
