"""Fault 21 in virtual time: streams are exact whatever a line does, nothing is stuck, and goodput is as stored, or as fair as said.

The stored table is goodput.csv; `python tests/protocols/tcp/goodput.py matrix` measures it again, after a change that is meant to
move it. Allowed are 5 % and four standard deviations of the mean over the seeds, for a cell and for all cells of a round trip.
"""

from __future__ import annotations

import pytest
from goodput import ALL_SEEDS, FAULTS, FEW_SEEDS, RTTS_MS, WAYS, differences, jain, load, row, steady

from chamelio.lab import Laboratory

ECN = {"options": ["timestamps", "sack", "wscale", "ecn"], "dctcp": 1}
CONTROLS = {"newreno": {}, "cubic": {}, "dctcp": ECN}


def test_the_table_is_whole() -> None:
    assert set(load()) == {(rtt, fault, way) for rtt in RTTS_MS for fault in FAULTS for way in WAYS}


@pytest.mark.fault(21)
@pytest.mark.parametrize("rtt_ms", RTTS_MS)
def test_what_a_bad_line_lets_through(rtt_ms: float) -> None:
    assert not differences([row(rtt_ms, seed) for seed in FEW_SEEDS], load())


@pytest.mark.fault(21)
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rtt_ms", RTTS_MS)
def test_what_a_bad_line_lets_through_with_a_hundred_seeds(rtt_ms: float) -> None:
    assert not differences([row(rtt_ms, seed) for seed in ALL_SEEDS], load())


def shares(control: str, warm_up: float, seconds: float, detour: float = 0.0) -> list[float]:
    """Two connections at a bottleneck of 10 Mbit/s, the second one a second later: bits/s of each.

    The round trip is 20 ms, that of the second one longer by `detour` seconds each way.
    """
    mark = 5 if control == "dctcp" else None
    settings = {"congestion": control, **CONTROLS[control]}
    with Laboratory(rate=10e6, delay=0.01, queue=20, mark=mark, settings=settings) as lab:
        assert lab.line is not None
        lab.line.detours[8] = round(detour * 1e9)
        one = lab.open(7)
        one.a.write(1 << 40)
        lab.run(1)
        return steady(lab, [one, lab.open(8)], warm_up, seconds)


@pytest.mark.parametrize("control", CONTROLS)
def test_two_connections_share_a_bottleneck(control: str) -> None:
    found = shares(control, 2.5, 4)
    assert jain(found) >= 0.9, found
    assert sum(found) > 0.9 * 10e6 * 1448 / 1514


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("control", CONTROLS)
def test_two_connections_share_a_bottleneck_for_long(control: str) -> None:
    assert jain(shares(control, 10, 120)) >= 0.95


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("control", CONTROLS)
def test_who_is_farther_away_gets_less_but_is_not_starved(control: str) -> None:
    near, far = shares(control, 10, 120, detour=0.03)
    print(f"{control}: RTT 20 ms {near / 1e6:.2f} Mbit/s, RTT 80 ms {far / 1e6:.2f} Mbit/s, Jain's index {jain([near, far]):.2f}")
    assert far > 0.05 * near and near + far > 0.9 * 10e6 * 1448 / 1514
