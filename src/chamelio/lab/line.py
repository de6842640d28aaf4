"""A line between two hosts: a rate, a delay, a queue that drops and marks. All that passes can be seen."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from chamelio.engine.ports import WirePeer
from chamelio.lab.segments import ECN, checksum

IPV4 = b"\x08\x00"
CE = ECN["ce"]


@dataclass
class Direction:
    """One way through a line, and what has happened there; the queue's lengths in packets, the one that is being sent included."""

    source: WirePeer
    target: WirePeer
    packets: int = 0
    octets: int = 0
    dropped: int = 0
    lost: int = 0  # by `Line.drop`
    marked: int = 0
    longest: int = 0
    queued: int = 0  # what each packet has found before it, added up
    leaves: deque[int] = field(default_factory=deque)  # when those that wait are on their way
    arrives: list[tuple[int, int, bytes]] = field(default_factory=list)  # a heap: when, its number, the frame

    @property
    def average(self) -> float:
        """Packets that one has found before it, on average."""
        return self.queued / self.packets if self.packets else 0.0


class Line:
    """A task of the world that carries frames between two peers' wires, in both directions alike.

    `rate`: bits/s (None: as fast as can be); `delay`: s, one way; `queue`: packets that may wait; `mark`: a packet that finds so
    many before it and can be marked is (RFC 3168, 5; the threshold of RFC 8257, 3.1). `tap(forth, packet, dropped)` sees each
    IPv4 packet.

    `drop(forth, packet)`, when it is set, says which IPv4 packets are lost on the way, behind the queue. `detours`: ns more each
    way, by the port of the connection at the second host, so that connections with different round trips share the queue.
    """

    def __init__(
        self,
        a: WirePeer,
        b: WirePeer,
        *,
        rate: float | None = None,
        delay: float = 0.0,
        queue: int = 1000,
        mark: int | None = None,
        tap: Callable[[bool, bytes, bool], None] | None = None,
    ) -> None:
        self.forth, self.back = Direction(a, b), Direction(b, a)
        self._rate, self._delay_ns, self._queue, self._mark = rate, round(delay * 1e9), queue, mark
        self._tap = tap
        self.drop: Callable[[bool, bytes], bool] | None = None
        self.detours: dict[int, int] = {}

    def step(self, now: int) -> int | None:
        """In each round: frames that have come, and those that arrive. When the next one does (ns)."""
        due = [at for way in (self.forth, self.back) if (at := self._carry(way, now)) is not None]
        return min(due, default=None)

    def _carry(self, way: Direction, now: int) -> int | None:
        for frame in way.source.receive():
            self._enqueue(way, frame, now)
        while way.arrives and way.arrives[0][0] <= now and way.target.send(way.arrives[0][2]):
            heapq.heappop(way.arrives)
        return max(way.arrives[0][0], now + 1) if way.arrives else None

    def _enqueue(self, way: Direction, frame: bytes, now: int) -> None:
        while way.leaves and way.leaves[0] <= now:
            way.leaves.popleft()
        waiting, data = len(way.leaves), frame[12:14] == IPV4
        dropped = waiting >= self._queue
        if data:
            way.packets += 1
            way.queued += waiting
            way.longest = max(way.longest, waiting)
            way.dropped += dropped
            if self._mark is not None and waiting >= self._mark and frame[15] & 3 in (1, 2) and not dropped:
                frame = _marked(frame)
                way.marked += 1
            if self._tap is not None:
                self._tap(way is self.forth, frame[14:], dropped)
        if dropped:
            return
        way.octets += len(frame)
        leaves = max(now, way.leaves[-1] if way.leaves else 0)
        if self._rate is not None:
            leaves += round(len(frame) * 8e9 / self._rate)
            way.leaves.append(leaves)
        if data and self.drop is not None and self.drop(way is self.forth, frame[14:]):
            way.lost += 1
            return
        at = leaves + self._delay_ns
        if data and self.detours:
            port = frame[36:38] if way is self.forth else frame[34:36]
            at += self.detours.get(int.from_bytes(port, "big"), 0)
        heapq.heappush(way.arrives, (at, way.packets, frame))


def _marked(frame: bytes) -> bytes:
    """The frame with Congestion Experienced in its IP header."""
    header = bytearray(frame[14:34])
    header[1] |= CE
    header[10:12] = b"\0\0"
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return frame[:14] + bytes(header) + frame[34:]
