"""Overlapping networks on one host: the same addresses, the same neighbours, the same routes, and nothing of one in the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chamelio.engine.engine import Engine, EngineError
from chamelio.engine.ports import WirePeer
from chamelio.world import World
from virtual import CONTEXTS, Tenant, named, udp, unit

NETWORKS = (3, 8)
TENANT, NEIGHBOUR, GATEWAY, FAR = "10.0.0.1", "10.0.0.9", "10.0.0.254", "192.0.2.7"
SETTLE_NS = 100_000


def packed(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


class Wire:
    """One network: a port, whose far end has a station at every address, with MACs of this network alone."""

    def __init__(self, world: World, host: Engine, network: int, share: Tenant | None) -> None:
        self.world, self.network = world, network
        self.port, self.peer = world.peer(host, network=network)
        self.peer: WirePeer
        host.add_route("10.0.0.0/24", self.port)
        host.add_route("0.0.0.0/0", self.port, GATEWAY)
        self.mac = self.port_mac(host)
        self.tenant = Tenant(host, TENANT, network=network, unit_index=share.unit if share else None)
        self.asked: list[str] = []

    def port_mac(self, host: Engine) -> bytes:
        about = next(p for p in host.describe()["ports"] if p["index"] == self.port)
        return bytes.fromhex(about["mac"].replace(":", ""))

    def station(self, address: str) -> bytes:
        """The MAC of a station."""
        return bytes([2, self.network, *packed(address)])

    def receive(self) -> list[tuple[bytes, bytes]]:
        """Destination MAC and IP packet of what has arrived; questions are noted and answered."""
        packets = []
        for frame in self.peer.receive():
            if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1":
                asked = ".".join(map(str, frame[38:42]))
                self.asked.append(asked)
                mac = self.station(asked)
                self.peer.send(frame[6:12] + mac + frame[12:20] + b"\0\2" + mac + frame[38:42] + frame[22:32])
            elif frame[12:14] == b"\x08\x00":
                packets.append((frame[:6], frame[14:]))
        return packets


class Both:
    def __init__(self, world: World) -> None:
        self.world, self.host = world, world.host()
        first = Wire(world, self.host, NETWORKS[0], None)
        self.wires = (first, Wire(world, self.host, NETWORKS[1], first.tenant))

    def run(self) -> list[list[tuple[bytes, bytes]]]:
        """Let time pass; what has arrived at the wires' far ends."""
        arrived: list[list[tuple[bytes, bytes]]] = [[] for _ in self.wires]
        for _ in range(4):
            self.world.run(for_ns=SETTLE_NS)
            for wire, packets in zip(self.wires, arrived, strict=True):
                packets += wire.receive()
        return arrived


@pytest.fixture
def both() -> Iterator[Both]:
    with World() as world:
        yield Both(world)


@pytest.mark.fault(24)
@pytest.mark.parametrize(("destination", "next_hop"), [(NEIGHBOUR, NEIGHBOUR), (FAR, GATEWAY)])
def test_neighbours_and_gateways_are_those_of_the_tenants_network(both: Both, destination: str, next_hop: str) -> None:
    packet = udp(TENANT, destination, b"n" * 8)
    for this, other in (both.wires, both.wires[::-1]):
        this.asked, other.asked = [], []
        this.tenant.send_raw(packet)
        arrived = dict(zip(both.wires, both.run(), strict=True))
        assert arrived == {this: [(this.station(next_hop), packet)], other: []}
        assert this.asked == [next_hop] and other.asked == []


@pytest.mark.fault(24)
def test_what_a_neighbour_says_in_one_network_is_not_believed_in_the_other(both: Both) -> None:
    one, other = both.wires
    for wire in both.wires:
        wire.tenant.send_raw(udp(TENANT, NEIGHBOUR, b"n" * 8))
    both.run()
    liar = bytes(6 * [0x66])
    question = bytes.fromhex("0001080006040001") + liar + packed(NEIGHBOUR) + bytes(6) + packed(TENANT)
    one.peer.send(b"\xff" * 6 + liar + b"\x08\x06" + question)  # he has moved, he says
    both.run()
    for wire in both.wires:
        wire.tenant.send_raw(udp(TENANT, NEIGHBOUR, b"n" * 8))
    arrived = both.run()
    assert [mac for mac, _ in arrived[0]] == [liar] and [mac for mac, _ in arrived[1]] == [other.station(NEIGHBOUR)]


def test_a_tenant_in_a_network_without_a_port_sends_nowhere(both: Both) -> None:
    alone = Tenant(both.host, TENANT, network=5, unit_index=both.wires[0].tenant.unit)
    alone.send_raw(udp(TENANT, NEIGHBOUR, b"n" * 8))
    assert both.run() == [[], []]
    assert alone.drops() == {"tx_no_route": 1}


@pytest.mark.fault(24)
def test_a_route_is_of_its_ports_network(both: Both) -> None:
    port = both.wires[0].port
    with pytest.raises(EngineError, match="carries network 3, not 8"):
        both.host.add_route("172.16.0.0/12", port, network=NETWORKS[1])
    both.host.add_route("172.16.0.0/12", port, network=NETWORKS[0])


@pytest.mark.fault(24)
def test_a_new_port_inherits_no_routes_from_one_that_had_its_number(both: Both) -> None:
    first = both.wires[0]
    both.host.remove_port(first.port)
    port, stranger = both.world.peer(both.host, network=NETWORKS[1])
    assert port == first.port
    for destination in (NEIGHBOUR, FAR):
        first.tenant.send_raw(udp(TENANT, destination, b"n" * 8))
    both.world.run(for_ns=4 * SETTLE_NS)
    assert stranger.receive() == []
    assert first.tenant.drops() == {"tx_no_route": 2}
    assert {r["network"] for r in both.host.describe()["routes"]} == {NETWORKS[1]}


# ---- several protocols of a tenant ---------------------------------------------------------------------------------------


def test_protocols_of_a_tenant_share_an_address_by_port_range_and_number(both: Both) -> None:
    wire, host = both.wires[0], both.host
    host.remove_instance(wire.tenant.instance.index)
    unit_index = host.load_unit(unit())
    where = {(17, 0, 4999): 0, (17, 5000, 5000): 0, (17, 5001, 65535): 0, (253, 0, 65535): 0}
    for number, low, high in where:
        made = host.add_instance(wire.tenant.index, unit_index, TENANT, number, network=wire.network, ports=(low, high))
        where[number, low, high] = made.index
        for context in range(CONTEXTS):
            host.attach(made.index, context)
    for number, low, high in ((17, 4000, 5000), (17, 5000, 5000), (17, 0, 65535), (253, 7, 7)):
        with pytest.raises(EngineError, match="is taken already"):
            host.add_instance(wire.tenant.index, unit_index, TENANT, number, network=wire.network, ports=(low, high))
    for dport, key in (
        (0, (17, 0, 4999)),
        (4999, (17, 0, 4999)),
        (5000, (17, 5000, 5000)),
        (5001, (17, 5001, 65535)),
        (65535, (17, 5001, 65535)),
    ):
        assert given(both, wire, udp(NEIGHBOUR, TENANT, b"n" * 8, dport=dport)) == [where[key]], dport
    other = bytearray(udp(NEIGHBOUR, TENANT, b"n" * 8, dport=5000))
    other[9], other[10:12] = 253, b"\0\0"
    total = sum(int.from_bytes(other[i : i + 2], "big") for i in range(0, 20, 2))
    other[10:12] = (~((total >> 16) + (total & 0xFFFF)) & 0xFFFF).to_bytes(2, "big")
    assert given(both, wire, bytes(other)) == [where[253, 0, 65535]]
    host.remove_instance(where[17, 5000, 5000])
    assert given(both, wire, udp(NEIGHBOUR, TENANT, b"n" * 8, dport=5000)) == []
    assert sum(named(host.counters()["tenants"][wire.tenant.index]["drops"]).values()) == 1


def given(both: Both, wire: Wire, packet: bytes) -> list[int]:
    """Which instances are given a packet that comes by a wire."""
    before = both.host.counters()["instances"]["rx_packets"].copy()
    wire.peer.send(wire.mac + wire.station(NEIGHBOUR) + b"\x08\x00" + packet)
    both.run()
    after = both.host.counters()["instances"]["rx_packets"]
    return [i for i in range(len(after)) for _ in range(int(after[i] - before[i]))]
