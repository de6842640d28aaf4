"""The AF_XDP port's C against a pretended kernel: rings that wrap, lies, chunks and frames that are conserved."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import numpy as np
import pytest
from rig import Plug, Rig, library, numbered

from chamelio.engine import abi
from chamelio.engine.ports import Port

RING = CHUNK = 2048
HEADROOM = 256
NEED_WAKEUP = 1
RETRY_NS = 100_000_000


class Kernel:
    """The other side of the four rings. `start` is where all indices begin."""

    def __init__(self, rig: Rig, start: int = 0) -> None:
        self.umem = abi.aligned(2 * RING * CHUNK)
        desc = np.dtype([("addr", "<u8"), ("len", "<u4"), ("options", "<u4")])
        self.entries = {"rx": np.zeros(RING, desc), "tx": np.zeros(RING, desc)}
        self.entries |= {"fill": np.zeros(RING, "<u8"), "completion": np.zeros(RING, "<u8")}
        self.index = {name: np.full(3, start, "<u4") for name in self.entries}  # prod, cons, flags
        self.start = start
        self.queued: list[int] = []
        self.waker, self.sleeper = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        state = abi.alloc("cham_xdp")
        state["umem"], state["fd"], state["link"] = self.umem.ctypes.data, self.waker.fileno(), 1
        for name, index in self.index.items():
            index[2] = NEED_WAKEUP if name == "tx" else 0
            for i, field in enumerate(("prod", "cons", "flags")):
                state[name][field] = index.ctypes.data + 4 * i
            state[name]["entries"] = self.entries[name].ctypes.data
            state[name]["ours"] = start
        self.entries["fill"][(start + np.arange(RING)) % RING] = np.arange(RING) * CHUNK
        self.index["fill"][0] = (start + RING) % 2**32
        state["fill"]["ours"] = (start + RING) % 2**32
        state["free"], state["n_free"] = np.arange(RING, 2 * RING), RING
        port = Port("fake", mac=bytes(6), mtu=1500, network=0, state=state)
        port.ops_symbol = "cham_xdp_ops"
        self.state = state
        self.plug: Plug = rig.plug(port)

    def _next(self, ring: str, which: int) -> int:
        at = int(self.index[ring][which])
        self.index[ring][which] = (at + 1) % 2**32
        return at % RING

    def waiting(self, ring: str) -> int:
        return (int(self.index[ring][0]) - int(self.index[ring][1])) % 2**32

    def deliver(self, frame: bytes) -> None:
        """A frame arrives: a chunk of the fill ring carries it to the receive ring."""
        assert self.waiting("fill")
        address = int(self.entries["fill"][self._next("fill", 1)]) + HEADROOM
        self.umem[address : address + len(frame)] = np.frombuffer(frame, np.uint8)
        self.describe(address, len(frame))

    def describe(self, address: int, length: int) -> None:
        """Put a descriptor in the receive ring, true or not."""
        self.entries["rx"][self._next("rx", 0)] = (address, length, 0)

    def send(self) -> list[bytes]:
        """Take what is in the transmit ring."""
        frames = []
        while self.waiting("tx"):
            address, length, _ = self.entries["tx"][self._next("tx", 1)]
            frames.append(bytes(self.umem[int(address) : int(address) + int(length)]))
            self.queued.append(int(address))
        return frames

    def complete(self, address: int | None = None) -> None:
        """Return a sent chunk, or claim to."""
        self.entries["completion"][self._next("completion", 0)] = self.queued.pop(0) if address is None else address

    def chunks_conserved(self) -> bool:
        return bool(library().cham_xdp_check(self.plug.address))


@pytest.fixture(params=[0, 2**32 - 3], ids=["from 0", "from 2^32-3"])
def kernel(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Kernel]:
    made = Kernel(rig, request.param)
    yield made
    assert rig.n_free == rig.total


def test_frames_arrive_and_their_chunks_go_back(kernel: Kernel) -> None:
    frames = numbered(10, 100)
    for frame in frames:
        kernel.deliver(frame)
    assert kernel.waiting("fill") == RING - 10
    assert kernel.plug.rx() == frames
    assert kernel.waiting("fill") == RING
    assert kernel.chunks_conserved()


def test_frames_leave_with_one_kick_per_batch(kernel: Kernel) -> None:
    frames = numbered(64, 100)
    kernel.plug.tx(frames)
    assert kernel.send() == frames
    kernel.plug.flush()
    assert int(kernel.state["kicks"][0]) == 1
    kernel.plug.flush()
    assert int(kernel.state["kicks"][0]) == 1
    assert kernel.chunks_conserved()
    assert int(kernel.state["n_free"][0]) == RING - 64
    for _ in range(64):
        kernel.complete()
    kernel.plug.flush()
    assert int(kernel.state["n_free"][0]) == RING
    assert kernel.chunks_conserved()


def test_kicks_are_bounded_when_the_kernel_takes_nothing(kernel: Kernel) -> None:
    kernel.plug.tx(numbered(1))
    kernel.plug.flush()
    assert int(kernel.state["kicks"][0]) == 4
    kernel.plug.flush()
    assert int(kernel.state["kicks"][0]) == 8
    assert not kernel.plug.down


def test_a_driver_that_polls_is_not_kicked(kernel: Kernel) -> None:
    kernel.index["tx"][2] = 0
    kernel.plug.tx(numbered(3))
    kernel.plug.flush()
    assert int(kernel.state["kicks"][0]) == 0


@pytest.mark.fault(20)
def test_random_traffic_conserves_chunks_and_frames(rig: Rig) -> None:
    choose = random.Random(5)
    kernel = Kernel(rig, 2**32 - 100)
    arrived, expected, sent = [], [], []
    for step in range(400):
        for frame in numbered(choose.randrange(40), 60 + step):
            kernel.deliver(frame)
            expected.append(frame)
        arrived += kernel.plug.rx(maximum=choose.randrange(1, 64))
        out = numbered(choose.randrange(64), 60 + step)
        kernel.plug.tx(out)
        kernel.plug.flush(step)
        if choose.random() < 0.5:
            sent += kernel.send()
        for _ in range(choose.randrange(len(kernel.queued) + 1)):
            kernel.complete()
        assert kernel.chunks_conserved()
        if kernel.waiting("fill") < 64:
            while got := kernel.plug.rx():
                arrived += got
    while got := kernel.plug.rx():
        arrived += got
    assert arrived == expected
    assert not kernel.plug.down
    assert rig.n_free == rig.total


def test_without_chunks_to_send_the_rest_is_dropped_and_counted(kernel: Kernel) -> None:
    for _ in range(RING // 64 + 1):
        kernel.plug.tx(numbered(64))
    assert kernel.plug.counter("tx_packets") == RING
    assert kernel.plug.counter("tx_full") == 64
    assert kernel.chunks_conserved()


def test_without_free_frames_the_ring_keeps_what_it_has() -> None:
    rig = Rig(3)
    kernel = Kernel(rig)
    frames = numbered(5)
    held = [rig.get(frames[0]) for _ in range(2)]
    for frame in frames:
        kernel.deliver(frame)
    assert kernel.plug.rx() == frames[:1]
    for index in held:
        rig.put(index)
    assert kernel.plug.rx() == frames[1:4]
    assert kernel.plug.rx() == frames[4:]
    assert kernel.chunks_conserved()


@pytest.mark.fault(4)
@pytest.mark.parametrize("length", [0, 13, 1935])
def test_a_length_that_is_no_frames_is_refused_and_the_chunk_kept(kernel: Kernel, length: int) -> None:
    address = int(kernel.entries["fill"][kernel._next("fill", 1)])
    kernel.describe(address, length)
    kernel.deliver(numbered(1)[0])
    assert kernel.plug.rx() == numbered(1)
    assert kernel.plug.counter("rx_refused") == 1
    assert not kernel.plug.down
    assert kernel.chunks_conserved()


LIES = {
    "a chunk for sending": (RING * CHUNK, 60),
    "past the memory": (2 * RING * CHUNK, 60),
    "an address that wraps": (2**64 - 8, 60),
    "out of its chunk": (CHUNK - 59, 60),
    "a length that wraps": (CHUNK - 60, 2**32 - 1),
}


@pytest.mark.fault(20)
@pytest.mark.parametrize(("address", "length"), LIES.values(), ids=LIES)
def test_a_descriptor_that_cannot_be_true_takes_the_port_down(kernel: Kernel, address: int, length: int) -> None:
    kernel.describe(address, length)
    assert kernel.plug.rx() == []
    assert kernel.plug.down
    kernel.plug.tx(numbered(5))
    assert kernel.plug.counter("tx_down") == 5


@pytest.mark.fault(20)
@pytest.mark.parametrize("distance", [RING + 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("ring", ["rx", "completion"])
def test_an_index_that_cannot_be_true_takes_the_port_down(kernel: Kernel, ring: str, distance: int) -> None:
    kernel.index[ring][0] = (kernel.start + distance) % 2**32
    kernel.plug.tx(numbered(1))
    kernel.send()
    kernel.plug.flush()
    assert kernel.plug.rx() == []
    assert kernel.plug.down


COMPLETIONS = {
    "not in flight": (RING + 5) * CHUNK,
    "a chunk for receiving": 5 * CHUNK,
    "past the memory": 2 * RING * CHUNK,
    "an address that wraps": 2**64 - 1,
}


@pytest.mark.parametrize("address", COMPLETIONS.values(), ids=COMPLETIONS)
def test_a_completion_that_cannot_be_true_takes_the_port_down(kernel: Kernel, address: int) -> None:
    kernel.plug.tx(numbered(1))
    kernel.send()
    kernel.complete(address)
    kernel.plug.flush()
    assert kernel.plug.down


def test_a_chunk_completed_twice_takes_the_port_down(kernel: Kernel) -> None:
    kernel.plug.tx(numbered(2))
    kernel.send()
    first = kernel.queued[0]
    kernel.complete()
    kernel.complete(first)
    kernel.plug.flush()
    assert kernel.plug.down


@pytest.mark.fault(20)
def test_an_interface_that_fails_is_tried_again_after_a_while(kernel: Kernel) -> None:
    kernel.state["fd"] = -1
    kernel.plug.tx(numbered(4))
    kernel.plug.flush(1000)
    assert kernel.plug.down
    assert int(kernel.state["kick_errors"][0]) == 1
    kernel.plug.tx(numbered(3))
    assert kernel.plug.counter("tx_down") == 3
    kernel.state["fd"] = kernel.waker.fileno()
    kernel.plug.flush(1000 + RETRY_NS - 1)
    kernel.plug.rx()
    assert kernel.plug.down
    kernel.plug.flush(1000 + RETRY_NS)
    kernel.plug.rx()
    assert not kernel.plug.down
    assert kernel.send() == numbered(4)
    assert kernel.chunks_conserved()


@pytest.mark.fault(20)
def test_a_link_that_is_down_touches_no_ring(kernel: Kernel) -> None:
    kernel.deliver(numbered(1)[0])
    kernel.state["link"] = 0
    assert kernel.plug.rx() == []
    assert kernel.plug.down
    kernel.plug.tx(numbered(2))
    kernel.plug.flush()
    assert kernel.waiting("tx") == 0
    kernel.state["link"] = 1
    assert kernel.plug.rx() == numbered(1)
    assert not kernel.plug.down
