"""What instructions mean: the reference interpreter against the kernel, register by register.

Each program sets its registers to numbers, runs a straight line of instructions over them, a data area and the stack, and
leaves all registers in the data area. Every instruction of RFC 9669 that is not a call comes up, with operands at the edges.
"""

from __future__ import annotations

import random

import pytest

from chamelio.bpf import insn as b
from chamelio.bpf.asm import ALU_NAMES, ATOMIC_NAMES, EXCHANGE_NAMES, JUMP_NAMES, MOVSX_NAMES, SIZE_NAMES, SWAP_NAMES, assemble
from chamelio.bpf.interp import Interpreter, Memory
from chamelio.bpf.maps import MAP_KIND_DATA, MapDef
from chamelio.bpf.object import Object, Program
from verify.generate import EDGES
from verify.kernel import bpf_syscall
from verify.kernel.bpf_syscall import Kernel, run

pytestmark = pytest.mark.root

REGISTERS = range(9)  # r9 is the data area
ROOM = 64  # bytes of the data area that instructions work on; the registers follow
DATA_AT = 0x10_0000_0000
SIGNED = ("sdiv", "smod")


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> None:
    reason = bpf_syscall.unavailable()
    if reason:
        pytest.skip(reason)


class Line:
    """Instructions in a row, at random."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(f"isa{seed}")

    def reg(self) -> str:
        return f"r{self.r.choice(REGISTERS)}"

    def imm(self) -> int:
        return self.r.choice(
            (0, 1, 2, 7, -1, -2, 31, 32, 33, 63, 64, 255, 0x7FFFFFFF, -0x80000000, self.r.randint(-(1 << 31), (1 << 31) - 1))
        )

    def number(self) -> int:
        value = self.r.choice(EDGES) if self.r.random() < 0.7 else self.r.getrandbits(self.r.randint(1, 64))
        return value if self.r.random() < 0.8 else -value & (1 << 64) - 1

    def instruction(self) -> list[str]:
        width = self.r.choice(("", "32"))
        match self.r.randrange(12):
            case 0 | 1:
                return [f"{self.operation()}{width} {self.reg()}, {self.reg()}"]
            case 2 | 3:
                name = self.operation()
                bits = 32 if width else 64
                imm = self.r.randrange(bits) if name in ("lsh", "rsh", "arsh") else self.imm()
                if imm == 0 and name in ("div", "mod", *SIGNED):
                    imm = 3  # the kernel refuses a zero that it can see
                return [f"{name}{width} {self.reg()}, {imm}"]
            case 4:
                return [f"neg{width} {self.reg()}"]
            case 5:
                return [f"{self.r.choice(list(SWAP_NAMES))}{self.r.choice((16, 32, 64))} {self.reg()}"]
            case 6:
                return [f"{self.r.choice(list(MOVSX_NAMES))} {self.reg()}, {self.reg()}"]
            case 7:
                jump = f"{self.r.choice(list(JUMP_NAMES))}{width} {self.reg()}, "
                return [
                    jump + (self.reg() if self.r.random() < 0.6 else str(self.imm())) + ", +1",
                    f"xor {self.reg()}, {self.imm()}",
                ]
            case 8:
                name, size = self.size()
                return [f"stx{name} [{self.place(size)}], {self.reg()}"]
            case 9:
                name, size = self.size()
                return [f"st{name} [{self.place(size)}], {self.imm()}"]
            case 10:
                name, size = self.size()
                signed = "s" if size < 8 and self.r.random() < 0.5 else ""
                return [f"ldx{signed}{name} {self.reg()}, [{self.place(size)}]"]
        size = 4 if width else 8
        names = (
            [f"lock {x}" for x in ATOMIC_NAMES] + [f"lock fetch {x}" for x in ATOMIC_NAMES] + [f"lock {x}" for x in EXCHANGE_NAMES]
        )
        return [f"{self.r.choice(names)}{width} [{self.place(size)}], {self.reg()}"]

    def operation(self) -> str:
        return self.r.choice((*ALU_NAMES, *SIGNED))

    def size(self) -> tuple[str, int]:
        name, code = self.r.choice(list(SIZE_NAMES.items()))
        return name, {b.B: 1, b.H: 2, b.W: 4, b.DW: 8}[code]

    def place(self, size: int) -> str:
        at = self.r.randrange(ROOM // size) * size
        return f"r9+{at}" if self.r.random() < 0.6 else f"r10-{ROOM - at}"

    def text(self, count: int) -> str:
        out = ["lddw r9, map_value 0+0", *(f"lddw r{reg}, {self.number():#x}" for reg in REGISTERS)]
        out += [f"stxdw [r10-{8 * slot}], r{slot % 9}" for slot in range(1, 9)]
        for _ in range(count):
            out += self.instruction()
        out += [f"stxdw [r9+{ROOM + 8 * reg}], r{reg}" for reg in REGISTERS]
        return "\n".join([*out, "mov32 r0, r6", "exit"])


def interpreted(text: str, data: bytearray) -> int:
    memory = Memory()
    memory.map(DATA_AT, data)
    return Interpreter(assemble(text), memory=memory, map_value_address=lambda _, at: DATA_AT + at).run(0)


def check(first: int, count: int, length: int = 40) -> None:
    for seed in range(first, first + count):
        text = Line(seed).text(length)
        data = bytearray(random.Random(seed).randbytes(ROOM) + bytes(8 * len(REGISTERS)))
        obj = Object([], [MapDef(".data", MAP_KIND_DATA, 4, len(data), 1, data=bytes(data))], None, "GPL", "")
        with Kernel(obj) as kernel:
            verdict = kernel.load(Program("line", "socket", assemble(text), {0: "line"}), "socket_filter")
            assert verdict.accepted, f"seed {seed}: {verdict.message}"
            outcome = run(verdict, bytes(64))
            verdict.close()
            theirs = kernel.maps[0].lookup(bytes(4))
        result = interpreted(text, data)
        assert (theirs, outcome.retval) == (bytes(data), result & 0xFFFFFFFF), f"seed {seed}\n{text}"


def test_instructions_mean_what_they_mean_in_the_kernel() -> None:
    check(0, 400)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_instructions_mean_what_they_mean_in_the_kernel_at_length() -> None:
    check(1_000_000, 40_000)


@pytest.mark.parametrize("name", [*ALU_NAMES, *SIGNED])
@pytest.mark.parametrize("width", ["", "32"])
def test_arithmetic_at_the_edges(name: str, width: str) -> None:
    """All pairs of edges, in programs of twenty pairs."""
    pairs = [(x, y) for x in EDGES for y in EDGES]
    for start in range(0, len(pairs), 20):
        out = ["lddw r9, map_value 0+0"]
        for at, (x, y) in enumerate(pairs[start : start + 20]):
            out += [f"lddw r1, {x:#x}", f"lddw r2, {y:#x}", f"{name}{width} r1, r2", f"stxdw [r9+{8 * at}], r1"]
        text = "\n".join([*out, "mov r0, 0", "exit"])
        obj = Object([], [MapDef(".data", MAP_KIND_DATA, 4, 160, 1, data=bytes(160))], None, "GPL", "")
        with Kernel(obj) as kernel:
            verdict = kernel.load(Program("pairs", "socket", assemble(text), {0: "pairs"}), "socket_filter")
            assert verdict.accepted, verdict.message
            run(verdict, bytes(64))
            verdict.close()
            theirs = kernel.maps[0].lookup(bytes(4))
        data = bytearray(160)
        interpreted(text, data)
        assert theirs == bytes(data)
