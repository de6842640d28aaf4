"""The abstract scalar for all words of 64 bits: the verifier's own code runs on a solver's terms, along every path.

Each function is proven by itself: what it hands to `settle` holds for every result, and `settle` loses no word that is
described. Products and quotients are proven at 8 bits, where the solver can do them; the code is the same at every width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import z3

from chamelio.verify import domain as domain_module
from chamelio.verify import scalar as scalar_module
from chamelio.verify import tnum
from chamelio.verify.domain import OPPOSITE, Domain, Scalar, new
from verify.symbolic import Failed, Paths, Term, Truth, least, most
from verify.words import JUMPS, OPERATIONS

MAIN = ("jeq", "jgt", "jge", "jsgt", "jsge")


@pytest.fixture(autouse=True)
def extremes_without_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (domain_module, scalar_module):
        monkeypatch.setattr(module, "min", least, raising=False)
        monkeypatch.setattr(module, "max", most, raising=False)


class Unsettled(Domain):
    """A domain whose results are shown as they are handed to `settle`."""

    def settle(self, value: int, mask: int, umin: int, umax: int, smin: int, smax: int) -> Scalar | None:
        return new(value, mask, umin, umax, smin, smax)


def signed(paths: Paths, x: Term, bits: int) -> Term:
    return Term(paths, z3.If(x.vector >= 1 << (bits - 1), x.vector - (1 << bits), x.vector))


def says(paths: Paths, s: Scalar, x: Term, bits: int) -> list[Truth]:
    """A description is true of a word."""
    number = signed(paths, x, bits)
    terms = [part if isinstance(part, Term) else paths.number(part) for part in s[:6]]
    value, mask, umin, umax, smin, smax = terms
    return [x & ~mask == value, umin <= x, x <= umax, smin <= number, number <= smax]


def sane(paths: Paths, s: Scalar, bits: int) -> list[Truth]:
    """What `settle` asks for."""
    value, mask, umin, umax, smin, smax = [part if isinstance(part, Term) else paths.number(part) for part in s[:6]]
    top, sign = (1 << bits) - 1, 1 << (bits - 1)
    return [
        value & mask == 0, value >= 0, value <= top, mask >= 0, mask <= top, umin >= 0, umax <= top, smin >= -sign, smax < sign,
    ]  # fmt: skip


def reduced(paths: Paths, s: Scalar, bits: int) -> list[Truth]:
    """What `settle` promises besides."""
    value, mask, umin, umax, smin, smax = (paths.number(part) for part in s[:6])
    ends = z3.And((smin == signed(paths, umin, bits)).formula, (smax == signed(paths, umax, bits)).formula)
    return [
        umin >= value,
        umax <= (value | mask),
        (umin == umax).implies(Truth(paths, ends)),
        smin <= smax,
        (value | mask) < (1 << umax.bit_length()),
    ]  # type: ignore[operator]


def described(paths: Paths, name: str, bits: int, settled: bool = True) -> tuple[Scalar, Term]:
    """Any description and any word that it is true of."""
    s = new(*(paths.term(f"{name}_{part}") for part in Scalar._fields[:6]))  # type: ignore[arg-type]
    x = paths.term(name)
    paths.assume(x >= 0, x <= (1 << bits) - 1, *sane(paths, s, bits), *says(paths, s, x, bits))
    if settled:
        paths.assume(*reduced(paths, s, bits))
    return s, x


# ---- known bits and reduction --------------------------------------------------------------------------------------------


def test_first_and_last_members_are_found(bits: int = 64) -> None:
    paths = Paths(bits + 8)
    top = (1 << bits) - 1
    value, mask, bound, x = (paths.term(name) for name in ("value", "mask", "bound", "x"))
    for number in (value, mask, bound, x):
        paths.assume(number >= 0, number <= top)
    paths.assume(value & mask == 0, x & ~mask == value)
    paths.follow(lambda: paths.number(tnum.first(value, mask, bound, top)), lambda y: first_spec(value, mask, bound, top, x, y))
    paths.follow(lambda: paths.number(tnum.last(value, mask, bound)), lambda y: last_spec(value, mask, bound, x, y))
    assert paths.done == 7


def first_spec(value: Any, mask: Any, low: Any, top: int, x: Term, y: Term) -> list[Truth]:
    """y is what `tnum.first` is to give, as far as a member x can tell."""
    return [y >= low, (x >= low).implies(x >= y), (y <= top).implies(y & ~mask == value)]


def last_spec(value: Any, mask: Any, high: Any, x: Term, y: Term) -> list[Truth]:
    return [y <= high, y >= -1, (x <= high).implies(x <= y), (y >= 0).implies(y & ~mask == value)]


def test_one_interval_loses_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    bits, domain = 64, Domain(64)
    paths = Paths(bits + 8)
    value, mask, low, high, x = (paths.term(name) for name in ("value", "mask", "low", "high", "x"))

    def some(spec: Callable[..., list[Truth]]) -> Callable[..., Term]:
        def call(*arguments: Any) -> Term:
            y = paths.fresh()
            paths.learn(*spec(*arguments, x, y))
            return y

        return call

    monkeypatch.setattr(tnum, "first", some(first_spec))
    monkeypatch.setattr(tnum, "last", some(last_spec))
    for number in (value, mask, low, high, x):
        paths.assume(number >= 0, number <= domain.top)
    paths.assume(value & mask == 0, *one_given(domain, low, high))
    paths.follow(
        lambda: domain._settle_one(value, mask, low, high),  # type: ignore[arg-type]
        lambda s: one_spec(paths, domain, value, mask, low, high, x, s),
    )
    assert paths.done > 5


def one_given(domain: Domain, low: Term, high: Term) -> list[Truth]:
    """An interval that lies within one sign, or is empty."""
    return [Truth(low.paths, z3.Or(low.vector > high.vector, (low.vector >= domain.sign) == (high.vector >= domain.sign)))]


def one_spec(
    paths: Paths, domain: Domain, value: Any, mask: Any, low: Any, high: Any, x: Term, result: Scalar | None
) -> list[Truth]:
    """What `_settle_one` is to give, as far as a word x can tell."""
    here = z3.And((x & ~mask == value).formula, (x >= low).formula, (x <= high).formula)
    if result is None:
        return [Truth(paths, z3.Not(here))]
    umin, umax, smin, smax = (paths.number(part) for part in result[2:6])
    narrow = [
        umin >= low, umin <= umax, umax <= high, smin == signed(paths, umin, domain.bits), smax == signed(paths, umax, domain.bits),
    ]  # fmt: skip
    told = [Truth(paths, here).implies(fact) for fact in says(paths, result, x, domain.bits)]
    return told + narrow + sane(paths, result, domain.bits) + reduced(paths, result, domain.bits)


def prove_settled(domain: Domain, patch: pytest.MonkeyPatch) -> int:
    """`_settle_one` is what it has been shown to be."""
    paths = Paths(domain.bits + 8)
    s, x = described(paths, "x", domain.bits, settled=False)

    def settle_one(value: Any, mask: Any, low: Any, high: Any) -> Scalar | None:
        low, high = paths.number(low), paths.number(high)
        paths.prove(*one_given(domain, low, high))
        result = None
        if not paths.decide(z3.FreshConst(z3.BoolSort())):
            result = new(*(paths.fresh() for _ in range(6)))  # type: ignore[arg-type]
        paths.learn(*one_spec(paths, domain, value, mask, low, high, x, result))
        return result

    def right(result: Scalar | None) -> list[Truth]:
        if result is None:
            return [paths.number(0) == 1]  # a word is described
        return says(paths, result, x, domain.bits) + sane(paths, result, domain.bits) + reduced(paths, result, domain.bits)

    patch.setattr(domain, "_settle_one", settle_one)
    paths.follow(lambda: domain.settle(*s[:6]), right)
    return paths.done


def test_settling_loses_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert prove_settled(Domain(64), monkeypatch) > 10


# ---- operations ----------------------------------------------------------------------------------------------------------


def meaning(name: str, bits: int, x: Term, y: Term) -> Term:
    """What an operation gives, in the solver's own operators on `bits` bits."""
    a, b = (z3.Extract(bits - 1, 0, word.vector) for word in (x, y))
    amount = b & (bits - 1)
    zero = b == 0
    formulas: dict[str, Callable[[], Any]] = {
        "add": lambda: a + b, "sub": lambda: a - b, "mul": lambda: a * b,
        "div": lambda: z3.If(zero, 0, z3.UDiv(a, b)), "mod": lambda: z3.If(zero, a, z3.URem(a, b)),
        "sdiv": lambda: z3.If(zero, 0, a / b), "smod": lambda: z3.If(zero, a, z3.SRem(a, b)),
        "or": lambda: a | b, "and": lambda: a & b, "xor": lambda: a ^ b,
        "lsh": lambda: a << amount, "rsh": lambda: z3.LShR(a, amount), "arsh": lambda: a >> amount,
    }  # fmt: skip
    width = x.paths.width
    return Term(x.paths, z3.ZeroExt(width - bits, formulas[name]()))


def exact(name: str, bits: int, x: Term, y: Term) -> list[Term]:
    """What an operation gives before it is cut to a word, of unsigned and of signed operands; [] where nothing is cut."""
    p, q = signed(x.paths, x, bits), signed(x.paths, y, bits)
    match name:
        case "add":
            return [x + y, p + q]
        case "xor":  # with a constant that has all bits, or the sign
            return [y - x, x + y, q - p, p + q]
        case "sub":
            return [x - y, p - q]
        case "mul":
            return [x * y, p * q]
        case "lsh":
            return [x << y, p << y]
        case "sdiv":
            by = Term(x.paths, z3.If(q.vector == 0, 1, q.vector))
            return [Term(x.paths, z3.If(q.vector == 0, 0, p.vector / by.vector))]
    return []


def prove_operation(domain: Domain, name: str, amount: int | None = None, width: int = 0) -> int:
    """An operation; `amount`: with that constant as its second operand."""
    op, offset = OPERATIONS[name]
    bits = domain.bits
    paths = Paths(width or bits + 8)
    a, x = described(paths, "x", bits)
    if amount is None:
        b, y = described(paths, "y", bits)
    else:
        b, y = Domain(bits).const(amount), paths.number(amount)
    z = meaning(name, bits, x, y)
    results = exact(name, bits, x, y)

    def known_bits(*_: Any) -> tuple[Term, Term]:
        """What has been shown of sums, differences and products of tnums."""
        value, mask = paths.fresh(), paths.fresh()
        paths.learn(value >= 0, value <= domain.top, mask >= 0, mask <= domain.top, value & mask == 0, z & ~mask == value)
        return value, mask

    def wrapped(low: Any, high: Any) -> tuple[Term, ...]:
        """What has been shown of `wrapped`, for one of the results."""
        assert any(paths.holds(low <= r) and paths.holds(r <= high) and paths.holds(r & domain.top == z) for r in results)
        bounds = tuple(paths.fresh() for _ in range(4))
        paths.learn(*wrapped_spec(paths, domain, z, bounds))
        return bounds

    def right(result: Scalar) -> list[Truth]:
        return says(paths, result, z, bits) + sane(paths, result, bits)

    with pytest.MonkeyPatch.context() as patch:
        for function in ("add", "sub", "mul"):
            patch.setattr(tnum, function, known_bits)
        patch.setattr(domain, "wrapped", wrapped)
        paths.follow(lambda: (domain.signed if offset else domain.plain)[op](a, b), right)
    return paths.done


def wrapped_spec(paths: Paths, domain: Domain, z: Term, bounds: tuple[Any, ...]) -> list[Truth]:
    """Bounds of a word, within the limits."""
    s = new(0, domain.top, *bounds)
    return says(paths, s, z, domain.bits)[1:] + sane(paths, s, domain.bits)[5:]


def test_wrapped_intervals_hold_every_result() -> None:
    domain, paths = Domain(64), Paths(140)
    low, high, result = (paths.term(name) for name in ("low", "high", "result"))
    for number in (low, high, result):
        paths.assume(number >= -(1 << 130), number < 1 << 130)
    paths.assume(low <= result, result <= high)
    paths.follow(lambda: domain.wrapped(low, high), lambda bounds: wrapped_spec(paths, domain, result & domain.top, bounds))  # type: ignore[arg-type]


def prove_known_bits(name: str, bits: int, width: int) -> None:
    paths = Paths(width)
    top = (1 << bits) - 1
    av, am, x, bv, bm, y = (paths.term(word) for word in ("av", "am", "x", "bv", "bm", "y"))
    for number in (av, am, x, bv, bm, y):
        paths.assume(number >= 0, number <= top)
    paths.assume(av & am == 0, x & ~am == av, bv & bm == 0, y & ~bm == bv)
    z = meaning(name, bits, x, y)

    def right(found: tuple[Term, Term]) -> list[Truth]:
        value, mask = (paths.number(part) for part in found)
        return [value & mask == 0, value >= 0, value <= top, mask >= 0, mask <= top, z & ~mask == value]

    paths.follow(lambda: getattr(tnum, name)(av, am, bv, bm, top), right)


@pytest.mark.parametrize("name", ["add", pytest.param("sub", marks=pytest.mark.long)])
def test_known_bits_of_sums_are_right(name: str) -> None:
    prove_known_bits(name, 64, 72)


@pytest.mark.parametrize("loops", [0, 2])
def test_known_bits_of_products_are_right(loops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tnum, "LOOPS", loops)
    prove_known_bits("mul", 6, 20)


@pytest.mark.long
@pytest.mark.parametrize("name", ["add", "sub"])
def test_sums_of_16_bits_hold_every_result(name: str) -> None:
    assert prove_operation(Unsettled(16), name) > 1


@pytest.mark.long
@pytest.mark.parametrize("name", ["add", "sub"])
def test_sums_hold_every_result(name: str) -> None:
    assert prove_operation(Unsettled(64), name) > 1


@pytest.mark.long
@pytest.mark.parametrize("name", ["and", "or"])
def test_bitwise_operations_hold_every_result(name: str) -> None:
    assert prove_operation(Unsettled(64), name) > 1


@pytest.mark.parametrize("bits", [8, *(pytest.param(n, marks=pytest.mark.long) for n in (16, 64))])
def test_exclusive_or_holds_every_result(bits: int) -> None:
    assert prove_operation(Unsettled(bits), "xor") > 1


@pytest.mark.parametrize("amount", [32, *(pytest.param(n, marks=pytest.mark.long) for n in (0, 1, 63))])
@pytest.mark.parametrize("name", ["lsh", "rsh", "arsh"])
def test_shifts_hold_every_result(name: str, amount: int) -> None:
    assert prove_operation(Unsettled(64), name, amount, 136) >= 1


@pytest.mark.parametrize("bits", [8, pytest.param(64, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["lsh", "rsh", "arsh"])
def test_shifts_by_an_amount_between_others_hold_every_result(name: str, bits: int) -> None:
    domain, paths = Unsettled(bits), Paths(2 * bits + 8, timeout=100)
    a, x = described(paths, "x", bits)
    low, high, y = (paths.term(word) for word in ("low", "high", "y"))
    paths.assume(low >= 0, low <= y, y <= high, high < bits)
    z = meaning(name, bits, x, y)
    paths.follow(
        lambda: getattr(domain, f"_{name}_between")(a, low, high),
        lambda result: says(paths, result, z, bits) + sane(paths, result, bits),
    )


@pytest.mark.parametrize("name", ["div", "mod", *(pytest.param(n, marks=pytest.mark.long) for n in ("sdiv", "smod", "mul"))])
def test_products_and_quotients_hold_every_result(name: str) -> None:
    assert prove_operation(Unsettled(6 if name != "mul" else 5), name, None, 20) > 1


# ---- comparisons -----------------------------------------------------------------------------------------------------


def holds(name: str, bits: int, x: Term, y: Term) -> Truth:
    a, b = (z3.Extract(bits - 1, 0, word.vector) for word in (x, y))
    formulas = {
        "jeq": a == b, "jne": a != b, "jgt": z3.UGT(a, b), "jge": z3.UGE(a, b), "jlt": z3.ULT(a, b), "jle": z3.ULE(a, b),
        "jset": a & b != 0, "jsgt": a > b, "jsge": a >= b, "jslt": a < b, "jsle": a <= b,
    }  # fmt: skip
    return Truth(x.paths, formulas[name])


# the others are these with their operands swapped, or their opposites
@pytest.mark.parametrize("outcome", [True, pytest.param(False, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", [n if n in MAIN else pytest.param(n, marks=pytest.mark.long) for n in JUMPS])
def test_comparisons_keep_every_word_that_they_allow(name: str, outcome: bool) -> None:
    domain, paths = Unsettled(64), Paths(72)
    a, x = described(paths, "x", 64)
    b, y = described(paths, "y", 64)
    fact = holds(name, 64, x, y)
    paths.assume(fact if outcome else Truth(paths, z3.Not(fact.formula)))

    def right(found: tuple[Scalar, Scalar] | None) -> list[Truth]:
        if found is None:
            return [paths.number(0) == 1]
        return says(paths, found[0], x, 64) + says(paths, found[1], y, 64)

    if name == "jset":
        paths.follow(lambda: domain.bits_in_common(a, b, outcome), right)
    else:
        op = JUMPS[name] if outcome else OPPOSITE[JUMPS[name]]
        paths.follow(lambda: domain.compare(op, a, b), right)


# ---- low halves ------------------------------------------------------------------------------------------------------


def part_of(paths: Paths, x: Term, bits: int, offset: int) -> Term:
    """The low bits as a number from -offset on."""
    return (x + offset & ((1 << bits) - 1)) - offset


def moved_spec(end: Any, low: Any, high: Any, w: Term, part: Term, found: Term, upwards: bool) -> list[Truth]:
    """What `_up` and `_down` give, as far as a number w can tell whose low bits are `part`."""
    inside = z3.And((part >= low).formula, (part <= high).formula)
    beyond, kept = (w >= end, w >= found) if upwards else (w <= end, w <= found)
    return [Truth(w.paths, z3.And(inside, beyond.formula)).implies(kept)]


@pytest.mark.parametrize("offset", [0, 1 << 31])
@pytest.mark.parametrize("upwards", [True, False])
def test_ends_move_to_the_next_number_with_a_fitting_half(upwards: bool, offset: int) -> None:
    paths = Paths(72)
    x, low, high, w = (paths.term(name) for name in ("x", "low", "high", "w"))
    for number in (x, w):
        paths.assume(number >= -(1 << 66), number <= 1 << 66)
    paths.assume(low >= -offset, low <= high, high < (1 << 32) - offset)
    move = scalar_module._up if upwards else scalar_module._down
    paths.follow(
        lambda: move(x, 32, offset, low, high),  # type: ignore[arg-type]
        lambda found: moved_spec(x, low, high, w, part_of(paths, w, 32, offset), found, upwards),
    )


class UnsettledNumbers(scalar_module.Numbers):
    def __init__(self) -> None:
        super().__init__(64, 32)
        self.whole, self.low = Unsettled(64), Unsettled(32)
        self.parts = {bits: Unsettled(bits) for bits in (8, 16, 32)}


@pytest.mark.long
@pytest.mark.parametrize("bits", [32, 8])
def test_what_follows_for_the_low_bits_holds(bits: int) -> None:
    numbers, paths = UnsettledNumbers(), Paths(72)
    a, x = described(paths, "x", 64)
    part = x & ((1 << bits) - 1)
    paths.follow(lambda: numbers._part(a, bits), lambda s: says(paths, s, part, bits) + sane(paths, s, bits))


@pytest.mark.parametrize("bits", [8, 32])
def test_sign_extension_holds_every_result(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, paths = UnsettledNumbers(), Paths(72)
    a, x = described(paths, "x", 64)
    part, low = described(paths, "part", bits)
    paths.assume(low == x & ((1 << bits) - 1))
    monkeypatch.setattr(numbers, "low_part", lambda *_: part)
    monkeypatch.setattr(numbers, "_hardened", lambda s, *_: s)
    z = signed(paths, low, bits) & ((1 << 64) - 1)
    whole = a._replace(hard=(1 << 64) - 1)
    paths.follow(lambda: numbers.extend_sign(whole, bits), lambda s: says(paths, s, z, 64) + sane(paths, s, 64))


@pytest.mark.long
def test_a_word_and_its_half_narrow_each_other_without_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """`_part`, `_up` and `_down` are what they have been shown to be. One round: each begins with what the one before has left."""
    numbers, paths = UnsettledNumbers(), Paths(72)
    a, x = described(paths, "x", 64)
    half, low = described(paths, "half", 32)
    follows, same = described(paths, "follows", 32)
    paths.assume(low == x & ((1 << 32) - 1), same == low)

    words = [x, signed(paths, x, 64)]
    parts = [part_of(paths, w, 32, 0) == low for w in words]
    parts += [part_of(paths, w, 32, 1 << 31) == signed(paths, low, 32) for w in words]
    paths.follow(lambda: None, lambda _: parts)

    def moved(upwards: bool) -> Callable[..., Term]:
        def call(end: Any, _: int, offset: int, least_part: Any, most_part: Any) -> Term:
            found = paths.fresh()
            part = low if offset == 0 else signed(paths, low, 32)
            paths.prove(part >= least_part, part <= most_part)
            for w in words:
                if paths.holds(w >= end if upwards else w <= end):
                    paths.learn(w >= found if upwards else w <= found)
            return found

        return call

    monkeypatch.setattr(scalar_module, "ROUNDS", 1)
    monkeypatch.setattr(scalar_module, "_up", moved(True))
    monkeypatch.setattr(scalar_module, "_down", moved(False))
    monkeypatch.setattr(numbers, "_part", lambda *_: follows)

    def right(found: Scalar | None) -> list[Truth]:
        if found is None:
            return [paths.number(0) == 1]
        return says(paths, found, x, 64) + ([] if found.half is None else says(paths, found.half, low, 32))

    paths.follow(lambda: numbers._with_half(a, half, 0, 0), right)


def test_byte_swaps_move_every_bit() -> None:
    """A swap moves known bits one by one: it is right if it is right for each."""
    for bits in (16, 32, 64):
        for i in range(bits):
            there = bits - 8 - i // 8 * 8 + i % 8
            found = scalar_module.swap_bytes(scalar_module.const(1 << i), bits)
            assert found.const == 1 << there
            unknown = scalar_module.swap_bytes(new(0, 1 << i, 0, 1 << i, *((0, 1 << i) if i < 63 else (-(1 << 63), 0))), bits)
            assert (unknown.value, unknown.mask) == (0, 1 << there)


# ---- the proofs themselves -------------------------------------------------------------------------------------------


class Faulty(Unsettled):
    def sub(self, a: Scalar, b: Scalar) -> Scalar:
        right = super().sub(a, b)
        return right._replace(umin=right.umin + 1)

    def and_(self, a: Scalar, b: Scalar) -> Scalar:
        return self.made(a.value & b.value, a.mask & b.mask, 0, self.top, self.smin, self.smax)

    def or_(self, a: Scalar, b: Scalar) -> Scalar:
        right = super().or_(a, b)
        return right._replace(smax=max(a.smax, b.smax))

    def arsh(self, a: Scalar, b: Scalar) -> Scalar:
        return super().rsh(a, b)


@pytest.mark.parametrize(("name", "amount"), [("sub", None), ("and", None), ("or", None), ("arsh", 3)])
def test_faults_have_no_proof(name: str, amount: int | None) -> None:
    with pytest.raises(Failed):
        prove_operation(Faulty(8), name, amount, 24)
