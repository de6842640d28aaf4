"""The pcapng tap: what is in the file, what happens when the ring or the disk is full."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Wired
from rig import Rig, numbered
from scapy.utils import RawPcapNgReader, rdpcap

from chamelio.engine.ports import PcapPort, PortError, open_port
from chamelio.engine.ports.pcap import RING_BYTES

NOW = 1_700_000_000_123_456_789


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return tmp_path / "capture.pcapng"


def pcap_of(wired: Wired, *, thread: bool = True) -> PcapPort:
    assert isinstance(wired.port, PcapPort)
    if not thread:
        wired.port._stop.set()
        assert wired.port._thread
        wired.port._thread.join()
        wired.port._thread = None
    return wired.port


def test_scapy_reads_what_passed_with_times_to_the_nanosecond(rig: Rig, capture: Path) -> None:
    wired = Wired(rig, f"pcap({capture}):")
    sizes = [14, 15, 60, 61, 62, 63, 1514]
    frames = [os.urandom(size) for size in sizes]
    for frame in frames:
        wired.peer.send(frame)
    assert wired.plug.rx(NOW) == frames
    wired.plug.tx(frames, NOW + 1)
    assert wired.peer.receive() == frames
    wired.port.close()
    packets = rdpcap(str(capture))
    assert [bytes(p) for p in packets] == frames * 2
    with RawPcapNgReader(str(capture)) as reader:
        metadata = [m for _, m in reader]
    assert [(m.tshigh << 32 | m.tslow) for m in metadata] == [NOW] * 7 + [NOW + 1] * 7
    assert {m.tsresol for m in metadata} == {10**9}
    assert {m.ifname for m in metadata} == {b"wire:test"}
    assert [m.direction for m in metadata] == [1] * 7 + [2] * 7
    assert rig.n_free == rig.total


def test_the_tap_sees_what_the_injector_inside_did_not_lose(rig: Rig, capture: Path) -> None:
    wired = Wired(rig, f"pcap({capture}):fault(loss=50%,seed=1,direction=rx):")
    for frame in numbered(64):
        wired.peer.send(frame)
    seen = wired.plug.rx()
    wired.port.close()
    assert [bytes(p) for p in rdpcap(str(capture))] == seen


def test_long_packets_are_cut_to_the_snapshot_length(rig: Rig, capture: Path) -> None:
    wired = Wired(rig, f"pcap({capture},snaplen=100):")
    frame = os.urandom(1000)
    wired.plug.tx([frame])
    wired.port.close()
    (packet,) = rdpcap(str(capture))
    assert bytes(packet) == frame[:100]
    assert packet.wirelen == 1000


@pytest.mark.parametrize("start", [2**32 - 3000, RING_BYTES - 40], ids=["counter", "ring"])
def test_records_go_round_the_end(rig: Rig, capture: Path, start: int) -> None:
    wired = Wired(rig, f"pcap({capture}):")
    port = pcap_of(wired, thread=False)
    start &= ~7
    port._state["prod"] = port._state["cons"] = start
    frames = [os.urandom(100 + i) for i in range(40)]
    wired.plug.tx(frames)
    assert port.drain() == 40
    wired.port.close()
    assert [bytes(p) for p in rdpcap(str(capture))] == frames


@pytest.mark.fault(28)
def test_a_full_ring_loses_records_never_packets(rig: Rig, capture: Path) -> None:
    wired = Wired(rig, f"pcap({capture}):")
    port = pcap_of(wired, thread=False)
    frame = bytes(1500)
    whole = RING_BYTES // (24 + 1504)
    rounds = whole // 64 + 2
    for _ in range(rounds):
        wired.plug.tx([frame] * 64)
        assert len(wired.peer.receive()) == 64
    port.close()
    about = port.details()
    assert about["recorded"] == about["written"] == whole
    assert about["lost_in_ring"] == rounds * 64 - whole
    assert len(rdpcap(str(capture))) == whole


@contextlib.contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """Files of this process may not grow beyond `limit` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.fault(28)
def test_a_full_disk_is_counted_and_the_file_stays_readable(rig: Rig, capture: Path) -> None:
    wired = Wired(rig, f"pcap({capture}):")
    port = pcap_of(wired, thread=False)
    with small_disk(20_000):
        for batch in range(5):
            wired.plug.tx([bytes([batch]) * 1400] * 4)
            assert len(wired.peer.receive()) == 4
            port.drain()
        port.close()
    about = port.details()
    assert (about["written"], about["lost_on_disk"]) == (12, 8)
    assert "large" in str(about["last_error"])
    assert capture.stat().st_size <= 20_000
    assert len(rdpcap(str(capture))) == 12


@pytest.mark.fault(28)
def test_a_disk_that_has_room_again_is_used_again(rig: Rig, capture: Path) -> None:
    wired = Wired(rig, f"pcap({capture}):")
    port = pcap_of(wired, thread=False)
    full, port._file = port._file, os.open("/dev/full", os.O_WRONLY)
    wired.plug.tx(numbered(3))
    assert port.drain() == 0
    os.close(port._file)
    port._file = full
    wired.plug.tx(numbered(5))
    assert port.drain() == 5
    port.close()
    assert [bytes(p) for p in rdpcap(str(capture))] == numbered(5)


def test_a_file_that_cannot_be_written_is_refused_and_the_inner_port_closed(tmp_path: Path) -> None:
    with pytest.raises(PortError, match="No such file or directory"):
        open_port(f"pcap({tmp_path}/no/such/dir):wire:w")
    open_port("wire:w").close()
