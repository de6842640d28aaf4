"""How long packets wait: what is counted is what happened, and percentiles are as exact as promised."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from chamelio.engine import abi, delays
from virtual import Net, Tenant, udp

RELATIVE, ABSOLUTE_NS = 1 / 8, 8


def true_percentile(values: Any, percent: float) -> int:
    """By the nearest rank."""
    return int(sorted(values)[max(1, math.ceil(Fraction(str(percent)) * len(values) / 100)) - 1])


def test_buckets_begin_where_those_before_end_and_are_narrow() -> None:
    assert abi.dtype("cham_delays")["buckets"].shape == (delays.BUCKETS,)
    edges = delays.edges()
    for i, (low, high) in enumerate(zip((0, *edges), edges, strict=False)):
        assert delays.bucket(low) == delays.bucket(high - 1) == i
        assert high - low <= max(ABSOLUTE_NS, low * RELATIVE)
    assert delays.bucket(edges[-1]) == delays.bucket(1 << 60) == delays.BUCKETS - 1


@pytest.mark.parametrize("percent", [0, 1, 50, 99, 99.9, 100])
def test_a_percentile_is_never_too_small_and_at_most_an_eighth_too_large(percent: float) -> None:
    values = np.random.default_rng(1).lognormal(8, 3, 5000).astype(int)
    counts = np.bincount([delays.bucket(int(v)) for v in values], minlength=delays.BUCKETS).astype(np.uint64)
    exact = true_percentile(values, percent)
    said = delays.percentile(counts, percent)
    assert said is not None and exact < said <= exact * (1 + RELATIVE) + ABSOLUTE_NS


def test_nothing_and_too_much() -> None:
    counts = np.zeros(delays.BUCKETS, np.uint64)
    assert delays.percentile(counts, 50) is None
    counts[-1] = 1
    assert delays.percentile(counts, 50) == float("inf")


def test_delays_are_counted_exactly() -> None:
    """Beside a busy tenant, packets of a known time that their handler gives to the slow path, whose records say when it ran."""
    draw = random.Random(3)
    sent: dict[int, int] = {}
    waited: list[int] = []
    with Net() as net:
        victim = Tenant(net.host, "10.0.0.1")
        other = Tenant(net.host, "10.0.0.2", unit_index=victim.unit, weight=4)
        ring = victim.raw("punt")

        def load(now: int) -> int | None:
            while ring.cons != ring.prod:
                record = ring.entries[ring.cons % ring.slots][0]
                waited.append(int(record["now"]) - sent.pop(int(record["bytes"][32:36].view(np.uint32)[0])))
                ring.cons += 1
            if now - start > 3_000_000:
                return None
            for _ in range(draw.choice((0, 1, 5, 12))):
                number = len(sent) + len(waited)
                sent[number] = now
                net.send(udp(net.PEER, "10.0.0.1", b"p" + bytes(3) + number.to_bytes(4, "little")))
            for _ in range(draw.choice((0, 0, 20))):
                net.order("10.0.0.2", "g")
            return now + 500

        net.run()
        start = net.world.now
        net.world.task(load)
        net.world.run(for_ns=4_000_000)
        counted = victim.counters["delays"]
        assert not sent and victim.drops() == {} and len(waited) > 500
        exact = np.bincount([delays.bucket(ns) for ns in waited], minlength=delays.BUCKETS)
        assert counted["buckets"].tolist() == exact.tolist()
        assert int(counted["sum"]) == sum(waited)
        assert max(waited) > 10 * min(waited)
        for percent in (50, 99, 99.9):
            said = delays.percentile(counted["buckets"], percent)
            true = true_percentile(waited, percent)
            assert said is not None and true < said <= true * (1 + RELATIVE) + ABSOLUTE_NS
        assert int(other.counters["delays"]["buckets"].sum()) == int(other.counters["rx_packets"])
