"""What happens on the way between a tenant and unmodified Linux: links that go away, silence, routers, path MTUs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chamelio.bench.netns import Veth
from netns import namespaces
from system.rig import FAR, ROUTER
from system.tcp_rig import (
    BACKENDS,
    Line,
    Linux,
    Streams,
    close,
    digest,
    echo,
    joined,
    linux_info,
    our_info,
    receive,
    send,
    serving,
    sysctls,
)

pytestmark = pytest.mark.root

CLIENTS = ("linux", "ours")
LENGTH = 20_000_000
NARROW = 1000


@pytest.fixture(scope="module", params=BACKENDS)
def far(request: pytest.FixtureRequest) -> Iterator[tuple[Line, Linux]]:
    """The Linux host of a line is a router to another one; its link there takes packets of NARROW bytes."""
    with joined(request.param) as line, namespaces("far") as (where,):
        Veth(where, line.peer, FAR, ROUTER, "veth1").join()
        line.peer.forward()
        where.add_route("10.77.0.0/24", ROUTER)
        line.peer.mtu("veth1", NARROW)
        yield line, Linux(where, FAR)


@pytest.mark.parametrize("client", CLIENTS)
def test_segments_fit_the_path(far: tuple[Line, Linux], client: str) -> None:
    """The router says by ICMP how long packets may be (RFC 1191); before, both believed in 1500 bytes."""
    line, linux = far

    async def run() -> None:
        about: list[dict[str, int]] = []

        async def give(streams: Streams) -> None:
            await send(streams[1], LENGTH)
            about.append(our_info(streams))

        async def take(streams: Streams) -> None:
            assert await receive(streams[0]) == (LENGTH, digest(LENGTH))

        async def serve(*streams: Any) -> None:
            await (give(streams) if client == "linux" else take(streams))
            await close(streams[1])

        asks, serves = (line.ours, linux) if client == "ours" else (linux, line.ours)
        async with serving(serves, serve) as port:
            streams = await asks.connect(serves.address, port)
            await (give(streams) if client == "ours" else take(streams))
            await close(streams[1])
        assert about[0]["mss"] == 1460 and about[0]["mss_limit"] == NARROW - 40

    asyncio.run(run())


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("away", [0.05, pytest.param(0.4, marks=pytest.mark.long)])
def test_a_link_that_was_away_has_lost_nothing(line: Line, client: str, away: float) -> None:
    async def run() -> None:
        async with serving(line.ends(client)[1], echo) as port:
            asks, serves = line.ends(client)
            reader, writer = await asks.connect(serves.address, port)
            work = asyncio.gather(send(writer, LENGTH), receive(reader))
            for turn in range(3):
                await asyncio.sleep(0.03)
                assert turn or not work.done()
                line.peer.down(line.interface)
                await asyncio.sleep(away)
                line.peer.up(line.interface)
            assert (await work)[1] == (LENGTH, digest(LENGTH))
            await close(writer)

    asyncio.run(run())


@pytest.fixture(scope="module", params=BACKENDS)
def distant(request: pytest.FixtureRequest) -> Iterator[Line]:
    """A round trip takes 20 ms."""
    with joined(request.param, "delay=10ms,limit=16384") as one:
        yield one


@pytest.mark.parametrize("client", CLIENTS)
def test_windows_grow_with_the_distance(distant: Line, client: str) -> None:
    async def run() -> None:
        ends: dict[str, Streams] = {}

        async def both(*streams: Any) -> None:
            _, got = await asyncio.gather(send(streams[1], LENGTH), receive(streams[0]))
            assert got == (LENGTH, digest(LENGTH))

        async def serve(*streams: Any) -> None:
            ends["linux" if client == "ours" else "ours"] = streams
            await both(*streams)
            await known.wait()
            await close(streams[1])

        known = asyncio.Event()
        asks, serves = distant.ends(client)
        async with serving(serves, serve) as port:
            ends[client] = await asks.connect(serves.address, port)
            await both(*ends[client])
            ours, linux = our_info(ends["ours"]), linux_info(ends["linux"])
            known.set()
            await close(ends[client][1])
        assert ours["srtt"] > 19_000
        assert ours["win"] > 65_536 and linux.peer_window > 500_000

    asyncio.run(run())


def test_more_clients_than_the_backlog_are_served_by_cookies(distant: Line) -> None:
    """Most SYNs of Linux come before any handshake is over. A cookie has room for every option but ECN."""
    clients = 100
    distant.ours.backlog = 10

    async def run() -> None:
        options: list[int] = []

        async def serve(*streams: Any) -> None:
            options.append(our_info(streams)["options"])
            await echo(*streams)

        async with serving(distant.ours, serve) as port:
            streams = await distant.linux.connect_at_once(distant.ours.address, port, clients)
            for number, (reader, writer) in enumerate(streams):
                _, got = await asyncio.gather(send(writer, 5000, number), receive(reader))
                assert got == (5000, digest(5000, number))
                await close(writer)
        assert len(options) == clients and set(options) == {7, 15} and options.count(7) > clients // 2

    try:
        with sysctls(distant.peer, ecn=1):
            asyncio.run(run())
    finally:
        distant.ours.backlog = 2000


async def echo_until_reset(*streams: Any) -> None:
    with contextlib.suppress(ConnectionResetError):
        await echo(*streams)


async def silent_pair(line: Line, port: int) -> Streams:
    """A connection to Linux that has answered once."""
    reader, writer = await line.ours.connect(line.linux.address, port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    return reader, writer


async def keep(streams: Streams, **options: float) -> None:
    transport: Any = streams[1].transport
    await transport.keep_alive(**options)


def test_keepalive_is_answered_by_linux_while_it_is_there(line: Line) -> None:
    async def run() -> None:
        async with serving(line.linux, echo_until_reset) as port:
            streams = reader, writer = await silent_pair(line, port)
            await keep(streams, idle=0.2, interval=0.1, count=2)
            received = line.linux.received()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 1)
            assert line.linux.received() >= received + 3, "it was asked"
            line.peer.down(line.interface)
            try:
                with pytest.raises(OSError) as caught:
                    await asyncio.wait_for(reader.read(1), 3)
                assert caught.value.errno == errno.ETIMEDOUT
            finally:
                line.peer.up(line.interface)
            writer.close()

    asyncio.run(run())


def test_linuxs_keepalive_is_answered(line: Line) -> None:
    async def run() -> None:
        async with serving(line.ours, echo) as port:
            line.linux.options = [
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
                *((socket.IPPROTO_TCP, name, 1) for name in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)),
            ]
            try:
                reader, writer = await line.linux.connect(line.ours.address, port)
            finally:
                line.linux.options = []
            asked = line.linux.counted("TCPKeepAlive")
            await asyncio.sleep(2.5)  # one second idle, then two seconds without an answer would be the end
            assert line.linux.counted("TCPKeepAlive") >= asked + 2
            writer.write(b"still there")
            assert await reader.readexactly(11) == b"still there"
            await close(writer)

    asyncio.run(run())


def test_who_gets_no_answer_gives_up(line: Line) -> None:
    async def run() -> None:
        await line.ours.call("configure", retries=2)
        try:
            async with serving(line.linux, echo_until_reset) as port:
                reader, writer = await silent_pair(line, port)
                line.peer.down(line.interface)
                writer.write(b"is anybody there?")
                started = time.monotonic()
                with pytest.raises(OSError) as caught:
                    await asyncio.wait_for(reader.read(1), 5)
                assert caught.value.errno == errno.ETIMEDOUT
                assert 1.2 < time.monotonic() - started < 3, "0.2 s, 0.4 s, 0.8 s"
                writer.close()
                line.peer.up(line.interface)
        finally:
            await line.ours.call("configure", retries=15)

    asyncio.run(run())
