"""Every packet has one fate, and it is counted: what comes in malformed, what handlers decide, what must not leave."""

from __future__ import annotations

import random
from typing import Any

import pytest

from chamelio.engine.catalogue import drops
from virtual import Net, Tenant, address, checksum, ipv4, named, udp

A, B = "10.0.0.1", "10.0.0.2"
GOOD = udp(Net.PEER, A, b"e" + bytes(7))

# name, packet, where it is counted, under which reason
MALFORMED: list[tuple[str, dict[str, Any], str, str]] = [
    ("shorter than an IPv4 header", {"packet": GOOD[:19]}, "nobody", "short_frame"),
    ("empty", {"packet": b""}, "nobody", "short_frame"),
    ("IPv6 under the IPv4 type", {"packet": b"\x60" + GOOD[1:]}, "nobody", "bad_ip_version"),
    ("header length below 20", {"packet": ipv4(Net.PEER, A, b"", ihl=4)}, "nobody", "bad_ip_header"),
    ("header length past the end", {"packet": ipv4(Net.PEER, A, b"", ihl=15)}, "nobody", "bad_ip_header"),
    ("total length past the end", {"packet": ipv4(Net.PEER, A, b"x" * 8, total=29)}, "nobody", "bad_ip_header"),
    ("total length below the header", {"packet": ipv4(Net.PEER, A, b"x" * 8, total=19)}, "nobody", "bad_ip_header"),
    ("wrong header checksum", {"packet": ipv4(Net.PEER, A, b"x" * 8, checksum=1)}, "nobody", "bad_ip_checksum"),
    ("first fragment", {"packet": ipv4(Net.PEER, A, b"x" * 8, fragment=0x2000)}, "nobody", "ip_fragment"),
    ("last fragment", {"packet": ipv4(Net.PEER, A, b"x" * 8, fragment=5)}, "nobody", "ip_fragment"),
    ("multicast source", {"packet": udp("224.0.0.1", A, b"e" * 8)}, "nobody", "bad_ip_source"),
    ("source is the tenant's own", {"packet": udp(A, A, b"e" * 8)}, "nobody", "bad_ip_source"),
    ("source is another tenant's", {"packet": udp(B, A, b"e" * 8)}, "nobody", "bad_ip_source"),
    ("nobody's address", {"packet": udp(Net.PEER, "10.0.0.77", b"e" * 8)}, "nobody", "unknown_address"),
    ("a protocol that the tenant does not run", {"packet": ipv4(Net.PEER, A, b"x" * 8, 132)}, "tenant", "no_protocol"),
    ("IP protocol 0", {"packet": ipv4(Net.PEER, A, b"x" * 8, 0)}, "tenant", "no_protocol"),
    ("ICMP that is not for us", {"packet": ipv4(Net.PEER, A, bytes([8, 0, 1, 1]) + bytes(4), 1)}, "tenant", "icmp_ignored"),
    ("another station", {"packet": GOOD, "mac": b"\x02\x00\x00\x00\x77\x77"}, "nobody", "not_our_mac"),
    ("VLAN tag", {"packet": bytes(4) + GOOD, "ethertype": 0x8100}, "nobody", "vlan"),
    ("two VLAN tags", {"packet": bytes(8) + GOOD, "ethertype": 0x88A8}, "nobody", "vlan"),
    ("IPv6", {"packet": bytes(40), "ethertype": 0x86DD}, "nobody", "unknown_ethertype"),
    ("ARP of four bytes", {"packet": bytes(4), "ethertype": 0x0806}, "nobody", "short_frame"),
    ("ARP for Token Ring", {"packet": b"\0\6" + bytes(26), "ethertype": 0x0806}, "nobody", "arp_malformed"),
]  # fmt: skip


@pytest.fixture
def net() -> Any:
    with Net() as net:
        net.tenant = Tenant(net.host, A)
        net.other = Tenant(net.host, B, unit_index=net.tenant.unit)
        net.run()
        yield net


@pytest.mark.fault(23)
@pytest.mark.parametrize(("what", "how", "where", "reason"), MALFORMED, ids=[m[0] for m in MALFORMED])
def test_malformed_input_is_counted_once_by_reason(net: Any, what: str, how: dict[str, Any], where: str, reason: str) -> None:
    net.send(how["packet"], ethertype=how.get("ethertype", 0x0800), mac=how.get("mac"))
    assert net.run() == []
    counters = net.host.counters()
    nobody, tenant = named(counters["drops"]), named(counters["tenants"][net.tenant.index]["drops"])
    assert (nobody, tenant) == (({reason: 1}, {}) if where == "nobody" else ({}, {reason: 1}))
    assert net.tenant.counters["rx_packets"] == 0
    assert net.host.free_frames[0] == net.host.free_frames[1]


HANDLER_SAYS = [
    ("an unknown verdict", "v", 0, "bad_verdict"),
    ("an error", "x", 0, "handler_error"),
    ("transmit, from the neighbour's address", "s", address(B), "tx_spoofed_source"),
    ("transmit, from an address of nobody here", "s", address("10.0.0.50"), "tx_spoofed_source"),
    ("transmit, with a wrong length", "l", 0, "tx_bad_header"),
    ("transmit, as another protocol", "q", 0, "tx_protocol"),
    ("transmit, to multicast", "d", address("224.0.0.5"), "tx_destination"),
    ("transmit, to broadcast", "d", address("255.255.255.255"), "tx_destination"),
    ("transmit, to nowhere", "d", 0, "tx_destination"),
    ("transmit, to where no route leads", "d", address("192.168.7.7"), "tx_no_route"),
]


@pytest.mark.fault(4)
@pytest.mark.fault(6)
@pytest.mark.parametrize(("what", "order", "argument", "reason"), HANDLER_SAYS, ids=[h[0] for h in HANDLER_SAYS])
def test_what_must_not_leave_is_dropped_under_the_instance(net: Any, what: str, order: str, argument: int, reason: str) -> None:
    net.order(A, order, argument)
    assert net.run() == []
    assert net.tenant.drops() == {reason: 1}
    assert net.other.drops() == {}
    assert net.host.free_frames[0] == net.host.free_frames[1]


def test_an_error_is_counted_under_the_tenants_own_reason(net: Any) -> None:
    net.order(A, "x")
    net.run()
    assert int(net.tenant.counters["reasons"][9]) == 1


def test_an_echo_returns_and_is_counted(net: Any) -> None:
    net.order(A, "e")
    (answer,) = net.run()
    assert answer == udp(A, Net.PEER, b"e" + bytes(7), sport=7, dport=1000)
    assert (net.tenant.counters["rx_packets"], net.tenant.counters["tx_packets"]) == (1, 1)


@pytest.mark.fault(29)
def test_bytes_that_a_handler_gains_are_zero(net: Any) -> None:
    for _ in range(20):  # fill frames with what must not show
        net.send(udp(Net.PEER, B, b"e" + b"\xaa" * 1400))
    net.run()
    net.order(A, "g")
    (answer,) = net.run()
    assert len(answer) == 1000 and answer[36:] == bytes(964)


def test_a_neighbour_that_does_not_answer_is_given_up_and_its_packets_counted(net: Any) -> None:
    net.order(A, "d", address("10.0.0.200"))
    net.run(20_000_000_000)
    assert named(net.host.counters()["tenants"][net.tenant.index]["drops"]) == {"neighbour_unresolved": 1}
    assert net.host.free_frames[0] == net.host.free_frames[1]


def test_tenants_of_one_host_reach_each_other_inside_the_engine(net: Any) -> None:
    net.order(A, "d", address(B))
    assert net.run() == []
    assert int(net.other.counters["rx_packets"]) >= 1  # and it does as it is told: it goes on telling itself
    assert int(net.host.counters()["switched"]) - int(net.other.counters["rx_packets"]) in (0, 1)


@pytest.mark.fault(24)
def test_no_tenant_can_send_as_another_whatever_it_tries(net: Any) -> None:
    rng = random.Random(24)
    sources = [A, B, Net.PEER, "10.0.0.3", "127.0.0.1", "0.0.0.0", "224.1.1.1", "255.255.255.255"]
    for _ in range(200):
        sender, claimed = rng.choice([A, B]), rng.choice(sources)
        net.order(sender, "s", address(claimed))
        for packet in net.run(50_000):
            assert packet[12:16] == bytes(map(int, sender.split(".")))


def fates(net: Any) -> int:
    """Packets of which it is known what became of them on the way in, from ports and from tenants of this host."""
    c = net.host.counters()
    inputs = drops()[: [d.name for d in drops()].index("no_frames") + 1]
    known = int(c["arp_handled"]) + int(c["icmp_handled"])
    for where in (c, *c["tenants"], *c["instances"]):
        known += sum(int(where["drops"][i]) for i in range(len(inputs)))
    return known + sum(int(t.counters["rx_packets"]) for t in (net.tenant, net.other))


def icmp_error(kind: int, quoted: bytes) -> bytes:
    body = bytearray(bytes([kind, 1]) + bytes(6) + quoted)
    body[2:4] = checksum(bytes(body)).to_bytes(2, "big")
    return ipv4(Net.PEER, A, bytes(body), 1)


def ping() -> bytes:
    body = bytearray(b"\x08\0\0\0" + b"ping")
    body[2:4] = checksum(bytes(body)).to_bytes(2, "big")
    return ipv4(Net.PEER, A, bytes(body), 1)


@pytest.mark.fault(23)
def test_random_frames_are_all_accounted_for(net: Any) -> None:
    """The sum over all fates is what was received: malformed, echoed, punted, switched on, or too much to be served."""
    rng = random.Random(23)
    options = ipv4(Net.PEER, A, b"e" * 16, ihl=5)
    seeds = (
        [GOOD] * 8
        + [
            udp(Net.PEER, A, b"d" + bytes(3) + address(B).to_bytes(4, "little")),  # goes on to the other tenant, in circles
            udp(Net.PEER, A, b"p" * 8),
            icmp_error(3, udp(A, Net.PEER, b"x" * 8)),
            icmp_error(11, udp(A, Net.PEER, b"")[:24]),
            icmp_error(3, b""),
            icmp_error(5, udp(A, Net.PEER, b"x")),
            ping(),
            b"\x4f" + options[1:],  # options with a length of 0, as far as they are there
            udp(Net.PEER, "10.0.0.77", b"e" * 8),
        ]
    )
    for i in range(1500):
        packet = bytearray(rng.choice(seeds) if rng.random() < 0.8 else rng.randbytes(rng.randrange(0, 1500)))
        for _ in range(rng.choice((0, 0, 1, 2, 4))):
            if packet:
                packet[rng.randrange(len(packet))] = rng.randrange(256)
        if rng.random() < 0.2:
            del packet[rng.randrange(len(packet) + 1) :]
        net.send(bytes(packet), ethertype=rng.choice([0x0800] * 12 + [0x0806, 0x8100, 0x88A8, 0x86DD]))
        if i % 200 == 199:
            net.run()
    for _ in range(900):  # at once more than a backlog takes
        net.send(GOOD)
    net.run()
    for tenant in (net.tenant, net.other):  # the circles end
        net.host.remove_instance(tenant.instance.index)
    net.run(20_000_000_000)
    c = net.host.counters()
    assert int(c["icmp_handled"]) > 20 and int(c["switched"]) > 100 and net.tenant.drops()["backlog_full"] > 0
    gone = sum(t.drops().get("instance_gone", 0) for t in (net.tenant, net.other))
    assert int(c["rx_packets"]) + int(c["switched"]) == fates(net) + gone
    assert net.host.free_frames[0] == net.host.free_frames[1]


def test_input_is_charged_to_those_for_whom_packets_came_by_a_port(net: Any) -> None:
    """A tenant that another one sends to inside the host is not charged for that sender's packets when the next one comes in."""
    for _ in range(50):
        for _ in range(40):
            net.tenant.send_raw(udp(A, B, b"n" * 8))
        net.run()
    before = int(net.host.counters()["tenants"]["cycles"][net.other.index])
    net.send(udp(Net.PEER, "10.0.0.77", b"for nobody"))
    net.run()
    assert int(net.host.counters()["tenants"]["cycles"][net.other.index]) == before
    assert int(net.other.counters["rx_packets"]) > 1000


def test_a_peer_may_flood_and_only_its_packets_drop(net: Any) -> None:
    for _ in range(900):
        net.send(udp(Net.PEER, A, b"n" * 8))
    net.order(B, "e")
    answers = net.run(20_000_000)
    assert len(answers) == 1
    assert net.other.drops() == {}
