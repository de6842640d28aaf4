"""One fuzzer in this process, which it ends: `python -m fuzz.engine TARGET LIBFUZZER_ARGUMENTS...`; needs atheris.

What is instrumented is chamelio alone; the fuzzers themselves and what else they import give no coverage.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from types import ModuleType

HANG = 4.0  # seconds of this process' own time for one input


def bounded(one: Callable[[bytes], None], seconds: float = HANG) -> Callable[[bytes], None]:
    """The same harness, for which an input that takes too long is an error. Endless ones are libFuzzer's to stop."""

    def run(data: bytes) -> None:
        begin = time.process_time()
        one(data)
        spent = time.process_time() - begin
        assert spent < seconds, f"a hang: {spent:.1f} s for {len(data)} bytes"

    return run


def load(target: str) -> ModuleType:
    """The fuzzer's module."""
    return importlib.import_module(f"fuzz.fuzz_{target}")


def main() -> None:
    """Fuzz until libFuzzer's arguments say that it is enough."""
    import atheris

    target, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=["chamelio"]):
        fuzzer = load(target)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        return fuzzer.mutate(data, max_size, seed, atheris.Mutate)

    atheris.Setup([sys.argv[0], *arguments], bounded(fuzzer.one), custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
