"""Readers of metrics that stall, in every way there is: packets, requests to the daemon and other readers do not wait for them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from faults.rig import CLIENT, SERVER, Host
from host.rig import wait_until
from metrics_rig import connect, get

STALLED = 40  # more than are served at once
_MAPS_COUNTERS = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print("reading", flush=True)
while True:
    bytes(memory)
"""


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as host:
        host.set_up()
        for tenant in (SERVER, CLIENT):
            host.agent(tenant, "udp")
        host.echo()
        yield host


def stalled_sockets(host: Host) -> list[socket.socket]:
    """Readers that say nothing, half of a request, or a whole one and do not take the reply."""
    sockets = [connect(host.run) for _ in range(STALLED)]
    for i, sock in enumerate(sockets):
        with contextlib.suppress(OSError):  # the oldest are hung up on
            sock.send((b"", b"GET /metrics HTTP/1.1\r\n", b"GET /metrics HTTP/1.1\r\n\r\n")[i % 3])
    return sockets


@pytest.mark.fault(28)
def test_packets_do_not_wait_for_readers_that_stall(host: Host) -> None:
    requests = host.requests(60, "--rate", "2000", "--interval", "0.1")
    assert wait_until(lambda: len(requests.reports) >= 2)
    mapping = subprocess.Popen(
        [sys.executable, "-c", _MAPS_COUNTERS, str(host.run / "counters")], stdout=subprocess.PIPE, text=True
    )
    sockets = stalled_sockets(host)
    try:
        assert mapping.stdout is not None and mapping.stdout.readline() == "reading\n"
        os.kill(mapping.pid, signal.SIGSTOP)
        flowing = len(requests.reports)
        assert "chamelio_engine_up 1\n" in get(connect(host.run))[1]
        assert host.call("status")["engine"]["up"]
        assert wait_until(lambda: len(requests.reports) >= flowing + 10)
        assert all(r["answered"] > 0 and r["lost"] == 0 for r in requests.reports)
    finally:
        for sock in sockets:
            sock.close()
        mapping.kill()
        mapping.communicate()
