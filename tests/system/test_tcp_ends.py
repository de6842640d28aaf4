"""How connections between a tenant and unmodified Linux begin and end: closed, half closed, reset, refused, unanswered."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest

from system.tcp_rig import OURS, SILENT, Handler, Line, Side, Streams, close, digest, receive, send, serving, sysctls

pytestmark = pytest.mark.root

CLIENTS = ("linux", "ours")
LENGTH = 300_000


async def connection(line: Line, client: str, use: Callable[[dict[str, Streams]], Awaitable[None]]) -> tuple[int, int]:
    """Use a connection, of which each side has an end: its ports, Linux's first."""
    asks, serves = line.ends(client)
    done = asyncio.Event()
    accepted: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()

    async def handler(*streams: Any) -> None:
        accepted.set_result(streams)
        await done.wait()

    async with serving(serves, handler) as port:
        streams = {client: await asks.connect(serves.address, port)}
        other = "linux" if client == "ours" else "ours"
        streams[other] = await accepted
        own, _ = (streams["linux"][1].get_extra_info(name)[1] for name in ("sockname", "peername"))
        peer = streams["linux"][1].get_extra_info("peername")[1]
        try:
            await use(streams)
        finally:
            done.set()
        return own, peer


async def until_states(line: Line, ports: tuple[int, int], ours: Sequence[str], linux: Sequence[str]) -> None:
    """Wait until a connection is in one of these states on each side; CLOSED: it is not there."""
    own, peer = ports
    end = time.monotonic() + 5
    while True:
        states = [(await side.states()).get(at, "CLOSED") for side, at in ((line.ours, (peer, own)), (line.linux, (own, peer)))]
        if states[0] in ours and states[1] in linux:
            return
        assert time.monotonic() < end, f"ours is {states[0]}, Linux's {states[1]}, not {ours} and {linux}"
        await asyncio.sleep(0.01)


def other_of(side: str) -> str:
    return "linux" if side == "ours" else "ours"


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("first", CLIENTS)
def test_who_closes_first_is_in_time_wait(line: Line, client: str, first: str) -> None:
    async def use(streams: dict[str, Streams]) -> None:
        await send_all(streams)
        await close(streams[first][1])
        reader, writer = streams[other_of(first)]
        assert await reader.read() == b""
        await close(writer)

    async def run() -> None:
        ports = await connection(line, client, use)
        waits = {"ours": ["CLOSED"], "linux": ["CLOSED"], first: ["TIME_WAIT"]}
        await until_states(line, ports, **waits)

    asyncio.run(run())


async def send_all(streams: dict[str, Streams]) -> None:
    """A word in each direction."""
    for side in CLIENTS:
        streams[side][1].write(b"from " + side.encode())
        assert await streams[other_of(side)][0].readexactly(5 + len(side)) == b"from " + side.encode()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_port_is_used_again_while_the_server_is_in_time_wait(line: Line, client: str) -> None:
    """Timestamps tell the connections apart (RFC 6191)."""
    local_port = 61_000

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1))
        await close(writer)

    async def run() -> None:
        asks, serves = line.ends(client)
        async with serving(serves, greet) as port:
            for number in range(5):
                reader, writer = await asks.connect(serves.address, port, local_port)
                writer.write(b"%d" % number)
                assert await reader.read() == b"%d" % number
                await close(writer)
                ports = (local_port, port) if client == "linux" else (port, local_port)
                waits = {"ours": ["CLOSED"], "linux": ["CLOSED"], other_of(client): ["TIME_WAIT"]}
                await until_states(line, ports, **waits)
                await asyncio.sleep(0.01)

    asyncio.run(run())


@pytest.mark.parametrize("client", CLIENTS)
def test_both_close_at_once(line: Line, client: str) -> None:
    async def use(streams: dict[str, Streams]) -> None:
        await send_all(streams)
        await asyncio.gather(*(close(writer) for _, writer in streams.values()))

    async def run() -> None:
        for _ in range(10):
            ports = await connection(line, client, use)
            await until_states(line, ports, ["CLOSED", "TIME_WAIT"], ["CLOSED", "TIME_WAIT"])

    asyncio.run(run())


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("first", CLIENTS)
def test_who_has_said_all_still_listens(line: Line, client: str, first: str) -> None:
    async def use(streams: dict[str, Streams]) -> None:
        reader, writer = streams[first]
        writer.write(b"the last word")
        writer.write_eof()
        other_reader, other_writer = streams[other_of(first)]
        assert await other_reader.read() == b"the last word"
        _, got = await asyncio.gather(send(other_writer, LENGTH), receive(reader))
        assert got == (LENGTH, digest(LENGTH))
        await asyncio.gather(close(writer), close(other_writer))

    async def run() -> None:
        ports = await connection(line, client, use)
        waits = {"ours": ["CLOSED"], "linux": ["CLOSED"], first: ["TIME_WAIT"]}
        await until_states(line, ports, **waits)

    asyncio.run(run())


def reset(writer: asyncio.StreamWriter) -> None:
    """A RST for the other side: `abort()`, for a kernel's socket after SO_LINGER 0."""
    if (sock := writer.get_extra_info("socket")) is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("first", CLIENTS)
@pytest.mark.parametrize("doing", ["reading", "writing", "both"])
def test_a_reset_is_an_error_of_the_other_side(line: Line, client: str, first: str, doing: str) -> None:
    async def write_on(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(bytes(100_000))
            await writer.drain()
            await asyncio.sleep(0)

    async def use(streams: dict[str, Streams]) -> None:
        await send_all(streams)
        reader, writer = streams[other_of(first)]
        work: list[Coroutine[Any, Any, Any]] = []
        if doing != "writing":
            work.append(reader.read())
        if doing != "reading":
            work.append(write_on(writer))
        tasks = [asyncio.ensure_future(one) for one in work]
        await asyncio.sleep(0.05)
        reset(streams[first][1])
        for task in tasks:
            with pytest.raises((ConnectionResetError, BrokenPipeError)) as caught:
                await asyncio.wait_for(task, 5)
            assert doing == "both" or caught.type is ConnectionResetError
        writer.close()

    async def run() -> None:
        ports = await connection(line, client, use)
        await until_states(line, ports, ["CLOSED"], ["CLOSED"])

    asyncio.run(run())


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("first", CLIENTS)
def test_who_writes_to_a_closed_end_is_reset(line: Line, client: str, first: str) -> None:
    async def use(streams: dict[str, Streams]) -> None:
        await send_all(streams)
        _, writer = streams[other_of(first)]
        await close(streams[first][1])
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(200):
                writer.write(b"is anybody there?")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()

    async def run() -> None:
        ports = await connection(line, client, use)
        await until_states(line, ports, ["CLOSED"], ["CLOSED"])

    asyncio.run(run())


async def closed_port(side: Side) -> int:
    """A port at which nobody listens any more."""

    async def nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError

    handler: Handler = nobody
    async with serving(side, handler) as port:
        return port


@pytest.mark.parametrize("client", CLIENTS)
def test_a_closed_port_refuses(line: Line, client: str) -> None:
    async def run() -> None:
        asks, serves = line.ends(client)
        port = await closed_port(serves)
        await asyncio.sleep(0.05)
        started = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            await asks.connect(serves.address, port)
        assert time.monotonic() - started < 0.5, "a RST says so, no timeout"

    asyncio.run(run())


def test_linux_hears_of_no_answer_by_timeout(line: Line) -> None:
    line.peer.add_route("10.99.0.0/24", OURS)
    with sysctls(line.peer, syn_retries=1, syn_linear_timeouts=0), pytest.raises(TimeoutError):
        asyncio.run(line.linux.connect(SILENT, 80))


def test_we_hear_of_no_answer_by_timeout(line: Line) -> None:
    async def run() -> None:
        await line.ours.call("configure", syn_retries=2, rto_initial=0.1)
        try:
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                await line.ours.connect(SILENT, 80)
            assert 0.6 < time.monotonic() - started < 2, "0.1 s, 0.2 s, 0.4 s"
        finally:
            await line.ours.call("configure", syn_retries=6, rto_initial=1)

    asyncio.run(run())
