"""`chamelio bench isolation`: the victim beside hostile tenants, shares by weight, where every cycle and packet went."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from chamelio.bench import isolation
from chamelio.bench.adversaries import ADVERSARIES, NEIGHBOUR, Adversary, Place, protocols
from chamelio.bench.adversaries.lines import Line, Stream, template
from chamelio.bench.adversaries.tenant import Tenant
from chamelio.bench.isolation import BESIDE, WITHOUT, case
from chamelio.bench.isolation.case import Case, measure
from chamelio.bench.isolation.victim import Watched
from chamelio.cli.commands import chamelio
from chamelio.world import World

SHORT_NS = 3_000_000
WORST = ("arithmetic", "all")
CLOSE = ("undrained", "events", *WORST)  # beside these the victim's p99 is 1.5 to 3.5 times what it is beside a good neighbour
PEER = "10.1.255.9"


@functools.cache
def measured(adversary: str, intensity: int, policy: str = "cycles", load: str = "open", tenants: int = 2) -> dict[str, Any]:
    return measure(Case(adversary, intensity, tenants=tenants, policy=policy, load=load, measured_ns=SHORT_NS))


def neighbour(load: str = "open") -> dict[str, Any]:
    return measured(NEIGHBOUR.name, *NEIGHBOUR.intensities, load=load)


def assert_accounted(r: dict[str, Any]) -> None:
    """Cycles within 2 %, packets exactly."""
    assert abs(r["cycles"]["accounted"] - 1) <= 0.02, r["cycles"]
    assert (r["packets"]["missing"], r["packets"]["frames_lost"], r["wrong"]) == (0, 0, 0), r["packets"]


def assert_isolated(name: str, intensity: int, load: str) -> None:
    on = measured(name, intensity, load=load)
    assert_accounted(on)
    assert (on["victim_drops"], on["lost_at_port"]) == ({}, 0)
    assert on["latency"]["p99"] <= BESIDE * neighbour(load)["latency"]["p99"], on["latency"]


@pytest.mark.parametrize("name", [name for name in ADVERSARIES if name not in CLOSE])
def test_most_adversaries_are_not_noticed_with_accounting(name: str) -> None:
    assert_isolated(name, ADVERSARIES[name].intensities[-1], "open")


@pytest.mark.parametrize("name", CLOSE)
def test_the_worst_adversaries_lose_and_falsify_nothing(name: str) -> None:
    on = measured(name, ADVERSARIES[name].intensities[-1])
    assert_accounted(on)
    assert (on["victim_drops"], on["lost_at_port"]) == ({}, 0)


@pytest.mark.parametrize("adversary", ADVERSARIES.values(), ids=list(ADVERSARIES))
def test_no_packet_waits_longer_than_the_bound(adversary: Adversary) -> None:
    r = measured(adversary.name, adversary.intensities[-1])
    assert r["head"]["max"] <= r["bound"], r["head"]


def test_the_bound_is_tight() -> None:
    on = measured("all", ADVERSARIES["all"].intensities[-1])
    assert on["head"]["max"] >= 0.3 * on["bound"], on["head"]


@pytest.mark.parametrize("name", CLOSE)
def test_without_accounting_the_same_adversaries_break_bound_and_tail(name: str) -> None:
    intensity = ADVERSARIES[name].intensities[-1]
    on, off = measured(name, intensity), measured(name, intensity, "off")
    assert_accounted(off)
    if off["served"]:  # else none of its requests was answered any more
        assert off["delay"]["max"] > on["bound"], off["delay"]
        assert on["latency"]["p99"] <= WITHOUT * off["latency"]["p99"]


@pytest.mark.long
@pytest.mark.parametrize("load", ["open", "closed"])
@pytest.mark.parametrize(
    ("name", "intensity"), [(a.name, i) for a in ADVERSARIES.values() if a.name not in CLOSE for i in a.intensities]
)
def test_no_adversary_of_these_is_noticed_at_any_intensity(name: str, intensity: int, load: str) -> None:
    assert_isolated(name, intensity, load)


@pytest.mark.parametrize("name", ["timers", "undrained", "events"])
def test_every_cycle_and_packet_is_accounted_for(name: str) -> None:
    assert_accounted(measure(Case(name, ADVERSARIES[name].intensities[0], tenants=3, measured_ns=500_000)))


@pytest.mark.parametrize("policy", ["packets", "off"])
def test_policies_without_accounting_account_all_the_same(policy: str) -> None:
    assert_accounted(measure(Case("fail", 4_000_000, tenants=3, policy=policy, measured_ns=500_000)))


def test_a_case_is_a_function_of_its_inputs_and_watching_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    short = Case("undrained", 2_000_000, measured_ns=500_000)
    first = measure(short)
    assert measure(short) == first
    monkeypatch.setattr(case, "Watched", lambda host, unit: Watched.__new__(Watched))
    monkeypatch.setattr(case, "delays", lambda *_: {name: np.empty(0, np.int64) for name in ("delay", "head", "latency")})
    unwatched = measure(short)
    for name in ("cycles", "packets", "others_drops"):
        assert unwatched[name] == first[name]


# ---- shares ---------------------------------------------------------------------------------------------------------------


class Shares:
    """Tenants of several weights, each with arithmetic on every packet."""

    def __init__(
        self, world: World, weights: tuple[int, ...], begins: tuple[int, ...] | None = None, rate: float = 300_000
    ) -> None:
        self.world, self.host = world, world.host()
        line = Line(world, self.host, ["10.1.0.0/16"])
        self.tenants: list[Tenant] = []
        for k, weight in enumerate(weights):
            place = Place(self.host, line, PEER, world.now + 100_000 + (begins[k] if begins else 0), weight)
            first = not self.tenants
            place.units["arithmetic 256"] = self.host.load_unit(protocols.arithmetic_unit(256)) if first else self.tenants[0].unit
            self.tenants.append(place.tenant(f"10.1.0.{k + 1}", "arithmetic 256"))
            if begins is None or begins[k] >= 0:
                line.sources.append(Stream(PEER, place.frames(self.tenants[-1].address, "e"), rate * weight, place.begin))
        world.task(line.step)

    def over(self, ns: int) -> list[float]:
        """Of the elapsed cycles, each one's share over so long."""
        before = self.host.counters().copy()
        self.world.run(for_ns=ns, rounds=10_000_000)
        after = self.host.counters()
        elapsed = int(after["cycles_elapsed"]) - int(before["cycles_elapsed"])
        spent = after["tenants"]["cycles"].astype(np.int64) - before["tenants"]["cycles"].astype(np.int64)
        return [int(spent[t.index]) / elapsed for t in self.tenants]


def test_backlogged_tenants_share_by_weight() -> None:
    with World() as world:
        shares = Shares(world, (1, 2, 4))
        shares.over(2_000_000)
        found = shares.over(100_000_000)
    for share, weight in zip(found, (1, 2, 4), strict=True):
        assert share / sum(found) == pytest.approx(weight / 7, rel=0.02), found


def test_an_idle_share_goes_to_the_others_and_comes_back_at_once() -> None:
    with World() as world:
        shares = Shares(world, (1, 1), begins=(0, 5_000_000), rate=1_000_000)
        shares.over(2_000_000)
        alone = shares.over(2_000_000)
        assert alone[1] == 0
        shares.over(1_100_000)
        both = shares.over(500_000)
        assert alone[0] > 0.75, "all that it asks for"
        assert both[1] / sum(both) == pytest.approx(0.5, abs=0.05), both


# ---- policies -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["cycles", "packets", "off"])
def test_without_accounting_packets_are_served_in_the_order_of_their_arrival(policy: str) -> None:
    with World() as world:
        host = world.host(policy=policy)
        line = Line(world, host, ["10.1.0.0/16"])
        place = Place(host, line, PEER, world.now + 100_000)
        tenants = [place.tenant(f"10.1.0.{k + 1}", "echo") for k in range(3)]
        watched = Watched(host, tenants[0].unit)
        world.run(for_ns=200_000)
        rows = []
        for n in range(30):
            payload = b"e" + bytes(3) + n.to_bytes(4, "little")
            rows.append(template(line.mac, PEER, tenants[n * n % 3].address, payload))
        line._write(np.concatenate(rows), np.arange(30))
        line._publish(30)
        world.run(for_ns=200_000)
        assert sorted(watched.order) == list(range(30))
        assert (watched.order == list(range(30))) == (policy == "off")


def test_the_command_compares_policies() -> None:
    command = ["bench", "isolation", "--adversary", "timers", "--milliseconds", "0.3", "--jobs", "1", "-o", "json"]
    done = CliRunner().invoke(chamelio, command)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert {row["adversary"] for row in report["compared"]} == {"neighbour", "timers"}
    assert set(report["compared"][0]["p99"]) == {"cycles", "packets", "off"}


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_the_whole_matrix_accounts_for_everything() -> None:
    everything = {"weights": isolation.WEIGHTS, "tenants": isolation.TENANTS, "loads": isolation.LOADS}
    for r in isolation.run_cases(list(isolation.cases(**everything, measured_ns=SHORT_NS)), jobs=2):  # type: ignore[arg-type]
        assert_accounted(r)
