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
