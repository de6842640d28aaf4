"""A run on the reference interpreter, recorded line by line: what was read, written, called and decided, and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from chamelio.bpf import insn as bpf
from chamelio.bpf.disasm import format_insn
from chamelio.bpf.insn import Insn
from chamelio.bpf.interp import U64, AccessError, Fault, Interpreter, signed, taken
from chamelio.bpf.object import Object, Program
from chamelio.jit.layout import KIND_NAMES
from chamelio.trace import values
from chamelio.trace.scene import CONTEXT, Scene, Start, number
from chamelio.trace.turn import U32, charge_of
from chamelio.verify.catalogue import HELPERS, Helper
from chamelio.verify.cost import insn_cost

MAX_STEPS = 200_000
_OPERATORS = {
    bpf.JEQ: "==", bpf.JNE: "!=", bpf.JGT: ">", bpf.JGE: ">=", bpf.JLT: "<", bpf.JLE: "<=", bpf.JSET: "&",
    bpf.JSGT: ">", bpf.JSGE: ">=", bpf.JSLT: "<", bpf.JSLE: "<=",
}  # fmt: skip
_SIGNED = (bpf.JSGT, bpf.JSGE, bpf.JSLT, bpf.JSLE)
_ERRNO = {2: "ENOENT", 22: "EINVAL", 28: "ENOSPC"}


class Event(msgspec.Struct):
    """One thing that an instruction did. `kind`: "read", "write", "branch", "call"."""

    kind: str
    insn: int
    text: str
    details: dict[str, Any] = {}


class LineOf(msgspec.Struct):
    """A stretch of instructions that belong to one source line. `line` 0: the object does not say which."""

    file: str
    line: int
    text: str
    function: str
    cycles: int = 0
    events: list[Event] = []


class Trace(msgspec.Struct):
    """What a run did. `verdict` is done, transmit, punt, error, bad or fault; `packet` is what the run ended with."""

    program: str
    hook: str
    lines: list[LineOf]
    steps: int
    cycles: int
    result: int | None = None
    verdict: str = "fault"
    verdict_text: str = ""
    packet: bytes | None = None
    emitted: list[bytes] = []
    pushed: list[dict[str, Any]] = []
    due: list[dict[str, Any]] = []


class _Recorder:
    """Watches an interpreter's steps."""

    def __init__(self, program: Program, scene: Scene) -> None:
        self.program, self.scene = program, scene
        self.lines: list[LineOf] = []
        self.cycles = self.steps = 0
        self.origins: dict[int, str] = {}  # what a register was loaded from, as long as it holds just that

    @property
    def line(self) -> LineOf:
        return self.lines[-1]

    def step(self, pc: int, regs: list[int]) -> None:
        self.steps += 1
        where = self.program.line_at(pc)
        function = self.program.subprogs.get(self.program.subprog_at(pc), "")
        file, line, text = (where.file.rpartition("/")[2], where.line, where.text.strip()) if where else ("", 0, "")
        if not self.lines or (self.line.file, self.line.line, self.line.function) != (file, line, function):
            self.lines.append(LineOf(file, line, text or format_insn(self.program.insns[pc], pc), function))
        insn = self.program.insns[pc]
        self._charge(insn_cost(insn))
        self._look(pc, insn, regs)

    def _charge(self, cycles: int) -> None:
        self.cycles += cycles
        self.line.cycles += cycles

    def note(self, kind: str, pc: int, text: str, **details: Any) -> None:
        self.line.events.append(Event(kind, pc, text, details))

    def _look(self, pc: int, insn: Insn, regs: list[int]) -> None:
        if insn.is_cond_jump:
            self._branch(pc, insn, regs)
        elif insn.is_call or insn.is_exit:
            self.origins.clear()
        elif insn.is_load and not insn.is_atomic:
            place = self._access("read", pc, regs[insn.src] + insn.off & U64, insn.size, None)
            self._loaded(insn.dst, place)
        elif insn.cls in (bpf.ALU, bpf.ALU64):
            copied = insn.op & 0xF0 == bpf.MOV and insn.op & bpf.X
            self._loaded(insn.dst, self.origins.get(insn.src) if copied else None)
        elif insn.is_store or insn.is_atomic:
            value = regs[insn.src] if insn.cls == bpf.STX else insn.imm
            self._access("write", pc, regs[insn.dst] + insn.off & U64, insn.size, value & (1 << 8 * insn.size) - 1)

    def _loaded(self, reg: int, place: str | None) -> None:
        self.origins.pop(reg, None)
        if place is not None:
            self.origins[reg] = place

    def _access(self, kind: str, pc: int, address: int, size: int, value: int | None) -> str | None:
        """A read or write of anything but the stack, which is the compiler's affair; what was read or written."""
        scene = self.scene
        place = scene.place(address, size)
        if place.startswith("stack"):
            return None
        try:
            old = scene.memory.read(address, size)
        except AccessError:
            return None  # the interpreter is about to say so
        name = place.rstrip(")").rpartition("(")[2].rpartition(".")[2].rpartition(">")[2]

        def shown(x: int) -> str:
            if place.startswith("ctx"):
                return str(x) if name == "now" else scene.operand(x)
            if place.startswith("packet"):
                return values.on_the_wire(x, size, name)
            return values.scalar(x, size, name)

        if value is None:
            self.note("read", pc, f"{place} = {shown(old)}", place=place, value=old, size=size)
        else:
            was = f" (was {shown(old)})" if old != value else ""
            self.note("write", pc, f"{place} := {shown(value)}{was}", place=place, value=value, old=old, size=size)
        return place

    def _branch(self, pc: int, insn: Insn, regs: list[int]) -> None:
        bits = 64 if insn.cls == bpf.JMP else 32
        mask = (1 << bits) - 1
        op = insn.op & 0xF0
        a, b = regs[insn.dst] & mask, (regs[insn.src] if insn.op & bpf.X else insn.imm) & mask
        holds = taken(insn, regs[insn.dst], regs[insn.src] if insn.op & bpf.X else insn.imm)

        def shown(x: int) -> str:
            return str(signed(x, bits)) if op in _SIGNED else self.scene.operand(x) if bits == 64 else number(x)

        left, right = shown(a), shown(b)
        if right == "0" and left.startswith("&"):
            right = "NULL"
        condition = f"{left} {_OPERATORS[op]} {right}"
        origins = [o for o in (self.origins.get(insn.dst), self.origins.get(insn.src) if insn.op & bpf.X else None) if o]
        origin = f" ({', '.join(origins)})" if origins and not left.startswith(("packet", "entry")) else ""
        self.note("branch", pc, f"{condition}: {'yes' if holds else 'no'}{origin}", condition=condition, taken=holds, of=origins)

    # ---- helpers -----------------------------------------------------------------------------------------------------

    def helper(self, h: Helper) -> Callable[..., int]:
        """A helper that says what it was asked and what it answered."""
        function = getattr(self.scene, h.name)

        def call(interpreter: Interpreter, *registers: int) -> int:
            arguments = registers[: len(h.args)]
            cycles = charge_of(h.id, registers)
            pc = interpreter.pc
            shown, index = self._arguments(h, arguments)
            result = int(function(*arguments))
            self._charge(cycles)
            answer = self._answer(h, index, result)
            self.note(
                "call",
                pc,
                f"{h.name}({', '.join(shown)}) -> {answer}",
                helper=h.name,
                arguments=shown,
                result=result,
                cycles=cycles,
            )
            return result

        return call

    def _arguments(self, h: Helper, registers: tuple[int, ...]) -> tuple[list[str], int | None]:
        scene, shown, index = self.scene, [], None
        for argument, value in zip(h.args, registers, strict=True):
            if argument.kind == "map":
                index = scene.map_at(value)
                shown.append(scene.maps[index].name)
            elif argument.kind == "ctx":
                shown.append("ctx")
            elif argument.kind == "scalar":
                span = f"{value >> 32}+{value & U32}" if argument.name == "span" else scene.operand(value)
                shown.append(f"{argument.name} {span}")
            else:
                assert index is not None
                m, is_key = scene.maps[index], argument.kind == "key"
                content = scene.load(value, m.key_size if is_key else m.value_size)
                dtype = scene.types.keys[index] if is_key else scene.types.values[index]
                shown.append(f"{argument.name} {values.show(content, dtype)}")
        return shown, index

    def _answer(self, h: Helper, index: int | None, result: int) -> str:
        if h.ret != "scalar":
            if not result:
                return "miss"
            assert index is not None
            place = self.scene.place(result).partition("]")[0] + "]"
            slot = int(place.rpartition("[")[2].rstrip("]"))
            return f"hit, {place} = {values.show(bytes(self.scene.value(index, slot)), self.scene.types.values[index])}"
        if result < 0:
            name = f"-{_ERRNO.get(-result, -result)}"
            meaning = next((part.partition(": ")[2] for part in h.errors.split("; ") if part.startswith(f"{name}:")), "")
            return f"{name} ({meaning})" if meaning else name
        if h.invalidates_packet:
            packet = self.scene.packet_bytes()
            return f"{result}; {'no packet any more' if packet is None else f'the packet has {len(packet)} bytes'}"
        return number(result & U64)


def trace(obj: Object, program: Program, scene: Scene, start: Start) -> Trace:
    """Run a program and record it. A program that does what no program may do ends in a verdict `fault`."""
    recorder = _Recorder(program, scene)
    scene.start(start)
    interpreter = Interpreter(
        program.insns, helpers={h.id: recorder.helper(h) for h in HELPERS.values()}, memory=scene.memory, on_step=recorder.step,
        map_address=scene.map_address, map_value_address=scene.data_address, max_steps=MAX_STEPS,
    )  # fmt: skip
    out = Trace(program.name, start.hook, recorder.lines, 0, 0)
    try:
        result = interpreter.run(CONTEXT)
        out.result = result
        out.verdict, out.verdict_text = verdict_of(result, obj, scene.packet_bytes() is not None)
    except Fault as fault:
        out.verdict_text = f"instruction {fault.pc}: {fault.reason}"
    out.steps, out.cycles = recorder.steps, recorder.cycles
    out.packet, out.emitted = scene.packet_bytes(), list(scene.emitted)
    for ring, context, entry in scene.pushed:
        text = values.show(entry, scene.types.values[ring])
        out.pushed.append({"ring": scene.maps[ring].name, "context": context, "entry": text, "bytes": entry})
    for index, ids in scene.due.items():
        m = scene.maps[index]
        out.due += [{"map": m.name, "kind": KIND_NAMES[m.kind], "id": i, "in_ns": when - start.now} for i, when in ids.items()]
    return out


def verdict_of(result: int, obj: Object, packet: bool) -> tuple[str, str]:
    """A verdict and what happens then, as `settle` in fastpath/unit.c does."""
    if result == 0:
        return "done", "finished with the packet" if packet else "finished"
    if result == 1:
        return ("transmit", "transmit the packet") if packet else ("bad", "transmit, but there is no packet: bad_verdict")
    if result == 2:
        return ("punt", "give the packet to the slow path") if packet else ("bad", "punt, but there is no packet: bad_verdict")
    if result & 0xFF == 3 and result >> 16 == 0:
        reason = result >> 8
        name = reason_name(obj, reason)
        end = "the packet is dropped and counted as handler_error" if packet else "it is counted"
        return "error", f"error, reason {reason}{f' ({name})' if name else ''}: {end}"
    return "bad", f"{result:#x} is no verdict: bad_verdict"


def reason_name(obj: Object, reason: int) -> str:
    """What `enum reason` of the protocol calls a reason, where the type information has it."""
    try:
        names = obj.btf.enum("reason") if obj.btf is not None else {}
    except (KeyError, AssertionError):
        return ""
    return next((name for name, number_ in names.items() if number_ == reason), "")
