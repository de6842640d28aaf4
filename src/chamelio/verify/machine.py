"""Abstract execution of single instructions: how a state changes, and what makes an instruction unacceptable."""

from __future__ import annotations

from collections.abc import Callable

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn
from chamelio.verify.arithmetic import Arithmetic
from chamelio.verify.calls import Calls
from chamelio.verify.demand import Demand
from chamelio.verify.memory import Memory
from chamelio.verify.scalar import U32, const
from chamelio.verify.subject import Refused, Subject, bit
from chamelio.verify.values import Pointer, State

Action = Callable[[State, int, Insn], None]


class Machine:
    """Executes all instructions that do not change where control goes."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.memory, self.arithmetic = Memory(subject), Arithmetic(subject)
        self.calls = Calls(subject, self.memory)

    def action(self, insn: Insn) -> Action | None:
        """What executes an instruction on a state, given its slot, or raises Refused; None for jumps, calls and exits."""
        if insn.cls in (bpf.ALU, bpf.ALU64):
            return self.arithmetic.alu
        if insn.op == bpf.LDDW:
            return self._load_wide
        if insn.is_call or insn.is_exit or insn.is_jump:
            return None
        if insn.is_atomic:
            return self.memory.atomic
        if insn.is_load:
            return self.memory.load
        if insn.is_store:
            return self.memory.store
        return _unknown

    def _load_wide(self, state: State, pc: int, insn: Insn) -> None:
        """LDDW: a constant, a map, the address of global data or of a function."""
        maps = self.subject.obj.maps
        if insn.src == 0:
            state.regs[insn.dst] = const(insn.imm)
        elif insn.src in (bpf.PSEUDO_MAP, bpf.PSEUDO_MAP_VALUE) and insn.imm & U32 >= len(maps):
            raise Refused("V140", f"a reference to map {insn.imm & U32}", f"the object has {len(maps)} maps")
        elif insn.src == bpf.PSEUDO_MAP and self.subject.context.runs and maps[insn.imm].legacy:
            raise Refused(
                "V140",
                f"map {maps[insn.imm].name} is declared in section maps",
                "handlers declare theirs with the macros of chamelio.h",
            )
        elif insn.src == bpf.PSEUDO_MAP:
            state.regs[insn.dst] = Pointer("map", insn.imm)
        elif insn.src == bpf.PSEUDO_MAP_VALUE:
            state.regs[insn.dst] = Pointer("data", insn.imm & U32, off=insn.imm >> 32)
        elif insn.src == bpf.PSEUDO_FUNC and not self.subject.context.runs:
            relative = insn.imm & U32
            target = pc + 1 + (relative - (1 << 32) if relative >> 31 else relative)
            state.regs[insn.dst] = Pointer("function", off=target)
        elif insn.src == bpf.PSEUDO_FUNC:
            raise Refused("V140", "the address of a function is taken", "callbacks are not supported")
        else:
            raise Refused("V140", f"a wide load with pseudo source {insn.src}", "only maps and global data are referred to so")
        self.subject.effects.append((Demand.load, bit(insn.dst), 0, 0, None))


def _unknown(state: State, pc: int, insn: Insn) -> None:
    if insn.cls == bpf.LD:
        raise Refused("V140", f"opcode {insn.op:#04x}", "the legacy packet accesses LD_ABS and LD_IND are not supported")
    raise Refused("V140", f"opcode {insn.op:#04x}", "it is no instruction that can run here")
