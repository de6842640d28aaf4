"""How long a conforming tenant waits for its turn, at most: from weights, contracts and the provider's prices (docs/contract.md).

Cycles throughout, of one core. `cold` is what holds on a machine; `virtual` what the virtual clock counts: everything is warm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from chamelio.engine import abi

Clock = Literal["cold", "virtual"]
PACKET_BYTES = 1500  # of which a checksum is computed


@dataclass(frozen=True)
class Prices:
    """What parts of a round cost the provider at most, in cycles: a round and a turn as such, a packet that is received, a run of a
    handler with what it sends, a packet of a slow path, waking one context."""

    round: int
    turn: int
    received: int
    run: int
    raw: int
    wakeup: int


def prices(clock: Clock) -> Prices:
    """As core.h has them."""
    price = abi.enum("cham_price")
    sent = price["COST_TX_PACKET"] + PACKET_BYTES // price["COST_CHECKSUM_BYTES"]
    if clock == "virtual":
        return Prices(
            round=price["COST_ROUND"],
            turn=price["COST_TURN"],
            received=price["COST_RX_PACKET"],
            run=price["COST_DISPATCH"] + price["COST_RING_POLL"] + sent,
            raw=price["COST_RAW_PACKET"] + sent,
            wakeup=price["COST_WAKEUP"],
        )
    packet = price["COST_PACKET_BOUND"]
    return Prices(
        round=price["COST_ROUND_BOUND"],
        turn=price["COST_TURN_BOUND"],
        received=packet,
        run=packet,
        raw=packet,
        wakeup=price["COST_WAKEUP_BOUND"],
    )


@dataclass(frozen=True)
class Contract:
    """One instance: the worst case of a run of each hook (0: no handler) on the clock in question, the cold ones, from which chunks
    follow, and how many contexts it can wake, the slow path included."""

    costs: tuple[int, ...]
    cold: tuple[int, ...]
    contexts: int


@dataclass(frozen=True)
class Share:
    """A tenant of the core."""

    name: str
    weight: int
    contracts: tuple[Contract, ...] = ()


@dataclass(frozen=True)
class Bound:
    """What a packet of `name` waits for at most, in cycles, before its handler begins, while nothing of its own is before it."""

    name: str
    provider: int  # two rounds and what is received in them
    credit: Mapping[str, int]  # of the others, twice
    overrun: Mapping[str, int]  # what a turn of each can take beyond its credit, once

    @property
    def cycles(self) -> int:
        """All of it."""
        return self.provider + sum(self.credit.values()) + sum(self.overrun.values())

    def describe(self, hz: float) -> dict[str, Any]:
        """As data; `us` at so many cycles a second."""
        others = {n: {"credit": self.credit[n], "overrun": self.overrun[n]} for n in self.credit}
        return {"name": self.name, "cycles": self.cycles, "us": self.cycles / hz * 1e6, "provider": self.provider, "others": others}


def chunk(cold: int) -> int:
    """Runs of a hook between two looks at the clock, where tenants share a core (control.c, set_unit)."""
    limit, price = abi.enum("cham_limit"), abi.enum("cham_price")
    runs: int = limit["CHAM_LIMIT_CHUNK_CYCLES"] // (cold + price["COST_PACKET_BOUND"])
    return max(1, min(runs, limit["CHAM_LIMIT_CHUNK"]))


ORDER = (3, 0, 1, 2)  # in which a turn serves hooks: timer, rx, ring, tx (round.c, serve)


def overrun(share: Share, price: Prices) -> int:
    """Cycles of a turn beyond its credit: the chunk in which that ends, then one run of each hook that follows, packets of slow
    paths, wake-ups. The order of a tenant's instances is not known here: all of the others may follow."""
    if not share.contracts:
        return price.turn
    most, each, rest = 0, [], price.turn
    for contract in share.contracts:
        runs = [(chunk(contract.cold[h]), contract.costs[h] + price.run) for h in ORDER if contract.cold[h]]
        each.append(sum(cost for _, cost in runs))
        rest += abi.enum("cham_limit")["CHAM_LIMIT_RAW"] * price.raw + contract.contexts * price.wakeup
        for at, (many, cost) in enumerate(runs):
            most = max(most, many * cost + sum(after for _, after in runs[at + 1 :]) - each[-1])
    return most + sum(each) + rest


def delay(victim: str, shares: Sequence[Share], *, ports: int, quantum: int, clock: Clock = "cold") -> Bound:
    """The bound of one of the tenants of a core. KeyError: it is none of them."""
    if victim not in {share.name for share in shares}:
        raise KeyError(victim)
    price = prices(clock)
    received = ports * abi.enum("cham_limit")["CHAM_LIMIT_BURST"] * price.received
    others = [share for share in shares if share.name != victim]
    return Bound(
        victim,
        provider=2 * (price.round + received + price.turn),
        credit={share.name: 2 * quantum * share.weight if share.contracts else 0 for share in others},
        overrun={share.name: overrun(share, price) for share in others},
    )
