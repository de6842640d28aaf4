"""A host with two tenants, all real processes, any of which may be killed: red serves echo, blue asks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from chamelio.bench.stage import Process, Stage, build_application
from chamelio.messages import Channel, Refusal, connect
from host.rig import alive, descriptors, wait_until

SERVER, CLIENT = "red", "blue"
ADDRESSES = {SERVER: "10.0.0.1", CLIENT: "10.0.0.2"}
PORT = 7
NOTICED_S = 0.1  # within which the death of an application or an agent is noticed


class Host(Stage):
    """The stage, with ways to kill what is on it."""

    def set_up(self) -> None:
        for tenant, address in ADDRESSES.items():
            self.tenant(tenant, address)
            self.load(tenant, "udp")

    def echo(self, port: int = PORT) -> Process:
        """An echo server of red."""
        return self.start(str(build_application("echo")), self.socket(SERVER), str(port))

    def requests(self, seconds: float, *options: str, port: int = PORT) -> Process:
        """A load generator of blue."""
        command = (str(build_application("load")), self.socket(CLIENT), ADDRESSES[SERVER], str(port), "--seconds", str(seconds))
        return self.start(*command, *options, ready=False)

    def protocol(self, tenant: str = SERVER) -> dict[str, Any]:
        """What the daemon knows of a tenant's udp."""
        shown: dict[str, Any] = self.call("protocol.show", tenant=tenant, protocol="udp")
        return shown

    def pids(self) -> dict[str, int]:
        """Of the daemon and the engine."""
        status = self.call("status")
        return {"daemon": status["pid"], "engine": status["engine"]["pid"]}

    def engine(self) -> dict[str, Any]:
        """The engine's own description, asked directly."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.run / "engine.sock"))
        with Channel(sock, timeout=5.0) as channel:
            about: dict[str, Any] = channel.call("describe")[0]["engine"]
        return about

    def frames_are_back(self) -> bool:
        """Nothing is under way and no frame is lost."""

        def all_free() -> bool:
            frames = self.engine()["frames"]
            return bool(frames["free"] == frames["total"])

        return wait_until(all_free)

    def agents_are_back(self, seconds: float = 10.0) -> bool:
        """Every protocol is served, and applications can connect."""

        def attached() -> bool:
            try:
                served = self.call("protocol.list")
                listening = (self.run / "tenants" / p["tenant"] / f"{p['name']}.sock" for p in served)
                return all(p["state"] == "attached" for p in served) and all(path.exists() for path in listening)
            except Refusal:
                return False

        return wait_until(attached, seconds)

    def kill_daemon(self) -> None:
        pid = self.pids()["daemon"]
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: not alive(pid))

    def start_daemon(self) -> None:
        """A new chameliod for the engine that there is."""
        done = self.command("up", "--detach", *self._up)
        assert done.returncode == 0, done.stderr
        assert self._channel is not None
        self._channel.close()
        self._channel = connect(self.run)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """One command of the command line; a hang is a failure."""
        command = [sys.executable, "-m", "chamelio", *words]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False, timeout=20)


def kill(process: Process) -> float:
    """SIGKILL; when that was."""
    os.kill(process.pid, signal.SIGKILL)
    return time.monotonic()


def time_until(condition: Callable[[], Any], since: float, limit: float = 5.0) -> float:
    """Seconds from `since` until a condition holds; it is looked at all the time."""
    while not condition():
        assert time.monotonic() - since < limit, "it never came"
        time.sleep(0.001)
    return time.monotonic() - since


def count_descriptors(pids: dict[str, int]) -> dict[str, int]:
    """Open descriptors per process."""
    return {name: descriptors(pid) for name, pid in pids.items()}


def no_more_descriptors(pids: dict[str, int], before: dict[str, int]) -> bool:
    """Nobody has more than before."""
    return wait_until(lambda: all(n <= before[name] for name, n in count_descriptors(pids).items()))


def assert_noticed(times: list[float]) -> None:
    """In time, but for what a loaded machine adds now and then."""
    assert sorted(times)[len(times) * 9 // 10 - 1] < NOTICED_S, times
    assert max(times) < 1.0, times
