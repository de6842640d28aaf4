"""Programs at random that could have been written: most are safe, some are made unsafe on purpose."""

from __future__ import annotations

import random

from verify.joins import Joins
from verify.world import Input

EDGES = [0, 1, 2, 7, 15, 16, 63, 64, 127, 128, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32,
         (1 << 63) - 1, 1 << 63, (1 << 64) - 1]  # fmt: skip
ALU = ["add", "sub", "mul", "div", "or", "and", "lsh", "rsh", "mod", "xor", "mov", "arsh", "sdiv", "smod"]
JUMPS = ["jeq", "jne", "jgt", "jge", "jlt", "jle", "jset", "jsgt", "jsge", "jslt", "jsle"]
SIZES = [("b", 1), ("h", 2), ("w", 4), ("dw", 8)]


class Generator(Joins):
    """One program. r9 is the context all along, r5..r8 are numbers, r0..r4 scratch; the stack's lowest slots are written."""

    def __init__(self, seed: int, joins: bool | None = None) -> None:
        """`joins`: whether it is about joins of two ways; by default half of the programs are."""
        self.r = random.Random(seed)
        self.joins = joins
        self.lines: list[str] = []
        self.functions: list[str] = []
        self.labels = 0
        self.depth = 0
        self.hook = self.r.choice(("rx", "rx", "ring"))
        self.numbers = ["r6", "r7", "r8"]

    def emit(self, *lines: str) -> None:
        self.lines += lines

    def label(self) -> str:
        self.labels += 1
        return f"l{self.labels}"

    def text(self) -> str:
        """The program; now and then with one thing changed, whether that makes it unsafe or not."""
        self.emit("mov r9, r1", "ldxdw r6, [r9+32]", "ldxw r7, [r9+44]", "mov r8, 3")
        for slot in range(1, 9):
            self.emit(f"stdw [r10-{8 * slot}], {self.r.randrange(16)}")
        joins = self.r.random() < 0.5 if self.joins is None else self.joins
        for _ in range(self.r.randint(0, 2) if joins else self.r.randint(2, 9)):
            self.statement()
        for _ in range(self.r.choice((1, 1, 1, 2)) if joins else 0):
            self.join()
        self.emit("mov r0, r6", "xor r0, r7", "add r0, r8", "exit")
        lines = self.lines + self.functions
        for _ in range(self.r.choice((0, 0, 0, 1, 1, 2))):
            self.change(lines)
        return "\n".join(lines)

    def change(self, lines: list[str]) -> None:
        """Drop, double or bend one line."""
        at = self.r.randrange(1, len(lines))
        line = lines[at]
        if line.endswith(":") or line == "exit":
            return
        match self.r.randrange(4):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, line)
            case 2:
                numbers = [word for word in line.replace(",", " ").split() if word.lstrip("-").isdigit()]
                if numbers:
                    number = self.r.choice(numbers)
                    head, _, tail = line.rpartition(f" {number}")
                    bent = int(number) + self.r.choice((-8, -1, 1, 8))
                    lines[at] = f"{head} {max(-(1 << 31), min(bent, (1 << 31) - 1))}{tail}"
            case _:
                word = line.split()[0]
                if word in JUMPS:
                    lines[at] = line.replace(word, self.r.choice(JUMPS), 1)
                elif word in ALU:
                    lines[at] = line.replace(word, self.r.choice(ALU), 1)

    # ---- statements ---------------------------------------------------------------------------------------------

    def statement(self) -> None:
        kinds = [self.arithmetic] * 4 + [self.stack] * 3 + [self.packet] * 3 + [self.value] * 4 + [self.helper, self.field]
        kinds += [self.data, self.reload]
        if self.hook == "ring":
            kinds += [self.entry] * 2
        if self.depth < 3:
            kinds += [self.branch] * 4 + [self.loop] * 2 + [self.call, self.join]
        self.r.choice(kinds)()

    def some(self, least: int, most: int) -> None:
        self.depth += 1
        for _ in range(self.r.randint(least, most)):
            self.statement()
        self.depth -= 1

    def number(self) -> str:
        return self.r.choice(self.numbers)

    def immediate(self) -> int:
        return self.r.choice((self.r.randint(-20, 40), self.r.choice((0x7FFFFFFF, -0x80000000, 255, 256, 65535, -1, -256))))

    def arithmetic(self) -> None:
        a, b = self.number(), self.number()
        width = self.r.choice(("", "", "32"))
        match self.r.randrange(8):
            case 0:
                self.emit(f"neg{width} {a}")
            case 1:
                self.emit(f"{self.r.choice(('be', 'le', 'bswap'))}{self.r.choice((16, 32, 64))} {a}")
            case 2:
                self.emit(f"{self.r.choice(('movsx832', 'movsx1632', 'movsx864', 'movsx1664', 'movsx3264'))} {a}, {b}")
            case 3:
                self.emit(f"{self.r.choice(ALU)}{width} {a}, {b}")
            case 4:
                self.emit(f"mov{width} {a}, {b}")
            case 5:
                self.emit(f"{self.r.choice(('lsh', 'rsh', 'arsh'))}{width} {a}, {self.r.randrange(64)}")
            case 6:
                self.emit(f"lddw {a}, {self.r.choice(EDGES):#x}")
            case _:
                self.emit(f"{self.r.choice(ALU)}{width} {a}, {self.immediate()}")

    def field(self) -> None:
        name, size = self.r.choice((("w", 40), ("w", 44), ("w", 48), ("dw", 32), ("sw", 44), ("w", 52)))
        self.emit(f"ldx{name} {self.number()}, [r9+{size}]")

    def slot(self, size: int) -> int:
        return -self.r.randint(size, 64) if self.r.random() < 0.3 else -size * self.r.randint(1, 64 // size)

    def stack(self) -> None:
        name, size = self.r.choice(SIZES)
        at = self.slot(size)
        match self.r.randrange(6):
            case 0:
                self.emit(f"stx{name} [r10{at}], {self.number()}")
            case 1:
                self.emit(f"st{name} [r10{at}], {self.immediate() if size > 1 else 5}")
            case 2:
                signed = "s" if size < 8 and self.r.random() < 0.3 else ""
                self.emit(f"ldx{signed}{name} {self.number()}, [r10{at}]")
            case 3:
                a, b = self.number(), self.number()
                self.emit(f"stx{name} [r10{at}], {a}", f"ldx{name} {b}, [r10{at}]")
            case 4:
                at, value = self.slot(8) // 8 * 8, self.number()
                self.emit(f"lock {self.r.choice(('add', 'fetch add', 'fetch xor', 'xchg', 'or'))} [r10{at}], {value}")
            case _:
                # the address of the stack, moved about
                self.emit("mov r2, r10", f"add r2, {at - 8}", f"stx{name} [r2+8], {self.number()}", f"ldx{name} r3, [r10{at}]",
                          f"mov {self.number()}, r3")  # fmt: skip

    def reload(self) -> None:
        """A number that is compared after it was spilled or copied, then used."""
        a, b = self.r.sample(self.numbers, 2)
        out = self.label()
        at = -8 * self.r.randint(1, 8)
        self.emit(f"stxdw [r10{at}], {a}" if self.r.random() < 0.5 else f"mov {b}, {a}")
        self.emit(f"{self.r.choice(JUMPS)}{self.r.choice(('', '32'))} {a}, {self.r.choice((15, 8, self.immediate()))}, {out}")
        if self.r.random() < 0.5:
            self.emit(f"ldxdw {b}, [r10{at}]")
        self.inside(b)
        self.emit(f"{out}:")

    def inside(self, index: str) -> None:
        """Use a number as an index into constant data, on the verifier's word that it is small enough."""
        self.emit("lddw r2, map_value 9+0", f"mov r3, {index}")
        if self.r.random() < 0.7:
            self.emit(self.r.choice(("and r3, 7", "and r3, 15", "mod r3, 16", "rsh r3, 60", "and32 r3, 12", "div r3, 0x7fffffff")))
        self.emit("add r2, r3", f"ldxb r4, [r2+{self.r.choice((0, 0, 0, 1, 8))}]", f"add {self.number()}, r4")

    def bounded(self) -> str:
        """r3 becomes a small number."""
        self.emit(f"mov r3, {self.number()}")
        most = self.r.choice((1, 3, 7, 15, 24, 31, 63))
        match self.r.randrange(4):
            case 0:
                self.emit(f"and r3, {most}")
            case 1:
                self.emit(f"mod r3, {most + 1}")
            case 2:
                self.emit("and32 r3, 15", f"lsh32 r3, {self.r.choice((0, 1, 2))}")
            case _:
                self.emit(f"and r3, {most}", f"sub r3, {self.r.choice((1, 4, most))}")
        return "r3"

    def accesses(self, base: str, low: int, high: int) -> None:
        """Loads and stores at base + low .. base + high, hardly ever beyond."""
        for _ in range(self.r.randint(1, 3)):
            name, size = self.r.choice(SIZES)
            if high - low < size:
                name, size = "b", 1
            at = self.r.randint(low, max(low, high - size)) + (self.r.choice((-1, 1)) if self.r.random() < 0.05 else 0)
            match self.r.randrange(3):
                case 0:
                    self.emit(f"ldx{name} {self.number()}, [{base}{at:+d}]")
                case 1:
                    self.emit(f"stx{name} [{base}{at:+d}], {self.number()}")
                case _:
                    self.emit(f"ldx{name} r5, [{base}{at:+d}]", f"xor {self.number()}, r5")

    def packet(self) -> None:
        out, n = self.label(), self.r.randint(1, 40)
        self.emit("ldxdw r1, [r9+0]", "ldxdw r2, [r9+8]")
        low = 0
        if self.r.random() < 0.5:
            self.emit(f"add r1, {self.bounded()}")
            if self.r.random() < 0.3:
                low = -self.r.randint(0, 4)
        if self.r.random() < 0.2:
            self.emit("stxdw [r10-72], r1", "ldxdw r1, [r10-72]")
        if self.r.random() < 0.35:
            self.distance(n, low, out)
            return
        self.emit("mov r4, r1", f"add r4, {n}")
        check = self.r.choice(("jgt r4, r2", "jgt r4, r2", "jlt r2, r4", "jge r4, r2", "jle r2, r4", "jgt r1, r2", "jge r1, r2"))
        self.emit(f"{check}, {out}")
        self.accesses("r1", low, n)
        self.emit(f"{out}:")

    def distance(self, n: int, low: int, out: str) -> None:
        """Access the packet at r1 after a look at how far its end, r2, is."""
        self.emit(self.r.choice(("sub r2, r1", "sub r2, r1", "sub32 r2, r1")))
        header = self.r.choice((0, 0, 0, 4, 20, -3))
        if header:
            self.emit(f"sub r2, {header}")
        if self.r.random() < 0.3:
            self.emit("mov r4, r2", "mov r2, r4")
        if self.r.random() < 0.2:
            self.emit("stxdw [r10-72], r2", "ldxdw r4, [r10-72]")
        least = n - header + self.r.choice((0, 0, 0, 1, -1))
        check = self.r.choice(("jlt", "jslt", "jslt", "jslt32", "jle", "jsle"))
        self.emit(f"{check} r2, {least}, {out}")
        self.accesses("r1", low, n)
        self.emit(f"{out}:")

    def entry(self) -> None:
        self.emit("ldxdw r1, [r9+16]")
        if self.r.random() < 0.4:
            self.emit(f"mov r3, {self.number()}", "and r3, 7", "add r1, r3")
            self.accesses("r1", 0, 9)
        else:
            self.accesses("r1", 0, 16)

    def data(self) -> None:
        at = self.r.choice((0, 4, 8))
        self.emit(f"lddw r1, map_value {self.r.choice((8, 8, 9))}+{at}")
        if self.r.random() < 0.4:
            self.emit(f"mov r3, {self.number()}", "and r3, 3", "add r1, r3")
            self.accesses("r1", -at, 13 - at)
        else:
            self.accesses("r1", -at, 16 - at)

    def key(self, size: int) -> None:
        self.emit("mov r2, r10", f"add r2, -{size + 8}")
        self.emit(f"st{'w' if size == 4 else 'dw'} [r10-{size + 8}], {self.r.randrange(10)}" if self.r.random() < 0.6
                  else f"stx{'w' if size == 4 else 'dw'} [r10-{size + 8}], {self.number()}")  # fmt: skip

    def value(self) -> None:
        index, size, key = self.r.choice(((0, 16, 4), (1, 32, 8), (2, 16, 4)))
        out = self.label()
        self.key(key)
        self.emit(f"lddw r1, map {index}", "call 1", f"jeq r0, 0, {out}")
        if self.r.random() < 0.15:
            self.emit("mov r1, r0", "stxdw [r10-80], r0", f"mov r0, {self.number()}", "ldxdw r0, [r10-80]")
        if index == 2:
            self.emit(f"ldxw r4, [r0+{self.r.choice((0, 4, 8))}]", f"add {self.number()}, r4", f"stxdw [r0+8], {self.number()}")
            if self.r.random() < 0.4:
                self.emit(f"mov r3, {self.number()}", "and r3, 3", "lsh r3, 2", "add r0, r3", f"ldxw {self.number()}, [r0+0]")
        elif self.r.random() < 0.4:
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

    def helper(self) -> None:
        match self.r.randrange(6):
            case 0:
                self.emit("mov r1, r9", f"mov r2, {self.number()}", f"mov r3, {self.number()}", "call 0x105")
            case 1:
                self.emit("mov r1, r9", f"mov r2, {self.r.choice((0, 20, 64, 300))}", "call 0x102")
            case 2:
                self.emit("mov r1, r9", f"mov r2, {self.number()}", "and r2, 127", "call 0x102")
            case 3:
                self.emit("lddw r1, map 3", f"mov r2, {self.number()}", "mov r3, r10", "add r3, -32", "call 0x101")
            case 4:
                self.key(8)
                self.emit("lddw r1, map 1", "mov r3, r10", "add r3, -64", "mov r4, 0", f"call {self.r.choice((2, 3))}")
            case _:
                self.emit("lddw r1, map 6", f"mov r2, {self.number()}", f"mov r3, {self.number()}", "call 0x106")
        if self.r.random() < 0.5:
            self.emit(f"mov {self.number()}, r0")

    def condition(self) -> str:
        width = self.r.choice(("", "", "32"))
        other = self.number() if self.r.random() < 0.3 else str(self.immediate())
        return f"{self.r.choice(JUMPS)}{width} {self.number()}, {other}"

    def branch(self) -> None:
        other, out = self.label(), self.label()
        self.emit(f"{self.condition()}, {other}")
        self.some(1, 3)
        if self.r.random() < 0.5:
            self.emit(f"ja {out}", f"{other}:")
            self.some(1, 2)
            self.emit(f"{out}:")
        else:
            self.emit(f"{other}:", f"{out}:")

    def loop(self) -> None:
        """A counter in memory or a register, up or down; its bound may be unknown."""
        again = self.label()
        at = -8 * self.r.randint(11, 14)
        turns = self.r.randint(1, 6)
        self.emit(f"stdw [r10{at}], {turns}" if self.r.random() < 0.8 else f"stxdw [r10{at}], {self.number()}", f"{again}:")
        self.some(1, 2)
        self.emit(f"ldxdw r1, [r10{at}]")
        if self.r.random() < 0.2:
            self.emit("and r1, 7")
        self.emit("sub r1, 1", f"stxdw [r10{at}], r1", f"{self.r.choice(('jne r1, 0', 'jsgt r1, 0'))}, {again}")

    def call(self) -> None:
        name = self.label()
        if self.r.random() < 0.4:
            self.emit("mov r1, r10", "add r1, -32", f"mov r2, {self.number()}", f"call local {name}")
            body = ["ldxdw r0, [r1+0]", "xor r0, r2", "stxdw [r1+8], r0", "stxdw [r10-8], r2", "ldxdw r6, [r10-8]", "add r0, r6"]
        else:
            self.emit(f"mov r1, {self.number()}", f"mov r2, {self.number()}", f"call local {name}")
            body = ["mov r0, r1", f"{self.r.choice(JUMPS)} r1, r2, +1", f"{self.r.choice(ALU)} r0, r2", "mov r6, r0"]
        self.functions += [f"{name}:", *body, "exit"]
        self.emit(f"mov {self.number()}, r0")


def inputs(seed: int, count: int) -> list[Input]:
    """What programs are run on: short and long packets, numbers at the edges."""
    r = random.Random(f"inputs{seed}")

    def number(bits: int) -> int:
        kind = r.random()
        found = r.randrange(20) if kind < 0.25 else r.choice(EDGES) if kind < 0.6 else r.getrandbits(r.randint(1, 64))
        return found & (1 << bits) - 1

    return [
        Input(
            packet=r.randbytes(r.choice((0, 1, 3, 8, 14, 20, 41, 64, 128))),
            entry=r.randbytes(16),
            now=number(64),
            id=number(32),
            hash=number(32),
            table=r.randbytes(128),
            flows={r.randrange(10).to_bytes(8, "little"): r.randbytes(32) for _ in range(4)},
            shared=r.randbytes(128),
            data=r.randbytes(16),
        )
        for _ in range(count)
    ]
