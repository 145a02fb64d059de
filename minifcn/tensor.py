"""Tensor, Op and the backward pass.

An Op is one node of the graph and its own context: `forward` and `backward` take and return plain arrays and
keep on `self` what the backward pass needs, so that they can also be called without a graph. `Tensor` only wires
them. The backward pass is the chain rule in reverse topological order: reverse-mode differentiation (Linnainmaa,
1970; Rumelhart, Hinton and Williams, 1986).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from .device import Device, get_device
from .errors import DeviceError, MinifcnError
from .kernels import memory

_recording: ContextVar[bool] = ContextVar("recording", default=True)


@contextmanager
def no_grad() -> Iterator[None]:
    """Compute without recording a graph: nothing is kept for a backward pass."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


class Op:
    """Base of all ops. A subclass defines `forward(*arrays)` and `backward(dy)`.

    `backward` returns one gradient an input, None where `needs` says that nobody asked for it. An instance is
    used for one forward pass. Without a graph: `op = Conv2d(stride=2).on("cpu")`, `op.forward(x, w, b)`,
    `op.backward(dy)`.
    """

    device: Device = get_device("cpu")
    owns_gradients = False  # whether `backward` returns arrays that nobody else holds
    takes_bfloat16 = False  # whether inputs may be stored as bfloat16; else its arithmetic is that of the array module
    needs: tuple[bool, ...] | None = None
    inputs: tuple[Tensor | None, ...] = ()

    def forward(self, *arrays: Any) -> Any:
        raise NotImplementedError

    def backward(self, dy: Any) -> tuple[Any, ...]:
        raise NotImplementedError

    def on(self, device: str | Device) -> Op:
        """This op, bound to a device."""
        self.device = get_device(device)
        return self

    def kernel(self, name: str) -> Callable:
        return self.device.kernel(name)

    def wants(self, i: int) -> bool:
        """Whether anybody asked for the gradient of input `i`."""
        return self.needs is None or self.needs[i]

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """Run forward on tensors (None for an absent optional one), and record the node if gradients are wanted.

        Raises DeviceError when the tensors live on different devices.
        """
        present = [x for x in inputs if x is not None]
        self.device = present[0].place
        for x in present:
            if x.place is not self.device:
                raise DeviceError(
                    f"{type(self).__name__} got tensors of devices {self.device.name!r} and {x.place.name!r}: "
                    f"move one with .to()"
                )
            if x.is_bfloat16 and not self.takes_bfloat16:
                raise MinifcnError(f"{type(self).__name__} does not take bfloat16: ops.storage.widened() first")
        self.needs = tuple(x is not None and x.requires_grad for x in inputs)
        y = Tensor(self.forward(*(None if x is None else x.data for x in inputs)), device=self.device)
        if _recording.get() and any(self.needs):
            y.requires_grad, y.op, self.inputs = True, self, inputs
        return y


def _as_array(value: Any, device: Device) -> Any:
    """An array of the device: arrays keep their dtype, Python numbers and lists become float32."""
    if isinstance(value, Tensor):
        value = value.data
    if hasattr(value, "dtype"):
        return device.asarray(value)
    array = np.asarray(value)
    return device.asarray(array.astype(np.float32) if array.dtype.kind in "fiub" else array)


class Tensor:
    """An array on a device, with the graph that made it and, after `backward`, its gradient.

    `array` may be a NumPy array (its dtype is kept, its memory shared), a number or a list (float32).
    Gradients exist for float32 and float64, and inside a network whose activations are stored as bfloat16: arrays of
    uint16 on a CUDA device, which `numpy()` widens to float32.
    """

    __array_priority__ = 1000  # NumPy leaves `array * tensor` to Tensor

    def __init__(self, array: Any, requires_grad: bool = False, device: str | Device = "cpu") -> None:
        self.place = get_device(device)
        self.data = _as_array(array, self.place)
        if requires_grad and self.data.dtype.kind != "f":
            raise MinifcnError(f"requires_grad needs float32 or float64, but the array is {self.data.dtype}")
        self.requires_grad = requires_grad
        self.grad: Tensor | None = None
        self.op: Op | None = None

    # --- what it is ---

    @property
    def device(self) -> str:
        return self.place.name

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def is_bfloat16(self) -> bool:
        return self.place.is_bfloat16(self.data.dtype)

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return int(self.data.size)

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        stored = ", stored as bfloat16" if self.is_bfloat16 else ""
        return f"Tensor({self.numpy()!r}, device={self.device!r}, requires_grad={self.requires_grad}{stored})"

    # --- in and out ---

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array; on a CPU device the same memory."""
        return self.place.to_host(self.data)

    def item(self) -> float:
        """The one value of a tensor of one element."""
        return self.numpy().item()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"a Tensor of {array.dtype} cannot be seen as {dtype} without a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, **arguments: Any) -> Any:
        if self.is_bfloat16:
            raise MinifcnError(
                "a tensor stored as bfloat16 would be taken for whole numbers: ops.storage.widened() first"
            )
        return self.data.__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def detach(self) -> Tensor:
        """The same values, outside the graph."""
        return Tensor(self.data, device=self.place)

    def to(self, device: str | Device) -> Tensor:
        """The same values on `device`, as a leaf outside the graph; itself where it is there already.

        Raises MinifcnError for uint16 where that would be taken for bfloat16.
        """
        target = get_device(device)
        if target is self.place:
            return self
        if target.is_bfloat16(self.dtype) and not self.is_bfloat16:
            raise MinifcnError(f"uint16 on device {target.name!r} is bfloat16: choose another type of whole numbers")
        return Tensor(target.asarray(self.numpy()), requires_grad=self.requires_grad, device=target)

    # --- backward ---

    def backward(self, dy: Any = None) -> None:
        """Add dL/dx to `.grad` of every leaf x that requires it, for an upstream gradient `dy` of this tensor.

        `dy` has this tensor's shape and may be left out for a single element (then it is 1). Raises
        MinifcnError where there is no graph, or `dy` is missing or has another shape.
        """
        if not self.requires_grad:
            raise MinifcnError("backward() on a tensor that does not require gradients")
        if self.is_bfloat16:
            raise MinifcnError("backward() of a tensor stored as bfloat16: ops.storage.widened() first")
        if dy is None:
            if self.size != 1:
                raise MinifcnError(f"backward() of a tensor of shape {self.shape} needs an upstream gradient dy")
            dy = np.ones(self.shape, self.dtype)
        dy = self.place.asarray(dy.numpy() if isinstance(dy, Tensor) else dy).astype(self.dtype, copy=False)
        if dy.shape != self.shape:
            raise MinifcnError(f"dy has shape {dy.shape}, but the tensor has {self.shape}")

        gradients, owned = {id(self): dy}, {id(self): False}
        for node in _reverse_topological(self):
            gradient = gradients.pop(id(node), None)
            if gradient is None:
                continue
            if node.op is None:
                node._accumulate(gradient, owned[id(node)])
                continue
            for x, dx in zip(node.op.inputs, node.op.backward(gradient), strict=True):
                if x is None or not x.requires_grad or dx is None:
                    continue
                owned[id(x)] = id(x) in gradients or node.op.owns_gradients
                if id(x) in gradients:
                    gradients[id(x)] = self.place.add(gradients[id(x)], dx)  # not in place: it may be another's
                else:
                    gradients[id(x)] = dx

    def _accumulate(self, gradient: Any, owned: bool) -> None:
        """Add to `.grad`; the first one is copied unless it is `owned`, or it may share memory with one upstream."""
        if self.grad is None:
            if not owned:
                memory.refuse_in_capture("the copy of a gradient")
                gradient = self.place.xp.array(gradient, copy=True)
            self.grad = Tensor(gradient, device=self.place)
        else:
            self.grad.data = self.place.accumulate(self.grad.data, gradient)

    # --- arithmetic; the ops are imported late because they are built on this file ---

    def _arithmetic(self, name: str, *arguments: Any) -> Tensor:
        from . import ops

        return getattr(ops, name)(*arguments)

    def __add__(self, other: Any) -> Tensor:
        return self._arithmetic("add", self, other)

    __radd__ = __add__

    def __neg__(self) -> Tensor:
        return self._arithmetic("scale", self, -1.0)

    def __sub__(self, other: Any) -> Tensor:
        return self._arithmetic("subtract", self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return self._arithmetic("subtract", other, self)

    def __mul__(self, other: Any) -> Tensor:
        return self._arithmetic("multiply", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Tensor:
        return self._arithmetic("divide", self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return self._arithmetic("divide", other, self)

    def __pow__(self, exponent: float) -> Tensor:
        return self._arithmetic("power", self, exponent)

    def exp(self) -> Tensor:
        return self._arithmetic("exp", self)

    def log(self) -> Tensor:
        return self._arithmetic("log", self)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return self._arithmetic("sum", self, axis, keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return self._arithmetic("mean", self, axis, keepdims)

    def reshape(self, *shape: int) -> Tensor:
        return self._arithmetic("reshape", self, shape)


def from_dlpack(array: Any, requires_grad: bool = False) -> Tensor:
    """A Tensor on the CPU that shares the memory of any array that speaks DLPack (PyTorch, CuPy, JAX, ...)."""
    return Tensor(np.from_dlpack(array), requires_grad=requires_grad)


def _reverse_topological(root: Tensor) -> list[Tensor]:
    """All tensors that `root` depends on and that require gradients, each before the tensors it was made from.

    Depth first, with a stack of our own: a deep graph must not meet Python's recursion limit.
    """
    order: list[Tensor] = []
    seen: set[int] = set()
    stack: list[tuple[Tensor, bool]] = [(root, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            if node.op is not None:
                stack.extend((x, False) for x in node.op.inputs if x is not None and x.requires_grad)
    return order[::-1]
