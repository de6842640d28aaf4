"""UDP with asyncio's own interface: DatagramTransport and DatagramProtocol, as `loop.create_datagram_endpoint` gives them."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from chamelio.sockets.stack import Stack, shared_stack
from chamelio.tenant.rings import U32, Entries, Producer

PROTOCOL = "udp"
SEND = 1  # UDP_SEND
PAYLOAD_MAX = 1472  # UDP_PAYLOAD_MAX
EARLY = 1024  # datagrams that are kept for sockets that are being bound
HIGH_WATER, LOW_WATER = 64 * 1024, 16 * 1024
RETRY_S = 0.0005  # the engine does not announce room in inbound rings: it is looked for
Address = tuple[str, int]


def _number(address: str) -> int:
    return int.from_bytes(ipaddress.IPv4Address(address).packed, "little")


def _text(number: int) -> str:
    return str(ipaddress.IPv4Address(number.to_bytes(4, "little")))


def _swap(port: int) -> int:
    return int.from_bytes(port.to_bytes(2, "big"), "little")


class _Demultiplexer:
    """Gives the entries of a context's outbound ring to its sockets, and shares its inbound ring among them."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        region = stack.region
        self.requests: list[Producer] = [region.producer("requests", stack.context, core) for core in range(region.cores)]
        self.taken = stack.region.column("sockets", "taken", writable=True)
        self.generations = stack.region.column("sockets", "generation")
        self.rx = stack.region.buffers("rx_bytes")
        self.tx = stack.region.buffers("tx_bytes")
        self.sockets: dict[int, DatagramTransport] = {}
        self.binding = 0  # sockets that the agent may have opened already, but we do not know yet
        self._early: list[tuple[int, int, int, bytes, Address]] = []  # what has come for them
        stack.on_entries = self.deliver
        stack.listen("received")

    def deliver(self, entries: Entries) -> None:
        """A batch of datagrams."""
        for socket, pos, length, address, port, generation, error in entries.tolist():
            if length > self.rx.shape[1]:
                continue
            transport = self.sockets.get(socket)
            if transport is None:
                if self.binding and not error and len(self._early) < EARLY:
                    data = _copy_out(self.rx[socket], pos, length)
                    self._early.append((socket, generation, pos + length, data, (_text(address), _swap(port))))
            elif generation != transport.generation & 0xFFFF:
                continue  # for a socket that is closed
            elif error:
                transport.fail(error)
            else:
                data = _copy_out(self.rx[socket], pos, length)
                self.taken[socket] = (pos + length) & U32
                transport.deliver(data, (_text(address), _swap(port)))

    def catch_up(self, transport: DatagramTransport, socket: int) -> None:
        """Deliver what came for a socket before it was known here."""
        mine = [e[1:] for e in self._early if e[0] == socket]
        self._early = [e for e in self._early if e[0] != socket] if self.binding else []
        for generation, end, data, source in mine:
            if generation == transport.generation & 0xFFFF:
                self.taken[socket] = end & U32
                transport.deliver(data, source)

    def release(self) -> None:
        """Give the context back when no socket uses or awaits it."""
        if not self.stack.listeners and not self.binding:
            self.stack.close()


def _copy_out(buffer: np.ndarray[Any, np.dtype[Any]], pos: int, length: int) -> bytes:
    at = pos % len(buffer)
    head = min(length, len(buffer) - at)
    return buffer[at : at + head].tobytes() + buffer[: length - head].tobytes()


class DatagramTransport(asyncio.DatagramTransport):
    """One socket. Datagrams that find no room wait here, and the protocol is told to pause beyond the high-water mark."""

    def __init__(
        self,
        demultiplexer: _Demultiplexer,
        protocol: asyncio.DatagramProtocol,
        socket: int,
        core: int,
        local: Address,
        remote: Address | None,
    ) -> None:
        super().__init__({"sockname": local, "peername": remote})
        self._demultiplexer, self._protocol, self._socket, self._remote = demultiplexer, protocol, socket, remote
        self._requests = demultiplexer.requests[core]
        self.generation = int(demultiplexer.generations[socket])
        self._loop = asyncio.get_running_loop()
        self._buffer = demultiplexer.tx[socket]
        self._pos = self._freed = 0
        self._in_flight: deque[tuple[int, int]] = deque()  # (ring index after the entry, end of its payload)
        self._waiting: deque[tuple[bytes, Address | None]] = deque()
        self._waiting_bytes = 0
        self._paused = self._closing = False
        self._retry: asyncio.TimerHandle | None = None
        demultiplexer.sockets[socket] = self
        demultiplexer.stack.listeners.add(self)

    # ---- receiving -----------------------------------------------------------------------------------------------------

    def deliver(self, data: bytes, address: Address) -> None:
        """A datagram has come."""
        if not self._closing:
            self._protocol.datagram_received(data, address)

    def fail(self, error: int) -> None:
        """The network has refused something that was sent."""
        if not self._closing:
            self._protocol.error_received(OSError(error, os.strerror(error)))

    # ---- sending -------------------------------------------------------------------------------------------------------

    def sendto(self, data: bytes | bytearray | memoryview, addr: Address | None = None) -> None:  # type: ignore[override]
        """Send a datagram; to `addr`, or to the peer of a connected socket. Errors come to `error_received`."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data is a bytes-like object, not {type(data).__name__}")
        if self._remote is None and addr is None:
            raise ValueError("sendto needs an address: this socket is not connected")
        if self._remote is not None and addr not in (None, self._remote):
            raise ValueError(f"this socket is connected to {self._remote}")
        if self._closing:
            return
        if len(data) > PAYLOAD_MAX:
            self._protocol.error_received(OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE)))
            return
        if self._waiting or not self._send(bytes(data), addr):
            self._waiting.append((bytes(data), addr))
            self._waiting_bytes += len(data)
            self._retry_later()
            if self._waiting_bytes > HIGH_WATER and not self._paused:
                self._paused = True
                self._protocol.pause_writing()

    def _send(self, data: bytes, addr: Address | None) -> bool:
        requests = self._requests
        consumed = requests.consumed
        while self._in_flight and (consumed - self._in_flight[0][0]) & U32 < 1 << 31:
            self._freed = self._in_flight.popleft()[1]
        size = len(self._buffer)
        if not requests.room or self._pos - self._freed + len(data) > size:
            return False
        at, array = self._pos % size, np.frombuffer(data, np.uint8)
        head = min(len(data), size - at)
        self._buffer[at : at + head] = array[:head]
        self._buffer[: len(data) - head] = array[head:]
        address, port = (_number(addr[0]), _swap(addr[1])) if addr else (0, 0)
        requests.put((SEND, self._socket, address, port, 0, self._pos & U32, len(data), 0, 0))
        self._pos += len(data)
        self._in_flight.append((requests.pos, self._pos))
        return True

    def _retry_later(self) -> None:
        if self._retry is None:
            self._retry = self._loop.call_later(RETRY_S, self._retry_now)

    def _retry_now(self) -> None:
        self._retry = None
        if self._demultiplexer.stack.closed:
            return
        while self._waiting and self._send(*self._waiting[0]):
            self._waiting_bytes -= len(self._waiting.popleft()[0])
        if self._paused and self._waiting_bytes <= LOW_WATER:
            self._paused = False
            self._protocol.resume_writing()
        if self._waiting:
            self._retry_later()
        elif self._closing:
            self._close_now(None)

    def get_write_buffer_size(self) -> int:
        """Bytes that wait for room."""
        return self._waiting_bytes

    # ---- the end ----------------------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether `close` or `abort` was called."""
        return self._closing

    def close(self) -> None:
        """Send what waits, then close."""
        if not self._closing:
            self._closing = True
            if not self._waiting:
                self._close_now(None)

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._waiting.clear()
        self._close_now(None)

    def _close_now(self, error: Exception | None) -> None:
        stack = self._demultiplexer.stack
        if self._demultiplexer.sockets.pop(self._socket, None) is None:
            return
        stack.listeners.discard(self)
        if not stack.closed:
            _background(self._loop, self._give_back())
        self._loop.call_soon(self._protocol.connection_lost, error)

    async def _give_back(self) -> None:
        """Close the socket once the engine has sent what it was given; the last one closes the stack."""
        stack, requests = self._demultiplexer.stack, self._requests
        last = requests.pos
        while not stack.closed and (last - requests.consumed) & U32:
            await asyncio.sleep(RETRY_S)
        try:
            await stack.call("close", socket=self._socket)
        except OSError:
            return
        self._demultiplexer.release()

    def connection_lost(self, error: Exception | None) -> None:
        """The agent or the engine has gone."""
        self._closing = True
        self._close_now(error)


_tasks: set[asyncio.Task[None]] = set()


def _background(loop: asyncio.AbstractEventLoop, work: Any) -> None:
    task = loop.create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def create_datagram_endpoint(
    protocol_factory: Callable[[], asyncio.DatagramProtocol],
    local_addr: tuple[str | None, int] | None = None,
    remote_addr: Address | None = None,
    *,
    tenant: str | None = None,
    run: Path | None = None,
    protocol: str = PROTOCOL,
) -> tuple[DatagramTransport, asyncio.DatagramProtocol]:
    """As `loop.create_datagram_endpoint`, over the tenant's own UDP. `tenant`: by default `$CHAMELIO_TENANT`. Raises OSError.

    The local address is the tenant's; `local_addr` chooses the port (0: an ephemeral one). `protocol`: the name under which
    the tenant has loaded UDP, where it has loaded it more than once.
    """
    name = tenant or os.environ.get("CHAMELIO_TENANT")
    if not name:
        raise OSError(errno.EINVAL, "whose socket? give tenant=, or set CHAMELIO_TENANT")

    stack = await shared_stack(name, protocol, run, _Demultiplexer)
    demultiplexer: _Demultiplexer = stack.user
    demultiplexer.binding += 1
    try:
        if local_addr and local_addr[0] not in (None, "", "0.0.0.0", stack.address):
            raise OSError(errno.EADDRNOTAVAIL, f"tenant {name} has the address {stack.address}, not {local_addr[0]}")
        remote = list(remote_addr) if remote_addr else None
        bound = await stack.call("bind", port=local_addr[1] if local_addr else 0, remote=remote)
    except BaseException:
        demultiplexer.binding -= 1
        demultiplexer.release()
        raise
    demultiplexer.binding -= 1
    made = protocol_factory()
    local = (stack.address, bound["port"])
    transport = DatagramTransport(demultiplexer, made, bound["socket"], bound["core"], local, remote_addr)
    made.connection_made(transport)
    demultiplexer.catch_up(transport, bound["socket"])
    return transport, made
