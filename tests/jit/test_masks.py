"""Hardening: numbers that are added to pointers are held within their bounds, unless what they are bounds them already."""

from __future__ import annotations

import pytest

from chamelio.bpf.asm import assemble
from chamelio.bpf.maps import MapDef
from chamelio.bpf.object import Object, Program
from chamelio.jit.layout import DATA
from chamelio.jit.lift import Environment, lift
from chamelio.verify import Proof, verify_program
from verify.suite import MAPS

HARD = Environment(
    core_offset=0, instance_offset=0, vcycles_offset=0, count=False, harden=True,
    data_offsets={8: 0, 9: 64}, map_symbols=[m.name for m in MAPS],
)  # fmt: skip
HIDDEN = 'asm ""'  # what makes a mask depend on its operand alone (lift.py)

LOOKUP = """
    mov r9, r1
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 64
    jgt r4, r3, out
    ldxb r6, [r2+0]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, out
    {use}
out:
    mov r0, 0
    exit
"""


def prove(use: str) -> tuple[Proof, str]:
    """The proof of a program whose r0 is a value of 16 bytes and whose r6 is a byte of the packet, and its lifted text."""
    insns = assemble(LOOKUP.format(use=use))
    program = Program(name="p", section="chamelio/rx", insns=insns, subprogs={0: "p"}, lines={})
    obj = Object(programs=[program], maps=MAPS, btf=None, license="", sha256="")
    verdict = verify_program(obj, program)
    assert verdict.proof is not None, verdict
    return verdict.proof, lift([verdict.proof], obj, HARD)


BOUNDED_BY_WHAT_IT_IS = ["and r6, 7", "mod r6, 9", "rsh r6, 5", "rsh32 r6, 5", "mov r6, 5"]
BOUNDED_BY_A_BRANCH = ["jgt r6, 7, out", "jge r6, 8, out", "jsgt32 r6, 7, out"]


@pytest.mark.parametrize("bound", BOUNDED_BY_WHAT_IT_IS)
def test_what_cannot_be_larger_is_not_masked(bound: str) -> None:
    proof, text = prove(f"{bound}\nadd r0, r6\nldxb r1, [r0+0]")
    assert proof.masks == {} and HIDDEN not in text


@pytest.mark.parametrize("bound", BOUNDED_BY_A_BRANCH)
def test_what_only_a_branch_bounds_is_masked(bound: str) -> None:
    proof, text = prove(f"{bound}\nadd r0, r6\nldxb r1, [r0+0]")
    (mask,) = proof.masks.values()
    assert (mask.low, mask.high, mask.source) == (0, 7, True)
    assert text.count(HIDDEN) == 1


def test_a_number_to_which_a_pointer_is_added_is_masked_in_its_place() -> None:
    proof, text = prove("jgt r6, 7, out\nadd r6, r0\nldxb r1, [r6+0]")
    (mask,) = proof.masks.values()
    assert (mask.low, mask.high, mask.source) == (0, 7, False)
    assert text.count(HIDDEN) == 1


def test_what_is_subtracted_is_masked() -> None:
    proof, text = prove("jgt r6, 7, out\nadd r0, 8\nsub r0, r6\nldxb r1, [r0+0]")
    (mask,) = proof.masks.values()
    assert (mask.low, mask.high) == (0, 7) and text.count(HIDDEN) == 1


def test_numbers_of_both_signs_are_held_from_both_sides() -> None:
    proof, text = prove("jgt r6, 11, out\nsub r6, 4\nadd r0, 4\nadd r0, r6\nldxb r1, [r0+0]")
    (mask,) = proof.masks.values()
    assert (mask.low, mask.high) == (-4, 7)
    assert "sub i64" in text and text.count(HIDDEN) == 1


def test_an_addition_that_is_a_plain_number_on_another_path_is_not_masked_and_the_proof_says_so() -> None:
    use = "mov r7, 0\njgt r6, 7, sum\nmov r7, r0\nsum:\nadd r7, r6\njgt r6, 7, out\nldxb r1, [r7+0]"
    proof, text = prove(use)
    assert proof.masks == {} and not proof.all_masked and HIDDEN not in text


def test_a_distance_of_addresses_that_is_a_subtraction_of_a_number_on_another_path_is_not_masked() -> None:
    """The packet's length would be an address, and count as a number that is at most the longest packet's."""
    use = """
    ldxdw r2, [r9+0]
    ldxdw r3, [r9+8]
    add r0, 8
    mov r7, r0
    mov r8, r6
    jgt r6, 7, length
    ja both
length:
    mov r7, r3
    mov r8, r2
both:
    sub r7, r8
    jgt r6, 7, out
    ldxb r1, [r7+0]
"""
    proof, text = prove(use)
    assert proof.masks == {} and not proof.all_masked and HIDDEN not in text


def test_a_lower_bound_from_a_branch_is_held() -> None:
    proof, text = prove("and r6, 7\njlt r6, 4, out\nadd r0, r6\nldxb r1, [r0-4]")
    assert [(mask.low, mask.high) for mask in proof.masks.values()] == [(4, 7)] and HIDDEN in text


def test_a_truncated_copy_says_nothing_of_what_its_original_can_be_at_most() -> None:
    text = """
    ldxdw r6, [r1+32]
    mov r0, 0
    jgt r6, 0xffff, out
    mov r2, r6
    le16 r2
    jeq r2, 0, out
    lddw r3, map_value 0+0
    add r3, r6
    ldxb r0, [r3+0]
    out: exit"""
    program = Program(name="p", section="chamelio/rx", insns=assemble(text), subprogs={0: "p"}, lines={})
    maps = [MapDef(".data", DATA, 4, 1 << 16, 1, data=bytes(1 << 16))]
    verdict = verify_program(Object(programs=[program], maps=maps, btf=None, license="", sha256=""), program)
    assert verdict.proof is not None
    assert [mask.high for mask in verdict.proof.masks.values()] == [0xFFFF]
