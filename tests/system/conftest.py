"""One host with two tenants per network back-end, all real processes, with unmodified Linux around it in network namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chamelio.bench.netns import NetNs, Veth
from chamelio.bench.stage import Stage
from netns import namespaces, need_af_xdp
from system.rig import ADDRESSES, ECHO_PORT, FAR, HOST, PEER, ROUTER, SERVER, System
from system.tcp_rig import BACKENDS, Line, joined

ECHO_SERVER = Path(__file__).parent / "echo_server.py"


@pytest.fixture(scope="module", params=["afxdp", "tap"])
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    with contextlib.ExitStack() as stack:
        peer, far, host = stack.enter_context(namespaces("peer", "far", "host"))
        Veth(far, peer, FAR, ROUTER, "veth1").join()
        if request.param == "afxdp":
            need_af_xdp()
            Veth(peer, host, PEER, HOST).join()
            port = f"eth=afxdp:veth0,netns={host.name}"
        else:
            port = f"eth=tap:tap0,netns={peer.name}"
        routes = ("--route", "10.77.0.0/24=eth", "--route", f"10.88.0.0/24=eth@{PEER}")
        stage = stack.enter_context(Stage("--port", port, *routes))
        if request.param == "tap":
            peer.address("tap0", PEER)
        peer.forward()
        far.add_route("10.77.0.0/24", ROUTER)
        for tenant, address in ADDRESSES.items():
            stage.tenant(tenant, address)
            stage.load(tenant, "udp")
            stage.agent(tenant, "udp")
        stage.start(sys.executable, str(ECHO_SERVER), SERVER, str(ECHO_PORT))
        yield System(request.param, stage, peer, far, host if request.param == "afxdp" else None)


@pytest.fixture
def linux_echo(system: System) -> Iterator[Callable[[NetNs, str, int], None]]:
    """Start a plain Linux echo server: `linux_echo(where, address, port)`."""
    with contextlib.ExitStack() as stack:

        def start(where: NetNs, address: str, port: int) -> None:
            sock = stack.enter_context(where.socket(timeout=0.05))
            sock.bind((address, port))
            stopping = threading.Event()

            def serve() -> None:
                while not stopping.is_set():
                    with contextlib.suppress(TimeoutError):
                        sock.sendto(*sock.recvfrom(2048))

            thread = threading.Thread(target=serve)
            thread.start()
            stack.callback(thread.join)
            stack.callback(stopping.set)

        yield start


@pytest.fixture
def run(system: System, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Run a coroutine as an application of a tenant of this host."""
    monkeypatch.setenv("CHAMELIO_RUN", str(system.stage.run))
    return asyncio.run


@pytest.fixture(scope="module", params=BACKENDS)
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    """A tenant's TCP and Linux's, joined."""
    with joined(request.param) as one:
        yield one


@pytest.fixture(scope="module", params=["tap", pytest.param("afxdp", marks=pytest.mark.long)])
def lossy(request: pytest.FixtureRequest) -> Iterator[Line]:
    """As `line`, over a bad network."""
    with joined(request.param, "loss=1%,reorder=2%,seed=3") as one:
        yield one
