"""The slow path, without I/O: a protocol's rare work as a class that is called with what happened and returns when it is next due.

`SlowPath` is what a protocol author subclasses; `Runtime` feeds it from a region's rings. Neither knows of sockets, loops or
clocks: an agent runs them over asyncio, tests and the virtual world step them by hand.
"""

from __future__ import annotations

import random
import time
import traceback
from collections import deque
from collections.abc import Sequence
from typing import Any

from chamelio.tenant.region import RAW_MAX, Array, Region

MAX_BACKLOG = 1024  # requests and packets that wait for room in their rings; more are dropped and counted
BATCH = 256


class RequestError(Exception):
    """An application asked for something that it cannot have; `code` is an errno's name."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Services:
    """What a slow path may do: send packets, write ring entries for its handlers, see the values of maps.

    `inbound` names the map whose ring 0 runs the ring hook; `cores`: how many the engine has.
    """

    def __init__(self, region: Region, address: str, ports: tuple[int, int], inbound: str | None) -> None:
        self.region, self.address, self.ports = region, address, ports
        self.cores = region.cores
        self._requests = [region.producer(inbound, 0, core) for core in range(self.cores)] if inbound else []
        self._raw = region.raw_output()
        self._packets: deque[bytes] = deque()
        self._entries: list[deque[tuple[Any, ...]]] = [deque() for _ in self._requests]
        self.dropped = 0
        self.due: int | None = None
        self.random: random.Random = random.SystemRandom()  # for what strangers must not guess; seeded in the virtual world

    def call_at(self, when: int) -> None:
        """Have `on_time` called at `when` (ns; 0: soon), or earlier if that was asked for."""
        self.due = when if self.due is None else min(self.due, when)

    def send_packet(self, packet: bytes) -> None:
        """Transmit a whole IPv4 packet from our address. Too long a one is a ValueError."""
        if not 20 <= len(packet) <= RAW_MAX:
            raise ValueError(f"a packet of {len(packet)} bytes is not within 20..{RAW_MAX}")
        self._queue(self._packets, packet)

    def request(self, *entry: Any, core: int = 0) -> None:
        """Run the ring hook of a core with this entry, as context 0."""
        self._queue(self._entries[core], entry)

    def _queue(self, queue: deque[Any], item: Any) -> None:
        if len(queue) >= MAX_BACKLOG:
            self.dropped += 1
        else:
            queue.append(item)

    def flush(self) -> bool:
        """Move what waits into the rings as far as there is room. True: the engine has taken everything."""
        while self._packets and self._raw.room:
            packet = self._packets.popleft()
            slot = self._raw.entries[self._raw.pos % self._raw.slots]
            slot["len"], slot["flags"], slot["now"], slot["hash"], slot["reserved"] = len(packet), 0, 0, 0, 0
            slot["bytes"][: len(packet)] = memoryview(packet)
            self._raw.publish()
        idle = not self._packets
        for ring, entries in zip(self._requests, self._entries, strict=True):
            while entries and ring.put(entries[0]):
                entries.popleft()
            idle = idle and not entries and ring.room == ring.slots
        return idle


class SlowPath:
    """A protocol's slow path. Methods are called one at a time; exceptions are counted and shown, never fatal.

    `resumes`: a new one can take over from one whose process has ended, and applications keep what they had. Then contexts live on
    over `on_start(resumed=True)`, and `on_application_gone` says which of them have not come back.
    """

    resumes = False

    def __init__(self, services: Services) -> None:
        self.services = services

    def on_start(self, *, resumed: bool) -> None:
        """Once, before anything else. `resumed`: the maps hold what a former slow path left."""

    def on_packets(self, packets: Sequence[bytes], now: int) -> None:
        """Packets that handlers punted, from the IP header on; `now` in ns."""

    def on_entries(self, entries: Array, now: int) -> None:
        """Entries that handlers pushed to context 0."""

    def on_request(self, context: int, verb: str, arguments: dict[str, Any]) -> Any:
        """An application of a context asks; the result goes back to it. Raises RequestError."""
        raise RequestError("EOPNOTSUPP", f"this protocol has no request {verb!r}")

    def on_application_gone(self, context: int) -> None:
        """An application closed its context, or died: all that it had is free again."""

    def on_time(self, now: int) -> int | None:
        """Called when due; returns when it wants to be called next (ns), or None: when `services.call_at` says so."""
        return None


class Runtime:
    """Feeds a slow path from the rings of a region. `poll(now)` does what there is to do."""

    def __init__(self, region: Region, services: Services, slow_path: SlowPath, outbound: str | None) -> None:
        self.services, self.slow_path = services, slow_path
        self._punted = [region.punted(core) for core in range(region.cores)]
        self._entries = [region.consumer(outbound, 0, core) for core in range(region.cores)] if outbound else []
        self._due: int | None = 0
        self.errors = 0
        self.last_error = ""
        self.busy_since: float | None = None  # the slow path has been called and has not returned (time.monotonic)

    def poll(self, now: int) -> bool:
        """Handle what has arrived and what is due. True if there was anything."""
        worked = False
        for punted in self._punted:
            if punted.ready:
                worked = True
                packets = punted.take(BATCH)
                whole = [p["bytes"][: min(int(p["len"]), RAW_MAX)].tobytes() for p in packets]
                self._guard(self.slow_path.on_packets, whole, now)
        for entries in self._entries:
            if entries.ready:
                worked = True
                self._guard(self.slow_path.on_entries, entries.take(BATCH), now)
        if (due := self.due) is not None and now >= due:
            self.services.due = None
            due = self._guard(self.slow_path.on_time, now)
            self._due = due if isinstance(due, int) else None
        self.services.flush()
        return worked

    @property
    def due(self) -> int | None:
        """When `poll` must be called at the latest (ns)."""
        asked = self.services.due
        return self._due if asked is None else asked if self._due is None else min(self._due, asked)

    def sleep(self) -> bool:
        """Ask for the doorbell. False: there is something to do already."""
        return all(ring.sleep() for ring in (*self._punted, *self._entries))

    def start(self, *, resumed: bool) -> None:
        """Let the slow path begin."""
        self._guard(self.slow_path.on_start, resumed=resumed)

    def request(self, context: int, verb: str, arguments: dict[str, Any]) -> Any:
        """What an application asks. Raises RequestError, also when the slow path fails."""
        errors = self.errors
        result = self._guard(self.slow_path.on_request, context, verb, arguments)
        if self.errors != errors:
            raise RequestError("EIO", f"the slow path has failed: {self.last_error.strip().splitlines()[-1][:200]}")
        return result

    def application_gone(self, context: int) -> None:
        """An application is gone."""
        self._guard(self.slow_path.on_application_gone, context)

    def _guard(self, function: Any, *arguments: Any, **named: Any) -> Any:
        self.busy_since = time.monotonic()
        try:
            return function(*arguments, **named)
        except RequestError:
            raise
        except Exception:
            self.errors += 1
            self.last_error = traceback.format_exc()
            return None
        finally:
            self.busy_since = None
