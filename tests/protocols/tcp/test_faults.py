"""Fault 22: the corners of TCP's state machine, each with the scripts that show it; and what scripts cannot say."""

from __future__ import annotations

import asyncio
import errno
import re
from pathlib import Path
from typing import Any

import pytest

import chamelio
from chamelio.lab import Laboratory, parse_file, run_script
from chamelio.lab.language import Script
from chamelio.world import World

SCRIPTS = Path(__file__).parent / "scripts"

# Corner -> file -> scripts, by the beginning of their names. The words of a corner are those of docs/promises.md.
CORNERS: dict[str, dict[str, tuple[str, ...]]] = {
    "handshake loss": {
        "handshake": (
            "a lost SYN is sent again", "a SYN that nobody answers is given up", "a lost SYN,ACK is sent again",
            "a SYN,ACK that nobody acknowledges", "a SYN that comes again", "data does for the acknowledgement that was lost",
            "a SYN,ACK that comes again",
        ),
    },
    "simultaneous open": {
        "handshake": ("both sides open at the same time", "both sides open at the same time, and the answers are lost"),
        "corners": (
            "both sides open at the same time, and the peer gives up",
            "both sides open at the same time, and a spoofed reset is not believed",
        ),
    },
    "simultaneous close": {
        "close": ("both close at the same time", "in CLOSING a lost FIN"),
        "timewait": ("from CLOSING to TIME_WAIT",),
        "reset": ("a reset in CLOSING",),
    },
    "RST in the window": {
        "reset": (
            "a reset with the very next number", "a reset elsewhere in the window", "a reset behind a gap", "a reset in FIN_WAIT_1",
            "a reset in FIN_WAIT_2", "a reset in CLOSE_WAIT", "a reset in CLOSING", "a reset in LAST_ACK",
            "a reset in the window is challenged in the last states",
        ),
        "handshake": ("a reset sends a half-open connection back",),
    },
    "RST out of the window": {
        "reset": ("a reset out of the window is ignored",),
        "handshake": ("a reset out of the window does not touch",),
        "timewait": ("a reset does not end TIME_WAIT",),
    },
    "PAWS": {
        "timestamps": (
            "an old segment is dropped", "timestamps wrap", "a reset is not asked for its timestamp",
            "after 24 days of silence",
        ),
    },
    "zero window": {
        "window": (
            "a closed window is probed", "a window that opens by itself", "probes go on as long as", "probes that nobody answers",
            "with a closed window a FIN waits", "a closed window is not taken for a loss", "when our window is full",
            "a probe of our closed window",
        ),
    },
    "window shrink": {
        "window": (
            "a window that shrinks does no harm", "behind a shrunken window", "the right edge of our window does not move",
        ),
        "corners": ("a window that shrinks to nothing",),
    },
    "SACK reneging": {
        "sack": ("a peer that gives up what it had",),
        "corners": ("a peer that gives up what it had, noticed in recovery",),
    },
    "FIN retransmit": {
        "recovery": ("a lost FIN is sent again",),
        "close": ("in LAST_ACK a lost FIN", "in CLOSING a lost FIN", "a FIN that the peer does not acknowledge"),
        "data": ("a FIN that comes twice",),
        "timewait": ("a FIN that comes again",),
        "corners": ("in CLOSE_WAIT a FIN that comes again",),
    },
    "TIME_WAIT reuse": {
        "timewait": (
            "a newer SYN takes the place", "a newer timestamp makes", "an older SYN does not", "an older timestamp makes",
            "the new connection's numbers",
        ),
    },
    "spoofed ACK": {
        "reset": ("an acknowledgement of what was never sent", "an acknowledgement that is far too old", "challenges are few"),
        "handshake": ("an ACK of what was never sent", "an ACK to a listener"),
        "cookies": ("a cookie that is none", "a cookie does not last", "a listener that was never busy"),
        "corners": ("a spoofed segment with data", "acknowledgements of what was not sent yet"),
        "sack": ("a block of what was never sent",),
    },
    "spoofed RST": {
        "reset": ("a reset elsewhere in the window", "a reset out of the window", "a reset with a wrong checksum"),
        "handshake": ("a reset that does not acknowledge our SYN",),
        "icmp": ("ICMP about what was never sent",),
    },
    "spoofed SYN": {
        "reset": ("a SYN in the window", "a SYN out of the window", "a SYN,ACK in the window"),
    },
}  # fmt: skip


def find(file: str, name: str) -> Script:
    """The script of a file whose name is this, or the only one that begins so."""
    scripts = parse_file(SCRIPTS / f"{file}.tcp")
    found = [s for s in scripts if s.name == name] or [s for s in scripts if s.name.startswith(name)]
    assert len(found) == 1, f"{file}.tcp: {name!r} begins {len(found)} scripts"
    return found[0]


@pytest.mark.fault(22)
@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("cores", [1, 2])
def test_a_corner_is_as_the_rfcs_say(corner: str, cores: int) -> None:
    """`cores`: a connection lives on one of them, and nothing of this depends on which; but each core has a backlog of its own."""
    for file, names in CORNERS[corner].items():
        if file == "cookies" and cores > 1:
            continue
        for name in names:
            script = find(file, name)
            assert re.search(r"RFC \d+", script.shows)
            script.settings["cores"] = cores
            result = run_script(script)
            assert result.ok, f"\n{result}"


def test_the_page_of_promises_names_the_corners() -> None:
    (row,) = re.findall(r"^\| 22 \|.*$", (SCRIPTS.parents[3] / "docs" / "promises.md").read_text(), re.MULTILINE)
    assert [corner for corner in CORNERS if corner not in row] == []


def exchange(lab: Laboratory, local: int) -> int:
    """a opens a connection from a port, sends a little and is the first to close: TIME_WAIT is a's. 0, or why it was not opened."""
    attempt = lab.a.application.connect("10.0.0.2", 7, local=local)
    lab.until(lambda: attempt.error is not None or attempt.connection is not None, 1)
    if attempt.connection is None:
        assert attempt.error is not None
        return attempt.error
    lab.until(lambda: bool(lab.b.application.accepted), 1)
    near, far = attempt.connection, lab.b.application.accepted.pop()
    near.write(100)
    lab.until(lambda: far.readable == 100, 1)
    assert far.read_all() == 100, "and they are what was written"
    near.close()
    lab.until(lambda: far.fin, 1)
    far.close()
    lab.run(0.001)
    return 0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)
    writer.close()


@pytest.mark.fault(22)
def test_who_opens_reuses_a_port_in_time_wait_when_timestamps_can_tell() -> None:
    with Laboratory() as lab:
        lab.b.listen(7)
        assert exchange(lab, 40000) == 0
        assert exchange(lab, 40000) == errno.EADDRNOTAVAIL, "so soon a late segment of the first might be taken for the second's"
        for _ in range(3):
            lab.run(0.2)
            assert exchange(lab, 40000) == 0
    with Laboratory(settings={"options": ["sack"]}) as lab:
        lab.b.listen(7)
        assert exchange(lab, 40000) == 0
        lab.run(50)
        assert exchange(lab, 40000) == errno.EADDRNOTAVAIL
        lab.run(11)
        assert exchange(lab, 40000) == 0, "TIME_WAIT is over"


@pytest.mark.parametrize("addresses", [("10.0.0.200", "10.0.0.100"), ("10.255.255.254", "10.255.255.253")])
def test_segments_between_any_two_addresses_have_right_checksums(world: World, addresses: tuple[str, str]) -> None:
    """The sum of two addresses need not fit into 32 bits."""
    a, b = world.host(), world.host()
    world.wire(a, b, route="10.0.0.0/8")
    residents = world.tenant(a, "red", addresses[0], "tcp"), world.tenant(b, "blue", addresses[1], "tcp")

    async def run() -> Any:
        server = await chamelio.start_server(echo, port=80, tenant="red", run=world.directory)
        reader, writer = await asyncio.wait_for(chamelio.open_connection(addresses[0], 80, tenant="blue", run=world.directory), 0.5)
        for length in range(1, 300):
            writer.write(bytes([length & 255] * length))
            assert len(await reader.readexactly(length)) == length
        writer.close()
        await writer.wait_closed()
        server.close()

    world.play(run())
    for resident in residents:
        assert resident.counters["reasons"] == {} and resident.counters["drops"] == {}
        assert not resident.agent.region.values("about")["retransmitted"].any()
