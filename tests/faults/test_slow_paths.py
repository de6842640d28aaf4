"""Slow paths that throw, hang and flood: bounded queues, counted losses, the traceback where people look, others unaffected."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chamelio import toolchain
from chamelio.bench.stage import Process, build_application
from chamelio.tenant.runtime import MAX_BACKLOG
from faults.rig import ADDRESSES, CLIENT, PORT, SERVER, Host
from host.rig import wait_until
from neighbours import NEIGHBOUR, NEIGHBOUR_PEER, Neighbour, assert_clean, measure
from virtual import udp

HERE = Path(__file__).parent
CLOSED = 9  # a port that nobody has: what comes for it is the slow path's
THIRD, THIRD_ADDRESS = "green", "10.0.0.3"


@pytest.fixture
def naughty(tmp_path: Path) -> str:
    """A folder: udp's handlers and a slow path that misbehaves."""
    folder = tmp_path / "naughty"
    folder.mkdir()
    source = toolchain.PACKAGE / "protocols" / "udp" / "udp.bpf.c"
    lines = ('name = "udp"', "ip_protocol = 17", f'source = "{source}"', 'slowpath = "naughty:Naughty"', 'steer = "port"')
    (folder / "protocol.toml").write_text("\n".join(lines))
    (folder / "naughty.py").write_text((HERE / "slowpaths" / "naughty.py").read_text())
    return str(folder)


class Naughty(Host):
    """Red's slow path misbehaves; blue asks red and green for echoes."""

    def begin(self, how: str, folder: str) -> Process:
        self.set_up()
        self.tenant(THIRD, THIRD_ADDRESS)
        self.load(THIRD, "udp")
        self.agent(CLIENT, "udp")
        self.agent(THIRD, "udp")
        self._environment["NAUGHTY"] = how
        agent = self.agent(SERVER, folder)
        del self._environment["NAUGHTY"]
        self.echo()
        third = self.start(str(build_application("echo")), self.socket(THIRD), str(PORT))
        assert third.running
        return agent

    def provoke(self) -> Process:
        """Packets for a port that nobody has."""
        return self.requests(60, "--rate", "2000", "--interval", "0.1", port=CLOSED)

    def others_are_served(self) -> None:
        """The third tenant's echo answers, and red's own handlers go on: nothing is lost."""
        for address in (THIRD_ADDRESS, ADDRESSES[SERVER]):
            command = (
                str(build_application("load")),
                self.socket(CLIENT),
                address,
                str(PORT),
                "--seconds",
                "0.4",
                "--rate",
                "2000",
            )
            done = self.start(*command, ready=False).final(10.0)
            assert done is not None and done["answered"] > 0 and done["lost"] == 0, (address, done)

    def slow_path(self) -> dict[str, Any]:
        about: dict[str, Any] = self.protocol()["slow_path"]
        return about


@pytest.fixture
def host() -> Iterator[Naughty]:
    with Naughty() as host:
        yield host


@pytest.mark.fault(11)
def test_a_slow_path_that_throws_goes_on_and_its_traceback_is_shown(host: Naughty, naughty: str) -> None:
    agent = host.begin("throw", naughty)
    assert wait_until(lambda: "at the start" in host.slow_path().get("traceback", ""))
    provoking = host.provoke()
    assert wait_until(lambda: host.slow_path().get("errors", 0) > 3)
    host.others_are_served()
    shown = host.slow_path()
    assert shown["state"] == "failing" and agent.running and provoking.running
    assert "in on_packets" in shown["traceback"] and "of its own making" in shown["traceback"]
    assert "\x1b" not in shown["traceback"]
    for command in (("tenant", "show", SERVER), ("protocol", "show", SERVER, "udp")):
        done: subprocess.CompletedProcess[str] = host.command(*command)
        assert "  | ZeroDivisionError" in done.stdout and "state=failing" in done.stdout
    assert host.protocol(CLIENT)["slow_path"]["state"] == "ok"


@pytest.mark.fault(11)
def test_a_slow_path_that_hangs_is_shown_where_and_keeps_nobody_waiting(host: Naughty, naughty: str, tmp_path: Path) -> None:
    agent = host.begin(f"hang:{tmp_path / 'go on'}", naughty)
    host.provoke()
    assert wait_until(lambda: host.slow_path()["state"] == "hung")
    host.others_are_served()
    shown = host.slow_path()
    assert shown["hung_s"] >= 1.0 and "naughty.py" in shown["traceback"] and "time.sleep(0)" in shown["traceback"]
    counters = host.protocol()["counters"]
    assert counters["drops"]["punt_full"] > 0, "what the slow path does not take is dropped, by reason"
    (tmp_path / "go on").touch()
    assert wait_until(lambda: host.slow_path()["state"] == "ok")
    assert agent.running


@pytest.mark.fault(11)
def test_a_slow_path_that_floods_has_bounded_queues_and_its_losses_are_counted(host: Naughty, naughty: str) -> None:
    agent = host.begin("flood", naughty)
    before = memory(agent.pid)
    provoking = host.provoke()
    assert wait_until(lambda: host.slow_path().get("dropped", 0) > 20 * MAX_BACKLOG)
    host.others_are_served()
    assert host.slow_path()["state"] == "losing" and agent.running and provoking.running
    assert memory(agent.pid) - before < 32 << 20
    provoking.end()
    assert host.frames_are_back()


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def slow_path_at_work(n: Neighbour, packet: bytes) -> None:
    """Its peer sends what is for the slow path, too, which sends as many packets and entries as there is room for."""
    n.flood("e", "p")
    n.ask()
    requests, raw = n.tenant.ring("requests", 0), n.tenant.raw("xmit")
    while (requests.prod - requests.cons) & 0xFFFFFFFF < requests.slots:
        requests.put(1, 0, 0)
    while (raw.prod - raw.cons) & 0xFFFFFFFF < raw.slots:
        n.tenant.send_raw(packet)


@pytest.mark.fault(11)
def test_floods_of_a_slow_path_are_not_noticed_next_door() -> None:
    def works(n: Neighbour) -> None:
        slow_path_at_work(n, udp(NEIGHBOUR, NEIGHBOUR_PEER, bytes(20)))
        n.drain()

    def floods(n: Neighbour) -> None:
        slow_path_at_work(n, bytes([0x45]) + bytes(47))  # and it takes nothing

    during = measure(floods)
    assert_clean(during, measure(works))
    assert during.neighbour_drops["punt_full"] > 0 and during.neighbour_drops["tx_bad_header"] > 0
