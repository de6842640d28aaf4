"""The engine's side of TCP's slow path, for its tests: the other end of its rings, the rows of its maps, and the clock."""

from __future__ import annotations

import functools
import os
import random
from typing import Any

import numpy as np

from chamelio.bpf.object import Object, load_object
from chamelio.jit.layout import make_layout
from chamelio.protocols.tcp import slowpath
from chamelio.protocols.tcp.slowpath import TcpSlowPath
from chamelio.protocols.tcp.states import machine
from chamelio.tenant.folder import read_protocol
from chamelio.tenant.region import Region, slow_columns, value_types
from chamelio.tenant.rings import Consumer, Producer
from chamelio.tenant.runtime import Runtime, Services

MS, SECOND = 1_000_000, 1_000_000_000
LOCAL, PEER = "10.0.0.1", "10.0.0.9"
SYN_SENT, SYN_RCVD, ESTABLISHED, FIN_WAIT_1 = map(machine().number, ("SYN_SENT", "SYN_RCVD", "ESTABLISHED", "FIN_WAIT_1"))
NAMES = dict(zip(range(16, 23), ("LISTEN", "UNLISTEN", "RETRANSMIT", "PROBE", "FAIL", "RELEASE", "ALIVE"), strict=True))


@functools.cache
def protocol() -> Object:
    return load_object(read_protocol("tcp")[1])


def number(address: str) -> int:
    return int.from_bytes(bytes(map(int, address.split("."))), "little")


def swap(port: int) -> int:
    return int.from_bytes(port.to_bytes(2, "big"), "little")


class Rig:
    """A slow path in its runtime; the test is the engine, at the other end of the rings, and the clock."""

    def __init__(self, cores: int = 1, ports: tuple[int, int] = (0, 65535)) -> None:
        obj = protocol()
        types = value_types(obj)
        layout = make_layout(obj.maps, 4)
        fd = os.memfd_create("region")
        os.ftruncate(fd, layout.region_bytes(cores))
        self.region = Region(fd, 0, layout, types, slow_columns(obj))
        os.close(fd)
        self.types, self.cores, self.ports = types, cores, ports
        self.about, self.config = self.rows("about"), self.rows("config")
        self.now = SECOND
        self._events = [self.ring(Producer, "events", core) for core in range(cores)]
        self._entries = [self.ring(Consumer, "entries", core) for core in range(cores)]
        self.begin()

    def begin(self, resumed: bool = False) -> None:
        """A slow path begins on what is there."""
        self.services = Services(self.region, LOCAL, self.ports, "entries")
        self.services.random = random.Random(1)
        self.slow = TcpSlowPath(self.services)
        self.runtime = Runtime(self.region, self.services, self.slow, "events")
        self.runtime.start(resumed=resumed)
        self.poll()

    def rows(self, name: str) -> np.ndarray:
        """A map as handlers see it."""
        m = self.region.maps[name]
        assert m.shared is not None
        return np.ndarray((m.max_entries,), self.types[name], self.region.content, m.shared, (m.stride,))

    def ring(self, kind: Any, name: str, core: int) -> Any:
        m = self.region.maps[name]
        assert m.shared is not None
        return kind(self.region.content, m.shared + core * self.region.layout.core_bytes, m.stride, m.max_entries, self.types[name])

    def poll(self, after: int = 0) -> None:
        """Time passes, and everything that is due or has come is done; handlers take nothing."""
        self.now += after
        while self.runtime.poll(self.now):
            pass
        assert self.runtime.errors == 0, self.runtime.last_error

    def request(self, verb: str, context: int = 1, **arguments: Any) -> Any:
        try:
            return self.runtime.request(context, verb, arguments)
        finally:
            self.poll()

    def connection(self, conn: int = 7, state: int = ESTABLISHED, context: int = 1, **fields: int) -> int:
        """A row of `about` as of a connection with 5,000 bytes under way."""
        usual = {"mss": 1460, "options": 15, "win": 14480, "ssthresh": 1 << 30, "acked": 1000, "sent": 6000, "srtt": 20_000}
        ends = {"address": number(PEER), "port": swap(80), "local_port": swap(40000 + conn % 20000)}
        for name, value in {**usual, **ends, "state": state, "context": context, "generation": 3, **fields}.items():
            self.about[name][conn] = value
        return conn

    def event(self, kind: int, conn: int, timer: int = 0, *, silence: int = 0, core: int = 0, **fields: int) -> None:
        """Handlers tell the slow path."""
        row = self.about[conn]
        values = {
            "kind": kind,
            "conn": conn,
            "generation": int(row["generation"]),
            "pos": int(row["acked"]),
            "end": int(row["sent"]),
        }
        values |= {"error": timer, "tag": silence, "core": core, **fields}
        assert self._events[core].put(tuple(values[name] for name in self.types["events"].names or ()))

    def take(self, core: int = 0, limit: int = 4096) -> list[dict[str, int]]:
        """Handlers take entries: fields by name, without those that are 0."""
        names = self.types["entries"].names or ()
        taken = self._entries[core].take(limit).tolist()
        return [{name: value for name, value in zip(names, entry, strict=True) if value} for entry in taken]

    def told(self, core: int = 0) -> list[tuple[Any, ...]]:
        """The same, short: kind, connection, value, and `mark` if it is not 0."""
        self.poll()
        entries = self.take(core)
        return [(NAMES[e["kind"]], e.get("conn", 0), e.get("value", 0), *([e["mark"]] if "mark" in e else [])) for e in entries]

    def timeout(
        self, conn: int, timer: int = slowpath.RETRANSMISSION, *, after: int = SECOND, silence: int = 0
    ) -> list[tuple[Any, ...]]:
        """A timer runs out a second later; what the slow path says to that."""
        self.now += after
        self.event(slowpath.TIMEOUT, conn, timer, silence=silence)
        return self.told()

    def packet(self, *contents: bytes) -> None:
        """Handlers punt packets."""
        ring = Producer(self.region.content, self.region.layout.punt, 2048, 64, self.region.punted().entries.dtype)
        for content in contents:
            slot = ring.entries[ring.pos % 64]
            slot["len"] = len(content)
            slot["bytes"][: len(content)] = list(content)
            ring.publish()
        self.poll()
