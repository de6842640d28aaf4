"""A TCP connection as an asyncio transport: bytes between a protocol and the connection's buffers, and how it begins and ends."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from asyncio import constants, transports
from collections import deque
from collections.abc import Callable
from typing import Any

from chamelio.sockets.stream_context import ABORT, CLOSE, GROW, READ, SEND, SHUT, Context, Damaged, Entry, Lane
from chamelio.tenant.rings import U32

NOTIFY = 1  # TCP_NOTIFY
BUFFER, BUFFER_MAX = 65536, 4194304  # TCP_BUFFER, TCP_BUFFER_MAX
GROWTH = 4  # a send buffer that is too small becomes so many times as large
KEEP = 1920  # bytes that a send buffer can take along when it grows
READ_MAX = 256 * 1024  # bytes that a protocol gets at once, as from asyncio's sockets
NO_GROWTH_S, NO_GROWTH_MAX_S = 0.1, 10.0  # how long growing is not tried again after it was refused; doubles
_SEND, _READ, _SHUT, _CLOSE, _ABORT, _GROW = (1 << n for n in range(6))  # what is to be asked of the handlers
_HALF = 1 << 31
Bytes = bytes | bytearray | memoryview


class StreamTransport(transports._FlowControlMixin, asyncio.Transport):
    """One connection. What finds no room in its send buffer waits here, and is what `get_write_buffer_size` counts.

    The flow control is asyncio's own mixin, because `loop.start_tls` and `loop.sendfile` ask for that.
    """

    _loop: asyncio.AbstractEventLoop
    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.FALLBACK

    def __init__(self, context: Context, lane: Lane, conn: int, generation: int, pos: int, end: int) -> None:
        """`pos` is the first sequence number to read, `end` the first to write."""
        row = context.about[conn]
        peer = socket.inet_ntoa(int(row["address"]).to_bytes(4, "little")), socket.ntohs(int(row["port"]))
        local = context.stack.address, socket.ntohs(int(row["local_port"]))
        super().__init__({"peername": peer, "sockname": local}, context.loop)
        self._context, self._lane, self._conn, self.generation = context, lane, conn, generation
        self._protocol: Any = None
        self._on_lost: Callable[[], None] | None = None
        self._buffered = False
        # Reading. The context writes what events say.
        self._pos = self.end = pos
        self.fin = False
        self.ended: int | None = None  # by which error; 0: both sides had closed
        self._started = self._paused = self._eof_told = False
        # Writing.
        self._wpos = end
        self._backlog: deque[memoryview] = deque()
        self._backlog_bytes = 0
        self._mark: int | None = None  # what is to be acknowledged before we hear of it
        self._growing = self._eof = False
        self._refusals, self._grow_after = 0, 0.0
        # Both.
        self._due = 0
        self._queued = self._closing = self._lost = False

    def __repr__(self) -> str:
        state = "closed" if self._lost else "closing" if self._closing else "open"
        return f"<{type(self).__name__} {self._extra['sockname']} -> {self._extra['peername']} {state}>"  # type: ignore[attr-defined]

    # ---- protocols -------------------------------------------------------------------------------------------------------------

    def start(self, protocol: asyncio.BaseProtocol, on_lost: Callable[[], None] | None = None) -> None:
        """The connection is made; what has come already is delivered soon. `on_lost` is called after `connection_lost`."""
        self.set_protocol(protocol)
        self._on_lost = on_lost
        try:
            protocol.connection_made(self)
        except Exception as error:
            self._fatal_error(error, "Fatal error: protocol.connection_made() call failed.")
        self._started = True
        self._loop.call_soon(self.advance)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """From now on this one is called."""
        self._protocol = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The one that is called."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peername`, `sockname`; `tcp_info`: the connection's row of `about` (protocols/tcp/tcp.h) as it is now, by name."""
        if name == "tcp_info" and self._context.connections.get(self._conn) is self:
            row = self._context.about[self._conn]
            return dict(zip(row.dtype.names, row.tolist(), strict=True))
        return super().get_extra_info(name, default)

    async def keep_alive(self, idle: float = 7200, interval: float = 75, count: int = 9) -> None:
        """Ask a peer that has been silent for `idle` seconds whether it is there; 0: never, which is how connections begin.

        It is asked again every `interval` seconds, and given up (TimeoutError) when `count` questions were not answered. Raises
        OSError.
        """
        which = {"conn": self._conn, "generation": self.generation}
        await self._context.stack.call("keepalive", **which, idle=idle, interval=interval, count=count)

    # ---- reading ---------------------------------------------------------------------------------------------------------------

    def is_reading(self) -> bool:
        """Whether data is delivered when it comes."""
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        """Deliver nothing for now. The peer can send until its window is used up."""
        if not self._closing:
            self._paused = True

    def resume_reading(self) -> None:
        """Deliver again, soon."""
        if self._paused and not self._closing:
            self._paused = False
            self._loop.call_soon(self.advance)

    def advance(self) -> None:
        """Deliver what has come, and how it ended."""
        if not self._started or self._lost:
            return
        if self._pos != self.end and self.is_reading():
            try:
                self._read()
            except Damaged as error:
                self._force_close(ConnectionResetError(errno.ECONNRESET, str(error)))
                return
        everything = self._pos == self.end
        if self.fin and everything and self.is_reading() and not self._eof_told:
            self._read_eof()
        if self.ended and (self._backlog or (everything and self.is_reading())):
            self._fail()

    def _fail(self) -> None:
        """It has ended by an error."""
        error = self.ended or errno.ECONNABORTED
        self._force_close(OSError(error, os.strerror(error)))

    def _read(self) -> None:
        conn, context, lane = self._conn, self._context, self._lane
        while self._pos != self.end and self.is_reading():
            length = min((self.end - self._pos) & U32, READ_MAX)
            try:
                if self._buffered:
                    length = self._fill_buffer(length)
                    context.taken[conn] = self._pos
                    self._protocol.buffer_updated(length)
                else:
                    data = lane.rx.read(conn, self._pos, length)
                    self._pos = context.taken[conn] = (self._pos + length) & U32
                    self._protocol.data_received(data)
            except Damaged:
                raise
            except Exception as error:
                self._fatal_error(error, "Fatal error: the protocol has failed to take data.")
                return
        space = max(lane.rx.size(conn), BUFFER)
        if space // 2 <= (self._pos + space - context.edge[conn]) & U32 < _HALF:
            self._ask(_READ)

    def _fill_buffer(self, length: int) -> int:
        """Copy to the protocol's own buffer; how much fits. No view of it is left: the protocol may want to resize it."""
        with memoryview(self._protocol.get_buffer(length)) as buffer, buffer.cast("B") as whole, whole[:length] as part:
            if not len(part):
                raise RuntimeError("get_buffer() returned an empty buffer")
            self._lane.rx.read_into(self._conn, self._pos, part)
            self._pos = (self._pos + len(part)) & U32
            return len(part)

    def _read_eof(self) -> None:
        self._eof_told = True
        try:
            keep_open = self._protocol.eof_received()
        except Exception as error:
            self._fatal_error(error, "Fatal error: protocol.eof_received() call failed.")
            return
        if not keep_open:
            self.close()

    # ---- writing ---------------------------------------------------------------------------------------------------------------

    def write(self, data: Bytes) -> None:
        """Send data; it is copied. What is written in one turn of the loop goes together."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._eof:
            raise RuntimeError("Cannot call write() after write_eof()")
        if isinstance(data, memoryview):
            data = data.cast("B") if data.contiguous else data.tobytes()
        length = len(data)
        if not length or self._closing:
            return
        if self.ended:
            self._fail()
            return
        if not self._backlog and not self._growing and length <= self._room and self._put(data):
            return
        # A view of bytes copies nothing; what can change under our hands is copied.
        self._backlog.append(memoryview(data if isinstance(data, bytes) else bytes(data)))
        self._backlog_bytes += length
        if len(self._backlog) == 1:
            self._fill()
        self._maybe_pause_protocol()  # type: ignore[attr-defined]

    def writelines(self, list_of_data: Any) -> None:
        """Send all of these."""
        for data in list_of_data:
            self.write(data)

    @property
    def _unacknowledged(self) -> int:
        return (self._wpos - self._context.acked[self._conn]) & U32

    @property
    def _room(self) -> int:
        return self._lane.tx.size(self._conn) - self._unacknowledged

    def _put(self, data: Bytes) -> bool:
        if not self._lane.tx.write(self._conn, self._wpos, data):
            return False  # the connection has ended; we shall hear of it
        self._wpos = (self._wpos + len(data)) & U32
        self._ask(_SEND)
        return True

    def _fill(self) -> None:
        """Move what waits to the send buffer, as far as there is room; then ask for more room, or to be told of it."""
        if self._growing or not self._backlog:
            return
        size = self._lane.tx.size(self._conn)
        if self._may_grow(size) and self._unacknowledged <= KEEP:
            self._growing = True
            self._ask(_GROW)
            return
        room = size - self._unacknowledged
        while self._backlog and room > 0:
            first = self._backlog[0]
            part = first[:room]
            if not self._put(part):
                return
            room -= len(part)
            self._backlog_bytes -= len(part)
            if len(part) == len(first):
                self._backlog.popleft()
            else:
                self._backlog[0] = first[len(part) :]
        if self._backlog:
            left = KEEP if self._may_grow(size) else size // 2
            self._mark = (self._wpos - min(left, size // 2)) & U32
            self._ask(_SEND)
        elif self._closing:
            self._ask(_CLOSE)
        elif self._eof:
            self._ask(_SHUT)

    def _may_grow(self, size: int) -> bool:
        """A buffer that is full should be larger: a small one always, others if that is what keeps the window from being used."""
        if size >= BUFFER_MAX or self._loop.time() < self._grow_after:
            return False
        return size < BUFFER or 2 * self._context.win[self._conn] > size

    def writable(self) -> None:
        """There is room in the send buffer, or it can grow."""
        if not self._lost:
            self._fill()
            self._maybe_resume_protocol()  # type: ignore[attr-defined]

    def grown(self, error: int) -> None:
        """The send buffer may be written again; `error`: it is as it was."""
        self._growing = False
        if error:
            self._grow_after = self._loop.time() + min(NO_GROWTH_S * 2**self._refusals, NO_GROWTH_MAX_S)
            self._refusals += 1
        else:
            self._refusals = 0
        self.writable()

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for room in the send buffer."""
        return self._backlog_bytes

    def can_write_eof(self) -> bool:
        """Yes: TCP closes each direction by itself."""
        return True

    def write_eof(self) -> None:
        """Send what waits, then a FIN; reading goes on."""
        if not self._closing and not self._eof:
            self._eof = True
            if not self._backlog:
                self._ask(_SHUT)

    # ---- entries ---------------------------------------------------------------------------------------------------------------

    def _ask(self, what: int) -> None:
        self._due |= what
        if not self._queued and not self._context.stack.closed:
            self._queued = True
            self._lane.queue.append(self)
            self._context.flush_soon()

    def next_entry(self) -> Entry | None:
        """What is due, in the order in which it must be said."""
        due, conn, generation = self._due, self._conn, self.generation
        if not due:
            self._queued = False
            return None
        if due & (_ABORT | _CLOSE):
            self._due = 0
            if not due & _ABORT:
                self._lane.leave(self)
            self._context.forget(conn)
            return (ABORT if due & _ABORT else CLOSE, conn, generation, self._wpos, 0, 0, 0, 0, 0, 0, 0)
        if due & _SHUT:
            self._due &= ~(_SHUT | _SEND)
            return (SHUT, conn, generation, self._wpos, 0, 0, 0, 0, 0, 0, 0)
        if due & _SEND:
            self._due &= ~_SEND
            mark, self._mark = self._mark, None
            return (SEND, conn, generation, self._wpos, 0 if mark is None else NOTIFY, mark or 0, 0, 0, 0, 0, 0)
        if due & _GROW:
            self._due &= ~_GROW
            size = max(BUFFER, min(GROWTH * self._lane.tx.size(conn), BUFFER_MAX))
            return (GROW, conn, generation, self._wpos, 0, 0, size, 0, 0, 0, 0)
        self._due = 0
        return (READ, conn, generation, 0, 0, 0, 0, 0, 0, 0, 0)

    # ---- the end ---------------------------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing

    def close(self) -> None:
        """Send what waits, then close. `connection_lost` follows when everything is with the engine, which will deliver it."""
        if not self._closing:
            self._closing = True
            if not self._backlog:
                self._ask(_CLOSE)

    def closed(self) -> None:
        """The engine has taken all that there was."""
        if not self._lost:
            self._lost = True
            self._call_connection_lost(None)

    def abort(self) -> None:
        """Reset the connection; what waits is not sent."""
        self._force_close(None)

    def lose(self, error: Exception | None) -> None:
        """The agent or the engine has gone."""
        self._force_close(error)

    def _fatal_error(self, error: BaseException, message: str) -> None:
        if not isinstance(error, OSError):
            about = {"message": message, "exception": error, "transport": self, "protocol": self._protocol}
            self._loop.call_exception_handler(about)
        self._force_close(error)

    def _force_close(self, error: BaseException | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._backlog.clear()
        self._backlog_bytes = 0
        if self._context.connections.get(self._conn) is self:
            self._ask(_ABORT)
        self._loop.call_soon(self._call_connection_lost, error)

    def _call_connection_lost(self, error: BaseException | None) -> None:
        on_lost, self._on_lost = self._on_lost, None
        try:
            if self._protocol is not None:
                self._protocol.connection_lost(error)
        finally:
            if on_lost is not None:
                on_lost()
