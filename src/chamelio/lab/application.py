"""An application as tcp.h describes it, on the rings of one context, called once per round: what scripts and transfers drive."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chamelio.lab.contract import Contract
from chamelio.lab.pattern import OURS, PEERS, first_difference, pattern
from chamelio.tenant.region import Array, Region
from chamelio.tenant.rings import U32


def swap(port: int) -> int:
    """A port in packet byte order, or from it."""
    return (port & 0xFF) << 8 | port >> 8


def number(address: str) -> int:
    """An IPv4 address in packet byte order."""
    return int.from_bytes(bytes(map(int, address.split("."))), "little")


class Connection:
    """One connection. Numbers of bytes and positions count from the beginning of each direction, and do not wrap."""

    def __init__(self, application: Application, event: Mapping[str, int], *, opened: bool) -> None:
        self._app = application
        self.conn, self.generation, self.core = event["conn"], event["generation"], event["core"]
        self.first_read, self.first_write = event["pos"], event["end"]
        self.opened = opened  # by us
        self.out, self.into = application.patterns
        self.readable_to = self.read_to = self.written_to = 0
        self.pending = 0  # bytes that are to be written when there is room
        self.fin = False
        self.ended: int | None = None  # the error that it has ended with
        self.writable = 0  # TCP_WRITABLE events
        self.given_up = False
        self._growing = self._shut = self._closing = False
        self._full_at: int | None = None  # no larger buffer was to be had when so much was acknowledged
        self._filled_at = -1  # there was no room when so much was acknowledged
        self._notify = False

    # ---- what handlers tell -----------------------------------------------------------------------------------------------------

    def take(self, kind: str, event: Mapping[str, int]) -> None:
        """An event of this connection."""
        if kind in ("DATA", "FIN"):
            self.readable_to += max(_signed(event["end"] - self.first_read - self.readable_to), 0)
            self.fin = self.fin or kind == "FIN"
        elif kind == "WRITABLE":
            self.writable += 1
        elif kind == "ENDED":
            self.ended = event["error"]
        elif kind == "GROWN":
            self._growing = False
            self._filled_at = -1
            if event["error"]:
                self._full_at = self.acked

    @property
    def acked(self) -> int:
        """Bytes that the peer has acknowledged."""
        left = _signed(self.first_write + self.written_to - int(self._app.about["acked"][self.conn]))
        return self.written_to - max(left, 0)  # a FIN may be acknowledged, too

    @property
    def readable(self) -> int:
        """Bytes that can be read now."""
        return self.readable_to - self.read_to

    # ---- what the application does ----------------------------------------------------------------------------------------------

    def write(self, count: int, *, notify: bool = False) -> None:
        """Write the next `count` bytes of the pattern, as soon as there is room."""
        self.pending += count
        self._notify = self._notify or notify
        self.pump()

    def pump(self) -> None:
        """Move what waits into the send buffer, as far as there is room; ask for more room."""
        if not self.pending or self._growing or self.given_up or self.ended is not None:
            return
        acked = self.acked
        if acked == self._filled_at:
            return
        buffer = self._app.region.buffer("tx_bytes", self.conn, self.core)
        unacked = self.written_to - acked
        room = len(buffer) - unacked
        words = self._app.contract
        if self.pending > room and len(buffer) < words["TCP_BUFFER_MAX"] and self._full_at != acked:
            self._growing = True
            self._ask("TCP_GROW", value=min(unacked + self.pending, words["TCP_BUFFER_MAX"]))
            return
        count = min(self.pending, room)
        if count <= 0:
            self._filled_at = acked
            return
        put(buffer, self.first_write + self.written_to, pattern(self.written_to, count, self.out))
        self.written_to += count
        self.pending -= count
        flags = words["TCP_NOTIFY"] if self._notify and not self.pending else 0
        self._notify = self._notify and bool(self.pending)
        end = (self.first_write + self.written_to) & U32
        self._ask("TCP_SEND", end=end, flags=flags, mark=end)
        if not self.pending and self._closing:
            self.close()
        elif not self.pending and self._shut:
            self.shutdown()

    def peek(self, count: int) -> bytes:
        """The next `count` bytes that can be read."""
        buffer = self._app.region.buffer("rx_bytes", self.conn, self.core)
        return get(buffer, self.first_read + self.read_to, count)

    def read(self, count: int) -> bytes:
        """Take the next `count` bytes; ValueError when there are fewer."""
        if count > self.readable:
            raise ValueError(f"{self.readable} bytes can be read, not {count}")
        data = self.peek(count)
        self.read_to += count
        if self.ended is None:
            taken = self.first_read + self.read_to
            self._app.about["taken"][self.conn] = taken & U32
            buffer = self._app.region.buffer("rx_bytes", self.conn, self.core)
            window = max(len(buffer), self._app.contract["TCP_BUFFER"])
            if _signed(taken + window - int(self._app.about["edge"][self.conn])) >= window // 2:
                self._ask("TCP_READ")
        return data

    def read_all(self) -> int:
        """Take all that can be read; how much it was. ValueError when it is not what was written at the other end."""
        count = self.readable
        if count:
            at = self.read_to
            wrong = first_difference(self.read(count), at, self.into)
            if wrong is not None:
                raise ValueError(f"byte {wrong} is not what was written at the other end")
        return count

    def shutdown(self) -> None:
        """Write no more; what waits for room is written before."""
        self._shut = True
        if not self.pending:
            self._ask("TCP_SHUT", end=(self.first_write + self.written_to) & U32)

    def close(self) -> None:
        """Give the connection up, when what waits for room is written."""
        self._closing = True
        if not self.pending or self.ended is not None:
            self._ask("TCP_CLOSE", end=(self.first_write + self.written_to) & U32)
            self._give_up()

    def abort(self) -> None:
        """End it at once, and give it up."""
        self._ask("TCP_ABORT")
        self._give_up()

    def _give_up(self) -> None:
        self.given_up = True
        self._app.connections.pop(self.conn, None)

    def _ask(self, kind: str, **values: int) -> None:
        self._app.ask(self.core, kind=self._app.contract[kind], conn=self.conn, generation=self.generation, **values)

    @property
    def row(self) -> dict[str, int]:
        """The connection's row of `about`."""
        return {name: int(self._app.about[name][self.conn]) for name in self._app.about.dtype.names or ()}


def _signed(difference: int) -> int:
    """Of two 32-bit sequence numbers."""
    return ((difference + (1 << 31)) & U32) - (1 << 31)


def put(buffer: Array, position: int, data: Array) -> None:
    """Copy into a ring buffer."""
    at = position % len(buffer)
    head = min(len(data), len(buffer) - at)
    buffer[at : at + head] = data[:head]
    buffer[: len(data) - head] = data[head:]


def get(buffer: Array, position: int, count: int) -> bytes:
    """Copy out of a ring buffer."""
    if not count:
        return b""
    at = position % len(buffer)
    head = min(count, len(buffer) - at)
    return buffer[at : at + head].tobytes() + buffer[: count - head].tobytes()


@dataclass
class Attempt:
    """A TCP_CONNECT: it becomes a connection, or ends with an error."""

    tag: int
    connection: Connection | None = None
    error: int | None = None


class Application:
    """One context of a station: events in, entries out. `on_event`: called with what it was told, for traces.

    `patterns`: of the bytes that are written, and of those that are to be read.
    """

    def __init__(self, region: Region, contract: Contract, context: int, patterns: tuple[int, int] = (OURS, PEERS)) -> None:
        self.region, self.contract, self.context, self.patterns = region, contract, context, patterns
        self.about: Any = region.values("about")
        self._events = [region.consumer("events", context, core) for core in range(region.cores)]
        self._entries = [region.producer("entries", context, core) for core in range(region.cores)]
        self._names = region.types["entries"].names or ()
        self._waiting: list[deque[tuple[int, ...]]] = [deque() for _ in self._entries]
        self.connections: dict[int, Connection] = {}
        self.accepted: list[Connection] = []  # not accepted by a script yet
        self.attempts: dict[int, Attempt] = {}
        self.on_event: Callable[[str, Mapping[str, int]], None] = lambda kind, event: None

    def ask(self, core: int, **values: int) -> None:
        """Write an entry; the fields not given are 0. It waits for room if there is none."""
        self._waiting[core].append(tuple(values.get(name, 0) for name in self._names))
        self._flush()

    def _flush(self) -> None:
        for ring, waiting in zip(self._entries, self._waiting, strict=True):
            while waiting and ring.put(waiting[0]):
                waiting.popleft()

    def connect(self, address: str, port: int, *, local: int = 0, core: int = 0) -> Attempt:
        """Open a connection."""
        attempt = Attempt(len(self.attempts) + 1)
        self.attempts[attempt.tag] = attempt
        ports = {"port": swap(port), "local_port": swap(local)}
        self.ask(core, kind=self.contract["TCP_CONNECT"], address=number(address), tag=attempt.tag, **ports)
        return attempt

    def step(self) -> bool:
        """Take what handlers tell, write what has waited for room. True if there was anything."""
        worked = False
        for ring in self._events:
            if ring.ready:
                worked = True
                names = ring.entries.dtype.names or ()
                for row in ring.take().tolist():
                    self._take(dict(zip(names, row, strict=True)))
        self._flush()
        for connection in list(self.connections.values()):
            connection.pump()
        return worked

    def _take(self, event: dict[str, int]) -> None:
        kind = self.contract.events.get(event["kind"], str(event["kind"]))
        self.on_event(kind, event)
        attempt = self.attempts.get(event["tag"])
        if kind == "CONNECTED" and attempt is not None:
            attempt.connection = self.connections[event["conn"]] = Connection(self, event, opened=True)
        elif kind == "ACCEPTED":
            one = self.connections[event["conn"]] = Connection(self, event, opened=False)
            self.accepted.append(one)
        else:
            known = self.connections.get(event["conn"])
            if known is not None and known.generation == event["generation"]:
                known.take(kind, event)
            elif kind == "ENDED" and attempt is not None and attempt.connection is None:
                attempt.error = event["error"]

    def peer_port(self, connection: Connection) -> int:
        """The peer's port of a connection."""
        return swap(int(self.about["port"][connection.conn]))
