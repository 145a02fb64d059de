"""Backpropagation through a two-layer network, one line of the chain rule after the other.

    python examples/02_backpropagation_step_by_step.py

    x --conv 3x3--> a --relu--> h --conv 1x1--> z --softmax cross entropy--> L

Every intermediate and every gradient is printed; then Tensor.backward does it all at once. Takes a second.
"""

import numpy as np

from minifcn import Tensor, conv2d, cross_entropy, relu

np.set_printoptions(precision=4, suppress=True)

# A 3x3 image of one channel, two hidden channels, three classes. One pixel of the label is void (255).
x = np.array([[1, 0, 2], [-1, 3, 1], [0, 1, -2]], np.float64)
label = np.array([[0, 1, 2], [255, 1, 0], [2, 2, 1]])
w1 = np.array([[[0, 1, 0], [1, -1, 1], [0, 1, 0]], [[1, 0, -1], [0, 1, 0], [-1, 0, 1]]], np.float64) / 2  # [k,r,s]
b1 = np.array([0.5, -0.5])
w2 = np.array([[1, -1], [0.5, 0.5], [-1, 2]])  # [class,k]
b2 = np.array([0.1, 0, -0.1])


def show(name, value, meaning):
    print(f"{name}: {meaning}\n{value}\n")
    return value


def shifted(plane, r, s):
    """The plane as tap (r, s) of a padded 3x3 window sees it: element (p, q) is plane[p - 1 + r, q - 1 + s], or 0."""
    return np.pad(plane, 1)[r : r + plane.shape[0], s : s + plane.shape[1]]


def forward():
    print("--- Forward, from the image to the loss ---\n")
    a = np.stack([b1[k] + sum(w1[k, r, s] * shifted(x, r, s) for r, s in np.ndindex(3, 3)) for k in range(2)])
    show("a", a, "convolution, a[k,p,q] = b1[k] + sum_{r,s} w1[k,r,s] x[p-1+r, q-1+s]")
    h = show("h", np.maximum(a, 0), "h = max(a, 0)")
    z = np.stack([b2[c] + w2[c, 0] * h[0] + w2[c, 1] * h[1] for c in range(3)])
    show("z", z, "1x1 convolution, z[c,p,q] = b2[c] + sum_k w2[c,k] h[k,p,q]: a score for each class")
    probability = show("prob", np.exp(z) / np.exp(z).sum(axis=0), "softmax over the classes")
    counted = label != 255
    loss = -np.mean([np.log(probability[label[p, q], p, q]) for p, q in np.argwhere(counted)])
    show("L", loss, f"mean of -log prob[label] over the {counted.sum()} pixels that are not void")
    return a, h, probability, counted, loss


def backward(a, h, probability, counted):
    """The chain rule: each line takes the gradient of a line of the forward pass, the last one first."""
    print("--- Backward, from the loss to the weights ---\n")
    one_hot = np.stack([label == c for c in range(3)])
    dz = (probability - one_hot) * counted / counted.sum()
    show("dz", dz, "dL/dz[c] = (prob[c] - [c is the label]) / (number of pixels that count), 0 where void")
    db2 = show("db2", dz.sum(axis=(1, 2)), "b2[c] is added to every pixel: db2[c] = sum of dz[c]")
    dw2 = np.array([[np.sum(dz[c] * h[k]) for k in range(2)] for c in range(3)])
    show("dw2", dw2, "w2[c,k] stands beside h[k]: dw2[c,k] = sum of dz[c] h[k]")
    dh = np.stack([sum(w2[c, k] * dz[c] for c in range(3)) for k in range(2)])
    show("dh", dh, "h[k] stands beside w2[c,k], in each class: dh[k] = sum_c w2[c,k] dz[c]")
    da = show("da", np.where(a > 0, dh, 0), "relu passes dh where a > 0 and stops it elsewhere")
    db1 = show("db1", da.sum(axis=(1, 2)), "b1[k] is added to every pixel")
    dw1 = np.array([[[np.sum(da[k] * shifted(x, r, s)) for s in range(3)] for r in range(3)] for k in range(2)])
    show("dw1", dw1, "w1[k,r,s] stands beside the shifted image: dw1[k,r,s] = sum_{p,q} da[k,p,q] x[p-1+r, q-1+s]")
    # x[h,v] is read by tap (r, s) for output (h+1-r, v+1-s): the window is turned round
    dx = sum(w1[k, r, s] * shifted(da[k], 2 - r, 2 - s) for k, r, s in np.ndindex(2, 3, 3))
    show("dx", dx, "x[h,v] stands beside w1[k,r,s] in a[k,h+1-r,v+1-s]: dx[h,v] = sum_{k,r,s} w1[k,r,s] da[...]")
    return {"x": dx, "w1": dw1, "b1": db1, "w2": dw2, "b2": db2}


def main():
    a, h, probability, counted, loss = forward()
    by_hand = backward(a, h, probability, counted)

    print("--- The same with Tensor.backward ---\n")
    shapes = {"x": (1, 1, 3, 3), "w1": (2, 1, 3, 3), "b1": (2,), "w2": (3, 2, 1, 1), "b2": (3,)}
    arrays = {"x": x, "w1": w1, "b1": b1, "w2": w2, "b2": b2}
    t = {name: Tensor(arrays[name].reshape(shape), requires_grad=True) for name, shape in shapes.items()}
    hidden = relu(conv2d(t["x"], t["w1"], t["b1"], padding=1))
    tensor_loss = cross_entropy(conv2d(hidden, t["w2"], t["b2"]), label[None])
    tensor_loss.backward()

    worst = abs(tensor_loss.item() - loss)
    print(f"L by hand {loss:.12f}, by minifcn {tensor_loss.item():.12f}")
    for name, gradient in by_hand.items():
        error = np.abs(t[name].grad.numpy().reshape(gradient.shape) - gradient).max()
        print(f"d{name}: largest difference {error:.1e}")
        worst = max(worst, error)
    if not worst <= 1e-14:
        raise SystemExit("they do not agree")
    print("\nAll agree to rounding.")


if __name__ == "__main__":
    main()
