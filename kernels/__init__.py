"""The ground floor: plain arrays in, plain arrays out; no Tensor, no layer, no file.

Imported as `minifcn.kernels`. Each device has the same function names: `reference` (NumPy, the formulas spelled out),
`cpu` (Numba), and `cuda`, CUDA C++ on a GPU or on the host (`of("cuda-sim")`). All obey this contract:

* Arrays are indexed [N, C, H, W], convolution weights [K, C/groups, R, S]. Any strides are accepted, also
  empty batches. Inputs are never written to, the optimisers' `w` and state excepted; outputs share memory with nothing.
* float32 in, float32 out; float64 in, float64 out. Sums may be wider inside. All float arrays of one call
  have one dtype. (On `cuda` and `cuda-sim` activations may be bfloat16 beside float32 parameters: `storage`.)
* The same inputs give the same bits, on every run and for every number of threads.
* Sizes and offsets come from `geometry` alone, which also refuses what is not feasible.

| kernel | returns |
|---|---|
| conv2d_forward(x, w, b, stride, padding, dilation, groups) | y [N, K, P, Q]; b [K] or None |
| conv2d_backward_input(dy, w, input_size, stride, padding, dilation, groups) | dx [N, C, H, W] |
| conv2d_backward_weight(dy, x, window, stride, padding, dilation, groups) | dw [K, C/groups, R, S] |
| conv2d_backward_bias(dy) | db [K] |
| conv2d_relu_forward(x, w, b, stride, padding, dilation, groups) | relu(y), mask: bytes [N, P, Q, ceil(K/8)] |
| conv2d_relu_backward(dy, mask, x, w, stride, padding, dilation, groups, needs) | dx, dw, db; None where not needed |
| conv2d_relu_max_pool2d_forward(x, w, b, stride, padding, dilation, groups, ceil_mode) | maxima of 2 x 2, mask |
| conv2d_relu_max_pool2d_backward(dy, mask, x, w, stride, padding, dilation, groups, ceil_mode, needs) | as above |
| max_pool2d_forward(x, window, stride, padding, dilation, ceil_mode) | y, argmax: bytes [N, C, P, Q], r S + s |
| max_pool2d_backward_input(dy, argmax, input_size, window, stride, padding, dilation, ceil_mode) | dx |
| avg_pool2d_forward(x, window, stride, padding, ceil_mode, count_include_pad) | y |
| avg_pool2d_backward_input(dy, input_size, window, stride, padding, ceil_mode, count_include_pad) | dx |
| lrn_forward(x, size, alpha, beta, k) / lrn_backward_input(dy, x, size, alpha, beta, k) | y / dx |
| bilinear_upsample_forward(x, factor, padding) | y [N, C, P, Q] |
| bilinear_upsample_backward_input(dy, input_size, factor, padding) | dx |
| crop_forward(x, offset, size) / crop_backward_input(dy, offset, input_size) | window of x / its adjoint |
| crop_sum_forward(x, skip, offset) | x + skip's window at offset |
| relu_forward(x) / relu_backward_input(dy, y) | y / dx |
| dropout_forward(x, p, key) / dropout_backward_input(dy, p, key) | y / dx; key = (seed, step, layer), below |
| add_forward(x, y), scale_forward(x, factor) | arrays of the same shape |
| cross_entropy_forward(x, target, weight, ignore_index) | losses [N, H, W], probabilities [N, C, H, W] |
| cross_entropy_backward_input(dy, probabilities, target, weight, ignore_index) | dx |
| upsample_cross_entropy_forward(x, target, weight, ignore_index, factor, padding, offset) | losses [N, P, Q] |
| upsample_cross_entropy_backward_input(dy, x, target, weight, ignore_index, factor, padding, offset) | dx |
| upsample_argmax(x, factor, padding, offset, size) | labels [N, P, Q]: uint8, int32 above 256 classes |
| sgd_step(w, g, velocity, lr, momentum, weight_decay, form) | None: w and velocity change in place |
| adam_step(w, g, mean, square, lr, betas, eps, weight_decay, step, decoupled) | None: in place |

Transposed convolution needs no kernels of its own: its forward is `conv2d_backward_input`, its backward-input
is `conv2d_forward`, its backward-weight is `conv2d_backward_weight` with the two arrays exchanged.

The step of a key is an integer; on all devices but the reference it may be an array uint32 [1] of the device instead.

Of windows of at most four taps a device may give argmax as two bits, bytes [N, P, Q, ceil(C/4)]: channel c in the bits
from 2 (c mod 4) of byte c div 4. `layout.tap_numbers` unpacks it; the way back there, and in the reference, takes both.

A mask holds one bit an element, set where ReLU let it pass: channel k of a pixel in bit k mod 8 of byte k div 8. With
pooling, where it also won its window: a mask of the same size, and no argmax.
Weights that nobody can write to (`w.flags.writeable` False) are constants: a device may keep what it derives from them.

At the kinks: ReLU'(0) = 0; the first maximum of a window in row-major order takes the gradient; padding never
wins a maximum; NaN wins it, and no kernel drops a NaN. A pixel with the ignored label has loss 0 and gradient 0.
"""

import importlib
from types import ModuleType
from typing import Any

if __name__ == "kernels":
    raise ImportError("this folder is the package minifcn.kernels: import it by that name")

DEVICES = ("reference", "cpu", "cuda-sim", "cuda")


def of(device: str) -> Any:
    """The kernels of `device`, one of DEVICES, as attributes that `__all__` names.

    Loaded when they are first asked for: Numba costs half a second to import. Raises cuda.ExecutorError where this
    machine cannot run them, and says what is missing.
    """
    if device in ("reference", "cpu"):
        return importlib.import_module(f"{__name__}.{device}")
    return importlib.import_module(f"{__name__}.cuda").kernels_of(device)


def __getattr__(name: str) -> ModuleType:
    """The subpackages, and `geometry`, loaded when they are first asked for."""
    if name in ("reference", "cpu", "cuda", "geometry"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"minifcn.kernels has no {name!r}; it has reference, cpu, cuda and geometry")
