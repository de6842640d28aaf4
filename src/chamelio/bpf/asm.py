"""The assembler: text to instructions, in the dialect of the bpf_conformance suite.

One instruction per line, `#` starts a comment, `name:` is a label. The first `exit` has the implicit label `exit`.

    mov32 %r0, 1              lddw %r1, 0x1122334455667788    lddw %r1, map 3        lddw %r1, map_value 3+16
    ldxw %r0, [%r1+4]         ldxsb %r0, [%r1]                stxdw [%r10-8], %r0    stw [%r10-4], 7
    lock fetch add32 [%r10-8], %r1                            lock cmpxchg [%r10-8], %r1
    be16 %r0                  movsx832 %r0, %r1               sdiv %r0, -3           neg32 %r0
    jslt32 %r0, 5, label      ja +2                           ja32 label
    call 5                    call local label                call kfunc 7           call helper %r3
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from chamelio.bpf import insn as b
from chamelio.bpf.insn import LDDW_HI, BpfFormatError, Insn

ALU_NAMES = {
    "add": b.ADD,
    "sub": b.SUB,
    "mul": b.MUL,
    "div": b.DIV,
    "or": b.OR,
    "and": b.AND,
    "lsh": b.LSH,
    "rsh": b.RSH,
    "mod": b.MOD,
    "xor": b.XOR,
    "mov": b.MOV,
    "arsh": b.ARSH,
}
SIGNED_NAMES = {"sdiv": b.DIV, "smod": b.MOD}
JUMP_NAMES = {
    "jeq": b.JEQ,
    "jgt": b.JGT,
    "jge": b.JGE,
    "jset": b.JSET,
    "jne": b.JNE,
    "jsgt": b.JSGT,
    "jsge": b.JSGE,
    "jlt": b.JLT,
    "jle": b.JLE,
    "jslt": b.JSLT,
    "jsle": b.JSLE,
}
SIZE_NAMES = {"w": b.W, "h": b.H, "b": b.B, "dw": b.DW}
ATOMIC_NAMES = {"add": b.ATOMIC_ADD, "or": b.ATOMIC_OR, "and": b.ATOMIC_AND, "xor": b.ATOMIC_XOR}
EXCHANGE_NAMES = {"xchg": b.ATOMIC_XCHG, "cmpxchg": b.ATOMIC_CMPXCHG}
MOVSX_NAMES = {
    "movsx832": (b.ALU, 8),
    "movsx1632": (b.ALU, 16),
    "movsx864": (b.ALU64, 8),
    "movsx1664": (b.ALU64, 16),
    "movsx3264": (b.ALU64, 32),
}
SWAP_NAMES = {"le": b.ALU | b.END | b.K, "be": b.ALU | b.END | b.X, "swap": b.ALU64 | b.END | b.K}
PSEUDO_NAMES = {  # RFC 9669, section 5.4
    "map": b.PSEUDO_MAP,
    "map_value": b.PSEUDO_MAP_VALUE,
    "variable": 3,
    "code": b.PSEUDO_FUNC,
    "map_by_idx": 5,
    "map_value_by_idx": 6,
}

_LABEL = re.compile(r"([A-Za-z_.][\w.]*):")
_REGISTER = re.compile(r"%?r(\d{1,2})")
_MEMORY = re.compile(r"\[\s*%?r(\d{1,2})\s*(?:([+-])\s*(0[xX][0-9a-fA-F]+|\d+))?\s*\]")
_NUMBER = re.compile(r"[+-]?(0[xX][0-9a-fA-F]+|\d+)")
_PSEUDO = re.compile(r"([A-Za-z]\w*)\s+(-?\w+)(?:\s*\+\s*(\w+))?")


class AsmError(BpfFormatError):
    """Text that is not assembler. The message names the line."""


@dataclass(slots=True)
class _Statement:
    line: int
    text: str
    slot: int
    words: str  # mnemonic, `lock` and `fetch` included
    operands: list[str]


class _Line:
    """One statement on its way to an instruction; `resolve` turns a label or `+N` into a distance."""

    def __init__(self, statement: _Statement, labels: dict[str, int]) -> None:
        self.statement, self.operands, self.labels = statement, statement.operands, labels

    def error(self, reason: str) -> AsmError:
        return AsmError(f"line {self.statement.line}: `{self.statement.text}`: {reason}")

    def expect(self, count: int) -> None:
        if len(self.operands) != count:
            raise self.error(f"takes {count} operands, not {len(self.operands)}")

    def is_register(self, at: int) -> bool:
        return _REGISTER.fullmatch(self.operands[at]) is not None

    def register(self, at: int) -> int:
        match = _REGISTER.fullmatch(self.operands[at])
        if match is None or int(match[1]) >= b.REGISTERS:
            raise self.error(f"{self.operands[at]} is not a register (%r0 .. %r10)")
        return int(match[1])

    def number(self, text: str, bits: int) -> int:
        """A number of so many bits, signed or unsigned, as two's complement."""
        if not _NUMBER.fullmatch(text):
            raise self.error(f"{text} is neither a number nor a register")
        value = int(text, 16 if "x" in text.lower() else 10)
        if not -(1 << bits - 1) <= value < 1 << bits:
            raise self.error(f"{text} does not fit in {bits} bits")
        return value - (1 << bits) if value >> (bits - 1) > 0 else value

    def immediate(self, at: int) -> int:
        return self.number(self.operands[at], 32)

    def memory(self, at: int) -> tuple[int, int]:
        """(register, offset) of `[%r1+4]`."""
        match = _MEMORY.fullmatch(self.operands[at])
        if match is None or int(match[1]) >= b.REGISTERS:
            raise self.error(f"{self.operands[at]} is not a memory operand, as [%r1+4]")
        offset = int(match[3] or "0", 0) * (-1 if match[2] == "-" else 1)
        return int(match[1]), self.distance_of(offset, 16)

    def distance(self, at: int, bits: int) -> int:
        """Slots from the next instruction to a label, or as given."""
        text = self.operands[at]
        if _NUMBER.fullmatch(text):
            return self.distance_of(int(text, 16 if "x" in text.lower() else 10), bits)
        if text not in self.labels:
            raise self.error(f"there is no label {text}")
        return self.distance_of(self.labels[text] - self.statement.slot - 1, bits)

    def distance_of(self, value: int, bits: int) -> int:
        if not -(1 << bits - 1) <= value < 1 << bits - 1:
            raise self.error(f"offset {value} does not fit in {bits} bits")
        return value


_Encoder = Callable[[_Line], Insn]


def _alu(cls: int, op: int, off: int) -> _Encoder:
    def encode(line: _Line) -> Insn:
        line.expect(2)
        if line.is_register(1):
            return Insn(cls | op | b.X, line.register(0), line.register(1), off, 0)
        return Insn(cls | op | b.K, line.register(0), 0, off, line.immediate(1))

    return encode


def _movsx(cls: int, bits: int) -> _Encoder:
    def encode(line: _Line) -> Insn:
        line.expect(2)
        return Insn(cls | b.MOV | b.X, line.register(0), line.register(1), bits, 0)

    return encode


def _unary(op: int, imm: int) -> _Encoder:
    def encode(line: _Line) -> Insn:
        line.expect(1)
        return Insn(op, line.register(0), 0, 0, imm)

    return encode


def _cond(cls: int, op: int) -> _Encoder:
    def encode(line: _Line) -> Insn:
        line.expect(3)
        off = line.distance(2, 16)
        if line.is_register(1):
            return Insn(cls | op | b.X, line.register(0), line.register(1), off, 0)
        return Insn(cls | op | b.K, line.register(0), 0, off, line.immediate(1))

    return encode


def _load(mode: int, size: int) -> _Encoder:
    def encode(line: _Line) -> Insn:
        line.expect(2)
        src, off = line.memory(1)
        return Insn(b.LDX | mode | size, line.register(0), src, off, 0)

    return encode


def _store(size: int) -> _Encoder:
    def encode(line: _Line) -> Insn:
        line.expect(2)
        dst, off = line.memory(0)
        return Insn(b.ST | b.MEM | size, dst, 0, off, line.immediate(1))

    return encode


def _store_register(mode: int, size: int, imm: int) -> _Encoder:
    def encode(line: _Line) -> Insn:
        line.expect(2)
        dst, off = line.memory(0)
        return Insn(b.STX | mode | size, dst, line.register(1), off, imm)

    return encode


def _lddw(line: _Line) -> Insn:
    line.expect(2)
    text = line.operands[1]
    pseudo = _PSEUDO.fullmatch(text)
    if pseudo is None:
        return Insn(b.LDDW, line.register(0), 0, 0, line.number(text, 64) & (1 << 64) - 1)
    if pseudo[1] not in PSEUDO_NAMES:
        raise line.error(f"{pseudo[1]} is none of {', '.join(PSEUDO_NAMES)}")
    low, high = (line.number(part or "0", 32) & 0xFFFFFFFF for part in (pseudo[2], pseudo[3]))
    return Insn(b.LDDW, line.register(0), PSEUDO_NAMES[pseudo[1]], 0, low | high << 32)


def _ja(line: _Line) -> Insn:
    line.expect(1)
    return Insn(b.JMP | b.JA, 0, 0, line.distance(0, 16), 0)


def _ja32(line: _Line) -> Insn:
    line.expect(1)
    return Insn(b.JMP32 | b.JA, 0, 0, 0, line.distance(0, 32))


def _call(line: _Line) -> Insn:
    line.expect(1)
    how, _, what = line.operands[0].rpartition(" ")
    line.operands = [what]
    match how.strip():
        case "local":
            return Insn(b.JMP | b.CALL, 0, b.PSEUDO_CALL, 0, line.distance(0, 32))
        case "kfunc":
            return Insn(b.JMP | b.CALL, 0, b.PSEUDO_KFUNC_CALL, 0, line.immediate(0))
        case "" | "helper":
            if line.is_register(0):
                return Insn(b.CALLX, line.register(0), 0, 0, 0)
            return Insn(b.JMP | b.CALL, 0, b.HELPER_CALL, 0, line.immediate(0))
    raise line.error(f"{how} is none of local, kfunc, helper")


def _exit(line: _Line) -> Insn:
    line.expect(0)
    return Insn(b.JMP | b.EXIT, 0, 0, 0, 0)


def _encoders() -> dict[str, _Encoder]:
    table: dict[str, _Encoder] = {"lddw": _lddw, "ja": _ja, "ja32": _ja32, "call": _call, "exit": _exit}
    for suffix, cls in (("", b.ALU64), ("64", b.ALU64), ("32", b.ALU)):
        table |= {name + suffix: _alu(cls, op, 0) for name, op in ALU_NAMES.items()}
        table |= {name + suffix: _alu(cls, op, 1) for name, op in SIGNED_NAMES.items()}
        table["neg" + suffix] = _unary(cls | b.NEG, 0)
    table |= {name: _movsx(*form) for name, form in MOVSX_NAMES.items()}
    for width in (16, 32, 64):
        table |= {f"{name}{width}": _unary(op, width) for name, op in SWAP_NAMES.items()}
        table[f"bswap{width}"] = table[f"swap{width}"]
    for suffix, cls in (("", b.JMP), ("32", b.JMP32)):
        table |= {name + suffix: _cond(cls, op) for name, op in JUMP_NAMES.items()}
    for name, size in SIZE_NAMES.items():
        table["ldx" + name] = _load(b.MEM, size)
        if size != b.DW:
            table["ldxs" + name] = _load(b.MEMSX, size)
        table["st" + name] = _store(size)
        table["stx" + name] = _store_register(b.MEM, size, 0)
    for suffix, size in (("", b.DW), ("64", b.DW), ("32", b.W)):
        for name, op in ATOMIC_NAMES.items():
            table[f"lock {name}{suffix}"] = _store_register(b.ATOMIC, size, op)
            table[f"lock fetch {name}{suffix}"] = _store_register(b.ATOMIC, size, op | b.ATOMIC_FETCH)
        for name, op in EXCHANGE_NAMES.items():
            table[f"lock {name}{suffix}"] = _store_register(b.ATOMIC, size, op)
    return table


_ENCODERS = _encoders()


def _statements(text: str) -> tuple[list[_Statement], dict[str, int]]:
    """The statements with their slots, and the slots of labels."""
    statements: list[_Statement] = []
    labels: dict[str, int] = {}
    slot = 0
    first_exit: int | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.split("#", 1)[0].strip()
        while (match := _LABEL.match(line)) is not None:
            if match[1] in labels:
                raise AsmError(f"line {number}: label {match[1]} is defined twice")
            labels[match[1]] = slot
            line = line[match.end() :].strip()
        if not line:
            continue
        words = re.match(r"(lock\s+)?(fetch\s+)?\S+", line)
        assert words is not None
        rest = line[words.end() :].strip()
        operands = [operand.strip() for operand in rest.split(",")] if rest else []
        mnemonic = " ".join(words[0].split())
        statements.append(_Statement(number, line, slot, mnemonic, operands))
        if mnemonic == "exit" and first_exit is None:
            first_exit = slot
        slot += 2 if mnemonic == "lddw" else 1
    if first_exit is not None:
        labels.setdefault("exit", first_exit)
    return statements, labels


def assemble(text: str) -> list[Insn]:
    """A program, one entry per slot. AsmError names the line and what is wrong with it."""
    statements, labels = _statements(text)
    insns: list[Insn] = []
    for statement in statements:
        line = _Line(statement, labels)
        encoder = _ENCODERS.get(statement.words)
        if encoder is None:
            raise line.error(f"there is no instruction {statement.words}")
        insns.append(encoder(line))
        if insns[-1].op == b.LDDW:
            insns.append(LDDW_HI)
    return insns
