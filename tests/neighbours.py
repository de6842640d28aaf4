"""A victim and a neighbour of the same weight on one host, in virtual time: what does the one notice of what the other does?

    beside = measure(well_behaved)
    during = measure(misbehaviour)
    assert_clean(during, beside)

The victim answers requests of a peer that keeps a few outstanding. The neighbour is backlogged: its peer sends more than can
be served, its applications keep their rings full. A behaviour is called once a round and does what the neighbour's peer and
processes would do; whatever misbehaves does it on top of the same load. Each of the two has a port of its own, so they
share the core and nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from chamelio.engine.engine import Engine
from chamelio.engine.ports import WirePeer
from chamelio.world import World
from virtual import CONTEXTS, PEER_MAC, Ring, Tenant, udp

VICTIM, VICTIM_PEER = "10.0.0.1", "10.0.0.9"
NEIGHBOUR, NEIGHBOUR_PEER = "10.0.1.1", "10.0.1.9"
OUTSTANDING = 8
REQUEST_BYTES = 256
WARM_UP_NS, MEASURED_NS = 1_000_000, 8_000_000
FLOOD = 96  # packets that the neighbour's peer puts on its wire in a round: more than a round takes
GOODPUT, P99 = 0.95, 1.3  # what counts as clean, against a well-behaved neighbour


class End:
    """A peer at the far end of one port."""

    def __init__(self, world: World, host: Engine, prefix: str, address: str, tenant: str) -> None:
        self.port, self.wire = world.peer(host)
        self.wire: WirePeer
        host.add_route(prefix, self.port)
        mac = next(p["mac"] for p in host.describe()["ports"] if p["index"] == self.port)
        self.mac = bytes.fromhex(mac.replace(":", ""))
        self.address, self.tenant = address, tenant

    def arp(self) -> None:
        """Ask for the tenant, which introduces us."""
        ours, theirs = (bytes(map(int, a.split("."))) for a in (self.address, self.tenant))
        head = bytes.fromhex("0001080006040001")
        self.wire.send(b"\xff" * 6 + PEER_MAC + b"\x08\x06" + head + PEER_MAC + ours + bytes(6) + theirs)

    def send(self, payload: bytes) -> bool:
        """A datagram; False if the wire is full."""
        return self.wire.send(self.mac + PEER_MAC + b"\x08\x00" + udp(self.address, self.tenant, payload))

    def receive(self) -> list[bytes]:
        """Payloads of the datagrams that arrived; ARP requests are answered."""
        payloads = []
        for frame in self.wire.receive():
            if frame[12:14] == b"\x08\x00":
                payloads.append(frame[42:])
            elif frame[20:22] == b"\0\1":
                reply = frame[14:20] + b"\0\2" + PEER_MAC + frame[38:42] + frame[22:32]
                self.wire.send(frame[6:12] + PEER_MAC + b"\x08\x06" + reply)
        return payloads


class Requests:
    """The victim's peer: `OUTSTANDING` requests at any time, an answer starts the next one."""

    def __init__(self, end: End) -> None:
        self.end = end
        self.latencies: list[int] = []
        self.wrong = 0
        self._sent: dict[int, tuple[bytes, int]] = {}
        self._next = 0
        self._random = random.Random(1)

    def step(self, now: int) -> int | None:
        """Take answers, send requests."""
        for payload in self.end.receive():
            number = int.from_bytes(payload[8:12], "little")
            request, at = self._sent.pop(number, (b"", 0))
            if payload != request:
                self.wrong += 1
            else:
                self.latencies.append(now - at)
        while len(self._sent) < OUTSTANDING:
            payload = b"e" + bytes(7) + self._next.to_bytes(4, "little") + self._random.randbytes(REQUEST_BYTES - 12)
            assert self.end.send(payload)
            self._sent[self._next] = (payload, now)
            self._next += 1
        return None


@dataclass
class Neighbour:
    """What a behaviour works with."""

    host: Engine
    tenant: Tenant
    end: End
    random: random.Random = field(default_factory=lambda: random.Random(2))
    rounds: int = 0

    def flood(self, *orders: str, argument: int = 1) -> None:
        """Its peer's load for this round, orders by turns."""
        for i in range(FLOOD):
            self.end.send(orders[i % len(orders)].encode() + bytes(3) + argument.to_bytes(4, "little"))
        self.end.receive()

    def ask(self) -> None:
        """Its applications fill their rings with requests that the ring hook answers."""
        for context in range(1, CONTEXTS):
            ring = self.tenant.ring("requests", context)
            while (ring.prod - ring.cons) & 0xFFFFFFFF < ring.slots:
                ring.put(1, 0, 0)

    def drain(self) -> None:
        """Its applications and its slow path take what is there."""
        for ring in self.outbound():
            ring.cons = ring.prod

    def outbound(self) -> list[Ring]:
        return [*(self.tenant.ring("answers", context) for context in range(CONTEXTS)), self.tenant.raw("punt")]


Behaviour = Callable[[Neighbour], None]


def well_behaved(n: Neighbour) -> None:
    """Backlogged, and everything is drained."""
    n.flood("e", "r")
    n.ask()
    n.drain()


@dataclass
class Measurement:
    """What the victim's peer saw, and what became of the neighbour."""

    goodput: float  # answers per second
    p99: float  # ns
    wrong: int
    victim_drops: dict[str, int]
    neighbour_drops: dict[str, int]
    neighbour_events: dict[str, int]
    neighbour_turns: int
    neighbour_cycles: int
    least_free: int  # frames in the pool, at the worst moment
    frames: int

    def __str__(self) -> str:
        return f"{self.goodput:,.0f}/s, p99 {self.p99 / 1e3:.1f} us; neighbour: {self.neighbour_drops} {self.neighbour_events}"


def measure(behaviour: Behaviour, *, seed: int = 1) -> Measurement:
    """The victim beside a neighbour that behaves so."""
    with World(seed) as world:
        host = world.host()
        ends = (
            End(world, host, "10.0.0.0/24", VICTIM_PEER, VICTIM),
            End(world, host, "10.0.1.0/24", NEIGHBOUR_PEER, NEIGHBOUR),
        )
        victim = Tenant(host, VICTIM)
        neighbour = Neighbour(host, Tenant(host, NEIGHBOUR, unit_index=victim.unit), ends[1])
        requests = Requests(ends[0])
        for end in ends:
            end.arp()
        least = host.free_frames[0]

        def live(now: int) -> None:
            nonlocal least
            behaviour(neighbour)
            neighbour.rounds += 1
            least = min(least, host.free_frames[0])

        world.task(requests.step)
        world.task(live)
        world.run(for_ns=WARM_UP_NS)
        requests.latencies.clear()
        world.run(for_ns=MEASURED_NS)
        return Measurement(
            goodput=len(requests.latencies) * 1e9 / MEASURED_NS,
            p99=float(np.percentile(requests.latencies, 99)) if requests.latencies else float("inf"),
            wrong=requests.wrong,
            victim_drops=victim.drops() | victim.events(),
            neighbour_drops=neighbour.tenant.drops(),
            neighbour_events=neighbour.tenant.events(),
            neighbour_turns=int(host.counters()["tenants"][neighbour.tenant.index]["turns"]),
            neighbour_cycles=int(host.counters()["tenants"][neighbour.tenant.index]["cycles"]),
            least_free=least,
            frames=host.free_frames[1],
        )


def assert_clean(during: Measurement, beside: Measurement) -> None:
    """The victim is served as beside a well-behaved neighbour, and no byte is wrong."""
    assert (during.wrong, during.victim_drops) == (0, {}), during
    assert during.goodput >= GOODPUT * beside.goodput, f"{during} against {beside}"
    assert during.p99 <= P99 * beside.p99, f"{during} against {beside}"
