"""Loads, stores and atomic operations: which bytes may be accessed, and what comes out of them."""

from __future__ import annotations

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn
from chamelio.jit.layout import SHARED
from chamelio.verify import scalar as s
from chamelio.verify.catalogue import MAP_READ_ONLY, MAP_WRITE_ONLY, Context, CtxField
from chamelio.verify.cost import LINE, miss
from chamelio.verify.demand import Demand
from chamelio.verify.kernel.contexts import SOCKETS
from chamelio.verify.kernel.maps import MAPS as KERNEL_MAPS
from chamelio.verify.proof import Access
from chamelio.verify.scalar import UNKNOWN, Scalar, const
from chamelio.verify.subject import Refused, Subject, bit
from chamelio.verify.values import META, NOTHING, STACK_BYTES, Pointer, State, Value
from chamelio.verify.words import count_bytes, describe, place, span

PACKETS = ("packet", "packet_meta")
MOVABLE = ("stack", *PACKETS, "entry", "map_value", "map_key", "data", "allocated")  # within these, offsets can be added
MAX_TABLE = 4096  # elements of a constant table that are looked at
BEFORE = 1 << 12  # whole lines: bytes before what a variable packet address counts from, so that none is negative


class Memory:
    """Accesses of one program."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.facts = subject, subject.facts
        self.maps, self.context = subject.obj.maps, subject.context

    # ---- what may be accessed ----------------------------------------------------------------------------------------

    def access(self, state: State, pc: int, reg: int, offset: int, size: int, write: bool, atomic: bool = False) -> Pointer:
        """Check one access and record it; returns the pointer with the offset applied."""
        base = self.subject.get(state, reg)
        verb = "write" if write else "read"
        if isinstance(base, Scalar):
            raise Refused(
                "V107", f"a {verb} through r{reg}, which holds a number", "it does not come from the context, a lookup or the stack"
            )
        if base.null:
            raise Refused("V108", f"a {verb} through {describe(base)}", "it has not been compared with NULL on this path")
        if base.half:
            raise Refused("V107", f"a {verb} through {describe(base)}", "it is not an address")
        p = base._replace(off=base.off + offset)
        self.check(state, p, size, write)
        shared = p.region == "map_value" and self.is_shared(p)
        if (atomic or shared) and (p.region in (*PACKETS, "entry") or misaligned(p, size)):
            raise Refused("V115", f"an access of {count_bytes(size)} at {place(p)}", "it is not known to be aligned to its size")
        if atomic and p.region in ("ctx", *PACKETS, "entry", *SOCKETS):
            raise Refused("V115", f"an atomic operation on {describe(p)}", "atomics work on maps and the stack")
        if p.region not in ("stack", "ctx"):
            self.subject.extra_cold += miss() * self._misses(state, p, size)
        self._record(pc, p, size, shared)
        return p

    def check(self, state: State, p: Pointer, size: int, write: bool) -> None:
        """Whether `size` bytes may be accessed at an address that is not NULL. Raises Refused."""
        match p.region:
            case "stack":
                self._check_stack(state, p, size, write)
            case "ctx":
                self._check_ctx(p, size, write)
            case "packet" | "packet_meta":
                self._check_packet(state, p, size, write)
            case "entry":
                self._bounds("V104", p, size, self.subject.entry_size, "the ring's entry")
            case "map_value":
                self._check_map_value(p, size, write)
            case "data":
                self._check_data(p, size, write)
            case "allocated":
                self._bounds("V103", p, size, p.limit, "memory that a helper handed out")
            case "map_key":
                self._bounds("V103", p, size, p.limit, "a map's key")
                if write:
                    raise Refused("V113", "a map's key is written", "it is the map's own")
            case "sock" | "sock_common" | "tcp_sock" | "xsk":
                self._check_fields(SOCKETS[p.region], "a socket", p, size, write)
            case _:
                verb = "write" if write else "read"
                raise Refused("V107", f"a {verb} through {describe(p)}", "it is not an address of memory")

    def _misses(self, state: State, p: Pointer, size: int) -> int:
        """Cache lines that an access may touch and that were not touched on this path; they are from now on.

        Line n of an object has its bytes 64 n to 64 n + 63 if it begins at a line; otherwise these may lie on lines n and n + 1.
        At an unknown offset nothing is known of what was touched, and nothing will be.
        """
        key = self._object(p)
        if key is None:
            return 2 if misaligned(p, size) else 1
        at = p.off + (0 if p.var > 0 else p.vmin) + BEFORE
        first, last = at // LINE, (at + size - 1) // LINE + (0 if self._begins_at_a_line(p) else 1)
        lines = ((1 << last - first + 1) - 1) << first
        known = state.touched.get(key, 0)
        state.touched[key] = known | lines
        self.subject.effects.append((Demand.touched, key, lines & ~known, lines & known))
        return (lines & ~known).bit_count()

    @staticmethod
    def _object(p: Pointer) -> int | None:
        """What `State.touched` calls the object that an address is in; None: at an offset that is not known."""
        if p.region in PACKETS:
            return p.var
        if p.vmin != p.vmax:
            return None
        if p.region == "data":
            assert p.map is not None
            return -16 - p.map
        return p.object or (-2 if p.region == "entry" else None)

    def _begins_at_a_line(self, p: Pointer) -> bool:
        if not self.context.runs or p.var:
            return False
        return p.region in ("packet", "entry", "data") or (p.map is not None and self.maps[p.map].value_size % LINE == 0)

    def is_shared(self, p: Pointer) -> bool:
        """Whether others may write there."""
        assert p.map is not None
        return self.context.runs and bool(self.maps[p.map].attrs.get("flags", 0) & SHARED)

    def _record(self, pc: int, p: Pointer, size: int, shared: bool) -> None:
        low, high = p.off + p.vmin, p.off + p.vmax
        fixed = low if low == high and not p.var else None
        old = self.facts.accesses.get(pc)
        region, index = p.region, p.map
        if old is not None:
            fixed = fixed if fixed == old.fixed else None
            low, high, shared = min(low, old.lo), max(high, old.hi), shared or old.shared
            if (old.region, old.map) != (region, index):
                region, index, fixed = "several", None, None
        self.facts.accesses[pc] = Access(region, index, fixed, low, high, size, shared)  # type: ignore[arg-type]

    @staticmethod
    def _bounds(code: str, p: Pointer, size: int, limit: int, what: str) -> None:
        low, high = p.off + p.vmin, p.off + p.vmax + size
        if low < 0 or high > limit:
            raise Refused(
                code,
                f"{what}: access of {count_bytes(size)} at {place(p)}",
                f"bytes {span(low, high - 1)} are not within [0, {limit})",
            )

    def _check_stack(self, state: State, p: Pointer, size: int, write: bool) -> None:
        low, high = p.off + p.vmin + STACK_BYTES, p.off + p.vmax + STACK_BYTES
        where = f"r10{p.off + p.vmin:+d}" if low == high else f"r10{p.off + p.vmin:+d}..r10{p.off + p.vmax:+d}"
        if low < 0 or high + size > STACK_BYTES:
            raise Refused("V101", f"access of {count_bytes(size)} at {where}", f"the frame is r10-{STACK_BYTES} to r10-1")
        self.facts.stack_depth = max(self.facts.stack_depth, -(p.off + p.vmin))
        if not write and not state.frames[p.frame].initialised(low, high - low + size):
            reason = f"not all of them were written before on this path{self.subject.packet_ended(state)}"
            raise Refused("V111", f"{count_bytes(high - low + size)} at {where} are read", reason)

    @staticmethod
    def field(context: Context, p: Pointer, size: int, write: bool = False) -> CtxField | None:
        """The context's field that an access is of, if there is one."""
        if p.vmin != p.vmax:
            return None
        whole = context.field_at(p.off)
        if whole is not None and whole.size == size:
            return whole
        if p.off % size:
            return None
        within = (f for f in context.fields if f.offset <= p.off and p.off + size <= f.offset + f.size)
        return next((f for f in within if (f.narrow_stores if write else f.narrow)), None)

    def _check_ctx(self, p: Pointer, size: int, write: bool) -> None:
        if write and self.context.runs:
            raise Refused("V113", "the context is written", "its fields are read-only")
        self._check_fields(self.context, "the context", p, size, write)

    def _check_fields(self, context: Context, what: str, p: Pointer, size: int, write: bool) -> None:
        f = self.field(context, p, size, write)
        if f is None:
            raise Refused("V105", f"{count_bytes(size)} at {place(p)} of {what}", "no field of that size begins there")
        if write and not f.writable:
            raise Refused("V113", f"the field {f.name} of {what} is written", "it is read-only")

    def _check_packet(self, state: State, p: Pointer, size: int, write: bool) -> None:
        proven = state.proven_bytes(p.var)
        if p.off + p.vmin < 0 or p.off + size > proven:
            verb = "write" if write else "read"
            message = f"{verb} past the proven packet bytes"
            if p.off + p.vmin < 0:
                message = f"{verb} before the packet"
                reason = f"it may begin {-(p.off + p.vmin)} bytes before the packet's first"
            elif proven == NOTHING:
                reason = "this variable offset was never compared with the packet's end on this path"
            else:
                at = f"packet offset {span(p.off, p.off + size)}{' from a variable base' if p.var > 0 else ''}"
                reason = f"{at} is not within the proven [0, {max(proven, 0)})"
            suggestion = ""
            if p.off + p.vmin >= 0 and self.context.runs:
                base = "the same pointer" if p.var > 0 else "ctx->data"
                suggestion = f"before this, leave the handler unless `{base} + {p.off + size} <= ctx->data_end`"
            raise Refused("V102", message, reason, suggestion)

    def _check_map_value(self, p: Pointer, size: int, write: bool) -> None:
        assert p.map is not None
        m = self.maps[p.map]
        self._bounds("V103", p, size, m.value_size, f"map {m.name}")
        if self.context.runs:
            return
        kind = KERNEL_MAPS.get(m.kind)
        forbidden = m.attrs.get("map_flags", 0) & (MAP_READ_ONLY if write else MAP_WRITE_ONLY)
        if forbidden or (write and kind is not None and not kind.writable):
            raise Refused("V113", f"map {m.name} is {'written' if write else 'read'}", "its flags forbid that to programs")

    def _check_data(self, p: Pointer, size: int, write: bool) -> None:
        assert p.map is not None
        m = self.maps[p.map]
        self._bounds("V106", p, size, m.value_size, m.name)
        if write and m.read_only:
            raise Refused("V113", f"{m.name} is written", "it is constant data")

    # ---- instructions ----------------------------------------------------------------------------------------------------

    def needs(self, p: Pointer, size: int) -> tuple[int, int | None]:
        """For a demand: the packet base that an access counts from, and the bytes behind it that it relies on."""
        return (p.var, p.off + size) if p.region in PACKETS else (0, None)

    @staticmethod
    def stack_bits(p: Pointer, size: int) -> int:
        """For a demand: the bytes of a stack that an access may touch."""
        return ((1 << p.vmax - p.vmin + size) - 1) << (p.off + p.vmin + STACK_BYTES)

    def load(self, state: State, pc: int, insn: Insn) -> None:
        """LDX in modes MEM and MEMSX."""
        p = self.access(state, pc, insn.src, insn.off, insn.size, False)
        signed = insn.op & 0xE0 == bpf.MEMSX
        value = self._loaded(state, p, insn.size)
        if p.region == "data" and p.vmin != p.vmax:
            value = self._table(p, insn.size, signed) or value
        elif signed and isinstance(value, Scalar):
            value = s.extend_sign(value, 8 * insn.size)._replace(ident=0)
        state.regs[insn.dst] = value
        dst, base = bit(insn.dst), bit(insn.src)
        if p.region == "stack":
            self.subject.effects.append((Demand.load_stack, dst, base, p.frame, self.stack_bits(p, insn.size)))
        else:
            self.subject.effects.append((Demand.load, dst, base, *self.needs(p, insn.size)))

    def _loaded(self, state: State, p: Pointer, size: int) -> Value:
        if p.region == "stack":
            frame, at = state.frames[p.frame], p.off + p.vmin + STACK_BYTES
            value: Value | None
            if p.vmin != p.vmax:
                value = None if frame.holds_pointer(at, p.vmax - p.vmin + size) else s.truncate(UNKNOWN, 8 * size)
            else:
                value = frame.read(at, size)
            if value is None:
                raise Refused("V112", "part of a spilled pointer is read", "a pointer is read back whole, as it was written")
            whole = frame.spills.get(at, (size,))[0] == size and len(frame.overlapping(at, size)) < 2
            if isinstance(value, Scalar) and value.mask and not value.ident and p.vmin == p.vmax and whole:
                value = value._replace(ident=state.number())  # what narrows the copy narrows the original
                frame.forget(at, size)
                frame.spills[at] = (size, value)
            return value
        if p.region == "ctx":
            f = self.field(self.context, p, size)
            assert f is not None
            if f.kind == "packet_meta":
                return Pointer("packet_meta", var=META)
            if f.kind.endswith("_or_null"):
                return Pointer(f.kind.removesuffix("_or_null"), null=state.number(), object=state.number())
            if f.kind != "scalar":
                return Pointer(f.kind)
        elif p.region == "data" and p.vmin == p.vmax:
            assert p.map is not None
            m = self.maps[p.map]
            if m.read_only and m.data is not None:
                return const(int.from_bytes(m.data[p.off + p.vmin : p.off + p.vmin + size], "little"))
        return s.truncate(UNKNOWN, 8 * size)

    def _table(self, p: Pointer, size: int, signed: bool) -> Scalar | None:
        """The least and greatest of the constants that a load at a variable offset can give; None: it is no table of them."""
        assert p.map is not None
        m = self.maps[p.map]
        step = min(p.step, 1 << 16)
        if not m.read_only or m.data is None or (p.vmax - p.vmin) // step >= MAX_TABLE:
            return s.extend_sign(s.truncate(UNKNOWN, 8 * size), 8 * size) if signed else None
        first = p.off + p.vmin + -p.vmin % step
        places = range(first, p.off + p.vmax + 1, step)
        found = [int.from_bytes(m.data[at : at + size], "little", signed=signed) for at in places]
        if not found:
            return None
        bounds = s.settle(0, s.U64, 0, s.U64, min(found), max(found))
        if size == 8 and not signed:
            bounds = s.unsigned(min(found), max(found))
        return None if bounds is None else bounds._replace(hard=s.U64 if signed else (1 << 8 * size) - 1)

    def store(self, state: State, pc: int, insn: Insn) -> None:
        """ST and STX."""
        value: Value
        value = const(insn.imm) if insn.cls == bpf.ST else self.subject.get(state, insn.src, stale=True)
        p = self.access(state, pc, insn.dst, insn.off, insn.size, True)
        source = bit(insn.src) if insn.cls == bpf.STX else 0
        base = bit(insn.dst)
        if isinstance(value, Pointer):
            if p.region != "stack" or insn.size != 8 or p.vmin != p.vmax:
                raise Refused(
                    "V112", f"{describe(value)} is stored in {describe(p)}", "addresses stay on the handler's own stack, whole"
                )
        elif insn.size < 8 and value.umax >> 8 * insn.size:
            value = s.truncate(value, 8 * insn.size)._replace(ident=0)
        elif p.region == "stack" and value.mask and not value.ident and source:
            value = state.regs[insn.src] = value._replace(ident=state.number())
        if p.region != "stack":
            self.subject.effects.append((Demand.store, source | base, *self.needs(p, insn.size)))
            return
        frame, bits = state.frames[p.frame], self.stack_bits(p, insn.size)
        if p.vmin != p.vmax:  # which of the bytes is written is not known: those that were written still are
            frame.forget(p.off + p.vmin + STACK_BYTES, p.vmax - p.vmin + insn.size)
            self.subject.effects.append((Demand.store_somewhere, source | base, p.frame, bits))
            return
        if isinstance(value, Pointer) and value.region == "stack" and value.frame > p.frame:
            raise Refused("V112", "the address of a local variable outlives its function", "it is stored in the caller's frame")
        frame.write(p.off + p.vmin + STACK_BYTES, insn.size, value)
        self.subject.effects.append((Demand.store_stack, source, base, p.frame, bits))

    def atomic(self, state: State, pc: int, insn: Insn) -> None:
        """Atomic operations, 4 and 8 bytes wide."""
        self.subject.number(state, insn.src, "an atomic operation")
        exchange = insn.imm == bpf.ATOMIC_CMPXCHG
        if exchange:
            self.subject.number(state, 0, "compare and exchange")
        p = self.access(state, pc, insn.dst, insn.off, insn.size, False, atomic=True)
        self.access(state, pc, insn.dst, insn.off, insn.size, True, atomic=True)
        old = s.truncate(UNKNOWN, 8 * insn.size)
        bits = 0
        if p.region == "stack":
            frame, at = state.frames[p.frame], p.off + p.vmin + STACK_BYTES
            bits = self.stack_bits(p, insn.size)
            if frame.holds_pointer(at, p.vmax - p.vmin + insn.size):
                raise Refused("V112", "an atomic operation on a spilled pointer", "addresses are only moved")
            if p.vmin == p.vmax:
                frame.write(at, insn.size, old)
            else:
                frame.forget(at, p.vmax - p.vmin + insn.size)
        loaded = 1 if exchange else bit(insn.src) if insn.imm & bpf.ATOMIC_FETCH else 0
        if loaded:
            state.regs[0 if exchange else insn.src] = old
        sources = bit(insn.dst) | bit(insn.src) | (1 if exchange else 0)
        self.subject.effects.append((Demand.atomic, loaded, sources, *self.needs(p, insn.size), p.frame, bits))


def misaligned(p: Pointer, size: int) -> bool:
    """Whether an access may lie at an offset that is no multiple of its size."""
    return p.off % size != 0 or p.step % size != 0
