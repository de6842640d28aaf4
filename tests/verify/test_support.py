"""The support matrix is what the verifier does: the page is up to date, and what it says is refused is refused, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from chamelio.bpf import insn as bpf
from chamelio.bpf.insn import Insn, decode_any
from chamelio.bpf.object import Object, Program
from chamelio.verify import kernel, verify_program
from chamelio.verify.contexts import CONTEXTS
from chamelio.verify.support import support

PAGE = Path(__file__).parents[2] / "docs" / "support.md"
EXIT = Insn(bpf.JMP | bpf.EXIT, 0, 0, 0, 0)
REFUSED = {
    "LD_ABS": (Insn(0x20, 0, 0, 0, 0), "V140", "LD_ABS"),
    "LD_IND": (Insn(0x40, 0, 1, 0, 0), "V140", "LD_ABS and LD_IND"),
    "kfunc": (Insn(bpf.JMP | bpf.CALL, 0, bpf.PSEUDO_KFUNC_CALL, 0, 7), "V140", "kernel function (kfunc)"),
    "callx": (Insn(bpf.CALLX, 0, 0, 0, 1), "V140", "callx"),
}


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == support(), "run `python -m chamelio.verify.support docs/support.md`"


@pytest.mark.parametrize("context", ["chamelio", "xdp_md"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name(name: str, context: str) -> None:
    insn, code, words = REFUSED[name]
    program = Program("test", "test", [insn, EXIT], {0: "test"})
    verdict = verify_program(Object([program], [], None, "", ""), program, context=context)
    assert (verdict.verdict, verdict.code) == ("unsupported", code)
    assert words in f"{verdict.message} {verdict.reason}"


@pytest.mark.parametrize("number", kernel.UNSUPPORTED)
def test_helpers_that_are_not_supported_are_refused_by_name(number: int) -> None:
    program = Program("test", "xdp", [Insn(bpf.JMP | bpf.CALL, 0, 0, 0, number), EXIT], {0: "test"})
    verdict = verify_program(Object([program], [], None, "", ""), program)
    assert (verdict.verdict, verdict.code) == ("unsupported", "V121")
    assert f"bpf_{kernel.helper_names[number]}" in verdict.message and kernel.UNSUPPORTED[number] in verdict.reason


@pytest.mark.parametrize("section", [(name, s) for name, c in CONTEXTS.items() for s in c.sections], ids=lambda x: x[1])
def test_a_section_means_the_context_that_the_page_says(section: tuple[str, str]) -> None:
    context, name = section
    program = Program("test", name, [Insn(bpf.ALU64 | bpf.MOV, 0, 0, 0, 0), EXIT], {0: "test"})
    found = kernel.context_of(name)
    assert found is not None and found.name == context
    assert verify_program(Object([program], [], None, "", ""), program).verdict == "accept"


@pytest.mark.parametrize(
    ("name", "slot"),
    [("load-acquire", "db20000000010000"), ("store-release", "db12000010010000"), ("may_goto", "e500000000000000"),
     ("addr_space_cast", "bf21010001000000")],
)  # fmt: skip
def test_newer_instructions_are_no_others_by_mistake(name: str, slot: str) -> None:
    _, faults = decode_any(bytes.fromhex(slot) + bytes.fromhex("9500000000000000"))
    assert 0 in faults, name
