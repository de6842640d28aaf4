"""The benchmark of the verifier: its programs are what they claim to be, and are verified in time."""

from __future__ import annotations

import pytest

from chamelio.bench import verify as bench
from chamelio.bench.verify.generator import generate
from chamelio.verify import verify_program


@pytest.mark.parametrize("size", [50, 200, 500])
def test_generated_programs_are_accepted_and_of_their_size(size: int) -> None:
    for seed in range(4):
        obj, program = generate(size, seed)
        assert size <= len(program.insns) <= size + 40
        verdict = verify_program(obj, program)
        assert verdict.verdict == "accept", (seed, verdict.message, verdict.reason)


def test_a_seed_makes_one_program() -> None:
    assert generate(100, 7)[1].insns == generate(100, 7)[1].insns != generate(100, 8)[1].insns


def test_a_small_program_takes_less_than_its_limit() -> None:
    one = bench.measure("generated 200", 200, [generate(200, n) for n in range(3)], runs=6)
    assert one["accepted"] == one["programs"] == 3 and one["runs"] == 6
    assert one["fastest"] <= one["limit"] == 0.05


@pytest.mark.long
def test_medians_are_within_their_limits() -> None:
    for name, size, programs in bench.subjects(1):
        assert bench.measure(name, size, programs)["holds"], name
