"""A protocol is replaced while a thousand flows run: nothing is lost or doubled, and what does not fit changes nothing."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from chamelio import toolchain
from chamelio.engine.engine import EngineError
from chamelio.sockets.datagram import DatagramTransport, create_datagram_endpoint
from chamelio.world import World

SOURCE = toolchain.PACKAGE / "protocols" / "udp" / "udp.bpf.c"
SERVER, PORT = "10.0.0.1", 7
CLIENTS, SOCKETS = 8, 125  # sockets of each client, all connected: a thousand flows
ROUNDS, WINDOW = 4, 16  # exchanges of each flow; how many flows of a client have one under way
SWAP_EVERY_S = 200e-6


class Echo(asyncio.DatagramProtocol):
    """Answers, and counts what has come."""

    def __init__(self) -> None:
        self.seen: Counter[bytes] = Counter()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.seen[data] += 1
        self.transport.sendto(data, addr)


class Flow(asyncio.DatagramProtocol):
    """One connected socket: asks, and counts the answers."""

    def __init__(self) -> None:
        self.answers: Counter[bytes] = Counter()
        self.came = asyncio.Event()
        self.errors: list[Exception] = []

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.answers[data] += 1
        self.came.set()

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    async def ask(self, transport: DatagramTransport, data: bytes) -> None:
        self.came.clear()
        transport.sendto(data)
        await self.came.wait()


def version(ttl: int) -> bytes:
    return toolchain.bpf_object(SOURCE, defines=[f"UDP_TTL={ttl}"])


async def swap_on(world: World, versions: list[bytes]) -> None:
    """Replace the protocol of one tenant after the other, again and again."""
    number = 0
    while True:
        for resident in world.residents:
            await asyncio.sleep(SWAP_EVERY_S)
            number += 1
            resident.swap(versions[number % len(versions)])
            if number % 10 == 0:
                with pytest.raises(EngineError, match="maps differ"):
                    resident.swap(unfit())


@functools.cache
def unfit() -> bytes:
    """A version with another number of sockets."""
    with tempfile.TemporaryDirectory() as directory:
        for path in SOURCE.parent.glob("udp.*"):
            (Path(directory) / path.name).write_text(path.read_text().replace("UDP_SOCKETS 128", "UDP_SOCKETS 64"))
        return toolchain.bpf_object(Path(directory) / SOURCE.name)


async def client(world: World, name: str, flows: list[tuple[DatagramTransport, Flow]]) -> None:
    """Connect its sockets and let each exchange numbered datagrams."""
    for _ in range(SOCKETS):
        flows.append(await create_datagram_endpoint(Flow, remote_addr=(SERVER, PORT), tenant=name, run=world.directory))
    room = asyncio.Semaphore(WINDOW)

    async def one(number: int, transport: DatagramTransport, flow: Flow) -> None:
        for n in range(ROUNDS):
            async with room:
                await flow.ask(transport, f"{name} {number} {n} ".encode() * 5)

    await asyncio.gather(*(one(number, *flow) for number, flow in enumerate(flows)))


async def run(world: World) -> tuple[Echo, list[Flow]]:
    _, echo = await create_datagram_endpoint(Echo, (None, PORT), tenant="server", run=world.directory)
    assert isinstance(echo, Echo)
    flows: list[list[tuple[DatagramTransport, Flow]]] = [[] for _ in range(CLIENTS)]
    first, flow = await create_datagram_endpoint(Flow, remote_addr=(SERVER, PORT), tenant="client0", run=world.directory)
    assert isinstance(flow, Flow)
    await flow.ask(first, b"where are you?")  # few packets may wait for ARP
    first.close()
    echo.seen.clear()
    versions = [version(ttl) for ttl in (63, 62, 64)]
    swapping = asyncio.create_task(swap_on(world, versions))
    async with asyncio.timeout(0.5):
        await asyncio.gather(*(client(world, f"client{i}", flows[i]) for i in range(CLIENTS)))
    assert not swapping.done(), swapping.exception()
    swapping.cancel()
    await asyncio.sleep(0.01)  # what might come twice has come
    return echo, [flow for of_client in flows for _, flow in of_client]


@pytest.mark.fault(17)
def test_a_thousand_flows_of_several_clients_lose_and_double_nothing(world: World) -> None:
    a, b = world.host(), world.host()
    world.wire(a, b, route="10.0.0.0/16")
    world.tenant(a, "server", SERVER, "udp")
    for i in range(CLIENTS):
        world.tenant(b, f"client{i}", f"10.0.1.{i + 1}", "udp")
    unfit()
    echo, flows = world.play(run(world))
    assert len(flows) == CLIENTS * SOCKETS == 1000
    assert all(set(flow.answers.values()) == {1} and len(flow.answers) == ROUNDS and not flow.errors for flow in flows)
    assert len(echo.seen) == 1000 * ROUNDS and set(echo.seen.values()) == {1}
    swaps = [int(host.counters()["swaps"]) for host in (a, b)]
    assert min(swaps) >= 3 and sum(swaps) >= 30, swaps
    for resident in world.residents:
        assert resident.counters["drops"] == {}, resident.name
    for host in (a, b):
        assert host.free_frames[0] == host.free_frames[1]
