"""Datagram sockets of applications, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from chamelio.sockets import stack
from chamelio.sockets.datagram import create_datagram_endpoint
from chamelio.world import World

SERVER, CLIENT, PORT = "10.0.0.1", "10.0.0.2", 7


class Collect(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: list[int] = []

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.append(int.from_bytes(data, "big"))

    def error_received(self, exc: Exception) -> None:
        pass  # nobody listens there yet


def test_a_socket_can_be_opened_while_the_last_one_closes(world: World) -> None:
    world.tenant(world.host(), "red", SERVER, "udp")

    async def run() -> None:
        for _ in range(3):
            first, _ = await create_datagram_endpoint(Collect, (None, PORT), tenant="red", run=world.directory)
            first.close()
            second, _ = await create_datagram_endpoint(Collect, tenant="red", run=world.directory)
            await asyncio.sleep(0.01)
            assert not second.is_closing()
            second.close()
            await asyncio.sleep(0.01)
            assert not stack._stacks[asyncio.get_running_loop()], "the context is given back with the last socket"

    world.play(run())


def test_a_refused_socket_leaves_nothing_open(world: World) -> None:
    world.tenant(world.host(), "red", SERVER, "udp")

    async def run() -> None:
        for local in ((CLIENT, PORT), (None, 65536)):
            with pytest.raises(OSError):
                await create_datagram_endpoint(Collect, local, tenant="red", run=world.directory)
            assert not stack._stacks[asyncio.get_running_loop()]

    world.play(run())


def test_what_arrives_while_a_socket_is_bound_is_delivered(world: World) -> None:
    a, b = world.host(), world.host()
    world.wire(a, b, route="10.0.0.0/24")
    world.tenant(a, "red", SERVER, "udp")
    world.tenant(b, "blue", CLIENT, "udp")

    async def endpoint(tenant: str, **options: Any) -> tuple[Any, Any]:
        return await create_datagram_endpoint(Collect, tenant=tenant, run=world.directory, **options)

    async def run() -> tuple[list[int], list[int], int]:
        sender, _ = await endpoint("blue", remote_addr=(SERVER, PORT))
        first, _ = await endpoint("red", local_addr=(None, PORT + 1))  # the application has its rings

        async def send() -> None:
            for i in range(10_000):
                sender.sendto(i.to_bytes(4, "big"))
                await asyncio.sleep(20e-6)

        sending = asyncio.ensure_future(send())
        await asyncio.sleep(0.005)
        transport, collect = await endpoint("red", local_addr=(None, PORT))
        await asyncio.sleep(0.005)
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        await asyncio.sleep(0.005)
        counted = int(transport._demultiplexer.stack.region.column("sockets", "received")[transport._socket])
        got = list(collect.received)
        for one in (sender, first, transport):
            one.close()
        return got, list(range(got[0], got[0] + len(got))), counted

    got, expected, counted = world.play(run())
    assert got == expected
    assert 100 < len(got) == counted, "all that the handler put into the socket's buffer was delivered"
