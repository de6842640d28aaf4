"""Abstract words of one width: known bits with an unsigned and a signed interval, kept as narrow as each makes the others.

`Domain(bits)` works for any width: proofs run it at 3 and 4 bits exhaustively and at 64 bits on a solver's terms, the
verifier at 64, 32, 16 and 8. What a description says is documented at `Scalar`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from chamelio.bpf import insn as bpf
from chamelio.verify import tnum

AMOUNTS = 4  # shift amounts that are possible, up to which each is worked out by itself


class Scalar(NamedTuple):
    """A word x: x & ~mask == value, umin <= x <= umax, smin <= signed(x) <= smax.

    `ident` links copies of one value, so that a comparison of one narrows the others; 0: none. `hard` is the most that x can
    be (unsigned) whatever branches have said: x & 15 is at most 15 even where a branch was mispredicted. A constant is
    one on mispredicted paths, too, if `hard` is its value and not the largest word. `half` describes the low half, as a
    word of its own; None unless it says more than the rest does.
    """

    value: int
    mask: int
    umin: int
    umax: int
    smin: int
    smax: int
    ident: int = 0
    hard: int = 2**64 - 1
    half: Scalar | None = None

    @property
    def const(self) -> int | None:
        """The only possible value (unsigned), if there is just one."""
        return self.value if self.mask == 0 else None


Pair = tuple[Scalar, Scalar]

OPPOSITE = {
    bpf.JEQ: bpf.JNE, bpf.JNE: bpf.JEQ, bpf.JGT: bpf.JLE, bpf.JLE: bpf.JGT, bpf.JGE: bpf.JLT, bpf.JLT: bpf.JGE,
    bpf.JSGT: bpf.JSLE, bpf.JSLE: bpf.JSGT, bpf.JSGE: bpf.JSLT, bpf.JSLT: bpf.JSGE,
}  # fmt: skip
SWAPPED = {bpf.JLT: bpf.JGT, bpf.JLE: bpf.JGE, bpf.JSLT: bpf.JSGT, bpf.JSLE: bpf.JSGE}


def new(
    value: int, mask: int, umin: int, umax: int, smin: int, smax: int, ident: int = 0, hard: int = 2**64 - 1,
    half: Scalar | None = None,
) -> Scalar:  # fmt: skip
    """A Scalar, in half the time that its constructor takes."""
    return tuple.__new__(Scalar, (value, mask, umin, umax, smin, smax, ident, hard, half))


def _quotient(x: int, y: int) -> int:
    """x / y truncated towards zero; y is not 0."""
    found = abs(x) // abs(y)
    return found if (x < 0) == (y < 0) else -found


def _magnitude(x: int) -> int:
    """A signed number's bits but those that repeat its sign."""
    return max(x, ~x)


class Domain:
    """The operations on words of one width. Results never have `ident`, `hard` or `half`: those are the caller's."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.top = (1 << bits) - 1
        self.sign = 1 << (bits - 1)
        self.smin, self.smax = -self.sign, self.sign - 1
        self.amounts = (1 << (bits - 1).bit_length()) - 1  # what of a shift's amount counts
        self.unknown = new(0, self.top, 0, self.top, self.smin, self.smax)
        self.plain: dict[int, Callable[[Scalar, Scalar], Scalar]] = {
            bpf.ADD: self.add, bpf.SUB: self.sub, bpf.MUL: self.mul, bpf.DIV: self.div, bpf.MOD: self.mod, bpf.OR: self.or_,
            bpf.AND: self.and_, bpf.XOR: self.xor, bpf.LSH: self.lsh, bpf.RSH: self.rsh, bpf.ARSH: self.arsh,
        }  # fmt: skip
        self.signed = self.plain | {bpf.DIV: self.sdiv, bpf.MOD: self.smod}

    # ---- descriptions ---------------------------------------------------------------------------------------------

    def const(self, x: int) -> Scalar:
        """Exactly x (any sign)."""
        x &= self.top
        s = x - self.top - 1 if x >= self.sign else x
        return new(x, 0, x, x, s, s)

    def settle(self, value: int, mask: int, umin: int, umax: int, smin: int, smax: int) -> Scalar | None:
        """The narrowest description of what is described by all three together. None: there is no such word.

        value & mask == 0. An end may be beyond the other end's limit, as umin above 2^bits - 1: there is no word.
        """
        if smin > smax:
            return None
        sign = self.sign
        if smin >= 0:
            low, high = umin if umin > smin else smin, umax if umax < smax else smax
        elif smax < 0:
            low, high = smin & self.top, smax & self.top
            low, high = umin if umin > low else low, umax if umax < high else high
        elif umax < sign:
            low, high = umin, umax if umax < smax else smax
        elif umin >= sign:
            low = smin & self.top
            low, high = umin if umin > low else low, umax
        else:
            return self._settle_both(value, mask, umin, umax, smin, smax)
        return self._settle_one(value, mask, low, high)

    def _settle_one(self, value: int, mask: int, low: int, high: int) -> Scalar | None:
        """Words of one sign: one interval, whose ends are made members; then their common prefix is known."""
        if low > high:
            return None
        if (low ^ value) & ~mask:
            low = tnum.first(value, mask, low, self.top)
        if (high ^ value) & ~mask:
            high = tnum.last(value, mask, high)
        if low > high:
            return None
        mask &= (1 << (low ^ high).bit_length()) - 1
        if low >= self.sign:
            return new(low & ~mask, mask, low, high, low - self.top - 1, high - self.top - 1)
        return new(low & ~mask, mask, low, high, low, high)

    def _settle_both(self, value: int, mask: int, umin: int, umax: int, smin: int, smax: int) -> Scalar | None:
        """Words of both signs: [umin, smax] and [smin, umax] as unsigned numbers, each on its own."""
        one = self._settle_one(value, mask, umin, smax) if umin <= smax else None
        smin &= self.top
        two = self._settle_one(value, mask, smin, umax) if smin <= umax else None
        if one is None:
            return two
        if two is None:
            return one
        value, mask = tnum.union(one.value, one.mask, two.value, two.mask)
        return new(value, mask, one.umin, two.umax, two.smin, one.smax)

    @staticmethod
    def union(a: Scalar, b: Scalar) -> Scalar:
        """What describes the words of both."""
        value, mask = tnum.union(a.value, a.mask, b.value, b.mask)
        return new(value, mask, min(a.umin, b.umin), max(a.umax, b.umax), min(a.smin, b.smin), max(a.smax, b.smax))

    def made(self, value: int, mask: int, umin: int, umax: int, smin: int, smax: int) -> Scalar:
        """`settle` for a result. Of words that do not exist anything is true."""
        found = self.settle(value, mask, umin, umax, smin, smax)
        return self.unknown if found is None else found

    def wrapped(self, low: int, high: int) -> tuple[int, int, int, int]:
        """Bounds, unsigned and signed, of low <= x <= high modulo 2^bits."""
        umin, umax, smin, smax = 0, self.top, self.smin, self.smax
        bits, sign = self.bits, self.sign
        if low >> bits == high >> bits:
            umin, umax = low & self.top, high & self.top
        turns = low + sign >> bits
        if turns == high + sign >> bits:
            turns <<= bits
            smin, smax = low - turns, high - turns
        return umin, umax, smin, smax

    def meet(self, a: Scalar, b: Scalar) -> Scalar | None:
        """What both describe."""
        if (a.value ^ b.value) & ~a.mask & ~b.mask:
            return None
        mask = a.mask & b.mask
        return self.settle(
            (a.value | b.value) & ~mask, mask, max(a.umin, b.umin), min(a.umax, b.umax), max(a.smin, b.smin), min(a.smax, b.smax)
        )

    # ---- sums and products ----------------------------------------------------------------------------------------

    def add(self, a: Scalar, b: Scalar) -> Scalar:
        """a + b."""
        av, am, alow, ahigh, aleast, amost = a[:6]
        bv, bm, blow, bhigh, bleast, bmost = b[:6]
        if am == bm == 0:
            return self.const(av + bv)
        value, mask = tnum.add(av, am, bv, bm, self.top)
        return self._between(value, mask, alow + blow, ahigh + bhigh, aleast + bleast, amost + bmost)

    def sub(self, a: Scalar, b: Scalar) -> Scalar:
        """a - b."""
        av, am, alow, ahigh, aleast, amost = a[:6]
        bv, bm, blow, bhigh, bleast, bmost = b[:6]
        if am == bm == 0:
            return self.const(av - bv)
        value, mask = tnum.sub(av, am, bv, bm, self.top)
        return self._between(value, mask, alow - bhigh, ahigh - blow, aleast - bmost, amost - bleast)

    def _between(self, value: int, mask: int, low: int, high: int, least: int, most: int) -> Scalar:
        """Results that lie within low..high and also within least..most, both before wrapping."""
        top = self.top
        if self.smin <= least and most <= self.smax:
            if low >> self.bits == high >> self.bits:
                return self.made(value, mask, low & top, high & top, least, most)
            return self.made(value, mask, 0, top, least, most)
        umin, umax, smin, smax = self.wrapped(low, high)
        low, high, least, most = self.wrapped(least, most)
        return self.made(value, mask, max(umin, low), min(umax, high), max(smin, least), min(smax, most))

    def mul(self, a: Scalar, b: Scalar) -> Scalar:
        """a * b."""
        av, am, alow, ahigh, aleast, amost = a[:6]
        bv, bm, blow, bhigh, bleast, bmost = b[:6]
        if am == bm == 0:
            return self.const(av * bv)
        value, mask = tnum.mul(av, am, bv, bm, self.top)
        if aleast >= 0 and bleast >= 0:
            return self.made(value, mask, *self.wrapped(alow * blow, ahigh * bhigh))
        corners = aleast * bleast, aleast * bmost, amost * bleast, amost * bmost
        return self._between(value, mask, alow * blow, ahigh * bhigh, min(*corners), max(*corners))

    def div(self, a: Scalar, b: Scalar) -> Scalar:
        """Unsigned a / b; by zero: 0."""
        if b.umax == 0:
            return self.const(0)
        low, high = a.umin // b.umax, a.umax // max(b.umin, 1)
        if b.umin == 0:
            low = 0
        if b.mask == 0 and b.value & (b.value - 1) == 0:
            n = b.value.bit_length() - 1
            return self.made(a.value >> n, a.mask >> n, low, high, self.smin, self.smax)
        return self.made(0, self.top, low, high, self.smin, self.smax)

    def mod(self, a: Scalar, b: Scalar) -> Scalar:
        """Unsigned a % b; by zero: a."""
        if b.umax == 0 or a.umax < b.umin:
            return new(*a[:6])
        low, high = 0, min(a.umax, b.umax - 1) if b.umin else a.umax
        if b.mask == 0 and a.umin // b.value == a.umax // b.value:
            low, high = a.umin % b.value, a.umax % b.value
        # the divisor is a multiple of this power of two, even if it is zero: what the result is modulo that, a is
        possible = b.value | b.mask
        below = (possible & -possible) - 1
        return self.made(a.value & below, (a.mask | ~below) & self.top, low, high, self.smin, self.smax)

    def sdiv(self, a: Scalar, b: Scalar) -> Scalar:
        """Signed a / b, truncated towards zero; by zero: 0; the least number by -1 is itself."""
        if a.smin >= 0 and b.smin >= 0:
            return self.div(a, b)
        ends = [0] if b.smin <= 0 <= b.smax else []
        for low, high in ((b.smin, min(b.smax, -1)), (max(b.smin, 1), b.smax)):
            if low <= high:  # for divisors of one sign the quotient is monotone in each operand
                ends += [_quotient(x, y) for x in (a.smin, a.smax) for y in (low, high)]
        return self.made(0, self.top, *self.wrapped(min(ends), max(ends)))

    def smod(self, a: Scalar, b: Scalar) -> Scalar:
        """Signed a % b, with the sign of a; by zero: a."""
        if a.smin >= 0 and b.smin >= 0:
            return self.mod(a, b)
        zero = b.smin <= 0 <= b.smax
        nearest = 0 if zero else min(abs(b.smin), abs(b.smax))
        if (b.smin == 0 and b.smax == 0) or (-nearest < a.smin and a.smax < nearest):
            return new(*a[:6])
        least, most = min(a.smin, 0), max(a.smax, 0)
        if not zero:
            limit = max(abs(b.smin), abs(b.smax)) - 1
            least, most = max(least, -limit), min(most, limit)
        if b.smin == b.smax and _quotient(a.smin, b.smin) == _quotient(a.smax, b.smin) and (a.smin < 0) == (a.smax < 0):
            by = _quotient(a.smin, b.smin) * b.smin
            least, most = a.smin - by, a.smax - by
        possible = b.value | b.mask
        below = (possible & -possible) - 1
        return self.made(a.value & below, (a.mask | ~below) & self.top, 0, self.top, least, most)

    # ---- bits -----------------------------------------------------------------------------------------------------

    def and_(self, a: Scalar, b: Scalar) -> Scalar:
        """Bitwise and."""
        value = a.value & b.value
        mask = (a.value | a.mask) & (b.value | b.mask) & ~value
        umax = a.umax if a.umax < b.umax else b.umax
        if a.smin < 0 and b.smin < 0 and (a.smax >= 0 or b.smax >= 0):
            # high bits that repeat the sign in both do so in the result; a negative number only takes bits from the other
            least = -1 << (~a.smin | ~b.smin).bit_length()
            return self.made(value, mask, max(0, a.umin + b.umin - self.top), umax, least, max(a.smax, b.smax))
        return self.made(value, mask, max(0, a.umin + b.umin - self.top), umax, self.smin, self.smax)

    def or_(self, a: Scalar, b: Scalar) -> Scalar:
        """Bitwise or."""
        value = a.value | b.value
        mask = (a.mask | b.mask) & ~value
        umin = a.umin if a.umin > b.umin else b.umin
        if a.smax >= 0 and b.smax >= 0 and (a.smin < 0 or b.smin < 0):
            most = (1 << (a.smax | b.smax).bit_length()) - 1
            return self.made(value, mask, umin, min(self.top, a.umax + b.umax), min(a.smin, b.smin), most)
        return self.made(value, mask, umin, min(self.top, a.umax + b.umax), self.smin, self.smax)

    def xor(self, a: Scalar, b: Scalar) -> Scalar:
        """Bitwise exclusive or."""
        if b.value == self.top:
            return self.sub(b, a)  # the complement
        if b.mask == 0 and b.value == self.sign:
            return self.add(a, b)
        mask = a.mask | b.mask
        umin, umax = max(0, a.umin - b.umax, b.umin - a.umax), min(self.top, a.umax + b.umax)
        smin, smax = self.smin, self.smax
        if a.smin < 0 <= a.smax or b.smin < 0 <= b.smax:
            significant = _magnitude(a.smin) | _magnitude(a.smax) | _magnitude(b.smin) | _magnitude(b.smax)
            smax = (1 << significant.bit_length()) - 1
            smin = ~smax
        return self.made((a.value ^ b.value) & ~mask, mask, umin, umax, smin, smax)

    # ---- shifts ---------------------------------------------------------------------------------------------------

    def lsh(self, a: Scalar, b: Scalar) -> Scalar:
        """a << b."""
        return self.shift_left(a, b.value & self.amounts) if b.mask == 0 else self._shift(self.shift_left, self._lsh_between, a, b)

    def rsh(self, a: Scalar, b: Scalar) -> Scalar:
        """a >> b, zeros coming in."""
        return (
            self.shift_right(a, b.value & self.amounts) if b.mask == 0 else self._shift(self.shift_right, self._rsh_between, a, b)
        )

    def arsh(self, a: Scalar, b: Scalar) -> Scalar:
        """a >> b, copies of the sign coming in."""
        return self._arsh(a, b.value & self.amounts) if b.mask == 0 else self._shift(self._arsh, self._arsh_between, a, b)

    def shift_left(self, a: Scalar, n: int) -> Scalar:
        """a << n, n known."""
        top = self.top
        low, high, least, most = a.umin << n, a.umax << n, a.smin << n, a.smax << n
        return self._between(a.value << n & top, a.mask << n & top, low, high, least, most)

    def shift_right(self, a: Scalar, n: int) -> Scalar:
        """a >> n, n known, zeros coming in."""
        return self.made(a.value >> n, a.mask >> n, a.umin >> n, a.umax >> n, self.smin, self.smax)

    def _arsh(self, a: Scalar, n: int) -> Scalar:
        coming_in = ~(self.top >> n) & self.top
        value = a.value >> n | (coming_in if a.value & self.sign else 0)
        mask = a.mask >> n | (coming_in if a.mask & self.sign else 0)
        umin, umax = 0, self.top
        if a.smin < 0 <= a.smax:
            umin, umax = a.umin >> n, (a.umax >> n) | coming_in
        return self.made(value, mask, umin, umax, a.smin >> n, a.smax >> n)

    def _lsh_between(self, a: Scalar, low: int, high: int) -> Scalar:
        possible = a.value | a.mask
        mask = self.top & -((possible & -possible) << low)
        umin, umax, smin, smax = 0, self.top, self.smin, self.smax
        if a.umax << high <= self.top:
            umin, umax = a.umin << low, a.umax << high
        least, most = a.smin << (high if a.smin < 0 else low), a.smax << (low if a.smax < 0 else high)
        if smin <= a.smin << high and a.smax << high <= smax:
            smin, smax = least, most
        return self.made(0, mask, umin, umax, smin, smax)

    def _rsh_between(self, a: Scalar, low: int, high: int) -> Scalar:
        return self.made(0, self.top, a.umin >> high, a.umax >> low, self.smin, self.smax)

    def _arsh_between(self, a: Scalar, low: int, high: int) -> Scalar:
        least, most = a.smin >> (low if a.smin < 0 else high), a.smax >> (high if a.smax < 0 else low)
        return self.made(0, self.top, 0, self.top, least, most)

    def _shift(
        self, by: Callable[[Scalar, int], Scalar], between: Callable[[Scalar, int, int], Scalar], a: Scalar, b: Scalar
    ) -> Scalar:
        """By an amount that is not known: each possible one by itself, if these are few, else from the least to the most."""
        value, mask = b.value & self.amounts, b.mask & self.amounts
        low, high = (b.umin, b.umax) if b.umax <= self.amounts else (value, value | mask)
        amounts = [n for n in range(low, high + 1) if n & ~mask == value]
        if not 0 < len(amounts) <= AMOUNTS:
            return between(a, low, high)
        found = by(a, amounts[0])
        for n in amounts[1:]:
            found = self.union(found, by(a, n))
        return found

    # ---- comparisons ----------------------------------------------------------------------------------------------

    def compare(self, op: int, a: Scalar, b: Scalar) -> Pair | None:
        """What is left of a and b when a comparison holds (not JSET). None: it cannot hold."""
        if op in SWAPPED:
            found = self.compare(SWAPPED[op], b, a)
            return None if found is None else (found[1], found[0])
        x: Scalar | None = a
        y: Scalar | None = b
        if op == bpf.JEQ:
            x = y = self.meet(a, b)
        elif op == bpf.JNE:
            if b.mask == 0:
                x = self.without(a, b)
            elif a.mask == 0:
                y = self.without(b, a)
        elif op == bpf.JGT or op == bpf.JGE:
            strict = op == bpf.JGT
            least, most = b.umin + strict, a.umax - strict
            if least > a.umin:
                x = self.settle(a.value, a.mask, least, a.umax, a.smin, a.smax)
            if most < b.umax:
                y = self.settle(b.value, b.mask, b.umin, most, b.smin, b.smax)
        else:
            strict = op == bpf.JSGT
            least, most = b.smin + strict, a.smax - strict
            if least > a.smin:
                x = self.settle(a.value, a.mask, a.umin, a.umax, least, a.smax)
            if most < b.smax:
                y = self.settle(b.value, b.mask, b.umin, b.umax, b.smin, most)
        return None if x is None or y is None else (x, y)

    def without(self, a: Scalar, b: Scalar) -> Scalar | None:
        """a, but not the constant b: an interval that begins or ends there shrinks."""
        x, s = b.value, b.smin
        if x in (a.umin, a.umax) or s in (a.smin, a.smax):
            return self.settle(
                a.value, a.mask, a.umin + (a.umin == x), a.umax - (a.umax == x), a.smin + (a.smin == s), a.smax - (a.smax == s)
            )
        return a

    def bits_in_common(self, a: Scalar, b: Scalar, some: bool) -> Pair | None:
        """What is left of a and b when a & b is not zero (`some`), or is zero."""
        if not some:
            if a.value & b.value:
                return None
            x, y = self.cleared(a, b.value), self.cleared(b, a.value)
            return None if x is None or y is None else (x, y)
        common = (a.value | a.mask) & (b.value | b.mask)
        if a.value & b.value:
            return a, b
        lowest = common & -common
        if common == 0:
            return None
        known = lowest if common == lowest else 0
        x, y = self.above(a, known, lowest), self.above(b, known, lowest)
        return None if x is None or y is None else (x, y)

    def cleared(self, a: Scalar, bits: int) -> Scalar | None:
        """a with these bits zero."""
        if not a.mask & bits:
            return a
        return self.settle(a.value, a.mask & ~bits, a.umin, a.umax, a.smin, a.smax)

    def above(self, a: Scalar, bits: int, least: int) -> Scalar | None:
        """a with these bits one, and no less than `least`."""
        if a.umin >= least and not a.mask & bits:
            return a
        return self.settle(a.value | (a.mask & bits), a.mask & ~bits, max(a.umin, least), a.umax, a.smin, a.smax)
