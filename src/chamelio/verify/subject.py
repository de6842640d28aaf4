"""What is being verified, and what is found out about it: shared by all that executes its instructions abstractly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn
from chamelio.bpf.object import Object
from chamelio.jit.layout import RING_IN
from chamelio.verify.catalogue import Context
from chamelio.verify.demand import ALL_REGS, Effect
from chamelio.verify.proof import Access, Mask
from chamelio.verify.scalar import Scalar
from chamelio.verify.values import Pointer, State, Value
from chamelio.verify.words import describe


class Refused(Exception):
    """An instruction that cannot be accepted in some state."""

    def __init__(self, code: str, message: str, reason: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.reason, self.suggestion = code, message, reason, suggestion


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

    def note_mask(self, pc: int, number: Scalar, *, source: bool) -> None:
        """Note what an instruction adds to a pointer, for the compiler to hold it to that on mispredicted branches too."""
        old = self.masks.get(pc)
        if old is not None and old.source != source:
            self.unmaskable.add(pc)
        low, high = (min(old.low, number.smin), max(old.high, number.smax)) if old else (number.smin, number.smax)
        self.masks[pc] = Mask(low, high, source)
        known = number.const is not None and number.hard == number.value
        if not known and not (number.smin == 0 and number.hard <= number.smax):  # a lower bound above 0 comes from a branch
            self.soft.add(pc)


class Subject:
    """A program with its object and context; `effects` of the stretch being executed, for `Demand.back`."""

    def __init__(self, obj: Object, insns: list[Insn], context: Context, hook: str, at: Callable[[int], str]) -> None:
        self.obj, self.insns, self.context, self.hook, self.at = obj, insns, context, hook, at
        self.facts = Facts()
        self.effects: list[Effect] = []
        self.extra_cold = 0  # of the instruction being executed: misses beyond the one that every far access is priced
        entries = [m.value_size for m in obj.maps if m.kind == RING_IN]
        self.entry_size = entries[0] if entries and hook == "ring" else 0

    def get(self, state: State, reg: int, *, stale: bool = False) -> Value:
        """A register that must have a value; one that is `stale` counts only if asked for."""
        if reg == bpf.FRAME:
            return Pointer("stack", frame=len(state.frames) - 1)
        value = state.regs[reg]
        if value is None or (not stale and isinstance(value, Pointer) and value.region == "stale"):
            reason = f"no path to here has written r{reg}, or a call has clobbered it{self.packet_ended(state)}"
            raise Refused("V110", f"r{reg} is used before it has a value", reason)
        return value

    def packet_ended(self, state: State) -> str:
        """For what has no value: whether it may have been an address in a packet that a helper has changed since."""
        if state.ended is None:
            return ""
        name = self.context.helpers[self.insns[state.ended].imm].name
        return f"; packet addresses lost theirs at {self.at(state.ended)}, where {name} is called"

    def number(self, state: State, reg: int, what: str) -> Scalar:
        """A register that must hold a number."""
        value = self.get(state, reg)
        if isinstance(value, Pointer):
            raise Refused("V114", f"{what} needs a number, r{reg} holds {describe(value)}", "pointers have no such operation")
        return value


def bit(reg: int) -> int:
    """A register's bit in a demand; r10 has none."""
    return 1 << reg & ALL_REGS
