"""The daemon's side of the compiler process: jobs go out, units or reasons come back; a dead process is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from chamelio.files import read_bounded
from chamelio.jit.layout import Layout
from chamelio.messages import AsyncChannel, Refusal, close_all, decode, memfd

COMPILER_COMMAND = (sys.executable, "-m", "chamelio.jit.process")
MAX_BUILT = 64 << 20  # bytes of an encoded Built


class Built(msgspec.Struct, frozen=True):
    """What came out of a job. `types`: per map its value type spelled out; `image`: the encoded UnitImage.

    `cold` and `warm`: proven worst cases in cycles per hook; `seconds`: of "verify" and "compile".
    """

    key: str
    protocol_sha: str
    mode: str
    layout: Layout
    types: list[str]
    cold: list[int]
    warm: list[int]
    instructions: int
    seconds: dict[str, float]
    image: bytes


def read_built(fd: int) -> Built:
    """Decode a job's result from the file it came in, and close that. Raises Refusal."""
    content = read_bounded(fd, MAX_BUILT)
    try:
        return msgspec.msgpack.decode(content, type=Built)
    except msgspec.DecodeError as error:
        raise Refusal("compiler_crash", f"the compiler's result cannot be read: {error}") from None


class Compiler:
    """The compiler process; started with the first job, or by `start`.

    `spent(owner, seconds)` is called with the processor time that a job took, however it ended.
    """

    def __init__(
        self,
        command: Sequence[str] = COMPILER_COMMAND,
        environment: Mapping[str, str] | None = None,
        *,
        settings: str = "{}",
    ) -> None:
        self.spent: Callable[[str, float], None] = lambda owner, seconds: None
        self._command = (*command, "--settings", settings)
        self._environment = environment
        self._channel: AsyncChannel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._jobs: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._owners: dict[int, str] = {}
        self._next = 0
        self._reader: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The process, if it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process, so that the first job does not wait for its imports."""
        if self._channel is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._process = subprocess.Popen(
                [*self._command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env=self._environment,
                start_new_session=True,
            )
        self._channel = AsyncChannel(ours, max_fds=1, frame_seconds=60.0)
        self._reader = asyncio.create_task(self._read(self._channel))

    async def _read(self, channel: AsyncChannel) -> None:
        with contextlib.suppress(Refusal, OSError):
            while (frame := await channel.receive()) is not None:
                message = decode(frame.payload)
                job = int(message.get("id", -1))
                self.spent(self._owners.pop(job, ""), float(message.get("cpu_seconds", 0.0)))  # also when nobody waits any more
                waiter = self._jobs.pop(job, None)
                if waiter is None or waiter.done():
                    close_all(frame.fds)
                else:
                    waiter.set_result((message, frame.fds))
        channel.close()
        if self._channel is channel:
            self._channel = None
            self._fail_jobs()
            process, self._process = self._process, None
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await asyncio.to_thread(process.wait)

    def _fail_jobs(self) -> None:
        for waiter in self._jobs.values():
            if not waiter.done():
                waiter.set_exception(
                    Refusal("compiler_down", "the compiler process died while this was being compiled", "load it again")
                )
        self._jobs.clear()
        self._owners.clear()

    async def compile(self, owner: str, content: bytes, options: Mapping[str, Any]) -> tuple[Built, bool]:
        """Verify and compile an object; also whether it came from the cache. Jobs of one owner run one after the other.

        Raises Refusal: `rejected` with verdicts, `malformed`, `compiler_crash`, `compiler_down`, `usage`.
        """
        message, fds = await self._ask(memfd("chamelio-object", content), owner=owner, options=dict(options))
        return read_built(fds[0]), bool(message.get("cached"))

    async def known(self, owner: str, content: bytes, options: Mapping[str, Any]) -> Built | None:
        """What `compile` would give, if that needs no work. Raises Refusal."""
        fd = memfd("chamelio-object", content)
        message, fds = await self._ask(fd, owner=owner, options=dict(options), compile=False)
        return read_built(fds[0]) if message.get("found") else None

    async def cached(self, key: str) -> Built | None:
        """A unit that was compiled before, by its key; None if the cache does not have it."""
        message, fds = await self._ask(None, key=key)
        return read_built(fds[0]) if message.get("found") else None

    async def _ask(self, fd: int | None, **request: Any) -> tuple[dict[str, Any], list[int]]:
        try:
            self.start()
            channel = self._channel
            assert channel is not None
            self._next += 1
            job = self._next
            waiter: asyncio.Future[tuple[dict[str, Any], list[int]]] = asyncio.get_running_loop().create_future()
            self._jobs[job] = waiter
            self._owners[job] = str(request.get("owner", ""))
            try:
                async with self._sending:
                    await channel.send({"id": job, **request}, [fd] if fd is not None else [])
            except OSError:
                self._jobs.pop(job, None)
                raise Refusal("compiler_down", "the compiler process does not answer", "load it again") from None
        except OSError as error:
            raise Refusal("compiler_down", f"the compiler process cannot be started: {error}") from None
        finally:
            if fd is not None:
                os.close(fd)
        try:
            message, fds = await waiter
        finally:
            self._jobs.pop(job, None)
        if "error" in message:
            close_all(fds)
            raise Refusal.of(message["error"])
        return message, fds

    async def close(self) -> None:
        """End the process; jobs fail."""
        if self._channel is not None:
            self._channel.close()
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)
