"""Streams between two hosts with real handlers, in virtual time: whatever the wire does, every byte arrives, in order, once."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
import tcp_rigs
from tcp_rigs import Rig
from test_stream import Notes, close, echo, end, noise, pair

BAD_WIRE = "loss=2%,reorder=3%,dup=1%,biterr=1%,delay=100us..300us"


def digest(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


async def both_ways(rig: Rig, length: int, connections: int = 1) -> None:
    """Each end of each connection sends so much, and closes its direction; what arrives is what was sent."""
    arrived: list[str] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seed: int) -> bytes:
        async def send() -> None:
            data = noise(length, seed)
            for at in range(0, length, 60_000):
                writer.write(data[at : at + 60_000])
                await writer.drain()
            writer.write_eof()

        sending = asyncio.ensure_future(send())
        got = await reader.read()
        await sending
        await close(writer)
        return got

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(digest(await talk(reader, writer, 0)))

    async def ask(seed: int) -> str:
        return digest(await talk(*await rig.open_connection(), seed))

    server = await rig.start_server(serve, backlog=connections)
    answers = await asyncio.gather(*(ask(seed) for seed in range(1, connections + 1)))
    server.close()
    await server.wait_closed()
    assert answers == [digest(noise(length, 0))] * connections
    assert sorted(arrived) == sorted(digest(noise(length, seed)) for seed in range(1, connections + 1))


@pytest.mark.fault(21)
@pytest.mark.parametrize("seed", [1, 2])
def test_megabytes_through_a_bad_wire(seed: int) -> None:
    with tcp_rigs.world(seed, fault=f"{BAD_WIRE},seed={seed}") as rig:
        rig.play(both_ways(rig, 3_000_000))


@pytest.mark.fault(21)
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(20))
def test_many_megabytes_through_a_bad_wire(seed: int) -> None:
    with tcp_rigs.world(seed, fault=f"{BAD_WIRE},seed={seed}", cores=1 + seed % 3) as rig:
        rig.play(both_ways(rig, 20_000_000))


@pytest.mark.parametrize("cores", [1, 2])
def test_two_hundred_connections_at_once(cores: int) -> None:
    with tcp_rigs.world(cores=cores) as rig:
        rig.play(both_ways(rig, 20_000, 200))


def test_two_hundred_connections_at_once_through_a_bad_wire() -> None:
    with tcp_rigs.world(3, fault=f"{BAD_WIRE},seed=3") as rig:
        rig.play(both_ways(rig, 5_000, 200))


def test_a_run_repeats_exactly() -> None:
    ends = []
    for seed in (1, 1, 2):
        with tcp_rigs.world(seed, fault=f"{BAD_WIRE},seed={seed}") as rig:
            rig.play(both_ways(rig, 100_000, 3))
            ends.append(rig.place.now)
    assert ends[0] == ends[1] != ends[2]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ends_through_a_bad_wire(seed: int) -> None:
    """Half-close, close and abort, with data under way."""

    async def run(rig: Rig) -> None:
        server, theirs, ours = await pair(rig, Notes(keep_open=True), Notes(keep_open=True))
        ours.transport.write(noise(200_000))
        ours.transport.write_eof()
        await theirs.ended.wait()
        assert theirs.data == noise(200_000)
        theirs.transport.write(noise(300_000, 2))
        theirs.transport.close()
        await ours.ended.wait()
        assert ours.data == noise(300_000, 2)
        await end(server, ours, theirs)
        assert (ours.error, theirs.error) == (None, None)

        server, theirs, ours = await pair(rig)
        ours.transport.write(noise(2_000_000))
        await asyncio.sleep(0.01)
        ours.transport.abort()
        # A reset is sent once. Should it get lost, the peer hears of it when it sends something.
        await asyncio.sleep(0.1)
        while not theirs.lost.is_set():
            theirs.transport.write(b"?")
            await asyncio.sleep(0.3)
        assert isinstance(theirs.error, ConnectionResetError)
        assert noise(2_000_000).startswith(theirs.data)
        await end(server, ours, theirs)

    with tcp_rigs.world(seed, fault=f"{BAD_WIRE},seed={seed}") as rig:
        rig.play(run(rig))


def test_an_application_that_reads_late_gets_everything() -> None:
    async def run(rig: Rig) -> None:
        server, theirs, ours = await pair(rig)
        theirs.transport.pause_reading()
        data = noise(8_000_000)
        ours.transport.write(data)
        ours.transport.close()
        await asyncio.sleep(20)  # the window is closed, and probed
        assert not ours.lost.is_set() and not theirs.data
        theirs.transport.resume_reading()
        await theirs.lost.wait()
        assert theirs.data == data
        await end(server, ours, theirs)

    with tcp_rigs.world() as rig:
        rig.play(run(rig))


def test_an_application_that_ends_leaves_nothing_behind() -> None:
    """Its context is closed with everything in it: peers hear of a reset, and all numbers are free."""

    async def run(rig: Rig) -> Any:
        server, theirs, ours = await pair(rig)
        echoing = await rig.start_server(echo, 81)
        ours.transport._context.stack._channel.close()  # as the end of its process does
        await theirs.lost.wait()
        assert isinstance(theirs.error, ConnectionResetError)
        await asyncio.sleep(5)
        echoing.close()
        await end(server, theirs)

    with tcp_rigs.world() as rig:
        rig.play(run(rig))
