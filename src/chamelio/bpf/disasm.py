"""The disassembler: instructions to the text that the assembler reads; the two are inverse to each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from chamelio.bpf import asm
from chamelio.bpf import insn as b
from chamelio.bpf.insn import BpfFormatError, Insn, jump_target

_ALU = {op: name for name, op in asm.ALU_NAMES.items()}
_SIGNED = {op: name for name, op in asm.SIGNED_NAMES.items()}
_JUMPS = {op: name for name, op in asm.JUMP_NAMES.items()}
_SIZES = {size: name for name, size in asm.SIZE_NAMES.items()}
_MOVSX = {form: name for name, form in asm.MOVSX_NAMES.items()}
_SWAPS = {op: name for name, op in asm.SWAP_NAMES.items()}
_PSEUDOS = {src: name for name, src in asm.PSEUDO_NAMES.items()}
_ATOMICS = {op: name for name, op in (asm.ATOMIC_NAMES | asm.EXCHANGE_NAMES).items()}
_ATOMICS |= {op | b.ATOMIC_FETCH: f"fetch {name}" for name, op in asm.ATOMIC_NAMES.items()}


def format_insn(insn: Insn, pc: int | None = None) -> str:
    """One instruction as text. With its slot `pc`, jumps name the slot they go to (`L12`), else the distance (`+3`).

    BpfFormatError: it is no instruction of RFC 9669.
    """
    return _format(insn, pc, None)


def _format(insn: Insn, pc: int | None, labels: Collection[int] | None) -> str:
    try:
        match insn.cls:
            case b.ALU | b.ALU64:
                return _arithmetic(insn)
            case b.LD:
                return _wide(insn)
            case b.JMP | b.JMP32:
                return _jump(insn, pc, labels)
        return _memory(insn)
    except KeyError:
        raise BpfFormatError(f"{insn} is not an instruction") from None


def _arithmetic(insn: Insn) -> str:
    op, dst = insn.op & 0xF0, f"%r{insn.dst}"
    suffix = "" if insn.cls == b.ALU64 else "32"
    if op == b.END:
        return f"{_SWAPS[insn.op]}{insn.imm} {dst}"
    if op == b.NEG:
        return f"neg{suffix} {dst}"
    operand = f"%r{insn.src}" if insn.op & b.X else str(insn.imm)
    if op == b.MOV and insn.off:
        return f"{_MOVSX[insn.cls, insn.off]} {dst}, {operand}"
    return f"{_SIGNED[op] if insn.off else _ALU[op]}{suffix} {dst}, {operand}"


def _wide(insn: Insn) -> str:
    if insn.op != b.LDDW:
        raise KeyError(insn.op)
    if not insn.src:
        return f"lddw %r{insn.dst}, {insn.imm:#x}"
    low, high = insn.imm & 0xFFFFFFFF, insn.imm >> 32
    return f"lddw %r{insn.dst}, {_PSEUDOS[insn.src]} {low}" + (f"+{high}" if high else "")


def _memory(insn: Insn) -> str:
    size = _SIZES[insn.op & 0x18]
    at = f"[%r{insn.src if insn.cls == b.LDX else insn.dst}{f'{insn.off:+}' if insn.off else ''}]"
    mode = insn.op & 0xE0
    if insn.cls == b.LDX and mode in (b.MEM, b.MEMSX):
        return f"ldx{'s' if mode == b.MEMSX else ''}{size} %r{insn.dst}, {at}"
    if insn.is_atomic:
        return f"lock {_ATOMICS[insn.imm]}{'32' if insn.size == 4 else ''} {at}, %r{insn.src}"
    if not insn.is_store:
        raise KeyError(insn.op)
    return f"st{size} {at}, {insn.imm}" if insn.cls == b.ST else f"stx{size} {at}, %r{insn.src}"


def _jump(insn: Insn, pc: int | None, labels: Collection[int] | None) -> str:
    if insn.is_exit:
        return "exit"
    if insn.op == b.CALLX:
        return f"call %r{insn.dst}"
    if insn.is_call and insn.src != b.PSEUDO_CALL:
        return f"call {'kfunc ' if insn.src == b.PSEUDO_KFUNC_CALL else ''}{insn.imm}"
    target = f"{jump_target(0, insn) - 1:+}"
    if pc is not None and (labels is None or jump_target(pc, insn) in labels):
        target = f"L{jump_target(pc, insn)}"
    if insn.is_call:
        return f"call local {target}"
    suffix = "32" if insn.cls == b.JMP32 else ""
    if insn.op & 0xF0 == b.JA:
        return f"ja{suffix} {target}"
    operand = f"%r{insn.src}" if insn.op & b.X else str(insn.imm)
    return f"{_JUMPS[insn.op & 0xF0]}{suffix} %r{insn.dst}, {operand}, {target}"


def slots(insns: Sequence[Insn]) -> list[int]:
    """The slots that hold an instruction, not the second half of a wide load."""
    out, pc = [], 0
    while pc < len(insns):
        out.append(pc)
        pc += 2 if insns[pc].op == b.LDDW else 1
    return out


def disassemble(insns: Sequence[Insn]) -> str:
    """A program as text, with a label `L<slot>` at everything that is jumped to or called."""
    whole = slots(insns)
    starts = set(whole)
    labels = set()
    for pc in whole:
        insn = insns[pc]
        if insn.is_jump and not insn.is_exit and not (insn.is_call and insn.src != b.PSEUDO_CALL):
            labels.add(jump_target(pc, insn))
    labels &= starts
    lines = []
    for pc in whole:
        if pc in labels:
            lines.append(f"L{pc}:")
        lines.append(f"    {_format(insns[pc], pc, labels)}")
    return "".join(line + "\n" for line in lines)
