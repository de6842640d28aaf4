"""Python functions on numbers that are terms of a solver: every path through them is followed, and shown to end well.

A `Term` stands for an integer, as a bit vector that is wide enough for nothing to overflow. Its comparisons are asked for
their truth by `if`, `and` and conditional expressions of the code under proof; each answer that is possible is a path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import z3


class Undecided(Exception):
    """The solver has given up."""


class Failed(AssertionError):
    """A path that ends badly, with numbers that lead there."""


class Paths:
    """The paths through one piece of code. `width`: of all terms; `timeout`: seconds for each question to the solver."""

    def __init__(self, width: int, timeout: float = 60) -> None:
        self.width = width
        self.timeout = int(timeout * 1000)
        self.facts: list[Any] = []
        self.given: list[Any] = []
        self.done = 0
        self._answers: list[bool] = []
        self._asked = 0
        self._todo: list[list[bool]] = []

    def term(self, name: str) -> Term:
        """An unknown number."""
        return Term(self, z3.BitVec(name, self.width))

    def number(self, x: int | Term) -> Term:
        """A known number."""
        return x if isinstance(x, Term) else Term(self, z3.BitVecVal(x, self.width))

    def fresh(self) -> Term:
        """An unknown number for this path."""
        return Term(self, z3.FreshConst(z3.BitVecSort(self.width)))

    def learn(self, *facts: Truth) -> None:
        """What is true on the present path from here on."""
        self.facts += [fact.formula for fact in facts]

    def assume(self, *facts: Truth) -> None:
        """What is true on all paths that come."""
        self.given += [fact.formula for fact in facts]

    def follow(self, code: Callable[[], Any], right: Callable[[Any], list[Truth]]) -> None:
        """Run `code` on every path; what it returns must be `right` on each."""
        self._todo = [[]]
        while self._todo:
            self._answers, self._asked = self._todo.pop(), 0
            self.facts = list(self.given)
            result = code()
            self.prove(*right(result))
            self.done += 1

    def prove(self, *facts: Truth) -> None:
        """Show something on the present path."""
        for fact in facts:
            formula = z3.simplify(fact.formula)
            if z3.is_true(formula):
                continue
            solver = self._solver(z3.Not(formula))
            answer = solver.check()
            if answer == z3.sat:
                raise Failed(solver.model())
            if answer != z3.unsat:
                raise Undecided(f"{solver.reason_unknown()}: {formula}")

    def holds(self, fact: Truth) -> bool:
        """Whether something can be shown on the present path."""
        return bool(self._solver(z3.Not(fact.formula)).check() == z3.unsat)

    def _solver(self, *more: Any) -> Any:
        # a new one for each question: bit vectors are simplified as a whole, which an incremental solver does not do
        solver = z3.SolverFor("QF_BV")
        solver.set("timeout", self.timeout)
        solver.add(*self.facts, *more)
        return solver

    def decide(self, formula: Any) -> bool:
        """The truth of a formula on this path; where it can be both, the other one is followed later."""
        formula = z3.simplify(formula)
        if z3.is_true(formula) or z3.is_false(formula):
            return z3.is_true(formula)
        if self._asked < len(self._answers):
            answer = self._answers[self._asked]
        else:
            possible = [self._solver(f).check() != z3.unsat for f in (formula, z3.Not(formula))]
            if not any(possible):
                raise Undecided("a path that should not have been begun")
            answer = possible[0]
            if all(possible):
                self._todo.append([*self._answers, False])
            self._answers.append(answer)
        self._asked += 1
        self.facts.append(formula if answer else z3.Not(formula))
        return answer


class Truth:
    """A formula that code asks for its truth."""

    def __init__(self, paths: Paths, formula: Any) -> None:
        self.paths, self.formula = paths, formula

    def __bool__(self) -> bool:
        return self.paths.decide(self.formula)

    def __eq__(self, other: object) -> Truth:  # type: ignore[override]
        assert isinstance(other, Truth)
        return Truth(self.paths, self.formula == other.formula)

    __hash__ = None  # type: ignore[assignment]

    def term(self) -> Term:
        """1 or 0."""
        w = self.paths.width
        return Term(self.paths, z3.If(self.formula, z3.BitVecVal(1, w), z3.BitVecVal(0, w)))

    def implies(self, other: Truth) -> Truth:
        """Whether one needs the other."""
        return Truth(self.paths, z3.Implies(self.formula, other.formula))


class Length:
    """The bit length of a number that is not negative; code only uses it as 1 << length, -1 << length and length - 1."""

    def __init__(self, of: Term) -> None:
        self.of = of

    def __rlshift__(self, one: int) -> Term:
        filled, width = self.of, self.of.paths.width
        shift = 1
        while shift < width:
            filled |= filled >> shift
            shift *= 2
        return filled + 1 if one == 1 else ~filled

    def __sub__(self, n: int) -> Term:
        return ((1 << self) - 1).bit_count() - n  # type: ignore[operator]


class Term:
    """An integer."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, paths: Paths, vector: Any) -> None:
        self.paths, self.vector = paths, vector

    def _of(self, other: object) -> Any:
        if isinstance(other, Truth):
            return other.term().vector
        if isinstance(other, Term):
            return other.vector
        assert isinstance(other, int)
        return z3.BitVecVal(other, self.paths.width)

    def _term(self, vector: Any) -> Term:
        return Term(self.paths, vector)

    def _truth(self, formula: Any) -> Truth:
        return Truth(self.paths, formula)

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __index__(self) -> int:
        raise TypeError("a term is no number")

    def __add__(self, o: object) -> Term:
        return self._term(self.vector + self._of(o))

    __radd__ = __add__

    def __sub__(self, o: object) -> Term:
        return self._term(self.vector - self._of(o))

    def __rsub__(self, o: object) -> Term:
        return self._term(self._of(o) - self.vector)

    def __mul__(self, o: object) -> Term:
        return self._term(self.vector * self._of(o))

    __rmul__ = __mul__

    def __neg__(self) -> Term:
        return self._term(-self.vector)

    def __invert__(self) -> Term:
        return self._term(~self.vector)

    def __abs__(self) -> Term:
        return self._term(z3.If(self.vector < 0, -self.vector, self.vector))

    def __and__(self, o: object) -> Term:
        return self._term(self.vector & self._of(o))

    __rand__ = __and__

    def __or__(self, o: object) -> Term:
        return self._term(self.vector | self._of(o))

    __ror__ = __or__

    def __xor__(self, o: object) -> Term:
        return self._term(self.vector ^ self._of(o))

    __rxor__ = __xor__

    def __lshift__(self, n: object) -> Term:
        return self._term(self.vector << self._of(n))

    def __rshift__(self, n: object) -> Term:
        return self._term(self.vector >> self._of(n))

    def __floordiv__(self, o: object) -> Term:
        other = self._term(self._of(o))
        self.paths.prove(self >= 0, other > 0)  # the only numbers for which this division is Python's
        return self._term(z3.UDiv(self.vector, other.vector))

    def __mod__(self, o: object) -> Term:
        other = self._term(self._of(o))
        self.paths.prove(self >= 0, other > 0)
        return self._term(z3.URem(self.vector, other.vector))

    def __rlshift__(self, o: object) -> Term:
        return self._term(self._of(o) << self.vector)

    def __eq__(self, o: object) -> Truth:  # type: ignore[override]
        return self._truth(self.vector == self._of(o))

    def __ne__(self, o: object) -> Truth:  # type: ignore[override]
        return self._truth(self.vector != self._of(o))

    def __lt__(self, o: object) -> Truth:
        return self._truth(self.vector < self._of(o))

    def __le__(self, o: object) -> Truth:
        return self._truth(self.vector <= self._of(o))

    def __gt__(self, o: object) -> Truth:
        return self._truth(self.vector > self._of(o))

    def __ge__(self, o: object) -> Truth:
        return self._truth(self.vector >= self._of(o))

    def bit_length(self) -> Length:
        """See Length."""
        return Length(self)

    def bit_count(self) -> Term:
        """Of a number that is not negative."""
        width = self.paths.width
        bits = [z3.ZeroExt(width - 1, z3.Extract(i, i, self.vector)) for i in range(width)]
        return self._term(z3.Sum(bits))


def least(*numbers: Any) -> Any:
    """`min`, without a path for each answer."""
    return _chosen(lambda x, y: x <= y, *numbers)


def most(*numbers: Any) -> Any:
    """`max`, without a path for each answer."""
    return _chosen(lambda x, y: x >= y, *numbers)


def _chosen(first: Callable[[Any, Any], Any], *numbers: Any) -> Any:
    if len(numbers) == 1:
        numbers = tuple(numbers[0])
    found = numbers[0]
    for x in numbers[1:]:
        better = first(found, x)
        if isinstance(better, Truth):
            paths = better.paths
            vectors = [n.vector if isinstance(n, Term) else z3.BitVecVal(n, paths.width) for n in (found, x)]
            found = Term(paths, z3.If(better.formula, *vectors))
        else:
            found = found if better else x
    return found
