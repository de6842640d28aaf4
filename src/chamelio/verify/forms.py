"""Affine forms: what a number is of another one, up to a small error, so that division by a constant is seen through.

Compilers write x / 7 as multiplications and shifts, and x % 7 as x - (x / 7) * 7. Intervals lose that the two x are one; a form
keeps it: value * 2^shift = factor * x + error, low <= error <= high, where 0 <= x <= most is the value of the number `source`.
After Stolfi and de Figueiredo, "Self-Validated Numerical Methods and Applications" (1997), with one symbol.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_SHIFT = 80
MAX_FACTOR = 1 << 80


class Form(NamedTuple):
    """See above."""

    source: int
    most: int
    factor: int = 1
    low: int = 0
    high: int = 0
    shift: int = 0

    def bounds(self) -> tuple[int, int]:
        """Least and greatest value."""
        ends = (0, self.factor * self.most)
        return -(-(min(ends) + self.low) >> self.shift), (max(ends) + self.high) >> self.shift

    def times(self, n: int) -> Form:
        """Multiplied by n >= 0."""
        return self._replace(factor=self.factor * n, low=self.low * n, high=self.high * n)

    def shifted(self, n: int) -> Form:
        """Without its low n bits, of a value that is not negative."""
        return self._replace(low=self.low - (((1 << n) - 1) << self.shift), shift=self.shift + n)

    def plus(self, n: int) -> Form:
        """With a constant added."""
        return self._replace(low=self.low + (n << self.shift), high=self.high + (n << self.shift))

    def sum(self, other: Form, sign: int) -> Form | None:
        """This one plus `sign` times another one; None: they are of different numbers."""
        if self.source != other.source:
            return None
        shift = max(self.shift, other.shift)
        mine, theirs = shift - self.shift, shift - other.shift
        ends = sorted((sign * other.low << theirs, sign * other.high << theirs))
        return Form(
            self.source, min(self.most, other.most), (self.factor << mine) + sign * (other.factor << theirs),
            (self.low << mine) + ends[0], (self.high << mine) + ends[1], shift,
        )  # fmt: skip

    @property
    def fits(self) -> bool:
        """Whether it is small enough to go on with."""
        return self.shift <= MAX_SHIFT and abs(self.factor) <= MAX_FACTOR
