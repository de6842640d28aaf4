"""A thousand connections at once between a tenant and unmodified Linux, and readers that do not read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from system.tcp_rig import Line, Streams, close, digest, echo, receive, send, serving

pytestmark = pytest.mark.root

CLIENTS = ("linux", "ours")
CONNECTIONS = 1000


async def open_all(line: Line, client: str, port: int) -> Sequence[Streams]:
    """All at once, and all stay open."""
    asks, serves = line.ends(client)
    streams = await asyncio.gather(*(asks.connect(serves.address, port) for _ in range(CONNECTIONS)))
    for side in (line.ours, line.linux):
        open_now = [ends for ends, state in (await side.states()).items() if state == "ESTABLISHED" and port in ends]
        assert len(open_now) == CONNECTIONS
    return streams


@pytest.mark.parametrize("client", CLIENTS)
def test_a_thousand_connections_at_once(line: Line, client: str) -> None:
    async def exchange(number: int, streams: Streams) -> None:
        reader, writer = streams
        length = 100 * number % 20_011
        _, got = await asyncio.gather(send(writer, length, number), receive(reader))
        assert got == (length, digest(length, number))
        await close(writer)

    async def run() -> None:
        async with serving(line.ends(client)[1], echo) as port:
            streams = await open_all(line, client, port)
            await asyncio.gather(*(exchange(number, one) for number, one in enumerate(streams)))

    asyncio.run(run())


@pytest.mark.parametrize("client", CLIENTS)
def test_a_thousand_connections_one_after_the_other(line: Line, client: str) -> None:
    async def run() -> None:
        asks, serves = line.ends(client)
        async with serving(serves, echo) as port:
            for number in range(CONNECTIONS):
                reader, writer = await asks.connect(serves.address, port)
                writer.write(b"%d" % number)
                assert await reader.readexactly(len(b"%d" % number)) == b"%d" % number
                await close(writer)

    asyncio.run(run())


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("writes", CLIENTS)
def test_who_does_not_read_stops_the_other(line: Line, client: str, writes: str) -> None:
    """The window closes, is probed, and opens again."""
    probes = line.linux.counted("TCPWinProbe")
    length = 30_000_000  # more than both buffers hold

    async def run() -> None:
        looked = asyncio.Event()

        async def take(reader: asyncio.StreamReader) -> None:
            await looked.wait()
            assert await receive(reader) == (length, digest(length))

        async def give(writer: asyncio.StreamWriter) -> None:
            sending = asyncio.ensure_future(send(writer, length))
            await asyncio.sleep(0.8)
            assert not sending.done(), "nobody has read"
            looked.set()
            await sending

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await (take(reader) if writes == client else give(writer))
            await close(writer)

        asks, serves = line.ends(client)
        async with serving(serves, serve) as port:
            reader, writer = await asks.connect(serves.address, port)
            await (give(writer) if writes == client else take(reader))
            assert await reader.read() == b""
            await close(writer)

    asyncio.run(run())
    assert writes == "ours" or line.linux.counted("TCPWinProbe") > probes
