"""Daemons for tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host.rig import Host, wait_until


@pytest.fixture
def make_host() -> Iterator[Any]:
    hosts: list[Host] = []
    with tempfile.TemporaryDirectory(prefix="cham-") as directory:

        def make(start: bool = True, **config: Any) -> Host:
            host = Host(Path(directory) / f"run{len(hosts)}", **config)
            hosts.append(host)
            if start:
                host.start()
            return host

        yield make
        for host in hosts:
            host.stop()
            wait_until(lambda h=host: not (h.run / "engine.sock").exists(), 2.0)


@pytest.fixture(scope="session")
def _daemon() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="cham-") as directory:
        host = Host(Path(directory) / "run")
        host.start()
        yield host
        host.stop()


@pytest.fixture
def host(_daemon: Host) -> Iterator[Host]:
    """A daemon without tenants. It is used again: tests that kill it make their own."""
    yield _daemon
    for tenant in _daemon.call("tenant.list"):
        _daemon.call("tenant.rm", tenant=tenant["name"])
    assert _daemon.engine()["engine"]["instances"] == []
