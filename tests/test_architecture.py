"""The shape of the code: which way imports point, and that kernels, contract and derivations name the same things."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minifcn.kernels

from .devices import on_devices

ROOT = Path(__file__).resolve().parents[1]

# Each unit may import those of the rows above it, and never its own row.
ROWS = [
    {"errors", "kernels"},
    {"files", "markers"},
    {"device"},
    {"tensor"},
    {"ops"},
    {"nn"},
    {"models"},
    {"attribution", "checkpoint", "data", "metrics", "netgraph", "optim", "receptive"},
    {"labelgraph", "stepgraph", "tiling"},
    {"segmenter", "transfer", "viz", "weights"},
    {"configuration", "recognizer"},
    {"tasks"},
    {"training"},
    # tools: only the command line imports them
    {"alignment", "bench", "explain", "gradcheck", "ledger", "pictures", "planner"},
    {"recipes"},
    {"experiments"},
    {"cli"},
    {"__main__"},
]
RANK = {unit: rank for rank, row in enumerate(ROWS) for unit in row}
# A Tensor's operators are ops, which are built on Tensor: imported inside the one function that needs them.
EXCEPTIONS = {("tensor", "ops")}


def imported_units(source: str, package: tuple[str, ...]) -> set[str]:
    """The units of minifcn ("ops", "kernels", ...) that `source`, a file of `package`, imports anywhere in it."""
    found = set()

    def add(path: tuple[str, ...], names: list[str]) -> None:
        if path[:1] != ("minifcn",):
            return
        found.update(path[1:2] if len(path) > 1 else [name for name in names if name in RANK])

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                add(tuple(alias.name.split(".")), [])
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            path = base + tuple(node.module.split(".") if node.module else ())
            add(path, [alias.name for alias in node.names])
    return found


def sources() -> dict[Path, tuple[str, ...]]:
    """Every Python file, and the package whose relative imports it uses."""
    files = {}
    for folder, prefix in ((ROOT / "minifcn", ("minifcn",)), (ROOT / "kernels", ("minifcn", "kernels"))):
        for file in sorted(folder.rglob("*.py")):
            files[file] = prefix + file.parent.relative_to(folder).parts
    return files


def unit_of(file: Path, package: tuple[str, ...]) -> str:
    return package[1] if len(package) > 1 else file.stem


def forbidden(unit: str, imported: set[str]) -> set[str]:
    own = {unit} | {other for importer, other in EXCEPTIONS if importer == unit}
    return {other for other in imported - own if RANK[other] >= RANK[unit]}


FILES = {str(file.relative_to(ROOT)): (file, package) for file, package in sources().items()}


@pytest.mark.parametrize("name", FILES)
def test_imports_point_one_way(name):
    file, package = FILES[name]
    unit, imported = unit_of(file, package), imported_units(file.read_text("utf-8"), package)
    if unit == "__init__":  # the public names: everything but the tools and the command line
        assert not {other for other in imported if RANK[other] >= RANK["data"]} - {"optim"}
        return
    assert unit in RANK, f"{name} is a new unit: give it a row in ROWS"
    assert not forbidden(unit, imported), f"{name} imports what stands above it"


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("from .. import ops", ("minifcn", "nn"), {"ops"}),
        ("from ..training import run", ("minifcn", "ops"), {"training"}),
        ("from . import init", ("minifcn", "nn"), {"nn"}),
        ("from .tensor import Tensor", ("minifcn",), {"tensor"}),
        ("def f():\n    import minifcn.cli.train", ("minifcn", "ops"), {"cli"}),
        ("from minifcn import viz, __version__", ("minifcn", "data"), {"viz"}),
        ("from ...errors import E", ("minifcn", "kernels", "cpu"), {"errors"}),
        ("import numpy.random", ("minifcn", "ops"), set()),
    ],
)
def test_the_parser_sees_imports(source, package, expected):
    assert imported_units(source, package) == expected


def test_the_rule_can_fail():
    assert forbidden("ops", {"kernels", "tensor", "nn"}) == {"nn"}
    assert forbidden("kernels", {"kernels", "errors", "device"}) == {"errors", "device"}
    assert forbidden("training", {"gradcheck", "data"}) == {"gradcheck"}
    assert forbidden("data", {"metrics"}) == {"metrics"}
    assert forbidden("tensor", {"ops", "device"}) == set()


# --- kernels -----------------------------------------------------------------------------------------------------


def contract() -> dict[str, list[str]]:
    """{kernel: its parameters} of the table in the docstring of `minifcn.kernels`."""
    cells = [line.split("|")[1] for line in minifcn.kernels.__doc__.splitlines() if line.startswith("| ")]
    calls = [call for cell in cells for call in re.findall(r"(\w+)\(([^)]*)\)", cell)]
    return {name: [part.strip() for part in parameters.split(",")] for name, parameters in calls}


def test_the_contract_is_read():
    assert contract()["conv2d_forward"] == ["x", "w", "b", "stride", "padding", "dilation", "groups"]
    assert len(contract()) > 20


@pytest.mark.parametrize("device", on_devices(*minifcn.kernels.DEVICES))
def test_every_device_has_the_kernels_of_the_contract(device):
    kernels = minifcn.kernels.of(device)
    assert set(kernels.__all__) == set(contract())
    found = {name: list(inspect.signature(getattr(kernels, name)).parameters) for name in kernels.__all__}
    assert found == contract()


def test_devices_keep_the_same_kernels_in_files_of_the_same_names():
    def files(device: str) -> set[str]:
        return {file.name for file in (ROOT / "kernels" / device).glob("*.py")}

    assert files("reference") <= files("cpu") & files("cuda")


def test_every_cuda_launcher_stands_beside_its_source():
    folder = ROOT / "kernels" / "cuda"
    for file in (ROOT / "kernels" / "reference").glob("*.py"):
        assert file.stem == "__init__" or (folder / f"{file.stem}.cu").is_file()


def test_kernels_cannot_be_imported_under_another_projects_name():
    code = "import kernels"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "ImportError" in result.stderr
    assert "minifcn.kernels" in result.stderr


# --- ops ---------------------------------------------------------------------------------------------------------

OPS = sorted(file.stem for file in (ROOT / "minifcn" / "ops").glob("*.py"))


@pytest.mark.parametrize("name", [name for name in OPS if name not in ("__init__", "broadcasting")])
def test_every_op_has_its_derivation(name):
    text = ast.get_docstring(ast.parse((ROOT / "minifcn" / "ops" / f"{name}.py").read_text("utf-8")))
    assert [line for line in text.splitlines() if line in ("Forward", "Backward", "Source")] == [
        "Forward",
        "Backward",
        "Source",
    ]


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_what_it_is(name):
    file, _ = FILES[name]
    assert ast.get_docstring(ast.parse(file.read_text("utf-8")))


# --- import ------------------------------------------------------------------------------------------------------


def test_import_is_light():
    heavy = ("numba", "matplotlib", "rich", "PIL", "safetensors", "tomli_w", "hypothesis", "torch")
    code = f"import sys, minifcn; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
