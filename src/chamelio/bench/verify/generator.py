"""Programs as protocols' handlers are, of any length: headers looked at, tables looked up, options walked, sums, flags, spills.

Every fragment leaves behind what handlers leave: branches that join, numbers that are known a little, packet bounds that are
proven and end again. All programs are safe.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from chamelio.bpf.asm import assemble
from chamelio.bpf.maps import MapDef
from chamelio.bpf.object import Object, Program
from chamelio.jit.layout import ARRAY, BYTES, HASH, RING_OUT, TIMER

MAPS = [
    MapDef("table", ARRAY, 4, 64, 256),
    MapDef("flows", HASH, 8, 32, 1024),
    MapDef("ring", RING_OUT, 0, 16, 256),
    MapDef("buffers", BYTES, 0, 4096, 64),
    MapDef("deadlines", TIMER, 0, 0, 64),
]


class Generator:
    """One program. r9 is the context, r6 a sum, r7 flags, r8 an index, r0 to r5 are scratch; 64 bytes of stack are written."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.labels = 0

    def program(self, instructions: int) -> Program:
        """A program of about so many instructions: the first fragment that goes beyond is the last."""
        self.emit("mov r9, r1", "ldxdw r6, [r9+32]", "ldxw r7, [r9+44]", "ldxw r8, [r9+40]")
        self.emit(*(f"stdw [r10-{8 * n}], {n}" for n in range(1, 9)))
        fragments: list[Callable[[], None]] = [
            self.header, self.header, self.table, self.table, self.flow, self.option, self.total, self.flags, self.spill, self.tell,
        ]  # fmt: skip
        while len(self.lines) < instructions - 4:
            self.random.choice(fragments)()
        self.emit("mov r0, r6", "xor r0, r7", "and r0, 1", "exit")
        insns = assemble("\n".join(self.lines))
        return Program(name="generated", section="chamelio/rx", insns=list(insns), subprogs={0: "generated"}, lines={})

    def emit(self, *lines: str) -> None:
        """More lines."""
        self.lines += lines

    def label(self) -> str:
        """A new name."""
        self.labels += 1
        return f"l{self.labels}"

    def _packet(self, size: int, otherwise: str) -> None:
        """r2 is the packet, `size` bytes of it proven; else control goes on at a label."""
        self.emit("ldxdw r2, [r9+0]", "ldxdw r3, [r9+8]", "mov r4, r2", f"add r4, {size}", f"jgt r4, r3, {otherwise}")

    def header(self) -> None:
        """Fields of a header decide which flags are set; those of the header before count no more."""
        out, offset = self.label(), self.random.choice((0, 20, 28, 40))
        self.emit("ldxw r7, [r9+44]")
        self._packet(offset + 20, out)
        for _ in range(self.random.randint(1, 3)):
            size, width = self.random.choice((("b", 1), ("h", 2), ("w", 4)))
            skip = self.label()
            self.emit(f"ldx{size} r0, [r2+{offset + self.random.randrange(0, 20 - width, width)}]")
            self.emit(f"jne r0, {self.random.randrange(1 << 8)}, {skip}", f"or r7, {1 << self.random.randrange(8)}")
            self.emit(f"{skip}: add r6, r0")
        self.emit(f"{out}: mov r0, 0")

    def table(self) -> None:
        """A value of an array is found, looked at and changed."""
        out = self.label()
        self.emit("mov r1, r8", "and r1, 255", "stxw [r10-4], r1", "lddw r1, map 0", "mov r2, r10", "add r2, -4", "call 1")
        self.emit(f"jeq r0, 0, {out}")
        for _ in range(self.random.randint(1, 3)):
            at = 8 * self.random.randrange(8)
            self.emit(f"ldxdw r1, [r0+{at}]", f"add r1, {self.random.randrange(1, 9)}", f"stxdw [r0+{at}], r1", "add r6, r1")
        self.emit(f"{out}: mov r0, 0")

    def flow(self) -> None:
        """An entry of a hash is found, or made."""
        missing, out = self.label(), self.label()
        self.emit("stxw [r10-16], r7", "stxw [r10-12], r8", "lddw r1, map 1", "mov r2, r10", "add r2, -16", "call 1")
        self.emit(f"jeq r0, 0, {missing}", "ldxdw r1, [r0+8]", "add r1, 1", "stxdw [r0+8], r1", "ldxw r8, [r0+16]", f"ja {out}")
        self.emit(f"{missing}: lddw r1, map 1", "mov r2, r10", "add r2, -16", "mov r3, r10", "add r3, -48", "mov r4, 0", "call 2")
        self.emit("add r6, r0", f"{out}: mov r0, 0")

    def option(self) -> None:
        """A header behind another one of variable length."""
        out = self.label()
        self._packet(20, out)
        self.emit("ldxb r1, [r2+0]", "and r1, 15", "lsh r1, 2", "add r2, r1", "mov r4, r2", "add r4, 8", f"jgt r4, r3, {out}")
        self.emit("ldxh r0, [r2+2]", "be16 r0", "add r6, r0", "ldxw r8, [r2+4]", f"{out}: mov r0, 0")

    def total(self) -> None:
        """A sum over words of the stack, in a bounded loop."""
        loop, turns = self.label(), self.random.randint(4, 16)
        self.emit("mov r1, 0", "mov r2, 0", f"{loop}: ldxdw r3, [r10-8]", "add r2, r3", "rsh r3, 32", "add r2, r3", "add r1, 1")
        self.emit(f"jlt r1, {turns}, {loop}", "mov r3, r2", "rsh r3, 16", "and r2, 65535", "add r2, r3", "add r6, r2")

    def flags(self) -> None:
        """Bits are tested, set and counted, 32 of them."""
        for _ in range(self.random.randint(1, 3)):
            skip = self.label()
            self.emit(f"jset r7, {1 << self.random.randrange(8)}, {skip}", f"add r6, {self.random.randrange(1, 100)}")
            self.emit(f"{skip}: mov32 r1, r6", "mov32 r2, r1", "rsh32 r2, 1", "and32 r2, 0x55555555", "sub32 r1, r2", "xor r8, r1")

    def spill(self) -> None:
        """Numbers go to the stack and come back."""
        at = 8 * self.random.randrange(3, 8)
        self.emit(f"stxdw [r10-{at}], r6", "mul r6, 31", f"ldxdw r1, [r10-{at}]", "and r1, 1023", "add r6, r1")
        self.emit(f"stxdw [r10-{at}], r8")

    def tell(self) -> None:
        """An entry goes to a ring; a deadline is set."""
        self.emit("stxdw [r10-32], r6", "stxdw [r10-24], r8", "lddw r1, map 2", "mov r2, 1", "mov r3, r10", "add r3, -32")
        self.emit("call 0x101")
        self.emit("mov r2, r8", "lddw r1, map 4", "ldxdw r3, [r9+32]", "add r3, 1000", "call 0x106", "add r6, r0")


def generate(instructions: int, seed: int) -> tuple[Object, Program]:
    """A program of about so many instructions, and the object that it belongs to."""
    program = Generator(seed).program(instructions)
    return Object(programs=[program], maps=MAPS, btf=None, license="", sha256=""), program
