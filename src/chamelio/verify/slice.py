"""The way to an error, cut down to what has to do with it: going back from the instruction, along what it depends on."""

from __future__ import annotations

from collections.abc import Iterable

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn
from chamelio.verify.demand import CLOBBERED, Demand, Effect
from chamelio.verify.path import Step
from chamelio.verify.subject import bit
from chamelio.verify.values import Pointer

#: Errors that are about what was not done: all branches on the way may be why.
BY_OMISSION = {"V110", "V111", "V116", "V117", "V130", "V134", "V160"}

Segment = tuple[list[Effect], Effect | None, Step | None]  # of a stretch: its effects, the branch that leads to it, and how


class _Slice(Demand):
    """As `Demand`, but only what is depended on makes more depended on: that an address must be one does not matter."""

    __slots__ = ()

    def back(self, effects: list[Effect], flows: list[tuple[int, int, int]]) -> None:
        for effect in reversed(effects):
            if isinstance(effect, int):
                kills, sources, _ = flows[effect]
                self._computed(kills, sources)
            else:
                getattr(self, effect[0].__name__)(*effect[1:])

    def _computed(self, dst: int, sources: int) -> None:
        if self.read & dst:
            self.read = self.read & ~dst | sources
            self.exact = self.read

    def everything(self) -> None:
        pass

    def end(self) -> None:
        pass

    def touched(self, key: int, added: int, relied: int) -> None:
        pass

    def branch(self, *_: object) -> None:
        pass

    def address(self, dst: int, sources: int, var: int, base: int = 0, by: int = 0) -> None:
        self._computed(dst, sources)

    def distance(self, dst: int, sources: int) -> None:
        self._computed(dst, sources)

    def load(self, dst: int, base: int, var: int, end: int | None) -> None:
        self._computed(dst, base)

    def store(self, sources: int, var: int, end: int | None) -> None:
        pass

    def load_stack(self, dst: int, base: int, frame: int, bits: int) -> None:
        if self.read & dst:
            self._computed(dst, 0)
            self._stack(frame)
            self.stack_read[frame] |= bits
            self.stack_exact[frame] |= bits

    def store_stack(self, source: int, base: int, frame: int, bits: int) -> None:
        self._stack(frame)
        if self.stack_read[frame] & bits:
            self.read |= source
            self.exact |= source
            self.stack_read[frame] &= ~bits
            self.stack_exact[frame] &= ~bits

    def store_somewhere(self, sources: int, frame: int, bits: int) -> None:
        pass

    def atomic(self, loaded: int, sources: int, var: int, end: int | None, frame: int, bits: int) -> None:
        self._computed(loaded, 0)

    def helper(self, reads: int, exact: int, stacks: list[tuple[int, int, bool]], needs: list[tuple[int, int]], ends: bool) -> None:
        wanted = self.read & 1
        self.read &= ~CLOBBERED
        if wanted:
            self.read |= reads
        self.exact = self.read


def _seed(insn: Insn) -> _Slice:
    """What an instruction depends on."""
    out = _Slice()
    if insn.is_call:
        out.read = CLOBBERED & ~1
    elif insn.is_exit:
        out.read = 1
    else:
        out.read = bit(insn.dst) | (bit(insn.src) if insn.op & bpf.X or insn.is_load or insn.cls == bpf.STX else 0)
        if insn.is_load:
            out.read = bit(insn.src)
    out.exact = out.read
    return out


def sliced(segments: Iterable[Segment], insn: Insn, bases: set[int], flows: list[tuple[int, int, int]]) -> list[Step]:
    """Branches that have to do with an error at `insn`, in the order of the path; `segments` latest first.

    `bases`: the packet bases whose proven bytes matter.
    """
    wanted, steps = _seed(insn), []
    for effects, entry, step in segments:
        wanted.back(effects, flows)
        if step is None or not isinstance(entry, tuple):
            continue
        _, operands, _, places, proven = entry
        null_check = isinstance(step.before, Pointer) and step.before.null and wanted.read & operands
        if null_check or (proven is not None and proven[0] in bases) or any(wanted.relies(place) for place in places):
            steps.append(step)
            wanted.read |= operands
            wanted.exact = wanted.read
    return steps[::-1]


def deed(insn: Insn, helper: str) -> str:
    """What an instruction does, in a word."""
    if insn.is_call:
        return f"call {helper}".strip()
    for is_it, word in (
        (insn.is_exit, "return"), (insn.is_jump, "comparison"), (insn.is_atomic, "atomic operation"), (insn.is_load, "load"),
        (insn.is_store, "store"),
    ):  # fmt: skip
        if is_it:
            return word
    return "computation"
