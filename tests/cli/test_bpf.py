"""`chamelio bpf exec`: bare programs on either engine, by the protocol of bpf_conformance's plug-ins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bpf import conformance
from bpf.test_interp import SUITE
from chamelio.bpf.asm import assemble
from chamelio.bpf.insn import CALLX, encode
from chamelio.bpf.interp import Fault, run_bare
from chamelio.jit.execute import ExecutionError, run_apart

ENGINES = ["interp", "jit"]


def execute(engine: str, program: str | bytes, mem: str = "") -> subprocess.CompletedProcess[str]:
    text = program if isinstance(program, str) else program.hex(" ")
    command = [sys.executable, "-m", "chamelio", "bpf", "exec", "--engine", engine, *([mem] if mem else [])]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)


def assembled(text: str) -> bytes:
    return encode(assemble(text))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("text", "mem", "r0"),
    [
        ("mov r0, -1\nexit", "", "ffffffffffffffff"),
        ("ldxh r0, [r1+1]\nadd r0, r2\nexit", "aa 01 02 bb", "205"),
        ("mov r1, 7\ncall 5\nexit", "", "7"),
        ("mov r0, r1\nexit", "", "0"),
    ],
)
def test_r0_in_hex(engine: str, text: str, mem: str, r0: str) -> None:
    done = execute(engine, assembled(text), mem)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{r0}\n", "")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("95", "not a multiple of 8"),
        ("95 00 zz", "not hex"),
        ("ff 00 00 00 00 00 00 00", "no such opcode"),
        ("18 00 00 00 00 00 00 00", "wide load"),
        (assembled("call 77\nexit"), "77"),
        (assembled("lddw r1, map 0\nmov r0, 0\nexit"), "pseudo source 1"),
    ],
)
def test_what_is_no_program_is_refused(engine: str, program: str | bytes, words: str) -> None:
    done = execute(engine, program)
    assert done.returncode in (1, 2) and done.stdout == ""
    assert done.stderr.startswith("error: ") and words in done.stderr


@pytest.mark.parametrize(
    ("text", "interp", "jit"),
    [
        ("mov r1, 8192\nldxb r0, [r1+0]\nexit", "nothing is mapped", "Segmentation fault"),
        ("l:\nja l", "limit of 1000000 instructions", "has not ended after 1 s"),
        ("mov r0, 1", "no such instruction", "runs off the end"),
        ("ja +5\nexit", "no such instruction", "no instruction begins"),
    ],
)
def test_a_program_that_goes_wrong_is_a_message(text: str, interp: str, jit: str) -> None:
    insns = assemble(text)
    with pytest.raises(Fault, match=interp):
        run_bare(insns, bytearray())
    with pytest.raises(ExecutionError, match=jit):
        run_apart(insns, b"", seconds=1)


def test_a_call_through_a_register_is_refused_by_name_as_machine_code() -> None:
    done = execute("jit", "8d 02 00 00 00 00 00 00 95 00 00 00 00 00 00 00")
    assert done.returncode == 1 and "callx" in done.stderr


@pytest.mark.long
@pytest.mark.skipif(not SUITE.is_dir(), reason=f"no bpf_conformance suite: set BPF_CONFORMANCE ({SUITE})")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("path", sorted(SUITE.glob("*.data")), ids=lambda path: Path(path).stem)
def test_the_conformance_suite_by_its_protocol(engine: str, path: Path) -> None:
    vector = conformance.parse(path.stem, path.read_text())
    done = execute(engine, encode(vector.insns), vector.mem.hex(" "))
    if engine == "jit" and any(insn.op == CALLX for insn in vector.insns):
        assert done.returncode == 1 and "callx" in done.stderr
    else:
        assert int(done.stdout, 16) == vector.result
