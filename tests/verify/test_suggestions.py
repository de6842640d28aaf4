"""For each code one suggestion is tried: a program is refused with it, and accepted with the suggestion applied."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chamelio import toolchain
from chamelio.bpf.object import Object, ObjectError, load_object
from chamelio.jit.layout import RING_IN
from chamelio.verify import Limits, Verdict, verify_object, verify_program
from chamelio.verify.codes import CODES
from verify.suite import PROGRAMS, Case, assembled, cases

PAIRS = {case.name: case for case in cases("suggestions*")}
FEW = Limits(steps=3_000, seconds=30)

#: Codes that a small program does not tell of.
ELSEWHERE = {
    "V142": "two handlers of one object",
    "V143": "an object that cannot be read",
    "V145": "a bug of the verifier itself",
    "V150": "two rings of one object",
}


def _verdict(case: Case) -> Verdict:
    """With a budget that the mended program just keeps, for V161."""
    budget = verify_program(*PAIRS["V161_after"].load()).cost_cold if case.name.startswith("V161") else None
    return verify_program(*case.load(), limits=FEW, budget=budget)


@pytest.mark.parametrize("code", [code for code in CODES if code not in ELSEWHERE])
def test_suggestion_helps(code: str) -> None:
    before, after = PAIRS[f"{code}_before"], PAIRS[f"{code}_after"]
    assert before.code == code and after.code is None
    refused = _verdict(before)
    said = f"{refused.message} | {refused.reason}"
    assert (refused.code, refused.line) == (code, before.line), said
    assert before.words in said
    assert refused.suggestion
    accepted = _verdict(after)
    assert accepted.verdict == "accept", f"{accepted.code} {accepted.message} ({accepted.reason}) in line {accepted.line}"


def test_no_pair_is_left_over() -> None:
    assert {name.partition("_")[0] for name in PAIRS} == CODES.keys() - ELSEWHERE


def test_one_of_two_handlers_for_a_hook_left_out() -> None:
    obj, first = assembled("mov r0, 0\nexit", name="first")
    _, second = assembled("mov r0, 1\nexit", name="second")
    both = verify_object(Object([first, second], obj.maps, None, "", ""))
    assert [v.code for v in both] == [None, "V142"]
    assert [v.verdict for v in verify_object(Object([first], obj.maps, None, "", ""))] == ["accept"]


def test_inbound_rings_of_one_type() -> None:
    obj, program = assembled("mov r0, 0\nexit", hook="ring")
    requests = next(m for m in obj.maps if m.kind == RING_IN)
    for size, code in ((requests.value_size * 2, "V150"), (requests.value_size, None)):
        other = replace(requests, name="other", value_size=size)
        assert verify_program(replace(obj, maps=[*obj.maps, other]), program).code == code


def test_object_built_for_bpf_and_not_stripped() -> None:
    source = PROGRAMS / "suggestions_kernel.c"
    with pytest.raises(ObjectError):
        load_object(toolchain.bitcode(source), source.name)
    assert load_object(toolchain.bpf_object(source), source.name).programs
