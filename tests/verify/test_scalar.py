"""The abstract scalar is sound: whatever the concrete values, results lie within what the abstract operation says."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn
from chamelio.bpf.interp import alu, signed, taken
from chamelio.verify import scalar
from chamelio.verify.scalar import S64_MAX, S64_MIN, U32, U64, UNKNOWN, Scalar
from verify.words import JUMPS, OPERATIONS, says

EDGES = [0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32,
         (1 << 32) + 1, (1 << 63) - 1, 1 << 63, (1 << 63) + 1, U64 - 1, U64]  # fmt: skip


def contains(s: Scalar, x: int) -> bool:
    """Whether a description is true of a value."""
    return says(s, x, 64, 32)


class Source:
    """Descriptions at random, each with a value that it is true of."""

    def __init__(self, seed: object) -> None:
        self.random = random.Random(str(seed))

    def number(self) -> int:
        r = self.random
        match r.randrange(4):
            case 0:
                return r.choice(EDGES)
            case 1:
                return (r.choice(EDGES) + r.randint(-5, 5)) & U64
            case 2:
                return r.getrandbits(r.randint(1, 64))
            case _:
                return (U64 - r.getrandbits(r.randint(1, 64))) & U64

    def mask(self) -> int:
        r = self.random
        match r.randrange(5):
            case 0:
                return 0
            case 1:
                return U64
            case 2:
                return r.getrandbits(64) & r.getrandbits(64)
            case 3:
                return ((1 << r.randint(0, 64)) - 1) & U64
            case _:
                return (r.getrandbits(8) << r.randint(0, 60)) & U64

    def pair(self, x: int | None = None) -> tuple[Scalar, int]:
        """A description and a member."""
        r = self.random
        x = self.number() if x is None else x
        mask = self.mask()
        near = r.choice((4, 300, 1 << 33, 1 << 64))
        umin = max(0, x - r.randrange(near)) if r.random() < 0.7 else 0
        umax = min(U64, x + r.randrange(near)) if r.random() < 0.7 else U64
        s = signed(x, 64)
        smin = max(S64_MIN, s - r.randrange(near)) if r.random() < 0.5 else S64_MIN
        smax = min(S64_MAX, s + r.randrange(near)) if r.random() < 0.5 else S64_MAX
        found = scalar.settle(x & ~mask, mask, umin, umax, smin, smax)
        assert found is not None and contains(found, x), (x, mask, umin, umax, smin, smax)
        if r.random() < 0.3:  # what a 32-bit comparison shows
            near, y = r.choice((4, 300, 1 << 31)), signed(x, 32)
            op, limit = r.choice(((bpf.JSLE, y + r.randrange(near)), (bpf.JSGE, y - r.randrange(near))))
            limit = max(-(1 << 31), min((1 << 31) - 1, limit))
            narrowed = scalar.assume(op, 32, found, scalar.const(limit & U32), True)
            assert narrowed is not None and contains(narrowed[0], x), (found, x, op, limit)
            found = narrowed[0]
        return found, x


def samples(name: str, count: int) -> Iterator[tuple[Scalar, int, Scalar, int]]:
    """Two descriptions with members; now and then related ones."""
    source = Source(name)
    for _ in range(count):
        a, x = source.pair()
        b, y = source.pair(x if source.random.random() < 0.15 else None)
        if source.random.random() < 0.3:
            y = source.random.choice((y & 63, y & 7, 0))
            b = scalar.const(y)
        yield a, x, b, y


def small_sets(name: str, count: int) -> Iterator[tuple[Scalar, list[int]]]:
    """Descriptions of a few values around the edges of 32 and 64 bits, each with all of its members."""
    r = random.Random(name)
    for _ in range(count):
        base = r.choice((0, (1 << 31) - 4, (1 << 32) - 4, (1 << 63) - 4, (1 << 64) - 4, 1 << 31, 1 << 32, 1 << 63, U64 - 7))
        window = [(base + k) & U64 for k in range(8)]
        mask = r.randrange(8) | r.choice((0, 0, U64, 0xF << 60, 0xF << 30))
        value = r.choice(window) & ~mask & U64
        low, high = sorted(r.sample(window, 2))
        lows, highs = sorted(r.sample([signed(x, 64) for x in window], 2))
        if r.random() < 0.5:
            lows, highs = S64_MIN, S64_MAX
        if r.random() < 0.3:
            low, high = 0, U64
        members = [
            x for x in window if x & ~mask & U64 == value and low <= x <= high and lows <= signed(x, 64) <= highs
        ]  # fmt: skip
        found = scalar.settle(value, mask, low, high, lows, highs)
        if members:
            assert found is not None and all(contains(found, x) for x in members)
            yield found, members


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def check_arithmetic(name: str, bits: int, count: int) -> None:
    op, off = OPERATIONS[name]
    insn = Insn((bpf.ALU64 if bits == 64 else bpf.ALU) | op | bpf.X, 0, 1, off, 0)
    for a, x, b, y in samples(f"{name}{bits}", count):
        result = scalar.arithmetic(op, bits, a, b, off)
        assert contains(result, alu(insn, x, y)), (a, x, b, y, result)
        assert bits == 64 or result.umax <= U32
    sets = list(small_sets(f"{name}{bits}", count // 10))
    for (a, xs), (b, ys) in itertools.pairwise(sets):
        result = scalar.arithmetic(op, bits, a, b, off)
        assert all(contains(result, alu(insn, x, y)) for x in xs for y in ys), (a, b, result)


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", OPERATIONS)
def test_arithmetic_holds_every_result(name: str, bits: int) -> None:
    check_arithmetic(name, bits, 2_000)


@pytest.mark.long
@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", OPERATIONS)
def test_arithmetic_holds_every_result_at_length(name: str, bits: int) -> None:
    check_arithmetic(name, bits, 200_000)


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_hard_bound_holds_for_values_that_the_branches_rule_out(name: str, bits: int) -> None:
    """Operands need keep to nothing but their own hard bounds, as on a mispredicted branch."""
    op, off = OPERATIONS[name]
    insn = Insn((bpf.ALU64 if bits == 64 else bpf.ALU) | op | bpf.X, 0, 1, off, 0)
    r = random.Random(f"hard {name} {bits}")
    for _ in range(2_000):
        words = [r.getrandbits(r.randint(0, 64)), r.choice([0, 1, 7, 8, 31, 32, 63, 255, U64])]
        r.shuffle(words)
        bounds = [min(U64, w + r.choice([0, 0, 3, 1 << 20])) for w in words]
        narrowed = [scalar.settle(0, U64, 0, r.randrange(h + 1), S64_MIN, S64_MAX, 0, h) for h in bounds]
        assert None not in narrowed
        operands = [scalar.const(w) if r.random() < 0.3 else n for w, n in zip(words, narrowed, strict=True)]
        result = scalar.arithmetic(op, bits, *operands, off)  # type: ignore[arg-type]
        assert alu(insn, *words) <= result.hard, (words, operands, result)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_truncation_and_sign_extension_hold_every_result(bits: int) -> None:
    move = {8: 8, 16: 16, 32: 32}[bits]
    for a, x, _, _ in samples(f"extend{bits}", 6_000):
        assert contains(scalar.truncate(a, bits), x & (1 << bits) - 1), (a, x)
        extended = alu(Insn(bpf.ALU64 | bpf.MOV | bpf.X, 0, 1, move, 0), 0, x)
        assert contains(scalar.extend_sign(a, bits), extended), (a, x)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_byte_swaps_hold_every_result(bits: int) -> None:
    insn = Insn(bpf.ALU64 | bpf.END, 0, 0, 0, bits)
    for a, x, _, _ in samples(f"swap{bits}", 4_000):
        assert contains(scalar.swap_bytes(a, bits), alu(insn, x, 0)), (a, x)


def test_constants_stay_constants() -> None:
    """What is computed from constants is known exactly."""
    for name, (op, off) in OPERATIONS.items():
        for bits in (64, 32):
            insn = Insn((bpf.ALU64 if bits == 64 else bpf.ALU) | op | bpf.X, 0, 1, off, 0)
            for x in EDGES:
                for y in EDGES:
                    result = scalar.arithmetic(op, bits, scalar.const(x), scalar.const(y), off)
                    assert result.const == alu(insn, x, y), (name, bits, x, y)


# ---- comparisons -----------------------------------------------------------------------------------------------------


def check_jump(name: str, bits: int, count: int) -> None:
    op = JUMPS[name]
    insn = Insn((bpf.JMP if bits == 64 else bpf.JMP32) | op | bpf.X, 0, 1, 0, 0)

    def held(a: Scalar, x: int, b: Scalar, y: int) -> None:
        outcome = taken(insn, x, y)
        found = scalar.assume(op, bits, a, b, outcome)
        assert found is not None, (a, x, b, y, outcome)
        assert contains(found[0], x) and contains(found[1], y), (a, x, b, y, outcome, found)
        for before, after in zip((a, b), found, strict=True):
            # one more is what `hard` says of a constant that only this branch has made one
            assert after.hard <= before.hard or (after.const == before.hard == after.hard - 1)
            assert scalar.covers(before, after._replace(hard=before.hard)), "a comparison never widens"

    for a, x, b, y in samples(f"{name}{bits}", count):
        held(a, x, b, y)
    sets = list(small_sets(f"{name}{bits}", count // 10))
    for (a, xs), (b, ys) in itertools.pairwise(sets):
        for x in xs:
            for y in ys:
                held(a, x, b, y)


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", JUMPS)
def test_comparisons_keep_every_value_that_they_allow(name: str, bits: int) -> None:
    check_jump(name, bits, 2_000)


@pytest.mark.long
@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", JUMPS)
def test_comparisons_keep_every_value_that_they_allow_at_length(name: str, bits: int) -> None:
    check_jump(name, bits, 200_000)


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", [n for n in JUMPS if n != "jset"])
def test_comparisons_of_constants_are_decided(name: str, bits: int) -> None:
    op = JUMPS[name]
    insn = Insn((bpf.JMP if bits == 64 else bpf.JMP32) | op | bpf.X, 0, 1, 0, 0)
    for x in EDGES:
        for y in EDGES:
            wrong = not taken(insn, x, y)
            assert scalar.assume(op, bits, scalar.const(x), scalar.const(y), wrong) is None, (x, y)


def test_an_index_that_is_compared_is_bounded() -> None:
    """What handlers rely on: each of these leaves 0..15 of an unknown 32-bit number."""
    word = scalar.truncate(UNKNOWN, 32)
    for op, bits, limit, holds in (
        (bpf.JGT, 64, 15, False), (bpf.JGE, 64, 16, False), (bpf.JLT, 64, 16, True), (bpf.JLE, 64, 15, True),
        (bpf.JGT, 32, 15, False), (bpf.JGE, 32, 16, False), (bpf.JLT, 32, 16, True), (bpf.JSET, 64, U64 - 15, False),
    ):  # fmt: skip
        found = scalar.assume(op, bits, word, scalar.const(limit), holds)
        assert found is not None and (found[0].umin, found[0].umax) == (0, 15)


Step = tuple[str, int, int]  # what, how many bits, the constant; "!jgt": that does not hold


def after(s: Scalar, *steps: Step) -> Scalar:
    """What is known of a number after operations with constants, and comparisons with constants."""
    for name, bits, operand in steps:
        other = scalar.const(operand if bits == 64 else operand & U32)
        if name == "mov":
            s = scalar.truncate(s, bits)
        elif name == "movsx":
            s = scalar.extend_sign(s, bits)
        elif name == "swap":
            s = scalar.swap_bytes(s, bits)
        elif name.lstrip("!") in JUMPS:
            found = scalar.assume(JUMPS[name.lstrip("!")], bits, s, other, not name.startswith("!"))
            assert found is not None, (name, s)
            s = found[0]
        else:
            s = scalar.arithmetic(OPERATIONS[name][0], bits, s, other, OPERATIONS[name][1])
    return s


WORD, BYTE = scalar.truncate(UNKNOWN, 32), scalar.truncate(UNKNOWN, 8)
NEEDED = {
    "w1 > 15 of an unknown, then w1 = w1": (UNKNOWN, [("!jgt", 32, 15), ("mov", 32, 0)], 0, 15),
    "w1 > 15 of an unknown, then w1 &= 15": (UNKNOWN, [("!jgt", 32, 9), ("and", 32, 31)], 0, 9),
    "w1 > 15, then shifted up and down": (UNKNOWN, [("!jgt", 32, 15), ("lsh", 64, 32), ("rsh", 64, 32)], 0, 15),
    "w1 > 15, then shifted up and down, signed": (UNKNOWN, [("!jgt", 32, 15), ("lsh", 64, 32), ("arsh", 64, 32)], 0, 15),
    "w1 > 15, then shifted up and down less": (UNKNOWN, [("!jgt", 32, 15), ("lsh", 64, 32), ("rsh", 64, 30)], 0, 60),
    "signed w1 within -5..5, extended": (UNKNOWN, [("jsge", 32, -5), ("jsle", 32, 5), ("movsx", 32, 0)], -5, 5),
    "signed w1 within -5..5, shifted": (WORD, [("jsge", 32, -5), ("jsle", 32, 5), ("lsh", 64, 32), ("arsh", 64, 32)], -5, 5),
    "signed w1 >= 0 and <= 63": (WORD, [("!jslt", 32, 0), ("!jsgt", 32, 63)], 0, 63),
    "signed w1 <= 63 and then >= 0": (WORD, [("!jsgt", 32, 63), ("!jslt", 32, 0)], 0, 63),
    "signed w1 > -8, then added 7": (UNKNOWN, [("jsge", 32, -7), ("jsle", 32, 8), ("add", 32, 7)], 0, 15),
    "w1 += -1 of 1..16": (WORD, [("jge", 64, 1), ("jle", 64, 16), ("add", 32, -1)], 0, 15),
    "w1 += -1 of an unknown's half 1..16": (UNKNOWN, [("jge", 32, 1), ("jle", 32, 16), ("add", 32, -1)], 0, 15),
    "r1 += -1, then w1 as an index": (UNKNOWN, [("jge", 32, 1), ("jle", 32, 16), ("add", 64, -1), ("mov", 32, 0)], 0, 15),
    "w1 + -5 < 10": (WORD, [("add", 32, -5), ("jlt", 32, 10), ("add", 32, 5)], 5, 14),
    "w1 == 7": (UNKNOWN, [("jeq", 32, 7), ("mov", 32, 0)], 7, 7),
    "w1 != 0 of 0..7": (UNKNOWN, [("jle", 32, 7), ("jne", 32, 0), ("mov", 32, 0)], 1, 7),
    "no bit of w1 above 15": (UNKNOWN, [("!jset", 32, ~15), ("mov", 32, 0)], 0, 15),
    "some bit of 4, 8 in 0..15": (BYTE, [("and", 64, 15), ("jset", 64, 12)], 4, 15),
    "one bit in 0..15": (BYTE, [("and", 64, 15), ("jset", 64, 8)], 8, 15),
    "ihl": (BYTE, [("and", 64, 15), ("lsh", 64, 2)], 0, 60),
    "ihl in 32 bits, less 20": (BYTE, [("and", 32, 15), ("lsh", 32, 2), ("jge", 32, 20), ("add", 32, -20)], 0, 40),
    "times 4": (BYTE, [("mul", 64, 4)], 0, 1020),
    "negative times 4": (UNKNOWN, [("jsge", 64, -5), ("jsle", 64, 5), ("mul", 64, 4)], -20, 20),
    "modulo 10": (UNKNOWN, [("mod", 64, 10)], 0, 9),
    "divided by 10": (BYTE, [("div", 64, 10)], 0, 25),
    "signed modulo 10": (UNKNOWN, [("smod", 64, 10)], -9, 9),
    "signed division": (UNKNOWN, [("jsge", 64, -50), ("jsle", 64, 99), ("sdiv", 64, 10)], -5, 9),
    "signed modulo in 32 bits of a byte": (BYTE, [("smod", 32, 10)], 0, 9),
    "complement": (BYTE, [("xor", 64, -1), ("xor", 64, -1)], 0, 255),
    "negative number and 7": (UNKNOWN, [("jsge", 64, -4), ("jsle", 64, 9), ("and", 64, 7)], 0, 7),
    "small signed number or 1": (UNKNOWN, [("jsge", 64, -4), ("jsle", 64, 9), ("or", 64, 1)], -3, 15),
    "sign bit": (UNKNOWN, [("rsh", 64, 63)], 0, 1),
    "sign as a mask": (UNKNOWN, [("arsh", 64, 63)], -1, 0),
    "sign of a word as a mask, and 12": (WORD, [("arsh", 32, 31), ("and", 32, 12)], 0, 12),
    "port in host order": (WORD, [("mov", 16, 0), ("swap", 16, 0)], 0, 65535),
    "swapped small number": (BYTE, [("jle", 64, 100), ("swap", 16, 0)], 0, 100 << 8),
    "sign-extended byte": (BYTE, [("movsx", 8, 0), ("add", 64, 128)], 0, 255),
    "subtracted past zero and back": (BYTE, [("sub", 64, 300), ("add", 64, 300)], 0, 255),
    "32 bits, subtracted past zero and back": (BYTE, [("sub", 32, 300), ("add", 32, 300)], 0, 255),
}  # fmt: skip


@pytest.mark.parametrize(("start", "steps", "low", "high"), NEEDED.values(), ids=NEEDED)
def test_what_real_programs_need_is_known(start: Scalar, steps: list[Step], low: int, high: int) -> None:
    found = after(start, *steps)
    assert (found.smin, found.smax) == (low, high), found


@pytest.mark.parametrize("bits", [64, 32])
def test_a_value_compared_with_itself_is_equal(bits: int) -> None:
    a = UNKNOWN._replace(ident=3)
    for name, op in JUMPS.items():
        for holds in (True, False):
            possible = name == "jset" or holds == (name in ("jeq", "jge", "jle", "jsge", "jsle"))
            assert (scalar.assume(op, bits, a, a, holds) is not None) == possible, (name, holds)
    assert scalar.arithmetic(bpf.SUB, bits, a, a).const == 0


def test_shifts_by_variable_amounts_are_bounded() -> None:
    bit = scalar.arithmetic(bpf.LSH, 64, scalar.const(1), scalar.unsigned(0, 12))
    assert (bit.umin, bit.umax) == (1, 4096)
    assert scalar.arithmetic(bpf.RSH, 64, WORD, scalar.unsigned(24, 40)).umax == 255
    assert scalar.arithmetic(bpf.RSH, 32, UNKNOWN, scalar.unsigned(28, 31)).umax == 15
    assert scalar.arithmetic(bpf.ARSH, 64, scalar.extend_sign(UNKNOWN, 16), scalar.unsigned(8, 60)).smin == -128


# ---- descriptions ----------------------------------------------------------------------------------------------------


def test_a_covering_description_holds_every_member_of_the_covered() -> None:
    covered = 0
    source = Source("covers")
    for _ in range(8_000):
        a, x = source.pair()
        b, y = source.pair(x)
        if scalar.covers(a, b):
            covered += 1
            assert contains(a, y)
        assert scalar.covers(a, a) and scalar.covers(UNKNOWN, a)
    assert covered > 200


def test_ranges_and_constants_are_what_they_say() -> None:
    for x in EDGES:
        assert scalar.const(x).const == x and contains(scalar.const(x), x)
        for y in EDGES:
            if x <= y:
                span = scalar.unsigned(x, y)
                assert (span.umin, span.umax) == (x, y) and contains(span, x) and contains(span, y)


def test_empty_descriptions_stop_no_operation() -> None:
    """Bits and interval can contradict each other without it showing; what is computed from that must not fail."""
    r = random.Random("empty")
    for _ in range(20_000):
        mask = r.getrandbits(4) << r.choice((0, 29, 60))
        low = r.choice((0, r.choice(EDGES), r.getrandbits(64)))
        found = scalar.settle(r.getrandbits(4) & ~mask, mask, low, min(U64, low + r.randrange(9)), S64_MIN, S64_MAX)
        if found is None:
            continue
        for op, off in OPERATIONS.values():
            for bits in (64, 32):
                scalar.arithmetic(op, bits, found, UNKNOWN if r.random() < 0.5 else scalar.const(r.randrange(40)), off)
        scalar.extend_sign(scalar.swap_bytes(found, 32), r.choice((8, 16, 32)))
