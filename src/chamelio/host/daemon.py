"""chameliod itself: puts the control plane together, starts and ends its processes.

asyncio.run(Daemon(Config(run, ports=[("w0", "wire:w0:a")])).run())
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import signal
import stat
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import msgspec

from chamelio import __version__
from chamelio.confine import landlock_version
from chamelio.engine.client import COUNTERS, Settings
from chamelio.engine.metrics import Values
from chamelio.files import listen, lock_file
from chamelio.host.agents import Agents
from chamelio.host.api import Api
from chamelio.host.delays import Delays
from chamelio.host.exposition import Exposition, listen_tcp
from chamelio.host.limits import Limits
from chamelio.host.link import ENGINE_COMMAND, EngineLink, child_environment
from chamelio.host.migrations import Migrations
from chamelio.host.protocols import Protocols
from chamelio.host.quotas import Accounts
from chamelio.host.state import Route, State
from chamelio.host.statistics import Statistics
from chamelio.host.tenants import Tenants
from chamelio.jit.pool import COMPILER_COMMAND, Compiler
from chamelio.messages import API_SOCKET, Refusal

LOCK, PROVIDER_TOKEN, METRICS_SOCKET = "chameliod.lock", "provider.token", "metrics.sock"
BACKLOG = 1024
PORT_SECONDS = 1.0  # metrics of ports are left out when the engine does not answer for so long

log = logging.getLogger("chameliod")


class Config(msgspec.Struct):
    """What a daemon is started with. `compiler` are settings of the compiler process."""

    run: Path
    ports: list[tuple[str, str]] = []
    routes: list[Route] = []
    engine: Settings = msgspec.field(default_factory=Settings)
    limits: Limits = msgspec.field(default_factory=Limits)
    compiler: dict[str, Any] = {}
    engine_command: tuple[str, ...] = ENGINE_COMMAND
    compiler_command: tuple[str, ...] = COMPILER_COMMAND
    metrics: str | None = None  # HOST:PORT of the OpenMetrics endpoint, beside its Unix socket


def prepare_run(run: Path) -> None:
    """Make the run directory, ours alone to write. Raises Refusal."""
    try:
        run.mkdir(mode=0o711, parents=True, exist_ok=True)
        about = run.lstat()
    except OSError as error:
        raise Refusal("failed", f"the run directory {run} cannot be made: {error.strerror}", "choose another with --run") from None
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise Refusal(
            "failed",
            f"the run directory {run} is not a directory that only user {os.getuid()} can write",
            "choose another with --run",
        )


class Daemon:
    """The control plane of one run directory."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._environment = child_environment(config.run)
        compiler = Compiler(config.compiler_command, self._environment, settings=msgspec.json.encode(config.compiler).decode())
        self.state = State(config.run, config.limits, compiler)
        self.link = EngineLink(
            config.run,
            config.engine,
            restored=self._engine_is_up,
            lost=self._engine_is_lost,
            command=config.engine_command,
        )
        self.state.link = self.link
        self.agents = Agents(config.limits.grace_seconds, self._reclaim)
        self.accounts = Accounts(self.state, config.limits)
        compiler.spent = self.accounts.compiler.add
        self.delays = Delays(self.state)
        self.tenants = Tenants(self.state, self.agents, self.accounts, self.delays)
        self.protocols = Protocols(self.state, self.agents, self.tenants, self.accounts, self.delays)
        self.migrations = Migrations(self.state, self.agents, self.accounts, self.tenants, self.protocols)
        self.statistics = Statistics(config.run / COUNTERS)
        self.exposition = Exposition(self.metrics)
        self._stopping = asyncio.Event()
        self._keep_engine = False
        self._started = time.monotonic()
        self.api: Api

    # ---- the engine comes and goes -----------------------------------------------------------------------------------

    async def _engine_is_up(self, adopted: bool) -> None:
        self.statistics.forget()
        async with self.state.lock:
            await (self.state.rebuild() if adopted else self.state.restore())
        self.protocols.await_agents()

    def _engine_is_lost(self) -> None:
        self.migrations.clear()
        self.agents.clear()

    async def _reclaim(self, key: tuple[str, str]) -> None:
        try:
            await self.protocols.reclaim(key)
        except Refusal as error:
            log.error("protocol %s of tenant %s could not be reclaimed: %s", key[1], key[0], error)

    async def port_counters(self) -> dict[str, dict[str, int]]:
        """Counters of all ports by name. Raises Refusal."""
        return {port["label"]: port.get("counters", {}) for port in await self.state.engine.call("port.list")}

    async def metrics(self, tenants: Collection[str] | None = None, *, provider: bool = True) -> Values:
        """What the metrics of these tenants (None: all) say now; those of the host for the provider."""
        ports: dict[str, dict[str, int]] = {}
        if provider:
            with contextlib.suppress(Refusal, TimeoutError):
                ports = await asyncio.wait_for(self.port_counters(), PORT_SECONDS)
        if not self.link.up:
            return {"engine_up": 0} if provider else {}
        everybody = [t for t in self.state.tenants.values() if t.index >= 0]
        asked = [t for t in everybody if tenants is None or t.name in tenants]
        return self.statistics.snapshot(asked, sum(t.weight for t in everybody), ports=ports, provider=provider)

    def status(self) -> dict[str, Any]:
        """How the daemon and its processes are."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "run": str(self.config.run),
            "uptime_s": round(time.monotonic() - self._started, 3),
            "engine": {
                "up": self.link.up,
                "pid": self.link.client.pid if self.link.up else None,
                "restarts": self.link.restarts,
            },
            "compiler": {"pid": self.state.compiler.pid, "landlock": landlock_version()},
            "connections": {"now": self.api.connections, "refused": self.api.refused},
            "tenants": len(self.state.tenants),
            "ports": sorted(self.state.ports),
            "units": len(self.state.units),
            "grace_s": self.config.limits.grace_seconds,
            "troubles": self.state.troubles,
        }

    # ---- life --------------------------------------------------------------------------------------------------------

    def stop(self, *, keep_engine: bool = False) -> None:
        """Let `run` end, the engine with it or not."""
        self._keep_engine = keep_engine
        self._stopping.set()

    async def run(self, ready: Callable[[Daemon], None] = lambda _: None) -> None:
        """Live until `stop`, SIGINT or SIGTERM. `ready` is called when requests are answered. Raises Refusal."""
        run = self.config.run
        prepare_run(run)
        lock = lock_file(run / LOCK)
        if lock is None:
            owner = (run / LOCK).read_text().strip()
            raise Refusal("exists", f"a daemon (process {owner}) runs in {run} already", "`chamelio down` ends it")
        _raise_descriptor_limit()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        self.api = Api(self, self._provider_token())
        try:
            self.state.compiler.start()
            adopted = await self.link.start()
            try:
                await self._set_up_ports()
                await self._expose()
                listener = listen(run / API_SOCKET, 0o666, BACKLOG)
            except BaseException:
                if not adopted:
                    await self.link.stop()
                raise
            self.api.start(listener)
            log.info(
                "%s engine %d; listening at %s",
                "adopted" if adopted else "started",
                self.link.client.pid,
                run / API_SOCKET,
            )
            ready(self)
            await self._stopping.wait()
            await asyncio.sleep(0.02)  # the answer to `shutdown` leaves
            listener.close()
            (run / API_SOCKET).unlink(missing_ok=True)
        finally:
            await self._end()
            os.close(lock)

    async def _end(self) -> None:
        self.agents.clear()
        await self.exposition.stop()
        (self.config.run / METRICS_SOCKET).unlink(missing_ok=True)
        await self.api.stop()
        self.agents.clear()
        await (self.link.leave() if self._keep_engine or not self._stopping.is_set() else self.link.stop())
        await self.state.compiler.close()

    async def _expose(self) -> None:
        """Serve metrics: to the provider's user, and to whoever reaches the address that was asked for. Raises Refusal."""
        await self.exposition.start(listen(self.config.run / METRICS_SOCKET, 0o600, BACKLOG))
        if self.config.metrics is not None:
            try:
                await self.exposition.start(listen_tcp(self.config.metrics))
            except (OSError, ValueError) as error:
                reason = f"metrics cannot be served at {self.config.metrics}: {error}"
                raise Refusal("usage", reason, "name a free HOST:PORT of this machine, e.g. 127.0.0.1:9464") from None

    async def _set_up_ports(self) -> None:
        async with self.state.lock:
            for name, spec in self.config.ports:
                await self.state.add_port(name, spec)
            for route in self.config.routes:
                await self.state.add_route(route)

    def _provider_token(self) -> str:
        """The provider's token, made once per run directory."""
        path = self.config.run / PROVIDER_TOKEN
        with contextlib.suppress(OSError):
            token = path.read_text().strip()
            if token:
                return token
        token = secrets.token_hex(32)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            file.write(token + "\n")
        return token


def _raise_descriptor_limit() -> None:
    """Connections and descriptors in flight need room."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 16) if hard > 0 else 1 << 16, hard))
