"""UDP's handlers against what strangers send and what a tenant's own applications write for each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from chamelio.tenant.rings import Producer
from chamelio.world import World
from virtual import PEER_MAC, checksum, ipv4

ADDRESS, PEER, PORT = "10.0.0.1", "10.0.0.9", 7
SEND, OPEN, CLOSE = 1, 2, 3
OWNER, OTHER = 1, 2  # contexts
REASONS = ("", "SHORT", "LENGTH", "CHECKSUM", "NO_ROOM", "RING_FULL", "NOT_ALLOWED", "NO_SOCKET", "TABLE_FULL", "UNKNOWN_REQUEST")


class Udp:
    """A tenant with a socket on port 7 that belongs to the first of its two applications, and a peer."""

    def __init__(self, world: World) -> None:
        self.world, self.host = world, world.host()
        port, self.peer = world.peer(self.host)
        self.host.add_route("10.0.0.0/24", port)
        self.mac = bytes.fromhex(self.host.describe()["ports"][0]["mac"].replace(":", ""))
        self.tenant = world.tenant(self.host, "red", ADDRESS, "udp")
        self.region = self.tenant.agent.region
        for context in (OWNER, OTHER):
            self.host.attach(self.tenant.instance.index, context)
        self.socket = self.tenant.agent.slow_path.on_request(OWNER, "bind", {"port": PORT})["socket"]
        self.tenant.agent.services.flush()
        head = bytes.fromhex("0001080006040001")
        self.peer.send(
            b"\xff" * 6 + PEER_MAC + b"\x08\x06" + head + PEER_MAC + bytes([10, 0, 0, 9]) + bytes(6) + bytes([10, 0, 0, 1])
        )
        self.run()

    def run(self) -> list[bytes]:
        """Let time pass; IPv4 packets that arrived at the peer."""
        self.world.run(for_ns=200_000)
        return [f[14:] for f in self.peer.receive() if f[12:14] == b"\x08\x00"]

    def send(self, packet: bytes) -> None:
        self.peer.send(self.mac + PEER_MAC + b"\x08\x00" + packet)

    def put(self, by: int, /, **fields: int) -> None:
        """An entry in the ring of requests of a context."""
        ring: Producer = self.region.producer("requests", by)
        entry = ring.entries[ring.pos % ring.slots : ring.pos % ring.slots + 1]
        for name in entry.dtype.names or ():
            entry[name] = fields.get(name, 0)
        ring.publish()

    def reasons(self) -> dict[str, int]:
        """Handlers' errors so far."""
        counts = self.host.counters()["instances"][self.tenant.instance.index]["reasons"]
        return {REASONS[i]: int(n) for i, n in enumerate(counts) if n}

    def received(self) -> int:
        """Datagrams that the socket was given."""
        return int(self.region.column("sockets", "received")[self.socket])


@pytest.fixture
def udp() -> Iterator[Udp]:
    with World() as world:
        yield Udp(world)


def datagram(payload: bytes, *, length: int | None = None, checked: bool = False, **changes: int) -> bytes:
    size = 8 + len(payload)
    head = (1000).to_bytes(2, "big") + PORT.to_bytes(2, "big") + (size if length is None else length).to_bytes(2, "big")
    pseudo = bytes([10, 0, 0, 9, 10, 0, 0, 1, 0, 17]) + size.to_bytes(2, "big")
    value = (checksum(pseudo + head + b"\0\0" + payload) or 0xFFFF) if checked else 0
    return ipv4(PEER, ADDRESS, head + value.to_bytes(2, "big") + payload, **changes)


def with_options(options: bytes, payload: bytes) -> bytes:
    inner = datagram(payload)[20:]
    packet = bytearray(ipv4(PEER, ADDRESS, options + inner))
    packet[0] = 0x40 | (5 + len(options) // 4)
    packet[10:12] = bytes(2)
    packet[10:12] = checksum(bytes(packet[: 20 + len(options)])).to_bytes(2, "big")
    return bytes(packet)


SPOILT = bytearray(datagram(b"hello", checked=True))
SPOILT[-1] ^= 1
INPUT: list[tuple[str, bytes, dict[str, int], int]] = [
    ("as it should be", datagram(b"hello"), {}, 1),
    ("with a checksum", datagram(b"hello", checked=True), {}, 1),
    ("a wrong checksum", bytes(SPOILT), {"CHECKSUM": 1}, 0),
    ("empty", datagram(b""), {}, 1),
    ("length 0", datagram(b"hello", length=0), {"LENGTH": 1}, 0),
    ("length 7", datagram(b"hello", length=7), {"LENGTH": 1}, 0),
    ("length 8, the rest is padding", datagram(b"hello", length=8), {}, 1),
    ("length past the end", datagram(b"hello", length=14), {"LENGTH": 1}, 0),
    ("length 65535", datagram(b"hello", length=65535), {"LENGTH": 1}, 0),
    ("options of length 0", with_options(bytes([0x44, 0, 0, 0]), b"hello"), {}, 1),
    ("options up to 40 bytes", with_options(bytes([7, 0xFF]) * 20, b"hello"), {}, 1),
    ("options, then nothing", with_options(bytes(40), b"")[:60], {}, 0),
    ("no room for the header", ipv4(PEER, ADDRESS, bytes([3, 232, 0, 7, 0, 12, 0])), {"SHORT": 1}, 0),
]


@pytest.mark.fault(23)
@pytest.mark.parametrize(("packet", "reasons", "received"), [i[1:] for i in INPUT], ids=[i[0] for i in INPUT])
def test_lying_lengths_are_errors_by_reason(udp: Udp, packet: bytes, reasons: dict[str, int], received: int) -> None:
    udp.send(packet)
    udp.run()
    assert (udp.reasons(), udp.received()) == (reasons, received)


REQUESTS: list[tuple[str, int, dict[str, int], str]] = [
    ("an unknown kind", OWNER, {"kind": 77}, "NOT_ALLOWED"),
    ("kind 0", OWNER, {"kind": 0}, "NOT_ALLOWED"),
    ("an unknown kind of the slow path", 0, {"kind": 77}, "UNKNOWN_REQUEST"),
    ("to open a socket", OWNER, {"kind": OPEN, "socket": 5, "context": OWNER, "local": 0x0200000A}, "NOT_ALLOWED"),
    ("to take another's socket over", OTHER, {"kind": OPEN, "context": OTHER}, "NOT_ALLOWED"),
    ("to close another's socket", OTHER, {"kind": CLOSE}, "NOT_ALLOWED"),
    ("to send from another's socket", OTHER, {"kind": SEND, "len": 10}, "NOT_ALLOWED"),
    ("to send from nobody's socket", OWNER, {"kind": SEND, "socket": 1, "len": 10}, "NO_SOCKET"),
    ("a socket beyond the last", OWNER, {"kind": SEND, "socket": 128, "len": 10}, "NO_SOCKET"),
    ("socket 2^32 - 1", OWNER, {"kind": SEND, "socket": 0xFFFFFFFF, "len": 10}, "NO_SOCKET"),
    ("longer than the MTU", OWNER, {"kind": SEND, "len": 1473}, "LENGTH"),
    ("length 2^32 - 1", OWNER, {"kind": SEND, "len": 0xFFFFFFFF}, "LENGTH"),
    ("position and length that overflow", OWNER, {"kind": SEND, "pos": 0xFFFFFFFF, "len": 0xFFFFFFF0}, "LENGTH"),
]


@pytest.mark.fault(3)
@pytest.mark.fault(4)
@pytest.mark.fault(6)
@pytest.mark.parametrize(("context", "fields", "reason"), [r[1:] for r in REQUESTS], ids=[r[0] for r in REQUESTS])
def test_an_application_cannot_ask_for_what_is_not_its_own(udp: Udp, context: int, fields: dict[str, int], reason: str) -> None:
    fields = {"socket": udp.socket, "address": int.from_bytes(bytes([10, 0, 0, 9]), "little"), "port": 0x0700, **fields}
    before = udp.region.values("sockets").copy()
    udp.put(context, **fields)
    assert udp.run() == []
    assert udp.reasons() == {reason: 1}
    assert (udp.region.values("sockets") == before).all()
    udp.send(datagram(b"still there"))
    udp.put(OWNER, **{**fields, "kind": SEND, "socket": udp.socket, "pos": 0xFFFFFFF0, "len": 32})  # at the end of everything
    (packet,) = udp.run()
    assert len(packet) == 28 + 32 and udp.received() == 1


def test_what_the_socket_sends_comes_from_its_tenant_whatever_the_entry_says(udp: Udp) -> None:
    to: dict[str, Any] = {"address": int.from_bytes(bytes([10, 0, 0, 9]), "little"), "port": 0x0700}
    udp.put(OWNER, kind=SEND, socket=udp.socket, len=4, local=0x0200000A, local_port=0xFFFF, context=OTHER, **to)
    (packet,) = udp.run()
    assert packet[12:16] == bytes([10, 0, 0, 1]) and packet[20:22] == PORT.to_bytes(2, "big")
