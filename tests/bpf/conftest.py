"""Objects compiled from C that the tests of the BPF layer share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from chamelio import toolchain
from chamelio.bpf.object import Object, load_object

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")

HERE = Path(__file__).parent
PREAMBLE = '#pragma clang diagnostic ignored "-Wunused-parameter"\n#include "chamelio.h"\n'


@pytest.fixture(scope="session")
def sample_bytes() -> bytes:
    return toolchain.bpf_object(HERE / "sample.bpf.c")


@pytest.fixture(scope="session")
def sample(sample_bytes: bytes) -> Object:
    return load_object(sample_bytes, "sample.bpf.o")


@pytest.fixture
def build(tmp_path: Path) -> Callable[[str], bytes]:
    """Compiles C, the header for handlers included, to an object."""

    def compile_(source: str) -> bytes:
        path = tmp_path / "case.bpf.c"
        path.write_text(PREAMBLE + source + "\n")
        return toolchain.bpf_object(path)

    return compile_
