"""The reference interpreter: vectors, arithmetic against fixed-width numbers, memory, helpers."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpf import conformance
from bpf.strategies import programs
from chamelio.bpf.asm import assemble
from chamelio.bpf.disasm import disassemble
from chamelio.bpf.insn import BpfFormatError, Insn, decode, encode
from chamelio.bpf.interp import AccessError, Fault, Interpreter, Memory, run_bare

HERE = Path(__file__).parent
VECTORS = tomllib.loads((HERE / "vectors.toml").read_text())["vector"]
BESIDE = HERE.parents[2] / "shared" / "suites" / "bpf_conformance"  # a folder beside the checkout
SUITE = Path(os.environ.get("BPF_CONFORMANCE", BESIDE)) / "tests"
U64 = (1 << 64) - 1


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_vector(vector: dict[str, str | int]) -> None:
    mem = bytes.fromhex(str(vector.get("mem", "")))
    program = conformance.Vector(str(vector["name"]), assemble(str(vector["asm"])), mem, 0)
    if "fault" in vector:
        with pytest.raises(Fault) as fault:
            run_bare(program.insns, bytearray(program.mem))
        assert str(vector["fault"]) in str(fault.value)
    else:
        assert run_bare(program.insns, bytearray(program.mem)) == int(vector["result"]) & U64


def _suite() -> list[object]:
    if not SUITE.is_dir():
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"no bpf_conformance suite: set BPF_CONFORMANCE ({SUITE})"))]
    return [pytest.param(path, id=path.stem) for path in sorted(SUITE.glob("*.data"))]


@pytest.mark.parametrize("path", _suite())
def test_conformance_suite(path: Path) -> None:
    vector = conformance.parse(path.stem, path.read_text())
    assert run_bare(vector.insns, bytearray(vector.mem)) == vector.result
    assert decode(encode(vector.insns)) == vector.insns
    assert assemble(disassemble(vector.insns)) == vector.insns


# ---- arithmetic, held against NumPy's fixed-width integers ------------------------------------------------------

EDGES = [0, 1, 2, 31, 32, 63, 64, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, U64 - 1, U64]
numbers = st.one_of(st.sampled_from(EDGES), st.integers(0, U64))


def _expected(op: str, bits: int, a: int, c: int) -> int:
    unsigned, signed = (np.uint64, np.int64) if bits == 64 else (np.uint32, np.int32)
    mask = (1 << bits) - 1
    x, y = np.array([a & mask], unsigned), np.array([c & mask], unsigned)
    shift = y & unsigned(bits - 1)
    match op:
        case "add":
            out = x + y
        case "sub":
            out = x - y
        case "mul":
            out = x * y
        case "div":
            out = x // y if y[0] else y
        case "mod":
            out = x % y if y[0] else x
        case "or":
            out = x | y
        case "and":
            out = x & y
        case "xor":
            out = x ^ y
        case "lsh":
            out = x << shift
        case "rsh":
            out = x >> shift
        case "arsh":
            out = (x.view(signed) >> shift.view(signed)).view(unsigned)
        case _:
            out = y
    return int(out[0])


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "mod", "or", "and", "xor", "lsh", "rsh", "arsh", "mov"])
@settings(max_examples=50)
@given(a=numbers, c=numbers, bits=st.sampled_from([32, 64]))
def test_arithmetic_is_that_of_fixed_width_numbers(op: str, a: int, c: int, bits: int) -> None:
    name = op if bits == 64 else f"{op}32"
    insns = assemble(f"mov %r0, %r1\n{name} %r0, %r2\nexit")
    assert Interpreter(insns).run(a, c) == _expected(op, bits, a, c)


@settings(max_examples=200)
@given(a=numbers, c=numbers, bits=st.sampled_from([32, 64]))
def test_signed_quotient_and_remainder_belong_together(a: int, c: int, bits: int) -> None:
    suffix = "" if bits == 64 else "32"
    mask = (1 << bits) - 1
    quotient = Interpreter(assemble(f"mov %r0, %r1\nsdiv{suffix} %r0, %r2\nexit")).run(a, c)
    remainder = Interpreter(assemble(f"mov %r0, %r1\nsmod{suffix} %r0, %r2\nexit")).run(a, c)
    assert (quotient * c + remainder) & mask == a & mask


@settings(max_examples=200)
@given(programs())
def test_any_program_ends_with_a_result_or_a_fault(insns: list[Insn]) -> None:
    interpreter = Interpreter(insns, max_steps=200)
    try:
        assert 0 <= interpreter.run(0, 0) <= U64
    except Fault as fault:
        assert fault.reason
    assert interpreter.steps <= 200


# ---- surroundings -------------------------------------------------------------------------------------------------


def test_helpers_get_the_arguments_and_may_use_memory() -> None:
    def store(interpreter: Interpreter, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        interpreter.memory.write(r1, 4, r2 + r3 + r4 + r5)
        return -1

    insns = assemble(
        """
        mov %r1, %r10
        add %r1, -4
        mov %r2, 1
        mov %r3, 2
        mov %r4, 3
        mov %r5, 4
        call 9
        jne %r0, -1, exit
        ldxw %r0, [%r10-4]
        exit"""
    )
    assert Interpreter(insns, helpers={9: store}).run() == 10


def test_a_bad_pointer_given_to_a_helper_is_a_fault_of_the_call() -> None:
    insns = assemble("mov %r1, 0\ncall 9\nexit")
    with pytest.raises(Fault) as fault:
        Interpreter(insns, helpers={9: lambda i, a, *_: i.memory.read(a, 4)}).run()
    assert fault.value.pc == 1


def test_maps_and_global_data_are_where_the_surroundings_say() -> None:
    memory = Memory()
    memory.map(0x1000, bytearray(b"\x2a\0\0\0"), writable=False, name=".rodata")
    insns = assemble("lddw %r6, map 3\nlddw %r1, map_value 1+2\nldxh %r0, [%r1-2]\nadd %r0, %r6\nexit")
    interpreter = Interpreter(
        insns,
        memory=memory,
        map_address=lambda index: 100 * index,
        map_value_address=lambda index, offset: 0x1000 * index + offset,
    )
    assert interpreter.run() == 342


def test_steps_are_counted_and_shown() -> None:
    seen: list[tuple[int, int]] = []
    insns = assemble("lddw %r0, 5\nadd %r0, 1\nexit")
    interpreter = Interpreter(insns, on_step=lambda pc, regs: seen.append((pc, regs[0])))
    assert interpreter.run() == 6
    assert seen == [(0, 0), (2, 5), (3, 6)]
    assert interpreter.steps == 3


def test_an_interpreter_can_run_again() -> None:
    interpreter = Interpreter(assemble("ldxb %r0, [%r1]\nexit"))
    with pytest.raises(Fault):
        interpreter.run(0)
    interpreter.memory.map(0x1000, bytearray(b"\x07"))
    assert interpreter.run(0x1000) == 7


def test_read_only_memory_cannot_be_written() -> None:
    memory = Memory()
    memory.map(0x1000, bytearray(8), writable=False, name="config")
    with pytest.raises(Fault, match="config, which is read-only"):
        Interpreter(assemble("stw [%r1], 1\nmov %r0, 0\nexit"), memory=memory).run(0x1000)


def test_memory_writes_through_and_refuses_overlaps() -> None:
    memory, buf = Memory(), bytearray(8)
    memory.map(0x1000, buf, name="a")
    memory.map(0x1008, bytearray(8), name="b")
    with pytest.raises(ValueError, match="c overlaps b"):
        memory.map(0x100F, bytearray(1), name="c")
    memory.store_bytes(0x1002, b"hi")
    assert buf == b"\0\0hi\0\0\0\0"
    with pytest.raises(AccessError, match="past the end of a"):
        memory.load_bytes(0x1004, 5)
    memory.unmap(0x1000)
    with pytest.raises(AccessError):
        memory.read(0x1000, 1)


def test_what_is_no_program_is_refused_before_it_runs() -> None:
    with pytest.raises(BpfFormatError):
        Interpreter([Insn(0xB7, 12, 0, 0, 0)])
