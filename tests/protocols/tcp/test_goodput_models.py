"""Goodput against theory, in virtual time: a long fat path is filled, losses cost what models say, DCTCP keeps its queue short.

`python tests/protocols/tcp/goodput.py models` prints the longer averages; docs/benchmarks.md has them.
"""

from __future__ import annotations

import pytest
from goodput import FRAME, RATE, SEGMENT, average, steady

from chamelio.lab import Laboratory

PAYLOAD_RATE = RATE * SEGMENT / FRAME
BETWEEN = 0.75, 1.25
DCTCP = {"options": ["timestamps", "sack", "wscale", "ecn"], "dctcp": 1, "congestion": "dctcp"}


def filled(control: str, warm_up: float, seconds: float) -> float:
    """Part of a path of 100 Mbit/s and 50 ms that one connection uses, with a queue of one bandwidth-delay product."""
    with Laboratory(rate=RATE, delay=0.025, queue=round(RATE * 0.05 / 8 / FRAME), settings={"congestion": control}) as lab:
        return steady(lab, [lab.open()], warm_up, seconds)[0] / PAYLOAD_RATE


def test_a_long_fat_path_is_filled() -> None:
    assert filled("cubic", 1.0, 0.5) >= 0.95


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("control", ["newreno", "cubic"])
def test_a_long_fat_path_stays_filled(control: str) -> None:
    part = filled(control, 5, 20)
    print(f"{control}: {part:.3f} of the payload rate")
    assert part >= 0.95


@pytest.mark.parametrize("control", ["newreno", "cubic"])
def test_losses_cost_what_models_say(control: str) -> None:
    found = average(control, 0.05, 1e-2, 80)
    print("\n" + found.line())
    assert BETWEEN[0] < found.ratio < BETWEEN[1]


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("regular", [False, True], ids=["random", "regular"])
@pytest.mark.parametrize(("loss", "losses"), [(1e-2, 200), (1e-3, 60)])
@pytest.mark.parametrize("rtt", [0.05, 0.2])
@pytest.mark.parametrize("control", ["newreno", "cubic"])
def test_losses_cost_what_models_say_on_average(control: str, rtt: float, loss: float, losses: int, regular: bool) -> None:
    found = average(control, rtt, loss, losses, regular=regular)
    print("\n" + found.line())
    assert BETWEEN[0] < found.ratio < BETWEEN[1]


@pytest.mark.parametrize(("flows", "seconds"), [(1, 0.5), pytest.param(2, 20.0, marks=pytest.mark.long)])
def test_dctcp_keeps_the_queue_at_its_threshold(flows: int, seconds: float) -> None:
    """Alizadeh et al. (2010), 3.3: the longest queue is the threshold and a packet of each flow, and if the threshold is more than
    a seventh of the path's packets (16 here) the queue does not run empty. NewReno fills the queue."""
    threshold = 10
    with Laboratory(rate=50e6, delay=0.002, queue=200, mark=threshold, settings=DCTCP) as lab:
        got = steady(lab, [lab.open() for _ in range(flows)], 0.5, seconds)
        assert lab.line is not None
        way = lab.line.forth
        print(f"\n{flows} flows: queue {way.average:.1f} on average, {way.longest} at most; {sum(got) / 1e6:.1f} Mbit/s")
        assert way.longest <= threshold + 4 * flows and threshold / 2 <= way.average <= threshold + flows and not way.dropped
        assert sum(got) > 0.95 * 50e6 * SEGMENT / FRAME
