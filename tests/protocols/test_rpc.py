"""rpc in the virtual world: every request is answered once and executed once, whatever the wire does."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from typing import Any

import pytest

from chamelio import toolchain
from chamelio.engine.engine import Engine, EngineError
from chamelio.protocols import rpc
from chamelio.world import World

SERVER, CLIENT, PORT = "10.0.0.1", "10.0.0.2", 7
BAD_WIRE = "loss=10%,dup=5%,reorder=10%"
SOURCE = toolchain.PACKAGE / "protocols" / "rpc" / "rpc.bpf.c"


def two_hosts(world: World, fault: str | None = None, **options: Any) -> tuple[Engine, Engine]:
    a, b = world.host(**options), world.host(**options)
    world.wire(a, b, route="10.0.0.0/24", fault=fault)
    world.tenant(a, "red", SERVER, "rpc")
    world.tenant(b, "blue", CLIENT, "rpc")
    return a, b


async def serve(world: World, handler: rpc.Handler, port: int = PORT) -> rpc.Server:
    return await rpc.serve(handler, port, tenant="red", run=world.directory)


async def connect(world: World, **options: Any) -> rpc.Client:
    return await rpc.connect(SERVER, PORT, tenant="blue", run=world.directory, **options)


class Once:
    """A server's handler that notes what it has executed; the answer is the request backwards, after `seconds` at most."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.executed: Counter[bytes] = Counter()
        self._seconds, self._random = seconds, random.Random(1)

    async def __call__(self, request: bytes) -> bytes:
        self.executed[request] += 1
        if self._seconds:
            await asyncio.sleep(self._random.uniform(0, self._seconds))
        return request[::-1]


def message(number: int, size: int) -> bytes:
    """Different for each number, and at its end too."""
    return (b"%d." % number + random.Random(number).randbytes(size))[: max(size, 8)]


async def ask_all(client: rpc.Client, requests: list[bytes], outstanding: int) -> int:
    """Ask them all, so many at a time; how many right answers came."""
    right, todo = 0, iter(requests)

    async def ask() -> None:
        nonlocal right
        for request in todo:
            answer = await client.call(request)
            right += answer == request[::-1]

    await asyncio.gather(*(ask() for _ in range(outstanding)))
    return right


async def exchange(world: World, requests: list[bytes], outstanding: int, **options: Any) -> Counter[bytes]:
    """Each request is asked and answered once; what was executed."""
    once = Once()
    server = await serve(world, once)
    client = await connect(world, outstanding=outstanding, **options)
    assert await ask_all(client, requests, outstanding) == len(requests)
    await client.close()
    await server.close()
    return once.executed


def nothing_went_wrong(world: World) -> None:
    world.play(asyncio.sleep(0.1))  # what is still on its way arrives
    for resident in world.residents:
        assert resident.agent.runtime.errors == 0, resident.agent.runtime.last_error
        assert resident.agent.services.dropped == 0
    for host in world.hosts:
        assert host.free_frames[0] == host.free_frames[1]


def through_a_bad_wire(seed: int, total: int, outstanding: int = 256, size: int = 40) -> World:
    with World(seed) as world:
        a, _ = two_hosts(world, fault=f"{BAD_WIRE},seed={seed}")
        executed = world.play(exchange(world, [message(i, size) for i in range(total)], outstanding))
        assert len(executed) == total and set(executed.values()) == {1}
        port = a.describe()["ports"][0]
        faults = [port[direction] for direction in ("rx", "tx")]
        assert all(direction["lost"] > total // 20 < 20 * direction["duplicated"] for direction in faults)
        nothing_went_wrong(world)
    return world


def test_messages_of_all_sizes_are_answered(world: World) -> None:
    two_hosts(world)
    sizes = [*range(8, 20), 1439, 1440, 1441, 2879, 2880, 2881, 20_000, 65_535, 65_536]
    world.play(exchange(world, [message(i, size) for i, size in enumerate(sizes)], 4))

    async def empty() -> None:
        server = await serve(world, Once())
        client = await connect(world)
        assert await client.call(b"", timeout=1) == b""
        with pytest.raises(ValueError, match="65537 bytes"):
            await client.call(bytes(65537))
        await client.close()
        await server.close()

    world.play(empty())
    nothing_went_wrong(world)


def test_ten_thousand_requests_through_a_bad_wire() -> None:
    through_a_bad_wire(1, 10_000)


def test_long_messages_through_a_bad_wire() -> None:
    through_a_bad_wire(4, 600, 32, size=30_000)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_hundred_thousand_requests_through_a_bad_wire(seed: int) -> None:
    through_a_bad_wire(seed, 100_000)


def test_a_run_repeats_exactly() -> None:
    ends = [through_a_bad_wire(seed, 300, 32, size=4000).now for seed in (1, 1, 2)]
    assert ends[0] == ends[1] != ends[2]


# ---- several cores ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cores", [2, 3])
def test_sessions_live_on_all_cores(world: World, cores: int) -> None:
    hosts = two_hosts(world, fault=f"{BAD_WIRE},seed=5", cores=cores)
    executed = world.play(exchange(world, [message(i, i % 3000) for i in range(3000)], 512))
    assert len(executed) == 3000 and set(executed.values()) == {1}
    for host in hosts:
        runs = [int(c["instances"][0]["hooks"]["runs"][0]) for c in host.cores.counters]
        assert min(runs) > 200, "each core has served sessions"
    nothing_went_wrong(world)


# ---- another version ----------------------------------------------------------------------------------------------------------


def version(*defines: str) -> bytes:
    return toolchain.bpf_object(SOURCE, defines=defines)


def test_a_version_is_replaced_while_a_thousand_requests_are_outstanding(world: World) -> None:
    two_hosts(world, fault="loss=1%,seed=1")
    requests = [message(i, 100) for i in range(5000)]

    async def run() -> Counter[bytes]:
        once = Once(seconds=0.02)
        server = await serve(world, once)
        client = await connect(world, outstanding=1000)
        asking = asyncio.ensure_future(ask_all(client, requests, 1000))
        for ttl in (50, 51, 52):
            await asyncio.sleep(0.005)
            assert sum(call is not None for s in client._sessions for call in s.calls) > 950, "the others are just being asked"
            for resident in world.residents:
                resident.swap(version(f"RPC_TTL={ttl}"))
                with pytest.raises(EngineError, match="maps differ"):
                    resident.swap(version("RPC_EVENTS=8192"))
        assert await asking == len(requests)
        await client.close()
        await server.close()
        return once.executed

    executed = world.play(run())
    assert len(executed) == len(requests) and set(executed.values()) == {1}
    nothing_went_wrong(world)


# ---- flow control and pacing --------------------------------------------------------------------------------------------------


def test_a_session_keeps_to_its_rate(world: World) -> None:
    two_hosts(world)

    async def run() -> float:
        server = await serve(world, Once())
        client = await connect(world, rate=100e6)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await ask_all(client, [message(i, 14_400) for i in range(200)], 8)
        took = loop.time() - started
        await client.close()
        await server.close()
        return took

    took = world.play(run())
    assert took == pytest.approx(200 * 14_400 * 8 / 100e6, rel=0.1)


def test_credits_keep_the_receivers_backlog_from_overflowing(world: World) -> None:
    two_hosts(world)
    requests = [message(i, 60_000) for i in range(300)]
    executed = world.play(exchange(world, requests, 128))
    assert len(executed) == len(requests)
    assert [r.counters["drops"] for r in world.residents] == [{}, {}]


# ---- ends ---------------------------------------------------------------------------------------------------------------------


def test_a_port_that_nobody_serves_refuses(world: World) -> None:
    two_hosts(world)

    async def run() -> None:
        with pytest.raises(ConnectionRefusedError):
            await connect(world)

    world.play(run())


def test_a_host_that_is_not_there_is_given_up(world: World) -> None:
    two_hosts(world)
    loop = world.loop

    async def run() -> float:
        started = loop.time()
        with pytest.raises(OSError):
            await rpc.connect("10.0.0.77", PORT, tenant="blue", run=world.directory)
        return loop.time() - started

    assert world.play(run()) < 5


def test_clients_are_told_when_the_server_closes(world: World) -> None:
    two_hosts(world)

    async def run() -> None:
        server = await serve(world, Once(seconds=10))
        client = await connect(world)
        calls = [asyncio.ensure_future(client.call(b"%d" % i)) for i in range(40)]
        await asyncio.sleep(0.001)
        await server.close()
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {ConnectionResetError}
        with pytest.raises(ConnectionResetError):
            await client.call(b"again")
        await client.close()
        server = await serve(world, Once())
        client = await connect(world)
        assert await client.call(b"again") == b"niaga"
        await client.close()
        await server.close()

    world.play(run())
    nothing_went_wrong(world)


def test_a_connect_that_is_given_up_leaves_nothing(world: World) -> None:
    two_hosts(world)
    blue = world.residents[1]

    async def run() -> None:
        server = await serve(world, Once())
        for microseconds in (5, 50, 100, 200, 300):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(microseconds / 1e6):
                    client = await connect(world)
                    await client.close()
            await asyncio.sleep(0.1)
            assert blue.agent.slow_path._sessions == {}
        await server.close()

    world.play(run())
    nothing_went_wrong(world)


def test_a_client_can_be_opened_while_the_last_one_closes(world: World) -> None:
    two_hosts(world, cores=2)

    async def run() -> None:
        server = await serve(world, Once())
        for i in range(20):
            client = await connect(world)
            assert await client.call(b"%d" % i, timeout=1) == (b"%d" % i)[::-1]
            await client.close()
        await server.close()

    world.play(run())
    nothing_went_wrong(world)


def test_a_call_that_times_out_gives_its_slot_back_when_the_answer_comes(world: World) -> None:
    two_hosts(world)

    async def run() -> None:
        once = Once(seconds=0.05)
        server = await serve(world, once)
        client = await connect(world)
        results = await asyncio.gather(*(client.call(message(i, 10), timeout=0.01) for i in range(64)), return_exceptions=True)
        failed = sum(isinstance(result, TimeoutError) for result in results)
        assert 20 < failed < 64
        await asyncio.sleep(0.1)
        assert len(client._free) == 32
        assert await ask_all(client, [message(i, 10) for i in range(100, 200)], 32) == 100
        assert set(once.executed.values()) == {1}
        await client.close()
        await server.close()

    world.play(run())


def test_what_a_handler_raises_is_told_to_who_has_asked(world: World) -> None:
    two_hosts(world, fault=f"{BAD_WIRE},seed=1")
    world.loop.set_exception_handler(lambda loop, context: None)

    async def handler(request: bytes) -> bytes:
        if request.startswith(b"bad"):
            raise RuntimeError(f"no {request.decode()}")
        return bytes(65537) if request == b"long" else request

    async def run() -> None:
        server = await serve(world, handler)
        client = await connect(world)
        for i in range(50):
            assert await client.call(b"%d" % i) == b"%d" % i
            with pytest.raises(rpc.RemoteError, match=f"^RuntimeError: no bad {i}$"):
                await client.call(b"bad %d" % i)
        with pytest.raises(rpc.RemoteError, match="ValueError: an answer of 65537 bytes"):
            await client.call(b"long")
        assert (server.failed, server.executed) == (51, 50)
        await client.close()
        await server.close()

    world.play(run())
    nothing_went_wrong(world)
