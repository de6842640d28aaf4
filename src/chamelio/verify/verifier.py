"""Exploration: every path of a program, joined only where an explored state describes the new one; never widened.

The graph of explored states is acyclic, because a state that repeats on its own path is refused as an endless loop; the
worst case is the longest path over it. Local calls are explored at each call site. Giving up is a verdict, never an accept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn, jump_target
from chamelio.bpf.object import Object, Program
from chamelio.jit.layout import RING_IN
from chamelio.verify import scalar as s
from chamelio.verify.catalogue import CONTEXTS, Context, context_of
from chamelio.verify.codes import CODES
from chamelio.verify.flow import Shape
from chamelio.verify.machine import Machine, Refused, cold_and_warm, describe
from chamelio.verify.path import Step, path_text
from chamelio.verify.proof import Limits, Proof, Verdict
from chamelio.verify.scalar import Scalar, const
from chamelio.verify.values import Cover, Frame, Pointer, State, Value, features

MAX_FRAMES = 8
CLOCK_EVERY = 256  # steps between looks at the clock

Way = tuple[int, State, Step | None]  # where to go on, in what state, and the branch that leads there

_SWAPPED = {
    bpf.JEQ: bpf.JEQ, bpf.JNE: bpf.JNE, bpf.JGT: bpf.JLT, bpf.JLT: bpf.JGT, bpf.JGE: bpf.JLE, bpf.JLE: bpf.JGE,
}  # fmt: skip


@dataclass(eq=False)
class _Memo:
    """A state at a point, and once everything after it is explored what that can cost at most."""

    state: State
    done: bool = False
    cold: int = 0
    warm: int = 0


class _Point:
    """The states explored at one point, found by the constants in them, so that long loops cost no comparison per turn.

    A pattern is where a state has constants; by pattern and constants the states are kept.
    """

    def __init__(self, live: int, most: int) -> None:
        self.live, self.most = live, most
        self.by_pattern: dict[tuple[tuple[int, int], ...], dict[tuple[object, ...], list[_Memo]]] = {}

    def candidates(self, state: State) -> Iterator[_Memo]:
        """States that may cover this one, of each sort the latest first."""
        has = features(state, self.live).get
        for pattern, alike in self.by_pattern.items():
            yield from reversed(alike.get(tuple(map(has, pattern)), ()))

    def add(self, memo: _Memo) -> None:
        """Remember a state. Of too many alike a finished one is forgotten: that costs time, never soundness."""
        has = features(memo.state, self.live)
        pattern = tuple(sorted(has))
        alike = self.by_pattern.setdefault(pattern, {}).setdefault(tuple(map(has.get, pattern)), [])
        alike.append(memo)
        if len(alike) > self.most:
            done = next((m for m in alike if m.done), None)
            if done is not None:
                alike.remove(done)


@dataclass(eq=False)
class _Node:
    """A stretch of the path being explored: from a branch or join to the next."""

    pending: list[Way]
    cold: int
    warm: int
    memo: _Memo | None = None
    why: Step | None = None
    best_cold: int = 0
    best_warm: int = 0


class _Explorer:
    def __init__(self, obj: Object, program: Program, context: Context, hook: str, limits: Limits) -> None:
        self.program, self.limits = program, limits
        self.insns = program.insns
        self.shape = Shape(program)
        self.machine = Machine(obj, self.insns, context, hook, self._at)
        self.points: dict[tuple[int, tuple[int, ...]], _Point] = {}
        self.steps = self.states = 0
        self.pc = 0
        self.deadline = time.perf_counter() + limits.seconds
        self.stack: list[_Node] = []
        self.why: Step | None = None  # the branch that leads to the stretch being run, which is not on the stack yet
        self.back_jumps: dict[int, int] = {}

    # ---- the search ----------------------------------------------------------------------------------------------

    def run(self) -> tuple[int, int]:
        """Explore everything; returns the worst case, cold and warm. Raises Refused; `pc` says where."""
        start = State([None] * 10, [Frame()])
        start.regs[1] = Pointer("ctx")
        root = _Node([(0, start, None)], 0, 0)
        self.stack = [root]
        while True:
            node = self.stack[-1]
            if node.pending:
                pc, state, why = node.pending.pop()
                self._arrive(node, pc, state, why)
                continue
            self.stack.pop()
            cold, warm = node.cold + node.best_cold, node.warm + node.best_warm
            if node.memo is not None:
                node.memo.done, node.memo.cold, node.memo.warm = True, cold, warm
            if not self.stack:
                return cold, warm
            self._child(self.stack[-1], cold, warm)

    @staticmethod
    def _child(node: _Node, cold: int, warm: int) -> None:
        node.best_cold, node.best_warm = max(node.best_cold, cold), max(node.best_warm, warm)

    def _arrive(self, parent: _Node, pc: int, state: State, why: Step | None) -> None:
        """Reach a point: known already, or the beginning of a new stretch."""
        self.pc, self.why = pc, why
        memo = None
        if pc in self.shape.targets:
            live = self.shape.live[pc]
            where = pc, state.key()
            point = self.points.get(where)
            if point is None:
                point = self.points[where] = _Point(live, self.limits.states_per_point)
            loosened: State | None = None
            for old in point.candidates(state):
                if not Cover(old.state, state, live).holds():
                    continue
                if old.done:
                    self._child(parent, old.cold, old.warm)
                    return
                # an unfinished state lies on this very path; what is less than it may still come to an end (a counter
                # that falls from an unknown start), what is no less never will
                loosened = loosened or _loosened(state)
                if Cover(loosened, old.state, live).holds():
                    raise Refused(
                        "V130", "the loop may never end", "after a turn of it, nothing has changed that the verifier knows of"
                    )
            memo = _Memo(loosened or _loosened(state))
            point.add(memo)
            self.states += 1
        self.stack.append(self._stretch(pc, state, memo, why))

    def _stretch(self, pc: int, state: State, memo: _Memo | None, why: Step | None) -> _Node:
        """Run straight on until control branches, joins or ends."""
        cold = warm = 0
        node = _Node([], 0, 0, memo, why)
        self.why = why
        first = True
        while True:
            self.pc = pc
            if not first and pc in self.shape.targets:
                node.pending = [(pc, state, None)]
                break
            first = False
            self._tick()
            insn = self.insns[pc]
            self.machine.facts.reached.add(pc)
            if pc in self.shape.bad:
                raise self.shape.bad[pc]
            self.machine.extra_cold = 0
            extra_cold, extra_warm, after = self._step(pc, insn, state)
            base_cold, base_warm = cold_and_warm(insn, self.machine.facts.accesses.get(pc))
            cold, warm = cold + base_cold + extra_cold + self.machine.extra_cold, warm + base_warm + extra_warm
            if isinstance(after, int):
                pc = after
                continue
            node.pending = after
            break
        node.cold, node.warm = cold, warm
        return node

    def _tick(self) -> None:
        self.steps += 1
        if self.steps > self.limits.steps:
            raise self._gave_up(f"{self.limits.steps} instructions")
        if self.steps % CLOCK_EVERY == 0 and time.perf_counter() > self.deadline:
            raise self._gave_up(f"{self.limits.seconds:g} s")

    def _gave_up(self, spent: str) -> Refused:
        reason = f"after {spent} not everything was explored"
        if self.back_jumps:
            self.pc, turns = max(self.back_jumps.items(), key=lambda item: item[1])
            reason += f"; the loop that ends here was followed {turns:,} times, more than any other"
        return Refused("V160", "too many paths", reason)

    def _step(self, pc: int, insn: Insn, state: State) -> tuple[int, int, int | list[Way]]:
        """One instruction: extra cost, and the next slot or the ways to go on."""
        machine = self.machine
        after = self.shape.next(pc)
        if insn.op == bpf.LDDW:
            machine.load_wide(state, insn)
        elif insn.cls in (bpf.ALU, bpf.ALU64):
            machine.alu(state, pc, insn)
        elif insn.is_exit:
            return 0, 0, self._exit(state)
        elif insn.is_call:
            if insn.op == bpf.CALLX:
                raise Refused("V140", "a call through a register", "functions are called by name")
            if insn.src == bpf.PSEUDO_CALL:
                return 0, 0, self._call(pc, insn, state)
            if insn.src != 0:
                raise Refused("V140", "a kernel function is called", "there is no kernel here")
            cold, warm = machine.helper(state, pc, insn)
            return cold, warm, after
        elif insn.is_cond_jump:
            return 0, 0, self._branch(pc, insn, state, after)
        elif insn.is_jump:
            return 0, 0, self._jump(pc, jump_target(pc, insn))
        elif insn.is_atomic:
            machine.atomic(state, pc, insn)
        elif insn.is_load:
            machine.load(state, pc, insn)
        elif insn.is_store:
            machine.store(state, pc, insn)
        else:
            raise Refused("V140", f"opcode {insn.op:#04x}", "it is no instruction that can run here")
        return 0, 0, after

    def _jump(self, pc: int, target: int) -> int:
        if target <= pc:
            self.back_jumps[pc] = self.back_jumps.get(pc, 0) + 1
        return target

    # ---- calls ----------------------------------------------------------------------------------------------------

    def _call(self, pc: int, insn: Insn, state: State) -> int:
        target = pc + 1 + insn.imm
        if len(state.frames) >= MAX_FRAMES:
            raise Refused("V132", "calls nest too deeply", f"this would be frame {MAX_FRAMES + 1}")
        function_of = self.program.subprog_at
        chain = [*(function_of(f.back - 1) for f in state.frames[1:]), function_of(pc)]
        if target in chain:
            raise Refused("V131", "a function calls itself", "directly or through others")
        state.frames.append(Frame(pc + 1, tuple(state.regs[6:10])))
        state.regs[0] = None
        state.regs[6:10] = [None] * 4
        return target

    def _exit(self, state: State) -> int | list[Way]:
        depth = len(state.frames) - 1
        value = state.regs[0]
        if depth == 0:
            if value is None:
                raise Refused("V116", "the handler returns without a verdict", "r0 was never written on this path")
            if isinstance(value, Pointer):
                raise Refused("V112", f"{describe(value)} is returned", "a verdict is a number")
            return []
        if isinstance(value, Pointer) and value.region == "stack" and value.frame == depth:
            raise Refused("V112", "the address of a local variable is returned", "its frame ends here")
        frame = state.frames.pop()
        state.replace_all(lambda v: None if isinstance(v, Pointer) and v.region == "stack" and v.frame == depth else v)
        state.regs[1:6] = [None] * 5
        state.regs[6:10] = list(frame.saved)
        return frame.back

    # ---- branches --------------------------------------------------------------------------------------------------

    def _branch(self, pc: int, insn: Insn, state: State, after: int) -> list[Way]:
        target = jump_target(pc, insn)
        bits = 64 if insn.cls == bpf.JMP else 32
        op = insn.op & 0xF0
        a = self.machine.get(state, insn.dst)
        b = self.machine.get(state, insn.src) if insn.op & bpf.X else const(insn.imm if bits == 64 else insn.imm & s.U32)
        out: list[Way] = []
        for holds, where in ((True, target), (False, after)):
            new = state.copy()
            if self._assume(new, insn, op, bits, a, b, holds):
                if holds:
                    self._jump(pc, target)
                out.append((where, new, self._why(pc, insn, holds, a, state, new)))
        return out

    @staticmethod
    def _why(pc: int, insn: Insn, holds: bool, a: Value, old: State, new: State) -> Step:
        if insn.dst == bpf.FRAME:
            return Step(pc, holds, a, a)
        proven = None
        if isinstance(a, Pointer) and a.region == "packet" and new.proven_bytes(a.var) > old.proven_bytes(a.var):
            proven = new.proven_bytes(a.var)
        return Step(pc, holds, a, new.regs[insn.dst], proven)

    def _assume(self, state: State, insn: Insn, op: int, bits: int, a: object, b: object, holds: bool) -> bool:
        """Narrow a state by a comparison's outcome. False: that cannot happen."""
        if isinstance(a, Scalar) and isinstance(b, Scalar):
            found = s.assume(op, bits, a, b, holds)
            if found is None:
                return False
            self._narrow(state, insn.dst, a, found[0])
            if insn.op & bpf.X:
                self._narrow(state, insn.src, b, found[1])
            return True
        if bits != 64:
            raise Refused("V114", "half a pointer is compared", "pointers are compared 64 bits wide")
        if isinstance(a, Pointer) and isinstance(b, Pointer):
            return self._assume_packet(state, op, a, b, holds)
        pointer, number = (a, b) if isinstance(a, Pointer) else (b, a)
        assert isinstance(pointer, Pointer) and isinstance(number, Scalar)
        if number.const != 0 or op not in (bpf.JEQ, bpf.JNE):
            raise Refused(
                "V114",
                f"{describe(pointer)} is compared with {describe(number)}",
                "pointers are compared with NULL or the packet's end",
            )
        is_null = holds == (op == bpf.JEQ)
        if not pointer.null:
            # in a hook that has no packet or no entry, the context's pointers are NULL
            return not is_null or pointer.region.startswith(("packet", "entry"))
        name = pointer.null
        if is_null:
            state.replace_all(lambda v: const(0) if isinstance(v, Pointer) and v.null == name else v)
        else:
            state.replace_all(lambda v: v._replace(null=0) if isinstance(v, Pointer) and v.null == name else v)
        return True

    @staticmethod
    def _narrow(state: State, reg: int, old: Scalar, new: Scalar) -> None:
        state.regs[reg] = new
        if old.ident:
            state.replace_all(lambda v: new if isinstance(v, Scalar) and v.ident == old.ident else v)
            room = state.rooms.get(old.ident)
            if room is not None and new.smin > 0:
                state.prove(room[0], room[1] + new.smin)

    @staticmethod
    def _assume_packet(state: State, op: int, a: Pointer, b: Pointer, holds: bool) -> bool:
        if a.region.endswith("_end") and not b.region.endswith("_end") and op in _SWAPPED:
            a, b, op = b, a, _SWAPPED[op]
        if (a.region, b.region) not in (("packet", "packet_end"), ("entry", "entry_end")) or op not in _SWAPPED:
            raise Refused("V114", f"{describe(a)} is compared with {describe(b)}", "only packet and entry addresses with their end")
        if a.region == "entry":
            return True  # the entry's size is known without it
        inside = {bpf.JGT: not holds, bpf.JGE: not holds, bpf.JLT: holds, bpf.JLE: holds}.get(op, False)
        strict = (op == bpf.JGE and not holds) or (op == bpf.JLT and holds)
        if inside:
            bytes_ = a.off + (1 if strict else 0)
            state.prove(a.var, bytes_)
        return True

    # ---- words ------------------------------------------------------------------------------------------------------

    def _at(self, pc: int) -> str:
        line = self.program.line_at(pc)
        return f"{line.line}:{line.col}" if line else f"instruction {pc}"

    def causal_path(self) -> tuple[str, ...]:
        """The branches on the way to where exploration stands."""
        return path_text([*(node.why for node in self.stack), self.why], self._at)


def _loosened(state: State) -> State:
    """A copy to compare later states with: names that only one value has say nothing, but for distances to the packet's end."""
    count: dict[int, int] = {}

    def note(v: object) -> object:
        if isinstance(v, Scalar) and v.ident:
            count[v.ident] = count.get(v.ident, 0) + 1
        return v

    out = state.copy()
    out.replace_all(note)
    rooms = out.rooms = {ident: room for ident, room in out.rooms.items() if ident in count}
    out.replace_all(
        lambda v: v._replace(ident=0) if isinstance(v, Scalar) and v.ident and count[v.ident] < 2 and v.ident not in rooms else v
    )
    return out


def verify_program(
    obj: Object, program: Program, *, context: str | None = None, limits: Limits | None = None, budget: int | None = None
) -> Verdict:
    """Verify one program. `context`: instead of the section's; `budget`: most cycles that the worst case (cold) may cost."""
    started = time.perf_counter()
    found = (CONTEXTS[context], context) if context else context_of(program.section)
    common: dict[str, Any] = {"program": program.name, "section": program.section}
    if found is None:
        refusal = Refused("V141", f"section {program.section}", "it is neither chamelio/HOOK nor xdp")
        return _refusal(common, program, refusal, 0, (), 0, started)
    if len({m.value_size for m in obj.maps if m.kind == RING_IN}) > 1:
        refusal = Refused("V150", "inbound rings with entries of several sizes", "the ring hook sees entries of one size")
        return _refusal(common, program, refusal, 0, (), 0, started)
    limits = limits or Limits()
    if len(program.insns) > limits.instructions:
        refusal = Refused("V160", "the program is too long", f"{len(program.insns)} instructions; at most {limits.instructions}")
        return _refusal(common, program, refusal, 0, (), 0, started)
    explorer = _Explorer(obj, program, *found, limits)
    try:
        cold, warm = explorer.run()
        if budget is not None and cold > budget:
            explorer.pc, explorer.why = 0, None  # it is no single place's fault
            raise Refused("V161", f"the worst case is {cold} cycles", f"the budget of this hook is {budget}")
    except Refused as refusal:
        return _refusal(common, program, refusal, explorer.pc, explorer.causal_path(), explorer.steps, started)
    facts = explorer.machine.facts
    proof = Proof(
        program=program,
        hook=found[1],
        accesses=facts.accesses,
        reached=frozenset(facts.reached),
        map_args=facts.map_args,
        stack_depth=facts.stack_depth,
        cost_cold=cold,
        cost_warm=warm,
        steps=explorer.steps,
        states=explorer.states,
        loops=explorer.back_jumps,
        masks=facts.settled_masks(),
        all_masked=not facts.unmaskable & facts.soft,
    )
    return Verdict(
        **common, verdict="accept", cost_cold=cold, cost_warm=warm, steps=explorer.steps,
        seconds=time.perf_counter() - started, proof=proof,
    )  # fmt: skip


def _refusal(
    common: dict[str, Any], program: Program, refused: Refused, pc: int, path: tuple[str, ...], steps: int, started: float
) -> Verdict:
    code = CODES[refused.code]
    line = program.line_at(pc)
    where = {"file": line.file, "line": line.line, "col": line.col, "text": line.text} if line else {}
    return Verdict(
        **common, verdict=code.kind, code=code.code, message=f"{code.title}: {refused.message}", reason=refused.reason,  # type: ignore[arg-type]
        path=path, suggestion=code.suggestion, insn=pc, steps=steps, seconds=time.perf_counter() - started, **where,  # type: ignore[arg-type]
    )  # fmt: skip


def verify_object(
    obj: Object, *, context: str | None = None, limits: Limits | None = None, budget: int | None = None
) -> list[Verdict]:
    """Verdicts of all programs of an object, in their order. A hook has one handler: a second one is refused."""
    verdicts: list[Verdict] = []
    handlers: dict[str, str] = {}
    for program in obj.programs:
        first = handlers.setdefault(program.section, program.name)
        if program.section.startswith("chamelio/") and first != program.name:
            refusal = Refused("V142", f"{first} and {program.name} are both in {program.section}", "a hook runs one of them")
            common = {"program": program.name, "section": program.section}
            verdicts.append(_refusal(common, program, refusal, 0, (), 0, time.perf_counter()))
        else:
            verdicts.append(verify_program(obj, program, context=context, limits=limits, budget=budget))
    return verdicts
