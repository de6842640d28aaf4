"""What each helper costs: probes that call it alone, on its dearest way, with data that is in no cache or in the nearest.

The descriptors of maps, which are constants of compiled code, stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from chamelio.bench.bounds.rig import DATA, PAGES, Rig, Run, State
from chamelio.bench.bounds.scenes import hash_entry, ring_positions, wheel_entry
from chamelio.engine import abi
from chamelio.jit.layout import PAGE
from chamelio.verify.catalogue import HELPERS, PACKET_MAX, Helper
from chamelio.verify.cost import lines_of, price

MAPS = Path(__file__).with_name("maps.bpf.c")
LENGTHS = (0, 1, 64, 512, 1440, PACKET_MAX)
BUFFER, POOL_LARGEST, POOL_SMALLEST = 65536, 2097152, 64
COLD = DATA | PAGES  # code is priced with the instructions
DESCRIPTORS = 512  # where they begin in the page
FAR = 3333  # an id or index whose place is near no other that a probe uses


@dataclass(frozen=True)
class Probe:
    """`build` makes a run of a call: of a state, a place for arguments in memory (warm, as a stack is), and a length."""

    helper: Helper
    kind: str
    build: Callable[[Bench, int], Run]
    lengths: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Measured:
    """Cycles of the calls at each length, an empty call taken off, and what the table says of them."""

    name: str
    kind: str
    lengths: tuple[int, ...]
    warm: tuple[int, ...]
    cold: tuple[int, ...]
    priced_warm: tuple[int, ...]
    priced_cold: tuple[int, ...]

    @property
    def margin_cold(self) -> float:
        """How often the measured cost goes into the price, where that is least; cold."""
        return min(p / max(m, 1) for p, m in zip(self.priced_cold, self.cold, strict=True))

    @property
    def margin_warm(self) -> float:
        """The same, warm."""
        return min(p / max(m, 1) for p, m in zip(self.priced_warm, self.warm, strict=True))

    def line(self, cycles: tuple[int, ...]) -> tuple[float, float]:
        """a and b of the line a + b x lines of length that lies on or above all points."""
        lines = [lines_of(n) for n in self.lengths]
        slope = max(0.0, (cycles[-1] - cycles[0]) / (lines[-1] - lines[0])) if len(lines) > 1 else 0.0
        return max(c - slope * n for c, n in zip(cycles, lines, strict=True)), slope


class Bench:
    """An instance with a map of each kind, and a page with a key, a value and the maps' descriptors."""

    def __init__(self) -> None:
        self.rig = Rig(MAPS, helpers=True)
        self.scratch = abi.aligned(PAGE, PAGE)
        descriptors = b"".join(m.descriptor() for m in self.rig.layout.maps)
        self.scratch[DESCRIPTORS : DESCRIPTORS + len(descriptors)] = np.frombuffer(descriptors, np.uint8)
        self.maps = {m.name: self.key + DESCRIPTORS + 64 * i for i, m in enumerate(self.rig.layout.maps)}

    @property
    def key(self) -> int:
        """Address of a key, 16 bytes."""
        return int(self.scratch.ctypes.data)

    @property
    def value(self) -> int:
        """Address of a value, 64 bytes."""
        return self.key + 64

    def set_key(self, value: int) -> None:
        """Fill in the key."""
        self.scratch[:16] = np.frombuffer(value.to_bytes(16, "little"), np.uint8)

    def state(self) -> State:
        """The maps as they begin."""
        return State(self.rig)

    def pooled(self, calls: list[tuple[str, tuple[int, ...]]], state: State) -> State:
        """What calls of pool helpers leave behind."""
        for name, arguments in calls:
            self.rig.cycles(name, Run(state, arguments=(self.maps["pool"], *arguments)), cold=0, repetitions=1)
            assert self.rig.last.verdict == 0, (name, arguments)
            state = self.rig.state_now()
        return state

    def close(self) -> None:
        """Free it."""
        self.rig.close()


# ---- maps -------------------------------------------------------------------------------------------------------------------


def _array(bench: Bench, length: int) -> Run:
    bench.set_key(FAR)
    return Run(bench.state(), arguments=(bench.maps["array"], bench.key, bench.value, 0))


def _hash(place: str) -> Callable[[Bench, int], Run]:
    def build(bench: Bench, length: int) -> Run:
        state = bench.state()
        bench.set_key(77)
        hash_entry(state, "hash", (77).to_bytes(16, "little"), 5, place, 1, 900)
        return Run(state, arguments=(bench.maps["hash"], bench.key, bench.value, 0))

    return build


def _push(bench: Bench, length: int) -> Run:
    state = bench.state()
    ring_positions(state, "ring_out", 1, "look", 77)
    return Run(state, arguments=(bench.maps["ring_out"], 1, bench.value))


def _wheel(kind: str, armed: str, *, when: int = 1 << 41) -> Callable[[Bench, int], Run]:
    def build(bench: Bench, length: int) -> Run:
        state = bench.state()
        wheel_entry(state, kind, FAR, armed, crowded=True)
        return Run(state, arguments=(bench.maps[kind], FAR, when))

    return build


# ---- packets ----------------------------------------------------------------------------------------------------------------


def _resize(bench: Bench, length: int) -> Run:
    return Run(bench.state(), arguments=(0, length))


def _pool_buffer(bench: Bench) -> State:
    return bench.pooled([("cham_bytes_open", (777, BUFFER, 0))], bench.state())


def _copy(kind: str, *, packet: bool) -> Callable[[Bench, int], Run]:
    """A copy that wraps at the buffer's end."""

    def build(bench: Bench, length: int) -> Run:
        state = _pool_buffer(bench) if kind == "pool" else bench.state()
        id_, at = (777, BUFFER - length // 2) if kind == "pool" else (9, BUFFER - length // 2)
        where = int(state.pool_place("pool", id_)) if kind == "pool" else id_ * BUFFER
        buffers = [(kind, where + at % BUFFER, length // 2), (kind, where, length - length // 2)] if length else []
        return Run(
            state, packet=bytes(PACKET_MAX) if packet else None, arguments=(0, bench.maps[kind], id_, at, length), buffers=buffers
        )

    return build


def _csum(bench: Bench, length: int) -> Run:
    return Run(bench.state(), packet=bytes(PACKET_MAX), arguments=(0, length, 1))


def _with_packet(*arguments: int) -> Callable[[Bench, int], Run]:
    def build(bench: Bench, length: int) -> Run:
        return Run(bench.state(), packet=bytes(64), arguments=(0, *arguments))

    return build


# ---- pools ------------------------------------------------------------------------------------------------------------------


def _torn(bench: Bench) -> State:
    """Lists of two free blocks at each order but the largest; id 0 has the smallest buffer, all of whose buddies are free."""
    sizes = [POOL_SMALLEST << order for order in range((POOL_LARGEST // POOL_SMALLEST).bit_length() - 1)]
    calls: list[tuple[str, tuple[int, ...]]] = [("cham_bytes_open", (0, POOL_SMALLEST, 0))]
    calls += [("cham_bytes_open", (10 + n, size, 0)) for n, size in enumerate(sizes)]
    calls += [("cham_bytes_open", (100, POOL_SMALLEST, 0))]
    calls += [("cham_bytes_close", (10 + n,)) for n in range(len(sizes))]
    return bench.pooled(calls, bench.state())


def _open_split(bench: Bench, length: int) -> Run:
    """The largest block is split down to the smallest that holds what is kept; the old buffer is in another block."""
    state = bench.pooled([("cham_bytes_open", (0, POOL_LARGEST, 0))], bench.state())
    size = max(length, POOL_SMALLEST)
    return Run(state, arguments=(bench.maps["pool"], 0, size, length), buffers=_pool_buffers(bench, state, length))


def _open_join(bench: Bench, length: int) -> Run:
    """A large buffer for a small one, which is joined with all its buddies."""
    state = _torn(bench)
    kept = min(length, POOL_SMALLEST)
    return Run(state, arguments=(bench.maps["pool"], 0, POOL_LARGEST, kept), buffers=_pool_buffers(bench, state, kept))


def _pool_buffers(bench: Bench, state: State, length: int) -> list[tuple[str, int, int]]:
    ends = [POOL_LARGEST * n for n in range(3)] + [int(state.pool_place("pool", 0))]
    return [("pool", at, length) for at in ends] if length else []


def _close(bench: Bench, length: int) -> Run:
    return Run(_torn(bench), arguments=(bench.maps["pool"], 0))


def _size(bench: Bench, length: int) -> Run:
    return Run(_pool_buffer(bench), arguments=(bench.maps["pool"], 777))


_BY_NAME = {h.name: h for h in HELPERS.values()}
PROBES = tuple(
    Probe(_BY_NAME[name], kind, build, lengths)
    for name, kind, build, lengths in (
        ("cham_lookup", "array", _array, (0,)),
        ("cham_lookup", "hash", _hash("second"), (0,)),
        ("cham_update", "array", _array, (0,)),
        ("cham_update", "hash", _hash("absent"), (0,)),
        ("cham_update", "hash", _hash("second"), (0,)),
        ("cham_delete", "hash", _hash("second"), (0,)),
        ("cham_push", "ring_out", _push, (0,)),
        ("cham_resize", "", _resize, LENGTHS),
        ("cham_pkt_to_bytes", "bytes", _copy("bytes", packet=True), LENGTHS),
        ("cham_pkt_to_bytes", "pool", _copy("pool", packet=True), LENGTHS),
        ("cham_bytes_to_pkt", "bytes", _copy("bytes", packet=False), LENGTHS),
        ("cham_bytes_to_pkt", "pool", _copy("pool", packet=False), LENGTHS),
        ("cham_csum", "", _csum, LENGTHS),
        *((name, kind, _wheel(kind, armed, when=when), (0,)) for name in ("cham_schedule", "cham_pace") for kind in ("tx", "timer")
          for armed in ("idle", "middle", "last", "queued") for when in (1 << 41, 0)),
        *(("cham_cancel", kind, _wheel(kind, armed), (0,)) for kind in ("tx", "timer") for armed in ("middle", "last", "queued")),
        ("cham_random", "", _with_packet(), (0,)),
        ("cham_hash", "", _with_packet(1, 2), (0,)),
        ("cham_emit", "", _with_packet(), (0,)),
        ("cham_csum_later", "", _with_packet(20, 26), (0,)),
        ("cham_bytes_open", "pool", _open_split, LENGTHS),
        ("cham_bytes_open", "pool", _open_join, (0, 64)),
        ("cham_bytes_close", "pool", _close, (0,)),
        ("cham_bytes_size", "pool", _size, (0,)),
    )
)  # fmt: skip


def measure(probe: Probe, bench: Bench, *, repetitions: int = 40) -> Measured:
    """A probe at all its lengths. What a call costs that is refused at once, having no packet, is taken off."""
    m = next((m for m in bench.rig.object.maps if m.name == probe.kind), None)
    runs = [replace(probe.build(bench, length), near=bench.key) for length in probe.lengths]
    cycles: dict[int, list[int]] = {}
    for cold in (0, COLD):
        empty = bench.rig.cycles("cham_csum_later", Run(bench.state(), near=bench.key), cold=cold, repetitions=repetitions)
        cycles[cold] = [
            max(0, bench.rig.cycles(probe.helper.name, run, cold=cold, repetitions=repetitions) - empty) for run in runs
        ]
    prices = [price(probe.helper, length, m) for length in probe.lengths]
    return Measured(
        probe.helper.name, probe.kind, probe.lengths, tuple(cycles[0]), tuple(cycles[COLD]),
        tuple(warm for _, warm in prices), tuple(cold for cold, _ in prices),
    )  # fmt: skip


def measure_all(bench: Bench, *, repetitions: int = 40) -> Iterator[Measured]:
    """All probes; several of one helper and kind are put together, the dearest at each length."""
    found: dict[tuple[str, str], Measured] = {}
    for probe in PROBES:
        new = measure(probe, bench, repetitions=repetitions)
        old = found.get((new.name, new.kind))
        found[new.name, new.kind] = _dearest(old, new) if old else new
    yield from found.values()


def _dearest(a: Measured, b: Measured) -> Measured:
    short, long_ = sorted((a, b), key=lambda one: len(one.lengths))
    at = [long_.lengths.index(length) for length in short.lengths]
    warm, cold = list(long_.warm), list(long_.cold)
    for k, i in enumerate(at):
        warm[i], cold[i] = max(warm[i], short.warm[k]), max(cold[i], short.cold[k])
    return Measured(long_.name, long_.kind, long_.lengths, tuple(warm), tuple(cold), long_.priced_warm, long_.priced_cold)
