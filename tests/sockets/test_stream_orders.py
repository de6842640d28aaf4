"""What the slow path orders of handlers when it is late or has gone wrong, seen from streams in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import tcp_rigs
from tcp_rigs import Rig, reason_names

from chamelio.protocols.tcp import slowpath
from chamelio.world.residents import Resident

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def rig() -> Iterator[Rig]:
    with tcp_rigs.world() as one:
        yield one


def resident(rig: Rig, index: int) -> Resident:
    one: Resident = rig.place.residents[index]  # type: ignore[union-attr]
    return one


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def answered(stream: Stream, text: bytes = b"hello") -> bool:
    stream[1].write(text)
    return await stream[0].readexactly(len(text)) == text


def held(one: Resident) -> list[int]:
    """Numbers of connections that applications have."""
    return [int(row) for row in one.agent.region.values("about")["context"].nonzero()[0]]


@pytest.mark.parametrize("whose", ["nobody's", "another context's"])
def test_a_release_that_comes_too_late_gives_nothing_back(rig: Rig, whose: str) -> None:
    """A number must never be on the list of free ones twice: its next two connections would be one."""
    blue = resident(rig, 1)

    async def run() -> None:
        server = await rig.start_server(echo)
        first = await rig.open_connection()
        (conn,) = held(blue)
        about = blue.agent.region.values("about")
        context = int(about["context"][conn])
        if whose == "nobody's":
            first[1].transport.abort()
            await asyncio.sleep(0.01)
            assert not held(blue)
        else:
            context += 1
        blue.agent.services.request(slowpath.RELEASE, conn, int(about["generation"][conn]), 0, 0, 0, context, 0, 0, 0, 0)
        await blue.agent.settle()
        streams = [await rig.open_connection() for _ in range(3)] + ([first] if whose != "nobody's" else [])
        assert len(held(blue)) == len(streams)
        for number, stream in enumerate(streams):
            assert await answered(stream, b"%d" % number)
        for _, writer in streams:
            writer.close()
        server.close()
        await asyncio.sleep(0.1)

    rig.place.play(run())
    assert {reason_names()[int(code)]: n for code, n in blue.counters["reasons"].items()} == {"STALE": 1}


def test_timeouts_that_nobody_answers_are_told_again() -> None:
    """A slow path may be killed between hearing of a timeout and answering: here it is deaf to two of three."""
    told: list[int] = []
    with tcp_rigs.world(fault="loss=20%") as rig:
        for one in (resident(rig, 0), resident(rig, 1)):
            hear = one.agent.slow_path.on_entries

            def deaf(entries: Any, now: int, hear: Any = hear) -> None:
                told.append(now)
                if not len(told) % 3:
                    hear(entries, now)

            one.agent.slow_path.on_entries = deaf  # type: ignore[method-assign]

        async def run() -> None:
            server = await rig.start_server(echo)
            stream = await rig.open_connection()
            async with asyncio.timeout(60):
                for number in range(50):
                    assert await answered(stream, b"%d" % number)
            stream[1].close()
            server.close()
            await asyncio.sleep(60)

        rig.play(run())
    assert len(told) > 20
