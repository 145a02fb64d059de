"""PyTorch's side: single convolutions, and FCNs written from the paper, in a process without Numba.

    python -m minifcn.bench.torch_peer FD        serves the socket FD, see `peer`

The networks use nothing of minifcn but the numbers of `inputs`: their sizes are typed in (every layer pads by half its
window, upsampled maps lose the surplus at the end). Both memory formats are offered, weights and activations alike. The
optimiser is SGD as it comes, or the fused one in a tuned process (5 times faster on 103 million weights). Upsampling is
the transposed convolution of the paper, in channels_last measured faster than `interpolate` with a zero border.

On a GPU a tuned process lets cuDNN try its algorithms, and a compiled one hands networks to `torch.compile`. Products
have the precision of the other side, no more and no less: strict float32, TF32, or bfloat16, which is that of all
arrays of a single convolution and of an inference, and automatic mixed precision in a training step.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from . import inputs
from .peer import COMPILED, TUNED
from .quiet import LEAD, sample
from .work import Convolution, Network

F = torch.nn.functional
FORMATS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
VGG11, VGG16 = (1, 1, 2, 2, 2), (2, 2, 3, 3, 3)
NETS = {  # convolutions a block, channels a block, channels of fc6 and fc7
    "small": (VGG11, (16, 32, 64, 128, 128), 256),
    "vgg11": (VGG11, (64, 128, 256, 512, 512), 4096),
    "vgg16": (VGG16, (64, 128, 256, 512, 512), 4096),
}
STRIDES = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8, "fcn8s-at-once": 8}
SCALES = {"fcn8s-at-once": (0.01, 0.0001)}  # of the skips from pool4 and pool3


# --- where and how precisely ---


def gpu() -> bool:
    """Whether this process was started for a GPU: `Service.start` says so."""
    return torch.get_default_device().type == "cuda"


def pin(precision: str) -> None:
    """Let products of float32 be TF32 where `precision` is that, and strict float32 elsewhere."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = TUNED in os.environ


def on_device(array: np.ndarray) -> torch.Tensor:
    """`array` as a tensor on the device that the peer computes on."""
    return torch.from_numpy(array).to(torch.get_default_device())


def on_host(tensor: torch.Tensor) -> np.ndarray:
    """As NumPy; bfloat16, which that lacks, as float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def timed(call: Callable[[int], Any], repeats: int) -> float:
    """Seconds a call: `quiet.sample`, or by the events of a GPU."""
    if not gpu():
        return sample(call, repeats)
    awake = time.perf_counter() + LEAD
    while repeats > 1 and time.perf_counter() < awake:
        call(repeats)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for i in range(repeats):
        call(i)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3 / repeats


# --- one convolution -------------------------------------------------------------------------------------------


class ConvolutionJob:
    """One direction of one convolution on its sets of data, in one memory format."""

    def __init__(self, work: Convolution, form: str) -> None:
        self.work, self.format = work, FORMATS[form]
        pin(work.precision)
        self.shared = {name: self._tensor(array) for name, array in inputs.weights(work).items()}
        if "w" not in self.shared:  # its values are not read, but its shape is
            self.shared["w"] = self._tensor(np.empty(work.w_shape, work.dtype))
        self.sets = [self._set(inputs.TIMED + number) for number in range(work.sets)]

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        tensor = on_device(array)
        if self.work.precision == "bfloat16":
            tensor = tensor.to(torch.bfloat16)
        return tensor.contiguous(memory_format=self.format) if array.ndim == 4 else tensor

    def _set(self, number: int) -> dict[str, torch.Tensor]:
        found = {name: self._tensor(array) for name, array in inputs.activations(self.work, number).items()}
        if self.work.op == "conv2d_backward_input":
            found["x"] = torch.empty(self.work.x_shape, dtype=found["dy"].dtype, memory_format=self.format)
        return found

    def call(self, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        work = self.work
        if work.op == "conv2d_forward":
            return F.conv2d(tensors["x"], self.shared["w"], self.shared["b"], *work.window)
        mask = (work.op == "conv2d_backward_input", work.op == "conv2d_backward_weight", False)
        found = torch.ops.aten.convolution_backward(
            tensors["dy"], tensors["x"], self.shared["w"], None, work.stride, work.padding, work.dilation,
            False, (0, 0), work.groups, mask,
        )  # fmt: skip
        return found[0] if mask[0] else found[1]

    def output(self, number: int) -> np.ndarray:
        return on_host(self.call(self._set(number)))

    def time(self, repeats: int) -> float:
        return timed(lambda i: self.call(self.sets[i % len(self.sets)]), repeats)


# --- a network -------------------------------------------------------------------------------------------------


class FCN(torch.nn.Module):
    """The FCN of Long, Shelhamer and Darrell over a VGG trunk; images [N, 3, H, W] to logits [N, classes, H, W]."""

    def __init__(self, model: str, net: str, classes: int, dropout: float) -> None:
        super().__init__()
        self.stride, self.scales, self.dropout = STRIDES[model], SCALES.get(model, (1, 1)), dropout
        (self.depths, channels, fc), C = NETS[net], 3
        for b, (depth, K) in enumerate(zip(self.depths, channels, strict=True), 1):
            for i in range(1, depth + 1):
                self._add(f"conv{b}_{i}", C, K, 3, 1)
                C = K
        self._add("fc6", C, fc, 7, 3)
        self._add("fc7", fc, fc, 1, 0)
        self._add("score_fr", fc, classes, 1, 0)
        for factor in {2, self.stride}:
            ramp = (torch.arange(factor, dtype=torch.float64) + 0.5) / factor
            taps = torch.cat([ramp, ramp.flip(0)])
            self.register_buffer(f"bilinear{factor}", torch.outer(taps, taps).repeat(classes, 1, 1, 1))
        if self.stride <= 16:
            self._add("score_pool4", channels[3], classes, 1, 0)
        if self.stride <= 8:
            self._add("score_pool3", channels[2], classes, 1, 0)

    def _add(self, name: str, C: int, K: int, window: int, padding: int) -> None:
        layer = torch.nn.utils.skip_init(torch.nn.Conv2d, C, K, window, padding=padding)
        setattr(self, name, layer)

    def upsample(self, x: torch.Tensor, factor: int) -> torch.Tensor:
        """Bilinear: tap i of an axis is the overlap weight of a triangle of half-width `factor`, which is even."""
        kernel = getattr(self, f"bilinear{factor}")
        return F.conv_transpose2d(x, kernel, stride=factor, padding=factor // 2, groups=x.shape[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2:]
        pools = []
        for b, depth in enumerate(self.depths, 1):
            for i in range(1, depth + 1):
                x = F.relu(getattr(self, f"conv{b}_{i}")(x), inplace=True)
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            pools.append(x)
        for name in ("fc6", "fc7"):
            x = F.relu(getattr(self, name)(x), inplace=True)
            x = F.dropout(x, self.dropout, self.training)
        x = self.score_fr(x)
        for index, finer in ((3, 16), (2, 8)):
            if self.stride <= finer:
                features = pools[index] if self.scales[3 - index] == 1 else pools[index] * self.scales[3 - index]
                skip = getattr(self, f"score_pool{index + 1}")(features)
                x = self.upsample(x, 2)[:, :, : skip.shape[2], : skip.shape[3]] + skip
        return self.upsample(x, self.stride)[:, :, :height, :width]


class NetworkJob:
    """A training step or an inference of one network, in one memory format."""

    def __init__(self, work: Network, form: str, data: bool = True) -> None:
        self.work, self.format, self.dtype = work, FORMATS[form], getattr(torch, work.dtype)
        pin(work.precision)
        self.mixed = work.precision == "bfloat16" and work.task == "step"
        self.net = FCN(work.model, work.net, work.classes, work.dropout).to(torch.get_default_device(), self.dtype)
        with torch.no_grad():
            for name, parameter in self.net.named_parameters():
                parameter.copy_(on_device(inputs.parameter(name, tuple(parameter.shape), work.dtype)))
        if work.precision == "bfloat16" and not self.mixed:
            self.dtype = torch.bfloat16
        self.net.to(dtype=self.dtype, memory_format=self.format)
        if work.task == "infer":
            self.net.requires_grad_(False).eval()
        rule = {"lr": work.LR, "momentum": work.MOMENTUM, "weight_decay": work.WEIGHT_DECAY}
        self.optimizer = torch.optim.SGD(self.net.parameters(), **rule, fused=TUNED in os.environ or None)
        self.sets = [self._set(inputs.TIMED + number) for number in range(work.sets)] if data else []
        self.loss, self.labels = self._loss, self._labels
        if COMPILED in os.environ and work.dtype == "float32":
            mode = "reduce-overhead" if gpu() else "default"  # on a GPU: with CUDA graphs
            self.loss, self.labels = (torch.compile(one, mode=mode) for one in (self._loss, self._labels))

    def _set(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = on_device(inputs.images(self.work, number)).to(dtype=self.dtype, memory_format=self.format)
        return images, on_device(inputs.labels(self.work, number))

    def _loss(self, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed):
            return F.cross_entropy(self.net(images), target, ignore_index=255)

    def _labels(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images).argmax(1)

    def step(self, number: int) -> torch.Tensor:
        images, target = self.sets[number % len(self.sets)]
        self.optimizer.zero_grad()
        loss = self.loss(images, target)
        loss.backward()
        self.optimizer.step()
        return loss

    def infer(self, number: int) -> torch.Tensor:
        with torch.inference_mode():
            return self.labels(self.sets[number % len(self.sets)][0])

    def call(self, number: int) -> torch.Tensor:
        if COMPILED in os.environ:  # what the graph of the last call returned may be overwritten
            torch.compiler.cudagraph_mark_step_begin()
        return self.step(number) if self.work.task == "step" else self.infer(number)

    def proof(self, number: int) -> dict[str, np.ndarray]:
        """Logits, and for a step loss and every gradient, of set `number`, dropout off."""
        images, target = self._set(number)
        self.net.eval()
        self.optimizer.zero_grad()
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed):
            found = {"logits": on_host(self.net(images))}
        if self.work.task == "step":
            loss = self.loss(images, target)
            loss.backward()
            found["loss"] = on_host(loss)
            found |= {name: on_host(parameter.grad) for name, parameter in self.net.named_parameters()}
            self.optimizer.zero_grad()
            self.net.train()
        else:
            with torch.inference_mode():
                found["labels"] = on_host(self.labels(images))
        return found

    def time(self, repeats: int) -> float:
        return timed(self.call, repeats)


# --- the service -----------------------------------------------------------------------------------------------


class Service:
    """What can be asked for; jobs are kept by a key of the caller's."""

    def __init__(self) -> None:
        self.jobs: dict[Any, ConvolutionJob | NetworkJob] = {}

    def start(self, threads: int, device: str = "cpu") -> dict[str, str]:
        """Of PyTorch: its versions. Computes on a GPU for device "cuda", else on the processor."""
        torch.set_num_threads(threads)
        if device == "cuda":
            if not torch.cuda.is_available():
                raise RuntimeError("this PyTorch has no GPU: it needs one built for CUDA, and a driver")
            torch.set_default_device("cuda")
            return {
                "torch": torch.__version__,
                "cudnn": str(torch.backends.cudnn.version()),
                "cuda": torch.version.cuda,
            }
        torch.backends.mkldnn.set_flags(True)
        onednn = [word for word in torch.__config__.show().split("\n") if "MKL-DNN" in word]
        return {"torch": torch.__version__, "onednn": onednn[0].strip(" -") if onednn else "none"}

    def prepare(self, key: Any, work: Convolution | Network, form: str) -> None:
        self.jobs[key] = (ConvolutionJob if isinstance(work, Convolution) else NetworkJob)(work, form)

    def drop(self) -> None:
        self.jobs.clear()

    def output(self, key: Any, number: int) -> np.ndarray:
        with torch.no_grad():
            return self.jobs[key].output(number)

    def proof(self, key: Any, number: int) -> dict[str, np.ndarray]:
        return self.jobs[key].proof(number)

    def truth(self, work: Network, number: int) -> dict[str, np.ndarray]:
        """The same in float64."""
        return NetworkJob(work, "nchw", data=False).proof(number)

    def time(self, key: Any, repeats: int) -> float:
        job = self.jobs[key]
        if isinstance(job, ConvolutionJob):
            with torch.no_grad():
                return job.time(repeats)
        return job.time(repeats)


def serve(connection: Connection) -> None:
    """Answer until the other side hangs up."""
    service = Service()
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = ("ok", getattr(service, name)(*arguments))
        except Exception as error:
            answer = ("error", f"{type(error).__name__}: {error}")
        connection.send(answer)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
