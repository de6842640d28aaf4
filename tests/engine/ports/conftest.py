"""Fixtures of the port tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import Rig

from chamelio.engine.ports import Port, WireMemory, WirePeer, WirePort, open_port
from netns import ns, veth  # noqa: F401


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    assert made.conserved()


@pytest.fixture(autouse=True)
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHAMELIO_RUN", str(tmp_path / "run"))
    return tmp_path / "run"


class Wired:
    """A port on end a of a wire, and a peer in Python on end b."""

    def __init__(self, rig: Rig, wrap: str = "") -> None:
        self.port: Port = open_port(f"{wrap}wire:test")
        self.wire = self.port.chain[-1]
        assert isinstance(self.wire, WirePort)
        self.memory: WireMemory = self.wire.memory
        self.plug = rig.plug(self.port)
        self.peer = WirePeer(self.memory)
