"""Verdicts and results on random kernel-style programs, ours and the kernel's.

What we accept and the kernel refuses must be explained in explained.toml; what both accept must do the same in the kernel
and in the interpreter. What the kernel accepts and we refuse is counted by code.
"""

from __future__ import annotations

import random
import re
import struct
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chamelio.bpf.asm import AsmError
from chamelio.bpf.object import Object, Program
from chamelio.verify import Limits, Proof, Verdict, verify_program
from verify.generate import EDGES
from verify.kernel import bpf_syscall
from verify.kernel.bpf_syscall import TYPE_OF_CONTEXT, Kernel, run
from verify.kernel.generate import MAPS, KernelGenerator
from verify.kernel.world import World, complete
from verify.suite import assembled

pytestmark = pytest.mark.root

EXPLAINED = tomllib.loads((Path(__file__).parent / "explained.toml").read_text())["refusal"]
LIMITS = Limits(steps=20_000, seconds=20)
FREE_FIELDS = {"xdp_md": (12, 16), "__sk_buff": (8, 32, 44, 48, 52, 56, 60, 64), "socket_filter": (48, 52, 56, 60, 64)}
COMPARED = (0, 1, 2, 5, 8)  # maps whose contents must be the same


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> None:
    reason = bpf_syscall.unavailable()
    if reason:
        pytest.skip(reason)


@dataclass
class Tally:
    """What came out. `verdicts[ours, kernel's]` counts programs, `refused` those that only we refuse, by code and title."""

    verdicts: Counter[tuple[bool, bool]] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)
    runs: int = 0

    def text(self) -> str:
        """The table, and what we refuse alone."""
        lines = [f"both accept {self.verdicts[True, True]}, both refuse {self.verdicts[False, False]}, "
                 f"only the kernel accepts {self.verdicts[False, True]}, only we accept {self.verdicts[True, False]}; "
                 f"{self.runs} runs compared"]  # fmt: skip
        return "\n".join([*lines, *(f"{count:6} {what}" for what, count in self.refused.most_common())])


def programs(first: int, count: int) -> Iterator[tuple[int, str, str, Object, Program]]:
    """(seed, context, text, object, program) of those that assemble."""
    for seed in range(first, first + count):
        generator = KernelGenerator(seed)
        text = generator.text()
        try:
            _, program = assembled(text)
        except AsmError:  # a change has removed a label's line
            continue
        yield seed, generator.context, text, Object([program], MAPS, None, "GPL", ""), program


def contents(r: random.Random) -> dict[int, dict[bytes, bytes]]:
    """What maps hold before a run."""
    numbers = (0, 1, 5, 200, r.getrandbits(32), r.getrandbits(64))

    def array(count: int) -> dict[bytes, bytes]:
        return {struct.pack("<I", i): struct.pack("<QQ", r.choice(numbers), r.choice(numbers)) for i in range(count)}

    def flows() -> dict[bytes, bytes]:
        return {r.randrange(10).to_bytes(8, "little"): r.randbytes(32) for _ in range(4)}

    return {0: array(8), 1: flows(), 2: array(8), 4: array(4), 5: flows()}


def explained(theirs: bpf_syscall.Verdict, proof: Proof, text: str) -> bool:
    """Whether a refusal of the kernel's has an entry in explained.toml."""
    reached = theirs.slot is None or theirs.slot in proof.reached
    return any(
        re.search(entry["says"], theirs.message)
        and re.search(entry.get("has", ""), text)
        and not (reached and entry.get("unreached", False))
        for entry in EXPLAINED
    )


def edge(r: random.Random) -> int:
    """A number of 64 bits that may be at an edge of something."""
    match r.randrange(3):
        case 0:
            return r.choice(EDGES)
        case 1:
            return r.randint(-20, 40) & (1 << 64) - 1
    return r.getrandbits(r.randint(1, 64)) * r.choice((1, -1)) & (1 << 64) - 1


def runs_safely(proof: Proof, context: str, seed: int, runs: int) -> None:
    """Run a program on the interpreter alone, with numbers that look for trouble.

    A Fault says that it must not be accepted, and so does an instruction that no path was to lead to.
    """

    def step(pc: int, _: list[int]) -> None:
        assert pc in proof.reached, f"instruction {pc} is run, and no path leads there"

    for number in range(runs):
        r = random.Random(f"edges{seed}.{number}")
        arrays = {index: {struct.pack("<I", i): struct.pack("<QQ", edge(r), edge(r)) for i in range(8)} for index in (0, 2)}
        packet = r.randbytes(r.choice((0, 1, 4, 9, 14, 20, 41, 64, 128)))
        world = World(MAPS, context, packet, contents(r) | arrays)
        for offset in FREE_FIELDS[context]:
            struct.pack_into("<I", world.ctx, offset, edge(r) & 0xFFFFFFFF)
        world.run(proof.program.insns, step)


def compare(obj: Object, program: Program, context: str, seed: int, runs: int) -> int:
    """Run a program in the kernel and on the interpreter; returns how many runs were the same. AssertionError: one was not."""
    for number in range(runs):
        r = random.Random(f"run{seed}.{number}")
        content, packet = contents(r), r.randbytes(r.choice((14, 20, 41, 64, 128)))
        with Kernel(obj) as kernel:
            for index, values in content.items():
                for key, value in values.items():
                    kernel.maps[index].update(key, value)
            verdict = kernel.load(program, TYPE_OF_CONTEXT[context])
            try:
                outcome = run(verdict, packet)
            finally:
                verdict.close()
            world = World(MAPS, context, packet, content)
            result = world.run(program.insns)
            assert result & 0xFFFFFFFF == outcome.retval
            if context != "socket_filter":  # its packet cannot be written, and comes back without its first header
                assert world.packet() == outcome.packet
            for index in COMPARED:
                assert world.contents(index) == kernel.maps[index].contents(), f"map {MAPS[index].name}"
    return runs


def tally(first: int, count: int, runs: int) -> Tally:
    out = Tally()
    with Kernel(Object([], MAPS, None, "GPL", "")) as kernel:
        for seed, context, text, obj, program in programs(first, count):
            ours: Verdict = verify_program(obj, program, context=context, limits=LIMITS)
            theirs = kernel.load(program, TYPE_OF_CONTEXT[context])
            theirs.close()
            accepted, also = ours.verdict == "accept", theirs.errno == 0
            out.verdicts[accepted, also] += 1
            if ours.proof is not None and not also and not explained(theirs, ours.proof, text):
                out.unexplained.append(f"seed {seed} ({context}): {theirs.message}\n{text}")
            if also and not accepted:
                what = f"{ours.code} {re.sub(r'-?[0-9]+', 'N', ours.message)}"
                out.refused[what] += 1
                out.examples.setdefault(what, f"{context}, instruction {ours.insn}: {ours.message}; {ours.reason}\n{text}")
            if ours.proof is not None and complete(program.insns):
                try:
                    if also:
                        out.runs += compare(obj, program, context, seed, runs)
                    else:
                        runs_safely(ours.proof, context, seed, 10 * runs)
                except Exception as error:
                    raise AssertionError(f"seed {seed} ({context}): {error}\n{text}") from error
    return out


@pytest.mark.fault(16)
def test_random_programs_have_the_kernels_verdict_or_an_explanation() -> None:
    found = tally(0, 150, 2)
    assert not found.unexplained, found.unexplained[0]
    assert found.verdicts[True, True] > 30, found.text()


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", range(10))
@pytest.mark.fault(16)
def test_random_programs_have_the_kernels_verdict_or_an_explanation_at_length(block: int) -> None:
    found = tally(1_000_000 + 2_000 * block, 2_000, 3)
    print(found.text())
    assert not found.unexplained, "\n\n".join(found.unexplained[:5])
