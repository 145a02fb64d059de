"""`minifcn.config`: what can be set, what is refused and in which words, blocks, and the environment."""

import os
import subprocess
import sys

import pytest

import minifcn
from minifcn.kernels import settings as module
from minifcn.kernels.cpu.ladder import RUNGS
from minifcn.kernels.settings import POLICIES, SettingError, Settings, settings


def test_it_is_the_config_of_the_package():
    assert minifcn.config is settings


def test_the_rungs_are_those_of_the_ladder():
    assert tuple(RUNGS) == module.CPU_RUNGS
    assert set(module.RUNGS) == {*module.CPU_RUNGS, *module.CUDA_RUNGS}


@pytest.mark.parametrize("value", [0, -1, 257, 1.5, "", "two", None, True, "1 "])
def test_threads_that_are_no_number_from_1_to_256_are_refused(value):
    before = settings.threads
    with pytest.raises(SettingError) as caught:
        settings.threads = value
    assert str(caught.value) == f"threads (={value}) must be an integer from 1 to 256"
    assert settings.threads == before


@pytest.mark.parametrize("value", ["", "slow", "Winograd4", None, 4])
def test_an_unknown_convolution_is_refused_with_the_list(value):
    before = settings.convolution
    with pytest.raises(SettingError) as caught:
        settings.convolution = value
    listed = (
        "fastest, exact, direct, gemm, pointwise, taps, winograd1d, winograd2, winograd4, naive, tiled, blocked, tensor"
    )
    assert str(caught.value) == f"convolution (={value!r}) must be one of {listed}"
    assert settings.convolution == before


@pytest.mark.parametrize("value", [*POLICIES, *module.RUNGS])
def test_using_puts_back_what_was_there(value):
    before = settings.threads, settings.convolution
    with settings.using(threads=7, convolution=value):
        assert (settings.threads, settings.convolution) == (7, value)
        with settings.using(threads="3"):
            assert settings.threads == 3
        assert settings.threads == 7
    assert (settings.threads, settings.convolution) == before


def test_using_puts_back_after_an_error():
    before = settings.threads, settings.convolution
    with pytest.raises(ZeroDivisionError), settings.using(threads=3, convolution="gemm"):
        _ = 1 / 0
    with pytest.raises(SettingError, match=r"convolution \(='slow'\)"), settings.using(threads=3, convolution="slow"):
        pass
    assert (settings.threads, settings.convolution) == before


def test_using_refuses_settings_that_do_not_exist():
    with (
        pytest.raises(SettingError, match="cores, speed: no such setting; there are threads, convolution"),
        settings.using(speed=1, cores=2),
    ):
        pass


def test_the_environment(monkeypatch):
    for name in ("MINIFCN_THREADS", "MINIFCN_CONVOLUTION"):
        monkeypatch.delenv(name, raising=False)
    assert Settings().convolution == "fastest"
    assert 1 <= Settings().threads <= (os.cpu_count() or 1)
    monkeypatch.setenv("MINIFCN_THREADS", "5")
    monkeypatch.setenv("MINIFCN_CONVOLUTION", "exact")
    assert (Settings().threads, Settings().convolution) == (5, "exact")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MINIFCN_THREADS", "threads (=many) must be an integer from 1 to 256"),
        ("MINIFCN_CONVOLUTION", "convolution (='many') must be one of fastest, exact, direct"),
    ],
)
def test_a_wrong_environment_is_refused_in_a_sentence(name, message):
    found = subprocess.run(
        [sys.executable, "-m", "minifcn", "doctor"],
        env=os.environ | {name: "many"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2
    assert found.stderr.startswith("minifcn doctor: ")
    assert message in found.stderr
    assert "Traceback" not in found.stderr
