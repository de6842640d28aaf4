"""Fixtures of network namespaces. Without root or namespaces they skip, with the reason.

A test module imports those that it uses: `from netns import veth`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import Iterator

import pytest

from chamelio.bench.netns import NetNs, Veth
from chamelio.engine.ports.kernel_bpf import MAP_TYPE_XSKMAP, Map
from chamelio.engine.ports.xsk import AF_XDP


def need_root(what: str) -> None:
    """Skip the test unless we are root."""
    if os.geteuid() != 0:
        pytest.skip(f"{what} needs root")


@functools.cache
def af_xdp_missing() -> str:
    """What the kernel does not have of AF_XDP, or not for us; empty if a port can be tried."""
    try:
        socket.socket(AF_XDP, socket.SOCK_RAW).close()
    except OSError as error:
        return f"no socket: {error.strerror}"
    try:
        Map.create(MAP_TYPE_XSKMAP, 4, 4, 1, "probe").close()
    except OSError as error:
        return f"no BPF map of sockets: {error.strerror}"
    return ""


def need_af_xdp() -> None:
    """Skip the test on a kernel without AF_XDP. Where it is there, whatever fails is a failure."""
    need_root("AF_XDP")
    if af_xdp_missing():
        pytest.skip(f"AF_XDP cannot be used here: {af_xdp_missing()}")


@contextlib.contextmanager
def namespaces(*labels: str) -> Iterator[list[NetNs]]:
    """Namespaces that are removed at the end; skips where there can be none."""
    need_root("making network namespaces")
    made: list[NetNs] = []
    try:
        for label in labels:
            try:
                made.append(NetNs(label))
            except OSError as error:
                pytest.skip(f"network namespaces cannot be made here: {error}")
        yield made
    finally:
        for one in made:
            one.remove()


@pytest.fixture
def ns() -> Iterator[NetNs]:
    """One namespace."""
    with namespaces("one") as made:
        yield made[0]


@pytest.fixture
def veth() -> Iterator[Veth]:
    """A Linux peer and the host of an engine with AF_XDP, joined."""
    need_af_xdp()
    with namespaces("peer", "host") as (peer, host):
        pair = Veth(peer, host)
        try:
            pair.join()
        except Exception as error:
            pytest.skip(f"veth pairs cannot be made here: {error}")
        yield pair
