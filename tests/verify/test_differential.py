"""Whatever the verifier accepts runs without a fault, within what was proven, and as machine code just the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest

from chamelio.bpf.interp import FRAME_STRIDE, STACK_BASE, Interpreter, signed
from chamelio.bpf.object import Object
from chamelio.verify import Limits, Proof, explore, verifier, verify_program
from chamelio.verify.demand import Demand
from chamelio.verify.scalar import Scalar
from chamelio.verify.values import NOTHING, STACK_BYTES, State, Value
from verify.generate import Generator, inputs
from verify.suite import MAPS, assembled, cases
from verify.test_scalar import contains
from verify.world import World

LIMITS = Limits(steps=20_000, seconds=20)
FEW = Limits(steps=3_000, seconds=20)  # for random programs: what takes longer is mostly a loop without end
FRAMES_EVERY = 5  # steps between looks at the whole stack


class Explorer(explore.Explorer):
    """Remembers every abstract state before every instruction, and what the rest of the program needs of it."""

    last: Explorer

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: dict[tuple[int, tuple[int, ...]], list[tuple[State, Demand]]] = {}
        self.marks: dict[int, list[tuple[int, State, int]]] = {}  # by effects of a stretch: slot, state, effects before it
        Explorer.last = self

    def _step(self, pc: int, insn: Any, state: State) -> Any:
        effects = self.subject.effects
        self.marks.setdefault(id(effects), []).append((pc, state.copy(), len(effects)))
        return super()._step(pc, insn, state)

    def _finish(self, node: Any) -> None:
        demand, end = node.demand.copy(), len(node.effects)
        for pc, state, at in reversed(self.marks.pop(id(node.effects), [])):
            demand.back(node.effects[at:end], self.flows)
            end = at
            self.seen.setdefault((pc, state.key()), []).append((state, demand.copy()))
        super()._finish(node)


@dataclass
class Watch:
    """Holds the interpreter's steps against the abstract states of the same place."""

    explorer: Explorer
    steps: int = 0
    trace: list[int] = field(default_factory=list)

    def __call__(self, world: World, pc: int, regs: list[int]) -> None:
        interpreter = world.interpreter
        assert interpreter is not None
        self.steps += 1
        chain = (-1, *(frame.return_to for frame in interpreter._frames))
        states = self.explorer.seen.get((pc, chain), [])
        whole = self.steps % FRAMES_EVERY == 0
        for state, demand in states:
            if all(
                self.holds(world, state, state.regs[reg], regs[reg], demand, bool(demand.exact >> reg & 1))
                for reg in range(10)
                if demand.read >> reg & 1
            ) and (not whole or self.frames_hold(world, interpreter, state, demand)):
                return
        raise AssertionError(f"no abstract state at {pc} describes {[hex(x) for x in regs]}: {[s.regs for s, _ in states]}")

    @staticmethod
    def holds(world: World, state: State, value: Value | None, x: int, demand: Demand, exact: bool) -> bool:
        """Whether a concrete value that is needed is one of those that the abstract value stands for."""
        if value is None:
            return False
        if isinstance(value, Scalar):
            return not exact or contains(value, x)
        low, high = value.off + value.vmin, value.off + value.vmax
        start, end = world.packet()
        match value.region:
            case "stack":
                return low <= x - (STACK_BASE + value.frame * FRAME_STRIDE + STACK_BYTES) <= high
            case "ctx":
                return x == world.address("turn")
            case "packet":
                proven = demand.need.get(value.var, NOTHING)
                at = signed(x - start, 64)  # a step back from NULL, where there is no packet, is no step forward
                exists = proven == NOTHING or start + at - value.off + proven <= end
                return exists and low <= at <= high and (at - value.off) % value.step == 0
            case "packet_end":
                return x == end
            case "entry" | "entry_end":
                base = int.from_bytes(world.view("turn")[16:24], "little")
                return low <= x - base <= high if value.region == "entry" else x in (0, base + 16)
            case "map":
                return x == world.address(f"map_{value.map}")
            case "data":
                return low <= x - world.address(f"values_{value.map}") <= high
        assert value.map is not None
        if value.null and x == 0:
            return True
        size, base = MAPS[value.map].value_size, world.address(f"values_{value.map}")
        starts = range(base, base + size * MAPS[value.map].max_entries, size)
        return any(low <= x - at <= high and (x - at - value.off) % value.step == 0 for at in starts)

    def frames_hold(self, world: World, interpreter: Interpreter, state: State, demand: Demand) -> bool:
        """What is needed of the stacks is there: bytes that have been written, and what is spilled."""
        for n, (frame, read, exact) in enumerate(zip(state.frames, demand.stack_read, demand.stack_exact, strict=False)):
            bottom = STACK_BASE + n * FRAME_STRIDE
            written = interpreter.memory._find(bottom, STACK_BYTES, "read").written
            assert written is not None
            if any(read >> at & 1 and not written[at] for at in range(STACK_BYTES)):
                return False
            for at, (size, value) in frame.spills.items():
                bits = ((1 << size) - 1) << at
                if not read & bits:
                    continue
                if not self.holds(world, state, value, interpreter.memory.read(bottom + at, size), demand, bool(exact & bits)):
                    return False
        return True


def proven(obj: Object, program: Any, limits: Limits = LIMITS, states: bool = True) -> tuple[Proof, Explorer | None] | None:
    """The proof of a program that is accepted and, if asked for, the abstract states that it was found with."""
    if not states:
        verdict = verify_program(obj, program, limits=limits)
        return None if verdict.proof is None else (verdict.proof, None)
    with mock.patch.object(verifier, "Explorer", Explorer):
        verdict = verify_program(obj, program, limits=limits)
    return None if verdict.proof is None else (verdict.proof, Explorer.last)


def hold(world: World, accepted: Sequence[tuple[str, Object, Proof, Explorer | None]], seed: int, runs: int) -> int:
    """Run accepted programs both ways; returns how many steps were compared with the abstract states, where there are any."""
    if not accepted:
        return 0
    steps = 0
    compiled = world.compile(accepted[0][1], [proof for _, _, proof, _ in accepted], harden=bool(seed % 2))
    for n, (text, _, proof, explorer) in enumerate(accepted):
        watch = None if explorer is None else Watch(explorer)
        for start in inputs(seed + n, runs):
            told = f"{start}\n{text}"
            try:
                result, cost = world.run(proof, start, watch)
            except Exception as error:
                raise AssertionError(f"{error}\n{told}") from error
            assert world.intact(), told
            expected = world.outcome()
            assert cost <= proof.cost_warm and world.cold <= proof.cost_cold, told
            native, counted = compiled.call(n, start)
            assert world.intact(), told
            assert native == result, f"{native:#x} is not {result:#x}\n{told}"
            assert world.outcome() == expected, told
            assert cost <= counted <= proof.cost_warm, told
        steps += 0 if watch is None else watch.steps
    compiled.tracker.close()
    return steps


def check_random(first: int, count: int, runs: int, states: bool = True, batch: int = 40) -> tuple[int, int]:
    """Returns how many programs were accepted and how many steps compared. Without the states it is several times as fast."""
    world, accepted, steps = World(), 0, 0
    waiting: list[tuple[str, Object, Proof, Explorer | None]] = []
    for seed in range(first, first + count):
        generator = Generator(seed)
        text = generator.text()
        obj, program = assembled(text, generator.hook)
        found = proven(obj, program, FEW, states)
        if found is not None:
            waiting.append((text, obj, *found))
        if len(waiting) == batch or seed == first + count - 1:
            accepted += len(waiting)
            steps += hold(world, waiting, seed, runs)
            waiting = []
    return accepted, steps


@pytest.mark.fault(16)
def test_accepted_random_programs_lie_within_their_abstract_states() -> None:
    accepted, steps = check_random(0, 250, 4)
    assert accepted > 60 and steps > 10_000


@pytest.mark.fault(16)
def test_accepted_random_programs_run_as_proven() -> None:
    accepted, _ = check_random(10_000, 300, 4, states=False)
    assert accepted > 70


@pytest.mark.fault(16)
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", range(5))
def test_ten_thousand_random_programs_lie_within_their_abstract_states(block: int) -> None:
    accepted, steps = check_random(1_000_000 + 2_000 * block, 2_000, 8)
    print(f"2,000 programs, {accepted:,} accepted, {steps:,} steps compared")
    assert accepted > 400


@pytest.mark.fault(16)
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", range(20))
def test_a_hundred_thousand_random_programs_run_as_proven(block: int) -> None:
    accepted, _ = check_random(2_000_000 + 5_000 * block, 5_000, 4, states=False)
    print(f"5,000 programs, {accepted:,} accepted, {4 * accepted:,} runs")
    assert accepted > 1_000


@pytest.mark.fault(16)
def test_good_programs_are_what_was_proven() -> None:
    world = World()
    waiting = []
    for case in cases("*.good.asm"):
        if case.hook == "xdp":  # not lifted: there is no XDP hook, only its verdicts
            continue
        obj, program = case.load()
        found = proven(obj, program)
        assert found is not None
        waiting.append(("\n".join(case.text), obj, *found))
    assert hold(world, waiting, 7, 6) > 1_000
