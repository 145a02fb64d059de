"""What each function of ptx.cuh gives on random and edge operands: by any executor, and as a GPU once gave it.

    python -m tests.cuda.vectors                      record those of the GPU at hand: tests/cuda/hw_vectors/NAME.npz
    python -m tests.cuda.vectors --device cuda-sim --into FOLDER        rehearse it

`test_wrappers.py` replays recorded files on the simulator and on the interpreter of PTX.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.kernels.cuda import EXECUTORS

FILE = str(Path(__file__).with_name("kernels") / "wrappers.cu")
FOLDER = Path(__file__).with_name("hw_vectors")
LANES = 32
SEEDS = 4
# Zeros, the largest, infinities, NaN, subnormal numbers; ties of bfloat16 and TF32, and their neighbours.
EDGES = np.array(
    [0, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0x7F800001, 1, 0x7FFFFF, 0x800000, 0x3F808000, 0x3F818000, 0x3F807FFF,
     0x3F808001, 0x3F801000, 0x3F803000, 0x3F800FFF, 0x3F801001, 0x7F7FF000, 0x7F7F8000],
    np.uint32,
)  # fmt: skip
Arguments = tuple[Any, ...]  # arrays, of which a kernel changes some, and scalars


def _rounded(rng: np.random.Generator) -> Arguments:
    """Any bits, the edges with both signs first."""
    x = rng.integers(0, 1 << 32, 8 * LANES, np.uint32)
    x[: 2 * len(EDGES)] = [*EDGES, *(EDGES | np.uint32(1 << 31))]
    return (
        x.view(np.float32),
        np.zeros(len(x), np.uint32),
        np.zeros(len(x), np.uint16),
        np.zeros_like(x),
        np.int32(len(x)),
    )


def _packed(rng: np.random.Generator) -> Arguments:
    return rng.standard_normal(LANES).astype(np.float32), np.zeros(LANES, np.uint32)


def _widened(rng: np.random.Generator) -> Arguments:
    return rng.integers(0, 1 << 16, LANES, np.uint16), np.zeros(LANES, np.float32)


def _multiplied(rng: np.random.Generator) -> Arguments:
    """Fragments of a, b, c: as float32 whose low bits a tensor core ignores, or as pairs of bfloat16."""
    a, b, c = (rng.standard_normal((LANES, n)).astype(np.float32) for n in (4, 2, 4))
    return a.view(np.uint32), b.view(np.uint32), c


def _multiplied_pairs(rng: np.random.Generator) -> Arguments:
    """The same with pairs of numbers of bfloat16 in a and b."""
    a, b, c = (rng.standard_normal((LANES, n)).astype(np.float32) for n in (8, 4, 4))
    a, b = (np.ascontiguousarray(one.view(np.uint16)[:, 1::2]).view(np.uint32) for one in (a, b))
    return a, b, c


def _rows(rng: np.random.Generator) -> Arguments:
    return rng.integers(0, 1 << 32, (LANES, 4), np.uint32), np.zeros((LANES, 4), np.uint32)


def _copied(rng: np.random.Generator) -> Arguments:
    x = rng.integers(0, 1 << 32, (LANES, 4), np.uint32)
    return x, rng.integers(0, 5, LANES, np.int32) * np.int32(4), np.zeros_like(x), np.zeros_like(x)


KERNELS: dict[str, Callable[[np.random.Generator], Arguments]] = {
    "conversions": _rounded,
    "pack": _packed,
    "widen": _widened,
    "mma_tf32": _multiplied,
    "mma_bf16": _multiplied_pairs,
    "ldmatrix<false>": _rows,
    "ldmatrix<true>": _rows,
    "copy": _copied,
}


def arguments(kernel: str, seed: int) -> Arguments:
    return KERNELS[kernel](np.random.default_rng(seed))


def run(on: Any, kernel: str, given: Arguments) -> list[np.ndarray]:
    """All arrays after one warp of `kernel` on the executor `on` (`conversions`: after as many threads as numbers)."""
    arrays = [on.xp.array(one) if isinstance(one, np.ndarray) else one for one in given]
    threads = len(given[0]) if kernel == "conversions" else LANES
    on.launch(on.kernel(FILE, kernel), (1, 1, 1), (threads, 1, 1), tuple(arrays))
    return [one.get() if hasattr(one, "get") else one for one in arrays if isinstance(one, on.xp.ndarray)]


def same(kernel: str, found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    """Bit by bit; sums of a tensor core within 2^-20 of 64, which is more than their terms' sizes add up to.

    The hardware aligns and truncates partial sums, to no fewer than 23 bits of the largest.
    """
    if "mma" in kernel:
        return bool(np.all(np.abs(found[-1] - expected[-1]) <= 64 * 2.0**-20))
    return all(one.tobytes() == other.tobytes() for one, other in zip(found, expected, strict=True))


# --- recorded on a GPU ---


def record(device: str, folder: Path) -> Path:
    """Every kernel on `device`, in a file of its name. Raises ExecutorError where there is no such device here."""
    on = EXECUTORS[device]()
    name, about = device, {}
    if device == "cuda":
        runtime = on.xp.cuda.runtime
        name = runtime.getDeviceProperties(on.xp.cuda.Device().id)["name"].decode()
        about = {"driver and runtime": np.array([runtime.driverGetVersion(), runtime.runtimeGetVersion()])}
    return save(folder / f"{name.lower().replace(' ', '-')}.npz", on, about)


def save(path: Path, on: Any, about: dict[str, np.ndarray]) -> Path:
    """What `on` computes, arguments before and after, in `path`."""
    found = dict(about)
    for kernel in KERNELS:
        for seed in range(SEEDS):
            given = arguments(kernel, seed)
            for when, many in (("before", given), ("after", run(on, kernel, given))):
                found |= {f"{kernel}/{seed}/{when}/{i}": np.asarray(one) for i, one in enumerate(many)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **found)
    return path


def recorded(path: Path, kernel: str, seed: int) -> tuple[Arguments, list[np.ndarray]]:
    """(arguments, arrays after the launch) from a recorded file."""
    with np.load(path) as data:
        before, after = (
            [data[name] for name in data.files if name.startswith(f"{kernel}/{seed}/{when}/")]
            for when in ("before", "after")
        )
    return tuple(one if one.ndim else one[()] for one in before), after


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=EXECUTORS, default="cuda")
    parser.add_argument("--into", type=Path, default=FOLDER)
    chosen = parser.parse_args()
    print(f"recorded: {record(chosen.device, chosen.into)}")
