"""Abstract execution of single instructions: how a state changes, and what makes an instruction unacceptable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn
from chamelio.bpf.maps import MapDef
from chamelio.bpf.object import Object
from chamelio.jit.layout import RING_IN, SHARED
from chamelio.verify import scalar as s
from chamelio.verify.catalogue import HELPERS, PACKET_MAX, Arg, Context, Helper
from chamelio.verify.cost import COPY_BYTES, LINE, MISS, insn_cost
from chamelio.verify.proof import Access, Mask
from chamelio.verify.scalar import UNKNOWN, Scalar, const
from chamelio.verify.values import NOTHING, STACK_BYTES, Pointer, State, Value

MAX_OFFSET = 1 << 29  # of pointers; far from wrapping, and from what a region can hold


MAX_ROOMS = 8  # distances to the packet's end that a state remembers


class Refused(Exception):
    """An instruction that cannot be accepted in some state."""

    def __init__(self, code: str, message: str, reason: str) -> None:
        super().__init__(message)
        self.code, self.message, self.reason = code, message, reason


@dataclass
class Facts:
    """What all paths together have shown."""

    accesses: dict[int, Access] = field(default_factory=dict)
    reached: set[int] = field(default_factory=set)
    map_args: dict[int, int | None] = field(default_factory=dict)
    masks: dict[int, Mask] = field(default_factory=dict)  # additions of a number to a pointer: what the number can be
    soft: set[int] = field(default_factory=set)  # of these, those whose bounds rest on a branch
    unmaskable: set[int] = field(default_factory=set)  # additions that are something else on some path
    stack_depth: int = 0

    def settled_masks(self) -> dict[int, Mask]:
        """The additions that the compiler is to mask."""
        return {pc: mask for pc, mask in self.masks.items() if pc in self.soft and pc not in self.unmaskable}


class Machine:
    """Executes instructions of one program on abstract states, and collects facts."""

    def __init__(self, obj: Object, insns: list[Insn], context: Context, hook: str, at: Callable[[int], str]) -> None:
        self.obj, self.insns, self.context, self.hook, self.at = obj, insns, context, hook, at
        self.facts = Facts()
        self.extra_cold = 0  # of the instruction being executed: misses beyond the one that every far access is priced
        entries = [m.value_size for m in obj.maps if m.kind == RING_IN]
        self.entry_size = entries[0] if entries and hook == "ring" else 0

    # ---- registers ------------------------------------------------------------------------------------------------

    def get(self, state: State, reg: int) -> Value:
        """A register that must have a value."""
        if reg == bpf.FRAME:
            return Pointer("stack", frame=len(state.frames) - 1)
        value = state.regs[reg]
        if value is None:
            reason = f"no path to here has written r{reg}, or a call has clobbered it{self._packet_ended(state)}"
            raise Refused("V110", f"r{reg} is used before it has a value", reason)
        return value

    def _packet_ended(self, state: State) -> str:
        """For what has no value: whether it may have been an address in a packet that a helper has changed since."""
        if state.ended is None:
            return ""
        return (
            f"; packet addresses lost theirs at {self.at(state.ended)}, where {HELPERS[self.insns[state.ended].imm].name} is called"
        )

    def scalar(self, state: State, reg: int, what: str) -> Scalar:
        """A register that must hold a number."""
        value = self.get(state, reg)
        if isinstance(value, Pointer):
            raise Refused("V114", f"{what} needs a number, r{reg} holds {describe(value)}", "pointers have no such operation")
        return value

    # ---- arithmetic -----------------------------------------------------------------------------------------------

    def alu(self, state: State, pc: int, insn: Insn) -> None:
        """ALU and ALU64 instructions."""
        bits = 64 if insn.cls == bpf.ALU64 else 32
        op = insn.op & 0xF0
        state.regs[insn.dst] = self._alu(state, pc, insn, bits, op)

    def _alu(self, state: State, pc: int, insn: Insn, bits: int, op: int) -> Value:
        if op == bpf.END:
            value = self.scalar(state, insn.dst, "a byte swap")
            little = insn.cls == bpf.ALU and not insn.op & bpf.X
            return s.truncate(value, insn.imm) if little else s.swap_bytes(value, insn.imm)
        if op == bpf.NEG:
            return s.arithmetic(bpf.SUB, bits, const(0), self.scalar(state, insn.dst, "negation"))
        operand: Value
        if insn.op & bpf.X:
            operand = self.get(state, insn.src)
        else:
            operand = const(insn.imm if bits == 64 else insn.imm & s.U32)
        if op == bpf.MOV:
            return self._move(state, insn, bits, operand)
        target = self.get(state, insn.dst)
        if isinstance(target, Scalar) and isinstance(operand, Scalar):
            if insn.op & bpf.X:
                self.facts.unmaskable.add(pc)  # perhaps an address on another path, but here any number
            result = s.arithmetic(op, bits, target, operand, insn.off)
            room = state.rooms.get(target.ident)
            if room is not None and bits == 64 and op in (bpf.ADD, bpf.SUB) and operand.const is not None:
                by = operand.smin if op == bpf.SUB else -operand.smin
                if abs(by) < MAX_OFFSET:
                    return self._room(state, result, room[0], room[1] + by)
            return result
        return self._pointer_arithmetic(state, pc, bits, op, target, operand)

    def _move(self, state: State, insn: Insn, bits: int, operand: Value) -> Value:
        if isinstance(operand, Pointer):
            if bits == 32 or insn.off:
                raise Refused("V114", f"part of {describe(operand)} is moved", "a pointer is moved whole or not at all")
            return operand
        if insn.off:
            value = s.extend_sign(operand, insn.off)
            return s.truncate(value, 32) if bits == 32 else value
        if bits == 32 and operand.umax > s.U32:
            return s.truncate(operand, 32)
        if operand.const is None and not operand.ident and insn.op & bpf.X:  # a copy: what narrows one narrows the other
            operand = state.regs[insn.src] = operand._replace(ident=state.number())
        return operand

    def _pointer_arithmetic(self, state: State, pc: int, bits: int, op: int, target: Value, operand: Value) -> Value:
        swapped = isinstance(target, Scalar)
        if isinstance(target, Scalar):
            if op != bpf.ADD or bits != 64:
                raise Refused("V114", "a number is combined with a pointer", "only adding is possible")
            target, operand = operand, target
        assert isinstance(target, Pointer)
        if isinstance(operand, Pointer):
            self.facts.unmaskable.add(pc)  # perhaps a number on another path, but here an address that must stay what it is
            if op == bpf.SUB and bits == 64 and target.region == operand.region == "packet" and target.var == operand.var:
                return const(target.off - operand.off)
            if op == bpf.SUB and {target.region, operand.region} <= {"packet", "packet_end"}:
                return s.truncate(self._distance(state, target, operand), bits)
            raise Refused("V114", f"{describe(target)} and {describe(operand)} are combined", "two pointers cannot be")
        if op not in (bpf.ADD, bpf.SUB) or bits != 64:
            raise Refused(
                "V114", f"an operation on {describe(target)}", "pointers can be added to and subtracted from, 64 bits wide"
            )
        if target.region not in ("stack", "packet", "map_value", "entry", "data"):
            raise Refused("V114", f"arithmetic on {describe(target)}", "it can only be compared or passed on")
        if target.null:
            raise Refused(
                "V108", "arithmetic on a value that may be NULL", "the result of the lookup has not been compared with NULL"
            )
        if self.insns[pc].op & bpf.X:
            self._mask(pc, operand, source=not swapped)
        if op == bpf.SUB:
            operand = s.sub(const(0), operand)
        return self._offset(state, target, operand)

    def _distance(self, state: State, a: Pointer, b: Pointer) -> Scalar:
        """Bytes from one packet address to another, one of them perhaps the packet's end."""
        if (a.region, b.region) != ("packet_end", "packet"):
            return UNKNOWN
        longest = self.context.packet_max
        if b == Pointer("packet"):
            return self._room(state, s.unsigned(0, longest), 0, 0)
        number = s.settle(0, s.U64, 0, s.U64, -(b.off + b.vmax), longest - (b.off + b.vmin))
        assert number is not None
        return self._room(state, number, b.var, b.off)

    @staticmethod
    def _room(state: State, number: Scalar, var: int, off: int) -> Scalar:
        """A number that is known to be the distance from an address to the packet's end."""
        if number.const is not None or abs(off) >= MAX_OFFSET:
            return number
        number = number._replace(ident=state.number())
        if len(state.rooms) >= MAX_ROOMS:
            del state.rooms[next(iter(state.rooms))]
        state.rooms[number.ident] = var, off
        return number

    def _mask(self, pc: int, number: Scalar, *, source: bool) -> None:
        """Note what an instruction adds to a pointer, for the compiler to hold it to that on mispredicted branches too."""
        old = self.facts.masks.get(pc)
        if old is not None and old.source != source:
            self.facts.unmaskable.add(pc)
        low, high = (min(old.low, number.smin), max(old.high, number.smax)) if old else (number.smin, number.smax)
        self.facts.masks[pc] = Mask(low, high, source)
        known = number.const is not None and number.hard == number.value
        if not known and not (number.smin >= 0 and number.hard <= number.smax):
            self.facts.soft.add(pc)

    @staticmethod
    def _offset(state: State, pointer: Pointer, by: Scalar) -> Pointer:
        if by.const is not None:
            moved = pointer._replace(off=pointer.off + by.smin)
        else:
            if pointer.region == "stack":
                raise Refused(
                    "V150", "a stack address at a variable offset", "only constant offsets into the stack are tracked; use a map"
                )
            low, high = by.smin, by.smax
            if high - low > MAX_OFFSET or not -MAX_OFFSET < low <= high < MAX_OFFSET:
                raise Refused(
                    "V114", "an unbounded number is added to a pointer",
                    f"the number lies in {span(low, high)}; compare it with its limit before",
                )  # fmt: skip
            moved = pointer._replace(
                vmin=pointer.vmin + low,
                vmax=pointer.vmax + high,
                var=state.number() if pointer.region == "packet" else 0,
                step=min(pointer.step, 1 << s.trailing_zeros(by)),
            )
        if not -MAX_OFFSET < moved.off + moved.vmin <= moved.off + moved.vmax < MAX_OFFSET:
            raise Refused(
                "V114", "a pointer moves too far", f"its offset would be {span(moved.off + moved.vmin, moved.off + moved.vmax)}"
            )
        return moved

    def load_wide(self, state: State, insn: Insn) -> None:
        """LDDW: a constant, a map, or the address of global data."""
        if insn.src == 0:
            state.regs[insn.dst] = const(insn.imm)
        elif insn.src in (bpf.PSEUDO_MAP, bpf.PSEUDO_MAP_VALUE) and insn.imm & s.U32 >= len(self.obj.maps):
            raise Refused("V140", f"a reference to map {insn.imm & s.U32}", f"the object has {len(self.obj.maps)} maps")
        elif insn.src == bpf.PSEUDO_MAP:
            state.regs[insn.dst] = Pointer("map", insn.imm)
        elif insn.src == bpf.PSEUDO_MAP_VALUE:
            state.regs[insn.dst] = Pointer("data", insn.imm & s.U32, off=insn.imm >> 32)
        elif insn.src == bpf.PSEUDO_FUNC:
            raise Refused("V140", "the address of a function is taken", "callbacks are not supported")
        else:
            raise Refused("V140", f"a wide load with pseudo source {insn.src}", "only maps and global data are referred to so")

    # ---- memory ------------------------------------------------------------------------------------------------------

    def access(self, state: State, pc: int, reg: int, offset: int, size: int, write: bool, atomic: bool = False) -> Pointer:
        """Check one access and record it; returns the pointer with the offset applied."""
        base = self.get(state, reg)
        verb = "write" if write else "read"
        if isinstance(base, Scalar):
            raise Refused(
                "V107", f"a {verb} through r{reg}, which holds a number", "it does not come from the context, a lookup or the stack"
            )
        if base.null:
            raise Refused(
                "V108", f"a {verb} through a value that may be NULL", "the result of the lookup has not been compared with NULL"
            )
        p = base._replace(off=base.off + offset)
        check = getattr(self, f"_check_{p.region}", None)
        if check is None:
            raise Refused("V107", f"a {verb} through {describe(p)}", "it is not an address of memory")
        check(state, p, size, write)
        shared = p.region == "map_value" and self._shared(p)
        if (atomic or shared) and (p.region in ("packet", "entry") or self._misaligned(p, size)):
            raise Refused("V115", f"an access of {count_bytes(size)} at {place(p)}", "it is not known to be aligned to its size")
        if atomic and p.region in ("ctx", "packet", "entry"):
            raise Refused("V115", f"an atomic operation on {describe(p)}", "atomics work on maps and the stack")
        if p.region not in ("stack", "ctx") and self._misaligned(p, size):
            self.extra_cold = MISS  # it may lie on two lines: packets, entries and values begin at whole words
        self._record(pc, p, size, shared)
        return p

    def _shared(self, p: Pointer) -> bool:
        assert p.map is not None
        return bool(self.obj.maps[p.map].attrs.get("flags", 0) & SHARED)

    @staticmethod
    def _misaligned(p: Pointer, size: int) -> bool:
        return p.off % size != 0 or p.step % size != 0

    def _record(self, pc: int, p: Pointer, size: int, shared: bool) -> None:
        low, high = p.off + p.vmin, p.off + p.vmax
        fixed = low if low == high and not p.var else None
        old = self.facts.accesses.get(pc)
        if old is not None:
            fixed = fixed if fixed == old.fixed else None
            low, high = min(low, old.lo), max(high, old.hi)
            if (old.region, old.map) != (p.region, p.map):
                if {old.region, p.region} & {"stack", "ctx"}:
                    raise Refused(
                        "V150", "one instruction accesses different objects on different paths",
                        f"{old.region} on one, {p.region} on another",
                    )  # fmt: skip
                self.facts.accesses[pc] = Access("several", None, None, low, high, size, shared or old.shared)
                return
        self.facts.accesses[pc] = Access(p.region, p.map, fixed, low, high, size, shared)  # type: ignore[arg-type]

    def _bounds(self, code: str, p: Pointer, size: int, limit: int, what: str) -> None:
        low, high = p.off + p.vmin, p.off + p.vmax + size
        if low < 0 or high > limit:
            raise Refused(
                code,
                f"{what}: access of {count_bytes(size)} at {place(p)}",
                f"bytes {span(low, high - 1)} are not within [0, {limit})",
            )

    def _check_stack(self, state: State, p: Pointer, size: int, write: bool) -> None:
        at = p.off + STACK_BYTES
        if at < 0 or at + size > STACK_BYTES:
            raise Refused("V101", f"access of {count_bytes(size)} at r10{p.off:+d}", f"the frame is r10-{STACK_BYTES} to r10-1")
        self.facts.stack_depth = max(self.facts.stack_depth, -p.off)
        if not write and not state.frames[p.frame].initialised(at, size):
            reason = f"not all of them were written before on this path{self._packet_ended(state)}"
            raise Refused("V111", f"{count_bytes(size)} at r10{p.off:+d} are read", reason)

    def _check_ctx(self, state: State, p: Pointer, size: int, write: bool) -> None:
        if write:
            raise Refused("V113", "the context is written", "its fields are read-only")
        f = self.context.field_at(p.off)
        if f is None or f.size != size:
            raise Refused("V105", f"{count_bytes(size)} at offset {p.off} of the context", "no field of that size begins there")

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
                at = f"packet offset {span(p.off, p.off + size)}{' from a variable base' if p.var else ''}"
                reason = f"{at} is not within the proven [0, {max(proven, 0)})"
            raise Refused("V102", message, reason)

    def _check_entry(self, state: State, p: Pointer, size: int, write: bool) -> None:
        self._bounds("V104", p, size, self.entry_size, "the ring's entry")

    def _check_map_value(self, state: State, p: Pointer, size: int, write: bool) -> None:
        assert p.map is not None
        m = self.obj.maps[p.map]
        self._bounds("V103", p, size, m.value_size, f"map {m.name}")

    def _check_data(self, state: State, p: Pointer, size: int, write: bool) -> None:
        assert p.map is not None
        m = self.obj.maps[p.map]
        self._bounds("V106", p, size, m.value_size, m.name)
        if write and m.read_only:
            raise Refused("V113", f"{m.name} is written", "it is constant data")

    def load(self, state: State, pc: int, insn: Insn) -> None:
        """LDX in modes MEM and MEMSX."""
        p = self.access(state, pc, insn.src, insn.off, insn.size, False)
        state.regs[insn.dst] = self._loaded(state, p, insn)

    def _loaded(self, state: State, p: Pointer, insn: Insn) -> Value:
        signed = insn.op & 0xE0 == bpf.MEMSX
        value: Value = s.truncate(UNKNOWN, 8 * insn.size)
        if p.region == "stack":
            frame, at = state.frames[p.frame], p.off + STACK_BYTES
            held = frame.spills.get(at)
            if held is not None and held[0] == insn.size:
                value = held[1]
                if isinstance(value, Scalar) and value.const is None and not value.ident and insn.size == 8:
                    value = value._replace(ident=state.number())
                    frame.spills[at] = (8, value)
            elif frame.holds_pointer(at, insn.size):
                raise Refused("V112", "part of a spilled pointer is read", "a pointer is read back whole, as it was written")
        elif p.region == "ctx":
            f = self.context.field_at(p.off)
            assert f is not None
            if f.kind != "scalar":
                return Pointer(f.kind)
        if signed and isinstance(value, Scalar):
            value = s.extend_sign(value, 8 * insn.size)
        return value

    def store(self, state: State, pc: int, insn: Insn) -> None:
        """ST and STX."""
        value: Value
        value = const(insn.imm) if insn.cls == bpf.ST else self.get(state, insn.src)
        p = self.access(state, pc, insn.dst, insn.off, insn.size, True)
        if isinstance(value, Pointer):
            if p.region != "stack" or insn.size != 8:
                raise Refused(
                    "V112", f"{describe(value)} is stored in {describe(p)}", "addresses stay on the handler's own stack, whole"
                )
        elif insn.size < 8:
            value = s.truncate(value, 8 * insn.size)
        if p.region == "stack":
            if isinstance(value, Pointer) and value.region == "stack" and value.frame > p.frame:
                raise Refused("V112", "the address of a local variable outlives its function", "it is stored in the caller's frame")
            state.frames[p.frame].write(p.off + STACK_BYTES, insn.size, value)

    def atomic(self, state: State, pc: int, insn: Insn) -> None:
        """Atomic operations, 4 and 8 bytes wide."""
        value = self.scalar(state, insn.src, "an atomic operation")
        if insn.imm == bpf.ATOMIC_CMPXCHG:
            self.scalar(state, 0, "compare and exchange")
        p = self.access(state, pc, insn.dst, insn.off, insn.size, False, atomic=True)
        self.access(state, pc, insn.dst, insn.off, insn.size, True, atomic=True)
        old = s.truncate(UNKNOWN, 8 * insn.size)
        if p.region == "stack":
            frame, at = state.frames[p.frame], p.off + STACK_BYTES
            if frame.holds_pointer(at, insn.size):
                raise Refused("V112", "an atomic operation on a spilled pointer", "addresses are only moved")
            frame.write(at, insn.size, old)
        del value
        if insn.imm == bpf.ATOMIC_CMPXCHG:
            state.regs[0] = old
        elif insn.imm & bpf.ATOMIC_FETCH:
            state.regs[insn.src] = old

    # ---- helpers -------------------------------------------------------------------------------------------------------

    def helper(self, state: State, pc: int, insn: Insn) -> tuple[int, int]:
        """A call of a helper; returns its cost, cold and warm, in cycles."""
        helper = HELPERS.get(insn.imm)
        if helper is None:
            raise Refused("V121", f"helper {insn.imm} is called", "there is no helper of that number")
        index = self._arguments(state, pc, helper)
        cold, warm = self._price(state, helper, self.obj.maps[index] if index is not None else None)
        if helper.invalidates_packet:
            state.replace_all(lambda v: None if isinstance(v, Pointer) and v.region in ("packet", "packet_end") else v)
            state.proven.clear()
            state.rooms.clear()
            state.ended = pc
        for reg in range(1, 6):
            state.regs[reg] = None
        if helper.ret == "scalar":
            state.regs[0] = UNKNOWN
        else:
            state.regs[0] = Pointer("map_value", index, null=state.number())
        return cold, warm

    def _arguments(self, state: State, pc: int, helper: Helper) -> int | None:
        index: int | None = None
        for reg, arg in enumerate(helper.args, 1):
            value = self.get(state, reg)
            if arg.kind == "map":
                index = self._map_argument(pc, helper, reg, arg, value)
            elif arg.kind == "ctx":
                if value != Pointer("ctx"):
                    raise self._wrong(helper, reg, arg, value, "the context as the handler got it")
            elif arg.kind == "scalar":
                if isinstance(value, Pointer):
                    raise self._wrong(helper, reg, arg, value, "a number")
            else:
                assert index is not None
                m = self.obj.maps[index]
                self._memory_argument(state, helper, reg, arg, value, m.key_size if arg.kind == "key" else m.value_size)
        return index

    @staticmethod
    def _wrong(helper: Helper, reg: int, arg: Arg, value: Value, wanted: str) -> Refused:
        return Refused("V120", f"{helper.name}: argument {reg} ({arg.name}) is {describe(value)}", f"it must be {wanted}")

    def _map_argument(self, pc: int, helper: Helper, reg: int, arg: Arg, value: Value) -> int:
        if not isinstance(value, Pointer) or value.region != "map":
            raise self._wrong(helper, reg, arg, value, "a map")
        assert value.map is not None
        m = self.obj.maps[value.map]
        if m.kind not in arg.maps:
            raise Refused(
                "V120",
                f"{helper.name}: map {m.name} is of another kind",
                "see the helper's declaration for the kinds that it takes",
            )
        if self.facts.map_args.setdefault(pc, value.map) != value.map:
            self.facts.map_args[pc] = None
        return value.map

    def _memory_argument(self, state: State, helper: Helper, reg: int, arg: Arg, value: Value, size: int) -> None:
        if not isinstance(value, Pointer) or value.region not in ("stack", "packet", "entry", "map_value", "data"):
            raise self._wrong(helper, reg, arg, value, f"the address of {count_bytes(size)}")
        if value.null:
            raise Refused("V108", f"{helper.name}: argument {reg} ({arg.name}) may be NULL", "compare it with NULL before")
        if value.region == "map_value" and self._shared(value):
            raise Refused(
                "V122", f"{helper.name}: argument {reg} ({arg.name}) lies in shared memory", "it could change while it is used"
            )
        getattr(self, f"_check_{value.region}")(state, value, size, False)
        if value.region == "stack" and state.frames[value.frame].holds_pointer(value.off + STACK_BYTES, size):
            raise Refused("V112", f"{helper.name}: argument {reg} ({arg.name}) contains an address", "it would leave the handler")

    @staticmethod
    def _price(state: State, helper: Helper, m: MapDef | None) -> tuple[int, int]:
        length = lines = copied = 0
        if helper.length_arg:
            value = state.regs[helper.length_arg]
            assert isinstance(value, Scalar)
            # beyond the longest packet a helper refuses; it is priced as what it could do at most
            length = min(s.truncate(value, 32).umax, PACKET_MAX)
        if m is not None and any(arg.kind in ("value", "entry") for arg in helper.args):
            # the helper's own price has the first line of what it copies; both ends of the rest may miss
            rest = max(0, m.value_size - LINE)
            lines, copied = 2 * -(-rest // LINE), -(-rest // COPY_BYTES)
        warm = helper.cost.fixed + helper.cost.per_byte * length + copied
        return warm + MISS * (helper.cost.lines + lines + -(-length // LINE)), warm


# ---- words --------------------------------------------------------------------------------------------------------------


def count_bytes(n: int) -> str:
    """A number of bytes as text."""
    return "1 byte" if n == 1 else f"{n} bytes"


def span(low: int, high: int) -> str:
    """An inclusive range as text."""
    return str(low) if low == high else f"{low}..{high}"


def place(p: Pointer) -> str:
    """Where a pointer points, as text."""
    return f"offset {span(p.off + p.vmin, p.off + p.vmax)}"


_NAMES = {
    "stack": "a stack address", "ctx": "the context", "packet": "a packet address", "packet_end": "the packet's end",
    "entry": "an address in the ring's entry", "entry_end": "the entry's end", "map_value": "an address in a map's value",
    "data": "an address in global data", "map": "a map",
}  # fmt: skip


def describe(value: Value) -> str:
    """What a value is, in words."""
    if isinstance(value, Scalar):
        return f"the number {value.const}" if value.const is not None else "a number"
    return _NAMES[value.region] + (" or NULL" if value.null else "")


def cold_and_warm(insn: Insn, access: Access | None) -> tuple[int, int]:
    """Cost of one instruction: cold, an access that is neither on the stack nor in the context misses the cache."""
    warm = insn_cost(insn)
    far = access is not None and access.region not in ("stack", "ctx")
    return warm + (MISS if far else 0), warm
