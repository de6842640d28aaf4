"""Families of small programs: our verdicts and the kernel's.

What we accept must be accepted by the kernel too, or be explained; and it must run without a fault at the edges of what
numbers can be. What we refuse and the kernel accepts is bounded by a number for each family.
"""

from __future__ import annotations

from collections import Counter

import pytest

from chamelio.bpf import insn as bpf
from chamelio.bpf.asm import assemble
from chamelio.bpf.object import Object, Program
from chamelio.verify import verify_program
from verify.kernel import bpf_syscall
from verify.kernel.bpf_syscall import TYPE_OF_CONTEXT, Kernel
from verify.kernel.families import OF_NUMBERS, Family, sample
from verify.kernel.families_of_objects import OF_OBJECTS
from verify.kernel.generate import MAPS
from verify.kernel.test_verdicts import LIMITS, explained, runs_safely
from verify.kernel.world import complete
from verify.suite import assembled

pytestmark = pytest.mark.root

#: Of 60 programs, how many we may refuse that the kernel accepts: as root it lets uninitialised stack be read, and what was given
#: back be used as a number; and it runs a callback's turns one by one.
MAY_REFUSE = {"stack_offsets": 12, "references": 8, "callbacks": 10}

#: Family -> the context of its programs, and what makes them.
FAMILIES: dict[str, tuple[str, Family]] = {
    family.__name__: (context, family)
    for half in (OF_NUMBERS, OF_OBJECTS)
    for context, families in half.items()
    for family in families
}


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> None:
    reason = bpf_syscall.unavailable()
    if reason:
        pytest.skip(reason)


def program_of(text: str) -> Program:
    """A program whose callback, if it has one, is its last function: the assembler takes a distance for its address."""
    if "code CODE" not in text:
        return assembled(text)[1]
    plain = assemble(text.replace("code CODE", "0"))
    at = next(pc for pc, insn in enumerate(plain) if insn.op == bpf.LDDW and insn.src == 0)
    start = len(assemble(text[: text.index("callback:")].replace("code CODE", "0")))
    program = assembled(text.replace("code CODE", f"code {start - at - 1}"))[1]
    program.subprogs[start] = "callback"
    return program


def check(name: str, seed: int, count: int, runs: int) -> tuple[Counter[tuple[bool, bool]], list[str]]:
    """(verdicts[ours, kernel's], programs that only we refuse)."""
    context, family = FAMILIES[name]
    verdicts: Counter[tuple[bool, bool]] = Counter()
    refused = []
    with Kernel(Object([], MAPS, None, "GPL", "")) as kernel:
        for number, text in enumerate(sample(family, seed, count)):
            program = program_of(text)
            ours = verify_program(Object([program], MAPS, None, "GPL", ""), program, context=context, limits=LIMITS)
            theirs = kernel.load(program, TYPE_OF_CONTEXT[context])
            theirs.close()
            accepted, also = ours.verdict == "accept", theirs.errno == 0
            verdicts[accepted, also] += 1
            if ours.proof is not None and not also:
                assert explained(theirs, ours.proof, text), f"{theirs.message}\n{text}"
            if ours.proof is not None and complete(program.insns):
                runs_safely(ours.proof, context, number, runs)
            if also and not accepted:
                refused.append(f"{ours.code} {ours.message}; {ours.reason}\n{text}")
    return verdicts, refused


@pytest.mark.parametrize("name", FAMILIES)
def test_verdicts_of_a_family_are_the_kernels_or_explained(name: str) -> None:
    verdicts, refused = check(name, 0, 60, 8)
    assert verdicts[True, True] > 2
    assert len(refused) <= MAY_REFUSE.get(name, 2), "\n".join(refused[:3])


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FAMILIES)
def test_verdicts_of_a_family_are_the_kernels_or_explained_at_length(name: str) -> None:
    verdicts, refused = check(name, 1, 4_000, 20)
    print(f"{name}: {dict(verdicts)}")
    print("\n".join(refused[:20]))
