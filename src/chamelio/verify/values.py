"""What a register or stack slot can hold besides a scalar, and the state of a program at one point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from chamelio.verify import scalar as s
from chamelio.verify.forms import Form
from chamelio.verify.scalar import UNKNOWN, Scalar, const

STACK_BYTES = 512
NO_PART = 1 << 40  # the step of a pointer without a variable part: zero is a multiple of everything
NOTHING = -(1 << 40)  # no byte is proven, not even before the pointer: farther down than any pointer can reach
META = -1  # the `var` of what is counted from the start of the metadata before a packet


class Pointer(NamedTuple):
    """An address: base object, constant offset, and a variable part within [vmin, vmax].

    `region`: "stack", "ctx", "packet", "packet_meta", "packet_end", "entry", "entry_end", "map_value", "data", "allocated" and
    "map_key" (of `limit` bytes), "sock" and its like; or what cannot be dereferenced: "map", "inner_map", "function" (at slot
    `off`).
    `map`: index of the map. `frame`: whose stack. `var`: names the variable part of a packet pointer, so that a comparison
    with the packet's end proves bytes for every pointer that shares it; 0: there is none. `step`: a power of two that the
    variable part is a multiple of. `null`: it may be NULL, and all pointers of this number are together. `object`: tells the
    results of different calls apart; `ref`: it belongs to something that must be given back. `half`: only the low 32 bits, and
    region "stale": in a packet that has been changed since; of both, differences can still be taken.
    """

    region: str
    map: int | None = None
    frame: int = 0
    off: int = 0
    vmin: int = 0
    vmax: int = 0
    var: int = 0
    null: int = 0
    step: int = NO_PART
    limit: int = 0
    object: int = 0
    ref: int = 0
    half: bool = False

    def same_object(self, other: Pointer) -> bool:
        """Whether both count from one base, so that their difference is that of their offsets."""
        return (self.region, self.map, self.frame, self.object) == (other.region, other.map, other.frame, other.object)


Value = Scalar | Pointer


def _piece(number: Scalar, skip: int, size: int) -> Scalar:
    """Some bytes of a number as it lies in memory, the first `skip` left out."""
    return s.truncate(s.shift_right(number, 8 * skip), 8 * size)._replace(ident=0)


@dataclass(slots=True)
class Frame:
    """One function's stack: which bytes are initialised (bit i: byte i from the bottom) and what is spilled where.

    `spills[offset] = (size, value)`, offset from the bottom (0..511). `saved`: the caller's r6..r9, and for a callback what it
    gets in every turn and what the call returns; `back`: where the caller goes on, for a callback -2 - the slot of the call;
    `times`: how often it runs at most; `start`: of a callback, where its function begins.
    """

    back: int = -1
    saved: tuple[Value | None, ...] = ()
    init: int = 0
    spills: dict[int, tuple[int, Value]] = field(default_factory=dict)
    times: int = 1
    start: int = -1

    def copy(self) -> Frame:
        """An independent copy."""
        return Frame(self.back, self.saved, self.init, self.spills.copy(), self.times, self.start)

    @property
    def is_callback(self) -> bool:
        """Whether a helper has called the function."""
        return self.back < -1

    @property
    def call(self) -> int:
        """The slot of the call."""
        return -2 - self.back if self.is_callback else self.back - 1

    def overlapping(self, at: int, size: int) -> list[int]:
        """Offsets of spills that touch [at, at + size)."""
        return [o for o, (n, _) in self.spills.items() if o < at + size and at < o + n]

    def forget(self, at: int, size: int) -> None:
        """What is spilled in a range is no longer known; a pointer that loses bytes is gone altogether, as if never written."""
        for o in self.overlapping(at, size):
            n, old = self.spills.pop(o)
            if isinstance(old, Pointer):
                self.init &= ~(((1 << n) - 1) << o)
                continue
            for part, length in ((o, at - o), (at + size, o + n - at - size)):  # bytes on either side keep what they are
                if length > 0:
                    self.spills[part] = length, _piece(old, part - o, length)

    def write(self, at: int, size: int, value: Value) -> None:
        """Store a value."""
        if self.spills:
            self.forget(at, size)
        self.init |= ((1 << size) - 1) << at
        if isinstance(value, Pointer) or value.umax != UNKNOWN.umax or value.mask != UNKNOWN.mask or value.ident:
            self.spills[at] = (size, value)

    def read(self, at: int, size: int) -> Value | None:
        """What is stored there, as far as it is known; None: a part of an address."""
        held = self.spills.get(at)
        if held is not None and held[0] == size:
            return held[1]
        touching = self.overlapping(at, size)
        if any(isinstance(self.spills[o][1], Pointer) for o in touching):
            return None
        if len(touching) == 1:
            o, (n, old) = touching[0], self.spills[touching[0]]
            if o <= at and at + size <= o + n and isinstance(old, Scalar):
                return _piece(old, at - o, size)
        elif touching:
            whole = self._constant(at, size, touching)
            if whole is not None:
                return const(whole)._replace(hard=(1 << 8 * size) - 1)
        return s.truncate(UNKNOWN, 8 * size)

    def _constant(self, at: int, size: int, touching: list[int]) -> int | None:
        """The number that constants side by side make up, if they cover a range."""
        word = covered = 0
        for o in touching:
            n, old = self.spills[o]
            assert isinstance(old, Scalar)
            if old.mask:
                return None
            shift = 8 * (o - at)
            word |= old.value << shift if shift >= 0 else old.value >> -shift
            covered += min(o + n, at + size) - max(o, at)
        return word & ((1 << 8 * size) - 1) if covered == size else None

    def initialised(self, at: int, size: int) -> bool:
        """Whether every byte of a range has been written."""
        want = ((1 << size) - 1) << at
        return self.init & want == want

    def holds_pointer(self, at: int, size: int) -> bool:
        """Whether a range touches a spilled pointer."""
        return any(isinstance(self.spills[o][1], Pointer) for o in self.overlapping(at, size))


@dataclass(slots=True)
class State:
    """Registers r0..r9 (None: never written), the stack frames, what is proven of the packet, and the next free number.

    `rooms[ident] = (var, off)`: a number that is the distance from `off` bytes behind the packet base that `var` names to
    the packet's end; what is shown of it is shown of the packet. `links[ident] = (root, delta)`: a number that is `delta` more
    than the number `root`, modulo 2^64. `shifts[ident] = (source, n)`: a number that is the number `source` without its low n
    bits; n negative: with 32 bits of zero behind it, which fits into the upper half (see `Arithmetic`). `forms[ident]`: what a
    number is of another. `refs`: what was acquired and not given back yet. `touched[object]`: cache lines of it that were
    accessed on this path (bits; see `Memory`).
    """

    regs: list[Value | None]
    frames: list[Frame]
    proven: dict[int, int] = field(default_factory=dict)  # see proven_bytes
    rooms: dict[int, tuple[int, int]] = field(default_factory=dict)
    links: dict[int, tuple[int, int]] = field(default_factory=dict)
    shifts: dict[int, tuple[int, int]] = field(default_factory=dict)
    forms: dict[int, Form] = field(default_factory=dict)
    refs: tuple[int, ...] = ()
    touched: dict[int, int] = field(default_factory=dict)
    serial: int = 1
    ended: int | None = None  # the last call on this path that ended packet addresses; for errors only

    def copy(self) -> State:
        """An independent copy."""
        return State(
            self.regs.copy(), [f.copy() for f in self.frames], self.proven.copy(), self.rooms.copy(), self.links.copy(),
            self.shifts.copy(), self.forms.copy(), self.refs, self.touched.copy(), self.serial, self.ended,
        )  # fmt: skip

    @property
    def times(self) -> int:
        """How often the function that is being executed runs at most, for one run of the program's."""
        return self.frames[-1].times

    def number(self) -> int:
        """A number that nothing else has."""
        self.serial += 1
        return self.serial

    def proven_bytes(self, var: int) -> int:
        """Where the proven part of the packet ends, counted from the base that `var` names (0: the packet's first byte).

        A variable base that was never compared may lie anywhere, so that not even bytes before it are proven.
        """
        return self.proven.get(var, NOTHING if var > 0 else 0)

    def prove(self, var: int, end: int) -> None:
        """A comparison has shown that the packet has all bytes before `end`."""
        self.proven[var] = max(self.proven_bytes(var), end)

    def root(self, ident: int) -> tuple[int, int]:
        """The number that `ident` is counted from, and by how much it is more."""
        return self.links.get(ident, (ident, 0))

    def replace_all(self, change: Callable[[Value], Value | None]) -> None:
        """Apply a function to every value, wherever it is."""
        self.regs = [None if v is None else change(v) for v in self.regs]
        for f in self.frames:
            if f.saved:
                f.saved = tuple(None if v is None else change(v) for v in f.saved)
            for o, (n, v) in list(f.spills.items()):
                new = change(v)
                if new is None:
                    del f.spills[o]
                    f.init &= ~(((1 << n) - 1) << o)
                elif new is not v:
                    f.spills[o] = (n, new)

    def key(self) -> tuple[int, ...]:
        """The call chain: states of different chains are never compared."""
        return tuple(f.back for f in self.frames)
