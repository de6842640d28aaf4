"""Families of small kernel-style programs: a template and all values of its parameters, of which a test takes a sample.

They go where verifiers have been wrong or weak: bounds of numbers from compares of both widths, copies that are linked,
spills of all sizes, NULL checks, packet compares, lengths of helpers' arguments, keys, calls. Each yields programs for one
context; they use `generate.MAPS`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from verify.generate import ALU, JUMPS

Family = Callable[[random.Random], Iterator[str]]

#: r0 becomes the address of a value of 16 bytes.
LOOKUP = """
ldxw r3, [r1+16]
stxw [r10-4], r3
mov r2, r10
add r2, -4
lddw r1, map 0
call 1
"""
VALUE = LOOKUP + "jeq r0, 0, out\n"
OUT = "\nout: mov r0, 0\nexit\n"
WIDTHS = ("", "32")
#: Where an unknown number comes from, to r1.
NUMBERS = ("ldxdw r1, [r0+0]", "ldxw r1, [r0+0]", "ldxb r1, [r0+0]", "ldxsw r1, [r0+0]", "ldxsb r1, [r0+0]")


def unless(jump: str, inverted: bool) -> str:
    """Leave when a condition holds, or when it does not."""
    return f"{jump}, +1\nja out" if inverted else f"{jump}, out"


def index(register: str, offset: int = 0) -> str:
    """Use a number as the index of a byte of the value."""
    return f"add r0, {register}\nldxb r2, [r0{offset:+d}]" + OUT


def product(r: random.Random, *choices: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """The combinations of parameters in an order at random, without end."""
    while True:
        yield tuple(r.choice(list(choice)) for choice in choices)


def bounds(r: random.Random) -> Iterator[str]:
    """One operation, one compare with a constant."""
    operations = (
        "", "and r1, 15", "and32 r1, 15", "rsh r1, 60", "lsh r1, 32\nrsh r1, 32", "lsh r1, 32\narsh r1, 32", "mov32 r1, r1",
        "sub r1, 4", "add32 r1, -1", "neg r1", "neg32 r1", "xor r1, 3", "or r1, 8", "mul r1, 2", "mod r1, 10", "div r1, 3",
        "movsx3264 r1, r1", "movsx864 r1, r1", "arsh32 r1, 28", "lsh32 r1, 1", "and r1, -8", "sub32 r1, 2", "mul32 r1, 3",
        "bswap16 r1", "be16 r1", "le16 r1", "smod r1, 9", "sdiv r1, 5",
    )  # fmt: skip
    constants = (0, 1, 7, 8, 12, 15, 16, -1, -8, 0x7FFFFFFF)
    for number, operation, jump, width, k, inverted in product(r, NUMBERS, operations, JUMPS, WIDTHS, constants, (False, True)):
        yield f"{VALUE}{number}\n{operation}\n{unless(f'{jump}{width} r1, {k}', inverted)}\n{index('r1')}"


def two_compares(r: random.Random) -> Iterator[str]:
    """Two compares, perhaps of different widths."""
    for number, a, b, v, w, k, n, offset in product(
        r, NUMBERS, JUMPS, JUMPS, WIDTHS, WIDTHS, (-1, 0, 1, 8, 15), (-5, 0, 3, 8, 15), (0, -3, 1, 5)
    ):
        yield f"{VALUE}{number}\n{a}{v} r1, {k}, out\n{b}{w} r1, {n}, out\n{index('r1', offset)}"


def registers(r: random.Random) -> Iterator[str]:
    """A compare with a register of which something is known."""
    others = ("and r3, 15", "and r3, 7\nadd r3, 3", "mov r3, 9", "mov32 r3, -3", "and r3, 3\nsub r3, 2")
    for number, other, jump, width, swapped, offset, before in product(
        r, NUMBERS, others, JUMPS, WIDTHS, (False, True), (0, -2, 4), ("", "and r1, 31")
    ):
        pair = "r3, r1" if swapped else "r1, r3"
        yield f"{VALUE}{number}\nldxdw r3, [r0+8]\n{other}\n{before}\n{jump}{width} {pair}, out\n{index('r1', offset)}"


def copies(r: random.Random) -> Iterator[str]:
    """One of two copies is compared, the other used."""
    ways = (
        "mov r3, r1", "mov32 r3, r1", "mov r3, r1\nadd r3, 4", "mov r3, r1\nadd r3, -4", "mov r3, r1\nadd32 r3, 4",
        "mov r3, r1\nand r3, 255", "movsx3264 r3, r1", "mov r4, r1\nmov r3, r4", "stxdw [r10-16], r1\nldxdw r3, [r10-16]",
        "stxw [r10-16], r1\nldxw r3, [r10-16]", "mov r3, r1\nsub r3, 2\nmov r4, r3",
    )  # fmt: skip
    for number, way, jump, width, k, inverted, compared in product(
        r, NUMBERS, ways, JUMPS, WIDTHS, (0, 4, 11, 15, 16, -1), (False, True), ("r1", "r3")
    ):
        used = "r3" if compared == "r1" else "r1"
        yield f"{VALUE}{number}\n{way}\n{unless(f'{jump}{width} {compared}, {k}', inverted)}\n{index(used)}"


def spills(r: random.Random) -> Iterator[str]:
    """Stores and loads of all sizes at neighbouring places, the compare before or after."""
    sizes = ("b", "h", "w", "dw")
    for number, jump, k, store, load, at, back, clean, late in product(
        r,
        NUMBERS[:2],
        ("jgt", "jsgt", "jgt32"),
        (7, 15, 15, 255),
        sizes,
        sizes,
        (-16, -16, -12), (-16, -16, -16, -15, -12, -14), (False, True),
        (False, False, True),
    ):  # fmt: skip
        compare, spill = f"{jump} r1, {k}, out", f"stx{store} [r10{at}], r1"
        order = [spill, compare] if late else [compare, spill]
        yield "\n".join([VALUE + ("stdw [r10-16], 0" if clean else ""), number, *order, f"ldx{load} r3, [r10{back}]", index("r3")])


def chains(r: random.Random) -> Iterator[str]:
    """Some operations of both widths, then a compare."""
    while True:
        lines = [r.choice(NUMBERS), "ldxdw r3, [r0+8]", "and r3, 7"]
        for _ in range(r.randint(1, 4)):
            operand = r.choice(("r3", *map(str, (1, 2, 3, 7, 8, 15, 31, -1, -4, 255))))
            name = r.choice(ALU)
            if name in ("lsh", "rsh", "arsh") and operand != "r3":
                operand = str(r.choice((1, 2, 28, 31)))
            lines.append(f"{name}{r.choice(WIDTHS)} r1, {operand}")
        if r.random() < 0.5:
            lines.append(unless(f"{r.choice(JUMPS)}{r.choice(WIDTHS)} r1, {r.choice((0, 3, 8, 15, 16, -1))}", r.random() < 0.5))
        if r.random() < 0.5:
            lines.append(r.choice(("and r1, 15", "and32 r1, 7", "jgt r1, 15, out", "jgt32 r1, 15, out", "jsgt r1, 15, out")))
        yield VALUE + "\n".join(lines) + "\n" + index("r1")


def nulls(r: random.Random) -> Iterator[str]:
    """The result of a lookup, its copies, all ways to compare it."""
    copies_ = ("", "mov r6, r0", "stxdw [r10-16], r0", "mov r6, r0\nadd r6, 4", "add r0, 8", "mov r6, r0\nstxdw [r10-16], r6")
    checks = (
        "jeq r0, 0, out", "jne r0, 0, +1\nja out", "jeq r6, 0, out", "mov r3, 0\njeq r0, r3, out",
        "mov r3, 0\njne r3, r0, +1\nja out", "jgt r0, 0, +1\nja out", "jeq32 r0, 0, out", "jne32 r0, 0, +1\nja out",
        "jlt r0, 1, out", "jset r0, -1, +1\nja out", "jsgt r0, 0, +1\nja out", "jne r0, 0, out", "jeq r0, 1, out",
    )  # fmt: skip
    uses = (
        "ldxw r2, [r0+0]", "ldxw r2, [r6+0]", "ldxdw r3, [r10-16]\nldxw r2, [r3+0]", "stdw [r0+8], 1", "add r0, 4\nldxw r2, [r0+0]",
        "mov r2, r0\nlddw r1, map 0\ncall 1",
    )  # fmt: skip
    for copy, check, use in product(r, copies_, checks, uses):
        yield f"{LOOKUP}{copy}\n{check}\n{use}{OUT}"


def packets(r: random.Random) -> Iterator[str]:
    """An offset into the packet, compared with its end in all ways."""
    offsets = (
        "", "add r2, 14", "ldxw r4, [r1+16]\nand r4, 15\nadd r2, r4", "ldxw r4, [r1+16]\nadd r2, r4",
        "ldxw r4, [r1+16]\nand r4, 0xffff\nadd r2, r4", "ldxw r4, [r1+16]\nand r4, 60\nadd r2, r4\nmov r6, r2\nadd r2, 4",
        "sub r2, 2", "ldxw r4, [r1+16]\nand r4, 15\nsub r2, r4",
    )  # fmt: skip
    for offset, n, jump, inverted, swapped, size, at, base in product(
        r, offsets, (1, 4, 8), ("jgt", "jgt", "jge", "jlt", "jle", "jeq", "jsgt"), (False, True), (False, True), ("b", "w"),
        (-1, 0, 0, 3, 4, 7), ("r2", "r2", "r5"),
    ):  # fmt: skip
        pair = "r3, r5" if swapped else "r5, r3"
        if base == "r5":
            at -= n
        yield (
            f"ldxw r2, [r1+0]\nldxw r3, [r1+4]\n{offset}\nmov r5, r2\nadd r5, {n}\n{unless(f'{jump} {pair}', inverted)}\n"
            f"ldx{size} r0, [{base}{at:+d}]{OUT}"
        )


def lengths(r: random.Random) -> Iterator[str]:
    """Helpers that read or write as many bytes of the stack as an argument says."""
    limits = (
        "and r4, 31", "and r4, 63", "jgt r4, 32, out", "jgt r4, 33, out", "jsgt r4, 32, out\njslt r4, 1, out",
        "jge r4, 32, out\njeq r4, 0, out", "jlt r4, 1, out\njgt r4, 32, out", "jgt32 r4, 32, out\njeq32 r4, 0, out",
        "jsgt32 r4, 32, out\njslt32 r4, 1, out", "and r4, 15\nadd r4, 1", "and r4, 31\nor r4, 1", "mov r4, 0", "mov r4, 32",
        "mov r4, 33", "lsh r4, 32\nrsh r4, 32\njgt r4, 32, out\njeq r4, 0, out", "jne r4, 8, out",
        "jset r4, -32, out\njeq r4, 0, out", "jsgt r4, 32, out\njsle r4, 0, out",
    )  # fmt: skip
    calls = (
        "mov r1, r6\nmov r2, 0\nmov r3, r10\nadd r3, {}\ncall 26",
        "mov r1, r6\nmov r2, 0\nmov r3, r10\nadd r3, {}\nmov r5, 0\ncall 9",
        "mov r2, r4\nmov r1, r10\nadd r1, {}\ncall 6",
        "mov r1, 0\nmov r2, 0\nmov r3, r10\nadd r3, {}\nmov r5, 0\ncall 28",
    )
    clean = "\n".join(f"stdw [r10-{at}], 0" for at in range(8, 41, 8))
    for limit, at, call in product(r, limits, (-32, -32, -31, -33), calls):
        yield f"{clean}\nmov r6, r1\nldxw r4, [r1+0]\n{limit}\n{call.format(at)}{OUT}"


def keys(r: random.Random) -> Iterator[str]:
    """Keys and values that lie in the packet or in another value."""
    for n, at, call in product(r, (4, 8, 12), (0, 4, -4, 8), (1, 2, 3)):
        yield (
            f"ldxw r2, [r1+76]\nldxw r3, [r1+80]\nmov r5, r2\nadd r5, {n}\njgt r5, r3, out\nadd r2, {at}\nlddw r1, map 0\n"
            f"mov r3, r2\nmov r4, 0\ncall {call}{OUT}"
        )
        at = r.choice((0, 4, 12, 13, 16, -1))
        yield VALUE + f"mov r2, r0\nadd r2, {at}\nlddw r1, map 0\ncall {r.choice((1, 3))}{OUT}"
        yield VALUE + f"mov r3, r0\nadd r3, {at}\nmov r2, r10\nadd r2, -4\nlddw r1, map 0\nmov r4, 0\ncall 2{OUT}"


def loops(r: random.Random) -> Iterator[str]:
    """Counters of all kinds, with bounds known and unknown."""
    up = tuple((step, jump) for step in ("add r6, 1", "add r6, 3", "add32 r6, 1", "lsh r6, 1") for jump in ("jlt", "jle", "jslt"))
    down = (("sub r6, 1", "jsgt"), ("add r6, -3", "jsge"), ("rsh r6, 1", "jgt"), ("arsh r6, 1", "jgt"))
    for start, (step, jump), limit, width in product(r, (1, 2, 5), up, (0, 8, 10, 64), WIDTHS):
        if r.random() < 0.3:
            start, (step, jump), limit = r.choice((9, 30, 64)), r.choice(down), r.choice((0, 3))
        yield f"mov r6, {start}\nmov r7, 0\nagain: add r7, r6\n{step}\n{jump}{width} r6, {limit}, again{OUT}"
        limit_ = r.choice(("and r8, 7", "and r8, 31", "rsh r8, 60"))
        body = r.choice(("", "ldxb r3, [r0+0]", "mov r3, r0\nadd r3, r6\nldxb r4, [r3+0]"))
        turn = r.choice(("jlt r6, r8", "jgt r8, r6", "jslt r6, r8"))
        yield VALUE + f"ldxdw r8, [r0+0]\n{limit_}\nmov r6, 0\nagain: {body}\nadd r6, 1\n{turn}, again{OUT}"


def calls(r: random.Random) -> Iterator[str]:
    """Numbers and addresses that go through a local function."""
    arguments = ("ldxdw r1, [r0+0]", "ldxdw r1, [r0+0]\nand r1, 15", "mov r1, 9", "mov r1, 17")
    bodies = (
        "jgt r1, 15, +2\nmov r0, r1\nexit\nmov r0, 0", "mov r0, r1\nand r0, 7", "mov r0, r1", "movsx3264 r0, r1",
        "mov r6, r1\nmov r0, r6",
    )  # fmt: skip
    uses = ("", "jgt r0, 15, out")
    stores = (
        "stdw [r1+0], 7\nmov r0, 0", "ldxdw r0, [r1+0]", "stxdw [r1+0], r1\nmov r0, 0", "mov r0, r1",
        "stdw [r10-8], 1\nldxdw r0, [r10-8]",
    )  # fmt: skip
    after = ("ldxdw r3, [r10-16]", "mov r3, 0", "ldxdw r3, [r0+0]")
    for argument, body, use, store, then in product(r, arguments, bodies, uses, stores, after):
        yield f"{VALUE}mov r6, r0\n{argument}\ncall local f\n{use}\nadd r6, r0\nldxb r2, [r6+0]{OUT}f: {body}\nexit\n"
        yield f"stdw [r10-16], 3\nmov r1, r10\nadd r1, -16\ncall local f\n{then}\nmov r0, 0\nexit\nf: {store}\nexit\n"


OF_NUMBERS = {
    "xdp_md": (bounds, two_compares, registers, copies, spills, chains, nulls, packets, loops, calls),
    "__sk_buff": (lengths, keys),
}


def sample(family: Family, seed: int, count: int) -> list[str]:
    """Programs of a family, no two the same (fewer than `count`, if there are no more)."""
    found: dict[str, None] = {}
    for text in itertools.islice(family(random.Random(f"{family.__name__}{seed}")), 3 * count):
        found.setdefault(text)
        if len(found) == count:
            break
    return list(found)
