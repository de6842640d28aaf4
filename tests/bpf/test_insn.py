"""Reading and writing instructions."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf.strategies import programs
from chamelio.bpf import insn as b
from chamelio.bpf.insn import LDDW_HI, BpfFormatError, Insn, decode, encode, jump_target, validate


def word(op: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", op, dst | src << 4, off, imm)


EXIT = word(0x95)

REFUSED = [
    ("length", EXIT + b"\0", "9 bytes of code are not a multiple of 8"),
    ("opcode 0", word(0), "there is no such opcode"),
    ("reserved ALU operation", word(0xE7), "there is no such opcode"),
    ("64-bit sign-extending load", word(0x99), "there is no such opcode"),
    ("gotox", word(0x0D), "indirect jump"),
    ("LD_ABS", word(0x20), "legacy packet access (LD_ABS)"),
    ("LD_IND", word(0x50), "legacy packet access (LD_IND)"),
    ("dst register 11", word(0xB7, dst=11), "no register r11"),
    ("src register 15", word(0xBF, src=15), "no register r15"),
    ("imm of a register operation", word(0xBF, imm=1), "field imm is 1; it is reserved and must be 0"),
    ("src of an immediate operation", word(0xB7, src=1), "field src is 1; it is reserved and must be 0"),
    ("off of an addition", word(0x07, off=1), "field off is 1"),
    ("off of a division", word(0x37, off=2), "field off is 2; it must be one of 0, 1"),
    ("off of a 32-bit movsx", word(0xBC, off=32), "field off is 32; it must be one of 0, 8, 16"),
    ("width of a byte swap", word(0xDC, imm=8), "field imm is 8; it must be one of 16, 32, 64"),
    ("src of a call", word(0x85, src=3), "field src is 3; it must be one of 0, 1, 2"),
    ("dst of exit", word(0x95, dst=1), "field dst is 1"),
    ("imm of a load", word(0x61, imm=4), "field imm is 4"),
    ("unknown atomic operation", word(0xDB, imm=0x10), "field imm is 16"),
    ("fetch of a plain exchange", word(0xDB, imm=0xE0), "field imm is 224"),
    ("pseudo source 7", word(0x18, src=7) + bytes(8), "field src is 7"),
    ("half a wide load", EXIT + word(0x18), "ends in the middle of a wide load"),
    ("reserved field of a wide load's second half", word(0x18) + word(0, dst=1), "second half of a wide load"),
    ("second half of a wide load is an instruction", word(0x18) + EXIT, "second half of a wide load"),
]


@pytest.mark.parametrize(("data", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_bad_code_is_refused_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(BpfFormatError) as error:
        decode(data)
    assert message in str(error.value)


def test_a_wide_load_takes_two_slots_and_carries_the_whole_immediate() -> None:
    data = struct.pack("<BBhI", 0x18, 1, 0, 0x55667788) + struct.pack("<II", 0, 0xF1223344) + EXIT
    insns = decode(data)
    assert insns == [Insn(b.LDDW, 1, 0, 0, 0xF122334455667788), LDDW_HI, Insn(0x95, 0, 0, 0, 0)]
    assert encode(insns) == data


def test_properties_name_what_an_instruction_is() -> None:
    load, store, atomic = Insn(0x61, 1, 2, 4, 0), Insn(0x7B, 1, 2, -8, 0), Insn(0xC3, 1, 2, 0, 1)
    assert load.is_load and not load.is_store and load.size == 4
    assert store.is_store and not store.is_atomic and store.size == 8
    assert atomic.is_atomic and not atomic.is_store and atomic.size == 4
    call, leave, ja, jeq = (Insn(op, 0, 0, 0, 0) for op in (0x85, 0x95, 0x05, 0x15))
    assert call.is_call and leave.is_exit and ja.is_jump and jeq.is_jump
    assert [insn.is_cond_jump for insn in (call, leave, ja, jeq)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("insn", "target"),
    [
        (Insn(0x05, 0, 0, 3, 0), 14),
        (Insn(0x06, 0, 0, 0, 70000), 70011),
        (Insn(0x15, 1, 0, -5, 9), 6),
        (Insn(0x85, 0, 1, 0, 20), 31),
    ],
)
def test_jump_targets_count_from_the_next_slot(insn: Insn, target: int) -> None:
    assert jump_target(10, insn) == target


@pytest.mark.parametrize(
    "insns",
    [
        [Insn(0xB7, 16, 0, 0, 0)],
        [Insn(0xB7, 0, 0, 0, 1 << 31)],
        [Insn(0x05, 0, 0, 1 << 15, 0)],
        [Insn(300, 0, 0, 0, 0)],
        [Insn(b.LDDW, 0, 0, 0, 1 << 64), LDDW_HI],
        [Insn(b.LDDW, 0, 0, 0, 1), Insn(0x95, 0, 0, 0, 0)],
        [Insn(b.LDDW, 0, 0, 0, 1)],
    ],
)
def test_validate_refuses_what_no_bytes_can_say(insns: list[Insn]) -> None:
    with pytest.raises(BpfFormatError):
        validate(insns)


@given(programs())
def test_decode_is_the_inverse_of_encode(insns: list[Insn]) -> None:
    assert decode(encode(insns)) == insns


@given(st.binary(max_size=64))
def test_any_bytes_decode_to_the_same_bytes_or_are_refused(data: bytes) -> None:
    try:
        insns = decode(data)
    except BpfFormatError:
        return
    assert encode(insns) == data
