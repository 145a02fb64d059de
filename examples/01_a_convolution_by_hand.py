"""A convolution and its three gradients by plain loops, beside minifcn's kernels and finite differences.

    python examples/01_a_convolution_by_hand.py

Nothing is hidden in an array operation here: each loop below is one index of the formula above it. Takes a second.
"""

import numpy as np

from minifcn import Tensor, conv2d

STRIDE, PAD = 2, 1
rng = np.random.default_rng(0)

# One image of two channels, three outputs, a 3x3 window; small integers, so that all sums are exact.
x = rng.integers(-3, 4, (1, 2, 5, 4)).astype(np.float64)  # x[n,c,h,w]
w = rng.integers(-3, 4, (3, 2, 3, 3)).astype(np.float64)  # w[k,c,r,s]
b = rng.integers(-3, 4, 3).astype(np.float64)  # b[k]
N, C, H, W = x.shape
K, _, R, S = w.shape
P = (H + 2 * PAD - R) // STRIDE + 1
Q = (W + 2 * PAD - S) // STRIDE + 1


def meetings():
    """All (n, k, c, p, q, r, s, h, v) such that y[n,k,p,q] reads x[n,c,h,v] through w[k,c,r,s].

    h = p stride - pad + r and v = q stride - pad + s; where that lies outside the image there is nothing to read.
    """
    for n, k, c, p, q, r, s in np.ndindex(N, K, C, P, Q, R, S):
        h, v = p * STRIDE - PAD + r, q * STRIDE - PAD + s
        if 0 <= h < H and 0 <= v < W:
            yield n, k, c, p, q, r, s, h, v


def forward(x, w, b):
    """y[n,k,p,q] = b[k] + the sum over all meetings of w[k,c,r,s] x[n,c,h,v]."""
    y = np.zeros((N, K, P, Q))
    for n, k, p, q in np.ndindex(N, K, P, Q):
        y[n, k, p, q] = b[k]
    for n, k, c, p, q, r, s, h, v in meetings():
        y[n, k, p, q] += w[k, c, r, s] * x[n, c, h, v]
    return y


def backward(dy, x, w):
    """The same meetings once more: what stood beside x in y goes into dx, times dy; likewise for w and b."""
    dx, dw, db = np.zeros(x.shape), np.zeros(w.shape), np.zeros(K)
    for n, k, c, p, q, r, s, h, v in meetings():
        dx[n, c, h, v] += w[k, c, r, s] * dy[n, k, p, q]
        dw[k, c, r, s] += x[n, c, h, v] * dy[n, k, p, q]
    for n, k, p, q in np.ndindex(N, K, P, Q):
        db[k] += dy[n, k, p, q]
    return dx, dw, db


def difference(inputs, i, dy):
    """The gradient for input i, by raising and lowering each of its elements by 1: y is linear, so that is exact."""
    gradient = np.zeros(inputs[i].shape)
    for index in np.ndindex(gradient.shape):
        loss = {}
        for step in (+1, -1):
            moved = [array.copy() for array in inputs]
            moved[i][index] += step
            loss[step] = np.sum(forward(*moved) * dy)  # any loss with this dy would do
        gradient[index] = (loss[+1] - loss[-1]) / 2
    return gradient


def main():
    y = forward(x, w, b)
    print(f"x {x.shape}, w {w.shape}, b {b.shape}, stride {STRIDE}, padding {PAD} give y {y.shape}. Its first channel:")
    print(y[0, 0], "\n")

    dy = rng.integers(-3, 4, y.shape).astype(np.float64)  # upstream; not ones, which would hide a turned window
    by_hand = backward(dy, x, w)

    tensors = [Tensor(array, requires_grad=True) for array in (x, w, b)]
    by_kernel = conv2d(*tensors, stride=STRIDE, padding=PAD)
    by_kernel.backward(dy)

    print(f"y:  loops and kernel differ by {np.abs(y - by_kernel.numpy()).max():g}")
    agree = np.array_equal(y, by_kernel.numpy())
    for i, name in enumerate(("dx", "dw", "db")):
        kernel, numeric = tensors[i].grad.numpy(), difference((x, w, b), i, dy)
        print(
            f"{name}: loops and kernel differ by {np.abs(by_hand[i] - kernel).max():g}, "
            f"loops and finite differences by {np.abs(by_hand[i] - numeric).max():g}"
        )
        agree &= np.array_equal(by_hand[i], kernel) and np.array_equal(by_hand[i], numeric)
    if not agree:
        raise SystemExit("they do not agree")
    print(f"\ndx of the first channel:\n{by_hand[0][0, 0]}\n\nAll agree to the last bit.")


if __name__ == "__main__":
    main()
