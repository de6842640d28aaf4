"""Pools of byte buffers: what is given out never overlaps, comes back whole, and moves with what is to be kept."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np
import pytest

from chamelio.bpf.object import MapDef
from chamelio.jit.layout import BYTES, LayoutError, make_layout
from chamelio.tenant.region import Region
from virtual import Net, Tenant

A = "10.0.0.1"
IDS, SMALLEST, LARGEST, TOTAL = 64, 64, 1024, 8192
ENOSPC, EINVAL, ENOENT = -28, -22, -2


class Pools(Net):
    """A host whose tenant has a pool, and the tenant's view of it."""

    def __init__(self) -> None:
        super().__init__()
        self.tenant = Tenant(self.host, A, handlers="pools")
        instance = self.tenant.instance
        self.region = Region(instance.region_fd, instance.origin, instance.layout, {}, {})
        self.orders, self.results = self.tenant.ring("orders", 0), self.tenant.ring("results", 0)

    def ask(self, what: str, id_: int = 0, size: int = 0, keep: int = 0) -> int:
        self.orders.put(ord(what), id_, size, keep)
        self.world.run(for_ns=20_000)
        (result,) = self.results.take()
        value = int(result[2])
        return value - (1 << 64) if value >> 63 else value

    def open(self, id_: int, size: int, pos: int = 0, keep: int = 0) -> int:
        return self.ask("o", id_, size, pos << 32 | keep)

    def place(self, id_: int) -> tuple[int, int]:
        """Offset in the arena and size of an id's buffer, as the tenant is told."""
        buffer = self.region.buffer("pool", id_)
        m = self.region.maps["pool"]
        assert m.shared is not None
        arena = np.ndarray((1,), np.uint8, self.region.content, m.shared)
        return int(buffer.ctypes.data - arena.ctypes.data), len(buffer)


@pytest.fixture
def pools() -> Iterator[Pools]:
    with Pools() as pools:
        yield pools


@pytest.mark.parametrize(("size", "given"), [(1, 64), (64, 64), (65, 128), (1000, 1024), (1024, 1024)])
def test_a_buffer_has_the_next_power_of_two(pools: Pools, size: int, given: int) -> None:
    assert pools.ask("s", 5) == 0
    assert pools.open(5, size) == 0
    assert pools.ask("s", 5) == given == pools.place(5)[1]
    assert pools.ask("c", 5) == 0
    assert pools.ask("s", 5) == 0 == pools.place(5)[1]
    assert pools.ask("c", 5) == ENOENT


@pytest.mark.parametrize(
    ("id_", "size", "keep"), [(64, 64, 0), (1 << 31, 64, 0), (0, 0, 0), (0, 1025, 0), (0, 1 << 40, 0), (0, 64, 1), (0, 64, 1 << 31)]
)
def test_what_there_cannot_be_is_refused(pools: Pools, id_: int, size: int, keep: int) -> None:
    assert pools.ask("o", id_, size, keep) == EINVAL
    assert pools.open(0, 1024) == 0


def test_fixed_buffers_stay_as_they_are(pools: Pools) -> None:
    assert [pools.ask(what, 1, 64) for what in "fFS"] == [EINVAL, ENOENT, 256]
    assert pools.ask("S", 4) == 0


def test_an_empty_pool_says_so_and_counts_it(pools: Pools) -> None:
    assert [pools.open(i, 1024) for i in range(8)] == [0] * 8
    assert pools.open(8, 64) == ENOSPC
    assert pools.tenant.events() == {"pool_empty": 1}
    assert pools.ask("c", 3) == 0
    assert pools.open(8, 64) == 0
    assert pools.open(9, 1024) == ENOSPC, "one of its halves of halves is taken"
    assert pools.ask("c", 8) == 0
    assert pools.open(9, 1024) == 0, "what was split is one again"


@pytest.mark.parametrize(
    ("old", "new", "pos", "length"), [(64, 256, 0, 64), (64, 1024, 40, 50), (256, 64, 250, 30), (128, 128, 100, 60)]
)
def test_what_is_to_be_kept_stays_at_its_positions(pools: Pools, old: int, new: int, pos: int, length: int) -> None:
    assert pools.open(7, old) == 0
    content = np.random.default_rng(old).integers(0, 256, old, np.uint8)
    pools.region.buffer("pool", 7)[:] = content
    assert pools.open(7, new, pos, length) == 0
    buffer = pools.region.buffer("pool", 7)
    assert len(buffer) == new
    at = np.arange(pos, pos + length)
    assert (buffer[at % new] == content[at % old]).all()


def test_more_than_fits_is_not_kept_and_nothing_changes(pools: Pools) -> None:
    assert pools.open(7, 256) == 0
    before = pools.place(7)
    assert pools.open(7, 64, 0, 65) == EINVAL
    assert pools.place(7) == before


def test_payload_goes_where_the_buffer_is_now(pools: Pools) -> None:
    assert pools.ask("w", 2, 0, 32) == EINVAL, "no buffer"
    assert pools.open(2, 64) == 0
    pools.region.buffer("pool", 2)[:] = 7
    assert pools.ask("w", 2, 40, 32) == 0
    assert pools.region.buffer("pool", 2).tolist() == [0] * 8 + [7] * 32 + [0] * 24
    assert pools.ask("w", 2, 0, 65) == EINVAL, "longer than the packet"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_buffers_never_overlap_and_a_full_pool_is_really_full(pools: Pools, seed: int) -> None:
    rng = random.Random(seed)
    held: dict[int, tuple[int, int]] = {}
    for _ in range(400):
        id_ = rng.randrange(IDS)
        if rng.random() < 0.6:
            size = 1 << rng.randrange(11)
            given = max(SMALLEST, size)
            outcome = pools.open(id_, size)
            if outcome == 0:
                held[id_] = pools.place(id_)
                assert held[id_][1] == given and held[id_][0] % given == 0
            else:
                free = set(range(0, TOTAL, SMALLEST))
                for offset, taken in held.values():
                    free -= set(range(offset, offset + taken, SMALLEST))
                assert outcome == ENOSPC
                assert not any(set(range(at, at + given, SMALLEST)) <= free for at in range(0, TOTAL, given)), "a block was free"
        else:
            assert pools.ask("c", id_) == (0 if held.pop(id_, None) else ENOENT)
        spans = sorted(held.values())
        assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(spans))
    for id_ in held:
        assert pools.ask("c", id_) == 0
    assert [pools.open(i, LARGEST) for i in range(8)] == [0] * 8, "everything has come together again"


def test_what_the_tenant_writes_in_its_table_moves_nothing(pools: Pools) -> None:
    assert pools.open(1, 64) == 0 and pools.open(2, 64) == 0
    m = pools.region.maps["pool"]
    table = np.ndarray((IDS, 2), "<u4", pools.region.content, m.free - pools.region.layout.private_bytes)
    before = pools.place(2)
    table[:] = 0xFFFFFFFF
    assert len(pools.region.buffer("pool", 1)) == 0, "nonsense is no buffer"
    assert pools.ask("s", 1) == 64
    assert pools.ask("w", 2, 0, 32) == 0
    assert pools.open(2, 64) == 0 and pools.place(2)[1] == before[1]


@pytest.mark.parametrize(
    ("smallest", "largest", "total", "words"),
    [
        (48, 1024, 8192, "power of two"),
        (32, 1024, 8192, "power of two"),
        (2048, 1024, 8192, "power of two"),
        (64, 1024, 8200, "multiple"),
        (64, 1024, 0, "multiple"),
        (64, 1024, 1 << 31, "at most"),
        (64, 1 << 22, 1 << 23, "power of two"),
    ],
)
def test_sizes_that_make_no_pool_are_refused_with_the_reason(smallest: int, largest: int, total: int, words: str) -> None:
    pool = MapDef("p", BYTES, 0, largest, 8, {"min_size": smallest, "total_size": total})
    with pytest.raises(LayoutError, match=words):
        make_layout([pool], 2)
