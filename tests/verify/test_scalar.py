"""The abstract scalar is sound: whatever the concrete values, results lie within what the abstract operation says."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import z3

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn
from chamelio.bpf.interp import alu, signed, taken
from chamelio.verify import scalar
from chamelio.verify.scalar import S64_MAX, S64_MIN, U32, U64, UNKNOWN, Scalar

EDGES = [0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32,
         (1 << 32) + 1, (1 << 63) - 1, 1 << 63, (1 << 63) + 1, U64 - 1, U64]  # fmt: skip
OPERATIONS = {
    "add": (bpf.ADD, 0), "sub": (bpf.SUB, 0), "mul": (bpf.MUL, 0), "div": (bpf.DIV, 0), "mod": (bpf.MOD, 0),
    "sdiv": (bpf.DIV, 1), "smod": (bpf.MOD, 1), "or": (bpf.OR, 0), "and": (bpf.AND, 0), "xor": (bpf.XOR, 0),
    "lsh": (bpf.LSH, 0), "rsh": (bpf.RSH, 0), "arsh": (bpf.ARSH, 0),
}  # fmt: skip
JUMPS = {
    "jeq": bpf.JEQ, "jne": bpf.JNE, "jgt": bpf.JGT, "jge": bpf.JGE, "jlt": bpf.JLT, "jle": bpf.JLE, "jset": bpf.JSET,
    "jsgt": bpf.JSGT, "jsge": bpf.JSGE, "jslt": bpf.JSLT, "jsle": bpf.JSLE,
}  # fmt: skip


def contains(s: Scalar, x: int) -> bool:
    """Whether a description is true of a value."""
    return x & ~s.mask == s.value and s.umin <= x <= s.umax and s.smin <= signed(x, 64) <= s.smax


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
        assert scalar.covers(a, found[0]) and scalar.covers(b, found[1]), "a comparison never widens"

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


# ---- known bits, for all values at once ------------------------------------------------------------------------------


class Word:
    """A 64-bit vector of the solver that computes as the domain's Python numbers do."""

    def __init__(self, bits: Any) -> None:
        self.bits = bits if z3.is_bv(bits) else z3.BitVecVal(bits & U64, 64)

    def _of(self, other: Any) -> Any:
        return other.bits if isinstance(other, Word) else z3.BitVecVal(other & U64, 64)

    def __and__(self, other: Any) -> Word:
        return Word(self.bits & self._of(other))

    def __or__(self, other: Any) -> Word:
        return Word(self.bits | self._of(other))

    def __xor__(self, other: Any) -> Word:
        return Word(self.bits ^ self._of(other))

    def __add__(self, other: Any) -> Word:
        return Word(self.bits + self._of(other))

    def __sub__(self, other: Any) -> Word:
        return Word(self.bits - self._of(other))

    def __invert__(self) -> Word:
        return Word(~self.bits)

    def __lshift__(self, n: int) -> Word:
        return Word(self.bits << n)

    def __rshift__(self, n: int) -> Word:
        return Word(z3.LShR(self.bits, n))


def proven(operation: Callable[..., Any], meaning: Callable[[Any, Any], Any], *more: int) -> None:
    """For all descriptions by bits and all members: the result's bits are right."""
    words = [z3.BitVec(name, 64) for name in ("av", "am", "x", "bv", "bm", "y")]
    av, am, x, bv, bm, y = words
    a, b = (Scalar(Word(v), Word(m), 0, U64, S64_MIN, S64_MAX) for v, m in ((av, am), (bv, bm)))  # type: ignore[arg-type]
    value, mask, *_ = operation(a, *more) if more else operation(a, b)
    solver = z3.Solver()
    solver.add(av & am == 0, bv & bm == 0, x & ~am == av, y & ~bm == bv)
    # what `settle` is given has its unknown bits cleared first
    solver.add((meaning(x, y) ^ value.bits) & ~mask.bits != 0)
    assert solver.check() == z3.unsat, solver.model()


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("_tnum_add", lambda x, y: x + y), ("_tnum_sub", lambda x, y: x - y), ("and_", lambda x, y: x & y),
        ("or_", lambda x, y: x | y), ("xor", lambda x, y: x ^ y),
    ],
)  # fmt: skip
def test_known_bits_are_right_for_all_values(name: str, meaning: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scalar, "_made", lambda *parts: parts)
    proven(getattr(scalar, name), meaning)


@pytest.mark.parametrize("n", [0, 1, 7, 31, 32, 63])
def test_known_bits_of_shifts_are_right_for_all_values(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scalar, "_made", lambda *parts: parts)
    proven(scalar.shift_left, lambda x, _: x << n, n)
    proven(scalar.shift_right, lambda x, _: z3.LShR(x, n), n)


def test_the_sum_of_intervals_is_right_for_all_values() -> None:
    """`add` and `sub` keep bounds only where nothing can wrap: the conditions they test exclude every wrap."""
    lo, hi, lo2, hi2, x, y = z3.BitVecs("lo hi lo2 hi2 x y", 64)
    solver = z3.Solver()
    solver.add(z3.ULE(lo, x), z3.ULE(x, hi), z3.ULE(lo2, y), z3.ULE(y, hi2))
    solver.push()
    solver.add(z3.BVAddNoOverflow(hi, hi2, False))
    solver.add(z3.Or(z3.ULT(x + y, lo + lo2), z3.UGT(x + y, hi + hi2)))
    assert solver.check() == z3.unsat
    solver.pop()
    solver.add(z3.UGE(lo, hi2))
    solver.add(z3.Or(z3.ULT(x - y, lo - hi2), z3.UGT(x - y, hi - lo2)))
    assert solver.check() == z3.unsat
