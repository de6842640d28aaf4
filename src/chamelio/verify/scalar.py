"""The abstract scalar: a 64-bit word whose low half is described by itself where that says more, and what operations do to it.

Operations return a description of every possible result; what cannot be said is left wide. 32-bit operations work on the
low halves, as words of 32 bits, and extend the result with zeros.
"""

from __future__ import annotations

from chamelio.bpf import insn as bpf
from chamelio.verify.domain import OPPOSITE, Domain, Pair, new
from chamelio.verify.domain import Scalar as Scalar

U64 = 2**64 - 1
U32 = 2**32 - 1
S64_MIN, S64_MAX = -(2**63), 2**63 - 1

ROUNDS = 3  # at most, in which a word and its half narrow each other
_OF_LOW_HALVES = frozenset((bpf.ADD, bpf.SUB, bpf.MUL, bpf.AND, bpf.OR, bpf.XOR))  # their low half needs no more than these


class Numbers:
    """Words of `bits` bits with halves of `half_bits`: 64 and 32 for the verifier; proofs use fewer."""

    def __init__(self, bits: int, half_bits: int) -> None:
        self.whole, self.low = Domain(bits), Domain(half_bits)
        self.parts = {half_bits: self.low}
        self.unknown = self.whole.unknown

    # ---- descriptions ---------------------------------------------------------------------------------------------

    def const(self, x: int) -> Scalar:
        """Exactly x (any sign), also where branches were mispredicted."""
        whole = self.whole
        x &= whole.top
        s = x - whole.top - 1 if x >= whole.sign else x
        return new(x, 0, x, x, s, s, 0, x)

    def unsigned(self, low: int, high: int) -> Scalar:
        """low <= x <= high, unsigned."""
        found = self.whole.settle(0, self.whole.top, low, high, self.whole.smin, self.whole.smax)
        assert found is not None
        return found

    def settle(
        self, value: int, mask: int, umin: int, umax: int, smin: int, smax: int, ident: int = 0, hard: int = U64,
        half: Scalar | None = None,
    ) -> Scalar | None:  # fmt: skip
        """The narrowest description of what is described by all arguments together. None: no such value exists."""
        whole = self.whole
        umin, umax, smin, smax = max(umin, 0), min(umax, whole.top), max(smin, whole.smin), min(smax, whole.smax)
        found = whole.settle(value & ~mask, mask & whole.top, umin, umax, smin, smax)
        return None if found is None else self._with_half(found, half, ident, hard)

    def low_part(self, a: Scalar, bits: int) -> Scalar:
        """The low bits as a word of their own."""
        if a.half is not None and bits <= self.low.bits:
            return a.half if bits == self.low.bits else self._part(a.half, bits)
        return self._part(a, bits)

    def _part(self, a: Scalar, bits: int) -> Scalar:
        """What follows for the low bits from all but `half`."""
        part = self.parts.get(bits)
        if part is None:
            part = self.parts[bits] = Domain(bits)
        value, mask, umin, umax, smin, smax = a[:6]
        top, sign = part.top, part.sign
        if umax < sign:
            return new(value, mask, umin, umax, umin, umax)
        if mask == 0:
            return part.const(value)
        if umax <= top:
            if umin >= sign:
                return new(value, mask, umin, umax, umin - top - 1, umax - top - 1)
            if mask & sign:
                return new(value, mask, umin, umax, (value | sign) - top - 1, (value | mask) & ~sign)
        low, high, least, most = 0, top, part.smin, part.smax
        if umax - umin <= top:
            low, high, least, most = part.wrapped(umin, umax)
        if smax - smin <= top:
            bounds = part.wrapped(smin, smax)
            low, high, least, most = max(low, bounds[0]), min(high, bounds[1]), max(least, bounds[2]), min(most, bounds[3])
        return part.made(value & top, mask & top, low, high, least, most)

    def _extended(self, part: Scalar, bits: int, ident: int, hard: int) -> Scalar:
        """A word of `bits` bits, extended with zeros. The whole says all of it but for a signed interval around zero."""
        value, mask, umin, umax, smin, smax = part[:6]
        half = None
        if smin < 0 <= smax and bits == self.low.bits:
            sign = self.low.sign
            if smin != (value | sign) - sign - sign or smax != (value | mask) & ~sign:
                half = new(value, mask, umin, umax, smin, smax)
        return new(value, mask, umin, umax, umin, umax, ident, hard, half)

    def _with_half(self, a: Scalar, half: Scalar | None, ident: int, hard: int) -> Scalar | None:
        """A word and its low half, as narrow as each makes the other."""
        if half is None:
            return new(*a[:6], ident, hard)
        bits, top, low_sign = self.low.bits, self.low.top, self.low.sign
        for _ in range(ROUNDS):
            before = a
            follows = self._part(a, bits)
            found = self.low.meet(follows, half)
            if found is None:
                return None
            half = found
            if follows[:6] == half[:6]:
                half = None
                break
            value, mask, umin, umax, smin, smax = a[:6]
            low, high, least, most = half[2:6]
            umin, smin = _up(umin, bits, 0, low, high), _up(smin, bits, 0, low, high)
            umax, smax = _down(umax, bits, 0, low, high), _down(smax, bits, 0, low, high)
            umin, smin = _up(umin, bits, low_sign, least, most), _up(smin, bits, low_sign, least, most)
            umax, smax = _down(umax, bits, low_sign, least, most), _down(smax, bits, low_sign, least, most)
            mask &= half.mask | ~top
            narrowed = self.whole.settle((value | half.value) & ~mask, mask, umin, umax, smin, smax)
            if narrowed is None:
                return None
            a = narrowed
            if a == before:
                break
        return new(*a[:6], ident, hard, half)

    # ---- parts, signs and byte orders -----------------------------------------------------------------------------

    def truncate(self, a: Scalar, bits: int) -> Scalar:
        """The low bits, zero-extended."""
        low = (1 << bits) - 1
        if a.umax <= low:
            return a if a.hard <= low else self._hardened(a, (a,), low)
        return self._hardened(self._extended(self.low_part(a, bits), bits, 0, U64), (a,), min(a.hard, low))

    def extend_sign(self, a: Scalar, bits: int) -> Scalar:
        """The low bits, sign-extended to the whole width."""
        sign, top = 1 << (bits - 1), self.whole.top
        hard = a.hard if a.hard < sign else U64
        if a.smin >= -sign and a.smax < sign:
            return a if hard == a.hard else self._hardened(a, (a,), hard)
        value, mask, umin, umax, smin, smax = self.low_part(a, bits)[:6]
        above = top & -sign
        if smin >= 0:
            return self._hardened(new(value, mask, umin, umax, smin, smax), (a,), hard)
        if smax < 0:
            return self._hardened(new(value | above, mask & ~above, smin & top, smax & top, smin, smax), (a,), hard)
        return self.whole.made(value & ~above, mask | above, umin, umax | above, smin, smax)

    def swap_bytes(self, a: Scalar, bits: int) -> Scalar:
        """Byte order of the low bits reversed, zero-extended."""
        value, mask, umin, umax, _, _ = self.low_part(a, bits)[:6]
        shift = bits - 8
        swapped, unknown = (int.from_bytes(x.to_bytes(bits // 8, "little"), "big") for x in (value, mask))
        low, high = 0, (1 << bits) - 1
        if umax < 1 << 8:
            low, high = umin << shift, umax << shift
        elif (value | mask) & (1 << shift) - 1 == 0:
            low, high = umin >> shift, umax >> shift
        result = self.whole.made(swapped, unknown, low, high, S64_MIN, S64_MAX)
        return self._hardened(result, (a,), (1 << bits) - 1)

    # ---- arithmetic -----------------------------------------------------------------------------------------------

    def arithmetic(self, op: int, bits: int, a: Scalar, b: Scalar, offset: int = 0) -> Scalar:
        """Result of an ALU operation (RFC 9669, section 4.1) on scalars; 32-bit results are zero-extended."""
        if a.ident and a.ident == b.ident and (op == bpf.SUB or op == bpf.XOR):
            return self.const(0)  # the same value twice
        if bits == self.low.bits:
            low = self.low
            operation = (low.signed if offset else low.plain)[op]
            result = self._extended(operation(self.low_part(a, bits), self.low_part(b, bits)), bits, 0, U64)
            return self._hardened(result, (a, b), _most(op, bits, a, b, offset))
        whole = self.whole
        result = (whole.signed if offset else whole.plain)[op](a, b)
        if a.half is not None or b.half is not None:
            result = self._of_halves(op, a, b, result)
        return self._hardened(result, (a, b), _most(op, bits, a, b, offset))

    def _of_halves(self, op: int, a: Scalar, b: Scalar, result: Scalar) -> Scalar:
        """A result that is narrowed by what the low halves of the operands say."""
        low = self.low
        if op in _OF_LOW_HALVES:
            half = low.plain[op](self.low_part(a, low.bits), self.low_part(b, low.bits))
            return self._with_half(result, half, 0, U64) or result
        if op == bpf.LSH and a.half is not None and b.mask == 0:
            n, above = b.value & self.whole.amounts, self.whole.bits - low.bits
            if n < above:
                return self._with_half(result, low.shift_left(a.half, n), 0, U64) or result
            shifted = low.shift_left(a.half, n - above)
            value, mask, umin, umax, smin, smax = (x << above for x in shifted[:6])
            return self.whole.meet(result, new(value, mask, umin, umax, smin, smax)) or result
        return result

    def _hardened(self, a: Scalar, sources: tuple[Scalar, ...], hard: int) -> Scalar:
        """A result with its `hard`, which is its value only if it is the same constant whatever branches have said."""
        value, mask, umin, umax, smin, smax, ident, _, half = a
        if mask == 0:
            for source in sources:
                if not is_fixed(source):
                    if hard == value:
                        hard = min(hard + 1, U64)
                    break
            else:
                hard = value
        return new(value, mask, umin, umax, smin, smax, ident, hard, half)

    # ---- comparisons ----------------------------------------------------------------------------------------------

    def assume(self, op: int, bits: int, a: Scalar, b: Scalar, holds: bool) -> Pair | None:
        """What is known of a and b when the comparison does or does not hold. None: it cannot be."""
        if a.ident and a.ident == b.ident:
            return self._assume_of_itself(op, bits, a, b, holds)
        if op != bpf.JSET and not holds:
            op = OPPOSITE[op]
        if bits == self.low.bits:
            x, y = self.low_part(a, bits), self.low_part(b, bits)
            found = self.low.bits_in_common(x, y, holds) if op == bpf.JSET else self.low.compare(op, x, y)
            if found is None:
                return None
            after = a if found[0] is x else self._with_low(a, found[0])
            other = b if found[1] is y else self._with_low(b, found[1])
            return None if after is None or other is None else (after, other)
        found = self.whole.bits_in_common(a, b, holds) if op == bpf.JSET else self.whole.compare(op, a, b)
        if found is None:
            return None
        if a.half is None and b.half is None:
            x, y = found
            return x if x is a else self._narrowed(a, x), y if y is b else self._narrowed(b, y)
        half, other_half = a.half, b.half
        if op == bpf.JEQ:
            both = half or other_half
            if half is not None and other_half is not None:
                both = self.low.meet(half, other_half)
                if both is None:
                    return None
            half = other_half = both
        after, other = self._with_half(found[0], half, 0, U64), self._with_half(found[1], other_half, 0, U64)
        return None if after is None or other is None else (self._narrowed(a, after), self._narrowed(b, other))

    def _assume_of_itself(self, op: int, bits: int, a: Scalar, b: Scalar, holds: bool) -> Pair | None:
        """Both operands are the same value."""
        if op == bpf.JSET:
            found = self.assume(bpf.JNE, bits, a, self.const(0), holds)
            return None if found is None else (found[0], found[0])
        return (a, b) if holds == (op in (bpf.JEQ, bpf.JGE, bpf.JLE, bpf.JSGE, bpf.JSLE)) else None

    def _with_low(self, a: Scalar, part: Scalar) -> Scalar | None:
        """a, whose low half is known to be `part`."""
        if a.umax <= self.low.top:
            return self._narrowed(a, self._extended(part, self.low.bits, 0, U64))
        found = self._with_half(a, part, 0, U64)
        return None if found is None else self._narrowed(a, found)

    def _narrowed(self, a: Scalar, x: Scalar) -> Scalar:
        """x in the place of a, which a branch has narrowed to it."""
        hard = a.hard
        if x.mask == 0 and a.mask and hard == x.value:
            hard = min(hard + 1, U64)
        return new(*x[:6], a.ident, hard, x.half)

    # ---- inclusion ------------------------------------------------------------------------------------------------

    def covers(self, old: Scalar, new: Scalar) -> bool:
        """Whether everything that `new` describes is described by `old`."""
        return (
            old.umin <= new.umin
            and new.umax <= old.umax
            and old.smin <= new.smin
            and new.smax <= old.smax
            and new.mask & ~old.mask == 0
            and (old.value ^ new.value) & ~old.mask == 0
            and new.hard <= old.hard
            and (old.half is None or self.covers(old.half, self.low_part(new, self.low.bits)))
        )


def _up(x: int, bits: int, offset: int, low: int, high: int) -> int:
    """The least number >= x whose low bits, as a number from -offset on, are within low..high."""
    turns = (x + offset >> bits) << bits
    part = x - turns
    if part < low:
        return turns + low
    return turns + (1 << bits) + low if part > high else x


def _down(x: int, bits: int, offset: int, low: int, high: int) -> int:
    """The greatest number <= x whose low bits, as a number from -offset on, are within low..high."""
    turns = (x + offset >> bits) << bits
    part = x - turns
    if part > high:
        return turns + high
    return turns - (1 << bits) + high if part < low else x


def is_fixed(a: Scalar) -> bool:
    """Whether it is one constant whatever branches have said, mispredicted ones as well."""
    return a.mask == 0 and a.hard == a.value != U64


def _most(op: int, bits: int, a: Scalar, b: Scalar, offset: int) -> int:
    """What a result is at most if nothing is known of the operands but their `hard`."""
    top = (1 << bits) - 1
    x, y = min(a.hard, top), min(b.hard, top)
    by = b.value & top if is_fixed(b) else None
    amount = by & (1 << (bits - 1).bit_length()) - 1 if by is not None else 0
    most = top
    if op == bpf.AND:
        most = min(x, y)
    elif op == bpf.ADD:
        most = x + y
    elif op == bpf.OR or op == bpf.XOR:
        most = (1 << max(x.bit_length(), y.bit_length())) - 1
    elif op == bpf.RSH:
        most = x >> amount
    elif op == bpf.LSH:
        most = x << amount if by is not None else top
    elif op == bpf.MUL:
        most = x * y
    elif op == bpf.DIV and not offset:
        most = x // by if by else x
    elif op == bpf.MOD and not offset:
        most = min(x, by - 1) if by else x
    return most if most <= top else top


NUMBERS = Numbers(64, 32)
UNKNOWN = NUMBERS.unknown
const, unsigned, settle, covers = NUMBERS.const, NUMBERS.unsigned, NUMBERS.settle, NUMBERS.covers
truncate, extend_sign, swap_bytes = NUMBERS.truncate, NUMBERS.extend_sign, NUMBERS.swap_bytes
arithmetic, assume = NUMBERS.arithmetic, NUMBERS.assume
add, sub = NUMBERS.whole.add, NUMBERS.whole.sub


def shift_right(a: Scalar, n: int) -> Scalar:
    """a >> n, n known, zeros coming in."""
    return NUMBERS.whole.shift_right(a, n) if n else a


def trailing_zeros(a: Scalar) -> int:
    """How many low bits are zero in every value; 64 for zero."""
    possible = a.value | a.mask
    return (possible & -possible).bit_length() - 1 if possible else 64
