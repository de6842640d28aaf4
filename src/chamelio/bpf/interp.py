"""The reference interpreter: what a BPF program means (RFC 9669), as plainly as Python can say it.

It is also an oracle for the verifier: reading a register or a stack byte that was never written, touching memory that
is not mapped, misaligned atomics and endless loops are faults, never undefined.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from chamelio.bpf import insn as b
from chamelio.bpf.insn import Insn, jump_target, validate

STACK_BYTES = 512  # per frame
MAX_FRAMES = 8
STACK_BASE = 0x7FFF_0000_0000
FRAME_STRIDE = 4096  # frames lie apart, so that running over the edge of one is a fault

U64 = (1 << 64) - 1
ARGUMENTS = 0b111110  # registers r1..r5 as a mask


class Fault(Exception):
    """The program did what no program may do, at slot `pc`."""

    def __init__(self, pc: int, reason: str) -> None:
        super().__init__(f"instruction {pc}: {reason}")
        self.pc, self.reason = pc, reason


class AccessError(Exception):
    """An access outside the mapped memory; the interpreter turns it into a Fault of the instruction."""


@dataclass(frozen=True, slots=True)
class _Region:
    start: int
    buf: memoryview
    writable: bool
    name: str
    written: bytearray | None  # per byte whether it holds a value; None: all do

    @property
    def end(self) -> int:
        return self.start + len(self.buf)


class Memory:
    """An address space: named regions at addresses of the caller's choice; all else faults."""

    def __init__(self) -> None:
        self._regions: list[_Region] = []

    def map(self, addr: int, buf: bytearray | memoryview, writable: bool = True, name: str = "", blank: bool = False) -> None:
        """Make `buf` appear at `addr`; the program's stores change it. ValueError: it overlaps another region.

        `blank`: its bytes hold no value until they are written.
        """
        view = memoryview(buf).cast("B")
        written = bytearray(len(view)) if blank else None
        region = _Region(addr, view, writable and not view.readonly, name or f"region at {addr:#x}", written)
        for other in self._regions:
            if addr < other.end and other.start < region.end:
                raise ValueError(f"{region.name} overlaps {other.name}")
        insort(self._regions, region, key=lambda r: r.start)

    def unmap(self, addr: int) -> None:
        """Remove the region that starts at `addr`. KeyError if there is none."""
        for region in self._regions:
            if region.start == addr:
                self._regions.remove(region)
                return
        raise KeyError(f"no region starts at {addr:#x}")

    def _find(self, addr: int, size: int, verb: str) -> _Region:
        at = bisect_right(self._regions, addr, key=lambda r: r.start) - 1
        if at < 0 or addr >= self._regions[at].end:
            raise AccessError(f"{verb} of {size} bytes at {addr:#x}, where nothing is mapped")
        region = self._regions[at]
        if addr + size > region.end:
            over = addr + size - region.end
            raise AccessError(f"{verb} of {size} bytes at {addr:#x} ends {over} bytes past the end of {region.name}")
        return region

    def load_bytes(self, addr: int, n: int) -> bytes:
        """`n` bytes from `addr`. AccessError: they are not all in one region, or hold no value yet."""
        if n == 0:
            return b""
        region = self._find(addr, n, "read")
        part = slice(addr - region.start, addr - region.start + n)
        if region.written is not None and 0 in region.written[part]:
            raise AccessError(f"read of {n} bytes at {addr:#x} of {region.name}, not all of which were ever written")
        return bytes(region.buf[part])

    def store_bytes(self, addr: int, data: bytes) -> None:
        """Write `data` at `addr`. AccessError: not all in one region, or read-only."""
        if not data:
            return
        region = self._find(addr, len(data), "write")
        if not region.writable:
            raise AccessError(f"write of {len(data)} bytes to {region.name}, which is read-only")
        part = slice(addr - region.start, addr - region.start + len(data))
        region.buf[part] = data
        if region.written is not None:
            region.written[part] = b"\x01" * len(data)

    def read(self, addr: int, size: int) -> int:
        """An unsigned little-endian number of `size` bytes. AccessError as `load_bytes`."""
        return int.from_bytes(self.load_bytes(addr, size), "little")

    def write(self, addr: int, size: int, value: int) -> None:
        """Store the low `size` bytes of a number. AccessError as `store_bytes`."""
        self.store_bytes(addr, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))


# ---- arithmetic: operands are unsigned numbers of `bits` bits, results are cut to them -----------------------------


def signed(value: int, bits: int) -> int:
    """The low `bits` bits of a number in two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _divide(a: int, c: int, bits: int) -> int:
    return a // c if c else 0


def _modulo(a: int, c: int, bits: int) -> int:
    return a % c if c else a


def _signed_divide(a: int, c: int, bits: int) -> int:
    x, y = signed(a, bits), signed(c, bits)
    quotient = abs(x) // abs(y) if y else 0
    return quotient if (x < 0) == (y < 0) else -quotient


def _signed_modulo(a: int, c: int, bits: int) -> int:
    x, y = signed(a, bits), signed(c, bits)
    remainder = abs(x) % abs(y) if y else abs(x)
    return -remainder if x < 0 else remainder


_ALU: dict[int, Callable[[int, int, int], int]] = {
    b.ADD: lambda a, c, bits: a + c,
    b.SUB: lambda a, c, bits: a - c,
    b.MUL: lambda a, c, bits: a * c,
    b.OR: lambda a, c, bits: a | c,
    b.AND: lambda a, c, bits: a & c,
    b.XOR: lambda a, c, bits: a ^ c,
    b.LSH: lambda a, c, bits: a << (c & bits - 1),
    b.RSH: lambda a, c, bits: a >> (c & bits - 1),
    b.ARSH: lambda a, c, bits: signed(a, bits) >> (c & bits - 1),
    b.DIV: _divide,
    b.MOD: _modulo,
}
_SIGNED = {b.DIV: _signed_divide, b.MOD: _signed_modulo}


def alu(insn: Insn, dst: int, src: int) -> int:
    """The result of an arithmetic instruction on 64-bit register values (section 4.1); `src` may be its immediate."""
    op = insn.op & 0xF0
    if op == b.END:
        return _byte_swap(insn, dst)
    bits = 64 if insn.cls == b.ALU64 else 32
    mask = (1 << bits) - 1
    dst, src = dst & mask, src & mask
    if op == b.NEG:
        return -dst & mask
    if op == b.MOV:
        return signed(src, insn.off) & mask if insn.off else src
    operation = _SIGNED[op] if insn.off else _ALU[op]
    return operation(dst, src, bits) & mask


def _byte_swap(insn: Insn, value: int) -> int:
    """Section 4.2. Programs here are little-endian, so `le` only truncates."""
    size = insn.imm // 8
    value &= (1 << insn.imm) - 1
    if insn.cls == b.ALU and not insn.op & b.X:
        return value
    return int.from_bytes(value.to_bytes(size, "little"), "big")


_COMPARE: dict[int, Callable[[int, int], bool]] = {
    b.JEQ: lambda a, c: a == c,
    b.JNE: lambda a, c: a != c,
    b.JGT: lambda a, c: a > c,
    b.JGE: lambda a, c: a >= c,
    b.JLT: lambda a, c: a < c,
    b.JLE: lambda a, c: a <= c,
    b.JSET: lambda a, c: bool(a & c),
}
_COMPARE_SIGNED = {b.JSGT: b.JGT, b.JSGE: b.JGE, b.JSLT: b.JLT, b.JSLE: b.JLE}


def taken(insn: Insn, dst: int, src: int) -> bool:
    """Whether a conditional jump is taken (section 4.3), given 64-bit register values; `src` may be its immediate."""
    bits = 64 if insn.cls == b.JMP else 32
    op = insn.op & 0xF0
    if op in _COMPARE_SIGNED:
        return _COMPARE[_COMPARE_SIGNED[op]](signed(dst, bits), signed(src, bits))
    mask = (1 << bits) - 1
    return _COMPARE[op](dst & mask, src & mask)


_ATOMIC: dict[int, Callable[[int, int], int]] = {
    b.ATOMIC_ADD: lambda old, value: old + value,
    b.ATOMIC_OR: lambda old, value: old | value,
    b.ATOMIC_AND: lambda old, value: old & value,
    b.ATOMIC_XOR: lambda old, value: old ^ value,
}


def registers_read(insn: Insn) -> int:
    """The registers whose value an instruction depends on, as a mask; arguments of calls are not counted."""
    dst, src = 1 << insn.dst, 1 << insn.src
    op = insn.op & 0xF0
    match insn.cls:
        case b.ALU | b.ALU64:
            register = insn.op & b.X and op != b.END
            return (src if register else 0) | (0 if op == b.MOV else dst)
        case b.LDX:
            return src
        case b.ST:
            return dst
        case b.STX:
            expected = 1 if insn.is_atomic and insn.imm == b.ATOMIC_CMPXCHG else 0
            return dst | src | expected
        case b.JMP | b.JMP32:
            if insn.is_exit:
                return 1
            if insn.is_cond_jump:
                return dst | (src if insn.op & b.X else 0)
            return dst if insn.op == b.CALLX else 0
    return 0


Helper = Callable[["Interpreter", int, int, int, int, int], int]


@dataclass(frozen=True, slots=True)
class _Frame:
    return_to: int
    saved: list[int]
    defined: int


class Interpreter:
    """One program and what surrounds it.

    `helpers` by id take the interpreter and r1..r5; an AccessError in a helper is a fault of the call. `map_address`
    gives what a reference to a map loads, `map_value_address` the address of a byte of global data. `on_step` is called
    with the slot and the registers before each instruction. After a run `steps` counts the instructions executed.
    BpfFormatError: these are not instructions.
    """

    def __init__(
        self,
        insns: Sequence[Insn],
        *,
        helpers: Mapping[int, Helper] | None = None,
        memory: Memory | None = None,
        map_address: Callable[[int], int] | None = None,
        map_value_address: Callable[[int, int], int] | None = None,
        max_steps: int = 1_000_000,
        on_step: Callable[[int, list[int]], None] | None = None,
    ) -> None:
        validate(insns)
        self.insns = insns
        self.helpers = helpers if helpers is not None else {}
        self.memory = memory if memory is not None else Memory()
        self.map_address, self.map_value_address = map_address, map_value_address
        self.max_steps, self.on_step = max_steps, on_step
        self.regs = [0] * b.REGISTERS
        self.defined = 0  # mask of the registers that hold a value
        self.pc = 0
        self.steps = 0
        self._frames: list[_Frame] = []
        self._stacks = 0
        self._reads = [registers_read(insn) for insn in insns]

    def run(self, r1: int = 0, r2: int | None = None, r3: int | None = None, r4: int | None = None, r5: int | None = None) -> int:
        """Run from slot 0 and return r0. Registers that are not given hold nothing. Fault when the program faults."""
        self.regs = [0] * b.REGISTERS
        self.defined = 0
        for reg, value in enumerate((r1, r2, r3, r4, r5), start=1):
            if value is not None:
                self._set(reg, value)
        self.pc = self.steps = 0
        self._frames = []
        try:
            self._push_stack()
            while not self._step():
                pass
        except AccessError as error:
            raise Fault(self.pc, str(error)) from None
        finally:
            while self._stacks:
                self._pop_stack()
        return self.regs[0]

    # ---- frames --------------------------------------------------------------------------------------------------

    def _push_stack(self) -> None:
        start = STACK_BASE + self._stacks * FRAME_STRIDE
        self.memory.map(start, bytearray(STACK_BYTES), name=f"the stack of frame {self._stacks}", blank=True)
        self._stacks += 1
        self._set(b.FRAME, start + STACK_BYTES)

    def _pop_stack(self) -> None:
        self._stacks -= 1
        self.memory.unmap(STACK_BASE + self._stacks * FRAME_STRIDE)

    def _enter(self, target: int) -> None:
        if self._stacks == MAX_FRAMES:
            raise Fault(self.pc, f"calls nest deeper than {MAX_FRAMES} frames")
        self._frames.append(_Frame(self.pc + 1, self.regs[6:11], self.defined))
        self.defined &= ARGUMENTS
        self._push_stack()
        self.pc = target

    def _leave(self) -> bool:
        """Return from a function; True when it was the outermost."""
        if not self._frames:
            return True
        frame = self._frames.pop()
        self._pop_stack()
        self.regs[6:11] = frame.saved
        self.defined = frame.defined & ~(ARGUMENTS | 1) | self.defined & 1
        self.pc = frame.return_to
        return False

    # ---- instructions --------------------------------------------------------------------------------------------

    def _set(self, reg: int, value: int) -> None:
        self.regs[reg] = value & U64
        self.defined |= 1 << reg

    def _step(self) -> bool:
        """Execute one instruction; True when the program has ended."""
        pc, regs = self.pc, self.regs
        if not 0 <= pc < len(self.insns):
            raise Fault(pc, f"there is no such instruction: the program has {len(self.insns)}")
        if self.steps >= self.max_steps:
            raise Fault(pc, f"the limit of {self.max_steps} instructions is reached")
        insn = self.insns[pc]
        missing = self._reads[pc] & ~self.defined
        if missing and not (insn.is_exit and self._frames):  # a local function may return nothing
            raise Fault(pc, f"reads r{(missing & -missing).bit_length() - 1}, which holds no value")
        if self.on_step is not None:
            self.on_step(pc, regs)
        self.steps += 1
        if insn.cls in (b.JMP, b.JMP32):
            return self._jump(insn)
        if insn.op == b.LDDW:
            self._write_register(insn.dst, self._wide(insn))
            self.pc += 2
            return False
        if insn.cls in (b.ALU, b.ALU64):
            operand = regs[insn.src] if insn.op & b.X and insn.op & 0xF0 != b.END else insn.imm
            self._write_register(insn.dst, alu(insn, regs[insn.dst], operand))
        elif insn.is_load:
            value = self.memory.read(regs[insn.src] + insn.off & U64, insn.size)
            extend = insn.op & 0xE0 == b.MEMSX
            self._write_register(insn.dst, signed(value, 8 * insn.size) if extend else value)
        elif insn.is_atomic:
            self._atomic(insn)
        elif insn.is_store:
            value = regs[insn.src] if insn.cls == b.STX else insn.imm
            self.memory.write(regs[insn.dst] + insn.off & U64, insn.size, value)
        else:
            raise Fault(pc, f"opcode {insn.op:#04x} is not an instruction")
        self.pc += 1
        return False

    def _write_register(self, reg: int, value: int) -> None:
        if reg == b.FRAME:
            raise Fault(self.pc, "writes r10, the frame pointer, which is read-only")
        self._set(reg, value)

    def _wide(self, insn: Insn) -> int:
        if insn.src == 0:
            return insn.imm
        if insn.src == b.PSEUDO_MAP and self.map_address is not None:
            return self.map_address(insn.imm)
        if insn.src == b.PSEUDO_MAP_VALUE and self.map_value_address is not None:
            return self.map_value_address(insn.imm & 0xFFFFFFFF, insn.imm >> 32)
        raise Fault(self.pc, f"nothing here resolves a wide load with pseudo source {insn.src}")

    def _atomic(self, insn: Insn) -> None:
        """Section 5.3."""
        regs, size = self.regs, insn.size
        addr = regs[insn.dst] + insn.off & U64
        if addr % size:
            raise Fault(self.pc, f"atomic operation on {size} bytes at {addr:#x}, which is not aligned")
        mask = (1 << 8 * size) - 1
        old = self.memory.read(addr, size)
        if insn.imm == b.ATOMIC_CMPXCHG:
            self.memory.write(addr, size, regs[insn.src] if old == regs[0] & mask else old)
            self._set(0, old)
            return
        exchange = insn.imm == b.ATOMIC_XCHG
        value = regs[insn.src] if exchange else _ATOMIC[insn.imm & ~b.ATOMIC_FETCH](old, regs[insn.src])
        self.memory.write(addr, size, value)
        if insn.imm & b.ATOMIC_FETCH:
            self._write_register(insn.src, old)

    def _jump(self, insn: Insn) -> bool:
        if insn.is_exit:
            return self._leave()
        if insn.is_call:
            self._call(insn)
            return False
        regs = self.regs
        operand = regs[insn.src] if insn.op & b.X else insn.imm
        if not insn.is_cond_jump or taken(insn, regs[insn.dst], operand):
            self.pc = jump_target(self.pc, insn)
        else:
            self.pc += 1
        return False

    def _call(self, insn: Insn) -> None:
        if insn.src == b.PSEUDO_CALL:
            self._enter(jump_target(self.pc, insn))
            return
        number = self.regs[insn.dst] if insn.op == b.CALLX else insn.imm
        helper = self.helpers.get(number)
        if helper is None or insn.src != b.HELPER_CALL:
            raise Fault(self.pc, f"calls {'helper' if insn.src == b.HELPER_CALL else 'kfunc'} {number}, which is not here")
        result = helper(self, *self.regs[1:6])
        self.defined &= ~ARGUMENTS
        self._set(0, result)
        self.pc += 1


# ---- bare programs -----------------------------------------------------------------------------------------------

IDENTITY = 5  # the one helper of bare programs: it returns its first argument
BARE_MEMORY = 0x10_0000


def run_bare(insns: Sequence[Insn], mem: bytearray, max_steps: int = 1_000_000) -> int:
    """r0 of a program without a world: r1 points to `mem` (changed in place; 0 if it is empty), r2 is its length.

    Raises Fault, and BpfFormatError for what is no program.
    """
    memory = Memory()
    if mem:
        memory.map(BARE_MEMORY, mem, name="mem")
    interpreter = Interpreter(insns, memory=memory, helpers={IDENTITY: lambda _, a, *rest: a}, max_steps=max_steps)
    return interpreter.run(BARE_MEMORY if mem else 0, len(mem))
