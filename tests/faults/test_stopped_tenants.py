"""Applications and agents that are stopped, not killed: the engine does not wait for them, and they go on where they were."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from chamelio.bench.stage import Process
from faults.rig import CLIENT, PORT, SERVER, Host
from host.rig import wait_until

SOCKET_BUFFER = 65536  # UDP_BUFFER: what waits for a stopped application


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        host.set_up()
        yield host


def stop(process: Process) -> None:
    os.kill(process.pid, signal.SIGSTOP)


def go_on(process: Process) -> None:
    os.kill(process.pid, signal.SIGCONT)


@pytest.mark.fault(10)
def test_requests_are_answered_while_both_agents_are_stopped(host: Host) -> None:
    agents = [host.agent(tenant, "udp") for tenant in (SERVER, CLIENT)]
    host.echo()
    requests = host.requests(60, "--rate", "2000", "--interval", "0.1")
    assert wait_until(lambda: len(requests.reports) >= 2)
    for agent in agents:
        stop(agent)
    flowing = len(requests.reports)
    assert wait_until(lambda: len(requests.reports) >= flowing + 10)
    for agent in agents:
        go_on(agent)
    assert all(r["answered"] > 0 and r["lost"] == 0 for r in requests.reports)
    host.echo(PORT + 1)  # the agent serves applications again


@pytest.mark.fault(10)
def test_what_a_stopped_application_does_not_take_is_its_own_loss(host: Host) -> None:
    for tenant in (SERVER, CLIENT):
        host.agent(tenant, "udp")
    stopped = host.echo()
    stop(stopped)
    host.echo(PORT + 1)
    flood = host.requests(60, "--rate", "2000", "--interval", "0.1", "--bytes", "1000")
    assert wait_until(lambda: sum(r["sent"] for r in flood.reports) * 1000 > 4 * SOCKET_BUFFER)
    shown = host.protocol()["counters"]
    assert shown["drops"].get("handler_error", 0) > 0, shown
    other = host.requests(0.3, port=PORT + 1).final(5.0)
    assert other is not None and other["answered"] > 0 and other["lost"] == 0
    go_on(stopped)
    answered = len(flood.reports)
    assert wait_until(lambda: any(r["answered"] > 0 and r["lost"] == 0 for r in flood.reports[answered + 12 :]), 10.0)
