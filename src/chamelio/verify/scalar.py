"""The abstract scalar: known bits (tnum) together with signed and unsigned intervals, 64 bits wide.

A value x is described by `Scalar(value, mask, umin, umax, smin, smax)`: x & ~mask == value, umin <= x <= umax, and
smin <= signed(x) <= smax. Operations return a description of every possible result; what cannot be said is left wide.
`hard` is the most that x can be whatever branches have said: x & 15 is at most 15 even where a branch was mispredicted.
Known bits after Vishwanathan et al., "Sound, Precise, and Fast Abstract Interpretation with Tristate Numbers" (CGO 2022).
"""

from __future__ import annotations

from typing import NamedTuple

from chamelio.bpf import insn as bpf

U64 = 2**64 - 1
U32 = 2**32 - 1
S64_MIN, S64_MAX = -(2**63), 2**63 - 1


class Scalar(NamedTuple):
    """See above. `ident` links copies of one value, so that a comparison of one narrows the others; 0: none."""

    value: int
    mask: int
    umin: int
    umax: int
    smin: int
    smax: int
    ident: int = 0
    hard: int = U64

    @property
    def const(self) -> int | None:
        """The only possible value (unsigned), if there is just one."""
        return self.value if self.mask == 0 else None


UNKNOWN = Scalar(0, U64, 0, U64, S64_MIN, S64_MAX)


def const(x: int) -> Scalar:
    """Exactly x (any sign)."""
    x &= U64
    s = x - 2**64 if x >> 63 else x
    return Scalar(x, 0, x, x, s, s, 0, x)


def unsigned(low: int, high: int) -> Scalar:
    """low <= x <= high, unsigned."""
    found = settle(0, U64, low, high, S64_MIN, S64_MAX)
    assert found is not None
    return found


def _signed(x: int) -> int:
    return x - 2**64 if x >> 63 else x


def tnum_range(low: int, high: int) -> tuple[int, int]:
    """Known bits of everything in low..high: the common prefix."""
    mask = (1 << (low ^ high).bit_length()) - 1
    return low & ~mask & U64, mask


def settle(value: int, mask: int, umin: int, umax: int, smin: int, smax: int, ident: int = 0, hard: int = U64) -> Scalar | None:
    """Let bits and intervals narrow each other. None: no such value exists."""
    for _ in range(3):
        before = (value, mask, umin, umax, smin, smax)
        umin, umax = max(umin, value), min(umax, value | mask)
        if umin > umax:
            return None
        if umax >> 63 == umin >> 63:  # one half only: both orders agree
            smin, smax = max(smin, _signed(umin)), min(smax, _signed(umax))
        else:
            # known sign bits bound the signed interval
            smin, smax = max(smin, S64_MIN), min(smax, S64_MAX)
        if smin > smax:
            return None
        if (smin >= 0) == (smax >= 0):
            umin, umax = max(umin, smin & U64), min(umax, smax & U64)
            if umin > umax:
                return None
        v, m = tnum_range(umin, umax)
        if (value ^ v) & ~mask & ~m & U64:
            return None
        value, mask = (value | v) & ~(mask & m) & U64, mask & m
        if (value, mask, umin, umax, smin, smax) == before:
            break
    return Scalar(value, mask, umin, umax, smin, smax, ident, hard)


def _made(value: int, mask: int, umin: int, umax: int, smin: int = S64_MIN, smax: int = S64_MAX) -> Scalar:
    found = settle(value & ~mask & U64, mask & U64, umin, umax, smin, smax)
    # a description can be empty without showing it; then the path is impossible, and so is the result: anything is true of it
    return UNKNOWN if found is None else found


def covers(old: Scalar, new: Scalar) -> bool:
    """Whether everything that `new` describes is described by `old`."""
    return (
        old.umin <= new.umin
        and new.umax <= old.umax
        and old.smin <= new.smin
        and new.smax <= old.smax
        and new.mask & ~old.mask == 0
        and (old.value ^ new.value) & ~old.mask & U64 == 0
        and new.hard <= old.hard
    )


# ---- arithmetic ---------------------------------------------------------------------------------------------------


def _tnum_add(a: Scalar, b: Scalar) -> tuple[int, int]:
    sm, sv = a.mask + b.mask, a.value + b.value
    chi = (sm + sv) ^ sv
    mu = (chi | a.mask | b.mask) & U64
    return sv & ~mu & U64, mu


def _tnum_sub(a: Scalar, b: Scalar) -> tuple[int, int]:
    dv = (a.value - b.value) & U64
    alpha, beta = (dv + a.mask) & U64, (dv - b.mask) & U64
    mu = (alpha ^ beta) | a.mask | b.mask
    return dv & ~mu & U64, mu


def add(a: Scalar, b: Scalar) -> Scalar:
    """a + b modulo 2^64."""
    value, mask = _tnum_add(a, b)
    umin, umax = (a.umin + b.umin, a.umax + b.umax) if a.umax + b.umax <= U64 else (0, U64)
    smin, smax = a.smin + b.smin, a.smax + b.smax
    if smin < S64_MIN or smax > S64_MAX:
        smin, smax = S64_MIN, S64_MAX
    return _made(value, mask, umin, umax, smin, smax)


def sub(a: Scalar, b: Scalar) -> Scalar:
    """a - b modulo 2^64."""
    value, mask = _tnum_sub(a, b)
    umin, umax = (a.umin - b.umax, a.umax - b.umin) if a.umin >= b.umax else (0, U64)
    smin, smax = a.smin - b.smax, a.smax - b.smin
    if smin < S64_MIN or smax > S64_MAX:
        smin, smax = S64_MIN, S64_MAX
    return _made(value, mask, umin, umax, smin, smax)


def mul(a: Scalar, b: Scalar) -> Scalar:
    """a * b modulo 2^64."""
    if a.const is not None and b.const is not None:
        return const(a.const * b.const)
    if a.umax * b.umax > U64:
        zeros = min(trailing_zeros(a) + trailing_zeros(b), 64)
        return _made(0, U64 & ~((1 << zeros) - 1), 0, U64)
    zeros = min(trailing_zeros(a) + trailing_zeros(b), 63)
    return _made(0, U64 & ~((1 << zeros) - 1), a.umin * b.umin, a.umax * b.umax)


def trailing_zeros(a: Scalar) -> int:
    """How many low bits are zero in every value; 64 for zero."""
    possible = a.value | a.mask
    return (possible & -possible).bit_length() - 1 if possible else 64


def and_(a: Scalar, b: Scalar) -> Scalar:
    """Bitwise and."""
    alpha, beta = a.value | a.mask, b.value | b.mask
    value = a.value & b.value
    return _made(value, alpha & beta & ~value, 0, min(a.umax, b.umax))


def or_(a: Scalar, b: Scalar) -> Scalar:
    """Bitwise or."""
    value = a.value | b.value
    mask = (a.mask | b.mask) & ~value
    return _made(value, mask, max(a.umin, b.umin), U64)


def xor(a: Scalar, b: Scalar) -> Scalar:
    """Bitwise exclusive or."""
    mask = a.mask | b.mask
    return _made((a.value ^ b.value) & ~mask, mask, 0, U64)


def shift_left(a: Scalar, n: int) -> Scalar:
    """a << n, n known."""
    fits = a.umax << n <= U64
    return _made((a.value << n) & U64, (a.mask << n) & U64, a.umin << n if fits else 0, a.umax << n if fits else U64)


def shift_right(a: Scalar, n: int) -> Scalar:
    """Logical a >> n, n known."""
    return _made(a.value >> n, a.mask >> n, a.umin >> n, a.umax >> n)


def shift_right_signed(a: Scalar, n: int) -> Scalar:
    """Arithmetic a >> n, n known."""
    value, mask = (_signed(a.value) >> n) & U64, (_signed(a.mask) >> n) & U64
    return _made(value & ~mask, mask, 0, U64, a.smin >> n, a.smax >> n)


def div(a: Scalar, b: Scalar) -> Scalar:
    """Unsigned a / b; by zero: 0."""
    if b.const is not None:
        return const(0) if b.const == 0 else _made(0, U64, a.umin // b.const, a.umax // b.const)
    low = 0 if b.umin == 0 else a.umin // b.umax
    return _made(0, U64, low, a.umax)


def mod(a: Scalar, b: Scalar) -> Scalar:
    """Unsigned a % b; by zero: a."""
    if b.const == 0 or a.umax < b.umin:
        return a
    if a.const is not None and b.const is not None:
        return const(a.const % b.const)
    if b.const is not None and b.const and b.const & (b.const - 1) == 0:
        return and_(a, const(b.const - 1))
    high = a.umax if b.umin == 0 else min(a.umax, b.umax - 1)
    return _made(0, U64, 0, high)


def truncate(a: Scalar, bits: int) -> Scalar:
    """The low bits, zero-extended."""
    low = (1 << bits) - 1
    if a.umax <= low:
        return a if a.hard <= low else a._replace(hard=low)
    inside = a.umin >> bits == a.umax >> bits  # the upper part is the same for all
    umin, umax = (a.umin & low, a.umax & low) if inside else (0, low)
    return _made(a.value & low, a.mask & low, umin, umax)._replace(hard=min(a.hard, low))


def extend_sign(a: Scalar, bits: int) -> Scalar:
    """The low bits, sign-extended to 64."""
    half, low = 1 << (bits - 1), (1 << bits) - 1
    t = truncate(a, bits)
    if t.umax < half:
        return t if t.hard < half else t._replace(hard=U64)
    if t.umin >= half:
        high = U64 & ~low
        return _made(t.value | high, t.mask & low, t.umin | high, t.umax | high)
    if a.smin >= -half and a.smax < half:
        return a._replace(hard=U64)
    return _made(0, U64, 0, U64, -half, half - 1)


def swap_bytes(a: Scalar, bits: int) -> Scalar:
    """Byte order of the low bits reversed, zero-extended."""
    n = bits // 8
    value, mask = (int.from_bytes((x & (1 << bits) - 1).to_bytes(n, "little"), "big") for x in (a.value, a.mask))
    return _made(value, mask, value, value | mask)._replace(hard=(1 << bits) - 1)


def _signed_div_mod(op: int, a: Scalar, b: Scalar, bits: int) -> Scalar:
    """Signed a / b or a % b, truncated towards zero; known for constants only."""
    if a.const is None or b.const is None:
        return UNKNOWN if bits == 64 else unsigned(0, U32)
    x, y = (v - (1 << bits) if v >> (bits - 1) & 1 else v for v in (a.const & (1 << bits) - 1, b.const & (1 << bits) - 1))
    quotient = 0 if y == 0 else abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
    return const((quotient if op == bpf.DIV else x - quotient * y) & (1 << bits) - 1)


_PLAIN = {bpf.ADD: add, bpf.SUB: sub, bpf.MUL: mul, bpf.OR: or_, bpf.AND: and_, bpf.XOR: xor, bpf.DIV: div, bpf.MOD: mod}


def arithmetic(op: int, bits: int, a: Scalar, b: Scalar, offset: int = 0) -> Scalar:
    """Result of an ALU operation (RFC 9669, section 4.1) on scalars; 32-bit results are zero-extended."""
    if bits == 32:
        a, b = truncate(a, 32), truncate(b, 32)
    if op in (bpf.LSH, bpf.RSH, bpf.ARSH):
        result = _shift(op, bits, a, b)
    elif op in (bpf.DIV, bpf.MOD) and offset:
        return _signed_div_mod(op, a, b, bits)._replace(hard=U64 if bits == 64 else U32)
    else:
        result = _PLAIN[op](a, b)
        result = truncate(result, 32) if bits == 32 else result
    return result._replace(hard=_hard(op, bits, a, b), ident=0)


def _hard(op: int, bits: int, a: Scalar, b: Scalar) -> int:
    """`hard` of a result; `a` and `b` are as wide as the operation."""
    top = U64 if bits == 64 else U32
    most = top
    by = b.value if b.mask == 0 and b.hard == b.value else None  # a constant that no branch has made one
    if op == bpf.AND:
        most = min(a.hard, b.hard)
    elif op in (bpf.OR, bpf.XOR):
        most = (1 << max(a.hard.bit_length(), b.hard.bit_length())) - 1
    elif op == bpf.ADD:
        most = a.hard + b.hard
    elif op == bpf.MUL:
        most = a.hard * b.hard
    elif op == bpf.RSH:
        most = a.hard >> (by & bits - 1) if by is not None else a.hard
    elif op == bpf.LSH and by is not None:
        most = a.hard << (by & bits - 1)
    elif op == bpf.DIV:
        most = a.hard // by if by else a.hard
    elif op == bpf.MOD:
        most = min(a.hard, by - 1) if by else a.hard
    return most if most <= top else top


def _shift(op: int, bits: int, a: Scalar, b: Scalar) -> Scalar:
    if b.const is None:
        if op == bpf.RSH:
            return _made(0, U64, 0, a.umax)
        return UNKNOWN if bits == 64 else unsigned(0, U32)
    n = b.const & (bits - 1)
    if op == bpf.LSH:
        result = shift_left(a, n)
    elif op == bpf.RSH:
        result = shift_right(a, n)
    else:
        result = shift_right_signed(extend_sign(a, 32) if bits == 32 else a, n)
    return truncate(result, 32) if bits == 32 else result


# ---- comparisons ----------------------------------------------------------------------------------------------------

_OPPOSITE = {
    bpf.JEQ: bpf.JNE, bpf.JNE: bpf.JEQ, bpf.JGT: bpf.JLE, bpf.JLE: bpf.JGT, bpf.JGE: bpf.JLT, bpf.JLT: bpf.JGE,
    bpf.JSGT: bpf.JSLE, bpf.JSLE: bpf.JSGT, bpf.JSGE: bpf.JSLT, bpf.JSLT: bpf.JSGE,
}  # fmt: skip


def assume(op: int, bits: int, a: Scalar, b: Scalar, holds: bool) -> tuple[Scalar, Scalar] | None:
    """What is known of a and b when the comparison does or does not hold. None: it cannot be."""
    if op == bpf.JSET:
        return _assume_bits(bits, a, b, holds)
    if not holds:
        op = _OPPOSITE[op]
    if bits == 32:
        return _assume_32(op, a, b)
    return _assume_64(op, a, b)


def _narrow(a: Scalar, umin: int = 0, umax: int = U64, smin: int = S64_MIN, smax: int = S64_MAX) -> Scalar | None:
    return settle(a.value, a.mask, max(a.umin, umin), min(a.umax, umax), max(a.smin, smin), min(a.smax, smax), a.ident, a.hard)


def _meet(a: Scalar, b: Scalar) -> Scalar | None:
    if (a.value ^ b.value) & ~a.mask & ~b.mask & U64:
        return None
    mask = a.mask & b.mask
    return settle(
        (a.value | b.value) & ~mask & U64, mask, max(a.umin, b.umin), min(a.umax, b.umax), max(a.smin, b.smin),
        min(a.smax, b.smax), a.ident, a.hard,
    )  # fmt: skip


def _without(a: Scalar, x: int) -> Scalar | None:
    """a, but not x: an interval that begins or ends there shrinks."""
    if a.const == x:
        return None
    umin, umax = a.umin + (a.umin == x), a.umax - (a.umax == x)
    s = _signed(x)
    return _narrow(a, umin, umax, a.smin + (a.smin == s), a.smax - (a.smax == s))


def _assume_64(op: int, a: Scalar, b: Scalar) -> tuple[Scalar, Scalar] | None:
    x: Scalar | None
    y: Scalar | None
    if op == bpf.JEQ:
        x, y = _meet(a, b), _meet(b, a)
    elif op == bpf.JNE:
        x = _without(a, b.const) if b.const is not None else a
        y = _without(b, a.const) if a.const is not None else b
    elif op == bpf.JGT:
        x, y = _narrow(a, umin=b.umin + 1), _narrow(b, umax=a.umax - 1)
    elif op == bpf.JGE:
        x, y = _narrow(a, umin=b.umin), _narrow(b, umax=a.umax)
    elif op == bpf.JLT:
        x, y = _narrow(a, umax=b.umax - 1), _narrow(b, umin=a.umin + 1)
    elif op == bpf.JLE:
        x, y = _narrow(a, umax=b.umax), _narrow(b, umin=a.umin)
    elif op == bpf.JSGT:
        x, y = _narrow(a, smin=b.smin + 1), _narrow(b, smax=a.smax - 1)
    elif op == bpf.JSGE:
        x, y = _narrow(a, smin=b.smin), _narrow(b, smax=a.smax)
    elif op == bpf.JSLT:
        x, y = _narrow(a, smax=b.smax - 1), _narrow(b, smin=a.smin + 1)
    else:
        x, y = _narrow(a, smax=b.smax), _narrow(b, smin=a.smin)
    return None if x is None or y is None else (x, y)


def _assume_32(op: int, a: Scalar, b: Scalar) -> tuple[Scalar, Scalar] | None:
    """A comparison of the low halves. It narrows values that are known to be their low half, zero- or sign-extended."""
    low = truncate(a, 32), truncate(b, 32)
    out: list[Scalar | None] = []
    if op in (bpf.JSGT, bpf.JSGE, bpf.JSLT, bpf.JSLE):
        signed = extend_sign(low[0], 32), extend_sign(low[1], 32)
        found = _assume_64(op, *signed)
        if found is None:
            return None
        for whole, narrowed in zip((a, b), found, strict=True):
            if whole.umax <= U32:
                out.append(_meet(whole, truncate(narrowed, 32)))
            elif whole.smin >= -(1 << 31) and whole.smax < 1 << 31:
                out.append(_meet(whole, narrowed))
            else:
                out.append(whole)
        return None if None in out else (out[0], out[1])  # type: ignore[return-value]
    found = _assume_64(op, *low)
    if found is None:
        return None
    out = [_meet(w, n) if w.umax <= U32 else w for w, n in zip((a, b), found, strict=True)]
    return None if None in out else (out[0], out[1])  # type: ignore[return-value]


def _assume_bits(bits: int, a: Scalar, b: Scalar, holds: bool) -> tuple[Scalar, Scalar] | None:
    if b.const is None:
        return a, b
    test = b.const & (U64 if bits == 64 else U32)
    if holds:
        return None if (a.value | a.mask) & test == 0 else (a, b)
    if a.value & test:
        return None
    cleared = settle(a.value, a.mask & ~test & U64, a.umin, a.umax, a.smin, a.smax, a.ident, a.hard)
    return None if cleared is None else (cleared, b)
