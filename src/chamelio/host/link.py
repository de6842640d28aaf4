"""The engine process as the daemon sees it: started when none runs, adopted when one does, watched, started again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

import chamelio
from chamelio.engine.client import EngineClient, Settings
from chamelio.messages import Refusal

ENGINE_COMMAND = (sys.executable, "-m", "chamelio.engine.server")
ENGINE_LOG = "engine.log"
BACKOFF_SECONDS = (0.05, 0.5, 1.0, 2.0, 5.0, 10.0)
STOP_SECONDS = 5.0

log = logging.getLogger("chameliod.engine")


def child_environment(run: Path) -> dict[str, str]:
    """For processes that we start: this package, this run directory, no threads behind our back."""
    environment = dict(os.environ)
    package = str(Path(chamelio.__file__).resolve().parent.parent)
    inherited = [str(Path(p).resolve()) for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p]
    environment["PYTHONPATH"] = os.pathsep.join([package, *(p for p in inherited if p != package)])
    environment["CHAMELIO_RUN"] = os.fspath(run)
    environment["OPENBLAS_NUM_THREADS"] = "1"
    return environment


class EngineLink:
    """`start` brings an engine up. `restored(adopted)` is awaited when one has come up, `lost()` called when it died."""

    def __init__(
        self,
        run: Path,
        settings: Settings,
        *,
        restored: Callable[[bool], Awaitable[None]],
        lost: Callable[[], None],
        command: Sequence[str] = ENGINE_COMMAND,
    ) -> None:
        self.run, self.settings = run, settings
        self._restored, self._lost, self._command = restored, lost, tuple(command)
        self._client: EngineClient | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: asyncio.Task[None] | None = None
        self.restarts = 0

    @property
    def client(self) -> EngineClient:
        """The engine to talk to. Raises Refusal when there is none at the moment."""
        if self._client is None:
            raise Refusal("engine_down", "the engine is down", "the daemon is starting a new one; see engine.log if it stays so")
        return self._client

    @property
    def up(self) -> bool:
        """Whether there is an engine."""
        return self._client is not None

    async def start(self) -> bool:
        """Adopt the run directory's engine, or start one. True if it was adopted. Raises Refusal."""
        try:
            client = EngineClient(self.run)
        except OSError:
            await self._spawn()
            client = EngineClient(self.run)
            adopted = False
        else:
            adopted = True
        self._client = client
        try:
            await self._restored(adopted)
        except BaseException:
            self._client = None
            client.close()
            raise
        self._watch = asyncio.create_task(self._watching(client))
        return adopted

    async def _spawn(self) -> None:
        """Start the process and wait until it listens. Raises Refusal with its own words."""
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            with open(self.run / ENGINE_LOG, "ab") as output:
                arguments = ["--run", os.fspath(self.run), "--ready", str(write)]
                settings = msgspec.json.encode(self.settings).decode()
                self._process = subprocess.Popen(
                    [*self._command, *arguments, "--settings", settings],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    pass_fds=[write],
                    cwd="/",
                    env=child_environment(self.run),
                )
        except OSError as error:
            os.close(read)
            raise Refusal("engine", f"the engine cannot be started: {error}") from None
        finally:
            os.close(write)
        with open(read, "rb") as pipe:
            answer = await asyncio.to_thread(pipe.read)
        try:
            message: dict[str, Any] = msgspec.json.decode(answer, type=dict)
        except msgspec.DecodeError:
            message = {"error": self._last_words()}
        if "ok" not in message:
            await asyncio.to_thread(self._reap)
            raise Refusal("engine", f"the engine does not start: {message.get('error')}", f"see {self.run / ENGINE_LOG}")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.run / ENGINE_LOG).read_text(errors="replace").strip().splitlines()
            if lines:
                return f"it died: {lines[-1]}"
        return "it died without a word"

    def _reap(self) -> None:
        if self._process is not None:
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    async def _watching(self, client: EngineClient) -> None:
        await client.gone()
        log.error("the engine (process %d) has died", client.pid)
        self._client = None
        client.close()
        self._lost()
        await asyncio.to_thread(self._reap)
        attempt = 0
        while True:
            await asyncio.sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
            attempt += 1
            try:
                await self.start()
            except (Refusal, OSError) as error:
                log.error("%s", error)
            else:
                self.restarts += 1
                return

    async def leave(self) -> None:
        """Let go of the engine and let it run on."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._client is not None:
            self._client.close()
            self._client = None

    async def stop(self) -> None:
        """End the engine: by asking, then by killing it."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Refusal):
                await client.call("shutdown")
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await client.gone()
            except TimeoutError:
                log.error("the engine (process %d) does not end; killing it", client.pid)
                client.kill()
            client.close()
        await asyncio.to_thread(self._reap)
