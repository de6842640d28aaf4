"""Agents and applications in virtual time: the same code as in the real world, and the same run every time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chamelio.sockets.datagram import create_datagram_endpoint
from chamelio.world import World
from chamelio.world.loop import Stuck

SERVER, CLIENT, PORT = "10.0.0.1", "10.0.0.2", 7


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


class Collect(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.put_nowait(data)


def two_hosts(world: World, fault: str | None = None) -> None:
    a, b = world.host(), world.host()
    world.wire(a, b, route="10.0.0.0/24", fault=fault)
    world.tenant(a, "red", SERVER, "udp")
    world.tenant(b, "blue", CLIENT, "udp")


async def exchange(world: World, n: int, wait_s: float = 0.001) -> tuple[int, float]:
    """Ask one after the other, waiting a limited time for each answer; how many came, and the virtual seconds it took."""
    loop = asyncio.get_running_loop()
    server, _ = await create_datagram_endpoint(Echo, (None, PORT), tenant="red", run=world.directory)
    transport, collect = await create_datagram_endpoint(Collect, remote_addr=(SERVER, PORT), tenant="blue", run=world.directory)
    started, answered = loop.time(), 0
    for i in range(n):
        transport.sendto(i.to_bytes(4, "big") * 20)
        try:
            async with asyncio.timeout(wait_s):
                while await collect.received.get() != i.to_bytes(4, "big") * 20:
                    pass
            answered += 1
        except TimeoutError:
            pass
    took = loop.time() - started
    for one in (transport, server):
        one.close()
    return answered, took


def test_applications_exchange_datagrams_between_hosts(world: World) -> None:
    two_hosts(world)
    answered, took = world.play(exchange(world, 100, wait_s=1.0))
    assert answered == 100
    assert took < 0.05, "a hundred round trips take milliseconds of virtual time"


def test_loss_is_seen_by_applications_and_a_run_repeats_exactly() -> None:
    def run(seed: int) -> tuple[int, float, int]:
        with World() as world:
            two_hosts(world, fault=f"loss=10%,seed={seed}")
            answered, took = world.play(exchange(world, 200, wait_s=0.02))
            return answered, took, world.now

    first, again, other = run(1), run(1), run(2)
    assert 120 < first[0] < 190
    assert first == again
    assert other != first


def test_time_flies_when_nothing_happens(world: World) -> None:
    world.host()

    async def sleep() -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.sleep(3600)
        return loop.time() - started

    assert world.play(sleep()) == pytest.approx(3600, abs=1e-3)


def test_waiting_for_what_never_happens_is_an_error_and_not_a_hang(world: World) -> None:
    world.host()

    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck, match="nothing will ever happen"):
        world.play(wait())


def test_a_closed_port_is_answered_by_the_slow_path(world: World) -> None:
    two_hosts(world)

    async def ask() -> None:
        transport, _ = await create_datagram_endpoint(Collect, remote_addr=(SERVER, 99), tenant="blue", run=world.directory)
        transport.sendto(b"anybody there?")
        await asyncio.sleep(0.01)
        transport.close()

    world.play(ask())
    red, blue = world.residents
    assert red.counters["punted"] == 1 and red.counters["injected"] == 1
    assert blue.counters["punted"] == 1, "the ICMP message reaches the slow path of whoever asked"
