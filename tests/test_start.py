"""What a user meets at the start of a command: the settings of the kernels, and word of their compilation."""

import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from numba.core.event import Event, EventStatus
from rich.console import Console
from rich.progress import Progress
from safetensors.numpy import load_file

from minifcn import cli
from minifcn.cli import compiling, console
from minifcn.cli.compiling import Compilation
from minifcn.configuration import TrainConfig
from minifcn.errors import MinifcnError, TrainingError
from minifcn.kernels.settings import POLICIES, RUNGS, settings
from minifcn.training import Run

TINY = {"data": "scenes:32x40", "width": 0.25, "batch": 4, "steps": 4}
TINY_OPTIONS = ["--data", "scenes:32x40", "--width", "0.25", "--batch", "4", "--no-ledger"]


# --- settings ----------------------------------------------------------------------------------------------------


def weights(folder) -> dict[str, np.ndarray]:
    return load_file(folder / "last.safetensors")


def same_bits(a, b) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_a_run_keeps_its_algorithm_whatever_the_settings_are_when_it_is_resumed(tmp_path):
    with settings.using(convolution="direct"):
        config = TrainConfig(**TINY)
        assert config.convolution == "direct"
        assert TrainConfig(**TINY, convolution="gemm").convolution == "gemm"
        Run.start(tmp_path / "whole", config).train()
        run = Run.start(tmp_path / "stopped", config)
        run.train(stop=lambda: run.standing.step >= 2)
    assert TrainConfig.from_toml(tmp_path / "whole" / "config.toml") == config
    with settings.using(convolution="gemm"):
        Run.start(tmp_path / "gemm", TrainConfig(**TINY)).train()
        Run.resume(tmp_path / "stopped").train()
        assert settings.convolution == "gemm"
    assert same_bits(tmp_path / "stopped", tmp_path / "whole")
    assert not same_bits(tmp_path / "gemm", tmp_path / "whole")  # or this test could not fail


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(TrainingError, match=r"convolution \(='magic'\) must be one of fastest, exact, direct"):
        TrainConfig(convolution="magic")


def test_the_environment_decides_for_a_new_run_only():
    code = "from minifcn import TrainConfig; print(TrainConfig().convolution)"
    for value in ("", "exact"):
        environment = os.environ | {"MINIFCN_CONVOLUTION": value}
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert result.stdout.strip() == (value or "fastest")


@pytest.mark.parametrize(
    "command",
    [
        ["train"],
        ["evaluate"],
        ["predict"],
        ["check"],
        *(["bench", what] for what in ("ladder", "layers", "step", "infer")),
    ],
)
def test_every_command_that_computes_takes_both_settings(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([*command, "--help"])
    text = capsys.readouterr().out
    assert "--threads" in text
    assert "--convolution" in text


@pytest.mark.parametrize(("name", "value"), [("threads", "0"), ("threads", "many"), ("convolution", "magic")])
def test_settings_out_of_range_are_named_by_their_option(name, value):
    chosen = console.chosen_settings(SimpleNamespace(**{name: value}))
    with pytest.raises(MinifcnError, match=rf"^--{name} \(='?{value}'?\) must be"):
        chosen.__enter__()


@pytest.mark.parametrize("convolution", POLICIES + RUNGS)
def test_settings_hold_for_the_command_alone(convolution, monkeypatch):
    seen, before = [], (settings.threads, settings.convolution)
    monkeypatch.setattr(
        "minifcn.cli.doctor.run", lambda arguments: seen.append((settings.threads, settings.convolution))
    )
    with console.chosen_settings(SimpleNamespace(threads="3", convolution=convolution)):
        assert cli.main(["doctor"]) == 0
    assert seen == [(3, convolution)]
    assert (settings.threads, settings.convolution) == before


def test_train_writes_its_algorithm_and_its_peak_memory(tmp_path, capsys):
    options = [
        *TINY_OPTIONS,
        "--steps",
        "2",
        "--run",
        str(tmp_path / "run"),
        "--convolution",
        "exact",
        "--threads",
        "1",
    ]
    assert cli.main(["train", *options]) == 0
    assert TrainConfig.from_toml(tmp_path / "run" / "config.toml").convolution == "exact"
    peak = [json.loads(line)["peak_mib"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(peak) == 2
    assert 0 < peak[0] <= peak[1] < 100
    assert "peak memory of the kernels' arrays: " in capsys.readouterr().out
    assert cli.main(["train", "--run", str(tmp_path / "run"), "--resume", "--convolution", "gemm"]) == 2
    assert "leave out --convolution" in capsys.readouterr().err


def test_doctor_shows_settings_and_what_kernels_are_compiled_for(capsys):
    with settings.using(convolution="exact", threads=3):
        assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    for row in ("threads", "convolution", "compiled for", "kernel cache"):
        assert f"\n{row} " in text
    assert "exact" in text
    assert "vectors of" in text


def test_a_command_imports_what_it_needs():
    code = (
        "import sys; from minifcn import cli\n"
        "try: cli.main(['train', '--help'])\n"
        "except SystemExit: print([name for name in ('hypothesis', 'matplotlib', 'numba') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


# --- word of compilation -----------------------------------------------------------------------------------------


def compiled(compilation: Compilation, module: str, *, within=()) -> None:
    """Tell of the compilation of a function of `module`, and of its callees' within it."""

    def kernel():
        """Stands for a compiled function."""

    kernel.__module__ = module
    about = {"data": {"dispatcher": SimpleNamespace(py_func=kernel)}, "kind": "numba:compile"}
    compilation.notify(Event(status=EventStatus.START, **about))
    for callee in within:
        compiled(compilation, callee)
    compilation.notify(Event(status=EventStatus.END, exc_details=(None, None, None), **about))


OURS = ("minifcn.kernels.cpu.gemm", "minifcn.kernels.cpu.runs", "minifcn.kernels.cpu.crop")


@pytest.fixture
def at_once(monkeypatch):
    """Everything is worth a word, and nothing is over by itself."""
    monkeypatch.setattr(compiling, "WORTH", 0.0)
    monkeypatch.setattr(compiling, "QUIET", 60.0)


@pytest.mark.usefixtures("at_once")
def test_a_log_gets_a_line_at_the_start_and_one_at_the_end(capsys):
    compilation = Compilation(Console(file=io.StringIO()))
    compiled(compilation, OURS[0], within=OURS[1:])
    compiled(compilation, OURS[2])
    assert capsys.readouterr().err == "compiling kernels for this processor, once\n"
    compilation.finish()
    output = capsys.readouterr()
    assert output.err.startswith("compiled 2 kernels in 0 s; they are kept in ")  # callees are no kernels
    assert output.err.count("\n") == 1
    assert output.out == ""
    compilation.finish()
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("busy", [False, True])
def test_a_terminal_gets_a_live_line(busy, capsys):
    """Also beside a progress bar."""
    terminal = Console(file=io.StringIO(), force_terminal=True, width=200)
    compilation = Compilation(terminal)
    with Progress(console=terminal, disable=not busy) as bar:
        bar.add_task("epoch 1", total=10)
        compiled(compilation, OURS[0])
        compiled(compilation, OURS[2])
        if compilation.live is not None:
            compilation.live.refresh()
        compilation.finish()
    text = terminal.file.getvalue()
    assert "compiling kernels for this processor, once" in text
    assert "compiled 2 kernels in 0 s; they are kept in " in text
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("at_once")
def test_a_users_kernel_is_his_own_affair(capsys):
    compilation = Compilation(Console(file=io.StringIO()))
    compiled(compilation, "mine", within=OURS[:1])
    compilation.finish()
    assert capsys.readouterr().err == ""
    compiled(compilation, OURS[0], within=["numba.cpython.builtins"])
    compilation.finish()
    assert "compiled 1 kernels" in capsys.readouterr().err


def test_little_is_not_worth_a_word(capsys):
    compilation = Compilation(Console(file=io.StringIO()))
    compiled(compilation, OURS[0])
    compilation.finish()
    assert capsys.readouterr().err == ""


def test_it_is_over_after_a_while(capsys, monkeypatch):
    monkeypatch.setattr(compiling, "WORTH", 0.0)
    monkeypatch.setattr(compiling, "QUIET", 0.02)
    compilation = Compilation(Console(file=io.StringIO()))
    compiled(compilation, OURS[0])
    compilation.timer.join(10)
    assert "compiled 1 kernels" in capsys.readouterr().err
    compiled(compilation, OURS[0])
    compilation.timer.join(10)
    assert "compiled 1 kernels" in capsys.readouterr().err


def test_a_first_run_says_so_and_a_second_one_does_not(tmp_path):
    options = ["--device", "cpu", "--dtype", "float32", "--examples", "1"]
    command = [sys.executable, "-m", "minifcn", "check", "max_pool2d", *options]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)
    )
    announced, done = first.stderr.splitlines()
    assert announced == "compiling kernels for this processor, once"
    assert done.endswith(f" s; they are kept in {tmp_path}")
    assert second.stderr == ""
    assert len(first.stdout.splitlines()) == len(second.stdout.splitlines())
