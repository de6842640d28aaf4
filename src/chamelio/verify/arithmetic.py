"""Arithmetic and comparisons: on numbers, whose domain is `scalar`, and on addresses."""

from __future__ import annotations

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn
from chamelio.verify import scalar as s
from chamelio.verify.demand import Demand, Shown
from chamelio.verify.forms import Form
from chamelio.verify.memory import MOVABLE, PACKETS
from chamelio.verify.scalar import UNKNOWN, Scalar, const
from chamelio.verify.subject import Refused, Subject, bit
from chamelio.verify.values import Pointer, State, Value
from chamelio.verify.words import describe, span

MAX_OFFSET = 1 << 29  # of pointers; far from wrapping, and from what a region can hold
SIGNED, UNSIGNED, EITHER = -1, -2, -3  # of State.shifts: what was shifted up by 32 fits so into 32 bits
MAX_FORMS = 16
MAX_SHIFTS = 8  # numbers known to be others, shifted
MAX_ROOMS = 8  # distances to the packet's end that a state remembers
DISTANT = (*PACKETS, "packet_end", "stale")  # differences of these say how long a packet is, or was

_SWAPPED = {
    bpf.JEQ: bpf.JEQ, bpf.JNE: bpf.JNE, bpf.JGT: bpf.JLT, bpf.JLT: bpf.JGT, bpf.JGE: bpf.JLE, bpf.JLE: bpf.JGE,
}  # fmt: skip

Place = tuple[int, int, int]  # as Demand.branch has it


class Arithmetic:
    """ALU instructions and conditional jumps of one program."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.facts = subject, subject.facts

    # ---- ALU -----------------------------------------------------------------------------------------------------------

    def alu(self, state: State, pc: int, insn: Insn) -> None:
        """ALU and ALU64 instructions."""
        bits = 64 if insn.cls == bpf.ALU64 else 32
        op = insn.op & 0xF0
        subject = self.subject
        if op == bpf.END:
            value = subject.number(state, insn.dst, "a byte swap")
            little = insn.cls == bpf.ALU and not insn.op & bpf.X
            result = s.truncate(value, insn.imm) if little else s.swap_bytes(value, insn.imm)
            if value.umax >> insn.imm or not little or result.hard != value.hard:
                result = result._replace(ident=0)
        elif op == bpf.NEG:
            result = s.arithmetic(bpf.SUB, bits, const(0), subject.number(state, insn.dst, "negation"))
        else:
            operand: Value
            if insn.op & bpf.X:
                operand = subject.get(state, insn.src, stale=op in (bpf.MOV, bpf.SUB))
            else:
                operand = const(insn.imm if bits == 64 else insn.imm & s.U32)
            if op == bpf.MOV:
                state.regs[insn.dst] = self._move(state, insn, bits, operand)
                subject.effects.append(pc)
                return
            target = subject.get(state, insn.dst, stale=op == bpf.SUB)
            if isinstance(target, Pointer) or isinstance(operand, Pointer):
                self._with_addresses(state, pc, insn, bits, op, target, operand)
                return
            result = self._numbers(state, pc, insn, bits, op, target, operand)
        state.regs[insn.dst] = result
        subject.effects.append(pc)

    def _numbers(self, state: State, pc: int, insn: Insn, bits: int, op: int, target: Scalar, operand: Scalar) -> Scalar:
        if insn.op & bpf.X:
            self.facts.unmaskable.add(pc)  # perhaps an address on another path, but here any number
            if insn.dst == insn.src and op in (bpf.SUB, bpf.XOR):
                return const(0)
        result = s.arithmetic(op, bits, target, operand, insn.off)
        if not result.mask or not target.ident:
            return result
        if op in (bpf.LSH, bpf.ARSH, bpf.RSH) and operand.const is not None:
            result = self._shifted(state, op, bits, target, operand.const & (bits - 1), result)
        if op in (bpf.MUL, bpf.RSH, bpf.ADD, bpf.SUB):
            result = self._formed(state, op, bits, target, operand, result)
        if op in (bpf.ADD, bpf.SUB) and operand.mask == 0:
            by = operand.smin if bits == 64 else s.extend_sign(operand, 32).smin
            by = by if op == bpf.ADD else -by
            if abs(by) >= MAX_OFFSET or (bits == 32 and not 0 <= target.umin + by <= target.umax + by <= s.U32):
                return result
            root, delta = state.root(target.ident)
            if not result.ident:
                result = result._replace(ident=state.number())
            state.links[result.ident] = root, delta + by
            room = state.rooms.get(target.ident)
            if room is not None:
                self._remember(state, result.ident, room[0], room[1] - by)
        return result

    @staticmethod
    def _shifted(state: State, op: int, bits: int, target: Scalar, by: int, result: Scalar) -> Scalar:
        """What a shift by a constant has to do with what was shifted."""
        source, before = state.shifts.get(target.ident, (0, 0))
        if op != bpf.LSH and bits == 64 and by == 32 and before in (EITHER, SIGNED if op == bpf.ARSH else UNSIGNED):
            return result._replace(ident=source)  # up and down again: it is what it was
        relation = 0
        if op == bpf.RSH and by and (bits == 64 or target.umax <= s.U32):
            relation = by
        elif op == bpf.LSH and bits == 64 and by == 32:
            signed, unsigned = -(1 << 31) <= target.smin <= target.smax < 1 << 31, target.umax <= s.U32
            relation = EITHER if signed and unsigned else SIGNED if signed else UNSIGNED if unsigned else 0
        if relation and len(state.shifts) < MAX_SHIFTS:
            result = result._replace(ident=state.number())
            state.shifts[result.ident] = target.ident, relation
        return result

    @staticmethod
    def _formed(state: State, op: int, bits: int, target: Scalar, operand: Scalar, result: Scalar) -> Scalar:
        """What a result is of the number that the operands are of, if that is one, and what follows for its bounds."""

        def form_of(v: Scalar) -> Form | None:
            return state.forms.get(v.ident, Form(v.ident, v.umax)) if v.ident else None

        mine, theirs, n = form_of(target), form_of(operand), operand.const
        form: Form | None = None
        if mine is None or len(state.forms) >= MAX_FORMS:
            return result
        ends = 0, 0  # of the result, if it does not wrap
        if op == bpf.MUL:
            form = mine.times(n) if n is not None else None
            ends = target.umin * operand.umin, target.umax * operand.umax
        elif op == bpf.RSH:
            form = mine.shifted(n & (bits - 1)) if n is not None else None
            ends = 0, target.umax
        else:
            sign = 1 if op == bpf.ADD else -1
            if n is not None:  # constant differences are known otherwise; of a form they are a form
                form = mine.plus(sign * n) if target.ident in state.forms and n < 1 << 31 else None
            elif theirs is not None:
                form = mine.sum(theirs, sign)
            changes = sorted((sign * operand.umin, sign * operand.umax))
            ends = target.umin + changes[0], target.umax + changes[1]
        if form is None or not form.fits or (bits == 32 and max(target.umax, operand.umax) > s.U32):
            return result
        low, high = form.bounds()
        low, high = max(low, ends[0]), min(high, ends[1])
        if low < 0 or high >> bits:
            return result  # it may have wrapped
        for compare, bound in ((bpf.JGE, low), (bpf.JLE, high)):
            found = s.assume(compare, 64, result, const(bound), True)
            result = found[0] if found is not None else result
        if not result.ident:
            result = result._replace(ident=state.number())
        state.forms[result.ident] = form
        return result

    def _move(self, state: State, insn: Insn, bits: int, operand: Value) -> Value:
        if isinstance(operand, Pointer):
            if bits == 32 and not insn.off and operand.region in DISTANT:
                return operand._replace(half=True)
            if bits == 32 or insn.off:
                raise Refused("V114", f"part of {describe(operand)} is moved", "a pointer is moved whole or not at all")
            return operand
        if insn.off and operand.umax >> (insn.off - 1):
            value = s.extend_sign(operand, insn.off)
            return (s.truncate(value, 32) if bits == 32 else value)._replace(ident=0)
        if bits == 32 and operand.umax > s.U32:
            return s.truncate(operand, 32)._replace(ident=0)
        if operand.mask and not operand.ident and insn.op & bpf.X:  # a copy: what narrows one narrows the other
            operand = state.regs[insn.src] = operand._replace(ident=state.number())
        return operand

    # ---- addresses ---------------------------------------------------------------------------------------------------------

    def _with_addresses(self, state: State, pc: int, insn: Insn, bits: int, op: int, target: Value, operand: Value) -> None:
        sources = bit(insn.dst) | (bit(insn.src) if insn.op & bpf.X else 0)
        if isinstance(target, Pointer) and isinstance(operand, Pointer):
            self.facts.unmaskable.add(pc)  # perhaps a number on another path, but here an address that must stay what it is
            state.regs[insn.dst] = self._difference(state, bits, op, target, operand)
            self.subject.effects.append((Demand.distance, bit(insn.dst), sources))
            return
        swapped = isinstance(target, Scalar)
        pointer, number = (operand, target) if swapped else (target, operand)
        assert isinstance(pointer, Pointer) and isinstance(number, Scalar)
        if swapped and (op not in (bpf.ADD, bpf.OR) or bits != 64):
            raise Refused("V114", "a number is combined with a pointer", "only adding is possible")
        if op == bpf.OR and bits == 64 and self._disjoint(pointer, number):
            op = bpf.ADD
        if op not in (bpf.ADD, bpf.SUB) or bits != 64:
            raise Refused(
                "V114", f"an operation on {describe(pointer)}", "pointers can be added to and subtracted from, 64 bits wide"
            )
        if pointer.half or (pointer.region not in MOVABLE and pointer.region != "ctx"):
            raise Refused("V114", f"arithmetic on {describe(pointer)}", "it can only be compared or passed on")
        if pointer.region not in MOVABLE and not (pointer.region == "ctx" and number.mask == 0):
            raise Refused("V114", f"arithmetic on {describe(pointer)}", "it can only be compared or passed on")
        if pointer.null and number.const is None:
            raise Refused("V108", "arithmetic on a value that may be NULL", "it has not been compared with NULL on this path")
        if insn.op & bpf.X:
            self.facts.note_mask(pc, number, source=not swapped)
        by = s.sub(const(0), number) if op == bpf.SUB else number
        moved = self._offset(state, pointer, by)
        state.regs[insn.dst] = moved
        made = moved.var if moved.var > 0 and moved.var != pointer.var else 0
        left = state.proven_bytes(pointer.var) - by.smax if made else 0
        if left > 0:  # of what is proven behind the old base, at least that lies behind the new one
            state.prove(made, left)
        self.subject.effects.append((Demand.address, bit(insn.dst), sources, made, pointer.var, by.smax))

    @staticmethod
    def _disjoint(pointer: Pointer, number: Scalar) -> bool:
        """Whether a number has only bits that a stack address has not, so that or-ing them is adding: frames begin at 8 bytes."""
        aligned = pointer.region == "stack" and not pointer.half and pointer.off % 8 == 0 and pointer.step % 8 == 0
        return aligned and number.umax < 8

    def _difference(self, state: State, bits: int, op: int, a: Pointer, b: Pointer) -> Scalar:
        if op != bpf.SUB:
            raise Refused("V114", f"{describe(a)} and {describe(b)} are combined", "two pointers can only be subtracted")
        if (a.half or b.half) and bits == 64:
            raise Refused("V114", f"{describe(a)} and {describe(b)} are combined", "the difference of halves has 32 bits")
        if a.region == "packet_end" and b.region == "packet":
            return s.truncate(self._distance_to_end(state, b), bits)
        if a.region in DISTANT and b.region in DISTANT and (a.region == "stale" or not a.same_object(b)):
            return s.truncate(UNKNOWN, bits)
        if not a.same_object(b) or a.null or b.null or a.region not in MOVABLE:
            raise Refused("V114", f"{describe(a)} and {describe(b)} are combined", "they are not addresses within one object")
        if a.var == b.var and (a.var or (a.vmin == a.vmax and b.vmin == b.vmax)):
            return s.truncate(const(a.off + a.vmin - b.off - b.vmin), bits)
        found = s.settle(0, s.U64, 0, s.U64, a.off + a.vmin - b.off - b.vmax, a.off + a.vmax - b.off - b.vmin)
        assert found is not None
        return s.truncate(found, bits)

    def _distance_to_end(self, state: State, b: Pointer) -> Scalar:
        """Bytes from a packet address to the packet's end."""
        longest = self.subject.context.packet_max
        if b == Pointer("packet"):
            number = s.unsigned(0, longest)
        else:
            found = s.settle(0, s.U64, 0, s.U64, -(b.off + b.vmax), longest - (b.off + b.vmin))
            assert found is not None
            number = found
        if number.const is None and abs(b.off) < MAX_OFFSET:
            number = number._replace(ident=state.number())
            self._remember(state, number.ident, b.var, b.off)
        return number

    @staticmethod
    def _remember(state: State, ident: int, var: int, off: int) -> None:
        """A number is known to be the distance from an address to the packet's end."""
        if len(state.rooms) >= MAX_ROOMS:
            del state.rooms[next(iter(state.rooms))]
        state.rooms[ident] = var, off

    @staticmethod
    def _offset(state: State, pointer: Pointer, by: Scalar) -> Pointer:
        if by.const is not None:
            moved = pointer._replace(off=pointer.off + by.smin)
        else:
            low, high = by.smin, by.smax
            if high - low > MAX_OFFSET or not -MAX_OFFSET < low <= high < MAX_OFFSET:
                raise Refused(
                    "V114", "an unbounded number is added to a pointer",
                    f"the number lies in {span(low, high)}; compare it with its limit before",
                )  # fmt: skip
            moved = pointer._replace(
                vmin=pointer.vmin + low,
                vmax=pointer.vmax + high,
                var=state.number() if pointer.region in PACKETS else 0,
                step=min(pointer.step, 1 << s.trailing_zeros(by)),
            )
        if not -MAX_OFFSET < moved.off + moved.vmin <= moved.off + moved.vmax < MAX_OFFSET:
            raise Refused(
                "V114", "a pointer moves too far", f"its offset would be {span(moved.off + moved.vmin, moved.off + moved.vmax)}"
            )
        return moved

    # ---- comparisons -----------------------------------------------------------------------------------------------------

    def outcomes(self, state: State, pc: int, insn: Insn) -> list[tuple[bool, State, tuple[Place, ...], Shown | None]]:
        """Ways that a conditional jump can go: whether it is taken, the state then, which places became narrower (as
        `Demand.branch` has them), and which packet bytes were proven."""
        bits = 64 if insn.cls == bpf.JMP else 32
        op = insn.op & 0xF0
        a = self.subject.get(state, insn.dst)
        b = self.subject.get(state, insn.src) if insn.op & bpf.X else const(insn.imm if bits == 64 else insn.imm & s.U32)
        out = []
        for holds in (True, False):
            if isinstance(a, Scalar) and isinstance(b, Scalar) and s.assume(op, bits, a, b, holds) is None:
                continue
            new = state.copy() if holds else state
            found = self._assume(new, insn, op, bits, a, b, holds)
            if found is not None:
                out.append((holds, new, *found))
        return out

    def _assume(
        self, state: State, insn: Insn, op: int, bits: int, a: Value, b: Value, holds: bool
    ) -> tuple[tuple[Place, ...], Shown | None] | None:
        """Narrow a state by a comparison's outcome. None: that cannot happen."""
        if isinstance(a, Scalar) and isinstance(b, Scalar):
            if insn.op & bpf.X and (insn.dst == insn.src or (a.ident and a.ident == b.ident)):
                equal = op in (bpf.JEQ, bpf.JGE, bpf.JLE, bpf.JSGE, bpf.JSLE)
                if op != bpf.JSET:
                    return ((), None) if holds == equal else None
            found = s.assume(op, bits, a, b, holds)
            if found is None:
                return None
            places: list[Place] = []
            proven = None
            if found[0] != a:
                proven = self._narrow(state, insn.dst, a, found[0], places)
            if insn.op & bpf.X and found[1] != b:
                proven = self._narrow(state, insn.src, b, found[1], places) or proven
            return tuple(places), proven
        distant = isinstance(a, Pointer) and isinstance(b, Pointer) and a.region in DISTANT and b.region in DISTANT
        if distant and op != bpf.JSET and (bits == 32 or (a.half and b.half)):
            return (), None  # it says nothing of the whole addresses
        if bits != 64 or (isinstance(a, Pointer) and a.half) or (isinstance(b, Pointer) and b.half):
            raise Refused("V114", "half a pointer is compared", "pointers are compared 64 bits wide")
        if isinstance(a, Pointer) and isinstance(b, Pointer):
            return self._assume_addresses(state, op, a, b, holds)
        pointer, number = (a, b) if isinstance(a, Pointer) else (b, a)
        assert isinstance(pointer, Pointer) and isinstance(number, Scalar)
        if (
            number.const != 0
            or op not in (bpf.JEQ, bpf.JNE, bpf.JGT, bpf.JLE)
            or (op not in (bpf.JEQ, bpf.JNE) and pointer is not a)
        ):
            raise Refused(
                "V114",
                f"{describe(pointer)} is compared with {describe(number)}",
                "pointers are compared with NULL or the packet's end",
            )
        is_null = holds == (op in (bpf.JEQ, bpf.JLE))
        if not pointer.null:
            # in a hook that has no packet or no entry, the context's pointers are NULL
            possible = self.subject.context.runs and pointer.region.startswith(("packet", "entry"))
            return None if is_null and not possible else ((), None)
        name = pointer.null
        if pointer.off:  # an address beside it, which is never 0
            return None if is_null else ((), None)
        if is_null:
            state.replace_all(lambda v: const(v.off) if isinstance(v, Pointer) and v.null == name else v)
            if pointer.ref:
                state.refs = tuple(ref for ref in state.refs if ref != pointer.ref)
        else:
            state.replace_all(lambda v: v._replace(null=0) if isinstance(v, Pointer) and v.null == name else v)
        return (), None

    def _narrow(self, state: State, reg: int, old: Scalar, new: Scalar, places: list[Place]) -> Shown | None:
        """A register's number is known better; so are its copies and what is a constant more or less than it."""
        state.regs[reg] = new
        places.append((-1, bit(reg), 0))
        if not old.ident:
            return None
        root, delta = state.root(old.ident)
        by_ident: dict[int, Scalar | None] = {old.ident: new}

        def narrower(v: Value | None) -> Value | None:
            """What a linked number is now; None: nothing new."""
            if not isinstance(v, Scalar) or not v.ident:
                return None
            if v.ident not in by_ident:
                its_root, its_delta = state.root(v.ident)
                found = None
                if its_root == root:
                    found = s.assume(bpf.JEQ, 64, v, s.add(new, const(its_delta - delta)), True)
                by_ident[v.ident] = found[0] if found else None
            return by_ident[v.ident]

        for i, v in enumerate(state.regs):
            better = narrower(v)
            if better is not None:
                state.regs[i] = better
                places.append((-1, bit(i), 0))
        for n, frame in enumerate(state.frames):
            for i, v in enumerate(frame.saved):
                better = narrower(v)
                if better is not None:
                    frame.saved = (*frame.saved[:i], better, *frame.saved[i + 1 :])
                    places.append((n, 1 << i + 6, 0))
            for at, (size, v) in list(frame.spills.items()):
                better = narrower(v)
                if better is not None:
                    frame.spills[at] = size, better
                    places.append((n, 0, ((1 << size) - 1) << at))
        for ident, (source, n) in state.shifts.items():
            shifted = by_ident.get(ident) if n > 0 else None
            if shifted is not None and by_ident.get(source) is None:
                self._narrow_source(state, source, shifted, n, places)
        proven = None
        for ident, (var, off) in state.rooms.items():
            known = by_ident.get(ident)
            if known is not None and known.smin > 0:
                state.prove(var, off + known.smin)
                proven = Shown(var, off + known.smin)
        return proven

    @staticmethod
    def _narrow_source(state: State, source: int, shifted: Scalar, n: int, places: list[Place]) -> None:
        """Of a number without its low bits more is known; so is of the number."""
        low, high = shifted.umin << n, (shifted.umax << n) + (1 << n) - 1
        if high > s.U64:
            return

        def narrower(v: Value | None) -> Value | None:
            if not isinstance(v, Scalar) or v.ident != source:
                return None
            found = s.settle(v.value, v.mask, max(v.umin, low), min(v.umax, high), v.smin, v.smax, v.ident, v.hard)
            return found

        for i, v in enumerate(state.regs):
            better = narrower(v)
            if better is not None:
                state.regs[i] = better
                places.append((-1, bit(i), 0))
        for n_frame, frame in enumerate(state.frames):
            for at, (size, v) in list(frame.spills.items()):
                better = narrower(v)
                if better is not None:
                    frame.spills[at] = size, better
                    places.append((n_frame, 0, ((1 << size) - 1) << at))

    def _assume_addresses(
        self, state: State, op: int, a: Pointer, b: Pointer, holds: bool
    ) -> tuple[tuple[Place, ...], Shown | None] | None:
        swap = (a.region.endswith("_end") and not b.region.endswith("_end")) or (a.region == "packet" and b.region == "packet_meta")
        if swap and op in _SWAPPED:
            a, b, op = b, a, _SWAPPED[op]
        ends = (a.region, b.region) in (("packet", "packet_end"), ("entry", "entry_end"))
        if (a.region, b.region) == ("packet_meta", "packet") and b == Pointer("packet"):
            ends = True
        if ends and op in _SWAPPED:
            if a.region == "entry":
                return (), None  # the entry's size is known without it
            inside = {bpf.JGT: not holds, bpf.JGE: not holds, bpf.JLT: holds, bpf.JLE: holds}.get(op, False)
            strict = (op == bpf.JGE and not holds) or (op == bpf.JLT and holds)
            if not inside:
                return (), None
            end = a.off + (1 if strict else 0)
            if end <= state.proven_bytes(a.var):
                return (), None
            state.prove(a.var, end)
            return (), Shown(a.var, end)
        if op not in (bpf.JEQ, bpf.JNE) and op not in _SWAPPED:
            raise Refused("V114", f"{describe(a)} is compared with {describe(b)}", "addresses have an order, no sign and no bits")
        if a.region in MOVABLE and a.same_object(b) and not a.null and not b.null:
            x, y = a.off + a.vmin, b.off + b.vmin
            wraps = self.subject.context.runs and a.region in ("packet", "entry") and min(x, y) < 0  # they may be NULL
            if a.var == b.var and (a.var or (a.vmin == a.vmax and b.vmin == b.vmax)) and (op in (bpf.JEQ, bpf.JNE) or not wraps):
                x, y = x + 2 * MAX_OFFSET, y + 2 * MAX_OFFSET  # as far apart, and as addresses in that none is below another's zero
                return None if s.assume(op, 64, const(x), const(y), holds) is None else ((), None)
            return (), self._within(state, op, a, b, holds) if a.region in PACKETS and not wraps else None
        if op in (bpf.JEQ, bpf.JNE) and a.region == b.region:
            return (), None
        raise Refused("V114", f"{describe(a)} is compared with {describe(b)}", "they are not within one object")

    @staticmethod
    def _within(state: State, op: int, a: Pointer, b: Pointer, holds: bool) -> Shown | None:
        """An address that is not beyond another one, up to which the packet is proven, lies within the packet, too."""
        if op in (bpf.JEQ, bpf.JNE):
            return None
        a_first = holds == (op in (bpf.JLT, bpf.JLE))
        first, last = (a, b) if a_first else (b, a)
        strict = holds == (op in (bpf.JLT, bpf.JGT))
        end = first.off + (1 if strict else 0)
        if last.off > state.proven_bytes(last.var) or end <= state.proven_bytes(first.var):
            return None
        state.prove(first.var, end)
        return Shown(first.var, end, (last.var, last.off))
