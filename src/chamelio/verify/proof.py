"""What a verification ends with: a verdict, and for accepted programs the proof that the compiler relies on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from chamelio.bpf.object import Program

Region = Literal[
    "stack", "ctx", "packet", "packet_meta", "entry", "map_value", "map_key", "data", "allocated", "sock", "sock_common",
    "tcp_sock", "xsk", "several",
]  # fmt: skip


@dataclass(frozen=True)
class Access:
    """One load, store or atomic operation, over all paths that reach it.

    `fixed`: the offset from the region's start (stack: from the frame's top) where it is the same on all paths, else None;
    `region` "several": by the path, what it is in differs.
    `lo`..`hi`: proven range of the first byte's offset; `shared`: others may write there, so it is lifted volatile.
    """

    region: Region
    map: int | None
    fixed: int | None
    lo: int
    hi: int
    size: int
    shared: bool


class Share(NamedTuple):
    """A part of the worst case (cold): cycles spent at a source line, or in a loop that ends there, if `turns` is not 0.

    `file`, `line`: 0 if the object has no line information; `pc`: the first instruction of it, or the jump back.
    """

    file: str
    line: int
    pc: int
    cycles: int
    turns: int = 0


class Note(NamedTuple):
    """What was shown at another source line that has to do with an error."""

    file: str
    line: int
    col: int
    text: str
    words: str


class Mask(NamedTuple):
    """What an instruction adds to a pointer, or subtracts, is within low..high; `source`: it is the source operand."""

    low: int
    high: int
    source: bool


@dataclass(frozen=True)
class Proof:
    """An accepted program.

    `reached`: slots that some path reaches, all others must not be compiled; `map_args`: per helper call the map in its
    arguments, None where that depends on the path; `masks`: additions of a number to a pointer whose bounds rest on branches;
    where all of these can be masked (`all_masked`), accesses keep within `lo`..`hi` on mispredicted branches too; `loops`: per
    backward jump how often exploration followed it.
    """

    program: Program
    hook: str
    accesses: dict[int, Access]
    reached: frozenset[int]
    map_args: dict[int, int | None]
    stack_depth: int
    cost_cold: int
    cost_warm: int
    steps: int
    states: int
    loops: dict[int, int] = field(default_factory=dict)
    masks: dict[int, Mask] = field(default_factory=dict)
    all_masked: bool = True


@dataclass(frozen=True)
class Limits:
    """Where the verdict is `budget`: instructions of the program, instructions stepped, states remembered, seconds; states of
    a kind that are remembered at a point."""

    instructions: int = 100_000
    steps: int = 400_000
    states: int = 60_000
    states_per_point: int = 64
    seconds: float = 5.0


@dataclass(frozen=True)
class Verdict:
    """What is said of one program. `path`: the branches that lead to the error, as text; costs in cycles."""

    program: str
    section: str
    verdict: Literal["accept", "unsafe", "unsupported", "imprecise", "budget"]
    code: str | None = None
    message: str = ""
    reason: str = ""
    path: tuple[str, ...] = ()
    suggestion: str = ""
    file: str = ""
    line: int = 0
    col: int = 0
    text: str = ""
    insn: int = 0
    cost_cold: int = 0
    cost_warm: int = 0
    steps: int = 0
    seconds: float = 0.0
    shares: tuple[Share, ...] = ()  # of the worst case, the greatest first; a loop's lines count in themselves, too
    notes: tuple[Note, ...] = ()
    proof: Proof | None = None
