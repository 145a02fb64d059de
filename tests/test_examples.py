"""Every example runs as a user runs it, and says what it should."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "00_train_evaluate_predict.py": "mean IU",
    "01_a_convolution_by_hand.py": "All agree to the last bit.",
    "02_backpropagation_step_by_step.py": "All agree to rounding.",
    "03_check_your_own_gradient.py": "smallest failing case: conv2d(",
    "04_benchmark_your_own_kernel.py": "logits with `improved` differ from minifcn's by",
    "05_a_cuda_kernel_of_your_own.py": "05_a_cuda_kernel_of_your_own.cu differ from minifcn's by",
}


def test_every_example_is_listed_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", sorted(SAYS))
def test_example(name, tmp_path):
    command = [sys.executable, str(EXAMPLES / name)]
    if name.startswith("00"):
        command.append(str(tmp_path))
    result = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert result.returncode == 0, result.stderr
    assert SAYS[name] in result.stdout
