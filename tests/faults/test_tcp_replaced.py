"""TCP is replaced while a thousand streams run: no reset, nothing lost or doubled, and what does not fit changes nothing."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path

import pytest

import chamelio
from chamelio.bench.rpc.connections import program
from chamelio.bench.stage import Stage
from chamelio.engine.engine import EngineError
from chamelio.protocols.tcp.states import machine
from chamelio.tenant.folder import copy_folder, read_protocol
from chamelio.world import World
from host.pair import ADDRESSES, Pair
from host.rig import wait_until

SERVER, PORT = "10.0.0.1", 7
CLIENTS, STREAMS = 4, 250  # of each client: a thousand
ROUNDS, WINDOW = 3, 16  # exchanges of each stream; how many streams of a client have one under way
SWAP_EVERY_S = 200e-6


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Another version of TCP, whose packets live for one hop less, and one whose maps are others."""
    changes = {
        "fitting": ("segment.h", "#define TTL 64", "#define TTL 63"),
        "unfit": ("tcp.h", "#define TCP_CONNECTIONS 131072", "#define TCP_CONNECTIONS 65536"),
    }
    folders = []
    for name, (file, old, new) in changes.items():
        folder = copy_folder("tcp", tmp_path_factory.mktemp(name) / "tcp")
        text = (folder / file).read_text()
        assert text.count(old) == 1
        (folder / file).write_text(text.replace(old, new))
        folders.append(folder)
    return folders[0], folders[1]


async def swap_on(world: World, fitting: list[bytes], unfit: bytes) -> None:
    """Replace the protocol of one tenant after the other, again and again."""
    number = 0
    while True:
        for resident in world.residents:
            await asyncio.sleep(SWAP_EVERY_S)
            number += 1
            resident.swap(fitting[number % 2])
            if number % 5 == 0:
                with pytest.raises(EngineError, match="maps differ"):
                    resident.swap(unfit)


class Echo:
    """Sends back what comes, and keeps a digest of all of it for each connection."""

    def __init__(self) -> None:
        self.digests: list[bytes] = []
        self.errors: list[Exception] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        digest = hashlib.sha256()
        try:
            while data := await reader.read(65536):
                digest.update(data)
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()
        except OSError as error:
            self.errors.append(error)
        self.digests.append(digest.digest())


async def client(world: World, name: str) -> list[bytes]:
    """Its streams, each with a few exchanges of any length; digests of what each has sent, which has come back."""
    room = asyncio.Semaphore(WINDOW)
    streams = []
    for _ in range(STREAMS):
        streams.append(await chamelio.open_connection(SERVER, PORT, tenant=name, run=world.directory))

    async def one(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        rnd, digest = random.Random(f"{name} {number}"), hashlib.sha256()
        for _ in range(ROUNDS):
            async with room:
                data = rnd.randbytes(rnd.choice((1, 64, 700, 4000)))
                digest.update(data)
                writer.write(data)
                assert await reader.readexactly(len(data)) == data
        writer.write_eof()
        assert await reader.read() == b"", "nothing comes twice"
        writer.close()
        await writer.wait_closed()
        return digest.digest()

    return await asyncio.gather(*(one(number, *stream) for number, stream in enumerate(streams)))


@pytest.mark.fault(17)
@pytest.mark.timeout(300)
def test_a_thousand_streams_are_not_reset_and_lose_and_double_nothing(world: World, versions: tuple[Path, Path]) -> None:
    a, b = world.host(), world.host()
    world.wire(a, b, route="10.0.0.0/16")
    world.tenant(a, "server", SERVER, "tcp")
    for i in range(CLIENTS):
        world.tenant(b, f"client{i}", f"10.0.1.{i + 1}", "tcp")
    fitting, unfit = [read_protocol("tcp")[1], read_protocol(str(versions[0]))[1]], read_protocol(str(versions[1]))[1]
    opened: dict[str, int] = {}

    async def run() -> tuple[Echo, list[bytes]]:
        echo = Echo()
        server = await chamelio.start_server(echo, port=PORT, tenant="server", run=world.directory, backlog=64)
        first = asyncio.create_task(chamelio.open_connection(SERVER, PORT, tenant="client0", run=world.directory))
        (await first)[1].close()  # few packets may wait for ARP
        await asyncio.sleep(0.01)
        echo.digests.clear()
        swapping = asyncio.create_task(swap_on(world, fitting, unfit))
        sent = await asyncio.gather(*(client(world, f"client{i}") for i in range(CLIENTS)))
        assert not swapping.done(), swapping.exception()
        swapping.cancel()
        opened["most"] = max_open[0]
        server.close()
        await asyncio.sleep(0.01)
        return echo, [digest for digests in sent for digest in digests]

    max_open, established = [0], machine().number("ESTABLISHED")
    about = world.residents[0].agent.region.values("about")

    def watch(_: int) -> None:
        max_open[0] = max(max_open[0], int((about["state"][:2048] == established).sum()))

    world.task(watch)
    echo, sent = world.play(run())
    assert len(sent) == CLIENTS * STREAMS == 1000 and opened["most"] >= 900
    assert not echo.errors and sorted(echo.digests) == sorted(sent)
    swaps = [int(host.counters()["swaps"]) for host in (a, b)]
    assert min(swaps) >= 3 and sum(swaps) >= 30, swaps
    for resident in world.residents:
        assert resident.counters["drops"] == {} and resident.counters["reasons"] == {}, resident.name
        rows = resident.agent.region.values("about")
        assert not rows["retransmitted"].any() and not rows["timeouts"].any(), "nothing had to be sent again"
    for host in (a, b):
        assert host.free_frames[0] == host.free_frames[1]


@pytest.mark.fault(17)
@pytest.mark.timeout(300)
def test_a_thousand_connections_of_real_processes_go_on(versions: tuple[Path, Path]) -> None:
    """Red serves, blue asks; a third tenant has had the other version compiled, so that a swap takes no longer than it must."""
    contents = [read_protocol(name)[1] for name in (str(versions[0]), "tcp")]
    with Stage() as stage:
        Pair(stage, "tcp")
        stage.tenant("green", "10.0.0.3")
        stage.load("green", "tcp", contents[0])
        stage.start(program("tcp_echo"), stage.socket("red", "tcp"), str(PORT), "2")
        options = ("--connections", "1000", "--outstanding", "200", "--seconds", "3", "--interval", "0.1")
        load = stage.start(program("tcp_load"), stage.socket("blue", "tcp"), ADDRESSES["red"], str(PORT), *options, ready=False)
        assert wait_until(lambda: len(load.reports) > 2, 30), load.errors()
        swaps = 0
        while load.running:
            for tenant in ADDRESSES:
                assert stage.load(tenant, "tcp", contents[swaps // 2 % 2])["action"] == "swapped"
                swaps += 1
        report = load.final(20)
        assert report is not None, load.errors()
        assert report["connections"] == 1000 and swaps >= 10
        assert report["sent"] == report["answered"] > 5_000
        assert [report[what] for what in ("lost", "late", "wrong", "failed", "closed")] == [0] * 5
