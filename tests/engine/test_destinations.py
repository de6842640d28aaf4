"""What the output remembers of a destination is forgotten when routes, addresses or neighbours change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from test_networks import FAR, GATEWAY, NEIGHBOUR, NETWORKS, TENANT, Both, Wire

from chamelio.world import World
from virtual import Tenant, udp


@pytest.fixture
def both() -> Iterator[Both]:
    with World() as world:
        yield Both(world)


TIMES = 3  # to ask for the neighbour, to find the way, to know it
SILENCE_NS = 65_000_000_000


def sent(both: Both, *destinations: str) -> list[tuple[bytes, str]]:
    """Send to each, several times, in the first network; destination MACs and addresses of what arrives there."""
    arrived = []
    for _ in range(TIMES):
        for destination in destinations:
            both.wires[0].tenant.send_raw(udp(TENANT, destination, b"r" * 8))
        arrived += both.run()[0]
    return [(mac, ".".join(map(str, packet[16:20]))) for mac, packet in arrived]


def test_a_more_specific_route_takes_over_at_once(both: Both) -> None:
    wire = both.wires[0]
    assert sent(both, FAR) == [(wire.station(GATEWAY), FAR)] * TIMES
    both.host.add_route("192.0.2.0/24", wire.port, NEIGHBOUR, network=NETWORKS[0])
    assert sent(both, FAR) == [(wire.station(NEIGHBOUR), FAR)] * TIMES


def test_an_address_is_reached_inside_while_it_is_of_this_host(both: Both) -> None:
    wire = both.wires[0]
    outside = [(wire.station(NEIGHBOUR), NEIGHBOUR)] * TIMES
    assert sent(both, NEIGHBOUR) == outside
    inside = Tenant(both.host, NEIGHBOUR, network=NETWORKS[0], unit_index=wire.tenant.unit)
    assert sent(both, NEIGHBOUR) == [] and int(inside.counters["rx_packets"]) == TIMES
    both.host.remove_instance(inside.instance.index)
    both.host.remove_tenant(inside.instance.tenant)
    assert sent(both, NEIGHBOUR) == outside


def test_a_neighbour_that_moves_is_found_where_it_says(both: Both) -> None:
    wire = both.wires[0]
    assert sent(both, FAR) == [(wire.station(GATEWAY), FAR)] * TIMES
    moved = bytes.fromhex("020000000077")
    address = {name: bytes(map(int, name.split("."))) for name in (GATEWAY, TENANT)}
    question = bytes.fromhex("0001080006040001") + moved + address[GATEWAY] + bytes(6) + address[TENANT]
    wire.peer.send(b"\xff" * 6 + moved + b"\x08\x06" + question)
    both.run()
    assert sent(both, FAR) == [(moved, FAR)] * TIMES


def test_more_destinations_than_are_remembered_go_each_its_way(both: Both) -> None:
    wire: Wire = both.wires[0]
    near, far = [f"10.0.0.{i}" for i in range(20, 60)], [f"192.0.2.{i}" for i in range(256)]
    expected = {address: wire.station(address) for address in near} | dict.fromkeys(far, wire.station(GATEWAY))
    pairs = [(near[i % len(near)], far[i]) for i in range(len(far))]
    for pair in pairs:
        assert sorted(sent(both, *pair)) == sorted([(expected[address], address) for address in pair] * TIMES)


def test_a_port_that_is_gone_gets_nothing(both: Both) -> None:
    wire = both.wires[0]
    sent(both, FAR)
    both.host.remove_port(wire.port)
    assert sent(both, FAR) == [] and wire.tenant.drops() == {"tx_no_route": TIMES}


def test_a_neighbour_that_is_silent_for_too_long_is_asked_for_again(both: Both) -> None:
    wire = both.wires[0]
    sent(both, FAR)
    both.world.run(for_ns=SILENCE_NS)
    wire.peer.receive()
    wire.asked.clear()
    assert sent(both, FAR) == [(wire.station(GATEWAY), FAR)] * TIMES and wire.asked == [GATEWAY]
