"""Programs out of bytes, for the fuzzers of verifier and lifter: instruction slots as they are, or decisions of the generator.

An input is two bytes and a body. The first byte chooses the context, the low bits of the second the options, its highest bit
says what the body is: instruction slots of 8 bytes, or what a generator of plausible programs draws its decisions from.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from chamelio.bpf import insn as bpf
from chamelio.bpf.asm import AsmError, assemble
from chamelio.bpf.fault import CALL_TARGET, INSTRUCTION, REFERENCE, Fault
from chamelio.bpf.insn import FORMS, LDDW, PSEUDO_CALL, PSEUDO_FUNC, PSEUDO_MAP, PSEUDO_MAP_VALUE, SLOT, Insn, decode_any
from chamelio.bpf.maps import MAP_KIND_DATA, MapDef
from chamelio.bpf.object import Object, Program
from chamelio.verify.catalogue import HOOKS
from chamelio.verify.kernel import maps as kernel
from verify.generate import ALU, JUMPS, Generator
from verify.kernel import generate
from verify.kernel.families import sample
from verify.kernel.test_families import FAMILIES, program_of
from verify.suite import MAPS, assembled, cases

RUN = tuple(f"chamelio/{hook}" for hook in HOOKS)
SECTIONS = (*RUN, "xdp", "tc", "socket", "lwt_xmit", "sk_skb", "xdp/devmap")
GENERATED = 0x80
MAX_SLOTS = 160
MAX_LEN = 2 + SLOT * MAX_SLOTS
KERNEL_MAPS = [
    *generate.MAPS,
    MapDef("trie", kernel.LPM_TRIE, 8, 16, 8, {"map_flags": 1}),
    MapDef("outer", kernel.ARRAY_OF_MAPS, 4, 4, 8, inner=MapDef("inner", kernel.ARRAY, 4, 16, 8)),
    MapDef("sockets", kernel.SOCKHASH, 8, 4, 8),
    MapDef("xsks", kernel.XSKMAP, 4, 4, 8),
]
_CONTEXTS = {"xdp": generate.XDP, "xdp/devmap": generate.XDP, "tc": generate.TC, "socket": generate.SOCKET}
_EDGES = (0, 1, -1, 2, 4, 7, 8, 16, 31, 32, 63, 64, 127, 255, 256, 512, -8, -16, -512, 0x7FFF, -0x8000, 0xFFFF, 0x7FFFFFFF,
          -0x80000000)  # fmt: skip
_HELPERS = (1, 2, 3, *range(0x100, 0x112), 6, 12, 28, 51, 65, 69, 84, 86, 130, 131, 132, 164, 181)


class Decisions(random.Random):
    """A source of randomness whose bits are given; when they are used up, all are zero."""

    def __new__(cls, data: bytes) -> Decisions:  # Random itself would hash it
        return super().__new__(cls)

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self.data, self.at = data, 0

    def getrandbits(self, k: int) -> int:
        count = (k + 7) // 8
        taken, self.at = self.data[self.at : self.at + count], self.at + count
        return int.from_bytes(taken, "little") & (1 << k) - 1

    def random(self) -> float:
        return self.getrandbits(16) / 0x10000


def program(data: bytes, sections: Sequence[str] = SECTIONS) -> tuple[Object, Program, int] | None:
    """(object, its program, options 0..127) of an input; None if it is too short for one instruction, or too long to be of use."""
    if not 2 + SLOT <= len(data) <= MAX_LEN:
        return None
    section, body = sections[data[0] % len(sections)], data[2:]
    maps = MAPS if section in RUN else KERNEL_MAPS
    if data[1] & GENERATED:
        try:
            made = _generated(section, body)
        except AsmError:  # a change has removed a label's line
            return None
    else:
        made = _linked(section, body[: len(body) // SLOT * SLOT], maps)
    return Object([made], maps, None, "GPL", ""), made, data[1] & 0x7F


def _generated(section: str, body: bytes) -> Program:
    """The program that a generator makes when its decisions are these."""
    if section in RUN:
        generator = Generator(0)
    else:
        generator = generate.KernelGenerator(0)
        generator.context = _CONTEXTS.get(section, generate.TC)
    generator.r = Decisions(body)
    if section in RUN:
        generator.hook = "ring" if section == "chamelio/ring" else "rx"
    return replace(assembled(generator.text())[1], section=section)


def _linked(section: str, code: bytes, maps: list[MapDef]) -> Program:
    """Slots as the loader would leave them: what refers to nothing is a fault, functions begin where calls go."""
    insns, wrong = decode_any(code)
    faults = {slot: Fault(INSTRUCTION, "no instruction", reason) for slot, reason in wrong.items()}
    functions = {0: "fuzzed"}
    for slot, insn in enumerate(insns):
        fault = _fault(slot, insn, insns, maps)
        if fault is not None:
            for at in (slot, slot + 1) if insn.op == LDDW else (slot,):
                insns[at], faults[at] = bpf.TRAP, fault
        elif (insn.is_call and insn.src == PSEUDO_CALL) or (insn.op == LDDW and insn.src == PSEUDO_FUNC):
            to = _callee(slot, insn)
            functions.setdefault(to, f"function_{to}")
    return Program("fuzzed", section, insns, dict(sorted(functions.items())), {}, faults)


def _callee(slot: int, insn: Insn) -> int:
    low = insn.imm & 0xFFFFFFFF
    return slot + 1 + (low - (1 << 32) if low >> 31 else low)


def _fault(slot: int, insn: Insn, insns: list[Insn], maps: list[MapDef]) -> Fault | None:
    """Why the loader would not let an instruction through."""
    if insn.op == bpf.CALLX or (insn.is_call and insn.src == bpf.PSEUDO_KFUNC_CALL):
        return Fault(INSTRUCTION, "an indirect call", "functions are called by name")
    if insn.op == LDDW and insn.src in (PSEUDO_MAP, PSEUDO_MAP_VALUE):
        index, offset = insn.imm & 0xFFFFFFFF, insn.imm >> 32
        whole = insn.src == PSEUDO_MAP
        if index >= len(maps) or (offset if whole else maps[index].kind != MAP_KIND_DATA or offset >= maps[index].value_size):
            return Fault(REFERENCE, f"map {index}", "there is none")
    elif (insn.is_call and insn.src == PSEUDO_CALL) or (insn.op == LDDW and insn.src == PSEUDO_FUNC):
        to = _callee(slot, insn)
        if not 0 <= to < len(insns) or (to and insns[to - 1].op == LDDW):
            return Fault(CALL_TARGET, "a call to where no function begins", f"it goes to instruction {to}")
        if insn.op == LDDW and insn.imm >> 32:
            return Fault(REFERENCE, "a function", "its number has 32 bits")
    elif insn.op == LDDW and insn.src:
        return Fault(INSTRUCTION, f"a wide load with pseudo source {insn.src}", "only a relocation says what it refers to")
    return None


# ---- mutation ------------------------------------------------------------------------------------------------------


def mutate(data: bytes, max_size: int, seed: int, plain: Callable[[bytes, int], bytes]) -> bytes:
    """A changed input: a few slots moved, copied or bent, or what `plain` makes of it."""
    r = random.Random(seed)
    if len(data) < 2 + SLOT or data[1] & GENERATED or r.random() < 0.1:
        return plain(data, max_size)
    head = bytearray(data[:2])
    slots = [data[at : at + SLOT] for at in range(2, len(data) - SLOT + 1, SLOT)]
    if r.random() < 0.05:
        head[r.randrange(2)] = r.randrange(GENERATED)
    for _ in range(r.choice((1, 1, 1, 2, 3, 5))):
        _change(slots, r)
    return (bytes(head) + b"".join(slots))[: max_size - (max_size - 2) % SLOT]


def _change(slots: list[bytes], r: random.Random) -> None:
    at = r.randrange(len(slots))
    match r.randrange(8):
        case 0 if len(slots) > 1:
            del slots[at]
        case 1:
            slots.insert(at, r.choice(slots))
        case 2:
            other = r.randrange(len(slots))
            slots[at], slots[other] = slots[other], slots[at]
        case 3 if len(slots) < MAX_SLOTS:
            slots[at:at] = _fresh(r)
        case 4:
            size = r.randint(1, 8)
            slots[at:at] = slots[r.randrange(len(slots)) :][:size]
            del slots[MAX_SLOTS:]
        case _:
            slots[at] = _bent(slots[at], r)


def _bent(slot: bytes, r: random.Random) -> bytes:
    """An instruction with one field changed."""
    op, regs, off, imm = struct.unpack("<BBhi", slot)
    match r.randrange(6):
        case 0:
            op = r.choice([o for o in FORMS if o & 7 == op & 7] or list(FORMS)) if r.random() < 0.8 else r.choice(list(FORMS))
        case 1:
            regs = regs & 0xF0 | r.randrange(11)
        case 2:
            regs = regs & 0x0F | r.randrange(11) << 4
        case 3:
            off = r.choice((off + 1, off - 1, off + 8, off - 8, r.randrange(-12, 12), r.choice(_EDGES)))
        case 4 if op == bpf.JMP | bpf.CALL:
            imm = r.choice(_HELPERS)
        case 4:
            imm = r.choice((imm + 1, imm - 1, imm ^ 1 << r.randrange(32), r.choice(_EDGES)))
        case _:
            imm = r.choice(_EDGES)
    return struct.pack("<BBHI", op, regs, off & 0xFFFF, imm & 0xFFFFFFFF)


def _fresh(r: random.Random) -> list[bytes]:
    """A new instruction of any opcode, its reserved fields as they must be."""
    op = r.choice(list(FORMS))
    form = FORMS[op]
    dst, src = r.choice(list(form.dst)), r.choice(list(form.src))
    off = r.randrange(-8, 12) if form.off is None else r.choice(list(form.off))
    imm = r.choice(_EDGES) if form.imm is None else r.choice(list(form.imm))
    if op == bpf.JMP | bpf.CALL:
        imm = r.choice(_HELPERS)
    if op == LDDW and src in (PSEUDO_MAP, PSEUDO_MAP_VALUE):
        imm = r.randrange(len(MAPS))
    slots = [struct.pack("<BBhI", op, dst | src << 4, off, imm & 0xFFFFFFFF)]
    return [*slots, bytes(SLOT)] if op == LDDW else slots


# ---- inputs to begin with ------------------------------------------------------------------------------------------


def as_input(section: str, insns: Sequence[Insn], sections: Sequence[str] = SECTIONS) -> bytes:
    """An input that stands for a program."""
    return bytes((sections.index(section), 0)) + bpf.encode(insns)


def numbers(r: random.Random) -> str:
    """A program that does nothing but calculate, so that hardly a change of it is refused, and shows all that it has calculated."""
    lines = ["ldxdw r6, [r1+32]", "ldxsw r7, [r1+44]", "ldxw r8, [r1+40]", "lddw r5, 0x8000000000000001", "mov r0, 1", "mov r4, -1"]
    registers = [f"r{n}" for n in (0, 4, 5, 6, 7, 8)]
    for _ in range(r.randint(8, 40)):
        a, b, width = r.choice(registers), r.choice(registers), r.choice(("", "32"))
        lines.append(
            r.choice((
                f"{r.choice(ALU)}{width} {a}, {b}",
                f"{r.choice(ALU)}{width} {a}, {b}",
                f"{r.choice(ALU)}{width} {a}, {r.randint(-9, 40)}",
                f"neg{width} {a}", f"{r.choice(('be', 'le', 'bswap'))}{r.choice((16, 32, 64))} {a}",
                f"{r.choice(('movsx832', 'movsx1632', 'movsx864', 'movsx1664', 'movsx3264'))} {a}, {b}",
                f"{r.choice(JUMPS)}{width} {a}, {r.choice((b, r.randint(-2, 20)))}, +1\nxor {b}, {r.randint(1, 99)}",
                f"stxdw [r10-8], {a}\nldx{r.choice(('b', 'h', 'w', 'dw', 'sb', 'sh', 'sw'))} {b}, [r10-8]",
            ))
        )  # fmt: skip
    for register in registers[1:]:
        lines += ["mul r0, 31", f"add r0, {register}"]
    return "\n".join([*lines, "exit"])


def given(sections: Sequence[str]) -> Iterator[bytes]:
    """The verifier's own test programs, some that calculate, and some of the generator's."""
    for case in cases("*.asm"):
        section = case.hook if case.hook in SECTIONS else f"chamelio/{case.hook}"
        if section in sections:
            yield as_input(section, assemble("\n".join(case.text)), sections)[:MAX_LEN]
    for context, family in FAMILIES.values() if set(sections) > set(RUN) else ():
        for text in sample(family, 0, 12):
            yield as_input("tc" if context == generate.TC else "xdp", program_of(text).insns, sections)
    r = random.Random(0)
    for n in range(40):
        yield as_input(RUN[n % len(RUN)], assemble(numbers(r)), sections)
    for n in range(80):
        yield bytes((n % len(sections), GENERATED | n)) + r.randbytes(r.randint(20, 300))
    for n in range(60):
        generator = Generator(n)
        text = generator.text()
        data = as_input(f"chamelio/{generator.hook}", assemble(text), sections)
        if len(data) <= MAX_LEN:
            yield data
