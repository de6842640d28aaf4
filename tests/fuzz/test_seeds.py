"""What fuzzing has found, once more without it: inputs that reach far, and every one that has ever broken something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.__main__ import SEEDS, TARGETS, TESTS, Outcome
from fuzz.engine import bounded, load
from fuzz.programs import GENERATED, MAX_LEN

MOST_BYTES = 300_000  # of all seeds together


def seeds(target: str) -> list[Path]:
    return sorted((SEEDS / target).iterdir())


@pytest.mark.fault(15)
@pytest.mark.parametrize("path", seeds("loader"), ids=lambda p: p.name)
def test_objects_are_loaded_or_refused(path: Path) -> None:
    bounded(load("loader").one)(path.read_bytes())


@pytest.mark.parametrize("path", seeds("verifier"), ids=lambda p: p.name)
def test_programs_have_verdicts(path: Path) -> None:
    bounded(load("verifier").one)(path.read_bytes())


def test_accepted_programs_do_what_was_proven_as_machine_code() -> None:
    """In a process of their own, which a broken one may take with it; the last path printed is that one's."""
    command = [sys.executable, "-m", "fuzz", "--target", "lifter", *map(str, seeds("lifter"))]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-3000:]


def test_seeds_are_few() -> None:
    assert sum(path.stat().st_size for target in TARGETS for path in seeds(target)) < MOST_BYTES


@pytest.mark.parametrize("target", TARGETS)
def test_mutations_depend_on_their_seed_alone_and_keep_within_the_size(target: str) -> None:
    fuzzer, plain = load(target), lambda data, size: data[: size // 2]
    for path in seeds(target)[:10]:
        data = path.read_bytes()
        for seed in range(20):
            changed = fuzzer.mutate(data, len(data), seed, plain)
            assert changed == fuzzer.mutate(data, len(data), seed, plain) and len(changed) <= len(data)


def test_slots_stay_whole_when_they_are_mutated() -> None:
    fuzzer, data = load("verifier"), bytes((0, 0)) + bytes(range(8)) * 20
    for seed in range(200):
        changed = fuzzer.mutate(data, MAX_LEN, seed, lambda data, size: data)
        assert (len(changed) - 2) % 8 == 0 and not changed[1] & GENERATED


def test_figures_are_read_from_what_the_fuzzer_prints() -> None:
    outcome = Outcome("loader")
    outcome.add("#4\tINITED cov: 1 ft: 2 corp: 3/9b exec/s: 0\n#9\tDONE   cov: 10 ft: 20 corp: 4/2332Kb lim: 9 exec/s: 1\n"
                "stat::number_of_executed_units: 5479\nstat::new_units_added:          250\n")  # fmt: skip
    assert (outcome.edges, outcome.features, outcome.corpus, outcome.executions, outcome.new) == (10, 20, 4, 5479, 250)
