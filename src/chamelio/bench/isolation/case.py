"""One case: a victim beside adversaries on a core, under a policy, in virtual time: its delays, every cycle's and packet's fate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from chamelio.bench.adversaries import ADVERSARIES, NEIGHBOUR, Place, Step, protocols
from chamelio.bench.adversaries.lines import Line, template
from chamelio.bench.adversaries.tenant import Tenant
from chamelio.bench.isolation.bounds import bound_ns
from chamelio.bench.isolation.victim import REQUEST_BYTES, Requests, Watched, delays
from chamelio.engine.counters import drop_counts
from chamelio.engine.engine import Engine
from chamelio.world import World

VICTIM, VICTIM_PEER, VICTIM_NET = "10.0.0.1", "10.0.0.9", "10.0.0.0/24"
OTHERS_PEER, OTHERS_NETS = "10.1.255.9", ("10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16")
OPEN_RATE, CLOSED = 1e9 / 20_011, 64  # a period that drifts through everybody else's
INTRODUCED_NS, WARM_UP_NS, MEASURED_NS = 100_000, 2_000_000, 20_000_000
QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}


@dataclass(frozen=True)
class Case:
    """`intensity` in the adversary's unit; `weights` of the victim and of each adversary; `tenants` with the victim.

    `policy` as for Engine; `load`: "open" (OPEN_RATE requests per second) or "closed" (CLOSED outstanding); `port`: "shared", as a
    network card is, or "own": of the victim alone.
    """

    adversary: str
    intensity: int
    weights: tuple[int, int] = (1, 1)
    tenants: int = 2
    policy: str = "cycles"
    load: str = "open"
    port: str = "shared"
    measured_ns: int = MEASURED_NS


def quantiles(values: np.ndarray[Any, np.dtype[np.int64]]) -> dict[str, int | None]:
    """Exact ones, of all values (ns): the smallest value that so large a share does not exceed. None: there are no values."""
    if not len(values):
        return dict.fromkeys(QUANTILES)
    ordered = np.sort(values)
    return {name: int(ordered[min(len(ordered) - 1, int(np.ceil(q * len(ordered))) - 1)]) for name, q in QUANTILES.items()}


def measure(case: Case, seed: int = 1) -> dict[str, Any]:
    """Run it; plain values."""
    with World(seed) as world:
        host = world.host(policy=case.policy, frames=16_384)
        own = case.port == "own"
        first = Line(world, host, [VICTIM_NET] if own else [VICTIM_NET, *OTHERS_NETS])
        second = Line(world, host, OTHERS_NETS) if own else first
        victim = Tenant(host, VICTIM, protocols.echo_unit(), {}, weight=case.weights[0])
        watched = Watched(host, victim.unit)
        first.introduce(VICTIM_PEER, VICTIM)
        begin = world.now + INTRODUCED_NS
        place = Place(host, second, OTHERS_PEER, begin, case.weights[1], seed)
        adversary = NEIGHBOUR if case.adversary == NEIGHBOUR.name else ADVERSARIES[case.adversary]
        addresses = [f"10.1.{k // 250}.{k % 250 + 1}" for k in range(case.tenants - 1)]
        behaviour = adversary.join(place, addresses, case.intensity)
        request = template(first.mac, VICTIM_PEER, VICTIM, b"e" + bytes(REQUEST_BYTES - 1))
        rate, outstanding = (OPEN_RATE, 0) if case.load == "open" else (0.0, CLOSED)
        requests = Requests(VICTIM_PEER, request, begin, rate, outstanding)
        first.sources.append(requests)
        second.sources += behaviour.sources
        world.task(_lives(behaviour.steps, begin))
        for line in {id(first): first, id(second): second}.values():
            world.task(line.step)
        world.run(for_ns=INTRODUCED_NS + WARM_UP_NS)
        before, start = _accounts(host), world.now
        sent, lost = requests.count, requests.lost
        world.run(for_ns=case.measured_ns, rounds=10_000_000)
        after = _accounts(host)
        found = delays(requests, watched, start)
        others = sorted({t.index for t in behaviour.tenants})
        return {
            **asdict(case),
            "bound": bound_ns(host, victim.index),
            **{name: quantiles(values) for name, values in found.items()},
            "requests": requests.count - sent,
            "served": len(found["delay"]),
            "per_second": len(found["delay"]) * 1e9 / (world.now - start),
            "lost_at_port": requests.lost - lost,
            "wrong": requests.wrong,
            "victim_drops": drop_counts(victim.counters["drops"]),
            "others_drops": _drops(behaviour.tenants),
            "others_lost_at_port": sum(source.lost for source in behaviour.sources),
            "cycles": _cycles(before, after, victim.index, others),
            "packets": _packets(host),
        }


def _lives(steps: list[Step], begin: int) -> Any:
    def live(now: int) -> int | None:
        if now < begin:
            return begin
        for step in steps:
            step()
        return None

    return live


def _drops(tenants: list[Tenant]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for tenant in tenants:
        for reason, n in drop_counts(tenant.counters["drops"]).items():
            sums[reason] = sums.get(reason, 0) + n
    return sums


def _accounts(host: Engine) -> Any:
    return host.counters().copy()


def _cycles(before: Any, after: Any, victim: int, others: list[int]) -> dict[str, Any]:
    """Where the elapsed cycles went: to tenants, the provider, the machine. Idle time is skipped in virtual time."""
    spent = after["tenants"]["cycles"].astype(np.int64) - before["tenants"]["cycles"].astype(np.int64)
    one = {
        name: int(after[name]) - int(before[name]) for name in ("cycles_elapsed", "cycles_idle", "cycles_provider", "cycles_stolen")
    }
    charged = int(spent.sum())
    whole = charged + one["cycles_provider"] + one["cycles_idle"] + one["cycles_stolen"]
    return {
        "elapsed": one["cycles_elapsed"],
        "charged": charged,
        "provider": one["cycles_provider"],
        "idle": one["cycles_idle"],
        "stolen": one["cycles_stolen"],
        "accounted": whole / one["cycles_elapsed"] if one["cycles_elapsed"] else 1.0,
        "victim": int(spent[victim]),
        "others": [int(n) for n in spent[others]],
    }


def _packets(host: Engine) -> dict[str, int]:
    """Every packet's fate since the beginning; `missing` is what no counter knows of, and must be 0.

    Received: handed to an rx hook, dropped before one, consumed by the provider, or in a backlog. `frames_lost` must be 0, too.
    """
    counters, frames = host.counters(), host.count_frames()
    reasons = ("no_protocol", "backlog_full", "debt", "no_frames", "icmp_ignored")
    handed = int(counters["instances"]["rx_packets"].sum())
    instances = [drop_counts(counters["instances"][i.index]["drops"]) for i in host.instances()]
    tenants = [drop_counts(counters["tenants"][t["index"]]["drops"]) for t in host.describe()["tenants"]]
    dropped = sum(drops.get(reason, 0) for drops in instances + tenants for reason in reasons)
    nobody = sum(drop_counts(counters["drops"]).values())
    consumed = int(counters["arp_handled"]) + int(counters["icmp_handled"])
    queued = sum(int(m.head["backlog_len"][0]) for i in host.instances() for m in i.memory.cores)
    received = int(counters["rx_packets"])
    return {
        "received": received,
        "handed": handed,
        "dropped": dropped + nobody,
        "consumed": consumed,
        "queued": queued,
        "missing": received - handed - dropped - nobody - consumed - queued,
        "frames_lost": frames["lost"],
    }
