"""Tenants that do what they can to disturb their neighbours, each an ordinary tenant with a verified protocol, in virtual time.

    for behaviour in ADVERSARIES["fail"].join(place, tenants, intensity): ...

`ADVERSARIES` is the list: what each does, and how much of it (`intensities`, in `unit`). Packets per second are those of all its
tenants together. Uploading protocols is not here: it happens outside of virtual time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from chamelio.bench.adversaries import protocols
from chamelio.bench.adversaries.lines import Frames, Line, Outstanding, Source, Stream, template
from chamelio.bench.adversaries.tenant import Tenant
from chamelio.engine.engine import Engine

RATE = 1_000_000  # packets per second of those whose intensity is something else
RATES = (1_000_000, 2_000_000, 4_000_000, 8_000_000)
BLOCKS = (64, 256, 1024)
TIMERS = (16, 256, 4096)
OUTSTANDING = 64
WIRE_SHARE = 896  # requests that all neighbours together have outstanding: they must fit a wire beside the victim's
APPLICATIONS = (1, 2, 3)  # contexts


@dataclass
class Place:
    """Where adversaries live: a host, the line by which their packets come, their peer's address, when it begins (ns)."""

    host: Engine
    line: Line
    peer: str
    begin: int
    weight: int = 1
    seed: int = 1
    units: dict[str, int] = field(default_factory=dict)

    def tenant(self, at: str, protocol: str, beside: Tenant | None = None) -> Tenant:
        """A tenant with "echo", "hostile" or "arithmetic N"; or another instance of one."""
        if protocol not in self.units:
            name, _, blocks = protocol.partition(" ")
            image = {"echo": protocols.echo_unit, "hostile": protocols.hostile_unit}.get(name)
            self.units[protocol] = self.host.load_unit(image() if image else protocols.arithmetic_unit(int(blocks)))
        made = Tenant(
            self.host,
            at,
            self.units[protocol],
            protocols.hostile_types(),
            weight=self.weight,
            beside=None if beside is None else beside.index,
        )
        self.line.introduce(self.peer, at)
        return made

    def frames(self, to: str, orders: str) -> Frames:
        """Packets of the least size that the handlers take, one for each order."""
        rows = [template(self.line.mac, self.peer, to, order.encode() + bytes(7) + bytes([i])) for i, order in enumerate(orders)]
        return np.concatenate(rows)

    def stream(self, tenants: Sequence[Tenant], orders: str, rate: float) -> Stream:
        """Orders for several tenants in turn."""
        by_tenant = [self.frames(t.address, orders) for t in tenants]
        rows = [by_tenant[i % len(by_tenant)][i // len(by_tenant) % len(orders)] for i in range(len(tenants) * len(orders))]
        return Stream(self.peer, np.stack(rows), rate, self.begin)


Step = Callable[[], None]


@dataclass
class Behaviour:
    """What a group of tenants does: packets that come for them, and what their processes do once a round."""

    tenants: list[Tenant]
    sources: list[Source]
    steps: list[Step] = field(default_factory=list)


Join = Callable[[Place, Sequence[str], int], Behaviour]


@dataclass(frozen=True)
class Adversary:
    """`join(place, addresses, intensity)` lets one tenant live at each address."""

    name: str
    about: str
    unit: str
    intensities: tuple[int, ...]
    join: Join


def _drain(tenant: Tenant) -> Step:
    rings = [tenant.ring("answers", c) for c in range(protocols.CONTEXTS)] + [tenant.raw("punt")]

    def drain() -> None:
        for ring in rings:
            ring.drain()

    return drain


def _ask(tenant: Tenant) -> Step:
    rings = [tenant.ring("requests", c) for c in APPLICATIONS]

    def ask() -> None:
        for ring in rings:
            ring.fill(1, 0, 0)

    return ask


def _wake(tenant: Tenant) -> Step:
    """Its slow path and applications sleep whenever they have looked."""
    rings = [tenant.ring("answers", c) for c in range(protocols.CONTEXTS)] + [tenant.raw("punt")]

    def sleep() -> None:
        for ring in rings:
            ring.sleep()

    return sleep


def _set_timers(tenant: Tenant, count: int) -> Step:
    """So many timers that are always due, set through the rings at once, as many as fit."""
    rings, left = [tenant.ring("requests", c) for c in APPLICATIONS], list(range(count))

    def set_them() -> None:
        for ring in rings:
            while left and (ring.prod - ring.cons) & 0xFFFFFFFF < ring.slots:
                ring.put(2, 0, left.pop())

    return set_them


def well_behaved(place: Place, addresses: Sequence[str], intensity: int) -> Behaviour:
    """`intensity` requests outstanding for each tenant."""
    tenants = [place.tenant(at, "echo") for at in addresses]
    each = min(intensity, max(1, WIRE_SHARE // len(tenants)))
    rows = [place.frames(t.address, "e" * each) for t in tenants]
    padded = np.zeros((len(rows) * each, rows[0].shape[1]), np.uint8)
    padded[:] = np.concatenate(rows)
    return Behaviour(tenants, [Outstanding(place.peer, padded, place.begin)])


def _packets(orders: str, protocol: str = "hostile", *, drained: bool = True, asks: bool = False, wakes: bool = False) -> Join:
    def join(place: Place, addresses: Sequence[str], intensity: int) -> Behaviour:
        tenants = [place.tenant(at, protocol) for at in addresses]
        does = [what for what, wanted in ((_ask, asks), (_drain, drained), (_wake, wakes)) if wanted]
        return Behaviour(tenants, [place.stream(tenants, orders, intensity)], [what(t) for t in tenants for what in does])

    return join


def _arithmetic(place: Place, addresses: Sequence[str], intensity: int) -> Behaviour:
    tenants = [place.tenant(at, f"arithmetic {intensity}") for at in addresses]
    return Behaviour(tenants, [place.stream(tenants, "e", RATE)])


def _timers(place: Place, addresses: Sequence[str], intensity: int) -> Behaviour:
    tenants = [place.tenant(at, "hostile") for at in addresses]
    return Behaviour(tenants, [], [_set_timers(t, intensity) for t in tenants])


def _everything(place: Place, addresses: Sequence[str], intensity: int) -> Behaviour:
    """Each tenant has three instances: packets of all kinds with timers, rings that nobody drains, arithmetic."""
    sources: list[Source] = []
    steps: list[Step] = []
    tenants: list[Tenant] = []
    for k, at in enumerate(addresses):
        a = place.tenant(at, "hostile")
        b = place.tenant(f"10.2.{k // 250}.{k % 250 + 1}", "hostile", a)
        c = place.tenant(f"10.3.{k // 250}.{k % 250 + 1}", "arithmetic 1024", a)
        tenants += [a, b, c]
        steps += [_set_timers(a, 4096), _ask(a), _drain(a), _wake(a), _ask(b)]
    for first, orders in ((0, "efvpsh"), (1, "psa"), (2, "e")):
        sources.append(place.stream(tenants[first::3], orders, intensity / 3))
    return Behaviour(tenants, sources, steps)


NEIGHBOUR = Adversary("neighbour", "well-behaved, backlogged: the victim's own protocol", "requests", (OUTSTANDING,), well_behaved)

ADVERSARIES = {
    a.name: a
    for a in (
        Adversary("flood", "the smallest packets, each answered", "packets/s", RATES, _packets("e", "echo", drained=False)),
        Adversary("arithmetic", "handlers at their worst case on every packet", "blocks", BLOCKS, _arithmetic),
        Adversary("fail", "handlers that always fail", "packets/s", RATES, _packets("fv", asks=True)),
        Adversary("thrash", "maps whose every access is another line", "packets/s", RATES, _packets("h")),
        Adversary("undrained", "rings that nobody drains", "packets/s", RATES, _packets("psa", drained=False, asks=True)),
        Adversary("events", "events for a slow path that sleeps and is woken", "packets/s", RATES, _packets("sp", wakes=True)),
        Adversary("timers", "timers that are always due", "timers", TIMERS, _timers),
        Adversary("all", "all of these, as three instances of each tenant", "packets/s", RATES, _everything),
    )
}
