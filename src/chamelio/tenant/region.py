"""A region as the tenant sees it: rings, byte buffers, and the values of maps as NumPy structured arrays from BTF."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np

from chamelio.bpf.object import Object
from chamelio.jit.layout import RAW_RING, RING_IN, RING_OUT, Layout, MapLayout
from chamelio.tenant.rings import Consumer, Producer

Array = np.ndarray[Any, np.dtype[Any]]

RAW_SLOTS = 64
RAW_MAX = 2016
# struct cham_raw: a packet between provider and slow path, in a format that the provider defines
RAW = np.dtype(
    [("len", "<u4"), ("flags", "<u4"), ("now", "<u8"), ("hash", "<u4"), ("reserved", "<u4", 3), ("bytes", "u1", RAW_MAX)]
)


def value_types(obj: Object) -> dict[str, np.dtype[Any]]:
    """The value type of every map of an object that declares one."""
    btf = obj.btf
    if btf is None:
        return {}
    return {m.name: btf.dtype(m.value_type) for m in obj.maps if m.value_type is not None}


def fast_columns(obj: Object, map_name: str) -> list[str]:
    """Fields of a map's value that handlers write: those not tagged "slow"."""
    found = next(m for m in obj.maps if m.name == map_name)
    if obj.btf is None or found.value_type is None:
        return []
    tags = obj.btf.decl_tags(obj.btf.resolve_id(found.value_type))
    names = obj.btf.dtype(found.value_type).names or ()
    return [name for name in names if "slow" not in tags.get(name, [])]


class Region:
    """A mapped region. `types` gives the value type of each map; the descriptor is not kept.

    Rings exist once for each of the engine's `cores`; arrays and buffers once.
    """

    def __init__(self, fd: int, origin: int, layout: Layout, types: Mapping[str, np.dtype[Any]]) -> None:
        self._mapping = mmap.mmap(fd, 0)
        self.cores = (len(self._mapping) - layout.shared_bytes) // layout.core_bytes
        self.content = memoryview(self._mapping)[origin:]
        self.layout = layout
        self.types = dict(types)
        self.maps: dict[str, MapLayout] = {m.name: m for m in layout.maps}

    def _shared(self, name: str, *kinds: int) -> tuple[MapLayout, int]:
        m = self.maps.get(name)
        if m is None:
            raise KeyError(f"there is no map {name!r} (maps: {', '.join(self.maps)})")
        if m.shared is None or (kinds and m.kind not in kinds):
            raise KeyError(f"map {name} has no such shared part")
        return m, m.shared

    def values(self, name: str) -> Array:
        """The values of a shared map, one row per index: what the tenant writes handlers see at once."""
        m, at = self._shared(name)
        return np.ndarray((m.max_entries,), self.types[name], self.content, at, (m.stride,))

    def column(self, name: str, field: str, *, writable: bool = False) -> Array:
        """One field of all values of a shared map. Only its one writer asks for it writable."""
        view: Array = self.values(name)[field]
        view.flags.writeable = writable
        return view

    def buffers(self, name: str) -> Array:
        """The byte buffers of a bytes map, one row per id."""
        m, at = self._shared(name)
        return np.ndarray((m.max_entries, m.value_size), np.uint8, self.content, at)

    def consumer(self, name: str, context: int, core: int = 0) -> Consumer:
        """The outbound ring of a context, from a core."""
        m, at = self._shared(name, RING_OUT)
        at += context * m.context_stride + core * self.layout.core_bytes
        return Consumer(self.content, at, m.stride, m.max_entries, self.types[name])

    def producer(self, name: str, context: int, core: int = 0) -> Producer:
        """The inbound ring of a context, to a core."""
        m, at = self._shared(name, RING_IN)
        at += context * m.context_stride + core * self.layout.core_bytes
        return Producer(self.content, at, m.stride, m.max_entries, self.types[name])

    def punted(self, core: int = 0) -> Consumer:
        """Packets that handlers of a core gave to the slow path."""
        return Consumer(self.content, self.layout.punt + core * self.layout.core_bytes, RAW.itemsize, RAW_SLOTS, RAW)

    def raw_output(self, core: int = 0) -> Producer:
        """Packets that the slow path sends by a core."""
        assert self.layout.xmit == self.layout.punt + RAW_RING
        return Producer(self.content, self.layout.xmit + core * self.layout.core_bytes, RAW.itemsize, RAW_SLOTS, RAW)
