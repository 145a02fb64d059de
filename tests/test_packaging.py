"""The wheel: what is in it, and that it works away from the checkout."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Standard output of a command that must succeed."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    result = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def builder(out: Path) -> list[str]:
    """The command that builds a wheel into `out` with the tools of this environment, offline."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed: the wheel cannot be built offline")
    if int(metadata.version("setuptools").split(".")[0]) < 70 and importlib.util.find_spec("wheel") is None:
        pytest.skip("setuptools before 70 needs the package wheel to build one")
    build = importlib.util.find_spec("build")
    if build and build.origin:  # a left-over folder of that name has none
        return [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    if importlib.util.find_spec("pip"):
        options = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check"]
        return [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(out)]
    pytest.skip("neither build nor pip is installed")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy of the sources: a build leaves folders beside setup.cfg."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    files = [ROOT / name for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")]
    for folder in ("minifcn", "kernels"):
        files += [file for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    for file in filter(Path.exists, files):
        copy = source / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    run(*builder(out), str(source), cwd=source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel's files, as pip lays them out for a pure-Python wheel."""
    target = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def test_every_source_file_is_in_the_wheel(wheel):
    expected = {str(file.relative_to(ROOT)) for file in (ROOT / "minifcn").rglob("*.py")}
    sources = (file for file in (ROOT / "kernels").rglob("*.*") if file.suffix in (".py", ".cu", ".cuh", ".h", ".cpp"))
    expected |= {"minifcn/" + str(file.relative_to(ROOT)) for file in sources}
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {"minifcn/kernels/cpu/conv2d.py", "minifcn/kernels/cuda/conv2d.cu"} <= found
    assert found == {name.replace(os.sep, "/") for name in expected}


def test_the_wheel_owns_no_other_name(wheel):
    """A top-level `kernels` would overwrite another project's package."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        (names,) = (name for name in archive.namelist() if name.endswith("top_level.txt"))
        assert archive.read(names).decode().split() == ["minifcn"]
    assert {top for top in tops if not top.endswith(".dist-info")} == {"minifcn"}


def test_the_wheel_has_the_command_and_the_licence(wheel):
    with zipfile.ZipFile(wheel) as archive:
        texts = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist() if ".dist-info/" in name}
    assert b"minifcn = minifcn.cli:main" in texts["entry_points.txt"]
    assert any(name.endswith("LICENSE") for name in texts)
    assert b"Name: minifcn" in texts["METADATA"]


CONVOLUTION = """
import sys, pathlib, minifcn, numpy as np
assert pathlib.Path(minifcn.__file__).parent == pathlib.Path(sys.argv[1], "minifcn"), minifcn.__file__
assert pathlib.Path(minifcn.kernels.__file__).parent == pathlib.Path(sys.argv[1], "minifcn", "kernels")
x = minifcn.Tensor(np.arange(9.0).reshape(1, 1, 3, 3), requires_grad=True, device="reference")
w = minifcn.Tensor(np.array([[[[1.0, 0.0], [0.0, 2.0]]]]), device="reference")
y = minifcn.conv2d(x, w)
y.sum().backward()
print(y.numpy().ravel().tolist(), x.grad.numpy().ravel().tolist())
print(minifcn.relu(minifcn.Tensor([-1.0, 2.0])).numpy().tolist())
"""


def test_an_installed_wheel_computes(installed, tmp_path):
    """Reference: y = x[p,q] + 2 x[p+1,q+1] on 0..8, so 0 + 8, 1 + 10, 3 + 14, 4 + 16; dx counts each pixel's uses.

    The compiled kernels: ReLU, because a convolution takes 10 seconds to compile.
    """
    environment = {"PYTHONPATH": str(installed), "NUMBA_CACHE_DIR": str(tmp_path)}
    text = run(sys.executable, "-c", CONVOLUTION, str(installed), cwd=tmp_path, **environment)
    assert text.splitlines() == [
        "[8.0, 11.0, 17.0, 20.0] [1.0, 1.0, 0.0, 1.0, 3.0, 2.0, 0.0, 2.0, 2.0]",
        "[0.0, 2.0]",
    ]


def test_an_installed_wheel_runs_a_command(installed, tmp_path):
    words = ("align", "fcn8s", "--geometry", "pad100", "--size", "97x131")
    text = run(sys.executable, "-m", "minifcn", *words, cwd=tmp_path, PYTHONPATH=str(installed))
    assert "Aligned" in text


def test_an_installed_wheel_trains(installed, tmp_path):
    """A few steps away from the checkout, on the device that needs no compiler."""
    words = (
        "train",
        "--data",
        "scenes:32x32",
        "--width",
        "0.1",
        "--batch",
        "2",
        "--steps",
        "2",
        "--device",
        "reference",
    )
    text = run(sys.executable, "-m", "minifcn", *words, cwd=tmp_path, PYTHONPATH=str(installed))
    assert "best mean IU" in text
    (folder,) = (tmp_path / "runs").iterdir()
    assert {"last.safetensors", "best.safetensors", "metrics.csv"} <= {path.name for path in folder.iterdir()}
