"""Lifted code computes what RFC 9669 says: the vectors that the reference interpreter passes, as machine code."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from bpf import conformance
from bpf.test_interp import SUITE
from chamelio.bpf.asm import assemble
from chamelio.bpf.insn import Insn
from jit import native

OWN = tomllib.loads((Path(__file__).parents[1] / "bpf" / "vectors.toml").read_text())["vector"]
U64 = (1 << 64) - 1


def calls_a_helper(insns: list[Insn]) -> bool:
    return any(insn.is_call and insn.src != 1 for insn in insns)


@pytest.mark.parametrize("vector", [v for v in OWN if "fault" not in v], ids=lambda v: v["name"])
def test_vectors_of_our_own_as_machine_code(vector: dict[str, Any]) -> None:
    insns = assemble(vector["asm"])
    if calls_a_helper(insns):
        pytest.skip("calls a helper that tenants do not have")
    mem = bytearray(bytes.fromhex(vector.get("mem", "")))
    assert native.run(insns, mem) == int(vector["result"]) & U64


@pytest.mark.skipif(not SUITE.is_dir(), reason=f"no bpf_conformance suite: set BPF_CONFORMANCE ({SUITE})")
def test_the_conformance_suite_as_machine_code() -> None:
    wrong, ran = [], 0
    for vector in conformance.load(SUITE):
        if calls_a_helper(vector.insns):
            continue  # call_unwind_fail (a helper of the suite), callx (refused by name)
        ran += 1
        if native.run(vector.insns, bytearray(vector.mem)) != vector.result:
            wrong.append(vector.name)
    assert ran >= 311 and not wrong
