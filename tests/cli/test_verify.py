"""`chamelio verify`: a verdict for every program of whatever it is given, in text and JSON, and how it ends."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chamelio import toolchain
from chamelio.bpf.elf import MAX_BYTES

Run = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("no_daemon")

FIELDS = {
    "section", "name", "verdict", "code", "message", "reason", "file", "line", "column", "instruction", "cost_cold", "cost_warm",
    "steps", "seconds", "path", "suggestion", "attribution",
}  # fmt: skip
INCLUDE = "#include <chamelio.h>\n"


@pytest.fixture
def verify(cham: Run, tmp_path: Path) -> Run:
    """`chamelio verify` of C, with these words."""

    def run(source: str, *words: str) -> Any:
        path = tmp_path / "x.bpf.c"
        path.write_text(INCLUDE + source)
        return cham("verify", str(path), *words)

    return run


HANDLERS = {
    "return CHAM_DONE;": (0, None),
    "u8 *p = ctx->data; return p[0];": (3, "V102"),
    "for (;;) { if (ctx->now == 1) break; } return CHAM_DONE;": (3, None),
}


@pytest.mark.parametrize("body", HANDLERS)
def test_a_handler_is_proven_or_the_reason_is_told(verify: Run, body: str) -> None:
    source = f"CHAM_HANDLER(rx) {{ {body} }}\n"
    code, error = HANDLERS[body]
    text, done = verify(source), verify(source, "-o", "json")
    (program,) = done.json["programs"]
    assert text.exit == done.exit == code and done.json["accepted"] == (code == 0)
    assert program.keys() >= FIELDS and (program["name"], program["section"]) == ("rx", "chamelio/rx")
    assert (program["cost_cold"] > 0) == (code == 0) and program["seconds"] > 0 and program["steps"] > 0
    assert error is None or (program["code"] == error and error in text.out and "x.bpf.c:2" in text.out)
    assert error is None or (program["file"].endswith("x.bpf.c") and program["line"] == 2 and program["column"] > 1)
    assert text.out.endswith(f"{int(code == 0)} of 1 accepted\n")


def test_where_the_worst_case_goes_is_told(verify: Run) -> None:
    source = """CHAM_HANDLER(rx) {
  u32 n = 0;
  for (u32 i = 0; i < 100; i++) { n += ctx->hash ^ i; asm volatile(""); }
  return n & 1;
}
"""
    (program,) = verify(source, "-o", "json").json["programs"]
    first = program["attribution"][0]
    assert first.keys() == {"file", "line", "instruction", "cycles", "turns"} and first["turns"] == 100
    assert program["cost_cold"] / 2 < first["cycles"] <= program["cost_cold"]
    assert "% in the loop at x.bpf.c:" in verify(source).out


SEVERAL = """
extern u64 jiffies;
struct task { int pid; } __attribute__((preserve_access_index));
CHAM_HANDLER(rx) { return CHAM_DONE; }
CHAM_HANDLER(tx) { return jiffies; }
CHAM_HANDLER(timer) { return ((struct task *)ctx->data)->pid; }
"""


def test_what_one_program_asks_for_is_no_affair_of_the_others(verify: Run) -> None:
    done = verify(SEVERAL, "-o", "json")
    assert done.exit == 3 and not done.json["accepted"]
    verdicts = {p["name"]: p["verdict"] for p in done.json["programs"]}
    assert verdicts == {"rx": "accept", "tx": "unsupported", "timer": "unsupported"}
    assert "1 of 3 accepted" in verify(SEVERAL).out


def test_a_context_is_chosen_by_name(verify: Run) -> None:
    source = '__attribute__((section("socket1"), used)) u64 f(u64 *ctx) { return ctx[4]; }'
    assert verify(source, "--context", "chamelio").exit == 0
    wrong = verify(source, "--context", "chameloin")
    assert wrong.exit == 2 and "did you mean 'chamelio'?" in wrong.err
    assert "contexts are" in verify(source, "--context", "q").err


def test_text_alone_is_one_program(verify: Run) -> None:
    done = verify("u64 f(u64 *ctx) { return ctx[4]; }", "--context", "chamelio", "-o", "json")
    assert done.exit == 0 and [(p["name"], p["section"]) for p in done.json["programs"]] == [("f", ".text")]


def test_all_errors_can_be_asked_for(verify: Run) -> None:
    source = "CHAM_HANDLER(rx) {\n  u8 *p = ctx->data;\n  if (ctx->hash & 1)\n    return p[1];\n  return *(volatile u32 *)p;\n}\n"
    one, every = verify(source, "-o", "json").json["programs"], verify(source, "--all", "-o", "json").json["programs"]
    assert len(one) == 1 and len(every) == 2 and {p["code"] for p in every} == {"V102"}
    assert "0 of 1 accepted" in verify(source, "--all").out


@pytest.mark.fault(15)
@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"hello", bytes(100_000), bytes(MAX_BYTES + 1)], ids=len)
def test_what_is_no_object_has_a_verdict_too(cham: Run, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.o"
    path.write_bytes(content)
    done, text = cham("verify", str(path), "-o", "json"), cham("verify", str(path))
    (program,) = done.json["programs"]
    assert done.exit == text.exit == 3 and (program["name"], program["verdict"], program["code"]) == ("", "unsupported", "V143")
    assert text.out.startswith("error[V143] Object that cannot be read\n  ") and text.out.endswith("0 of 1 accepted\n")


def test_an_object_without_programs_is_not_accepted(verify: Run) -> None:
    done = verify("int only;", "-o", "json")
    assert done.exit == 3 and "it has no programs" in done.json["programs"][0]["message"]


def test_what_is_not_there_is_a_mistake_of_the_user(cham: Run, tmp_path: Path) -> None:
    for words in (["nothing.o"], [str(tmp_path)], [str(tmp_path / "nothing.bpf.c")]):
        done = cham("verify", *words)
        assert done.exit == 2 and not done.out and done.err.startswith("error: ")


def test_folders_and_shipped_protocols_are_built_first(cham: Run) -> None:
    done = cham("verify", "udp", "-o", "json")
    assert done.exit == 0 and [p["name"] for p in done.json["programs"]] == ["rx", "ring"]


@pytest.mark.fault(15)
@pytest.mark.parametrize("seed", range(3))
def test_a_spoiled_object_ends_with_verdicts(cham: Run, tmp_path: Path, seed: int) -> None:
    rng, whole = random.Random(seed), toolchain.bpf_object(toolchain.PACKAGE / "protocols" / "udp" / "udp.bpf.c")
    path = tmp_path / "x.o"
    for _ in range(8):
        data = bytearray(whole)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        for _ in range(rng.choice((1, 8, 64))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        done = cham("verify", str(path), "-o", "json")
        assert done.exit in (0, 3) and done.json["programs"]
        assert all(p["code"] != "V145" for p in done.json["programs"]), done.json["programs"]
