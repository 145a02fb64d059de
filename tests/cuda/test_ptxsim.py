"""The PTX interpreter, instruction by instruction, against Python's integers and fractions; and what it refuses."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import ptxmath, ptxparse, ptxsim
from .ptxparse import PtxError

EDGES = [0, 1, 2, 3, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF, 0x12345678]


def program(body, parameters=""):
    """A kernel of this body."""
    return f"""
.version 8.0
.target sm_80
.address_size 64
.visible .entry kernel({parameters})
{{
    .reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<20>; .reg .f32 %f<20>; .reg .b64 %rd<20>; .reg .f64 %fd<20>;
    {body}
    ret;
}}
"""


def run(instructions, arrays, threads=None, grid=(1, 1, 1), block=None, shared=0):
    """Run `instructions`, given %rd0.. as this thread's places in `arrays`, 8 bytes a thread."""
    parameters = ", ".join(f".param .u64 .ptr .align 1 p{i}" for i in range(len(arrays)))
    lines = ["mov.u32 %r19, %tid.x;", "mul.wide.u32 %rd19, %r19, 8;"]
    for i in range(len(arrays)):
        lines += [f"ld.param.u64 %rd{i}, [p{i}];", f"add.s64 %rd{i}, %rd{i}, %rd19;"]
    entry = ptxparse.parse(program("\n".join([*lines, instructions]), parameters))["kernel"]
    return ptxsim.launch(entry, grid, block or (threads or len(arrays[0]), 1, 1), tuple(arrays), shared)


def computed(instruction, *operands, kind="u32"):
    """`instruction` of %a, %b, %c (wide registers of bits `operands`) to %d, for every thread; the bits of %d."""
    width = {"u16": "b16", "u32": "b32", "f32": "b32", "u64": "b64", "f64": "b64"}[kind]
    register = {"b16": "%rs", "b32": "%f" if kind == "f32" else "%r", "b64": "%fd" if kind == "f64" else "%rd"}[width]
    names, lines = "abc", []
    for i in range(len(operands)):
        lines.append(f"ld.global.{width} {register}{8 - i}, [%rd{i}];")
        instruction = instruction.replace(f"%{names[i]}", f"{register}{8 - i}")
    result = np.zeros(len(operands[0]), np.uint64)
    into = "%r9" if "%D" in instruction else register + "5"
    lines += [instruction.replace("%d", into).replace("%D", into), f"st.global.b{32 if into == '%r9' else width[1:]}"]
    lines[-1] += f" [%rd{len(operands)}], {into};"
    run("\n".join(lines), [*(np.array(one, np.uint64) for one in operands), result])
    return [int(one) for one in result]


def pairs(width=32, count=60, seed=0):
    rng = np.random.default_rng(seed)
    scale = width - 32
    edges = [edge << scale | edge >> (32 - scale) if scale > 0 else edge & (1 << width) - 1 for edge in EDGES]
    a = [a for a in edges for _ in edges] + [int(x) for x in rng.integers(0, 1 << width, count, np.uint64)]
    b = [b for _ in edges for b in edges] + [int(x) for x in rng.integers(0, 1 << width, count, np.uint64)]
    return a, b


def signed(value, width=32):
    return value - (value >> width - 1 << width)


def truncated(a, b):
    """C's quotient."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


INTEGERS = {
    "add.s32 %d, %a, %b;": lambda a, b: a + b,
    "sub.s32 %d, %a, %b;": lambda a, b: a - b,
    "mul.lo.s32 %d, %a, %b;": lambda a, b: a * b,
    "mul.hi.u32 %d, %a, %b;": lambda a, b: a * b >> 32,
    "mul.hi.s32 %d, %a, %b;": lambda a, b: signed(a) * signed(b) >> 32,
    "mad.lo.s32 %d, %a, %b, %a;": lambda a, b: a * b + a,
    "min.s32 %d, %a, %b;": lambda a, b: min(signed(a), signed(b)),
    "max.u32 %d, %a, %b;": max,
    "and.b32 %d, %a, %b;": lambda a, b: a & b,
    "not.b32 %d, %a;": lambda a, b: ~a,
    "neg.s32 %d, %a;": lambda a, b: -a,
    "abs.s32 %d, %a;": lambda a, b: abs(signed(a)),
    "shl.b32 %d, %a, %b;": lambda a, b: a << b if b < 32 else 0,
    "shr.u32 %d, %a, %b;": lambda a, b: a >> b if b < 32 else 0,
    "shr.s32 %d, %a, %b;": lambda a, b: signed(a) >> min(b, 31),
    "shf.l.wrap.b32 %d, %a, %b, %a;": lambda a, b: (b << 32 | a) << (a & 31) >> 32,
    "shf.r.clamp.b32 %d, %a, %b, %b;": lambda a, b: (b << 32 | a) >> min(b, 32),
    "bfe.u32 %d, %a, 5, 9;": lambda a, b: a >> 5 & 511,
    "bfe.s32 %d, %a, 20, 30;": lambda a, b: signed(a) >> 20,
    "bfi.b32 %d, %a, %b, 7, 11;": lambda a, b: (b & ~(2047 << 7)) | (a & 2047) << 7,
    "popc.b32 %d, %a;": lambda a, b: a.bit_count(),
    "clz.b32 %d, %a;": lambda a, b: 32 - a.bit_length(),
    "brev.b32 %d, %a;": lambda a, b: int(f"{a:032b}"[::-1], 2),
    "lop3.b32 %d, %a, %b, 12345, 0xE8;": lambda a, b: a & b | a & 12345 | b & 12345,  # the majority
    "prmt.b32 %d, %a, %b, 0x7531;": lambda a, b: odd_bytes(a, b),
    "cvt.s32.s8 %d, %a;": lambda a, b: signed(a & 255, 8),
    "cvt.u32.u16 %d, %a;": lambda a, b: a & 0xFFFF,
}
WIDE = {
    "mul.lo.s64 %d, %a, %b;": lambda a, b: a * b,
    "mul.hi.u64 %d, %a, %b;": lambda a, b: a * b >> 64,
    "mul.hi.s64 %d, %a, %b;": lambda a, b: signed(a, 64) * signed(b, 64) >> 64,
    "bfi.b64 %d, %a, %b, 40, 30;": lambda a, b: (b & ~((1 << 64) - (1 << 40))) | a << 40 & (1 << 64) - 1,
    "shr.u64 %d, %a, 33;": lambda a, b: a >> 33,
    "clz.b64 %D, %a;": lambda a, b: 64 - a.bit_length(),
}


def odd_bytes(a, b):
    """Bytes 7, 5, 3, 1 of b a, the highest first."""
    both = (b << 32 | a).to_bytes(8, "little")
    return int.from_bytes(both[1::2], "little")


@pytest.mark.parametrize("instruction", INTEGERS)
def test_integers(instruction):
    a, b = pairs()
    expected = [INTEGERS[instruction](*one) & 0xFFFFFFFF for one in zip(a, b, strict=True)]
    assert computed(instruction, a, b) == expected


@pytest.mark.parametrize("instruction", WIDE)
def test_wide_integers(instruction):
    a, b = pairs(64)
    expected = [WIDE[instruction](*one) & (1 << 64) - 1 for one in zip(a, b, strict=True)]
    assert computed(instruction, a, b, kind="u64") == expected


def test_division_is_that_of_c():
    a, b = zip(*((a, b) for a, b in zip(*pairs(), strict=True) if b), strict=True)
    for instruction, expected in (
        ("div.u32 %d, %a, %b;", [x // y for x, y in zip(a, b, strict=True)]),
        ("rem.u32 %d, %a, %b;", [x % y for x, y in zip(a, b, strict=True)]),
        ("div.s32 %d, %a, %b;", [truncated(signed(x), signed(y)) for x, y in zip(a, b, strict=True)]),
    ):
        assert computed(instruction, a, b) == [one & 0xFFFFFFFF for one in expected]


def test_an_integer_of_twice_the_width():
    a, b = pairs()
    array = np.zeros(len(a), np.uint64)
    code = (
        "ld.global.u32 %r1, [%rd0]; ld.global.u32 %r2, [%rd1]; mul.wide.s32 %rd9, %r1, %r2; st.global.u64 [%rd2], %rd9;"
    )
    run(code, [np.array(a, np.uint64), np.array(b, np.uint64), array])
    assert array.tolist() == [signed(x) * signed(y) & (1 << 64) - 1 for x, y in zip(a, b, strict=True)]


# --- floats ------------------------------------------------------------------------------------------------------


def bits32(values):
    return [int(one) for one in np.asarray(values, np.float32).view(np.uint32)]


def nearest(exact):
    """A fraction in float32, ties to even: Python's division rounds to float64 once, numpy must not round again."""
    low = np.float32(exact.numerator / exact.denominator)
    around = [np.nextafter(low, np.float32(-np.inf)), low, np.nextafter(low, np.float32(np.inf))]
    best = min(abs(Fraction(float(one)) - exact) for one in around)
    ties = [one for one in around if abs(Fraction(float(one)) - exact) == best]
    return next(one for one in ties if len(ties) == 1 or int(one.view(np.uint32)) % 2 == 0)


@given(st.integers(0, 2**32 - 1))
def test_fused_multiply_add_rounds_once(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal(20).astype(np.float32) for _ in range(2))
    c = -(a.astype(np.float64) * b).astype(np.float32) * rng.choice([0, 1, 2.0**-20, 2.0**24], 20).astype(np.float32)
    expected = [nearest(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))) for x, y, z in zip(a, b, c)]  # noqa: B905
    assert ptxmath.fma(a, b, c).tolist() == [float(one) for one in expected]
    a, b = a.astype(np.float64) + 1e-9, b.astype(np.float64) - 1e-9
    c = -(a * b) * rng.choice([0, 1, 2.0**-50, 2.0**53], 20)
    exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c)]  # noqa: B905
    assert ptxmath.fma(a, b, c).tolist() == [one.numerator / one.denominator for one in exact]


def test_a_double_rounding_is_avoided():
    """1 + 2^-23 + 2^-24 - 2^-68: float64 drops the last term, and float32 would then see a tie, and go up."""
    a, b, c = (np.float32([one]) for one in ((1 + 2.0**-22) * 2.0**-24, 1 - 2.0**-22, 1 + 2.0**-23))
    assert (a.astype(np.float64) * b + c).astype(np.float32) == 1 + 2.0**-22
    assert ptxmath.fma(a, b, c) == c


def test_directed_rounding():
    x = np.array([1 + 2.0**-30, -1 - 2.0**-30, 1.0])
    up, down = np.nextafter(np.float32(1), np.float32(2)), np.float32(1)
    assert ptxmath.to_float32(x, "rp").tolist() == [up, -down, 1]
    assert ptxmath.to_float32(x, "rm").tolist() == [down, -up, 1]
    assert ptxmath.to_float32(x, "rz").tolist() == [down, -down, 1]


FLOATS = np.array([0.0, -0.0, 1.5, -2.25, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e38], np.float32)


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("max.f32 %d, %a, %b;", lambda a, b: a if b != b else b if a != a else larger(a, b)),
        ("max.NaN.f32 %d, %a, %b;", lambda a, b: np.nan if a != a or b != b else larger(a, b)),
        ("add.f32 %d, %a, %b;", lambda a, b: a + b),
        ("mul.f32 %d, %a, %b;", lambda a, b: a * b),
        ("add.ftz.f32 %d, %a, %b;", lambda a, b: flushed(flushed(a) + flushed(b))),
        ("neg.f32 %d, %a;", lambda a, b: -a),
    ],
)
def test_floats(instruction, expected):
    a, b = np.repeat(FLOATS, len(FLOATS)), np.tile(FLOATS, len(FLOATS))
    found = (
        np.array(computed(instruction, bits32(a), bits32(b), kind="f32"), np.uint64).astype(np.uint32).view(np.float32)
    )
    with np.errstate(all="ignore"):
        wanted = np.array([expected(x, y) for x, y in zip(a, b, strict=True)], np.float32)
    nan = np.isnan(wanted)
    assert np.array_equal(np.isnan(found), nan)
    assert found[~nan].tobytes() == wanted[~nan].tobytes()  # the sign of zero, too


def larger(a, b):
    """The maximum, 0 above -0."""
    return b if a < b or (a == b and np.signbit(a)) else a


def flushed(x):
    return np.copysign(np.float32(0), x) if abs(x) < 2.0**-126 else x


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "ge", "equ", "neu", "ltu", "num", "nan"])
def test_comparisons_know_nan(name):
    a, b = np.repeat(FLOATS, len(FLOATS)), np.tile(FLOATS, len(FLOATS))
    unordered = np.isnan(a) | np.isnan(b)
    plain = {"eq": a == b, "ne": a != b, "lt": a < b, "ge": a >= b}
    expected = {"num": ~unordered, "nan": unordered, "equ": plain["eq"] | unordered, "neu": plain["ne"] | unordered}
    expected |= {"ltu": plain["lt"] | unordered, **{key: value & ~unordered for key, value in plain.items()}}
    code = f"setp.{name}.f32 %p1, %a, %b; selp.u32 %D, 1, 0, %p1;"
    assert computed(code, bits32(a), bits32(b), kind="f32") == expected[name].astype(int).tolist()


def test_predicates_combine():
    """setp with a second predicate, and its complement."""
    code = (
        "setp.lt.u32 %p1, %a, 5; setp.gt.and.u32 %p2|%p3, %b, 2, %p1; selp.u32 %d, 1, 0, %p2; @%p3 add.u32 %d, %d, 2;"
    )
    a, b = [1, 9, 1, 9], [1, 1, 3, 3]
    assert computed(code, a, b) == [2, 0, 1, 0]  # %p3 is not (b > 2), and %p1


def test_conversions():
    x = np.array([1.5, 2.5, -1.5, 3e9, -3e9, np.nan, np.inf, 0.7], np.float32)
    for rounding, whole in (("rni", np.rint), ("rzi", np.trunc), ("rmi", np.floor), ("rpi", np.ceil)):
        found = computed(f"cvt.{rounding}.s32.f32 %D, %a;", bits32(x), kind="f32")
        expected = [0 if one != one else int(np.clip(whole(float(one)), -(2.0**31), 2.0**31 - 1)) for one in x]
        assert [signed(one) for one in found] == expected
    numbers = [0, 1, 16777217, 0xFFFFFFFF, 0x80000000]
    assert computed("cvt.rn.f32.s32 %D, %a;", numbers) == bits32(np.array(numbers, np.uint32).view(np.int32))


def test_parts_of_a_register():
    code = "mov.b32 {%rs1, %rs2}, %a; mov.b32 %d, {%rs2, %rs1};"
    assert computed(code, EDGES) == [(a >> 16) | (a & 0xFFFF) << 16 for a in EDGES]


# --- control, warps, memory --------------------------------------------------------------------------------------


def test_lanes_part_and_meet():
    """Each lane loops as often as its number says; then the whole warp exchanges."""
    out = np.zeros(32, np.uint64)
    run(
        """
        mov.u32 %r1, %tid.x; mov.u32 %r2, 0;
        $AGAIN: setp.eq.u32 %p1, %r1, 0; @%p1 bra $OUT;
        add.u32 %r2, %r2, %r1; sub.u32 %r1, %r1, 1; bra.uni $AGAIN;
        $OUT: shfl.sync.bfly.b32 %r3|%p2, %r2, 1, 31, -1;
        cvt.u64.u32 %rd9, %r3; st.global.u64 [%rd0], %rd9;""",
        [out],
    )
    assert out.tolist() == [(i ^ 1) * ((i ^ 1) + 1) // 2 for i in range(32)]


@pytest.mark.parametrize(
    ("mode", "b", "c", "source"),
    [
        ("up", 3, 0, lambda i: i - 3 if i >= 3 else i),
        ("down", 3, 31, lambda i: i + 3 if i + 3 <= 31 else i),
        ("idx", 5, 31, lambda i: 5),
        ("bfly", 16, 31, lambda i: i ^ 16),
        ("up", 1, (24 << 8), lambda i: i - 1 if i % 8 else i),  # within segments of 8
        ("idx", 2, (24 << 8) | 31, lambda i: i // 8 * 8 + 2),
    ],
)
def test_shuffles(mode, b, c, source):
    out = np.zeros(32, np.uint64)
    run(
        f"mov.u32 %r1, %tid.x; shfl.sync.{mode}.b32 %r2, %r1, {b}, {c}, -1; cvt.u64.u32 %rd9, %r2;"
        "st.global.u64 [%rd0], %rd9;",
        [out],
    )
    assert out.tolist() == [source(i) for i in range(32)]


def test_votes_and_sums_of_a_warp():
    out = [np.zeros(64, np.uint64) for _ in range(3)]
    run(
        """
        mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 40; vote.sync.ballot.b32 %r2, %p1, -1;
        cvt.u64.u32 %rd9, %r2; st.global.u64 [%rd0], %rd9;
        vote.sync.all.pred %p2, %p1, -1; selp.u64 %rd9, 1, 0, %p2; st.global.u64 [%rd1], %rd9;
        redux.sync.max.u32 %r3, %r1, -1; cvt.u64.u32 %rd9, %r3; st.global.u64 [%rd2], %rd9;""",
        out,
    )
    assert out[0].tolist() == [0xFFFFFFFF] * 32 + [0xFF] * 32
    assert out[1].tolist() == [1] * 32 + [0] * 32
    assert out[2].tolist() == [31] * 32 + [63] * 32


SHARED = ".shared .align 16 .b8 buffer[512];"


def test_barriers_and_shared_memory():
    """Reversed through shared memory, in several blocks at once; blocks do not see each other's."""
    out = np.zeros(64, np.uint64)
    code = f"""{SHARED}
        mov.u32 %r1, %tid.x; mov.u32 %r3, %ctaid.x; mad.lo.u32 %r4, %r3, 64, %r1; mov.u32 %r2, buffer;
        shl.b32 %r5, %r1, 2; add.u32 %r6, %r2, %r5; st.shared.u32 [%r6], %r4; bar.sync 0;
        sub.u32 %r7, 63, %r1; shl.b32 %r7, %r7, 2; add.u32 %r7, %r2, %r7; ld.shared.u32 %r8, [%r7];
        setp.ne.u32 %p1, %r3, 1; @%p1 bra $END; cvt.u64.u32 %rd9, %r8; st.global.u64 [%rd0], %rd9; $END:"""
    run(code, [out], grid=(3, 1, 1))
    assert out.tolist() == [64 + 63 - i for i in range(64)]


def test_shared_memory_begins_as_poison():
    out = np.zeros(1, np.uint64)
    run(f"{SHARED} ld.shared.u64 %rd9, [buffer+8]; st.global.u64 [%rd0], %rd9;", [out])
    assert out.tolist() == [2**64 - 1]


def test_local_memory_is_each_lane_s_own():
    out = np.zeros(64, np.uint64)
    code = """.local .align 8 .b8 depot[16];
        mov.u64 %rd8, depot; cvta.local.u64 %rd9, %rd8; mov.u32 %r1, %tid.x; cvt.u64.u32 %rd7, %r1;
        st.u64 [%rd9+8], %rd7; bar.sync 0; ld.local.u64 %rd6, [%rd8+8]; st.global.u64 [%rd0], %rd6;"""
    run(code, [out])
    assert out.tolist() == list(range(64))


def test_a_copy_lands_when_it_is_waited_for():
    """Without a wait the poison is read: hardware may copy at any moment until then."""
    source, out = np.arange(2, dtype=np.uint64), np.zeros(2, np.uint64)
    code = (
        SHARED + "cp.async.cg.shared.global [buffer], [%rd0], 16, 8; cp.async.commit_group; {wait}"
        "ld.shared.v2.u64 {{%rd8, %rd9}}, [buffer]; st.global.v2.u64 [%rd1], {{%rd8, %rd9}};"
    )
    source += 7
    run(code.format(wait="cp.async.wait_group 1;"), [source, out], threads=1)
    assert out.tolist() == [2**64 - 1] * 2
    run(code.format(wait="cp.async.wait_group 0;"), [source, out], threads=1)
    assert out.tolist() == [7, 0]


READ_ONLY = np.zeros(4, np.uint64)
READ_ONLY.setflags(write=False)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("ld.global.u64 %rd9, [%rd0+8];", "8 bytes at byte 32 of argument 0 of kernel, which has 32"),
        ("ld.global.v2.u64 {%rd8, %rd9}, [%rd0+-16];", "at byte -16 of argument 0"),
        ("ld.global.u32 %r1, [%rd0+2];", "at byte 2 of argument 0 of kernel is not aligned to 4"),
        ("mov.u64 %rd9, 0; ld.global.u32 %r1, [%rd9];", "no memory"),
        ("st.global.u64 [%rd1], %rd0;", "argument 1 of kernel, which is read-only"),
        (f"{SHARED} ld.shared.u32 %r1, [buffer+512];", "at byte 512 of shared memory, which has 512"),
        ("wgmma.fence.sync.aligned;", "unknown instruction wgmma.fence.sync.aligned"),
        ("st.param.f64 [param0+0], %fd1;", "unknown instruction st.param.f64"),  # a call: they are not followed
        ("add.cc.u32 %r1, %r1, %r1;", "unknown instruction add.cc.u32"),
        ("cvt.rn.f16.f32 %rs1, %f1;", "unknown instruction cvt.rn.f16.f32"),
        ("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%f1}, {%r1}, {%r2}, {%f1};", "unknown instruction mma"),
        ("setp.lt.u32 %p1, %r19, 2; @%p1 bra $A; shfl.sync.bfly.b32 %r1, %r1, 1, 31, 15; $A:", "do not meet here"),
        ("shfl.sync.idx.b32 %r1, %r1, 9, 31, 15;", "reads a lane that is not in its mask"),
        ("setp.lt.u32 %p1, %r19, 2; @%p1 bra $A; bar.sync 0; bra $B; $A: bar.sync 0; $B:", "different barriers"),
        ("$A: bra.uni $A;", "an endless loop?"),
        ("mov.u32 %r1, %clock;", "unknown operand %clock"),
    ],
)
def test_what_a_kernel_must_not_do(monkeypatch, code, says):
    monkeypatch.setattr(ptxsim, "STEPS", 1000)
    with pytest.raises(PtxError, match=says.replace("[", r"\[").replace("?", r"\?")):
        run(code, [np.zeros(4, np.uint64), READ_ONLY])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "takes 1 arguments, not 0"),
        ((np.int32(1),), "must have 8 bytes"),
        ((3,), "must have 8 bytes"),
        ((np.zeros((4, 4))[:, ::2],), "is not dense"),
    ],
)
def test_arguments_that_do_not_fit(arguments, says):
    entry = ptxparse.parse(program("", ".param .u64 p0"))["kernel"]
    with pytest.raises(PtxError, match=says):
        ptxsim.launch(entry, (1, 1, 1), (1, 1, 1), arguments)


def test_places_are_those_of_the_source():
    text = program(".loc 1 12 3, function_name $x, inlined_at 1 2 3\n frob.u32 %r1, %r1;").replace(
        ".version", '.file 1 "/somewhere/mine.cu"\n.version'
    )
    with pytest.raises(PtxError, match=r"mine\.cu:12: unknown instruction frob\.u32"):
        ptxsim.launch(ptxparse.parse(text)["kernel"], (1, 1, 1), (1, 1, 1), ())
