"""Applications and agents that are killed, again and again, while requests are under way: noticed soon, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from chamelio.sockets import DatagramTransport, create_datagram_endpoint
from faults.rig import SERVER, Host, assert_noticed, count_descriptors, kill, no_more_descriptors, time_until
from host.rig import wait_until

SOCKETS = 128  # UDP_SOCKETS
GRACE_S = 2.0


@pytest.fixture
def host() -> Iterator[Host]:
    with Host("--grace", str(GRACE_S)) as host:
        host.set_up()
        yield host


async def bind_all(host: Host) -> int:
    """How many sockets a tenant's application can have."""
    transports: list[DatagramTransport] = []
    try:
        while len(transports) <= SOCKETS:
            transport, _ = await create_datagram_endpoint(asyncio.DatagramProtocol, tenant=SERVER, run=host.run)
            transports.append(transport)
    except OSError:
        pass
    for transport in transports:
        transport.abort()
    await asyncio.sleep(0)
    return len(transports)


def kill_applications(host: Host, times: int) -> None:
    agents = {"server": host.agent(SERVER, "udp"), "client": host.agent("blue", "udp")}
    pids = {**host.pids(), **{name: agent.pid for name, agent in agents.items()}}
    kill(host.echo())
    assert wait_until(lambda: host.protocol()["contexts"] == [])
    before, noticed = count_descriptors(pids), []
    requests = host.requests(600, "--rate", "2000", "--interval", "0.1")
    for _ in range(times):
        application = host.echo()  # there is a context for it, and the port is free
        answered = len(requests.reports)
        assert wait_until(lambda n=answered: any(r["answered"] for r in requests.reports[n:]))
        noticed.append(time_until(lambda: host.protocol()["contexts"] == [], kill(application)))
    kill(requests)
    assert_noticed(noticed)
    assert wait_until(lambda: host.protocol("blue")["contexts"] == [])
    assert host.frames_are_back()
    assert no_more_descriptors(pids, before), (before, count_descriptors(pids))
    assert asyncio.run(bind_all(host)) == SOCKETS


def kill_agents(host: Host, times: int) -> None:
    pids = host.pids()
    host.agent("blue", "udp")
    noticed, told = [], []
    before = {"daemon": 0, "engine": 0}
    for i in range(times):
        agent = host.agent(SERVER, "udp")
        application = host.echo()
        if i == 0:
            before = count_descriptors(pids)
        assert host.requests(0.05).final(5.0)
        killed = kill(agent)
        noticed.append(time_until(lambda: host.protocol()["state"] == "grace", killed))
        told.append(time_until(lambda a=application: not a.running, killed))
    assert_noticed(noticed)
    assert max(told) < 1.0, told
    assert len(host.engine()["instances"]) == 2, "an agent that comes back in time finds its instance"
    assert no_more_descriptors(pids, before), (before, count_descriptors(pids))
    assert wait_until(lambda: host.protocol()["state"] == "dormant", 2 * GRACE_S)
    assert len(host.engine()["instances"]) == 1
    assert host.frames_are_back()
    host.agent(SERVER, "udp")
    assert asyncio.run(bind_all(host)) == SOCKETS


@pytest.mark.fault(9)
def test_killed_applications_are_noticed_and_leave_nothing(host: Host) -> None:
    kill_applications(host, 20)


@pytest.mark.fault(9)
def test_killed_agents_are_noticed_and_leave_nothing(host: Host) -> None:
    kill_agents(host, 8)


@pytest.mark.long
@pytest.mark.fault(9)
@pytest.mark.timeout(3600)
def test_a_thousand_killed_applications_and_agents_leave_nothing(host: Host) -> None:
    kill_agents(host, 1000)
    host.agent("blue", "udp")
    kill_applications(host, 1000)
