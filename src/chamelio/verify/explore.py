"""Exploration: every path of a program, joined only where an explored state describes the new one.

The graph of explored states is acyclic, because a state that repeats on its own path is refused as an endless loop; the
worst case is the longest path over it. Local calls are explored at each call site. Giving up is a verdict, never an accept.

Only what a helper calls in turn, at most so many times, is joined with what is still being explored: there, and only there, numbers
that change from turn to turn are widened, so that one turn stands for all.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn, jump_target
from chamelio.bpf.object import Object, Program
from chamelio.verify.calls import Callback
from chamelio.verify.catalogue import Context
from chamelio.verify.cost import insn_cost, mispredict
from chamelio.verify.cover import Cover, Features, features
from chamelio.verify.demand import Demand, Effect, number_flow
from chamelio.verify.flow import Shape
from chamelio.verify.machine import Machine
from chamelio.verify.path import Step, notes, path_text
from chamelio.verify.proof import Limits, Note
from chamelio.verify.scalar import UNKNOWN, Scalar
from chamelio.verify.slice import BY_OMISSION, Segment, deed, sliced
from chamelio.verify.subject import Refused, Subject, bit
from chamelio.verify.values import Frame, Pointer, State, Value
from chamelio.verify.words import describe

MAX_FRAMES = 8
CLOCK_EVERY = 256  # steps between looks at the clock
RECENT = 6  # turns of a loop that a new turn is compared with
MAX_ERRORS = 50  # of one program

Way = tuple[int, State, Step | None, Effect | None]  # where to go on, in what state, the branch that leads there, what it needs


@dataclass(eq=False, slots=True)
class Stretch:
    """What was executed from a join or branch to the next, for attribution: (slot, cycles cold), and the costliest way on."""

    costs: list[tuple[int, int]]
    next: Stretch | None = None


@dataclass(eq=False, slots=True)
class _Memo:
    """A state at a point, and once everything after it is explored what that can cost at most and needs of the state."""

    state: State
    found: Features  # of the state, by which it is found
    turn: int  # of callbacks: how many turns the path was in when it came here
    done: bool = False
    cold: int = 0
    warm: int = 0
    demand: Demand | None = None
    worst: Stretch | None = None


class _Point:
    """The states explored at one point, found by the constants in them, so that long loops cost no comparison per turn.

    A pattern is where a state has constants; by pattern and constants the states are kept.
    """

    def __init__(self, live: int, most: int) -> None:
        self.live, self.most = live, most
        self.by_pattern: dict[tuple[tuple[int, int], ...], dict[tuple[object, ...], list[_Memo]]] = {}

    def candidates(self, found: Features) -> Iterator[_Memo]:
        """States that may cover one with these features, of each sort the latest first."""
        has = found.get
        for pattern, alike in self.by_pattern.items():
            if alike:
                yield from reversed(alike.get(tuple(map(has, pattern)), ()))

    def add(self, memo: _Memo) -> None:
        """Remember a state. Of too many alike a finished one is forgotten: that costs time, never soundness."""
        found = memo.found
        pattern = tuple(sorted(found))
        alike = self.by_pattern.setdefault(pattern, {}).setdefault(tuple(map(found.get, pattern)), [])
        alike.append(memo)
        if len(alike) > self.most:
            done = next((m for m in alike if m.done), None)
            if done is not None:
                alike.remove(done)

    def remove(self, memo: _Memo) -> None:
        """Forget a state."""
        found = memo.found
        pattern = tuple(sorted(found))
        alike = self.by_pattern[pattern]
        key = tuple(map(found.get, pattern))
        alike[key].remove(memo)
        if not alike[key]:
            del alike[key]
        if not alike:
            del self.by_pattern[pattern]


@dataclass(eq=False, slots=True)
class _Node:
    """A stretch of the path being explored: from a branch or join to the next."""

    pending: list[Way]
    stretch: Stretch
    cold: int = 0
    warm: int = 0
    memo: _Memo | None = None
    point: _Point | None = None
    why: Step | None = None
    entry: Effect | None = None
    turn: bool = False
    best_cold: int = -1
    best_warm: int = 0
    effects: list[Effect] = field(default_factory=list)
    demand: Demand = field(default_factory=Demand)


@dataclass(frozen=True)
class Finding:
    """A refusal, where it is, and the branches that lead there as text."""

    refused: Refused
    pc: int
    path: tuple[str, ...]
    notes: tuple[Note, ...]


class Explorer:
    """Explores one program."""

    def __init__(self, obj: Object, program: Program, context: Context, hook: str, limits: Limits, *, every: bool = False) -> None:
        self.program, self.limits, self.every = program, limits, every
        self.insns = program.insns
        self.shape = Shape(program, context)
        self.subject = Subject(obj, self.insns, context, hook, self._at)
        self.machine = Machine(self.subject)
        self.actions = [self.machine.action(insn) for insn in self.insns]
        self.costs = [insn_cost(insn) for insn in self.insns]
        self.after = [self.shape.next(pc) for pc in range(len(self.insns))]
        self.traps = dict(self.shape.bad)
        self.traps |= {pc: Refused(f.code, f.message, f.reason) for pc, f in program.faults.items()}
        self.flows = [number_flow(insn) for insn in self.insns]
        self.points: dict[tuple[int, tuple[int, ...]], _Point] = {}
        self.findings: list[Finding] = []
        self.steps = self.states = 0
        self.pc = 0
        self.deadline = time.thread_time() + limits.seconds  # other processes must not change a verdict
        self.stack: list[_Node] = []
        self.why: Step | None = None  # the branch that leads to the stretch being run, which is not on the stack yet
        self.entry: Effect | None = None  # and what it needs
        self.state = State([], [])
        self.back_jumps: dict[int, int] = {}
        self.cold = self.warm = 0
        self.worst: Stretch | None = None
        self.turns = 0  # of callbacks, on the path being explored

    # ---- the search ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Explore everything; then `cold`, `warm` are the worst case, unless there are `findings`."""
        collecting = gc.isenabled()
        gc.disable()  # states make no cycles, and are many
        try:
            self._explore()
        finally:
            if collecting:
                gc.enable()

    def _explore(self) -> None:
        start = State([None] * 10, [Frame()])
        start.regs[1] = Pointer("ctx")
        root = _Node([(0, start, None, None)], Stretch([]))
        self.stack = [root]
        while self.stack:
            node = self.stack[-1]
            if node.pending:
                try:
                    self._arrive(node, *node.pending.pop())
                except Refused as refused:
                    self.findings.append(self._finding(refused))
                    if not self.every or refused.code == "V160" or len(self.findings) >= MAX_ERRORS:
                        return
                    node.demand.whole = True  # nothing is known of what comes after
                continue
            self.stack.pop()
            self._finish(node)

    def _finish(self, node: _Node) -> None:
        """Everything after a stretch is explored."""
        node.demand.back(node.effects, self.flows)
        cold, warm = node.cold + max(node.best_cold, 0), node.warm + node.best_warm
        memo = node.memo
        if memo is not None:
            assert node.point is not None
            self.turns -= node.turn
            point = node.point
            point.remove(memo)
            memo.done, memo.cold, memo.warm, memo.demand, memo.worst = True, cold, warm, node.demand, node.stretch
            if not node.demand.whole:
                memo.found = features(memo.state, node.demand.read, node.demand.exact, node.demand)
            point.add(memo)
        if self.stack:
            self._child(self.stack[-1], cold, warm, self._before(node.entry, node.demand), node.stretch)
        else:
            self.cold, self.warm, self.worst = cold, warm, node.stretch.next

    def _before(self, entry: Effect | None, demand: Demand) -> Demand:
        """What is needed before the branch that leads to where `demand` is needed."""
        if entry is None:
            return demand
        before = demand.copy()
        before.back([entry], self.flows)
        return before

    @staticmethod
    def _child(node: _Node, cold: int, warm: int, demand: Demand, stretch: Stretch | None) -> None:
        if cold > node.best_cold:
            node.best_cold, node.stretch.next = cold, stretch
        node.best_warm = max(node.best_warm, warm)
        node.demand.add(demand)

    def _arrive(self, parent: _Node, pc: int, state: State, why: Step | None, entry: Effect | None) -> None:
        """Reach a point: known already, or the beginning of a new stretch."""
        self.pc, self.why, self.entry, self.state = pc, why, entry, state
        self.subject.effects = []
        memo = point = None
        turn = state.frames[-1].is_callback and state.frames[-1].call == pc
        if pc in self.shape.targets or turn:
            live = 0 if turn else self.shape.live[pc]
            where = pc, state.key()
            point = self.points.get(where)
            if point is None:
                point = self.points[where] = _Point(live, self.limits.states_per_point)
            if turn:
                self._widen(where, state)
            found = features(state, live, live)
            loosened: State | None = None
            unfinished = 0
            for old in point.candidates(found):
                if not old.done and not turn:  # these tell only whether the loop makes no progress
                    unfinished += 1
                    if unfinished > RECENT:
                        continue
                cover = Cover(old.state, state, live, old.demand)
                if not cover.holds():
                    continue
                if old.done:
                    assert old.demand is not None
                    demand = old.demand if old.demand.whole else cover.translated()
                    self._child(parent, old.cold, old.warm, self._before(entry, demand), old.worst)
                    return
                if turn:
                    self._repeat(parent, old)
                    return
                if old.turn != self.turns:
                    continue  # the turn before was here, too
                # an unfinished state lies on this very path; what is less than it may still come to an end (a counter
                # that falls from an unknown start), what is no less never will
                loosened = loosened or _loosened(state)
                if Cover(loosened, old.state, live).holds():
                    raise Refused(
                        "V130", "the loop may never end", "after a turn of it, nothing has changed that the verifier knows of"
                    )
            memo = _Memo(loosened or _loosened(state), found, self.turns)
            point.add(memo)
            self.states += 1
            if self.states > self.limits.states:
                raise self._gave_up(f"{self.limits.states:,} states")
        try:
            node = self._stretch(pc, state, memo, why)
        except Refused:
            if memo is not None and point is not None:
                point.remove(memo)
            raise
        node.point, node.entry, node.turn = point, entry, turn
        self.turns += turn
        self.stack.append(node)

    def _stretch(self, pc: int, state: State, memo: _Memo | None, why: Step | None) -> _Node:
        """Run straight on until control branches, joins or ends."""
        stretch = Stretch([])
        node = _Node([], stretch, memo=memo, why=why)
        subject = self.subject
        effects = subject.effects = []
        node.effects = effects
        self.why = why
        traps, costs, reached, targets = self.traps, self.costs, subject.facts.reached, self.shape.targets
        cold = warm = 0
        first = True
        while True:
            self.pc = pc
            if not first and pc in targets:
                node.pending = [(pc, state, None, None)]
                break
            first = False
            self.steps += 1
            if self.steps % CLOCK_EVERY == 0 or self.steps > self.limits.steps:
                self._check_limits()
            insn = self.insns[pc]
            reached.add(pc)
            if pc in traps:
                raise traps[pc]
            subject.extra_cold = 0
            times = state.times
            extra_cold, extra_warm, after = self._step(pc, insn, state)
            base = costs[pc]
            spent = times * (base + extra_cold + subject.extra_cold)
            cold += spent
            warm += times * (base + extra_warm)
            stretch.costs.append((pc, spent))
            if isinstance(after, int):
                pc = after
                continue
            node.pending = after
            break
        node.cold, node.warm = cold, warm
        return node

    def _check_limits(self) -> None:
        if self.steps > self.limits.steps:
            raise self._gave_up(f"{self.limits.steps:,} instructions")
        if time.thread_time() > self.deadline:
            raise self._gave_up(f"{self.limits.seconds:g} s")

    def _gave_up(self, spent: str) -> Refused:
        reason = f"after {spent} not everything was explored"
        if self.back_jumps:
            self.pc, turns = max(self.back_jumps.items(), key=lambda item: item[1])
            reason += f"; the loop that ends here was followed {turns:,} times, more than any other"
        return Refused("V160", "too many paths", reason)

    def _step(self, pc: int, insn: Insn, state: State) -> tuple[int, int, int | list[Way]]:
        """One instruction: extra cost, and the next slot or the ways to go on."""
        after, action = self.after[pc], self.actions[pc]
        if action is not None:
            try:
                action(state, pc, insn)
            except Refused as refused:
                if not self.every:
                    raise
                self._go_on(state, insn, refused)
            return 0, 0, after
        if state.frames[-1].is_callback and state.frames[-1].call == pc:
            return 0, 0, self._turn(pc, state)
        if insn.is_exit:
            return 0, 0, self._exit(state)
        if insn.is_call:
            if insn.op == bpf.CALLX:
                raise Refused("V140", "a call through a register (callx)", "functions are called by name")
            if insn.src == bpf.PSEUDO_CALL:
                return 0, 0, self._call(pc, insn, state)
            if insn.src != 0:
                raise Refused("V140", "a kernel function (kfunc) is called", "there is no kernel here")
        elif insn.is_cond_jump:
            return mispredict(), 0, self._branch(pc, insn, state, after)
        else:
            return 0, 0, self._jump(pc, jump_target(pc, insn))
        cold, warm, callback = self.machine.calls.helper(state, pc, insn)
        if callback is not None:
            return cold, warm, self._call_back(pc, state, callback)
        if self.machine.calls.is_tail_call(insn):
            return cold, warm, self._tail_call(pc, state, after)
        return cold, warm, after

    def _go_on(self, state: State, insn: Insn, refused: Refused) -> None:
        """Note an error and go on behind it, as if it were mended, to find the next ones. Raises Refused if there are too many."""
        self.findings.append(self._finding(refused))
        if len(self.findings) >= MAX_ERRORS:
            raise refused
        self.subject.effects.append((Demand.everything,))
        base = state.regs[insn.src if insn.is_load else insn.dst] if insn.dst < 10 and insn.src < 10 else None
        if isinstance(base, Pointer) and base.null:
            name = base.null
            state.replace_all(lambda v: v._replace(null=0) if isinstance(v, Pointer) and v.null == name else v)
        computes = insn.cls in (bpf.ALU, bpf.ALU64) and not isinstance(base, Pointer)
        if insn.dst < 10 and (insn.is_load or computes):
            state.regs[insn.dst] = UNKNOWN

    def _jump(self, pc: int, target: int) -> int:
        if target <= pc:
            self.back_jumps[pc] = self.back_jumps.get(pc, 0) + 1
        return target

    # ---- calls ----------------------------------------------------------------------------------------------------

    def _enter(self, pc: int, target: int, state: State) -> None:
        """Check that a function may be entered here."""
        if len(state.frames) >= MAX_FRAMES:
            raise Refused("V132", "calls nest too deeply", f"this would be frame {MAX_FRAMES + 1}")
        function_of = self.program.subprog_at
        chain = [*(function_of(f.call) for f in state.frames[1:]), function_of(pc)]
        if target in chain:
            raise Refused("V131", "a function calls itself", "directly or through others")

    def _call(self, pc: int, insn: Insn, state: State) -> int:
        target = pc + 1 + insn.imm
        self._enter(pc, target, state)
        state.frames.append(Frame(pc + 1, tuple(state.regs[6:10]), times=state.times))
        state.regs[0] = None
        state.regs[6:10] = [None] * 4
        self.subject.effects.append((Demand.call, len(state.frames) - 1))
        return target

    def _exit(self, state: State) -> int | list[Way]:
        depth = len(state.frames) - 1
        value = state.regs[0]
        effects = self.subject.effects
        if depth == 0:
            if value is None:
                raise Refused("V116", "the handler returns without a verdict", "r0 was never written on this path")
            if isinstance(value, Pointer):
                raise Refused("V112", f"{describe(value)} is returned", "a verdict is a number")
            if state.refs:
                raise Refused("V117", "the program ends", "what was acquired on this path has not been given back")
            effects.append((Demand.end,))
            return []
        if isinstance(value, Pointer) and value.region == "stack" and value.frame == depth:
            raise Refused("V112", "the address of a local variable is returned", "its frame ends here")
        frame = state.frames[-1]
        if frame.is_callback:
            if not isinstance(value, Scalar):
                raise Refused("V116", "the callback returns without a number", "0 goes on, 1 ends the loop")
            effects.append((Demand.everything,))
            frame.init, frame.spills, state.regs = 0, {}, [None] * 10
            return [(frame.call, state, None, None)]
        state.frames.pop()
        state.replace_all(lambda v: None if isinstance(v, Pointer) and v.region == "stack" and v.frame == depth else v)
        state.regs[1:6] = [None] * 5
        state.regs[6:10] = list(frame.saved)
        effects.append((Demand.leave, depth))
        return frame.back

    def _tail_call(self, pc: int, state: State, after: int) -> list[Way]:
        """Either it fails and nothing has changed, or the function ends with what another program returns."""
        if state.refs:
            raise Refused("V117", "another program is entered", "what was acquired on this path has not been given back")
        ways: list[Way] = [(after, state, None, None)]
        if len(state.frames) > 1:
            self.subject.effects.append((Demand.everything,))
            other = state.copy()
            self.machine.calls.end_packet(other, pc)
            other.regs[0] = UNKNOWN
            to = self._exit(other)
            ways += to if isinstance(to, list) else [(to, other, None, None)]
        return ways

    # ---- callbacks: a point at the call, where every turn begins and the loop ends -------------------------------------------

    def _call_back(self, pc: int, state: State, callback: Callback) -> list[Way]:
        if callback.start not in self.shape.ends:
            raise Refused("V133", "a callback where no function begins", f"slot {callback.start} is not the start of one")
        self._enter(pc, callback.start, state)
        self.subject.effects.append((Demand.everything,))
        result = state.regs[0]
        saved = (*state.regs[6:10], *callback.arguments, result)
        times = state.times * callback.times
        state.frames.append(Frame(-2 - pc, saved, times=times, start=callback.start))
        state.regs = [None] * 10
        return [(pc, state, None, None)]

    def _turn(self, pc: int, state: State) -> list[Way]:
        """Another turn, or none."""
        self.subject.effects.append((Demand.everything,))
        frame = state.frames[-1]
        again = state.copy()
        again.regs[1:6] = list(frame.saved[4:9])
        state.frames.pop()
        state.regs[0] = frame.saved[9]
        state.regs[6:10] = list(frame.saved[:4])
        return [(frame.start, again, None, None), (self.shape.next(pc), state, None, None)]

    def _repeat(self, parent: _Node, memo: _Memo) -> None:
        """A turn begins as one before it did: the next ones are like that one, and what comes after the last has been explored,
        because a way out is looked at before another turn."""
        node = next(n for n in reversed(self.stack) if n.memo is memo)
        demand = Demand()
        demand.whole = True
        self._child(parent, max(node.best_cold, 0), node.best_warm, demand, node.stretch.next)

    def _widen(self, where: tuple[int, tuple[int, ...]], state: State) -> None:
        """Numbers that differ from what they were at the turn before may be anything."""
        before = next((n.memo.state for n in reversed(self.stack) if n.memo is not None and n.point is self.points[where]), None)
        if before is None:
            return

        def wider(old: Value | None, new: Value | None) -> Value | None:
            changed = isinstance(old, Scalar) and isinstance(new, Scalar) and old[:6] != new[:6]
            return UNKNOWN if changed else new

        for old_frame, new_frame in zip(before.frames, state.frames, strict=True):
            new_frame.saved = tuple(wider(a, b) for a, b in zip(old_frame.saved, new_frame.saved, strict=True))
            for at, (size, value) in list(new_frame.spills.items()):
                was = old_frame.spills.get(at)
                if isinstance(value, Scalar) and (was is None or was[0] != size or wider(was[1], value) is UNKNOWN):
                    del new_frame.spills[at]

    # ---- branches --------------------------------------------------------------------------------------------------

    def _branch(self, pc: int, insn: Insn, state: State, after: int) -> list[Way]:
        target = jump_target(pc, insn)
        a = self.subject.get(state, insn.dst)
        null = insn.op & bpf.X and isinstance(a, Pointer) != isinstance(self.subject.get(state, insn.src), Pointer)
        ways = self.machine.arithmetic.outcomes(state, pc, insn)
        operands = bit(insn.dst) | (bit(insn.src) if insn.op & bpf.X else 0)
        out: list[Way] = []
        if len(ways) < 2 or null:  # what is known of the operands has decided it; NULL in a register must be that
            self.subject.effects.append((Demand.branch, operands, True, (), None))
        for taken, new, places, proven in ways:
            if taken:
                self._jump(pc, target)
            shown = proven[1] if proven is not None and isinstance(a, Pointer) and a.region == "packet" else None
            after_a = a if insn.dst == bpf.FRAME else new.regs[insn.dst]
            step = Step(pc, taken, a, after_a, shown)
            out.append((target if taken else after, new, step, (Demand.branch, operands, False, places, proven)))
        return out

    # ---- words ------------------------------------------------------------------------------------------------------

    def _at(self, pc: int) -> str:
        line = self.program.line_at(pc)
        return f"{line.line}:{line.col}" if line else f"instruction {pc}"

    def _finding(self, refused: Refused) -> Finding:
        """An error where exploration stands, with the branches on the way that have to do with it."""
        steps = [step for step in (*(node.why for node in self.stack), self.why) if step is not None]
        insn = self.insns[self.pc]
        if refused.code not in BY_OMISSION:
            segments: list[Segment] = [(self.subject.effects, self.entry, self.why)]
            segments += ((node.effects, node.entry, node.why) for node in reversed(self.stack))
            pointers = (self.state.regs[reg] for reg in (range(1, 6) if insn.is_call else (insn.dst, insn.src)) if reg < 10)
            bases = {p.var for p in pointers if isinstance(p, Pointer) and p.region.startswith("packet")}
            steps = sliced(segments, insn, bases, self.flows)
        helper = self.subject.context.helpers.get(insn.imm) if insn.is_call and insn.src == 0 else None
        last = f"{self._at(self.pc)} {deed(insn, helper.name if helper else '')}"
        return Finding(refused, self.pc, (*path_text(steps, self._at), last), notes(steps, self.program))


def _loosened(state: State) -> State:
    """A copy to compare later states with: names that only one value has say nothing, but for distances to the packet's end."""
    count: dict[int, int] = {}

    def note(v: Value) -> Value:
        if isinstance(v, Scalar) and v.ident:
            root = state.root(v.ident)[0]
            count[root] = count.get(root, 0) + 1
        return v

    out = state.copy()
    out.replace_all(note)
    rooms = out.rooms = {ident: room for ident, room in out.rooms.items() if count.get(out.root(ident)[0])}
    shifted = {ident for ident, (source, _) in out.shifts.items() if ident in count and out.root(source)[0] in count}
    tied = {root for root, n in count.items() if n > 1} | {out.root(ident)[0] for ident in rooms}
    formed = {ident for ident, form in out.forms.items() if ident in count and form.source in count}
    tied |= formed | {out.forms[ident].source for ident in formed}
    tied |= shifted | {out.root(out.shifts[ident][0])[0] for ident in shifted}
    out.replace_all(lambda v: v._replace(ident=0) if isinstance(v, Scalar) and v.ident and out.root(v.ident)[0] not in tied else v)
    out.links = {ident: link for ident, link in out.links.items() if link[0] in tied}
    out.forms = {ident: form for ident, form in out.forms.items() if ident in formed}
    out.shifts = {ident: shift for ident, shift in out.shifts.items() if ident in shifted}
    return out
