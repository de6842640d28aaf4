"""The C library: alone on a core, where every step is seen; and as real processes, an application on each of two tenants."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chamelio.bench.rpc import export
from chamelio.bench.rpc.connections import program
from chamelio.bench.stage import Process, Stage
from host.pair import ADDRESSES, Pair
from host.rig import wait_until

PORT, FIRST = 7, 17

# ---- alone -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of alone.c, on a core with jointly compiled handlers."""
    directory = tmp_path_factory.mktemp("alone")
    handlers = export.verified()
    path = export.write_program(directory / "alone", handlers.objects("joint"), [Path(__file__).parent / "alone.c"])
    return [os.fspath(p) for p in (path, *export.write_setup(directory, handlers))]


def run(alone: list[str], *arguments: object) -> dict[str, int]:
    done = subprocess.run([*alone, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    words = done.stdout.replace("send buffer", "send_buffer").split()
    assert words[0] == "ok"
    return {name: int(value) for name, value in zip(words[1::2], words[2::2], strict=True)}


@pytest.mark.parametrize(
    ("total", "piece", "events", "send_buffer"),
    [
        (0, 1, 1000, 512),  # nothing but the ends
        (1, 1, 1000, 512),
        (512, 512, 1000, 512),  # exactly what an empty buffer takes
        (5_000, 64, 1000, 2048),  # messages as large as they may be without growing would do; the writer is faster
        (100_000, 5_000, 2, 8192),  # an application that hears of things slowly
        (300_000, 20_000, 1, 32768),
        (10_000_000, 400_000, 1_000_000, 262144),  # all that a buffer grows to by itself
    ],
)
def test_streams_come_back_byte_for_byte_through_buffers_that_grow_as_they_must(
    alone: list[str], total: int, piece: int, events: int, send_buffer: int
) -> None:
    figures = run(alone, "stream", total, piece, events)
    assert figures["bytes"] == total
    assert figures["send_buffer"] <= send_buffer


def test_what_finds_the_ring_full_waits_and_keeps_its_order(alone: list[str]) -> None:
    """6,400 messages and 32 ends, for a ring of 4,096 entries."""
    assert run(alone, "crowd", 32, 200)["bytes"] == 6400


# ---- real processes --------------------------------------------------------------------------------------------------------------


class Host(Pair):
    """Red has echo servers, one of which closes first."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage, "tcp")
        self.echo = self.serve(str(PORT), "2")
        self.serve(str(FIRST), "2", "--first")

    def serve(self, *options: str) -> Process:
        return self.stage.start(program("tcp_echo"), self.stage.socket("red", "tcp"), *options)

    def load(self, *options: str, port: int = PORT) -> Process:
        """Blue's load generator."""
        target = (self.stage.socket("blue", "tcp"), ADDRESSES["red"], str(port))
        return self.stage.start(program("tcp_load"), *target, *options, ready=False)

    def in_debt(self) -> int:
        """Packets dropped so far because the machine took the processor away in somebody's turn, which looks like work."""
        tenants = self.stage.call("stats")["tenants"].values()
        return sum(tenant["protocols"]["tcp"]["drops"].get("debt", 0) for tenant in tenants)


@pytest.fixture(scope="module", params=[1, 2], ids=["one core", "two cores"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    with Stage("--cores", str(request.param)) as stage:
        yield Host(stage)


@pytest.mark.parametrize(
    ("options", "at_least"),
    [
        (("--connections", "500", "--outstanding", "200"), 5_000),
        (("--connections", "1", "--outstanding", "4"), 500),
        (("--outstanding", "4", "--bytes", "30000"), 100),  # buffers grow, requests are many segments
        (("--rate", "2000"), 1_500),
    ],
)
def test_the_load_generator_gets_all_its_answers(host: Host, options: tuple[str, ...], at_least: int) -> None:
    load = host.load(*options, "--seconds", "1")
    report = load.final(20)
    assert report is not None, load.errors()
    assert report["sent"] == report["answered"] >= at_least
    assert [report[what] for what in ("lost", "late", "wrong", "failed", "closed")] == [0] * 5


@pytest.mark.parametrize("close", ["fin", "reset", "wait"])
def test_connections_come_and_go(host: Host, close: str) -> None:
    """`wait`: the server is the first to close. A SYN or a reset that is lost costs a second, and so the end of the test."""
    before = host.in_debt()
    load = host.load("--connect-rate", "--seconds", "1", "--ports", "2", "--close", close, port=FIRST if close == "wait" else PORT)
    report = load.final(10)
    assert report is not None, load.errors()
    assert report["refused"] == 0, os.strerror(report["error"])
    assert report["opened"] == report["closed"] > 500
    assert report["asked"] - report["opened"] <= host.in_debt() - before


def test_a_port_that_nobody_serves_refuses(host: Host) -> None:
    load = host.load("--outstanding", "3", port=9)
    assert load.final(10) is None
    assert "refused" in load.errors()


def test_applications_go_on_when_their_agents_are_replaced(host: Host) -> None:
    load = host.load("--connections", "100", "--outstanding", "50", "--seconds", "3", "--interval", "0.1")
    assert wait_until(lambda: len(load.reports) > 1)
    for tenant in ADDRESSES:
        host.replace_agent(tenant)
    report = load.final(15)
    assert report is not None and host.echo.running, load.errors()
    assert report["sent"] == report["answered"] > 5_000
    assert [report[what] for what in ("lost", "late", "wrong", "failed", "closed")] == [0] * 5
    again = host.load("--outstanding", "2", "--seconds", "0.3").final(10)
    assert again is not None and again["answered"] > 0, "the new agent knows who listens"
