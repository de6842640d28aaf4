"""Bugs put into the verifier on purpose are noticed: by random programs that it accepts then, or by the programs of the suite."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from chamelio.bpf.object import Object, Program
from chamelio.verify import verifier, verify_program
from verify.generate import Generator
from verify.mutations import MUTATIONS, Mutation
from verify.suite import assembled, cases
from verify.test_differential import FEW, Explorer, hold
from verify.world import World

PROGRAMS = 3_000
ACCEPTED = 150  # of those that are accepted anyway
RUNS = 8


@functools.cache
def _pool() -> list[tuple[int, str, Object, Program]]:
    """Programs about joins that are refused, and some that are accepted."""
    pool, accepted = [], 0
    for seed in range(PROGRAMS):
        generator = Generator(seed, joins=True)
        text = generator.text()
        obj, program = assembled(text, generator.hook)
        verdict = verify_program(obj, program, limits=FEW)
        accepted += verdict.proof is not None
        if verdict.code != "V160" and (verdict.proof is None or accepted <= ACCEPTED):
            pool.append((seed, text, obj, program))
    return pool


def noticed_at_random(monkeypatch: pytest.MonkeyPatch) -> str | None:
    """What shows that the verifier is wrong, if anything does: the seed and the first words."""
    world = World()
    with monkeypatch.context() as patch:
        patch.setattr(verifier, "Explorer", Explorer)
        for seed, text, obj, program in _pool():
            verdict = verify_program(obj, program, limits=FEW)
            if verdict.proof is None:
                continue
            try:
                hold(world, [(text, obj, verdict.proof, Explorer.last)], seed, RUNS)
            except Exception as error:
                return f"{seed}: {str(error).splitlines()[0]}"
    return None


def noticed_by_suite() -> str | None:
    """The first of the suite's programs in assembler that gets another verdict."""
    for case in cases("*.asm"):
        if verify_program(*case.load()).code != case.code:
            return case.name
    return None


def put(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = mutation.made()
    monkeypatch.setattr(mutation.owner, mutation.method, made)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_mutation_can_be_made(mutation: Mutation) -> None:
    assert mutation.made() is not None


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_mutation_is_noticed(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    _pool()
    put(mutation, monkeypatch)
    found = noticed_by_suite() or noticed_at_random(monkeypatch)
    assert found, "neither the suite nor random programs notice it"
