"""A convolution of one's own: proven, timed beside every algorithm of minifcn, and run inside a real network.

    python examples/04_benchmark_your_own_kernel.py

Two kernels for conv2d_forward, written with Numba as one writes them first, and as one writes them second. Both obey
the contract of `minifcn.kernels`: arrays in, arrays out. The same from the command line:

    minifcn check conv2d --kernel conv2d_forward=examples/04_benchmark_your_own_kernel.py:improved
    minifcn bench ladder --kernel conv2d_forward=examples/04_benchmark_your_own_kernel.py:improved --baseline torch
"""

import numpy as np
from numba import njit

import minifcn
from minifcn import Tensor, cli, models
from minifcn.gradcheck import check_op
from minifcn.kernels import geometry

SHAPE = "1x16x32x32->32"


# --- first: the formula, loop by loop ---


@njit
def seven_loops(padded, w, y, stride, dilation, groups):
    N, K, P, Q = y.shape
    channels, R, S = w.shape[1:]
    for n in range(N):
        for k in range(K):
            first = k // (K // groups) * channels
            for p in range(P):
                for q in range(Q):
                    total = y[n, k, p, q]  # the bias
                    for c in range(channels):
                        for r in range(R):
                            for s in range(S):
                                x = padded[
                                    n, first + c, p * stride[0] + r * dilation[0], q * stride[1] + s * dilation[1]
                                ]
                                total += w[k, c, r, s] * x
                    y[n, k, p, q] = total


def prepare(x, w, b, stride, padding, dilation, groups):
    """The geometry, x with its zero border, and y filled with the bias."""
    geo = geometry.conv2d(x.shape, w.shape, stride, padding, dilation, groups)
    (vertical, horizontal) = geo.padding
    padded = np.pad(x, ((0, 0), (0, 0), (vertical, vertical), (horizontal, horizontal)))
    y = np.zeros(geo.y_shape, x.dtype)
    if b is not None:
        y += b[:, None, None]
    return geo, np.ascontiguousarray(padded), y


def naive(x, w, b, stride, padding, dilation, groups):
    geo, padded, y = prepare(x, w, b, stride, padding, dilation, groups)
    seven_loops(padded, np.ascontiguousarray(w), y, geo.stride, geo.dilation, groups)
    return y


# --- second: channels last, so that the innermost loop runs along memory and becomes vector instructions ---


@njit
def along_memory(padded, w, y, stride, dilation, groups):
    N, P, Q, K = y.shape
    R, S, channels = w.shape[:3]
    share = K // groups
    total = np.empty(share, y.dtype)
    for n in range(N):
        for p in range(P):
            for q in range(Q):
                for g in range(groups):
                    total[:] = y[n, p, q, g * share : (g + 1) * share]  # the bias
                    for r in range(R):
                        for s in range(S):
                            i, j = p * stride[0] + r * dilation[0], q * stride[1] + s * dilation[1]
                            for c in range(channels):
                                x = padded[n, i, j, g * channels + c]
                                for k in range(share):
                                    total[k] += x * w[r, s, c, g * share + k]
                    y[n, p, q, g * share : (g + 1) * share] = total


def improved(x, w, b, stride, padding, dilation, groups):
    geo, padded, y = prepare(x, w, b, stride, padding, dilation, groups)
    last = [np.ascontiguousarray(array.transpose(0, 2, 3, 1)) for array in (padded, y)]
    along_memory(last[0], np.ascontiguousarray(w.transpose(2, 3, 1, 0)), last[1], geo.stride, geo.dilation, groups)
    return last[1].transpose(0, 3, 1, 2)


def hasty(x, w, b, stride, padding, dilation, groups):
    """Quicker still, and wrong: it forgets the bias."""
    return improved(x, w, None, stride, padding, dilation, groups)


def main() -> None:
    print("--- proven: the checker's random cases, strides, groups, NaN and all")
    for kernel in (naive, improved):
        report = check_op("conv2d", "cpu", "float32", examples=5, kernels={"conv2d_forward": kernel})
        print(f"{kernel.__name__}: {'passed' if report.passed else 'FAILED'}, {report.cases} cases")

    print("\n--- timed: a kernel that fails the gate has no time")
    mine = [f"--kernel=conv2d_forward={__file__}:{name}" for name in ("naive", "improved", "hasty")]
    cli.main(["bench", "ladder", "--shape", SHAPE, "--rounds", "5", "--seconds", "0.05", *mine])

    print("\n--- inside a network: FCN-8s, 64x64 pixels")
    network = models.fcn8s(backbone="small", classes=8).eval()
    rng = np.random.default_rng(0)
    for name, parameter in network.named_parameters():
        if name.startswith("score_"):  # they start at zero
            parameter.data[...] = 0.1 * rng.standard_normal(parameter.shape)
    images = Tensor(rng.standard_normal((1, 3, 64, 64)).astype(np.float32))
    with minifcn.no_grad():
        expected = network(images).numpy()
        with minifcn.replaced("cpu", conv2d_forward=improved):
            found = network(images).numpy()
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    print(f"logits with `improved` differ from minifcn's by {difference:.0e} of the largest")
    assert difference < 1e-5


if __name__ == "__main__":
    main()
