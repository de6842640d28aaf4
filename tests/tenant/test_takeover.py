"""An agent takes the place of another: who may have a context back; and a slow path that asks to be called."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from chamelio.sockets.stack import Stack, _say_hello, application_socket
from chamelio.tenant.agent import RECLAIM_S
from chamelio.tenant.runtime import Runtime, Services, SlowPath
from chamelio.tenant.steering import flow_core
from chamelio.world import World
from engine.test_cores import owner

ADDRESS = "10.0.0.1"


def test_only_who_has_its_doorbell_gets_a_context_back(world: World) -> None:
    agent = world.tenant(world.host(), "red", ADDRESS, "rpc").agent
    path = application_socket("red", "rpc", world.directory)

    async def refused(context: object, fds: list[int]) -> bool:
        with pytest.raises(OSError) as raised:
            await _say_hello(path, {"context": context}, fds)
        return raised.value.errno == errno.ESTALE

    async def run() -> None:
        one = await Stack.connect("red", "rpc", world.directory)
        other = await Stack.connect("red", "rpc", world.directory)
        assert (one.context, other.context) == (1, 2)
        assert await refused(1, [one._bell]), "it has not gone"
        agent._orphans |= {1, 2}  # as if a former agent had given them out
        read, write = os.pipe()
        for context, fds in ((1, []), (1, [other._bell]), (2, [one._bell]), (1, [read]), (7, [one._bell]), ("1", [one._bell])):
            assert await refused(context, fds), (context, fds)
        os.close(read)
        os.close(write)
        channel, about, given = await _say_hello(path, {"context": 1}, [one._bell])
        assert about["context"] == 1 and agent._orphans == {2}
        assert await refused(1, [one._bell]), "it is back already"
        for fd in given:
            os.close(fd)
        channel.close()
        one.close()
        other.close()
        await asyncio.sleep(0.01)

    world.play(run())
    assert RECLAIM_S < 4.0, "applications look for a new agent for longer"


class Due(SlowPath):
    """Notes when it is called."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.called: list[int] = []
        self.next: int | None = None

    def on_time(self, now: int) -> int | None:
        self.called.append(now)
        return self.next


def test_a_slow_path_is_called_when_it_asks_for_it_and_when_it_said(world: World) -> None:
    agent = world.tenant(world.host(), "red", ADDRESS, "ping").agent
    services = agent.services
    slow_path = Due(services)
    runtime = Runtime(services.region, services, slow_path, None)
    runtime.poll(10)
    assert slow_path.called == [10] and runtime.due is None
    services.call_at(30)
    services.call_at(50)
    assert runtime.due == 30
    runtime.poll(29)
    slow_path.next = 40
    runtime.poll(31)
    assert slow_path.called == [10, 31] and runtime.due == 40
    services.call_at(0)
    assert runtime.due == 0


@pytest.mark.parametrize("cores", [1, 2, 3, 8])
def test_flows_are_steered_as_the_engine_does(cores: int) -> None:
    remote = int.from_bytes(bytes([10, 0, 0, 9]), "little")
    for port in range(1000, 1100):
        assert flow_core(cores, remote, port, 7) == owner(cores, port, 7, peer="10.0.0.9")
