"""Lifted code computes what RFC 9669 says: the vectors that the reference interpreter passes, as machine code."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from bpf import conformance
from bpf.test_interp import SUITE
from chamelio.bpf.asm import assemble
from chamelio.bpf.insn import CALLX, Insn
from chamelio.jit.execute import run

OWN = tomllib.loads((Path(__file__).parents[1] / "bpf" / "vectors.toml").read_text())["vector"]
U64 = (1 << 64) - 1


@pytest.mark.parametrize("vector", [v for v in OWN if "fault" not in v], ids=lambda v: v["name"])
def test_vectors_of_our_own_as_machine_code(vector: dict[str, Any]) -> None:
    mem = bytearray(bytes.fromhex(vector.get("mem", "")))
    assert run(assemble(vector["asm"]), mem) == int(vector["result"]) & U64


def calls_a_register(insns: list[Insn]) -> bool:
    return any(insn.op == CALLX for insn in insns)


@pytest.mark.skipif(not SUITE.is_dir(), reason=f"no bpf_conformance suite: set BPF_CONFORMANCE ({SUITE})")
def test_the_conformance_suite_as_machine_code() -> None:
    vectors = [vector for vector in conformance.load(SUITE) if not calls_a_register(vector.insns)]
    assert len(vectors) >= 312
    wrong = [vector.name for vector in vectors if run(vector.insns, bytearray(vector.mem)) != vector.result]
    assert not wrong
