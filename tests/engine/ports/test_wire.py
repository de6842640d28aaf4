"""The shared-memory wire: order, wrapping, lies of the other end, names and locks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Wired
from rig import Rig, numbered

from chamelio.engine.ports import PortError, WireMemory, WirePeer, WirePort, open_port, parse
from chamelio.engine.ports.wire import create_memory

SLOTS = 1024


def start_at(wired: Wired, position: int) -> WirePeer:
    rings = wired.memory.rings
    for field in ("prod", "cons"):
        rings[field] = position
    wired.wire.state["out_prod"] = wired.wire.state["in_cons"] = position
    return WirePeer(wired.memory)


def test_frames_pass_both_ways_in_order_and_whole(rig: Rig) -> None:
    wired = Wired(rig)
    frames = numbered(60, 80)
    assert all(wired.peer.send(frame, checked=i % 2 == 0) for i, frame in enumerate(frames))
    assert wired.plug.rx() == frames
    assert wired.plug.last_flags == [1 - i % 2 for i in range(60)]
    wired.plug.tx(frames)
    assert wired.peer.receive() == frames
    assert rig.n_free == rig.total


@pytest.mark.fault(2)
def test_indices_wrap_at_2_to_the_32(rig: Rig) -> None:
    wired = Wired(rig)
    peer = start_at(wired, 2**32 - 3)
    frames = numbered(8)
    for frame in frames:
        assert peer.send(frame)
    assert wired.plug.rx() == frames
    wired.plug.tx(frames)
    assert peer.receive() == frames
    assert int(wired.wire.state["in_cons"][0]) == int(wired.wire.state["out_prod"][0]) == 5
    assert not wired.plug.down


@pytest.mark.fault(1)
@pytest.mark.parametrize("distance", [SLOTS + 1, 2**31, 2**32 - 1], ids=["too far", "half way round", "backwards"])
@pytest.mark.parametrize("side", ["producer", "consumer"])
def test_an_impossible_index_takes_the_wire_down(rig: Rig, distance: int, side: str) -> None:
    wired = Wired(rig)
    if side == "producer":
        wired.memory.rings["prod"][1] = distance
        assert wired.plug.rx() == []
    else:
        wired.memory.rings["cons"][0] = 2**32 - distance
        wired.plug.tx(numbered(1))
        assert wired.plug.counter("tx_down") == 1
    assert wired.plug.down
    assert wired.port.refresh().startswith("down")
    assert wired.plug.rx() == []
    wired.plug.tx(numbered(3))
    assert wired.plug.counter("tx_packets") == 0
    assert rig.n_free == rig.total


@pytest.mark.fault(4)
@pytest.mark.parametrize("length", [0, 13, 1935, 2104, 2**32 - 1])
def test_a_length_that_is_no_frames_is_refused_and_the_next_frame_passes(rig: Rig, length: int) -> None:
    wired = Wired(rig)
    good = numbered(1)[0]
    wired.peer.send(good)
    wired.memory.rings["slots"][1, 0:1]["len"] = length
    wired.peer.send(good)
    assert wired.plug.rx() == [good]
    assert wired.plug.counter("rx_refused") == 1
    assert rig.n_free == rig.total


@pytest.mark.parametrize("length", [14, 1934])
def test_the_shortest_and_the_longest_frame_pass(rig: Rig, length: int) -> None:
    wired = Wired(rig)
    frame = bytes(i & 0xFF for i in range(length))
    wired.peer.send(frame)
    assert wired.plug.rx() == [frame]


@pytest.mark.fault(20)
def test_without_free_frames_the_wire_keeps_what_it_has() -> None:
    rig = Rig(4)
    wired = Wired(rig)
    frames = numbered(6)
    held = [rig.get(frames[0]) for _ in range(2)]
    for frame in frames:
        wired.peer.send(frame)
    assert wired.plug.rx() == frames[:2]
    for index in held:
        rig.put(index)
    assert wired.plug.rx() == frames[2:]


def test_a_full_ring_drops_and_counts(rig: Rig) -> None:
    wired = Wired(rig)
    for _ in range(SLOTS // 64 + 1):
        wired.plug.tx(numbered(64))
    assert wired.plug.counter("tx_packets") == SLOTS
    assert wired.plug.counter("tx_full") == 64
    assert rig.n_free == rig.total


@pytest.mark.fault(7)
def test_the_memory_cannot_be_resized() -> None:
    port = open_port("wire:sealed")
    assert isinstance(port, WirePort)
    for size in (0, 4096, 1 << 24):
        with pytest.raises(PermissionError):
            os.ftruncate(port.memory.fd, size)
    port.close()


def test_each_end_is_had_once_and_is_free_after_closing(run_directory: Path) -> None:
    first = open_port("wire:w")
    with pytest.raises(PortError, match=r"end 'a' is taken; end 'b' may be free"):
        open_port("wire:w:a")
    second = open_port("wire:w:b")
    assert first.mac != second.mac
    second.close()
    open_port("wire:w:b").close()
    first.close()
    assert not (run_directory / "wires" / "w").is_symlink()


@pytest.mark.fault(19)
def test_ends_are_freed_by_the_death_of_their_holder_and_the_wire_lives_on(rig: Rig) -> None:
    script = (
        "import sys; from chamelio.engine.ports import open_port\n"
        "p = open_port('wire:shared:a'); print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ}, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "ready"
        b = open_port("wire:shared:b")
        rig.plug(b).tx(numbered(3))
        with pytest.raises(PortError, match="taken"):
            open_port("wire:shared:a")
        other.kill()
        other.wait()
    assert b.refresh() == "up"
    again = open_port("wire:shared:a")
    assert rig.plug(again).rx() == numbered(3)
    again.close()
    b.close()


def test_a_passed_descriptor_gives_the_other_end(rig: Rig) -> None:
    a = open_port("wire:unnamed")
    assert isinstance(a, WirePort)
    b = WirePort(parse("wire:unnamed:b"), os.dup(a.memory.fd))
    rig.plug(a).tx(numbered(2))
    assert rig.plug(b).rx() == numbered(2)
    b.close()
    a.close()


def test_memory_that_is_no_wire_is_refused() -> None:
    fd = os.memfd_create("x")
    with pytest.raises(PortError, match="not a wire's memory"):
        WireMemory(fd)
    os.close(fd)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    with pytest.raises(PortError, match="exists and is no wire"):
        open_port(f"wire:{tmp_path}/file")


def test_new_memory_is_empty_and_sealed() -> None:
    memory = WireMemory(create_memory("x"))
    assert not memory.rings["prod"].any()
    memory.close()
