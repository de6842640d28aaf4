"""Whether an explored state describes everything that a new one does, as far as the rest of the program needs it."""

from __future__ import annotations

from chamelio.verify.demand import WHOLE_STACK, Demand
from chamelio.verify.scalar import UNKNOWN, Scalar, covers, truncate
from chamelio.verify.values import Frame, Pointer, State, Value

Features = dict[tuple[int, int], object]


def features(state: State, read: int, exact: int, demand: Demand | None = None) -> Features:
    """What a state that this one covers must share: the constants and the bases of pointers, by where they are.

    Places are (-1, register) for those in `read` (numbers: in `exact`), and (frame, offset) on the stack, those that `demand`
    needs. A constant covers only itself, and a pointer one with the same base and constant offset.
    """
    out: Features = {}
    for reg, held in enumerate(state.regs):
        if held is not None and read >> reg & 1:
            if isinstance(held, Pointer):
                out[-1, reg] = 8, held.region, held.map, held.frame, held.off
            elif held.mask == 0 and exact >> reg & 1:
                out[-1, reg] = 8, held.value
    for n, frame in enumerate(state.frames):
        if demand is None:
            read, exact = WHOLE_STACK, WHOLE_STACK
        elif n < len(demand.stack_read):
            read, exact = demand.stack_read[n], demand.stack_exact[n]
        else:
            continue
        for offset, (size, spilled) in frame.spills.items():
            if not read >> offset & ((1 << size) - 1):
                continue
            if isinstance(spilled, Pointer):
                out[n, offset] = size, spilled.region, spilled.map, spilled.frame, spilled.off
            elif spilled.mask == 0 and exact >> offset & ((1 << size) - 1):
                out[n, offset] = size, spilled.value
    return out


class Cover:
    """Compares two states; numbers of the two may differ in name. `demand` None: everything in `live` registers is needed."""

    def __init__(self, old: State, new: State, live: int, demand: Demand | None = None) -> None:
        self.old, self.new, self.live = old, new, live
        self.demand = None if demand is None or demand.whole else demand
        self.names: dict[tuple[str, int], int] = {}

    def holds(self) -> bool:
        """True: exploring the new state again cannot show anything new."""
        old, new, demand = self.old, self.new, self.demand
        if len(old.refs) != len(new.refs):
            return False
        read, exact = (self.live, self.live) if demand is None else (demand.read, demand.exact)
        a, b = old.regs, new.regs
        for reg in range(10):
            if read >> reg & 1 and not self._value(a[reg], b[reg], exact >> reg & 1):
                return False
        if not all(self._frame(n, x, y) for n, (x, y) in enumerate(zip(old.frames, new.frames, strict=True))):
            return False
        for one, other in zip(old.refs, new.refs, strict=True):
            if not self._same_name("ref", one, other):
                return False
        return self._proven() and self._touched()

    def translated(self) -> Demand:
        """What the old state's future needs, in the new one's names."""
        assert self.demand is not None
        out = self.demand
        if any(var > 0 for var in out.need) or any(key > 0 for key in out.touch):
            out = out.copy()
            out.need, out.touch = {}, {}
            for var, end in self.demand.need.items():
                name = var if var <= 0 else self.names.get(("var", var))
                if name is not None and out.need.get(name, end) <= end:
                    out.need[name] = end
            for key, lines in self.demand.touch.items():
                name = self._object(key)
                if name is not None:
                    out.touch[name] = out.touch.get(name, 0) | lines
        return out

    def _object(self, key: int) -> int | None:
        """The new state's name of an object; None: it was made after this point."""
        if key <= 0:
            return key
        return self.names.get(("var", key)) or self.names.get(("object", key))

    def _touched(self) -> bool:
        """Cache lines that the old state had touched, so that they cost nothing, are touched in the new one."""
        relied = self.old.touched if self.demand is None else self.demand.touch
        for key, lines in relied.items():
            name = self._object(key)
            if name is not None and lines & ~self.new.touched.get(name, 0):
                return False
        return True

    def _proven(self) -> bool:
        old, new = self.old, self.new
        if self.demand is None:
            return all(
                old.proven_bytes(var) <= new.proven_bytes(self.names.get(("var", var), var))
                for var in {0, *old.proven}
                if var <= 0 or ("var", var) in self.names
            )
        for var, end in self.demand.need.items():
            if var > 0:
                name = self.names.get(("var", var))
                if name is None:
                    continue  # it was made after this point
                var = name
            if new.proven_bytes(var) < end:
                return False
        return True

    def _same_name(self, kind: str, a: int, b: int) -> bool:
        if not a:
            return True
        return self.names.setdefault((kind, a), b) == b

    def _number(self, a: Scalar, b: Scalar) -> bool:
        if not covers(a, b):
            return False
        if a.mask == 0 or not a.ident:
            return True
        if not b.ident or not self._same_name("scalar", a.ident, b.ident):
            return False
        room = self.old.rooms.get(a.ident)
        if room is not None:
            other = self.new.rooms.get(b.ident)
            if other is None or other[1] != room[1] or bool(other[0]) != bool(room[0]):
                return False
            if room[0] and not self._same_name("var", room[0], other[0]):
                return False
        if a.ident in self.old.shifts:
            if b.ident not in self.new.shifts:
                return False
            (source, n), (new_source, new_n) = self.old.shifts[a.ident], self.new.shifts[b.ident]
            if n != new_n or not self._same_name("scalar", source, new_source):
                return False
        if a.ident in self.old.forms:
            form, new_form = self.old.forms[a.ident], self.new.forms.get(b.ident)
            if new_form is None or form[2:] != new_form[2:] or new_form.most > form.most:
                return False
            if not self._same_name("scalar", form.source, new_form.source):
                return False
        if a.ident in self.old.links:
            if b.ident not in self.new.links:
                return False
            (root, delta), (new_root, new_delta) = self.old.links[a.ident], self.new.links[b.ident]
            return delta == new_delta and self._same_name("root", root, new_root)
        return self._same_name("root", a.ident, b.ident)

    def _value(self, a: Value | None, b: Value | None, exact: int) -> bool:
        if a is None:
            return True
        if b is None:
            return False
        if isinstance(a, Scalar):
            return isinstance(b, Scalar) and (not exact or self._number(a, b))
        if not isinstance(b, Pointer):
            return False
        if (a.region, a.map, a.frame, a.off, a.limit, a.half) != (b.region, b.map, b.frame, b.off, b.limit, b.half):
            return False
        if not a.vmin <= b.vmin <= b.vmax <= a.vmax or a.step > b.step:
            return False
        if b.null and not a.null:
            return False
        if not (self._same_name("null", a.null, b.null) and self._same_name("object", a.object, b.object)):
            return False
        if bool(a.ref) != bool(b.ref) or not self._same_name("ref", a.ref, b.ref):
            return False
        return bool(a.var) == bool(b.var) and (a.var == b.var or min(a.var, b.var) > 0) and self._same_name("var", a.var, b.var)

    def _frame(self, n: int, a: Frame, b: Frame) -> bool:
        if (a.times, a.start, len(a.saved)) != (b.times, b.start, len(b.saved)):
            return False
        demand = self.demand
        if demand is None or a.is_callback:
            read = exact = WHOLE_STACK
            saved_read = saved_exact = -1
        else:
            read, exact = (demand.stack_read[n], demand.stack_exact[n]) if n < len(demand.stack_read) else (0, 0)
            saved_read, saved_exact = (demand.saved_read[n], demand.saved_exact[n]) if n < len(demand.saved_read) else (0, 0)
        for reg, (x, y) in enumerate(zip(a.saved, b.saved, strict=True), 6):
            if saved_read >> reg & 1 and not self._value(x, y, saved_exact >> reg & 1):
                return False
        if not read:
            return True
        if a.init & read & ~b.init:
            return False
        for o, (size, value) in a.spills.items():
            bits = ((1 << size) - 1) << o
            if not read & bits:
                continue
            other = b.spills.get(o)
            needed = bool(exact & bits)
            if other is not None and other[0] == size:
                if not self._value(value, other[1], needed):
                    return False
            elif isinstance(value, Pointer) or b.holds_pointer(o, size):
                return False
            elif needed and (value.ident or not covers(value, truncate(UNKNOWN, 8 * size))):
                return False  # a copy that is linked to another value narrows with it; these bytes would not
        for o, (size, value) in b.spills.items():  # bytes that are plain data in the old state must be so in the new one
            compared = o in a.spills and isinstance(a.spills[o][1], Pointer)
            if isinstance(value, Pointer) and not compared and a.init >> o & read >> o & ((1 << size) - 1):
                return False
        return True
