"""A region as the tenant sees it: rings, byte buffers, and the values of maps as NumPy structured arrays from BTF."""

from __future__ import annotations

import mmap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from chamelio.bpf.object import Object
from chamelio.jit.layout import DATA, RAW_RING, RING_IN, RING_OUT, Layout, MapLayout
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
    return {m.name: btf.dtype(m.value_type) for m in obj.maps if m.value_type is not None and m.kind != DATA}


def slow_columns(obj: Object) -> dict[str, list[str]]:
    """Per map the fields of its value that the slow path and applications write: those tagged CHAM_SLOW."""
    btf = obj.btf
    if btf is None:
        return {}
    found = {}
    for m in obj.maps:
        if m.value_type is not None and m.kind != DATA:
            tags = btf.decl_tags(btf.resolve_id(m.value_type))
            found[m.name] = [name for name in btf.dtype(m.value_type).names or () if "slow" in tags.get(name, [])]
    return found


def plain_type(dtype: np.dtype[Any]) -> Any:
    """A dtype as plain values, for `type_of` on the other side."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": plain_type(base), "shape": list(shape)}
    if dtype.fields is None or dtype.names is None:
        return dtype.str
    fields = [dtype.fields[name] for name in dtype.names]
    return {
        "names": list(dtype.names),
        "formats": [plain_type(f[0]) for f in fields],
        "offsets": [f[1] for f in fields],
        "itemsize": dtype.itemsize,
    }


def type_of(plain: Any) -> np.dtype[Any]:
    """The dtype that `plain_type` has made plain."""
    if isinstance(plain, str):
        return np.dtype(plain)
    if "base" in plain:
        return np.dtype((type_of(plain["base"]), tuple(plain["shape"])))
    form: Any = {**plain, "formats": [type_of(form) for form in plain["formats"]]}
    dtype: np.dtype[Any] = np.dtype(form)
    return dtype


class Values(Array):
    """Values of a shared map: a structured array in which only the columns that are ours to write are writable.

    `values["cwnd"] = x` and `values["cwnd"][rows] = x` write a slow column; other columns, and rows as a whole, are read-only.
    A slice is again such an array; rows chosen by a mask or a list are a copy, as everywhere in NumPy.
    """

    _writable: Array
    _slow: frozenset[str]

    def __new__(cls, content: memoryview, at: int, shape: tuple[int, ...], strides: tuple[int, ...],
                dtype: np.dtype[Any], slow: frozenset[str]) -> Values:  # fmt: skip
        """A view of `content`."""
        self = super().__new__(cls, shape, dtype, content, at, strides)
        self.flags.writeable = False
        self._writable, self._slow = np.ndarray(shape, dtype, content, at, strides), slow
        return self

    def __array_finalize__(self, source: Any) -> None:
        """Whatever NumPy derives from this array by itself is read-only."""
        self._slow = frozenset()

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self._writable[key] if key in self._slow else self.view(np.ndarray)[key]
        if isinstance(key, slice) and self._slow:
            part: Any = super().__getitem__(key)
            part._writable, part._slow = self._writable[key], self._slow
            return part
        return self.view(np.ndarray)[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        if not (isinstance(key, str) and key in self._slow):
            what = f"field {key!r} is" if isinstance(key, str) else "whole rows are"
            own = ", ".join(sorted(self._slow)) or "none"
            raise ValueError(f"{what} the handlers' to write; fields tagged CHAM_SLOW are ours: {own}")
        self._writable[key] = value


class Region:
    """A mapped region. `types` gives the value type of each map, `slow` the fields that are ours to write; `fd` is not kept.

    Rings exist once for each of the engine's `cores`; arrays and buffers once. `wake` are the descriptors by which each core is
    woken when it sleeps; without them an idle engine notices what is put into its rings with a delay.
    """

    def __init__(
        self,
        fd: int,
        origin: int,
        layout: Layout,
        types: Mapping[str, np.dtype[Any]],
        slow: Mapping[str, Collection[str]],
        wake: Sequence[int] = (),
    ) -> None:
        self._wake = list(wake)
        self._mapping = mmap.mmap(fd, 0)
        self.cores = (len(self._mapping) - layout.shared_bytes) // layout.core_bytes
        self.content = memoryview(self._mapping)[origin:]
        self.layout = layout
        self.types = dict(types)
        self.slow = {name: frozenset(fields) for name, fields in slow.items()}
        self.maps: dict[str, MapLayout] = {m.name: m for m in layout.maps}

    def _shared(self, name: str, *kinds: int) -> tuple[MapLayout, int]:
        m = self.maps.get(name)
        if m is None:
            raise KeyError(f"there is no map {name!r} (maps: {', '.join(self.maps)})")
        if m.shared is None or (kinds and m.kind not in kinds):
            raise KeyError(f"map {name} has no such shared part")
        return m, m.shared

    def values(self, name: str) -> Values:
        """The values of a shared map, one row per index. What we write handlers see at once; what they write is read-only."""
        m, at = self._shared(name)
        slow = self.slow.get(name, frozenset())
        return Values(self.content, at, (m.max_entries,), (m.stride,), self.types[name], slow)

    def column(self, name: str, field: str, *, writable: bool = False) -> Array:
        """One field of all values of a shared map. Only its one writer gets it writable: ValueError for a handlers' field."""
        values = self.values(name)
        if writable and field not in self.slow.get(name, ()):
            raise ValueError(f"field {field!r} of map {name} is the handlers' to write; tag it CHAM_SLOW if it is to be ours")
        view: Array = values[field]
        if not writable:
            view = view.view()
            view.flags.writeable = False
        return view

    def buffers(self, name: str) -> Array:
        """The byte buffers of a bytes map, one row per id. A pool's are had one by one: `buffer`."""
        m, at = self._shared(name)
        if m.per_core:
            raise KeyError(f"map {name} is a pool: its buffers come and go, see `buffer`")
        return np.ndarray((m.max_entries, m.value_size), np.uint8, self.content, at)

    def buffer(self, name: str, id_: int, core: int = 0) -> Array:
        """The bytes of the buffer that an id of a pool has now on a core; empty if it has none. It moves when it grows."""
        m, at = self._shared(name)
        arena = at + core * self.layout.core_bytes
        places = m.free - self.layout.private_bytes + core * self.layout.core_bytes
        offset, size = np.ndarray((m.max_entries, 2), "<u4", self.content, places)[id_].tolist()
        if size > m.value_size or offset + size > m.stride << m.key_size:
            size = 0  # who writes there besides the engine harms himself
        return np.ndarray((size,), np.uint8, self.content, arena + (offset if size else 0))

    def consumer(self, name: str, context: int, core: int = 0) -> Consumer:
        """The outbound ring of a context, from a core."""
        m, at = self._shared(name, RING_OUT)
        at += context * m.context_stride + core * self.layout.core_bytes
        return Consumer(self.content, at, m.stride, m.max_entries, self.types[name])

    def producer(self, name: str, context: int, core: int = 0) -> Producer:
        """The inbound ring of a context, to a core."""
        m, at = self._shared(name, RING_IN)
        at += context * m.context_stride + core * self.layout.core_bytes
        return Producer(self.content, at, m.stride, m.max_entries, self.types[name], self._bell(core))

    def punted(self, core: int = 0) -> Consumer:
        """Packets that handlers of a core gave to the slow path."""
        return Consumer(self.content, self.layout.punt + core * self.layout.core_bytes, RAW.itemsize, RAW_SLOTS, RAW)

    def raw_output(self, core: int = 0) -> Producer:
        """Packets that the slow path sends by a core."""
        assert self.layout.xmit == self.layout.punt + RAW_RING
        at = self.layout.xmit + core * self.layout.core_bytes
        return Producer(self.content, at, RAW.itemsize, RAW_SLOTS, RAW, self._bell(core))

    def _bell(self, core: int) -> int | None:
        return self._wake[core] if core < len(self._wake) else None
