"""What a tenant does wrong is not noticed next door: goodput and tail of a second tenant, in virtual time."""

from __future__ import annotations

import pytest

from neighbours import FLOOD, Measurement, Neighbour, assert_clean, measure, well_behaved
from virtual import CONTEXTS

LIES = (65, 1000, 1 << 31, 0xFFFFFFFF, 0xFFFFFFF0)


@pytest.fixture(scope="module")
def beside() -> Measurement:
    """Beside a well-behaved, backlogged neighbour of the same weight."""
    return measure(well_behaved)


def attach_again(n: Neighbour) -> None:
    for context in range(CONTEXTS):
        n.host.attach(n.tenant.instance.index, context)


def lies(n: Neighbour) -> None:
    """A lie in one of its rings in every round, and attaching again as soon as it is found."""
    well_behaved(n)
    if n.host.state_of(n.tenant.instance.index) == "quarantined":
        attach_again(n)
    lie = n.random.choice(LIES)
    context = n.random.randrange(CONTEXTS)
    match n.rounds % 4:
        case 0:
            n.tenant.ring("requests", context).prod += lie
        case 1:
            n.tenant.ring("answers", context).cons -= lie
        case 2:
            n.tenant.raw("xmit").prod += lie
        case 3:
            n.tenant.raw("punt").cons -= lie


def lies_once(n: Neighbour) -> None:
    """One lie, and traffic for it goes on."""
    well_behaved(n)
    if n.rounds == 100:
        n.tenant.ring("requests", 1).prod += 1 << 31


def drains(n: Neighbour) -> None:
    """Most of what comes goes to applications and the slow path, and they take it."""
    never_drains(n)
    n.drain()


def never_drains(n: Neighbour) -> None:
    """The same, and nobody takes anything."""
    n.flood("r", "p", "e")
    n.ask()


def always_fails(n: Neighbour) -> None:
    """Every packet ends in an error or in a verdict that does not exist."""
    n.flood("x", "v")
    n.ask()
    n.drain()


def dearest(n: Neighbour) -> None:
    """Every packet takes the dearest way through the handler."""
    n.flood("g")
    n.ask()
    n.drain()


def fills_a_map(n: Neighbour) -> None:
    """A map in use: as many keys as it takes."""
    for i in range(FLOOD):
        n.end.send(b"h" + bytes(3) + (i % 48).to_bytes(4, "little"))
    n.end.receive()
    n.ask()
    n.drain()


def thrashes_a_map(n: Neighbour) -> None:
    """Ever new keys, and the map is full."""
    for _ in range(FLOOD):
        n.end.send(b"h" + bytes(3) + n.random.randbytes(4))
    n.end.receive()
    n.ask()
    n.drain()


def test_the_rig_measures_a_backlogged_neighbour_and_a_victim_that_is_served(beside: Measurement) -> None:
    assert beside.wrong == 0 and beside.victim_drops == {}
    assert beside.neighbour_drops.keys() & {"backlog_full", "debt"}, "the neighbour has more to do than it may"
    again = measure(well_behaved)
    assert again == beside, "a run is a function of its inputs"


def test_the_rig_notices_a_neighbour_that_takes_more(beside: Measurement) -> None:
    alone = measure(lambda neighbour: None)
    with pytest.raises(AssertionError):
        assert_clean(beside, alone)


@pytest.mark.fault(1)
def test_lying_indices_are_not_noticed_next_door(beside: Measurement) -> None:
    during = measure(lies)
    assert_clean(during, beside)
    assert during.neighbour_events["ring_damaged"] > 50


@pytest.mark.fault(1)
def test_a_quarantined_tenant_whose_traffic_goes_on_is_not_noticed_next_door(beside: Measurement) -> None:
    during = measure(lies_once)
    assert_clean(during, beside)
    assert during.neighbour_events["quarantined"] == 1


@pytest.mark.fault(8)
def test_rings_that_are_never_drained_are_not_noticed_next_door() -> None:
    during = measure(never_drains)
    assert_clean(during, measure(drains))
    assert during.neighbour_drops.keys() <= {"punt_full", "handler_error", "backlog_full", "debt"}
    assert during.neighbour_drops["punt_full"] and during.neighbour_events["ring_full"]
    assert during.least_free > during.frames / 2, "what it does not take holds no frames"


@pytest.mark.fault(12)
def test_handlers_that_always_fail_are_not_noticed_next_door(beside: Measurement) -> None:
    during = measure(always_fails)
    assert_clean(during, beside)
    assert during.neighbour_drops["handler_error"] and during.neighbour_drops["bad_verdict"]


@pytest.mark.fault(12)
def test_handlers_at_their_worst_case_are_not_noticed_next_door(beside: Measurement) -> None:
    during = measure(dearest)
    assert_clean(during, beside)
    assert during.neighbour_cycles == pytest.approx(beside.neighbour_cycles, rel=0.02), "it has the same share of the core"
    assert during.neighbour_drops["backlog_full"] > 1.5 * beside.neighbour_drops["backlog_full"], "for fewer packets"


@pytest.mark.fault(12)
@pytest.mark.fault(25)
def test_a_map_that_is_thrashed_is_not_noticed_next_door() -> None:
    during = measure(thrashes_a_map)
    assert_clean(during, measure(fills_a_map))
    assert during.neighbour_events["hash_full"]
