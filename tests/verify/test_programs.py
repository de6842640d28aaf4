"""The verifier's verdicts on small programs: each bad one is refused for the right reason at the right place."""

from __future__ import annotations

from pathlib import Path

import pytest

from chamelio import toolchain
from chamelio.bpf.object import load_object
from chamelio.verify import Limits, verify_program
from chamelio.verify.codes import CODES
from verify.suite import PROGRAMS, Case, cases

BAD, GOOD, REFUSED = cases("*.bad.*"), cases("*.good.*"), cases("refused*.c")
FEW = Limits(steps=3_000, seconds=30)

#: Good programs that are refused as these CPUs' compilers make them, which have no 32-bit comparisons or signed loads.
UNSEEN = {
    "length_as_an_int": ("v1", "v2"),
    "sum_folded_until_it_fits": ("v1", "v2"),
    "sign_extended_table": ("v1", "v2", "v3"),
}


@pytest.mark.fault(13)
@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_bad_program_is_refused(case: Case) -> None:
    assert case.code is not None, "a file of bad programs has one without an expectation"
    verdict = verify_program(*case.load(), limits=FEW)
    said = f"{verdict.message} | {verdict.reason}"
    assert (verdict.code, verdict.line) == (case.code, case.line), said
    assert case.words in said
    assert verdict.verdict == CODES[case.code].kind
    assert verdict.proof is None and verdict.suggestion and verdict.reason


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_good_program_is_accepted(case: Case) -> None:
    assert case.code is None, "a file of good programs has an expectation"
    verdict = verify_program(*case.load())
    where = f"line {verdict.line}: {verdict.text.strip()}"
    assert verdict.verdict == "accept", f"{verdict.code} {verdict.message} ({verdict.reason}) at {where}"
    assert verdict.proof is not None
    assert 0 < verdict.cost_warm <= verdict.cost_cold


@pytest.mark.long
@pytest.mark.parametrize("cpu", ("v1", "v2", "v3", "v4"))
@pytest.mark.parametrize("optimise", ("-O1", "-O2", "-Os"))
@pytest.mark.parametrize("file", sorted(PROGRAMS.glob("*.good.c")), ids=lambda file: file.name)
def test_good_programs_stay_good_however_they_are_compiled(file: Path, optimise: str, cpu: str) -> None:
    refused = {}
    names = {case.name for case in GOOD if case.file == file}
    obj = load_object(toolchain.bpf_object(file, cpu=cpu, optimise=optimise), file.name)
    assert {program.name for program in obj.programs} <= names
    for program in obj.programs:
        verdict = verify_program(obj, program, limits=Limits(seconds=60))
        if verdict.verdict != "accept":
            refused[program.name] = f"{verdict.code} {verdict.reason} in line {verdict.line}"
    known = {name for name, cpus in UNSEEN.items() if cpu in cpus}
    assert refused.keys() <= known, refused


@pytest.mark.xfail(reason="safe, but the verifier cannot see it yet")
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_safe_program_that_is_refused(case: Case) -> None:
    assert verify_program(*case.load(), limits=FEW).verdict == "accept"


def test_there_are_enough_programs() -> None:
    assert len(BAD) >= 340 and len(GOOD) >= 280
    other = {"V117", "V141", "V142", "V143", "V144", "V145", "V150", "V161"}  # these are not about instructions, or not of handlers
    assert {case.code for case in BAD} >= CODES.keys() - other
