"""The BPF instruction: its fields, the names of its encodings, and reading and writing them as bytes (RFC 9669).

A program is a list of instructions indexed by *slot* of 8 bytes, which is what jump offsets count. A wide load (LDDW)
takes two slots: the first carries the whole 64-bit immediate, the second is the placeholder LDDW_HI.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

SLOT = 8

# Classes: the low three bits of the opcode (RFC 9669, section 3.1).
LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)

# Source bit of arithmetic and jumps: immediate or register.
K, X = 0x00, 0x08

# Sizes of loads and stores (section 5).
W, H, B, DW = 0x00, 0x08, 0x10, 0x18

# Modes of loads and stores.
IMM, ABS, IND, MEM, MEMSX, ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0

# Arithmetic (section 4.1).
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH = 0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70
NEG, MOD, XOR, MOV, ARSH, END = 0x80, 0x90, 0xA0, 0xB0, 0xC0, 0xD0

# Jumps (section 4.3).
JA, JEQ, JGT, JGE, JSET, JNE, JSGT, JSGE = 0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70
CALL, EXIT, JLT, JLE, JSLT, JSLE, JCOND = 0x80, 0x90, 0xA0, 0xB0, 0xC0, 0xD0, 0xE0

# Atomic operations, in `imm` (section 5.3).
ATOMIC_ADD, ATOMIC_OR, ATOMIC_AND, ATOMIC_XOR = ADD, OR, AND, XOR
ATOMIC_FETCH = 0x01
ATOMIC_XCHG, ATOMIC_CMPXCHG = 0xE1, 0xF1

# Sources of a wide load (section 5.4). MAP: imm is the index in Object.maps; MAP_VALUE: index | offset << 32;
# FUNC: imm is relative to the slot after the first, as in a local call (32 bits).
LDDW = LD | IMM | DW
PSEUDO_MAP, PSEUDO_MAP_VALUE, PSEUDO_FUNC = 1, 2, 4

# Sources of a call: a helper by its number, a function of this program, a function of the kernel.
HELPER_CALL, PSEUDO_CALL, PSEUDO_KFUNC_CALL = 0, 1, 2
CALLX = JMP | CALL | X
GOTOX = JMP | JA | X

REGISTERS = 11
FRAME = 10

_ACCESS_BYTES = {W: 4, H: 2, B: 1, DW: 8}


class BpfFormatError(ValueError):
    """Bytes that are not what they should be: an instruction, type information or an object. The message says where."""


@dataclass(frozen=True, slots=True)
class Insn:
    """One instruction. `off` is signed 16 bits, `imm` signed 32; of LDDW the whole immediate, 64 bits unsigned."""

    op: int
    dst: int
    src: int
    off: int
    imm: int

    @property
    def cls(self) -> int:
        """The instruction class: LD .. ALU64."""
        return self.op & 0x07

    @property
    def size(self) -> int:
        """Bytes of memory that a load, store or atomic operation touches."""
        return _ACCESS_BYTES[self.op & 0x18]

    @property
    def is_jump(self) -> bool:
        """Of the jump classes: jumps, calls and exit."""
        return self.op & 0x07 in (JMP, JMP32)

    @property
    def is_cond_jump(self) -> bool:
        """A jump that may fall through."""
        return self.op & 0x07 in (JMP, JMP32) and self.op & 0xF0 not in (JA, CALL, EXIT)

    @property
    def is_call(self) -> bool:
        """A call of a helper, a local function, or through a register."""
        return self.op & 0xF7 == JMP | CALL

    @property
    def is_exit(self) -> bool:
        """Return from the function."""
        return self.op == JMP | EXIT

    @property
    def is_load(self) -> bool:
        """A plain or sign-extending load from memory (not LDDW, which reads none)."""
        return self.op & 0x07 == LDX

    @property
    def is_store(self) -> bool:
        """A plain store of a register or an immediate (not an atomic operation)."""
        return self.op & 0x07 in (ST, STX) and self.op & 0xE0 == MEM

    @property
    def is_atomic(self) -> bool:
        """An atomic read-modify-write."""
        return self.op & 0xE7 == STX | ATOMIC


LDDW_HI = Insn(0, 0, 0, 0, 0)
TRAP = LDDW_HI  # where there is no instruction: no opcode 0 ever runs


def jump_target(pc: int, insn: Insn) -> int:
    """The slot that a jump at slot `pc` goes to when taken; of a local call, the slot of the function."""
    if insn.op == JMP32 | JA or insn.is_call:
        return pc + 1 + insn.imm
    return pc + 1 + insn.off


# ---- which fields an opcode uses: None is any value, else the values it may have ---------------------------------


@dataclass(frozen=True, slots=True)
class Form:
    """The values that each field of an opcode may have."""

    dst: Collection[int]
    src: Collection[int]
    off: Collection[int] | None
    imm: Collection[int] | None


_ZERO = (0,)
_REGISTERS = range(REGISTERS)


def _arithmetic_forms() -> dict[int, Form]:
    forms = {}
    for cls in (ALU, ALU64):
        for op in (ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, MOD, XOR, MOV, ARSH):
            off: tuple[int, ...] = (0, 1) if op in (DIV, MOD) else _ZERO  # 1: signed
            forms[cls | op | K] = Form(_REGISTERS, _ZERO, off, None)
            if op == MOV:  # sign extension from so many bits
                off = (0, 8, 16) if cls == ALU else (0, 8, 16, 32)
            forms[cls | op | X] = Form(_REGISTERS, _REGISTERS, off, _ZERO)
        forms[cls | NEG] = Form(_REGISTERS, _ZERO, _ZERO, _ZERO)
    for op in (ALU | END | K, ALU | END | X, ALU64 | END | K):
        forms[op] = Form(_REGISTERS, _ZERO, _ZERO, (16, 32, 64))
    return forms


def _jump_forms() -> dict[int, Form]:
    forms = {
        JMP | JA: Form(_ZERO, _ZERO, None, _ZERO),
        JMP32 | JA: Form(_ZERO, _ZERO, _ZERO, None),
        JMP | CALL: Form(_ZERO, (HELPER_CALL, PSEUDO_CALL, PSEUDO_KFUNC_CALL), _ZERO, None),
        CALLX: Form(_REGISTERS, _ZERO, _ZERO, _ZERO),
        JMP | EXIT: Form(_ZERO, _ZERO, _ZERO, _ZERO),
    }
    for cls in (JMP, JMP32):
        for op in (JEQ, JGT, JGE, JSET, JNE, JSGT, JSGE, JLT, JLE, JSLT, JSLE):
            forms[cls | op | K] = Form(_REGISTERS, _ZERO, None, None)
            forms[cls | op | X] = Form(_REGISTERS, _REGISTERS, None, _ZERO)
    return forms


def _memory_forms() -> dict[int, Form]:
    forms = {LDDW: Form(_REGISTERS, range(7), _ZERO, None)}
    for size in (W, H, B, DW):
        forms[LDX | MEM | size] = Form(_REGISTERS, _REGISTERS, None, _ZERO)
        forms[ST | MEM | size] = Form(_REGISTERS, _ZERO, None, None)
        forms[STX | MEM | size] = Form(_REGISTERS, _REGISTERS, None, _ZERO)
        if size != DW:
            forms[LDX | MEMSX | size] = Form(_REGISTERS, _REGISTERS, None, _ZERO)
    plain = (ATOMIC_ADD, ATOMIC_OR, ATOMIC_AND, ATOMIC_XOR)
    atomics = (*plain, *(op | ATOMIC_FETCH for op in plain), ATOMIC_XCHG, ATOMIC_CMPXCHG)
    for size in (W, DW):
        forms[STX | ATOMIC | size] = Form(_REGISTERS, _REGISTERS, None, atomics)
    return forms


#: The instruction set: opcode -> what its fields may hold.
FORMS = {**_arithmetic_forms(), **_jump_forms(), **_memory_forms()}

_REFUSED = {GOTOX: "an indirect jump (gotox)", JMP | JCOND: "a loop counted by the kernel (may_goto)"}
for _size in (W, H, B):
    _REFUSED[LD | ABS | _size] = "legacy packet access (LD_ABS)"
    _REFUSED[LD | IND | _size] = "legacy packet access (LD_IND)"
_ORDERED = {0x100: "a load with acquire semantics", 0x110: "a store with release semantics"}


def _extension(op: int, off: int, imm: int) -> str | None:
    """The name of an instruction that compilers emit for the kernel and that RFC 9669 does not have."""
    if op in _REFUSED:
        return _REFUSED[op]
    if op == ALU64 | MOV | X and off == 1:
        return "an address that changes to or from an arena (addr_space_cast)"
    if op & 0xE7 == STX | ATOMIC:
        return _ORDERED.get(imm)
    return None


def _fault(op: int, dst: int, src: int, off: int, imm: int) -> str:
    """What is wrong with an instruction that its form does not allow."""
    extension = _extension(op, off, imm)
    if extension is not None:
        return f"{extension} is not supported"
    form = FORMS.get(op)
    if form is None:
        return "there is no such opcode in RFC 9669"
    for name, value, allowed in (("dst", dst, form.dst), ("src", src, form.src), ("off", off, form.off)):
        if allowed is not None and value not in allowed:
            if allowed is _REGISTERS:
                return f"there is no register r{value}"
            return f"field {name} is {value}; {_choices(allowed)}"
    return f"field imm is {imm}; {_choices(form.imm or _ZERO)}"


def _choices(allowed: Collection[int]) -> str:
    return "it is reserved and must be 0" if allowed == _ZERO else f"it must be one of {', '.join(map(str, allowed))}"


# ---- bytes ----------------------------------------------------------------------------------------------------

_WORD = struct.Struct("<BBhi")


def decode(data: bytes) -> list[Insn]:
    """Little-endian bytes to instructions, one per slot. BpfFormatError: a length that is not a multiple of 8, an
    unknown opcode or register, a reserved field that is not zero, half a wide load."""
    insns, wrong = decode_any(data)
    for pc, reason in wrong.items():
        raise _bad(data, pc, reason)
    return insns


def _bad(data: bytes, pc: int, reason: str) -> BpfFormatError:
    return BpfFormatError(f"instruction {pc} (opcode {data[SLOT * pc]:#04x}): {reason}")


def decode_any(data: bytes) -> tuple[list[Insn], dict[int, str]]:
    """As `decode`, but what is no instruction is TRAP, and its slot has the reason in the dictionary.

    BpfFormatError: a length that is not a multiple of 8.
    """
    if len(data) % SLOT:
        raise BpfFormatError(f"{len(data)} bytes of code are not a multiple of {SLOT}")
    insns: list[Insn] = []
    wrong: dict[int, str] = {}
    pending: Insn | None = None  # a wide load that waits for its second slot
    for pc, (op, regs, off, imm) in enumerate(_WORD.iter_unpack(data)):
        if pending is not None:
            if op or regs or off:
                wrong[pc - 1] = wrong[pc] = "the second half of a wide load has non-zero reserved fields"
                insns += (TRAP, TRAP)
            else:
                low = pending.imm & 0xFFFFFFFF
                insns += (Insn(LDDW, pending.dst, pending.src, 0, low | (imm & 0xFFFFFFFF) << 32), LDDW_HI)
            pending = None
            continue
        dst, src = regs & 0x0F, regs >> 4
        form = FORMS.get(op)
        if (
            form is None
            or dst not in form.dst
            or src not in form.src
            or (form.off is not None and off not in form.off)
            or (form.imm is not None and imm not in form.imm)
        ):
            wrong[pc] = _fault(op, dst, src, off, imm)
            insns.append(TRAP)
            continue
        insn = Insn(op, dst, src, off, imm)
        if op == LDDW:
            pending = insn
        else:
            insns.append(insn)
    if pending is not None:
        wrong[len(insns)] = "the code ends in the middle of a wide load"
        insns.append(TRAP)
    return insns, wrong


def validate(insns: Sequence[Insn]) -> None:
    """Check instructions that did not come from `decode`. BpfFormatError: what decode would refuse (but for TRAP), or a field
    out of range."""
    data = encode(insns)
    for pc, reason in decode_any(data)[1].items():
        if insns[pc] != TRAP:
            raise _bad(data, pc, reason)


def _registers(pc: int, insn: Insn) -> int:
    if not (0 <= insn.dst < 16 and 0 <= insn.src < 16):
        raise BpfFormatError(f"instruction {pc}: a field of {insn} is out of range")
    return insn.dst | insn.src << 4


def encode(insns: Iterable[Insn]) -> bytes:
    """Instructions to little-endian bytes. BpfFormatError: a field out of range, a wide load without its LDDW_HI."""
    out = bytearray()
    wide: Insn | None = None
    for pc, insn in enumerate(insns):
        try:
            if wide is not None:
                if insn != LDDW_HI:
                    raise BpfFormatError(f"instruction {pc}: a wide load takes two slots; the second must be LDDW_HI")
                out += struct.pack("<II", 0, wide.imm >> 32)
                wide = None
            elif insn.op == LDDW:
                out += struct.pack("<BBhI", insn.op, _registers(pc, insn), insn.off, insn.imm & 0xFFFFFFFF)
                wide = insn
            else:
                out += _WORD.pack(insn.op, _registers(pc, insn), insn.off, insn.imm)
        except struct.error as error:
            raise BpfFormatError(f"instruction {pc}: a field of {insn} is out of range") from error
    if wide is not None:
        raise BpfFormatError("the code ends in the middle of a wide load")
    return bytes(out)
