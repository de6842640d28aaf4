"""A tenant of a host without processes of its own: one instance, and its region as its slow path and applications see it.

Whoever drives it plays those, honestly or not: `Ring` has the methods of an honest one and the bare indices for lies.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np

from chamelio.engine import abi
from chamelio.engine.engine import Engine
from chamelio.engine.instance import Instance
from chamelio.jit.artifact import UnitImage

RING_HEADER = 128
RAW_SLOTS = 64
_U32 = 0xFFFFFFFF

Dtype = np.dtype[Any]


class Ring:
    """The tenant's end of one ring of one context, of either direction."""

    def __init__(self, content: memoryview, at: int, stride: int, slots: int, dtype: Dtype) -> None:
        self.words = np.frombuffer(content, np.uint32, 17 + 1, at)
        self.slots = slots
        raw = np.frombuffer(content, np.uint8, stride * slots, at + RING_HEADER).reshape(slots, stride)
        self.entries = [raw[i, : dtype.itemsize].view(dtype) for i in range(slots)]

    @property
    def prod(self) -> int:
        """Producer index, as it is in memory."""
        return int(self.words[0])

    @prod.setter
    def prod(self, value: int) -> None:
        self.words[0] = value & _U32

    @property
    def cons(self) -> int:
        """Consumer index, as it is in memory."""
        return int(self.words[16])

    @cons.setter
    def cons(self, value: int) -> None:
        self.words[16] = value & _U32

    def sleep(self, asleep: bool = True) -> None:
        """Ask to be woken by the context's bell, or not."""
        self.words[17] = int(asleep)

    def put(self, *values: int) -> None:
        """Write one entry."""
        self.entries[self.prod % self.slots][0] = values
        self.prod += 1

    def fill(self, *values: int) -> None:
        """Write as many entries as there is room for."""
        while (self.prod - self.cons) & _U32 < self.slots:
            self.put(*values)

    def drain(self) -> None:
        """Take what is there unseen."""
        self.cons = self.prod

    def take(self) -> list[tuple[Any, ...]]:
        """Take what is there."""
        out = []
        while self.cons != self.prod:
            out.append(tuple(self.entries[self.cons % self.slots][0].tolist()))
            self.cons += 1
        return out


class Tenant:
    """A tenant with one instance, all its contexts attached.

    `unit` is a loaded unit's index or an image, which is loaded; `types` are the value types of its rings by name; `beside` is the
    tenant that gets another instance instead.
    """

    def __init__(
        self, host: Engine, at: str, unit: int | UnitImage, types: Mapping[str, Dtype], *, weight: int = 1, ring_start: int = 0,
        protocol: int = 17, frame_quota: int = 1024, network: int = 0, beside: int | None = None,
    ) -> None:  # fmt: skip
        self.host, self.address, self._types = host, at, types
        self.index = host.add_tenant(weight, frame_quota) if beside is None else beside
        host.bind_address(self.index, at, network)
        self.unit = unit if isinstance(unit, int) else host.load_unit(unit)
        self.instance: Instance = host.add_instance(self.index, self.unit, at, protocol, ring_start=ring_start, network=network)
        self._mapping = mmap.mmap(self.instance.region_fd, 0)
        self.content = memoryview(self._mapping)[self.instance.origin :]
        for context in range(self.instance.layout.contexts):
            host.attach(self.instance.index, context)

    def ring(self, name: str, context: int) -> Ring:
        """One ring of a map."""
        m = next(m for m in self.instance.layout.maps if m.name == name)
        assert m.shared is not None
        return Ring(self.content, m.shared + context * m.context_stride, m.stride, m.max_entries, self._types[name])

    def raw(self, which: str) -> Ring:
        """The provider's raw ring: "punt" or "xmit"."""
        at = getattr(self.instance.layout, which)
        return Ring(self.content, at, abi.dtype("cham_raw").itemsize, RAW_SLOTS, abi.dtype("cham_raw"))

    @property
    def counters(self) -> Any:
        """Its instance's `struct cham_instance_counters`."""
        return self.host.counters()["instances"][self.instance.index]
