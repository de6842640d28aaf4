"""Abstract words of a few bits: every description there is, the words that it is true of, and what operations mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product

from chamelio.bpf import insn as bpf
from chamelio.verify.domain import Domain, Scalar
from chamelio.verify.scalar import U64, Numbers

OPERATIONS = {
    "add": (bpf.ADD, 0), "sub": (bpf.SUB, 0), "mul": (bpf.MUL, 0), "div": (bpf.DIV, 0), "mod": (bpf.MOD, 0),
    "sdiv": (bpf.DIV, 1), "smod": (bpf.MOD, 1), "or": (bpf.OR, 0), "and": (bpf.AND, 0), "xor": (bpf.XOR, 0),
    "lsh": (bpf.LSH, 0), "rsh": (bpf.RSH, 0), "arsh": (bpf.ARSH, 0),
}  # fmt: skip
JUMPS = {
    "jeq": bpf.JEQ, "jne": bpf.JNE, "jgt": bpf.JGT, "jge": bpf.JGE, "jlt": bpf.JLT, "jle": bpf.JLE, "jset": bpf.JSET,
    "jsgt": bpf.JSGT, "jsge": bpf.JSGE, "jslt": bpf.JSLT, "jsle": bpf.JSLE,
}  # fmt: skip


def signed(x: int, bits: int) -> int:
    """The low bits of a number, as two's complement."""
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x


def says(s: Scalar, x: int, bits: int, half_bits: int = 0) -> bool:
    """Whether a description is true of a word."""
    if x & ~s.mask != s.value or not s.umin <= x <= s.umax or not s.smin <= signed(x, bits) <= s.smax:
        return False
    return s.half is None or says(s.half, x & ((1 << half_bits) - 1), half_bits)


def quotient(p: int, q: int) -> int:
    """p / q truncated towards zero."""
    found = abs(p) // abs(q)
    return found if (p < 0) == (q < 0) else -found


def computed(name: str, bits: int, x: int, y: int) -> int:
    """What an operation gives (RFC 9669, section 4.1), on words of any width; shifts use the amount's low bits."""
    n = y & ((1 << (bits - 1).bit_length()) - 1)
    p, q = signed(x, bits), signed(y, bits)
    match name:
        case "add":
            z = x + y
        case "sub":
            z = x - y
        case "mul":
            z = x * y
        case "div":
            z = x // y if y else 0
        case "mod":
            z = x % y if y else x
        case "sdiv":
            z = quotient(p, q) if q else 0
        case "smod":
            z = p - quotient(p, q) * q if q else p
        case "or":
            z = x | y
        case "and":
            z = x & y
        case "xor":
            z = x ^ y
        case "lsh":
            z = x << n
        case "rsh":
            z = x >> n
        case _:
            z = p >> n
    return z & ((1 << bits) - 1)


def taken(name: str, bits: int, x: int, y: int) -> bool:
    """Whether a comparison holds."""
    if name[1] == "s" and name != "jset":
        x, y, name = signed(x, bits), signed(y, bits), "j" + name[2:]
    return {"jeq": x == y, "jne": x != y, "jgt": x > y, "jge": x >= y, "jlt": x < y, "jle": x <= y, "jset": x & y != 0}[name]


def well_formed(domain: Domain) -> list[Scalar]:
    """Every description of words of one width, as `settle` leaves them."""
    top = domain.top
    found = {}
    spans = [(low, high) for low in range(top + 1) for high in range(low, top + 1)]
    signs = [(low, high) for low in range(domain.smin, domain.smax + 1) for high in range(low, domain.smax + 1)]
    for mask, value in product(range(top + 1), repeat=2):
        if value & mask == 0:
            for span, ends in product(spans, signs):
                settled = domain.settle(value, mask, *span, *ends)
                if settled is not None:
                    found[settled] = None
    return list(found)


def with_halves(numbers: Numbers) -> list[Scalar]:
    """Every description of words whose low halves may be described by themselves."""
    found = {}
    for whole, half in product(well_formed(numbers.whole), well_formed(numbers.low)):
        settled = numbers.settle(*whole[:6], half=half)
        if settled is not None:
            found[settled] = None
    return list(found)


class Sets:
    """Descriptions of one width and sets of words as bit masks: bit x for the word x."""

    def __init__(self, bits: int, half_bits: int = 0) -> None:
        self.bits, self.half_bits = bits, half_bits
        self.domain, self.low = Domain(bits), Domain(half_bits) if half_bits else None
        self._members: dict[Scalar, int] = {}
        self._best: dict[int, int] = {}

    def of(self, s: Scalar) -> int:
        """The words that a description is true of."""
        found = self._members.get(s)
        if found is None:
            found = sum(1 << x for x in range(1 << self.bits) if says(s, x, self.bits, self.half_bits))
            self._members[s] = found
        return found

    def size(self, s: Scalar) -> int:
        """How many these are."""
        return self.of(s).bit_count()

    def best(self, words: int) -> int:
        """How many words the narrowest description of some words is true of."""
        found = self._best.get(words)
        if found is None:
            members = list(elements(words))
            hull = narrowest(members, self.bits)
            if self.low is not None:
                hull = hull._replace(half=narrowest([x & self.low.top for x in members], self.half_bits))
            found = self._best[words] = self.size(hull)
        return found


def narrowest(words: Iterable[int], bits: int) -> Scalar:
    """The narrowest description of some words, from its definition."""
    words = list(words)
    numbers = [signed(x, bits) for x in words]
    ones = zeros = (1 << bits) - 1
    for x in words:
        ones, zeros = ones & x, zeros & ~x
    mask = ~(ones | zeros) & ((1 << bits) - 1)
    return Scalar(ones, mask, min(words), max(words), min(numbers), max(numbers), 0, U64)


@cache
def elements(words: int) -> tuple[int, ...]:
    """The words of a set."""
    return tuple(_elements(words))


def _elements(words: int) -> Iterator[int]:
    while words:
        yield (words & -words).bit_length() - 1
        words &= words - 1
