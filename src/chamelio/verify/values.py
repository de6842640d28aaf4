"""What a register or stack slot can hold besides a scalar, and the state of a program at one point."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from chamelio.verify.scalar import UNKNOWN, Scalar, covers, truncate

STACK_BYTES = 512
NO_PART = 1 << 40  # the step of a pointer without a variable part: zero is a multiple of everything
NOTHING = -(1 << 40)  # no byte is proven, not even before the pointer: farther down than any pointer can reach


class Pointer(NamedTuple):
    """An address: base object, constant offset, and a variable part within [vmin, vmax].

    `region`: "stack", "ctx", "packet", "packet_end", "entry", "entry_end", "map_value", "data", or "map" (a map itself).
    `map`: index of the map. `frame`: whose stack. `var`: names the variable part of a packet pointer, so that a comparison
    with the packet's end proves bytes for every pointer that shares it; 0: there is none. `step`: a power of two that the
    variable part is a multiple of. `null`: it may be NULL, and all pointers of this number are together.
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


Value = Scalar | Pointer


@dataclass(slots=True)
class Frame:
    """One function's stack: which bytes are initialised (bit i: byte i from the bottom) and what is spilled where.

    `spills[offset] = (size, value)`, offset from the bottom (0..511). `saved`: the caller's r6..r9, `back`: where it goes on.
    """

    back: int = -1
    saved: tuple[Value | None, ...] = ()
    init: int = 0
    spills: dict[int, tuple[int, Value]] = field(default_factory=dict)

    def copy(self) -> Frame:
        """An independent copy."""
        return Frame(self.back, self.saved, self.init, dict(self.spills))

    def overlapping(self, at: int, size: int) -> list[int]:
        """Offsets of spills that touch [at, at + size)."""
        return [o for o, (n, _) in self.spills.items() if o < at + size and at < o + n]

    def write(self, at: int, size: int, value: Value) -> None:
        """Store a value; spilled pointers that lose bytes are gone altogether."""
        for o in self.overlapping(at, size):
            n, old = self.spills.pop(o)
            if isinstance(old, Pointer):
                self.init &= ~(((1 << n) - 1) << o)
        self.init |= ((1 << size) - 1) << at
        if isinstance(value, Pointer) or value.umax != UNKNOWN.umax or value.mask != UNKNOWN.mask or value.ident:
            self.spills[at] = (size, value)

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
    the packet's end; what is shown of it is shown of the packet.
    """

    regs: list[Value | None]
    frames: list[Frame]
    proven: dict[int, int] = field(default_factory=dict)  # see proven_bytes
    rooms: dict[int, tuple[int, int]] = field(default_factory=dict)
    serial: int = 1
    ended: int | None = None  # the last call on this path that ended packet addresses; for errors only

    def copy(self) -> State:
        """An independent copy."""
        return State(list(self.regs), [f.copy() for f in self.frames], dict(self.proven), dict(self.rooms), self.serial, self.ended)

    def number(self) -> int:
        """A number that nothing else has."""
        self.serial += 1
        return self.serial

    def proven_bytes(self, var: int) -> int:
        """Where the proven part of the packet ends, counted from the base that `var` names (0: the packet's first byte).

        A variable base that was never compared may lie anywhere, so that not even bytes before it are proven.
        """
        return self.proven.get(var, NOTHING if var else 0)

    def prove(self, var: int, end: int) -> None:
        """A comparison has shown that the packet has all bytes before `end`."""
        self.proven[var] = max(self.proven_bytes(var), end)

    def replace_all(self, change: object) -> None:
        """Apply a function Value -> Value | None to every value, wherever it is."""
        assert callable(change)
        self.regs = [None if v is None else change(v) for v in self.regs]
        for f in self.frames:
            f.saved = tuple(None if v is None else change(v) for v in f.saved)
            for o, (n, v) in list(f.spills.items()):
                new = change(v)
                if new is None:
                    del f.spills[o]
                    f.init &= ~(((1 << n) - 1) << o)
                else:
                    f.spills[o] = (n, new)

    def key(self) -> tuple[int, ...]:
        """The call chain: states of different chains are never compared."""
        return tuple(f.back for f in self.frames)


def features(state: State, live: int) -> dict[tuple[int, int], object]:
    """What a state that this one covers must share: the constants and the bases of pointers, by where they are.

    Places are (-1, register) for those in `live`, and (frame, offset) on the stack. A constant covers only itself, and a
    pointer one with the same base and constant offset.
    """
    out: dict[tuple[int, int], object] = {}

    def note(where: tuple[int, int], size: int, value: Value) -> None:
        if isinstance(value, Pointer):
            out[where] = size, value.region, value.map, value.frame, value.off
        elif value.mask == 0:
            out[where] = size, value.value

    for reg, held in enumerate(state.regs):
        if held is not None and live >> reg & 1:
            note((-1, reg), 8, held)
    for n, frame in enumerate(state.frames):
        for offset, (size, spilled) in frame.spills.items():
            note((n, offset), size, spilled)
    return out


class Cover:
    """Whether an explored state describes everything that a new one does; numbers of the two may differ in name."""

    def __init__(self, old: State, new: State, live: int) -> None:
        self.old, self.new, self.live = old, new, live
        self.names: dict[tuple[str, int], int] = {}

    def holds(self) -> bool:
        """True: exploring the new state again cannot show anything new."""
        for reg in range(10):
            if self.live >> reg & 1 and not self._value(self.old.regs[reg], self.new.regs[reg]):
                return False
        if self.old.proven_bytes(0) > self.new.proven_bytes(0):
            return False  # the packet's start can be loaded again at any time
        return all(self._frame(a, b) for a, b in zip(self.old.frames, self.new.frames, strict=True))

    def _same_name(self, kind: str, a: int, b: int) -> bool:
        if not a:
            return True
        if not b:
            return False
        return self.names.setdefault((kind, a), b) == b

    def _same_room(self, a: int, b: int) -> bool:
        if a not in self.old.rooms:
            return True
        if b not in self.new.rooms:
            return False
        (old_var, old_off), (new_var, new_off) = self.old.rooms[a], self.new.rooms[b]
        return old_off == new_off and bool(old_var) == bool(new_var) and self._same_name("var", old_var, new_var)

    def _value(self, a: Value | None, b: Value | None) -> bool:
        if a is None:
            return True
        if b is None:
            return False
        if isinstance(a, Scalar):
            if not isinstance(b, Scalar) or not covers(a, b):
                return False
            return a.mask == 0 or (self._same_name("scalar", a.ident, b.ident) and self._same_room(a.ident, b.ident))
        if not isinstance(b, Pointer):
            return False
        if (a.region, a.map, a.frame, a.off) != (b.region, b.map, b.frame, b.off):
            return False
        if not a.vmin <= b.vmin <= b.vmax <= a.vmax or a.step > b.step:
            return False
        if bool(a.null) != bool(b.null) or not self._same_name("null", a.null, b.null):
            return False
        if a.region == "packet":
            if bool(a.var) != bool(b.var) or not self._same_name("var", a.var, b.var):
                return False
            return self.old.proven_bytes(a.var) <= self.new.proven_bytes(b.var)
        return True

    def _frame(self, a: Frame, b: Frame) -> bool:
        if a.init & ~b.init or not all(self._value(x, y) for x, y in zip(a.saved, b.saved, strict=True)):
            return False
        for o, (n, value) in a.spills.items():
            other = b.spills.get(o)
            if other is None or other[0] != n:
                if isinstance(value, Pointer) or value.ident or b.holds_pointer(o, n):
                    return False  # a copy that is linked to another value narrows with it; these bytes would not
                if not covers(value, truncate(UNKNOWN, 8 * n)):
                    return False
            elif not self._value(value, other[1]):
                return False
        for o, (n, value) in b.spills.items():  # bytes that are plain data in the old state must be so in the new one
            if isinstance(value, Pointer) and o not in a.spills and a.init >> o & ((1 << n) - 1):
                return False
        return True
