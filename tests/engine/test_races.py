"""A thread changes what the engine checks, between check and use if it can: the real engine on the real clock, for a limited time.

Whatever leaves is one of the two packets that were there to be sent, whole, and from the tenant's own address.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chamelio import toolchain
from chamelio.engine.engine import Engine
from chamelio.engine.ports import WireMemory, WirePeer, WirePort, parse
from chamelio.engine.ports.wire import create_memory
from virtual import PEER_MAC, Tenant, address, ipv4, udp, unit

A, B, PEER = "10.0.0.1", "10.0.0.2", "10.0.0.9"
ATTACK_S, LIMIT_S = 1.0, 20.0
LENGTH = 100
HUGE = 0xFFFFFFFF
RING = 1  # CHAM_RING


@functools.cache
def flipper() -> Any:
    with tempfile.NamedTemporaryFile(suffix=".so") as f:
        f.write(toolchain.shared_library([Path(__file__).parent / "hostile" / "flipper.c"]))
        f.flush()
        flip = ctypes.CDLL(f.name).flip
    flip.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulong]
    flip.restype = ctypes.c_ulong
    return flip


class Live:
    """A running engine with two tenants, and a peer on a wire."""

    def __init__(self) -> None:
        self.memory = WireMemory(create_memory("races"))
        self.host = Engine(frames=512)
        port = self.host.add_port("w", WirePort(parse("wire:races:a"), os.dup(self.memory.fd)))
        self.host.add_route("10.0.0.0/24", port)
        self.mac = bytes.fromhex(self.host.describe()["ports"][0]["mac"].replace(":", ""))
        self.peer = WirePeer(self.memory)
        code = self.host.load_unit(unit("naughty", virtual=False))
        self.tenant, self.other = Tenant(self.host, A, unit_index=code), Tenant(self.host, B, unit_index=code)
        head = bytes.fromhex("0001080006040001")
        arp = head + PEER_MAC + bytes([10, 0, 0, 9]) + bytes(6) + bytes([10, 0, 0, 1])
        self.peer.send(b"\xff" * 6 + PEER_MAC + b"\x08\x06" + arp)
        self.host.start()
        assert wait(lambda: self.peer.receive())

    def send(self, packet: bytes) -> None:
        assert self.peer.send(self.mac + PEER_MAC + b"\x08\x00" + packet)

    def receive(self) -> list[bytes]:
        """IPv4 packets that arrived at the peer."""
        return [f[14:] for f in self.peer.receive() if f[12:14] == b"\x08\x00"]

    def serves_the_other(self) -> bool:
        """The tenant next door is answered."""
        self.send(udp(PEER, B, b"e" + bytes(7)))
        return wait(lambda: any(p[12:16] == bytes([10, 0, 0, 2]) for p in self.receive()))

    def close(self) -> None:
        self.host.close()
        self.memory.close()


def wait(condition: Callable[[], Any], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.0005)
    return True


@pytest.fixture
def live() -> Iterator[Live]:
    one = Live()
    yield one
    one.close()


@contextlib.contextmanager
def flipping(places: list[tuple[np.ndarray[Any, Any], int, int]]) -> Iterator[None]:
    """While this lasts, each place (an array of one 32-bit word) has now one value, now the other."""
    addresses = np.array([place.ctypes.data for place, _, _ in places], np.uint64)
    values = np.array([(one, other) for _, one, other in places], np.uint32)
    stop = np.zeros(1, np.int32)
    rounds: list[int] = []
    arguments = (stop.ctypes.data, addresses.ctypes.data, values.ctypes.data, len(places))
    flip = flipper()
    thread = threading.Thread(target=lambda: rounds.append(flip(*arguments)))
    thread.start()
    try:
        yield
    finally:
        stop[0] = 1
        thread.join()
    assert rounds[0] > 1000, "the thread had its share of a core"


def word(array: np.ndarray[Any, Any], offset: int) -> np.ndarray[Any, Any]:
    """The 32-bit word at an offset into bytes that lie in a row."""
    flat = array.reshape(-1).view(np.uint8)
    return flat[offset : offset + 4].view(np.uint32)


def attack(enough: Callable[[], Any]) -> Iterator[None]:
    """For a while, and on a loaded machine until both sides of the race were seen."""
    started = time.monotonic()
    while (elapsed := time.monotonic() - started) < ATTACK_S or (elapsed < LIMIT_S and not enough()):
        yield


PACKET = ipv4(A, PEER, bytes(range(LENGTH - 20)))


def header_places(at: np.ndarray[Any, Any]) -> list[tuple[np.ndarray[Any, Any], int, int]]:
    """Source and total length of a packet that lies there: right, and wrong."""
    first = int.from_bytes(PACKET[:4], "little")
    lying = int.from_bytes(PACKET[:2] + (1500).to_bytes(2, "big"), "little")
    return [(word(at, 12), address(A), address(B)), (word(at, 0), first, lying)]


def assert_survived(live: Live, before: tuple[bytes, bytes]) -> None:
    assert live.host.running
    assert live.other.memory()[1] == before[1]
    assert wait(lambda: live.host.free_frames[0] == live.host.free_frames[1])
    assert live.serves_the_other()


@pytest.mark.fault(5)
def test_lengths_and_sources_of_raw_packets_that_change(live: Live) -> None:
    ring = live.tenant.raw("xmit")
    places = []
    for slot in ring.entries:
        slot["bytes"][0, :LENGTH] = list(PACKET)
        raw = slot.view(np.uint8)
        places += [(word(raw, 0), LENGTH, HUGE), (word(raw, 4), 0, 1), *header_places(slot["bytes"])]
    before, seen = live.other.memory(), 0

    def enough() -> bool:
        return seen > 0 and {"xmit_refused", "tx_spoofed_source", "tx_bad_header"} <= live.tenant.drops().keys()

    with flipping(places):
        for _ in attack(enough):
            if ring.prod == ring.cons:
                ring.prod += 8
            for packet in live.receive():
                assert packet == PACKET
                seen += 1
    assert enough(), (seen, live.tenant.drops())
    assert_survived(live, before)


@pytest.mark.fault(5)
def test_entries_and_buffers_that_change(live: Live) -> None:
    ring = live.tenant.ring("requests", 1)
    buffers = live.tenant.values("buffers")
    buffers[0, :LENGTH] = list(PACKET)
    places = header_places(buffers[0])
    for entry in ring.entries:
        raw = entry.view(np.uint8)
        places += [(word(raw, 0), 4, 7), (word(raw, 4), LENGTH, HUGE), (word(raw, 8), 0, HUGE), (word(raw, 12), 0, 0)]
    before, seen = live.other.memory(), 0

    def enough() -> bool:
        reasons = live.tenant.counters["reasons"]
        return bool(seen and reasons[24] and reasons[25] and {"tx_spoofed_source", "tx_bad_header"} <= live.tenant.drops().keys())

    with flipping(places):
        for _ in attack(enough):
            if ring.prod == ring.cons:
                ring.prod += 32
            for packet in live.receive():
                assert packet == PACKET
                seen += 1
    assert enough(), (seen, live.tenant.drops())
    assert_survived(live, before)


@pytest.mark.fault(5)
@pytest.mark.fault(1)
def test_indices_that_change(live: Live) -> None:
    """A lie that is there for a moment is found or not; the ring is never followed beyond its end."""
    requests, answers = live.tenant.ring("requests", 1), live.tenant.ring("answers", 1)
    for entry in requests.entries:
        entry[0] = (1, 0, 7)
    before = live.other.memory()
    attachments = 1
    honest = 8
    places = [(requests.words[0:1], honest, 1 << 31), (answers.words[16:17], 0, HUGE - 100)]
    with flipping(places):
        for _ in attack(lambda: live.tenant.events().get("ring_damaged", 0) > 10):
            if live.host.state_of(live.tenant.instance.index) == "quarantined":
                attachments += 1
                live.host.attach(live.tenant.instance.index, 1)
    requests.prod = requests.cons
    live.host.attach(live.tenant.instance.index, 1)
    assert_survived(live, before)
    assert live.tenant.events()["ring_damaged"] > 10
    assert int(live.tenant.counters["hooks"][RING]["runs"]) <= honest * attachments
