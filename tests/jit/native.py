"""Runs instruction vectors as machine code: lifted on the word of a made-up proof that claims nothing, then called."""

from __future__ import annotations

import ctypes
import functools

import llvmlite.binding as llvm

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn
from chamelio.bpf.object import Object, Program
from chamelio.jit import modules
from chamelio.jit.lift import Environment, lift
from chamelio.verify import Access, Proof

PLAIN = Environment(core_offset=0, instance_offset=0, vcycles_offset=0, count=False, harden=False, data_offsets={}, map_symbols=[])


def claims_nothing(insns: list[Insn]) -> Proof:
    """A proof by which every access goes through its register, and everything is reached."""
    subprograms = {0: "main"}
    for pc, insn in enumerate(insns):
        if insn.is_call and insn.src == bpf.PSEUDO_CALL:
            subprograms[pc + 1 + insn.imm] = f"local_{pc + 1 + insn.imm}"
    touching = [pc for pc, insn in enumerate(insns) if insn.is_load or insn.is_store or insn.is_atomic]
    program = Program(name="main", section="chamelio/rx", insns=insns, subprogs=subprograms, lines={})
    anywhere = {pc: Access("map_value", None, None, 0, 0, insns[pc].size, False) for pc in touching}
    return Proof(
        program=program, hook="rx", accesses=anywhere, reached=frozenset(range(len(insns))), map_args={}, stack_depth=512,
        cost_cold=0, cost_warm=0, steps=0, states=0, loops={},
    )  # fmt: skip


@functools.cache
def _jit() -> llvm.orcjit.LLJIT:
    return llvm.create_lljit_compiler(modules.machine())


_serial = iter(range(1 << 30))


def compile_vector(insns: list[Insn]) -> llvm.orcjit.ResourceTracker:
    """Machine code of a program; `tracker["cham_handler_rx"]` is its address."""
    obj = Object(programs=[], maps=[], btf=None, license="", sha256="")
    module = modules.link([lift([claims_nothing(insns)], obj, PLAIN)])
    modules.optimise(module)
    data = modules.emit(module)
    builder = llvm.JITLibraryBuilder().add_object_img(data).export_symbol("cham_handler_rx")
    return builder.link(_jit(), f"vector-{next(_serial)}")


def run(insns: list[Insn], mem: bytearray) -> int:
    """r0 of a program whose r1 points to `mem` (changed in place) and whose r2 is its length."""
    start = Insn(bpf.ALU64 | bpf.MOV, 2, 0, 0, len(mem))
    tracker = compile_vector([start, *insns])
    buffer = (ctypes.c_uint8 * max(1, len(mem))).from_buffer(mem if mem else bytearray(1))
    result = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(tracker["cham_handler_rx"])(ctypes.addressof(buffer))
    tracker.close()
    return int(result)
