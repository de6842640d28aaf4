"""The lifter: a verified BPF program to LLVM IR text.

Registers become stack slots that LLVM promotes at once; every BPF basic block becomes one LLVM block. What the verifier
has proven is used: context and stack accesses at known offsets are addressed from their objects, so that a key built on
the BPF stack ends up in machine registers; shared memory is accessed `volatile`, never twice. Code that the verifier
did not reach is not compiled. Semantics follow RFC 9669 where LLVM's differ: shifts are masked, division by zero gives
zero, modulo by zero leaves the destination, and the overflowing signed division is guarded.
"""

from __future__ import annotations

from dataclasses import dataclass

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn
from chamelio.bpf.object import Object
from chamelio.verify import Access, Proof
from chamelio.verify.catalogue import HELPERS, PACKET_MAX
from chamelio.verify.cost import LINE, counted, insn_cost
from chamelio.verify.proof import Mask

STACK = 512
LONG = 64  # instructions of a function that stays one
FRAME_ROOM = 1984  # bytes of a frame from the IP header on (fastpath/frame.h)
CALLEE_SAVED = range(6, 10)
# How often a conditional jump is taken, to how often not: a compiler lets the likely way fall through, and loops jump back.
_WEIGHTS = ((1, 3), (3, 1))
_FALLS, _JUMPS = 0, 1

_ALU = {
    bpf.ADD: "add",
    bpf.SUB: "sub",
    bpf.MUL: "mul",
    bpf.OR: "or",
    bpf.AND: "and",
    bpf.XOR: "xor",
    bpf.LSH: "shl",
    bpf.RSH: "lshr",
    bpf.ARSH: "ashr",
}
_PREDICATES = {
    bpf.JEQ: "eq",
    bpf.JNE: "ne",
    bpf.JGT: "ugt",
    bpf.JGE: "uge",
    bpf.JLT: "ult",
    bpf.JLE: "ule",
    bpf.JSGT: "sgt",
    bpf.JSGE: "sge",
    bpf.JSLT: "slt",
    bpf.JSLE: "sle",
}
_RMW = {
    bpf.ATOMIC_ADD: "add",
    bpf.ATOMIC_OR: "or",
    bpf.ATOMIC_AND: "and",
    bpf.ATOMIC_XOR: "xor",
}


class LiftError(Exception):
    """An instruction that the verifier accepted but the lifter does not know: a bug of ours, never of the tenant's."""


@dataclass(frozen=True)
class Environment:
    """What lifted code needs to know of its surroundings.

    `core_offset`, `instance_offset`: of the fields in `struct cham_turn`; `vcycles_offset`: in `struct cham_core`;
    `count`: add each block's cost to the virtual clock; `harden`: mask checked variable offsets; `data_offsets`: where
    each global-data map lies in an instance.
    """

    core_offset: int
    instance_offset: int
    vcycles_offset: int
    count: bool
    harden: bool
    data_offsets: dict[int, int]
    map_symbols: list[str]


def _helper_symbol(name: str) -> str:
    return f"cham_h_{name}"


class _Function:
    """One BPF function (the main program or a subprogram) on its way to IR text."""

    def __init__(self, proof: Proof, start: int, end: int, env: Environment, symbol: str, main: bool) -> None:
        self.proof, self.start, self.end, self.env, self.symbol, self.main = proof, start, end, env, symbol, main
        self.insns = proof.program.insns
        self.out: list[str] = []
        self.n = 0
        self.fp: dict[int, int] = {}  # within a block: registers known to be frame top + constant

    # ---- text ------------------------------------------------------------------------------------------------

    def emit(self, line: str) -> None:
        self.out.append("  " + line)

    def value(self, expression: str) -> str:
        self.n += 1
        self.emit(f"%v{self.n} = {expression}")
        return f"%v{self.n}"

    def get(self, reg: int) -> str:
        if reg == 10:
            return self.value(f"ptrtoint ptr {self.frame_pointer(0)} to i64")
        return self.value(f"load i64, ptr %r{reg}")

    def set(self, reg: int, value: str) -> None:
        self.fp.pop(reg, None)
        self.emit(f"store i64 {value}, ptr %r{reg}")

    def frame_pointer(self, offset: int) -> str:
        return self.value(f"getelementptr i8, ptr %stack, i64 {STACK + offset}")

    def pointer(self, reg: int, offset: int) -> str:
        """A register plus a constant, as a pointer; from the stack object itself when that is what it is."""
        if reg == 10:
            return self.frame_pointer(offset)
        if reg in self.fp:
            return self.frame_pointer(self.fp[reg] + offset)
        address = self.get(reg)
        if offset:
            address = self.value(f"add i64 {address}, {offset}")
        return self.value(f"inttoptr i64 {address} to ptr")

    def wide(self, value: str, bits: int, signed: bool = False) -> str:
        return value if bits == 64 else self.value(f"{'sext' if signed else 'zext'} i{bits} {value} to i64")

    def narrow(self, value: str, bits: int) -> str:
        return value if bits == 64 else self.value(f"trunc i64 {value} to i{bits}")

    # ---- blocks ------------------------------------------------------------------------------------------------

    def leaders(self) -> list[int]:
        marks = {self.start}
        for pc in self.slots():
            insn = self.insns[pc]
            if insn.is_jump and not insn.is_call and not insn.is_exit:
                marks.add(bpf.jump_target(pc, insn))
                marks.add(pc + 1)
            elif insn.is_exit:
                marks.add(pc + 1)
        return sorted(m for m in marks if self.start <= m < self.end)

    def slots(self) -> list[int]:
        """Slots that hold an instruction (not the second half of a wide one)."""
        out, pc = [], self.start
        while pc < self.end:
            out.append(pc)
            pc += 2 if self.insns[pc].op == bpf.LDDW else 1
        return out

    def text(self) -> str:
        parameters = "ptr %turn" if self.main else "ptr %turn, i64 %a1, i64 %a2, i64 %a3, i64 %a4, i64 %a5"
        # What an author has set apart and is long is seldom needed: inlined it would take the common way's registers.
        attributes = "nounwind noinline" if not self.main and len(self.slots()) > LONG else "nounwind alwaysinline"
        self.out.append(f"define {'' if self.main else 'internal '}i64 @{self.symbol}({parameters}) {attributes} {{")
        self.out.append("entry:")
        self.emit(f"%stack = alloca [{STACK} x i8], align 16")
        for reg in range(10):
            self.emit(f"%r{reg} = alloca i64")
        if self.main:
            self.set(1, self.value("ptrtoint ptr %turn to i64"))
        else:
            for reg in range(1, 6):
                self.set(reg, f"%a{reg}")
        self.emit(f"br label %b{self.start}")
        leaders = self.leaders()
        ends = [*leaders[1:], self.end]
        for leader, end in zip(leaders, ends, strict=True):
            self.out.append(f"b{leader}:")
            self.fp.clear()
            if leader in self.proof.reached:
                self.block(leader, end)
            else:
                self.emit("unreachable")
        self.out.append("}")
        return "\n".join(self.out)

    def block(self, pc: int, end: int) -> None:
        body = [p for p in self.slots() if pc <= p < end]
        if self.env.count:
            self.charge(sum(insn_cost(self.insns[p]) for p in body))
        for p in body:
            if p not in self.proof.reached:
                self.emit("unreachable")  # a call before it never returned on any path
                return
            insn = self.insns[p]
            self.instruction(p, insn)
            if insn.is_exit or (insn.is_jump and not insn.is_call):
                return
        self.emit(f"br label %b{end}" if end < self.end else "unreachable")

    def charge(self, cost: int | str) -> None:
        core_at = self.value(f"getelementptr i8, ptr %turn, i64 {self.env.core_offset}")
        core = self.value(f"load ptr, ptr {core_at}")
        at = self.value(f"getelementptr i8, ptr {core}, i64 {self.env.vcycles_offset}")
        now = self.value(f"load i64, ptr {at}")
        self.emit(f"store i64 {self.value(f'add i64 {now}, {cost}')}, ptr {at}")

    # ---- instructions --------------------------------------------------------------------------------------------

    def instruction(self, pc: int, insn: Insn) -> None:
        if insn.op == bpf.LDDW:
            self.load_wide(insn)
        elif insn.cls in (bpf.ALU, bpf.ALU64):
            self.alu(pc, insn)
        elif insn.is_call:
            self.call(pc, insn)
        elif insn.is_exit:
            self.emit(f"ret i64 {self.get(0)}")
        elif insn.is_jump:
            self.jump(pc, insn)
        elif insn.is_atomic:
            self.atomic(pc, insn)
        elif insn.is_load:
            self.load(pc, insn)
        elif insn.is_store:
            self.store(pc, insn)
        else:
            raise LiftError(f"opcode {insn.op:#x} at {pc} is not lifted")

    def load_wide(self, insn: Insn) -> None:
        if insn.src == bpf.PSEUDO_MAP:
            self.set(insn.dst, self.value(f"ptrtoint ptr @{self.env.map_symbols[insn.imm]} to i64"))
        elif insn.src == bpf.PSEUDO_MAP_VALUE:
            index, offset = insn.imm & 0xFFFFFFFF, insn.imm >> 32
            at = self.value(f"getelementptr i8, ptr %turn, i64 {self.env.instance_offset}")
            base = self.value(f"load ptr, ptr {at}")
            data = self.value(f"getelementptr i8, ptr {base}, i64 {self.env.data_offsets[index] + offset}")
            self.set(insn.dst, self.value(f"ptrtoint ptr {data} to i64"))
        elif insn.src == 0:
            self.set(insn.dst, str(insn.imm))
        else:
            raise LiftError(f"wide load with pseudo source {insn.src} is not lifted")

    def alu(self, pc: int, insn: Insn) -> None:
        bits = 64 if insn.cls == bpf.ALU64 else 32
        op = insn.op & 0xF0
        if op == bpf.END:
            return self.swap(insn)
        known = self.frame_offset_after(insn, bits, op)
        if op == bpf.NEG:
            result = self.value(f"sub i{bits} 0, {self.narrow(self.get(insn.dst), bits)}")
        else:
            if insn.op & bpf.X:
                operand = self.narrow(self.get(insn.src), bits)
            else:
                operand = str(insn.imm if bits == 64 else insn.imm & 0xFFFFFFFF)
            if op == bpf.MOV:
                result = operand
                if insn.off:  # movsx: the low bits, sign-extended
                    low = self.value(f"trunc i{bits} {operand} to i{insn.off}") if insn.off < bits else operand
                    result = self.value(f"sext i{insn.off} {low} to i{bits}") if insn.off < bits else low
            else:
                target = self.narrow(self.get(insn.dst), bits)
                if self.env.harden and pc in self.proof.masks:
                    mask = self.proof.masks[pc]
                    target, operand = (target, self.held(operand, mask)) if mask.source else (self.held(target, mask), operand)
                result = self.arithmetic(op, bits, target, operand, bool(insn.off))
        self.set(insn.dst, self.wide(result, bits))
        if known is not None:
            self.fp[insn.dst] = known

    def frame_offset_after(self, insn: Insn, bits: int, op: int) -> int | None:
        """The constant offset from the frame's top that the destination has afterwards, if it is known to have one."""
        if bits != 64:
            return None
        if op == bpf.MOV and insn.op & bpf.X and not insn.off:
            return 0 if insn.src == 10 else self.fp.get(insn.src)
        if op == bpf.ADD and not insn.op & bpf.X and insn.dst in self.fp:
            return self.fp[insn.dst] + insn.imm
        return None

    def arithmetic(self, op: int, bits: int, a: str, b: str, signed: bool) -> str:
        if op in (bpf.LSH, bpf.RSH, bpf.ARSH):
            b = self.value(f"and i{bits} {b}, {bits - 1}")
        if op in _ALU:
            return self.value(f"{_ALU[op]} i{bits} {a}, {b}")
        if op not in (bpf.DIV, bpf.MOD):
            raise LiftError(f"ALU operation {op:#x} is not lifted")
        zero = self.value(f"icmp eq i{bits} {b}, 0")
        divisor = self.value(f"select i1 {zero}, i{bits} 1, i{bits} {b}")
        if not signed:
            result = self.value(f"{'udiv' if op == bpf.DIV else 'urem'} i{bits} {a}, {divisor}")
        else:  # x / -1 is 0 - x and x % -1 is 0, so the one overflowing case never divides
            minus = self.value(f"icmp eq i{bits} {divisor}, -1")
            safe = self.value(f"select i1 {minus}, i{bits} 1, i{bits} {divisor}")
            plain = self.value(f"{'sdiv' if op == bpf.DIV else 'srem'} i{bits} {a}, {safe}")
            special = self.value(f"sub i{bits} 0, {a}") if op == bpf.DIV else "0"
            result = self.value(f"select i1 {minus}, i{bits} {special}, i{bits} {plain}")
        return self.value(f"select i1 {zero}, i{bits} {'0' if op == bpf.DIV else a}, i{bits} {result}")

    def swap(self, insn: Insn) -> None:
        value = self.get(insn.dst)
        little = insn.cls == bpf.ALU and not insn.op & bpf.X  # a no-op on this host, except that it truncates
        value = self.narrow(value, insn.imm)
        if not little:
            value = self.value(f"call i{insn.imm} @llvm.bswap.i{insn.imm}(i{insn.imm} {value})")
        self.set(insn.dst, self.wide(value, insn.imm))

    def address(self, pc: int, reg: int, offset: int) -> tuple[str, Access]:
        access = self.proof.accesses[pc]
        if access.region == "ctx" and access.fixed is not None:
            return self.value(f"getelementptr i8, ptr %turn, i64 {access.fixed}"), access
        masked_before = self.proof.all_masked and access.hi + access.size <= FRAME_ROOM
        if access.region == "packet" and access.fixed is None and self.env.harden and not masked_before:
            return self.masked_packet_address(reg, offset, access), access
        return self.pointer(reg, offset), access

    def masked_packet_address(self, reg: int, offset: int, access: Access) -> str:
        """A packet access at a variable offset, such that a mispredicted bounds check reads no further than a proven one."""
        data = self.value("load ptr, ptr %turn")  # the first field of the context
        start = self.value(f"ptrtoint ptr {data} to i64")
        at = self.value(f"sub i64 {self.value(f'ptrtoint ptr {self.pointer(reg, offset)} to i64')}, {start}")
        return self.value(f"getelementptr i8, ptr {data}, i64 {self.nospec(at, access.hi)}")

    def held(self, number: str, mask: Mask) -> str:
        """A number that is added to a pointer, held within its bounds on mispredicted branches too."""
        if mask.low == 0:
            return self.nospec(number, mask.high)
        above = self.nospec(self.value(f"sub i64 {number}, {mask.low}"), mask.high - mask.low)
        return self.value(f"add i64 {above}, {mask.low}")

    def nospec(self, index: str, most: int) -> str:
        """`index`, which is at most `most`, or 0 where it is more because a branch was mispredicted (`cham_nospec`)."""
        hidden = self.value(f'call i64 asm "", "=r,0"(i64 {index})')  # or the mask would fold away
        sign = self.value(f"ashr i64 {self.value(f'sub i64 {hidden}, {most + 1}')}, 63")
        return self.value(f"and i64 {hidden}, {sign}")

    def load(self, pc: int, insn: Insn) -> None:
        at, access = self.address(pc, insn.src, insn.off)
        bits = 8 * insn.size
        qualifier = "volatile " if access.shared else ""
        value = self.value(f"load {qualifier}i{bits}, ptr {at}, align 1")
        self.set(insn.dst, self.wide(value, bits, signed=insn.op & 0xE0 == bpf.MEMSX))

    def store(self, pc: int, insn: Insn) -> None:
        bits = 8 * insn.size
        if insn.cls == bpf.ST:
            value = str(insn.imm)
        else:
            value = self.narrow(self.get(insn.src), bits)
        at, access = self.address(pc, insn.dst, insn.off)
        qualifier = "volatile " if access.shared else ""
        if value[0] != "%":
            value = str(int(value) & (1 << bits) - 1)
        self.emit(f"store {qualifier}i{bits} {value}, ptr {at}, align 1")

    def atomic(self, pc: int, insn: Insn) -> None:
        bits = 8 * insn.size
        at, _ = self.address(pc, insn.dst, insn.off)
        value = self.narrow(self.get(insn.src), bits)
        if insn.imm == bpf.ATOMIC_CMPXCHG:
            expected = self.narrow(self.get(0), bits)
            pair = self.value(f"cmpxchg ptr {at}, i{bits} {expected}, i{bits} {value} seq_cst seq_cst, align {insn.size}")
            old = self.value(f"extractvalue {{ i{bits}, i1 }} {pair}, 0")
            self.set(0, self.wide(old, bits))
            return
        operation = "xchg" if insn.imm == bpf.ATOMIC_XCHG else _RMW[insn.imm & ~bpf.ATOMIC_FETCH]
        old = self.value(f"atomicrmw {operation} ptr {at}, i{bits} {value} seq_cst, align {insn.size}")
        if insn.imm & bpf.ATOMIC_FETCH:
            self.set(insn.src, self.wide(old, bits))

    def jump(self, pc: int, insn: Insn) -> None:
        target = bpf.jump_target(pc, insn)
        if not insn.is_cond_jump:
            self.emit(f"br label %b{target}")
            return
        bits = 64 if insn.cls == bpf.JMP else 32
        a = self.narrow(self.get(insn.dst), bits)
        if insn.op & bpf.X:
            b = self.narrow(self.get(insn.src), bits)
        else:
            b = str(insn.imm if bits == 64 else insn.imm & 0xFFFFFFFF)
        op = insn.op & 0xF0
        if op == bpf.JSET:
            masked = self.value(f"and i{bits} {a}, {b}")
            taken = self.value(f"icmp ne i{bits} {masked}, 0")
        else:
            taken = self.value(f"icmp {_PREDICATES[op]} i{bits} {a}, {b}")
        likely = _FALLS if target > pc else _JUMPS
        self.emit(f"br i1 {taken}, label %b{target}, label %b{pc + 1}, !prof !{likely}")

    # ---- calls ----------------------------------------------------------------------------------------------------

    def call(self, pc: int, insn: Insn) -> None:
        if insn.src == bpf.PSEUDO_CALL:
            target = pc + 1 + insn.imm
            arguments = "".join(f", i64 {self.get(reg)}" for reg in range(1, 6))
            self.set(0, self.value(f"call i64 @{_local_symbol(self.proof, target)}(ptr %turn{arguments})"))
        else:
            self.call_helper(pc, insn)
        for reg in range(1, 6):
            self.fp.pop(reg, None)

    def call_helper(self, pc: int, insn: Insn) -> None:
        helper = HELPERS[insn.imm]
        arguments = ["ptr %turn"]
        for reg, argument in enumerate(helper.args, start=1):
            if argument.kind == "ctx":
                arguments.append("ptr %turn")
            elif argument.kind == "map":
                index = self.proof.map_args[pc]  # None: it depends on the path, and the helper reads the descriptor
                known = f"@{self.env.map_symbols[index]}" if index is not None else self.pointer(reg, 0)
                arguments.append(f"ptr {known}")
            elif argument.is_pointer:
                arguments.append(f"ptr {self.pointer(reg, 0)}")
            else:
                arguments.append(f"i64 {self.get(reg)}")
        if self.env.count:
            cost = counted(helper)
            self.charge(cost.fixed)
            if cost.per_line and helper.length_arg:
                length = self.value(f"and i64 {self.get(helper.length_arg)}, 4294967295")
                length = self.value(f"call i64 @llvm.umin.i64(i64 {length}, i64 {PACKET_MAX})")
                lines = self.value(f"udiv i64 {self.value(f'add i64 {length}, {LINE - 1}')}, {LINE}")
                self.charge(self.value(f"mul i64 {lines}, {cost.per_line}"))
        returns_pointer = helper.ret != "scalar"
        result = self.value(f"call {'ptr' if returns_pointer else 'i64'} @{_helper_symbol(helper.name)}({', '.join(arguments)})")
        self.set(0, self.value(f"ptrtoint ptr {result} to i64") if returns_pointer else result)


def _local_symbol(proof: Proof, slot: int) -> str:
    return f"cham_local_{proof.hook}_{slot}"


def _declarations() -> str:
    lines = [f"declare i{bits} @llvm.bswap.i{bits}(i{bits})" for bits in (16, 32, 64)]
    lines.append("declare i64 @llvm.umin.i64(i64, i64)")
    for helper in HELPERS.values():
        kinds = ["ptr", *("ptr" if a.is_pointer or a.kind in ("ctx", "map") else "i64" for a in helper.args)]
        result = "i64" if helper.ret == "scalar" else "ptr"
        lines.append(f"declare {result} @{_helper_symbol(helper.name)}({', '.join(kinds)})")
    return "\n".join(lines)


def lift(proofs: list[Proof], obj: Object, env: Environment) -> str:
    """IR text of all handlers of an object: `cham_handler_<hook>` for each, and the descriptors as external symbols."""
    parts = [_declarations()]
    parts += [f"@{symbol} = external global [64 x i8]" for i, symbol in enumerate(env.map_symbols) if i not in env.data_offsets]
    for proof in proofs:
        starts = sorted(proof.program.subprogs)
        ends = [*starts[1:], len(proof.program.insns)]
        for start, end in zip(starts, ends, strict=True):
            if start not in proof.reached:
                continue
            main = start == 0
            symbol = f"cham_handler_{proof.hook}" if main else _local_symbol(proof, start)
            parts.append(_Function(proof, start, end, env, symbol, main).text())
    parts.append("".join(f'!{n} = !{{!"branch_weights", i32 {a}, i32 {b}}}\n' for n, (a, b) in enumerate(_WEIGHTS)))
    return "\n\n".join(parts)
