"""Whole networks: every parameter of an FCN against finite differences of the loss.

The numeric side always runs in float64 on the same values, so that float32 kernels are judged as sharply as float64
ones. A network is linear between the kinks of its ReLUs and maxima times a smooth loss; a direction along which any of
them changes its mind is drawn again, and so is an image for which float32 decides otherwise than float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import ops
from ..device import Device, get_device, replaced
from ..models import FCN, build
from ..ops.conv2d_relu import PARTS
from ..ops.conv2d_relu_max_pool2d import PARTS as PARTS_WITH_POOL
from ..tensor import Tensor, no_grad
from .differences import NonSmooth, dot, norm, rms
from .report import Finding, Report
from .tolerances import STEPS, tolerance

NETWORKS = ("fcn32s", "fcn16s", "fcn8s")
DIRECTIONS, REDRAWS = 3, 20
STEP = STEPS["curved"]


def narrow(model: str, geometry: str, seed: int, dtype: str = "float64") -> FCN:
    """A network of a tenth of the small backbone's width, 4 classes and learned upsampling, with nothing at zero.

    Zero scores would stop all gradients, and zero biases put ReLU's kink under every pixel of a padded frame.
    """
    settings = {"backbone": "small", "classes": 4, "geometry": geometry, "width": 0.1, "deconv": "learned"}
    network = build(model, **settings, seed=seed, dtype="float32")
    rng = np.random.default_rng(seed)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            value = rng.uniform(0.05, 0.1, parameter.shape) * rng.choice((-1, 1), parameter.shape)
        elif name.startswith("score_"):
            value = rng.standard_normal(parameter.shape) / 4
        else:
            value = parameter.data
        parameter.data = value.astype(np.float32).astype(dtype)
    return network.at_step(seed, 1)  # dropout is on, with one mask throughout


def loss_and_gradients(network: FCN, x: np.ndarray, target: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    """The mean cross entropy, and its gradient for every parameter."""
    network.zero_grad()
    loss = ops.cross_entropy(network(Tensor(x, device=network.parameters()[0].place)), target)
    loss.backward()
    return loss.item(), {name: p.grad.numpy() for name, p in network.named_parameters() if p.grad is not None}


def loss_and_decisions(network: FCN, x: np.ndarray, target: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """The loss, and what every ReLU let through and every maximum chose."""
    device, chosen = network.parameters()[0].place, []
    relu, pool = device.kernel("relu_forward"), device.kernel("max_pool2d_forward")
    fused, pooled = device.kernel("conv2d_relu_forward"), device.kernel("conv2d_relu_max_pool2d_forward")

    def watched_relu(x: np.ndarray) -> np.ndarray:
        y = relu(x)
        chosen.append(y > 0)
        return y

    def watched_fused(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        y, mask = fused(*arguments)
        chosen.append(mask)
        return y, mask

    def watched_pooled(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        y, winners = pooled(*arguments)
        chosen.append(winners)
        return y, winners

    def watched_pool(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        y, argmax = pool(*arguments)
        chosen.append(argmax)
        return y, argmax

    watched = {"relu_forward": watched_relu, "max_pool2d_forward": watched_pool}
    # A fused op is taken apart where a user's kernel is one of its parts, so that it runs.
    if not device.is_replaced(*PARTS):
        watched["conv2d_relu_forward"] = watched_fused
    if not device.is_replaced(*PARTS_WITH_POOL):
        watched["conv2d_relu_max_pool2d_forward"] = watched_pooled
    with no_grad(), replaced(device, **watched):
        loss = ops.cross_entropy(network(Tensor(x, device=device)), target).item()
    return loss, chosen


def _same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def check_parameters(
    network: FCN, x: np.ndarray, target: np.ndarray, twin: FCN | None = None, seed: int = 0
) -> Iterator[Finding]:
    """One finding a parameter of `network`; its losses are differenced on `twin`, the same network in float64.

    Raises NonSmooth where kinks leave no direction, or the two precisions decide differently at `x`.
    """
    twin = network if twin is None else twin
    dtype, rng = x.dtype, np.random.default_rng(seed)
    wide = x.astype(np.float64)
    loss, here = loss_and_decisions(twin, wide, target)
    if twin is not network and not _same(here, loss_and_decisions(network, x, target)[1]):
        raise NonSmooth("float32 decides a kink otherwise than float64")
    _, gradients = loss_and_gradients(network, x, target)
    rule = "gradient, network"
    for name, parameter in twin.named_parameters():
        if name not in gradients:
            yield Finding(rule, name, np.inf, tolerance(rule, dtype), "it has no gradient")
            continue
        values, gradient = parameter.data, gradients[name].astype(np.float64)
        worst, found = Finding(rule, name, 0.0, tolerance(rule, dtype)), 0
        for _ in range(REDRAWS):
            v = rng.uniform(0.5, 1.5, values.shape) * rng.choice((-1.0, 1.0), values.shape)
            try:
                sides = []
                for sign in (1, -1):
                    parameter.data = values + sign * STEP * v
                    sides.append(loss_and_decisions(twin, wide, target))
            finally:
                parameter.data = values
            if not all(_same(here, there) for _, there in sides):
                continue
            numeric, analytic = (sides[0][0] - sides[1][0]) / (2 * STEP), dot(gradient, v)
            rounding = 4 * np.finfo(np.float64).eps * max(1.0, abs(loss)) / STEP  # of the two losses
            unit = norm(gradient) * rms(v) or 1.0
            limit = tolerance(rule, dtype) + rounding / unit
            where = f"difference {numeric:.9g}, gradient {analytic:.9g} along a random direction"
            finding = Finding(rule, name, abs(numeric - analytic) / unit, limit, where)
            found += 1
            if not finding.of_tolerance <= worst.of_tolerance:
                worst = finding
            if found == DIRECTIONS:
                break
        if found < DIRECTIONS:
            raise NonSmooth(f"{name}: kinks along all but {found} of {REDRAWS} directions")
        yield worst


def check_network(
    model: str, device: str | Device = "cpu", dtype: str = "float64", examples: int = 2, seed: int = 0
) -> Report:
    """Every parameter of `model` (one of NETWORKS) in both geometries, on `examples` random images of odd size."""
    place, report = get_device(device), Report(model, get_device(device).name, np.dtype(dtype).name)
    for example in range(examples):
        geometry = ("exact", "pad100")[example % 2]
        for redraw in range(REDRAWS):
            number = seed + REDRAWS * example + redraw
            rng = np.random.default_rng(number)
            size = tuple(int(n) for n in rng.integers(33, 48, 2))
            x = rng.standard_normal((1, 3, *size)).astype(np.float32).astype(dtype)
            target = np.where(rng.random((1, *size)) < 0.1, 255, rng.integers(0, 4, (1, *size)))
            network = narrow(model, geometry, number, dtype).to(place)
            twin = None if network.parameters()[0].dtype == np.float64 else narrow(model, geometry, number).to(place)
            case = f"{model}, {geometry} geometry, image {size[0]}x{size[1]}, seed {number}"
            try:
                report.add(case, list(check_parameters(network, x, target, twin, seed)))
                break
            except NonSmooth as error:
                reason = str(error)
        else:
            report.add(case, [Finding("smooth", model, np.inf, 0.0, f"{reason}, in all of {REDRAWS} redraws")])
        if not report.passed:
            break
    return report
