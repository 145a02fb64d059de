"""The generated code is looked at: each kernel that launchers can ask for, on two architectures."""

import re
from dataclasses import replace

import pytest

from minifcn.kernels.cuda import LAUNCHERS, source

from . import budget, nvrtc
from .calls import DTYPES, calls, instances
from .nvrtc import NEEDS_NVRTC

pytestmark = NEEDS_NVRTC


@pytest.fixture(scope="module")
def found():
    return budget.measure()


def test_every_kernel_is_within_its_budget(found):
    assert list(budget.complaints(found, budget.read())) == []


def test_tensor_cores_are_used(found):
    tensor = [one for (file, _, _), one in found.items() if file == "conv2d_tensor.cu"]
    assert len(tensor) > 20
    assert all("HMMA" in one.opcodes for one in tensor)
    assert any("LDGSTS" in one.opcodes for one in tensor)


def test_every_launcher_and_every_kernel_is_met():
    """No launcher without a call, no `__global__` function without an instance."""
    assert {name for dtype in DTYPES for name, _ in calls(dtype)} == {one.__name__ for one in LAUNCHERS}
    written = set()
    for path in [source.FOLDER / "common.cuh", *(source.path_of(file) for file in instances())]:
        text = re.sub(r"__launch_bounds__\((?:[^()]|\([^()]*\))*\)", "", path.read_text())
        written |= set(re.findall(r"__global__\s+void\s+(\w+)\s*\(", text))
    met = {expression.partition("<")[0] for expressions in instances().values() for expression in expressions}
    assert written - met == set()


def test_what_exceeds_a_budget_is_named():
    one = budget.Found(40, 1024, 0, ("HMMA",))
    allowed = {"a.cu": {"k<float>": {"sm_80": {"registers": 40, "shared": 1024}, "required": ["HMMA"]}}}
    key = ("a.cu", "k<float>", "sm_80")
    assert list(budget.complaints({key: one}, allowed)) == []
    for change, says in (
        ({"registers": 41}, "registers 41, allowed are 40"),
        ({"shared": 1028}, "shared 1028, allowed are 1024"),
        ({"local": 8}, "local 8, allowed are 0"),
        ({"opcodes": ()}, "has no HMMA"),
        ({"opcodes": ("HMMA", "STL")}, "has STL"),
    ):
        (sentence,) = budget.complaints({key: replace(one, **change)}, allowed)
        assert says in sentence
    assert list(budget.complaints({("a.cu", "k<int>", "sm_80"): one}, {"a.cu": {}})) == ["a.cu: k<int> has no budget"]
    assert list(budget.complaints({}, allowed)) == ["a.cu: k<float> is asked for by no launcher"]


FAT = """
// A thousand sums at once do not fit into registers; indexed by an argument they do not even try.
__global__ void fat(const float* x, float* y, int at) {
    float sums[300];
    for (int i = 0; i < 300; i++) sums[i] = x[i];
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 300; i++) sums[i] += sums[(i + at) % 300];
    y[threadIdx.x] = sums[threadIdx.x];
}
__global__ void slim(float* y) { y[threadIdx.x] = 1; }
"""


def test_local_memory_is_seen(tmp_path):
    (tmp_path / "fat.cu").write_text(FAT)
    measured = budget.measure({str(tmp_path / "fat.cu"): ("fat", "slim")})
    for (_, name, _), one in measured.items():
        assert (one.local > 1000) == (name == "fat")


@pytest.mark.skipif(nvrtc.disassembler() is None, reason="nvdisasm is not installed")
def test_machine_code_is_read(tmp_path):
    (tmp_path / "fat.cu").write_text(FAT)
    for arch in nvrtc.ARCHES:
        code = nvrtc.compile_source(str(tmp_path / "fat.cu"), ("fat", "slim"), arch)
        counted = nvrtc.instructions(code)
        assert counted["_Z3fatPKfPfi"]["LDL"] > 0
        assert counted["_Z3fatPKfPfi"]["STL"] > 0
        assert counted["_Z4slimPf"]["STG"] == 1
        assert counted["_Z4slimPf"]["STL"] == 0


def test_a_source_that_does_not_compile_is_shown(tmp_path):
    (tmp_path / "wrong.cu").write_text("__global__ void wrong(float* y) { y[0] = nothing; }")
    with pytest.raises(nvrtc.NvrtcError, match=r'wrong\.cu\(1\): error: identifier "nothing" is undefined'):
        nvrtc.compile_source(str(tmp_path / "wrong.cu"), ("wrong",), "sm_80")
