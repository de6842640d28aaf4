"""Known bits (tnums): sets of words written as (value, mask), every x with x & ~mask == value, for words of any width.

After Vishwanathan, Shachnai, Narayana, Nagarakatte: "Sound, Precise, and Fast Abstract Interpretation with Tristate Numbers"
(CGO 2022). `top` is the largest word, 2^width - 1. A tnum is well-formed when value & mask == 0.
"""

from __future__ import annotations

LOOPS = 6  # bits of a factor that may be one, up to which a product is summed bit by bit


def add(av: int, am: int, bv: int, bm: int, top: int) -> tuple[int, int]:
    """Sum modulo 2^width."""
    value = av + bv
    mask = (((am + bm + value) ^ value) | am | bm) & top
    return value & ~mask & top, mask


def sub(av: int, am: int, bv: int, bm: int, top: int) -> tuple[int, int]:
    """Difference modulo 2^width."""
    value = av - bv
    mask = (((value + am) ^ (value - bm)) | am | bm) & top
    return value & ~mask & top, mask


def union(av: int, am: int, bv: int, bm: int) -> tuple[int, int]:
    """What holds for both."""
    mask = am | bm | (av ^ bv)
    return av & ~mask, mask


def mul(av: int, am: int, bv: int, bm: int, top: int) -> tuple[int, int]:
    """Product modulo 2^width: exact sums of shifted factors if one has few bits, else the low bits that both decide."""
    if (bv | bm).bit_count() < (av | am).bit_count():
        av, am, bv, bm = bv, bm, av, am
    bits = av | am
    if not bits:
        return 0, 0
    if bits.bit_count() <= LOOPS:
        value = mask = 0
        while bits:
            bit = bits & -bits
            bits ^= bit
            with_bit = add(value, mask, bv * bit & top, bm * bit & top, top)
            # a bit that may be set adds the other factor or does not
            value, mask = union(value, mask, *with_bit) if am & bit else with_bit
        return value, mask
    # a = a0 + 2^i A, b = b0 + 2^j B: the product is a0 b0 plus multiples of 2^i b and 2^j a
    low = (am & -am) * (-(bv | bm) & (bv | bm)) | (bm & -bm) * (-bits & bits)
    known = ((low & -low) - 1) & top
    return av * bv & known, top & ~known


def first(value: int, mask: int, low: int, top: int) -> int:
    """The least member that is at least `low`; above `top` if there is none."""
    below = (1 << ((low ^ value) & ~mask).bit_length()) - 1  # up to the highest known bit in which `low` differs
    if value & (below ^ below >> 1):
        return (low & ~below) | (value & below)
    if not below:
        return low
    carried = (low | (mask ^ top) | below) + 1
    return top + 1 if carried > top else (carried & mask) | value


def last(value: int, mask: int, high: int) -> int:
    """The greatest member that is at most `high`; below 0 if there is none."""
    below = (1 << ((high ^ value) & ~mask).bit_length()) - 1
    if not value & (below ^ below >> 1):
        return (high & ~below) | ((value | mask) & below)
    borrowed = high & mask & ~below
    return -1 if borrowed == 0 else (borrowed - 1 & mask) | value
