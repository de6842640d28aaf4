"""Calls of helpers: what their arguments must be, what they change, return and cost."""

from __future__ import annotations

from typing import Any, NamedTuple

from chamelio.bpf.insn import Insn
from chamelio.bpf.maps import MapDef
from chamelio.verify import scalar as s
from chamelio.verify.catalogue import MAP_READ_ONLY, PACKET_MAX, Arg, Helper
from chamelio.verify.cost import price
from chamelio.verify.demand import Demand
from chamelio.verify.kernel import SOCKETS, UNSUPPORTED, helper_names
from chamelio.verify.kernel.helpers import CHANGES_MAP, PACKET_ACCESS
from chamelio.verify.kernel.maps import MAPS as KERNEL_MAPS
from chamelio.verify.memory import MOVABLE, PACKETS, Memory
from chamelio.verify.scalar import UNKNOWN, Scalar
from chamelio.verify.subject import Refused, Subject
from chamelio.verify.values import STACK_BYTES, Pointer, State, Value
from chamelio.verify.words import count_bytes, describe, span

MAX_LENGTH = 1 << 29
TAIL_CALL = 12


class Callback(NamedTuple):
    """A function that a helper calls: where it begins, its r1..r5 in every turn, and how often it runs at most."""

    start: int
    arguments: tuple[Value | None, ...]
    times: int


class _Effect:
    """What a call means for a demand."""

    def __init__(self) -> None:
        self.reads = self.exact = 0
        self.stacks: list[tuple[int, int, bool]] = []
        self.needs: list[tuple[int, int]] = []

    def record(self, ends: bool) -> tuple[Any, ...]:
        stacks = sorted(self.stacks, key=lambda item: not item[2])  # going back, what is written first
        return Demand.helper, self.reads, self.exact, stacks, self.needs, ends


class Calls:
    """Helper calls of one program."""

    def __init__(self, subject: Subject, memory: Memory) -> None:
        self.subject, self.memory = subject, memory
        self.maps, self.context = subject.obj.maps, subject.context

    def helper(self, state: State, pc: int, insn: Insn) -> tuple[int, int, Callback | None]:
        """A call; returns its cost, cold and warm, in cycles, and the function that it calls in turn, if it does."""
        helper = self.context.helpers.get(insn.imm)
        if helper is None:
            raise self._no_such(insn.imm)
        effect = _Effect()
        written: list[tuple[Pointer, int, int]] = []
        index, m, callback = self._arguments(state, pc, helper, effect, written)
        cold, warm = self._price(state, helper, m)
        if helper.length_arg:
            effect.exact |= 1 << helper.length_arg
        arguments = state.regs[1:6]
        for p, length, surely in written:
            frame, at = state.frames[p.frame], p.off + p.vmin + STACK_BYTES
            frame.forget(at, length)
            if surely:
                frame.write(at, surely, UNKNOWN)
        if helper.releases is not None:
            self._release(state, helper, helper.releases)
        if helper.invalidates_packet and not self.is_tail_call(insn):
            self.end_packet(state, pc)
        state.regs[1:6] = [None] * 5
        state.regs[0] = self._returned(state, helper, index, m, arguments)
        self.subject.effects.append(effect.record(helper.invalidates_packet and not self.is_tail_call(insn)))
        return cold, warm, callback

    def is_tail_call(self, insn: Insn) -> bool:
        """Whether an instruction goes on with another program."""
        return insn.is_call and insn.src == 0 and insn.imm == TAIL_CALL and not self.context.runs

    @staticmethod
    def end_packet(state: State, pc: int) -> None:
        """The packet is changed: what was an address in it is none any more."""
        state.replace_all(
            lambda v: Pointer("stale", half=v.half) if isinstance(v, Pointer) and v.region in (*PACKETS, "packet_end") else v
        )
        state.proven.clear()
        state.rooms.clear()
        state.touched.pop(0, None)
        state.ended = pc

    def _no_such(self, number: int) -> Refused:
        if not self.context.runs and number in helper_names:
            what = UNSUPPORTED.get(number)
            reason = (
                f"it is about {what}, which are not supported"
                if what
                else f"programs of type {self.context.name} have no such helper"
            )
            return Refused("V121", f"bpf_{helper_names[number]} is called", reason)
        return Refused("V121", f"helper {number} is called", "there is no helper of that number for this kind of program")

    # ---- arguments ---------------------------------------------------------------------------------------------------

    def _arguments(
        self, state: State, pc: int, helper: Helper, effect: _Effect, written: list[tuple[Pointer, int, int]]
    ) -> tuple[int | None, MapDef | None, Callback | None]:
        index: int | None = None
        m: MapDef | None = None
        callback: Callback | None = None
        for reg, arg in enumerate(helper.args, 1):
            value = self.subject.get(state, reg)
            effect.reads |= 1 << reg
            match arg.kind:
                case "map":
                    index, m = self._map(pc, helper, reg, arg, value)
                case "ctx":
                    if arg.nullable and isinstance(value, Scalar) and value.const == 0:
                        effect.exact |= 1 << reg
                    elif value != Pointer("ctx"):
                        raise _wrong(helper, reg, arg, value, "the context as the handler got it")
                case "scalar":
                    if isinstance(value, Pointer):
                        raise _wrong(helper, reg, arg, value, "a number")
                case "constant":
                    if not isinstance(value, Scalar) or value.const is None:
                        raise _wrong(helper, reg, arg, value, "one number, whatever the path")
                    effect.exact |= 1 << reg
                case "size" | "size_or_zero":
                    effect.exact |= 1 << reg
                case "sock" | "allocated":
                    regions = SOCKETS if arg.kind == "sock" else ("allocated",)
                    if not isinstance(value, Pointer) or value.region not in regions or value.off or value.vmin != value.vmax:
                        raise _wrong(helper, reg, arg, value, f"{describe(Pointer(arg.kind))}, as it was given")
                    if value.null:
                        raise self._may_be_null(helper, reg, arg)
                case "stack_or_null":
                    zero = isinstance(value, Scalar) and value.const == 0
                    effect.exact |= 1 << reg
                    if not zero and not (isinstance(value, Pointer) and value.region == "stack"):
                        raise _wrong(helper, reg, arg, value, "an address on the stack, or 0")
                case "text":
                    self._text(helper, reg, arg, value)
                case "callback":
                    if not isinstance(value, Pointer) or value.region != "function":
                        raise _wrong(helper, reg, arg, value, "a function of the program")
                    callback = self._callback(state, helper, value.off, index)
                case _:
                    self._memory(state, helper, reg, arg, value, m, effect, written)
        return index, m, callback

    @staticmethod
    def _may_be_null(helper: Helper, reg: int, arg: Arg) -> Refused:
        return Refused("V108", f"{helper.name}: argument {reg} ({arg.name}) may be NULL", "compare it with NULL before")

    def _map(self, pc: int, helper: Helper, reg: int, arg: Arg, value: Value) -> tuple[int, MapDef]:
        if not isinstance(value, Pointer) or value.region not in ("map", "inner_map"):
            raise _wrong(helper, reg, arg, value, "a map")
        if value.null:
            raise self._may_be_null(helper, reg, arg)
        assert value.map is not None
        m = self.maps[value.map]
        facts = self.subject.facts
        if value.region == "inner_map":
            assert m.inner is not None
            m = m.inner
        known = KERNEL_MAPS.get(m.kind)
        if not self.context.runs and known is not None and known.unsupported:
            raise Refused("V140", f"map {m.name} is of kind {known.name}", f"{known.unsupported}: not supported")
        if not self.context.runs and helper.id in CHANGES_MAP and m.attrs.get("map_flags", 0) & MAP_READ_ONLY:
            raise Refused("V113", f"{helper.name}: map {m.name} is changed", "its flags forbid that to programs")
        if facts.map_args.setdefault(pc, value.map) != value.map:
            facts.map_args[pc] = None
        if arg.maps and m.kind not in arg.maps:
            raise Refused(
                "V120",
                f"{helper.name}: map {m.name} is of another kind",
                "see the helper's declaration for the kinds that it takes",
            )
        return value.map, m

    def _text(self, helper: Helper, reg: int, arg: Arg, value: Value) -> None:
        if isinstance(value, Pointer) and value.region == "data" and value.vmin == value.vmax:
            assert value.map is not None
            m = self.maps[value.map]
            if m.read_only and m.data is not None and 0 <= value.off <= len(m.data) and b"\0" in m.data[value.off :]:
                return
        raise _wrong(helper, reg, arg, value, "constant text that ends in a zero byte")

    def _memory(
        self, state: State, helper: Helper, reg: int, arg: Arg, value: Value, m: MapDef | None, effect: _Effect,
        written: list[tuple[Pointer, int, int]],
    ) -> None:  # fmt: skip
        low, high = self._length(state, helper, reg, arg, m)
        if arg.nullable and isinstance(value, Scalar) and value.const == 0:
            effect.exact |= 1 << reg
            if high and not arg.size and arg.kind in ("read", "write", "read_write"):
                raise Refused(
                    "V120", f"{helper.name}: argument {reg} ({arg.name}) is NULL, but has {span(low, high)} bytes",
                    "with a length of 0 only it can be left out",
                )  # fmt: skip
            return
        if not isinstance(value, Pointer) or value.region not in MOVABLE:
            raise _wrong(helper, reg, arg, value, f"the address of {count_bytes(high)}")
        if value.null:
            if arg.nullable and high == 0:
                return
            raise self._may_be_null(helper, reg, arg)
        if value.region == "map_value" and self.memory.is_shared(value):
            raise Refused(
                "V122", f"{helper.name}: argument {reg} ({arg.name}) lies in shared memory", "it could change while it is used"
            )
        if high == 0:
            return
        writes = arg.kind in ("write", "value_out", "read_write")
        reads = arg.kind not in ("write", "value_out")
        self.memory.check(state, value, high, writes)
        if value.region == "stack":
            if reads:
                self.memory.check(state, value, high, False)
            at, length = value.off + value.vmin + STACK_BYTES, value.vmax - value.vmin + high
            if reads and state.frames[value.frame].holds_pointer(at, length):
                raise Refused(
                    "V112", f"{helper.name}: argument {reg} ({arg.name}) contains an address", "it would leave the handler"
                )
            surely = low if value.vmin == value.vmax else 0  # bytes that are written whatever the length
            if writes:
                written.append((value, length, surely))
            if reads:
                effect.stacks.append((value.frame, self.memory.stack_bits(value, high), False))
            elif surely:
                effect.stacks.append((value.frame, ((1 << surely) - 1) << at, True))
        elif value.region in PACKETS:
            if not self.context.runs and helper.id not in PACKET_ACCESS:
                raise _wrong(helper, reg, arg, value, "memory other than the packet")
            effect.needs.append((value.var, value.off + high))

    def _length(self, state: State, helper: Helper, reg: int, arg: Arg, m: MapDef | None) -> tuple[int, int]:
        """Fewest and most bytes of an argument in memory."""
        if arg.kind in ("key", "value", "entry", "value_out"):
            assert m is not None
            size = m.key_size if arg.kind == "key" else m.value_size
            return size, size
        if arg.size:
            return arg.size, arg.size
        number = self.subject.get(state, reg + 1)
        follows = helper.args[reg]
        if isinstance(number, Pointer):
            raise _wrong(helper, reg + 1, follows, number, "a number of bytes")
        if number.umax > MAX_LENGTH or (number.umin == 0 and follows.kind == "size"):
            least = 0 if follows.kind == "size_or_zero" else 1
            raise Refused(
                "V120", f"{helper.name}: argument {reg + 1} ({follows.name}) lies in {span(number.umin, number.umax)}",
                f"a length must be shown to be at least {least} and within the memory that it is of",
            )  # fmt: skip
        return number.umin, number.umax

    def _callback(self, state: State, helper: Helper, start: int, index: int | None) -> Callback:
        """What a helper gives the function that it calls, by its own other arguments."""
        if index is not None:  # for each element of a map
            m = self.maps[index]
            key = Pointer("map_key", index, limit=m.key_size, object=state.number())
            value = Pointer("map_value", index, object=state.number())
            return Callback(start, (Pointer("map", index), key, value, self.subject.get(state, 3), None), max(1, m.max_entries))
        number = self.subject.number(state, 1, helper.name)
        most = min(s.truncate(number, 32).umax, 1 << 23)
        turn = s.unsigned(0, max(0, most - 1))
        return Callback(start, (turn, self.subject.get(state, 3), None, None, None), max(1, most))

    # ---- results -------------------------------------------------------------------------------------------------------

    def _release(self, state: State, helper: Helper, reg: int) -> None:
        value = state.regs[reg]
        assert isinstance(value, Pointer)
        if value.ref not in state.refs:
            raise Refused(
                "V117", f"{helper.name}: argument {reg} was not acquired", "only what a helper has handed out is given back"
            )
        state.refs = tuple(ref for ref in state.refs if ref != value.ref)
        state.replace_all(lambda v: None if isinstance(v, Pointer) and v.ref == value.ref else v)

    @staticmethod
    def _allocated_size(arguments: list[Value | None], helper: Helper) -> int:
        for value, arg in zip(arguments, helper.args, strict=False):
            if arg.kind == "constant":
                assert isinstance(value, Scalar) and value.const is not None
                return value.const
        return 0

    def _returned(
        self, state: State, helper: Helper, index: int | None, m: MapDef | None, arguments: list[Value | None]
    ) -> Value | None:
        if helper.ret == "void":
            return None
        size = self._allocated_size(arguments, helper)
        if helper.ret == "scalar":
            return UNKNOWN
        region = helper.ret.removesuffix("_or_null")
        object_, null = state.number(), state.number() if region != helper.ret else 0
        ref = 0
        if helper.acquires:
            ref = state.number()
            state.refs = (*state.refs, ref)
        elif region in SOCKETS:  # a view of what the argument is
            ref = next((v.ref for v in arguments if isinstance(v, Pointer)), 0)
        if region == "map_value":
            assert index is not None and m is not None
            if m is not self.maps[index]:
                return Pointer("allocated", null=null, object=object_, limit=m.value_size)
            looked_up = "value" if self.context.runs or m.kind not in KERNEL_MAPS else KERNEL_MAPS[m.kind].lookup or "value"
            if looked_up == "map":
                return Pointer("inner_map", index, null=null, object=object_) if m.inner is not None else UNKNOWN
            if looked_up == "sock":
                ref = state.number()
                state.refs = (*state.refs, ref)
            if looked_up != "value":
                return Pointer(looked_up, null=null, object=object_, ref=ref)
            return Pointer("map_value", index, null=null, object=object_)
        return Pointer(region, null=null, object=object_, limit=size, ref=ref)

    # ---- cost -------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _price(state: State, helper: Helper, m: MapDef | None) -> tuple[int, int]:
        length = 0
        if helper.length_arg:
            value = state.regs[helper.length_arg]
            assert isinstance(value, Scalar)
            # beyond the longest packet a helper refuses; it is priced as what it could do at most
            length = min(s.truncate(value, 32).umax, PACKET_MAX)
        return price(helper, length, m)


def _wrong(helper: Helper, reg: int, arg: Arg, value: Value, wanted: str) -> Refused:
    return Refused("V120", f"{helper.name}: argument {reg} ({arg.name}) is {describe(value)}", f"it must be {wanted}")
