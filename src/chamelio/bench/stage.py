"""A host with tenants and applications, all real processes, in a directory of their own that is removed at the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from chamelio import toolchain
from chamelio.bench.netns import NetNs
from chamelio.files import await_unlocked
from chamelio.host.daemon import LOCK
from chamelio.messages import Channel, Refusal, connect, memfd
from chamelio.tenant.folder import read_protocol

START_SECONDS = 30.0
END_SECONDS = 3.0
DOWN_SECONDS = 10.0
C_SOURCES = toolchain.PACKAGE / "sockets" / "c"


def build_application(name: str) -> Path:
    """One of the C programs of `sockets/c`, compiled; where it lies."""
    return build_program(C_SOURCES / f"{name}.c", C_SOURCES / "chamelio_app.c", C_SOURCES / "chamelio_context.c")


def build_program(*sources: Path) -> Path:
    """A C program, named after its files; where it lies. Raises BuildError."""
    content = toolchain.executable(sources, includes=(toolchain.FASTPATH, toolchain.INCLUDE, C_SOURCES))
    path = toolchain.cache_dir() / "programs" / "-".join(source.stem for source in sources)
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(content)
        fresh.chmod(0o755)
        fresh.replace(path)
    return path


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A signal to end that comes inside counts afterwards: what is half made cannot be removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    former = {number: signal.signal(number, lambda number, _: came.append(number)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end what is inside as ^C does: by an exception, after which everything is removed."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    former = {number: signal.signal(number, end) for number in ENDING[1:]}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class Process:
    """A child whose lines are collected: JSON objects in `reports`, the last line of all in `last`."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._child = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a ^C is for who started it, who then ends it
        )
        self.name, self.pid = Path(command[0]).name, self._child.pid
        self.last = ""
        self.reports: list[dict[str, Any]] = []
        self._spoke = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self.last = line.strip()
            if line.startswith("{"):
                self.reports.append(json.loads(line))
            self._spoke.set()
        self._spoke.set()

    def until_ready(self) -> None:
        """Wait for the first line; Refusal when the process ends instead."""
        self._spoke.wait(START_SECONDS)
        if not self.last:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(END_SECONDS)
            raise Refusal("failed", f"{self.name} did not start: {self.errors() or 'it says nothing'}")

    def final(self, seconds: float) -> dict[str, Any] | None:
        """Wait for its end; its last report, if that says that it is."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(seconds)
        self._reader.join(END_SECONDS)
        return next((r for r in reversed(self.reports) if r.get("final")), None)

    def errors(self) -> str:
        """What it has said about errors, once it has ended."""
        return self._child.stderr.read().strip() if self._child.stderr and self._child.poll() is not None else ""

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._child.poll() is None

    def end(self) -> None:
        """Ask it to end, then make it."""
        if self.running:
            self._child.terminate()
        try:
            self._child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._reader.join(END_SECONDS)


class Stage:
    """A host and what runs on it. Leaving the context ends every process that was started."""

    def __init__(self, *up: str) -> None:
        self.run = Path(tempfile.mkdtemp(prefix="chamelio-"))
        self._environment = {**os.environ, "CHAMELIO_RUN": str(self.run)}
        self._processes: list[Process] = []
        self._up = up
        self._channel: Channel | None = None

    def __enter__(self) -> Stage:
        command = [sys.executable, "-m", "chamelio", "up", "--detach", "-o", "json", *self._up]
        try:
            with uninterrupted():
                done = subprocess.run(
                    command, env=self._environment, capture_output=True, text=True, check=False, start_new_session=True
                )
                if done.returncode:
                    raise _refusal(done)
                self._channel = connect(self.run)
        except BaseException:
            self.close()
            raise
        return self

    def call(self, verb: str, fds: Sequence[int] = (), /, **arguments: Any) -> Any:
        """One request to chameliod. Raises Refusal."""
        assert self._channel is not None
        result, _ = self._channel.call(verb, fds, **arguments)
        return result

    def tenant(self, name: str, address: str, weight: int = 1, network: int = 0) -> None:
        """A new tenant."""
        self.call("tenant.add", name=name, addresses=[address], weight=weight, network=network)

    def load(self, tenant: str, protocol: str, content: bytes | None = None, **changes: Any) -> dict[str, Any]:
        """Load a shipped protocol, or another build of it; the daemon's answer, with `wall_ms` that it took altogether.

        `changes` to what its folder says: `name`, `ports`.
        """
        manifest, shipped = read_protocol(protocol)
        fd = memfd(protocol, content or shipped)
        started = time.perf_counter()
        try:
            done: dict[str, Any] = self.call(
                "protocol.load",
                [fd],
                tenant=tenant,
                **{
                    "name": manifest.name,
                    "ip_protocol": manifest.ip_protocol,
                    "ports": list(manifest.ports),
                    "steer": manifest.steer,
                    **changes,
                },
            )
        finally:
            os.close(fd)
        return {**done, "wall_ms": (time.perf_counter() - started) * 1e3}

    def start(self, *command: str, ready: bool = True, inside: NetNs | None = None) -> Process:
        """Start a process of ours, in a namespace if one is given; `ready`: wait for its first line."""
        with uninterrupted():
            process = inside.call(Process, command, self._environment) if inside else Process(command, self._environment)
            self._processes.append(process)
        if ready:
            process.until_ready()
        return process

    def agent(self, tenant: str, protocol: str, *options: str) -> Process:
        """A tenant's agent."""
        return self.start(sys.executable, "-m", "chamelio.tenant.agent", tenant, protocol, *options)

    def socket(self, tenant: str, protocol: str = "udp") -> str:
        """Where a tenant's applications connect."""
        return str(self.run / "tenants" / tenant / f"{protocol}.sock")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End everything and remove the directory."""
        with uninterrupted():
            for process in reversed(self._processes):
                process.end()
            if self._channel is not None:
                with contextlib.suppress(Refusal, OSError):
                    self.call("shutdown")
                self._channel.close()
                await_unlocked(self.run / LOCK, DOWN_SECONDS)
            shutil.rmtree(self.run, ignore_errors=True)


def _refusal(done: subprocess.CompletedProcess[str]) -> Refusal:
    """What `chamelio up -o json` said."""
    try:
        refusal = Refusal.of(json.loads(done.stdout)["error"])
    except (ValueError, KeyError, TypeError):
        refusal = Refusal("failed", (done.stderr or done.stdout).strip() or f"it ended with status {done.returncode}")
    return Refusal(refusal.code, f"the host does not start: {refusal.message}", refusal.remedy)
