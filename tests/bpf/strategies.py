"""Hypothesis strategies for BPF instructions, drawn from the table of the instruction set."""

from __future__ import annotations

from hypothesis import strategies as st

from chamelio.bpf import insn as b
from chamelio.bpf.insn import FORMS, LDDW, LDDW_HI, Insn


@st.composite
def insns(draw: st.DrawFn) -> Insn:
    """Any single instruction of RFC 9669."""
    op = draw(st.sampled_from(sorted(FORMS)))
    form = FORMS[op]
    if op == LDDW:
        imm = draw(st.integers(0, (1 << 64) - 1))
    elif form.imm is None:
        imm = draw(st.integers(-(1 << 31), (1 << 31) - 1))
    else:
        imm = draw(st.sampled_from(sorted(form.imm)))
    off = draw(st.integers(-(1 << 15), (1 << 15) - 1)) if form.off is None else draw(st.sampled_from(sorted(form.off)))
    return Insn(op, draw(st.sampled_from(sorted(form.dst))), draw(st.sampled_from(sorted(form.src))), off, imm)


@st.composite
def programs(draw: st.DrawFn, max_size: int = 20) -> list[Insn]:
    """Well-formed, meaningless programs; jumps often land within."""
    out: list[Insn] = []
    chosen = draw(st.lists(insns(), max_size=max_size))
    for insn in chosen:
        if insn.is_jump and not insn.is_exit and draw(st.booleans()):
            distance = draw(st.integers(-max_size, max_size))
            if insn.op == b.JMP32 | b.JA or (insn.is_call and insn.src == b.PSEUDO_CALL):
                insn = Insn(insn.op, insn.dst, insn.src, 0, distance)
            elif not insn.is_call:
                insn = Insn(insn.op, insn.dst, insn.src, distance, insn.imm)
        out.append(insn)
        if insn.op == LDDW:
            out.append(LDDW_HI)
    return out
