"""Kernel-style programs at random, in the manner of `verify.generate`: XDP, tc and socket filters, some made unsafe."""

from __future__ import annotations

import random

from chamelio.bpf.maps import MAP_KIND_DATA, MapDef
from chamelio.verify.kernel import maps as m
from verify.generate import Generator

#: What the programs refer to, by index.
MAPS = [
    MapDef("table", m.ARRAY, 4, 16, 8),
    MapDef("flows", m.HASH, 8, 32, 8),
    MapDef("second", m.ARRAY, 4, 16, 8),
    MapDef("events", m.RINGBUF, 0, 0, 4096),
    MapDef("counters", m.PERCPU_ARRAY, 4, 16, 4),
    MapDef("recent", m.LRU_HASH, 8, 32, 64),
    MapDef("queue", m.QUEUE, 0, 16, 8),
    MapDef("jumps", m.PROG_ARRAY, 4, 4, 4),
    MapDef(".data", MAP_KIND_DATA, 4, 16, 1, data=bytes(range(16))),
    MapDef(".rodata", MAP_KIND_DATA, 4, 16, 1, data=bytes(range(16)), read_only=True),
]
XDP, TC, SOCKET = "xdp_md", "__sk_buff", "socket_filter"
FIELDS = {
    XDP: (("w", 12), ("w", 16)),
    TC: (("w", 0), ("w", 8), ("w", 16), ("h", 16), ("w", 48), ("dw", 48), ("b", 52), ("w", 44), ("w", 32), ("w", 64), ("w", 80)),
    SOCKET: (("w", 0), ("w", 16), ("h", 16), ("w", 48), ("w", 64), ("w", 76)),
}
STORES = {
    XDP: (),
    TC: (("w", 8), ("w", 48), ("h", 50), ("dw", 56), ("w", 44), ("w", 32), ("b", 9)),
    SOCKET: (("w", 48), ("dw", 56), ("w", 8)),
}


class KernelGenerator(Generator):
    """One program for one context."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.r = random.Random(f"kernel{seed}")
        self.context = self.r.choice((XDP, XDP, XDP, TC, TC, TC, SOCKET))
        self.hook = "kernel"

    def text(self) -> str:
        self.emit("mov r9, r1", f"ldxw r6, [r9+{12 if self.context == XDP else 0}]", "mov r7, 1", "mov r8, 3")
        if self.r.random() < 0.8:
            self.random_numbers()
        for slot in range(1, 9):
            self.emit(f"stdw [r10-{8 * slot}], {self.r.randrange(16)}")
        for _ in range(self.r.randint(2, 9)):
            self.statement()
        self.emit("mov r0, r6", "xor r0, r7", "add r0, r8", "exit")
        lines = self.lines + self.functions
        for _ in range(self.r.choice((0, 0, 0, 0, 1, 1))):
            self.change(lines)
        return "\n".join(lines) + "\n"

    def random_numbers(self) -> None:
        """Numbers that the verifiers know nothing of, but that are the same in both runs: from a map."""
        out = self.label()
        self.emit("stw [r10-4], 1", "mov r2, r10", "add r2, -4", "lddw r1, map 2", "call 1", f"jeq r0, 0, {out}")
        self.emit("ldxdw r7, [r0+0]", "ldxdw r8, [r0+8]", f"{out}:")

    def statement(self) -> None:
        kinds = [self.arithmetic] * 4 + [self.stack] * 3 + [self.value] * 4 + [self.helper] * 2 + [self.field] * 2
        kinds += [self.data, self.reload, self.span]
        if self.context != SOCKET:
            kinds += [self.packet] * 4
        if self.depth < 3:
            kinds += [self.branch] * 4 + [self.call]
        if not self.depth:
            kinds += [self.loop] * 2
        self.r.choice(kinds)()

    def data(self) -> None:
        """Global data; constants are hardly ever written."""
        at, constant = self.r.choice((0, 4, 8)), self.r.random() < 0.4
        self.emit(f"lddw r1, map_value {9 if constant else 8}+{at}")
        if self.r.random() < 0.4:
            self.emit(f"mov r3, {self.number()}", "and r3, 3", "add r1, r3")
        if constant and self.r.random() < 0.95:
            self.emit(f"ldxb {self.number()}, [r1{self.r.randint(-at, 12 - at):+d}]")
        else:
            self.accesses("r1", -at, 13 - at)

    def field(self) -> None:
        if STORES[self.context] and self.r.random() < 0.4:
            name, at = self.r.choice(STORES[self.context])
            self.emit(f"stx{name} [r9+{at}], {self.number()}" if self.r.random() < 0.7 else f"st{name} [r9+{at}], 5")
            return
        name, at = self.r.choice(FIELDS[self.context])
        if self.r.random() < 0.03:
            at += self.r.choice((1, 4, 60))
        if (self.context, at) in ((TC, 80), (SOCKET, 76)):
            self.emit(f"ldx{name} r5, [r9+{at}]")
        else:
            self.emit(f"ldx{name} {self.number()}, [r9+{at}]")

    def packet(self) -> None:
        data, end = (0, 4) if self.context == XDP else (76, 80)
        out, n = self.label(), self.r.randint(1, 40)
        self.emit(f"ldxw r1, [r9+{data}]", f"ldxw r2, [r9+{end}]")
        low = 0
        if self.r.random() < 0.5:
            self.emit(f"add r1, {self.bounded()}")
            if self.r.random() < 0.1:
                low = -self.r.randint(0, 4)
        if self.r.random() < 0.2:
            self.emit("stxdw [r10-72], r1", "ldxdw r1, [r10-72]")
        if self.r.random() < 0.1:
            self.distance(n, low, out)
            return
        self.emit("mov r4, r1", f"add r4, {n}")
        checks = ("jgt r4, r2", "jgt r4, r2", "jlt r2, r4", "jge r4, r2", "jle r2, r4")
        check = self.r.choice(checks if self.r.random() < 0.95 else ("jgt r1, r2", "jge r1, r2", "jlt r4, r2"))
        self.emit(f"{check}, {out}")
        self.accesses("r1", low, n)
        self.emit(f"{out}:")

    def slot(self, size: int) -> int:
        """Hardly ever misaligned, which the kernel refuses."""
        return super().slot(size) if self.r.random() < 0.05 else -size * self.r.randint(1, 64 // size)

    def bounded(self) -> str:
        if self.r.random() < 0.1:
            return super().bounded()
        self.emit(
            f"mov r3, {self.number()}", self.r.choice(("and r3, 15", "and32 r3, 63", "rsh r3, 59", "and r3, 0x1fe", "rsh32 r3, 28"))
        )
        return "r3"

    def key(self, size: int) -> None:
        self.emit("mov r2, r10", f"add r2, -{size + 8}")
        name = "w" if size == 4 else "dw"
        self.emit(f"st{name} [r10-{size + 8}], {self.r.randrange(10)}" if self.r.random() < 0.6 else
                  f"stx{name} [r10-{size + 8}], {self.number()}")  # fmt: skip

    def value(self) -> None:
        index, size, key = self.r.choice(((0, 16, 4), (0, 16, 4), (1, 32, 8), (1, 32, 8), (2, 16, 4), (4, 16, 4), (5, 32, 8)))
        out = self.label()
        self.key(key)
        self.emit(f"lddw r1, map {index}", "call 1", f"jeq r0, 0, {out}")
        if self.r.random() < 0.15:
            self.emit("mov r1, r0", "stxdw [r10-80], r0", f"mov r0, {self.number()}", "ldxdw r0, [r10-80]")
        if self.r.random() < 0.4:
            if self.r.random() < 0.5:
                limit = self.r.choice((8, 9, size - 1))
                self.emit(f"mov r3, {self.number()}", f"{self.r.choice(('jgt', 'jgt32', 'jsgt', 'jge'))} r3, {limit}, {out}")
                self.emit("add r0, r3", f"ldxb {self.number()}, [r0+{self.r.choice((0, 0, size - limit - 1))}]")
            else:
                self.emit(f"mov r3, {self.number()}", "and r3, 7", "add r0, r3")
                self.accesses("r0", 0, size - 7)
        elif self.r.random() < 0.2:
            self.emit(f"mov r3, {self.number()}", f"lock fetch add [r0+{self.r.choice((0, 8))}], r3", f"mov {self.number()}, r3")
        else:
            self.accesses("r0", 0, size)
        self.emit(f"{out}:")

    def span(self) -> None:
        """Memory whose length is a number: of a copy to or from the packet, or of a checksum."""
        size = self.r.choice((8, 16, 32, 64))
        self.emit(f"mov r4, {self.number()}")
        bound = self.r.choice((f"and r4, {size - 1}", "and r4, 3", f"mov r4, {size}", "and32 r4, 7", f"mod r4, {size}"))
        if self.r.random() < 0.95:
            self.emit(bound)
        if not bound.startswith("mov") and self.r.random() < 0.9:
            self.emit("or r4, 1" if self.r.random() < 0.5 else "add r4, 1")
        match self.context:
            case "socket_filter" | "__sk_buff":
                self.emit("mov r3, r10", f"add r3, -{size}", f"mov r2, {self.r.choice((0, 14, 60))}", "mov r1, r9")
                self.emit("call 26" if self.context == SOCKET or self.r.random() < 0.7 else "mov r5, 0\ncall 9")
            case _:
                if self.r.random() < 0.5:
                    self.emit("mov r3, r10", f"add r3, -{size}", f"mov r2, {self.r.choice((0, 14, 60))}", "mov r1, r9")
                    self.emit(f"call {self.r.choice((189, 190))}")
                else:
                    self.emit("mov r1, 0", "mov r2, 0", "mov r3, r10", f"add r3, -{size}", "and r4, 0xfc", "mov r5, 0", "call 28")
        if self.r.random() < 0.5:
            self.emit(f"mov {self.number()}, r0")

    def helper(self) -> None:
        match self.r.randrange(9):
            case 0:
                self.emit(f"call {self.r.choice((5, 7, 8, 118, 125))}")
            case 1:
                self.key(8)
                self.emit("lddw r1, map 1", "mov r3, r10", "add r3, -64", f"mov r4, {self.r.choice((0, 0, 1, 2))}", "call 2")
            case 2:
                self.key(4)
                self.emit("lddw r1, map 0", "mov r3, r10", "add r3, -64", "mov r4, 0", "call 2")
            case 3:
                self.key(8)
                self.emit("lddw r1, map 1", "call 3")
            case 4 | 5:
                self.reserve()
            case 6:
                self.emit("mov r1, r9", f"mov r2, {self.r.choice((-4, 0, 4, 8))}", f"call {self.r.choice((44, 65))}"
                          if self.context == XDP else "mov r2, 32\ncall 39" if self.context == TC else "call 46")  # fmt: skip
            case 7:
                self.emit("lddw r1, map 6", "mov r2, r10", f"add r2, -{self.r.choice((16, 32, 104))}",
                          self.r.choice(("mov r3, 0\ncall 87", "call 88", "call 89")))  # fmt: skip
            case _:
                self.emit(
                    "lddw r1, map 3", "mov r2, r10", "add r2, -64", f"mov r3, {self.r.choice((8, 16, 64))}", "mov r4, 0", "call 130"
                )
        if self.r.random() < 0.5:
            self.emit(f"mov {self.number()}, r0")

    def loop(self) -> None:
        """A counter on the stack that falls from a number that is hardly ever unknown: those take the kernel seconds."""
        again = self.label()
        at = -8 * self.r.randint(11, 14)
        if self.r.random() < 0.2:
            self.emit(f"mov r1, {self.number()}", "and r1, 7", "add r1, 1", f"stxdw [r10{at}], r1")
        else:
            self.emit(f"stdw [r10{at}], {self.r.randint(1, 4)}" if self.r.random() < 0.98 else f"stxdw [r10{at}], {self.number()}")
        self.emit(f"{again}:")
        self.some(1, 2)
        self.emit(
            f"ldxdw r1, [r10{at}]", "sub r1, 1", f"stxdw [r10{at}], r1", f"{self.r.choice(('jne r1, 0', 'jsgt r1, 0'))}, {again}"
        )

    def reserve(self) -> None:
        """A record of the ring, written and given back; not always."""
        out = self.label()
        size = self.r.choice((8, 16, 24))
        self.emit("lddw r1, map 3", f"mov r2, {size}", "mov r3, 0", "call 131", f"jeq r0, 0, {out}")
        if self.r.random() < 0.2:
            self.emit("stxdw [r10-88], r0", "ldxdw r0, [r10-88]")
        self.emit(f"stxdw [r0+0], {self.number()}")
        if size > 8:
            self.accesses("r0", 0, size)
        self.emit("mov r1, r0", "mov r2, 0", f"call {self.r.choice((132, 132, 133))}")
        if self.r.random() < 0.97:
            self.emit("mov r0, 0")
        self.emit(f"{out}:")
