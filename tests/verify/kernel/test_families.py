"""Families of small programs: our verdicts and the kernel's.

What we accept must be accepted by the kernel too, or be explained; and it must run without a fault at the edges of what
numbers can be. What we refuse and the kernel accepts is bounded by a number for each family.
"""

from __future__ import annotations

from collections import Counter

import pytest

from chamelio.bpf.object import Object
from chamelio.verify import verify_program
from verify.kernel import bpf_syscall
from verify.kernel.bpf_syscall import TYPE_OF_CONTEXT, Kernel
from verify.kernel.families import FAMILIES, sample
from verify.kernel.generate import MAPS
from verify.kernel.test_verdicts import LIMITS, explained, runs_safely
from verify.suite import assembled

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> None:
    reason = bpf_syscall.unavailable()
    if reason:
        pytest.skip(reason)


def check(name: str, seed: int, count: int, runs: int) -> tuple[Counter[tuple[bool, bool]], list[str]]:
    """(verdicts[ours, kernel's], programs that only we refuse)."""
    context = FAMILIES[name][0]
    verdicts: Counter[tuple[bool, bool]] = Counter()
    refused = []
    with Kernel(Object([], MAPS, None, "GPL", "")) as kernel:
        for number, text in enumerate(sample(name, seed, count)):
            _, program = assembled(text)
            ours = verify_program(Object([program], MAPS, None, "GPL", ""), program, context=context, limits=LIMITS)
            theirs = kernel.load(program, TYPE_OF_CONTEXT[context])
            theirs.close()
            accepted, also = ours.verdict == "accept", theirs.errno == 0
            verdicts[accepted, also] += 1
            if accepted and not also:
                assert explained(theirs.message, text), f"{theirs.message}\n{text}"
            if accepted and "call 6\n" not in text:  # trace_printk
                runs_safely(program, context, number, runs)
            if also and not accepted:
                refused.append(f"{ours.code} {ours.message}; {ours.reason}\n{text}")
    return verdicts, refused


@pytest.mark.parametrize("name", FAMILIES)
def test_verdicts_of_a_family_are_the_kernels_or_explained(name: str) -> None:
    verdicts, refused = check(name, 0, 60, 8)
    assert verdicts[True, True] > 2
    assert len(refused) <= 12, "\n".join(refused[:3])


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", FAMILIES)
def test_verdicts_of_a_family_are_the_kernels_or_explained_at_length(name: str) -> None:
    verdicts, refused = check(name, 1, 4_000, 20)
    print(f"{name}: {dict(verdicts)}")
    print("\n".join(refused[:20]))
