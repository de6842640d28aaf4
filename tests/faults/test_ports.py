"""The network under a running host changes: interfaces go down, shrink and vanish; the port follows, and no frame is lost."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chamelio.bench.netns import NetNs, Veth
from faults.rig import PORT, SERVER, Host
from host.rig import wait_until
from netns import namespaces, need_af_xdp

pytestmark = pytest.mark.root

TENANT, PEER, HOST = "10.77.0.10", "10.77.0.1", "10.77.0.2"
BACK_S = 8.0  # within which a port is used again: the control plane looks once a second, with back-off


class Plugged(Host):
    """One tenant with an echo server behind a port of the kernel's, and a Linux peer."""

    def __init__(self, port: str, peer: NetNs, interface: str, where: NetNs, join: Callable[[], None]) -> None:
        super().__init__("--port", f"eth={port}", "--route", "10.77.0.0/24=eth", "--frames", "512")
        self.peer, self.interface, self.where, self.join = peer, interface, where, join

    def set_up(self) -> None:
        self.tenant(SERVER, TENANT)
        self.load(SERVER, "udp")
        self.agent(SERVER, "udp")
        self.echo()

    def shrink(self, mtu: int) -> None:
        self.where.route(lambda ip, index: ip.link("set", index=index, mtu=mtu), self.interface)

    def state(self) -> str:
        return str(self.call("port.list")[0]["state"])

    def answered(self) -> bool:
        """Whether a datagram comes back."""
        with self.peer.socket(timeout=0.2) as sock, contextlib.suppress(OSError):
            sock.sendto(b"are you there?", (TENANT, PORT))
            return sock.recv(100) == b"are you there?"
        return False


@pytest.fixture(params=["afxdp", "tap"])
def host(request: pytest.FixtureRequest) -> Iterator[Plugged]:
    with contextlib.ExitStack() as stack:
        peer, where = stack.enter_context(namespaces("peer", "host"))
        if request.param == "tap":
            made = Plugged(f"tap:tap0,netns={peer.name}", peer, "tap0", peer, lambda: None)
        else:
            need_af_xdp()
            veth = Veth(peer, where, PEER, HOST)
            veth.join()
            made = Plugged(f"afxdp:veth0,netns={where.name}", peer, "veth0", where, veth.join)
        stack.enter_context(made)
        if request.param == "tap":
            peer.address("tap0", PEER)
        made.set_up()
        assert wait_until(made.answered)
        yield made


@contextlib.contextmanager
def flood(host: Plugged) -> Iterator[None]:
    """Datagrams to the tenant, all the time."""
    stopping = threading.Event()

    def run() -> None:
        while not stopping.is_set():
            with contextlib.suppress(OSError), host.peer.socket(timeout=0.01) as sock:
                for _ in range(200):
                    sock.sendto(bytes(200), (TENANT, PORT))
                    time.sleep(0.0002)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    stopping.set()
    thread.join()


class Audit:
    """Counts the frames while something goes on."""

    def __init__(self, host: Plugged) -> None:
        self._host = host
        self.counts = 0

    def look(self) -> dict[str, Any]:
        """Free and waiting frames are all that there are."""
        frames: dict[str, Any] = self._host.engine()["frames"]
        assert frames["lost"] == 0, frames
        self.counts += 1
        return frames

    def until(self, condition: Callable[[], bool], seconds: float = BACK_S) -> None:
        """Count until something holds."""

        def looked() -> bool:
            self.look()
            return condition()

        assert wait_until(looked, seconds), self._host.state()


@pytest.mark.fault(20)
def test_no_frame_is_lost_while_the_interface_goes_down_shrinks_and_vanishes(host: Plugged) -> None:
    audit = Audit(host)
    with flood(host):
        audit.until(lambda: audit.counts > 20)
        host.where.down(host.interface)
        audit.until(lambda: host.state() == "down: the interface is down")
        host.shrink(1000)
        host.where.up(host.interface)
        audit.until(lambda: host.state().startswith("down: the interface's MTU is 1000"))
        host.shrink(1500)
        audit.until(lambda: host.state() == "up")
        host.where.delete(host.interface)
        audit.until(lambda: host.state().startswith("down: the interface has gone"))
        audit.until(lambda: audit.counts > 100)
    assert host.frames_are_back()
    if host.interface == "veth0":
        host.join()
        audit.until(lambda: host.state() == "up")
        audit.until(host.answered)
        assert host.call("port.list")[0]["reopened"] == 1
        assert host.frames_are_back()
    assert "frames are lost" not in (host.run / "engine.log").read_text()
