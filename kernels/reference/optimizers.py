"""One step of stochastic gradient descent, and of Adam, in place.

SGD with momentum mu, weight decay d, g' = g + d w (Polyak, 1964). The two forms differ in where the rate lr
stands, and so only when it changes:

    caffe    v <- mu v + lr g',   w <- w - v
    pytorch  v <- mu v + g',      w <- w - lr v

Adam (Kingma and Ba, 2015), t counted from 1; AdamW (Loshchilov and Hutter, 2019) takes the decay out of g':

    m <- b1 m + (1 - b1) g',  s <- b2 s + (1 - b2) g'^2
    w <- w - lr (m / (1 - b1^t)) / (sqrt(s / (1 - b2^t)) + eps),  decoupled: also w <- w - lr d w
"""

from __future__ import annotations

import numpy as np

from .. import checks


def sgd_step(w, g, velocity, lr, momentum=0.0, weight_decay=0.0, form="pytorch"):
    """One step of SGD: `w` and `velocity` change in place."""
    checks.check_sgd(w, g, velocity, form)
    number = w.dtype.type
    gradient = g + number(weight_decay) * w
    if form == "caffe":
        velocity[...] = number(momentum) * velocity + number(lr) * gradient
        w -= velocity
    else:
        velocity[...] = number(momentum) * velocity + gradient
        w -= number(lr) * velocity


def adam_step(w, g, mean, square, lr, betas, eps, weight_decay, step, decoupled):
    """One step of Adam (`decoupled`: AdamW): `w`, `mean` and `square` change in place; `step` from 1."""
    checks.check_adam(w, g, mean, square, step)
    number = w.dtype.type
    beta1, beta2 = betas
    gradient = g if decoupled else g + number(weight_decay) * w
    if decoupled:
        w -= number(lr * weight_decay) * w
    mean[...] = number(beta1) * mean + number(1 - beta1) * gradient
    square[...] = number(beta2) * square + number(1 - beta2) * np.square(gradient)
    unbiased_mean = mean / number(1 - beta1**step)
    unbiased_square = square / number(1 - beta2**step)
    w -= number(lr) * unbiased_mean / (np.sqrt(unbiased_square) + number(eps))


def sgd_numbers(lr, momentum=0.0, weight_decay=0.0, form="pytorch") -> tuple:
    """The numbers of one step as compiled kernels take them: mu, d, and lr within v and outside of it."""
    return (momentum, weight_decay, *((lr, 1) if form == "caffe" else (1, lr)))


def adam_numbers(lr, betas, eps, weight_decay, step, decoupled) -> tuple:
    """The numbers of one step as compiled kernels take them.

    lr, b1, b2, 1 - b1, 1 - b2, 1 - b1^t, 1 - b2^t, eps, the decay within g' and lr times the decay beside it.
    """
    (beta1, beta2), decay = betas, weight_decay
    decays = (0, lr * decay) if decoupled else (decay, 0)
    return (lr, beta1, beta2, 1 - beta1, 1 - beta2, 1 - beta1**step, 1 - beta2**step, eps, *decays)
