"""`chamelio up` and `down` with the real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from host.rig import alive, wait_until
from metrics_rig import connect, get, snapshot_of

Run = Callable[..., Any]


@pytest.fixture
def run_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cham-") as directory:
        yield Path(directory) / "run"


@pytest.fixture
def run(cham: Run, run_directory: Path) -> Iterator[Run]:
    def words(*words: str) -> Any:
        return cham(*words, "--run", str(run_directory))

    yield words
    words("down")


def test_up_detached_and_down(run: Run) -> None:
    up = run("up", "--detach", "--port", "w0=wire:w0:a", "--route", "10.0.0.0/24=w0", "--grace", "1.5", "-o", "json")
    assert up.exit == 0
    assert (up.json["ports"], up.json["grace_s"]) == (["w0"], 1.5)
    again = run("up", "--detach")
    assert again.exit == 1 and f"process {up.json['pid']}" in again.err
    assert run("status", "-o", "json").json["pid"] == up.json["pid"]
    assert run("down").exit == 0
    assert wait_until(lambda: not alive(up.json["engine"]["pid"]))
    assert run("down").exit == 4


def test_the_engine_can_be_kept_and_is_taken_over_or_ended(run: Run) -> None:
    first = run("up", "--detach", "-o", "json").json
    run("tenant", "add", "a", "--address", "10.0.0.2")
    assert run("down", "--keep-engine").exit == 0
    assert alive(first["engine"]["pid"]) and run("status").exit == 4
    second = run("up", "--detach", "-o", "json").json
    assert second["engine"]["pid"] == first["engine"]["pid"] and second["tenants"] == 1
    os.kill(second["pid"], signal.SIGKILL)
    assert wait_until(lambda: run("status").exit == 4)  # its last thread has let go of the socket
    assert alive(first["engine"]["pid"])
    ended = run("down")
    assert ended.exit == 0 and "engine is ended" in ended.out
    assert wait_until(lambda: not alive(first["engine"]["pid"]))


def test_a_host_that_cannot_start_says_why_and_leaves_nothing(run: Run, run_directory: Path) -> None:
    failed = run("up", "--detach", "--port", "eth=tap:no/such", "-o", "json")
    assert failed.exit != 0 and "no/such" in failed.json["error"]["message"]
    assert wait_until(lambda: not (run_directory / "engine.sock").exists())


def test_a_run_directory_that_others_can_write_is_refused(run: Run, run_directory: Path) -> None:
    run_directory.mkdir()
    run_directory.chmod(0o777)
    refused = run("up", "--detach")
    assert refused.exit == 1 and "only user" in refused.err


def test_interrupting_the_foreground_ends_everything(run_directory: Path) -> None:
    command = [sys.executable, "-m", "chamelio", "up", "--run", str(run_directory), "-o", "json"]
    source = Path(__file__).parent.parent.parent / "src"
    environment = {**os.environ, "PYTHONPATH": str(source)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        engine = 0
        for line in process.stdout:
            if '"engine"' in line:
                engine = 1
            elif engine and '"pid"' in line:
                engine = int(line.split(":")[1].rstrip(",\n"))
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert not alive(engine)
    assert not (run_directory / "api.sock").exists()


def test_metrics_are_served_where_they_were_asked_for(run: Run, run_directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for wrong in (address, "127.0.0.1", "127.0.0.1:http"):
            refused = run("up", "--detach", "--metrics", wrong)
            assert refused.exit == 2 and wrong in refused.err, refused
    assert run("up", "--detach", "--port", "w0=wire:w0:a", "--metrics", address).exit == 0
    host, _, port = address.rpartition(":")
    body = get(socket.create_connection((host, int(port)), timeout=5))[1]
    said = snapshot_of(body)
    assert said["engine_up"] == 1 and set(said["port_rx_packets"]) == {"w0"} and said["engine_rounds"] > 0
    assert set(snapshot_of(get(connect(run_directory))[1])) == set(said)
