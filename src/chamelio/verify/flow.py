"""The shape of a program before it is explored: functions, jump targets, and which registers matter where."""

from __future__ import annotations

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn, jump_target
from chamelio.bpf.object import Program
from chamelio.verify.catalogue import Context
from chamelio.verify.subject import Refused

ARGUMENTS = 0b111110


class Shape:
    """`targets`: slots that jumps lead to; `live[pc]`: registers (bits) that may be read at or after pc before being written."""

    def __init__(self, program: Program, context: Context) -> None:
        self.insns, self.context = program.insns, context
        starts = sorted(start for start in program.subprogs if start < len(self.insns))
        self.ends = dict(zip(starts, [*starts[1:], len(self.insns)], strict=True))
        self.targets: set[int] = set()
        self.bad: dict[int, Refused] = {}
        for start, end in self.ends.items():
            self._check(start, end)
        self.live = self._liveness()

    def next(self, pc: int) -> int:
        """The slot after an instruction."""
        return pc + (2 if self.insns[pc].op == bpf.LDDW else 1)

    def _check(self, start: int, end: int) -> None:
        """Jumps stay inside their function and off the second half of wide loads; nothing runs off its end."""
        begins, pc = set(), start
        while pc < end:
            begins.add(pc)
            pc = self.next(pc)
        for pc in sorted(begins):
            insn = self.insns[pc]
            if insn.dst == bpf.FRAME and (insn.op == bpf.LDDW or insn.cls in (bpf.ALU, bpf.ALU64, bpf.LDX)):
                self.bad[pc] = Refused("V113", "r10 is written", "the frame pointer is read-only")
            if insn.is_call:
                if insn.src == bpf.PSEUDO_CALL and pc + 1 + insn.imm not in self.ends:
                    self.bad[pc] = Refused(
                        "V133", "a call to where no function begins", f"slot {pc + 1 + insn.imm} is not the start of one"
                    )
            elif insn.is_jump and not insn.is_exit:
                target = jump_target(pc, insn)
                if target not in begins:
                    self.bad[pc] = Refused(
                        "V133",
                        "a jump to where no instruction begins",
                        f"slot {target} is not one of this function's ({start}..{end - 1})",
                    )
                else:
                    self.targets.add(target)
            after = self.next(pc)
            if after >= end and not insn.is_exit and not (insn.is_jump and not insn.is_cond_jump and not insn.is_call):
                self.bad.setdefault(
                    pc, Refused("V134", "control runs off the end of the function", "the last instruction is no return")
                )

    def _successors(self, pc: int) -> list[int]:
        """Where control goes after an instruction, within its function; a call goes on behind itself."""
        insn = self.insns[pc]
        out = []
        if insn.is_jump and not insn.is_call and not insn.is_exit:
            out.append(jump_target(pc, insn))
        if insn.is_cond_jump or insn.is_call or not insn.is_jump:
            out.append(self.next(pc))
        return [to for to in out if 0 <= to < len(self.insns)]

    def _liveness(self) -> list[int]:
        """Backwards from where registers are read; each slot is visited a bounded number of times, whatever the jumps."""
        count = len(self.insns)
        live, effects = [0] * count, [self._effects(insn) for insn in self.insns]
        after = [self._successors(pc) for pc in range(count)]
        before: dict[int, list[int]] = {}
        for pc, successors in enumerate(after):
            for to in successors:
                before.setdefault(to, []).append(pc)
        work, waiting = list(range(count)), bytearray(b"\1" * count)
        while work:
            pc = work.pop()
            waiting[pc] = 0
            out = 0
            for to in after[pc]:
                out |= live[to]
            used, written = effects[pc]
            now = out & ~written | used
            if now != live[pc]:
                live[pc] = now
                for back in before.get(pc, ()):
                    if not waiting[back]:
                        waiting[back] = 1
                        work.append(back)
        return live

    def _effects(self, insn: Insn) -> tuple[int, int]:
        """Registers that an instruction reads, and those that it overwrites, as bits (r10 never counts)."""
        dst, src = 1 << insn.dst & 0x3FF, 1 << insn.src & 0x3FF
        if insn.op == bpf.LDDW:
            return 0, dst
        if insn.cls in (bpf.ALU, bpf.ALU64):
            op = insn.op & 0xF0
            used = src if insn.op & bpf.X and op != bpf.END else 0
            return (used, dst) if op == bpf.MOV else (used | dst, dst)
        if insn.is_exit:
            return 1, 0  # its own r6..r9 end with it, the caller's come back
        if insn.is_call:
            if insn.src == bpf.PSEUDO_CALL:
                return ARGUMENTS, ARGUMENTS | 1
            helper = self.context.helpers.get(insn.imm)
            count = len(helper.args) if helper else 5
            return (1 << count + 1) - 2, ARGUMENTS | 1
        if insn.is_jump:
            return (dst | (src if insn.op & bpf.X else 0)) if insn.is_cond_jump else 0, 0
        if insn.is_atomic:
            return dst | src | 1, 0
        if insn.is_load:
            return src, dst
        return dst | (src if insn.cls == bpf.STX else 0), 0
