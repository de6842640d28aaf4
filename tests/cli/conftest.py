"""The command line in this process, against a daemon with a fake engine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chamelio.cli import main
from host.rig import Host


class Done(NamedTuple):
    """How a command ended."""

    exit: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="cham-") as directory:
        daemon = Host(Path(directory) / "run", ports=[["w0", "wire:w0:a"]])
        daemon.start()
        yield daemon
        daemon.stop()


@pytest.fixture
def no_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CHAMELIO_RUN", str(tmp_path))


@pytest.fixture
def cham(capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run `chamelio WORDS`."""

    def run(*words: str) -> Done:
        capfd.readouterr()
        code = main(words)
        out, err = capfd.readouterr()
        assert "Traceback" not in err and "Traceback" not in out
        return Done(code, out, err)

    return run
