"""Linux as it may be configured: what both sides then agree on, and that streams are exact with it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from system.tcp_rig import Line, Streams, TcpInfo, close, digest, linux_info, our_info, receive, send, serving, sysctls

pytestmark = pytest.mark.root

CLIENTS = ("linux", "ours")
BITS = {"timestamps": 1, "sack": 2, "wscale": 4, "ecn": 8}  # TCPI_OPT_* and TCP_OPT_*
ECN_SEEN = 16  # TCPI_OPT_ECN_SEEN: a packet has come that is ECN-capable
ALL = {"timestamps", "sack", "wscale"}
DEFAULTS = {"options": [*BITS], "buffer_max": 4 << 20, "mss": 1460, "congestion": "cubic"}  # of our slow path
BETA = {"cubic": 717, "newreno": 0, "dctcp": 0}  # a row's `beta`; 0: half
RECEIVE, SEND = ((socket.SOL_SOCKET, name) for name in (socket.SO_RCVBUF, socket.SO_SNDBUF))


@dataclass(frozen=True)
class Case:
    """How both are configured; then what is agreed on. `ecn`: when who asks is one of these. Windows: at most, in bytes."""

    sysctls: dict[str, Any] = field(default_factory=dict)
    sockets: tuple[tuple[int, int, Any], ...] = ()
    ours: dict[str, Any] = field(default_factory=dict)
    options: frozenset[str] = frozenset(ALL)
    ecn: tuple[str, ...] = ("ours",)
    mss: int = 1448
    congestion: str = "cubic"  # Linux's
    linux_window: int = 1 << 30
    our_window: int = 4 << 20


def but(*names: str) -> frozenset[str]:
    return frozenset(ALL - set(names))


CASES = {
    "as it comes": Case(),
    "no timestamps": Case({"timestamps": 0}, options=but("timestamps"), mss=1460),
    "no SACK": Case({"sack": 0}, options=but("sack")),
    "no scaling": Case({"window_scaling": 0}, options=but("wscale"), our_window=65535),
    "nothing": Case(
        {"timestamps": 0, "sack": 0, "window_scaling": 0, "ecn": 0},
        options=frozenset(), ecn=(), mss=1460, our_window=65535,
    ),
    "ECN": Case({"ecn": 1}, ecn=CLIENTS),
    "no ECN": Case({"ecn": 0}, ecn=()),
    "Reno": Case(congestion="reno"),
    "BBR": Case(congestion="bbr"),
    "SYN cookies": Case({"syncookies": 2}),
    "small receive buffer": Case(sockets=((*RECEIVE, 2304),), linux_window=2304),
    "small buffers": Case(
        sockets=((*RECEIVE, 8192), (*SEND, 4608)), ours={"buffer_max": 65536}, linux_window=16384, our_window=65536
    ),
    "short segments": Case(sockets=((socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536),), mss=524),
    "our segments short": Case(ours={"mss": 536}, mss=524),
    "ours without options": Case(
        ours={"options": []}, options=frozenset(), ecn=(), mss=1460, our_window=65535
    ),
    "ours without SACK": Case(ours={"options": ["timestamps", "wscale", "ecn"]}, options=but("sack")),
    "ours NewReno": Case(ours={"congestion": "newreno"}),
    "ours DCTCP": Case({"ecn": 1}, ours={"congestion": "dctcp"}, ecn=CLIENTS),
}  # fmt: skip
THROUGH_LOSS = ("as it comes", "no timestamps", "no SACK", "nothing", "ECN", "small receive buffer", "BBR", "ours NewReno")


@contextmanager
def configured(line: Line, case: Case) -> Iterator[None]:
    line.linux.options = [*case.sockets, (socket.IPPROTO_TCP, socket.TCP_CONGESTION, case.congestion.encode())]
    try:
        if case.ours:
            asyncio.run(line.ours.call("configure", **case.ours))
        with sysctls(line.peer, **case.sysctls):
            yield
    finally:
        line.linux.options = []
        if case.ours:
            asyncio.run(line.ours.call("configure", **DEFAULTS))


async def exchange(line: Line, client: str, length: int) -> tuple[dict[str, int], TcpInfo]:
    """So many bytes each way at once; then what both sides know of the connection."""
    known = asyncio.Event()
    accepted: list[Streams] = []

    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, got = await asyncio.gather(send(writer, length), receive(reader))
        assert got == (length, digest(length))

    async def handler(*streams: Any) -> None:
        accepted.append(streams)
        await both(*streams)
        await known.wait()
        await close(streams[1])

    asks, serves = line.ends(client)
    async with serving(serves, handler) as port:
        streams = await asks.connect(serves.address, port)
        await both(*streams)
        ours, linux = (streams, accepted[0]) if client == "ours" else (accepted[0], streams)
        about = our_info(ours), linux_info(linux)
        known.set()
        await close(streams[1])
    return about


def check(case: Case, client: str, ours: dict[str, int], linux: TcpInfo, ecn: bool | None = None) -> None:
    """Whether what was to be agreed on is what both sides have, and use."""
    expected = case.options | ({"ecn"} if (client in case.ecn if ecn is None else ecn) else set())
    for options in (ours["options"], linux.options):
        assert {name for name, bit in BITS.items() if options & bit} == expected
    assert bool(linux.options & ECN_SEEN) == ("ecn" in expected)
    assert linux.sent_mss == case.mss and linux.received_mss == case.mss
    assert linux.own_window <= case.linux_window and linux.peer_window <= case.our_window
    assert linux.congestion == case.congestion
    assert ours["beta"] == BETA[case.ours.get("congestion", "cubic")]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_linux_as_it_may_be(line: Line, client: str, case: Case) -> None:
    with configured(line, case):
        check(case, client, *asyncio.run(exchange(line, client, 2_000_003)))


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("case", [CASES[name] for name in THROUGH_LOSS], ids=THROUGH_LOSS)
def test_linux_as_it_may_be_through_loss_and_reordering(lossy: Line, client: str, case: Case) -> None:
    with configured(lossy, case):
        ours, linux = asyncio.run(exchange(lossy, client, 1_000_003))
        ecn = client in case.ecn and bool(ours["options"] & BITS["ecn"])  # a SYN that is sent again does not ask for it
        check(case, client, ours, linux, ecn)
        assert ours["retransmitted"] + linux.retransmitted > 0
