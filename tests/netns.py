"""Fixtures of network namespaces. Without root or namespaces they skip, with the reason.

A test module imports those that it uses: `from netns import veth`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from chamelio.bench.netns import NetNs, Veth


def need_root(what: str) -> None:
    """Skip the test unless we are root."""
    if os.geteuid() != 0:
        pytest.skip(f"{what} needs root")


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
    """A Linux peer and an engine's host, joined."""
    with namespaces("peer", "host") as (peer, host):
        pair = Veth(peer, host)
        try:
            pair.join()
        except Exception as error:
            pytest.skip(f"veth pairs cannot be made here: {error}")
        yield pair
