"""TCP's slow path between the rings of a region: what is asked of it and what it asks of handlers, which the test plays."""

from __future__ import annotations

import errno
import random
import re
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from chamelio.protocols.tcp import packets, slowpath
from chamelio.protocols.tcp.packets import PLATEAUS, checksum
from chamelio.protocols.tcp.states import STATES_H
from chamelio.tenant.runtime import RequestError
from protocols.tcp.slowpath_rig import (
    ESTABLISHED,
    FIN_WAIT_1,
    LOCAL,
    MS,
    NAMES,
    PEER,
    SECOND,
    SYN_RCVD,
    SYN_SENT,
    Rig,
    number,
    swap,
)

HEADER = STATES_H.with_name("tcp.h").read_text()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    assert made.services.dropped == 0


# ---- the contract -----------------------------------------------------------------------------------------------------------


def test_numbers_are_those_of_the_header() -> None:
    defines = {name: int(value) for name, value in re.findall(r"#define TCP_(\w+) (\d+)", HEADER)}
    for name in (*NAMES.values(), "TIMEOUT", "LOSS", "MARKED", "RETRANSMISSION", "PERSIST", "KEEPALIVE", "LISTENERS", "ENTRIES"):
        assert getattr(slowpath, name) == defines[name], name
    for option, bit in slowpath.OPTIONS.items():
        assert defines[f"OPT_{option.upper()}"] == bit


def test_an_entry_has_the_fields_of_the_header() -> None:
    with_names = ("kind", "conn", "generation", "end", "flags", "mark", "value", "address", "port", "local_port", "tag")
    assert Rig().types["entries"].names == with_names


# ---- the beginning ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cores", [1, 2, 3])
def test_every_core_has_numbers_of_its_own(cores: int) -> None:
    rig = Rig(cores)
    first, count = rig.config["first"][:cores].astype(int), rig.config["count"][:cores].astype(int)
    numbers = [n for f, c in zip(first, count, strict=True) for n in range(f, f + c)]
    assert len(numbers) == len(set(numbers)) > 131072 - 16 and max(numbers) < 131072
    assert not rig.config["count"][cores:].any()
    assert set(rig.config["cores"][:cores]) == {cores} and set(rig.config["local"][:cores]) == {number(LOCAL)}


@pytest.mark.parametrize(
    ("ports", "low", "high"),
    [((0, 65535), 32768, 65535), ((1000, 2000), 1000, 2000), ((0, 99), 1, 99), ((40000, 50000), 40000, 50000)],
)
def test_ports_of_its_own_connections_are_the_tenants(ports: tuple[int, int], low: int, high: int) -> None:
    rig = Rig(ports=ports)
    assert (rig.config["port_low"][0], rig.config["port_high"][0]) == (low, high)


def test_what_is_usual(rig: Rig) -> None:
    usual = {"options": 15, "mss": 1460, "initial_window": 10, "rto_min": 200_000, "rto_max": 60_000_000, "rto_initial": 1_000_000}
    usual |= {"ack_delay": 40_000, "time_wait": 60_000, "buffer_max": 4 << 20, "dctcp": 0, "beta": 717}
    assert {name: int(rig.config[name][0]) for name in usual} == usual


@pytest.mark.parametrize("congestion", ["cubic", "dctcp", "newreno"])
def test_a_new_slow_path_keeps_what_was_configured(rig: Rig, congestion: str) -> None:
    rig.request("configure", rto_min=0.005, congestion=congestion)
    rig.begin(resumed=True)
    assert rig.request("configure")["rto_min"] == 0.005 and rig.request("configure")["congestion"] == congestion


CONFIGURED: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({"options": ["sack", "ecn"]}, {"options": 10}),
    ({"options": []}, {"options": 0}),
    ({"rto_min": 0.001, "rto_initial": 0.25}, {"rto_min": 1000, "rto_initial": 250_000}),
    ({"ack_delay": 0, "time_wait": 1.5}, {"ack_delay": 0, "time_wait": 1500}),
    ({"mss": 536, "initial_window": 2, "buffer_max": 65536}, {"mss": 536, "initial_window": 2, "buffer_max": 65536}),
    ({"congestion": "dctcp"}, {"dctcp": 1, "beta": 0}),
    ({"congestion": "cubic"}, {"dctcp": 0, "beta": 717}),
    ({"congestion": "dctcp", "dctcp": False}, {"dctcp": 0}),
    ({"dctcp": True}, {"dctcp": 1}),
]


@pytest.mark.parametrize(("arguments", "columns"), CONFIGURED)
def test_configure(arguments: dict[str, Any], columns: dict[str, int]) -> None:
    rig = Rig(cores=2)
    result = rig.request("configure", **arguments)
    assert {name: result[name] for name in arguments} == arguments
    for core in range(2):
        assert {name: int(rig.config[name][core]) for name in columns} == columns
    assert rig.request("configure") == result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rto_min": 0}, "rto_min 0 is not within 0.001..60"),
        ({"rto_min": "fast"}, "rto_min 'fast' is not within"),
        ({"rto_mim": 1}, "there is no setting 'rto_mim': did you mean 'rto_min'"),
        ({"options": ["sacks"]}, "are not among timestamps, sack, wscale, ecn"),
        ({"options": [["sack"]]}, "are not among"),
        ({"congestion": "renoo"}, "there is no congestion control 'renoo'"),
        ({"congestion": ["cubic"]}, "there is no congestion control"),
        ({"retries": True}, "retries True is not within 1..100"),
    ],
)
def test_configure_refuses_and_changes_nothing(rig: Rig, arguments: dict[str, Any], message: str) -> None:
    before = rig.config.tobytes()
    with pytest.raises(RequestError, match=re.escape(message)) as refused:
        rig.request("configure", mss=600, **arguments)
    assert refused.value.code == "EINVAL" and rig.config.tobytes() == before


# ---- listeners --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cores", [1, 3])
def test_listen_tells_every_core(cores: int) -> None:
    rig = Rig(cores)
    assert rig.request("listen", context=2, port=80, backlog=16) == {"port": 80}
    for core in range(cores):
        assert rig.take(core) == [{"kind": slowpath.LISTEN, "value": 2, "mark": 16, "local_port": swap(80)}]
    rig.request("unlisten", context=2, port=80)
    for core in range(cores):
        assert rig.take(core) == [{"kind": slowpath.UNLISTEN, "local_port": swap(80)}]
    rig.request("listen", context=1, port=80)


def test_a_new_slow_path_knows_who_listens(rig: Rig) -> None:
    for port, context in ((80, 1), (81, 2), (82, 2)):
        rig.request("listen", context=context, port=port)
    rig.request("unlisten", context=2, port=81)
    rig.take()
    rig.begin(resumed=True)
    assert [(e["kind"], e["local_port"], e["value"]) for e in rig.take()] == [(16, swap(80), 1), (16, swap(82), 2)]
    with pytest.raises(RequestError, match="port 80 is in use"):
        rig.request("listen", context=2, port=80)
    assert rig.request("listen", context=1, port=80, backlog=9) == {"port": 80}, "it has come back"
    assert rig.take() == [{"kind": slowpath.LISTEN, "value": 1, "mark": 9, "local_port": swap(80)}]
    with pytest.raises(RequestError, match="port 80 is in use"):
        rig.request("listen", context=1, port=80)
    rig.runtime.application_gone(2)  # it has not
    assert rig.told() == [("UNLISTEN", 0, 0)]
    rig.request("listen", context=1, port=82)


def test_there_are_so_many_listeners() -> None:
    rig = Rig()
    for port in range(1, slowpath.LISTENERS + 1):
        rig.request("listen", port=port)
        rig.take()
    with pytest.raises(RequestError) as refused:
        rig.request("listen")
    assert refused.value.code == "ENOBUFS"
    rig.request("unlisten", port=5)
    rig.request("listen", port=2000)


def test_port_0_is_a_free_one() -> None:
    rig = Rig(ports=(40000, 40003))
    assert {rig.request("listen")["port"] for _ in range(4)} == {40000, 40001, 40002, 40003}
    with pytest.raises(RequestError) as refused:
        rig.request("listen")
    assert refused.value.code == "EADDRNOTAVAIL"


@pytest.mark.parametrize(
    ("verb", "arguments", "code"),
    [
        ("listen", {"port": 81}, "EADDRINUSE"),
        ("listen", {"port": 79}, "EACCES"),
        ("listen", {"port": 65536}, "EINVAL"),
        ("listen", {"port": "http"}, "EINVAL"),
        ("listen", {"port": 90, "backlog": -1}, "EINVAL"),
        ("unlisten", {"port": 81}, "EBADF"),
        ("unlisten", {"port": 82}, "EBADF"),
        ("unlisten", {}, "EBADF"),
        ("info", {"conn": 7, "generation": 3}, "EBADF"),
        ("info", {"conn": -1, "generation": 3}, "EBADF"),
        ("info", {"conn": 1 << 40, "generation": 3}, "EBADF"),
        ("info", {"conn": 8, "generation": 2}, "ENOTCONN"),
        ("keepalive", {"conn": 8, "generation": 3, "idle": -1}, "EINVAL"),
        ("keepalive", {"conn": 8, "generation": 3, "count": 0}, "EINVAL"),
        ("accept", {}, "EOPNOTSUPP"),
    ],
)
def test_what_is_refused(verb: str, arguments: dict[str, Any], code: str) -> None:
    rig = Rig(ports=(80, 65535))
    rig.request("listen", context=2, port=81)
    rig.connection(7, context=2)
    rig.connection(8, context=1)
    rig.take()
    with pytest.raises(RequestError) as refused:
        rig.request(verb, **arguments)
    assert refused.value.code == code and rig.take() == []


def test_what_tools_ask(rig: Rig) -> None:
    rig.connection(7, options=5, rttvar=500, losses=2)
    rig.connection(8, state=FIN_WAIT_1, context=0)
    assert rig.request("endpoint") == {"address": LOCAL, "cores": 1}
    assert rig.request("states") == {"ESTABLISHED": 1, "FIN_WAIT_1": 1}
    info = rig.request("info", conn=7, generation=3)
    expected = {"state": "ESTABLISHED", "congestion": "cubic", "options": ["timestamps", "wscale"], "mss": 1460, "cwnd": 14480}
    assert expected | {"rtt": 0.02, "rttvar": 0.0005, "losses": 2, "unacked": 5000, "backoff": 0} == {
        name: info[name] for name in (*expected, "rtt", "rttvar", "losses", "unacked", "backoff")
    }


# ---- retransmission ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "context", "tries", "reset"),
    [
        (SYN_SENT, 1, 6, False),
        (SYN_RCVD, 0, 5, False),
        (ESTABLISHED, 1, 15, True),
        (FIN_WAIT_1, 1, 15, True),
        (FIN_WAIT_1, 0, 8, True),
    ],
)
def test_what_is_not_acknowledged_is_sent_again_until_it_is_enough(
    rig: Rig, state: int, context: int, tries: int, reset: bool
) -> None:
    rig.connection(7, state=state, context=context)
    told = [rig.timeout(7) for _ in range(tries)]
    assert told == [[("RETRANSMIT", 7, min(n, 16))] for n in range(1, tries + 1)]
    assert rig.timeout(7) == [("FAIL", 7, errno.ETIMEDOUT, *([1] if reset else []))]


def test_how_often_is_a_setting(rig: Rig) -> None:
    rig.request("configure", retries=2, syn_retries=1)
    rig.connection(7)
    rig.connection(8, state=SYN_SENT)
    assert [rig.timeout(7)[0][0] for _ in range(3)] == ["RETRANSMIT", "RETRANSMIT", "FAIL"]
    assert [rig.timeout(8)[0][0] for _ in range(2)] == ["RETRANSMIT", "FAIL"]


def test_progress_begins_anew(rig: Rig) -> None:
    rig.connection(7)
    for _ in range(5):
        rig.timeout(7)
    rig.about["acked"][7] += 1
    assert rig.timeout(7) == [("RETRANSMIT", 7, 1)]
    rig.timeout(7)
    rig.about["generation"][7] += 2  # another connection, by chance at the same sequence number
    assert rig.timeout(7) == [("RETRANSMIT", 7, 1)]


def test_events_of_connections_that_are_no_more_are_nothing(rig: Rig) -> None:
    rig.connection(7)
    rig.event(slowpath.TIMEOUT, 7, slowpath.RETRANSMISSION, generation=2)
    rig.event(slowpath.TIMEOUT, 8, slowpath.RETRANSMISSION)
    rig.event(slowpath.LOSS, 7, number=1 << 31)
    rig.event(99, 7)
    assert rig.told() == []


def test_what_is_told_twice_counts_once(rig: Rig) -> None:
    rig.connection(7)
    rig.event(slowpath.TIMEOUT, 7, slowpath.RETRANSMISSION)
    assert rig.timeout(7) == [("RETRANSMIT", 7, 1)]
    assert rig.timeout(7, after=50 * MS) == []
    assert rig.timeout(7, after=400 * MS) == [("RETRANSMIT", 7, 2)]
    rig.about["acked"][7] += 1
    assert rig.timeout(7, after=MS) == [("RETRANSMIT", 7, 1)]


def test_many_at_once_each_on_its_core() -> None:
    rig = Rig(cores=2)
    half = int(rig.config["first"][1])
    for i in range(200):
        rig.connection(i)
        rig.connection(half + i)
        rig.event(slowpath.TIMEOUT, i, slowpath.RETRANSMISSION, core=0)
        rig.event(slowpath.TIMEOUT, half + i, slowpath.RETRANSMISSION, core=1)
    assert rig.told(0) == [("RETRANSMIT", i, 1) for i in range(200)]
    assert rig.told(1) == [("RETRANSMIT", half + i, 1) for i in range(200)]


# ---- closed windows ---------------------------------------------------------------------------------------------------------


def test_a_closed_window_is_probed_as_long_as_the_peer_answers(rig: Rig) -> None:
    rig.connection(7, sent=1000)
    for n in range(1, 100):
        assert rig.timeout(7, slowpath.PERSIST, after=60 * SECOND, silence=59_990) == [("PROBE", 7, min(n, 16))]


def test_a_closed_window_of_a_peer_that_does_not_answer_is_given_up(rig: Rig) -> None:
    rig.connection(7, sent=1000)
    told = [rig.timeout(7, slowpath.PERSIST, after=10 * SECOND, silence=10_000 * n) for n in range(1, 17)]
    assert told[:-1] == [[("PROBE", 7, n)] for n in range(1, 16)]
    assert told[-1] == [("FAIL", 7, errno.ETIMEDOUT, 1)]


def test_an_orphan_is_not_held_up_for_ever(rig: Rig) -> None:
    rig.connection(7, state=FIN_WAIT_1, context=0, sent=1000)
    told = [rig.timeout(7, slowpath.PERSIST, after=10 * SECOND, silence=9990)[0][0] for _ in range(16)]
    assert told == ["PROBE"] * 15 + ["FAIL"]


# ---- keepalive --------------------------------------------------------------------------------------------------------------


def test_keepalive_of_a_peer_that_answers(rig: Rig) -> None:
    rig.connection(7, sent=1000)
    rig.request("keepalive", conn=7, generation=3, idle=60, interval=5, count=3)
    assert rig.told() == [("ALIVE", 7, 60_000)]
    for _ in range(10):
        quiet = rig.timeout(7, slowpath.KEEPALIVE, after=60 * SECOND, silence=60_000)
        assert quiet == [("PROBE", 7, 0), ("ALIVE", 7, 5000)]
        assert rig.timeout(7, slowpath.KEEPALIVE, after=5 * SECOND, silence=4999) == [("ALIVE", 7, 55_001)]
        assert rig.timeout(7, slowpath.KEEPALIVE, after=45 * SECOND, silence=55_002) == [("ALIVE", 7, 4998)], "data had come"


def test_keepalive_of_a_peer_that_has_gone(rig: Rig) -> None:
    rig.connection(7, sent=1000)
    rig.request("keepalive", conn=7, generation=3, idle=60, interval=5, count=3)
    rig.told()
    for n in range(3):
        told = rig.timeout(7, slowpath.KEEPALIVE, after=5 * SECOND, silence=60_000 + n * 5000)
        assert told == [("PROBE", 7, 0), ("ALIVE", 7, 5000)]
    assert rig.timeout(7, slowpath.KEEPALIVE, after=5 * SECOND, silence=75_000) == [("FAIL", 7, errno.ETIMEDOUT, 1)]


def test_keepalive_leaves_what_is_under_way_to_retransmission(rig: Rig) -> None:
    rig.connection(7)
    rig.request("keepalive", conn=7, generation=3, idle=1)
    rig.told()
    assert rig.timeout(7, slowpath.KEEPALIVE, silence=1000) == [("ALIVE", 7, 1000)]


def test_keepalive_ends_with_its_connection_and_by_request(rig: Rig) -> None:
    rig.connection(7, sent=1000)
    rig.request("keepalive", conn=7, generation=3, idle=1)
    rig.request("keepalive", conn=7, generation=3, idle=0)
    assert rig.told() == [("ALIVE", 7, 1000), ("ALIVE", 7, 0)]
    assert rig.timeout(7, slowpath.KEEPALIVE, silence=1000) == [("ALIVE", 7, 0)]
    rig.request("keepalive", conn=7, generation=3, idle=1)
    rig.about["generation"][7] = 5
    rig.told()
    assert rig.timeout(7, slowpath.KEEPALIVE, silence=1000) == [("ALIVE", 7, 0)]


# ---- congestion -------------------------------------------------------------------------------------------------------------


def test_a_loss_is_watched_from_then_on(rig: Rig) -> None:
    rig.connection(7, win=70 * 1448, ssthresh=70 * 1448, srtt=100_000)
    assert rig.runtime.due is None
    rig.event(slowpath.LOSS, 7)
    rig.poll()
    assert rig.about["beta"][7] == 717 and rig.runtime.due == rig.now + 100 * MS
    for _ in range(30):
        rig.about["delivered"][7] += np.uint32(70 * 1448)
        rig.poll(after=rig.runtime.due - rig.now)
    assert 0 < rig.about["grow"][7] <= 35 * 1448
    rig.poll(after=10 * SECOND)
    for _ in range(100):
        rig.poll(after=(rig.runtime.due or rig.now) - rig.now)
    assert rig.runtime.due is None, "nothing moves, and nobody is woken"


def test_looks_are_no_more_frequent_than_ticks(rig: Rig) -> None:
    for conn in range(100):
        rig.connection(conn, srtt=100)
    looks = 0
    for conn in range(100):
        rig.event(slowpath.LOSS, conn)
        rig.poll(after=MS // 10)
    start = rig.now
    while rig.now < start + 100 * MS:
        rig.about["delivered"][:100] += np.uint32(1000)
        rig.poll(after=max((rig.runtime.due or 0) - rig.now, 0))
        looks += 1
    assert looks <= 22


def test_a_timeout_is_told_once_and_not_of_handshakes(rig: Rig) -> None:
    rig.connection(7, state=SYN_SENT)
    rig.timeout(7)
    assert rig.runtime.due is None
    rig.connection(8)
    rig.timeout(8)
    assert rig.about["beta"][8] == 717 and rig.runtime.due is not None


# ---- ICMP -------------------------------------------------------------------------------------------------------------------


def error(type_: int, code: int, *, conn: int = 7, seq: int = 1000, mtu: int = 0, total: int = 1500, **changes: Any) -> bytes:
    """ICMP about a segment of connection `conn`, from its sequence number on."""
    src, dst = (bytes(map(int, a.split("."))) for a in (changes.get("source", LOCAL), PEER))
    inner = (
        struct.pack(">BBHHHBBH", 0x45, 0, total, 0, changes.get("fragment", 0x4000), 60, changes.get("protocol", 6), 0) + src + dst
    )
    inner += struct.pack(">HHI", 40000 + conn, changes.get("port", 80), seq)
    icmp = bytearray(struct.pack(">BBHHH", type_, code, 0, 0, mtu) + inner[: changes.get("quote", 28)])
    icmp[2:4] = (checksum(bytes(icmp)) ^ changes.get("damage", 0)).to_bytes(2, "big")
    router = bytes([192, 0, 2, 1])
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(icmp), 0, 0, 64, 1, 0) + router + src + bytes(icmp)


@pytest.mark.parametrize(
    ("code", "reason"),
    [(0, errno.ENETUNREACH), (1, errno.EHOSTUNREACH), (2, errno.ECONNREFUSED), (3, errno.ECONNREFUSED), (13, errno.EHOSTUNREACH)],
)
def test_icmp_ends_what_is_being_opened_and_not_what_is_open(rig: Rig, code: int, reason: int) -> None:
    rig.connection(7, state=SYN_SENT, acked=1000, sent=1001)
    rig.packet(error(3, code))
    assert rig.told() == [("FAIL", 7, reason)]
    rig.connection(8, state=ESTABLISHED)
    rig.packet(error(3, code, conn=8))
    assert rig.told() == []
    rig.request("configure", retries=1)
    rig.timeout(8)
    assert rig.timeout(8) == [("FAIL", 8, reason, 1)], "it is known as the reason when it ends"


def test_what_may_pass_is_no_end_but_a_reason(rig: Rig) -> None:
    rig.connection(7, state=SYN_SENT, acked=1000, sent=1001)
    rig.packet(error(11, 0))
    assert rig.told() == []
    told = [rig.timeout(7) for _ in range(7)]
    assert told[-1] == [("FAIL", 7, errno.EHOSTUNREACH)]


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 999},
        {"seq": 6000},
        {"seq": 1 << 31},
        {"port": 81},
        {"conn": 8},
        {"source": "10.0.0.2"},
        {"protocol": 17},
        {"fragment": 1},
        {"damage": 1},
        {"quote": 27},
        {"quote": 0},
    ],
)
def test_icmp_that_cannot_be_about_us_is_not_believed(rig: Rig, changes: dict[str, Any]) -> None:
    rig.connection(7, state=SYN_SENT)
    rig.packet(error(3, 3, **changes), error(3, 4, mtu=1000, **changes))
    assert rig.told() == [] and rig.about["mss_limit"][7] == 0
    rig.packet(error(3, 3, seq=5999))
    assert rig.told() == [("FAIL", 7, errno.ECONNREFUSED)]


def test_sequence_numbers_wrap(rig: Rig) -> None:
    rig.connection(7, state=SYN_SENT, acked=(1 << 32) - 1, sent=0)
    rig.packet(error(3, 3, seq=0))
    assert rig.told() == []
    rig.packet(error(3, 3, seq=(1 << 32) - 1))
    assert rig.told() == [("FAIL", 7, errno.ECONNREFUSED)]


@pytest.mark.parametrize(
    ("mtu", "total", "limit"),
    [
        (1400, 1500, 1360),
        (600, 1500, 560),
        (100, 1500, 512),
        (0, 1500, 1452),
        (0, 1492, 966),
        (1500, 1500, 0),
        (9000, 1500, 0),
        (1499, 1500, 1459),
    ],
)
def test_a_path_that_takes_less(rig: Rig, mtu: int, total: int, limit: int) -> None:
    rig.connection(7)
    rig.packet(error(3, 4, mtu=mtu, total=total))
    assert rig.about["mss_limit"][7] == limit
    assert rig.told() == ([("RETRANSMIT", 7, 0)] if limit else [])
    if limit:
        row = rig.about[7]
        assert (row["cwnd"], row["thresh"], row["epoch"]) == (14480, 1 << 30, 1), "it was no congestion"
        rig.packet(error(3, 4, mtu=mtu, total=total, seq=2460), error(3, 4, mtu=max(mtu, 1492), total=1500))
        assert rig.told() == [], "the others that were under way say nothing new"


def test_larger_segments_are_tried_again(rig: Rig) -> None:
    rig.connection(7)
    rig.connection(8)
    rig.packet(error(3, 4, mtu=1400), error(3, 4, mtu=1400, conn=8))
    rig.about["generation"][8], rig.about["mss_limit"][8] = 9, 1300  # of another connection
    assert rig.runtime.due is not None
    rig.poll(after=rig.runtime.due - rig.now)
    assert rig.now == 601 * SECOND and list(rig.about["mss_limit"][7:9]) == [0, 1300]


def test_a_flood_of_icmp_does_not_keep_us_busy(rig: Rig) -> None:
    rig.connection(7)
    for _ in range(100):
        rig.packet(*[error(3, 3, port=9)] * 10)
    assert rig.slow.suppressed == 80
    rig.poll(after=SECOND)
    rig.packet(error(3, 4, mtu=1400))
    assert rig.about["mss_limit"][7] == 1360


def test_noise_is_ignored(rig: Rig) -> None:
    source = random.Random(4)
    good = error(3, 4, mtu=1400)
    for _ in range(300):
        noise = bytearray(good[: source.randrange(20, len(good) + 1)])
        for _ in range(source.randrange(4)):
            noise[source.randrange(9, len(noise))] = source.randrange(256)
        packets.quoted(bytes(noise), number(LOCAL))
    rig.packet(bytes(20), b"\x45" + bytes(8) + b"\x01" + bytes(10), good[:28])
    assert list(PLATEAUS) == sorted(PLATEAUS, reverse=True)


# ---- applications that have gone --------------------------------------------------------------------------------------------


def test_what_an_application_had_is_released(rig: Rig) -> None:
    rig.request("listen", context=2, port=80)
    rig.request("listen", context=1, port=81)
    rig.connection(5, context=2)
    rig.connection(6, context=2, state=SYN_SENT)
    rig.connection(7, context=1)
    rig.connection(8, context=2, state=0)  # it has ended, and its number was not given back
    rig.take()
    rig.runtime.application_gone(2)
    assert rig.told() == [("UNLISTEN", 0, 0), ("RELEASE", 6, 2), ("RELEASE", 5, 2), ("RELEASE", 8, 2)]
    rig.request("listen", context=1, port=80)


def test_what_its_listener_still_took_is_released_too(rig: Rig) -> None:
    rig.request("listen", context=2, port=80)
    rig.take()
    rig.runtime.application_gone(2)
    rig.connection(9, context=2, local_port=swap(80))
    rig.connection(10, context=2, local_port=swap(50000))  # of the context's next application
    assert rig.told() == [("UNLISTEN", 0, 0)]
    rig.poll(after=MS)
    assert rig.told() == [("RELEASE", 9, 2)]
    rig.poll(after=MS)
    assert rig.runtime.due is None


@pytest.mark.parametrize("cores", [1, 2])
def test_twenty_thousand_connections_are_released(cores: int) -> None:
    rig = Rig(cores)
    half = int(rig.config["count"][0])
    numbers = [(i % cores) * half + i for i in range(20_000)]
    for conn in numbers:
        rig.connection(conn, context=2)
    rig.connection(30_000, context=1)
    rig.runtime.application_gone(2)
    released: list[dict[str, int]] = []
    for _ in range(200):
        for core in range(cores):
            taken = rig.take(core, 700)
            assert all((entry.get("conn", 0) >= half) == (core == 1) for entry in taken)
            released += taken
        rig.poll(after=MS)
    assert {entry["kind"] for entry in released} == {slowpath.RELEASE}
    assert sorted(entry.get("conn", 0) for entry in released) == sorted(numbers)
    assert rig.services.dropped == 0 and rig.runtime.due is None


def test_timeouts_are_answered_while_thousands_are_released(rig: Rig) -> None:
    for conn in range(10_000):
        rig.connection(conn, context=2)
    rig.connection(20_000, context=1)
    rig.runtime.application_gone(2)
    rig.event(slowpath.TIMEOUT, 20_000, slowpath.RETRANSMISSION)
    told = rig.told()
    assert ("RETRANSMIT", 20_000, 1) in told and len(told) < 1000
    for _ in range(50):
        rig.poll(after=MS)
        told += rig.told()
    assert len(told) == 10_001
