"""Streams with real processes: engine, agents, and applications that end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from test_stream import close, echo, noise

import chamelio
from chamelio.bench.stage import Stage
from host.pair import ADDRESSES, Pair

PORT = 80
PIECE = 1 << 18


class Host(Pair):
    """Red serves."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage, "tcp")

    async def serve(self, connected: Any) -> Any:
        return await chamelio.start_server(connected, port=PORT, tenant="red", run=self.stage.run)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await chamelio.open_connection(ADDRESSES["red"], PORT, tenant="blue", run=self.stage.run)


@pytest.fixture(params=[1, 2])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    with Stage("--cores", str(request.param)) as stage:
        yield Host(stage)


@pytest.fixture
def small_host() -> Iterator[Host]:
    with Stage() as stage:
        yield Host(stage)


async def echoed(host: Host, pieces: int, meanwhile: Any = None) -> None:
    """So many pieces go there and come back; the whole is what was sent."""
    server = await host.serve(echo)
    reader, writer = await host.connect()
    sent, got, length = hashlib.sha256(), hashlib.sha256(), 0

    async def send() -> None:
        for seed in range(pieces):
            data = noise(PIECE, seed % 16)
            sent.update(data)
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    sending = asyncio.ensure_future(send())
    happening = asyncio.ensure_future(meanwhile()) if meanwhile else None
    while data := await reader.read(PIECE):
        got.update(data)
        length += len(data)
    await sending
    if happening is not None:
        await happening
    assert length == pieces * PIECE and got.digest() == sent.digest()
    await close(writer)
    server.close()
    await server.wait_closed()


def test_megabytes_there_and_back(host: Host) -> None:
    asyncio.run(echoed(host, 100))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_gigabyte_there_and_back(host: Host) -> None:
    asyncio.run(echoed(host, 4096))


def test_a_thousand_connections_of_one_process(host: Host) -> None:
    async def run() -> None:
        server = await host.serve(echo)

        async def one(seed: int) -> None:
            reader, writer = await host.connect()
            data = noise(2000, seed)
            for _ in range(3):
                writer.write(data)
                assert await reader.readexactly(len(data)) == data
            await close(writer)

        await asyncio.gather(*(one(seed) for seed in range(1000)))
        server.close()
        await server.wait_closed()

    asyncio.run(run())


def test_event_loops_that_end_give_their_contexts_back(small_host: Host) -> None:
    async def run() -> None:
        server = await small_host.serve(echo)
        reader, writer = await small_host.connect()
        writer.write(b"left open")
        assert await reader.readexactly(9) == b"left open"
        assert server.is_serving()

    for _ in range(20):  # more than the quota of contexts, two in each
        asyncio.run(run())


def test_agents_are_replaced_while_data_flows(small_host: Host) -> None:
    async def replace() -> None:
        for tenant in ADDRESSES:
            await asyncio.to_thread(small_host.replace_agent, tenant)
        await asyncio.sleep(0.5)
        _, writer = await small_host.connect()
        assert writer.get_extra_info("peername") == (ADDRESSES["red"], PORT), "it serves again"
        await close(writer)  # the server waits for it at the end

    asyncio.run(echoed(small_host, 400, replace))


APPLICATION = f"""
import asyncio, sys, chamelio

async def main():
    reader, writer = await chamelio.open_connection("{ADDRESSES["red"]}", {PORT}, tenant="blue", run=sys.argv[1])
    writer.write(bytes(int(sys.argv[2])))
    writer.close()
    await writer.wait_closed()

asyncio.run(main())
"""


@pytest.mark.parametrize("length", [1, 100_000, 3_000_000])
def test_what_an_application_has_closed_arrives_though_it_ends_at_once(small_host: Host, length: int) -> None:
    async def run() -> None:
        arrived: asyncio.Queue[int] = asyncio.Queue()

        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.2)
            arrived.put_nowait(len(await reader.read()))
            await close(writer)

        server = await small_host.serve(count)
        command = [sys.executable, "-c", APPLICATION, str(small_host.stage.run), str(length)]
        for _ in range(3):
            await asyncio.to_thread(subprocess.run, command, check=True, timeout=20)
            assert await arrived.get() == length
        server.close()
        await server.wait_closed()

    asyncio.run(run())


def test_everybody_is_told_when_the_engine_dies(small_host: Host) -> None:
    async def run() -> None:
        server = await small_host.serve(echo)
        serving = asyncio.ensure_future(server.serve_forever())
        reader, _ = await small_host.connect()
        engine = small_host.stage.call("status")["engine"]["pid"]
        os.kill(engine, signal.SIGKILL)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 1)
        with pytest.raises(ConnectionResetError):
            await serving

    asyncio.run(run())
