"""What applications use of rpc: `serve` and `connect`, on asyncio.

server = await rpc.serve(handler, 7, tenant="red")        # async def handler(request: bytes) -> bytes
client = await rpc.connect("10.0.0.1", 7, tenant="blue")
answer = await client.call(b"question", timeout=1.0)
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np

from chamelio.sockets.stack import Stack, shared_stack
from chamelio.tenant.rings import Entries, Producer

PROTOCOL = "rpc"
CALL, REPLY = 1, 2  # RPC_CALL, RPC_REPLY
REMOTE_ERROR = 121  # RPC_REMOTE_ERROR
OPENED, CLOSED, REQUEST, RESPONSE, FAILED = range(1, 6)
SESSIONS, SLOTS, MESSAGE_MAX = 64, 32, 65536  # RPC_SESSIONS, RPC_SLOTS, RPC_MESSAGE_MAX
ERROR_MAX = 1024  # bytes of an error's text
EARLY = 4096  # events that are kept for servers and clients that the agent knows already, and we do not yet
_REST = (0,) * 9  # of an entry, what only the slow path fills

Handler = Callable[[bytes], Awaitable[bytes]]


class RemoteError(Exception):
    """The server's handler has raised an exception: the text says which."""


class _Buffers:
    """The buffers of all slots; a message begins at RPC_BASE of its slot and wraps."""

    def __init__(self, rows: np.ndarray[Any, np.dtype[Any]]) -> None:
        self.size = rows.shape[1]
        self._bytes = memoryview(rows.data).cast("B")

    def read(self, slot: int, length: int) -> bytes:
        """A message that was received."""
        first = slot * self.size
        at = slot * 320 % self.size
        head = min(length, self.size - at)
        message = bytes(self._bytes[first + at : first + at + head])
        return message if head == length else message + bytes(self._bytes[first : first + length - head])

    def write(self, slot: int, message: bytes) -> None:
        """A message to be sent."""
        first = slot * self.size
        at = slot * 320 % self.size
        head = min(len(message), self.size - at)
        self._bytes[first + at : first + at + head] = message[:head]
        if head < len(message):
            self._bytes[first : first + len(message) - head] = message[head:]


class _Session:
    """What both ends know of an open session."""

    def __init__(self, number: int, generation: int, entries: Producer, owner: Server | Client | None) -> None:
        self.number, self.generation, self.entries, self.owner = number, generation, entries, owner
        self.error: int | None = None  # it has ended, by this errno value
        self.numbers = [0] * SLOTS  # client: of the last request in each slot
        self.calls: list[asyncio.Future[bytes] | None] = [None] * SLOTS

    def put(self, kind: int, slot: int, number: int, length: int, error: int = 0) -> None:
        """Tell the handlers. The ring has room for an entry of each slot of each session, and no slot has two."""
        if not self.entries.put((kind, self.number, slot, number, length, self.generation, *_REST, error)):
            raise OSError(errno.ENOBUFS, "the ring of entries is full")


class _Context:
    """All servers and clients of an application: gives events to whom they concern."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        region = stack.region
        self.entries = [region.producer("entries", stack.context, core) for core in range(region.cores)]
        self.rx, self.tx = _Buffers(region.buffers("rx_bytes")), _Buffers(region.buffers("tx_bytes"))
        self.about = region.values("about")
        self.sessions: dict[int, _Session] = {}
        self.servers: dict[int, Server] = {}
        self.opening: dict[int, asyncio.Future[_Session]] = {}
        self.asking = 0  # requests to the agent whose answer says whose events some are
        self._early: list[list[Any]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        stack.on_entries = self.deliver
        stack.on_resume = self._resumed
        stack.listen("events")

    def _resumed(self) -> None:
        """Another agent has taken over: sessions go on, but it knows nothing of ports and of sessions that were being opened."""
        for waiter in self.opening.values():
            if not waiter.done():
                waiter.set_exception(ConnectionResetError(errno.ECONNRESET, "the tenant's agent has gone"))
        self.opening.clear()
        for server in self.servers.values():
            self._background(self._serve_again(server))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_again(self, server: Server) -> None:
        try:
            await self.ask("serve", lambda answer: None, port=server.port)
        except OSError as error:
            server.connection_lost(error)

    def deliver(self, entries: Entries) -> None:
        """A batch of events."""
        for event in entries.tolist():
            self._event(event)

    def _event(self, event: Any) -> None:
        kind, number, slot, request, length, generation, _, error = event
        if kind == OPENED:
            self._opened(event)
            return
        session = self.sessions.get(number)
        if session is None or session.generation != generation:
            if kind == CLOSED and number in self.opening:
                waiter = self.opening.pop(number)
                if not waiter.done():
                    waiter.set_exception(OSError(error, os.strerror(error)))
            elif self.asking and len(self._early) < EARLY:
                self._early.append(event)
        elif kind == CLOSED:
            del self.sessions[number]
            session.error = error
            if session.owner is not None:
                session.owner.session_closed(session, error)
        elif session.owner is not None and slot < SLOTS and length <= MESSAGE_MAX:
            session.owner.on_event(session, kind, slot, request, length, error)

    def _opened(self, event: Any) -> None:
        _, number, _, _, slots, generation, core, _ = event
        owner: Server | Client | None = None
        if self.about["server"][number]:
            owner = self.servers.get(int.from_bytes(int(self.about["local_port"][number]).to_bytes(2, "little"), "big"))
        waiter = self.opening.pop(number, None)
        if owner is None and waiter is None:
            if self.asking and len(self._early) < EARLY:
                self._early.append(event)
            return
        session = _Session(number, generation, self.entries[core], owner)
        session.calls = [None] * min(slots, SLOTS)
        self.sessions[number] = session
        if waiter is not None and not waiter.done():
            waiter.set_result(session)

    async def ask(self, verb: str, know: Callable[[Any], None], **arguments: Any) -> Any:
        """A request to the agent, whose answer `know` enters here before events that were early are looked at. Raises OSError."""
        self.asking += 1
        try:
            answer = await self.stack.call(verb, **arguments)
            know(answer)
        finally:
            self.asking -= 1
            early, self._early = self._early, []
            for event in early:
                self._event(event)
        return answer

    async def open(self, **arguments: Any) -> _Session:
        """A session of a client. Raises OSError."""
        opening = asyncio.get_running_loop().create_task(self._open(**arguments))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._background(self._abandon(opening))
            raise

    async def _open(self, **arguments: Any) -> _Session:
        waiter: asyncio.Future[_Session] = asyncio.get_running_loop().create_future()
        await self.ask("connect", lambda answer: self.opening.__setitem__(answer["session"], waiter), **arguments)
        return await waiter

    async def _abandon(self, opening: asyncio.Task[_Session]) -> None:
        """Nobody wants a session any more that is being opened."""
        with contextlib.suppress(OSError):
            await self.stack.call("close", session=(await opening).number)
        self.release()

    def release(self) -> None:
        """Give the context back when nobody uses it."""
        if not self.stack.listeners and not self.asking and not self.opening:
            self.stack.close()


class Server:
    """Answers requests to a port, in as many tasks as there are requests. Made by `serve`."""

    def __init__(self, context: _Context, handler: Handler) -> None:
        self._context, self._handler = context, handler
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.address = (context.stack.address, 0)
        self.executed = self.failed = 0
        self._closed = asyncio.Event()
        context.stack.listeners.add(self)

    def _bound(self, answer: Any) -> None:
        self.port = answer["port"]
        self.address = (self._context.stack.address, self.port)
        self._context.servers[self.port] = self

    def on_event(self, session: _Session, kind: int, slot: int, number: int, length: int, error: int) -> None:
        """A request has come."""
        if kind == REQUEST:
            data = self._context.rx.read(session.number * SLOTS + slot, length)
            task = self._loop.create_task(self._execute(session, slot, number, data))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _execute(self, session: _Session, slot: int, number: int, data: bytes) -> None:
        """The answer, or what the handler has raised, goes back."""
        failure = 0
        try:
            answer = await self._handler(data)
            if len(answer) > MESSAGE_MAX:
                raise ValueError(f"an answer of {len(answer)} bytes is longer than {MESSAGE_MAX}")
            self.executed += 1
        except Exception as error:
            self.failed += 1
            self._loop.call_exception_handler({"message": "rpc handler failed", "exception": error})
            answer, failure = f"{type(error).__name__}: {error}".encode()[:ERROR_MAX], 1
        if self._context.sessions.get(session.number) is session and not self._context.stack.closed:
            self._context.tx.write(session.number * SLOTS + slot, answer)
            session.put(REPLY, slot, number, len(answer), failure)

    def session_closed(self, session: _Session, error: int) -> None:
        """A client has gone; what it has asked is executed all the same."""

    def connection_lost(self, error: Exception | None) -> None:
        """The agent or the engine has gone."""
        self._closed.set()

    async def wait_closed(self) -> None:
        """Wait until the server is closed, or its agent has gone."""
        await self._closed.wait()

    async def close(self) -> None:
        """Stop serving: sessions end, clients are told, handlers that still work are cancelled."""
        context = self._context
        if context.servers.pop(self.port, None) is not self:
            return
        self._closed.set()
        context.stack.listeners.discard(self)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not context.stack.closed:
            await context.stack.call("stop", port=self.port)
            context.release()


class Client:
    """Asks a server. Calls beyond the number of slots wait their turn. Made by `connect`."""

    def __init__(self, context: _Context, address: tuple[str, int]) -> None:
        self._context, self.address = context, address
        self._loop = asyncio.get_running_loop()
        self._sessions: list[_Session] = []
        self._free: list[tuple[_Session, int]] = []  # the last first: a slot's next request acknowledges its answer before
        self._queue: deque[asyncio.Future[tuple[_Session, int]]] = deque()
        self._error: OSError | None = None
        context.stack.listeners.add(self)

    def _add(self, session: _Session) -> None:
        session.owner = self
        self._sessions.append(session)
        if session.error is not None:
            self.session_closed(session, session.error)
            return
        for slot in range(len(session.calls)):
            self._release(session, slot)

    def _release(self, session: _Session, slot: int) -> None:
        """A slot is free: for who waits, or for later."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result((session, slot))
                return
        self._free.append((session, slot))

    async def call(self, data: bytes, timeout: float | None = None) -> bytes:
        """The server's answer. Raises TimeoutError, OSError when the server has gone, and RemoteError when its handler has failed.

        After the first two the request may have been executed or not; it is never executed twice. A call that is given up keeps
        its slot until the server answers or cannot be reached any more.
        """
        if len(data) > MESSAGE_MAX:
            raise ValueError(f"a request of {len(data)} bytes is longer than {MESSAGE_MAX}")
        if timeout is None:
            return await self._call(data)
        async with asyncio.timeout(timeout):
            return await self._call(data)

    async def _call(self, data: bytes) -> bytes:
        if self._error is not None:
            raise self._error
        if self._free:
            session, slot = self._free.pop()
        else:
            turn: asyncio.Future[tuple[_Session, int]] = self._loop.create_future()
            self._queue.append(turn)
            try:
                session, slot = await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled() and turn.exception() is None:
                    self._release(*turn.result())
                raise
        session.numbers[slot] += 1
        answer: asyncio.Future[bytes] = self._loop.create_future()
        session.calls[slot] = answer
        self._context.tx.write(session.number * SLOTS + slot, data)
        session.put(CALL, slot, session.numbers[slot], len(data))
        return await answer

    def on_event(self, session: _Session, kind: int, slot: int, number: int, length: int, error: int) -> None:
        """An answer has come, or will not come."""
        answer = session.calls[slot] if slot < len(session.calls) else None
        if answer is None or number != session.numbers[slot]:
            return
        session.calls[slot] = None
        if not answer.done():
            message = self._context.rx.read(session.number * SLOTS + slot, length)
            if kind == RESPONSE:
                answer.set_result(message)
            elif error == REMOTE_ERROR:
                answer.set_exception(RemoteError(message.decode(errors="replace")))
            else:
                answer.set_exception(TimeoutError(error, f"{self.address[0]} does not answer"))
        self._release(session, slot)

    def session_closed(self, session: _Session, error: int) -> None:
        """One session has ended: so has the client."""
        self._fail(OSError(error or errno.ECONNABORTED, os.strerror(error or errno.ECONNABORTED)))

    def connection_lost(self, error: Exception | None) -> None:
        """The agent or the engine has gone."""
        self._fail(error if isinstance(error, OSError) else ConnectionAbortedError(errno.ECONNABORTED, "the client is closed"))

    def _fail(self, error: OSError) -> None:
        self._error = self._error or error
        for session in self._sessions:
            for slot, answer in enumerate(session.calls):
                if answer is not None and not answer.done():
                    answer.set_exception(error)
                session.calls[slot] = None
        for turn in self._queue:
            if not turn.done():
                turn.set_exception(error)
        self._queue.clear()
        self._free.clear()

    async def close(self) -> None:
        """End the sessions; calls that wait fail."""
        context = self._context
        if self not in context.stack.listeners:
            return
        self._fail(ConnectionAbortedError(errno.ECONNABORTED, "the client is closed"))
        context.stack.listeners.discard(self)
        for session in self._sessions:
            if session.error is None and not context.stack.closed:
                with contextlib.suppress(OSError):  # it has just ended by itself
                    await context.stack.call("close", session=session.number)
        if not context.stack.closed:
            context.release()


async def _context(tenant: str | None, run: Path | None) -> _Context:
    name = tenant or os.environ.get("CHAMELIO_TENANT")
    if not name:
        raise OSError(errno.EINVAL, "whose? give tenant=, or set CHAMELIO_TENANT")
    stack = await shared_stack(name, PROTOCOL, run, _Context)
    context: _Context = stack.user
    return context


async def serve(handler: Handler, port: int = 0, *, tenant: str | None = None, run: Path | None = None) -> Server:
    """Serve a port (0: any) of the tenant, by default `$CHAMELIO_TENANT`. Raises OSError.

    `handler` gets each request once. Requests come in any order, many at a time.
    """
    context = await _context(tenant, run)
    server = Server(context, handler)
    try:
        await context.ask("serve", server._bound, port=port)
    except BaseException:
        context.stack.listeners.discard(server)
        context.release()
        raise
    return server


async def connect(
    address: str, port: int, *, outstanding: int = SLOTS, rate: float = 0, tenant: str | None = None, run: Path | None = None
) -> Client:
    """Connect to a server. Raises OSError: ConnectionRefusedError, TimeoutError and others.

    `outstanding`: how many requests can be under way at least; a session carries 32, more need more sessions (a tenant has 64).
    `rate`: bits/s of messages that each session sends at most, 0: no limit.
    """
    context = await _context(tenant, run)
    client = Client(context, (address, port))
    try:
        while sum(len(s.calls) for s in client._sessions) < outstanding:
            client._add(await context.open(address=address, port=port, rate=rate))
        client._free.sort(key=lambda free: -free[1])  # all sessions, and with them cores, have their share of few requests
    except BaseException:
        await client.close()
        raise
    return client
