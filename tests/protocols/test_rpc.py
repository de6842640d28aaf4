"""rpc in the virtual world: every request is answered once and executed once, whatever the wire does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from chamelio.protocols import rpc
from chamelio.world import World

SERVER, CLIENT, PORT = "10.0.0.1", "10.0.0.2", 7


def two_hosts(world: World, fault: str | None = None, **options: Any) -> None:
    a, b = world.host(**options), world.host(**options)
    world.wire(a, b, route="10.0.0.0/24", fault=fault)
    world.tenant(a, "red", SERVER, "rpc")
    world.tenant(b, "blue", CLIENT, "rpc")


class Once:
    """A server's handler that notes what it has executed; the answer is the request backwards."""

    def __init__(self) -> None:
        self.executed: Counter[bytes] = Counter()

    async def __call__(self, request: bytes) -> bytes:
        self.executed[request] += 1
        return request[::-1]


def test_requests_are_answered(world: World) -> None:
    two_hosts(world)

    async def run() -> None:
        once = Once()
        server = await rpc.serve(once, PORT, tenant="red", run=world.directory)
        client = await rpc.connect(SERVER, PORT, tenant="blue", run=world.directory)
        for i in range(10):
            assert await client.call(b"%d" % i, timeout=1.0) == b"%d" % i
        for size in (0, 1, 1439, 1440, 1441, 2880, 20_000, 65_535, 65_536):
            request = bytes(i * size % 251 for i in range(size))
            assert await client.call(request, timeout=1.0) == request[::-1]
        await client.close()
        await server.close()

    world.play(run())
    for resident in world.residents:
        assert resident.agent.runtime.errors == 0, resident.agent.runtime.last_error


async def many(world: World, total: int, outstanding: int) -> tuple[Counter[bytes], int]:
    """`total` different requests, so many at a time; what was executed, and how many right answers came."""
    once = Once()
    server = await rpc.serve(once, PORT, tenant="red", run=world.directory)
    client = await rpc.connect(SERVER, PORT, outstanding=outstanding, tenant="blue", run=world.directory)
    right, numbers = 0, iter(range(total))

    async def ask() -> None:
        nonlocal right
        for number in numbers:
            request = b"request %8d" % number
            answer = await client.call(request)
            right += answer == request[::-1]

    await asyncio.gather(*(ask() for _ in range(outstanding)))
    await client.close()
    await server.close()
    return once.executed, right


def check(seed: int, total: int, outstanding: int = 256) -> None:
    with World(seed) as world:
        two_hosts(world, fault=f"loss=10%,dup=5%,reorder=10%,seed={seed}")
        executed, right = world.play(many(world, total, outstanding))
        assert right == len(executed) == total
        assert set(executed.values()) == {1}
        red, blue = world.residents
        drops = blue.counters["drops"], red.counters["drops"]
        assert red.agent.runtime.errors == blue.agent.runtime.errors == 0
        print(world.now, drops, [r.host.counters()["instances"][r.instance.index]["reasons"][:16] for r in world.residents])


def test_ten_thousand_requests_through_a_bad_wire() -> None:
    t = time.time()
    check(1, 10_000)
    print("WALL", time.time() - t)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_hundred_thousand_requests_through_a_bad_wire(seed: int) -> None:
    check(seed, 100_000)
