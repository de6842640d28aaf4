"""Streams between a tenant and unmodified Linux carry every byte, whoever asks and whichever way they go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from system.tcp_rig import Line, Side, close, digest, echo, receive, send, serving

pytestmark = pytest.mark.root

CLIENTS = ("linux", "ours")
SIZES = [1, 2, 1447, 1448, 1449, 65_537, 1_000_003]
MEGABYTE = 1_000_000


async def upload(client: Side, server: Side, length: int) -> None:
    """The server says how much it has got, and its digest."""

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write("{} {}".format(*await receive(reader)).encode())
        await close(writer)

    async with serving(server, count) as port:
        reader, writer = await client.connect(server.address, port)
        await send(writer, length)
        assert (await reader.read()).decode() == f"{length} {digest(length)}"
        await close(writer)


async def download(client: Side, server: Side, length: int) -> None:
    async def give(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send(writer, length)
        await close(writer)

    async with serving(server, give) as port:
        reader, writer = await client.connect(server.address, port)
        assert await receive(reader) == (length, digest(length))
        await close(writer)


async def both(client: Side, server: Side, length: int) -> None:
    """There and back at once."""
    async with serving(server, echo) as port:
        reader, writer = await client.connect(server.address, port)
        _, got = await asyncio.gather(send(writer, length), receive(reader))
        assert got == (length, digest(length))
        await close(writer)


WAYS = [upload, download, both]
Way = Callable[[Side, Side, int], Awaitable[None]]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("way", WAYS)
def test_bytes_arrive_as_they_were_sent(line: Line, client: str, way: Way) -> None:
    async def run() -> None:
        for length in SIZES:
            await way(*line.ends(client), length)

    asyncio.run(run())


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("way", WAYS)
def test_a_hundred_megabytes(line: Line, client: str, way: Way) -> None:
    asyncio.run(way(*line.ends(client), 100 * MEGABYTE))


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("way", WAYS)
def test_a_gigabyte(line: Line, client: str, way: Way) -> None:
    asyncio.run(way(*line.ends(client), 1000 * MEGABYTE))


@pytest.mark.fault(21)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("way", WAYS)
def test_megabytes_through_loss_and_reordering(lossy: Line, client: str, way: Way) -> None:
    asyncio.run(way(*lossy.ends(client), 20 * MEGABYTE))
