"""A bare BPF program, run as machine code: no contract, no maps, no turn. For tests of the lifter, and to try things.

Nothing is proven of such a program, so it can do whatever a function in C can; `run_apart` lets it do that to a child.
"""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import itertools
import os
import signal
from collections.abc import Sequence

import llvmlite.binding as llvm

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import BpfFormatError, Insn
from chamelio.bpf.interp import IDENTITY
from chamelio.bpf.object import Object, Program
from chamelio.jit import modules
from chamelio.jit.lift import Environment, lift
from chamelio.verify import Access, Proof
from chamelio.verify.catalogue import CHAMELIO
from chamelio.verify.flow import Shape

_BARE = Environment(core_offset=0, instance_offset=0, vcycles_offset=0, count=False, harden=False, data_offsets={}, map_symbols=[])
_serial = itertools.count()


class ExecutionError(Exception):
    """A program that has no result: it is not supported, died, or took too long."""


@functools.cache
def _jit() -> llvm.orcjit.LLJIT:
    return llvm.create_lljit_compiler(modules.machine())


def _prepared(insns: Sequence[Insn]) -> list[Insn]:
    """Calls of the helper replaced by what it does. Raises ExecutionError: a call of anything else."""
    out = []
    for pc, insn in enumerate(insns):
        if insn.op == bpf.CALLX:
            raise ExecutionError(f"instruction {pc}: callx, a call of what a register points to, is not supported")
        if insn.op == bpf.LDDW and insn.src:
            raise ExecutionError(f"instruction {pc}: a wide load with pseudo source {insn.src}, and there are no maps here")
        if insn.is_call and insn.src != bpf.PSEUDO_CALL:
            if insn.src != bpf.HELPER_CALL or insn.imm != IDENTITY:
                raise ExecutionError(f"instruction {pc}: function {insn.imm} is not here; helper {IDENTITY} is the only one")
            insn = Insn(bpf.ALU64 | bpf.MOV | bpf.X, 0, 1, 0, 0)
        out.append(insn)
    return out


def _taken_at_its_word(insns: list[Insn]) -> Proof:
    """A proof that claims nothing: everything is reached, every access goes through its register. ExecutionError: jumps."""
    starts = {0: "main"}
    for pc, insn in enumerate(insns):
        if insn.is_call:
            starts[pc + 1 + insn.imm] = f"local_{pc + 1 + insn.imm}"
    program = Program(name="main", section="chamelio/rx", insns=insns, subprogs=starts, lines={})
    for pc, refused in sorted(Shape(program, CHAMELIO).bad.items()):
        raise ExecutionError(f"instruction {pc}: {refused.message} ({refused.reason})")
    touching = [pc for pc, insn in enumerate(insns) if insn.is_load or insn.is_store or insn.is_atomic]
    return Proof(
        program=program, hook="rx", map_args={}, stack_depth=512, reached=frozenset(range(len(insns))),
        accesses={pc: Access("map_value", None, None, 0, 0, insns[pc].size, False) for pc in touching},
        cost_cold=0, cost_warm=0, steps=0, states=0, loops={},
    )  # fmt: skip


def run(insns: Sequence[Insn], mem: bytearray) -> int:
    """r0 of a program whose r1 points to `mem` (changed in place; 0 if it is empty) and whose r2 is its length.

    The other registers begin as 0. Raises ExecutionError for a program that cannot be compiled.
    """
    try:
        bpf.validate(insns)
    except BpfFormatError as error:
        raise ExecutionError(str(error)) from None
    proof = _taken_at_its_word(_prepared(insns))
    first = [Insn(bpf.ALU64 | bpf.MOV, reg, 0, 0, len(mem) if reg == 2 else 0) for reg in (0, *range(2, 10))]
    text = lift(
        [_taken_at_its_word([*first, *proof.program.insns])], Object(programs=[], maps=[], btf=None, license="", sha256=""), _BARE
    )
    module = modules.link([text])
    modules.optimise(module)
    builder = llvm.JITLibraryBuilder().add_object_img(modules.emit(module)).export_symbol("cham_handler_rx")
    tracker = builder.link(_jit(), f"bare-{next(_serial)}")
    try:
        address = ctypes.addressof((ctypes.c_uint8 * len(mem)).from_buffer(mem)) if mem else 0
        return int(ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(tracker["cham_handler_rx"])(address))
    finally:
        tracker.close()


def run_apart(insns: Sequence[Insn], mem: bytes, seconds: float = 10.0) -> int:
    """As `run`, in a child that is ended after `seconds` of its processor's time. Raises ExecutionError."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            faulthandler.disable()  # that it died is told by our parent
            signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
            os.write(writing, b"=%d" % run(insns, bytearray(mem)))
            status = 0
        except ExecutionError as error:
            os.write(writing, str(error).encode()[:4000])
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGVTALRM:
            raise ExecutionError(f"it has not ended after {seconds:g} s")
        raise ExecutionError(f"it was killed: {signal.strsignal(number)}")
    if not said.startswith("="):
        raise ExecutionError(said or "it ended without a result")
    return int(said[1:])
