"""Where a protocol's maps lie in an instance: constants of the protocol, the same for every tenant that uses it.

    base -> head | private parts | guard page | shared values | raw rings, rings
            (engine memory, of each core)       (memfd: once      (memfd: of each core)
                                                 for all cores)

Every core maps its own private parts, the shared values, and its own rings, one behind the other: offsets from the base are
the same on all cores, and code need not know how many there are. The tenant maps the shared values and all cores' rings. The
descriptors are `struct cham_map` of fastpath/map.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from chamelio.bpf.object import MapDef, ObjectError

ARRAY, HASH, RING_OUT, RING_IN, BYTES, TX, TIMER, DATA = 1, 2, 3, 4, 5, 6, 7, 100
KIND_NAMES = {
    ARRAY: "array",
    HASH: "hash",
    RING_OUT: "ring_out",
    RING_IN: "ring_in",
    BYTES: "bytes",
    TX: "tx",
    TIMER: "timer",
    DATA: "data",
}
SHARED = 1

PAGE = 4096
LINE = 64
INSTANCE_HEAD = 2048
RAW_RING = 128 + 64 * 2048
RING_HEADER = 128
BUCKET_SLOTS = 8
WHEEL_BYTES = 8480
NODE_BYTES = 24
POSITIONS_BYTES = 16
PLACE_BYTES = 8  # struct cham_place, struct pool_entry
POOL_BYTES, POOL_NODE_BYTES = 64, 16

MAX_MAPS = 64
MAX_ENTRIES = 1 << 20
MAX_KEY = 64
MAX_VALUE = 1 << 16
MAX_RING_ENTRY = 256
MAX_BYTES = 1 << 24
MAX_POOL = 1 << 30
MAX_POOL_BLOCKS = 1 << 18
MAX_POOL_ORDER = 15
MAX_INSTANCE = 1 << 31


class LayoutError(ObjectError):
    """A map that cannot be laid out: the message names it, the reason and the remedy."""


class MapLayout(msgspec.Struct, frozen=True):
    """One map. `shared` is the offset in the region's content of its values, rings or buffers; None: private.

    `per_core`: what is shared exists once for each core, `Layout.core_bytes` apart; else once for all.
    """

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    stride: int
    contexts: int
    context_stride: int
    shared: int | None
    per_core: bool
    mask: int
    values: int
    index: int
    keys: int
    free: int
    initial: bytes = b""

    def descriptor(self) -> bytes:
        """The 64 bytes of `struct cham_map`."""
        return struct.pack(
            "<8I4Q",
            self.kind,
            self.key_size,
            self.value_size,
            self.max_entries,
            self.stride,
            self.mask,
            self.contexts,
            self.context_stride,
            self.values,
            self.index,
            self.keys,
            self.free,
        )


class Layout(msgspec.Struct, frozen=True):
    """A protocol's memory, in whole pages: before the region (guard included), shared by all cores, of each core; and its maps.

    `punt` and `xmit` are the offsets of core 0's raw rings in the region's content.
    """

    contexts: int
    private_bytes: int
    shared_bytes: int
    core_bytes: int
    punt: int
    xmit: int
    maps: list[MapLayout]

    def region_bytes(self, cores: int = 1) -> int:
        """Bytes of the region for so many cores."""
        return self.shared_bytes + cores * self.core_bytes

    def fits(self, other: Layout) -> bool:
        """Whether instances laid out for `other` can run code that was compiled for this."""
        return self == other


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


def _power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


def pool_sizes(m: MapDef) -> tuple[int, ...]:
    """Of a pool of byte buffers: the smallest size and the bytes of all; empty for a map with a buffer for each id."""
    return (m.attrs["min_size"], m.attrs.get("total_size", 0)) if "min_size" in m.attrs else ()


def _check(m: MapDef) -> None:
    """Refuse what the fast path cannot hold."""

    def refuse(reason: str, remedy: str) -> LayoutError:
        return LayoutError(f"map {m.name}: {reason}; {remedy}")

    if m.legacy:
        raise refuse("it is declared in section maps", "declare it in .maps, as CHAM_ARRAY does")
    if m.inner is not None or m.initial:
        raise refuse("it holds maps or programs", "protocols have no maps of maps and no program arrays")
    if m.kind not in KIND_NAMES:
        raise refuse(f"there is no map kind {m.kind}", "kinds are 1 (array) to 7 (timer), see chamelio.h")
    if m.kind == DATA:
        return
    if not 1 <= m.max_entries <= MAX_ENTRIES:
        raise refuse(f"max_entries {m.max_entries} is not within 1..{MAX_ENTRIES}", "choose a size in that range")
    if m.kind == ARRAY and m.key_size != 4:
        raise refuse(f"an array's key has 4 bytes, not {m.key_size}", "declare it with CHAM_ARRAY")
    if m.kind == HASH and not 1 <= m.key_size <= MAX_KEY:
        raise refuse(f"a key of {m.key_size} bytes is not within 1..{MAX_KEY}", "shorten the key")
    if m.kind in (ARRAY, HASH) and not 1 <= m.value_size <= MAX_VALUE:
        raise refuse(f"a value of {m.value_size} bytes is not within 1..{MAX_VALUE}", "split the value")
    if m.kind in (RING_IN, RING_OUT):
        if not _power_of_two(m.max_entries):
            raise refuse(f"{m.max_entries} entries are not a power of two", "ring sizes are powers of two")
        if not 1 <= m.value_size <= MAX_RING_ENTRY:
            raise refuse(f"an entry of {m.value_size} bytes is not within 1..{MAX_RING_ENTRY}", "put payload in bytes")
    if m.kind == BYTES and not (_power_of_two(m.value_size) and 64 <= m.value_size <= MAX_BYTES):
        raise refuse(f"buffers of {m.value_size} bytes", f"sizes are powers of two within 64..{MAX_BYTES}")
    if m.kind == BYTES and pool_sizes(m):
        smallest, total = pool_sizes(m)
        if not (_power_of_two(smallest) and 64 <= smallest <= m.value_size <= smallest << MAX_POOL_ORDER):
            raise refuse(f"a smallest buffer of {smallest} bytes", f"it is a power of two, 64 to the largest's {m.value_size}")
        if total % m.value_size or not m.value_size <= total <= MAX_POOL or total // smallest > MAX_POOL_BLOCKS:
            most = min(MAX_POOL, MAX_POOL_BLOCKS * smallest)
            raise refuse(f"a pool of {total} bytes", f"it is a multiple of the largest buffer's {m.value_size}, at most {most}")


class _Cursor:
    """Hands out aligned offsets."""

    def __init__(self, at: int) -> None:
        self.at = at

    def take(self, size: int) -> int:
        at = _up(self.at, LINE)
        self.at = at + size
        return at


def make_layout(maps: Sequence[MapDef], contexts: int) -> Layout:
    """Lay out a protocol's maps for `contexts` contexts (the slow path is context 0). Raises LayoutError."""
    if not 1 <= contexts <= 32:
        raise LayoutError(f"{contexts} contexts are not within 1..32: one is the slow path's, the others are applications'")
    if len(maps) > MAX_MAPS:
        raise LayoutError(f"there are {len(maps)} maps, global data included; a protocol has at most {MAX_MAPS}")
    for m in maps:
        _check(m)
    for kind in (RING_IN, TX, TIMER):
        of_kind = [m.name for m in maps if m.kind == kind]
        if len(of_kind) > 1:
            raise LayoutError(f"maps {', '.join(of_kind)}: a protocol has at most one map of kind {KIND_NAMES[kind]}; join them")
    private = _Cursor(INSTANCE_HEAD)
    once, each = _Cursor(0), _Cursor(2 * RAW_RING)  # parts of the region: of all cores, of each core
    placed: list[tuple[MapDef, dict[str, int], bool, bool]] = []
    for m in maps:
        at = dict.fromkeys(("stride", "contexts", "context_stride", "mask", "values", "index", "keys", "free"), 0)
        shared = bool(m.attrs.get("flags", 0) & SHARED) or m.kind in (RING_IN, RING_OUT, BYTES)
        pool = pool_sizes(m) if m.kind == BYTES else ()
        per_core = m.kind in (HASH, RING_IN, RING_OUT) or bool(pool)
        space = (each if per_core else once) if shared else private
        if m.kind in (ARRAY, HASH):
            at["stride"] = _up(m.value_size, 8)
            at["values"] = space.take(at["stride"] * m.max_entries)
        if m.kind == HASH:
            buckets = 1
            while buckets * BUCKET_SLOTS < 2 * m.max_entries:
                buckets *= 2
            at["mask"] = buckets - 1
            at["index"] = private.take(buckets * LINE)
            at["keys"] = private.take(m.key_size * m.max_entries)
            at["free"] = private.take(4 * (m.max_entries + 1))
        if m.kind in (RING_IN, RING_OUT):
            at["stride"] = _up(m.value_size, 8)
            at["contexts"] = contexts
            at["context_stride"] = _up(RING_HEADER + at["stride"] * m.max_entries, LINE)
            at["values"] = each.take(at["context_stride"] * contexts)
            at["index"] = private.take(POSITIONS_BYTES * contexts)
        if pool:
            at["key_size"] = pool[0].bit_length() - 1
            at["mask"] = (m.value_size // pool[0]).bit_length() - 1
            at["stride"] = pool[1] // pool[0]
            at["values"] = each.take(pool[1])
            at["free"] = each.take(PLACE_BYTES * m.max_entries)
            at["index"] = private.take(PLACE_BYTES * m.max_entries)
            at["keys"] = private.take(POOL_BYTES + POOL_NODE_BYTES * at["stride"])
        elif m.kind == BYTES:
            at["stride"] = m.value_size
            at["mask"] = m.value_size - 1
            at["values"] = once.take(m.value_size * m.max_entries)
        if m.kind in (TX, TIMER):
            at["index"] = private.take(WHEEL_BYTES)
            at["keys"] = private.take(NODE_BYTES * m.max_entries)
        if m.kind == DATA:
            at["stride"] = _up(m.value_size, 8)
            at["values"] = private.take(at["stride"])
        placed.append((m, at, shared, per_core))
    private_bytes = _up(private.at + PAGE, PAGE) + PAGE  # room for the colour, then a guard page
    shared_bytes, core_bytes = (_up(part.at, PAGE) + PAGE if part.at else 0 for part in (once, each))  # room for the colour
    if private_bytes + shared_bytes + core_bytes > MAX_INSTANCE:
        need = (private_bytes + shared_bytes + core_bytes) >> 20
        raise LayoutError(f"the maps need {need} MiB; an instance has at most {MAX_INSTANCE >> 20}")
    layouts = []
    for m, at, shared, per_core in placed:
        offset = at["values"] + (shared_bytes if per_core else 0) if shared else None
        if offset is not None:
            at["values"] = private_bytes + offset
        if m.kind == BYTES and pool_sizes(m):
            at["free"] += private_bytes + shared_bytes
        layouts.append(
            MapLayout(
                name=m.name,
                kind=m.kind,
                value_size=m.value_size,
                max_entries=m.max_entries,
                shared=offset,
                per_core=per_core,
                initial=m.data or b"",
                **{"key_size": m.key_size, **at},
            )
        )
    return Layout(contexts, private_bytes, shared_bytes, core_bytes, shared_bytes, shared_bytes + RAW_RING, layouts)
