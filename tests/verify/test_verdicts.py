"""Verdicts as a whole: their text, and what is refused before or after exploration."""

from __future__ import annotations

import dataclasses

import pytest

from chamelio.bpf.asm import assemble
from chamelio.bpf.maps import MapDef
from chamelio.bpf.object import Object, Program
from chamelio.jit.layout import RING_IN
from chamelio.verify import Limits, Verdict, render, verify_object, verify_program
from chamelio.verify.catalogue import CHAMELIO, PACKET_MAX
from chamelio.verify.codes import CODES
from chamelio.verify.cost import DEFAULT, lines_of
from chamelio.verify.flow import Shape
from chamelio.verify.render import extent
from chamelio.verify.verifier import verify_every
from verify.suite import MAPS, assembled, cases


def verdict_of(name: str) -> Verdict:
    case = next(c for c in cases("*.bad.c") if c.name == name)
    return verify_program(*case.load(), limits=Limits(steps=3_000))


def shown(name: str) -> list[str]:
    """The verdict's text without the expectation that stands in the source line."""
    return [line.split(" /*")[0] for line in render(verdict_of(name)).splitlines()]


def test_an_error_is_told_whole() -> None:
    verdict = verdict_of("reads_past_the_check")
    line = verdict.line
    assert shown("reads_past_the_check") == [
        "error[V102] Memory safety: access past the proven packet bytes",
        f"  --> source.bad.c:{line}:12  in reads_past_the_check (chamelio/rx, instruction 6)",
        f"{line - 2:4} |   if (ip + 14 > (u8 *)ctx->data_end)",
        "     |               - the packet has 14 bytes here",
        f"{line:4} |   return ip[20];",
        "     |          ^^^^^^ read past the proven packet bytes",
        "  Reason:      packet offset 20..21 is not within the proven [0, 14)",
        f"  Causal path: {line - 2}:17 not taken => the packet has 14 bytes  ->  {line}:12 load",
        "  Suggestion:  before this, leave the handler unless `ctx->data + 21 <= ctx->data_end`",
    ]


def test_the_path_says_what_each_branch_has_shown() -> None:
    verdict = verdict_of("index_checked_off_by_one")
    assert [step.split(" => ")[1] for step in verdict.path[:-1]] == ["not NULL", "the number is 0..72"]
    assert verdict.path[-1] == f"{verdict.line}:12 load"


def test_the_path_has_only_what_the_error_depends_on() -> None:
    text = """
    ldxw r6, [r1+44]
    ldxdw r7, [r1+32]
    ldxw r8, [r1+40]
    mov r0, 0
    jgt r8, 100, exit
    jgt r6, 16, exit
    jgt r7, 3, exit
    mov r3, r6
    stxdw [r10-8], r3
    ldxdw r4, [r10-8]
    lddw r2, map_value 9+0
    add r2, r4
    ldxb r0, [r2+0]
    exit
    exit: exit"""
    verdict = verify_program(*assembled(text))
    assert verdict.code == "V106"
    assert verdict.path == ("7:5 not taken => the number is 0..16", "14:5 load")
    assert [(note.line, note.words) for note in verdict.notes] == [(7, "the number is 0..16 here")]


def test_turns_of_a_loop_are_one_step_of_the_path() -> None:
    path = verdict_of("loop_over_the_whole_packet").path
    assert len(path) <= 3 and path[-2].endswith("times)")


def test_a_stale_address_names_the_helper_that_ended_it() -> None:
    verdict = verdict_of("uses_the_packet_after_resize")
    assert f"{verdict.line - 1}:5, where cham_resize is called" in verdict.reason


def test_an_error_without_lines_is_told_too() -> None:
    obj, program = assembled("mov r0, r3\nexit")
    text = render(verify_program(obj, dataclasses.replace(program, lines={})))
    assert "(no line information)" in text and "r3 is used before it has a value" in text


def test_an_accepted_program_is_told_in_one_line() -> None:
    text = render(verify_program(*assembled("mov r0, 0\nexit")))
    assert text.startswith("accept  test (chamelio/rx): worst case 1,014 cycles cold, 2 warm")


@pytest.mark.parametrize(
    ("text", "underlined"),
    [
        ("p[20];", "p[20]"), ("f->packets++;", "f->packets"), ("*(u32 *)(ip + 18) = 0;", "*(u32 *)(ip + 18)"), ("= 5;", "="),
        ("return p[2];", "r"), ("cham_push(&ring, f(1), &m) + 1", "cham_push(&ring, f(1), &m)"), ("(u64)ctx;", "(u64)ctx"),
        ("broken(1, 2", "broken"), ("", ""), ("for (;;)", "f"), ("&c->parts[a[1]]);", "&c->parts[a[1]]"),
    ],
)  # fmt: skip
def test_what_is_underlined(text: str, underlined: str) -> None:
    assert extent(text) == max(1, len(underlined))


def test_an_underline_stands_under_its_word_after_tabs() -> None:
    obj, program = assembled("mov r0, r3\nexit")
    line = dataclasses.replace(program.lines[0], text="\tx =\tword;", col=6)
    rows = render(verify_program(obj, dataclasses.replace(program, lines={0: line}))).splitlines()
    assert rows[2:4] == ["   1 |   x =\tword;", "     |      \t^^^^ r3 is used before it has a value"]


# ---- beside exploration -------------------------------------------------------------------------------------------


def test_over_budget_is_told_at_the_line_where_most_goes() -> None:
    obj, program = assembled("ldxw r2, [r1+44]\njeq r2, 0, +1\ndiv r2, 3\nmov r0, 0\nexit")
    accepted = verify_program(obj, program)
    assert verify_program(obj, program, budget=accepted.cost_cold).verdict == "accept"
    refused = verify_program(obj, program, budget=accepted.cost_cold - 1)
    assert (refused.code, refused.verdict, refused.insn, refused.path) == ("V161", "budget", 2, ())
    assert f"{accepted.cost_cold:,}" in refused.message and f"{accepted.cost_cold - 1:,}" in refused.reason
    assert "at test.asm:3" in refused.reason


def test_a_section_that_is_no_hook_is_unsupported() -> None:
    obj, program = assembled("mov r0, 0\nexit")
    refused = verify_program(obj, dataclasses.replace(program, section="kprobe/x"))
    assert (refused.code, refused.verdict) == ("V141", "unsupported")
    assert verify_program(obj, dataclasses.replace(program, section="kprobe/x"), context="chamelio").verdict == "accept"


def test_rings_of_several_entry_sizes_are_refused() -> None:
    obj, program = assembled("mov r0, 0\nexit")
    other = MapDef("others", RING_IN, 0, 24, 8)
    assert verify_program(dataclasses.replace(obj, maps=[*MAPS, other]), program).code == "V150"


def test_every_program_of_an_object_gets_a_verdict() -> None:
    good, bad, fine = (
        assembled(text, hook)[1] for text, hook in (("mov r0, 0\nexit", "rx"), ("exit", "tx"), ("mov r0, 0\nexit", "xdp"))
    )
    verdicts = verify_object(Object([good, bad, fine, fine], MAPS, None, "", ""))
    assert [v.verdict for v in verdicts] == ["accept", "unsafe", "accept", "accept"]


@pytest.mark.parametrize("names", [("one", "other"), ("same", "same")])
def test_a_hook_has_one_handler(names: tuple[str, str]) -> None:
    one, other = (assembled("mov r0, 0\nexit", name=name)[1] for name in names)
    verdicts = verify_object(Object([one, other], MAPS, None, "", ""))
    assert [v.code for v in verdicts] == [None, "V142"]
    assert f"{names[0]} and {names[1]} are both in chamelio/rx" in verdicts[1].message


# ---- what is charged ----------------------------------------------------------------------------------------------


COSTS = DEFAULT.instructions


def cost(text: str, maps: list[MapDef] = MAPS) -> tuple[int, int]:
    obj, program = assembled(text)
    verdict = verify_program(dataclasses.replace(obj, maps=maps), program)
    assert verdict.verdict == "accept", verdict.message
    return verdict.cost_cold, verdict.cost_warm


def test_the_worst_of_two_branches_counts() -> None:
    text = "ldxw r2, [r1+44]\nmov r0, 0\njeq r2, 0, other\ndiv r0, 3\nexit\nother: add r0, 1\nexit"
    assert cost(text)[1] == COSTS.load + 1 + 1 + COSTS.divide + 1
    swapped = text.replace("div r0, 3", "sub r0, 1").replace("add r0, 1", "mod r0, 3")
    assert cost(swapped) == cost(text)


def test_what_is_behind_a_join_counts_on_every_path_to_it() -> None:
    """The second way to a join meets a state that is known already; its worst case is the join's and its own."""
    text = "ldxw r2, [r1+44]\nmov r0, 0\nmov r3, 0\njeq r2, 0, join\n{}join: mov r2, 0\nmov r3, 0\ndiv r0, 7\nexit"
    plain = cost(text.format(""))[1]
    assert cost(text.format("mul r3, 3\n" * 10))[1] == plain + 30


def test_an_access_that_may_lie_on_two_lines_misses_twice() -> None:
    text = "ldxdw r2, [r1+0]\nldxdw r3, [r1+8]\nmov r4, r2\nadd r4, 80\nmov r0, 0\njgt r4, r3, exit\nldxw r0, [r2+{}]\nexit"
    aligned, split = cost(text.format(60)), cost(text.format(62))
    assert aligned[1] == split[1] and split[0] == aligned[0] + DEFAULT.cold.miss


def test_long_values_cost_what_copying_them_takes() -> None:
    text = "".join(f"stdw [r10-{8 * n}], 0\n" for n in range(1, 65))
    text += "stw [r10-512], 0\nmov r2, r10\nadd r2, -512\nmov r3, r2\nmov r4, 0\nlddw r1, map 0\ncall 2\nmov r0, 0\nexit"
    short, long_ = (cost(text, [dataclasses.replace(MAPS[0], value_size=size)]) for size in (64, 512))
    assert long_[1] - short[1] == 7 * COSTS.copy
    assert long_[0] - short[0] == 7 * (COSTS.copy + DEFAULT.cold.stream)


def test_a_copy_is_priced_by_the_longest_that_it_can_be() -> None:
    text = "ldxw r5, [r1+44]\n{}mov r4, 0\nmov r3, 0\nlddw r2, map 5\ncall 0x103\nmov r0, 0\nexit"
    unknown, bounded = cost(text.format("")), cost(text.format("and r5, 63\n"))
    price = DEFAULT.helpers["cham_pkt_to_bytes"]["bytes"]
    assert unknown[1] - bounded[1] == (lines_of(PACKET_MAX) - 1) * price.per_line - 1


def test_a_program_that_is_too_long_is_refused_at_once() -> None:
    obj, program = assembled("mov r0, 0\n" * 300 + "exit")
    assert verify_program(obj, program, limits=Limits(instructions=300)).code == "V160"
    assert verify_program(obj, program, limits=Limits(instructions=301)).verdict == "accept"


def test_time_is_limited() -> None:
    obj, program = assembled("mov r1, 0\nagain: add r1, 1\njne r1, 0x7fffffff, again\nmov r0, 0\nexit")
    refused = verify_program(obj, program, limits=Limits(seconds=0.05, steps=1 << 40))
    assert refused.code == "V160" and refused.seconds < 5


@pytest.mark.timeout(30)
def test_jumps_that_all_lead_backwards_take_no_quadratic_time() -> None:
    blocks = 20_000
    text = f"mov r6, 1\nja32 b{blocks - 1}\nb0: mov r0, r6\nexit\n"
    text += "".join(f"b{n}: ja b{n - 1}\n" for n in range(1, blocks))
    program = Program("test", "chamelio/rx", assemble(text), {0: "test"})
    assert Shape(program, CHAMELIO).live[blocks] >> 6 & 1
    assert verify_program(Object([program], [], None, "", ""), program).verdict == "accept"


@pytest.mark.timeout(30)
def test_long_loops_are_explored_turn_by_turn_in_linear_time() -> None:
    verdict = verify_program(*assembled("mov r1, 0\nmov r0, 0\nagain: add r1, 1\nadd r0, r1\njlt r1, 20000, again\nexit"))
    assert verdict.verdict == "accept" and verdict.cost_warm == 2 + 20_000 * 3 + 1


def test_codes_are_told_apart() -> None:
    assert all(code.code == key and code.title and code.suggestion for key, code in CODES.items())
    assert {code.kind for code in CODES.values()} == {"unsafe", "unsupported", "imprecise", "budget"}


def test_all_errors_of_a_program_are_found_each_once() -> None:
    obj, program = assembled("""
    ldxdw r2, [r1+0]
    mov r9, r1
    ldxb r7, [r2+9]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    ldxdw r4, [r0+0]
    ldxdw r4, [r0+8]
    ldxdw r4, [r0+16]
    ldxdw r5, [r9+1]
    jgt r7, 5, +1
    mov r0, r8
    ldxdw r0, [r10-8]
    exit""")
    found = verify_every(obj, program)
    assert [(v.code, v.line) for v in found] == [
        ("V102", 4), ("V108", 10), ("V103", 12), ("V105", 13), ("V110", 15), ("V111", 16),
    ]  # fmt: skip
    assert verify_program(obj, program).code == "V102"
