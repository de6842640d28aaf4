"""Assembler and disassembler."""

from __future__ import annotations

import pytest
from hypothesis import given

from bpf.strategies import insns, programs
from chamelio.bpf.asm import AsmError, assemble
from chamelio.bpf.disasm import disassemble, format_insn
from chamelio.bpf.insn import LDDW_HI, BpfFormatError, Insn

# text -> opcode, dst, src, off, imm, as RFC 9669 numbers them
ENCODINGS = [
    ("mov %r1, 7", 0xB7, 1, 0, 0, 7),
    ("mov64 r1, r2", 0xBF, 1, 2, 0, 0),
    ("mov32 %r1, -1", 0xB4, 1, 0, 0, -1),
    ("mov32 %r1, 0xffffffff", 0xB4, 1, 0, 0, -1),
    ("movsx832 %r1, %r2", 0xBC, 1, 2, 8, 0),
    ("movsx1632 %r1, %r2", 0xBC, 1, 2, 16, 0),
    ("movsx3264 %r1, %r2", 0xBF, 1, 2, 32, 0),
    ("add %r1, %r2", 0x0F, 1, 2, 0, 0),
    ("arsh32 %r1, 3", 0xC4, 1, 0, 0, 3),
    ("div %r1, %r2", 0x3F, 1, 2, 0, 0),
    ("sdiv %r1, %r2", 0x3F, 1, 2, 1, 0),
    ("smod32 %r1, -3", 0x94, 1, 0, 1, -3),
    ("neg %r1", 0x87, 1, 0, 0, 0),
    ("neg32 %r1", 0x84, 1, 0, 0, 0),
    ("le16 %r1", 0xD4, 1, 0, 0, 16),
    ("be32 %r1", 0xDC, 1, 0, 0, 32),
    ("bswap64 %r1", 0xD7, 1, 0, 0, 64),
    ("swap64 %r1", 0xD7, 1, 0, 0, 64),
    ("ldxb %r1, [%r2]", 0x71, 1, 2, 0, 0),
    ("ldxdw %r1, [%r2 - 0x10]", 0x79, 1, 2, -16, 0),
    ("ldxsw %r1, [%r2+4]", 0x81, 1, 2, 4, 0),
    ("ldxsb %r1, [%r2+4]", 0x91, 1, 2, 4, 0),
    ("sth [%r1+2], 0x1234", 0x6A, 1, 0, 2, 0x1234),
    ("stxw [%r10-4], %r3", 0x63, 10, 3, -4, 0),
    ("lock add [%r1], %r2", 0xDB, 1, 2, 0, 0x00),
    ("lock  fetch  or32 [%r1+4], %r2", 0xC3, 1, 2, 4, 0x41),
    ("lock xchg [%r1], %r2", 0xDB, 1, 2, 0, 0xE1),
    ("lock cmpxchg32 [%r1], %r2", 0xC3, 1, 2, 0, 0xF1),
    ("ja +2", 0x05, 0, 0, 2, 0),
    ("ja32 -70000", 0x06, 0, 0, 0, -70000),
    ("jeq %r1, %r2, +0", 0x1D, 1, 2, 0, 0),
    ("jslt32 %r1, -5, +1", 0xC6, 1, 0, 1, -5),
    ("jset %r1, 0x80, -3", 0x45, 1, 0, -3, 0x80),
    ("call 5", 0x85, 0, 0, 0, 5),
    ("call helper 5", 0x85, 0, 0, 0, 5),
    ("call local +3", 0x85, 0, 1, 0, 3),
    ("call kfunc 9", 0x85, 0, 2, 0, 9),
    ("call %r3", 0x8D, 3, 0, 0, 0),
    ("call helper %r3", 0x8D, 3, 0, 0, 0),
    ("exit", 0x95, 0, 0, 0, 0),
    ("lddw %r1, -1", 0x18, 1, 0, 0, 0xFFFFFFFFFFFFFFFF),
    ("lddw %r1, map 3", 0x18, 1, 1, 0, 3),
    ("lddw %r1, map_value 3+16", 0x18, 1, 2, 0, 3 | 16 << 32),
    ("lddw %r1, code -2", 0x18, 1, 4, 0, 0xFFFFFFFE),
]


@pytest.mark.parametrize(("text", "fields"), [(case[0], case[1:]) for case in ENCODINGS])
def test_every_form_assembles_to_its_encoding(text: str, fields: tuple[int, int, int, int, int]) -> None:
    insn = Insn(*fields)
    assert assemble(text) == ([insn, LDDW_HI] if fields[0] == 0x18 else [insn])


def test_labels_count_slots() -> None:
    insns = assemble(
        """
        start: lddw %r1, 1      # two slots
               jeq %r1, 2, exit
        loop:  sub %r1, 1
               jne %r1, 0, loop
               ja start
               call local func
               exit
        func:
               exit             # the first one is the label's
        """
    )
    assert [insn.off for insn in insns[2:6]] == [4, 0, -2, -6]
    assert insns[6].imm == 1


BAD = [
    ("mov %r1", "takes 2 operands, not 1"),
    ("mov %r11, 1", "%r11 is not a register"),
    ("mov %r1, 0x100000000", "does not fit in 32 bits"),
    ("mov %r1, -0x80000001", "does not fit in 32 bits"),
    ("mov %r1, one", "neither a number nor a register"),
    ("lddw %r1, 0x10000000000000000", "does not fit in 64 bits"),
    ("lddw %r1, mop 3", "mop is none of map,"),
    ("ldxw %r1, %r2", "is not a memory operand"),
    ("ldxw %r1, [%r2+40000]", "offset 40000 does not fit in 16 bits"),
    ("jeq %r1, 0, nowhere", "there is no label nowhere"),
    ("ja 40000", "does not fit in 16 bits"),
    ("call remote f", "remote is none of local, kfunc, helper"),
    ("frob %r1", "there is no instruction frob"),
    ("lock fetch xchg [%r1], %r2", "there is no instruction lock fetch xchg"),
    ("ldxsdw %r1, [%r2]", "there is no instruction ldxsdw"),
    ("lock", "there is no instruction lock"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_text_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(AsmError) as error:
        assemble("mov %r0, 0\n" + text)
    assert "line 2" in str(error.value) and message in str(error.value)


def test_a_label_defined_twice_is_refused() -> None:
    with pytest.raises(AsmError, match="line 2: label a is defined twice"):
        assemble("a: exit\na: exit")


def test_jumps_show_the_slot_they_go_to_when_their_own_is_known() -> None:
    insn = assemble("jeq %r1, 0, +5")[0]
    assert format_insn(insn) == "jeq %r1, 0, +5"
    assert format_insn(insn, 10) == "jeq %r1, 0, L16"


def test_what_is_no_instruction_has_no_text() -> None:
    with pytest.raises(BpfFormatError):
        format_insn(Insn(0xFF, 0, 0, 0, 0))


@given(insns())
def test_one_instruction_survives_the_way_to_text_and_back(insn: Insn) -> None:
    assert assemble(format_insn(insn))[0] == insn


@given(programs())
def test_programs_survive_the_way_to_text_and_back(program: list[Insn]) -> None:
    assert assemble(disassemble(program)) == program
