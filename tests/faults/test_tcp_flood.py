"""A SYN flood at one tenant: streams and newcomers are served, memory is bounded, losses are counted, neighbours notice nothing."""

from __future__ import annotations

import functools

import pytest

from faults.tcp_flood import BACKLOG, LINE_RATE, STREAMS, Outcome, both, run, syns
from neighbours import assert_clean

SYN_ACK, RST = 0x12, 0x04
EVERY_S = 500e-6  # between two pieces of a stream: a tenth of what red can do when it has nothing else to do
NEWCOMERS = 8
RATE = 1_000_000  # SYNs per second, which red can answer and serve its streams besides; they take most of its share of the core


@functools.cache
def calm(every_s: float = EVERY_S, newcomers: int = NEWCOMERS) -> Outcome:
    """The same without a flood."""
    return run(every_s=every_s, newcomers=newcomers)


@functools.cache
def flooded() -> Outcome:
    return run(syns, RATE, every_s=EVERY_S, newcomers=NEWCOMERS)


def assert_all_accounted_for(outcome: Outcome) -> None:
    """Each packet of the flood was answered, or dropped for a reason, or has made a connection half open."""
    assert outcome.flooded > 8_000
    assert sum(outcome.answers.values()) + sum(outcome.drops.values()) >= outcome.flooded


@pytest.mark.fault(25)
def test_established_streams_go_on_in_a_syn_flood() -> None:
    assert calm().echoed >= STREAMS * 15 * 10_000 and calm().drops == {}
    assert flooded().echoed >= 0.95 * calm().echoed
    assert (flooded().wrong, flooded().resets, flooded().open) == (0, 0, STREAMS + NEWCOMERS)


@pytest.mark.fault(25)
def test_newcomers_get_through_by_cookies() -> None:
    """The backlog is full of connections that nobody will acknowledge, before and after them."""
    assert flooded().half_open == BACKLOG and calm().half_open == 0
    assert len(flooded().newcomers) == NEWCOMERS and max(flooded().newcomers) < 0.001


@pytest.mark.fault(25)
def test_a_flood_takes_no_more_than_the_backlog_and_is_accounted_for() -> None:
    for outcome in (flooded(), run(both, LINE_RATE, every_s=EVERY_S), run(syns, LINE_RATE, every_s=EVERY_S)):
        assert outcome.half_open == BACKLOG, "what is remembered of a SYN is bounded"
        assert outcome.answers.keys() <= {SYN_ACK, RST}
        assert_all_accounted_for(outcome)
        assert (outcome.wrong, outcome.resets) == (0, 0)


@pytest.mark.fault(25)
@pytest.mark.parametrize("rate", [LINE_RATE, 10_000_000])
def test_a_syn_flood_is_not_noticed_next_door(rate: float) -> None:
    """Red is backlogged without it, too. The second rate is far beyond what red's share can answer: only red itself suffers."""
    beside, during = calm(0, 0).neighbour, run(syns, rate)
    assert_clean(during.neighbour, beside)
    assert during.neighbour.neighbour_cycles == pytest.approx(beside.neighbour_cycles, rel=0.02), (
        "red has the same share of the core"
    )
    assert during.neighbour.neighbour_drops.keys() <= {"backlog_full", "debt", "handler_error"}
    assert during.neighbour.least_free > 0.9 * during.neighbour.frames, "what waits is bounded"
    assert (during.wrong, during.resets) == (0, 0)
    assert_all_accounted_for(during)
