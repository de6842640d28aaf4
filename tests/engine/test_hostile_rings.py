"""What a tenant can write in shared memory: lying indices, wrapping ones, raw packets, what it never drains, what it resizes."""

from __future__ import annotations

import fcntl
import os
import random
from typing import Any

import pytest

from virtual import CONTEXTS, Net, Tenant, ipv4, named, udp

A, B = "10.0.0.1", "10.0.0.2"


@pytest.fixture
def net() -> Any:
    with Net() as net:
        net.tenant = Tenant(net.host, A)
        net.other = Tenant(net.host, B, unit_index=net.tenant.unit)
        net.run()
        yield net


def neighbour_is_clean(net: Any) -> bool:
    """The other tenant is served as ever."""
    net.order(B, "e")
    answers = net.run()
    return len(answers) == 1 and net.other.drops() == {} and net.other.events() == {}


LIES = [1 << 31, 65, 1000, 0xFFFFFFFF, 0x8000_0001]


@pytest.mark.fault(1)
@pytest.mark.fault(2)
@pytest.mark.parametrize("start", [0, 2**32 - 3])
@pytest.mark.parametrize("lie", LIES)
def test_a_producer_index_that_cannot_be_true_puts_the_ring_out_of_use(lie: int, start: int) -> None:
    with Net() as net:
        net.tenant = Tenant(net.host, A, ring_start=start)
        net.other = Tenant(net.host, B, unit_index=net.tenant.unit)
        ring = net.tenant.ring("requests", 1)
        ring.prod = start + lie
        net.run()
        assert net.tenant.events() == {"ring_damaged": 1, "quarantined": 1}
        assert net.host.state_of(net.tenant.instance.index) == "quarantined"
        assert neighbour_is_clean(net)
        net.order(A, "e")
        assert net.run() == []  # a quarantined instance is not served


@pytest.mark.fault(1)
def test_a_producer_index_that_goes_back_is_a_lie(net: Any) -> None:
    ring = net.tenant.ring("requests", 1)
    ring.put(1, 0, 7)
    net.run()
    ring.prod -= 1
    net.run()
    assert net.tenant.events() == {"ring_damaged": 1, "quarantined": 1}
    assert neighbour_is_clean(net)


@pytest.mark.fault(1)
def test_a_consumer_index_that_cannot_be_true_is_found_when_the_ring_seems_full(net: Any) -> None:
    ring = net.tenant.ring("answers", 1)
    for _ in range(64):
        net.order(A, "r", 1)
    net.run()
    ring.cons = ring.prod + 5
    net.order(A, "r", 1)
    net.run()
    assert net.tenant.events() == {"ring_damaged": 1, "quarantined": 1}
    assert neighbour_is_clean(net)


@pytest.mark.fault(1)
def test_attaching_again_ends_the_quarantine(net: Any) -> None:
    net.tenant.ring("requests", 1).prod = 1 << 31
    net.run()
    assert net.host.state_of(net.tenant.instance.index) == "quarantined"
    net.host.attach(net.tenant.instance.index, 1)
    assert net.host.state_of(net.tenant.instance.index) == "active"
    net.order(A, "e")
    assert len(net.run()) == 1


@pytest.mark.fault(2)
def test_indices_wrap_at_2_to_the_32() -> None:
    with Net() as net:
        tenant = Tenant(net.host, A, ring_start=2**32 - 3)
        requests, answers = tenant.ring("requests", 1), tenant.ring("answers", 1)
        for value in range(10):
            requests.put(1, 0, value)
        net.run()
        assert [entry[2] for entry in answers.take()] == list(range(10))
        assert requests.cons == requests.prod == 7
        for _ in range(5):
            net.order(A, "p")
            tenant.send_raw(udp(A, Net.PEER, b"raw"))
        assert len(net.run()) == 5
        assert len(tenant.raw("punt").take()) == 5
        assert tenant.raw("xmit").cons == 2
        assert tenant.events() == {}


@pytest.mark.fault(1)
def test_a_hostile_lie_in_the_punt_ring_damages_that_ring_only_for_its_owner(net: Any) -> None:
    punt = net.tenant.raw("punt")
    for _ in range(64):
        net.order(A, "p")
    net.run()
    punt.cons = punt.prod + 1
    net.order(A, "p")
    net.run()
    assert "ring_damaged" in net.tenant.events()
    assert neighbour_is_clean(net)


def test_a_raw_packet_of_the_slow_path_leaves(net: Any) -> None:
    packet = udp(A, Net.PEER, b"from the slow path")
    net.tenant.send_raw(packet)
    assert net.run() == [packet]


GOOD = udp(A, Net.PEER, b"x" * 20)
REFUSED = [
    ("length 0", {"length": 0}, "xmit_refused"),
    ("length 19", {"length": 19}, "tx_bad_header"),
    ("length beyond the slot", {"length": 2017}, "xmit_refused"),
    ("length that overflows", {"length": 0xFFFFFFFF}, "xmit_refused"),
    ("reserved flags", {"flags": 1}, "xmit_refused"),
    ("reserved time", {"now": 1}, "xmit_refused"),
    ("reserved hash", {"hash": 1}, "xmit_refused"),
    ("reserved words", {"reserved": 1}, "xmit_refused"),
    ("length that is not the packet's", {"length": 40}, "tx_bad_header"),
    ("another's source", {"packet": udp(B, Net.PEER, b"x")}, "tx_spoofed_source"),
    ("another protocol", {"packet": ipv4(A, Net.PEER, b"x" * 20, 6)}, "tx_protocol"),
    ("longer than the MTU", {"packet": udp(A, Net.PEER, b"x" * 1600)}, "tx_mtu"),
]


@pytest.mark.fault(3)
@pytest.mark.fault(4)
@pytest.mark.fault(6)
@pytest.mark.parametrize(("what", "how", "reason"), REFUSED, ids=[r[0] for r in REFUSED])
def test_a_raw_packet_that_must_not_leave_is_refused_and_counted(net: Any, what: str, how: dict[str, Any], reason: str) -> None:
    how = dict(how)
    net.tenant.send_raw(how.pop("packet", GOOD), **how)
    assert net.run() == []
    assert net.tenant.drops() == {reason: 1}
    assert net.host.free_frames[0] == net.host.free_frames[1]
    assert neighbour_is_clean(net)


SPANS = [(0, 0), (0, 19), (0, 4097), (0, 2000), (0, 0xFFFFFFFF), (4, 100), (7, 100), (0xFFFFFFFF, 100)]


@pytest.mark.fault(4)
@pytest.mark.fault(6)
@pytest.mark.parametrize(("buffer", "length"), SPANS)
def test_buffers_and_lengths_out_of_range_send_nothing(net: Any, buffer: int, length: int) -> None:
    net.tenant.ring("requests", 1).put(4, length, buffer)
    assert net.run() == []
    assert sum(net.tenant.drops().values()) + int(net.tenant.counters["reasons"].sum()) == 1
    assert neighbour_is_clean(net)
    assert net.host.free_frames[0] == net.host.free_frames[1]


@pytest.mark.fault(29)
def test_a_packet_from_a_buffer_that_was_never_written_carries_nobodys_bytes(net: Any) -> None:
    for _ in range(30):
        net.send(udp(Net.PEER, B, b"e" + b"secret" * 200))
    net.run()
    header = ipv4(A, Net.PEER, b"", total=1200)
    net.tenant.values("buffers")[2, :20] = list(header)
    net.tenant.ring("requests", 1).put(4, 1200, 2)
    (packet,) = net.run()
    assert packet == header + bytes(1180)


@pytest.mark.fault(3)
def test_entries_of_unknown_kinds_are_the_handlers_errors(net: Any) -> None:
    ring = net.tenant.ring("requests", 2)
    for what in (0, 7, 77, 0xFFFFFFFF):
        ring.put(what, 0xFFFFFFFF, 2**64 - 1)
    net.run()
    assert int(net.tenant.counters["reasons"][25]) == 4
    assert neighbour_is_clean(net)


@pytest.mark.fault(8)
def test_a_tenant_that_never_drains_loses_only_its_own(net: Any) -> None:
    for i in range(300):
        net.order(A, "pr"[i % 2], 1)
        if i % 20 == 0:
            net.run()
    net.run()
    assert net.tenant.drops() == {"punt_full": 150 - 64, "handler_error": 150 - 64}
    assert net.tenant.events() == {"ring_full": 150 - 64}
    assert neighbour_is_clean(net)
    assert net.host.free_frames[0] == net.host.free_frames[1]


@pytest.mark.fault(7)
def test_a_region_cannot_be_resized_or_unsealed(net: Any) -> None:
    fd = net.tenant.instance.region_fd
    for size in (0, 4096, 1 << 30):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


@pytest.mark.fault(6)
def test_one_tenants_garbage_changes_no_byte_of_another(net: Any) -> None:
    """Everything that tenant A may write is overwritten with noise, again and again; B's memory, the engine's part of it too,
    stays as it is."""
    rng = random.Random(6)
    for what in "ahtr":
        net.order(B, what, 3)
    net.run(20_000_000)
    before = net.other.memory()
    assert before[0].count(0) < len(before[0]) and before[1].count(0) < len(before[1])
    for _ in range(25):
        size = rng.randrange(1, len(net.tenant.content))
        at = rng.randrange(len(net.tenant.content) - size + 1)
        net.tenant.content[at : at + size] = rng.randbytes(size)
        net.order(A, rng.choice("eprtah"), rng.randrange(1 << 32))
        net.run(50_000)
        if rng.random() < 0.5:
            net.host.attach(net.tenant.instance.index, rng.randrange(CONTEXTS))
    assert net.other.memory() == before
    assert neighbour_is_clean(net)
    assert net.host.free_frames[0] == net.host.free_frames[1]
    assert named(net.host.counters()["tenants"][net.other.index]["drops"]) == {}


def test_a_sleeper_is_woken_once_and_a_full_doorbell_never_blocks(net: Any) -> None:
    bell = net.tenant.instance.bells[1]
    net.order(A, "r", 1)
    net.run()
    with pytest.raises(BlockingIOError):
        os.read(bell, 8)
    net.tenant.ring("answers", 1).sleep()
    for _ in range(3):
        net.order(A, "r", 1)
    net.run()
    assert net.tenant.events()["wakeups"] >= 1
    assert len(os.read(bell, 1 << 16)) == 8 * net.tenant.events()["wakeups"]
