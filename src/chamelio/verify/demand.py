"""What the rest of a program needs of a state: liveness over what was explored, found by going back along each stretch.

A place (register, saved register, byte of a stack) can be *read*: it must hold the same kind of thing; or *exact*: what is known
of the number there was relied on, by a branch that could go only one way, by an address, by a length. Two states that agree on
what is needed of them go the same ways, so that one that was explored stands for both.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn

ALL_REGS = 0x3FF
SAVED = 0x3C0  # r6..r9
CLOBBERED = 0x3F  # r0..r5
WHOLE_STACK = (1 << 512) - 1


class Shown(NamedTuple):
    """Packet bytes that a comparison proves: up to `end`, counted from the base that `var` names; `by`: the bytes (var, end) of
    another base that must be proven already for that."""

    var: int
    end: int
    by: tuple[int, int] | None = None


Effect = int | tuple[Any, ...]  # the slot of an instruction that computes with numbers, or what else to do to a demand


class Demand:
    """Bits of registers; per frame, bits of what the caller saved in it and of stack bytes; per packet base the bytes needed.

    `whole`: everything, because what comes after is still being explored.
    """

    __slots__ = ("exact", "need", "read", "saved_exact", "saved_read", "stack_exact", "stack_read", "touch", "whole")

    def __init__(self) -> None:
        self.read = self.exact = 0
        self.saved_read: list[int] = []  # by frame: what its function's caller has in r6..r9
        self.saved_exact: list[int] = []
        self.stack_read: list[int] = []
        self.stack_exact: list[int] = []
        self.need: dict[int, int] = {}
        self.touch: dict[int, int] = {}  # by object: cache lines that were priced as touched before
        self.whole = False

    def copy(self) -> Demand:
        """An independent copy."""
        new = Demand()
        new.read, new.exact, new.whole, new.need = self.read, self.exact, self.whole, dict(self.need)
        new.touch = dict(self.touch)
        new.saved_read, new.saved_exact = list(self.saved_read), list(self.saved_exact)
        new.stack_read, new.stack_exact = list(self.stack_read), list(self.stack_exact)
        return new

    def add(self, other: Demand) -> None:
        """Need what either needs."""
        self.read |= other.read
        self.exact |= other.exact
        self.whole |= other.whole
        for mine, theirs in (
            (self.saved_read, other.saved_read), (self.saved_exact, other.saved_exact),
            (self.stack_read, other.stack_read), (self.stack_exact, other.stack_exact),
        ):  # fmt: skip
            for i, bits in enumerate(theirs):
                if i < len(mine):
                    mine[i] |= bits
                else:
                    mine.append(bits)
        for var, end in other.need.items():
            if self.need.get(var, end) <= end:
                self.need[var] = end
        for key, lines in other.touch.items():
            self.touch[key] = self.touch.get(key, 0) | lines

    def back(self, effects: list[Effect], flows: list[tuple[int, int, int]]) -> None:
        """Go back over a stretch: from what is needed behind it to what is needed before. `flows`: of `number_flow`."""
        for effect in reversed(effects):
            if isinstance(effect, int):
                kills, sources, reads = flows[effect]
                if self.exact & kills:
                    self.exact = self.exact & ~kills | sources
                self.read = self.read & ~kills | (sources if self.read & kills else 0) | reads
            else:
                effect[0](self, *effect[1:])

    # ---- effects: each is recorded as (Demand.x, arguments) when the instruction is explored -----------------------------

    def everything(self) -> None:
        """Behind this lies what nothing is known of."""
        self.whole = True

    def address(self, dst: int, sources: int, var: int, base: int = 0, by: int = 0) -> None:
        """An address is computed; numbers in it are relied on.

        `var`: the packet base that it names first, 0: none; it lies at most `by` bytes behind the base that `base` names.
        """
        self.read = self.read & ~dst | sources
        self.exact = self.exact & ~dst | sources
        end = self.need.pop(var, None) if var else None
        if end is not None:
            self._needs(base, end + by)

    def distance(self, dst: int, sources: int) -> None:
        """The difference of two addresses."""
        self.read = self.read & ~dst | sources
        self.exact &= ~dst

    def load(self, dst: int, base: int, var: int, end: int | None) -> None:
        """From elsewhere than a stack. `end`: the packet bytes that it relies on, counted from the base that `var` names."""
        self.read = self.read & ~dst | base
        self.exact &= ~dst
        self._needs(var, end)

    def store(self, sources: int, var: int, end: int | None) -> None:
        """To elsewhere than a stack."""
        self.read |= sources
        self._needs(var, end)

    def touched(self, key: int, added: int, relied: int) -> None:
        """Cache lines of an object are accessed, some of them for the first time."""
        lines = self.touch.get(key, 0) & ~added | relied
        if lines:
            self.touch[key] = lines
        else:
            self.touch.pop(key, None)

    def _needs(self, var: int, end: int | None) -> None:
        if end is not None and self.need.get(var, end) <= end:
            self.need[var] = end

    def _stack(self, frame: int) -> None:
        while len(self.stack_read) <= frame:
            self.stack_read.append(0)
            self.stack_exact.append(0)

    def load_stack(self, dst: int, base: int, frame: int, bits: int) -> None:
        """From bytes of a stack."""
        self._stack(frame)
        if self.exact & dst:
            self.stack_exact[frame] |= bits
        self.stack_read[frame] |= bits
        self.read = self.read & ~dst | base
        self.exact &= ~dst

    def store_stack(self, source: int, base: int, frame: int, bits: int) -> None:
        """All of these bytes of a stack are written. `source`: 0 for an immediate."""
        self._stack(frame)
        if self.stack_exact[frame] & bits:
            self.exact |= source
            self.stack_exact[frame] &= ~bits
        self.stack_read[frame] &= ~bits
        self.read |= source | base

    def store_somewhere(self, sources: int, frame: int, bits: int) -> None:
        """Some of these bytes of a stack are written, or read and written."""
        self._stack(frame)
        self.read |= sources
        self.exact |= sources
        self.stack_read[frame] |= bits

    def atomic(self, loaded: int, sources: int, var: int, end: int | None, frame: int, bits: int) -> None:
        """Read, changed and written at once; `loaded` is where the old value goes, the stack bytes end up unknown."""
        self.read = self.read & ~loaded | sources
        self.exact &= ~loaded
        self._needs(var, end)
        if bits:
            self._stack(frame)
            self.stack_exact[frame] &= ~bits
            self.stack_read[frame] |= bits

    def helper(self, reads: int, exact: int, stacks: list[tuple[int, int, bool]], needs: list[tuple[int, int]], ends: bool) -> None:
        """A helper is called. `stacks`: (frame, bytes, whether they are written whole); `ends`: of all packet addresses."""
        self.read = self.read & ~CLOBBERED | reads
        self.exact = self.exact & ~CLOBBERED | exact
        if ends:
            self.need.clear()
        for frame, bits, written in stacks:
            self._stack(frame)
            if written:
                self.stack_exact[frame] &= ~bits
                self.stack_read[frame] &= ~bits
            else:
                self.stack_read[frame] |= bits
        for var, end in needs:
            self._needs(var, end)

    def call(self, frame: int) -> None:
        """A function of the program begins; `frame` is its own."""
        self.read &= 0x3E
        self.exact &= 0x3E
        if frame < len(self.saved_read):
            self.read |= self.saved_read[frame] & SAVED
            self.exact |= self.saved_exact[frame] & SAVED
            del self.saved_read[frame:], self.saved_exact[frame:]
        del self.stack_read[frame:], self.stack_exact[frame:]

    def leave(self, frame: int) -> None:
        """It returns to its caller, which has its own r6..r9 again."""
        while len(self.saved_read) <= frame:
            self.saved_read.append(0)
            self.saved_exact.append(0)
        self.saved_read[frame] |= self.read & SAVED
        self.saved_exact[frame] |= self.exact & SAVED
        self.read &= 1
        self.exact &= 1

    def end(self) -> None:
        """The program ends with r0."""
        self.read |= 1

    def branch(self, operands: int, decided: bool, linked: tuple[tuple[int, int, int], ...], proven: Shown | None) -> None:
        """A comparison of the operands. `decided`: it could end in one way only.

        `linked`: places that became narrower by it, as (frame or -1 for registers, bits of registers or of saved ones if the
        frame's sign is turned, bits of stack bytes). `proven`: packet bytes. If one of these is relied on, so are all of the
        places before.
        """
        shows = proven is not None and self.need.get(proven.var, proven.end + 1) <= proven.end
        if proven is not None and shows:
            del self.need[proven.var]
            if proven.by is not None:
                self._needs(*proven.by)
        if decided:
            self.exact |= operands
        elif shows or any(self.relies(place) for place in linked):
            self.exact |= operands
            for frame, regs, bytes_ in linked:
                if frame < 0:
                    self.exact |= regs
                    self.read |= regs
                elif regs:
                    while len(self.saved_read) <= frame:
                        self.saved_read.append(0)
                        self.saved_exact.append(0)
                    self.saved_exact[frame] |= regs
                    self.saved_read[frame] |= regs
                else:
                    self._stack(frame)
                    self.stack_exact[frame] |= bytes_
                    self.stack_read[frame] |= bytes_
        self.read |= operands

    def relies(self, place: tuple[int, int, int]) -> bool:
        """Whether a place is exact."""
        frame, regs, bytes_ = place
        if frame < 0:
            return bool(self.exact & regs)
        if regs:
            return frame < len(self.saved_exact) and bool(self.saved_exact[frame] & regs)
        return frame < len(self.stack_exact) and bool(self.stack_exact[frame] & bytes_)


def number_flow(insn: Insn) -> tuple[int, int, int]:
    """Of an instruction that computes with numbers, or jumps: bits of the register it writes, of those that go into that, and
    of those that must have a value even if nobody needs the result."""
    dst, src = 1 << insn.dst & ALL_REGS, 1 << insn.src & ALL_REGS
    if insn.op == bpf.LDDW:
        return dst, 0, 0
    if insn.cls in (bpf.ALU, bpf.ALU64):
        op = insn.op & 0xF0
        sources = src if insn.op & bpf.X and op != bpf.END else 0
        sources |= 0 if op == bpf.MOV else dst
        return dst, sources, sources
    return 0, 0, 0
