"""Flows beyond what a map holds, and keys that collide: an error of that tenant's, at a cost within the contract."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from virtual import Net, Tenant, unit

A, B = "10.0.0.1", "10.0.0.2"
ENTRIES, BUCKET = 64, 8  # of the map `table`, of a bucket (fastpath/map.h)
U64 = (1 << 64) - 1


def mix(a: int, b: int) -> int:
    """cham_mix of fastpath/base.h."""
    return (a * b ^ a * b >> 64) & U64


class Flows(Net):
    """Two tenants with a map each, which packets insert keys into."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self.tenant = Tenant(self.host, A)
        self.other = Tenant(self.host, B, unit_index=self.tenant.unit)
        self.run()

    def insert(self, key: int, at: str = A) -> bool:
        """Whether there was room."""
        tenant = self.tenant if at == A else self.other
        before = int(tenant.counters["reasons"][7])
        self.order(at, "h", key)
        self.world.run(for_ns=20_000)
        return int(tenant.counters["reasons"][7]) == before

    def cycles(self) -> int:
        """That the handler of the first tenant has used so far."""
        return int(self.tenant.counters["hooks"]["cycles"][0])


@pytest.fixture
def net() -> Iterator[Flows]:
    with Flows() as net:
        yield net


@pytest.mark.fault(25)
def test_flows_beyond_the_map_are_that_tenants_errors_alone(net: Flows) -> None:
    fitted = sum(net.insert(key) for key in range(4 * ENTRIES))
    assert fitted == ENTRIES
    assert net.tenant.events()["hash_full"] == 3 * ENTRIES
    assert net.insert(0), "what is there can be written again"
    assert all(net.insert(key, B) for key in range(ENTRIES)) and not net.other.events()


def test_a_map_holds_as_many_flows_as_it_was_declared_for_whatever_the_secret() -> None:
    for seed in range(40):
        with Flows(seed) as net:
            for key in range(ENTRIES):
                net.order(A, "h", key)
                if key % 16 == 15:
                    net.world.run(for_ns=50_000)
            assert not net.tenant.events() and not net.tenant.drops(), seed


@pytest.mark.fault(25)
def test_keys_that_collide_are_refused_soon_and_at_a_bounded_cost(net: Flows) -> None:
    """An attacker does not have the secret; the test takes it, and finds keys whose two buckets are one and the same."""
    head = net.tenant.instance.memory.cores[0].head
    secret = [int(word) for word in head["secret"][0]]
    mask = next(m for m in net.tenant.instance.layout.maps if m.name == "table").mask

    def buckets(key: int) -> tuple[int, int]:
        mixed = mix(mix(secret[0] ^ 8 ^ key, secret[1]), 0x9E3779B97F4A7C15)
        return mixed & mask, mixed >> 24 & mask

    colliding = list(itertools.islice((key for key in itertools.count(1) if buckets(key) == (3, 3)), 4 * BUCKET))
    elsewhere = next(key for key in itertools.count(1) if 3 not in buckets(key))
    costs, fitted = [], 0
    for key in colliding:
        before = net.cycles()
        fitted += net.insert(key)
        costs.append(net.cycles() - before)
    assert fitted == BUCKET and net.tenant.events()["hash_full"] == len(colliding) - BUCKET
    assert max(costs) <= unit().cold[0], "the worst case is the contract's, whatever the keys"
    assert max(costs) - min(costs) < 10, "a full bucket costs as much as one with room"
    assert net.insert(elsewhere), "other flows find room"
