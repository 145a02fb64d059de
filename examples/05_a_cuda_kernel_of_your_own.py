"""A convolution of one's own in CUDA C++: proven, searched for races, timed beside minifcn's, run inside a network.

    python examples/05_a_cuda_kernel_of_your_own.py             # on the host: needs a C++ compiler, and no GPU
    python examples/05_a_cuda_kernel_of_your_own.py cuda        # on a GPU

The kernel is the file beside this one; its first comment says how it is launched. The same from the command line:

    minifcn check conv2d --device cuda-sim --kernel examples/05_a_cuda_kernel_of_your_own.cu --sanitize
    minifcn bench ladder --device cuda --kernel examples/05_a_cuda_kernel_of_your_own.cu --baseline torch
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import minifcn
from minifcn import Tensor, cli, models
from minifcn.device import CudaDevice, get_device, load_kernel
from minifcn.gradcheck import check_op

FILE = Path(__file__).with_suffix(".cu")
SHAPE = "1x16x16x16->16"


def main(device: str = "cuda-sim") -> None:
    print("--- proven: the checker's random cases, strides, groups, NaN and all")
    name, kernel = load_kernel(str(FILE), device)
    report = check_op("conv2d", device, "float32", examples=5, kernels={name: kernel})
    print(f"{name}: {'passed' if report.passed else 'FAILED'}, {report.cases} cases")

    print("\n--- sanitized: one comparison is wrong, and the last thread writes beyond the output")
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder) / "broken.cu"
        broken.write_text(FILE.read_text("utf-8").replace("if (i >= (", "if (i > ("), "utf-8")
        on = CudaDevice("cuda-sim", sanitize=True)
        report = check_op("conv2d", on, "float32", examples=5, kernels=dict([load_kernel(str(broken), on)]))
        print(report.failures[0] if report.failures else "nothing found")
        assert not report.passed

    print("\n--- timed: a kernel that fails the gate has no time")
    options = ["--device", device, "--shape", SHAPE, "--rounds", "3", "--seconds", "0.02", "--kernel", str(FILE)]
    assert cli.main(["bench", "ladder", *options]) == 0

    print("\n--- inside a network: FCN-8s, 40x40 pixels")
    network = models.fcn8s(backbone="small", classes=8, width=0.25).eval()
    rng = np.random.default_rng(0)
    for parameter_name, parameter in network.named_parameters():
        if parameter_name.startswith("score_"):  # they start at zero
            parameter.data[...] = 0.1 * rng.standard_normal(parameter.shape)
    images = Tensor(rng.standard_normal((1, 3, 40, 40)).astype(np.float32), device=device)
    with minifcn.no_grad():
        expected = network.to(device)(images).numpy()
        with minifcn.replaced(device, **{name: kernel}):
            found = network(images).numpy()
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    print(f"logits with `{name}` of {FILE.name} differ from minifcn's by {difference:.0e} of the largest")
    assert difference < 1e-5


if __name__ == "__main__":
    main(get_device(sys.argv[1]).name if len(sys.argv) > 1 else "cuda-sim")
