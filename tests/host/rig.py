"""A daemon in a process of its own beside the tests, with a fake engine and a fake compiler."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chamelio.messages import Channel, Refusal, connect, memfd

HERE = Path(__file__).parent
GRACE_S = 0.2
_START = """
import asyncio, sys, msgspec
from chamelio.host.daemon import Config, Daemon
from chamelio.host import logs
logs.set_up()
config = msgspec.json.decode(sys.argv[1], type=Config, dec_hook=lambda kind, value: kind(value))
asyncio.run(Daemon(config).run(ready=lambda daemon: print("ready", flush=True)))
"""


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def wait_until(condition: Any, seconds: float = 5.0) -> bool:
    """Poll a condition of another process."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Host:
    """A daemon process and ways to talk to it."""

    def __init__(self, run: Path, **config: Any) -> None:
        self.run = run
        limits = {"grace_seconds": GRACE_S, **config.pop("limits", {})}
        self.config = {
            "run": str(run),
            "limits": limits,
            "engine_command": [sys.executable, str(HERE / "fake_engine.py")],
            "compiler_command": [sys.executable, str(HERE / "fake_compiler.py")],
            **config,
        }
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, msgspec.json.encode(self.config).decode()],
            stdout=subprocess.PIPE,
            stderr=(self.run.parent / f"{self.run.name}.log").open("a"),
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE.parent.parent / "src")},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", self.log()

    def log(self) -> str:
        return (self.run.parent / f"{self.run.name}.log").read_text()

    def connect(self) -> Channel:
        return connect(self.run, timeout=10.0)

    def call(self, verb: str, **arguments: Any) -> Any:
        with self.connect() as channel:
            return channel.call(verb, **arguments)[0]

    def refused(self, verb: str, **arguments: Any) -> Refusal:
        with pytest.raises(Refusal) as refusal:
            self.call(verb, **arguments)
        return refusal.value

    def load(self, tenant: str, name: str = "udp", token: str | None = None, ip_protocol: int = 17, **content: Any) -> Any:
        with self.connect() as channel:
            return load(channel, tenant, name, ip_protocol=ip_protocol, token=token, **content)

    def engine_channel(self) -> Channel:
        """A connection to the engine itself."""
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.run / "engine.sock"))
        return Channel(sock, timeout=5.0)

    def engine(self) -> dict[str, Any]:
        """The engine's own description, asked directly."""
        with self.engine_channel() as channel:
            return dict(channel.call("describe")[0])

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()


def load(
    channel: Channel, tenant: str, name: str = "udp", *, token: str | None = None, ip_protocol: int = 17, **content: Any
) -> Any:
    """Load an object for the fake compiler."""
    fd = memfd("object", msgspec.json.encode(content))
    try:
        extra = {"token": token} if token else {}
        return channel.call("protocol.load", [fd], tenant=tenant, name=name, ip_protocol=ip_protocol, **extra)[0]
    finally:
        os.close(fd)
