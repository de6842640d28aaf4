"""Two hosts in the laboratory: what is written arrives, the line does what it says, and all of it can be seen."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
from pathlib import Path

import pytest

from chamelio import toolchain
from chamelio.cli import main
from chamelio.lab import Laboratory, Stalled, parse, run_script
from chamelio.sockets import open_connection
from chamelio.world import World

ECN = {"options": ["timestamps", "sack", "wscale", "ecn"]}


@pytest.mark.parametrize("fault", [None, "loss=2%,seed=1", "reorder=10%,dup=5%,seed=2", "loss=1%,biterr=1%,delay=1ms..3ms,seed=3"])
@pytest.mark.parametrize("line", [{}, {"rate": 50e6, "delay": 0.002}], ids=["wire", "line"])
def test_bytes_arrive_both_ways(fault: str | None, line: dict[str, float]) -> None:
    with Laboratory(fault=fault, **line) as lab:  # type: ignore[arg-type]
        done = lab.transfer(300_000, 200_000)
        (stream,) = lab.streams
        assert (done.bytes, stream.forth, stream.back) == (500_000, 300_000, 200_000)
        lab.run(5)
        for station in lab.stations:
            free, total = station.host.free_frames
            assert free == total


def test_a_rate_is_kept() -> None:
    with Laboratory(rate=20e6, delay=0.001) as lab:
        done = lab.transfer(2_000_000)
        assert lab.line is not None
        assert 0.9 < done.goodput / (20e6 * 1448 / 1514) < 1
        assert lab.line.forth.octets * 8 / done.seconds <= 20e6


def test_a_delay_is_kept() -> None:
    with Laboratory(delay=0.05) as lab:
        done = lab.transfer(1)
        assert done.seconds == pytest.approx(0.15, abs=0.001)  # the handshake, and half a round trip


def test_a_short_queue_drops() -> None:
    with Laboratory(rate=20e6, delay=0.01, queue=8) as lab:
        lab.transfer(1_000_000)
        assert lab.line is not None
        assert lab.line.forth.dropped > 0 and lab.line.forth.longest == 8
        assert lab.streams[0].a.row["losses"] > 0


def test_a_queue_marks_what_can_be_marked() -> None:
    for settings, marks in (({}, False), (ECN, True)):
        with Laboratory(rate=20e6, delay=0.005, mark=10, settings=settings) as lab:
            lab.transfer(1_000_000)
            assert lab.line is not None
            assert (lab.line.forth.marked > 0) == marks == (lab.streams[0].a.row["marks"] > 0)


def test_several_streams_share_a_line() -> None:
    with Laboratory(rate=20e6, delay=0.005, trace=True) as lab:
        streams = [lab.open() for _ in range(3)]
        for stream in streams:
            stream.a.write(200_000)
        lab.until(lambda: all(stream.forth == 200_000 for stream in streams), 60)
        assert len({line.split()[2] for line in lab.trace_lines()}) == 3, "a trace says whose a segment is"


def test_a_trace_has_all_that_was_said() -> None:
    with Laboratory(delay=0.01, trace=True) as lab:
        lab.transfer(3000)
        lab.run(1)
        lines = lab.trace_lines()
        assert lab.line is not None
        assert len(lines) == lab.line.forth.packets + lab.line.back.packets
        texts = [" ".join(line.split()[1:]) for line in lines]
        patterns = [
            r"> SYN seq=0 win=\d+ mss=1460 sackok",
            r"< SYN,ACK seq=0 ack=1",
            r"> ACK seq=1 ack=1",
            r"> ACK seq=1 len=1448 ack=1",
        ]
        assert all(re.match(p, t) for p, t in zip(patterns, texts, strict=False)), texts[:4]


def test_a_run_repeats_exactly() -> None:
    traces = []
    for seed in (1, 1, 2):
        with Laboratory(delay=0.001, fault=f"loss=5%,seed={seed}", trace=True) as lab:
            lab.transfer(50_000)
            traces.append(lab.trace_lines())
    assert traces[0] == traces[1] != traces[2]


def test_what_does_not_happen_is_said() -> None:
    with Laboratory(delay=0.01) as lab, pytest.raises(Stalled, match=r"b ESTABLISHED, 0 written, 0 acknowledged, \d+ read"):
        lab.transfer(1_000_000, limit=0.02)
    with Laboratory(queue=0, trace=True) as lab, pytest.raises(Stalled, match="no connection is open"):
        lab.open()


def test_the_command_transfers(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["lab", "transfer", "100000", "--rate", "10e6", "--delay", "0.01", "--set", "options=none", "-o", "json", "--trace"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bytes"] == 100_000 and 4e6 < found["goodput"] < 10e6
    assert len(found["trace"]) == sum(found["packets"].values())
    assert "sackok" not in found["trace"][0]
    for wrong in (["--set", "mss"], ["--set", "mss=lots"], ["--set", "msss=9"], ["--fault", "los=1%"]):
        assert main(["lab", "transfer", "1", *wrong]) == 2, wrong
    capsys.readouterr()


def test_a_next_hop_that_never_answers_takes_no_rounds() -> None:
    """Time jumps from one look at neighbours to the next: some rounds for each of them, not one for each nanosecond."""
    with World() as world:
        hosts = [world.host() for _ in range(2)]
        world.wire(*hosts, route="10.0.0.0/24", fault="loss=100%")
        red = world.tenant(hosts[0], "red", "10.0.0.1", "tcp")
        rounds, step = 0, world._rounds

        def counted() -> int:
            nonlocal rounds
            rounds += 1
            return step()

        world._rounds = counted  # type: ignore[method-assign]

        async def connect() -> None:
            trying = asyncio.ensure_future(open_connection("10.0.0.2", 7, tenant="red", run=world.directory))
            for _ in range(60):  # rounds in between, so that a look is not due when the neighbour's answer is
                await asyncio.sleep(0.07)
            trying.cancel()
            await asyncio.gather(trying, return_exceptions=True)

        world.play(connect())
        assert red.counters and 60 < rounds < 2000


def test_a_line_loses_what_it_is_told_to_lose() -> None:
    with Laboratory(delay=0.01) as lab:
        stream = lab.open()
        assert lab.line is not None
        data = itertools.count()
        lab.line.drop = lambda forth, packet: forth and len(packet) > 1000 and next(data) in (3, 4)
        stream.a.write(100_000)
        lab.until(lambda: stream.forth == 100_000, 10)
        assert lab.line.forth.lost == 2 == stream.a.row["retransmitted"] and lab.line.back.lost == 0


def test_a_detour_takes_longer() -> None:
    with Laboratory(delay=0.01) as lab:
        assert lab.line is not None
        lab.line.detours[8] = 15_000_000
        streams = [lab.open(port) for port in (7, 8)]
        for stream in streams:
            stream.a.write(50_000)
        lab.until(lambda: all(stream.forth == 50_000 for stream in streams), 10)
        assert [stream.a.row["srtt"] for stream in streams] == [pytest.approx(ms * 1000, abs=8000) for ms in (20, 50)]


def test_faults_change_while_it_runs() -> None:
    """And begin anew with their seed."""
    fates = []
    with Laboratory(delay=0.001, fault="loss=0%") as lab:
        for words in ("loss=20%,seed=5", "loss=20%,seed=5", "loss=0%"):
            stream = lab.open(limit=100)
            before = lab.world.faults[0].counters("tx")
            lab.mistreat(words)
            stream.a.write(30_000)
            lab.until(lambda stream=stream: stream.forth == 30_000, 100)  # type: ignore[misc]
            lab.mistreat("loss=0%")
            after = lab.world.faults[0].counters("tx")
            fates.append((after["packets"] - before["packets"], after["lost"] - before["lost"]))
    assert fates[0] == fates[1] != fates[2] and fates[0][1] > 0 == fates[2][1]


@pytest.mark.long
def test_another_acknowledgement_policy_can_be_seen(tmp_path: Path) -> None:
    """A copy of TCP that acknowledges every segment at once: its own script passes, the shipped one's does not."""
    mine = tmp_path / "mine"
    shutil.copytree(toolchain.PACKAGE / "protocols" / "tcp", mine, ignore=shutil.ignore_patterns("__pycache__"))
    source = (mine / "input.h").read_text()
    changed, count = re.subn(r"if \(c->segments >= 2 \* c->rcv_mss", "if (c->segments", source)
    assert count == 1
    (mine / "input.h").write_text(changed)
    lines = ["script a", "+0 established", "+0 < ACK len=100", "+0 > ACK ack=101"]
    at_once, later = parse("\n".join(lines))[0], parse("\n".join([*lines[:-1], "+0.04 > ACK ack=101"]))[0]
    assert run_script(at_once, mine).ok and not run_script(later, mine).ok
    assert run_script(later).ok and not run_script(at_once).ok
    packets = []
    for folder in (mine, "tcp"):
        with Laboratory(delay=0.01, protocol=folder) as lab:
            lab.transfer(100_000)
            assert lab.line is not None
            packets.append(lab.line.back.packets)
    assert packets[0] > 1.6 * packets[1]
