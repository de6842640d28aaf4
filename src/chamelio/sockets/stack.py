"""An application's connection to its tenant's agent: one context of a protocol, its rings and its doorbell, on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import msgspec

from chamelio.jit.layout import Layout
from chamelio.messages import AsyncChannel, Refusal, close_all, decode, default_run
from chamelio.tenant.region import Region, type_of
from chamelio.tenant.rings import Consumer, Entries, RingDamaged

MAX_FDS = 10  # region, doorbell, and one for each of the engine's cores
RESUME_S, RESUME_RETRY_S = 4.0, 0.02  # how long we look for an agent that takes the place of ours
BATCH = 256  # entries handled before the loop gets its turn


class Listener(Protocol):
    """A socket on a stack."""

    def connection_lost(self, error: Exception | None) -> None:
        """The stack is gone."""


def application_socket(tenant: str, protocol: str, run: Path | None) -> Path:
    """Where a tenant's agent listens."""
    return (run or default_run()) / "tenants" / tenant / f"{protocol}.sock"


async def _say_hello(
    path: Path, about_us: dict[str, Any], fds: list[int] | None = None
) -> tuple[AsyncChannel, dict[str, Any], list[int]]:
    """Connect to an agent: the channel, what the agent says of our context, and its descriptors. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, os.fspath(path))
    except OSError as error:
        sock.close()
        raise OSError(errno.ENOENT, str(error)) from None
    channel = AsyncChannel(sock, max_fds=MAX_FDS, limit=1 << 22)
    try:
        await channel.send({"verb": "hello", **about_us}, fds or [])
        frame = await channel.receive()
    except Refusal as refusal:
        channel.close()
        raise ConnectionRefusedError(errno.ECONNREFUSED, str(refusal)) from None
    except BaseException:
        channel.close()
        raise
    reply = decode(frame.payload) if frame else {}
    if frame is None or "ok" not in reply or len(frame.fds) < 3:
        close_all(frame.fds if frame else [])
        channel.close()
        why = reply.get("error", {})
        code = errno.ESTALE if why.get("code") == "ESTALE" else errno.ECONNREFUSED
        raise OSError(code, why.get("message", "the agent hung up"))
    return channel, reply["ok"], frame.fds


class Stack:
    """One context. `on_entries` gets what the handlers push; requests go to the slow path by `call`."""

    def __init__(self, path: Path, channel: AsyncChannel, about: dict[str, Any], fds: list[int]) -> None:
        self._path, self._channel = path, channel
        self.context: int = about["context"]
        self.address: str = about["address"]
        layout = msgspec.convert(about["layout"], Layout)
        types = {name: type_of(form) for name, form in about["types"].items()}
        region_fd, self._bell, *self._wake = fds
        self.region = Region(region_fd, about["origin"], layout, types, about["slow"], self._wake)
        os.close(region_fd)
        self.listeners: set[Listener] = set()
        self.on_entries: Callable[[Entries], None] = lambda entries: None
        self.on_resume: Callable[[], None] | None = (
            None  # if set, we come back to an agent that takes the place of ours, then call it
        )
        self.user: Any = None  # what the protocol's sockets share
        self._calls = asyncio.Lock()
        self._connected = asyncio.Event()
        self._connected.set()
        self._replies: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._received: list[Consumer] = []
        self.closed = False
        self._watch = self._loop.create_task(self._read_replies())

    @classmethod
    async def connect(cls, tenant: str, protocol: str, run: Path | None) -> Stack:
        """Connect to the agent. ConnectionRefusedError when none serves the protocol."""
        path = application_socket(tenant, protocol, run)
        try:
            channel, about, fds = await _say_hello(path, {})
        except ConnectionRefusedError:
            raise
        except OSError as error:
            raise ConnectionRefusedError(
                error.errno,
                f"no agent serves {protocol} for tenant {tenant}: start `python -m chamelio.tenant.agent {tenant} {protocol}`",
            ) from None
        return cls(path, channel, about, fds)

    # ---- requests ----------------------------------------------------------------------------------------------------

    async def _read_replies(self) -> None:
        try:
            await self._serve_replies()
        except asyncio.CancelledError:  # the loop ends, whose process may live on
            self.close(ConnectionAbortedError(errno.ECONNABORTED, "the event loop has ended"))
            raise

    async def _serve_replies(self) -> None:
        while True:
            with contextlib.suppress(Refusal, OSError):
                while (frame := await self._channel.receive()) is not None:
                    close_all(frame.fds)
                    self._replies.put_nowait(decode(frame.payload))
            self._connected.clear()
            self._replies.put_nowait(None)  # for who waits
            if self.on_resume is None or not await self._come_back():
                break
            self._connected.set()
            self.on_resume()
        self.close(ConnectionResetError(errno.ECONNRESET, "the tenant's agent has gone"))

    async def _come_back(self) -> bool:
        """To another agent, with the context that we have; the rings work on meanwhile."""
        self._channel.close()
        deadline = self._loop.time() + RESUME_S
        while not self.closed and self._loop.time() < deadline:
            try:
                channel, _, fds = await _say_hello(self._path, {"context": self.context}, [self._bell])
            except OSError as error:
                if error.errno == errno.ESTALE:
                    return False
                await asyncio.sleep(RESUME_RETRY_S)
                continue
            close_all(fds)
            self._channel, self._replies = channel, asyncio.Queue()
            return True
        return False

    async def call(self, verb: str, **arguments: Any) -> Any:
        """One request to the slow path. Raises OSError. A caller that is cancelled does not hear what becomes of it."""
        exchange = self._loop.create_task(self._exchange({"verb": verb, **arguments}))
        try:
            return await asyncio.shield(exchange)
        except asyncio.CancelledError:
            exchange.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody else looks at it
            raise

    async def _exchange(self, request: dict[str, Any]) -> Any:
        async with self._calls:
            await self._connected.wait()
            if self.closed:
                raise ConnectionResetError(errno.ECONNRESET, "the tenant's agent has gone")
            replies = self._replies
            await self._channel.send(request)
            reply = await replies.get()
        if reply is None:
            raise ConnectionResetError(errno.ECONNRESET, "the tenant's agent has gone")
        if "error" in reply:
            code = getattr(errno, str(reply["error"].get("code")), errno.EIO)
            raise OSError(code, reply["error"].get("message"))
        return reply["ok"]

    # ---- receiving -----------------------------------------------------------------------------------------------------

    def listen(self, ring: str) -> None:
        """Handle what arrives on an outbound ring, from whichever core, from now on."""
        self._received = [self.region.consumer(ring, self.context, core) for core in range(self.region.cores)]
        self._loop.add_reader(self._bell, self._rung)
        self._poll()

    def _rung(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if not os.read(self._bell, 4096):  # the engine held the other end
                self.close(ConnectionResetError(errno.ECONNRESET, "the engine has gone"))
                return
        for ring in self._received:
            ring.awake()
        self._poll()

    def _poll(self) -> None:
        if self.closed:
            return
        try:
            worked = False
            for ring in self._received:
                entries = ring.take(BATCH)
                if len(entries):
                    worked = True
                    self.on_entries(entries)
            if worked or not all(ring.sleep() for ring in self._received):
                self._loop.call_soon(self._poll)
        except RingDamaged as error:
            self.close(ConnectionResetError(errno.ECONNRESET, str(error)))

    def close(self, error: Exception | None = None) -> None:
        """Give the context back; every socket of it is told."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._bell)
        close_all([self._bell, *self._wake])
        self._channel.close()
        self._watch.cancel()
        self._connected.set()
        self._replies.put_nowait(None)  # for who waits
        for listener in list(self.listeners):
            listener.connection_lost(error)
        _forget(self)


_stacks: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str, str], asyncio.Task[Stack]]] = WeakKeyDictionary()


def _forget(stack: Stack) -> None:
    for stacks in _stacks.values():
        for key, task in list(stacks.items()):
            if task.done() and not task.cancelled() and task.exception() is None and task.result() is stack:
                del stacks[key]


async def shared_stack(tenant: str, protocol: str, run: Path | None, make: Callable[[Stack], object]) -> Stack:
    """The stack of this loop for a tenant's protocol; connected when it is first needed, with what `make` gives as its `user`."""
    stacks = _stacks.setdefault(asyncio.get_running_loop(), {})
    key = (tenant, protocol, str(run or default_run()))

    async def connect() -> Stack:
        stack = await Stack.connect(tenant, protocol, run)
        stack.user = make(stack)
        return stack

    if key not in stacks:
        stacks[key] = asyncio.create_task(connect())
    try:
        return await asyncio.shield(stacks[key])
    except OSError:
        stacks.pop(key, None)
        raise
