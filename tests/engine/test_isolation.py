"""Nothing crosses tenants: addresses, for all pairs; and bytes, whatever a frame or a region held before."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest

from chamelio.engine.ports import WirePeer
from chamelio.world import World
from virtual import PEER_MAC, Net, Tenant, ipv4, named, udp


def bucket(network: int, address: str) -> int:
    """Where the engine looks for an address (fastpath/demux.h)."""
    key = int.from_bytes(bytes(map(int, address.split("."))), "little") | 1 << 40
    product = (network ^ 0x9E3779B97F4A7C15) * key
    return (product ^ product >> 64) & 255


# two networks in which the first address is found at the same place, so that nothing but the comparison tells them apart
NETWORKS = (0, next(n for n in range(1, 1 << 16) if bucket(n, "10.0.0.1") == bucket(0, "10.0.0.1")))
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
PEER = "10.0.0.9"
STRANGE = ("10.0.0.77", "127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0")
SETTLE_NS = 100_000


class Networks:
    """Two virtual networks on one host: the same addresses in both, a port and a peer for each."""

    def __init__(self, world: World) -> None:
        self.world, self.host = world, world.host()
        self.peers: dict[int, WirePeer] = {}
        self.macs: dict[int, bytes] = {}
        self.tenants: dict[tuple[int, str], Tenant] = {}
        unit = None
        for network in NETWORKS:
            port, self.peers[network] = world.peer(self.host, network=network)
            self.host.add_route("10.0.0.0/24", port, network=network)
            about = next(p for p in self.host.describe()["ports"] if p["index"] == port)
            self.macs[network] = bytes.fromhex(about["mac"].replace(":", ""))
            for address in ADDRESSES:
                tenant = Tenant(self.host, address, network=network, unit_index=unit)
                self.tenants[network, address], unit = tenant, tenant.unit
            head = bytes.fromhex("0001080006040001")
            arp = head + PEER_MAC + bytes([10, 0, 0, 9]) + bytes(6) + bytes([10, 0, 0, 1])
            self.peers[network].send(b"\xff" * 6 + PEER_MAC + b"\x08\x06" + arp)
        self.run()

    def send(self, network: int, packet: bytes) -> None:
        """From the peer of a network."""
        assert self.peers[network].send(self.macs[network] + PEER_MAC + b"\x08\x00" + packet)

    def run(self) -> dict[int, list[bytes]]:
        """Let time pass; IPv4 packets that arrived at the peers."""
        self.world.run(for_ns=SETTLE_NS)
        return {n: [f[14:] for f in peer.receive() if f[12:14] == b"\x08\x00"] for n, peer in self.peers.items()}

    def received(self) -> dict[tuple[int, str], int]:
        """Packets that tenants were given so far."""
        return {key: int(tenant.counters["rx_packets"]) for key, tenant in self.tenants.items()}

    def given(self, before: dict[tuple[int, str], int]) -> list[tuple[int, str]]:
        """Who was given packets since then, once for each."""
        return [key for key, n in self.received().items() for _ in range(n - before[key])]


@pytest.fixture(scope="module")
def networks() -> Iterator[Networks]:
    with World() as world:
        yield Networks(world)


@pytest.mark.fault(24)
@pytest.mark.parametrize("network", NETWORKS)
def test_what_comes_in_reaches_the_tenant_of_that_address_in_that_network_and_nobody_else(networks: Networks, network: int) -> None:
    for source, destination in itertools.product((PEER, *ADDRESSES, *STRANGE), ADDRESSES):
        before, dropped = networks.received(), named(networks.host.counters()["drops"]).get("bad_ip_source", 0)
        networks.send(network, udp(source, destination, b"n" * 8))
        assert networks.run() == {n: [] for n in NETWORKS}
        honest = source in (PEER, "10.0.0.77")
        assert networks.given(before) == ([(network, destination)] if honest else []), (source, destination)
        assert named(networks.host.counters()["drops"]).get("bad_ip_source", 0) - dropped == (not honest)


@pytest.mark.fault(24)
@pytest.mark.fault(6)
@pytest.mark.parametrize("network", NETWORKS)
def test_what_a_tenant_sends_has_its_own_source_and_stays_in_its_network(networks: Networks, network: int) -> None:
    for sender, source, destination in itertools.product(ADDRESSES, (PEER, *ADDRESSES, *STRANGE), (PEER, *ADDRESSES)):
        tenant = networks.tenants[network, sender]
        before, dropped = networks.received(), tenant.drops().get("tx_spoofed_source", 0)
        packet = udp(source, destination, b"n" * 8)
        tenant.send_raw(packet)
        arrived = networks.run()
        honest, inside = source == sender, destination in ADDRESSES
        assert networks.given(before) == ([(network, destination)] if honest and inside else []), (sender, source, destination)
        assert arrived == {n: [packet] if n == network and honest and not inside else [] for n in NETWORKS}
        assert tenant.drops().get("tx_spoofed_source", 0) - dropped == (not honest)


@pytest.mark.fault(24)
def test_handlers_cannot_send_as_anybody_else_either(networks: Networks) -> None:
    for network, sender, source in itertools.product(NETWORKS, ADDRESSES, (PEER, *ADDRESSES, *STRANGE)):
        claimed = int.from_bytes(bytes(map(int, source.split("."))), "little")
        networks.send(network, udp(PEER, sender, b"s" + bytes(3) + claimed.to_bytes(4, "little")))
        arrived = networks.run()
        assert [len(arrived[n]) for n in NETWORKS] == [int(n == network and source == sender) for n in NETWORKS]


def test_an_answer_to_a_tenants_ping_comes_from_who_was_asked_in_the_same_network(networks: Networks) -> None:
    echo = bytes.fromhex("0800f7ff00000000")
    for network, (asker, asked) in itertools.product(NETWORKS, itertools.permutations(ADDRESSES, 2)):
        pings = networks.host.counters()["tenants"]["icmp_echo"].copy()
        networks.tenants[network, asker].send_raw(ipv4(asker, asked, echo, 1))
        networks.run()
        answered = networks.host.counters()["tenants"]["icmp_echo"] - pings
        assert {i: int(n) for i, n in enumerate(answered) if n} == {networks.tenants[network, asked].index: 1}


# ---- bytes ---------------------------------------------------------------------------------------------------------------

A, B = "10.0.0.1", "10.0.0.2"
SECRET = b"B's secret! "
FRAMES = 128


@pytest.fixture
def net() -> Iterator[Net]:
    """Every frame of the pool looks as if it had carried B's secret, up to its last byte."""
    with Net(frames=FRAMES) as net:
        net.tenant = Tenant(net.host, A)
        net.other = Tenant(net.host, B, unit_index=net.tenant.unit)
        net.run()
        frames = net.host.cores[0].frames["bytes"]
        frames[:] = np.resize(np.frombuffer(SECRET, np.uint8), frames.shape[1])
        yield net


def header(length: int, source: str = A) -> list[int]:
    return list(ipv4(source, Net.PEER, b"", total=length))


@pytest.mark.fault(29)
@pytest.mark.parametrize("length", [20, 21, 64, 600, 1499, 1500])
def test_bytes_that_nobody_wrote_are_zero(net: Net, length: int) -> None:
    asked = net.tenant.ring("requests", 1)
    ways = {4: length, 6: length} | ({5: length - 4} if length >= 24 else {})
    for what, argument in ways.items():
        net.tenant.values("buffers")[1, :20] = header(length)
        asked.put(what, argument, 1)
        (packet,) = net.run()
        assert packet == bytes(header(length)) + bytes(length - 20), what


@pytest.mark.fault(29)
def test_nothing_that_a_tenant_sends_ever_holds_anothers_bytes(net: Net) -> None:
    """Whatever it asks for, in whatever order, between packets of the other that carry the secret."""
    rng, sent = random.Random(29), 0
    asked = net.tenant.ring("requests", 1)
    for _ in range(400):
        for _ in range(rng.randrange(1, 6)):
            net.send(udp(Net.PEER, B, b"n" + SECRET * 100))
        length = rng.randrange(20, 1501)
        id_ = rng.randrange(4)
        net.tenant.values("buffers")[id_, :20] = header(length)
        match rng.randrange(4):
            case 0:
                asked.put(rng.choice((4, 6)), length, id_)
            case 1:
                asked.put(5, length - 4, id_)
            case 2:
                net.order(A, "g")
            case 3:
                slot = net.tenant.raw("xmit")
                net.tenant.send_raw(bytes(header(length)), length)
                assert SECRET not in slot.entries[(slot.prod - 1) % slot.slots]["bytes"].tobytes()
        for packet in net.run(30_000):
            if packet[12:16] == bytes([10, 0, 0, 1]):
                assert not any(SECRET[i : i + 4] in packet for i in range(len(SECRET) - 3))
                sent += 1
    assert sent > 300
    assert SECRET not in bytes(net.tenant.content)


@pytest.mark.fault(29)
def test_memory_of_a_tenant_that_left_is_not_found_by_the_next(net: Net) -> None:
    net.other.values("buffers")[:, :] = 0x5A
    for context in range(4):
        for entry in net.other.ring("answers", context).entries:
            entry["value"] = 0x5A5A5A5A5A5A5A5A
    for key in range(40):
        net.order(B, "h", 0x5A5A5A00 + key)
    net.run()
    number = net.other.instance.index
    net.host.remove_tenant(net.other.index)
    fresh = Tenant(net.host, "10.0.0.3", unit_index=net.tenant.unit)
    assert fresh.instance.index == number
    private, region = fresh.memory()
    assert b"\x5a\x5a\x5a" not in private and b"\x5a" not in region
    assert np.count_nonzero(np.frombuffer(region, np.uint8)) == 0
