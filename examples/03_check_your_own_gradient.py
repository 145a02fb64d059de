"""A gradient of one's own, written wrong, found, and put right.

    python examples/03_check_your_own_gradient.py

The function is the "swish" y = x / (1 + exp(-x)) (Ramachandran et al., 2017). Its derivative by the product rule, with
s = 1 / (1 + exp(-x)) and ds/dx = s (1 - s), is s + x s (1 - s). A first try forgets the second term, a second one is
wrong by 0.05 % only; no picture of the loss would show either. Then the same is done to a kernel inside an op.
"""

import numpy as np

from minifcn.gradcheck import check_op, gradcheck
from minifcn.kernels import reference


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def swish(x):
    return x * sigmoid(x)


def forgetful(dy, x):
    return dy * sigmoid(x)  # and x s (1 - s)?


def nearly(dy, x):
    return dy * (sigmoid(x) + x * sigmoid(x) * (1 - sigmoid(x))) * 1.0005


def right(dy, x):
    return dy * (sigmoid(x) + x * sigmoid(x) * (1 - sigmoid(x)))


def unturned_window(dy, w, input_size, stride, padding, dilation, groups):
    """Backward input of a convolution that forgets to turn the window round."""
    return reference.conv2d_backward_input(dy, w[..., ::-1, ::-1], input_size, stride, padding, dilation, groups)


def main() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4))
    for backward in (forgetful, nearly, right):
        print(f"--- swish with the gradient `{backward.__name__}`")
        print(gradcheck(swish, [x], backward=backward, name="swish"), end="\n\n")

    print("--- conv2d with a kernel that does not turn the window")
    report = check_op("conv2d", device="reference", kernels={"conv2d_backward_input": unturned_window})
    print(report)
    assert not report.passed


if __name__ == "__main__":
    main()
