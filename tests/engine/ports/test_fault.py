"""The fault injector: statistics, reproducibility, order, bounds, conservation."""

from __future__ import annotations

import pytest
from conftest import Wired
from rig import Plug, Rig, library, number, numbered

from chamelio.engine.ports import FaultPort

MS = 1_000_000
FOREVER = 2**64 - 1


def fault_of(wired: Wired) -> FaultPort:
    assert isinstance(wired.port, FaultPort)
    return wired.port


def send_and_collect(wired: Wired, count: int, step: int = 0, settle: int = 100 * MS, size: int = 64) -> list[tuple[int, bytes]]:
    """Frames through rx, one per `step` ns; (time of arrival, frame) of all that come out."""
    arrived = []
    now = 0
    for frame in numbered(count, size):
        wired.peer.send(frame)
        arrived += [(now, f) for f in wired.plug.rx(now)]
        now += step
    end = now + settle
    while now < end:
        now = min(due(wired.plug), end)
        arrived += [(now, f) for f in wired.plug.rx(now)]
    return arrived


def due(plug: Plug) -> int:
    return int(library().cham_fault_due(plug.address))


def test_nothing_is_touched_by_default(rig: Rig) -> None:
    wired = Wired(rig, "fault():")
    assert [f for _, f in send_and_collect(wired, 500)] == numbered(500)
    wired.plug.tx(numbered(64))
    assert wired.peer.receive() == numbered(64)
    assert wired.plug.counter("faults") == 0


@pytest.mark.parametrize(
    ("option", "counter"), [("loss", "lost"), ("dup", "duplicated"), ("reorder", "reordered"), ("biterr", "corrupted")]
)
@pytest.mark.parametrize("probability", [0.02, 0.3])
def test_each_fault_happens_as_often_as_told(rig: Rig, option: str, counter: str, probability: float) -> None:
    count = 4000
    wired = Wired(rig, f"fault({option}={probability},seed=3):")
    arrived = [f for _, f in send_and_collect(wired, count, step=10_000)]
    happened = fault_of(wired).counters("rx")[counter]
    sigma = (count * probability * (1 - probability)) ** 0.5
    assert abs(happened - count * probability) < 4 * sigma
    expected = count - happened if option == "loss" else count + happened if option == "dup" else count
    assert len(arrived) == expected
    assert wired.plug.counter("faults") == happened
    assert rig.n_free == rig.total


@pytest.mark.parametrize("option", ["loss", "dup", "reorder", "biterr"])
def test_certainty_and_impossibility(rig: Rig, option: str) -> None:
    always = Wired(rig, f"fault({option}=1):")
    arrived = [f for _, f in send_and_collect(always, 50, size=200)]
    frames = numbered(50, 200)
    if option == "loss":
        assert arrived == []
    elif option == "dup":
        assert arrived == [f for f in frames for _ in range(2)]
    elif option == "reorder":
        assert arrived == frames  # all are late alike
    else:
        for before, after in zip(frames, arrived, strict=True):
            difference = int.from_bytes(before, "big") ^ int.from_bytes(after, "big")
            assert difference.bit_count() == 1
    always.port.close()


def run(spec: str, count: int = 600) -> list[tuple[int, bytes]]:
    rig = Rig()
    wired = Wired(rig, spec)
    try:
        return send_and_collect(wired, count, step=50_000)
    finally:
        wired.port.close()


EVERYTHING = "fault(loss=5%,dup=5%,reorder=5%,biterr=5%,delay=1ms..3ms,seed={}):"


def test_a_seed_fixes_everything_that_happens() -> None:
    assert run(EVERYTHING.format(7)) == run(EVERYTHING.format(7))
    assert run(EVERYTHING.format(7)) != run(EVERYTHING.format(8))


def test_a_packets_fate_does_not_depend_on_other_settings() -> None:
    lossy = {number(f) for _, f in run("fault(loss=10%,seed=5):")}
    busy = {number(f) for _, f in run("fault(loss=10%,dup=20%,reorder=20%,delay=1ms..2ms,seed=5):")}
    assert lossy == busy


def test_directions_do_not_disturb_each_other(rig: Rig) -> None:
    quiet, busy = Wired(rig, "fault(loss=30%,seed=5):"), None
    alone = [number(f) for _, f in send_and_collect(quiet, 200)]
    quiet.port.close()
    busy = Wired(rig, "fault(loss=30%,seed=5):")
    together = []
    for frame in numbered(200):
        busy.plug.tx([frame])
        busy.peer.send(frame)
        together += [number(f) for f in busy.plug.rx()]
    assert together == alone
    sent = [number(f) for f in busy.peer.receive()]
    assert sent != alone
    assert 100 < len(sent) < 180


@pytest.mark.parametrize(("direction", "rx", "tx"), [("rx", 0, 64), ("tx", 64, 0)])
def test_one_direction_can_be_left_alone(rig: Rig, direction: str, rx: int, tx: int) -> None:
    wired = Wired(rig, f"fault(loss=1,direction={direction}):")
    for frame in numbered(64):
        wired.peer.send(frame)
    assert len(wired.plug.rx()) == rx
    wired.plug.tx(numbered(64))
    assert len(wired.peer.receive()) == tx


def test_a_delay_is_kept_to_the_nanosecond(rig: Rig) -> None:
    wired = Wired(rig, "fault(delay=2ms):")
    wired.peer.send(numbered(1)[0])
    assert wired.plug.rx(5) == []
    assert due(wired.plug) == 5 + 2 * MS
    assert wired.plug.rx(4 + 2 * MS) == []
    assert wired.plug.rx(5 + 2 * MS) == numbered(1)
    assert due(wired.plug) == FOREVER


def test_a_varying_delay_stays_in_its_range_and_keeps_the_order(rig: Rig) -> None:
    wired = Wired(rig, "fault(delay=1ms..3ms,seed=2):")
    arrived = send_and_collect(wired, 300, step=100_000)
    assert [number(f) for _, f in arrived] == list(range(300))
    delays = [at - number(f) * 100_000 for at, f in arrived]
    assert min(delays) >= 1 * MS
    assert max(delays) <= 3 * MS + 100_000  # looked at when a frame is due or sent


def test_reordered_packets_are_overtaken_by_those_of_the_next_millisecond(rig: Rig) -> None:
    wired = Wired(rig, "fault(reorder=10%,hold=1ms,seed=4):")
    arrived = [number(f) for _, f in send_and_collect(wired, 400, step=100_000)]
    assert sorted(arrived) == list(range(400))
    overtakers = {i: {j for j in arrived[: arrived.index(i)] if j > i} for i in arrived}
    late = {i for i in arrived if overtakers[i]}
    assert len(late) == fault_of(wired).counters("rx")["reordered"]
    for i in late:
        assert overtakers[i] == set(range(i + 1, min(i + 11, 400))) - late


def test_delayed_transmissions_leave_when_due(rig: Rig) -> None:
    wired = Wired(rig, "fault(delay=1ms):")
    wired.plug.tx(numbered(64), now=0)
    wired.plug.flush(MS - 1)
    assert wired.peer.receive() == []
    assert rig.n_free == rig.total - 64
    wired.plug.flush(MS)
    assert wired.peer.receive() == numbered(64)
    assert rig.n_free == rig.total


def test_waiting_is_bounded_and_the_rest_counted_lost(rig: Rig) -> None:
    wired = Wired(rig, "fault(delay=1ms,limit=10):")
    wired.plug.tx(numbered(64))
    counters = fault_of(wired).counters("tx")
    assert (counters["waiting"], counters["overflowed"]) == (10, 54)
    wired.plug.flush(MS)
    assert wired.peer.receive() == numbered(10)
    assert rig.n_free == rig.total


def test_an_empty_pool_costs_the_duplicate_only() -> None:
    rig = Rig(8)
    wired = Wired(rig, "fault(dup=1):")
    wired.plug.tx(numbered(8))
    assert [number(f) for f in wired.peer.receive()] == list(range(8))
    assert fault_of(wired).counters("tx")["overflowed"] == 8
    assert rig.n_free == rig.total


def test_a_damaged_packet_is_no_longer_vouched_for(rig: Rig) -> None:
    wired = Wired(rig, "fault(biterr=1):")
    wired.peer.send(numbered(1)[0], checked=True)
    wired.plug.rx()
    assert wired.plug.last_flags == [0]


def test_a_burst_that_doubles_comes_out_in_two(rig: Rig) -> None:
    wired = Wired(rig, "fault(dup=1):")
    for frame in numbered(64):
        wired.peer.send(frame)
    assert len(wired.plug.rx()) == 64
    assert len(wired.plug.rx()) == 64
    assert wired.plug.rx() == []


def test_draining_gives_waiting_frames_back(rig: Rig) -> None:
    wired = Wired(rig, "fault(delay=1s):fault(reorder=1,hold=1s):")
    wired.plug.tx(numbered(30))
    for frame in numbered(30):
        wired.peer.send(frame)
    wired.plug.rx()
    assert rig.n_free == rig.total - 60
    library().cham_fault_drain(wired.plug.address)
    assert wired.plug.inner is not None
    library().cham_fault_drain(wired.plug.inner.address)
    assert rig.n_free == rig.total
    assert due(wired.plug) == FOREVER
