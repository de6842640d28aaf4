"""The bound on a conforming tenant's delay: the formula of docs/contract.md, and admission by it."""

from __future__ import annotations

import pytest

from chamelio.host.bound import Contract, Share, chunk, delay, overrun, prices

QUANTUM = 16_000
# timer, rx, ring, tx is the order of a turn; tables are rx, ring, tx, timer
TCP = Contract((12_551, 15_396, 6_397, 1_914), (186_711, 129_313, 83_806, 56_352), 9)
UDP = Contract((1_249, 512, 0, 0), (20_300, 9_575, 0, 0), 9)


def two(neighbour: Contract, weight: int = 1) -> list[Share]:
    return [Share("victim", 1, (UDP,)), Share("other", weight, (neighbour,))]


@pytest.mark.parametrize(("cold", "runs"), [(1_000, 8), (71_000, 8), (72_000, 7), (186_711, 3), (596_000, 1), (5_000_000, 1)])
def test_chunks_follow_from_contracts(cold: int, runs: int) -> None:
    assert chunk(cold) == runs


def test_a_turn_overruns_by_a_chunk_and_a_run_of_each_hook_after_it() -> None:
    price = prices("virtual")
    ring = 4 * (15_396 + price.run) + 6_397 + price.run  # dearer than three of rx, then ring and tx
    rest = price.turn + 8 * price.raw + 9 * price.wakeup
    assert overrun(Share("a", 1, (TCP,)), price) == ring + rest
    both = overrun(Share("a", 1, (TCP, UDP)), price)
    assert both == ring + rest + 1_249 + 512 + 2 * price.run + 8 * price.raw + 9 * price.wakeup, "another instance may follow"


def test_two_rounds_and_twice_the_others_credit() -> None:
    bound = delay("victim", two(TCP, weight=3), ports=2, quantum=QUANTUM, clock="virtual")
    price = prices("virtual")
    assert bound.provider == 2 * (price.round + 2 * 64 * price.received + price.turn)
    assert bound.credit == {"other": 2 * 3 * QUANTUM}
    assert bound.cycles == bound.provider + 6 * QUANTUM + bound.overrun["other"]


@pytest.mark.parametrize("contract", [TCP, UDP])
def test_with_one_neighbour_a_turn_comes_within_50_us_by_the_virtual_clock(contract: Contract) -> None:
    bound = delay("victim", two(contract), ports=1, quantum=QUANTUM, clock="virtual")
    assert bound.describe(3e9)["us"] <= 50


@pytest.mark.parametrize("clock", ["cold", "virtual"])
def test_more_of_anything_never_makes_it_smaller(clock: str) -> None:
    def cycles(shares: list[Share], ports: int = 1) -> int:
        return delay("victim", shares, ports=ports, quantum=QUANTUM, clock=clock).cycles  # type: ignore[arg-type]

    one = cycles(two(UDP))
    assert one < cycles(two(UDP, weight=2)) and one < cycles(two(TCP)) and one < cycles(two(UDP), ports=2)
    assert one < cycles([*two(UDP), Share("third", 1)]) < cycles([*two(UDP), Share("third", 1, (UDP,))])


def test_who_is_not_there_has_no_bound() -> None:
    with pytest.raises(KeyError):
        delay("nobody", two(UDP), ports=1, quantum=QUANTUM)
