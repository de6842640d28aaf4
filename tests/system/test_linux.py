"""Tenants and unmodified Linux hosts over AF_XDP and TAP: daemon, engine, agents and applications as they are in service."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from chamelio.bench.netns import NetNs, ping
from chamelio.sockets import create_datagram_endpoint
from system.rig import ADDRESSES, CLIENT, ECHO_PORT, FAR, HOST, PEER, SERVER, System, until

pytestmark = pytest.mark.root

TOTAL = 10_000
WINDOW = 24  # datagrams under way: less than any queue between Linux and us
TENANT = ADDRESSES[SERVER]


def payloads(total: int) -> list[bytes]:
    """All different, of 1 to 1,400 bytes; the shortest differ by their neighbours only."""
    generator = random.Random(7)
    sizes = [1, 2, 1400, 1399, *(generator.randint(1, 1400) for _ in range(total - 4))]
    return [generator.randbytes(size) for size in sizes]


class Window:
    """Datagrams under way, at most WINDOW. Each must come back once, as it was sent; Linux may put others before it."""

    def __init__(self, sent: Sequence[bytes]) -> None:
        self.left = len(sent)
        self._under_way = 0
        self._todo = iter(sent)
        self._waiting: Counter[bytes] = Counter()

    def due(self) -> Iterator[bytes]:
        """What is to be sent now."""
        while self._under_way < WINDOW and (data := next(self._todo, None)) is not None:
            self._under_way += 1
            self._waiting[data] += 1
            yield data

    def answer(self, data: bytes) -> None:
        assert self._waiting[data], f"{len(data)} bytes came back that are not under way: {data[:20].hex()}..."
        self._waiting[data] -= 1
        self._under_way -= 1
        self.left -= 1


def exchange(sock: socket.socket, sent: Sequence[bytes]) -> None:
    """Send datagrams on a connected socket until each has come back."""
    window = Window(sent)
    while window.left:
        for data in window.due():
            sock.send(data)
        window.answer(sock.recv(2048))


class Exchange(asyncio.DatagramProtocol):
    """The same on asyncio's interface."""

    def __init__(self, sent: Sequence[bytes]) -> None:
        self.window = Window(sent)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self.transport = transport
        self.send()

    def send(self) -> None:
        for data in self.window.due():
            self.transport.sendto(data)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            self.window.answer(data)
        except AssertionError as error:
            self.error_received(error)
        if self.window.left:
            self.send()
        elif not self.done.done():
            self.done.set_result(None)

    def error_received(self, exc: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(exc)


async def exchange_as_tenant(remote: tuple[str, int], sent: Sequence[bytes]) -> None:
    transport, protocol = await create_datagram_endpoint(lambda: Exchange(sent), remote_addr=remote, tenant=CLIENT)
    assert isinstance(protocol, Exchange)
    try:
        async with asyncio.timeout(30):
            await protocol.done
    finally:
        transport.close()


def connected(where: NetNs, remote: tuple[str, int]) -> socket.socket:
    sock = where.socket()
    sock.connect(remote)
    return sock


@pytest.fixture(autouse=True)
def nothing_is_lost(system: System) -> Any:
    """Whatever a test does: no packet of a tenant was dropped by it."""
    before = system.tenant_drops()
    yield
    assert system.tenant_drops() == before


def test_a_tenant_answers_ping(system: System) -> None:
    before = system.stage.call("stats")["tenants"][SERVER]["icmp_echo"]
    for size in (0, 1, 56, 1472):
        assert len(ping(system.peer, TENANT, count=5, size=size)) == 5
    assert system.stage.call("stats")["tenants"][SERVER]["icmp_echo"] == before + 20


def test_a_linux_client_and_a_tenants_server(system: System) -> None:
    before = system.udp(SERVER)
    with connected(system.peer, (TENANT, ECHO_PORT)) as client:
        exchange(client, payloads(TOTAL))
    after = system.udp(SERVER)
    assert [after[n] - before[n] for n in ("rx_packets", "tx_packets")] == [TOTAL, TOTAL]


def test_a_tenants_client_and_a_linux_server(
    system: System, linux_echo: Callable[[NetNs, str, int], None], run: Callable[[Any], Any]
) -> None:
    linux_echo(system.peer, PEER, 9000)
    before = system.udp(CLIENT)
    run(exchange_as_tenant((PEER, 9000), payloads(TOTAL)))
    after = system.udp(CLIENT)
    assert [after[n] - before[n] for n in ("rx_packets", "tx_packets")] == [TOTAL, TOTAL]


def test_a_tenants_client_and_another_tenants_server(system: System, run: Callable[[Any], Any]) -> None:
    run(exchange_as_tenant((TENANT, ECHO_PORT), payloads(1000)))


def test_a_closed_port_refuses_a_linux_client(system: System) -> None:
    with connected(system.peer, (TENANT, 4)) as client:
        client.send(b"is anybody there?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)
    with connected(system.peer, (TENANT, ECHO_PORT)) as client:
        exchange(client, payloads(10))


def test_a_closed_port_of_linux_refuses_a_tenants_client(system: System, run: Callable[[Any], Any]) -> None:
    answered = system.icmp_received(system.peer)
    with pytest.raises(ConnectionRefusedError):
        run(exchange_as_tenant((PEER, 4), [b"is anybody there?"]))
    assert system.icmp_received(system.peer) == answered, "an ICMP error is not answered"


def test_a_gateway_leads_to_another_network(
    system: System, linux_echo: Callable[[NetNs, str, int], None], run: Callable[[Any], Any]
) -> None:
    assert ping(system.far, TENANT)
    with connected(system.far, (TENANT, ECHO_PORT)) as client:
        exchange(client, payloads(1000))
    linux_echo(system.far, FAR, 9001)
    run(exchange_as_tenant((FAR, 9001), payloads(1000)))
    with connected(system.far, (TENANT, 4)) as client:
        client.send(b"through a router, too")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)


def kernel_still_serves(server: NetNs, address: str, client: NetNs) -> None:
    """UDP, TCP and ping between two Linux hosts."""
    assert ping(client, address)
    with server.socket() as listener, connected(client, (address, ECHO_PORT)) as sender:
        listener.bind((address, ECHO_PORT))
        sender.send(b"to the kernel")
        assert listener.recv(100) == b"to the kernel"
    with server.socket(socket.SOCK_STREAM) as listener, client.socket(socket.SOCK_STREAM) as sender:
        listener.bind((address, 80))
        listener.listen()
        sender.connect((address, 80))
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(5)
            sender.sendall(b"x" * 100_000)
            sender.close()
            assert sum(len(part) for part in iter(lambda: accepted.recv(65536), b"")) == 100_000


def test_what_is_not_for_tenants_reaches_the_kernel(system: System) -> None:
    """An AF_XDP port shares its interface with the kernel. A TAP port is the other end of the kernel's interface: the kernel's
    own traffic never comes there, and what comes there for an address that no tenant has is dropped and counted.
    """
    before = system.host_drops()
    if system.host is not None:
        kernel_still_serves(system.host, HOST, system.peer)
        assert system.host_drops() == before
    else:
        kernel_still_serves(system.peer, PEER, system.far)
        with connected(system.peer, ("10.77.0.99", 7)) as client:
            client.send(b"for nobody")
            assert until(lambda: system.host_drops().get("arp_not_ours", 0) > before.get("arp_not_ours", 0))
    assert ping(system.peer, TENANT)
