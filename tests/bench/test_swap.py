"""A protocol is replaced while a wire is busy, with real processes."""

from __future__ import annotations

import pytest

from chamelio.bench import swap


@pytest.mark.fault(17)
def test_ten_swaps_under_load_lose_nothing_and_further_tenants_compile_nothing() -> None:
    result = swap.measure(10)
    assert result["lost"] == 0
    assert result["seen_by_the_peer"] == result["swaps"] == 10, "every version has served requests"
    assert result["all_under_load"]
    assert result["packets_per_second"] >= 200_000
    assert result["joins_that_compiled"] == 0
    assert min(result["join_ms"]) < 50
