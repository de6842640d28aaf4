"""The abstract scalar at small widths: all descriptions, all words. Every result is sound, and its precision is on record.

The code is the verifier's own, which works at any width. Precision is the number of words that the results are true of,
over all cases, in proportion to the narrowest descriptions that there could be: 1 is the best.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import islice, product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from chamelio.bpf import insn as bpf
from chamelio.verify import domain as domain_module
from chamelio.verify.domain import OPPOSITE, Domain, Scalar
from chamelio.verify.scalar import Numbers, is_fixed
from verify.words import JUMPS, OPERATIONS, Sets, computed, elements, narrowest, says, signed, taken, well_formed, with_halves

Pairs = Iterable[tuple[Scalar, Scalar]]
STRIDE = 11  # of pairs of words with halves, each 11th is tried by default
OUTCOMES = [(name, holds) for name in JUMPS for holds in (True, False)]


@cache
def wholes(bits: int) -> tuple[Domain, Sets, list[Scalar]]:
    domain = Domain(bits)
    return domain, Sets(bits), well_formed(domain)


@cache
def halved(bits: int, half_bits: int) -> tuple[Numbers, Sets, list[Scalar]]:
    numbers = Numbers(bits, half_bits)
    return numbers, Sets(bits, half_bits), with_halves(numbers)


def some_pairs(all_of_them: list[Scalar], count: int, seed: object) -> Iterator[tuple[Scalar, Scalar]]:
    r = random.Random(str(seed))
    for _ in range(count):
        yield r.choice(all_of_them), r.choice(all_of_them)


class Unsound(AssertionError):
    """A word that is possible is missing from a result."""


def operation_excess(name: str, operation: Callable[[Scalar, Scalar], Scalar], sets: Sets, pairs: Pairs, bits: int = 0) -> float:
    """Check an operation `bits` bits wide, on all words of both descriptions; how much wider than need be the results are."""
    bits = bits or sets.bits
    words, top = range(1 << sets.bits), (1 << bits) - 1
    table = [[1 << computed(name, bits, x & top, y & top) for y in words] for x in words]
    # images[y set][x]: the results of one x with all y
    images: dict[int, list[int]] = {}
    total = best = 0
    for a, b in pairs:
        ys = sets.of(b)
        rows = images.get(ys)
        if rows is None:
            rows = images[ys] = [0] * len(words)
            for x in words:
                for y in elements(ys):
                    rows[x] |= table[x][y]
        want = 0
        for x in elements(sets.of(a)):
            want |= rows[x]
        result = operation(a, b)
        if want & ~sets.of(result):
            raise Unsound(f"{name}{bits}: {a} and {b} give {elements(want)}, not only {result}")
        total += sets.size(result)
        best += sets.best(want)
    return total / best


def comparison_excess(
    name: str, holds: bool, assume: Callable[[Scalar, Scalar], Any], sets: Sets, pairs: Pairs, bits: int = 0
) -> float:
    """The same for a comparison; None, when it is right, counts as nothing and else as a failure of precision by one word."""
    bits = bits or sets.bits
    words, top = range(1 << sets.bits), (1 << bits) - 1
    partners = [sum(1 << y for y in words if taken(name, bits, x & top, y & top) == holds) for x in words]
    backward = [sum(1 << x for x in words if taken(name, bits, x & top, y & top) == holds) for y in words]
    total = best = 0
    for a, b in pairs:
        xs, ys = sets.of(a), sets.of(b)
        left = sum(1 << x for x in elements(xs) if partners[x] & ys)
        right = sum(1 << y for y in elements(ys) if backward[y] & xs)
        found = assume(a, b)
        if found is None:
            if left:
                raise Unsound(f"{name}{bits} {holds}: {a} and {b} is possible")
            continue
        for before, want, after in ((a, left, found[0]), (b, right, found[1])):
            if want & ~sets.of(after):
                raise Unsound(f"{name}{bits} {holds}: of {a} and {b}, {elements(want)} are left, not only {after}")
            if sets.of(after) & ~sets.of(before):
                raise Unsound(f"{name}{bits} {holds}: {before} is widened to {after}")
            total += sets.size(after)
            best += sets.best(want) if want else 0
    return total / best


# ---- one width ---------------------------------------------------------------------------------------------------------


def check_settled(bits: int) -> None:
    domain, sets, every = wholes(bits)
    top = domain.top
    assert len({sets.of(s) for s in every}) == len(every), "one set, one description"
    for s in every:
        assert sets.best(sets.of(s)) == sets.size(s)
    spans = [(low, high) for low in range(top + 1) for high in range(low, top + 1)]
    signs = [(signed(low, bits), signed(high, bits)) for low in range(top + 1) for high in range(top + 1)]
    for mask, value in product(range(top + 1), repeat=2):
        if value & mask == 0:
            for span, ends in product(spans, signs):
                want = sets.of(Scalar(value, mask, *span, *ends))
                found = domain.settle(value, mask, *span, *ends)
                assert (sets.of(found) if found else 0) == want
                assert found is None or found[:6] == narrowest(elements(want), bits)[:6]


def test_a_settled_description_is_the_narrowest() -> None:
    check_settled(3)


@pytest.mark.long
def test_a_settled_description_of_4_bits_is_the_narrowest() -> None:
    check_settled(4)


# measured; a change may make these smaller
WHOLE = {
    "add": 1.03, "sub": 1.03, "mul": 1.143, "div": 1.302, "mod": 1.332, "sdiv": 1.275, "smod": 1.24, "or": 1.053,
    "and": 1.053, "xor": 1.07, "lsh": 1.154, "rsh": 1.234, "arsh": 1.108, "jeq": 1.001, "jne": 1.001, "jgt": 1.0,
    "jge": 1.0, "jlt": 1.0, "jle": 1.0, "jset": 1.13, "jsgt": 1.0, "jsge": 1.0, "jslt": 1.0, "jsle": 1.0,
}  # fmt: skip


def whole_operation(domain: Domain, name: str) -> Callable[[Scalar, Scalar], Scalar]:
    op, offset = OPERATIONS[name]
    return (domain.signed if offset else domain.plain)[op]


def whole_comparison(domain: Domain, name: str, holds: bool) -> Callable[[Scalar, Scalar], Any]:
    op = JUMPS[name]
    if name == "jset":
        return lambda a, b: domain.bits_in_common(a, b, holds)
    return lambda a, b: domain.compare(op if holds else OPPOSITE[op], a, b)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_on_all_words_of_3_bits(name: str) -> None:
    domain, sets, every = wholes(3)
    excess = operation_excess(name, whole_operation(domain, name), sets, product(every, every))
    assert excess <= WHOLE[name]


@pytest.mark.parametrize(("name", "holds"), OUTCOMES)
def test_comparisons_of_all_words_of_3_bits(name: str, holds: bool) -> None:
    domain, sets, every = wholes(3)
    excess = comparison_excess(name, holds, whole_comparison(domain, name, holds), sets, product(every, every))
    assert excess <= WHOLE[name]


@pytest.mark.parametrize("name", ["lsh", "rsh", "arsh"])
def test_shifts_by_any_of_many_amounts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain_module, "AMOUNTS", 1)
    for bits in (3, 4):
        domain, sets, every = wholes(bits)
        pairs = product(every, every) if bits == 3 else some_pairs(every, 5_000, name)
        operation_excess(name, whole_operation(domain, name), sets, pairs)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_on_words_of_4_bits(name: str) -> None:
    domain, sets, every = wholes(4)
    operation_excess(name, whole_operation(domain, name), sets, some_pairs(every, 10_000, name))


@pytest.mark.long
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_on_all_words_of_4_bits(name: str) -> None:
    domain, sets, every = wholes(4)
    operation_excess(name, whole_operation(domain, name), sets, product(every, every))


@pytest.mark.long
@pytest.mark.parametrize(("name", "holds"), OUTCOMES)
def test_comparisons_of_all_words_of_4_bits(name: str, holds: bool) -> None:
    domain, sets, every = wholes(4)
    comparison_excess(name, holds, whole_comparison(domain, name, holds), sets, product(every, every))


# ---- words with halves -----------------------------------------------------------------------------------------------

HALVES = {
    3: {
        "add": 1.046, "sub": 1.047, "mul": 1.206, "div": 1.353, "mod": 1.363, "sdiv": 1.307, "smod": 1.346, "or": 1.059,
        "and": 1.061, "xor": 1.08, "lsh": 1.312, "rsh": 1.381, "arsh": 1.189, "jeq": 1.001, "jne": 1.001, "jgt": 1.0,
        "jge": 1.0, "jlt": 1.0, "jle": 1.0, "jset": 1.167, "jsgt": 1.0, "jsge": 1.0, "jslt": 1.0, "jsle": 1.0,
    },
    2: {
        "add": 1.022, "sub": 1.022, "mul": 1.099, "div": 1.205, "mod": 1.196, "sdiv": 1.103, "smod": 1.252, "or": 1.079,
        "and": 1.081, "xor": 1.034, "lsh": 1.07, "rsh": 1.106, "arsh": 1.021, "jeq": 1.088, "jne": 1.088, "jgt": 1.064,
        "jge": 1.065, "jlt": 1.065, "jle": 1.064, "jset": 1.077, "jsgt": 1.0, "jsge": 1.0, "jslt": 1.0, "jsle": 1.0,
    },
}  # fmt: skip


def arithmetic(numbers: Numbers, name: str, bits: int) -> Callable[[Scalar, Scalar], Scalar]:
    op, offset = OPERATIONS[name]
    return lambda a, b: numbers.arithmetic(op, bits, a, b, offset)


def assumption(numbers: Numbers, name: str, holds: bool, bits: int) -> Callable[[Scalar, Scalar], Any]:
    op = JUMPS[name]
    return lambda a, b: numbers.assume(op, bits, a, b, holds)


@pytest.mark.parametrize("bits", [3, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_on_words_with_halves(name: str, bits: int) -> None:
    numbers, sets, every = halved(3, 2)
    pairs = islice(product(every, every), 0, None, STRIDE)
    assert operation_excess(name, arithmetic(numbers, name, bits), sets, pairs, bits) <= HALVES[bits][name]


@pytest.mark.parametrize("bits", [3, 2])
@pytest.mark.parametrize(("name", "holds"), OUTCOMES)
def test_comparisons_of_words_with_halves(name: str, holds: bool, bits: int) -> None:
    numbers, sets, every = halved(3, 2)
    pairs = islice(product(every, every), 0, None, STRIDE)
    assert comparison_excess(name, holds, assumption(numbers, name, holds, bits), sets, pairs, bits) <= HALVES[bits][name]


@pytest.mark.long
@pytest.mark.parametrize("bits", [3, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_on_all_words_with_halves(name: str, bits: int) -> None:
    numbers, sets, every = halved(3, 2)
    operation_excess(name, arithmetic(numbers, name, bits), sets, product(every, every), bits)


@pytest.mark.long
@pytest.mark.parametrize("bits", [3, 2])
@pytest.mark.parametrize(("name", "holds"), OUTCOMES)
def test_comparisons_of_all_words_with_halves(name: str, holds: bool, bits: int) -> None:
    numbers, sets, every = halved(3, 2)
    comparison_excess(name, holds, assumption(numbers, name, holds, bits), sets, product(every, every), bits)


@pytest.mark.parametrize("shape", [(3, 2), (3, 1), (4, 2), pytest.param((4, 3), marks=pytest.mark.long)])
def test_parts_and_inclusion_of_words_with_halves(shape: tuple[int, int]) -> None:
    """Truncation, sign extension and inclusion, at every width; and what a description says holds when it is put together again."""
    bits, half_bits = shape
    numbers, sets = Numbers(bits, half_bits), Sets(bits, half_bits)
    every = with_halves(numbers) if bits == 3 else random.Random(str(shape)).sample(with_halves(numbers), 2_000)
    for a in every:
        members = elements(sets.of(a))
        for width in range(1, bits):
            low = (1 << width) - 1
            truncated, extended = numbers.truncate(a, width), numbers.extend_sign(a, width)
            for x in members:
                assert says(truncated, x & low, bits, half_bits), (a, width, truncated)
                assert says(extended, signed(x, width) & numbers.whole.top, bits, half_bits), (a, width, extended)
        again = numbers.settle(*a[:6], half=a.half)
        assert (sets.of(again) if again else 0) == sets.of(a)
    r = random.Random("inclusion")
    covered = 0
    for _ in range(20_000):
        a, b = r.choice(every), r.choice(every)
        if numbers.covers(a, b):
            covered += 1
            assert not sets.of(b) & ~sets.of(a), (a, b)
    assert covered > 100


# ---- bounds that hold on mispredicted branches -----------------------------------------------------------------------


@pytest.mark.parametrize("bits", [3, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_hard_bounds_hold_whatever_branches_have_said(name: str, bits: int) -> None:
    """An operand is any word up to its hard bound; but one that is fixed is its value."""
    numbers = Numbers(3, 2)
    top = (1 << bits) - 1
    narrowed = [Scalar(x, 0, x, x, signed(x, 3), signed(x, 3), 0, 7) for x in (0, 3, 5)]  # constants on this path only
    operands = [(numbers.const(x), [x]) for x in range(8)]
    operands += [
        (s._replace(hard=h), list(range(h + 1))) for s in (numbers.unknown, *narrowed) for h in range(8) if h != s.value or s.mask
    ]
    for (a, xs), (b, ys) in product(operands, operands):
        result = arithmetic(numbers, name, bits)(a, b)
        for x, y in product(xs, ys):
            z = computed(name, bits, x & top, y & top)
            assert z <= result.hard and (not is_fixed(result) or z == result.value), (a, b, x, y, result)


def test_hard_bounds_of_parts_hold_whatever_branches_have_said() -> None:
    numbers = Numbers(3, 2)
    for x, hard, width in product(range(8), range(8), (1, 2)):
        path_only = Scalar(x, 0, x, x, signed(x, 3), signed(x, 3), 0, hard)
        if hard <= x:
            continue
        truncated, extended = numbers.truncate(path_only, width), numbers.extend_sign(path_only, width)
        for y in range(hard + 1):
            for result, z in ((truncated, y & ((1 << width) - 1)), (extended, signed(y, width) & 7)):
                assert z <= result.hard and (not is_fixed(result) or z == result.value), (path_only, width, result)


def test_a_branch_makes_no_constant_that_holds_on_mispredicted_paths() -> None:
    numbers = Numbers(64, 32)
    masked = numbers.arithmetic(bpf.AND, 64, numbers.unknown, numbers.const(7))
    for bits in (64, 32):
        found = numbers.assume(bpf.JEQ, bits, masked, numbers.const(7), True)
        assert found is not None and found[0].const == 7 and not is_fixed(found[0])
        shifted = numbers.arithmetic(bpf.RSH, 64, numbers.const(1000), found[0])
        assert shifted.const == 1000 >> 7 and shifted.hard >= 1000


# ---- the checks themselves -------------------------------------------------------------------------------------------

# a fault in the domain's text, and an operation or comparison whose check must find it
FAULTS = [
    ("add", "alow + blow, ahigh + bhigh, aleast", "alow + blow, ahigh + bhigh - 1, aleast"),
    ("sub", "alow - bhigh, ahigh - blow", "alow - blow, ahigh - bhigh"),
    ("add", "if turns == high + sign >> bits", "if True"),
    ("add", "if low >> self.bits == high >> self.bits", "if low >= 0"),
    ("mul", "corners = aleast * bleast, aleast * bmost", "corners = aleast * bleast, amost * bmost"),
    ("div", "a.umin // b.umax, a.umax // max(b.umin, 1)", "a.umin // b.umax, a.umax // max(b.umax, 1)"),
    ("div", "if b.umin == 0:\n            low = 0", "if b.umin == 9:\n            low = 0"),
    ("mod", "min(a.umax, b.umax - 1) if b.umin else a.umax", "min(a.umax, b.umax - 1)"),
    ("sdiv", "ends = [0] if", "ends = [] if"),
    ("sdiv", "min(b.smax, -1)", "min(b.smax, -2)"),
    ("smod", "nearest = 0 if zero else", "nearest = 0 if False else"),
    ("smod", "abs(b.smax)) - 1", "abs(b.smax)) - 2"),
    ("and", "max(a.smax, b.smax))", "min(a.smax, b.smax))"),
    ("or", "umin = a.umin if a.umin > b.umin else b.umin", "umin = a.umax"),
    ("xor", "umin, umax = max(0, a.umin - b.umax", "umin, umax = max(0, a.umin - b.umin"),
    ("lsh", "def _lsh_between(self, a: Scalar, low: int, high: int)", "def _lsh_between(self, a: Scalar, high: int, low: int)"),
    ("rsh", "def _rsh_between(self, a: Scalar, low: int, high: int)", "def _rsh_between(self, a: Scalar, high: int, low: int)"),
    ("arsh", "def _arsh_between(self, a: Scalar, low: int, high: int)", "def _arsh_between(self, a: Scalar, high: int, low: int)"),
    ("lsh", "for n in amounts[1:]", "for n in amounts[2:]"),
    ("arsh", "| coming_in\n", "\n"),
    ("jgt", "b.umin + strict", "b.umin + 1"),
    ("jsle", "a.smax - strict", "a.smax - 1"),
    ("jne", "a.umax - (a.umax == x)", "a.umax - 1"),
    ("jset", "known = lowest if common == lowest else 0", "known = lowest"),
    ("jeq", "~a.mask & ~b.mask:", "~a.mask:"),
    ("add", "mask &= (1 << (low ^ high).bit_length()) - 1", "mask &= (low ^ high)"),
    ("jsgt", "low, high = smin & self.top, smax & self.top", "low, high = smin & self.top, smin & self.top"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "right", "wrong"), FAULTS)
def test_faults_in_the_domain_are_found(name: str, right: str, wrong: str) -> None:
    text = Path(domain_module.__file__).read_text()
    assert text.count(right) >= 1, "the fault does not fit the text any more"
    faulty = ModuleType("faulty")
    sys.modules["faulty"] = faulty
    try:
        if "_between" in right:
            text = text.replace("AMOUNTS = 4", "AMOUNTS = 1")
        exec(compile(text.replace(right, wrong), "faulty", "exec"), vars(faulty))
        domain = faulty.Domain(3)
        with pytest.raises((Unsound, ValueError, AssertionError)):
            _, sets, every = wholes(3)
            pairs = list(product(every, every))
            if name in OPERATIONS:
                operation_excess(name, whole_operation(domain, name), sets, pairs)
            else:
                for holds in (True, False):
                    comparison_excess(name, holds, whole_comparison(domain, name, holds), sets, pairs)
    finally:
        del sys.modules["faulty"]
