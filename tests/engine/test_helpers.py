"""Helpers as handlers see them: second packets, checksums left to the provider, pacing, timers near and far, randomness."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from chamelio.engine import abi
from chamelio.jit import layout
from virtual import Net, Tenant, address, checksum, udp, unit

A, B = "10.0.0.1", "10.0.0.2"
MS = 1_000_000
TICK = 1 << 13  # of the wheel, ns
IDS = 64


class Box(Net):
    """A host whose tenant runs the toolbox."""

    def __init__(self) -> None:
        super().__init__()
        self.tenant = Tenant(self.host, A, handlers="toolbox")
        self.pending: list[tuple[int, ...]] = []
        self.orders, self.results = self.tenant.ring("orders", 0), self.tenant.ring("results", 0)
        self.run()

    def ask(self, what: str, id_: int = 0, value: int = 0) -> int:
        """An order by the ring and the value that comes back."""
        self.orders.put(ord(what), id_, value & (1 << 64) - 1)
        for _ in range(20):
            self.world.run(for_ns=TICK)
            told = self.took()
            found = next((r for r in told if r[0] == ord(what)), None)
            self.pending = [r for r in told if r is not found]
            if found:
                return found[2] - (1 << 64) if found[2] >> 63 else found[2]
        raise AssertionError("no result")

    def took(self) -> list[tuple[int, ...]]:
        """What the handlers have told and nobody has taken yet."""
        told, self.pending = [*self.pending, *self.results.take()], []
        return told


@pytest.fixture
def box() -> Iterator[Box]:
    with Box() as box:
        yield box


def test_layouts_that_python_repeats_are_those_of_c() -> None:
    assert abi.dtype("wheel").itemsize == layout.WHEEL_BYTES
    assert abi.dtype("wheel_node").itemsize == layout.NODE_BYTES
    assert abi.dtype("cham_ring").itemsize == layout.POSITIONS_BYTES
    assert abi.dtype("cham_place").itemsize == layout.PLACE_BYTES
    assert abi.dtype("pool").itemsize == layout.POOL_BYTES
    assert abi.dtype("pool_node").itemsize == layout.POOL_NODE_BYTES
    assert abi.dtype("hash_bucket").itemsize == layout.LINE
    assert abi.dtype("cham_instance").itemsize <= layout.INSTANCE_HEAD
    assert abi.dtype("cham_raw").itemsize * 64 + layout.RING_HEADER == layout.RAW_RING


@pytest.mark.parametrize("handlers", ["toolbox", "pools"])
def test_handlers_that_are_compiled_alone_find_all_helpers(box: Box, handlers: str) -> None:
    box.host.load_unit(unit(handlers, mode="separate"))


# ---- second packets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("emits", [0, 1, 2])
def test_a_run_emits_further_packets_in_order(box: Box, emits: int) -> None:
    box.order(A, "e", emits)
    packets = box.run()
    assert [p[29] for p in packets] == [*range(emits), 99]
    assert box.host.free_frames[0] == box.host.free_frames[1]


def test_more_than_two_are_refused_and_those_before_are_sent(box: Box) -> None:
    box.order(A, "e", 3)
    assert [p[29] for p in box.run()] == [0, 1]
    assert [(chr(r[0]), r[1], r[2] - (1 << 64)) for r in box.took()] == [("e", 2, -28)]
    counters = box.tenant.counters
    assert [int(counters[name]) for name in ("rx_packets", "tx_packets", "done", "consumed")] == [1, 2, 0, 1]
    assert box.host.free_frames[0] == box.host.free_frames[1]


def test_a_run_may_end_without_the_packet_that_it_emitted(box: Box) -> None:
    box.order(A, "n")
    assert len(box.run()) == 1
    assert box.host.free_frames[0] == box.host.free_frames[1]


def test_nothing_to_emit_is_an_error(box: Box) -> None:
    assert box.ask("E") == -22


# ---- checksums ------------------------------------------------------------------------------------------------------------


def with_checksum(src: str, dst: str, payload: bytes) -> bytes:
    """The UDP packet as it should be."""
    packet = bytearray(udp(src, dst, payload))
    pseudo = packet[12:20] + bytes([0, 17]) + packet[24:26]
    packet[26:28] = checksum(bytes(pseudo + packet[20:])).to_bytes(2, "big")
    return bytes(packet)


@pytest.mark.parametrize("size", [8, 9, 63, 1400])
def test_the_provider_completes_a_checksum(box: Box, size: int) -> None:
    payload = b"c" + bytes(3) + (26).to_bytes(4, "little") + random.Random(size).randbytes(size - 8)
    box.send(udp(Net.PEER, A, payload))
    (answer,) = box.run()
    assert answer == with_checksum(A, Net.PEER, payload)


@pytest.mark.parametrize("at", [19, 2000, 0xFFFF_FFFF])
def test_a_checksum_where_there_is_no_field_is_refused(box: Box, at: int) -> None:
    box.order(A, "c", at)
    assert box.run() == []
    assert box.tenant.drops() == {"handler_error": 1}


@pytest.mark.parametrize("at", [35, 36, 1000])
def test_a_checksum_past_the_packet_does_not_leave(box: Box, at: int) -> None:
    box.order(A, "c", at)
    assert box.run() == []
    assert box.tenant.drops() == {"tx_bad_header": 1}


@pytest.mark.parametrize("start", [0, 2, 12, 19])
@pytest.mark.parametrize("at", [2, 9, 12, 14, 16, 19, 26])
def test_a_checksum_never_changes_the_header_that_was_checked(box: Box, start: int, at: int) -> None:
    box.order(A, "C", start << 16 | at)
    assert box.run() == []
    assert box.tenant.drops() == {"tx_bad_header" if start <= at else "handler_error": 1}


def test_inside_the_host_no_checksum_is_computed_and_the_receiver_knows(box: Box) -> None:
    other = Tenant(box.host, B, handlers="toolbox", unit_index=box.tenant.unit)
    box.order(A, "o")
    box.run()
    assert [r[2] for r in box.took()] == [0], "from a wire without offload nothing is known"
    box.order(A, "w", address(B))
    box.run()
    assert [r[2] for r in other.ring("results", 0).take()] == [1]


# ---- time -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("away", [0, 1, 5 * TICK, 8 * MS, 9 * MS, 200 * MS, 8_600 * MS, 30_000 * MS])
def test_a_timer_is_never_early_and_one_tick_late_at_most(box: Box, away: int) -> None:
    when = box.world.now + away
    assert box.ask("s", 3, when) == 0
    fired: list[int] = []
    end = box.world.now + away + 20 * MS
    while not fired and box.world.now < end:
        box.world.run(for_ns=max(TICK, (end - box.world.now) // 2))
        fired = [r[3] for r in box.took() if r[0] == ord("t")]
    assert len(fired) == 1
    assert when <= fired[0] <= max(when, box.world.now - away) + 2 * TICK + 10_000


def test_timers_near_and_far_fire_in_order_and_cancelled_ones_never() -> None:
    rng = random.Random(7)
    with Box() as box:
        due = {
            i: box.world.now + rng.choice([MS, 10 * MS, 100 * MS, 3_000 * MS, 12_000 * MS]) + rng.randrange(MS) for i in range(IDS)
        }
        for i, when in due.items():
            assert box.ask("s", i, when) == 0
        for i in range(0, IDS, 4):
            assert box.ask("x", i) == 0
            assert box.ask("x", i) == -2, "it was not set any more"
            del due[i]
        again = {i: when + 500 * MS for i, when in due.items() if i % 4 == 1}
        for i, when in again.items():
            assert box.ask("s", i, when) == 0
        due |= again
        fired: list[tuple[int, int]] = []
        for _ in range(3000):
            box.world.run(for_ns=5 * MS)
            fired += [(r[1], r[3]) for r in box.took() if r[0] == ord("t")]
        assert sorted(i for i, _ in fired) == sorted(due)
        for i, at in fired:
            assert due[i] <= at <= due[i] + 2 * TICK + 50_000, f"id {i}"


def test_what_is_due_at_once_comes_in_the_order_in_which_it_was_set_and_does_not_wait_for_a_tick(box: Box) -> None:
    order = [5, 3, 9, 1, 60, 0]
    for i in order:
        box.orders.put(ord("s"), i, 0)
    started = box.world.now
    box.world.run(for_ns=TICK // 2)
    fired = [(r[1], r[3]) for r in box.took() if r[0] == ord("t")]
    assert [i for i, _ in fired] == order
    assert max(at for _, at in fired) - started < TICK // 2


def test_ids_are_taken_out_of_the_queue_at_any_place(box: Box) -> None:
    for what, i in [("s", 1), ("s", 2), ("s", 3), ("s", 4), ("x", 4), ("x", 1), ("s", 5), ("x", 3), ("s", 1)]:
        box.orders.put(ord(what), i, 0)
    box.world.run(for_ns=TICK)
    told = box.took()
    assert [r[2] for r in told if r[0] == ord("x")] == [0, 0, 0]
    assert [r[1] for r in told if r[0] == ord("t")] == [2, 5, 1]


def test_what_is_always_due_does_not_hold_up_the_wheel(box: Box) -> None:
    """Forty ids that are due again as soon as they were served, beside a timer."""
    for i in range(40):
        box.orders.put(ord("z"), i, 0)
    when = box.world.now + MS
    box.orders.put(ord("Z"), 63, when)
    box.world.run(for_ns=2 * MS)
    fired = [r[3] for r in box.took() if r[0] == ord("P") and r[1] == 63]
    assert fired and fired[0] < when + 4 * TICK


def test_an_unknown_id_is_refused(box: Box) -> None:
    assert box.ask("s", IDS, 0) == box.ask("x", IDS) == box.ask("p", IDS, 0) == -2


def test_what_is_paced_keeps_its_rate_and_does_not_catch_up_in_a_burst(box: Box) -> None:
    assert box.ask("p", 1, 0) == 0
    times: list[int] = []
    for _ in range(40):
        box.world.run(for_ns=MS // 2)
        times += [r[3] for r in box.took() if r[0] == ord("P")]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(times) > 150
    assert sum(gaps) / len(gaps) == pytest.approx(100_000, rel=0.02), "the rate is kept over many, whatever one tick costs"
    assert min(gaps) > 50_000


# ---- randomness -----------------------------------------------------------------------------------------------------------


def test_random_words_differ_and_a_seeded_world_repeats_them() -> None:
    def draw() -> list[int]:
        with Box() as box:
            return [box.ask("r") for _ in range(50)]

    words = draw()
    assert len(set(words)) == 50
    ones = sum(bin(w & (1 << 64) - 1).count("1") for w in words)
    assert 1400 < ones < 1800
    assert draw() == words


def test_hashes_depend_on_both_words_and_on_the_instance(box: Box) -> None:
    other = Tenant(box.host, B, handlers="toolbox", unit_index=box.tenant.unit)
    values = {box.ask("h", i, v) for i in range(4) for v in (0, 1, 1 << 63)}
    assert len(values) == 12
    assert box.ask("h", 1, 1) == box.ask("h", 1, 1)
    other.ring("orders", 0).put(ord("h"), 1, 1)
    box.run()
    (theirs,) = other.ring("results", 0).take()
    assert theirs[2] != box.ask("h", 1, 1) & (1 << 64) - 1
