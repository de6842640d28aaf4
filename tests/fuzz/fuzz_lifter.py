"""Fuzzing the lifter: what the verifier accepts becomes machine code that does what the interpreter does, as was proven."""

from __future__ import annotations

import functools
import random
import zlib
from collections.abc import Callable

from chamelio.verify import verifier, verify_program
from fuzz import programs
from fuzz.fuzz_verifier import LIMITS, check
from fuzz.programs import MAX_LEN
from verify.test_differential import Explorer, hold
from verify.world import World

__all__ = ["MAX_LEN", "given", "mutate", "one"]

RUNS = 3  # on different packets and values
HARDEN = 1  # option: mask what is added to addresses
POOL = 2_000

_accepted: list[bytes] = []  # inputs whose programs were


def given() -> list[bytes]:
    """Inputs to begin with."""
    return list(programs.given(programs.RUN))


def mutate(data: bytes, max_size: int, seed: int, plain: Callable[[bytes, int], bytes]) -> bytes:
    """A changed input, mostly one of those accepted: what the verifier refuses shows nothing here."""
    r = random.Random(seed)
    if _accepted and r.random() < 0.8:
        data = r.choice(_accepted)[:max_size]
    return programs.mutate(data, max_size, seed, plain)


@functools.cache
def _world() -> World:
    return World()


def one(data: bytes) -> None:
    """Verify, lift, compile and run the program that an input stands for; the interpreter tells what is right."""
    made = programs.program(data, programs.RUN)
    if made is None:
        return
    obj, program, options = made
    usual = verifier.Explorer
    verifier.Explorer = Explorer  # type: ignore[misc] # it remembers its states, to hold the interpreter's against them
    try:
        verdict = verify_program(obj, program, limits=LIMITS)
        explorer = Explorer.last if verdict.proof is not None else None
    finally:
        verifier.Explorer = usual  # type: ignore[misc]
    check(verdict, len(program.insns))
    if verdict.proof is not None and explorer is not None:
        number = zlib.crc32(data)
        seed = number & ~1 | options & HARDEN
        hold(_world(), [("", obj, verdict.proof, explorer)], seed, RUNS)
        if len(_accepted) < POOL:
            _accepted.append(data)
        else:
            _accepted[number % POOL] = data
