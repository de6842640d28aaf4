"""An idle engine costs next to nothing, and notices what comes within a millisecond."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chamelio import toolchain
from chamelio.engine.engine import Engine
from chamelio.engine.ports import WirePeer, open_port
from chamelio.jit.artifact import Options
from chamelio.jit.compile import compile_unit
from virtual import HANDLERS, PEER_MAC, Net, udp

ADDRESS = "10.0.0.1"
IDLE_S = 2.0


class Rig(NamedTuple):
    engine: Engine
    peer: WirePeer
    frame: bytes


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A running engine with a tenant that echoes, and a peer on a wire that it knows."""
    unit = compile_unit(toolchain.bpf_object(HANDLERS / "naughty.bpf.c"), Options(contexts=4))
    with Engine() as engine:
        engine.add_port("w", open_port(f"wire:{tmp_path}/w:a"))
        tenant = engine.add_tenant()
        engine.bind_address(tenant, ADDRESS)
        engine.add_instance(tenant, engine.load_unit(unit), ADDRESS, 17)
        engine.add_route("10.0.0.0/24", 0)
        mac = bytes.fromhex(engine.describe()["ports"][0]["mac"].replace(":", ""))
        peer = WirePeer.join(tmp_path / "w")
        engine.refresh()
        ips = [bytes(map(int, a.split("."))) for a in (Net.PEER, ADDRESS)]
        arp = bytes.fromhex("000108000604") + b"\0\1" + PEER_MAC + ips[0] + bytes(6) + ips[1]
        assert peer.send(mac + PEER_MAC + b"\x08\x06" + arp)
        engine.start()
        yield Rig(engine, peer, mac + PEER_MAC + b"\x08\x00" + udp(Net.PEER, ADDRESS, b"e" + bytes(7)))
        engine.stop()
        peer.leave()


def echo(rig: Rig) -> float:
    """Seconds until a packet is answered."""
    rig.peer.receive()
    started = time.perf_counter()
    assert rig.peer.send(rig.frame)
    while time.perf_counter() < started + 2:
        if any(f[12:14] == b"\x08\x00" for f in rig.peer.receive()):
            return time.perf_counter() - started
        time.sleep(20e-6)  # the engine's thread may need this very processor
    raise AssertionError("no answer")


def test_the_first_packet_after_idling_is_served_within_a_millisecond(rig: Rig) -> None:
    took = []
    for _ in range(15):
        time.sleep(0.02)  # the machine's time: the engine is to fall asleep
        took.append(echo(rig))
    assert statistics.median(took) < 0.001, took


def test_an_idle_engine_uses_less_than_a_fiftieth_of_a_core(rig: Rig) -> None:
    echo(rig)
    before = time.process_time()
    time.sleep(IDLE_S)
    used = time.process_time() - before
    assert used / IDLE_S < 0.02, f"{used / IDLE_S:.1%} of a core"
    assert echo(rig) < 0.1


def test_who_rings_for_nothing_does_not_keep_a_core_awake(rig: Rig) -> None:
    (instance,) = rig.engine.instances()
    fd = os.dup(instance.wake_fds[0])
    time.sleep(0.05)
    rounds, end = int(rig.engine.counters()["rounds"]), time.monotonic() + 0.5
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            os.write(fd, bytes(1 << 16))
        time.sleep(100e-6)
    os.close(fd)
    assert int(rig.engine.counters()["rounds"]) - rounds < 20_000, "a few each 0.4 ms, not one after the other"
    assert echo(rig) < 0.1


def idle_share(counters: Any) -> float:
    return int(counters["cycles_idle"]) / int(counters["cycles_elapsed"])


def test_idling_is_counted_as_such(rig: Rig) -> None:
    time.sleep(0.3)
    assert idle_share(rig.engine.counters()) > 0.9
