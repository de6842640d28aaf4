"""`chamelio demo --real`, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chamelio.cli import main
from netns import namespaces, need_af_xdp
from system.rig import until

COMMAND = (sys.executable, "-m", "chamelio", "demo", "--real", "-o", "json")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory of its own, with a name short enough for sockets in it, which `tmp_path` has not in several processes."""
    with tempfile.TemporaryDirectory(prefix="cham-") as name:
        yield Path(name)


@pytest.fixture
def demo(short_path: Path) -> Callable[[], subprocess.Popen[str]]:
    """Start it; everything that it makes lies in `short_path` or bears its number."""
    need_af_xdp()
    with namespaces("try"):  # skips where there can be none
        pass

    def start() -> subprocess.Popen[str]:
        environment = {**os.environ, "TMPDIR": str(short_path)}
        return subprocess.Popen(COMMAND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def left_by(pid: int, directory: Path) -> list[str]:
    """Namespaces, directories and processes that a demo has left behind."""
    namespaces = [p.name for p in Path("/run/netns").glob(f"cham-{pid}-*")]
    processes = []
    for one in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TMPDIR={directory}\0".encode() in one.read_bytes():
                processes.append(one.parent.name)
        except OSError:
            pass  # it has ended
    return namespaces + [p.name for p in directory.iterdir()] + processes


@pytest.mark.root
def test_the_demo_runs_and_leaves_nothing(demo: Callable[[], subprocess.Popen[str]], short_path: Path) -> None:
    process = demo()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    result: dict[str, Any] = json.loads(out)
    assert result["lost"] == 0
    for client in ("linux", "blue"):
        answers = result["requests"][client]
        assert answers["answered"] == answers["sent"] > 1000
        assert answers["late"] == answers["wrong"] == 0
        assert 0 < answers["p50_us"] <= answers["p99_us"]
    assert [(s["tenant"], s["action"]) for s in result["swaps"]] == [("red", "swapped"), ("blue", "swapped")]
    assert result["ping_us"]["red"] > 0 and result["ping_us"]["kernel"] > 0
    for tenant in ("red", "blue"):
        about = result["tenants"][tenant]
        assert about["cycles_per_packet"] > 0 and 0 < about["share_of_core"] < 1
        assert about["drops"] == {}
    assert until(lambda: not left_by(process.pid, short_path)), left_by(process.pid, short_path)


@pytest.mark.root
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_nothing(
    demo: Callable[[], subprocess.Popen[str]], short_path: Path, number: signal.Signals, status: int
) -> None:
    process = demo()
    assert process.stderr is not None
    assert "red joins" in process.stderr.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert "Traceback" not in err
    assert until(lambda: not left_by(process.pid, short_path)), left_by(process.pid, short_path)


def test_without_root_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["demo", "--real"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the demo against Linux")
    assert "sudo chamelio demo --real" in said
    assert main(["demo", "--real", "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "needs_root"
