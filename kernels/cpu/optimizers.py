"""SGD and Adam in place, one pass over memory, in whatever memory order the weights have; one launch for all of them.

Numba takes a fixed number of arrays, so the parameters of a launch come as a table of addresses. The jobs are even
shares of all elements, one parameter after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic

from .. import checks, memory
from ..layout import in_one_order
from ..reference.optimizers import adam_numbers, sgd_numbers
from .graph import from_host
from .threads import jobs, parts, run, share

Calls = Callable[[], list[tuple[Any, ...]]]


@intrinsic
def _pointer(typingctx, address, like):
    """`address` as a pointer to elements of the array `like`."""
    target = types.CPointer(like.dtype)

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(target))

    return target(types.intp, like), generate


@njit(cache=True, nogil=True)
def _stretch(team, job, ends, row):
    """(first, last + 1) of the elements of parameter `row` that are this job's."""
    first, last = share(team, job, ends[-1])
    return np.uintp(max(first - ends[row], 0)), np.uintp(max(min(last, ends[row + 1]) - ends[row], 0))


@njit(cache=True, nogil=True)
def _sgd(team, addresses, ends, rules):
    for job in jobs(team):
        for row in range(addresses.shape[0]):
            begin, end = _stretch(team, job, ends, row)
            w, g = carray(_pointer(addresses[row, 0], rules), end), carray(_pointer(addresses[row, 1], rules), end)
            velocity = carray(_pointer(addresses[row, 2], rules), end)
            rule = rules[row]
            momentum, weight_decay, inner, outer = rule[0], rule[1], rule[2], rule[3]
            for i in range(begin, end):
                velocity[i] = momentum * velocity[i] + inner * (g[i] + weight_decay * w[i])
                w[i] -= outer * velocity[i]


@njit(cache=True, nogil=True, error_model="numpy")  # a loop that may raise ZeroDivisionError has no vectors
def _adam(team, addresses, ends, rules):
    for job in jobs(team):
        for row in range(addresses.shape[0]):
            begin, end = _stretch(team, job, ends, row)
            w, g = carray(_pointer(addresses[row, 0], rules), end), carray(_pointer(addresses[row, 1], rules), end)
            mean = carray(_pointer(addresses[row, 2], rules), end)
            square = carray(_pointer(addresses[row, 3], rules), end)
            rule = rules[row]
            lr, beta1, beta2, rest1, rest2 = rule[0], rule[1], rule[2], rule[3], rule[4]
            scale1, scale2, eps, decay, decay_rate = rule[5], rule[6], rule[7], rule[8], rule[9]
            for i in range(begin, end):
                gradient = g[i] + decay * w[i]
                mean[i] = beta1 * mean[i] + rest1 * gradient
                square[i] = beta2 * square[i] + rest2 * gradient * gradient
                step = lr * (mean[i] / scale1) / (math.sqrt(square[i] / scale2) + eps)
                w[i] = w[i] - decay_rate * w[i] - step


def _launch(kernel: Callable, calls: Calls, in_order: Callable, numbers: Callable) -> None:
    """`kernel` for every one of calls(), tuples of its arguments, in one launch for each dtype among them.

    in_order(*call) = the arrays of a call in one memory order; numbers(...) of the arguments after these = its rule. In
    a graph the arrays are those of the capture, and each replay has the rules that calls() then gives.
    """
    given, by_dtype = calls(), {}
    for i, call in enumerate(given):
        arrays = in_order(*call)
        if arrays[0].size:
            by_dtype.setdefault(arrays[0].dtype, []).append((i, arrays))
    for dtype, group in by_dtype.items():
        places, count = [i for i, _ in group], len(group[0][1])
        addresses = np.array(
            [[memory.address(one) for one in (w, memory.plain(g), *state)] for _, (w, g, *state) in group]
        )
        ends = np.cumsum([0, *(arrays[0].size for _, arrays in group)])
        rules = from_host(partial(_rules, numbers, places, count, dtype), given, calls)
        run(kernel, parts(int(ends[-1])), addresses, ends, rules)


def _rules(numbers, places, count, dtype, given) -> np.ndarray:
    """The rules of the calls at `places` of `given`, a row each; their first `count` arguments are arrays."""
    return np.array([numbers(*given[i][count:]) for i in places], dtype)


def sgd_steps(calls: Calls) -> None:
    """`sgd_step` of every one of calls(), tuples of its arguments, in one launch."""
    _launch(_sgd, calls, _sgd_arrays, sgd_numbers)


def adam_steps(calls: Calls) -> None:
    """`adam_step` of every one of calls(), tuples of its arguments, in one launch."""
    _launch(_adam, calls, _adam_arrays, adam_numbers)


def _sgd_arrays(w, g, velocity, lr, momentum=0.0, weight_decay=0.0, form="pytorch"):
    checks.check_sgd(w, g, velocity, form)
    return in_one_order(w, g, velocity=velocity)


def _adam_arrays(w, g, mean, square, lr, betas, eps, weight_decay, step, decoupled):
    checks.check_adam(w, g, mean, square, step)
    return in_one_order(w, g, mean=mean, square=square)


def sgd_step(w, g, velocity, lr, momentum=0.0, weight_decay=0.0, form="pytorch"):
    """See `reference.sgd_step`."""
    sgd_steps(lambda: [(w, g, velocity, lr, momentum, weight_decay, form)])


def adam_step(w, g, mean, square, lr, betas, eps, weight_decay, step, decoupled):
    """See `reference.adam_step`."""
    adam_steps(lambda: [(w, g, mean, square, lr, betas, eps, weight_decay, step, decoupled)])
