"""The control plane's side of the engine's socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from chamelio.messages import AsyncChannel, Refusal, close_all, credentials, memfd, result_of

SOCKET, COUNTERS = "engine.sock", "counters"  # in the run directory
CALL_SECONDS = 15.0  # for one verb: an engine that answers later is taken for hung
MAX_REPLY = 64 << 20


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """How the engine is made; fixed while it lives. `poll`: "adaptive" or "spin"; `cpus`: pin the cores' threads.

    `frames` are each core's.
    """

    cores: int = 1
    cpus: list[int] = []
    poll: str = "adaptive"
    frames: int = 8192
    hardening: bool = True


def _open(run: Path) -> AsyncChannel:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.connect(os.fspath(run / SOCKET))
    except OSError:
        sock.close()
        raise
    return AsyncChannel(sock, limit=MAX_REPLY, frame_seconds=CALL_SECONDS)


class EngineClient:
    """Calls to the engine of a run directory, one at a time. Raises OSError if no engine listens there."""

    def __init__(self, run: Path) -> None:
        self._channel = _open(run)
        try:
            self.pid = credentials(self._channel.sock).pid
            self._process = os.pidfd_open(self.pid)
        except OSError:
            self._channel.close()
            raise
        self._lock = asyncio.Lock()

    async def open(self, verb: str, fds: Sequence[int] = (), /, **arguments: Any) -> tuple[Any, list[int]]:
        """One verb: its result and the descriptors that come with it. Raises Refusal.

        Whoever is cancelled while waiting leaves the exchange to itself: the engine has perhaps done it already.
        """
        exchange = asyncio.create_task(self._exchange(verb, [os.dup(fd) for fd in fds], arguments))
        try:
            return await asyncio.shield(exchange)
        except asyncio.CancelledError:
            exchange.add_done_callback(_discard)
            raise

    async def _exchange(self, verb: str, fds: list[int], arguments: dict[str, Any]) -> tuple[Any, list[int]]:
        try:
            async with self._lock, asyncio.timeout(CALL_SECONDS):
                await self._channel.send({"verb": verb, **arguments}, fds)
                return result_of(await self._channel.receive(), "the engine")
        except TimeoutError:
            self.kill()  # an answer that comes late would be taken for that of the next verb
            raise Refusal("engine", f"the engine did not answer {verb} in {CALL_SECONDS:g} s", _REMEDY) from None
        except OSError as error:
            raise Refusal("engine", f"the engine does not answer: {error.strerror or error}", _REMEDY) from None
        finally:
            close_all(fds)

    async def call(self, verb: str, /, **arguments: Any) -> Any:
        """One verb: its result. Raises Refusal."""
        result, fds = await self.open(verb, **arguments)
        close_all(fds)
        return result

    async def load_unit(self, image: bytes, label: Any) -> int:
        """Load a unit from its encoded image; its index. Raises Refusal."""
        fd = memfd("chamelio-unit", image)
        try:
            result, fds = await self.open("unit.load", [fd], label=label)
        finally:
            os.close(fd)
        close_all(fds)
        return int(result)

    async def gone(self) -> None:
        """Return when the engine's process has ended."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._process, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process)

    def kill(self) -> None:
        """End the engine's process at once, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def close(self) -> None:
        """Hang up. The engine does not mind."""
        self._channel.close()
        if self._process >= 0:
            os.close(self._process)
            self._process = -1


def _discard(exchange: asyncio.Task[tuple[Any, list[int]]]) -> None:
    if not exchange.cancelled() and exchange.exception() is None:
        close_all(exchange.result()[1])


_REMEDY = "see engine.log in the run directory; the daemon starts a new engine when one has died"
