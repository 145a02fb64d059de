"""`minifcn doctor` on CUDA: each part present or missing, with what to install; no part hides another."""

import ctypes

import pytest

from minifcn import cli
from minifcn.kernels.cuda import parts
from minifcn.kernels.cuda.sim import build


def found():
    return {part.name.partition(": ")[2]: part for part in parts.parts()}


@pytest.fixture
def _no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    build.compiler.cache_clear()
    yield
    build.compiler.cache_clear()


@pytest.mark.usefixtures("_no_compiler")
def test_without_a_compiler():
    part = found()["C++ compiler"]
    assert not part.present
    assert "apt install g++" in part.about


def absent(name, *arguments, **named):
    raise OSError(f"{name}: cannot open shared object file")


def test_without_a_driver(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert "https://www.nvidia.com/drivers" in found()["NVIDIA driver"].about
    assert found()["GPU"].about == "without a driver none can be seen"


class Driver:
    """A driver's library that knows `names`."""

    def __init__(self, names):
        self.names = names

    def cuInit(self, flags):
        return 0 if self.names else 100

    def cuDriverGetVersion(self, to):
        to._obj.value = 13020

    def cuDeviceGetCount(self, to):
        to._obj.value = len(self.names)
        return 0

    def cuDeviceGet(self, to, number):
        to._obj.value = number

    def cuDeviceGetName(self, to, size, device):
        to.value = self.names[device.value].encode()


@pytest.mark.parametrize(
    ("names", "says"),
    [((), "the driver sees none (CUDA_VISIBLE_DEVICES?)"), (("H100", "H200"), "H100, H200")],
)
def test_with_a_driver(monkeypatch, names, says):
    monkeypatch.setattr(parts, "_library", lambda: Driver(names))
    assert found()["NVIDIA driver"].about == "for CUDA 13.2"
    assert (found()["GPU"].present, found()["GPU"].about) == (bool(names), says)


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    assert "pip install 'minifcn[cuda13]'" in found()["CuPy"].about
    assert not found()["NVRTC"].present


def test_doctor_shows_every_part(monkeypatch, capsys):
    """Brackets and all: they are no markup."""
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    assert cli.main(["doctor"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in parts.PARTS:
        assert name in text
    assert "'minifcn[cuda13]'" in text
