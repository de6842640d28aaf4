"""The way to an error as text: which branches were taken, and what each has shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from chamelio.bpf.object import Program
from chamelio.verify.proof import Note
from chamelio.verify.scalar import Scalar
from chamelio.verify.values import Pointer, Value
from chamelio.verify.words import count_bytes

MAX_NOTES = 2
SHOWN = 8  # steps; the last ones say most


class Step(NamedTuple):
    """One branch: where, which way, what its first operand was and is known to be after it, and the packet's proven end."""

    pc: int
    taken: bool
    before: Value
    after: Value | None
    proven: int | None = None  # of a comparison with the packet's end: what the first operand's base has now, if it has more

    def text(self, at: Callable[[int], str]) -> str:
        """`5:9 not taken => the packet has 14 bytes`; `at` names places."""
        shown = self.shown()
        return f"{at(self.pc)} {'taken' if self.taken else 'not taken'}{f' => {shown}' if shown else ''}"

    def shown(self) -> str:
        """What it has shown, in words; empty if nothing."""
        before, after = self.before, self.after
        if isinstance(before, Pointer):
            if before.null:
                return "not NULL" if isinstance(after, Pointer) else "NULL"
            if self.proven is None:
                return ""
            bytes_ = count_bytes(self.proven)
            return f"the packet has {bytes_} behind a variable offset" if before.var else f"the packet has {bytes_}"
        if not isinstance(after, Scalar) or after == before:
            return ""
        if after.const is not None:
            return f"the number is {after.smin if after.smin < 0 else after.const}"
        if after.smin >= 0 or after.smax - after.smin > after.umax - after.umin:
            return f"the number is {after.umin}..{after.umax}"
        return f"the number is {after.smin}..{after.smax}"


def notes(steps: Iterable[Step], program: Program) -> tuple[Note, ...]:
    """What the last steps have shown, each at its source line."""
    out: dict[int, Note] = {}
    for step in steps:
        line, shown = program.line_at(step.pc), step.shown()
        if line is not None and shown:
            out.pop(line.line, None)
            out[line.line] = Note(line.file, line.line, line.col, line.text, f"{shown} here")
    return tuple(out.values())[-MAX_NOTES:]


def path_text(steps: Iterable[Step | None], at: Callable[[int], str]) -> tuple[str, ...]:
    """The last steps as text; turns of one loop in a row count as one, shown as the last of them was."""
    out: list[tuple[Step, int]] = []
    for step in steps:
        if step is None:
            continue
        if out and (out[-1][0].pc, out[-1][0].taken) == (step.pc, step.taken):
            out[-1] = step, out[-1][1] + 1
        else:
            out.append((step, 1))
    return tuple(step.text(at) + (f" ({times} times)" if times > 1 else "") for step, times in out[-SHOWN:])
