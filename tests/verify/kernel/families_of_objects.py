"""Families of small kernel-style programs about addresses: references, metadata, variable stack offsets, callbacks, functions.

As `families`, of which these are the second half.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from verify.kernel.families import OUT, VALUE, product, unless

RESERVE = "lddw r1, map 3\nmov r2, 16\nmov r3, 0\ncall 131\n"
SK_LOOKUP = "stdw [r10-32], 0\nstdw [r10-24], 0\nmov r1, r9\nmov r2, r10\nadd r2, -32\nmov r3, 12\nmov r4, -1\nmov r5, 0\ncall 84\n"


def references(r: random.Random) -> Iterator[str]:
    """Something acquired, copied, spilled, used and given back, on some paths or on all."""
    while True:
        sock = r.random() < 0.4
        give_back = (lambda reg: f"mov r1, {reg}\ncall 86") if sock else (lambda reg: f"mov r1, {reg}\nmov r2, 0\ncall {{}}")
        again = "132" if r.random() < 0.6 else "133"
        lines = ["mov r9, r1", "ldxw r8, [r9+16]", SK_LOOKUP if sock else RESERVE]
        lines.append(r.choice(("jeq r0, 0, out", "jeq r0, 0, out", "jne r0, 0, +1\nja out", "jeq r8, 0, out")))
        lines.append(r.choice(("mov r6, r0", "mov r6, r0", "stxdw [r10-8], r0\nldxdw r6, [r10-8]", "mov r6, r0\nmov r7, r6")))
        if r.random() < 0.5:
            lines.append(f"ldxw r3, [r6+{r.choice((4, 24) if sock else (0, 12, 14, 16))}]")
        if not sock and r.random() < 0.5:
            lines.append(f"stx{r.choice(('w', 'dw'))} [r6+{r.choice((0, 8, 12))}], r8")
        if r.random() < 0.3:
            lines.append("call 7")
        ends = give_back("r6").format(again)
        match r.randrange(5):
            case 0:
                lines += [f"jeq r8, {r.choice((0, 3))}, other", ends, "ja out", "other:", give_back("r6").format("133")]
            case 1:
                lines += [f"jeq r8, {r.choice((0, 3))}, out", ends]
            case 2:
                lines += [ends, r.choice(("ldxw r3, [r6+0]", "mov r3, r6", give_back("r6").format("132")))]
            case 3:
                lines += ["mov r1, r6", "call local end"]
            case _:
                lines.append(ends)
        text = "\n".join(lines) + OUT
        if "call local end" in text:
            text += f"end: {give_back('r1').format(again)}\nmov r0, 0\nexit\n"
        yield text


def metadata(r: random.Random) -> Iterator[str]:
    """Bytes before the packet, compared with its start; the packet beside them."""
    for grow, n, jump, inverted, swapped, at, base, other in product(
        r, (0, -4, -8), (1, 4, 8), ("jgt", "jgt", "jge", "jlt", "jle"), (False, True), (False, True), (-1, 0, 0, 4, 7),
        ("r2", "r2", "r3"), ("r3", "r3", "r4"),
    ):  # fmt: skip
        pair = f"{other}, r5" if swapped else f"r5, {other}"
        adjust = f"mov r2, {grow}\ncall 54\nmov r1, r9\n" if grow else ""
        yield (
            f"mov r9, r1\n{adjust}ldxw r2, [r9+8]\nldxw r3, [r9+0]\nldxw r4, [r9+4]\nmov r5, r2\nadd r5, {n}\n"
            f"{unless(f'{jump} {pair}', inverted)}\nldxb r0, [{base}{at:+d}]{OUT}"
        )


def stack_offsets(r: random.Random) -> Iterator[str]:
    """The stack at a number's offset."""
    limits = ("and r4, 7", "and r4, 15", "and r4, 8", "jgt r4, 24, out", "jsgt r4, 15, out", "and r4, 3\nlsh r4, 3")
    accesses = {
        "load": "ldx{} r0, [r2+0]",
        "store": "stx{} [r2+0], r4",
        "constant": "st{} [r2+0], 1",
        "both": "stx{} [r2+0], r4\nldxdw r3, [r10-16]\nand r3, 7\nmov r2, r10\nadd r2, -16\nadd r2, r3\nldxb r0, [r2+0]",
        "helper": "mov r3, r2\nmov r1, r6\nmov r2, 0\nmov r4, 8\ncall 26",
    }
    for clean, limit, at, access, size in product(
        r, (True, True, False), limits, (-32, -16, -8, -40), list(accesses.values()), ("b", "w", "dw")
    ):
        lines = [f"stdw [r10-{n}], 0" for n in range(8, 41, 8)] if clean else []
        lines += ["mov r6, r1", "ldxw r4, [r1+0]", limit, "mov r2, r10", f"add r2, {at}", "add r2, r4", access.format(size)]
        yield "\n".join(lines) + OUT


def values_as_arguments(r: random.Random) -> Iterator[str]:
    """A value at a number's offset as a helper's memory, of a length that is a number."""
    offsets = ("", "and r7, 7", "and r7, 3", "jgt r7, 8, out", "and r7, 15")
    lengths = (
        "mov r4, 8", "mov r4, 16", "and r4, 7\nadd r4, 1", "and r4, 8", "jgt r4, 8, out\njeq r4, 0, out",
        "jsgt r4, 16, out\njslt r4, 1, out",
    )  # fmt: skip
    for offset, at, length, call in product(r, offsets, (0, 4, 8), lengths, (26, 9)):
        lines = ["mov r9, r1", "ldxw r3, [r9+0]", "stxw [r10-4], r3", "mov r2, r10", "add r2, -4", "lddw r1, map 0", "call 1"]
        lines += ["jeq r0, 0, out", "ldxdw r7, [r0+0]", "ldxdw r4, [r0+8]", "mov r3, r0", f"add r3, {at}"]
        lines += [offset, "add r3, r7"] if offset else []
        yield "\n".join([*lines, length, "mov r1, r9", "mov r2, 0", "mov r5, 0", f"call {call}"]) + OUT


def packets_in_functions(r: random.Random) -> Iterator[str]:
    """Packet addresses that a local function checks, moves or returns."""
    bodies = (
        "mov r3, r1\nadd r3, {n}\njgt r3, r2, +2\nldxb r0, [r1+{last}]\nexit\nmov r0, 0\nexit",
        "mov r0, r1\nadd r0, {n}\nexit",
        "mov r3, r1\nadd r3, {n}\nmov r0, 0\njgt r3, r2, +1\nmov r0, 1\nexit",
        "mov r0, 0\nmov r3, r1\nadd r3, {n}\njgt r3, r2, +1\nmov r0, r1\nexit",
    )
    uses = ("", "jeq r0, 0, out\nldxb r2, [r6+0]", "jeq r0, 0, out\nldxb r2, [r0+0]", "jgt r0, r7, out\nldxb r2, [r6+0]")
    for n, body, use in product(r, (1, 4, 8), bodies, uses):
        yield (
            f"ldxw r6, [r1+0]\nldxw r7, [r1+4]\nmov r1, r6\nmov r2, r7\ncall local f\n{use}{OUT}f: {body.format(n=n, last=n - 1)}\n"
        )


def values_in_functions(r: random.Random) -> Iterator[str]:
    """Addresses of values and of the context that a local function uses or returns."""
    bodies = (
        "mov r0, r1\nexit", "mov r0, r1\nadd r0, 4\nexit", "ldxw r0, [r1+12]\nexit", "stdw [r1+8], 3\nmov r0, 0\nexit",
        "jeq r1, 0, +1\nldxw r0, [r1+0]\nmov r0, 0\nexit",
    )  # fmt: skip
    uses = ("", "ldxw r2, [r0+8]", "jeq r0, 0, out\nldxw r2, [r0+4]", "ldxw r2, [r6+12]")
    of_context = ("ldxw r0, [r1+12]\nexit", "mov r6, r1\nmov r2, 4\ncall 44\nexit", "mov r0, r1\nexit", "ldxw r0, [r1+0]\nexit")
    with_context = (
        "", "ldxb r2, [r7+0]", "ldxw r2, [r0+12]",
        "ldxw r7, [r6+0]\nldxw r8, [r6+4]\nmov r2, r7\nadd r2, 1\njgt r2, r8, out\nldxb r2, [r7+0]",
    )  # fmt: skip
    for body, use, other, after in product(r, bodies, uses, of_context, with_context):
        yield f"{VALUE}mov r6, r0\nmov r1, r0\ncall local f\n{use}{OUT}f: {body}\n"
        yield (
            "mov r6, r1\nldxw r7, [r1+0]\nldxw r8, [r1+4]\nmov r2, r7\nadd r2, 1\njgt r2, r8, out\nmov r1, r6\n"
            f"call local f\n{after}{OUT}f: {other}\n"
        )


def nested_functions(r: random.Random) -> Iterator[str]:
    """The stacks of three frames, each written by the functions above it."""
    changes = ("stxdw [r1+0], r3", "ldxdw r4, [r1+0]\nand r4, 7\nstxdw [r1+0], r4", "stdw [r2+0], 1")
    for limit, start, change in product(r, ("and r3, 15", "jgt r3, 15, out", ""), (3, 20), changes):
        yield (
            f"ldxw r6, [r1+16]\nstxdw [r10-16], r6\nmov r9, r1\nmov r1, r10\nadd r1, -16\ncall local f\nmov r1, r9\n"
            f"{VALUE.strip()}\nldxdw r3, [r10-16]\n{limit}\nadd r0, r3\nldxb r2, [r0+0]{OUT}"
            f"f: stdw [r10-8], {start}\nmov r2, r10\nadd r2, -8\ncall local g\nexit\n"
            f"g: ldxdw r3, [r2+0]\n{change}\nmov r0, 0\nexit\n"
        )


def callbacks(r: random.Random) -> Iterator[str]:
    """Functions that bpf_loop calls. `CODE` stands for the distance to the callback, in slots."""
    while True:
        turns = r.choice(("mov r1, 4", "mov r1, 100", "ldxw r1, [r1+16]", "ldxw r1, [r1+16]\nand r1, 7"))
        body = r.choice((
            "ldxdw r3, [r2+0]\nadd r3, 1\nstxdw [r2+0], r3\nmov r0, 0",
            "stxdw [r2+0], r1\nmov r0, 0",
            "ldxdw r3, [r2+0]\nadd r3, r1\nstxdw [r2+0], r3\nmov r0, 0\njgt r3, 10, +1\nmov r0, 1",
            "mov r0, 0", "mov r0, 1", "mov r0, r1\nand r0, 1", "mov r0, 2", "mov r0, r1",
            "ldxdw r3, [r2+8]\nmov r0, 0", "ldxdw r3, [r2+16]\nmov r0, 0", "stdw [r2+0], 5\nmov r0, 0",
            "and r1, 1\nlsh r1, 3\nadd r2, r1\nstdw [r2+0], 2\nmov r0, 0", "lsh r1, 3\nadd r2, r1\nstdw [r2+0], 2\nmov r0, 0",
            "stdw [r2+0], 5\nldxdw r0, [r2+0]\nsub r0, 5", "call 7\nmov r0, 0", "mov r6, r1\nmov r0, 0",
        ))  # fmt: skip
        use = r.choice(("", "and r3, 15", "jgt r3, 15, out", "jeq r3, 0, +1"))
        yield (
            f"mov r9, r1\nstdw [r10-16], 0\nstdw [r10-8], 1\n{turns}\nlddw r2, code CODE\nmov r3, r10\nadd r3, -16\nmov r4, 0\n"
            f"call 181\nmov r1, r9\n{VALUE.strip()}\nldxdw r3, [r10-16]\n{use}\nadd r0, r3\nldxb r2, [r0+0]{OUT}"
            f"callback: {body}\nexit\n"
        )


OF_OBJECTS = {
    "xdp_md": (references, metadata, packets_in_functions, values_in_functions, nested_functions, callbacks),
    "__sk_buff": (stack_offsets, values_as_arguments),
}
