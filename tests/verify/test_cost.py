"""The table of costs: read, written, refused; what is in force; what a run's code costs."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chamelio import toolchain
from chamelio.bpf.asm import assemble
from chamelio.bpf.object import Program
from chamelio.jit.artifact import Options
from chamelio.jit.compile import unit_key
from chamelio.messages import Refusal
from chamelio.verify import cost, verify_program
from chamelio.verify.catalogue import HELPERS, Cost
from chamelio.verify.cost import DEFAULT, load, price, text, using
from verify.suite import MAPS, assembled

ECHO = toolchain.PACKAGE / "protocols" / "echo" / "echo.bpf.c"


def table_of(tmp_path: Path, content: str) -> cost.CostTable:
    path = tmp_path / "costs.toml"
    path.write_text(content)
    return load(path)


def test_a_written_table_is_read_back_as_it_was(tmp_path: Path) -> None:
    assert table_of(tmp_path, text(DEFAULT, "heading\nof two lines")) == DEFAULT


def test_a_table_names_every_figure_and_every_helper() -> None:
    plain = cost.plain(DEFAULT)
    assert set(plain["helpers"]) == {h.name for h in HELPERS.values()}
    assert all(isinstance(figure, int) for part in ("instructions", "cold") for figure in plain[part].values())


def test_what_a_table_does_not_name_is_as_in_the_default(tmp_path: Path) -> None:
    table = table_of(tmp_path, "[cold]\nmiss = 321\n[helpers.cham_lookup]\nlines = 9\n[helpers.cham_lookup.array]\nfixed = 3\n")
    assert table.cold == dataclasses.replace(DEFAULT.cold, miss=321) and table.instructions == DEFAULT.instructions
    old = DEFAULT.helpers["cham_lookup"]
    assert table.helpers["cham_lookup"][""] == dataclasses.replace(old[""], lines=9)
    assert table.helpers["cham_lookup"]["array"] == dataclasses.replace(old["array"], fixed=3)
    assert table.helpers["cham_push"] == DEFAULT.helpers["cham_push"]


@pytest.mark.parametrize(
    ("content", "key", "words"),
    [
        ("[instruction]\nload = 1", "instruction", "did you mean 'instructions'?"),
        ("[instructions]\nlaod = 1", "instructions.laod", "did you mean 'load'?"),
        ("[instructions]\nload = -1", "instructions.load", "whole number"),
        ("[instructions]\nload = 1.5", "instructions.load", "whole number"),
        ("[instructions]\nload = true", "instructions.load", "whole number"),
        ("[cold]\nmiss = 10000000", "cold.miss", "whole number"),
        ("cold = 7", "cold", "not a value"),
        ("[helpers.cham_lokup]\nfixed = 1", "helpers.cham_lokup", "did you mean 'cham_lookup'?"),
        ("[helpers.cham_lookup]\nfixd = 1", "helpers.cham_lookup.fixd", "did you mean 'fixed'?"),
        ("[helpers.cham_lookup.ring_out]\nfixed = 1", "helpers.cham_lookup.ring_out", "array, hash"),
        ("[helpers.cham_lookup.hash]\nline = 1", "helpers.cham_lookup.hash.line", "did you mean 'lines'?"),
        ("[helpers]\ncham_lookup = 4", "helpers.cham_lookup", "not a value"),
        ("load = ", "costs.toml", "not TOML"),
    ],
)
def test_nonsense_is_refused_with_the_path_of_the_key(tmp_path: Path, content: str, key: str, words: str) -> None:
    with pytest.raises(Refusal) as caught:
        table_of(tmp_path, content)
    said = f"{caught.value.message} {caught.value.remedy}"
    assert key in said and words in said


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="cannot be read"):
        load(tmp_path / "none.toml")


def test_another_table_makes_other_prices_and_other_units(tmp_path: Path) -> None:
    table = table_of(tmp_path, "[instructions]\nsimple = 7\n[helpers.cham_random]\nfixed = 1000\n")
    obj, program = assembled("call 0x109\nmov r0, 0\nexit")
    before, key = verify_program(obj, program), unit_key(b"object", Options())
    with using(table):
        after = verify_program(obj, program)
        assert unit_key(b"object", Options()) != key
    assert after.cost_warm - before.cost_warm == 6 + 1000 - HELPERS[0x109].cost.fixed
    assert unit_key(b"object", Options()) == key


def test_the_variable_puts_a_table_in_force_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "costs.toml"
    path.write_text("[cold]\nmiss = 1234\n")
    command = [sys.executable, "-c", "from chamelio.verify import cost; print(cost.table().cold.miss)"]
    environment = {**os.environ, cost.VARIABLE: str(path)}
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == "1234\n"
    path.write_text("[cold]\nmist = 1\n")
    command = [sys.executable, "-m", "chamelio", "verify", str(ECHO)]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "did you mean 'miss'?" in refused.stderr


# ---- prices -------------------------------------------------------------------------------------------------------------


def test_a_helper_is_priced_by_length_and_by_kind_of_map() -> None:
    maps = {m.name: m for m in MAPS}
    lookup, csum = (next(h for h in HELPERS.values() if h.name == name) for name in ("cham_lookup", "cham_csum"))
    assert price(lookup, 0, maps["table"])[0] < price(lookup, 0, maps["flows"])[0]
    own = csum.cost
    cold, warm = price(csum, 130, None)
    assert warm == own.fixed + 3 * own.per_line
    assert cold == warm + own.lines * DEFAULT.cold.miss + 3 * own.per_line_cold


def test_what_is_counted_is_no_more_than_what_is_proven() -> None:
    for helper in HELPERS.values():
        counted = cost.counted(helper)
        for one in DEFAULT.helpers[helper.name].values():
            assert counted.fixed <= one.fixed and counted.per_line <= one.per_line
    assert cost.counted(HELPERS[1]) == Cost(DEFAULT.helpers["cham_lookup"]["array"].fixed)


@pytest.mark.parametrize(
    ("text_", "longest"),
    [
        ("mov r0, 0\nexit", 2),
        ("jeq r1, 0, a\nmov r2, 0\nmov r3, 0\na: mov r0, 0\nexit", 5),
        ("jeq r1, 0, a\nmov r2, 0\nexit\na: mov r0, 0\nexit", 3),
        ("l: add r1, 1\njlt r1, 9, l\nexit", 3),
        ("ja b\na: mov r0, 0\nexit\nb: mov r1, 0\nja a", 5),  # a jump back that is no loop
        ("lddw r1, 5\nexit", 2),
        ("l: jeq r1, 0, a\nmov r2, 0\nja b\na: mov r3, 0\nb: jlt r1, 9, l\nexit", 6),  # both arms, in two turns
    ],
)
def test_code_is_fetched_once_however_often_it_runs(text_: str, longest: int) -> None:
    insns = list(assemble(text_))
    program = Program(name="test", section="chamelio/rx", insns=insns, subprogs={0: "test"}, lines={})
    reached = {pc for pc in range(len(insns)) if insns[pc].op}
    assert cost.start_cost(program, reached) == DEFAULT.cold.start + DEFAULT.cold.code * longest
