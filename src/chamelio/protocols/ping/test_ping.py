"""ping in the virtual world: two hosts, a wire that loses packets, real handlers and real applications in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from client import Client

from chamelio.world import World

HERE = Path(__file__).parent
RED, BLUE = "10.0.0.1", "10.0.0.2"


def two_hosts(world: World, fault: str | None = None) -> None:
    a, b = world.host(), world.host()
    world.wire(a, b, route="10.0.0.0/24", fault=fault)
    world.tenant(a, "red", RED, HERE)
    world.tenant(b, "blue", BLUE, HERE)


def test_everybody_answers(world: World) -> None:
    two_hosts(world)

    async def run() -> None:
        blue = await Client.connect("blue", world.directory)
        for _ in range(10):
            assert await blue.ping(RED) < 0.001
        red = await Client.connect("red", world.directory)
        assert (await red.totals())["answered"] == 10
        red.close()
        blue.close()

    world.play(run())


def test_who_is_muted_does_not_answer(world: World) -> None:
    two_hosts(world)

    async def run() -> bool:
        red, blue = await Client.connect("red", world.directory), await Client.connect("blue", world.directory)
        await blue.ping(RED)
        await red.mute()
        try:
            await blue.ping(RED)
        except TimeoutError:
            return (await red.totals())["ignored"] == 1
        finally:
            red.close()
            blue.close()
        return False

    assert world.play(run())


def test_a_lossy_wire_loses_some(world: World) -> None:
    two_hosts(world, fault="loss=10%,seed=3")

    async def run() -> int:
        blue = await Client.connect("blue", world.directory)
        answers = await asyncio.gather(*(blue.ping(RED) for _ in range(20)), return_exceptions=True)
        blue.close()
        return sum(isinstance(a, float) for a in answers)

    assert 10 < world.play(run()) < 20
