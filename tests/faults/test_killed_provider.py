"""The provider's own processes are killed: the engine goes on without the daemon, and nobody hangs without the engine."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest

from chamelio.sockets import create_datagram_endpoint
from faults.rig import ADDRESSES, CLIENT, PORT, SERVER, Host, kill, time_until
from host.rig import wait_until

TOLD_S = 1.0  # within which everybody has an error


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        host.set_up()
        for tenant in ADDRESSES:
            host.agent(tenant, "udp")
        yield host


@pytest.mark.fault(18)
def test_requests_are_answered_while_there_is_no_daemon_and_a_new_one_takes_over(host: Host) -> None:
    engine = host.pids()["engine"]
    host.echo()
    forgotten = host.echo(PORT + 1)
    requests = host.requests(60, "--rate", "5000", "--interval", "0.1")
    assert wait_until(lambda: len(requests.reports) >= 2)
    host.kill_daemon()
    kill(forgotten)  # nobody is there to be told that its context is free
    flowing = len(requests.reports)
    assert wait_until(lambda: len(requests.reports) >= flowing + 5)
    host.start_daemon()
    assert host.agents_are_back()
    assert (host.pids()["engine"], host.call("status")["engine"]["restarts"]) == (engine, 0)
    assert wait_until(lambda: host.protocol()["contexts"] == [1]), "the daemon's successor learns whose end it missed"
    host.echo(PORT + 1)  # new applications are served as ever
    flowing = len(requests.reports)
    assert wait_until(lambda: len(requests.reports) >= flowing + 2)
    assert sum(r["lost"] + r["wrong"] + r["late"] for r in requests.reports) == 0
    assert all(r["answered"] > 0 for r in requests.reports)
    assert host.protocol()["state"] == "attached"


@pytest.mark.fault(18)
def test_agents_stay_with_their_instances_through_many_daemons(host: Host) -> None:
    host.echo()
    before = host.engine()["instances"]
    for _ in range(3):
        host.kill_daemon()
        host.start_daemon()
        assert host.agents_are_back()
        final = host.requests(0.1).final(5.0)
        assert final is not None and final["answered"] > 0 and final["lost"] == 0
    assert host.engine()["instances"] == before


class Client(asyncio.DatagramProtocol):
    """Keeps asking, and notes when it is told that it is over."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[tuple[float, Exception | None]] = asyncio.get_running_loop().create_future()
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport)
        self.transport = transport
        transport.sendto(b"x" * 16)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.answers += 1
        self.transport.sendto(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result((time.monotonic(), exc))


async def asyncio_client(host: Host, engine: int) -> tuple[float, float]:
    """Kills the engine under an asyncio client: when that was, and when the client was told."""
    server = (ADDRESSES[SERVER], PORT)
    _, client = await create_datagram_endpoint(Client, remote_addr=server, tenant=CLIENT, run=host.run)
    assert isinstance(client, Client)
    async with asyncio.timeout(5):
        while not client.answers:
            await asyncio.sleep(0.001)
    os.kill(engine, signal.SIGKILL)
    killed = time.monotonic()
    async with asyncio.timeout(5):
        told, error = await client.lost
    assert isinstance(error, OSError)
    try:  # a new socket, at once: it may work already; it may not hang
        async with asyncio.timeout(TOLD_S):
            transport, _ = await create_datagram_endpoint(Client, remote_addr=server, tenant=CLIENT, run=host.run)
            transport.abort()
    except OSError:
        pass
    return killed, told


@pytest.mark.fault(19)
def test_everybody_is_told_within_a_second_when_the_engine_dies_and_served_by_the_next(host: Host) -> None:
    echo = host.echo()
    requests = host.requests(60)
    assert wait_until(lambda: requests.running and host.protocol(CLIENT)["contexts"] == [1])
    killed, told = asyncio.run(asyncio_client(host, host.pids()["engine"]))
    assert told - killed < TOLD_S
    for application in (echo, requests):
        assert time_until(lambda a=application: not a.running, killed) < TOLD_S + 0.5
    assert wait_until(lambda: host.call("status")["engine"]["restarts"] == 1)
    assert host.agents_are_back(), "agents follow to the next engine"
    host.echo()
    final = host.requests(0.2).final(5.0)
    assert final is not None and final["answered"] > 0 and final["lost"] == 0


@pytest.mark.fault(19)
def test_commands_answer_while_there_is_no_engine(host: Host) -> None:
    started = time.monotonic()
    assert host.command("status").returncode == 0
    usual = time.monotonic() - started
    for words in (("tenant", "list"), ("protocol", "list"), ("stats",), ("port", "list")):
        os.kill(host.pids()["engine"], signal.SIGKILL)
        started = time.monotonic()
        done = host.command(*words)
        assert time.monotonic() - started < usual + TOLD_S, words
        assert done.returncode in (0, 1, 4) and "Traceback" not in done.stderr, done.stderr
        assert wait_until(lambda: host.call("status")["engine"]["up"], 10.0)
