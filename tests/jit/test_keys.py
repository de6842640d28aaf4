"""What names a unit: nothing that another verifier, lifter or fast path has made is taken for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from chamelio import toolchain
from chamelio.jit.artifact import Options
from chamelio.jit.compile import unit_key


@pytest.mark.parametrize("changed", ["verify/machine.py", "jit/lift.py", "bpf/object.py", "fastpath/unit.c", "include/chamelio.h"])
def test_a_change_of_whatever_makes_units_makes_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    before = unit_key(b"object", Options())
    package = tmp_path / "chamelio"
    shutil.copytree(toolchain.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, value in (("PACKAGE", package), ("FASTPATH", package / "fastpath"), ("INCLUDE", package / "include")):
        monkeypatch.setattr(toolchain, name, value)
    assert unit_key(b"object", Options()) == before
    with (package / changed).open("a") as source:
        source.write("\n")
    assert unit_key(b"object", Options()) != before


def test_what_traps_on_undefined_behaviour_is_another_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for sanitizing in ("", "1"):
        monkeypatch.setenv("CHAMELIO_SANITIZE", sanitizing)
        keys.add(unit_key(b"object", Options()))
    assert len(keys) == 2
