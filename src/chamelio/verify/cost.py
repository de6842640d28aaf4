"""The cost model: cycles per instruction.

Conservative figures for a recent x86-64 core; `warm` has its data in the first-level cache.

The lifter charges the same figures to the virtual clock, block by block, so what is counted never exceeds what is proven.
"""

from __future__ import annotations

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn

MISS = 200  # one cache line from memory
LINE = 64
COPY_BYTES = 8  # copied per cycle, at least

SIMPLE, MULTIPLY, DIVIDE, MEMORY, ATOMIC, BRANCH, CALL, WIDE = 1, 3, 25, 2, 20, 1, 4, 1


def insn_cost(insn: Insn) -> int:
    """Warm cycles of one instruction; of a helper call without the helper."""
    if insn.is_atomic:
        return ATOMIC
    if insn.is_load or insn.is_store:
        return MEMORY
    if insn.cls in (bpf.ALU, bpf.ALU64):
        op = insn.op & 0xF0
        return DIVIDE if op in (bpf.DIV, bpf.MOD) else MULTIPLY if op == bpf.MUL else SIMPLE
    if insn.is_call:
        return CALL
    return BRANCH if insn.is_jump or insn.is_exit else WIDE
