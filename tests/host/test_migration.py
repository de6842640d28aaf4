"""A version with other maps takes the place of the running one: what can be carried over is, and a failure changes nothing."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chamelio.bpf.object import load_object
from chamelio.jit.work import value_types as spelled
from chamelio.messages import Refusal
from chamelio.sockets.stack import Stack
from chamelio.tenant.folder import read_protocol
from chamelio.tenant.migration import type_of_text
from chamelio.tenant.region import value_types
from faults.rig import Host, kill
from host.rig import alive, wait_until
from host.test_real import TENANT, Peer

OLD, NEW = (str(Path(__file__).parent / "counter" / version) for version in ("v1", "v2"))
NUMBERS = 200  # of v2/migrate.py


class Counting(Host):
    """A tenant that runs version 1 with an agent, and a peer on a wire."""

    def set_up(self) -> None:
        self.tenant("red", TENANT)
        self.load("red", OLD)
        self.old = self.agent("red", OLD)
        self.peer = Peer(self.run / "wires" / "w0")
        self.peer.resolve(TENANT)
        self.sent = 1

    def echo(self, count: int) -> int:  # type: ignore[override]
        """How many of so many datagrams come back."""
        self.sent += count
        return self.peer.echo(count)

    def ask(self, verb: str, **arguments: Any) -> Any:
        """A request of an application."""

        async def ask() -> Any:
            stack = await Stack.connect("red", "counter", self.run)
            try:
                return await stack.call(verb, **arguments)
            finally:
                stack.close()

        return asyncio.run(ask())

    def migrate(self, how: str = "") -> Any:
        """An agent of version 2 that takes over."""
        self._environment["MIGRATION"] = how
        return self.agent("red", NEW, "--migrate")

    def shown(self) -> dict[str, Any]:
        about: dict[str, Any] = self.call("protocol.show", tenant="red", protocol="counter")
        return about


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[Counting]:
    cores = getattr(request, "param", 1)
    with Counting("--port=w0=wire:w0:a", "--route=10.0.0.0/24=w0", f"--cores={cores}") as host:
        host.set_up()
        yield host
        host.peer.close()


@pytest.fixture(scope="module")
def steady() -> Iterator[Counting]:
    """One for all tests that change nothing."""
    with Counting("--port=w0=wire:w0:a", "--route=10.0.0.0/24=w0") as host:
        host.set_up()
        yield host
        host.peer.close()


@pytest.mark.fault(17)
@pytest.mark.parametrize("host", [1, 2], indirect=True, ids=["one core", "two cores"])
def test_values_keys_and_waiting_packets_are_carried_over(host: Counting) -> None:
    assert host.echo(50) == 50
    host.ask("limit", to=21)
    with pytest.raises(Refusal, match=r"does not fit.*adds numbers") as refusal:
        host.load("red", NEW)
    assert "--migrate" in refusal.value.remedy
    lost: list[int] = []
    busy = threading.Event()

    def traffic() -> None:
        while not busy.is_set():
            lost.append(10 - host.echo(10))

    thread = threading.Thread(target=traffic)
    thread.start()
    time.sleep(0.05)
    agent = host.migrate("waits")
    assert wait_until(lambda: not host.old.running)
    time.sleep(0.05)
    busy.set()
    thread.join()
    assert sum(lost) == 0, "what comes while the old version is paused waits for the new one"
    assert host.echo(20) == 20
    totals = host.ask("totals")
    assert totals == {"limit": 21, "packets": host.sent, "of_port": host.sent, "numbers": NUMBERS, "last": (NUMBERS - 1) ** 2}
    shown = host.shown()
    assert (shown["state"], shown["agent"], shown["version"]) == ("attached", agent.pid, 2)
    assert [(v["state"], v["result"].split(":")[0]) for v in shown["versions"]][-1] == ("running", "migrated")
    about = host.engine()
    assert len(about["instances"]) == len(about["units"]) == 1 and about["instances"][0]["state"] == "active"
    assert host.frames_are_back()
    with pytest.raises(Refusal, match="does not fit"):
        host.call("protocol.rollback", tenant="red", protocol="counter")
    again = host.start(*agent_command("red", NEW, "--migrate"), ready=False)
    again.final(10.0)
    assert "fits the running one" in again.errors()


def agent_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "chamelio.tenant.agent", *words]


@pytest.mark.fault(17)
@pytest.mark.parametrize(("how", "says"), [("throws", "half way"), ("dies", ""), ("hangs", "")])
def test_a_migration_that_fails_leaves_the_old_version_running(steady: Counting, how: str, says: str) -> None:
    host = steady
    assert host.echo(10) == 10
    before = host.shown()
    host._environment["MIGRATION"] = how
    agent = host.start(*agent_command("red", NEW, "--migrate"), ready=False)
    if how == "hangs":
        assert wait_until(lambda: len(host.engine()["instances"]) == 2)
        with pytest.raises(Refusal, match="is migrating"):
            host.call("protocol.rm", tenant="red", protocol="counter")
        started = time.monotonic()
        assert wait_until(lambda: len(host.engine()["instances"]) == 1)
        assert time.monotonic() - started < 3.0, "there is a time limit"
        kill(agent)
    else:
        agent.final(10.0)
        assert not agent.running and says in agent.errors()
    assert wait_until(lambda: len(host.engine()["instances"]) == 1)
    about = host.engine()
    assert len(about["units"]) == 1 and about["instances"][0]["state"] == "active"
    assert host.echo(10) == 10
    assert host.ask("totals")["packets"] == host.sent
    shown = host.shown()
    assert (shown["unit"], shown["agent"], shown["instance"]) == (before["unit"], before["agent"], before["instance"])
    assert host.old.running and host.frames_are_back()


@pytest.mark.fault(17)
def test_a_daemon_that_dies_in_a_migration_leaves_the_old_version_running(steady: Counting) -> None:
    host = steady
    host._environment["MIGRATION"] = "hangs"
    agent = host.start(*agent_command("red", NEW, "--migrate"), ready=False)
    assert wait_until(lambda: len(host.engine()["instances"]) == 2)
    host.kill_daemon()
    host.start_daemon()
    about = host.engine()
    assert len(about["instances"]) == len(about["units"]) == 1 and about["instances"][0]["state"] == "active"
    assert host.echo(10) == 10
    assert host.agents_are_back() and alive(host.old.pid)
    kill(agent)


def test_a_protocol_without_a_migration_says_so(steady: Counting) -> None:
    host = steady
    agent = host.start(*agent_command("red", "udp", "--name", "counter", "--migrate"), ready=False)
    agent.final(10.0)
    assert "brings no migration" in agent.errors()
    assert host.echo(5) == 5


@pytest.mark.parametrize("protocol", ["udp", "ping", "rpc", NEW])
def test_types_are_read_back_from_their_texts(protocol: str) -> None:
    obj = load_object(read_protocol(protocol)[1])
    types = value_types(obj)
    for m, text in zip(obj.maps, spelled(obj), strict=True):
        if text:
            assert type_of_text(text) == types[m.name]


def test_nested_types_and_nonsense() -> None:
    nested = np.dtype({"names": ["a"], "formats": [np.dtype((np.dtype([("x", "<u2"), ("y", "|u1", (3,))]), (2,)))], "offsets": [4]})
    assert type_of_text("{a:{x:<u2@0 y:|u1[3]@2}5[2]@4}14") == nested
    for nonsense in ("", "{", "{a:}", "u4", "<u4}", "{a:<u4@0}4x"):
        with pytest.raises(ValueError):
            type_of_text(nonsense)
