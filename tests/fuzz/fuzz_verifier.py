"""Fuzzing the verifier: whatever the program, a verdict that says all it must, soon."""

from __future__ import annotations

from chamelio.verify import Limits, Proof, Verdict, render
from chamelio.verify.codes import CODES
from chamelio.verify.verifier import verify_every
from fuzz import programs
from fuzz.programs import MAX_LEN, mutate

__all__ = ["LIMITS", "MAX_LEN", "given", "mutate", "one"]

LIMITS = Limits(steps=3_000, seconds=2)
EVERY = 1  # option: go on behind errors


def given() -> list[bytes]:
    """Inputs to begin with."""
    return list(programs.given(programs.SECTIONS))


def one(data: bytes) -> None:
    """Verify the program that an input stands for."""
    made = programs.program(data)
    if made is None:
        return
    obj, program, options = made
    verdicts = verify_every(obj, program, limits=LIMITS, every=bool(options & EVERY))
    assert verdicts
    for verdict in verdicts:
        check(verdict, len(program.insns))
        assert verdict.steps <= LIMITS.steps + 1, verdict.steps


def check(verdict: Verdict, length: int) -> None:
    """What holds of every verdict, whatever the program."""
    assert render(verdict)
    if verdict.verdict == "accept":
        assert verdict.code is None and verdict.proof is not None
        _check_proof(verdict.proof, length)
        return
    code = CODES[verdict.code or ""]
    assert verdict.verdict == code.kind and verdict.message and verdict.reason and verdict.suggestion, verdict
    assert verdict.proof is None and 0 <= verdict.insn < max(length, 1), verdict


def _check_proof(proof: Proof, length: int) -> None:
    assert 0 < proof.cost_warm <= proof.cost_cold
    assert all(0 <= pc < length for pc in proof.reached) and proof.accesses.keys() <= proof.reached
    assert not proof.reached & proof.program.faults.keys(), "a fault was reached"
