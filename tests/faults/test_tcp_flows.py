"""TCP connections beyond what the table holds, and such whose keys collide in it: that tenant's errors, at a bounded cost."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import chamelio
from chamelio.lab.segments import MSS, SYN, Segment, encode
from chamelio.tenant.folder import copy_folder
from chamelio.toolchain import PACKAGE
from chamelio.world import World
from chamelio.world.residents import Resident
from faults.tcp_flood import Attacker, syns
from virtual import PEER_MAC

CONNECTIONS, BUCKET = 64, 8  # of the table, of a bucket of a hash (fastpath/map.h)
RED, GREEN, BLUE, PORT = "10.0.2.1", "10.0.2.3", "10.0.2.2", 80
U64 = (1 << 64) - 1


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TCP with a table for 64 connections."""
    folder = copy_folder("tcp", tmp_path_factory.mktemp("small") / "tcp")
    header = folder / "tcp.h"
    changed = header.read_text().replace("#define TCP_CONNECTIONS 131072", f"#define TCP_CONNECTIONS {CONNECTIONS}")
    assert changed != header.read_text()
    header.write_text(changed)
    return folder


class Host:
    """Red and green with small tables on one host, blue on another, and somebody at a third port who sends what he likes."""

    def __init__(self, world: World, small: Path) -> None:
        self.world = world
        self.host, far = world.host(), world.host()
        world.wire(self.host, far, route="10.0.2.0/24")
        self.red = world.tenant(self.host, "red", RED, small)
        self.green = world.tenant(self.host, "green", GREEN, small)
        world.tenant(far, "blue", BLUE, "tcp")
        self.stranger = Attacker(world, self.host, syns, 0)
        world.task(self.stranger.step)

    async def serve(self, tenant: str, backlog: int = 16) -> Any:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while data := await reader.read(4096):
                    writer.write(data)
            except ConnectionResetError:
                pass
            writer.close()

        return await chamelio.start_server(echo, port=PORT, tenant=tenant, run=self.world.directory, backlog=backlog)

    async def connect(self, address: str, within_s: float = 0.1) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection of blue's, or None: there is no answer."""
        opening = chamelio.open_connection(address, PORT, tenant="blue", run=self.world.directory)
        try:
            return await asyncio.wait_for(opening, within_s)
        except TimeoutError:
            return None


def refused(resident: Resident) -> dict[str, int]:
    """Errors of its handlers by name."""
    found = re.search(r"enum reason \{(.*?)\}", (PACKAGE / "protocols" / "tcp" / "conn.h").read_text(), re.DOTALL)
    assert found is not None
    names = re.findall(r"[A-Z_]+", found.group(1))
    return {names[int(code) - 1]: n for code, n in resident.counters["reasons"].items()}


@pytest.fixture
def host(small: Path) -> Iterator[Host]:
    with World(1) as world:
        yield Host(world, small)


async def works(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None) -> bool:
    assert stream is not None
    reader, writer = stream
    writer.write(b"ping")
    return await reader.readexactly(4) == b"ping"


@pytest.mark.fault(25)
def test_connections_beyond_the_table_are_that_tenants_errors_alone(host: Host) -> None:
    async def run() -> None:
        servers = [await host.serve("red"), await host.serve("green")]
        streams = [await host.connect(RED) for _ in range(CONNECTIONS)]
        assert all(streams) and not refused(host.red)
        assert [await host.connect(RED) for _ in range(3)] == [None] * 3
        assert refused(host.red).keys() == {"TABLE_FULL"} and refused(host.red)["TABLE_FULL"] >= 3
        assert all([await works(stream) for stream in streams]), "those that are open are none the worse"
        others = [await host.connect(GREEN) for _ in range(CONNECTIONS)]
        assert all([await works(other) for other in others]) and not refused(host.green) and not host.green.counters["drops"]
        for stream in streams[:2]:
            assert stream is not None
            stream[1].transport.abort()
        await asyncio.sleep(0.01)
        assert await works(await host.connect(RED)), "there is room again"
        for server in servers:
            server.close()

    host.world.play(run())


@pytest.mark.fault(25)
def test_connections_that_we_open_beyond_the_table_are_errors(host: Host) -> None:
    async def run() -> None:
        server = await host.serve("blue")
        opened = [await chamelio.open_connection(BLUE, PORT, tenant="red", run=host.world.directory) for _ in range(CONNECTIONS)]
        with pytest.raises(OSError, match="buffer space"):
            await chamelio.open_connection(BLUE, PORT, tenant="red", run=host.world.directory)
        assert all([await works(stream) for stream in opened])
        server.close()

    host.world.play(run())


def mix(a: int, b: int) -> int:
    """cham_mix of fastpath/base.h."""
    return (a * b ^ a * b >> 64) & U64


def colliding(resident: Resident) -> Iterator[Segment]:
    """SYNs whose keys have one bucket and no other: an attacker, who has not the secret, cannot know them."""
    secret = [int(word) for word in resident.instance.memory.cores[0].head["secret"][0]]
    mask = next(m for m in resident.instance.layout.maps if m.name == "flows").mask
    for source, port in itertools.product(range(1, 200), range(1024, 65536)):
        address = f"10.9.{source}.1"
        packed = int.from_bytes(bytes(map(int, address.split("."))) + port.to_bytes(2, "big") + PORT.to_bytes(2, "big"), "little")
        mixed = mix(mix(secret[0] ^ 8 ^ packed, secret[1]), 0x9E3779B97F4A7C15)
        if (mixed & mask, mixed >> 24 & mask) == (3 & mask, 3 & mask):
            yield Segment(address, RED, port, PORT, 1, flags=SYN, window=65535, options=((MSS, b"\x05\xb4"),))


@pytest.mark.fault(25)
def test_connections_whose_keys_collide_are_refused_at_a_bounded_cost(host: Host) -> None:
    def cycles() -> int:
        return int(host.red.counters["hooks"]["rx"]["cycles"])

    async def run() -> None:
        server = await host.serve("red", backlog=CONNECTIONS)
        costs = []
        for segment in itertools.islice(colliding(host.red), 4 * BUCKET):
            before = cycles()
            assert host.stranger.wire.send(host.stranger.mac + PEER_MAC + b"\x08\x00" + encode(segment))
            await asyncio.sleep(100e-6)
            costs.append(cycles() - before)
        assert host.stranger.flags == {0x12: BUCKET}, "as many as a bucket holds are answered"
        assert refused(host.red) == {"TABLE_FULL": 3 * BUCKET} and host.red.counters["events"]["hash_full"] == 3 * BUCKET
        unit = next(unit for unit in host.host.describe()["units"] if unit["index"] == host.red.instance.unit)
        assert max(costs) <= unit["cold"][0], "the worst case is the contract's, whatever the keys"
        assert max(costs[BUCKET:]) <= max(costs[:BUCKET]), "a full bucket costs no more than one with room"
        streams = [await host.connect(RED) for _ in range(CONNECTIONS - 2 * BUCKET)]
        connected = [stream for stream in streams if stream]
        assert all([await works(stream) for stream in connected])
        assert len(connected) >= len(streams) - 4, "others find room, but where their keys' buckets are that one, too"
        server.close()

    host.world.play(run())
