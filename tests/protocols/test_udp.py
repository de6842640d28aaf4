"""udp's slow path: ICMP that it sends, and ICMP that it gets."""

from __future__ import annotations

import asyncio
import errno
import struct
from typing import Any, cast

import pytest

from chamelio.bench.netns import checksum
from chamelio.protocols.udp.slowpath import ERROR, ICMP_BURST, ICMP_PER_SECOND, UdpSlowPath, port_unreachable
from chamelio.sockets import create_datagram_endpoint
from chamelio.tenant.runtime import Services
from chamelio.world import World

OURS, PEER, STRANGER = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)), bytes((10, 0, 0, 3))
LOCAL_PORT, PORT = 5000, 7


class Record:
    """Services that note what is asked of them."""

    address, ports, cores = "10.0.0.1", (0, 65535), 1

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.requests: list[tuple[int, ...]] = []

    def send_packet(self, packet: bytes) -> None:
        self.packets.append(packet)

    def request(self, *entry: int, core: int = 0) -> None:
        assert core == 0
        self.requests.append(entry)

    def errors(self) -> list[tuple[int, int]]:
        """Sockets that were told, and what."""
        return [(entry[1], entry[6]) for entry in self.requests if entry[0] == ERROR]


def packet(source: bytes, destination: bytes, protocol: int, content: bytes) -> bytes:
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(content), 0, 0, 64, protocol, 0) + source + destination + content


def datagram(source: bytes, destination: bytes, ports: tuple[int, int], data: bytes = b"data") -> bytes:
    return packet(source, destination, 17, struct.pack(">HHHH", *ports, 8 + len(data), 0) + data)


def unreachable(about: bytes, code: int = 3, kind: int = 3, sender: bytes = PEER) -> bytes:
    return packet(sender, OURS, 1, struct.pack(">BBHI", kind, code, 0, 0) + about)


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def udp(record: Record) -> UdpSlowPath:
    """With a connected socket, number 0, and one that is not, number 1."""
    slow_path = UdpSlowPath(cast(Services, record), seed=1)
    slow_path.on_request(1, "bind", {"port": LOCAL_PORT, "remote": ["10.0.0.2", PORT]})
    slow_path.on_request(1, "bind", {"port": LOCAL_PORT + 1})
    return slow_path


ABOUT_OURS = datagram(OURS, PEER, (LOCAL_PORT, PORT))


@pytest.mark.parametrize(("code", "error"), [(2, errno.ENOPROTOOPT), (3, errno.ECONNREFUSED), (13, errno.EHOSTUNREACH)])
def test_a_hard_error_is_told_to_the_connected_socket(udp: UdpSlowPath, record: Record, code: int, error: int) -> None:
    udp.on_packets([unreachable(ABOUT_OURS, code)], 1)
    assert record.errors() == [(0, error)]


def test_a_router_may_report_it_too(udp: UdpSlowPath, record: Record) -> None:
    udp.on_packets([unreachable(ABOUT_OURS, sender=STRANGER)], 1)
    assert record.errors() == [(0, errno.ECONNREFUSED)]


@pytest.mark.parametrize(
    "icmp",
    [
        pytest.param(unreachable(ABOUT_OURS, 0), id="it may pass"),
        pytest.param(unreachable(ABOUT_OURS, 1), id="it may pass, too"),
        pytest.param(unreachable(ABOUT_OURS, 200), id="unknown code"),
        pytest.param(unreachable(ABOUT_OURS, 3, kind=11), id="time exceeded"),
        pytest.param(unreachable(datagram(OURS, PEER, (LOCAL_PORT, PORT + 1))), id="another port of the peer"),
        pytest.param(unreachable(datagram(OURS, STRANGER, (LOCAL_PORT, PORT))), id="another peer"),
        pytest.param(unreachable(datagram(OURS, PEER, (LOCAL_PORT + 2, PORT))), id="a port of nobody's"),
        pytest.param(unreachable(datagram(OURS, PEER, (LOCAL_PORT + 1, PORT))), id="an unconnected socket"),
        pytest.param(unreachable(packet(OURS, PEER, 6, ABOUT_OURS[20:])), id="another protocol"),
        *(pytest.param(unreachable(ABOUT_OURS[:n]), id=f"{n} bytes quoted") for n in (0, 1, 19, 20, 23)),
    ],
)
def test_other_icmp_is_neither_believed_nor_answered(udp: UdpSlowPath, record: Record, icmp: bytes) -> None:
    udp.on_packets([icmp], 1)
    assert record.errors() == [] and record.packets == []


def test_a_datagram_for_nobody_is_answered_and_the_answer_is_right(udp: UdpSlowPath, record: Record) -> None:
    asked = datagram(PEER, OURS, (9, 4), b"x" * 1400)
    udp.on_packets([asked], 1)
    (answer,) = record.packets
    assert answer == port_unreachable(asked)
    assert (answer[12:16], answer[16:20], len(answer)) == (OURS, PEER, 576)
    assert checksum(answer[:20]) == checksum(answer[20:]) == 0
    assert answer[20:22] == bytes((3, 3)) and asked.startswith(answer[28:])


def test_answers_are_limited(udp: UdpSlowPath, record: Record) -> None:
    asked = [datagram(PEER, OURS, (9, 4))] * 1000
    udp.on_packets(asked, 1)
    assert len(record.packets) == ICMP_BURST and udp.suppressed == 1000 - ICMP_BURST
    record.packets.clear()
    udp.on_packets(asked, 1 + 100_000_000)
    assert len(record.packets) == ICMP_PER_SECOND // 10


class Hear(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.errors: asyncio.Queue[Exception] = asyncio.Queue()

    def error_received(self, exc: Exception) -> None:
        self.errors.put_nowait(exc)


def test_the_application_is_told_that_its_peers_port_is_closed(world: World) -> None:
    a, b = world.host(), world.host()
    world.wire(a, b, route="10.0.0.0/24")
    world.tenant(a, "red", "10.0.0.1", "udp")
    world.tenant(b, "blue", "10.0.0.2", "udp")

    async def ask() -> list[Exception]:
        made: list[Any] = []
        for port in (4, 5):
            made.append(await create_datagram_endpoint(Hear, remote_addr=("10.0.0.1", port), tenant="blue", run=world.directory))
        (first, heard), (second, deaf) = made
        first.sendto(b"anybody there?")
        errors = [await heard.errors.get()]
        first.sendto(b"really not?")
        errors.append(await heard.errors.get())
        assert deaf.errors.empty(), "what concerns one socket is not told to another"
        first.close()
        second.close()
        return errors

    assert [type(error) for error in world.play(ask())] == [ConnectionRefusedError] * 2
    red, blue = world.residents
    assert (red.counters["injected"], blue.counters["injected"]) == (2, 0), "errors about errors are not sent"
