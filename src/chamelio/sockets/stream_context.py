"""TCP's rings and buffers as one application has them: events go to its connections, what they ask goes to the handlers.

The contract is protocols/tcp/tcp.h. A `Context` belongs to one stack and so to one event loop.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from chamelio.sockets.stack import Stack
from chamelio.tenant.region import Region
from chamelio.tenant.rings import U32, Entries, RingDamaged
from chamelio.tenant.steering import flow_core

if TYPE_CHECKING:
    from chamelio.sockets.stream_transport import StreamTransport

SEND, READ, SHUT, CLOSE, ABORT, GROW, CONNECT = range(1, 8)  # TCP_SEND and so on
CONNECTED, ACCEPTED, DATA, FIN, WRITABLE, ENDED, GROWN = range(1, 8)  # TCP_CONNECTED and so on
ENTRY = ("kind", "conn", "generation", "end", "flags", "mark", "value", "address", "port", "local_port", "tag")  # struct tcp_entry
EVENT = ("kind", "conn", "generation", "pos", "end", "tag", "error", "core")  # struct tcp_event
RETRY_S = 0.0005  # the engine does not announce room in inbound rings, nor that it has taken what is in them: it is looked for
LINGER_S = 0.05  # an idle context is kept for so long, for who connects again at once
TRIES = 100  # a buffer that moves while it is read is read again

Entry = tuple[int, ...]  # in the order of ENTRY


class Damaged(Exception):
    """What the region says of a buffer cannot be true."""


class Arena:
    """A pool's buffers on one core. Where one lies is looked up for each use, because it may move."""

    def __init__(self, region: Region, name: str, core: int) -> None:
        m = region.maps[name]
        assert m.shared is not None
        step = core * region.layout.core_bytes
        at = m.shared + step
        self._bytes = region.content[at : at + (m.stride << m.key_size)]
        at = m.free - region.layout.private_bytes + step
        self._places = region.content[at : at + 8 * m.max_entries].cast("I")

    def size(self, conn: int) -> int:
        """Bytes of a connection's buffer now; 0: it has none, or is moving."""
        return self._places[2 * conn + 1]

    def read(self, conn: int, pos: int, length: int) -> bytes:
        """Bytes from position `pos` on. Raises Damaged."""
        places, whole, i = self._places, self._bytes, 2 * conn
        for _ in range(TRIES):
            size = places[i + 1]
            offset = places[i]
            if length <= size:
                at = pos % size
                if at + length <= size:
                    data = bytes(whole[offset + at : offset + at + length])
                else:
                    data = b"".join((whole[offset + at : offset + size], whole[offset : offset + at + length - size]))
                if places[i] == offset and places[i + 1] == size and len(data) == length:
                    return data
        raise Damaged(f"connection {conn} has no buffer with {length} bytes")

    def read_into(self, conn: int, pos: int, target: memoryview) -> None:
        """As `read`, to `target`, which it fills. Raises Damaged."""
        places, whole, i, length = self._places, self._bytes, 2 * conn, len(target)
        for _ in range(TRIES):
            size = places[i + 1]
            offset = places[i]
            if length <= size and offset + size <= len(whole):
                at = pos % size
                head = min(length, size - at)
                target[:head] = whole[offset + at : offset + at + head]
                target[head:] = whole[offset : offset + length - head]
                if places[i] == offset and places[i + 1] == size:
                    return
        raise Damaged(f"connection {conn} has no buffer with {length} bytes")

    def write(self, conn: int, pos: int, data: bytes | bytearray | memoryview) -> bool:
        """Bytes from position `pos` on. False: there is no such buffer any more."""
        i, length = 2 * conn, len(data)
        size = self._places[i + 1]
        offset = self._places[i]
        if length > size or offset + size > len(self._bytes):
            return False
        at = pos % size
        if at + length <= size:
            self._bytes[offset + at : offset + at + length] = data
        else:
            head = size - at
            view = memoryview(data)
            self._bytes[offset + at : offset + size] = view[:head]
            self._bytes[offset : offset + length - head] = view[head:]
        return True


class Lane:
    """One core: its buffers, its ring of entries, and who waits to write there. Nothing that waits for room is lost."""

    def __init__(self, region: Region, context: int, core: int) -> None:
        self.core = core
        self.rx, self.tx = Arena(region, "rx_bytes", core), Arena(region, "tx_bytes", core)
        m = region.maps["entries"]
        assert m.shared is not None
        self._ring = region.producer("entries", context, core)
        self._at = m.shared + context * m.context_stride + core * region.layout.core_bytes + 128
        self._stride, self._content = m.stride, region.content
        self._pack = _packing(region.types["entries"]).pack_into
        self.queue: deque[Entry | StreamTransport] = deque()  # entries, and those who have some
        self._leaving: deque[tuple[int, StreamTransport]] = deque()  # (index after its TCP_CLOSE, who)

    def flush(self) -> None:
        """Write what there is room for. Raises RingDamaged."""
        queue, ring = self.queue, self._ring
        room = ring.room if queue else 0
        while queue and room:
            first = queue[0]
            entry = first if isinstance(first, tuple) else first.next_entry()
            if entry is None or entry is first:
                queue.popleft()
            if entry is None:
                continue
            self._pack(self._content, self._at + ring.pos % ring.slots * self._stride, *entry)
            ring.publish()
            room = room - 1 or ring.room

    def leave(self, transport: StreamTransport) -> None:
        """The entry that `transport` gives now is its last: tell it when the engine has taken that."""
        self._leaving.append((self._ring.pos + 1 & U32, transport))

    def settle(self) -> None:
        """Tell those whose last entry has been taken. Raises RingDamaged."""
        if self._leaving:
            consumed = self._ring.consumed
            while self._leaving and (consumed - self._leaving[0][0]) & U32 < 1 << 31:
                self._leaving.popleft()[1].closed()

    def abandon(self) -> None:
        """The engine takes nothing any more."""
        self.queue.clear()
        while self._leaving:
            self._leaving.popleft()[1].closed()

    @property
    def busy(self) -> bool:
        """Something waits here: for room, or to be taken."""
        return bool(self.queue or self._leaving)

    @property
    def taken(self) -> bool:
        """The engine has taken everything. Raises RingDamaged."""
        return not self.busy and self._ring.room == self._ring.slots


def _packing(dtype: np.dtype[Any]) -> struct.Struct:
    """How a tuple becomes an entry."""
    assert dtype.names == ENTRY and dtype.fields is not None
    form = struct.Struct("<" + "".join({2: "H", 4: "I"}[dtype.fields[name][0].itemsize] for name in ENTRY))
    assert form.size == dtype.itemsize
    return form


def _words(region: Region, field: str, *, writable: bool = False) -> memoryview:
    """A column of `about`; an element of a memoryview is had in less time than one of an array."""
    column: Any = region.column("about", field, writable=writable)
    return memoryview(column)


class Serving(Protocol):
    """Who wants the connections to a port."""

    def accept(self, transport: StreamTransport) -> None:
        """A connection is open."""

    def connection_lost(self, error: Exception | None) -> None:
        """There will be no more."""

    async def listen_again(self) -> None:
        """Another agent has taken over, and knows nothing of us. Raises OSError."""


class Context:
    """All connections and servers of an application that share a stack. `make` makes a connection's transport."""

    def __init__(self, stack: Stack, make: Callable[[Context, Lane, int, int, int, int], StreamTransport]) -> None:
        self.stack, self._make = stack, make
        self.loop = asyncio.get_running_loop()
        region = stack.region
        for ring, fields in (("entries", ENTRY), ("events", EVENT)):
            if ring not in region.types or region.types[ring].names != fields:
                raise OSError(
                    errno.EPROTO, f"the tenant's protocol has no {ring} of TCP: it is another protocol, or another version"
                )
        self.lanes = [Lane(region, stack.context, core) for core in range(region.cores)]
        self.acked, self.edge, self.win = (_words(region, name) for name in ("acked", "edge", "win"))
        self.taken = _words(region, "taken", writable=True)
        self.about = region.values("about")
        self._limit = len(self.taken)
        self.connections: dict[int, StreamTransport] = {}
        self.servers: dict[int, Serving] = {}
        self.opening: dict[int, asyncio.Future[StreamTransport]] = {}
        self._tags = (n * 0x9E3779B1 & U32 for n in count(1))  # no number that another field could easily hold
        self._turn = 0
        self._asking = 0  # requests whose answer says whose connections some are
        self._unclaimed: list[tuple[int, StreamTransport]] = []
        self._delivering = False
        self._flush: asyncio.Handle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        stack.listeners.add(self)
        stack.on_entries = self._deliver
        stack.on_resume = self._resumed
        stack.listen("events")

    # ---- events ------------------------------------------------------------------------------------------------------------------

    def _deliver(self, entries: Entries) -> None:
        """A batch of events. Each connection's are taken together: much data is one `data_received`."""
        self._delivering = True
        touched: dict[int, StreamTransport] = {}
        connections = self.connections
        try:
            for event in entries.tolist():
                kind, conn, generation, _, end, tag, error, _ = event
                if kind in (CONNECTED, ACCEPTED):
                    self._opened(*event)
                transport = connections.get(conn)
                if transport is None or transport.generation != generation:
                    if kind == ENDED and tag in self.opening:
                        self._refused(*event)
                    continue
                if kind == DATA:
                    transport.end = end
                elif kind == FIN:
                    transport.fin = True
                elif kind == WRITABLE:
                    transport.writable()
                elif kind == GROWN:
                    transport.grown(error)
                elif kind == ENDED:
                    transport.ended = error
                touched[conn] = transport
            for transport in touched.values():
                transport.advance()
        finally:
            self._delivering = False
            self._flush_now()

    def _opened(self, kind: int, conn: int, generation: int, pos: int, end: int, tag: int, _: int, core: int) -> None:
        if conn >= self._limit or core >= len(self.lanes):
            return
        transport = self.connections[conn] = self._make(self, self.lanes[core], conn, generation, pos, end)
        if kind == CONNECTED:
            attempt = self.opening.pop(tag, None)
            if attempt is None or attempt.done():  # nobody wants it any more
                transport.abort()
            else:
                attempt.set_result(transport)
        elif (server := self.servers.get(tag)) is not None:
            server.accept(transport)
        elif self._asking:
            self._unclaimed.append((tag, transport))
        else:
            transport.abort()

    def _refused(self, _: int, conn: int, generation: int, _pos: int, _end: int, tag: int, error: int, core: int) -> None:
        """An attempt to connect has failed."""
        attempt = self.opening.pop(tag)
        if not attempt.done():
            attempt.set_exception(OSError(error or errno.ECONNABORTED, os.strerror(error or errno.ECONNABORTED)))
        if conn < self._limit and core < len(self.lanes):
            self.put(core, (ABORT, conn, generation, 0, 0, 0, 0, 0, 0, 0, 0))  # gives the number back
        self.release()

    # ---- entries -----------------------------------------------------------------------------------------------------------------

    def put(self, core: int, entry: Entry) -> None:
        """An entry that is no connection's."""
        self.lanes[core].queue.append(entry)
        self.flush_soon()

    def flush_soon(self) -> None:
        """Write entries at the end of this turn of the loop: what is written in several steps until then goes together."""
        if self._flush is None and not self._delivering:
            self._flush = self.loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        if self.stack.closed:
            return
        busy = False
        try:
            for lane in self.lanes:
                lane.flush()
                lane.settle()
                busy = busy or lane.busy
        except RingDamaged as error:
            self.stack.close(ConnectionResetError(errno.ECONNRESET, str(error)))
            return
        if busy and self._retry is None:
            self._retry = self.loop.call_later(RETRY_S, self._flush_again)

    def _flush_again(self) -> None:
        self._retry = None
        self._flush_now()

    # ---- connecting and serving --------------------------------------------------------------------------------------------------

    async def connect(self, address: str, port: int, local_port: int) -> StreamTransport:
        """A connection; nothing is read from it before its `start`. Raises OSError."""
        if self.stack.closed:
            raise ConnectionResetError(errno.ECONNRESET, "the tenant's agent has gone")
        number = int.from_bytes(socket.inet_aton(address), "little")
        if local_port:
            core = flow_core(len(self.lanes), number, port, local_port)
        else:
            core = self._turn = (self._turn + 1) % len(self.lanes)
        tag = next(tag for tag in self._tags if tag not in self.opening)
        attempt: asyncio.Future[StreamTransport] = self.loop.create_future()
        self.opening[tag] = attempt
        self.put(core, (CONNECT, 0, 0, 0, 0, 0, 0, number, socket.htons(port), socket.htons(local_port), tag))
        try:
            return await attempt
        except asyncio.CancelledError:
            if attempt.done() and not attempt.cancelled() and attempt.exception() is None:
                attempt.result().abort()
            self.release()
            raise

    async def listen(self, server: Serving, port: int, backlog: int) -> int:
        """Serve a port (0: any), which is returned. Raises OSError."""
        self._asking += 1
        try:
            answer: int = (await self.stack.call("listen", port=port, backlog=backlog))["port"]
            self.servers[answer] = server
            return answer
        finally:
            self._asking -= 1
            self._claim()
            self.release()

    def _claim(self) -> None:
        """Connections that came before it was known whose they are."""
        unclaimed, self._unclaimed = self._unclaimed, []
        for port, transport in unclaimed:
            server = self.servers.get(port)
            if server is not None:
                server.accept(transport)
            elif self._asking:
                self._unclaimed.append((port, transport))
            else:
                transport.abort()

    async def unlisten(self, port: int) -> None:
        """Serve a port no longer; connections that come meanwhile are given back."""
        self.servers.pop(port, None)
        self._asking += 1
        try:
            await self.stack.call("unlisten", port=port)
        except OSError:
            pass  # the agent has gone: so has the port
        finally:
            self._asking -= 1
            self._claim()
            self.release()

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that nobody waits for."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _resumed(self) -> None:
        """Another agent has taken over: connections go on, but it knows nothing of ports."""
        for port, server in self.servers.items():
            self.background(self._listen_again(port, server))

    async def _listen_again(self, port: int, server: Serving) -> None:
        try:
            await server.listen_again()
        except OSError as error:
            if self.servers.pop(port, None) is not None:
                server.connection_lost(error)
                self.release()

    # ---- the end -----------------------------------------------------------------------------------------------------------------

    def forget(self, conn: int) -> None:
        """A connection's number is not ours any more."""
        self.connections.pop(conn, None)
        self.release()

    @property
    def _idle(self) -> bool:
        wanted = any(not attempt.done() for attempt in self.opening.values())
        return not (self.connections or self.servers or self._asking or wanted)

    def release(self) -> None:
        """Give the context back when nobody has used it for a while."""
        if self._linger is None and not self.stack.closed and self._idle:
            self._linger = self.loop.call_later(LINGER_S, self._release)

    def _release(self) -> None:
        self._linger = None
        try:
            if self.stack.closed or not self._idle:
                return
            if all(lane.taken for lane in self.lanes):
                self.stack.close()
            else:
                self.release()
        except RingDamaged as error:
            self.stack.close(ConnectionResetError(errno.ECONNRESET, str(error)))

    def connection_lost(self, error: Exception | None) -> None:
        """The agent or the engine has gone, or a ring is damaged."""
        why = error or ConnectionAbortedError(errno.ECONNABORTED, "the application's context is closed")
        for attempt in self.opening.values():
            if not attempt.done():
                attempt.set_exception(why)
        self.opening.clear()
        for transport in list(self.connections.values()):
            transport.lose(error)
        self.connections.clear()
        for lane in self.lanes:
            lane.abandon()
        for server in list(self.servers.values()):
            server.connection_lost(error)
        self.servers.clear()
